//! Tasks that are too large for some nodes: leases them, without counting an attempt as failed, to nodes that are large
//! enough.
//!
//! ```text
//!   Leased ──too small──► Ready, and matched one by one ──► Leased by a larger node
//!                              │
//!                              └─ no live node is large enough ──► Ended: which limit of which node
//! ```
//!
//! That a node is too small is not an outcome of the task. Nodes state their limits ([`Takes`]), and no larger task is
//! sent to them. Limits that show only when a task runs (result size, memory, stack depth) are remembered for the task,
//! in memory only: the next incarnation of this origin learns them again. The same holds for a module that a node
//! cannot load: the clients are told, and no task waits for that node. A node whose link has just gone counts as live
//! for 2 s. After a restart with jobs, the origin waits 5 s to hear from nodes.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, Available, Failure, Message, Want};
use broccoli_proto::{Cause, NodeId};

use crate::canvas::{Effects, is_pin};
use crate::origin::dispatch::announce::ANSWERS_WANTED;
use crate::origin::dispatch::place::{ANYTHING, Code, Place};
use crate::origin::job::demand::Demand;
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::text::too_long;
use crate::timing::{LinkTime, link_ms};

/// Most waiting tasks that are matched with nodes at a time. The rest follow in the next round.
const LEASED_AT_ONCE_MAX: usize = 256;
/// Most waiting tasks that are checked at a time for whether they must fail.
const ENDED_AT_ONCE_MAX: usize = 4_096;
/// How long a node that is large enough has to get the module.
const MODULE_COMES: LinkTime = link_ms(10_000);

/// A task: the number of its job, and its step.
type Key = (u64, u32);

/// Whether a routing names this node.
fn is_named(on: &[String], name: NodeId) -> bool {
    on.iter().any(|want| want == name.as_str() || is_pin(want, name))
}

/// Learning that nodes are too small.
impl Origin {
    /// A node is too small for the current attempt at a task. The task goes to another node.
    pub(crate) fn on_too_small(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        attempt: Attempt,
        failure: Failure,
    ) -> Result<(), Failure> {
        let max = shared.config.limits.result_bytes_max;
        let result_bytes = failure.too_small.and_then(|too_small| too_small.result_bytes).unwrap_or(0);
        if result_bytes > u64::from(max) {
            // This origin cannot take such a result from any node.
            return Err(too_long(result_bytes as usize, max));
        }
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return Ok(());
        };
        let (epoch, takes) =
            self.leases.peers.get(&from).map_or((shared.epoch, ANYTHING), |peer| (peer.epoch, peer.takes));
        let place = Place { name: from, epoch, takes, code: Code::Here };
        let args_bytes = job.args_bytes(attempt.step) as u64;
        job.learn(attempt.step, &place, args_bytes, failure);
        self.memory.recount(attempt.job, job);
        self.give_back(shared, attempt);
        self.dispatch.due = true;
        Ok(())
    }
}

/// Leasing one by one.
impl Origin {
    /// Leases tasks one by one, since each task fits other nodes.
    pub(crate) fn dispatch_one_by_one(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32, priority: u8) {
        let Some(want) = self.dispatch.queue.want(class).cloned() else {
            return;
        };
        if self.with_credit(shared, around, class).is_empty() {
            return;
        }
        let places = self.places(shared, around, &want);
        let (mut kept, mut permits_wanted) = (Vec::new(), 0);
        for _ in 0..self.dispatch.queue.waiting(class, priority).min(LEASED_AT_ONCE_MAX) {
            let Some((number, step)) = self.dispatch.queue.pop(class, priority) else {
                break;
            };
            if !self.jobs.get_mut(&number).is_some_and(|job| job.keeps_entry(step)) {
                continue;
            }
            // A task is skipped if there is no memory for its result.
            let has_room = self.memory.is_leased(number);
            let place = self.place_for(shared, (number, step), &places).filter(|_| has_room);
            let is_open = self.dispatch.queue.open(class, shared.now) > 0;
            match place {
                Some(name) if is_open => self.lease_to(shared, class, name, (number, step)),
                _ => {
                    permits_wanted += u32::from(place.is_some());
                    kept.push((number, step));
                }
            }
        }
        for (number, step) in kept {
            self.dispatch.queue.push_back(class, priority, number, step);
        }
        if permits_wanted > 0 && !self.dispatch.queue.awaits_permits(class) {
            self.ask_permits(shared, around, class, permits_wanted);
        }
    }

