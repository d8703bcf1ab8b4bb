//! The engine that runs Wasm, behind the few things that [`Run`](crate::Run) and [`Engine`](crate::Engine) need of one.
//!
//! ```text
//! Compiler ──compile──► Compiled ──instantiate──► Instance ──call, resume──► Stop
//! ```
//!
//! An engine is a module here with these three types; nothing outside of `engine/` names one. It owns the limits of an
//! instance, the imports and how a call is suspended. The ABI is not its matter: what is called, and what its results mean, is
//! [`Run`](crate::Run)'s.

mod wasmi;

use alloc::vec::Vec;

use broccoli_abi::HostCall;

pub(crate) use self::wasmi::{Compiled, Compiler, Instance};
use crate::Failure;

/// Why a call into the guest has come back.
pub(crate) enum Stop {
    /// With its value; 0 of a function that gives none.
    Returned(i64),
    /// Its fuel is used up. [`Instance::resume`] goes on, as with all that follow.
    Yielded,
    /// It sleeps.
    Asleep { ms: u32 },
    /// It submits a canvas, and waits for [`Instance::answer`].
    Submitted(Vec<u8>),
    /// It asks the board, and waits for [`Instance::answer`].
    Asked(HostCall),
    /// It has trapped or panicked, or what it needs is not there.
    Failed(Failure),
}
