//! Descriptions of functions: the entries of the section `broccoli.tasks`, and the types of arguments and results.
//!
//! This module defines the grammar of types, and checks values against types. It never runs a function.
//!
//! ```text
//! type  = "!" plain | plain                     ! may fail; only outermost
//! plain = i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 | num | bool | str | bytes | null | any
//!       | "[" plain "]"                         list
//!       | "?" plain                             that or null
//!       | "(" plain {"," plain} ")"             list of exactly these
//!       | "{" plain "}"                         map from strings
//! ```

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::str::FromStr;

use minicbor::{Decode, Encode};

use crate::cbor::{Head, Reader, validate_item};
use crate::{ARGS_MAX, DOC_LEN_MAX, FUNCTIONS_MAX, NAME_LEN_MAX, TYPE_DEPTH_MAX, TYPE_LEN_MAX, is_name};

/// The description of a function in its module: `[name, [[arg, type]…], ret, doc]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Function {
    /// Name without its module.
    #[n(0)]
    pub name: String,
    /// Parameters in order.
    #[n(1)]
    pub args: Vec<Arg>,
    /// Type of the result.
    #[n(2)]
    pub ret: Type,
    /// Documentation by its author; may be empty.
    #[n(3)]
    pub doc: String,
}

/// The functions of one module, in its order: `[function…]`. Clones share them, because a node has them in the
/// module's manifest and beside the compiled code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Functions(Arc<[Function]>);

impl Deref for Functions {
    type Target = [Function];

    fn deref(&self) -> &[Function] {
        &self.0
    }
}

impl From<Vec<Function>> for Functions {
    fn from(functions: Vec<Function>) -> Self {
        Self(functions.into())
    }
}

impl FromIterator<Function> for Functions {
    fn from_iter<I: IntoIterator<Item = Function>>(functions: I) -> Self {
        Self(functions.into_iter().collect())
    }
}

impl<C> Encode<C> for Functions {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        self.0.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Functions {
    fn decode(d: &mut minicbor::Decoder<'b>, ctx: &mut C) -> Result<Self, minicbor::decode::Error> {
        Vec::decode(d, ctx).map(Self::from)
    }
}

/// One parameter of a [`Function`]: `[arg, type]`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Arg {
    /// Name, for keyword arguments and messages.
    #[n(0)]
    pub name: String,
    /// Type of the value.
    #[n(1)]
    pub ty: Type,
}

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DescribeError {
    /// It is not the expected CBOR; the text says what is wrong.
    Cbor(String),
    /// A function or an argument has an invalid name.
    Name(String),
    /// Two functions, or two arguments of one function, have this name.
    Duplicate(String),
    /// The function has more than [`ARGS_MAX`] arguments.
    TooManyArgs(String),
    /// The section has more than [`FUNCTIONS_MAX`] functions.
    TooManyFunctions,
    /// The documentation of this function is longer than [`DOC_LEN_MAX`] bytes.
    DocTooLong(String),
    /// An argument of this function has a type that starts with `!`.
    FallibleArg(String),
    /// An argument or the result has an invalid type.
    Type {
        /// Name of the function.
        function: String,
        /// Name of the argument; none: it is the result.
        arg: Option<String>,
        /// The text that is not a type.
        text: String,
    },
}

impl fmt::Display for DescribeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cbor(reason) => write!(f, "{reason}"),
            Self::Name(name) => write!(f, "bad name {name:?}: use letters, digits and _, at most {NAME_LEN_MAX}"),
            Self::Duplicate(name) => write!(f, "{name} is there twice"),
            Self::TooManyArgs(name) => write!(f, "{name} has more than {ARGS_MAX} arguments"),
            Self::TooManyFunctions => write!(f, "more than {FUNCTIONS_MAX} functions"),
            Self::DocTooLong(name) => {
                write!(f, "the documentation of {name} is longer than {DOC_LEN_MAX} bytes")
            }
            Self::FallibleArg(name) => write!(f, "an argument of {name} has a `!` type"),
            Self::Type { function, arg: Some(arg), text } => {
                write!(f, "argument {arg} of {function} has the type {text:?}, {NO_TYPE}")
            }
            Self::Type { function, arg: None, text } => {
                write!(f, "the result of {function} has the type {text:?}, {NO_TYPE}")
            }
        }
    }
}

