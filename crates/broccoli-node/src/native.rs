//! Functions written in Rust that are part of the node's program.
//!
//! A closure becomes a function of the cluster by its signature: `|x: i64, y: i64| x + y` is described as `(a0: i64,
//! a1: i64) -> i64`. [`function`] adds names and documentation. It runs on the thread of a slot. It cannot be
//! interrupted: after a timeout it keeps running, but its result is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use broccoli_abi::{Arg, Function, RETRY_AFTER_MS_MAX, Type};
use broccoli_proto::{Canvas, Cause, Cbor, message};
use minicbor::bytes::ByteVec;
use minicbor::{Decoder, Encode, Encoder};

/// A type of arguments and results of native functions.
pub trait Value: Sized {
    /// Its type in the manifest.
    fn ty() -> Type;
    /// Reads one item that was checked against [`Value::ty`].
    ///
    /// # Errors
    /// If the item is not of this type.
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error>;
    /// Writes one item.
    fn write(&self, out: &mut Vec<u8>);
}

/// A return type of native functions: a value, [`Replace`], or a `Result` of one with a [`TaskError`].
pub trait Return {
    /// Its type in the manifest.
    fn ty() -> Type;
    /// The encoded value.
    ///
    /// # Errors
    /// The function's own error.
    fn finish(self) -> Result<Cbor, message::Failure>;
}

/// The error of a function that asks to be retried after a pause.
///
/// The SDK of Wasm modules has its own type of this name. They cannot be one type: each side also accepts any text as
/// an error, and the compiler allows that only beside a type of the same crate.
///
/// Each retry counts against the `retries` of the task; if these are not set, three are allowed. When they are used up,
/// the task fails with the text.
///
/// ```
/// # use broccoli_node::NodeHandle;
/// # use std::time::Duration;
/// use broccoli_node::native::Retry;
///
/// # fn read_sensor() -> Option<f64> { None }
/// let builder = NodeHandle::builder().function("temperature", || {
///     read_sensor().ok_or(Retry::after(Duration::from_secs(2)).because("no answer from the sensor"))
/// });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    after_ms: u64,
    text: String,
}

impl Retry {
    /// Asks for a retry after this time. It is rounded down to whole milliseconds.
    pub fn after(pause: Duration) -> Retry {
        let after_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).min(RETRY_AFTER_MS_MAX);
        Retry { after_ms, text: "asks to be tried again".into() }
    }

    /// Sets the error text.
    pub fn because(self, text: impl Into<String>) -> Retry {
        Retry { text: text.into(), ..self }
    }
}

/// The error of a function that can either fail for good or ask for a retry. Texts and [`Retry`] convert to it with `?`
/// and `into`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A failure with this text. The origin tries again if the task has `retries`.
    Text(String),
    /// A retry after a pause.
    Retry(Retry),
}

impl From<&str> for Failure {
    fn from(text: &str) -> Failure {
        Failure::Text(text.into())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Text(text)
    }
}

impl From<Retry> for Failure {
    fn from(retry: Retry) -> Failure {
        Failure::Retry(retry)
    }
}

/// An error type of native functions: everything that can be displayed, [`Retry`] and [`Failure`].
pub trait TaskError {
    /// The failure as it is sent to the origin.
    fn into_failure(self) -> message::Failure;
}

impl<E: fmt::Display> TaskError for E {
    fn into_failure(self) -> message::Failure {
        message::Failure::new(Cause::Returned, self.to_string())
    }
}

impl TaskError for Retry {
    fn into_failure(self) -> message::Failure {
        message::Failure { retry_after_ms: Some(self.after_ms), ..message::Failure::new(Cause::Returned, self.text) }
    }
}

impl TaskError for Failure {
    fn into_failure(self) -> message::Failure {
        match self {
            Failure::Text(text) => text.into_failure(),
            Failure::Retry(retry) => retry.into_failure(),
        }
    }
}

/// The result of a function that can replace its task with a canvas. The result of the canvas, of any type, becomes the
/// result of the task.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // It lives for a moment; a box would be in the author's way.
pub enum Replace<T> {
    /// The result.
    Value(T),
    /// The canvas to run instead.
    With(Canvas),
}

/// Reports the progress of the calling native function, in its own units; `total` is 0 if unknown. Of several reports
/// within 250 ms the last is sent. Does nothing outside of a native function.
pub fn progress(done: u32, total: u32) {
    crate::executor::say_progress(done, total);
}

