//! Memory limits of the origin: which jobs and results it takes, and which job may use more than its share.
//!
//! ```text
//!   0 ────────────────────────── 3/4 ─────────── 7/8 ──────────── queue_bytes_max
//!     new jobs are accepted       │ results of    │ results of the   │ a job that alone needs
//!                                 │ any job       │ favoured job     │ more than all of it fails
//! ```
//!
//! The count includes running jobs, data that the journal has not written yet, waiting news, and values being pulled
//! for jobs. Results make jobs grow, by an eighth at most for all jobs together. The first job that needs more is
//! favoured: it may use the rest until it ends. What does not fit waits where it is: a canvas at its client, a result
//! at its worker, which keeps it until it is acknowledged. No tasks are leased of a job that waits for memory.
//!
//! If waiting results block workers for too long, they are dropped and their tasks run again later. If no memory
//! becomes free any more, the largest waiting job fails. So no accepted job waits for ever.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use broccoli_proto::message::{Attempt, Failure};
use broccoli_proto::{Cbor, NodeId};

use crate::content::values::pulls::JobRoom;
use crate::counters::Held;
use crate::origin::Origin;
use crate::origin::job::STEP_BYTES;
use crate::origin::job::demand::learned_bytes;
use crate::origin::job::memory::{Admission, PUT_OFF, accepted_max, grown_bytes_max, outgrown, shared_max, size};
use crate::shared::Shared;
use crate::time::ms;
use crate::timers::Timer;

/// Interval of the checks while jobs wait for memory.
const LOOK: Duration = ms(1_000);
/// Longest error that the origin itself makes, in bytes.
const OWN_ERROR_BYTES_MAX: usize = 512;
/// What a job needs memory for, as error texts name it.
pub(crate) const RESULT: &str = "its next result";
pub(crate) const ARGUMENTS: &str = "the arguments of its next task";

impl Origin {
    /// Memory held for jobs outside [`Memory`](crate::origin::job::memory::Memory), in bytes.
    fn held_beside(&self, shared: &Shared) -> usize {
        self.journal.bytes() + shared.values.pulls.for_jobs_bytes()
    }

    /// All memory held for jobs, in bytes.
    fn held_bytes(&self, shared: &Shared) -> usize {
        self.memory.bytes() + self.held_beside(shared)
    }

    /// Memory in use, by kind.
    pub(crate) fn held(&self, shared: &Shared) -> Held {
        Held {
            jobs_bytes: self.memory.bytes() as u64,
            results_bytes: self.archive.bytes() as u64,
            journal_bytes: self.journal.bytes() as u64,
            ..shared.held()
        }
    }

    /// Free memory, in bytes.
    pub(crate) fn free_bytes(&self, shared: &Shared) -> usize {
        shared.config.limits.queue_bytes_max.saturating_sub(self.held_bytes(shared))
    }

    /// Number of steps that fit into the free memory.
    pub(crate) fn free_steps(&self, shared: &Shared) -> u32 {
        u32::try_from(self.free_bytes(shared) / STEP_BYTES).unwrap_or(u32::MAX)
    }

    /// Whether a job of this size is accepted now. An origin without jobs accepts any that fits its limit.
    pub(crate) fn has_room_for_job(&self, shared: &Shared, bytes: usize) -> bool {
        let limits = &shared.config.limits;
        let alone = self.jobs.is_empty() && bytes <= limits.queue_bytes_max;
        alone || self.held_bytes(shared).saturating_add(bytes) <= accepted_max(limits)
    }

    /// Decides on a result of this size that has arrived, or could be pulled.
    pub(crate) fn admit(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt, bytes: usize) -> Admission {
        let (now, job) = (shared.now, attempt.job);
        if self.outgrows(shared, job, bytes, RESULT) {
            return Admission::Never;
        }
        let beside = self.held_beside(shared);
        let grown = self.jobs.get(&job).map_or(0, |job| job.grown());
        let admission = self.memory.admit(shared, beside, (job, grown), bytes);
        if admission == Admission::Taken {
            return admission;
        }
        shared.timers.set_earlier(Timer::Room, now + LOOK);
        // Unwritten data takes memory that is free after the write.
        self.journal.hurry();
        if admission == Admission::PutOff
            && let Some(peer) = self.leases.peers.get_mut(&from)
        {
            peer.put_off(attempt, now + shared.timing(PUT_OFF));
        }
        admission
    }

