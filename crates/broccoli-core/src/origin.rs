//! The origin: holds accepted jobs, leases their ready tasks to workers that gave credit, and
//! takes their results.
//!
//! ```text
//!             countdown, eta, pause         credit, permit            result
//!   Unready ──► Delayed ──► Ready ◄──────────────────────► Leased ──────────────► Ended
//!      │           ▲         ▲ ▲    Return, failure with     │
//!      └───────────┼─────────┘ └────retries left, lost ──────┤
//!                  └────────────────────pause────────────────┘
//! ```
//!
//! Every lease has an attempt number that is never used twice: the first success of any attempt
//! wins, a failure counts only from the current one. The origin evaluates nothing itself; that is
//! the plan's work.

mod archive;
mod audit;
mod clients;
mod delays;
mod dispatch;
mod functions;
mod growth;
mod handles;
mod jobs;
mod journal;
mod keys;
mod memory;
mod peers;
mod promises;
mod queue;
mod rates;
mod recovery;
mod ticket;
mod timeouts;
mod unfit;
mod waits;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use broccoli_proto::message::{
    Attempt, BlobRef, Failure, Fetch, JobEvent, JobNews, Log, Message, Progress, Refusal, Renew, Return, TaskResults,
};
use broccoli_proto::module::hash;
use broccoli_proto::packet::Address;
use broccoli_proto::{Canvas, Cause, Cbor, Epoch, JobId, ModuleHash, NodeId, Outcome};
use litemap::LiteMap;

use self::archive::{Archive, Ended};
use self::clients::Session;
use self::delays::{Announced, Due};
use self::functions::Functions;
use self::growth::Growth;
pub(crate) use self::jobs::too_large;
use self::jobs::{Job, Phase, STEP_BYTES, Task};
use self::journal::{About, Change, Journal, Key, Promise};
pub(crate) use self::journal::{Submitted, Submitter};
use self::keys::Keys;
use self::memory::{ARGUMENTS, Admission, Memory, RESULT};
use self::peers::Peer;
use self::queue::Queue;
use self::rates::Arbiter;
pub(crate) use self::ticket::Client;
use self::ticket::Ticket;
use self::unfit::{Refusals, learned_bytes};
use crate::canvas::{CanvasError, Effects, StepId, lower};
use crate::content::blobs::{self, Want};
use crate::content::modules::Modules;
use crate::io::{Event, SubmitId};
use crate::members::{Members, Told};
use crate::shared::Shared;
use crate::text;
use crate::time::ms;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};
use crate::worker::too_long;

/// Most tasks in one lease message: two of them fill the largest window of a worker, so that one
/// is on its way while the other runs.
const LEASE_TASKS_MAX: usize = 128;
/// Workers' leases are looked after this often.
const LEASES: LinkTime = link_ms(100);
/// Runs of a task that started and were lost before it fails.
const LOSSES_MAX: u8 = 3;
/// News of a job that wait until its acceptance is told; those after them are dropped.
const EARLY_MAX: usize = 64;
/// Clients hear of progress this often.
const NEWS: LinkTime = link_ms(250);
/// How a job ended is repeated after this time, doubled each time.
const ENDED_AGAIN: LinkTime = link_ms(500);
/// Whoever waits for a job may stay away for so long before its result counts as too old.
const AWAITED: Duration = ms(10 * 60_000);
/// After a restart, workers have this long from the first connection to say what they hold …
const ADOPT: LinkTime = link_ms(800);
/// … and the node waits this long for a connection.
const ADOPT_UNCONNECTED: LinkTime = link_ms(2_000);
/// A node that has come hears what waits within this time.
const ANNOUNCE_TO_NEW: LinkTime = link_ms(10);
/// Longest key of a submit.
const KEY_BYTES_MAX: usize = 128;
/// Submits of one client whose answers are remembered.
const ANSWERS_MAX: usize = 1_024;

