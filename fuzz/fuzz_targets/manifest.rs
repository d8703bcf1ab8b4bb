//! Manifests of modules: from the wire, and signed by a holder of the deploy key.
#![no_main]
#![forbid(unsafe_code)]

use broccoli_abi::{FUNCTIONS_MAX, NAME_LEN_MAX};
use broccoli_fuzz::mutate_cbor;
use broccoli_proto::Cbor;
use broccoli_proto::message::Message;
use broccoli_proto::module::{CHUNK_BYTES, DeployPublic, MODULE_BYTES_MAX, Manifest, ModuleEntry, SignedManifest};
use ed25519_dalek::SigningKey;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate_cbor(data, size, max_size, seed) });

fuzz_target!(|data: &[u8]| {
    for message in broccoli_proto::packet::messages(data).flatten() {
        if let Message::Manifests(manifests) = message {
            manifests.entries.into_iter().for_each(entry);
        }
    }
    if let Ok(manifest) = minicbor::decode::<Manifest>(data) {
        holder(manifest);
    }
});

/// No manifest from the wire is signed with the key of this target.
fn entry(entry: ModuleEntry) {
    let written = Cbor::encode(&entry);
    let again = written.decode::<ModuleEntry>().expect("what was encoded decodes");
    assert_eq!((again.id(), again.version()), (entry.id(), entry.version()));
    assert_eq!((again.name(), again.functions()), (entry.name(), entry.functions()));
    if let ModuleEntry::Wasm(signed) = entry {
        assert!(signed.verify(&public(&key())).is_err());
        holder(signed.manifest.clone());
    }
}

/// The same manifest, signed with the deploy key.
fn holder(manifest: Manifest) {
    let key = key();
    let signed = Cbor::encode(&manifest.sign(&key));
    let signed = signed.decode::<SignedManifest>().expect("what was encoded decodes");
    if signed.verify(&public(&key)).is_ok() {
        let manifest = &signed.manifest;
        assert!(manifest.size <= MODULE_BYTES_MAX && manifest.functions.len() <= FUNCTIONS_MAX);
        assert!(!manifest.name.is_empty() && manifest.name.len() <= NAME_LEN_MAX);
        assert_eq!(manifest.chunks.len(), manifest.size.div_ceil(CHUNK_BYTES) as usize);
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn public(key: &SigningKey) -> DeployPublic {
    DeployPublic(key.verifying_key().to_bytes())
}
