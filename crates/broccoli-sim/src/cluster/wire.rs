//! Packets, keys and modules of the cluster, for tests that inspect them or make their own.

use broccoli_proto::message::Message;
use broccoli_proto::module::{DeployPublic, Manifest, SignedManifest};
use broccoli_proto::packet::{self, Address, Envelope, Header};
use broccoli_proto::seal::ClusterKey;
use broccoli_proto::{Epoch, SplitMix64};
use ed25519_dalek::SigningKey;

use super::functions;

/// Opens a packet as the node that it is for. Messages of a later version are left out.
pub fn open(bytes: &[u8]) -> (Header, Vec<Message>) {
    let header: Header = minicbor::decode(bytes).expect("a header");
    let me = header.destination.unwrap_or(header.sender);
    let mut bytes = bytes.to_vec();
    let (header, plaintext) = packet::open(&[cluster_key()], me, &mut bytes).expect("opens");
    (header, packet::messages(plaintext).flatten().collect())
}

/// What a packet says of itself that anybody with the key seals.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// In whose name.
    pub sender: &'a str,
    /// For whom.
    pub to: Address,
    /// Of which incarnation.
    pub epoch: Epoch,
    /// Its number.
    pub sequence: u64,
    /// What it repeats: see [`broccoli_core::Node::audit_challenge`].
    pub proof: Option<u64>,
}

impl Sealed<'_> {
    /// The packet with these messages.
    pub fn packet(self, messages: &[Message]) -> Vec<u8> {
        let Sealed { to, epoch, sequence, proof, .. } = self;
        let envelope =
            Envelope { sender: self.sender.parse().expect("a name"), to, epoch, sequence, challenge: 1, proof };
        let mut buf = Vec::new();
        packet::seal(&cluster_key(), &envelope, &mut buf, |buf| {
            for message in messages {
                packet::put(buf, message);
            }
        });
        buf
    }
}

/// A message that only a later version knows: `[200, [[1, "later"]]]`.
const LATER: [u8; 12] = [0x82, 0x18, 200, 0x81, 0x82, 0x01, 0x65, b'l', b'a', b't', b'e', b'r'];
/// What it adds to a packet.
pub(super) const LATER_BYTES: usize = LATER.len();

/// Puts such a message before or behind the others in a packet.
pub(super) fn with_later_message(bytes: &mut Vec<u8>, front: bool) {
    let header: Header = minicbor::decode(bytes).expect("a header");
    let me = header.destination.unwrap_or(header.sender);
    let mut before = std::mem::take(bytes);
    let (header, plaintext) = packet::open(&[cluster_key()], me, &mut before).expect("opens");
    let many = packet::messages(plaintext).count() + 1 > packet::MESSAGES_MAX;
    let Header { sender, epoch, sequence, challenge, proof, .. } = header;
    let to = header.destination.map_or(Address::All, Address::Node);
    packet::seal(&cluster_key(), &Envelope { sender, to, epoch, sequence, challenge, proof }, bytes, |buf| {
        let later: &[u8] = if many { &[] } else { &LATER };
        let parts = if front { [later, plaintext] } else { [plaintext, later] };
        for part in parts {
            buf.extend_from_slice(part);
        }
    });
}

/// The key of the cluster.
pub fn cluster_key() -> ClusterKey {
    ClusterKey::new([7; 32])
}

fn deploy_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

pub(super) fn deploy_public() -> DeployPublic {
    DeployPublic(deploy_key().verifying_key().to_bytes())
}

/// A module `app` with a function `version`, and its code.
pub fn module(version: u64, signed_well: bool) -> (SignedManifest, Vec<u8>) {
    let code: Vec<u8> = (0..40_000u64).map(|at| SplitMix64::mix(at ^ version << 32) as u8).collect();
    let key = if signed_well { deploy_key() } else { SigningKey::from_bytes(&[4; 32]) };
    let manifest =
        Manifest::new("app", version, &code, vec![functions::version_function()].into()).expect("within limits");
    (manifest.sign(&key), code)
}

/// What takes `app` away.
pub fn tombstone(version: u64) -> SignedManifest {
    Manifest::tombstone("app", version).expect("within limits").sign(&deploy_key())
}

/// The messages of a packet, shortened.
pub(super) fn brief(packet: &[u8]) -> String {
    let texts: Vec<String> = open(packet).1.iter().map(|message| cropped(format!("{message:?}"))).collect();
    texts.join("; ")
}

pub(super) fn cropped(mut text: String) -> String {
    const LEN_MAX: usize = 240;
    if text.len() > LEN_MAX {
        text.truncate((0..=LEN_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        text.push('…');
    }
    text
}
