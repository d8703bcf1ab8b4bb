//! Permits for tasks with a rate: how an origin asks for them, and how the arbiter answers. See `rates.rs`.

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

/// A permit that was not used after this time has lapsed.
const LAPSE: LinkTime = link_ms(20);
/// After this time another request is made, whatever the answer to the last one said: its arbiter
/// may be gone.
const LATER_MAX: Duration = ms(30_000);
/// Longest name of a function with its module's, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest time between two starts.
const INTERVAL_US_MAX: u64 = u32::MAX as u64 * 1_000;

/// As the one that asks.
impl Origin {
    /// Asks for permits for tasks of a class that could be leased now.
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

    /// The arbiter has answered.
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
        // Never at once, so that two nodes cannot keep each other busy.
        let wait = if permit.tasks == 0 { wait.max(ms(1)) } else { wait };
        shared.timers.set(Timer::Permits(class), shared.now + wait);
    }

    /// What was waited for has come, or nothing has.
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

/// As the one that is asked.
impl Origin {
    /// An origin asks how many tasks it may start.
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
                    // Who asks knows other nodes than this one does. If the one that counts is gone, it will not answer.
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

/// The node that counts the starts of a function: this one if no resident node is known.
fn arbiter(shared: &Shared, members: &Members, function: &str) -> NodeId {
    let me = shared.me();
    let others = members.alive().filter(|(_, member)| member.birth.resident).map(|(name, _)| name);
    let this = shared.config.resident.then_some(me);
    others.chain(this).max_by_key(|name| (weight(*name, function), *name)).unwrap_or(me)
}

/// The node that counts the starts of a function, if it is another one.
fn other_arbiter(shared: &Shared, members: &Members, function: &str) -> Option<NodeId> {
    Some(arbiter(shared, members, function)).filter(|arbiter| *arbiter != shared.me())
}

/// The weight of a node for a function: the first 8 bytes of the hash of both names.
fn weight(node: NodeId, function: &str) -> u64 {
    let names: Vec<u8> = [node.as_str().as_bytes(), b"/", function.as_bytes()].concat();
    let ModuleHash([a, b, c, d, e, f, g, h, ..]) = hash(&names);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
