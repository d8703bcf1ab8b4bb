//! Leases: handles the credit, renewals and returns of workers, and finds leases that are lost.

pub(crate) mod peer;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, Failure, Fetch, Message, Renew, Return};
use broccoli_proto::packet::Address;
use broccoli_proto::{Cause, Epoch, NodeId};

use crate::canvas::Effects;
use crate::origin::Origin;
use crate::origin::journal::records::Change;
use crate::origin::leases::peer::{LEASES, Peer};
use crate::outbox::Room;
use crate::shared::Shared;
use crate::timers::Timer;
use crate::trace::{Trace, TraceLevel};

/// After this many lost runs that had started, a task fails.
const LOSSES_MAX: u8 = 3;

/// Messages of workers.
impl Origin {
    /// The state of a worker, created if needed. If there are too many, workers without leases are dropped.
    pub(crate) fn peer(&mut self, shared: &Shared, name: NodeId, epoch: Epoch) -> &mut Peer {
        if !self.leases.peers.contains_key(&name) && self.leases.peers.len() >= shared.config.limits.nodes_max {
            self.leases.peers.retain(|_, peer| !peer.leases.is_empty());
        }
        self.leases.peers.entry(name).or_insert_with(|| Box::new(Peer::new(epoch, shared.config.timing)))
    }

    /// A worker gives credit (`Fetch`).
    pub(crate) fn on_fetch(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, sequence: u64, fetch: Fetch) {
        shared.trace(TraceLevel::Tasks, || Trace::CreditReceived { worker: from, tasks: fetch.tasks });
        let peer = self.peer(shared, from, epoch);
        peer.on_fetch(shared.epoch, sequence, fetch, shared.now);
        if !peer.outgoing.is_empty() {
            shared.outbox.mark(Address::Node(from));
        }
        self.dispatch.due = true;
    }

    /// A worker renews its leases: it names the attempts that it holds (`Renew`).
    pub(crate) fn on_renew(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, renew: &Renew) {
        let peer = self.peer(shared, from, epoch);
        peer.suspected = false;
        let named = |started| move |attempt: &Attempt| (*attempt, started);
        let held = renew.started.iter().map(named(true)).chain(renew.queued.iter().map(named(false)));
        for (attempt, started) in held {
            let Some(peer) = self.leases.peers.get_mut(&from) else {
                return;
            };
            if peer.renew(attempt, started, shared.now) {
                continue;
            }
            let job = self.jobs.get_mut(&attempt.job);
            let Some(job) = job.filter(|job| job.is_open(attempt.step)) else {
                peer.abort(attempt);
                shared.outbox.mark(Address::Node(from));
                continue;
            };
            // Otherwise the task was leased again because this worker seemed lost. It may continue: its success counts
            // as well.
            if job.adopt(attempt) {
                peer.adopt(attempt, started, shared.now);
                shared.timers.set_earlier(Timer::Leases(from), shared.now + shared.timing(LEASES));
            }
        }
    }

    /// A worker returns tasks unrun (`Return`).
    pub(crate) fn on_return(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, returned: &Return) {
        let Some(peer) = self.leases.peers.get_mut(&from).filter(|peer| peer.epoch == epoch) else {
            return;
        };
        peer.tasks = 0;
        let held: Vec<Attempt> =
            returned.attempts.iter().filter(|attempt| peer.leases.remove(attempt).is_some()).copied().collect();
        shared.counters.returns_received += held.len() as u64;
        for attempt in held {
            shared.trace(TraceLevel::Tasks, || Trace::Freed { worker: Some(from), attempt, lost: false });
            self.give_back(shared, attempt);
        }
        self.dispatch.due = true;
    }

    /// Writes the messages for a worker.
    pub(crate) fn compose(&mut self, shared: &mut Shared, to: NodeId, room: Room, put: &mut impl FnMut(&Message)) {
        let Some(peer) = self.leases.peers.get_mut(&to) else {
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
            self.apply_effects(shared, attempt.job, effects);
        }
    }

