//! The end of a job: moves it to the archive, and repeats its outcome until the client has acknowledged it.

use core::time::Duration;

use broccoli_proto::message::JobNews;
use broccoli_proto::{Cbor, JobId, Outcome};

use crate::io::Event;
use crate::origin::Origin;
use crate::origin::job::ticket::Client;
use crate::origin::journal::archive::{AWAITED, Ended};
use crate::origin::journal::writes::Promise;
use crate::shared::Shared;
use crate::text;
use crate::time::ms;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// The outcome is repeated after this time, doubled each time.
const ENDED_AGAIN: LinkTime = link_ms(500);
/// The outcome is sent this often; then it is kept for queries.
const ENDED_TRIES_MAX: u32 = 8;
/// Interval at which old outcomes are deleted.
const FORGET: Duration = ms(1_000);

impl Origin {
    pub(crate) fn check_ended(&mut self, shared: &mut Shared, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let has_ended = !job.ended && job.plan.result().is_some();
        job.ended |= has_ended;
        if has_ended {
            job.ticket.took = shared.now - job.accepted + job.age;
            match job.plan.result() {
                Some(Ok(_)) => shared.counters.jobs_succeeded += 1,
                _ => shared.counters.jobs_failed += 1,
            }
        }
        if job.plan.is_finished() {
            self.close(shared, number);
        }
        if has_ended {
            let now = self.journal.now();
            if let Some(ticket) = self.ticket_mut(number) {
                ticket.ended_in = now;
            }
            self.promise(shared, Promise::Ended(number));
        }
    }

    /// Moves an ended job to the archive.
    fn close(&mut self, shared: &mut Shared, number: u64) {
        let Some(mut job) = self.jobs.remove(&number).map(|job| *job) else {
            return;
        };
        let (tasks, ran) = (job.plan.progress().total, job.plan.ran());
        self.tasks -= tasks;
        self.has_closed = true;
        self.memory.remove_job(number, &job, shared.now);
        if !self.memory.is_crowded() {
            shared.timers.cancel(Timer::Room);
        }
        job.ticket.about.name = job.plan.name().into();
        shared.timers.cancel(Timer::JobNews(number));
        shared.timers.cancel(Timer::Expires(number));
        shared.timers.cancel(Timer::JobDeadline(number));
        self.growth.remove_job(shared, number);
        let Some(outcome) = job.plan.into_outcome() else {
            return;
        };
        self.journal.over(number);
        let is_awaited = matches!(job.ticket.client, Client::Local(_)) || job.ticket.listeners().next().is_some();
        if matches!(job.ticket.client, Client::Remote(_)) && !job.ticket.seen {
            shared.timers.set(Timer::JobEnded(number), shared.now + shared.timing(ENDED_AGAIN));
        }
        let ended = Ended {
            ticket: job.ticket,
            canvas: outcome.is_err().then_some(job.canvas),
            outcome,
            tasks,
            ran,
            ended: shared.wall.stamp(shared.now),
            until: shared.now + ms(shared.config.limits.archive_ms),
            awaited_until: shared.now + if is_awaited { AWAITED } else { Duration::ZERO },
            tries: 0,
        };
        self.archive.insert(number, ended);
        self.clean_archive(shared);
    }

    /// Sends the outcome of a job to everyone who waits for it.
    pub(crate) fn send_ended(&mut self, shared: &mut Shared, number: u64) {
        let running = self.jobs.get(&number).map(|job| (job.ticket.client, job.outcome()));
        let over = || self.archive.get(number).map(|ended| (ended.ticket.client, Some(ended.outcome.clone())));
        let Some((client, outcome)) = running.or_else(over) else { return };
        let Some(outcome) = outcome else { return };
        match client {
            Client::Local(id) => {
                shared.event(Event::Job(id, JobNews::Ended(outcome)));
                match self.jobs.get_mut(&number) {
                    Some(job) => job.ticket.seen = true,
                    None => self.archive.see(number),
                }
                self.clean_archive(shared);
            }
            Client::Remote(_) | Client::Detached => {
                let news = ended_news(&outcome, shared.config.limits.result_bytes_max);
                self.send_news(shared, number, news);
            }
        }
    }

    /// Sends the outcome of a job to its client again.
    pub(crate) fn on_ended_timer(&mut self, shared: &mut Shared, number: u64) {
        let Some(ended) = self.archive.get_mut(number).filter(|ended| !ended.ticket.seen) else {
            return;
        };
        if !self.journal.is_safe(ended.ticket.ended_in) {
            // It was not sent a first time yet.
            shared.timers.set(Timer::JobEnded(number), shared.now + shared.timing(ENDED_AGAIN));
            return;
        }
        ended.tries += 1;
        if ended.tries <= ENDED_TRIES_MAX {
            let again = shared.timing(ENDED_AGAIN * (1 << ended.tries));
            shared.timers.set(Timer::JobEnded(number), shared.now + again);
            shared.counters.repeated.ends += 1;
            self.send_ended(shared, number);
        }
    }

    /// Deletes outcomes that are too old or exceed the limits.
    pub(crate) fn clean_archive(&mut self, shared: &mut Shared) {
        let bytes_max = shared.config.limits.archive_bytes_max;
        for (number, ended) in self.archive.remove_old(shared.now, bytes_max) {
            shared.timers.cancel(Timer::JobEnded(number));
            let key = ended.ticket.about.key.as_ref();
            if let Some(key) = key.filter(|key| self.accept.by_key.get(&key.text) == Some(&number)) {
                self.accept.by_key.remove(&key.text);
            }
            self.journal.delete(number, ended.ticket.records);
        }
        if let Some(until) = self.archive.next_until() {
            shared.timers.set(Timer::Forget, until.max(shared.now + FORGET));
        }
    }

    /// A client acknowledges the outcome of a job.
    pub(crate) fn on_ended_ack(&mut self, shared: &mut Shared, id: JobId) {
        match self.jobs.get_mut(&id.number) {
            Some(job) => job.ticket.seen |= job.ended,
            None => self.archive.see(id.number),
        }
        shared.timers.cancel(Timer::JobEnded(id.number));
        self.clean_archive(shared);
    }
}

/// The news that a job has ended, with a result of at most `bytes_max` bytes.
pub(crate) fn ended_news(outcome: &Outcome, bytes_max: u32) -> JobNews {
    let is_too_large = |value: &&Cbor| value.as_bytes().len() > bytes_max as usize;
    let Some(value) = outcome.as_ref().ok().filter(is_too_large) else {
        return JobNews::Ended(outcome.clone());
    };
    JobNews::Ended(Err(text::result_too_large(value.as_bytes().len(), bytes_max)))
}
