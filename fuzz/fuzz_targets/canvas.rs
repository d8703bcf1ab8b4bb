//! A canvas from the wire: decoded, printed, and lowered into a plan.
#![no_main]
#![forbid(unsafe_code)]

use broccoli_abi::{Arg, Function, Type};
use broccoli_core::canvas::{Resolved, lower};
use broccoli_fuzz::mutate_cbor;
use broccoli_proto::{Canvas, Cbor};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate_cbor(data, size, max_size, seed) });

fuzz_target!(|data: &[u8]| {
    let Ok(canvas) = Canvas::from_wire(data) else { return };
    assert_eq!(Canvas::from_wire(Cbor::encode(&canvas).as_bytes()).as_ref(), Ok(&canvas));
    assert!(!broccoli_text::print(&canvas).is_empty());

    // Names of different lengths give functions with 0 to 3 parameters.
    let functions = [0, 1, 2, 3].map(function);
    let resolve = |name: &str| {
        let function = &functions[name.len() % functions.len()];
        Ok(Resolved { name: name.into(), function, key: 0 })
    };
    let limits = broccoli_core::canvas::Limits {
        steps_max: 100_000,
        depth_max: 32,
        args_bytes_max: 16 << 20,
        result_bytes_max: 16 << 20,
    };
    let _ = lower(&canvas, resolve, &limits);
});

fn function(arity: usize) -> Function {
    let types = [Type::Num, Type::Any, Type::List(Box::new(Type::Str))];
    let args = types.into_iter().take(arity).enumerate();
    Function {
        name: "f".into(),
        args: args.map(|(i, ty)| Arg { name: ["x", "y", "z"][i].into(), ty }).collect(),
        ret: Type::Any,
        doc: String::new(),
    }
}
