//! A small CBOR codec: definite lengths, no formatting, no recursion.
//!
//! It encodes and decodes the basic kinds of items. It trusts its input, because the host has checked that arguments
//! are well-formed, UTF-8 and of the declared types. Any other input ends the task.
//!
//! Arithmetic here and in the arena wraps where it cannot overflow, and nothing is indexed. Every panic would put its
//! text and the path of this file into every module.

use alloc::vec::Vec;
use core::alloc::Layout;
use core::mem::ManuallyDrop;

use crate::host::die;
use crate::{TaskError, TypeName};

/// A type that can be an argument.
///
/// ```
/// use broccoli_sdk::{Decoder, FromCbor, TypeName, task};
///
/// struct Celsius(f64);
///
/// impl FromCbor<'_> for Celsius {
///     const TYPE: TypeName = <f64 as FromCbor>::TYPE;
///     fn decode(d: &mut Decoder<'_>) -> Self {
///         Self(f64::decode(d))
///     }
/// }
///
/// #[task]
/// fn is_warm(t: Celsius) -> bool {
///     t.0 > 20.0
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a task",
    label = "not a type that travels",
    note = "those are i8 to u64, f32, f64, bool, &str, String, Vec<T>, Option<T>, tuples, BTreeMap<String, T>, Bytes, Num, Value",
    note = "take the fields of a struct one by one or as a tuple, or write `impl FromCbor<'_>` for it"
)]
pub trait FromCbor<'a>: Sized {
    /// The text of the type in the description.
    const TYPE: TypeName;
    /// Reads one item. The host has checked it against [`FromCbor::TYPE`].
    fn decode(d: &mut Decoder<'a>) -> Self;
}

/// A type that can be a result.
///
/// ```
/// use broccoli_sdk::{Encoder, ToCbor, TypeName, task};
///
/// struct Celsius(f64);
///
/// impl ToCbor for Celsius {
///     const TYPE: TypeName = <f64 as ToCbor>::TYPE;
///     fn encode(&self, e: &mut Encoder) {
///         self.0.encode(e);
///     }
/// }
///
/// #[task]
/// fn boiling() -> Celsius {
///     Celsius(100.0)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be in the result of a task",
    label = "not a type that travels",
    note = "those are i8 to u64, f32, f64, bool, &str, String, Vec<T>, Option<T>, tuples, BTreeMap<String, T>, Bytes, Num, Value",
    note = "give the fields of a struct as a tuple, or write `impl ToCbor` for it"
)]
pub trait ToCbor {
    /// The text of the type in the description.
    const TYPE: TypeName;
    /// Writes one item of that type.
    fn encode(&self, e: &mut Encoder);
}

/// A type that a task may return: a value, or a `Result` whose error is a text or a request for a retry.
///
/// ```
/// use broccoli_sdk::Return;
/// assert_eq!(<Result<i64, &str> as Return>::TYPE.as_str(), "!i64");
/// ```
#[diagnostic::on_unimplemented(
    message = "a task cannot give `{Self}`",
    label = "not a type that travels",
    note = "those are i8 to u64, f32, f64, bool, &str, String, Vec<T>, Option<T>, tuples, BTreeMap<String, T>, Bytes, Num, Value",
    note = "or a Result of one of them, whose error is a text (&str, String), Retry or Failure",
    note = "give the fields of a struct as a tuple, or write `impl ToCbor` for it"
)]
pub trait Return {
    /// The text of the type in the description.
    const TYPE: TypeName;
    /// Writes the value or the error. Returns whether it was a value.
    fn encode_return(self, e: &mut Encoder) -> bool;
}

impl<T: ToCbor> Return for T {
    const TYPE: TypeName = T::TYPE;

    fn encode_return(self, e: &mut Encoder) -> bool {
        self.encode(e);
        true
    }
}

impl<T: ToCbor, E: TaskError> Return for Result<T, E> {
    const TYPE: TypeName = TypeName::new("!").then(&T::TYPE);

    fn encode_return(self, e: &mut Encoder) -> bool {
        match self {
            Ok(value) => {
                value.encode(e);
                true
            }
            Err(error) => {
                error.encode_error(e);
                false
            }
        }
    }
}

