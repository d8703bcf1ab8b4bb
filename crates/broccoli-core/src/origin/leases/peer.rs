//! The origin's state of one worker: its credit, the tasks leased to it, and the deadlines of these leases.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use broccoli_proto::message::{Abort, Attempt, Failure, Fetch, Lease, LeasedFunction, Message, ResultAck, Takes};
use broccoli_proto::packet::OVERHEAD_BYTES_MAX;
use broccoli_proto::{Cause, Cbor, Epoch, NodeId};
use litemap::LiteMap;

use crate::content::values::VALUE_OVERHEAD_BYTES;
use crate::content::values::held::Holder;
use crate::members::cut_features;
use crate::origin::dispatch::place::ANYTHING;
use crate::origin::job::Job;
use crate::outbox::Room;
use crate::shared::{Shared, pop_first};
use crate::text::too_many_args;
use crate::time::Instant;
use crate::timing::{LinkTime, Timing, link_ms};
use crate::trace::{Trace, TraceLevel};

/// The leases of a worker are checked at this interval.
pub(crate) const LEASES: LinkTime = link_ms(100);
/// Most tasks in one lease message. Two messages fill the largest window of a worker, so that one is on its way while
/// the other runs.
const LEASE_TASKS_MAX: usize = 128;
/// A lease that is not renewed for this long is lost.
const LEASE: LinkTime = link_ms(4_000);
/// The leases of a worker whose link is gone wait this long for its return.
const SUSPECT: LinkTime = link_ms(2_000);
/// A lease that is not confirmed within this time is sent again; the time doubles.
const CONFIRM: LinkTime = link_ms(150);
/// A lease that the worker has not confirmed for this long is lost.
const CONFIRM_MAX: LinkTime = link_ms(1_500);
/// Acknowledgements wait this long for a lease to be sent with.
const ACK_DELAY: LinkTime = link_ms(10);
/// At this number, acknowledgements are sent without waiting.
const ACKS_WAITING_MAX: usize = 32;
/// After this time, a batch that the worker has not seen no longer reduces its credit: the batch or its confirmation
/// was lost.
const IN_FLIGHT_MAX: LinkTime = link_ms(1_500);
/// Most result messages with results that are still being pulled. The worker repeats further ones.
const MISSING_MAX: usize = 1_024;
/// Most acknowledgements, and aborts, that wait to be sent to one worker.
pub(crate) const UNSAID_MAX: usize = 4_096;
/// About the size of a lease message without its tasks, in bytes.
const LEASE_BYTES: usize = 64;

/// A worker.
#[derive(Debug)]
pub(crate) struct Peer {
    timing: Timing,
    pub(crate) epoch: Epoch,
    /// Sequence number of the packet with the last `Fetch`. Older packets are late.
    fetched: u64,
    /// Credit in addition to the batches that the worker had seen.
    pub(crate) tasks: u32,
    bytes: u32,
    /// It has no room for more results until some are acknowledged.
    pub(crate) full: bool,
    in_flight: VecDeque<Batch>,
    last_batch: u32,
    pub(crate) features: Vec<String>,
    pub(crate) modules: u64,
    packet_bytes_max: u32,
    /// The limits of tasks that it accepts.
    pub(crate) takes: Takes,
    pub(crate) leases: BTreeMap<Attempt, Leased>,
    /// Attempts to put into a lease message: new ones and repeated ones.
    pub(crate) outgoing: VecDeque<Attempt>,
    acks: Vec<u32>,
    ack_at: Instant,
    aborts: Vec<Attempt>,
    /// By message number: announced results that are being pulled.
    pub(crate) missing: LiteMap<u32, LiteMap<Attempt, ()>>,
    /// Its link is gone, or it does not confirm leases: it gets no new tasks.
    pub(crate) suspected: bool,
}

#[derive(Debug)]
struct Batch {
    number: u32,
    sent: Instant,
    tasks: u32,
    bytes: u32,
}

/// An attempt that is leased to the worker.
#[derive(Debug)]
pub(crate) struct Leased {
    since: Instant,
    confirmed: bool,
    started: bool,
    deadline: Instant,
    resent: u32,
    resend_at: Instant,
    waits: bool,
    /// It was sent at least once.
    was_sent: bool,
}

/// When to send the acknowledgement of a result.
pub(crate) enum Acknowledged {
    /// With the next lease, or at this time.
    Later(Instant),
    /// At once.
    Now,
}

impl Peer {
    pub(crate) fn new(epoch: Epoch, timing: Timing) -> Peer {
        Peer {
            epoch,
            timing,
            fetched: 0,
            tasks: 0,
            full: false,
            bytes: 0,
            in_flight: VecDeque::new(),
            last_batch: 0,
            features: Vec::new(),
            modules: 0,
            packet_bytes_max: 0,
            takes: ANYTHING,
            leases: BTreeMap::new(),
            outgoing: VecDeque::new(),
            acks: Vec::new(),
            ack_at: Instant(0),
            aborts: Vec::new(),
            missing: LiteMap::new_vec(),
            suspected: false,
        }
    }

