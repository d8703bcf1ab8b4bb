//! How much the origin holds for jobs, and who may have more of it.
//!
//! ```text
//!   0 ────────────────────────── 3/4 ─────────── 7/8 ──────────── queue_bytes_max
//!     new jobs are accepted       │ results of    │ results of the   │ a job that alone needs
//!                                 │ any job       │ favoured job     │ more than all of it fails
//! ```
//!
//! Counted is what running jobs hold, what the journal does not have yet, news that wait, and what is
//! being pulled for a job. Results make jobs grow, all of them by an eighth together; the first one that
//! needs more is favoured: it may have what is left until it ends. What does not fit waits where it is: a
//! canvas at its client, a result at its worker, which keeps it until it is acknowledged. No more tasks of
//! a job that waits are leased.
//!
//! If its results keep workers from doing what would make room, they are dropped, and run again later. If
//! nothing makes room any more, the largest job that waits fails: no accepted job waits for ever.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use broccoli_proto::message::{Attempt, Failure};
use broccoli_proto::{Cbor, NodeId};

use crate::config::Limits;
use crate::content::blobs::JobRoom;
use crate::origin::Origin;
use crate::origin::job::STEP_BYTES;
use crate::origin::job::demand::learned_bytes;
use crate::origin::job::memory::{EARLY_PART, Favoured, Waiting, outgrown, size};
use crate::shared::Shared;
use crate::time::{Instant, ms};
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// What waits for room is looked after this often.
const LOOK: Duration = ms(1_000);
/// A job of which no result was put off for this long does not wait. Workers repeat results more often.
pub(crate) const PUT_OFF: LinkTime = link_ms(15_000);
/// If nothing was taken or freed for this long while results wait, workers are rid of them.
const SHED: LinkTime = link_ms(5_000);
/// If nothing was taken or freed for this long while results wait, nothing will be.
const STUCK: LinkTime = link_ms(60_000);
/// What an error that no run has given takes at most.
const OWN_ERROR_BYTES_MAX: usize = 512;
/// What a job needs memory for.
pub(crate) const RESULT: &str = "its next result";
pub(crate) const ARGUMENTS: &str = "the arguments of its next task";

/// What becomes of a result that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// There is room for it.
    Taken,
    /// There is none now: its worker keeps it.
    PutOff,
    /// There is none for long: its worker needs the room that it takes, and its task runs again later.
    Dropped,
    /// There never will be: its job has failed.
    Never,
}

/// New jobs are accepted up to this.
fn accepted_max(limits: &Limits) -> usize {
    limits.queue_bytes_max / 4 * 3
}

/// Results of any job are taken up to this …
fn shared_max(limits: &Limits) -> usize {
    limits.queue_bytes_max / 8 * 7
}

/// … as long as jobs have not grown by more than this.
fn grown_bytes_max(limits: &Limits) -> usize {
    limits.queue_bytes_max / 8
}

impl Origin {
    /// What is held for jobs in all states.
    fn held_bytes(&self, shared: &Shared) -> usize {
        self.memory.bytes() + self.journal.bytes() + shared.blobs.pulled_for_jobs()
    }

    /// What may still be held.
    pub(crate) fn free_bytes(&self, shared: &Shared) -> usize {
        shared.config.limits.queue_bytes_max.saturating_sub(self.held_bytes(shared))
    }

    /// Steps that there is memory for.
    pub(crate) fn free_steps(&self, shared: &Shared) -> u32 {
        u32::try_from(self.free_bytes(shared) / STEP_BYTES).unwrap_or(u32::MAX)
    }

    /// Whether another job of so many bytes is accepted now. An origin that holds none takes any that
    /// it can hold.
    pub(crate) fn has_room_for_job(&self, shared: &Shared, bytes: usize) -> bool {
        let limits = &shared.config.limits;
        let alone = self.jobs.is_empty() && bytes <= limits.queue_bytes_max;
        alone || self.held_bytes(shared).saturating_add(bytes) <= accepted_max(limits)
    }

