//! Answers queries about jobs by their id (state, list, revoke, retry), and prepares an origin for leaving.

mod waits;
#[cfg(feature = "explain")]
mod why;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::message::{
    JobEvent, JobNews, JobState, JobSummary, Jobs, JobsRequest, Message, PATH_MAX, Refusal, Refused, Retry, Revoke,
    StepNews, StepQuery, StepState, StepView, Submit, Waits,
};
use broccoli_proto::packet::OVERHEAD_BYTES_MAX;
use broccoli_proto::{Cause, Cbor, Epoch, JobId, NodeId, Outcome};

use crate::members::Members;
use crate::origin::job::Job;
use crate::origin::job::ticket::Client;
use crate::origin::journal::archive::Ended;
use crate::origin::journal::recovery::left_on_disk;
use crate::origin::progress::end::ended_news;
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::time::Wall;

/// A leaving origin sends the end of a job this often before it stops waiting for an acknowledgement.
const ENDED_TRIES_LEAVING: u32 = 2;
/// Most jobs in one answer.
const LISTED_MAX: usize = 256;
/// About the size of a job in a list without its key, in bytes.
const SUMMARY_BYTES: usize = JobSummary::NAME_BYTES_MAX + 64;

fn summary_of_ended(wall: &Wall, number: u64, ended: &Ended) -> JobSummary {
    JobSummary {
        number,
        state: state_of(&ended.outcome),
        name: short(&ended.ticket.about.name),
        done: if ended.outcome.is_ok() { ended.tasks } else { ended.ran },
        total: ended.tasks,
        submitted_unix_ms: ended.ticket.about.submitted.map(|stamp| wall.unix_ms_of(stamp)),
        ended_unix_ms: ended.ended.map(|stamp| wall.unix_ms_of(stamp)),
        key: ended.ticket.about.key.as_ref().map(|key| key.text.clone()),
        waits: None,
    }
}

/// An outcome that fits into a packet.
fn limit_outcome(outcome: &Outcome, bytes_max: u32) -> Outcome {
    match ended_news(outcome, bytes_max) {
        JobNews::Ended(outcome) => outcome,
        _ => outcome.clone(),
    }
}

fn state_of(outcome: &Outcome) -> JobState {
    match outcome {
        Ok(_) => JobState::Succeeded,
        Err(error) if error.cause == Cause::Revoked => JobState::Revoked,
        Err(_) => JobState::Failed,
    }
}

fn short(name: &str) -> String {
    let end = name.floor_char_boundary(JobSummary::NAME_BYTES_MAX);
    name[..end].into()
}

/// Leaving.
impl Origin {
    /// Whether no job is lost if this node leaves now.
    pub(crate) fn is_drained(&self, shared: &Shared) -> bool {
        let told = |ended: &Ended| {
            ended.ticket.seen || ended.tries > ENDED_TRIES_LEAVING || !matches!(ended.ticket.client, Client::Remote(_))
        };
        if self.journal.owes_news() {
            // A client that has revoked a job still has to be told the result.
            return false;
        }
        // Results that the journal does not have yet are still kept by their workers.
        shared.config.durable || (self.jobs.is_empty() && self.archive.iter().all(|(_, ended)| told(ended)))
    }
}

/// Queries and requests about jobs.
impl Origin {
    /// A node asks for the state of a job, and gets its news from now on.
    pub(crate) fn on_query(&mut self, shared: &mut Shared, from: NodeId, id: JobId) {
        // The end of a job is told once it is safe.
        let is_safe = self.archive.get(id.number).is_some_and(|ended| self.journal.is_safe(ended.ticket.ended_in));
        if let Some(ticket) = self.ticket_mut(id.number).filter(|_| !is_safe) {
            ticket.watch(from);
        }
        let news = self.news_of(id.number, shared.config.limits.result_bytes_max);
        shared.outbox.send(from, Message::JobEvent(Box::new(JobEvent { job: id, news, blob: None })));
    }