/// Why [`crate::Node::submit`] did not accept a canvas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The canvas cannot be run.
    Canvas(CanvasError),
    /// The canvas needs more memory than this node gives to all jobs.
    TooLarge {
        /// What it needs, in bytes.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The node holds as many jobs or tasks as it may. Nothing accepted is lost; try later.
    QueueFull,
    /// A task has an `eta`, and this node was never told the time of day.
    NoClock,
    /// The key stands for a job with another canvas.
    KeyTaken,
    /// The journal cannot be written; the text says why.
    Storage(String),
    /// The node is about to leave.
    Draining,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Canvas(error) => error.fmt(f),
            SubmitError::TooLarge { bytes, bytes_max } => f.write_str(&memory::too_large(*bytes, *bytes_max)),
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

/// What a client is told.
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

/// The origin role.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    jobs: BTreeMap<u64, Box<Job>>,
    /// What all of it takes.
    memory: Memory,
    functions: Functions,
    /// Jobs that are over.
    archive: Archive,
    /// Submits that their clients have named, running and over.
    keys: BTreeMap<String, u64>,
    /// Keys that are to be taken, and who else may hold them.
    claims: Keys,
    /// News of jobs whose acceptance is not safe yet.
    early: BTreeMap<u64, Vec<JobNews>>,
    journal: Journal,
    /// Why the journal cannot be written, if it cannot.
    stalled: Option<String>,
    /// Jobs that were left on the disk, and why: their records are damaged, or there is no memory for them.
    left: LiteMap<u64, String>,
    /// Accepted submits of an earlier incarnation, until their clients say hello again.
    recovered: LiteMap<(NodeId, Epoch), BTreeMap<u32, u64>>,
    /// Workers may still hold tasks of an earlier incarnation: nothing is leased.
    adopting: bool,
    /// This incarnation began with jobs of the one before, which knew nodes that it has not heard of.
    took_over: bool,
    last_job: u32,
    /// Jobs accepted by all incarnations.
    accepted: u64,
    /// Tasks of all jobs.
    tasks: u32,
    queue: Queue,
    peers: LiteMap<NodeId, Box<Peer>>,
    sessions: LiteMap<NodeId, Session>,
    /// Counts the starts of functions for the cluster.
    arbiter: Arbiter,
    /// Whether tasks or credit have come since the last dispatch.
    dispatch_due: bool,
    /// Who got the last task.
    last_worker: Option<NodeId>,
    growth: Growth,
    refusals: Refusals,
    effects: Effects,
    /// A job is over: what only it needed may go.
    pub(crate) has_closed: bool,
}

/// A canvas to be accepted, and who wants it.
pub(crate) struct Request<'a> {
    pub(crate) canvas: &'a Canvas,
    /// The same, as it came or as it would go over the wire.
    pub(crate) encoded: Cbor,
    pub(crate) client: Client,
    pub(crate) submitter: Option<Submitter>,
    pub(crate) key: Option<String>,
    /// The key may stand for a new job if the one before has failed.
    pub(crate) again: bool,
}

/// What the origin reads of the other roles.
pub(crate) struct Around<'a> {
    pub(crate) modules: &'a Modules,
    pub(crate) members: &'a Members,
}

impl Origin {
    pub(crate) fn new(durable: bool) -> Origin {
        Origin { journal: Journal::new(durable), ..Origin::default() }
    }

