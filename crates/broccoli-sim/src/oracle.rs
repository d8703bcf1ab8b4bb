//! The oracle: computes the result of a canvas by plain recursion. Also generates random canvases for it.
//!
//! It has its own values and its own binding of arguments, so it shares no mistake with the core's plan. Values may
//! contain the number of the run that made them (see [`normal`]); the oracle leaves it out.

use broccoli_proto::{Canvas, Cbor, Form, Split, TaskError};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// A CBOR value, of the kinds that the functions of the simulator use.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number.
    Int(i64),
    /// A text.
    Str(String),
    /// A list.
    List(Vec<Value>),
    /// A map with its pairs in order.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// Reads one item.
    ///
    /// # Panics
    /// If it is not one item of these types.
    pub fn decode(bytes: &[u8]) -> Value {
        let mut decoder = Decoder::new(bytes);
        let value = read(&mut decoder);
        assert_eq!(decoder.position(), bytes.len(), "one item");
        value
    }

    /// Writes it.
    pub fn encode(&self) -> Cbor {
        let mut encoder = Encoder::new(Vec::new());
        write(self, &mut encoder);
        Cbor::from_encoded(encoder.into_writer())
    }
}

fn read(d: &mut Decoder<'_>) -> Value {
    match d.datatype().expect("an item") {
        Type::Null => {
            d.null().expect("null");
            Value::Null
        }
        Type::Bool => Value::Bool(d.bool().expect("a bool")),
        Type::String => Value::Str(d.str().expect("a text").into()),
        Type::Array => {
            let len = d.array().expect("an array").expect("a definite length");
            Value::List((0..len).map(|_| read(d)).collect())
        }
        Type::Map => {
            let len = d.map().expect("a map").expect("a definite length");
            Value::Map((0..len).map(|_| (d.str().expect("a key").into(), read(d))).collect())
        }
        _ => Value::Int(d.i64().expect("an integer")),
    }
}

fn write(value: &Value, e: &mut Encoder<Vec<u8>>) {
    const VEC: &str = "writing to a Vec cannot fail";
    match value {
        Value::Null => drop(e.null().expect(VEC)),
        Value::Bool(b) => drop(e.bool(*b).expect(VEC)),
        Value::Int(n) => drop(e.i64(*n).expect(VEC)),
        Value::Str(text) => drop(e.str(text).expect(VEC)),
        Value::List(items) => {
            e.array(items.len() as u64).expect(VEC);
            for item in items {
                write(item, e);
            }
        }
        Value::Map(pairs) => {
            e.map(pairs.len() as u64).expect(VEC);
            for (key, value) in pairs {
                e.str(key).expect(VEC);
                write(value, e);
            }
        }
    }
}

/// The items of an encoded list.
///
/// # Panics
/// If it is not a list.
pub fn list(value: &Cbor) -> Vec<Value> {
    match Value::decode(value.as_bytes()) {
        Value::List(items) => items,
        other => panic!("not a list: {other:?}"),
    }
}

/// The value without the numbers of runs, which differ each time.
pub fn normal(value: &Value) -> Value {
    match value {
        Value::Str(text) => Value::Str(normal_text(text)),
        Value::List(items) => Value::List(items.iter().map(normal).collect()),
        Value::Map(pairs) => {
            let pair = |(key, value): &(String, Value)| {
                let value = if key == "run" { Value::Int(0) } else { normal(value) };
                (key.clone(), value)
            };
            Value::Map(pairs.iter().map(pair).collect())
        }
        other => other.clone(),
    }
}

/// The text of a failure without the number of its run.
pub fn normal_text(text: &str) -> String {
    text.split_once(" (run ").map_or(text, |(text, _)| text).into()
}

/// The functions, by name without the module's.
pub const FUNCTIONS: [&str; 11] =
    ["list", "first", "falsy", "risky", "fail", "number", "stamp", "grow", "large", "asks", "push"];
/// Those that are in every seed.
pub const COMMON: &[&str] = FUNCTIONS.split_at(8).0;
/// Longest text that `large` gives, in bytes: some nodes have packets of a sixth of that.
const LARGE_BYTES_MAX: u32 = 24_000;
/// Parameters of each function; all of them may be left out.
pub const PARAMETERS: [&str; 4] = ["a", "b", "c", "d"];
/// A list that prints longer than this becomes a number, so that values stay small.
pub const VALUE_LEN_MAX: usize = 300;

/// The result of a function in the run with this number. Only `stamp` depends on the run.
///
/// # Panics
/// If there is no such function.
pub fn apply(function: &str, args: &[Value], run: u64) -> Result<Value, String> {
    assert_eq!(args.len(), PARAMETERS.len(), "{function} gets all its arguments");
    let (text, hash) = hash(args);
    let number = Value::Int(i64::from(hash % 1000));
    match function {
        "list" if text.len() <= VALUE_LEN_MAX => Ok(Value::List(args.to_vec())),
        // What else these two do is no part of their result.
        "list" | "number" | "asks" | "push" => Ok(number),
        "large" => Ok(large(hash)),
        "first" => Ok(args[0].clone()),
        "falsy" => Ok(falsy(hash)),
        "stamp" => Ok(Value::Map(vec![("tag".into(), args[3].clone()), ("run".into(), Value::Int(run as i64))])),
        "risky" if !hash.is_multiple_of(6) => Ok(args[1].clone()),
        "risky" | "fail" => Err(format!("w.{function} refuses {hash:x}")),
        other => panic!("there is no {other}"),
    }
}