pub(crate) const UINT: u8 = 0;
pub(crate) const NEGATIVE: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const ARRAY: u8 = 4;
pub(crate) const MAP: u8 = 5;
pub(crate) const TAG: u8 = 6;
pub(crate) const SIMPLE: u8 = 7;

pub(crate) const FALSE: u8 = 0xf4;
pub(crate) const TRUE: u8 = 0xf5;
pub(crate) const NULL: u8 = 0xf6;

/// The head of an item: `major` is the kind, `info` the low five bits, `arg` their value.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) major: u8,
    pub(crate) info: u8,
    pub(crate) arg: u64,
}

/// Reads items one after the other.
///
/// ```
/// use broccoli_sdk::{Decoder, FromCbor};
/// let mut d = Decoder::new(&[0x01, 0x61, b'a']);
/// assert_eq!(i64::decode(&mut d), 1);
/// assert_eq!(<&str>::decode(&mut d), "a");
/// ```
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline(never)]
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        match self.rest.split_at_checked(len) {
            Some((taken, rest)) => {
                self.rest = rest;
                taken
            }
            None => die("malformed arguments", 0),
        }
    }

    #[inline(never)]
    pub(crate) fn head(&mut self) -> Head {
        let first = self.byte();
        let info = first & 0x1f;
        let arg = match info {
            0..24 => u64::from(info),
            24 => self.big_endian(1),
            25 => self.big_endian(2),
            26 => self.big_endian(4),
            27 => self.big_endian(8),
            _ => die("malformed arguments", 0),
        };
        Head { major: first >> 5, info, arg }
    }

    #[inline(never)]
    fn big_endian(&mut self, len: usize) -> u64 {
        self.take(len).iter().fold(0, |n, byte| n << 8 | u64::from(*byte))
    }

    fn byte(&mut self) -> u8 {
        match self.take(1) {
            [byte] => *byte,
            _ => die("malformed arguments", 0),
        }
    }

    /// Opens a list, and returns the number of its items, which follow.
    pub fn array(&mut self) -> usize {
        self.head().arg as usize
    }

    /// Opens a map, and returns the number of its pairs. Their keys and values follow, alternating.
    pub fn map(&mut self) -> usize {
        self.head().arg as usize
    }

    /// Reads a `null`, if one is next.
    pub fn null(&mut self) -> bool {
        let found = self.rest.first() == Some(&NULL);
        if found {
            self.take(1);
        }
        found
    }

    /// Reads an integer. The host has checked its range.
    pub fn int(&mut self) -> i64 {
        let head = self.head();
        if head.major == NEGATIVE { !(head.arg as i64) } else { head.arg as i64 }
    }

    /// Reads an integer or a float as a float.
    #[inline(never)]
    pub fn float(&mut self) -> f64 {
        let head = self.head();
        match (head.major, head.info) {
            (UINT, _) => head.arg as f64,
            (NEGATIVE, _) => -1.0 - head.arg as f64,
            (_, 25) => broccoli_abi::cbor::f16_to_f64(head.arg as u16),
            (_, 26) => f64::from(f32::from_bits(head.arg as u32)),
            (_, 27) => f64::from_bits(head.arg),
            _ => die("malformed arguments", 0),
        }
    }

    /// Whether the next item is an integer.
    #[must_use]
    pub fn is_int(&self) -> bool {
        self.rest.first().is_some_and(|first| *first < 0x40)
    }

    /// Reads a byte string, or the bytes of a text.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = self.head().arg;
        self.take(len as usize)
    }

    /// Reads a text.
    #[allow(unsafe_code)]
    pub fn str(&mut self) -> &'a str {
        let bytes = self.bytes();
        #[cfg(target_arch = "wasm32")]
        // SAFETY: the host has checked that texts are UTF-8.
        return unsafe { core::str::from_utf8_unchecked(bytes) };
        #[cfg(not(target_arch = "wasm32"))]
        core::str::from_utf8(bytes).unwrap_or_else(|_| die("malformed arguments", 0))
    }

    /// Moves past one whole item, and returns its bytes.
    #[inline(never)]
    pub fn item(&mut self) -> &'a [u8] {
        let all = self.rest;
        let mut missing = 1u64;
        while missing > 0 {
            missing = missing.wrapping_sub(1);
            let head = self.head();
            match head.major {
                BYTES | TEXT => {
                    self.take(head.arg as usize);
                }
                ARRAY => missing = missing.saturating_add(head.arg),
                MAP => missing = missing.saturating_add(head.arg.saturating_mul(2)),
                TAG => missing = missing.saturating_add(1),
                _ => {}
            }
        }
        all.get(..all.len().wrapping_sub(self.rest.len())).unwrap_or_default()
    }
}