/// A closure that can be a function of the cluster, with up to six arguments; or one with a description: see
/// [`function`].
pub trait NativeFunction<Args>: Send + Sync + 'static {
    /// How many arguments it takes.
    const ARITY: usize;
    /// Its description under this name.
    fn describe(&self, name: &str) -> Function;
    /// Calls it with a checked argument array.
    ///
    /// # Errors
    /// The function's own error, or what is wrong with the arguments.
    fn call(&self, args: &Cbor) -> Result<Cbor, message::Failure>;
}

/// A native function with names of its arguments and with documentation. `broccoli functions` and messages about wrong
/// arguments show them:
///
/// ```
/// # use broccoli_node::{NodeHandle, native};
/// let add = native::function(|x: i64, y: i64| x + y).args(["x", "y"]).doc("The sum of two numbers.");
/// let builder = NodeHandle::builder().slots(2).function("add", add);
/// ```
///
/// The compiler checks that there is one name for each argument:
///
/// ```compile_fail
/// let add = broccoli_node::native::function(|x: i64, y: i64| x + y).args(["x"]);
/// ```
pub fn function<Args, F: NativeFunction<Args>>(function: F) -> Described<Args, F> {
    Described { function, args: Vec::new(), doc: String::new(), signature: PhantomData }
}

/// A native function with a description. Made by [`function`].
pub struct Described<Args, F> {
    function: F,
    /// Empty: the default names.
    args: Vec<String>,
    doc: String,
    signature: PhantomData<fn(Args)>,
}

impl<Args, F: NativeFunction<Args>> Described<Args, F> {
    /// The names of its arguments, in order: letters, digits and `_`, each once. A canvas may give arguments by name.
    pub fn args<const N: usize>(mut self, names: [&str; N]) -> Self {
        const { assert!(N == F::ARITY, "a function needs one name for each of its arguments") };
        self.args = names.map(String::from).into();
        self
    }

    /// What the function does, at most 1,024 bytes. Tables show the first line.
    pub fn doc(mut self, text: impl Into<String>) -> Self {
        self.doc = text.into();
        self
    }
}

impl<Args: 'static, F: NativeFunction<Args>> NativeFunction<Args> for Described<Args, F> {
    const ARITY: usize = F::ARITY;

    fn describe(&self, name: &str) -> Function {
        let mut described = self.function.describe(name);
        for (arg, name) in described.args.iter_mut().zip(&self.args) {
            arg.name.clone_from(name);
        }
        if !self.doc.is_empty() {
            described.doc.clone_from(&self.doc);
        }
        described
    }

    fn call(&self, args: &Cbor) -> Result<Cbor, message::Failure> {
        self.function.call(args)
    }
}

/// A native function without its type.
#[derive(Clone)]
pub(crate) struct Native {
    pub(crate) description: Arc<Function>,
    /// Calls it with arguments that were checked against the description.
    pub(crate) call: Arc<Call>,
}

type Call = dyn Fn(&Cbor) -> Result<Cbor, message::Failure> + Send + Sync;

impl Native {
    /// Erases the type of a function.
    pub(crate) fn new<Args: 'static, F: NativeFunction<Args>>(name: &str, function: F) -> Native {
        Native { description: Arc::new(function.describe(name)), call: Arc::new(move |args| function.call(args)) }
    }
}

impl<T: Value> Return for T {
    fn ty() -> Type {
        <T as Value>::ty()
    }

    fn finish(self) -> Result<Cbor, message::Failure> {
        let mut out = Vec::new();
        self.write(&mut out);
        Ok(Cbor::from_encoded(out))
    }
}

impl<T: Value> Return for Replace<T> {
    fn ty() -> Type {
        T::ty()
    }

    fn finish(self) -> Result<Cbor, message::Failure> {
        match self {
            Replace::Value(value) => value.finish(),
            Replace::With(canvas) => Ok(canvas.to_replacement()),
        }
    }
}

impl<T: Return, E: TaskError> Return for Result<T, E> {
    fn ty() -> Type {
        match T::ty() {
            fallible @ Type::Fallible(_) => fallible,
            ty => Type::Fallible(Box::new(ty)),
        }
    }

    fn finish(self) -> Result<Cbor, message::Failure> {
        self.map_err(E::into_failure)?.finish()
    }
}

fn unfit(error: minicbor::decode::Error) -> message::Failure {
    message::Failure::new(Cause::Unfit, error.to_string())
}