impl core::error::Error for DescribeError {}

const NO_TYPE: &str =
    "which is none: there are i8 to u64, f32, f64, num, bool, str, bytes, null, any, [T], ?T, (A,B) and {T}";

/// The first invalid type in a malformed description.
fn bad_type(item: &[u8]) -> Option<DescribeError> {
    let mut decoder = minicbor::Decoder::new(item);
    decoder.array().ok()?;
    let function: String = decoder.str().ok()?.into();
    let bad = |text: &str| Type::parse(text).is_err().then(|| text.to_string());
    for _ in 0..decoder.array().ok()?? {
        decoder.array().ok()?;
        let arg: String = decoder.str().ok()?.into();
        if let Some(text) = bad(decoder.str().ok()?) {
            return Some(DescribeError::Type { function, arg: Some(arg), text });
        }
    }
    bad(decoder.str().ok()?).map(|text| DescribeError::Type { function, arg: None, text })
}

impl Function {
    /// Decodes the content of the section `broccoli.tasks`: a CBOR sequence, one item for each function.
    ///
    /// # Errors
    /// The first part of it that is not a valid description.
    pub fn decode_section(section: &[u8]) -> Result<Functions, DescribeError> {
        let mut functions: Vec<Self> = Vec::new();
        let mut reader = Reader::new(section);
        while !reader.is_at_end() {
            if functions.len() == FUNCTIONS_MAX {
                return Err(DescribeError::TooManyFunctions);
            }
            let item = reader.item().map_err(|e| DescribeError::Cbor(e.to_string()))?;
            let malformed = |error: minicbor::decode::Error| DescribeError::Cbor(error.to_string());
            let function: Self = minicbor::decode(item).map_err(|e| bad_type(item).unwrap_or_else(|| malformed(e)))?;
            function.validate()?;
            if functions.iter().any(|f| f.name == function.name) {
                return Err(DescribeError::Duplicate(function.name));
            }
            functions.push(function);
        }
        Ok(functions.into())
    }

    /// Checks names and limits.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), DescribeError> {
        if !is_name(&self.name) {
            return Err(DescribeError::Name(self.name.clone()));
        }
        if self.args.len() > ARGS_MAX {
            return Err(DescribeError::TooManyArgs(self.name.clone()));
        }
        if self.doc.len() > DOC_LEN_MAX {
            return Err(DescribeError::DocTooLong(self.name.clone()));
        }
        for (i, arg) in self.args.iter().enumerate() {
            if !is_name(&arg.name) {
                return Err(DescribeError::Name(arg.name.clone()));
            }
            if self.args[..i].iter().any(|a| a.name == arg.name) {
                return Err(DescribeError::Duplicate(arg.name.clone()));
            }
            if matches!(arg.ty, Type::Fallible(_)) {
                return Err(DescribeError::FallibleArg(self.name.clone()));
            }
        }
        Ok(())
    }
}

/// Why arguments do not match a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgsError {
    /// They are not one CBOR array.
    NotAnArray(Mismatch),
    /// There are too many or too few.
    Count {
        /// Name of the function.
        function: String,
        /// How many it takes.
        takes: usize,
        /// How many there are.
        got: u64,
    },
    /// An argument has the wrong type.
    Type {
        /// Name of the argument.
        arg: String,
        /// What is wrong with it.
        mismatch: Mismatch,
    },
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnArray(mismatch) => write!(f, "bad arguments: {mismatch}"),
            Self::Count { function, takes, got } => {
                let plural = if *takes == 1 { "" } else { "s" };
                write!(f, "{function} takes {takes} argument{plural}, got {got}")
            }
            Self::Type { arg, mismatch } => write!(f, "argument {arg}: {mismatch}"),
        }
    }
}

