//! Clients of other nodes: their submits, and what they ask.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;

use broccoli_proto::message::{BlobRef, JobEvent, JobNews, Message, Refusal, Refused, Revoke, Submit};
use broccoli_proto::{Canvas, Epoch, JobId, NodeId};
use litemap::LiteMap;

use super::jobs::ended_news;
use super::journal::{Submitted, Submitter};
use super::recovery::left_on_disk;
use super::ticket::Client;
use super::{ANSWERS_MAX, Around, KEY_BYTES_MAX, Origin, Request, SubmitError};
use crate::content::blobs;
use crate::content::blobs::Want;
use crate::members::Members;
use crate::shared::{Shared, pop_first};
use crate::text;
use crate::time::Instant;
use crate::timers::Timer;

/// A client that has handed something in.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) epoch: Epoch,
    pub(super) used: Instant,
    /// Answers to submits, so that a repeated submit does nothing again.
    pub(super) answers: LiteMap<u32, Result<JobId, Refusal>>,
    /// Submits up to this number are too old to be answered.
    pub(super) forgotten: u32,
}

/// Clients of other nodes.
impl Origin {
    /// The answers that a client had, made when it is new: of those that are the oldest, one is forgotten then.
    fn session(&mut self, shared: &Shared, from: NodeId, epoch: Epoch) -> &mut Session {
        if self.sessions.get(&from).is_none_or(|session| session.epoch != epoch) {
            if self.sessions.len() >= shared.config.limits.nodes_max {
                let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used).map(|(node, _)| *node);
                oldest.map(|node| self.sessions.remove(&node));
            }
            let mut session = Session::new(epoch, shared.now);
            for (number, job) in self.recovered.remove(&(from, epoch)).unwrap_or_default() {
                session.remember(number, Ok(JobId { origin: shared.me(), number: job }));
            }
            self.sessions.insert(from, session);
        }
        let session = self.sessions.entry(from).or_insert_with(|| Session::new(epoch, shared.now));
        session.used = shared.now;
        session
    }

    /// A client hands in a canvas.
    pub(crate) fn on_submit(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        from: NodeId,
        epoch: Epoch,
        submit: &Submit,
    ) {
        let number = submit.number;
        if !shared.config.resident {
            shared.outbox.send(from, Message::Refused(Refused { number, reason: Refusal::NotResident }));
            return;
        }
        let session = self.session(shared, from, epoch);
        if number <= session.forgotten {
            return;
        }
        let submitter = Submitter { node: from, epoch, number };
        let answer = match (session.answers.get(&number).cloned(), submit.blob) {
            (Some(answer), _) => answer,
            (None, Some(blob)) => match self.can_take_canvas(shared, from, &blob) {
                Ok(()) => {
                    blobs::want(shared, from, blob, Want::Canvas { epoch, submit: submit.clone() });
                    return;
                }
                Err(reason) => Err(reason),
            },
            (None, None) => match self.claim(shared, around, submitter, submit) {
                Some(answer) => answer,
                None => return,
            },
        };
        self.answer_submit(shared, submitter, submit.key.is_some(), answer);
    }

    /// Tells a client what has come of its submit, now and when it is repeated.
    pub(super) fn answer_submit(
        &mut self,
        shared: &mut Shared,
        submitter: Submitter,
        has_key: bool,
        answer: Result<JobId, Refusal>,
    ) {
        let Submitter { node, epoch, number } = submitter;
        let Some(session) = self.sessions.get_mut(&node).filter(|session| session.epoch == epoch) else {
            return;
        };
        // Who comes back from there asks again.
        if !matches!(answer, Err(Refusal::Elsewhere(_))) {
            session.remember(number, answer.clone());
        }
        match answer {
            Ok(job) => {
                self.accept(shared, job, Submitted::Remote { node, number });
                if let Some(reason) = &self.stalled
                    && !self.is_written(job)
                {
                    let reason = Refusal::Unwritten(text::refusal(reason.clone()));
                    shared.outbox.send(node, Message::Refused(Refused { number, reason }));
                }
                if has_key {
                    // It may be an old one, of which the client would hear only when it asks.
                    self.on_query(shared, node, job);
                }
            }
            Err(reason) => shared.outbox.send(node, Message::Refused(Refused { number, reason })),
        }
    }

    /// Whether the journal has a job that this node has taken.
    fn is_written(&self, job: JobId) -> bool {
        self.ticket(job.number).is_none_or(|ticket| self.journal.is_safe(ticket.accepted_in))
    }

    /// Whether a canvas of so many bytes is worth pulling.
    fn can_take_canvas(&self, shared: &Shared, from: NodeId, blob: &BlobRef) -> Result<(), Refusal> {
        let (limits, bytes) = (&shared.config.limits, blob.bytes as usize);
        let (canvas_max, bytes_max) = (limits.canvas.args_bytes_max, limits.queue_bytes_max);
        if bytes > canvas_max {
            let text = format!("the canvas has {bytes} bytes, this node takes {canvas_max}: submit it in parts");
            return Err(Refusal::BadCanvas(text));
        }
        if bytes > bytes_max {
            return Err(SubmitError::TooLarge { bytes, bytes_max }.into());
        }
        let is_counted = shared.blobs.is_wanted(from, blob.id);
        if is_counted || self.has_room_for_job(shared, bytes) { Ok(()) } else { Err(Refusal::QueueFull) }
    }

    pub(super) fn take_submit(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        submitter: Submitter,
        submit: &Submit,
    ) -> Result<JobId, Refusal> {
        let key = submit.key.clone();
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(Refusal::BadCanvas(format!("a key has 1 to {KEY_BYTES_MAX} bytes")));
        }
        let canvas =
            Canvas::from_wire(submit.canvas.as_bytes()).map_err(|error| Refusal::BadCanvas(error.to_string()))?;
        let waits = submit.detached != Some(true);
        let client = if waits { Client::Remote(submitter.node) } else { Client::Detached };
        let encoded = submit.canvas.clone();
        let request = Request {
            canvas: &canvas,
            encoded,
            client,
            submitter: Some(submitter),
            key,
            again: submit.again == Some(true),
        };
        self.submit(shared, around, request).map_err(Refusal::from)
    }

    /// A client ends a job.
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

    /// Somebody asks how a job is, and hears of it from now on.
    pub(crate) fn on_query(&mut self, shared: &mut Shared, from: NodeId, id: JobId) {
        // One that has ended is told once that is safe.
        let is_safe = self.archive.get(id.number).is_some_and(|ended| self.journal.is_safe(ended.ticket.ended_in));
        if let Some(ticket) = self.ticket_mut(id.number).filter(|_| !is_safe) {
            ticket.watch(from);
        }
        let news = self.news_of(id.number, shared.config.limits.result_bytes_max);
        shared.outbox.send(from, Message::JobEvent(Box::new(JobEvent { job: id, news, blob: None })));
    }

    /// How a job is, as far as that is safe to tell.
    pub(super) fn news_of(&self, number: u64, bytes_max: u32) -> JobNews {
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
        match self.left.get(&number) {
            Some(why) => JobNews::Ended(Err(left_on_disk(why))),
            None => JobNews::Unknown,
        }
    }

    /// Somebody has seen how a job ended.
    pub(crate) fn on_ended_ack(&mut self, shared: &mut Shared, id: JobId) {
        match self.jobs.get_mut(&id.number) {
            Some(job) => job.ticket.seen |= job.ended,
            None => self.archive.see(id.number),
        }
        shared.timers.cancel(Timer::JobEnded(id.number));
        self.forget_old(shared);
    }
}

impl Session {
    fn new(epoch: Epoch, now: Instant) -> Session {
        Session { epoch, used: now, answers: LiteMap::new_vec(), forgotten: 0 }
    }

    pub(super) fn remember(&mut self, number: u32, answer: Result<JobId, Refusal>) {
        self.answers.insert(number, answer);
        if self.answers.len() > ANSWERS_MAX
            && let Some(number) = pop_first(&mut self.answers)
        {
            self.forgotten = number;
        }
    }
}
