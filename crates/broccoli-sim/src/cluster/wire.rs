//! Packets, keys and modules of the cluster, for tests that look into them or make their own.

use broccoli_proto::Epoch;
use broccoli_proto::message::Message;
use broccoli_proto::module::{DeployPublic, Manifest, SignedManifest};
use broccoli_proto::packet::{self, Address, Header};
use broccoli_proto::seal::ClusterKey;
use ed25519_dalek::SigningKey;

use super::{functions, mix};

/// Opens a packet as the node that it is for.
pub fn open(bytes: &[u8]) -> (Header, Vec<Message>) {
    let header: Header = minicbor::decode(bytes).expect("a header");
    let me = header.destination.unwrap_or(header.sender);
    let mut bytes = bytes.to_vec();
    let (header, plaintext) = packet::open(&[cluster_key()], me, &mut bytes).expect("opens");
    (header, packet::messages(plaintext).map(|message| message.expect("a message")).collect())
}

/// Seals messages as any node of the cluster could.
pub fn seal(sender: &str, to: Address, epoch: Epoch, sequence: u64, messages: &[Message]) -> Vec<u8> {
    let mut buf = Vec::new();
    let sender = sender.parse().expect("a name");
    packet::seal(&cluster_key(), sender, to, epoch, sequence, &mut buf, |buf| {
        messages.iter().for_each(|message| packet::put(buf, message));
    });
    buf
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
    let code: Vec<u8> = (0..40_000u64).map(|at| mix(at ^ version << 32) as u8).collect();
    let key = if signed_well { deploy_key() } else { SigningKey::from_bytes(&[4; 32]) };
    let manifest =
        Manifest::new("app", version, &code, vec![functions::version_function()].into()).expect("within limits");
    (manifest.sign(&key), code)
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