    /// The worker has restarted. Returns the leases of its earlier incarnation, which are lost.
    pub(crate) fn restart(&mut self, epoch: Epoch) -> Vec<(Attempt, bool)> {
        let before = core::mem::replace(self, Peer::new(epoch, self.timing));
        before.leases.into_iter().map(|(attempt, leased)| (attempt, leased.started)).collect()
    }

    /// Replaces the credit with a new snapshot.
    pub(crate) fn on_fetch(&mut self, my_epoch: Epoch, sequence: u64, fetch: Fetch, now: Instant) {
        self.suspected = false;
        if sequence < self.fetched {
            return;
        }
        self.fetched = sequence;
        self.tasks = fetch.tasks;
        self.bytes = fetch.bytes;
        self.full = fetch.full == Some(true);
        self.modules = fetch.modules;
        self.packet_bytes_max = fetch.packet_bytes_max;
        self.features = fetch.features;
        cut_features(&mut self.features);
        if fetch.origin_epoch == Some(my_epoch) {
            self.in_flight.retain(|batch| batch.number > fetch.seen);
            // The worker may know batch numbers that this origin has forgotten: none may be used twice.
            self.last_batch = self.last_batch.max(fetch.seen);
        }
        self.takes = fetch.takes.unwrap_or(ANYTHING);
        self.drop_lost_batches(now);
    }

    /// Number of tasks that may be leased now.
    pub(crate) fn credit(&self) -> u32 {
        if self.suspected {
            return 0;
        }
        if self.leases.is_empty() {
            // Batches in flight were lost, or repeat ended tasks: they do not reduce the credit.
            return self.tasks;
        }
        let under_way = self.in_flight.iter().map(|batch| batch.tasks).sum::<u32>() + self.outgoing.len() as u32;
        self.tasks.saturating_sub(under_way)
    }

    /// Leases an attempt to this worker. It is sent with the next packet.
    pub(crate) fn lease(&mut self, shared: &mut Shared, worker: NodeId, attempt: Attempt) {
        shared.counters.leases_given += 1;
        shared.trace(TraceLevel::Tasks, || Trace::Leased { worker, attempt });
        let now = shared.now;
        let leased = Leased {
            since: now,
            confirmed: false,
            started: false,
            deadline: now + self.timing.time(LEASE),
            resent: 0,
            resend_at: now + self.timing.time(CONFIRM),
            waits: true,
            was_sent: false,
        };
        if self.leases.is_empty() {
            self.in_flight.clear();
        }
        self.leases.insert(attempt, leased);
        self.outgoing.push_back(attempt);
    }

    /// The worker holds an attempt: renews its lease. `false` if the origin has no such lease.
    pub(crate) fn renew(&mut self, attempt: Attempt, started: bool, now: Instant) -> bool {
        let Some(leased) = self.leases.get_mut(&attempt) else {
            return false;
        };
        leased.confirmed = true;
        leased.started |= started;
        leased.deadline = now + self.timing.time(LEASE);
        true
    }

    /// Adopts an attempt of an earlier incarnation of this origin.
    pub(crate) fn adopt(&mut self, attempt: Attempt, started: bool, now: Instant) {
        let (deadline, resend_at) = (now + self.timing.time(LEASE), now);
        let (confirmed, waits, was_sent) = (true, false, true);
        let leased = Leased { since: now, confirmed, started, deadline, resent: 0, resend_at, waits, was_sent };
        self.leases.insert(attempt, leased);
    }

    /// The worker keeps the result of an attempt until there is room for it, and repeats it.
    pub(crate) fn put_off(&mut self, attempt: Attempt, until: Instant) {
        if let Some(leased) = self.leases.get_mut(&attempt) {
            leased.confirmed = true;
            leased.started = true;
            leased.deadline = leased.deadline.max(until);
        }
    }

    /// The worker could not be heard: its leases start anew and are sent again.
    pub(crate) fn extend(&mut self, now: Instant) {
        for leased in self.leases.values_mut() {
            leased.deadline = now + self.timing.time(LEASE);
            if !leased.confirmed {
                leased.since = now;
                leased.resend_at = now;
            }
        }
    }

    /// The worker's link is gone. Returns its leases if it left on purpose.
    pub(crate) fn suspect(&mut self, now: Instant, leaving: bool) -> Vec<(Attempt, bool)> {
        self.suspected = true;
        self.tasks = 0;
        let deadline = now + self.timing.time(SUSPECT);
        for leased in self.leases.values_mut() {
            leased.deadline = leased.deadline.min(deadline);
        }
        if leaving { self.take(|_| true) } else { Vec::new() }
    }