    /// Jobs held, and tasks that wait for a worker.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.jobs.len(), self.queue.len())
    }

    /// Accepts a canvas; the job of an earlier submit with the same key is the same job. `Accepted`
    /// is told when the job is safe.
    pub(crate) fn submit(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        request: Request<'_>,
    ) -> Result<JobId, SubmitError> {
        let key = request.key.clone().map(|text| Key { text, canvas: hash(request.encoded.as_bytes()) });
        if let Some(known) = key.as_ref().and_then(|key| self.keys.get(&key.text).copied()) {
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
        // What its running tasks submit is a part of their work.
        let by_task = request.client == Client::Detached && request.submitter.is_none();
        if shared.draining && !by_task {
            return Err(SubmitError::Draining);
        }
        let limits = &shared.config.limits;
        if self.jobs.len() >= limits.jobs_max {
            return Err(SubmitError::QueueFull);
        }
        if let Some(reason) = &self.stalled {
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
            // It would be refused for ever.
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
        self.last_job += 1;
        self.accepted += 1;
        let id = JobId::new(shared.me(), shared.epoch, self.last_job);
        self.memory.recount(id.number, &mut job);
        if let Some(key) = &job.ticket.about.key {
            self.keys.insert(key.text.clone(), id.number);
        }
        self.journal.accept(id.number, || job.record(self.accepted));
        job.accepted = shared.now;
        job.ticket.accepted_in = self.journal.now();
        set_deadline(shared, id.number, &job);
        self.jobs.insert(id.number, Box::new(job));
        Ok(id)
    }

    /// The job that a key stands for already.
    fn known(&self, shared: &Shared, number: u64, key: Option<&Key>) -> Result<JobId, SubmitError> {
        if self.ticket(number).is_some_and(|ticket| ticket.about.key.as_ref() != key) {
            return Err(SubmitError::KeyTaken);
        }
        Ok(JobId { origin: shared.me(), number })
    }

    /// Whether a job has ended without a result, and that is safe.
    fn has_failed(&self, number: u64) -> bool {
        let is_told = self.ticket(number).is_some_and(|ticket| self.journal.is_safe(ticket.ended_in));
        let running = self.jobs.get(&number).and_then(|job| job.outcome());
        let failed = running.map(|outcome| outcome.is_err());
        is_told && failed.or_else(|| self.archive.get(number).map(|ended| ended.outcome.is_err())) == Some(true)
    }

    /// Tells a client that its canvas is a job, once that is safe, and starts the job if it is new.
    /// Its acceptance is told first.
    pub(crate) fn accept(&mut self, shared: &mut Shared, id: JobId, to: Submitted) {
        self.promise(shared, Promise::Accepted { job: id.number, to });
        let mut effects = core::mem::take(&mut self.effects);
        if let Some(job) = self.jobs.get_mut(&id.number) {
            job.plan.start(&mut effects);
            self.memory.recount(id.number, job);
        }
        self.effects = self.follow(shared, id.number, effects);
    }

    /// Ends a job; what has not ended never will.
    pub(crate) fn revoke(&mut self, shared: &mut Shared, number: u64) {
        if let Some(job) = self.jobs.get_mut(&number) {
            job.plan.revoke();
            self.journal.change(number, || Change::Revoked);
            self.end_tasks(shared, number);
        }
    }

    /// The time limit of a job is over.
    pub(crate) fn on_deadline(&mut self, shared: &mut Shared, number: u64) {
        if let Some(job) = self.jobs.get_mut(&number) {
            let last = job.last_failure(None).map(String::from);
            job.plan.miss_deadline(last.as_deref());
            self.journal.change(number, || Change::Late);
            self.end_tasks(shared, number);
        }
    }

    /// What a plan has ended from outside ends everywhere.
    fn end_tasks(&mut self, shared: &mut Shared, number: u64) {
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
        self.queue.forget(number);
        self.follow(shared, number, Effects::default());
    }

    /// A worker gives credit.
    pub(crate) fn on_fetch(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, sequence: u64, fetch: Fetch) {
        let peer = self.peer(shared, from, epoch);
        peer.on_fetch(shared.epoch, sequence, fetch, shared.now);
        if !peer.outgoing.is_empty() {
            shared.outbox.mark(Address::Node(from));
        }
        self.dispatch_due = true;
    }

    /// A node is there in this incarnation: what another one held is lost.
    pub(crate) fn on_session(&mut self, shared: &mut Shared, node: NodeId, epoch: Epoch) {
        if let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.epoch != epoch) {
            let lost = peer.restart(epoch);
            self.give_up(shared, lost);
        }
    }

    /// A node does not answer: what it has not confirmed goes elsewhere.
    pub(crate) fn on_silent(&mut self, shared: &mut Shared, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            let lost = peer.on_silent(shared.now);
            self.give_up(shared, lost);
        }
        self.dispatch_due = true;
    }

    /// Whether there is something to say to a worker.
    pub(crate) fn has_for(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.has_something())
    }

    /// What is known of a worker. Those without leases are forgotten when there are too many.
    fn peer(&mut self, shared: &Shared, name: NodeId, epoch: Epoch) -> &mut Peer {
        if !self.peers.contains_key(&name) && self.peers.len() >= shared.config.limits.nodes_max {
            self.peers.retain(|_, peer| !peer.leases.is_empty());
        }
        self.peers.entry(name).or_insert_with(|| Box::new(Peer::new(epoch, shared.config.timing)))
    }

    /// A worker hands tasks back.
    pub(crate) fn on_return(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, returned: &Return) {
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.epoch == epoch) else {
            return;
        };
        peer.tasks = 0;
        let held: Vec<Attempt> =
            returned.attempts.iter().filter(|attempt| peer.leases.remove(attempt).is_some()).copied().collect();
        for attempt in held {
            self.give_back(shared, attempt);
        }
        self.dispatch_due = true;
    }

    /// A worker says what it holds.
    pub(crate) fn on_renew(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, renew: &Renew) {
        let peer = self.peer(shared, from, epoch);
        peer.suspected = false;
        let named = |started| move |attempt: &Attempt| (*attempt, started);
        let held = renew.started.iter().map(named(true)).chain(renew.queued.iter().map(named(false)));
        for (attempt, started) in held {
            let Some(peer) = self.peers.get_mut(&from) else {
                return;
            };
            if peer.renew(attempt, started, shared.now) {
                continue;
            }
            let job = self.jobs.get_mut(&attempt.job);
            let Some(job) = job.filter(|job| job.is_open(attempt.step)) else {
                peer.abort(attempt);
                shared.outbox.mark(Address::Node(from));
                continue;
            };
            // Otherwise it was leased again elsewhere after this worker seemed lost: it may go on,
            // since its success counts as well.
            if job.adopt(attempt) {
                peer.adopt(attempt, started, shared.now);
                shared.timers.set_earlier(Timer::Leases(from), shared.now + shared.timing(LEASES));
            }
        }
    }

    /// A worker has run tasks. There is room already for what `was_pulled`.
    pub(crate) fn on_results(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        from: NodeId,
        epoch: Epoch,
        results: TaskResults,
        was_pulled: bool,
    ) {
        let peer = self.peer(shared, from, epoch);
        peer.suspected = false;
        let mut missing = peer.missing.remove(&results.number).unwrap_or_default();
        let mut effects = core::mem::take(&mut self.effects);
        let mut current = None;
        for result in results.results {
            let attempt = result.attempt;
            let mut outcome = result.outcome.map_err(|failure| *failure);
            if self.adopting && self.jobs.get(&attempt.job).is_some_and(|job| job.is_unready(attempt)) {
                // What comes before it, another worker will tell again: then it counts.
                missing.insert(attempt, ());
                continue;
            }
            if let Err(failure) = &mut outcome {
                text::cut(&mut failure.text, text::FAILURE_BYTES_MAX);
            }
            if let Some(blob) = result.blob.filter(|_| self.is_open(attempt)) {
                let max = shared.config.limits.result_bytes_max;
                if blob.bytes <= max {
                    match self.admit(shared, from, attempt, blob.bytes as usize) {
                        Admission::Taken | Admission::PutOff => {
                            missing.insert(attempt, ());
                            let want = Want::Result { epoch, number: results.number, attempt };
                            self.pull_result(shared, from, want, *blob);
                        }
                        Admission::Dropped => self.drop_result(shared, from, attempt),
                        Admission::Never => {}
                    }
                    continue;
                }
                outcome = Err(too_long(blob.bytes as usize, max));
            }
            match self.room_for(shared, from, attempt, &outcome, was_pulled) {
                Admission::Taken | Admission::Never => {}
                Admission::PutOff => {
                    missing.insert(attempt, ());
                    continue;
                }
                Admission::Dropped => {
                    self.drop_result(shared, from, attempt);
                    missing.remove(&attempt);
                    continue;
                }
            }
            missing.remove(&attempt);
            if let Some(peer) = self.peers.get_mut(&from) {
                peer.leases.remove(&attempt);
            }
            if current.is_some_and(|job| job != attempt.job) {
                effects = self.follow(shared, current.unwrap_or_default(), effects);
            }
            current = Some(attempt.job);
            self.on_result(shared, around, from, attempt, outcome, &mut effects);
        }
        if let Some(job) = current {
            self.effects = self.follow(shared, job, effects);
        }
        if missing.is_empty() {
            self.promise(shared, Promise::Results { worker: from, epoch, number: results.number });
        } else if let Some(peer) = self.peers.get_mut(&from) {
            peer.miss(results.number, missing);
        }
        self.dispatch_due = true;
    }

    /// A running task logged a line.
    pub(crate) fn on_log(&mut self, shared: &mut Shared, from: NodeId, mut log: Log) {
        text::cut(&mut log.text, text::FAILURE_BYTES_MAX);
        let Some(job) = self.jobs.get(&log.attempt.job) else {
            return;
        };
        let Some(function) = job.function_of(log.attempt.step) else {
            return;
        };
        let (function, task) = (function.to_string(), log.attempt.step);
        let news = JobNews::Logged { node: from, function, task, text: log.text };
        self.tell(shared, log.attempt.job, news);
    }

    /// A running task says how far it is.
    pub(crate) fn on_progress(&mut self, shared: &mut Shared, from: NodeId, progress: &Progress) {
        let Progress { attempt, done, total } = *progress;
        let Some(function) = self.jobs.get(&attempt.job).and_then(|job| job.function_of(attempt.step)) else {
            return;
        };
        let news =
            JobNews::TaskProgress { node: from, function: function.to_string(), task: attempt.step, done, total };
        self.tell(shared, attempt.job, news);
    }

    /// A worker's link is gone. It may come back with everything it holds, so its tasks wait a
    /// little; if it left on purpose they do not.
    pub(crate) fn on_death(&mut self, shared: &mut Shared, node: NodeId, epoch: Epoch, leaving: bool) {
        if leaving {
            self.on_goodbye(shared, node);
        }
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.epoch == epoch) else {
            return;
        };
        let lost = peer.suspect(shared.now, leaving);
        shared.timers.set_earlier(Timer::Leases(node), shared.now + shared.timing(LEASES));
        self.give_up(shared, lost);
    }

    /// A node says that it is there: for the first time, again, or in another incarnation. What may be a recording
    /// makes this origin ask a worker, if there is something to ask for.
    pub(crate) fn on_birth(&mut self, shared: &mut Shared, node: NodeId, told: Told, slots: u16) {
        if slots > 0 {
            self.call_soon(shared);
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if told.fresh {
            peer.extend(shared.now);
            peer.suspected = false;
        } else if !peer.leases.is_empty() && (peer.suspected || peer.epoch != told.epoch) {
            shared.outbox.send(node, Message::Hello);
        }
        shared.timers.set_earlier(Timer::Leases(node), shared.now + shared.timing(LEASES));
        // A new node may be the first that fits.
        self.dispatch_due = true;
    }

    /// The link of this node is up again: workers could not be heard meanwhile.
    pub(crate) fn on_connected(&mut self, shared: &mut Shared, around: &Around<'_>) {
        self.arbiter.on_connected(shared);
        self.claim_again(shared);
        for (node, peer) in &mut self.peers {
            peer.extend(shared.now);
            shared.outbox.mark(Address::Node(*node));
            shared.timers.set(Timer::Leases(*node), shared.now);
        }
        self.call_held(shared, around);
        self.growth.on_connected(shared.now);
        self.dispatch_due = true;
    }

    /// Whether an accepted job is bound to a module.
    pub(crate) fn uses(&self, module: &ModuleHash) -> bool {
        self.jobs.values().any(|job| job.uses(module))
    }

    /// The job of a canvas that this node itself has submitted.
    pub(crate) fn job_of(&self, id: SubmitId) -> Option<u64> {
        self.jobs.iter().find(|(_, job)| job.ticket.client == Client::Local(id)).map(|(number, _)| *number)
    }

    /// Something has changed that may let tasks fit workers that did not fit before.
    pub(crate) fn reconsider(&mut self) {
        self.dispatch_due = true;
    }
}