impl core::error::Error for ArgsError {}

impl Function {
    /// Checks that `cbor` is one well-formed array with an item of the right type for each
    /// parameter.
    ///
    /// # Errors
    /// What is wrong with the number of arguments, or with the first wrong one.
    pub fn check_args(&self, cbor: &[u8]) -> Result<(), ArgsError> {
        let not_array = |got: String| ArgsError::NotAnArray(Mismatch { expected: "a list of arguments".into(), got });
        validate_item(cbor).map_err(|e| not_array(e.to_string()))?;
        let mut reader = Reader::new(cbor);
        let got = match reader.head() {
            Ok(Head::Array(len)) => len,
            Ok(head) => return Err(not_array(kind(head))),
            Err(e) => return Err(not_array(e.to_string())),
        };
        if got != self.args.len() as u64 {
            let (function, takes) = (self.to_string(), self.args.len());
            return Err(ArgsError::Count { function, takes, got });
        }
        for arg in &self.args {
            arg.ty.check_next(&mut reader).map_err(|mismatch| ArgsError::Type { arg: arg.name.clone(), mismatch })?;
        }
        Ok(())
    }
}

/// `add(x: i64, y: i64) -> i64`
impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        for (i, arg) in self.args.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{}: {}", arg.name, arg.ty)?;
        }
        write!(f, ") -> {}", self.ret)
    }
}

/// The type of an argument or a result.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// `i8`
    I8,
    /// `i16`
    I16,
    /// `i32`
    I32,
    /// `i64`
    I64,
    /// `u8`
    U8,
    /// `u16`
    U16,
    /// `u32`
    U32,
    /// `u64`
    U64,
    /// `f32`: takes any number. A wider float is rounded.
    F32,
    /// `f64`: takes any number.
    F64,
    /// `num`: a signed integer of 64 bits, or a float.
    Num,
    /// `bool`
    Bool,
    /// `str`
    Str,
    /// `bytes`
    Bytes,
    /// `null`
    Null,
    /// `any`: every value.
    Any,
    /// `[T]`: a list.
    List(Box<Type>),
    /// `?T`: `T` or null.
    Optional(Box<Type>),
    /// `(A,B)`: a list of exactly these, at least one.
    Tuple(Vec<Type>),
    /// `{T}`: a map from strings.
    Map(Box<Type>),
    /// `!T`: `T`, or an error. Only as a whole result.
    Fallible(Box<Type>),
}

/// Why a text is not a [`Type`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeError {
    /// There is no type at this byte.
    Expected {
        /// Offset in the text.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
    /// It is longer than [`TYPE_LEN_MAX`].
    TooLong,
    /// It is nested deeper than [`TYPE_DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected { at, what } => write!(f, "expected {what} at byte {at} of the type"),
            Self::TooLong => write!(f, "the type is longer than {TYPE_LEN_MAX} bytes"),
            Self::TooDeep => write!(f, "the type nests deeper than {TYPE_DEPTH_MAX} levels"),
        }
    }
}

impl core::error::Error for TypeError {}

/// A value does not have its type: `expected i64, got str`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The innermost type that did not match, or the expected kind of CBOR.
    pub expected: String,
    /// What was there instead.
    pub got: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got {}", self.expected, self.got)
    }
}

impl core::error::Error for Mismatch {}

const NAMED: [(&str, Type); 16] = [
    ("i8", Type::I8),
    ("i16", Type::I16),
    ("i32", Type::I32),
    ("i64", Type::I64),
    ("u8", Type::U8),
    ("u16", Type::U16),
    ("u32", Type::U32),
    ("u64", Type::U64),
    ("f32", Type::F32),
    ("f64", Type::F64),
    ("num", Type::Num),
    ("bool", Type::Bool),
    ("str", Type::Str),
    ("bytes", Type::Bytes),
    ("null", Type::Null),
    ("any", Type::Any),
];

