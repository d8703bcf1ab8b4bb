//! Results kept for one origin: sends them, and repeats them until they are acknowledged.
//!
//! ```text
//!   push ──► unsent ──► sent, under the number of their message ──► acknowledged
//!                          └── repeated after 250 ms, doubled up to 5 s, for 10 minutes
//! ```

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, Failure, Message, TaskResult, TaskResults};
use broccoli_proto::{Cbor, Epoch, NodeId};

use crate::content::values::VALUE_OVERHEAD_BYTES;
use crate::content::values::held::Holder;
use crate::outbox::Room;
use crate::shared::Shared;
use crate::text;
use crate::time::Instant;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Results are repeated after this time, doubled up to the maximum.
const AGAIN: LinkTime = link_ms(250);
const AGAIN_MAX: LinkTime = link_ms(5_000);
/// Results are dropped if they are not acknowledged for this long.
const KEPT: LinkTime = link_ms(600_000);
/// Most result messages that are repeated in one packet.
const REPEATED_PER_PACKET_MAX: usize = 16;
/// About the size of a reference to a value that is pulled, in bytes.
const BLOB_REF_BYTES: usize = 48;
/// About the size of a result in a packet without its value, in bytes.
const RESULT_BYTES: usize = 32;

/// The results for one origin.
#[derive(Debug, Default)]
pub(super) struct Results {
    unsent: VecDeque<Done>,
    /// Sent results, in the order of their numbers.
    unacked: VecDeque<Unacked>,
    last_number: u32,
    /// Bytes of all of them. Values to be pulled are not included; they count as large values.
    bytes: usize,
}

#[derive(Debug)]
struct Done {
    /// The incarnation of the origin that leased it.
    epoch: Epoch,
    since: Instant,
    result: TaskResult,
}

#[derive(Debug)]
struct Unacked {
    results: TaskResults,
    sent: Instant,
    first_sent: Instant,
    tries: u32,
    again: bool,
}

/// The outcome of [`Results::write`].
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Whether everything was written, except results that wait for room among the large values.
    pub(super) all: bool,
    /// Attempts whose results are pulled from now on, with the incarnation of the origin.
    pub(super) large: Vec<(Attempt, Epoch)>,
}

impl Results {
    /// Bytes of kept results.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is something to send.
    pub(super) fn is_due(&self) -> bool {
        !self.unsent.is_empty() || self.unacked.iter().any(|unacked| unacked.again)
    }

    /// Keeps the result of an attempt.
    pub(super) fn push(
        &mut self,
        shared: &mut Shared,
        origin: NodeId,
        (epoch, attempt): (Epoch, Attempt),
        outcome: Result<Cbor, Failure>,
    ) {
        let result = TaskResult { attempt, outcome: outcome.map_err(Box::new), blob: None };
        self.bytes += result_bytes(&result);
        self.unsent.push_back(Done { epoch, since: shared.now, result });
        shared.timers.set_earlier(Timer::Results(origin), shared.now + shared.timing(AGAIN_MAX));
    }

    /// The origin has acknowledged this message. Returns its results.
    pub(super) fn acknowledge(&mut self, number: u32) -> Vec<TaskResult> {
        let at = self.unacked.binary_search_by_key(&number, |unacked| unacked.results.number);
        let unacked = at.ok().and_then(|at| self.unacked.remove(at));
        let results = unacked.map(|unacked| unacked.results.results).unwrap_or_default();
        self.bytes -= results.iter().map(result_bytes).sum::<usize>();
        results
    }

    /// Earlier messages may be lost: sends all results again.
    pub(super) fn repeat_all(&mut self) {
        for unacked in &mut self.unacked {
            unacked.again = true;
        }
    }

    /// Drops results that were kept for too long, and returns their attempts.
    pub(super) fn drop_old(&mut self, shared: &Shared) -> Vec<Attempt> {
        let is_old = |since: Instant| shared.now - since >= shared.timing(KEPT);
        let mut dropped = Vec::new();
        while let Some(at) = self.unacked.iter().position(|unacked| is_old(unacked.first_sent))
            && let Some(unacked) = self.unacked.remove(at)
        {
            dropped.extend(unacked.results.results);
        }
        while self.unsent.front().is_some_and(|done| is_old(done.since)) {
            dropped.extend(self.unsent.pop_front().map(|done| done.result));
        }
        self.bytes -= dropped.iter().map(result_bytes).sum::<usize>();
        dropped.iter().map(|result| result.attempt).collect()
    }

    /// Marks messages to repeat now, and returns when to check again.
    pub(super) fn repeat_due(&mut self, shared: &Shared) -> (bool, Option<Instant>) {
        let now = shared.now;
        let mut next = (!self.unsent.is_empty()).then_some(now + shared.timing(AGAIN_MAX));
        let mut is_due = false;
        for unacked in &mut self.unacked {
            let pause = (shared.timing(AGAIN) * (1 << unacked.tries.min(6))).min(shared.timing(AGAIN_MAX));
            let mut at = unacked.sent + pause;
            if at <= now {
                unacked.again = true;
                is_due = true;
                at = now + shared.timing(AGAIN);
            }
            next = Some(next.map_or(at, |next| next.min(at)));
        }
        (is_due, next)
    }

