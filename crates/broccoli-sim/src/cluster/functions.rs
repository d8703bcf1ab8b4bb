//! The functions of the tests: their names, arguments and results.

use std::time::Duration;

use broccoli_abi::{Arg, Function, Type};
use broccoli_core::Execute;
use broccoli_proto::message::Failure;
use broccoli_proto::module::NativeModule;
use broccoli_proto::{Canvas, Cause, Cbor};
use minicbor::bytes::ByteVec;

const FUNCTIONS: [(&str, &[(&str, &str)]); 14] = [
    ("add", &[("x", "i64"), ("y", "i64")]),
    ("mul", &[("x", "i64"), ("y", "i64")]),
    ("tsum", &[("xs", "[i64]")]),
    ("identity", &[("x", "any")]),
    ("echo", &[("x", "any")]),
    ("concat", &[("a", "str"), ("b", "str")]),
    ("fail", &[("msg", "str")]),
    // A text of so many bytes.
    ("large", &[("bytes", "i64")]),
    ("sleep", &[("ms", "i64")]),
    // Fails as often as it is told, then gives the number of calls before.
    ("flaky", &[("failures", "i64")]),
    // Takes its time, and fails the first time only.
    ("first_fails", &[("ms", "i64")]),
    // Takes its time the first time, and fails at once after that.
    ("second_fails", &[("ms", "i64")]),
    // Asks as often as it is told to be tried again after this time, then gives the number of calls before.
    ("asks", &[("times", "i64"), ("ms", "i64")]),
    // Replaces itself by an encoded canvas.
    ("become", &[("canvas", "bytes")]),
];

/// The built-in module `tasks` of every node of the tests.
pub fn natives() -> NativeModule {
    let arg = |(name, ty): &(&str, &str)| Arg { name: (*name).into(), ty: Type::parse(ty).expect("a type") };
    let function = |(name, args): (&str, &[(&str, &str)])| Function {
        name: name.into(),
        args: args.iter().map(arg).collect(),
        ret: Type::Any,
        doc: String::new(),
    };
    NativeModule { name: "tasks".into(), functions: FUNCTIONS.into_iter().map(function).collect() }
}

/// A function without parameters, for modules that travel.
pub fn version_function() -> Function {
    Function { name: "version".into(), args: vec![], ret: Type::Any, doc: String::new() }
}

/// A text of so many bytes, none of whose parts is like another.
pub fn large(bytes: usize) -> Cbor {
    let mut text: String = (0..bytes / 8 + 1).map(|at| format!("{at:8}")).collect();
    text.truncate(bytes);
    Cbor::encode(&text)
}

/// How long a call takes, and what it comes to. `before` calls of the same were run before.
pub fn call(execute: &Execute, version: u64, before: usize) -> (Duration, Result<Cbor, Failure>) {
    let name = execute.function.name.as_str();
    if !execute.bin {
        return call_one(name, &execute.args, version, before);
    }
    let mut took = Duration::ZERO;
    let mut results = Vec::new();
    for args in execute.args.elements().expect("a list of calls") {
        let (time, outcome) = call_one(name, &Cbor::from_encoded(args.to_vec()), version, before);
        took += time;
        match outcome {
            Ok(value) => results.push(value),
            Err(failure) => return (took, Err(failure)),
        }
    }
    (took, Ok(Cbor::array(results.iter().map(Cbor::as_bytes))))
}

fn call_one(name: &str, args: &Cbor, version: u64, before: usize) -> (Duration, Result<Cbor, Failure>) {
    let ints = || args.decode::<(i64, i64)>().expect("two integers");
    let returned = |text: String| Err(Failure::new(Cause::Returned, text));
    let outcome = match name {
        "add" => Ok(Cbor::encode(&(ints().0 + ints().1))),
        "mul" => Ok(Cbor::encode(&(ints().0 * ints().1))),
        "tsum" => Ok(Cbor::encode(&args.decode::<[Vec<i64>; 1]>().expect("a list")[0].iter().sum::<i64>())),
        "identity" | "echo" => Ok(Cbor::from_encoded(args.elements().expect("a list")[0].to_vec())),
        "concat" => {
            let (a, b) = args.decode::<(String, String)>().expect("two strings");
            Ok(Cbor::encode(&(a + &b)))
        }
        "large" => Ok(large(args.decode::<[usize; 1]>().expect("a number")[0])),
        "fail" => returned(args.decode::<[String; 1]>().expect("a string")[0].clone()),
        "flaky" if (before as i64) < args.decode::<[i64; 1]>().expect("a number")[0] => returned("not yet".into()),
        "flaky" => Ok(Cbor::encode(&before)),
        "sleep" => {
            let ms = args.decode::<[i64; 1]>().expect("a number")[0];
            return (Duration::from_millis(ms as u64), Ok(Cbor::encode(&ms)));
        }
        "first_fails" => {
            let ms = args.decode::<[i64; 1]>().expect("a number")[0];
            let outcome = if before == 0 { returned("first".into()) } else { Ok(Cbor::encode(&before)) };
            return (Duration::from_millis(ms as u64), outcome);
        }
        "second_fails" if before == 0 => {
            let ms = args.decode::<[i64; 1]>().expect("a number")[0];
            return (Duration::from_millis(ms as u64), Ok(Cbor::encode(&before)));
        }
        "second_fails" => returned("second".into()),
        "asks" if (before as i64) < ints().0 => {
            let failure = Failure::new(Cause::Returned, "busy");
            Err(Failure { retry_after_ms: Some(ints().1 as u64), ..failure })
        }
        "asks" => Ok(Cbor::encode(&before)),
        "become" => {
            let [canvas] = args.decode::<[ByteVec; 1]>().expect("bytes");
            Ok(Canvas::from_wire(&canvas).expect("a canvas").to_replacement())
        }
        "version" => Ok(Cbor::encode(&version)),
        other => panic!("there is no {other}"),
    };
    (Duration::ZERO, outcome)
}