    /// The node with credit that should get a task: the largest, and of equally large ones the one with the most
    /// credit.
    fn place_for(&self, shared: &Shared, (number, step): Key, places: &[Place]) -> Option<NodeId> {
        let demand = self.jobs.get(&number)?.demands.get(&step)?;
        let credit = |place: &Place| {
            let reachable = shared.connected || place.name == shared.me();
            let peer = self.leases.peers.get(&place.name).filter(|peer| reachable && peer.epoch == place.epoch);
            peer.map_or(0, |peer| peer.credit())
        };
        let open = demand.next(places).filter(|place| credit(place) > 0);
        open.max_by_key(|place| (place.size(), credit(place))).map(|place| place.name)
    }

    fn lease_to(&mut self, shared: &mut Shared, class: u32, name: NodeId, (number, step): Key) {
        let attempt = self.jobs.get_mut(&number).and_then(|job| job.lease(number, step));
        let (Some(attempt), Some(peer)) = (attempt, self.leases.peers.get_mut(&name)) else {
            return;
        };
        peer.lease(shared, name, attempt);
        if let Some((_, permits)) = self.dispatch.queue.permits(class) {
            permits.spend();
        }
        self.send_leases(shared, name);
    }

    /// Asks nodes that are large enough for tasks of a class for credit. Returns whether any is known.
    pub(crate) fn call_large(
        &self,
        shared: &mut Shared,
        around: &Around<'_>,
        class: u32,
        available: &Available,
    ) -> bool {
        let Some(want) = self.dispatch.queue.want(class).filter(|_| self.dispatch.queue.is_choosy(class)) else {
            return false;
        };
        let places = self.places(shared, around, want);
        let waiting = self.dispatch.queue.waiting_in(class).take(ANSWERS_WANTED as usize);
        let demands: Vec<&Demand> = waiting.filter_map(|key| self.demand(key)).collect();
        let is_wanted = |place: &&Place| {
            matches!(place.code, Code::Here | Code::ToCome) && demands.iter().any(|demand| demand.fits(place))
        };
        let mut any = false;
        for place in places.iter().filter(is_wanted).take(ANSWERS_WANTED as usize) {
            any = true;
            shared.outbox.send(place.name, Message::Available(Available { chance: u16::MAX, ..available.clone() }));
        }
        any
    }

    fn demand(&self, (number, step): Key) -> Option<&Demand> {
        self.jobs.get(&number)?.demands.get(&step).map(Box::as_ref)
    }
}

/// Failing tasks that fit no node.
impl Origin {
    /// Fails the tasks of a class that no live node is large enough for. Returns whether there may be more.
    pub(crate) fn end_homeless(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32) -> bool {
        let is_choosy = self.dispatch.queue.is_choosy(class);
        if (!is_choosy && self.dispatch.refusals.is_empty()) || !self.sees_nodes(shared, around) {
            return false;
        }
        let Some(want) = self.dispatch.queue.want(class).cloned() else {
            return false;
        };
        let mut places = self.places(shared, around, &want);
        if places.is_empty() || (!is_choosy && places.iter().any(|place| place.code != Code::Never)) {
            // It waits for a node like any other task.
            return false;
        }
        let hopes = places.iter().any(|place| place.code == Code::ToCome);
        if self.dispatch.queue.hopes_for(class, hopes, shared.now) >= shared.timing(MODULE_COMES) {
            places.retain(|place| place.code != Code::ToCome);
        }
        let refusal = places.iter().find_map(|place| {
            let (_, reason) = self.dispatch.refusals.get(&(want.module, place.name))?;
            Some((place.name, Failure::new(Cause::Unfit, reason)))
        });
        let waiting: Vec<Key> = self.dispatch.queue.waiting_in(class).take(ENDED_AT_ONCE_MAX).collect();
        let mut ended = 0;
        for key in waiting {
            let demand = self.demand(key).filter(|_| is_choosy);
            let is_home = |place: &Place| place.code != Code::Never && demand.is_none_or(|demand| demand.fits(place));
            if places.iter().any(is_home) {
                continue;
            }
            let verdict = demand.and_then(|demand| demand.verdict(&places)).or_else(|| refusal.clone());
            if let Some((node, failure)) = verdict {
                self.end_unfit(shared, key, &want, node, failure);
                ended += 1;
            }
        }
        ended == ENDED_AT_ONCE_MAX
    }

    fn end_unfit(&mut self, shared: &mut Shared, (number, step): Key, want: &Want, node: NodeId, mut failure: Failure) {
        let Some(job) = self.jobs.get(&number).filter(|job| job.is_ready(step)) else {
            return;
        };
        if !is_named(&want.on, node) {
            failure.text.push_str("; no live node that may run it is large enough");
        }
        let attempt = job.open_task(step).map_or(0, |task| task.attempt);
        let error = job.error(step, Some(node), attempt, failure);
        let mut effects = Effects::default();
        self.complete(shared, number, step, Err(error), &mut effects);
        self.apply_effects(shared, number, effects);
    }
}