macro_rules! native_function {
    ($($arg:ident $name:literal),*) => {
        impl<F, R, $($arg),*> NativeFunction<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> R + Send + Sync + 'static,
            R: Return,
            $($arg: Value,)*
        {
            const ARITY: usize = <[&str]>::len(&[$($name),*]);

            fn describe(&self, name: &str) -> Function {
                let args = vec![$(Arg { name: $name.into(), ty: $arg::ty() }),*];
                Function { name: name.into(), args, ret: R::ty(), doc: String::new() }
            }

            #[allow(non_snake_case, unused_mut, unused_variables)]
            fn call(&self, args: &Cbor) -> Result<Cbor, message::Failure> {
                let mut decoder = Decoder::new(args.as_bytes());
                decoder.array().map_err(unfit)?;
                $(let $arg = $arg::read(&mut decoder).map_err(unfit)?;)*
                self($($arg),*).finish()
            }
        }
    };
}

native_function!();
native_function!(A "a0");
native_function!(A "a0", B "a1");
native_function!(A "a0", B "a1", C "a2");
native_function!(A "a0", B "a1", C "a2", D "a3");
native_function!(A "a0", B "a1", C "a2", D "a3", E "a4");
native_function!(A "a0", B "a1", C "a2", D "a3", E "a4", G "a5");

macro_rules! plain_value {
    ($($rust:ty => $ty:ident),*) => {
        $(impl Value for $rust {
            fn ty() -> Type {
                Type::$ty
            }

            fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
                decoder.decode()
            }

            fn write(&self, out: &mut Vec<u8>) {
                put(out, self);
            }
        })*
    };
}

plain_value!(i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64,
    bool => Bool, String => Str, ByteVec => Bytes);

impl Value for () {
    fn ty() -> Type {
        Type::Null
    }

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        decoder.null()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(0xf6);
    }
}

impl Value for f64 {
    fn ty() -> Type {
        Type::F64
    }

    /// Accepts integers, too.
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let mut probe = decoder.clone();
        if let Ok(integer) = probe.int() {
            *decoder = probe;
            return Ok(i128::from(integer) as f64);
        }
        decoder.f64()
    }

    fn write(&self, out: &mut Vec<u8>) {
        put(out, self);
    }
}

impl Value for f32 {
    fn ty() -> Type {
        Type::F32
    }

    /// A wider float is rounded to `f32`.
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        f64::read(decoder).map(|wide| wide as f32)
    }

    fn write(&self, out: &mut Vec<u8>) {
        put(out, self);
    }
}

impl<T: Value> Value for Vec<T> {
    fn ty() -> Type {
        Type::List(Box::new(T::ty()))
    }

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let len = decoder.array()?.unwrap_or(0);
        (0..len).map(|_| T::read(decoder)).collect()
    }

    fn write(&self, out: &mut Vec<u8>) {
        broccoli_proto::cbor::put_array_header(out, self.len());
        for item in self {
            item.write(out);
        }
    }
}

impl<T: Value> Value for Option<T> {
    fn ty() -> Type {
        Type::Optional(Box::new(T::ty()))
    }

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        if decoder.datatype()? == minicbor::data::Type::Null {
            decoder.null()?;
            return Ok(None);
        }
        T::read(decoder).map(Some)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(out),
            None => out.push(0xf6),
        }
    }
}

impl<T: Value> Value for BTreeMap<String, T> {
    fn ty() -> Type {
        Type::Map(Box::new(T::ty()))
    }

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let len = decoder.map()?.unwrap_or(0);
        (0..len).map(|_| Ok((decoder.str()?.to_owned(), T::read(decoder)?))).collect()
    }

    fn write(&self, out: &mut Vec<u8>) {
        Encoder::new(&mut *out).map(self.len() as u64).expect("writing to a Vec cannot fail");
        for (key, value) in self {
            put(out, key);
            value.write(out);
        }
    }
}

macro_rules! tuple_value {
    ($len:literal: $($item:ident $at:tt),*) => {
        /// A list of exactly these items.
        impl<$($item: Value),*> Value for ($($item,)*) {
            fn ty() -> Type {
                Type::Tuple(vec![$($item::ty()),*])
            }

            fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
                decoder.array()?;
                Ok(($($item::read(decoder)?,)*))
            }

            fn write(&self, out: &mut Vec<u8>) {
                broccoli_proto::cbor::put_array_header(out, $len);
                $(self.$at.write(out);)*
            }
        }
    };
}

tuple_value!(2: A 0, B 1);
tuple_value!(3: A 0, B 1, C 2);
tuple_value!(4: A 0, B 1, C 2, D 3);

