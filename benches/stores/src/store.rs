//! What the journal needs of a store, and the records that are stored. Writes no file.

use std::error::Error;
use std::path::Path;

/// Any failure of a store. Only the text is compared.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes of a key: the job (u64) and the number of its record (u32), big-endian.
pub const KEY_LEN: usize = 12;

/// One change of the journal.
pub enum Op {
    /// Writes record `no` of `job`. Each key is written once.
    Put { job: u64, no: u32, value: Vec<u8> },
    /// Deletes all records of `job`: `0..records`.
    Forget { job: u64, records: u32 },
}

impl Op {
    /// Bytes of the change, without the framing of a store.
    pub fn payload_len(&self) -> u64 {
        match self {
            Self::Put { value, .. } => (KEY_LEN + value.len()) as u64,
            Self::Forget { .. } => KEY_LEN as u64,
        }
    }
}

/// An embedded store. Opening it creates what is missing, and recovers after a crash.
pub trait Store: Send + Sized {
    /// Opens the store in an existing folder.
    fn open(dir: &Path) -> Result<Self>;
    /// Applies all of `ops` or none. Returns when they are on the disk.
    fn commit(&mut self, ops: &[Op]) -> Result<()>;
    /// Passes each record to `each`, in the order of the keys if the store has one.
    fn scan(&self, each: &mut dyn FnMut(u64, u32, &[u8])) -> Result<()>;
}

/// The key as bytes that sort like the numbers.
#[cfg(feature = "fjall")]
pub fn key(job: u64, no: u32) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key[..8].copy_from_slice(&job.to_be_bytes());
    key[8..].copy_from_slice(&no.to_be_bytes());
    key
}

/// Pseudo-random numbers from a seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// The content of a record, always the same: record 0 is a canvas of 60 B to 4 KB, with sizes evenly distributed on a
/// logarithmic scale; the others are outcomes of 40 to 200 B.
pub fn value(job: u64, no: u32) -> Vec<u8> {
    let mut random = Random(job << 32 ^ u64::from(no));
    let len = if no == 0 {
        let octave = random.below(6);
        let low = 60u64 << octave;
        low + random.below((low).min(4096 - low).max(1))
    } else {
        40 + random.below(161)
    };
    blob(&mut random, len as usize)
}

/// A CBOR byte string of `len` bytes in all. Half of it are words that can be compressed.
pub fn blob(random: &mut Random, len: usize) -> Vec<u8> {
    let body = (len - 3) as u16;
    let mut bytes = vec![0x59, (body >> 8) as u8, body as u8];
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
        bytes.extend_from_slice(b"demo.add");
    }
    bytes.truncate(len);
    bytes
}
