//! Deployed modules: what a manifest contains, and who has signed it.
//!
//! ```text
//! signed manifest = [ manifest: bytes, signature: 64 bytes ]      ed25519 (RFC 8032) over `manifest`
//! manifest        = [ name, version, hash, size, chunk_bytes, [chunk hash…], abi, [function…] ]
//! ```
//!
//! The signature covers the hash of the code, the name and the version. So nobody without the deploy key can add,
//! change, rename or roll back a module.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use broccoli_abi::builtin::is_builtin;
use broccoli_abi::{FUNCTIONS_MAX, Functions, NAME_LEN_MAX};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::{Cbor, ModuleHash};

/// Size of a chunk of a module, in bytes. It fits the packet limit of every node.
pub const CHUNK_BYTES: u32 = 2048;
/// Longest module, in bytes.
pub const MODULE_BYTES_MAX: u32 = 4 << 20;

/// One module in a node's set.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum ModuleEntry {
    /// Wasm, which nodes send to each other.
    #[n(0)]
    Wasm(#[n(0)] SignedManifest),
    /// Functions built into the program of a node, which are not sent.
    #[n(1)]
    Native(#[n(0)] NativeModule),
}

impl ModuleEntry {
    /// The id of the module.
    pub fn id(&self) -> ModuleHash {
        match self {
            ModuleEntry::Wasm(signed) => signed.id,
            ModuleEntry::Native(native) => native.id(),
        }
    }

    /// The module's name.
    pub fn name(&self) -> &str {
        match self {
            ModuleEntry::Wasm(signed) => &signed.manifest.name,
            ModuleEntry::Native(native) => &native.name,
        }
    }

    /// The version; 0 for native functions.
    pub fn version(&self) -> u64 {
        match self {
            ModuleEntry::Wasm(signed) => signed.manifest.version,
            ModuleEntry::Native(_) => 0,
        }
    }

    /// Its functions.
    pub fn functions(&self) -> &Functions {
        match self {
            ModuleEntry::Wasm(signed) => &signed.manifest.functions,
            ModuleEntry::Native(native) => &native.functions,
        }
    }
}

/// Functions that are part of a node's program.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct NativeModule {
    /// Name of the module.
    #[n(0)]
    pub name: String,
    /// Its functions.
    #[n(1)]
    pub functions: Functions,
}

impl NativeModule {
    /// Hash of the name and the descriptions. Equal programs have equal ids.
    pub fn id(&self) -> ModuleHash {
        hash(Cbor::encode(self).as_bytes())
    }
}

/// What a module is, and which functions it has.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Manifest {
    /// Name of the module: the first half of its functions' names.
    #[n(0)]
    pub name: String,
    /// Grows with every deployment of this name (Unix milliseconds of the deployment).
    #[n(1)]
    pub version: u64,
    /// SHA-256 of the Wasm.
    #[n(2)]
    pub hash: ModuleHash,
    /// Length of the Wasm in bytes.
    #[n(3)]
    pub size: u32,
    /// Length of every chunk except the last.
    #[n(4)]
    pub chunk_bytes: u32,
    /// SHA-256 of each chunk.
    #[n(5)]
    pub chunks: Vec<ModuleHash>,
    /// Version of the task ABI.
    #[n(6)]
    pub abi: u8,
    /// Its functions.
    #[n(7)]
    pub functions: Functions,
}

/// Why a manifest is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is not signed with the cluster's deploy key.
    BadSignature,
    /// It is not a manifest.
    Malformed,
    /// It was made for a newer task ABI.
    Abi(u8),
    /// It has the name of a built-in module.
    Builtin,
    /// It exceeds a limit of this version; the text names the limit.
    OverLimit(&'static str),
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ManifestError::BadSignature => f.write_str("not signed with this cluster's deploy key"),
            ManifestError::Malformed => f.write_str("not a module manifest"),
            ManifestError::Abi(abi) => {
                write!(f, "made for task ABI {abi}, this node knows {}", broccoli_abi::ABI_VERSION)
            }
            ManifestError::Builtin => f.write_str("every node has a module of this name by itself; choose another"),
            ManifestError::OverLimit(what) => write!(f, "over a limit: {what}"),
        }
    }
}

impl core::error::Error for ManifestError {}

