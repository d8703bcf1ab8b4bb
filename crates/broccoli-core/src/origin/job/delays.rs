//! Delays, retries and expiry of a job's tasks: when a task is queued, and until when it may be started.
//!
//! ```text
//!   ready ──► Delayed ──────────► Ready ──► Leased ──► failed
//!                ▲   countdown, eta                      │
//!                └───────────────────────────────────────┘  backoff, or as the task asks
//! ```
//!
//! A pause is a duration: setting the clock does not change it. An `eta` is a time of day and moves with the clock.
//! `expires` counts from the acceptance of the job; it ends waiting tasks, never running ones.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Attempt, Failure};
use broccoli_proto::options::DELAYS_MS;
use broccoli_proto::{Cause, Options, SplitMix64};

use crate::canvas::StepId;
use crate::origin::dispatch::queue::Queue;
use crate::origin::job::due::{Announced, Due};
use crate::origin::job::{Job, Phase};
use crate::shared::Shared;
use crate::time::{Instant, ms};

/// Longest pause before a retry if the author sets none, as in Celery.
const BACKOFF_MAX_MS: u64 = 600_000;
/// Most retries that a task may request if the author sets no limit, as in Celery.
const RETRIES_WHEN_ASKED: u32 = 3;

/// The pause before the next attempt, after this many failures.
fn backoff(options: &Options, failures: u32, rng: &mut SplitMix64) -> Duration {
    let Some(first) = options.backoff_ms else {
        return Duration::ZERO;
    };
    let most = options.backoff_max_ms.unwrap_or(BACKOFF_MAX_MS.max(first));
    let doubled = first.saturating_mul(1 << (failures.saturating_sub(1)).min(62));
    let longest = doubled.min(most).min(*DELAYS_MS.end());
    // "Full jitter": tasks that failed together are not retried together.
    let pause = if options.jitter.unwrap_or(true) { rng.below(longest + 1) } else { longest };
    ms(pause)
}

impl Job {
    /// Queues a task that the plan has announced, or returns what it waits for. An expired task may still run on a
    /// worker while tasks of an earlier incarnation are being adopted.
    pub(crate) fn make_ready(
        &mut self,
        shared: &Shared,
        number: u64,
        step: u32,
        adopting: bool,
        queue: &mut Queue,
    ) -> Announced {
        let task = *self.task_mut(step);
        let was_tried = task.failures > 0 || task.losses > 0;
        let noted = self.waited.remove(&step).and_then(|(until, pause_ms)| {
            let until = shared.wall.moment(until)?;
            Some(until.min(shared.now + ms(pause_ms)))
        });
        let options = self.plan.call(StepId(step)).options;
        let countdown = if was_tried { Duration::ZERO } else { ms(options.countdown_ms.unwrap_or(0)) };
        let latest = shared.now + countdown;
        // If the clock was set back, a countdown must not become longer.
        let from = noted.map_or(latest, |noted| if was_tried { noted } else { noted.min(latest) });
        let due = Due { from, eta_unix_ms: options.eta_unix_ms };
        if let Some(expires_ms) = options.expires_ms {
            if let Some(failure) = self.expired(step, shared.now).filter(|_| !adopting) {
                return Announced::Expired(failure);
            }
            self.expiries.entry(expires_ms).or_default().push(step);
        }
        if due.at(&shared.wall).is_some_and(|at| at <= shared.now) {
            self.enqueue(number, step, queue);
            return Announced::Ready;
        }
        self.delay(step, due);
        if noted.is_some() { Announced::DelayedBefore(due) } else { Announced::Delayed(due) }
    }

    /// Delays a task.
    pub(crate) fn delay(&mut self, step: u32, due: Due) {
        self.set_phase(step, Phase::Delayed);
        self.due.insert(step, due);
    }

    /// What a delayed task waits for.
    pub(crate) fn due(&self, step: u32) -> Option<Due> {
        self.due.get(&step).copied()
    }

    /// The tasks that wait for a time of day.
    pub(crate) fn etas(&self) -> impl Iterator<Item = (u32, Due)> {
        self.due.iter().filter(|(_, due)| due.eta_unix_ms.is_some()).map(|(step, due)| (*step, *due))
    }

    /// Queues a task whose delay is over.
    pub(crate) fn delay_over(&mut self, number: u64, step: u32, queue: &mut Queue) {
        if self.due.remove(&step).is_some() {
            self.enqueue(number, step, queue);
        }
    }

    /// Retries the task of a failed attempt, at once or later. Returns how often it has failed and what it waits for,
    /// or the failure that counts if it is not retried.
    pub(crate) fn retry(
        &mut self,
        shared: &mut Shared,
        attempt: Attempt,
        mut failure: Failure,
        queue: &mut Queue,
    ) -> Result<(u32, Option<Due>), Failure> {
        let step = attempt.step;
        let task = self.task_mut(step);
        task.failures += 1;
        let failures = task.failures;
        let options = self.plan.call(StepId(step)).options;
        let asked = failure.retry_after_ms.map(|pause| ms(pause.min(*DELAYS_MS.end())));
        let retries = options.retries.unwrap_or(if asked.is_some() { RETRIES_WHEN_ASKED } else { 0 });
        if failures > retries {
            if asked.is_some() {
                let tries = if failures == 1 { "try" } else { "tries" };
                failure.text.push_str(&format!("; gave up after {failures} {tries}"));
            }
            return Err(failure);
        }
        if let Some(expired) = self.expired(step, shared.now) {
            return Err(expired);
        }
        let pause = asked.unwrap_or_else(|| backoff(options, failures, &mut shared.rng));
        if pause.is_zero() {
            self.requeue(attempt, queue);
            return Ok((failures, None));
        }
        let due = Due { from: shared.now + pause, eta_unix_ms: None };
        self.delay(step, due);
        Ok((failures, Some(due)))
    }

    /// The failure of a task that has expired; none if it may still be started.
    pub(crate) fn expired(&self, step: u32, now: Instant) -> Option<Failure> {
        let expires_ms = self.plan.call(StepId(step)).options.expires_ms?;
        let last = || self.last_failure(Some(step));
        (self.age(now) >= ms(expires_ms)).then(|| Failure::new(Cause::Expired, too_late(expires_ms, last())))
    }

    /// When the next waiting tasks may expire.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let (expires_ms, _) = self.expiries.first_key_value()?;
        Some(self.accepted + ms(*expires_ms).saturating_sub(self.age))
    }

    /// Removes and returns the waiting tasks that have expired.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<u32> {
        let mut expired = Vec::new();
        while self.next_expiry().is_some_and(|at| at <= now)
            && let Some((_, steps)) = self.expiries.pop_first()
        {
            let waits = |step: &u32| {
                self.open_task(*step).is_some_and(|task| matches!(task.phase, Phase::Ready | Phase::Delayed))
            };
            expired.extend(steps.into_iter().filter(waits));
        }
        expired
    }

    /// Time since the job was accepted, by this incarnation of its origin or an earlier one.
    fn age(&self, now: Instant) -> Duration {
        self.age + (now - self.accepted)
    }
}

fn too_late(expires_ms: u64, last: Option<&str>) -> String {
    let last = last.map(|last| format!("; its last error was: {last}")).unwrap_or_default();
    format!("expired: it waited longer than its {expires_ms} ms{last}")
}