/// Large values.
impl Origin {
    /// Whether a result can be taken now. What counts for nothing can.
    fn room_for(
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

    /// Pulls a result that was in no packet. Its lease goes on until it is here.
    fn pull_result(&mut self, shared: &mut Shared, from: NodeId, want: Want, blob: BlobRef) {
        if let (Some(peer), Want::Result { attempt, .. }) = (self.peers.get_mut(&from), &want) {
            peer.renew(*attempt, true, shared.now);
        }
        // One too many is told of again.
        blobs::want(shared, from, blob, want);
    }

    /// The worker does not have a result any more that it has told of.
    pub(crate) fn on_result_gone(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, attempt: Attempt) {
        let peer = self.peers.get_mut(&from).filter(|peer| peer.epoch == epoch);
        if peer.is_some_and(|peer| peer.leases.remove(&attempt).is_some()) {
            self.give_up(shared, alloc::vec![(attempt, true)]);
        }
    }

    /// Whether a worker holds an attempt, as far as this origin knows.
    pub(crate) fn is_leased_to(&self, worker: NodeId, attempt: Attempt) -> bool {
        self.peers.get(&worker).is_some_and(|peer| peer.leases.contains_key(&attempt))
    }

    /// Whether a success of an attempt would count.
    pub(crate) fn is_open(&self, attempt: Attempt) -> bool {
        self.jobs.get(&attempt.job).is_some_and(|job| job.is_open(attempt.step))
    }

    /// Whether it is known how a job has ended.
    pub(crate) fn has_ended(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(|job| job.ended) || self.archive.get(number).is_some()
    }

    /// Whether a client is still the one that has handed something in.
    pub(crate) fn is_session(&self, client: NodeId, epoch: Epoch) -> bool {
        self.sessions.get(&client).is_some_and(|session| session.epoch == epoch)
    }
}

impl Origin {
    /// Takes the outcome of an attempt, if it counts.
    fn on_result(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        from: NodeId,
        attempt: Attempt,
        outcome: Result<Cbor, Failure>,
        effects: &mut Effects,
    ) {
        let job = self.jobs.get(&attempt.job).filter(|job| job.knows(attempt));
        let Some(task) = job.and_then(|job| job.open_task(attempt.step)) else {
            return;
        };
        let outcome = outcome.and_then(well_formed);
        match outcome.and_then(|value| self.replace(shared, around, attempt, value, effects)) {
            Ok(Some(value)) => self.complete(shared, attempt.job, attempt.step, Ok(value), effects),
            Ok(None) => self.waits_no_more(shared, attempt.job, attempt.step, task.phase),
            Err(failure) => return self.on_failure(shared, from, attempt, failure, effects),
        }
        if task.phase == Phase::Delayed {
            shared.timers.cancel(Timer::Countdown { job: attempt.job, step: attempt.step });
        }
        if task.phase == Phase::Leased && task.attempt != attempt.number {
            self.abort(shared, Attempt { number: task.attempt, ..attempt });
        }
    }