    /// The worker does not answer. Returns the leases that it may never have received.
    pub(crate) fn on_silent(&mut self, now: Instant) -> Vec<(Attempt, bool)> {
        self.suspect(now, false);
        self.outgoing.clear();
        self.take(|leased| !leased.confirmed)
    }

    /// Whether there are messages for the worker.
    pub(crate) fn has_something(&self) -> bool {
        !self.outgoing.is_empty() || !self.acks.is_empty() || !self.aborts.is_empty()
    }

    fn drop_lost_batches(&mut self, now: Instant) {
        self.in_flight.retain(|batch| now - batch.sent < self.timing.time(IN_FLIGHT_MAX));
    }

    /// Returns lost leases, and whether leases or acknowledgements have to be sent.
    pub(crate) fn look_after(&mut self, now: Instant) -> (Vec<(Attempt, bool)>, bool) {
        let timing = self.timing;
        if self.leases.values().any(|leased| leased.is_unheard(now, timing)) {
            self.suspected = true;
        }
        self.drop_lost_batches(now);
        let lost = self.take(|leased| now > leased.deadline || leased.is_unheard(now, timing));
        for (attempt, leased) in &mut self.leases {
            if !leased.confirmed && !leased.waits && now >= leased.resend_at && !self.suspected {
                leased.resent += 1;
                leased.waits = true;
                leased.resend_at = now + self.timing.time(CONFIRM) * (1 << leased.resent.min(3));
                self.outgoing.push_back(*attempt);
            }
        }
        let acks_due = !self.acks.is_empty() && now >= self.ack_at;
        (lost, acks_due || !self.outgoing.is_empty())
    }

    /// When to check again: `later`, or earlier if acknowledgements wait.
    pub(crate) fn look_again_at(&self, now: Instant, later: Instant) -> Option<Instant> {
        let under_way = !self.leases.is_empty() || !self.in_flight.is_empty();
        let acks_wait = !self.acks.is_empty() && self.ack_at > now;
        let acks = acks_wait.then(|| self.ack_at.min(later));
        acks.or(under_way.then_some(later))
    }

    /// Notes that a result message is to be acknowledged.
    pub(crate) fn acknowledge(&mut self, number: u32, now: Instant) -> Acknowledged {
        if self.acks.is_empty() {
            self.ack_at = now + self.timing.time(ACK_DELAY);
        }
        if self.acks.len() < UNSAID_MAX {
            // Beyond the limit, nothing is noted: the worker repeats results that are not acknowledged.
            self.acks.push(number);
        }
        if self.acks.len() < ACKS_WAITING_MAX { Acknowledged::Later(self.ack_at) } else { Acknowledged::Now }
    }

    /// Notes that the worker must stop a run. Beyond the limit, the run goes on until the worker names it again.
    pub(crate) fn abort(&mut self, attempt: Attempt) {
        if self.aborts.len() < UNSAID_MAX {
            self.aborts.push(attempt);
        }
    }

    /// Notes that a result message is acknowledged only when these results have been pulled.
    pub(crate) fn miss(&mut self, number: u32, missing: LiteMap<Attempt, ()>) {
        self.missing.insert(number, missing);
        if self.missing.len() > MISSING_MAX {
            pop_first(&mut self.missing);
        }
    }

    /// Number of waiting acknowledgements or aborts, whichever is larger.
    pub(crate) fn unsaid(&self) -> usize {
        self.acks.len().max(self.aborts.len())
    }

    /// About the size of the waiting acknowledgements and aborts, in bytes.
    fn acks_bytes(&self) -> usize {
        self.acks.len() * 5 + self.aborts.len() * 24 + LEASE_BYTES
    }

    /// Writes acknowledgements and aborts.
    pub(crate) fn put_acks(&mut self, now: Instant, with_lease: bool, put: &mut impl FnMut(&Message)) {
        if !self.aborts.is_empty() {
            put(&Message::Abort(Abort { attempts: core::mem::take(&mut self.aborts) }));
        }
        let due = with_lease || now >= self.ack_at || self.acks.len() >= ACKS_WAITING_MAX;
        if due && !self.acks.is_empty() {
            let numbers = core::mem::take(&mut self.acks);
            put(&Message::ResultAck(ResultAck { worker_epoch: self.epoch, numbers }));
        }
    }

