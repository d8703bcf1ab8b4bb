//! Sealing: without the cluster key nobody can read or forge a packet, on any MQTT server. A replayed packet opens,
//! but does not count: see `packet.rs`.
//!
//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03) with the 256-bit cluster key. The nonce is the 16-byte epoch of
//! the sender, followed by its 8-byte packet sequence. Both are in the header, which is the associated data.

use alloc::string::String;
use core::fmt;
use core::fmt::Write as _;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};

use crate::Epoch;

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// The 256-bit key of a cluster, ready to seal and open.
#[derive(Clone)]
pub struct ClusterKey {
    bytes: [u8; 32],
    cipher: XChaCha20Poly1305,
}

/// Never shows the key.
impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({:02x})", self.key_id())
    }
}

/// The packet was not sealed with this key, or was changed on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenError;

impl ClusterKey {
    /// Makes a key from 32 bytes, which must come from a true random source.
    pub fn new(bytes: [u8; 32]) -> ClusterKey {
        ClusterKey { bytes, cipher: XChaCha20Poly1305::new(&bytes.into()) }
    }

    /// The bytes of the key, for a cluster file or a join token.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.bytes
    }

    /// The byte with which packets name their key. It reveals nothing about the key.
    pub fn key_id(&self) -> u8 {
        self.derive("key id")[0]
    }

    /// The password with which nodes log in to an MQTT server that checks passwords: 32 hexadecimal digits.
    pub fn mqtt_password(&self) -> String {
        let mut password = String::with_capacity(32);
        for byte in &self.derive("mqtt password")[..16] {
            write!(password, "{byte:02x}").expect("writing to a String cannot fail");
        }
        password
    }

    /// Seals `plaintext` in place. The tag follows it.
    pub(crate) fn seal(&self, epoch: Epoch, sequence: u64, header: &[u8], plaintext: &mut [u8]) -> [u8; TAG_BYTES] {
        self.cipher
            .encrypt_inout_detached(&nonce(epoch, sequence), header, plaintext.into())
            .expect("a packet is far shorter than the cipher's limit")
            .into()
    }

    /// Opens `ciphertext` in place.
    pub(crate) fn open(
        &self,
        epoch: Epoch,
        sequence: u64,
        header: &[u8],
        ciphertext: &mut [u8],
        tag: [u8; TAG_BYTES],
    ) -> Result<(), OpenError> {
        self.cipher
            .decrypt_inout_detached(&nonce(epoch, sequence), header, ciphertext.into(), &Tag::from(tag))
            .map_err(|_| OpenError)
    }

    /// Derives a separate secret for each use: SHA-256 over a label and the key.
    fn derive(&self, label: &str) -> [u8; 32] {
        Sha256::new().chain_update(b"broccoli ").chain_update(label).chain_update(self.bytes).finalize().into()
    }
}

fn nonce(epoch: Epoch, sequence: u64) -> XNonce {
    let mut nonce = [0; 24];
    nonce[..16].copy_from_slice(&epoch.0);
    nonce[16..].copy_from_slice(&sequence.to_be_bytes());
    nonce.into()
}
