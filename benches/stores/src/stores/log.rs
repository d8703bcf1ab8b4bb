//! A log of our own: each batch is appended and synced, a segment goes once all of its jobs are forgotten. It is the floor
//! for what a sync costs, and shows what a store would have to be better at.
//!
//! ```text
//! segment = batches, then zeros up to SEGMENT_LEN
//! batch   = length of the body (u32) | CRC of the length (u32) | CRC of the body (u32) | body
//! body    = entries: job (u64) | no (u32) | length of the value (u32), or all ones for "forget" | value
//! ```
//!
//! Only the last batch can be torn, because each is synced before the next: a bad one with a good one after it is damage.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::store::{Op, Result, Store};

const SEGMENT_LEN: usize = 8 << 20;
/// Below this number of segments nothing is copied to give back space.
const SEGMENTS_MIN: usize = 4;
const HEAD_LEN: usize = 12;
const ENTRY_LEN: usize = 16;
const FORGET: u32 = u32::MAX;

pub struct Log {
    dir: PathBuf,
    file: File,
    segment: u32,
    /// Where the next batch goes in the last segment.
    at: usize,
    /// Segment and length of each record that is not forgotten, by job.
    homes: BTreeMap<u64, Vec<(u32, u32)>>,
    /// Bytes in each segment that are not forgotten.
    live: BTreeMap<u32, usize>,
}

impl Store for Log {
    fn open(dir: &Path) -> Result<Self> {
        let mut found: Vec<u32> =
            crate::probe::files(dir)?.iter().flat_map(|file| file.file_stem()?.to_str()?.parse().ok()).collect();
        found.sort_unstable();
        let segment = found.last().copied().unwrap_or(0);
        let (homes, live) = (BTreeMap::new(), BTreeMap::new());
        let mut log = Self { dir: dir.into(), file: start(dir, segment, 0)?, segment, at: 0, homes, live };
        for number in found {
            let bytes = fs::read(path(dir, number))?;
            log.live.insert(number, 0);
            log.at = walk(&bytes, number == segment, &mut |op| log.note(number, &op))
                .map_err(|error| format!("segment {number}: {error}"))?;
        }
        log.file = start(dir, segment, log.at)?;
        log.live.entry(segment).or_default();
        Ok(log)
    }

    fn commit(&mut self, ops: &[Op]) -> Result<()> {
        self.append(ops)?;
        self.reclaim()
    }

    fn scan(&self, each: &mut dyn FnMut(u64, u32, &[u8])) -> Result<()> {
        for number in self.live.keys() {
            let bytes = fs::read(path(&self.dir, *number))?;
            walk(&bytes, *number == self.segment, &mut |op| {
                if let Op::Put { job, no, value } = op
                    && self.homes.contains_key(&job)
                {
                    each(job, no, &value);
                }
            })?;
        }
        Ok(())
    }
}

impl Log {
    fn append(&mut self, ops: &[Op]) -> Result<()> {
        let bytes = encode(ops);
        if self.at > 0 && self.at + bytes.len() > SEGMENT_LEN {
            self.file.set_len(self.at as u64)?;
            self.file.sync_all()?;
            self.segment += 1;
            self.file = start(&self.dir, self.segment, 0)?;
            self.at = 0;
            self.live.insert(self.segment, 0);
        }
        self.file.write_all_at(&bytes, self.at as u64)?;
        self.file.sync_data()?;
        self.at += bytes.len();
        ops.iter().for_each(|op| self.note(self.segment, op));
        Ok(())
    }

    /// Counts what a change that is on the disk keeps alive.
    fn note(&mut self, segment: u32, op: &Op) {
        match op {
            Op::Put { job, value, .. } => {
                self.homes.entry(*job).or_default().push((segment, value.len() as u32));
                *self.live.entry(segment).or_default() += value.len();
            }
            Op::Forget { job, .. } => {
                for (segment, len) in self.homes.remove(job).unwrap_or_default() {
                    self.live.entry(segment).and_modify(|live| *live -= len as usize);
                }
            }
        }
    }

