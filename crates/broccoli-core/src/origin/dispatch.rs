//! Handing ready tasks to workers that gave credit.

use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::Message;
use broccoli_proto::packet::Address;

use super::queue::Queue;
use super::{Around, LEASES, Origin};
use crate::canvas::Effects;
use crate::shared::{Room, Shared};
use crate::timers::Timer;

impl Origin {
    /// Hands ready tasks to workers with credit, the same number to each.
    pub(crate) fn dispatch(&mut self, shared: &mut Shared, around: &Around<'_>) {
        if !core::mem::take(&mut self.dispatch_due) || self.queue.is_empty() {
            return;
        }
        for (class, priority) in self.queue.order() {
            let is_held_back = self.adopting || self.is_disk_behind(shared);
            if !is_held_back && self.queue.is_choosy(class) {
                self.dispatch_one_by_one(shared, around, class, priority);
            } else if !is_held_back {
                self.dispatch_class(shared, around, class, priority);
            }
            if !self.queue.is_hungry(class) {
                shared.timers.cancel(Timer::Announce(class));
            } else if !shared.timers.is_set(Timer::Announce(class)) {
                shared.timers.set(Timer::Announce(class), shared.now);
            }
        }
    }

    /// Whether ready tasks have not been offered to anybody yet.
    pub(crate) fn is_dispatch_due(&self) -> bool {
        self.dispatch_due && !self.queue.is_empty()
    }

    /// The nodes with credit that a class fits, with what they have.
    pub(super) fn with_credit(&self, shared: &Shared, around: &Around<'_>, class: u32) -> Vec<(u32, NodeId)> {
        let mut fitting: Vec<(u32, NodeId)> = Vec::new();
        let candidates = match self.queue.pinned_to(class) {
            Some(node) => self.peers.find_index(&node).map_or(0..0, |at| at..at + 1),
            None => 0..self.peers.len(),
        };
        for (name, peer) in &self.peers.as_slice()[candidates] {
            let reachable = shared.connected || *name == shared.me();
            if reachable && peer.credit() > 0 && self.queue.fits(class, *name, peer, around.modules) {
                fitting.push((peer.credit(), *name));
            }
        }
        fitting
    }

    pub(super) fn dispatch_class(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32, priority: u8) {
        let mut fitting = self.with_credit(shared, around, class);
        if fitting.is_empty() {
            return;
        }
        // Starting anywhere keeps the odd task from always going to the same node.
        let start = shared.rng.below(fitting.len() as u64) as usize;
        fitting.rotate_left(start);
        // Those with little credit first: what they cannot take is left for the others. If there
        // are fewer tasks than workers, those with most credit get them; among equals the one that
        // had the last task, since it is awake.
        if let Some(last) = fitting.iter().position(|(_, name)| Some(*name) == self.last_worker) {
            fitting[last..].rotate_left(1);
        }
        let mut order: Vec<(u32, u32)> = fitting.iter().map(|(credit, _)| *credit).zip(0..).collect();
        order.sort_unstable();
        let credit = order.iter().map(|(credit, _)| *credit).fold(0, u32::saturating_add);
        let limited = self.queue.open(class, shared.now) < usize::MAX;
        let ready = |queue: &Queue| queue.waiting(class, priority).min(queue.open(class, shared.now));
        order.drain(..order.len().saturating_sub(ready(&self.queue)));
        let mut workers = order.len();
        for (credit, at) in order {
            let (_, name) = fitting[at as usize];
            let part = ready(&self.queue).div_ceil(workers);
            workers -= 1;
            let Some(peer) = self.peers.get_mut(&name) else {
                continue;
            };
            let mut left = part.min(credit as usize);
            let mut passed = None;
            while left > 0 {
                let next = if self.memory.is_crowded() {
                    // Tasks whose results there is no room for are passed over.
                    let memory = &self.memory;
                    let passed = passed.get_or_insert_with(|| {
                        self.queue.take(class, priority, left, |job| memory.is_leased(job)).into_iter()
                    });
                    passed.next()
                } else {
                    self.queue.pop(class, priority)
                };
                let Some((number, step)) = next else {
                    break;
                };
                let Some(attempt) = self.jobs.get_mut(&number).and_then(|job| job.lease(number, step)) else {
                    continue;
                };
                peer.lease(attempt, shared.now);
                if limited && let Some((_, permits)) = self.queue.permits(class) {
                    permits.spend();
                }
                left -= 1;
            }
            if !peer.outgoing.is_empty() {
                self.last_worker = Some(name);
                shared.outbox.mark(Address::Node(name));
                shared.timers.set_earlier(Timer::Leases(name), shared.now + shared.timing(LEASES));
            }
        }
        let waiting = self.queue.waiting(class, priority) as u32;
        if limited && waiting > 0 && self.queue.open(class, shared.now) == 0 && !self.queue.awaits_permits(class) {
            self.ask_permits(shared, around, class, waiting.min(credit));
        }
    }

    /// Writes what there is for a worker.
    pub(crate) fn compose(&mut self, shared: &mut Shared, to: NodeId, room: Room, put: &mut impl FnMut(&Message)) {
        let Some(peer) = self.peers.get_mut(&to) else {
            return;
        };
        let (lease, unfit, more) = peer.next_lease(&self.jobs, shared, to, room);
        peer.put_acks(shared.now, lease.is_some(), put);
        if let Some(lease) = lease {
            put(&Message::Lease(lease));
        }
        if more {
            shared.outbox.mark(Address::Node(to));
        }
        for (attempt, failure) in unfit {
            let mut effects = Effects::default();
            self.on_failure(shared, to, attempt, failure, &mut effects);
            self.follow(shared, attempt.job, effects);
        }
    }
}
