//! Assigns ready tasks to workers with credit.

use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::packet::Address;

use crate::origin::dispatch::queue::Queue;
use crate::origin::leases::peer::LEASES;
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::timers::Timer;

impl Origin {
    /// The nodes with credit that fit a class, each with its credit.
    pub(super) fn with_credit(&self, shared: &Shared, around: &Around<'_>, class: u32) -> Vec<(u32, NodeId)> {
        let mut fitting: Vec<(u32, NodeId)> = Vec::new();
        let candidates = match self.dispatch.queue.pinned_to(class) {
            Some(node) => self.leases.peers.find_index(&node).map_or(0..0, |at| at..at + 1),
            None => 0..self.leases.peers.len(),
        };
        for (name, peer) in &self.leases.peers.as_slice()[candidates] {
            let reachable = shared.connected || *name == shared.me();
            if reachable
                && peer.credit() > 0
                && self.dispatch.queue.fits(class, *name, &peer.features, peer.modules, around.modules)
            {
                fitting.push((peer.credit(), *name));
            }
        }
        fitting
    }

    /// Leases ready tasks of a class, shared equally between the workers.
    pub(super) fn dispatch_class(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32, priority: u8) {
        let mut fitting = self.with_credit(shared, around, class);
        if fitting.is_empty() {
            return;
        }
        // A random start, so that a remaining task does not always go to the same node.
        let start = shared.rng.below(fitting.len() as u64) as usize;
        fitting.rotate_left(start);
        // Workers with little credit come first: what they cannot take is left for the others. If there are fewer tasks
        // than workers, those with the most credit get them; among equals the one that had the last task, since it is
        // awake.
        if let Some(last) = fitting.iter().position(|(_, name)| Some(*name) == self.dispatch.last_worker) {
            fitting[last..].rotate_left(1);
        }
        let mut order: Vec<(u32, u32)> = fitting.iter().map(|(credit, _)| *credit).zip(0..).collect();
        order.sort_unstable();
        let credit = order.iter().map(|(credit, _)| *credit).fold(0, u32::saturating_add);
        let limited = self.dispatch.queue.open(class, shared.now) < usize::MAX;
        let now = shared.now;
        let ready = |queue: &Queue| queue.waiting(class, priority).min(queue.open(class, now));
        order.drain(..order.len().saturating_sub(ready(&self.dispatch.queue)));
        let mut workers = order.len();
        for (credit, at) in order {
            let (_, name) = fitting[at as usize];
            let part = ready(&self.dispatch.queue).div_ceil(workers);
            workers -= 1;
            let Some(peer) = self.leases.peers.get_mut(&name) else {
                continue;
            };
            let mut left = part.min(credit as usize);
            let mut passed = None;
            while left > 0 {
                let next = if self.memory.is_crowded() {
                    // Tasks whose results there is no memory for are skipped.
                    let memory = &self.memory;
                    let passed = passed.get_or_insert_with(|| {
                        self.dispatch.queue.take(class, priority, left, |job| memory.is_leased(job)).into_iter()
                    });
                    passed.next()
                } else {
                    self.dispatch.queue.pop(class, priority)
                };
                let Some((number, step)) = next else {
                    break;
                };
                let Some(attempt) = self.jobs.get_mut(&number).and_then(|job| job.lease(number, step)) else {
                    continue;
                };
                peer.lease(shared, name, attempt);
                if limited && let Some((_, permits)) = self.dispatch.queue.permits(class) {
                    permits.spend();
                }
                left -= 1;
            }
            if !peer.outgoing.is_empty() {
                self.send_leases(shared, name);
            }
        }
        let waiting = self.dispatch.queue.waiting(class, priority) as u32;
        if limited
            && waiting > 0
            && self.dispatch.queue.open(class, shared.now) == 0
            && !self.dispatch.queue.awaits_permits(class)
        {
            self.ask_permits(shared, around, class, waiting.min(credit));
        }
    }

    /// Sends a worker its new leases with the next packet, and watches them.
    pub(super) fn send_leases(&mut self, shared: &mut Shared, name: NodeId) {
        self.dispatch.last_worker = Some(name);
        shared.outbox.mark(Address::Node(name));
        shared.timers.set_earlier(Timer::Leases(name), shared.now + shared.timing(LEASES));
    }
}