    /// Whether there is room for a result of a job.
    fn has_room_for_result(&self, shared: &Shared, number: u64, bytes: usize) -> bool {
        let limits = &shared.config.limits;
        let held = self.held_bytes(shared).saturating_add(bytes);
        let grown = self.memory.grown().saturating_add(bytes);
        let is_shared = held <= shared_max(limits) && grown <= grown_bytes_max(limits);
        is_shared || (self.memory.is_favoured(number) && held <= limits.queue_bytes_max)
    }

    /// Decides on a result of so many bytes that has come, or could be pulled.
    pub(crate) fn admit(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt, bytes: usize) -> Admission {
        let (now, job) = (shared.now, attempt.job);
        if self.outgrows(shared, job, bytes, RESULT) {
            return Admission::Never;
        }
        if self.memory.favoured.is_none() && !self.has_room_for_result(shared, job, bytes) {
            self.favour(now, job);
        }
        if let Some(favoured) = self.memory.favoured.as_mut().filter(|favoured| favoured.job == job) {
            favoured.at = now;
        }
        if self.has_room_for_result(shared, job, bytes) {
            self.memory.moved = now;
            self.memory.waiting.remove(&job);
            return Admission::Taken;
        }
        if !self.memory.is_crowded() {
            self.memory.moved = now;
        }
        self.memory.waiting.insert(job, Waiting { bytes, at: now });
        shared.timers.set_earlier(Timer::Room, now + LOOK);
        // What is not written yet takes room that it will not need then.
        self.journal.hurry();
        if now - self.memory.moved >= shared.timing(SHED) && !self.memory.is_favoured(job) {
            return Admission::Dropped;
        }
        if let Some(peer) = self.leases.peers.get_mut(&from) {
            peer.put_off(attempt, now + shared.timing(PUT_OFF));
        }
        Admission::PutOff
    }

    /// The worker of an attempt is rid of its result: the task runs again once there is room.
    pub(crate) fn drop_result(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt) {
        if let Some(peer) = self.leases.peers.get_mut(&from) {
            peer.leases.remove(&attempt);
        }
        self.give_back(shared, attempt);
    }

    /// A job may have what is left.
    fn favour(&mut self, now: Instant, number: u64) {
        let grown = self.jobs.get(&number).map(|job| job.grown());
        self.memory.favoured = grown.map(|grown| Favoured { job: number, grown, at: now });
    }

    /// Whether a job needs more than there is, with so many bytes more. It fails then.
    pub(crate) fn outgrows(&mut self, shared: &mut Shared, number: u64, bytes: usize, what: &str) -> bool {
        let max = shared.config.limits.queue_bytes_max;
        let Some(job) = self.jobs.get(&number) else {
            return false;
        };
        // While results are made into a list, or into arguments, some of them are there twice: an allocator
        // does not give back at once what lay between others.
        let twice = (job.plan.held_bytes().saturating_add(bytes)) / 2;
        let held = job.counted.saturating_add(twice);
        if held.saturating_add(bytes) <= max {
            return false;
        }
        let text = outgrown(held, Some((bytes, what)), max);
        self.fail_for_room(shared, number, text);
        true
    }

    pub(crate) fn fail_for_room(&mut self, shared: &mut Shared, number: u64, text: String) {
        if let Some(job) = self.jobs.get_mut(&number) {
            job.plan.outgrow(text);
            self.end_tasks(shared, number);
        }
    }

    /// Whether the disk is so far behind that nothing more is leased: what comes of it has to wait as well.
    pub(crate) fn is_disk_behind(&self, shared: &Shared) -> bool {
        self.journal.bytes() > shared.config.limits.queue_bytes_max / 2
    }

