//! Collections, the wire's encoding, and cryptography, with the crates of the node.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signer, SigningKey};
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::{Digest, Numbers};

pub(crate) fn collections(digest: &mut Digest) {
    let mut numbers = Numbers::new();
    let mut list: Vec<u64> = (0..500).map(|_| numbers.u64()).collect();
    let mut map = BTreeMap::new();
    for number in &list {
        *map.entry(format!("{:x}", number % 97)).or_insert(0_u64) += number >> 8;
    }
    list.sort_unstable_by_key(|number| number.rotate_left(7));
    digest.value(&list);
    list.sort();
    list.dedup_by_key(|number| *number >> 3);
    list.retain(|number| number % 3 != 0);
    digest.value((&list, list.binary_search(&list[list.len() / 2])));
    for key in ["0", "1f", "5", "60"] {
        digest.value((map.remove(key), map.range(String::from(key)..).next()));
    }
    let text: String = map.keys().rev().map(String::as_str).collect::<Vec<_>>().join(" ä€𝄞 ");
    digest.value((text.to_uppercase(), text.find('€'), text.char_indices().rev().nth(7), text.split("f").count()));
}

/// All kinds of items.
#[derive(Debug, Decode, Encode, PartialEq)]
struct Record {
    #[n(0)]
    signed: i64,
    #[n(1)]
    unsigned: Option<u32>,
    #[n(2)]
    wide: f64,
    #[n(3)]
    narrow: f32,
    #[n(4)]
    text: String,
    #[cbor(n(5), with = "minicbor::bytes")]
    bytes: Vec<u8>,
    #[n(6)]
    list: Vec<(bool, u8)>,
    #[n(7)]
    map: BTreeMap<u64, String>,
}

pub(crate) fn cbor(digest: &mut Digest) {
    let mut numbers = Numbers::new();
    for round in 0..50 {
        let float = f64::from(numbers.u32() as i32) / 256.0;
        let record = Record {
            signed: numbers.u64() as i64,
            unsigned: (round % 3 != 0).then(|| numbers.u32()),
            wide: float,
            narrow: float as f32,
            text: format!("{float}"),
            bytes: numbers.fill::<40>()[..round % 40].into(),
            list: (0..round).map(|_| (numbers.u32().is_multiple_of(2), numbers.u32() as u8)).collect(),
            map: (0..round % 7).map(|key| (numbers.u64(), format!("{key}"))).collect(),
        };
        let bytes = minicbor::to_vec(&record);
        let bytes = bytes.unwrap_or_default();
        digest.bytes(&bytes);
        match minicbor::decode::<Record>(&bytes) {
            Ok(read) => digest.value((read == record, read)),
            Err(_) => digest.value("not read"),
        }
        // Cut or changed, it is an error, or another record.
        let (cut, mut changed) = (&bytes[..bytes.len() / 2], bytes.clone());
        changed[round % 20] ^= 1 << (round % 8);
        for bytes in [cut, &changed] {
            digest.value(minicbor::decode::<Record>(bytes).ok());
        }
        let mut half = minicbor::Encoder::new(Vec::new());
        digest.value(half.f16(float as f32).is_ok());
        digest.bytes(half.writer());
        digest.value(minicbor::Decoder::new(half.writer()).f16().map(f32::to_bits).ok());
    }
}

pub(crate) fn sha_256(digest: &mut Digest) {
    let bytes = Numbers::new().fill::<700>();
    for len in (0..200).chain([511, 512, 513, 700]) {
        digest.bytes(&Sha256::digest(&bytes[..len]));
    }
    let mut parts = Sha256::new();
    bytes.chunks(13).for_each(|part| parts.update(part));
    digest.bytes(&parts.finalize());
}

pub(crate) fn chacha20_poly1305(digest: &mut Digest) {
    let mut numbers = Numbers::new();
    for len in [0, 1, 15, 16, 17, 63, 64, 65, 200, 300] {
        let cipher = XChaCha20Poly1305::new(&numbers.fill::<32>().into());
        let nonce = XNonce::from(numbers.fill::<24>());
        let (header, plain) = (numbers.fill::<9>(), numbers.fill::<300>());
        let mut sealed = plain[..len].to_vec();
        let Ok(tag) = cipher.encrypt_inout_detached(&nonce, &header, sealed.as_mut_slice().into()) else {
            digest.value("not sealed");
            continue;
        };
        digest.bytes(&sealed);
        digest.bytes(&tag);
        let mut wrong = tag;
        wrong[len % 16] ^= 4;
        for tag in [wrong, tag] {
            let mut opened = sealed.clone();
            let is_open = cipher.decrypt_inout_detached(&nonce, &header, opened.as_mut_slice().into(), &tag).is_ok();
            digest.value((is_open, is_open && opened == plain[..len]));
        }
    }
}

pub(crate) fn ed25519(digest: &mut Digest) {
    let mut numbers = Numbers::new();
    for len in [0, 1, 64, 200] {
        let key = SigningKey::from_bytes(&numbers.fill());
        let message = numbers.fill::<200>();
        let mut signature = key.sign(&message[..len]);
        digest.bytes(key.verifying_key().as_bytes());
        digest.bytes(&signature.to_bytes());
        digest.value(key.verifying_key().verify_strict(&message[..len], &signature).is_ok());
        let mut bytes = signature.to_bytes();
        bytes[len % 64] ^= 1;
        signature = ed25519_dalek::Signature::from_bytes(&bytes);
        digest.value(key.verifying_key().verify_strict(&message[..len], &signature).is_ok());
    }
}