    /// The state of a job, as far as it is safe to tell.
    pub(crate) fn news_of(&self, number: u64, bytes_max: u32) -> JobNews {
        if let Some(job) = self.jobs.get(&number) {
            let outcome = job.outcome().filter(|_| self.journal.is_safe(job.ticket.ended_in));
            return outcome.map_or_else(|| job.progress_news(), |outcome| ended_news(&outcome, bytes_max));
        }
        if let Some(ended) = self.archive.get(number) {
            return match self.journal.is_safe(ended.ticket.ended_in) {
                true => ended_news(&ended.outcome, bytes_max),
                false => JobNews::Progress { done: ended.tasks, total: ended.tasks },
            };
        }
        match self.journal.left.get(&number) {
            Some(why) => JobNews::Ended(Err(left_on_disk(why))),
            None => JobNews::Unknown,
        }
    }

    /// A client revokes a job.
    pub(crate) fn on_revoke(&mut self, shared: &mut Shared, members: &Members, from: NodeId, revoke: &Revoke) {
        let job = revoke.job;
        if job.origin != shared.me() {
            return;
        }
        if revoke.mine != Some(true) {
            return self.revoke(shared, job.number);
        }
        let is_there = |node| members.get(node).is_some_and(|member| member.alive);
        let running = self.jobs.get_mut(&job.number);
        if running.is_some_and(|job| job.ticket.leave(from) || job.ticket.listeners().any(is_there)) {
            let event = JobEvent { job, news: JobNews::GoesOn, blob: None };
            return shared.outbox.send(from, Message::JobEvent(Box::new(event)));
        }
        self.revoke(shared, job.number);
        self.on_query(shared, from, job);
    }

    /// A node asks for the list of jobs.
    pub(crate) fn on_jobs_request(
        &self,
        shared: &mut Shared,
        around: &Around<'_>,
        from: NodeId,
        request: &JobsRequest,
    ) {
        let mut room = around.members.room(shared, from).saturating_sub(OVERHEAD_BYTES_MAX);
        let max = usize::from(request.max).min(LISTED_MAX);
        let (mut jobs, mut more) = (Vec::new(), false);
        let mut after = request.after;
        while let Some(summary) = self.summary_after(shared, around, after) {
            let told =
                summary.key.as_ref().map_or(0, String::len) + summary.waits.as_ref().map_or(0, Waits::text_bytes);
            let bytes = SUMMARY_BYTES + told;
            more = jobs.len() >= max || bytes > room;
            if more {
                break;
            }
            room -= bytes;
            after = Some(summary.number);
            jobs.push(summary);
        }
        shared.outbox.send(from, Message::Jobs(Jobs { jobs, more }));
    }

    /// The first job after a number, running or ended.
    fn summary_after(&self, shared: &Shared, around: &Around<'_>, after: Option<u64>) -> Option<JobSummary> {
        let first = after.map_or(Some(0), |after| after.checked_add(1))?;
        let running = self.jobs.range(first..).next();
        let over = self.archive.first_from(first);
        match (running, over) {
            (Some((number, job)), Some((other, _))) if *number < other => {
                Some(self.summary_of(shared, around, *number, job))
            }
            (_, Some((number, ended))) => Some(summary_of_ended(&shared.wall, number, ended)),
            (Some((number, job)), None) => Some(self.summary_of(shared, around, *number, job)),
            (None, None) => None,
        }
    }