    /// Writes new and repeated results while there is room.
    pub(super) fn write(
        &mut self,
        shared: &mut Shared,
        to: NodeId,
        room: Room,
        put: &mut impl FnMut(&Message),
    ) -> Written {
        let mut written = Written::default();
        self.take_back_too_long(room.packet);
        let Some(mut left) = self.write_again(shared, room.left, put) else {
            return written;
        };
        let Some(&Done { epoch: origin_epoch, .. }) = self.unsent.front() else {
            written.all = true;
            return written;
        };
        let mut results = Vec::new();
        let mut is_starved = false;
        while let Some(Done { epoch, result, .. }) = self.unsent.front_mut() {
            if *epoch == origin_epoch && is_large(result, room.packet) {
                written.large.push((result.attempt, *epoch));
                let before = result_bytes(result);
                let is_detached = detach(shared, to, result, room.packet);
                self.bytes = self.bytes + result_bytes(result) - before;
                if !is_detached {
                    // The address is marked when there is room to hold the value.
                    is_starved = true;
                    break;
                }
            }
            if let Err(failure) = &mut result.outcome {
                let before = failure.text.len();
                text::cut(&mut failure.text, room.packet.saturating_sub(VALUE_OVERHEAD_BYTES));
                self.bytes = self.bytes + failure.text.len() - before;
            }
            let bytes = result_bytes(result);
            if *epoch != origin_epoch || bytes > left {
                break;
            }
            left -= bytes;
            results.extend(self.unsent.pop_front().map(|done| done.result));
        }
        if results.is_empty() {
            written.all = is_starved;
            return written;
        }
        // It is kept until it is acknowledged, so unused capacity is freed.
        results.shrink_to_fit();
        self.last_number += 1;
        let message = Message::TaskResults(TaskResults { origin_epoch, number: self.last_number, results });
        put(&message);
        if let Message::TaskResults(results) = message {
            let unacked = Unacked { results, sent: shared.now, first_sent: shared.now, tries: 0, again: false };
            self.unacked.push_back(unacked);
            shared.timers.set_earlier(Timer::Results(to), shared.now + shared.timing(AGAIN));
        }
        written.all = self.unsent.is_empty() || is_starved;
        written
    }

    /// Writes messages to repeat. Returns the room that is left; none if one did not fit.
    fn write_again(&mut self, shared: &mut Shared, mut left: usize, put: &mut impl FnMut(&Message)) -> Option<usize> {
        for (repeated, unacked) in self.unacked.iter_mut().filter(|unacked| unacked.again).enumerate() {
            let bytes = results_bytes(&unacked.results);
            if bytes > left || repeated >= REPEATED_PER_PACKET_MAX {
                return None;
            }
            left -= bytes;
            unacked.again = false;
            unacked.sent = shared.now;
            unacked.tries += 1;
            shared.counters.repeated.results += 1;
            put(&Message::TaskResults(unacked.results.clone()));
        }
        Some(left)
    }

    /// Results to repeat whose message no longer fits into a packet, since the origin takes shorter packets than was
    /// known or has restarted. They become unsent again.
    fn take_back_too_long(&mut self, packet: usize) {
        let is_too_long = |unacked: &Unacked| unacked.again && results_bytes(&unacked.results) > packet;
        while let Some(at) = self.unacked.iter().rposition(is_too_long) {
            let Some(Unacked { results, first_sent: since, .. }) = self.unacked.remove(at) else {
                return;
            };
            let epoch = results.origin_epoch;
            for result in results.results.into_iter().rev() {
                self.unsent.push_front(Done { epoch, since, result });
            }
        }
    }

    /// Checks what must hold between two inputs. `kept` is the number of attempts with a result here.
    pub(super) fn validate(&self, shared: &Shared, origin: NodeId, kept: usize) {
        let unacked = self.unacked.iter().flat_map(|unacked| &unacked.results.results);
        let count = unacked.clone().count();
        assert_eq!(kept, count + self.unsent.len(), "a result is kept until it is acknowledged");
        let bytes: usize = self.unsent.iter().map(|done| &done.result).chain(unacked).map(result_bytes).sum();
        assert_eq!(self.bytes, bytes, "bytes of results are counted");
        assert!(count == 0 || shared.timers.is_set(Timer::Results(origin)), "results are sent again");
    }
}

/// Whether a result does not fit into a packet of this size.
fn is_large(result: &TaskResult, packet: usize) -> bool {
    result.outcome.as_ref().is_ok_and(|value| value.as_bytes().len() + VALUE_OVERHEAD_BYTES > packet)
}

/// Moves the value out of a large result, for the origin to pull. Returns false if there was no room to hold it.
fn detach(shared: &mut Shared, origin: NodeId, result: &mut TaskResult, packet: usize) -> bool {
    let Ok(value) = &mut result.outcome else {
        return true;
    };
    let taken = core::mem::replace(value, Cbor::null());
    let holder = Holder::Result { origin, attempt: result.attempt };
    match shared.values.hold(shared.now, &mut shared.timers, (origin, holder), taken, packet) {
        Ok(blob) => result.blob = Some(Box::new(blob)),
        Err(taken) => *value = taken,
    }
    result.blob.is_some()
}

/// About the size of a result in a packet, in bytes.
fn result_bytes(result: &TaskResult) -> usize {
    let body = match &result.outcome {
        Ok(value) => value.as_bytes().len(),
        Err(failure) => failure.text.len(),
    };
    let blob = if result.blob.is_some() { BLOB_REF_BYTES } else { 0 };
    body + blob + RESULT_BYTES
}

/// About the size of several results, in bytes.
fn results_bytes(results: &TaskResults) -> usize {
    results.results.iter().map(result_bytes).sum()
}
