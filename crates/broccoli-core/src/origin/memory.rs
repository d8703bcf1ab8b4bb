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

use broccoli_proto::NodeId;
use broccoli_proto::message::{Attempt, JobNews};
use litemap::LiteMap;

use super::jobs::Job;
use super::{Origin, STEP_BYTES};
use crate::config::Limits;
use crate::content::blobs::JobRoom;
use crate::shared::Shared;
use crate::time::{Instant, ms};
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// What waits for room is looked after this often.
const LOOK: Duration = ms(1_000);
/// A job of which no result was put off for this long does not wait. Workers repeat results more often.
pub(super) const PUT_OFF: LinkTime = link_ms(15_000);
/// If nothing was taken or freed for this long while results wait, workers are rid of them.
const SHED: LinkTime = link_ms(5_000);
/// If nothing was taken or freed for this long while results wait, nothing will be.
const STUCK: LinkTime = link_ms(60_000);
/// What an error that no run has given takes at most.
const OWN_ERROR_BYTES_MAX: usize = 512;
/// News of jobs whose acceptance is not safe take this part of the memory at most.
const EARLY_PART: usize = 64;

/// What is held for jobs, and which of them wait for more.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// About what running jobs take, together.
    jobs: usize,
    /// What of it they did not have when they were accepted.
    grown: usize,
    /// What news take that wait until a job's acceptance is safe.
    early: usize,
    /// The job that may have more than its part, and what it has grown by.
    favoured: Option<Favoured>,
    /// Jobs of which results were put off, by their number: the oldest first.
    waiting: LiteMap<u64, Waiting>,
    /// When a result was last taken, or a job has ended.
    moved: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Favoured {
    job: u64,
    grown: usize,
    /// When a result of it last came.
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    bytes: usize,
    at: Instant,
}

/// What a job needs memory for.
pub(super) const RESULT: &str = "its next result";
pub(super) const ARGUMENTS: &str = "the arguments of its next task";

/// What becomes of a result that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
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

impl Memory {
    /// Follows a change of a job.
    pub(super) fn recount(&mut self, number: u64, job: &mut Job) {
        let (before, grown_before) = (job.counted, job.grown());
        job.counted = job.bytes();
        self.jobs = self.jobs + job.counted - before;
        self.grown = self.grown + job.grown() - grown_before;
        if let Some(favoured) = self.favoured.as_mut().filter(|favoured| favoured.job == number) {
            favoured.grown = job.grown();
        }
    }

    /// A job is over. The next one that waits may go on.
    pub(super) fn forget(&mut self, number: u64, job: &Job, now: Instant) {
        self.jobs -= job.counted;
        self.grown -= job.grown();
        self.waiting.remove(&number);
        self.moved = now;
        if self.favoured.is_some_and(|favoured| favoured.job == number) {
            self.favoured = None;
        }
    }

    fn is_favoured(&self, number: u64) -> bool {
        self.favoured.is_some_and(|favoured| favoured.job == number)
    }

    /// What jobs have grown by beside the favoured one.
    fn grown(&self) -> usize {
        self.grown - self.favoured.map_or(0, |favoured| favoured.grown)
    }

    /// Whether tasks of a job are leased.
    pub(super) fn is_leased(&self, number: u64) -> bool {
        !self.waiting.contains_key(&number)
    }

    /// Whether results of some job wait.
    pub(super) fn is_crowded(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Keeps news that wait, if there is room for them.
    pub(super) fn keep_early(&mut self, limits: &Limits, news: &JobNews) -> bool {
        let fits = self.early + early_bytes(news) <= limits.queue_bytes_max / EARLY_PART;
        self.early += if fits { early_bytes(news) } else { 0 };
        fits
    }

    /// News have waited.
    pub(super) fn told_early(&mut self, news: &JobNews) {
        self.early -= early_bytes(news);
    }

    /// What running jobs take, and the news that wait.
    pub(super) fn bytes(&self) -> usize {
        self.jobs + self.early
    }

    /// Checks what must hold between two inputs.
    pub(super) fn validate<'j>(&self, shared: &Shared, jobs: impl Iterator<Item = (u64, &'j Job)> + Clone) {
        assert!(jobs.clone().all(|(_, job)| job.counted == job.bytes()), "each job is counted");
        assert_eq!(self.jobs, jobs.clone().map(|(_, job)| job.bytes()).sum::<usize>(), "their bytes are counted");
        assert!(self.waiting.is_empty() || shared.timers.is_set(Timer::Room), "what waits for room is looked after");
        assert_eq!(self.grown, jobs.clone().map(|(_, job)| job.grown()).sum::<usize>(), "their growth is counted");
        let is_held = |number: &u64| jobs.clone().any(|(held, _)| held == *number);
        assert!(self.waiting.keys().all(is_held), "only running jobs wait for room");
        if let Some(favoured) = self.favoured {
            let grown = jobs.clone().find(|(number, _)| *number == favoured.job).map(|(_, job)| job.grown());
            assert_eq!(grown, Some(favoured.grown), "a running job is favoured");
        }
    }
}

