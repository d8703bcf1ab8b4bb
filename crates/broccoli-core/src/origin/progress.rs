//! Progress of a job: applies outcomes to its plan and starts what becomes ready, until the job has ended.

pub(crate) mod admit;
pub(crate) mod each;
pub(crate) mod end;
pub(crate) mod growth;
pub(crate) mod news;
pub(crate) mod replace;
mod results;

use alloc::string::String;

use broccoli_proto::Outcome;
use broccoli_proto::message::{Attempt, Failure, JobNews};

use crate::canvas::{Effects, StepId};
use crate::origin::Origin;
use crate::origin::job::due::{Announced, Due};
use crate::origin::job::{Job, NEWS, Phase};
use crate::origin::journal::records::Change;
use crate::origin::progress::admit::ARGUMENTS;
use crate::origin::progress::news::trace_failure;
use crate::shared::Shared;
use crate::timers::Timer;
use crate::trace::TraceLevel;

/// Outcomes and their effects.
impl Origin {
    /// Applies the effects of a change of a plan: ready tasks, news, the end of the job. Returns the buffer.
    pub(crate) fn apply_effects(&mut self, shared: &mut Shared, number: u64, mut effects: Effects) -> Effects {
        // Bounded: each task becomes ready once.
        while !effects.ready.is_empty() || !effects.each.is_empty() {
            self.wait_for_nodes(shared, number, &mut effects);
            let mut ready = core::mem::take(&mut effects.ready);
            for StepId(step) in ready.drain(..) {
                self.announce(shared, number, step, &mut effects);
            }
            if effects.ready.is_empty() {
                effects.ready = ready;
            }
        }
        for error in effects.failed_callbacks.drain(..) {
            self.send_news(shared, number, JobNews::CallbackFailed(error));
        }
        if let Some(job) = self.jobs.get_mut(&number) {
            if job.news_to_come() {
                shared.timers.set(Timer::JobNews(number), shared.now + shared.timing(NEWS));
            }
            if let Some(at) = job.next_expiry().filter(|_| !self.leases.adopting) {
                shared.timers.set(Timer::Expires(number), at);
            }
        }
        self.check_ended(shared, number);
        effects
    }

    /// Queues or delays a task that the plan has announced.
    fn announce(&mut self, shared: &mut Shared, number: u64, step: u32, effects: &mut Effects) {
        let input = self.jobs.get(&number).map_or(0, |job| job.plan.input_bytes(StepId(step)));
        if input > 0 && self.outgrows(shared, number, input, ARGUMENTS) {
            return;
        }
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        if let Some(node) = job.pinned_to(step) {
            self.growth.watch(shared, node, number, step);
        }
        match job.make_ready(shared, number, step, self.leases.adopting, &mut self.dispatch.queue) {
            Announced::Ready => {}
            Announced::Delayed(due) => self.wait(shared, number, step, due),
            Announced::DelayedBefore(due) => set_countdown(shared, number, step, due),
            Announced::Expired(failure) => self.expire(shared, number, step, Some(failure), effects),
        }
        self.dispatch.due = true;
    }

    /// Ends a task in any phase.
    pub(crate) fn complete(
        &mut self,
        shared: &mut Shared,
        number: u64,
        step: u32,
        outcome: Outcome,
        effects: &mut Effects,
    ) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let phase = job.open_task(step).map_or(Phase::Unready, |task| task.phase);
        if let (Err(error), true) = (&outcome, shared.traces(TraceLevel::Jobs)) {
            trace_failure(shared, number, error.clone(), None);
        }
        self.journal.change(number, || Change::Ended { step, outcome: outcome.clone() });
        job.complete(step, outcome, effects);
        self.memory.recount(number, job);
        self.waits_no_more(shared, number, step, phase);
    }

    /// Removes timers and other waits of a task that has ended in this phase.
    fn waits_no_more(&mut self, shared: &mut Shared, number: u64, step: u32, phase: Phase) {
        if phase == Phase::Delayed {
            shared.timers.cancel(Timer::Countdown { job: number, step });
        } else if phase == Phase::Ready {
            let jobs = &mut self.jobs;
            self.dispatch.queue.went_stale(|job, step| jobs.get_mut(&job).is_some_and(|job| job.keeps_entry(step)));
        }
    }
}

