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

use crate::content::values::pulls::JobRoom;
use crate::counters::Held;
use crate::origin::Origin;
use crate::origin::job::STEP_BYTES;
use crate::origin::job::demand::learned_bytes;
use crate::origin::job::memory::{Admission, PUT_OFF, accepted_max, grown_bytes_max, outgrown, shared_max, size};
use crate::shared::Shared;
use crate::time::ms;
use crate::timers::Timer;

/// What waits for room is looked after this often.
const LOOK: Duration = ms(1_000);
/// What an error that no run has given takes at most.
const OWN_ERROR_BYTES_MAX: usize = 512;
/// What a job needs memory for.
pub(crate) const RESULT: &str = "its next result";
pub(crate) const ARGUMENTS: &str = "the arguments of its next task";

impl Origin {
    /// What is held for jobs by others than [`Memory`](crate::origin::job::memory::Memory).
    fn held_beside(&self, shared: &Shared) -> usize {
        self.journal.bytes() + shared.values.pulls.for_jobs_bytes()
    }

    /// What is held for jobs in all states.
    fn held_bytes(&self, shared: &Shared) -> usize {
        self.memory.bytes() + self.held_beside(shared)
    }

    /// Bytes of what is held, by kind.
    pub(crate) fn held(&self, shared: &Shared) -> Held {
        Held {
            jobs_bytes: self.memory.bytes() as u64,
            results_bytes: self.archive.bytes() as u64,
            journal_bytes: self.journal.bytes() as u64,
            ..shared.held()
        }
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

    /// Decides on a result of so many bytes that has come, or could be pulled.
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
        // What is not written yet takes room that it will not need then.
        self.journal.hurry();
        if admission == Admission::PutOff
            && let Some(peer) = self.leases.peers.get_mut(&from)
        {
            peer.put_off(attempt, now + shared.timing(PUT_OFF));
        }
        admission
    }

    /// The worker of an attempt is rid of its result: the task runs again once there is room.
    pub(crate) fn drop_result(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt) {
        if let Some(peer) = self.leases.peers.get_mut(&from) {
            peer.leases.remove(&attempt);
        }
        self.give_back(shared, attempt);
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
        let jobs = self.memory.jobs_bytes() + shared.values.pulls.for_jobs_bytes();
        see("bytes of jobs", jobs, limits.queue_bytes_max.saturating_add(own));
        see("bytes to be written", self.journal.bytes(), limits.queue_bytes_max.saturating_mul(2).saturating_add(own));
        self.memory.sizes(limits, self.jobs.len(), see);
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
            favoured: self.memory.favoured(),
        };
        shared.values.pulls.set_job_room(room);
    }

    /// Looks after what waits for room.
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

    /// Nothing makes room for a job: it fails, and makes room for the others.
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
                 its next result has {}, and --queue-memory is {}; start the node with more, or submit less at a time",
                size(mine),
                size(others),
                size(bytes),
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
