//! Ids of nodes, incarnations, jobs, modules and other content.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Longest name of a node, in bytes.
pub const NODE_NAME_BYTES_MAX: usize = 31;

/// The name of a node, unique in its cluster: 1 to 31 of `a-z A-Z 0-9 . - _`, not starting with `_`.
///
/// It is small and `Copy`, because every packet names two of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    // Ordering by bytes first keeps names in alphabetical order: unused bytes are zero.
    bytes: [u8; NODE_NAME_BYTES_MAX],
    len: u8,
}

/// Why a text is not a valid node name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadName;

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name has 1 to {NODE_NAME_BYTES_MAX} of a-z A-Z 0-9 . - _ and does not start with _")
    }
}

impl core::error::Error for BadName {}

impl NodeId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("checked to be ASCII when made")
    }
}

impl FromStr for NodeId {
    type Err = BadName;

    fn from_str(text: &str) -> Result<NodeId, BadName> {
        let allowed = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let valid = (1..=NODE_NAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| allowed(&b))
            && !text.starts_with('_');
        if !valid {
            return Err(BadName);
        }
        let mut bytes = [0; NODE_NAME_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(NodeId { bytes, len: text.len() as u8 })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<C> Encode<C> for NodeId {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(self.as_str())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for NodeId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<NodeId, decode::Error> {
        d.str()?.parse().map_err(|BadName| decode::Error::message("not a node name"))
    }
}

/// A 16-byte value that CBOR carries as a byte string.
macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[n(0)] #[cbor(with = "minicbor::bytes")] pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0[..4].iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    };
}

byte_id! {
    /// One incarnation of a node: random, made at every start, never used twice.
    ///
    /// Half of a packet's nonce, so it must come from a true random source.
    Epoch, 16
}

byte_id! {
    /// SHA-256 of a module's manifest, which contains the hash of the code; for native functions, of their
    /// descriptions.
    ModuleHash, 32
}

byte_id! {
    /// The SHA-256 by which nodes pull content from each other: of a value that is too large for a packet, or the
    /// [`ModuleHash`] that stands for the code of a module.
    ContentId, 32
}

impl From<ModuleHash> for ContentId {
    fn from(module: ModuleHash) -> ContentId {
        ContentId(module.0)
    }
}

impl From<ContentId> for ModuleHash {
    fn from(content: ContentId) -> ModuleHash {
        ModuleHash(content.0)
    }
}

/// The id of an accepted canvas: the origin that holds it, and a number that this origin never uses twice.
/// `Display`, `Debug` and `FromStr` use one form: `pi-1/0123456789abcdef`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct JobId {
    /// The node that accepted the canvas.
    #[n(0)]
    pub origin: NodeId,
    /// The upper half is the first 4 bytes of the origin's epoch. The lower half counts.
    #[n(1)]
    pub number: u64,
}

impl JobId {
    /// Job number `count` of `origin` in `epoch`.
    pub fn new(origin: NodeId, epoch: Epoch, count: u32) -> JobId {
        let [a, b, c, d, ..] = epoch.0;
        JobId { origin, number: u64::from(u32::from_be_bytes([a, b, c, d])) << 32 | u64::from(count) }
    }
}

/// `origin/16 hexadecimal digits`.
impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.origin, self.number)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = BadJobId;

    fn from_str(text: &str) -> Result<JobId, BadJobId> {
        let (origin, number) = text.split_once('/').ok_or(BadJobId)?;
        Ok(JobId {
            origin: origin.parse().map_err(|BadName| BadJobId)?,
            number: u64::from_str_radix(number, 16).map_err(|_| BadJobId)?,
        })
    }
}

/// The text is not a job id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadJobId;

impl fmt::Display for BadJobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job id looks like node/0123456789abcdef")
    }
}

impl core::error::Error for BadJobId {}

impl From<NodeId> for String {
    fn from(id: NodeId) -> String {
        id.as_str().into()
    }
}

/// Writes bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads exactly `N` bytes that are written as hexadecimal digits.
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn names_are_checked_and_ordered() {
        for bad in ["", "_all", "a/b", "a+b", "ä", &"x".repeat(32)] {
            assert_eq!(bad.parse::<NodeId>(), Err(BadName), "{bad}");
        }
        let (a, b) = ("pi-1".parse::<NodeId>(), "pi-10".parse::<NodeId>());
        assert!(a.is_ok_and(|a| b.is_ok_and(|b| a < b)));
    }

    #[test]
    fn job_ids_read_back() -> Result<(), BadJobId> {
        let id = JobId::new("pi-1".parse().map_err(|_| BadJobId)?, Epoch([7; 16]), 9);
        assert_eq!(id.to_string(), "pi-1/0707070700000009");
        assert_eq!(format!("{id:?}"), id.to_string());
        assert_eq!(id.to_string().parse::<JobId>()?, id);
        "pi-1".parse::<JobId>().map_or_else(|_| Ok(()), |_| Err(BadJobId))
    }
}
