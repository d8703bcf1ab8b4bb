//! The example modules of the project, loaded and called as a node does it.

use alloc::vec::Vec;

use broccoli_wasm::{Engine, Limits, Module, NoHost, Step, SubmitAnswer};
use minicbor::{Encode, Encoder};

use crate::Digest;

/// Fuel of a step: less than the longer tasks need, so that these are suspended and go on.
const FUEL: u64 = 5_000;

/// Loads a module. What it says of its functions is part of the digest.
fn load(digest: &mut Digest, wasm: &[u8]) -> Option<Module> {
    let module = Engine::new(Limits::chip()).load(wasm).map_err(|reason| digest.value(reason)).ok()?;
    module.functions().iter().for_each(|function| digest.value(function));
    Some(module)
}

/// Calls a function until it is done. The board answers each call with 1, and a canvas is taken.
fn call(digest: &mut Digest, module: &Module, function: &str, args: impl Encode<()>) {
    call_with(digest, module, function, &minicbor::to_vec(args).unwrap_or_default());
}

/// Calls a function with encoded arguments.
fn call_with(digest: &mut Digest, module: &Module, function: &str, args: &[u8]) {
    let mut run = match module.start(function, args, NoHost) {
        Ok(run) => run,
        Err(failure) => return digest.value((function, failure)),
    };
    loop {
        let step = run.step(FUEL);
        digest.value((function, &step, run.fuel_used()));
        match step {
            Step::Done(_) => return,
            Step::Submit { .. } => run.answer(SubmitAnswer::Accepted, ""),
            Step::Call(_) => run.answer_call(Ok(1)),
            Step::Yielded | Step::Sleep { .. } => {}
        }
    }
}

pub(crate) fn tasks(digest: &mut Digest) {
    let Some(module) = load(digest, include_bytes!("../../../functions/tasks.wasm")) else { return };
    call(digest, &module, "add", (2, 40));
    call(digest, &module, "add", (0.1, 0.2));
    call(digest, &module, "sub", (i64::MIN, 1));
    call(digest, &module, "mul", (1.5e300, -3.25e-7));
    call(digest, &module, "tsum", ([1.5, -2.25, 1e10],));
    call(digest, &module, "xsum", (Vec::from_iter(0..100),));
    call(digest, &module, "identity", ((1, "two", [3.0], ()),));
    call(digest, &module, "concat", ("brocc", "oli"));
    call(digest, &module, "mapper", ("green",));
    call(digest, &module, "fail", ("so it is",));
    call(digest, &module, "sleep_then", (5, "awake"));
    call(digest, &module, "spin", (3_000,));
    call(digest, &module, "fib", (15,));
    call(digest, &module, "primes", (500,));
    call(digest, &module, "no_such", ());
}

pub(crate) fn types(digest: &mut Digest) {
    let Some(module) = load(digest, include_bytes!("../../../functions/types.wasm")) else { return };
    call(digest, &module, "signed", (i8::MIN, i16::MIN, i32::MIN, i64::MIN));
    call(digest, &module, "signed", (i8::MAX, i16::MAX, i32::MAX, i64::MAX));
    call(digest, &module, "unsigned", (u8::MAX, u16::MAX, u32::MAX, u64::MAX));
    call(digest, &module, "unsigned", (256, 0, 0, 0));
    call(digest, &module, "floats", (f32::MIN_POSITIVE, f64::MAX));
    call(digest, &module, "floats", (f32::INFINITY, -0.0));
    call(digest, &module, "nested", (None::<u8>, [[1, -2, i64::MAX], [4, 5, 6]]));
    call(digest, &module, "increment", (i64::MAX,));
    call(digest, &module, "index", ([1, 2, 3], 3));
    call(digest, &module, "panics", ());
    call(digest, &module, "fails", ("wrong",));
    call(digest, &module, "node", ());
    let mut map = Encoder::new(Vec::new());
    let is_written = map.array(1).and_then(|map| map.map(2)).and_then(|map| map.str("b")?.f64(0.5)?.str("a")?.i64(-7));
    digest.value(is_written.is_ok());
    call_with(digest, &module, "map", map.writer());
}

pub(crate) fn lights_and_flow(digest: &mut Digest) {
    let Some(lights) = load(digest, include_bytes!("../../../functions/lights.wasm")) else { return };
    call(digest, &lights, "morse", ("SOS",));
    drop(lights);
    let Some(flow) = load(digest, include_bytes!("../../../functions/flow.wasm")) else { return };
    call(digest, &flow, "squares", (10, "pi", 1_000));
}
