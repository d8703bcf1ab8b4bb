//! The task ABI: the CBOR check, compared with another decoder; descriptions of functions; types.
#![no_main]
#![forbid(unsafe_code)]

use broccoli_abi::cbor::Reader;
use broccoli_abi::{FUNCTIONS_MAX, Function, Type, validate_item};
use broccoli_fuzz::mutate_cbor;
use broccoli_proto::Cbor;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use minicbor::Decoder;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate_cbor(data, size, max_size, seed) });

fuzz_target!(|data: &[u8]| {
    if validate_item(data).is_ok() {
        valid_item(data);
    }
    if let Ok(functions) = Function::decode_section(data) {
        assert!(functions.len() <= FUNCTIONS_MAX);
        let written = functions.iter().flat_map(|function| Cbor::encode(function).into_bytes()).collect::<Vec<_>>();
        assert_eq!(Function::decode_section(&written).as_ref(), Ok(&functions));
        functions.iter().for_each(|function| assert!(!function.to_string().is_empty()));
    }
    // A function, then arguments for it.
    let mut reader = Reader::new(data);
    if let Ok(item) = reader.item() {
        let functions = Function::decode_section(item).ok();
        functions.iter().flat_map(|f| f.iter()).for_each(|function| drop(function.check_args(&data[item.len()..])));
    }
    if let Some(ty) = std::str::from_utf8(data).ok().and_then(|text| Type::parse(text).ok()) {
        assert_eq!(Type::parse(&ty.to_string()), Ok(ty));
    }
});

/// An item that the check accepts is also one item for the decoder of the core.
fn valid_item(data: &[u8]) {
    let mut decoder = Decoder::new(data);
    assert!(decoder.skip().is_ok(), "skips");
    assert_eq!(decoder.position(), data.len());

    let value = Cbor::parse(data).expect("is valid");
    let elements = value.elements().map(|elements| elements.len());
    assert_eq!(elements, value.array_len());
    if let Some(len) = elements {
        let longer = value.prepend(&[0xf6]);
        assert_eq!(longer.array_len(), Some(len + 1));
        assert_eq!(validate_item(longer.as_bytes()), Ok(()));
    }
    assert!(Type::Any.accepts(data));
}
