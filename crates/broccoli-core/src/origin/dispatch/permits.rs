//! Permits for tasks with a rate: how an origin requests them, and how the arbiter answers. See `rates.rs`.

use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Message, Permit, PermitRequest};
use broccoli_proto::module::hash;
use broccoli_proto::options::RATE_MAX;
use broccoli_proto::{ModuleHash, NodeId};

use crate::members::Members;
use crate::origin::dispatch::rates::{ANSWER, BATCH_MAX, Limit, Permits};
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::time::ms;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// A permit that is not used within this time lapses.
const LAPSE: LinkTime = link_ms(20);
/// Longest time until the next request, whatever the last answer said: the arbiter may be gone.
const LATER_MAX: Duration = ms(30_000);
/// Longest `module.function`, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest interval between two starts, in microseconds.
const INTERVAL_US_MAX: u64 = u32::MAX as u64 * 1_000;

/// The origin's side: requests.
impl Origin {
    /// Requests permits for tasks of a class that could be leased now.
    pub(crate) fn ask_permits(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32, tasks: u32) {
        let unsettled = self.dispatch.arbiter.unsettled(shared);
        let Some((limit, permits)) = self.dispatch.queue.permits(class) else {
            return;
        };
        let after = match unsettled {
            Some(wait) => {
                *permits = Permits::Later;
                wait
            }
            None => {
                let (of, nonce) = (arbiter(shared, around.members, &limit.function), shared.rng.bits());
                let tasks = tasks.min(BATCH_MAX);
                *permits = Permits::Asked { of, nonce, tasks };
                let (function, interval_us) = (limit.function.clone(), limit.interval_us);
                let request = PermitRequest { nonce, function, interval_us, tasks };
                shared.outbox.send(of, Message::PermitRequest(request));
                shared.timing(ANSWER)
            }
        };
        shared.timers.set(Timer::Permits(class), shared.now + after);
    }

    /// Takes the arbiter's answer.
    pub(crate) fn on_permit(&mut self, shared: &mut Shared, from: NodeId, permit: &Permit) {
        let Some((class, asked)) = self.dispatch.queue.asked(from, permit.nonce) else {
            return;
        };
        let Some((_, permits)) = self.dispatch.queue.permits(class) else {
            return;
        };
        let wait = Duration::from_micros(permit.wait_us).min(LATER_MAX);
        *permits = match permit.tasks.min(asked) {
            0 => Permits::Later,
            tasks => Permits::Booked(tasks),
        };
        // Never at once, so that two nodes do not exchange requests without a pause.
        let wait = if permit.tasks == 0 { wait.max(ms(1)) } else { wait };
        shared.timers.set(Timer::Permits(class), shared.now + wait);
    }

    /// The time of a booking, or of an unanswered request, is over.
    pub(crate) fn on_permits_timer(&mut self, shared: &Shared, class: u32) {
        if let Some((_, permits)) = self.dispatch.queue.permits(class) {
            *permits = match *permits {
                Permits::Booked(tasks) => Permits::Open { tasks, until: shared.now + shared.timing(LAPSE) },
                Permits::Open { .. } | Permits::None | Permits::Asked { .. } | Permits::Later => Permits::None,
            };
            self.dispatch.due = true;
        }
    }
}

/// The arbiter's side: answers.
impl Origin {
    /// An origin requests permits for tasks.
    pub(crate) fn on_permit_request(
        &mut self,
        shared: &mut Shared,
        members: &Members,
        from: NodeId,
        request: PermitRequest,
    ) {
        let PermitRequest { nonce, function, interval_us, tasks } = request;
        let shortest = 1_000_000 / u64::from(RATE_MAX);
        if function.len() > NAME_BYTES_MAX || !(shortest..=INTERVAL_US_MAX).contains(&interval_us) {
            return;
        }
        let (tasks, wait) = match self.dispatch.arbiter.unsettled(shared) {
            Some(wait) => (0, wait),
            None => match other_arbiter(shared, members, &function) {
                Some(other) => {
                    // The sender knows other nodes than this one. If the real arbiter is gone, it will not answer this
                    // challenge.
                    shared.outbox.send(other, Message::Hello);
                    (0, shared.timing(ANSWER))
                }
                None => self.dispatch.arbiter.book(shared, Limit { function, interval_us }, tasks),
            },
        };
        let permit = Permit { nonce, tasks, wait_us: wait.as_micros() as u64 };
        shared.outbox.send(from, Message::Permit(permit));
    }
}

/// The node that counts the starts of a function. It is this node if no resident node is known.
fn arbiter(shared: &Shared, members: &Members, function: &str) -> NodeId {
    let me = shared.me();
    let others = members.alive().filter(|(_, member)| member.birth.resident).map(|(name, _)| name);
    let this = shared.config.resident.then_some(me);
    others.chain(this).max_by_key(|name| (weight(*name, function), *name)).unwrap_or(me)
}

/// The node that counts the starts of a function, unless it is this node.
fn other_arbiter(shared: &Shared, members: &Members, function: &str) -> Option<NodeId> {
    Some(arbiter(shared, members, function)).filter(|arbiter| *arbiter != shared.me())
}

/// The weight of a node for a function: the first 8 bytes of the hash of both names.
fn weight(node: NodeId, function: &str) -> u64 {
    let names: Vec<u8> = [node.as_str().as_bytes(), b"/", function.as_bytes()].concat();
    let ModuleHash([a, b, c, d, e, f, g, h, ..]) = hash(&names);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