    /// How full it is. What the origin itself has to say of tasks is not asked for room.
    pub(crate) fn memory_sizes(&self, shared: &Shared, see: &mut dyn FnMut(&'static str, usize, usize)) {
        let limits = &shared.config.limits;
        let own = OWN_ERROR_BYTES_MAX * self.tasks as usize;
        let jobs = self.memory.jobs + shared.blobs.pulled_for_jobs();
        see("bytes of jobs", jobs, limits.queue_bytes_max.saturating_add(own));
        see("bytes of early news", self.memory.early, limits.queue_bytes_max / EARLY_PART);
        see("bytes to be written", self.journal.bytes(), limits.queue_bytes_max.saturating_mul(2).saturating_add(own));
        see("jobs that wait for memory", self.memory.waiting.len(), self.jobs.len());
    }

    /// Says what may be pulled for jobs.
    pub(crate) fn watch_memory(&self, shared: &mut Shared) {
        let limits = &shared.config.limits;
        let room = JobRoom {
            held: self.memory.bytes() + self.journal.bytes(),
            grown: self.memory.grown(),
            max: limits.queue_bytes_max,
            shared_max: shared_max(limits),
            grown_max: grown_bytes_max(limits),
            favoured: self.memory.favoured.map(|favoured| favoured.job),
        };
        shared.blobs.set_job_room(room);
    }

    /// Looks after what waits for room.
    pub(crate) fn on_room_timer(&mut self, shared: &mut Shared) {
        let now = shared.now;
        self.memory.waiting.retain(|_, waiting| now - waiting.at < shared.timing(PUT_OFF));
        self.dispatch.due = true;
        let oldest = self.memory.waiting.first().map(|(number, _)| *number);
        if self.memory.favoured.is_none_or(|favoured| now - favoured.at >= shared.timing(PUT_OFF))
            && let Some(oldest) = oldest
        {
            self.favour(now, oldest);
        }
        let is_written = self.journal.bytes() == 0 && shared.blobs.pulled_for_jobs() == 0;
        let all_wait = self.memory.waiting.len() == self.jobs.len();
        if is_written && (all_wait || now - self.memory.moved >= shared.timing(STUCK)) {
            let held = |number: &u64| self.jobs.get(number).map_or(0, |job| job.counted);
            let largest = self.memory.waiting.keys().copied().max_by_key(held);
            largest.into_iter().for_each(|number| self.give_up_for_room(shared, number));
        }
        if self.memory.is_crowded() {
            shared.timers.set(Timer::Room, now + LOOK);
        }
    }

    /// Nothing makes room for a job: it fails, and makes room for the others.
    fn give_up_for_room(&mut self, shared: &mut Shared, number: u64) {
        let Some(waiting) = self.memory.waiting.get(&number).copied() else {
            return;
        };
        let max = shared.config.limits.queue_bytes_max;
        let is_full = |favoured| !self.has_room_for_result(shared, favoured, waiting.bytes);
        if self.memory.favoured.is_none_or(|favoured| is_full(favoured.job)) && is_full(number) {
            let mine = self.jobs.get(&number).map_or(0, |job| job.counted);
            let others = self.memory.jobs - mine;
            let text = format!(
                "there is no memory left for its results: it holds {}, other jobs that wait for memory hold {}, \
                 its next result has {}, and --queue-memory is {}; start the node with more, or submit less at a time",
                size(mine),
                size(others),
                size(waiting.bytes),
                size(max)
            );
            self.fail_for_room(shared, number, text);
        }
    }
}

/// Whether a result has room.
impl Origin {
    /// Whether a result can be taken now. What counts for nothing can.
    pub(crate) fn room_for(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        attempt: Attempt,
        outcome: &Result<Cbor, Failure>,
        was_pulled: bool,
    ) -> Admission {
        if !self.is_open(attempt) {
            return Admission::Taken;
        }
        let bytes = match outcome {
            Ok(value) => value.as_bytes().len(),
            Err(failure) if failure.too_small.is_some() => learned_bytes(failure),
            Err(failure) => failure.text.len(),
        };
        if !was_pulled {
            return self.admit(shared, from, attempt, bytes);
        }
        if self.outgrows(shared, attempt.job, bytes, RESULT) { Admission::Never } else { Admission::Taken }
    }
}
