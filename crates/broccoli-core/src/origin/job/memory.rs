//! Memory accounting: how much memory jobs use, and which jobs wait for more. For the rules, see `progress/admit.rs`.

use alloc::format;
use alloc::string::String;

use broccoli_proto::message::JobNews;
use litemap::LiteMap;

use crate::config::Limits;
use crate::origin::job::Job;
use crate::shared::Shared;
use crate::time::Instant;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// News of jobs whose acceptance is not safe yet may use this fraction of the memory.
const EARLY_PART: usize = 64;

/// A job counts as waiting until none of its results was put off for this long. Workers repeat results more often.
pub(crate) const PUT_OFF: LinkTime = link_ms(15_000);
/// If no result was taken and no job has ended for this long while results wait, results are dropped.
const SHED: LinkTime = link_ms(5_000);
/// After this long without progress, no memory will become free any more.
const STUCK: LinkTime = link_ms(60_000);

/// Memory used for jobs, and the jobs that wait for more.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// About the bytes of all running jobs.
    jobs: usize,
    /// The part of it that was added after their acceptance.
    grown: usize,
    /// Bytes of news that wait until a job's acceptance is safe.
    early: usize,
    /// The favoured job, which may use more than its share, and by how much it has grown.
    favoured: Option<Favoured>,
    /// Jobs with results that were put off, by number: the oldest first.
    waiting: LiteMap<u64, Waiting>,
    /// When a result was last taken or a job ended.
    moved: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Favoured {
    job: u64,
    grown: usize,
    /// When its last result arrived.
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    bytes: usize,
    at: Instant,
}

/// The decision on a result that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// There is room for it.
    Taken,
    /// There is no room now: the worker keeps it.
    PutOff,
    /// There has been no room for long: the worker deletes it, and the task runs again later.
    Dropped,
    /// There will never be room: the job has failed.
    Never,
}

/// New jobs are accepted up to this size.
pub(crate) fn accepted_max(limits: &Limits) -> usize {
    limits.queue_bytes_max / 4 * 3
}

/// Results of any job are taken up to this size, within the limit of [`grown_bytes_max`].
pub(crate) fn shared_max(limits: &Limits) -> usize {
    limits.queue_bytes_max / 8 * 7
}

/// Results of any job are taken while all jobs together have grown by at most this.
pub(crate) fn grown_bytes_max(limits: &Limits) -> usize {
    limits.queue_bytes_max / 8
}

impl Memory {
    /// Updates the accounts after a change of a job.
    pub(crate) fn recount(&mut self, number: u64, job: &mut Job) {
        let (before, grown_before) = (job.counted, job.grown());
        job.counted = job.bytes();
        self.jobs = self.jobs + job.counted - before;
        self.grown = self.grown + job.grown() - grown_before;
        if let Some(favoured) = self.favoured.as_mut().filter(|favoured| favoured.job == number) {
            favoured.grown = job.grown();
        }
    }