impl Origin {
    /// What is held for jobs in all states.
    fn held_bytes(&self, shared: &Shared) -> usize {
        self.memory.bytes() + self.journal.bytes() + shared.blobs.pulled_for_jobs()
    }

    /// What may still be held.
    pub(super) fn free_bytes(&self, shared: &Shared) -> usize {
        shared.config.limits.queue_bytes_max.saturating_sub(self.held_bytes(shared))
    }

    /// Steps that there is memory for.
    pub(super) fn free_steps(&self, shared: &Shared) -> u32 {
        u32::try_from(self.free_bytes(shared) / STEP_BYTES).unwrap_or(u32::MAX)
    }

    /// Whether another job of so many bytes is accepted now. An origin that holds none takes any that
    /// it can hold.
    pub(super) fn has_room_for_job(&self, shared: &Shared, bytes: usize) -> bool {
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
    pub(super) fn admit(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt, bytes: usize) -> Admission {
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
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.put_off(attempt, now + shared.timing(PUT_OFF));
        }
        Admission::PutOff
    }

    /// The worker of an attempt is rid of its result: the task runs again once there is room.
    pub(super) fn drop_result(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt) {
        if let Some(peer) = self.peers.get_mut(&from) {
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
    pub(super) fn outgrows(&mut self, shared: &mut Shared, number: u64, bytes: usize, what: &str) -> bool {
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

    pub(super) fn fail_for_room(&mut self, shared: &mut Shared, number: u64, text: String) {
        if let Some(job) = self.jobs.get_mut(&number) {
            job.plan.outgrow(text);
            self.end_tasks(shared, number);
        }
    }

    /// Whether the disk is so far behind that nothing more is leased: what comes of it has to wait as well.
    pub(super) fn is_disk_behind(&self, shared: &Shared) -> bool {
        self.journal.bytes() > shared.config.limits.queue_bytes_max / 2
    }

    /// How full it is. What the origin itself has to say of tasks is not asked for room.
    pub(super) fn memory_sizes(&self, shared: &Shared, see: &mut dyn FnMut(&'static str, usize, usize)) {
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
        self.dispatch_due = true;
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

/// Why a job fails that alone needs more than there is.
pub(super) fn outgrown(held: usize, next: Option<(usize, &str)>, max: usize) -> String {
    let needed = size(held.saturating_add(next.map_or(0, |(bytes, _)| bytes)));
    let next = next.map_or_else(String::new, |(bytes, what)| format!(", {} of it for {what}", size(bytes)));
    let max = size(max);
    format!(
        "the job needs at least {needed} of memory{next}, and --queue-memory is {max}; return less, or start the \
         node with more"
    )
}

/// Why a canvas is refused that needs more than there is.
pub(super) fn too_large(bytes: usize, max: usize) -> String {
    format!(
        "the canvas needs {} of memory, and --queue-memory is {}: submit it in parts, or start the node with more",
        size(bytes),
        size(max)
    )
}

/// A size as it is written for `--queue-memory`, rounded up to a tenth.
pub(super) fn size(bytes: usize) -> String {
    let units = [(1_usize << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    let Some((unit, name)) = units.into_iter().find(|(unit, _)| bytes >= *unit) else {
        return format!("{bytes} bytes");
    };
    let tenths = (bytes as u64).saturating_mul(10).div_ceil(unit as u64);
    if tenths.is_multiple_of(10) {
        format!("{}{name}", tenths / 10)
    } else {
        format!("{}.{}{name}", tenths / 10, tenths % 10)
    }
}

/// About what news take.
fn early_bytes(news: &JobNews) -> usize {
    const NEWS_BYTES: usize = 128;
    let texts = match news {
        JobNews::Logged { function, text, .. } => function.len() + text.len(),
        JobNews::TaskProgress { function, .. } => function.len(),
        JobNews::CallbackFailed(error) => error.function.len() + error.text.len(),
        JobNews::NoNode { function, on, .. } => function.len() + on.iter().map(String::len).sum::<usize>(),
        _ => 0,
    };
    NEWS_BYTES + texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_the_option_is() {
        let sizes =
            [(1_023, "1023 bytes"), (1 << 10, "1K"), (64 << 20, "64M"), (3 << 29, "1.5G"), ((64 << 20) + 1, "64.1M")];
        sizes.into_iter().for_each(|(bytes, text)| assert_eq!(size(bytes), text));
    }
}
