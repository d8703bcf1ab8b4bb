//! The Rust SDK, seen from the host: every type, panics, memory, the stack.

mod common;

use broccoli_wasm::{Engine, Failure, Limits, Module, Step};
use common::Quiet;

fn types() -> Module {
    let wasm = include_bytes!("../../../functions/types.wasm");
    Engine::new(Limits::host()).load(wasm).expect("loads")
}

fn call(module: &Module, function: &str, args: &[u8]) -> Result<Vec<u8>, Failure> {
    common::run(module, function, args, 100_000_000).expect("ends within its fuel")
}

#[test]
fn every_type_comes_back() {
    let module = types();
    let u64_max = b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff";
    let i64_min = b"\x3b\x7f\xff\xff\xff\xff\xff\xff\xff";
    let cases: [(&str, &[u8]); 11] = [
        ("signed", &[&b"\x84\x38\x7f\x39\x7f\xff\x3a\x7f\xff\xff\xff"[..], i64_min].concat()),
        ("signed", b"\x84\x18\x7f\x19\x7f\xff\x1a\x7f\xff\xff\xff\x00"),
        ("unsigned", &[&b"\x84\x18\xff\x19\xff\xff\x1a\xff\xff\xff\xff"[..], u64_max].concat()),
        ("unsigned", b"\x84\x00\x17\x18\x18\x19\x01\x00"),
        ("floats", b"\x82\xfb\x3f\xf8\0\0\0\0\0\0\xfb\x7f\xf0\0\0\0\0\0\0"),
        ("plain", b"\x82\xf5\xf6"),
        ("plain", b"\x82\xf4\xf6"),
        ("owned", b"\x82\x63a\xc3\xa4\x43\x00\xff\x01"),
        ("borrowed", b"\x82\x60\x40"),
        ("nested", b"\x82\xf6\x82\x80\x82\x01\x20"),
        ("nested", b"\x82\x05\x80"),
    ];
    for (function, args) in cases {
        // As many results as arguments, so that the list of results is the list of arguments.
        assert_eq!(call(&module, function, args), Ok(args.to_vec()), "{function}");
    }
    let map = b"\xa2\x61a\x01\x61b\xfb\x3f\xe0\0\0\0\0\0\0";
    assert_eq!(call(&module, "map", &[&[0x81], &map[..]].concat()), Ok(map.to_vec()));
}

#[test]
fn values_say_what_they_are() {
    let module = types();
    let cases: [(&[u8], &[u8]); 10] = [
        (b"\xf6", b"\x82\x64null\x00"),
        (b"\xf5", b"\x82\x64bool\x00"),
        (b"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", b"\x82\x63int\x00"),
        (b"\xf9\x3c\x00", b"\x82\x65float\x00"),
        (b"\x62\xc3\xa4", b"\x82\x63str\x02"),
        (b"\x43\x01\x02\x03", b"\x82\x65bytes\x03"),
        (b"\x82\x82\x01\x02\xa1\x01\x02", b"\x82\x64list\x02"),
        (b"\xa1\x01\x82\x02\x03", b"\x82\x63map\x02"),
        (b"\xc5\x80", b"\x82\x63tag\x05"),
        (b"\x80", b"\x82\x64list\x00"),
    ];
    for (value, kind) in cases {
        let args = [&[0x81], value].concat();
        assert_eq!(call(&module, "kind", &args), Ok(kind.to_vec()), "{value:x?}");
    }
}

#[test]
fn arguments_of_the_wrong_type_never_reach_the_guest() {
    let module = types();
    let refused = |function: &str, args: &[u8]| call(&module, function, args).unwrap_err().to_string();
    assert_eq!(refused("increment", b"\x81\x61a"), "argument n: expected i64, got str");
    assert_eq!(refused("signed", b"\x84\x18\x80\0\0\0"), "argument a: expected i8, got 128");
    assert_eq!(refused("increment", b"\x80"), "increment(n: i64) -> i64 takes 1 argument, got 0");
    assert_eq!(refused("map", b"\x81\xa1\x01\x01"), "argument a: expected str, got int");
}

#[test]
fn the_node_answers() {
    let module = types();
    let mut run = module.start("node", b"\x80", Quiet::default()).unwrap();
    assert_eq!(run.step(100_000), Step::Done(Ok(b"\x82\x01\x02".to_vec())));
    assert_eq!(run.into_host().lines, ["hello"]);
}

#[test]
fn overflow_and_panics_say_so() {
    let module = types();
    let text = |function: &str, args: &[u8]| match call(&module, function, args) {
        Err(Failure::Panic { text, line }) if line > 0 => text,
        other => panic!("{other:?}"),
    };
    let max = b"\x81\x1b\x7f\xff\xff\xff\xff\xff\xff\xff";
    assert_eq!(text("increment", max), "attempt to add with overflow");
    assert_eq!(text("panics", b"\x80"), "boom");
    assert_eq!(text("index", b"\x82\x81\x07\x01"), "text not available");
    assert_eq!(call(&module, "index", b"\x82\x81\x07\x00"), Ok(vec![7]));
    let failed = call(&module, "fails", b"\x81\x64oops");
    assert_eq!(failed, Err(Failure::TaskError("oops".into())));
}

#[test]
fn memory_grows_up_to_the_limit() {
    let module = types();
    // 10 blocks of 1,000,000 bytes fit into 16 MiB, 20 do not; each takes many steps.
    let fill = |blocks: u8| {
        let args = [0x82, blocks, 0x1a, 0x00, 0x0f, 0x42, 0x40];
        let mut run = module.start("fill", &args, Quiet::default()).unwrap();
        (0..1_000_000).find_map(|_| match run.step(1000) {
            Step::Done(result) => Some(result),
            _ => None,
        })
    };
    assert_eq!(fill(10), Some(Ok(b"\x1a\x00\x98\x96\x80".to_vec())));
    assert!(matches!(fill(20), Some(Err(Failure::OutOfMemory { limit: Some(_), .. }))), "{:?}", fill(20));
    assert_eq!(call(&module, "fill", b"\x82\x00\x00"), Ok(vec![0]));
}

#[test]
fn a_stack_that_overflows_traps() {
    let module = types();
    assert_eq!(call(&module, "dive", b"\x81\x04"), Ok(vec![10]));
    match call(&module, "dive", b"\x81\x18\x64") {
        Err(Failure::Trap(reason)) => assert_eq!(reason, "out of bounds memory access"),
        other => panic!("{other:?}"),
    }
}
