//! A packet: a header in the clear, and sealed messages.
//!
//! ```text
//! packet = header ‖ ciphertext ‖ tag(16)
//! header = [ version, key id, sender, destination / null, epoch(16), sequence, challenge, proof / null ]    CBOR
//! plaintext = message ‖ message ‖ …                                                         CBOR sequence (RFC 8742)
//! ```
//!
//! A packet for one node contains a proof: the challenge that this node sent a moment ago. So an incarnation that is
//! online now made the packet after the challenge. What the receiver makes of that is not decided here.

use alloc::vec::Vec;

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::message::Message;
use crate::seal::{ClusterKey, TAG_BYTES};
use crate::{Epoch, NodeId};

/// Version of the wire protocol.
pub const VERSION: u8 = 2;
/// How many messages a packet may hold.
pub const MESSAGES_MAX: usize = 64;
/// The break code of an indefinite length; it is not an item.
const BREAK: u8 = 0xff;
/// An upper bound on the size of header and tag, to plan how much fits into a packet.
pub const OVERHEAD_BYTES_MAX: usize = 152;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// One node.
    Node(NodeId),
    /// Every node that watches the presence of this node.
    Birth(NodeId),
    /// Every node.
    All,
}

/// The part of a packet that is not secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// [`VERSION`].
    #[n(0)]
    pub version: u8,
    /// [`ClusterKey::key_id`].
    #[n(1)]
    pub key_id: u8,
    /// The node that sealed it.
    #[n(2)]
    pub sender: NodeId,
    /// The one node that it is for; none if it is for everybody.
    #[n(3)]
    pub destination: Option<NodeId>,
    /// The sender's incarnation.
    #[n(4)]
    pub epoch: Epoch,
    /// Counts the sender's packets of this epoch.
    #[n(5)]
    pub sequence: u64,
    /// An answer repeats this as its proof.
    #[n(6)]
    pub challenge: u64,
    /// The latest challenge of the destination.
    #[n(7)]
    pub proof: Option<u64>,
}

/// The header data of a packet that is to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The node that seals it.
    pub sender: NodeId,
    /// Where it goes.
    pub to: Address,
    /// The sender's incarnation.
    pub epoch: Epoch,
    /// Number of the packet in this epoch, never used twice.
    pub sequence: u64,
    /// An answer has to repeat this.
    pub challenge: u64,
    /// The latest challenge of the destination, if this is one node and the challenge is known.
    pub proof: Option<u64>,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketError {
    /// This is not a packet, or its content is not a sequence of CBOR items.
    Malformed,
    /// The message is unknown to this version, or contains something unknown. The rest of the packet counts.
    Unknown,
    /// Another version of the wire protocol.
    Version(u8),
    /// It was sealed with another key, or changed on the way.
    CannotOpen,
    /// For another node.
    Misdirected,
    /// It has been received before, or is older than later packets of its sender.
    Repeated,
    /// Nothing proves that its sender is online now.
    Unproven,
}

/// Writes messages into `buf` (cleared first) as one sealed packet.
///
/// `put_messages` appends encoded messages; it may write nothing.
pub fn seal(key: &ClusterKey, envelope: &Envelope, buf: &mut Vec<u8>, put_messages: impl FnOnce(&mut Vec<u8>)) {
    let draft = Draft::begin(key, envelope, buf);
    put_messages(buf);
    draft.seal(key, buf);
}

/// A packet under construction. Messages are appended to the buffer after the header, with [`put`]. The packet has
/// its own nonce and is sealed once, so this type cannot be cloned.
#[derive(Debug)]
pub struct Draft {
    header_bytes: usize,
    epoch: Epoch,
    sequence: u64,
}

impl Draft {
    /// Writes the header into `buf`, cleared first.
    pub fn begin(key: &ClusterKey, envelope: &Envelope, buf: &mut Vec<u8>) -> Draft {
        buf.clear();
        let Envelope { sender, to, epoch, sequence, challenge, proof } = *envelope;
        let destination = match to {
            Address::Node(node) => Some(node),
            Address::Birth(_) | Address::All => None,
        };
        let key_id = key.key_id();
        put(buf, &Header { version: VERSION, key_id, sender, destination, epoch, sequence, challenge, proof });
        Draft { header_bytes: buf.len(), epoch, sequence }
    }

    /// The number of bytes of the messages so far.
    pub fn message_bytes(&self, buf: &[u8]) -> usize {
        buf.len() - self.header_bytes
    }

    /// Encrypts the messages in place and appends the tag. The key must be the one given to `begin`.
    pub fn seal(self, key: &ClusterKey, buf: &mut Vec<u8>) {
        let (header, plaintext) = buf.split_at_mut(self.header_bytes);
        let tag = key.seal(self.epoch, self.sequence, header, plaintext);
        buf.extend_from_slice(&tag);
    }
}

/// Appends one message to a packet under construction.
pub fn put<T: Encode<()>>(buf: &mut Vec<u8>, message: &T) {
    Encoder::new(buf).encode(message).expect("writing to a Vec cannot fail");
}

