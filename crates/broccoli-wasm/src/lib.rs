//! Runs task modules (ABI v1, see `broccoli-abi`) in steps. The caller limits each step.
//!
//! Owns the checks when a module is loaded, the limits of an instance, the imports, and the suspension of a run when
//! its fuel is used up, or when it sleeps, submits or calls the board. Never reads a clock, waits, starts a thread or
//! touches a device: the shell's [`Host`] answers the imports, and the shell decides when to step again.
//!
//! ```text
//! Engine ──load──► Module ──start──► Run ──step──► Done | Yielded | Sleep | Submit | Call
//! (limits)         (checked, shared)  (one task, fresh instance)
//!                        ▲                 │
//!                        └──── Spare ◄─────┘ keep: the instance, to be made fresh again
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod engine;
mod host;
mod limits;
mod load;
mod restorable;
mod run;
mod section;
mod spare;

pub use broccoli_abi::{Arg, Function, Functions, HostCall, SubmitAnswer, Type};
pub use host::{Host, NoHost};
pub use limits::Limits;
pub use load::{Engine, LoadError, Module};
pub use run::{Failure, Run, Step};
pub use section::functions;
pub use spare::Spare;
