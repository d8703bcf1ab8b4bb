//! The canvases that guests build are those of the wire protocol, byte for byte.

use std::time::Duration;

use broccoli_proto::canvas::{Form, Task};
use broccoli_proto::options::Rate;
use broccoli_proto::{Canvas as Wire, Cbor};
use broccoli_sdk::canvas::{Canvas, Replace, SetOptions, chain, chord, group, map, sig, starmap};
use broccoli_sdk::{Encoder, Return, ToCbor};

/// The encoded canvas, without the tag that a result has.
fn encoded(canvas: impl Into<Canvas>) -> Vec<u8> {
    let mut e = Encoder::new();
    canvas.into().encode(&mut e);
    let tag = [0xda, 0x42, 0x52, 0x4f, 0x43];
    e.into_bytes().strip_prefix(&tag).expect("a canvas is tagged").to_vec()
}

fn same(guest: impl Into<Canvas>, wire: &Wire) {
    let bytes = encoded(guest);
    assert_eq!(Wire::from_wire(&bytes).as_ref(), Ok(wire));
    assert_eq!(bytes, Cbor::encode(wire).into_bytes(), "{wire:?}");
}

fn call<T: minicbor::Encode<()>>(function: &str, args: T) -> Wire {
    Wire::task(function, Cbor::encode(&args))
}

#[test]
fn each_form() {
    same(sig("add").arg(&1u8).arg("x"), &call("add", (1u8, "x")));
    same(sig("f"), &call("f", [0u8; 0]));
    same(chain([sig("f").arg(&1u8), sig("g")]), &Wire::chain(vec![call("f", [1u8]), call("g", [0u8; 0])]));
    same(group((0..30u32).map(|n| sig("f").arg(&n))), &Wire::group((0..30u32).map(|n| call("f", [n])).collect()));
    let header = (0..2u8).map(|n| call("f", [n])).collect();
    same(chord((0..2u8).map(|n| sig("f").arg(&n)), sig("g")), &Wire::chord(header, call("g", [0u8; 0])));
    let items = Cbor::encode(&[1u8, 2]);
    same(map("f", &[1u8, 2]), &Form::Map { function: "f".into(), items }.into());
    let items = Cbor::encode(&[(1u8, "a"), (2, "b")]);
    same(starmap("f", &[(1u8, "a"), (2, "b")]), &Form::Starmap { function: "f".into(), items }.into());
    let nested: [Canvas; 2] = [group([sig("f")]), sig("g").into()];
    same(chain(nested), &Wire::chain(vec![Wire::group(vec![call("f", [0u8; 0])]), call("g", [0u8; 0])]));
}

#[test]
fn names_and_immutability() {
    let task = Task {
        function: "m.f".into(),
        args: Cbor::encode(&[1u8]),
        kwargs: vec![("x".into(), Cbor::encode(&2u8)), ("y".into(), Cbor::null())],
        immutable: true,
    };
    same(sig("m.f").arg(&1u8).kwarg("x", &2u8).kwarg("y", &None::<u8>).immutable(), &Form::Task(task).into());
}

#[test]
fn options_and_callbacks() {
    let mut wire = call("f", [0u8; 0]);
    let o = &mut wire.options;
    (o.retries, o.priority, o.timeout_ms, o.countdown_ms) = (Some(3), Some(9), Some(1_500), Some(1 << 40));
    o.on = vec!["room=kitchen".into(), "led".into()];
    (o.each, o.partial, o.jitter) = (Some(true), Some(false), Some(true));
    (o.backoff_ms, o.backoff_max_ms, o.expires_ms) = (Some(100), Some(60_000), Some(0));
    (o.eta_unix_ms, o.deadline_ms) = (Some(1_800_000_000_000), Some(1));
    o.rate = Some(Rate { tasks: 100, per_ms: 60_000 });
    wire.link = vec![call("g", [1u8]), call("h", [0u8; 0])];
    wire.on_error = vec![call("e", [0u8; 0])];
    let ms = Duration::from_millis;
    let guest = sig("f").set_retries(3).set_priority(9).set_timeout(ms(1_500)).set_countdown(ms(1 << 40));
    let guest = guest.set_on("room=kitchen").set_on("led").set_each(true).set_partial(false).set_jitter(true);
    let guest = guest.set_backoff(ms(100)).set_backoff_max(ms(60_000)).set_expires(ms(0)).set_deadline(ms(1));
    let guest = guest.set_eta_unix_ms(1_800_000_000_000).set_rate(100, ms(60_000));
    same(guest.link(sig("g").arg(&1u8)).link(sig("h")).on_error(sig("e")), &wire);
}

#[test]
fn a_replacement_is_tagged_and_a_value_is_not() {
    let encode = |returned: Result<Replace<i64>, &'static str>| {
        let mut e = Encoder::new();
        returned.encode_return(&mut e);
        e.into_bytes()
    };
    assert_eq!(encode(Ok(Replace::Value(7))), [7]);
    let replaced = encode(Ok(Replace::With(sig("f").into())));
    assert!(broccoli_abi::cbor::is_canvas(&replaced) && broccoli_abi::validate_item(&replaced).is_ok());
    assert_eq!(<Result<Replace<i64>, &str> as Return>::TYPE.as_str(), "!i64");
}
