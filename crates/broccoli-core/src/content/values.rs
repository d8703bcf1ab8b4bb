//! Large values: a value that does not fit into a packet of its receiver is pulled from its sender in pieces.
//!
//! ```text
//!   sender                                      receiver
//!     │ ── Lease, TaskResults, Submit, JobEvent ──► │ contains null instead of the value
//!     │ ◄─────────────────────────── ContentRequest │ a window of pieces; again if none arrives
//!     │ ── ContentPiece … ────────────────────────► │ all arrived, hash correct: the message is
//!     │                                             │ handled as if it had contained the value
//!     │ ── ContentGone ───────────────────────────► │ or the value is not available
//! ```
//!
//! [`held`] owns the bytes at the sender, [`pulls`] those at the receiver. Neither decides what a value is needed for.

pub(crate) mod held;
pub(crate) mod pulls;

use alloc::string::String;
use core::time::Duration;

use broccoli_proto::message::{BlobRef, JobNews, Message, StepView, Submit};
use broccoli_proto::module::hash;
use broccoli_proto::packet::Address;
use broccoli_proto::{Cbor, ContentId, NodeId};

use self::held::{HeldValues, Holder};
use self::pulls::{Purpose, ValuePulls};
use crate::outbox::Outbox;
use crate::text;
use crate::time::{Instant, ms};
use crate::timers::{Timer, Timers};
use crate::timing::Timing;

/// Interval at which held values and pulls are checked.
const TICK: Duration = ms(100);
/// Bytes of a message in addition to the value in it.
pub(crate) const VALUE_OVERHEAD_BYTES: usize = 512;

/// The large values of this node.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) held: HeldValues,
    pub(crate) pulls: ValuePulls,
}

impl Values {
    /// At most `bytes_max` bytes are held, and as many are pulled at a time.
    pub(crate) fn new(bytes_max: usize, timing: Timing) -> Values {
        Values { held: HeldValues::new(bytes_max, timing), pulls: ValuePulls::new(bytes_max, timing) }
    }

    /// Holds a value for a node that receives packets of at most `packet` bytes and will pull it. Returns the value if
    /// there is no room; the node's address is marked when there is.
    pub(crate) fn hold(
        &mut self,
        now: Instant,
        timers: &mut Timers,
        (to, holder): (NodeId, Holder),
        value: Cbor,
        packet: usize,
    ) -> Result<BlobRef, Cbor> {
        let blob = self.held.hold(now, to, holder, value, packet)?;
        timers.set_earlier(Timer::Values, now + TICK);
        Ok(blob)
    }

    /// Pulls a value as soon as there is room; it is delivered as a [`pulls::Arrival`]. A repeated purpose counts once.
    /// Returns false if there are too many pulls.
    pub(crate) fn pull(
        &mut self,
        now: Instant,
        timers: &mut Timers,
        from: NodeId,
        blob: BlobRef,
        purpose: Purpose,
    ) -> bool {
        let is_pulled = self.pulls.add(from, blob, purpose);
        if is_pulled {
            timers.set_earlier(Timer::Values, now + TICK);
        }
        is_pulled
    }

    /// Replaces the value in a message that would not fit into a packet of `packet` bytes, and shortens its text.
    /// Returns none if there is no room to hold the value: the message counts as lost, and its sender repeats it.
    pub(crate) fn detach_large(
        &mut self,
        now: Instant,
        timers: &mut Timers,
        to: NodeId,
        mut message: Message,
        packet: usize,
    ) -> Option<Message> {
        if let Some(text) = text_of(&mut message) {
            text::cut(text, packet.saturating_sub(VALUE_OVERHEAD_BYTES));
        }
        let Some((holder, value)) = take_large(to, &mut message, packet) else {
            return Some(message);
        };
        let held = self.hold(now, timers, (to, holder), value, packet).ok()?;
        match &mut message {
            Message::Submit(submit) => submit.blob = Some(held),
            Message::JobEvent(event) => event.blob = Some(held),
            Message::StepNews(news) => news.blob = Some(held),
            _ => {}
        }
        Some(message)
    }

    /// Drops held values and pulls that are not needed any more, and checks the other pulls.
    pub(crate) fn on_timer(
        &mut self,
        (now, is_connected): (Instant, bool),
        outbox: &mut Outbox,
        timers: &mut Timers,
        is_held: impl Fn(&Holder) -> bool,
        is_needed: impl Fn(NodeId, &Purpose) -> bool,
    ) {
        for node in self.held.release_idle(now, is_held).keys() {
            outbox.mark(Address::Node(*node));
        }
        self.pulls.on_timer(now, is_connected, outbox, is_needed);
        if !self.held.is_empty() || !self.pulls.is_empty() {
            timers.set(Timer::Values, now + TICK);
        }
    }

    /// The link is up again: pieces in flight are lost.
    pub(crate) fn on_connected(&mut self, now: Instant, outbox: &mut Outbox) {
        self.pulls.on_connected(now, outbox);
    }

    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self, timers: &Timers) {
        self.held.validate();
        self.pulls.validate();
        let is_idle = self.held.is_empty() && self.pulls.is_empty();
        assert!(is_idle || timers.is_set(Timer::Values), "large values are looked after");
    }

    /// Checks that nothing is held or pulled.
    pub(crate) fn validate_idle(&self) {
        self.held.validate_idle();
        self.pulls.validate_idle();
    }

    /// Reports the size and limit of each collection.
    pub(crate) fn sizes(&self, see: &mut dyn FnMut(&'static str, usize, usize)) {
        self.held.sizes(see);
        self.pulls.sizes(see);
    }
}

/// Takes the value out of a message if it is too large for a packet. Also returns what it is held for.
fn take_large(to: NodeId, message: &mut Message, packet: usize) -> Option<(Holder, Cbor)> {
    let take = |value: &mut Cbor| {
        let is_large = value.as_bytes().len() + VALUE_OVERHEAD_BYTES > packet;
        is_large.then(|| core::mem::replace(value, Cbor::null()))
    };
    match message {
        Message::Submit(Submit { number, canvas, .. }) => Some((Holder::Canvas(*number), take(canvas)?)),
        Message::JobEvent(event) => match &mut event.news {
            JobNews::Ended(Ok(value)) => Some((Holder::Ended { client: to, job: event.job.number }, take(value)?)),
            _ => None,
        },
        Message::StepNews(news) => match &mut news.view {
            Some(StepView { outcome: Some(Ok(value)), .. }) => {
                let value = take(value)?;
                let result = ContentId::from(hash(value.as_bytes()));
                Some((Holder::Step { client: to, result }, value))
            }
            _ => None,
        },
        _ => None,
    }
}

/// The text of a message that may be longer than the smallest packet.
fn text_of(message: &mut Message) -> Option<&mut String> {
    match message {
        Message::Log(log) => Some(&mut log.text),
        Message::JobEvent(event) => match &mut event.news {
            JobNews::Logged { text, .. } => Some(text),
            JobNews::CallbackFailed(error) | JobNews::Ended(Err(error)) | JobNews::Retried { error, .. } => {
                Some(&mut error.text)
            }
            _ => None,
        },
        Message::StepNews(news) => match news.view.as_mut()?.outcome.as_mut()? {
            Err(error) => Some(&mut error.text),
            Ok(_) => None,
        },
        _ => None,
    }
}
