//! Accepts a canvas as a job: makes its plan, binds its functions to modules, and checks the memory.

mod claims;
mod clients;
pub(crate) mod keepers;
pub(crate) mod keys;
pub(crate) mod session;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use broccoli_proto::message::Refusal;
use broccoli_proto::module::hash;
use broccoli_proto::{Canvas, Cbor, JobId};

use crate::canvas::{CanvasError, lower};
use crate::origin::job::Job;
use crate::origin::job::memory::too_large;
use crate::origin::job::ticket::{Client, Ticket};
use crate::origin::journal::records::{About, Key, Submitter};
use crate::origin::journal::writes::{Promise, Submitted};
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::text;
use crate::time::ms;
use crate::timers::Timer;

/// Why [`crate::Node::submit`] did not accept a canvas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The canvas cannot be run.
    Canvas(CanvasError),
    /// The canvas needs more memory than this node has for all jobs.
    TooLarge {
        /// Needed memory, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// The node is at its limit of jobs or tasks. Accepted jobs are not affected; try later.
    QueueFull,
    /// A task has an `eta`, and this node does not know the time of day.
    NoClock,
    /// The key belongs to a job with another canvas.
    KeyTaken,
    /// The journal cannot be written; the text is the reason.
    Storage(String),
    /// The node is about to leave.
    Draining,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Canvas(error) => error.fmt(f),
            SubmitError::TooLarge { bytes, bytes_max } => f.write_str(&too_large(*bytes, *bytes_max)),
            SubmitError::QueueFull => f.write_str("queue full"),
            SubmitError::NoClock => {
                f.write_str("this node does not know the time of day: use countdown instead of eta")
            }
            SubmitError::KeyTaken => f.write_str("the key was used for another canvas: take another key"),
            SubmitError::Storage(reason) => write!(f, "the node cannot write its journal: {reason}"),
            SubmitError::Draining => f.write_str("the node is about to leave: submit to another"),
        }
    }
}

impl core::error::Error for SubmitError {}

/// The refusal sent to a client.
impl From<SubmitError> for Refusal {
    fn from(error: SubmitError) -> Refusal {
        match error {
            SubmitError::QueueFull => Refusal::QueueFull,
            SubmitError::Draining => Refusal::Draining,
            SubmitError::Storage(reason) => Refusal::Storage(text::refusal(reason)),
            SubmitError::Canvas(_) | SubmitError::TooLarge { .. } | SubmitError::KeyTaken | SubmitError::NoClock => {
                Refusal::BadCanvas(text::refusal(error.to_string()))
            }
        }
    }
}

/// A canvas to accept, and its client.
pub(crate) struct Request<'a> {
    pub(crate) canvas: &'a Canvas,
    /// The canvas in its wire encoding.
    pub(crate) encoded: Cbor,
    pub(crate) client: Client,
    pub(crate) submitter: Option<Submitter>,
    pub(crate) key: Option<String>,
    /// The key may be used for a new job if the earlier one has failed.
    pub(crate) again: bool,
}

