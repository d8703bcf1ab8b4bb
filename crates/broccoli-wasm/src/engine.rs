//! The engine that runs Wasm: the interface that [`Run`](crate::Run) and [`Engine`](crate::Engine) use.
//!
//! ```text
//! Compiler ──compile──► Compiled ──instantiate──► Instance ──call, resume──► Stop
//! ```
//!
//! Each engine is a module here with these three types. Nothing outside of `engine/` names one. It owns the limits of
//! an instance, the imports, and how a call is suspended. It does not know the ABI: which exports are called, and what
//! their results mean, is in [`Run`](crate::Run).

mod wasmi;

use alloc::vec::Vec;

use broccoli_abi::HostCall;

pub(crate) use self::wasmi::{Compiled, Compiler, Instance};
use crate::Failure;

/// Why a call into the guest stopped.
pub(crate) enum Stop {
    /// It returned this value; 0 for a function without one.
    Returned(i64),
    /// Its fuel is used up. Continue with [`Instance::resume`], as after all the following ones.
    Yielded,
    /// It sleeps.
    Asleep { ms: u32 },
    /// It submits a canvas and waits for [`Instance::answer`].
    Submitted(Vec<u8>),
    /// It asks the board and waits for [`Instance::answer`].
    Asked(HostCall),
    /// It trapped or panicked, or something that it needs is missing.
    Failed(Failure),
}