    /// A job has ended. The next job that waits may continue.
    pub(crate) fn remove_job(&mut self, number: u64, job: &Job, now: Instant) {
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

    /// What jobs have grown by, except the favoured one.
    pub(crate) fn grown(&self) -> usize {
        self.grown - self.favoured.map_or(0, |favoured| favoured.grown)
    }

    /// Whether tasks of a job may be leased: not while it waits for memory.
    pub(crate) fn is_leased(&self, number: u64) -> bool {
        !self.waiting.contains_key(&number)
    }

    /// Whether any job waits for memory.
    pub(crate) fn is_crowded(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Reserves room for early news. Returns whether there is any.
    pub(crate) fn reserve_early(&mut self, limits: &Limits, news: &JobNews) -> bool {
        let fits = self.early + early_bytes(news) <= limits.queue_bytes_max / EARLY_PART;
        self.early += if fits { early_bytes(news) } else { 0 };
        fits
    }

    /// Frees the room of early news.
    pub(crate) fn release_early(&mut self, news: &JobNews) {
        self.early -= early_bytes(news);
    }

    /// Bytes of running jobs and of early news.
    pub(crate) fn bytes(&self) -> usize {
        self.jobs + self.early
    }

    /// Whether there is room for a result of a job. `beside` is memory held for jobs elsewhere.
    pub(crate) fn has_room_for_result(&self, limits: &Limits, beside: usize, number: u64, bytes: usize) -> bool {
        let held = self.bytes().saturating_add(beside).saturating_add(bytes);
        let grown = self.grown().saturating_add(bytes);
        let is_shared = held <= shared_max(limits) && grown <= grown_bytes_max(limits);
        is_shared || (self.is_favoured(number) && held <= limits.queue_bytes_max)
    }

    /// Decides on a result of this size that has arrived, or could be pulled, for a job that has grown by `grown`.
    pub(crate) fn admit(
        &mut self,
        shared: &Shared,
        beside: usize,
        (number, grown): (u64, usize),
        bytes: usize,
    ) -> Admission {
        let now = shared.now;
        let limits = &shared.config.limits;
        if self.favoured.is_none() && !self.has_room_for_result(limits, beside, number, bytes) {
            self.favour(number, grown, now);
        }
        if let Some(favoured) = self.favoured.as_mut().filter(|favoured| favoured.job == number) {
            favoured.at = now;
        }
        if self.has_room_for_result(limits, beside, number, bytes) {
            self.moved = now;
            self.waiting.remove(&number);
            return Admission::Taken;
        }
        if !self.is_crowded() {
            self.moved = now;
        }
        self.waiting.insert(number, Waiting { bytes, at: now });
        let is_long = now - self.moved >= shared.timing(SHED);
        if is_long && !self.is_favoured(number) { Admission::Dropped } else { Admission::PutOff }
    }

    /// Makes a job the favoured one: it may use the rest of the memory.
    pub(crate) fn favour(&mut self, job: u64, grown: usize, now: Instant) {
        self.favoured = Some(Favoured { job, grown, at: now });
    }

    /// The favoured job.
    pub(crate) fn favoured(&self) -> Option<u64> {
        self.favoured.map(|favoured| favoured.job)
    }

    /// Removes jobs that no longer wait. Returns the job to favour next, if one is due.
    pub(crate) fn next_favoured(&mut self, shared: &Shared) -> Option<u64> {
        let is_long_ago = |at: Instant| shared.now - at >= shared.timing(PUT_OFF);
        self.waiting.retain(|_, waiting| !is_long_ago(waiting.at));
        let is_due = self.favoured.is_none_or(|favoured| is_long_ago(favoured.at));
        self.waiting().next().filter(|_| is_due)
    }

    /// Whether no memory will become free, as far as is known here: all `jobs` wait, or there was no progress for long.
    pub(crate) fn is_stuck(&self, shared: &Shared, jobs: usize) -> bool {
        self.waiting.len() == jobs || shared.now - self.moved >= shared.timing(STUCK)
    }

    /// The jobs that wait, oldest first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.keys().copied()
    }

    /// The size of the result that a job waits for.
    pub(crate) fn waits_for(&self, number: u64) -> Option<usize> {
        self.waiting.get(&number).map(|waiting| waiting.bytes)
    }

    /// Bytes of running jobs.
    pub(crate) fn jobs_bytes(&self) -> usize {
        self.jobs
    }

    /// Reports the sizes.
    pub(crate) fn sizes(&self, limits: &Limits, jobs: usize, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("bytes of early news", self.early, limits.queue_bytes_max / EARLY_PART);
        see("jobs that wait for memory", self.waiting.len(), jobs);
    }

    /// Checks what must hold between two inputs.
    pub(crate) fn validate<'j>(&self, shared: &Shared, jobs: impl Iterator<Item = (u64, &'j Job)> + Clone) {
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

/// The error text of a job that needs more memory than there is.
pub(crate) fn outgrown(held: usize, next: Option<(usize, &str)>, max: usize) -> String {
    let needed = size(held.saturating_add(next.map_or(0, |(bytes, _)| bytes)));
    let next = next.map_or_else(String::new, |(bytes, what)| format!(", {} of it for {what}", size(bytes)));
    let max = size(max);
    format!(
        "the job needs at least {needed} of memory{next}, and the queue memory is {max}; return less, or start the \
         node with more"
    )
}

/// The text of the refusal of a canvas that needs more memory than there is.
pub(crate) fn too_large(bytes: usize, max: usize) -> String {
    format!(
        "the canvas needs {} of memory, and the queue memory is {}: submit it in parts, or start the node with more",
        size(bytes),
        size(max)
    )
}

/// A size as users write it, such as 62.5K, rounded up to a tenth.
pub(crate) fn size(bytes: usize) -> String {
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

/// About the size of news, in bytes.
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
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
    }
}
