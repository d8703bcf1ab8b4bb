//! The wire protocol of Broccoli: ids, canvases, messages, packets, sealing, module manifests, addresses and their
//! MQTT topics. No other crate knows the format.
//!
//! Bytes are validated here, once. The layers above hold only valid types. There is no I/O, no clock and no
//! randomness: epochs and sequence numbers come from the caller.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod canvas;
pub mod cbor;
pub mod id;
pub mod led;
pub mod message;
pub mod module;
pub mod options;
pub mod outcome;
pub mod packet;
mod random;
pub mod seal;
pub mod topic;

pub use canvas::{Canvas, Form, Options, Split, Task};
pub use cbor::Cbor;
pub use id::{ContentId, Epoch, JobId, ModuleHash, NodeId};
pub use outcome::{Cause, Outcome, TaskError};
pub use random::SplitMix64;

use minicbor::{Decode, Decoder, decode};

/// Decodes a `T`. If this fails, because a later version has written the item, reads the item with `other` instead.
pub(crate) fn known_or<'b, C, T: Decode<'b, C>>(
    decoder: &mut Decoder<'b>,
    context: &mut C,
    other: impl FnOnce(&mut Decoder<'b>) -> Result<T, decode::Error>,
) -> Result<T, decode::Error> {
    let start = decoder.position();
    let known = T::decode(decoder, context);
    if known.is_err() {
        decoder.set_position(start);
        return other(decoder);
    }
    known
}