    /// The jobs that have not ended.
    pub(crate) fn running<'a>(
        &'a self,
        shared: &'a Shared,
        around: &'a Around<'a>,
    ) -> impl Iterator<Item = JobSummary> + 'a {
        self.jobs.iter().map(|(number, job)| self.summary_of(shared, around, *number, job))
    }

    fn summary_of(&self, shared: &Shared, around: &Around<'_>, number: u64, job: &Job) -> JobSummary {
        let progress = job.plan.progress();
        let wall = &shared.wall;
        let outcome = job.outcome().filter(|_| self.journal.is_safe(job.ticket.ended_in));
        let going = if job.was_leased() { JobState::Running } else { JobState::Queued };
        JobSummary {
            number,
            state: outcome.as_ref().map_or(going, state_of),
            name: short(job.plan.name()),
            done: if matches!(outcome, Some(Err(_))) { job.plan.ran() } else { progress.done },
            total: progress.total,
            submitted_unix_ms: job.ticket.about.submitted.map(|stamp| wall.unix_ms_of(stamp)),
            ended_unix_ms: None,
            key: job.ticket.about.key.as_ref().map(|key| key.text.clone()),
            waits: self.waits(shared, around, (number, job)),
        }
    }

    /// A node asks for the state of a step. Steps of ended jobs are not known.
    #[cfg_attr(not(feature = "explain"), expect(unused_variables, reason = "then it never answers `why`"))]
    pub(crate) fn on_step_query(&self, shared: &mut Shared, around: &Around<'_>, from: NodeId, query: StepQuery) {
        let StepQuery { job, path, why } = query;
        if path.len() > PATH_MAX {
            return;
        }
        let waiting = match why {
            #[cfg(feature = "explain")]
            Some(true) => self.why(shared, around, from, job, &path),
            _ => None,
        };
        let view = self.jobs.get(&job.number).and_then(|job| self.step_of(job, &path)).map(|view| {
            let outcome = view.outcome.filter(|_| waiting.is_none());
            let bytes_max = shared.config.limits.result_bytes_max;
            StepView { outcome: outcome.map(|outcome| limit_outcome(&outcome, bytes_max)), ..view }
        });
        shared.outbox.send(from, Message::StepNews(Box::new(StepNews { job, path, view, blob: None, waiting })));
    }

    fn step_of(&self, job: &Job, path: &[u32]) -> Option<StepView> {
        let view = job.plan.step_at(path)?;
        let is_told = !job.ended || self.journal.is_safe(job.ticket.ended_in);
        let state = match view.state {
            StepState::Succeeded | StepState::Failed if !is_told => StepState::Running,
            state => state,
        };
        let outcome = view.outcome.filter(|_| is_told);
        Some(StepView { name: view.name.into(), state, members: view.members, outcome })
    }

    /// A client wants a failed job to run again.
    pub(crate) fn on_retry(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        from: NodeId,
        epoch: Epoch,
        retry: &Retry,
    ) {
        let Retry { number, job } = *retry;
        let answered = self.accept.sessions.get(&from).is_some_and(|session| session.answers.contains_key(&number));
        let canvas = match self.canvas_of_failed(job) {
            Ok(canvas) => canvas,
            Err(why) if shared.config.resident && !answered => {
                shared.outbox.send(from, Message::Refused(Refused { number, reason: Refusal::NotRetriable(why) }));
                return;
            }
            // `on_submit` sends the stored answer or the refusal, as for any submit.
            Err(_) => Cbor::null(),
        };
        let submit = Submit { number, canvas, key: None, detached: Some(true), blob: None, again: None };
        self.on_submit(shared, around, from, epoch, &submit);
    }

    fn canvas_of_failed(&self, job: JobId) -> Result<Cbor, String> {
        let canvas = if let Some(running) = self.jobs.get(&job.number) {
            // Its callbacks may still run after its end was told.
            let outcome = running.outcome().filter(|_| self.journal.is_safe(running.ticket.ended_in));
            let outcome = outcome.ok_or_else(|| format!("job {job} has not ended"))?;
            outcome.is_err().then(|| running.canvas.clone())
        } else {
            let ended = self.archive.get(job.number);
            ended.ok_or_else(|| format!("no job {job}: unknown, or forgotten since it ended"))?.canvas.clone()
        };
        canvas.ok_or_else(|| format!("job {job} has succeeded"))
    }
}