/// Collects encoded items.
///
/// ```
/// use broccoli_sdk::{Encoder, ToCbor};
/// let mut e = Encoder::new();
/// (1i64, "a").encode(&mut e);
/// assert_eq!(e.into_bytes(), [0x82, 0x01, 0x61, b'a']);
/// ```
#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// An empty encoder.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// The encoded bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes that have been encoded so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds bytes that are whole items, or the rest of an item.
    #[inline(never)]
    pub fn raw(&mut self, bytes: &[u8]) {
        let len = self.bytes.len();
        if self.bytes.capacity().wrapping_sub(len) < bytes.len() {
            self.grow(bytes.len());
        }
        // SAFETY: room for `bytes` lies behind the first `len` bytes, and is filled here.
        #[allow(unsafe_code)]
        unsafe {
            let end = self.bytes.as_mut_ptr().add(len);
            end.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            self.bytes.set_len(len.wrapping_add(bytes.len()));
        }
    }

    /// Makes room for `more` bytes. `Vec` could do this, but would bring its panics and their formatting into every
    /// module.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        let (len, old) = (self.bytes.len(), self.bytes.capacity());
        let room = len.saturating_add(more).max(old.saturating_mul(2)).max(32);
        let bytes = ManuallyDrop::new(core::mem::take(&mut self.bytes));
        let (Ok(old), Ok(new)) = (Layout::array::<u8>(old), Layout::array::<u8>(room)) else { die("out of memory", 0) };
        // SAFETY: `new` is not empty; a `Vec` with a capacity owns a block of that size from the
        // global allocator, and gives it up here.
        #[allow(unsafe_code)]
        unsafe {
            let block = if old.size() == 0 {
                alloc::alloc::alloc(new)
            } else {
                alloc::alloc::realloc(bytes.as_ptr().cast_mut(), old, room)
            };
            if block.is_null() {
                die("out of memory", 0);
            }
            self.bytes = Vec::from_raw_parts(block, len, room);
        }
    }

    #[inline(never)]
    fn head(&mut self, major: u8, arg: u64) {
        let (info, width) = match arg {
            0..24 => (arg as u8, 0),
            24..0x100 => (24, 1),
            0x100..0x1_0000 => (25, 2),
            0x1_0000..0x1_0000_0000 => (26, 4),
            _ => (27, 8),
        };
        self.raw(&[major << 5 | info]);
        let bytes = arg.to_be_bytes();
        self.raw(bytes.get(8usize.wrapping_sub(width)..).unwrap_or_default());
    }

    /// Adds an integer.
    pub fn int(&mut self, n: i64) {
        if n < 0 { self.head(NEGATIVE, !n as u64) } else { self.head(UINT, n as u64) }
    }

    /// Adds an integer.
    pub fn uint(&mut self, n: u64) {
        self.head(UINT, n);
    }

    /// Adds a float.
    pub fn float(&mut self, x: f64) {
        self.raw(&[SIMPLE << 5 | 27]);
        self.raw(&x.to_bits().to_be_bytes());
    }

    /// Adds a boolean.
    pub fn bool(&mut self, b: bool) {
        self.raw(&[if b { TRUE } else { FALSE }]);
    }

    /// Adds a `null`.
    pub fn null(&mut self) {
        self.raw(&[NULL]);
    }

    /// Adds a text.
    pub fn str(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.raw(text.as_bytes());
    }

    /// Adds a byte string.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.raw(bytes);
    }

    /// Opens a list of `len` items, which must follow.
    pub fn array(&mut self, len: usize) {
        self.head(ARRAY, len as u64);
    }

    /// Opens a map of `len` pairs. Their keys and values must follow, alternating.
    pub fn map(&mut self, len: usize) {
        self.head(MAP, len as u64);
    }

    /// Adds a tag. The tagged item must follow.
    pub fn tag(&mut self, tag: u64) {
        self.head(TAG, tag);
    }
}
