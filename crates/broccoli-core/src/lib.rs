//! The Broccoli node as a state machine: inputs and outputs.
//!
//! It has no clock, no I/O, no threads, and no randomness of its own. Everything that happens is an input, so the same
//! code runs on a server, on a microcontroller and in a simulator.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod audit;
pub mod canvas;
mod client;
mod config;
mod content;
mod counters;
mod io;
mod members;
mod node;
mod origin;
mod outbox;
mod sessions;
mod shared;
mod text;
mod time;
mod timers;
mod timing;
mod trace;
mod worker;

pub use audit::{Known, Size, TaskState, TaskView};
pub use client::Submission;
pub use config::{Config, Limits};
pub use content::values::pulls::Large;
pub use counters::{Counters, Held, Rejected, Repeated};
pub use io::{
    Action, Damage, Event, Execute, Input, OtherVersion, RecordBytes, RecordKey, Recovery, RunId, SubmitId, Transmit,
    Write,
};
pub use members::Member;
pub use node::Node;
pub use origin::accept::SubmitError;
pub use time::{Backoff, Instant};
pub use timing::{LinkSpeed, Timing};
pub use trace::{Trace, TraceLevel};