impl Type {
    /// Reads the text of a type, without spaces. The grammar is at the top of this module.
    ///
    /// ```
    /// use broccoli_abi::Type;
    /// let ty = Type::parse("![(str,?i64)]").unwrap();
    /// assert_eq!(ty.to_string(), "![(str,?i64)]");
    /// ```
    ///
    /// # Errors
    /// Where the text is not a type, or which limit it exceeds.
    pub fn parse(text: &str) -> Result<Self, TypeError> {
        if text.len() > TYPE_LEN_MAX {
            return Err(TypeError::TooLong);
        }
        let mut parser = Parser { text: text.as_bytes(), at: 0 };
        let ty = if parser.eat(b'!') { Self::Fallible(Box::new(parser.plain(1)?)) } else { parser.plain(0)? };
        if parser.at == text.len() { Ok(ty) } else { Err(parser.expected("the end")) }
    }

    /// The type of a success: `T` for `!T`, otherwise the type itself.
    #[must_use]
    pub fn success(&self) -> &Self {
        match self {
            Self::Fallible(inner) => inner,
            other => other,
        }
    }

    /// Whether `cbor` is one well-formed item of this type.
    #[must_use]
    pub fn accepts(&self, cbor: &[u8]) -> bool {
        self.check(cbor).is_ok()
    }

    /// Checks that `cbor` is one well-formed item of this type. Integers are valid floats. A tagged item is valid
    /// only as `any`.
    ///
    /// # Errors
    /// The innermost type that does not match, and what is there instead.
    pub fn check(&self, cbor: &[u8]) -> Result<(), Mismatch> {
        if let Err(e) = validate_item(cbor) {
            return Err(Mismatch { expected: "one CBOR item".into(), got: e.to_string() });
        }
        self.check_next(&mut Reader::new(cbor))
    }

    /// The bounds of an integer type. `num` and the floats take integers, too.
    fn int_range(&self) -> Option<(i128, i128)> {
        fn of<T: Into<i128>>(min: T, max: T) -> Option<(i128, i128)> {
            Some((min.into(), max.into()))
        }
        match self {
            Self::I8 => of(i8::MIN, i8::MAX),
            Self::I16 => of(i16::MIN, i16::MAX),
            Self::I32 => of(i32::MIN, i32::MAX),
            Self::I64 | Self::Num => of(i64::MIN, i64::MAX),
            Self::U8 => of(u8::MIN, u8::MAX),
            Self::U16 => of(u16::MIN, u16::MAX),
            Self::U32 => of(u32::MIN, u32::MAX),
            Self::U64 => of(u64::MIN, u64::MAX),
            Self::F32 | Self::F64 => of(i128::MIN, i128::MAX),
            _ => None,
        }
    }

    // Recursion follows the type, whose depth `parse` bounds, never the value.
    fn check_next(&self, reader: &mut Reader<'_>) -> Result<(), Mismatch> {
        let mut ahead = reader.clone();
        match (self, next(&mut ahead)?) {
            (Self::Any, _) => return reader.item().map(|_| ()).map_err(not_cbor),
            (Self::Fallible(inner), _) => return inner.check_next(reader),
            (Self::Optional(_), Head::Null) => {}
            (Self::Optional(inner), _) => return inner.check_next(reader),
            (Self::Null, Head::Null)
            | (Self::Bool, Head::Bool(_))
            | (Self::Str, Head::Text(_))
            | (Self::Bytes, Head::Bytes(_))
            | (Self::F32 | Self::F64 | Self::Num, Head::Float(_)) => {}
            (_, Head::Int(n)) if self.int_range().is_some_and(|(min, max)| n >= min && n <= max) => {}
            (Self::List(inner), Head::Array(len)) => {
                for _ in 0..len {
                    inner.check_next(&mut ahead)?;
                }
            }
            (Self::Tuple(items), Head::Array(len)) if len == items.len() as u64 => {
                for item in items {
                    item.check_next(&mut ahead)?;
                }
            }
            (Self::Map(inner), Head::Map(len)) => {
                for _ in 0..len {
                    Self::Str.check_next(&mut ahead)?;
                    inner.check_next(&mut ahead)?;
                }
            }
            (_, head) => return Err(self.mismatch(head)),
        }
        *reader = ahead;
        Ok(())
    }