impl Manifest {
    /// Describes `wasm`, whose functions have been read from its `broccoli.tasks` section.
    ///
    /// # Errors
    /// If a name or a length is over its limit.
    pub fn new(name: &str, version: u64, wasm: &[u8], functions: Functions) -> Result<Manifest, ManifestError> {
        let manifest = Manifest {
            name: name.into(),
            version,
            hash: hash(wasm),
            size: u32::try_from(wasm.len()).map_err(|_| ManifestError::OverLimit("module size"))?,
            chunk_bytes: CHUNK_BYTES,
            chunks: wasm.chunks(CHUNK_BYTES as usize).map(hash).collect(),
            abi: broccoli_abi::ABI_VERSION,
            functions,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Removes a module from a cluster. This is a newer version of this name, without code and functions. It spreads
    /// and stays like any other version, so no node brings an older version back.
    ///
    /// # Errors
    /// If no module can have this name.
    pub fn tombstone(name: &str, version: u64) -> Result<Manifest, ManifestError> {
        Manifest::new(name, version, &[], Vec::new().into())
    }

    /// Whether it removes a module.
    pub fn is_tombstone(&self) -> bool {
        self.size == 0 && self.functions.is_empty()
    }

    /// Signs the manifest with the cluster's private deploy key.
    pub fn sign(self, key: &SigningKey) -> SignedManifest {
        let bytes = Cbor::encode(&self).into_bytes();
        let signature = key.sign(&bytes).to_bytes();
        SignedManifest(Arc::new(Signed { id: hash(&bytes), bytes, signature, manifest: self }))
    }

    fn check(&self) -> Result<(), ManifestError> {
        let name_fits = |name: &str| !name.is_empty() && name.len() <= NAME_LEN_MAX;
        if self.abi != broccoli_abi::ABI_VERSION {
            return Err(ManifestError::Abi(self.abi));
        }
        if self.size > MODULE_BYTES_MAX {
            return Err(ManifestError::OverLimit("module size"));
        }
        if !name_fits(&self.name) || !self.functions.iter().all(|f| name_fits(&f.name)) {
            return Err(ManifestError::OverLimit("length of a name"));
        }
        if is_builtin(&self.name) {
            return Err(ManifestError::Builtin);
        }
        if self.functions.len() > FUNCTIONS_MAX {
            return Err(ManifestError::OverLimit("number of functions"));
        }
        if self.chunk_bytes != CHUNK_BYTES || self.chunks.len() != self.size.div_ceil(CHUNK_BYTES) as usize {
            return Err(ManifestError::Malformed);
        }
        Ok(())
    }
}

/// A manifest with its signature. Clones share it.
///
/// A value of this type has only been parsed. [`SignedManifest::verify`] checks the signature.
#[derive(Clone, Debug, PartialEq)]
pub struct SignedManifest(Arc<Signed>);

/// The shared part of a [`SignedManifest`].
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    /// SHA-256 of the signed bytes. So the same code deployed again is another module, and you can go back to the
    /// previous version by deploying it again.
    pub id: ModuleHash,
    bytes: Vec<u8>,
    signature: [u8; 64],
    /// The manifest.
    pub manifest: Manifest,
}

impl Deref for SignedManifest {
    type Target = Signed;

    fn deref(&self) -> &Signed {
        &self.0
    }
}

impl SignedManifest {
    /// Checks the signature and the limits.
    ///
    /// # Errors
    /// If the manifest was not signed with the private half of `key`, or exceeds a limit.
    pub fn verify(&self, key: &DeployPublic) -> Result<(), ManifestError> {
        let key = VerifyingKey::from_bytes(&key.0).map_err(|_| ManifestError::BadSignature)?;
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&self.bytes, &signature).map_err(|_| ManifestError::BadSignature)?;
        self.manifest.check()
    }
}

impl<C> Encode<C> for SignedManifest {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?.bytes(&self.bytes)?.bytes(&self.signature)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for SignedManifest {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<SignedManifest, minicbor::decode::Error> {
        let malformed = || minicbor::decode::Error::message("not a signed manifest");
        if d.array()? != Some(2) {
            return Err(malformed());
        }
        let bytes = d.bytes()?;
        let signature = d.bytes()?.try_into().map_err(|_| malformed())?;
        let manifest = minicbor::decode(bytes)?;
        Ok(SignedManifest(Arc::new(Signed { id: hash(bytes), bytes: bytes.into(), signature, manifest })))
    }
}

/// The public half of the deploy key. Nodes have only this half, so a stolen node cannot deploy code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeployPublic(pub [u8; 32]);

/// SHA-256 (FIPS 180-4).
pub fn hash(bytes: &[u8]) -> ModuleHash {
    ModuleHash(Sha256::digest(bytes).into())
}

/// [`hash`] of data that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all pieces.
    pub fn finish(self) -> ModuleHash {
        ModuleHash(self.0.finalize().into())
    }
}

/// Digest of a set of modules: the first 8 bytes of SHA-256 over the sorted hashes.
pub fn digest<'a>(sorted_hashes: impl Iterator<Item = &'a ModuleHash>) -> u64 {
    let mut sha = Sha256::new();
    for hash in sorted_hashes {
        sha.update(hash.0);
    }
    let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(sha.finalize());
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn signed(key: &SigningKey) -> SignedManifest {
        Manifest::new("tasks", 7, &[1; 3000], vec![].into()).expect("within limits").sign(key)
    }

    #[test]
    fn a_manifest_survives_the_wire_and_verifies() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let wire = Cbor::encode(&signed(&key));
        let back: SignedManifest = wire.decode().expect("decodes");
        assert_eq!(back.verify(&DeployPublic(key.verifying_key().to_bytes())), Ok(()));
        assert_eq!(back.manifest.chunks.len(), 2);
    }

    #[test]
    fn another_key_or_a_changed_byte_is_refused() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let other = SigningKey::from_bytes(&[4; 32]);
        let good = signed(&key);
        let public = DeployPublic(key.verifying_key().to_bytes());
        assert_eq!(signed(&other).verify(&public), Err(ManifestError::BadSignature));
        let mut changed = good.clone();
        Arc::make_mut(&mut changed.0).bytes[2] ^= 1;
        assert_eq!(changed.verify(&public), Err(ManifestError::BadSignature));
    }

    #[test]
    fn the_names_of_built_in_modules_are_taken() {
        let named = |name: &str| Manifest::new(name, 1, &[], vec![].into());
        assert_eq!(named("sys"), Err(ManifestError::Builtin));
        assert_eq!(named("board"), Err(ManifestError::Builtin));
        assert!(named("boards").is_ok());
    }

    #[test]
    fn pieces_have_the_hash_of_the_whole() {
        let mut hasher = Hasher::default();
        [&b"bro"[..], b"", b"ccoli"].iter().for_each(|piece| hasher.update(piece));
        assert_eq!(hasher.finish(), hash(b"broccoli"));
    }

    #[test]
    fn a_module_over_the_limit_is_refused() {
        let wasm = vec![0; MODULE_BYTES_MAX as usize + 1];
        assert_eq!(Manifest::new("big", 1, &wasm, vec![].into()), Err(ManifestError::OverLimit("module size")));
    }
}