/// Any value, as it is.
impl Value for Cbor {
    fn ty() -> Type {
        Type::Any
    }

    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error> {
        let start = decoder.position();
        decoder.skip()?;
        Ok(Cbor::from_encoded(decoder.input()[start..decoder.position()].to_vec()))
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
}

fn put<T: Encode<()>>(out: &mut Vec<u8>, value: &T) {
    Encoder::new(out).encode(value).expect("writing to a Vec cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<Args: 'static, F: NativeFunction<Args>>(function: F, args: Cbor) -> Result<Cbor, message::Failure> {
        (Native::new("f", function).call)(&args)
    }

    fn returned(text: &str) -> message::Failure {
        message::Failure::new(Cause::Returned, text)
    }

    #[test]
    fn closures_take_and_give_what_their_signature_says() {
        let add = |x: i64, y: i64| x + y;
        assert_eq!(run(add, Cbor::encode(&(2, 3))), Ok(Cbor::encode(&5)));
        let mean =
            |xs: Vec<f64>| if xs.is_empty() { Err("no values") } else { Ok(xs.iter().sum::<f64>() / xs.len() as f64) };
        assert_eq!(run(mean, Cbor::encode(&([1u8, 2, 6],))), Ok(Cbor::encode(&3.0f64)));
        assert_eq!(run(mean, Cbor::encode(&([0u8; 0],))), Err(returned("no values")));
        assert_eq!(run(|x: Option<String>| x.is_none(), Cbor::encode(&(None::<u8>,))), Ok(Cbor::encode(&true)));
    }

    #[test]
    fn errors_may_ask_to_be_tried_again() {
        let retry = || Retry::after(Duration::from_micros(2_500_900)).because("no answer");
        let wish = message::Failure { retry_after_ms: Some(2_500), ..returned("no answer") };
        assert_eq!(run(move || Err::<(), _>(retry()), Cbor::empty_array()), Err(wish.clone()));
        let either =
            move |again: bool| -> Result<(), Failure> { if again { Err(retry().into()) } else { Err("never".into()) } };
        assert_eq!(run(either, Cbor::encode(&(true,))), Err(wish));
        assert_eq!(run(either, Cbor::encode(&(false,))), Err(returned("never")));
        let longest = Retry::after(Duration::MAX).into_failure();
        assert_eq!(longest.retry_after_ms, Some(RETRY_AFTER_MS_MAX));
    }

    #[test]
    fn a_canvas_replaces_the_task() {
        let canvas = Canvas::task("f", Cbor::encode(&(1,)));
        let half = move |n: i64| -> Result<Replace<i64>, &'static str> {
            match n {
                0 => Err("nothing"),
                1 => Ok(Replace::Value(1)),
                _ => Ok(Replace::With(Canvas::task("f", Cbor::encode(&(n / 2,))))),
            }
        };
        let replaced = run(half, Cbor::encode(&(2,))).unwrap();
        assert_eq!(Canvas::replacement(&replaced), Some(Ok(canvas)));
        assert_eq!(run(half, Cbor::encode(&(1,))), Ok(Cbor::encode(&1)));
        assert_eq!(<Result<Replace<i64>, &str> as Return>::ty().to_string(), "!i64");
    }

    #[test]
    fn the_description_follows_the_signature() {
        fn describe<Args, F: NativeFunction<Args>>(function: F) -> Function {
            function.describe("f")
        }
        let function = describe(|_: Vec<i64>, _: Option<String>| -> Result<f64, String> { Ok(0.0) });
        let types: Vec<String> = function.args.iter().map(|arg| format!("{}: {}", arg.name, arg.ty)).collect();
        assert_eq!(types, ["a0: [i64]", "a1: ?str"]);
        assert_eq!(function.ret.to_string(), "!f64");
        assert_eq!((function.to_string(), function.doc), ("f(a0: [i64], a1: ?str) -> !f64".into(), String::new()));
        let described = describe(super::function(|x: i64, y: i64| x + y).args(["x", "y"]).doc("The sum.\nOf both."));
        assert_eq!(
            (described.to_string().as_str(), described.doc.as_str()),
            ("f(x: i64, y: i64) -> i64", "The sum.\nOf both.")
        );
        assert_eq!(describe(super::function(|| 1i64).args([])).to_string(), "f() -> i64");
    }

    #[test]
    fn a_described_function_is_called_as_the_closure_in_it() {
        let add = function(|x: i64, y: i64| x + y).args(["x", "y"]);
        assert_eq!(run(add, Cbor::encode(&(2, 3))), Ok(Cbor::encode(&5)));
    }
}
