//! The wire of Broccoli, and the only place that knows it: ids, canvases, messages, packets,
//! sealing, module manifests, addresses and their MQTT topics.
//!
//! Bytes are validated here once; everything above holds valid types only. No I/O, no clock, no
//! randomness: epochs and sequence numbers come from the caller.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod canvas;
pub mod cbor;
pub mod id;
pub mod message;
pub mod module;
pub mod options;
pub mod outcome;
pub mod packet;
pub mod seal;
pub mod topic;

pub use canvas::{Canvas, Form, Options, Split, Task};
pub use cbor::Cbor;
pub use id::{BlobId, Epoch, JobId, ModuleHash, NodeId};
pub use outcome::{Cause, Outcome, TaskError};
