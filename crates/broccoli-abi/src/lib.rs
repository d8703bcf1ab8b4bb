//! The contract between a node and the Wasm modules that it runs: version 1 of the task ABI.
//!
//! This crate defines every name and number that both sides must agree on. It checks that bytes are one valid CBOR
//! item and, with the feature `describe`, describes functions. It never runs anything. Without `describe` it never
//! allocates.
//!
//! ```text
//! host                                   guest
//!   ptr = broccoli_alloc(len)       ──►    8-aligned, traps when out of memory
//!   memory[ptr..ptr+len] = args            one definite-length CBOR array
//!   task_<name>(ptr, len)           ──►    runs
//!                                   ◄──    ptr << 32 | err << 31 | len
//!   memory[ptr..ptr+len] = body            one CBOR item; err = 1: a text, the error,
//!                                          or [text, after_ms] to be tried again
//! ```
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "describe")]
extern crate alloc;

mod board;
#[cfg(feature = "describe")]
pub mod builtin;
pub mod cbor;
#[cfg(feature = "describe")]
mod describe;

pub use board::{BadHostCall, HOST_TEXT_LEN_MAX, HostAnswer, HostCall};
pub use cbor::{CborError, validate_item};
#[cfg(feature = "describe")]
pub use describe::{Arg, ArgsError, DescribeError, Function, Functions, Mismatch, Type, TypeError};

/// Version of this contract. This is the only byte of the custom section [`SECTION_ABI`].
pub const ABI_VERSION: u8 = 1;

/// The custom section with the ABI version, one byte.
pub const SECTION_ABI: &str = "broccoli.abi";
/// The custom section with the functions: a CBOR sequence of `[name, [[arg, type]…], ret, doc]`.
pub const SECTION_TASKS: &str = "broccoli.tasks";

/// The module name of every import.
pub const IMPORT_MODULE: &str = "broccoli";
/// `panic(ptr: i32, len: i32, line: i32)`: ends the task with an error text and a source line.
pub const IMPORT_PANIC: &str = "panic";
/// `log(ptr: i32, len: i32)`: one line of UTF-8 text for whoever watches the task.
pub const IMPORT_LOG: &str = "log";
/// `now_ms() -> i64`: milliseconds since 1970, or since the node started if it has no clock.
pub const IMPORT_NOW_MS: &str = "now_ms";
/// `random() -> i64`: 64 random bits. Do not use them for secrets.
pub const IMPORT_RANDOM: &str = "random";
/// `sleep_ms(ms: i32)`: suspends the task for that many milliseconds (unsigned), without using the CPU.
pub const IMPORT_SLEEP_MS: &str = "sleep_ms";
/// `progress(done: i32, total: i32)`: progress of the task, both unsigned; total is 0 if it does not know.
pub const IMPORT_PROGRESS: &str = "progress";
/// `submit(ptr: i32, len: i32) -> i64`: puts a canvas, in its wire encoding, into the queue of the node that runs the
/// task. The answer is a [`SubmitAnswer`].
pub const IMPORT_SUBMIT: &str = "submit";
/// `board(code: i32, a: i32, b: i32, room: i32, room_len: i32) -> i64`: sends a [`HostCall`] to the board of the
/// node. The answer is a [`HostAnswer`]; its text goes into the room, as far as it fits.
pub const IMPORT_BOARD: &str = "board";

/// The linear memory, exported by every module.
pub const EXPORT_MEMORY: &str = "memory";
/// `broccoli_alloc(len: i32) -> ptr`: 8-aligned memory for the arguments; traps when out of memory.
pub const EXPORT_ALLOC: &str = "broccoli_alloc";
/// `broccoli_reset()`, optional: frees everything that the last call has allocated.
pub const EXPORT_RESET: &str = "broccoli_reset";
/// `_initialize()`, optional: runs once in a new instance, before anything else.
pub const EXPORT_INITIALIZE: &str = "_initialize";
/// A function `add` is exported as `task_add(ptr: i32, len: i32) -> i64`.
pub const EXPORT_TASK_PREFIX: &str = "task_";

/// Longest function or argument name, in bytes.
pub const NAME_LEN_MAX: usize = 64;
/// How many arguments a function may have.
pub const ARGS_MAX: usize = 16;
/// How many functions a module may have.
pub const FUNCTIONS_MAX: usize = 256;
/// Longest documentation text of one function, in bytes.
pub const DOC_LEN_MAX: usize = 1024;
/// Longest text of a type, in bytes.
pub const TYPE_LEN_MAX: usize = 128;
/// Deepest nesting of a type.
pub const TYPE_DEPTH_MAX: usize = 8;
/// Deepest nesting of arrays, maps and tags in a value.
pub const VALUE_DEPTH_MAX: usize = 64;
/// Longest value, in bytes, that a packed result can describe: 31 bits.
pub const RESULT_LEN_MAX: u32 = 0x7fff_ffff;