    fn mismatch(&self, head: Head<'_>) -> Mismatch {
        let got = match head {
            Head::Int(n) if self.int_range().is_some() => n.to_string(),
            other => kind(other),
        };
        Mismatch { expected: self.to_string(), got }
    }
}

fn kind(head: Head<'_>) -> String {
    match head {
        Head::Int(_) => "int".into(),
        Head::Bytes(_) => "bytes".into(),
        Head::Text(_) => "str".into(),
        Head::Array(len) => format!("list of {len}"),
        Head::Map(_) => "map".into(),
        Head::Tag(tag) => format!("tag {tag}"),
        Head::Bool(_) => "bool".into(),
        Head::Null => "null".into(),
        Head::Float(_) => "float".into(),
    }
}

fn next<'a>(reader: &mut Reader<'a>) -> Result<Head<'a>, Mismatch> {
    reader.head().map_err(not_cbor)
}

fn not_cbor(error: crate::CborError) -> Mismatch {
    Mismatch { expected: "one CBOR item".into(), got: error.to_string() }
}

impl FromStr for Type {
    type Err = TypeError;

    fn from_str(text: &str) -> Result<Self, TypeError> {
        Self::parse(text)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(inner) => write!(f, "[{inner}]"),
            Self::Optional(inner) => write!(f, "?{inner}"),
            Self::Map(inner) => write!(f, "{{{inner}}}"),
            Self::Fallible(inner) => write!(f, "!{inner}"),
            Self::Tuple(items) => {
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "(" } else { "," })?;
                }
                write!(f, ")")
            }
            plain => {
                let named = NAMED.iter().find(|(_, ty)| ty == plain);
                f.write_str(named.map_or("", |(name, _)| name))
            }
        }
    }
}