impl Origin {
    /// Accepts a canvas. A repeated submit with the same key gives the same job. `Accepted` is sent once the job is
    /// safe.
    pub(crate) fn submit(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        request: Request<'_>,
    ) -> Result<JobId, SubmitError> {
        let key = request.key.clone().map(|text| Key { text, canvas: hash(request.encoded.as_bytes()) });
        if let Some(known) = key.as_ref().and_then(|key| self.accept.by_key.get(&key.text).copied()) {
            let job = self.known(shared, known, key.as_ref())?;
            if !(request.again && self.has_failed(known)) {
                if request.client == Client::Detached
                    && let Some(ticket) = self.ticket_mut(known)
                {
                    ticket.detached = true;
                }
                return Ok(job);
            }
        }
        // What running tasks of this node submit is part of their work.
        let by_task = request.client == Client::Detached && request.submitter.is_none();
        if shared.draining && !by_task {
            return Err(SubmitError::Draining);
        }
        let limits = &shared.config.limits;
        if self.jobs.len() >= limits.jobs_max {
            return Err(SubmitError::QueueFull);
        }
        if let Some(reason) = &self.journal.stalled {
            return Err(SubmitError::Storage(reason.clone()));
        }
        let (functions, mut bound) = (&mut self.functions, Vec::new());
        let resolve = |name: &str| {
            let found = around.modules.resolve(around.members, shared.config.holds_code, name)?;
            let function = functions.bind(name, found.module, found.function, || found.full_name());
            let target = function.target(bound.len());
            bound.push(function);
            Ok(target)
        };
        let plan = lower(request.canvas, resolve, &limits.canvas).map_err(SubmitError::Canvas)?;
        bound.shrink_to_fit();
        if shared.unix_ms().is_none() && plan.options().iter().any(|options| options.eta_unix_ms.is_some()) {
            return Err(SubmitError::NoClock);
        }
        let total = plan.progress().total;
        if total > limits.tasks_max {
            // It would always be refused.
            return Err(SubmitError::Canvas(CanvasError::TooManySteps { steps_max: limits.tasks_max }));
        }
        if self.tasks.saturating_add(total) > limits.tasks_max {
            return Err(SubmitError::QueueFull);
        }
        let about = About {
            submitter: request.submitter,
            waits: matches!(request.client, Client::Remote(_)),
            key,
            submitted: shared.wall.stamp(shared.now),
            name: String::new(),
        };
        let mut job = Job::new(plan, Ticket::new(request.client, about), request.encoded, bound);
        let (bytes, bytes_max) = (job.bytes(), limits.queue_bytes_max);
        if bytes > bytes_max {
            return Err(SubmitError::TooLarge { bytes, bytes_max });
        }
        if !self.has_room_for_job(shared, bytes) {
            return Err(SubmitError::QueueFull);
        }
        self.tasks += total;
        self.accept.last_job += 1;
        self.accept.count += 1;
        shared.counters.jobs_accepted += 1;
        let id = JobId::new(shared.me(), shared.epoch, self.accept.last_job);
        self.memory.recount(id.number, &mut job);
        if let Some(key) = &job.ticket.about.key {
            self.accept.by_key.insert(key.text.clone(), id.number);
        }
        self.journal.accept(id.number, || job.record(self.accept.count));
        job.accepted = shared.now;
        job.ticket.accepted_in = self.journal.now();
        set_deadline(shared, id.number, &job);
        self.jobs.insert(id.number, Box::new(job));
        Ok(id)
    }

    /// The existing job of a key.
    fn known(&self, shared: &Shared, number: u64, key: Option<&Key>) -> Result<JobId, SubmitError> {
        if self.ticket(number).is_some_and(|ticket| ticket.about.key.as_ref() != key) {
            return Err(SubmitError::KeyTaken);
        }
        Ok(JobId { origin: shared.me(), number })
    }

    /// Whether a job has failed, and its outcome is safe.
    fn has_failed(&self, number: u64) -> bool {
        let is_told = self.ticket(number).is_some_and(|ticket| self.journal.is_safe(ticket.ended_in));
        let running = self.jobs.get(&number).and_then(|job| job.outcome());
        let failed = running.map(|outcome| outcome.is_err());
        is_told && failed.or_else(|| self.archive.get(number).map(|ended| ended.outcome.is_err())) == Some(true)
    }

    /// Tells a client, once it is safe, that its canvas was accepted as a job, and starts the job if it is new.
    /// `Accepted` is sent before any news of the job.
    pub(crate) fn accept(&mut self, shared: &mut Shared, id: JobId, to: Submitted) {
        self.promise(shared, Promise::Accepted { job: id.number, to });
        let mut effects = core::mem::take(&mut self.effects);
        if let Some(job) = self.jobs.get_mut(&id.number) {
            job.plan.start(&mut effects);
            self.memory.recount(id.number, job);
        }
        self.effects = self.apply_effects(shared, id.number, effects);
    }
}

/// Sets the timer for the time limit of a job, if it has one.
pub(crate) fn set_deadline(shared: &mut Shared, number: u64, job: &Job) {
    if let Some(deadline_ms) = job.plan.deadline_ms() {
        let age = shared.wall.age(shared.now, job.ticket.about.submitted);
        shared.timers.set(Timer::JobDeadline(number), shared.now + ms(deadline_ms).saturating_sub(age));
    }
}