/// Opens a packet in place, and returns its header and the bytes of its messages.
///
/// # Errors
/// See [`PacketError`]. In this case no content is trusted.
pub fn open<'b>(keys: &[ClusterKey], me: NodeId, packet: &'b mut [u8]) -> Result<(Header, &'b [u8]), PacketError> {
    let mut decoder = Decoder::new(packet);
    let header: Header = decoder.decode().map_err(|_| PacketError::Malformed)?;
    let header_bytes = decoder.position();
    if header.version != VERSION {
        return Err(PacketError::Version(header.version));
    }
    if header.destination.is_some_and(|destination| destination != me) {
        return Err(PacketError::Misdirected);
    }
    let sealed_bytes = packet.len().checked_sub(TAG_BYTES).ok_or(PacketError::Malformed)?;
    if sealed_bytes < header_bytes {
        return Err(PacketError::Malformed);
    }
    let (rest, tag) = packet.split_at_mut(sealed_bytes);
    let tag: [u8; TAG_BYTES] = (&*tag).try_into().map_err(|_| PacketError::Malformed)?;
    let (head, ciphertext) = rest.split_at_mut(header_bytes);
    let key = keys.iter().find(|key| key.key_id() == header.key_id).ok_or(PacketError::CannotOpen)?;
    key.open(header.epoch, header.sequence, head, ciphertext, tag).map_err(|_| PacketError::CannotOpen)?;
    Ok((header, ciphertext))
}

/// The messages of an opened packet, one by one. A message that this version does not know gives an error, and is
/// skipped. Bytes that are not a CBOR item end the iteration.
pub fn messages(mut plaintext: &[u8]) -> impl Iterator<Item = Result<Message, PacketError>> {
    let mut left = MESSAGES_MAX;
    core::iter::from_fn(move || {
        if plaintext.is_empty() {
            return None;
        }
        let mut decoder = Decoder::new(plaintext);
        let message = decoder.decode().map_err(|_| PacketError::Unknown);
        if message.is_err() {
            decoder = Decoder::new(plaintext);
        }
        let is_item = message.is_ok() || (plaintext[0] != BREAK && decoder.skip().is_ok());
        if left == 0 || !is_item {
            plaintext = &[];
            return Some(Err(PacketError::Malformed));
        }
        left -= 1;
        plaintext = &plaintext[decoder.position()..];
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: Epoch = Epoch([9; 16]);

    fn node(name: &str) -> NodeId {
        name.parse().expect("a name")
    }

    fn hello(key: &ClusterKey) -> Vec<u8> {
        let mut buf = Vec::new();
        let (sender, to) = (node("a"), Address::Node(node("b")));
        let envelope = Envelope { sender, to, epoch: EPOCH, sequence: 1, challenge: u64::MAX, proof: Some(7) };
        seal(key, &envelope, &mut buf, |buf| {
            put(buf, &Message::Hello);
            put(buf, &Message::VitalsRequest);
        });
        buf
    }

    #[test]
    fn a_packet_opens_with_its_key_only() {
        let key = ClusterKey::new([1; 32]);
        let mut packet = hello(&key);
        let (header, plaintext) = open(core::slice::from_ref(&key), node("b"), &mut packet).expect("opens");
        assert_eq!((header.sender, header.sequence), (node("a"), 1));
        assert_eq!((header.challenge, header.proof), (u64::MAX, Some(7)));
        let all: Result<Vec<_>, _> = messages(plaintext).collect();
        assert_eq!(all, Ok(alloc::vec![Message::Hello, Message::VitalsRequest]));

        let other = ClusterKey::new([2; 32]);
        assert_eq!(open(&[other], node("b"), &mut hello(&key)), Err(PacketError::CannotOpen));
        assert_eq!(open(core::slice::from_ref(&key), node("c"), &mut hello(&key)), Err(PacketError::Misdirected));
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let key = ClusterKey::new([1; 32]);
        let good = hello(&key);
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0x20;
            assert!(open(core::slice::from_ref(&key), node("b"), &mut changed).is_err(), "byte {at}");
            assert!(open(core::slice::from_ref(&key), node("b"), &mut good[..at].to_vec()).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_longest_header_and_its_tag_are_within_their_bound() {
        let (key, name) = (ClusterKey::new([1; 32]), node(&"a".repeat(31)));
        let (sequence, challenge, proof) = (u64::MAX, u64::MAX, Some(u64::MAX));
        let envelope = Envelope { sender: name, to: Address::Node(name), epoch: EPOCH, sequence, challenge, proof };
        let mut buf = Vec::new();
        seal(&key, &envelope, &mut buf, |_| {});
        assert!(buf.len() <= OVERHEAD_BYTES_MAX, "{}", buf.len());
    }

    #[test]
    fn the_number_of_messages_is_bounded() {
        let mut many = Vec::new();
        for _ in 0..MESSAGES_MAX + 9 {
            put(&mut many, &Message::Hello);
        }
        assert_eq!(messages(&many).filter(Result::is_ok).count(), MESSAGES_MAX);
        assert_eq!(messages(&many).last(), Some(Err(PacketError::Malformed)));
    }
}