/// Delays and expiry.
impl Origin {
    /// Delays a task from now on. The next incarnation of this origin continues the delay.
    fn wait(&mut self, shared: &mut Shared, number: u64, step: u32, due: Due) {
        set_countdown(shared, number, step, due);
        if due.from > shared.now
            && let Some(until) = shared.wall.stamp(due.from)
        {
            let pause_ms = (due.from - shared.now).as_millis() as u64;
            self.journal.change(number, || Change::Waits { step, until, pause_ms });
        }
    }

    /// The delay of a task is over, unless the clock was changed.
    pub(crate) fn on_countdown(&mut self, shared: &mut Shared, number: u64, step: u32) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        match job.due(step).and_then(|due| due.at(&shared.wall)) {
            Some(at) if at > shared.now => shared.timers.set(Timer::Countdown { job: number, step }, at),
            _ => job.delay_over(number, step, &mut self.dispatch.queue),
        }
        self.dispatch.due = true;
    }

    /// The time of day is known or was set: timers that depend on it are set anew.
    pub(crate) fn on_clock_set(&mut self, shared: &mut Shared) {
        self.journal.set_clock(shared.wall.ahead_ms());
        for (number, job) in &self.jobs {
            for (step, due) in job.etas() {
                set_countdown(shared, *number, step, due);
            }
        }
    }

    /// Ends the expired tasks of a job.
    pub(crate) fn on_expires_timer(&mut self, shared: &mut Shared, number: u64) {
        // A waiting task may be running at a worker until adoption is over.
        let Some(job) = self.jobs.get_mut(&number).filter(|_| !self.leases.adopting) else {
            return;
        };
        let mut effects = core::mem::take(&mut self.effects);
        for step in job.take_expired(shared.now) {
            self.expire(shared, number, step, None, &mut effects);
        }
        self.effects = self.apply_effects(shared, number, effects);
    }

    /// Ends a task that can no longer be started. `failure` replaces the general failure.
    fn expire(&mut self, shared: &mut Shared, number: u64, step: u32, failure: Option<Failure>, effects: &mut Effects) {
        let Some(job) = self.jobs.get(&number) else {
            return;
        };
        let Some(failure) = failure.or_else(|| job.expired(step, shared.now)) else {
            return;
        };
        let attempt = job.open_task(step).map_or(0, |task| task.attempt);
        let error = job.error(step, None, attempt, failure);
        self.complete(shared, number, step, Err(error), effects);
    }

    /// Ends the queued task of an attempt if it has expired.
    pub(crate) fn expire_now(&mut self, shared: &mut Shared, attempt: Attempt) {
        let too_late = |job: &Job| job.is_ready(attempt.step) && job.expired(attempt.step, shared.now).is_some();
        if self.jobs.get(&attempt.job).is_some_and(|job| too_late(job)) {
            let mut effects = Effects::default();
            self.expire(shared, attempt.job, attempt.step, None, &mut effects);
            self.apply_effects(shared, attempt.job, effects);
        }
    }
}

/// Ends from outside: revoke, time limit.
impl Origin {
    /// Revokes a job. Its open tasks never end.
    pub(crate) fn revoke(&mut self, shared: &mut Shared, number: u64) {
        if let Some(job) = self.jobs.get_mut(&number) {
            job.plan.revoke();
            self.journal.change(number, || Change::Revoked);
            self.end_tasks(shared, number);
        }
    }

    /// The time limit of a job has passed.
    pub(crate) fn on_deadline(&mut self, shared: &mut Shared, number: u64) {
        if let Some(job) = self.jobs.get_mut(&number) {
            let last = job.last_failure(None).map(String::from);
            job.plan.miss_deadline(last.as_deref());
            self.journal.change(number, || Change::Late);
            self.end_tasks(shared, number);
        }
    }

    /// Ends the open tasks of a plan that was ended from outside, also at their workers.
    pub(crate) fn end_tasks(&mut self, shared: &mut Shared, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        self.memory.recount(number, job);
        for (step, attempt, phase) in job.end_all() {
            if phase == Phase::Leased {
                self.abort(shared, Attempt { job: number, step, number: attempt });
            } else {
                shared.timers.cancel(Timer::Countdown { job: number, step });
            }
        }
        shared.timers.cancel(Timer::Expires(number));
        self.dispatch.queue.remove_job(number);
        self.apply_effects(shared, number, Effects::default());
    }
}

/// Sets the timer of a delayed task. If it needs the time of day and that is unknown, the timer is set later.
fn set_countdown(shared: &mut Shared, job: u64, step: u32, due: Due) {
    if let Some(at) = due.at(&shared.wall) {
        shared.timers.set(Timer::Countdown { job, step }, at);
    }
}
