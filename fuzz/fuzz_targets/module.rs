//! The module loader, and a limited run of each module that it accepts.
#![no_main]
#![forbid(unsafe_code)]

use broccoli_abi::cbor::{Head, Reader};
use broccoli_abi::{CANVAS_TAG, SubmitAnswer, validate_item};
use broccoli_fuzz::{Random, replace};
use broccoli_proto::{Canvas, Cbor};
use broccoli_wasm::{Engine, Failure, Function, Host, HostCall, Limits, Module, Spare, Step, Type};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use wasm_mutate::WasmMutate;

/// Most functions of a module that are run.
const FUNCTIONS_MAX: usize = 8;
/// Most steps of a run, and the fuel of each step.
const STEPS_MAX: usize = 20;
const STEP_FUEL: u64 = 1_000;

/// The fuel that a run used, and its result if it has ended.
type Ran = (u64, Option<Result<Vec<u8>, Failure>>);

// Half of the mutations keep the Wasm valid: after byte mutations, it seldom passes the validator.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let valid = Random::new(seed).one_in(2).then(|| mutated(&data[..size], seed)).flatten();
    valid.and_then(|wasm| replace(data, max_size, &wasm)).unwrap_or_else(|| fuzzer_mutate(data, size, max_size))
});

fn mutated(wasm: &[u8], seed: u32) -> Option<Vec<u8>> {
    // The mutator accepts only valid modules.
    wasmparser::validate(wasm).ok()?;
    let mut mutate = WasmMutate::default();
    let mut mutants = mutate.seed(u64::from(seed)).fuel(1_000).preserve_semantics(false).run(wasm).ok()?;
    mutants.next()?.ok()
}

fuzz_target!(|wasm: &[u8]| {
    for limits in [Limits::host(), Limits::chip()] {
        if let Ok(module) = Engine::new(limits).load(wasm) {
            assert_eq!(broccoli_wasm::functions(wasm).as_ref(), Ok(module.functions()));
            let mut spare = Spare::new();
            for function in module.functions().iter().take(FUNCTIONS_MAX) {
                let expected = run(&module, function, &limits, &mut Spare::new());
                // Once to leave an instance, and once to find it.
                for _ in 0..2 {
                    assert_eq!(run(&module, function, &limits, &mut spare), expected);
                }
            }
        }
    }
});

/// Whatever the code does, each step returns, and a result has the type of the function. None if it does not start.
fn run(module: &Module, function: &Function, limits: &Limits, spare: &mut Spare<Counting>) -> Option<Ran> {
    let mut args = Vec::new();
    broccoli_proto::cbor::put_array_header(&mut args, function.args.len());
    function.args.iter().for_each(|arg| args.extend_from_slice(example(&arg.ty).as_bytes()));
    assert_eq!(function.check_args(&args), Ok(()));
    let mut run = module.start_with(&function.name, &args, Counting(0), spare).ok()?;
    let mut result = None;
    for _ in 0..STEPS_MAX {
        match run.step(STEP_FUEL) {
            Step::Yielded | Step::Sleep { .. } => {}
            Step::Submit { canvas } => match Canvas::from_wire(&canvas) {
                Ok(_) => run.answer(SubmitAnswer::Accepted, ""),
                Err(error) => run.answer(SubmitAnswer::BadCanvas, &error.to_string()),
            },
            Step::Call(HostCall::LedSet { .. } | HostCall::GpioWrite { .. }) => run.answer_call(Ok(0)),
            Step::Call(call) => run.answer_call(Err(&format!("{call:?}"))),
            Step::Done(done) => {
                check(&done, function, limits);
                result = Some(done);
                break;
            }
        }
    }
    let fuel = run.fuel_used();
    run.keep(spare);
    Some((fuel, result))
}

fn check(result: &Result<Vec<u8>, Failure>, function: &Function, limits: &Limits) {
    match result {
        Ok(result) => {
            let is_canvas = Reader::new(result).head() == Ok(Head::Tag(CANVAS_TAG));
            assert!(result.len() <= limits.result_bytes_max && validate_item(result).is_ok());
            assert!(is_canvas || function.ret.success().accepts(result));
        }
        // The text of a task's error may be empty.
        Err(Failure::TaskError(_) | Failure::Retry { .. }) => {}
        Err(failure) => assert!(!failure.to_string().is_empty()),
    }
}

/// A value of a type.
fn example(ty: &Type) -> Cbor {
    match ty {
        Type::Bool => Cbor::encode(&true),
        Type::Str => Cbor::encode(&"text"),
        Type::Bytes => Cbor::from_encoded(vec![0x41, 0]),
        Type::Null | Type::Any => Cbor::null(),
        Type::List(inner) => Cbor::array([example(inner).as_bytes()].into_iter()),
        Type::Tuple(items) => {
            let items: Vec<_> = items.iter().map(example).collect();
            Cbor::array(items.iter().map(Cbor::as_bytes))
        }
        Type::Map(inner) => Cbor::from_encoded([&[0xa1, 0x61, b'k'], example(inner).as_bytes()].concat()),
        Type::Optional(inner) | Type::Fallible(inner) => example(inner),
        _ => Cbor::encode(&7),
    }
}

/// A host whose clock and random numbers count up.
struct Counting(u64);

impl Host for Counting {
    fn log(&mut self, _: &str) {}

    fn now_ms(&mut self) -> i64 {
        self.0 += 1;
        self.0 as i64
    }

    fn random(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    fn progress(&mut self, _: u32, _: u32) {}
}