/// The canvas with which `grow` replaces itself.
pub fn grown(args: &[Value]) -> Canvas {
    let task = |name: &str, args: &[Value]| Canvas::task(format!("w.{name}"), Value::List(args.to_vec()).encode());
    let (first, second) = (task("first", &args[..1]), task("list", &args[1..3]));
    match hash(args).1 % 4 {
        0 => second,
        1 => Canvas::chain(vec![first, task("list", &args[1..2])]),
        2 => Canvas::group(vec![first, task("risky", &args[..2]), task("stamp", &args[..1])]),
        _ => Canvas::chord(vec![first, second], task("list", &[])),
    }
}

/// The arguments as text without the numbers of runs, and its FNV-1a hash of 32 bits.
fn hash(args: &[Value]) -> (String, u32) {
    let same: Vec<Value> = args.iter().map(normal).collect();
    let text = format!("{same:?}");
    let hash = text.bytes().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    (text, hash)
}

/// A text that does not fit into the packets of some nodes.
pub fn large(pick: u32) -> Value {
    let bytes = (1 + pick % LARGE_BYTES_MAX) as usize;
    Value::Str(format!("{pick:08x}").repeat(bytes.div_ceil(8)))
}

/// One of the values that Python takes for false.
pub fn falsy(pick: u32) -> Value {
    match pick % 5 {
        0 => Value::Null,
        1 => Value::Bool(false),
        2 => Value::Int(0),
        3 => Value::Str(String::new()),
        _ => Value::List(Vec::new()),
    }
}

/// Why a canvas failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// `module.function`.
    pub function: String,
    /// Its text.
    pub text: String,
    /// Indices of the group members on the path to it.
    pub members: Vec<u32>,
}

impl From<&TaskError> for Failure {
    fn from(error: &TaskError) -> Failure {
        let TaskError { function, text, members, .. } = error.clone();
        Failure { function, text: normal_text(&text), members }
    }
}

/// The outcome of a canvas.
pub fn evaluate(canvas: &Canvas, input: Option<&Value>) -> Result<Value, Failure> {
    match &canvas.form {
        Form::Task(task) => {
            let mut args: Vec<Value> = input.filter(|_| !task.immutable).into_iter().cloned().collect();
            args.extend(list(&task.args));
            call(&task.function, args, &task.kwargs)
        }
        Form::Chain(steps) => {
            let mut value = input.cloned();
            for step in steps {
                value = Some(evaluate(step, value.as_ref())?);
            }
            Ok(value.expect("a chain has steps"))
        }
        Form::Group(members) => all(members, input),
        Form::Chord { header, body } => {
            let list = all(header, input)?;
            evaluate(body, Some(&list))
        }
        Form::Map { function, items } => {
            joined(list(items).into_iter().map(|item| call(function, vec![item], &[])).collect())
        }
        Form::Starmap { function, items } => {
            joined(list(items).into_iter().map(|item| call(function, list(&item.encode()), &[])).collect())
        }
        Form::Chunks { function, items, split } => {
            let bins = split_into(&list(items), *split);
            joined(bins.iter().map(|items| bin(function, items)).collect())
        }
    }
}

fn all(members: &[Canvas], input: Option<&Value>) -> Result<Value, Failure> {
    joined(members.iter().map(|member| evaluate(member, input)).collect())
}

fn call(function: &str, args: Vec<Value>, named: &[(String, Cbor)]) -> Result<Value, Failure> {
    let function = function.strip_prefix("w.").unwrap_or(function);
    let args = padded(args, named);
    if function == "grow" { evaluate(&grown(&args), None) } else { failing(function, apply(function, &args, 0)) }
}

fn bin(function: &str, items: &[Value]) -> Result<Value, Failure> {
    let function = function.strip_prefix("w.").unwrap_or(function);
    let one = |item: &Value| apply(function, &padded(list(&item.encode()), &[]), 0);
    failing(function, items.iter().map(one).collect::<Result<Vec<_>, _>>().map(Value::List))
}

fn failing(function: &str, result: Result<Value, String>) -> Result<Value, Failure> {
    result.map_err(|text| Failure { function: format!("w.{function}"), text, members: Vec::new() })
}

/// The list of a group, or the failure of its lowest member.
pub fn joined(results: Vec<Result<Value, Failure>>) -> Result<Value, Failure> {
    let mut values = Vec::new();
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(value) => values.push(value),
            Err(mut failure) => {
                failure.members.insert(0, index as u32);
                return Err(failure);
            }
        }
    }
    Ok(Value::List(values))
}

/// All arguments of a call, in order. A missing argument is null.
pub fn padded(mut args: Vec<Value>, named: &[(String, Cbor)]) -> Vec<Value> {
    while args.len() < PARAMETERS.len() {
        let name = PARAMETERS[args.len()];
        let value = named.iter().find(|(n, _)| n == name).map(|(_, v)| Value::decode(v.as_bytes()));
        args.push(value.unwrap_or(Value::Null));
    }
    args
}

/// The bins of `chunks`.
pub fn split_into(items: &[Value], split: Split) -> Vec<Vec<Value>> {
    match split {
        Split::Size(size) => items.chunks(size as usize).map(<[Value]>::to_vec).collect(),
        Split::Bins(n) => {
            // Dealing out one by one says how many each bin gets.
            let mut sizes = vec![0; n as usize];
            for i in 0..items.len() {
                sizes[i % n as usize] += 1;
            }
            let mut rest = items.iter().cloned();
            sizes.into_iter().map(|size| rest.by_ref().take(size).collect()).collect()
        }
    }
}