    /// Whether there are messages for a worker.
    pub(crate) fn has_for(&self, node: NodeId) -> bool {
        self.leases.peers.get(&node).is_some_and(|peer| peer.has_something())
    }
}

/// Lost workers.
impl Origin {
    /// A node is now in this incarnation: the leases of its earlier one are lost.
    pub(crate) fn on_session(&mut self, shared: &mut Shared, node: NodeId, epoch: Epoch) {
        if let Some(peer) = self.leases.peers.get_mut(&node).filter(|peer| peer.epoch != epoch) {
            let lost = peer.restart(epoch);
            self.give_up(shared, lost);
        }
    }

    /// A node does not answer: leases that it has not confirmed go to other workers.
    pub(crate) fn on_silent(&mut self, shared: &mut Shared, node: NodeId) {
        if let Some(peer) = self.leases.peers.get_mut(&node) {
            let lost = peer.on_silent(shared.now);
            self.give_up(shared, lost);
        }
        self.dispatch.due = true;
    }

    /// A worker's link is gone. It may come back with its tasks, so they wait a little; not if it left on purpose.
    pub(crate) fn on_death(&mut self, shared: &mut Shared, node: NodeId, epoch: Epoch, leaving: bool) {
        if leaving {
            self.on_goodbye(shared, node);
        }
        let Some(peer) = self.leases.peers.get_mut(&node).filter(|peer| peer.epoch == epoch) else {
            return;
        };
        let lost = peer.suspect(shared.now, leaving);
        shared.timers.set_earlier(Timer::Leases(node), shared.now + shared.timing(LEASES));
        self.give_up(shared, lost);
    }

    /// Checks the leases of a worker.
    pub(crate) fn on_leases_timer(&mut self, shared: &mut Shared, node: NodeId) {
        let Some(peer) = self.leases.peers.get_mut(&node) else {
            return;
        };
        if !shared.connected && node != shared.me() {
            // No worker could be heard. The check continues when the link is back.
            return;
        }
        let (lost, send) = peer.look_after(shared.now);
        if send {
            shared.outbox.mark(Address::Node(node));
        }
        if let Some(at) = peer.look_again_at(shared.now, shared.now + shared.timing(LEASES)) {
            shared.timers.set(Timer::Leases(node), at);
        }
        self.give_up(shared, lost);
    }

    /// Takes lost attempts away from a worker.
    pub(crate) fn give_up(&mut self, shared: &mut Shared, lost: Vec<(Attempt, bool)>) {
        for (attempt, started) in lost {
            let Some(job) = self.jobs.get_mut(&attempt.job) else {
                continue;
            };
            let Some(losses) = job.lose(attempt, started, &mut self.dispatch.queue) else {
                continue;
            };
            shared.trace(TraceLevel::Tasks, || Trace::Freed { worker: None, attempt, lost: started });
            let step = attempt.step;
            if losses < LOSSES_MAX {
                if started {
                    self.journal.change(attempt.job, || Change::Lost { step, losses });
                }
                self.expire_now(shared, attempt);
                continue;
            }
            let text = format!("the nodes that ran it were lost {LOSSES_MAX} times");
            let error = job.error(step, None, attempt.number, Failure::new(Cause::Lost, text));
            let mut effects = Effects::default();
            self.complete(shared, attempt.job, attempt.step, Err(error), &mut effects);
            self.apply_effects(shared, attempt.job, effects);
        }
        self.dispatch.due = true;
    }

    /// Queues the task of an unsuccessful attempt again, unless it has expired.
    pub(crate) fn give_back(&mut self, shared: &mut Shared, attempt: Attempt) {
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return;
        };
        if job.requeue(attempt, &mut self.dispatch.queue) {
            self.expire_now(shared, attempt);
        }
    }

    /// Tells the worker that holds an attempt to stop it. This is rare, so all workers are searched.
    pub(crate) fn abort(&mut self, shared: &mut Shared, attempt: Attempt) {
        for (name, peer) in &mut self.leases.peers {
            if peer.leases.remove(&attempt).is_some() {
                peer.abort(attempt);
                shared.outbox.mark(Address::Node(*name));
            }
        }
    }
}