    /// Drops the result of an attempt: its task runs again once there is room.
    pub(crate) fn drop_result(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt) {
        if let Some(peer) = self.leases.peers.get_mut(&from) {
            peer.leases.remove(&attempt);
        }
        self.give_back(shared, attempt);
    }

    /// Whether a job would need more than the whole memory with this many more bytes. If so, it fails.
    pub(crate) fn outgrows(&mut self, shared: &mut Shared, number: u64, bytes: usize, what: &str) -> bool {
        let max = shared.config.limits.queue_bytes_max;
        let Some(job) = self.jobs.get(&number) else {
            return false;
        };
        // While results are collected into a list or into arguments, some exist twice, and the allocator does not give
        // freed gaps back at once.
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

    /// Whether so much is unwritten that nothing more is leased, since its results would have to wait too.
    pub(crate) fn is_disk_behind(&self, shared: &Shared) -> bool {
        self.journal.bytes() > shared.config.limits.queue_bytes_max / 2
    }

    /// Reports the sizes. Errors made by the origin itself are not limited.
    pub(crate) fn memory_sizes(&self, shared: &Shared, see: &mut dyn FnMut(&'static str, usize, usize)) {
        let limits = &shared.config.limits;
        let own = OWN_ERROR_BYTES_MAX * self.tasks as usize;
        let jobs = self.memory.jobs_bytes() + shared.values.pulls.for_jobs_bytes();
        see("bytes of jobs", jobs, limits.queue_bytes_max.saturating_add(own));
        see("bytes to be written", self.journal.bytes(), limits.queue_bytes_max.saturating_mul(2).saturating_add(own));
        self.memory.sizes(limits, self.jobs.len(), see);
    }

    /// Sets how much may be pulled for jobs.
    pub(crate) fn watch_memory(&self, shared: &mut Shared) {
        let limits = &shared.config.limits;
        let room = JobRoom {
            held: self.memory.bytes() + self.journal.bytes(),
            grown: self.memory.grown(),
            max: limits.queue_bytes_max,
            shared_max: shared_max(limits),
            grown_max: grown_bytes_max(limits),
            favoured: self.memory.favoured(),
        };
        shared.values.pulls.set_job_room(room);
    }

    /// Checks the jobs that wait for memory.
    pub(crate) fn on_room_timer(&mut self, shared: &mut Shared) {
        self.dispatch.due = true;
        if let Some(number) = self.memory.next_favoured(shared) {
            let grown = self.jobs.get(&number).map_or(0, |job| job.grown());
            self.memory.favour(number, grown, shared.now);
        }
        if self.held_beside(shared) == 0 && self.memory.is_stuck(shared, self.jobs.len()) {
            let held = |number: &u64| self.jobs.get(number).map_or(0, |job| job.counted);
            if let Some(largest) = self.memory.waiting().max_by_key(held) {
                self.give_up_for_room(shared, largest);
            }
        }
        if self.memory.is_crowded() {
            shared.timers.set(Timer::Room, shared.now + LOOK);
        }
    }

    /// Fails a job that will not get memory; this frees memory for the others.
    fn give_up_for_room(&mut self, shared: &mut Shared, number: u64) {
        let Some(bytes) = self.memory.waits_for(number) else {
            return;
        };
        let max = shared.config.limits.queue_bytes_max;
        let beside = self.held_beside(shared);
        let is_full = |number| !self.memory.has_room_for_result(&shared.config.limits, beside, number, bytes);
        if self.memory.favoured().is_none_or(is_full) && is_full(number) {
            let mine = self.jobs.get(&number).map_or(0, |job| job.counted);
            let others = self.memory.jobs_bytes() - mine;
            let text = format!(
                "there is no memory left for its results: it holds {}, other jobs that wait for memory hold {}, \
                 its next result has {}, and the queue memory is {}; start the node with more, or submit less at a time",
                size(mine),
                size(others),
                size(bytes),
                size(max)
            );
            self.fail_for_room(shared, number, text);
        }
    }
}

/// Room for results.
impl Origin {
    /// Whether a result can be taken now. One that does not count is always taken.
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
