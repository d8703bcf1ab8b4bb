//! Functions for the code that `#[task]` generates. Authors of tasks need only [`TypeName`].

use broccoli_abi::{DOC_LEN_MAX, NAME_LEN_MAX, TYPE_LEN_MAX};

#[cfg(target_arch = "wasm32")]
use crate::{Decoder, Encoder, Return};

/// The section `broccoli.abi`.
#[cfg(target_arch = "wasm32")]
#[unsafe(link_section = "broccoli.abi")]
pub static ABI: [u8; 1] = [broccoli_abi::ABI_VERSION];

/// The text of a type in a description, built at compile time. At most 128 bytes.
///
/// ```
/// use broccoli_sdk::TypeName;
/// const LIST: TypeName = TypeName::new("[").then(&TypeName::new("i64")).then(&TypeName::new("]"));
/// assert_eq!(LIST.as_str(), "[i64]");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TypeName {
    text: Text<TYPE_LEN_MAX>,
}

impl TypeName {
    /// A type of this name.
    #[must_use]
    pub const fn new(name: &str) -> Self {
        Self { text: Text::EMPTY.then(name.as_bytes()) }
    }

    /// Both texts, concatenated.
    #[must_use]
    pub const fn then(self, next: &Self) -> Self {
        Self { text: self.text.then(next.text.bytes()) }
    }

    /// The text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.text.bytes()) {
            Ok(text) => text,
            Err(_) => "",
        }
    }
}

/// Bytes that are collected at compile time. Too many bytes do not compile.
#[derive(Clone, Copy, Debug)]
struct Text<const MAX: usize> {
    bytes: [u8; MAX],
    len: usize,
}

impl<const MAX: usize> Text<MAX> {
    const EMPTY: Self = Self { bytes: [0; MAX], len: 0 };

    const fn then(mut self, more: &[u8]) -> Self {
        assert!(more.len() <= MAX - self.len, "the description of a task is too long");
        let mut i = 0;
        while i < more.len() {
            self.bytes[self.len] = more[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    const fn bytes(&self) -> &[u8] {
        self.bytes.split_at(self.len).0
    }
}

const DESCRIPTION_LEN_MAX: usize = DOC_LEN_MAX + 18 * (NAME_LEN_MAX + TYPE_LEN_MAX + 6);

/// The entry of a task in the section `broccoli.tasks`: `[name, [[arg, type]…], ret, doc]`.
#[derive(Debug)]
pub struct Description {
    text: Text<DESCRIPTION_LEN_MAX>,
}

impl Description {
    /// Begins the entry of a task with `args` arguments, at most 16.
    #[must_use]
    pub const fn new(name: &str, args: usize) -> Self {
        Self { text: Text::EMPTY.then(&[0x84]) }.str(name).head(0x80, args)
    }

    /// Adds an argument.
    #[must_use]
    pub const fn arg(mut self, name: &str, ty: &TypeName) -> Self {
        self.text = self.text.then(&[0x82]);
        self.str(name).str(ty.as_str())
    }

    /// Ends with the result's type and the documentation.
    #[must_use]
    pub const fn end(self, ret: &TypeName, doc: &str) -> Self {
        self.str(ret.as_str()).str(doc)
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.text.len
    }

    /// Whether it is empty, which it never is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.text.len == 0
    }

    /// The entry; `N` is [`Description::len`].
    #[must_use]
    pub const fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        let mut i = 0;
        while i < N {
            bytes[i] = self.text.bytes[i];
            i += 1;
        }
        bytes
    }

    const fn str(self, text: &str) -> Self {
        let mut head = self.head(0x60, text.len());
        head.text = head.text.then(text.as_bytes());
        head
    }

    const fn head(mut self, major: u8, len: usize) -> Self {
        self.text = match len {
            0..24 => self.text.then(&[major | len as u8]),
            24..256 => self.text.then(&[major | 24, len as u8]),
            _ => self.text.then(&[major | 25, (len >> 8) as u8, len as u8]),
        };
        self
    }
}

/// Opens the argument array.
///
/// # Safety
/// `len` bytes at `ptr` must be one valid CBOR array with texts in UTF-8, and must stay until the call ends.
#[cfg(target_arch = "wasm32")]
#[must_use]
pub unsafe fn args<'a>(ptr: *const u8, len: usize) -> Decoder<'a> {
    // SAFETY: as the caller promises.
    let mut args = Decoder::new(unsafe { core::slice::from_raw_parts(ptr, len) });
    args.array();
    args
}

/// Encodes what the task has returned, for the host.
#[cfg(target_arch = "wasm32")]
#[must_use]
pub fn finish(value: impl Return) -> i64 {
    let mut out = Encoder::new();
    let err = !value.encode_return(&mut out);
    // The arena keeps the body until the next reset.
    let body = out.into_bytes().leak();
    let (ptr, len) = (body.as_ptr() as u32, body.len() as u32);
    broccoli_abi::PackedResult { ptr, len, err }.pack()
}
