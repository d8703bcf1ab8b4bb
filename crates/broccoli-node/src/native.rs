//! Functions written in Rust that are part of the node's program.
//!
//! A closure becomes a function of the cluster by its signature:
//! `|x: i64, y: i64| x + y` is described as `(a0: i64, a1: i64) -> i64`. It runs on a slot's
//! thread; it cannot be interrupted, so a timeout ends only the waiting for it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use broccoli_abi::{Arg, Function, Type};
use broccoli_proto::Cbor;
use minicbor::bytes::ByteVec;
use minicbor::{Decoder, Encode, Encoder};

/// A value that native functions take or give.
pub trait Value: Sized {
    /// How the manifest calls it.
    fn ty() -> Type;
    /// Reads one item that was checked against [`Value::ty`].
    ///
    /// # Errors
    /// If it is something else after all.
    fn read(decoder: &mut Decoder<'_>) -> Result<Self, minicbor::decode::Error>;
    /// Writes one item.
    fn write(&self, out: &mut Vec<u8>);
}

/// What a native function may return: a value, or `Result` of one with an error text.
pub trait Return {
    /// How the manifest calls it.
    fn ty() -> Type;
    /// The encoded value, or the error's text.
    ///
    /// # Errors
    /// The function's own error.
    fn finish(self) -> Result<Cbor, String>;
}

/// A closure that can be a function of the cluster: up to six arguments.
pub trait NativeFunction<Args>: Send + Sync + 'static {
    /// Its description under this name.
    fn describe(name: &str) -> Function;
    /// Calls it with a checked argument array.
    ///
    /// # Errors
    /// The function's own error, or what is wrong with the arguments.
    fn call(&self, args: &Cbor) -> Result<Cbor, String>;
}

/// A native function without its type.
#[derive(Clone)]
pub(crate) struct Native {
    pub(crate) description: Arc<Function>,
    /// Takes arguments that were checked against the description.
    pub(crate) call: Arc<Call>,
}

type Call = dyn Fn(&Cbor) -> Result<Cbor, String> + Send + Sync;

impl Native {
    /// Forgets the type of a function.
    pub(crate) fn new<Args: 'static, F: NativeFunction<Args>>(name: &str, function: F) -> Native {
        Native { description: Arc::new(F::describe(name)), call: Arc::new(move |args| function.call(args)) }
    }
}

impl<T: Value> Return for T {
    fn ty() -> Type {
        <T as Value>::ty()
    }

    fn finish(self) -> Result<Cbor, String> {
        let mut out = Vec::new();
        self.write(&mut out);
        Ok(Cbor::from_encoded(out))
    }
}

impl<T: Value, E: fmt::Display> Return for Result<T, E> {
    fn ty() -> Type {
        Type::Fallible(Box::new(T::ty()))
    }

    fn finish(self) -> Result<Cbor, String> {
        self.map_err(|error| error.to_string())?.finish()
    }
}

macro_rules! native_function {
    ($($arg:ident $name:literal),*) => {
        impl<F, R, $($arg),*> NativeFunction<($($arg,)*)> for F
        where
            F: Fn($($arg),*) -> R + Send + Sync + 'static,
            R: Return,
            $($arg: Value,)*
        {
            fn describe(name: &str) -> Function {
                let args = vec![$(Arg { name: $name.into(), ty: $arg::ty() }),*];
                Function { name: name.into(), args, ret: R::ty(), doc: String::new() }
            }

            #[allow(non_snake_case, unused_mut, unused_variables)]
            fn call(&self, args: &Cbor) -> Result<Cbor, String> {
                let mut decoder = Decoder::new(args.as_bytes());
                decoder.array().map_err(|error| error.to_string())?;
                $(let $arg = $arg::read(&mut decoder).map_err(|error| error.to_string())?;)*
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

    /// An integer is as good.
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

    /// A wider float is rounded.
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
        self.iter().for_each(|item| item.write(out));
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
        /// A list of just these.
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

    fn run<Args: 'static, F: NativeFunction<Args>>(function: F, args: Cbor) -> Result<Cbor, String> {
        (Native::new("f", function).call)(&args)
    }

    #[test]
    fn closures_take_and_give_what_their_signature_says() {
        let add = |x: i64, y: i64| x + y;
        assert_eq!(run(add, Cbor::encode(&(2, 3))), Ok(Cbor::encode(&5)));
        let mean =
            |xs: Vec<f64>| if xs.is_empty() { Err("no values") } else { Ok(xs.iter().sum::<f64>() / xs.len() as f64) };
        assert_eq!(run(mean, Cbor::encode(&([1u8, 2, 6],))), Ok(Cbor::encode(&3.0f64)));
        assert_eq!(run(mean, Cbor::encode(&([0u8; 0],))), Err("no values".into()));
        assert_eq!(run(|x: Option<String>| x.is_none(), Cbor::encode(&(None::<u8>,))), Ok(Cbor::encode(&true)));
    }

    #[test]
    fn the_description_follows_the_signature() {
        fn describe<Args, F: NativeFunction<Args>>(_: &F) -> Function {
            F::describe("f")
        }
        let function = describe(&|_: Vec<i64>, _: Option<String>| -> Result<f64, String> { Ok(0.0) });
        let types: Vec<String> = function.args.iter().map(|arg| format!("{}: {}", arg.name, arg.ty)).collect();
        assert_eq!(types, ["a0: [i64]", "a1: ?str"]);
        assert_eq!(function.ret.to_string(), "!f64");
    }
}
