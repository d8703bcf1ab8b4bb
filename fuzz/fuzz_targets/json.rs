//! JSON to CBOR and back, and arguments of the command line.
#![no_main]
#![forbid(unsafe_code)]

use broccoli_abi::Type;
use broccoli_fuzz::mutate_cbor;
use broccoli_proto::Cbor;
use broccoli_text::json::{JsonError, argument, from_json, to_json};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate_cbor(data, size, max_size, seed) });

fuzz_target!(|data: &[u8]| {
    if let Some(value) = Cbor::parse(data) {
        result(&value);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        input(text);
    }
});

/// The output is valid JSON. Integers below the 64-bit range are printed, but not accepted as input.
fn result(value: &Cbor) {
    if let Ok(text) = to_json(value) {
        let again = from_json(&text);
        assert!(matches!(again, Ok(_) | Err(JsonError::TooLarge(_))), "{again:?}: {text}");
    }
}

fn input(text: &str) {
    if let Ok(value) = from_json(text) {
        let shown = to_json(&value).expect("JSON has no value that JSON cannot show");
        assert_eq!(from_json(&shown), Ok(value), "{shown}");
    }
    // The first line is a type, the rest an argument for it.
    let Some((ty, text)) = text.split_once('\n') else { return };
    let Ok(ty) = Type::parse(ty) else { return };
    match argument(text, &ty) {
        Ok(value) => assert_eq!(ty.check(value.as_bytes()), Ok(())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