    /// Deletes the oldest segments, the one order in which no "forget" goes before what it forgets. Copies what is alive
    /// in them as long as more than half of the log is dead.
    fn reclaim(&mut self) -> Result<()> {
        while let Some((&oldest, &live)) = self.live.first_key_value()
            && oldest != self.segment
        {
            let all = self.live.values().sum::<usize>();
            if live > 0 && (self.live.len() <= SEGMENTS_MIN || all * 2 > self.live.len() * SEGMENT_LEN) {
                break;
            }
            if live > 0 {
                self.copy(oldest)?;
            }
            fs::remove_file(path(&self.dir, oldest))?;
            self.live.remove(&oldest);
        }
        Ok(())
    }

    fn copy(&mut self, oldest: u32) -> Result<()> {
        let bytes = fs::read(path(&self.dir, oldest))?;
        let mut ops = Vec::new();
        walk(&bytes, false, &mut |op| {
            if let Op::Put { job, .. } = &op
                && let Some(homes) = self.homes.get_mut(job)
            {
                homes.retain(|(segment, _)| *segment != oldest);
                ops.push(op);
            }
        })?;
        self.append(&ops)
    }
}

fn path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.log"))
}

/// Opens a segment with nothing but zeros from `at` on.
fn start(dir: &Path, segment: u32, at: usize) -> Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path(dir, segment))?;
    if at > 0 || file.metadata()?.len() == 0 {
        file.set_len(at as u64)?;
        file.set_len(SEGMENT_LEN.max(at) as u64)?;
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
    }
    Ok(file)
}

fn encode(ops: &[Op]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_LEN];
    for op in ops {
        let (job, no, len, value) = match op {
            Op::Put { job, no, value } => (*job, *no, value.len() as u32, value.as_slice()),
            Op::Forget { job, records } => (*job, *records, FORGET, [].as_slice()),
        };
        bytes.extend_from_slice(&job.to_be_bytes());
        bytes.extend_from_slice(&no.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(value);
    }
    let len = ((bytes.len() - HEAD_LEN) as u32).to_be_bytes();
    let body = crc32fast::hash(&bytes[HEAD_LEN..]);
    bytes[..4].copy_from_slice(&len);
    bytes[4..8].copy_from_slice(&crc32fast::hash(&len).to_be_bytes());
    bytes[8..HEAD_LEN].copy_from_slice(&body.to_be_bytes());
    bytes
}

/// Gives each entry of a segment and says where its batches end. Only the last segment may end in a torn one.
fn walk(bytes: &[u8], last: bool, each: &mut dyn FnMut(Op)) -> Result<usize> {
    let mut at = 0;
    while let Some(body) = batch(bytes, at) {
        decode(body, each)?;
        at += HEAD_LEN + body.len();
    }
    let zeros = bytes[at..].iter().all(|byte| *byte == 0);
    if !zeros && (!last || (at + 1..bytes.len()).any(|later| batch(bytes, later).is_some())) {
        return Err(format!("damaged batch at byte {at}").into());
    }
    Ok(at)
}

/// The body of the batch at `at`, if all of it is there and right.
fn batch(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let (head, rest) = bytes[at..].split_at_checked(HEAD_LEN)?;
    let len = number(head, 0);
    let right = len > 0 && crc32fast::hash(&head[..4]) == number(head, 4);
    let body = right.then(|| rest.get(..len as usize)).flatten()?;
    (crc32fast::hash(body) == number(head, 8)).then_some(body)
}

fn decode(mut body: &[u8], each: &mut dyn FnMut(Op)) -> Result<()> {
    while !body.is_empty() {
        let (head, rest) = body.split_at_checked(ENTRY_LEN).ok_or("short entry")?;
        let job = u64::from(number(head, 0)) << 32 | u64::from(number(head, 4));
        let (no, len) = (number(head, 8), number(head, 12));
        if len == FORGET {
            each(Op::Forget { job, records: no });
            body = rest;
            continue;
        }
        let (value, rest) = rest.split_at_checked(len as usize).ok_or("short value")?;
        each(Op::Put { job, no, value: value.to_vec() });
        body = rest;
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