impl<C> Encode<C> for Type {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.str(&self.to_string())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Type {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        Self::parse(d.str()?).map_err(|e| minicbor::decode::Error::message(e).at(at))
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn expected(&self, what: &'static str) -> TypeError {
        TypeError::Expected { at: self.at, what }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn need(&mut self, byte: u8, what: &'static str) -> Result<(), TypeError> {
        if self.eat(byte) { Ok(()) } else { Err(self.expected(what)) }
    }

    fn plain(&mut self, depth: usize) -> Result<Type, TypeError> {
        if depth == TYPE_DEPTH_MAX {
            return Err(TypeError::TooDeep);
        }
        if self.eat(b'[') {
            let inner = self.plain(depth + 1)?;
            self.need(b']', "`]`")?;
            Ok(Type::List(Box::new(inner)))
        } else if self.eat(b'{') {
            let inner = self.plain(depth + 1)?;
            self.need(b'}', "`}`")?;
            Ok(Type::Map(Box::new(inner)))
        } else if self.eat(b'?') {
            Ok(Type::Optional(Box::new(self.plain(depth + 1)?)))
        } else if self.eat(b'(') {
            let mut items = Vec::new();
            items.push(self.plain(depth + 1)?);
            while self.eat(b',') {
                items.push(self.plain(depth + 1)?);
            }
            self.need(b')', "`,` or `)`")?;
            Ok(Type::Tuple(items))
        } else {
            self.named()
        }
    }

    fn named(&mut self) -> Result<Type, TypeError> {
        let rest = &self.text[self.at..];
        let len = rest.iter().take_while(|b| b.is_ascii_alphanumeric()).count();
        let found = NAMED.iter().find(|(name, _)| name.as_bytes() == &rest[..len]);
        let (_, ty) = found.ok_or_else(|| self.expected("a type"))?;
        self.at += len;
        Ok(ty.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(text: &str) -> Type {
        Type::parse(text).unwrap()
    }

    #[test]
    fn types_print_as_they_parse() {
        for (name, _) in NAMED {
            assert_eq!(ty(name).to_string(), name);
        }
        for text in ["[i64]", "?str", "(i64,[str],{any})", "{?f64}", "!null", "!(num)", "??u8"] {
            assert_eq!(ty(text).to_string(), text);
        }
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        let section = |arg: &str, ret: &str| {
            let mut out = Vec::new();
            let mut encoder = minicbor::Encoder::new(&mut out);
            let written = encoder.array(4).unwrap().str("soil").unwrap().array(2).unwrap();
            let written = written.array(2).unwrap().str("bed").unwrap().str("u32").unwrap();
            let written = written.array(2).unwrap().str("at").unwrap().str(arg).unwrap();
            written.str(ret).unwrap().str("").unwrap();
            Function::decode_section(&out).map(|functions| functions.len()).map_err(|error| error.to_string())
        };
        let told = |what: &str| Err(format!("{what}, {NO_TYPE}"));
        assert_eq!(section("Reading", "null"), told("argument at of soil has the type \"Reading\""));
        assert_eq!(section("", "null"), told("argument at of soil has the type \"\""));
        assert_eq!(section("str", "[i65]"), told("the result of soil has the type \"[i65]\""));
        assert_eq!(section("str", "[i64]"), Ok(1));
    }

    #[test]
    fn bad_types_say_where() {
        let expected = |at, what| Err(TypeError::Expected { at, what });
        assert_eq!(Type::parse(""), expected(0, "a type"));
        assert_eq!(Type::parse("i65"), expected(0, "a type"));
        assert_eq!(Type::parse("[i64"), expected(4, "`]`"));
        assert_eq!(Type::parse("()"), expected(1, "a type"));
        assert_eq!(Type::parse("(i64 ,str)"), expected(4, "`,` or `)`"));
        assert_eq!(Type::parse("i64]"), expected(3, "the end"));
        assert_eq!(Type::parse("[!i64]"), expected(1, "a type"));
        let deep = |n| format!("{}i8", "?".repeat(n));
        assert!(Type::parse(&deep(TYPE_DEPTH_MAX - 1)).is_ok());
        assert_eq!(Type::parse(&deep(TYPE_DEPTH_MAX)), Err(TypeError::TooDeep));
        assert_eq!(Type::parse(&deep(TYPE_LEN_MAX)), Err(TypeError::TooLong));
    }

    #[test]
    fn accepts_values_of_the_type() {
        let good: &[(&str, &[u8])] = &[
            ("i8", &[0x38, 127]),
            ("u8", &[0x18, 255]),
            ("i64", &[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("u64", &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            ("f64", &[1]),
            ("f32", &[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
            ("num", &[0xf9, 0x3c, 0]),
            ("bool", &[0xf5]),
            ("str", &[0x61, b'a']),
            ("bytes", &[0x41, 1]),
            ("null", &[0xf6]),
            ("any", &[0xc1, 0x82, 1, 0xa0]),
            ("[?i64]", &[0x82, 0xf6, 1]),
            ("(str,i64)", &[0x82, 0x60, 1]),
            ("{bool}", &[0xa1, 0x61, b'a', 0xf4]),
            ("!i64", &[1]),
            ("([any],i8)", &[0x82, 0x82, 0x81, 1, 2, 3]),
        ];
        for (text, cbor) in good {
            assert_eq!(ty(text).check(cbor), Ok(()), "{text} {cbor:x?}");
        }
    }

    #[test]
    fn mismatches_say_what_is_wrong() {
        let bad: &[(&str, &[u8], &str)] = &[
            ("i8", &[0x18, 128], "expected i8, got 128"),
            ("u8", &[0x20], "expected u8, got -1"),
            ("num", &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "expected num, got 18446744073709551615"),
            ("i64", &[0x61, b'a'], "expected i64, got str"),
            ("i64", &[0xf9, 0x3c, 0], "expected i64, got float"),
            ("i64", &[0xc1, 1], "expected i64, got tag 1"),
            ("str", &[1], "expected str, got int"),
            ("(i64,i64)", &[0x81, 1], "expected (i64,i64), got list of 1"),
            ("[i64]", &[0x82, 1, 0xf6], "expected i64, got null"),
            ("{i64}", &[0xa1, 1, 1], "expected str, got int"),
            ("?i64", &[0xf4], "expected i64, got bool"),
            ("i64", &[1, 2], "expected one CBOR item, got more than one CBOR item (second at byte 1)"),
        ];
        for (text, cbor, message) in bad {
            assert_eq!(ty(text).check(cbor).unwrap_err().to_string(), *message);
        }
    }

    fn add() -> Function {
        let arg = |name: &str| Arg { name: name.into(), ty: Type::I64 };
        Function { name: "add".into(), args: [arg("x"), arg("y")].into(), ret: Type::I64, doc: "Sum.".into() }
    }

    #[test]
    fn section_round_trip() {
        let bytes = minicbor::to_vec(add()).unwrap();
        let golden = b"\x84\x63add\x82\x82\x61x\x63i64\x82\x61y\x63i64\x63i64\x64Sum.";
        assert_eq!(bytes, golden);
        assert_eq!(Function::decode_section(&bytes), Ok([add()].into_iter().collect()));
        assert_eq!(Function::decode_section(&[]), Ok(Vec::new().into()));
        assert_eq!(add().to_string(), "add(x: i64, y: i64) -> i64");
    }

    #[test]
    fn arguments_are_checked() {
        let refuse = |cbor: &[u8]| add().check_args(cbor).unwrap_err().to_string();
        assert_eq!(add().check_args(&[0x82, 1, 2]), Ok(()));
        assert_eq!(refuse(&[0x81, 1]), "add(x: i64, y: i64) -> i64 takes 2 arguments, got 1");
        assert_eq!(refuse(&[0x82, 1, 0x61, b'a']), "argument y: expected i64, got str");
        assert_eq!(refuse(&[1]), "bad arguments: expected a list of arguments, got int");
        assert!(refuse(&[0x82, 1]).contains("the CBOR ends inside an item"));
    }

    #[test]
    fn bad_sections_are_refused() {
        let twice = minicbor::to_vec(add()).unwrap().repeat(2);
        assert_eq!(Function::decode_section(&twice), Err(DescribeError::Duplicate("add".into())));
        assert!(matches!(Function::decode_section(&[0x84]), Err(DescribeError::Cbor(_))));
        assert!(matches!(Function::decode_section(&[0x01]), Err(DescribeError::Cbor(_))));
        let refuse = |change: fn(&mut Function)| {
            let mut function = add();
            change(&mut function);
            Function::decode_section(&minicbor::to_vec(&function).unwrap()).unwrap_err()
        };
        assert_eq!(refuse(|f| f.name = "a.b".into()), DescribeError::Name("a.b".into()));
        assert_eq!(refuse(|f| f.args[1].name = "x".into()), DescribeError::Duplicate("x".into()));
        let fallible = Type::Fallible(Box::new(Type::I64));
        let mut function = add();
        function.args[0].ty = fallible;
        assert_eq!(function.validate(), Err(DescribeError::FallibleArg("add".into())));
        assert_eq!(refuse(|f| f.doc = "x".repeat(DOC_LEN_MAX + 1)), DescribeError::DocTooLong("add".into()));
    }
}