/// CBOR tag ("BROC") of a canvas that a task returns instead of a result. The canvas replaces the task. The tagged
/// item is the canvas in its wire encoding.
pub const CANVAS_TAG: u64 = 0x4252_4f43;
/// Longest pause before a retry that a task may ask for, in milliseconds: about 280 years.
pub const RETRY_AFTER_MS_MAX: u64 = 1 << 43;

/// The answer of [`IMPORT_SUBMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i64)]
pub enum SubmitAnswer {
    /// The canvas is now a job of this node.
    Accepted = 0,
    /// The node holds its maximum of jobs or tasks; try later.
    QueueFull = -1,
    /// The bytes are not a canvas, or one that cannot run. The log of the task says why.
    BadCanvas = -2,
    /// The node takes no jobs, because it is about to leave or its disk is full. The log says which.
    NoJobs = -3,
}

impl SubmitAnswer {
    /// The `i64` that the guest gets.
    ///
    /// ```
    /// use broccoli_abi::SubmitAnswer;
    /// assert_eq!(SubmitAnswer::from_code(SubmitAnswer::QueueFull.code()), SubmitAnswer::QueueFull);
    /// ```
    #[must_use]
    pub const fn code(self) -> i64 {
        self as i64
    }

    /// The reverse of [`SubmitAnswer::code`]. Unknown codes, of later versions, are refusals, too.
    #[must_use]
    pub const fn from_code(code: i64) -> Self {
        match code {
            0 => Self::Accepted,
            -1 => Self::QueueFull,
            -2 => Self::BadCanvas,
            _ => Self::NoJobs,
        }
    }
}

const ERR_BIT: u64 = 1 << 31;

/// The return value of a `task_` export: where the body is, and whether it is an error.
///
/// ```text
///  63            32 31  30             0
/// ┌────────────────┬───┬────────────────┐
/// │      ptr       │err│      len       │
/// └────────────────┴───┴────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedResult {
    /// Address of the body in linear memory.
    pub ptr: u32,
    /// Length of the body in bytes, at most [`RESULT_LEN_MAX`].
    pub len: u32,
    /// Whether the body is an error: its text, or `[text, after_ms]`.
    pub err: bool,
}

impl PackedResult {
    /// The `i64` that a `task_` export returns.
    ///
    /// ```
    /// use broccoli_abi::PackedResult;
    /// let result = PackedResult { ptr: 16, len: 3, err: true };
    /// assert_eq!(result.pack(), 16 << 32 | 1 << 31 | 3);
    /// assert_eq!(PackedResult::unpack(result.pack()), result);
    /// ```
    #[must_use]
    pub const fn pack(self) -> i64 {
        let err = if self.err { ERR_BIT } else { 0 };
        ((self.ptr as u64) << 32 | err | (self.len & RESULT_LEN_MAX) as u64) as i64
    }

    /// The reverse of [`PackedResult::pack`]. Every `i64` is a valid result.
    #[must_use]
    pub const fn unpack(packed: i64) -> Self {
        let bits = packed as u64;
        Self { ptr: (bits >> 32) as u32, len: bits as u32 & RESULT_LEN_MAX, err: bits & ERR_BIT != 0 }
    }
}

/// Whether `name` is a valid name of a function, an argument or a module: an ASCII letter or `_`, then letters,
/// digits and `_`, at most [`NAME_LEN_MAX`] bytes.
#[must_use]
pub const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() > NAME_LEN_MAX || bytes[0].is_ascii_digit() {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        if !(bytes[i].is_ascii_alphanumeric() || bytes[i] == b'_') {
            return false;
        }
        i += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_result_keeps_the_extremes() {
        for result in [
            PackedResult { ptr: 0, len: 0, err: false },
            PackedResult { ptr: u32::MAX, len: RESULT_LEN_MAX, err: true },
            PackedResult { ptr: 0x8000_0000, len: 1, err: false },
        ] {
            assert_eq!(PackedResult::unpack(result.pack()), result);
        }
    }

    #[test]
    fn names() {
        assert!(is_name("add") && is_name("_x1"));
        assert!(!is_name("") && !is_name("1a") && !is_name("a.b") && !is_name("ä"));
        let long = [b'a'; NAME_LEN_MAX + 1];
        let long = core::str::from_utf8(&long).unwrap();
        assert!(!is_name(long) && is_name(&long[1..]));
    }
}