    /// Takes the failure of an attempt, if it is the current one.
    fn on_failure(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        attempt: Attempt,
        mut failure: Failure,
        effects: &mut Effects,
    ) {
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return;
        };
        let step = attempt.step;
        let is_current = |task: &Task| task.phase == Phase::Leased && task.attempt == attempt.number;
        if !job.open_task(step).as_ref().is_some_and(is_current) {
            return;
        }
        if failure.too_small.is_some() {
            match self.on_too_small(shared, from, attempt, failure) {
                Ok(()) => return,
                Err(outcome) => failure = outcome,
            }
        }
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return;
        };
        job.note_failure(step, &failure);
        let retried = job.retry(shared, attempt, failure, &mut self.queue);
        self.memory.recount(attempt.job, job);
        match retried {
            Ok((failures, due)) => {
                self.journal.change(attempt.job, || Change::Failed { step, failures });
                if let Some(due) = due {
                    self.wait(shared, attempt.job, step, due);
                }
                let job = self.jobs.get_mut(&attempt.job);
                if let Some(news) = job.and_then(|job| job.retried_news(shared, from, attempt)) {
                    self.tell(shared, attempt.job, news);
                }
                self.dispatch_due = true;
            }
            Err(failure) => {
                let error = job.error(step, Some(from), attempt.number, failure);
                self.complete(shared, attempt.job, step, Err(error), effects);
            }
        }
    }

    /// Ends a task, wherever it is.
    fn complete(&mut self, shared: &mut Shared, number: u64, step: u32, outcome: Outcome, effects: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let phase = job.open_task(step).map_or(Phase::Unready, |task| task.phase);
        self.journal.change(number, || Change::Ended { step, outcome: outcome.clone() });
        job.complete(step, outcome, effects);
        self.memory.recount(number, job);
        self.waits_no_more(shared, number, step, phase);
    }

    /// Forgets what a task waited for that has ended in this phase.
    fn waits_no_more(&mut self, shared: &mut Shared, number: u64, step: u32, phase: Phase) {
        if phase == Phase::Delayed {
            shared.timers.cancel(Timer::Countdown { job: number, step });
        } else if phase == Phase::Ready {
            let jobs = &mut self.jobs;
            self.queue.went_stale(|job, step| jobs.get_mut(&job).is_some_and(|job| job.keeps_entry(step)));
        }
    }

    /// Ends a task that cannot be started any more; `failure` if it says more than that.
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

    /// Queues the task of an attempt again that will not come to anything, unless it is too late.
    fn give_back(&mut self, shared: &mut Shared, attempt: Attempt) {
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return;
        };
        if job.requeue(attempt, &mut self.queue) {
            self.expire_now(shared, attempt);
        }
    }

    /// Ends the queued task of an attempt if it is too late for it.
    fn expire_now(&mut self, shared: &mut Shared, attempt: Attempt) {
        let too_late = |job: &Job| job.is_ready(attempt.step) && job.expired(attempt.step, shared.now).is_some();
        if self.jobs.get(&attempt.job).is_some_and(|job| too_late(job)) {
            let mut effects = Effects::default();
            self.expire(shared, attempt.job, attempt.step, None, &mut effects);
            self.follow(shared, attempt.job, effects);
        }
    }

    /// What follows from the progress of a plan: ready tasks, news, the end. Gives back the
    /// buffer.
    fn follow(&mut self, shared: &mut Shared, number: u64, mut effects: Effects) -> Effects {
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
            self.tell(shared, number, JobNews::CallbackFailed(error));
        }
        if let Some(job) = self.jobs.get_mut(&number) {
            if job.news_to_come() {
                shared.timers.set(Timer::JobNews(number), shared.now + shared.timing(NEWS));
            }
            if let Some(at) = job.next_expiry().filter(|_| !self.adopting) {
                shared.timers.set(Timer::Expires(number), at);
            }
        }
        self.check_ended(shared, number);
        effects
    }

    /// Takes a task that the plan has announced.
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
        match job.make_ready(shared, number, step, self.adopting, &mut self.queue) {
            Announced::Ready => {}
            Announced::Delayed(due) => self.wait(shared, number, step, due),
            Announced::DelayedBefore(due) => set_countdown(shared, number, step, due),
            Announced::Expired(failure) => self.expire(shared, number, step, Some(failure), effects),
        }
        self.dispatch_due = true;
    }

    /// Lets a task wait from now on. Its pause goes on in the next incarnation of this origin.
    fn wait(&mut self, shared: &mut Shared, number: u64, step: u32, due: Due) {
        set_countdown(shared, number, step, due);
        if due.from > shared.now
            && let Some(until) = shared.wall.stamp(due.from)
        {
            let pause_ms = (due.from - shared.now).as_millis() as u64;
            self.journal.change(number, || Change::Waits { step, until, pause_ms });
        }
    }

    fn check_ended(&mut self, shared: &mut Shared, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let has_ended = !job.ended && job.plan.result().is_some();
        job.ended |= has_ended;
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

    /// Puts a job that is over into the archive.
    fn close(&mut self, shared: &mut Shared, number: u64) {
        let Some(mut job) = self.jobs.remove(&number).map(|job| *job) else {
            return;
        };
        let (tasks, ran) = (job.plan.progress().total, job.plan.ran());
        self.tasks -= tasks;
        self.has_closed = true;
        self.memory.forget(number, &job, shared.now);
        if !self.memory.is_crowded() {
            shared.timers.cancel(Timer::Room);
        }
        job.ticket.about.name = job.plan.name().into();
        shared.timers.cancel(Timer::JobNews(number));
        shared.timers.cancel(Timer::Expires(number));
        shared.timers.cancel(Timer::JobDeadline(number));
        self.growth.forget(shared, number);
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
        self.forget_old(shared);
    }

    /// Tells whoever waits for a job something.
    fn tell(&mut self, shared: &mut Shared, number: u64, news: JobNews) {
        let Some(ticket) = self.ticket(number) else {
            return;
        };
        if !self.journal.is_safe(ticket.accepted_in) {
            // Nobody knows the job yet.
            let early = self.early.entry(number).or_default();
            if early.len() < EARLY_MAX && self.memory.keep_early(&shared.config.limits, &news) {
                early.push(news);
            }
            return;
        }
        let job = JobId { origin: shared.me(), number };
        for node in ticket.listeners() {
            let event = JobEvent { job, news: news.clone(), blob: None };
            shared.outbox.send(node, Message::JobEvent(Box::new(event)));
        }
        if let Client::Local(id) = ticket.client {
            shared.event(Event::Job(id, news));
        }
    }

    /// Takes tasks away from a worker that seems lost.
    fn give_up(&mut self, shared: &mut Shared, lost: Vec<(Attempt, bool)>) {
        for (attempt, started) in lost {
            let Some(job) = self.jobs.get_mut(&attempt.job) else {
                continue;
            };
            let Some(losses) = job.lose(attempt, started, &mut self.queue) else {
                continue;
            };
            let step = attempt.step;
            if losses < LOSSES_MAX {
                if started {
                    self.journal.change(attempt.job, || Change::Lost { step, losses });
                }
                self.expire_now(shared, attempt);
                continue;
            }
            let text = format!("the nodes that ran it were lost {LOSSES_MAX} times");
            let error = job.error(step, None, attempt.number, Failure::new(Cause::Lost, text));
            let mut effects = Effects::default();
            self.complete(shared, attempt.job, attempt.step, Err(error), &mut effects);
            self.follow(shared, attempt.job, effects);
        }
        self.dispatch_due = true;
    }

    /// Tells the worker that holds an attempt to stop. Rare, so all workers are searched.
    fn abort(&mut self, shared: &mut Shared, attempt: Attempt) {
        for (name, peer) in &mut self.peers {
            if peer.leases.remove(&attempt).is_some() {
                peer.abort(attempt);
                shared.outbox.mark(Address::Node(*name));
            }
        }
    }
}

/// Sets the timer of a delayed task. Without the time of day there is none: that sets it later.
fn set_countdown(shared: &mut Shared, job: u64, step: u32, due: Due) {
    if let Some(at) = due.at(&shared.wall) {
        shared.timers.set(Timer::Countdown { job, step }, at);
    }
}

/// Sets the timer for the time limit of a job, if it has one.
fn set_deadline(shared: &mut Shared, number: u64, job: &Job) {
    if let Some(deadline_ms) = job.plan.deadline_ms() {
        let age = shared.wall.age(shared.now, job.ticket.about.submitted);
        shared.timers.set(Timer::JobDeadline(number), shared.now + ms(deadline_ms).saturating_sub(age));
    }
}

/// A result comes from outside: what is not one item must not get into a list or a call.
fn well_formed(value: Cbor) -> Result<Cbor, Failure> {
    match broccoli_abi::validate_item(value.as_bytes()) {
        Ok(_) => Ok(value),
        Err(_) => Err(Failure::new(Cause::Unfit, "the result is not one CBOR item")),
    }
}
