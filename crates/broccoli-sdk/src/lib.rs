//! Everything that a task needs: `#[task]`, the types of arguments and results, and the few calls to the node.
//!
//! ```
//! use broccoli_sdk::prelude::*;
//!
//! /// Greets somebody.
//! #[task]
//! fn greet(name: &str) -> Result<String, &'static str> {
//!     if name.is_empty() {
//!         return Err("who?");
//!     }
//!     Ok(format!("hello {name}"))
//! }
//! ```
//!
//! This crate is the guest side of the task ABI, version 1: the arena allocator, the panic handler, a small CBOR
//! codec and the imports. A module is `#![no_std]`, a `cdylib`, and built for `wasm32-unknown-unknown`. On any other
//! target the same functions compile unchanged, so `cargo test` works.
//!
//! | Rust | type on the wire |
//! |---|---|
//! | `i8` … `u64`, `f32`, `f64`, `bool` | the same |
//! | `&str`, `String` | `str` |
//! | `&[u8]`, [`Bytes`] | `bytes` |
//! | `()` | `null` |
//! | [`Num`], [`Value`] | `num`, `any` |
//! | `Option<T>` | `?T` |
//! | `Vec<T>`, [`List<T>`](List) (argument, lazy) | `[T]` |
//! | `(A, B)`, up to six | `(A,B)` |
//! | `BTreeMap<String, T>` | `{T}` |
//! | `Result<T, E>`, as a whole result; `E` a text, [`Retry`] or [`Failure`] | `!T` |
//! | [`Replace<T>`](canvas::Replace), [`Canvas`](canvas::Canvas), as a whole result | `T`, `any` |
//!
//! A panic ends the task with its line, and with its text if the text has no arguments.
#![no_std]

extern crate alloc;
#[cfg(not(target_arch = "wasm32"))]
extern crate std;

#[cfg(target_arch = "wasm32")]
mod arena;
pub mod board;
pub mod canvas;
mod codec;
mod failure;
mod host;
mod num;
#[doc(hidden)]
pub mod rt;
mod types;
mod value;

pub use broccoli_macros::task;
pub use codec::{Decoder, Encoder, FromCbor, Return, ToCbor};
pub use failure::{Failure, Retry, TaskError};
pub use host::{log, now_ms, progress, random, sleep_ms};
pub use num::Num;
pub use rt::TypeName;
pub use types::{Bytes, List};
pub use value::{Kind, Value};

#[doc(hidden)]
pub use alloc::format as __format;

/// What most task crates need: `use broccoli_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::{Bytes, Failure, Kind, List, Num, Retry, Value, log, now_ms, progress, random, sleep_ms, task};
    #[doc(inline)]
    pub use crate::{eprintln, println};
    pub use alloc::borrow::ToOwned;
    pub use alloc::boxed::Box;
    pub use alloc::collections::BTreeMap;
    pub use alloc::string::{String, ToString};
    pub use alloc::vec::Vec;
    pub use alloc::{format, vec};
}

/// Formats a line and sends it to whoever watches the task. Formatting adds about 10 KB to the module. [`log()`] with
/// a plain text adds nothing.
///
/// ```
/// broccoli_sdk::log!("half of {} is done", 10);
/// ```
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => {
        $crate::log(&$crate::__format!($($arg)*))
    };
}

/// The same as [`log!`]. A task has no standard output; whoever watches it reads its log.
#[macro_export]
macro_rules! println {
    () => {
        $crate::log("")
    };
    ($($arg:tt)+) => {
        $crate::log!($($arg)+)
    };
}

/// The same as [`println!`].
#[macro_export]
macro_rules! eprintln {
    ($($arg:tt)*) => {
        $crate::println!($($arg)*)
    };
}