    /// Takes the next batch of outgoing attempts. Also returns the attempts whose arguments exceed the limit of the
    /// worker or of any packet or value, with the reason, and whether more are waiting. Arguments that do not fit into
    /// a packet are held to be pulled.
    pub(crate) fn next_lease(
        &mut self,
        jobs: &BTreeMap<u64, Box<Job>>,
        shared: &mut Shared,
        to: NodeId,
        room: Room,
    ) -> (Option<Lease>, Vec<(Attempt, Failure)>, bool) {
        // This node's own worker needs no packet.
        let theirs = if to == shared.me() { usize::MAX } else { self.packet_bytes_max as usize };
        let packet = room.packet.min(theirs.saturating_sub(OVERHEAD_BYTES_MAX));
        let task_max = packet.saturating_sub(LEASE_BYTES);
        let room = task_max.min(room.left.saturating_sub(LEASE_BYTES + self.acks_bytes()));
        let under_way: usize = self.in_flight.iter().map(|batch| batch.bytes as usize).sum();
        let credit = (self.bytes as usize).saturating_sub(under_way);
        let (mut out_of_credit, mut starved) = (false, false);
        let (mut functions, mut tasks, mut unfit): (Vec<Arc<LeasedFunction>>, Vec<_>, Vec<_>) = Default::default();
        let mut bytes = 0;
        while let Some(&attempt) = self.outgoing.front() {
            let leased = self.leases.get_mut(&attempt);
            let task = jobs.get(&attempt.job).and_then(|job| job.leased_task(attempt));
            let (Some(leased), Some((function, mut task))) = (leased, task) else {
                self.outgoing.pop_front();
                continue;
            };
            let len = task.args.as_bytes().len();
            if len > self.takes.args_bytes as usize && len <= u32::MAX as usize {
                unfit.push((attempt, too_many_args(len, self.takes.args_bytes as usize)));
                self.outgoing.pop_front();
                self.leases.remove(&attempt);
                continue;
            }
            if len > u32::MAX as usize {
                let text = format!("the arguments have {len} bytes, a node takes {}", u32::MAX);
                unfit.push((attempt, Failure::new(Cause::Unfit, text)));
                self.outgoing.pop_front();
                self.leases.remove(&attempt);
                continue;
            }
            if len + VALUE_OVERHEAD_BYTES > task_max {
                let args = core::mem::replace(&mut task.args, Cbor::null());
                let holder = (to, Holder::Args { worker: to, attempt });
                let Ok(blob) = shared.values.hold(shared.now, &mut shared.timers, holder, args, packet) else {
                    // The worker is marked for sending when there is room.
                    starved = true;
                    break;
                };
                task.blob = Some(Box::new(blob));
            }
            let size = task.args.as_bytes().len() + function.name.len() + 96;
            // A worker without other tasks gets one task of any size.
            out_of_credit = bytes + size > credit && bytes + under_way > 0;
            if tasks.len() >= LEASE_TASKS_MAX || bytes + size > room || out_of_credit {
                break;
            }
            bytes += size;
            leased.waits = false;
            if leased.was_sent {
                shared.counters.repeated.leases += 1;
            }
            leased.was_sent = true;
            task.function = index_of(&mut functions, function);
            tasks.push(task);
            self.outgoing.pop_front();
        }
        let more = !self.outgoing.is_empty() && !out_of_credit && !starved;
        if tasks.is_empty() {
            return (None, unfit, more);
        }
        self.last_batch += 1;
        let (number, sent, tasks_len) = (self.last_batch, shared.now, tasks.len() as u32);
        self.in_flight.push_back(Batch { number, sent, tasks: tasks_len, bytes: bytes as u32 });
        let lease = Lease {
            batch: self.last_batch,
            functions: functions.iter().map(|function| (**function).clone()).collect(),
            tasks,
            result_bytes_max: shared.config.limits.result_bytes_max,
        };
        (Some(lease), unfit, more)
    }

    /// Removes and returns the leases that `which` selects.
    fn take(&mut self, which: impl Fn(&Leased) -> bool) -> Vec<(Attempt, bool)> {
        let lost: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, leased)| which(leased))
            .map(|(attempt, leased)| (*attempt, leased.started))
            .collect();
        for (attempt, _) in &lost {
            self.leases.remove(attempt);
        }
        lost
    }
}

impl Leased {
    /// Whether the worker has reported that it runs.
    #[cfg(feature = "explain")]
    pub(crate) fn has_started(&self) -> bool {
        self.started
    }

    /// Whether the worker has not confirmed this lease for too long.
    fn is_unheard(&self, now: Instant, timing: Timing) -> bool {
        !self.confirmed && !self.waits && now - self.since > timing.time(CONFIRM_MAX)
    }
}

/// The index of a function in the table of a lease message; usually it is the last one.
fn index_of(functions: &mut Vec<Arc<LeasedFunction>>, function: &Arc<LeasedFunction>) -> u16 {
    let same = |known: &Arc<LeasedFunction>| Arc::ptr_eq(known, function) || **known == **function;
    let at = functions.iter().rposition(same).unwrap_or_else(|| {
        functions.push(function.clone());
        functions.len() - 1
    });
    at as u16
}
