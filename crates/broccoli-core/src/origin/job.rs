//! One accepted job: its plan, the state of each task, and the memory it uses.

mod delays;
pub(crate) mod demand;
pub(crate) mod due;
pub(crate) mod functions;
pub(crate) mod memory;
pub(crate) mod ticket;

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::cbor::put_array_header;
use broccoli_proto::message::{Attempt, Failure, JobNews, LeasedFunction, LeasedTask, Want};
use broccoli_proto::options::Rate;
use broccoli_proto::{Canvas, Cause, Cbor, ModuleHash, NodeId, Options, Outcome, TaskError};
use litemap::LiteMap;

use crate::canvas::{CanvasError, Effects, Limits, Mode, Plan, Room, StepId, pinned_to};
use crate::io::RecordBytes;
use crate::origin::dispatch::place::Place;
use crate::origin::dispatch::queue::{Need, Queue};
use crate::origin::dispatch::rates::Limit;
use crate::origin::job::demand::Demand;
use crate::origin::job::due::Due;
use crate::origin::job::functions::{Bound, Functions};
use crate::origin::job::ticket::{Client, Ticket};
use crate::origin::journal::records::{AcceptedRecord, Bindings, Change, Record};
use crate::shared::Shared;
use crate::time::{Instant, Stamp};
use crate::timing::{LinkTime, link_ms};

/// Clients are told the progress at this interval.
pub(crate) const NEWS: LinkTime = link_ms(250);
/// About the size of a job in memory, in bytes, without its steps and encoded values.
const JOB_BYTES: usize = 896;
/// Size of a step in bytes: in the plan, as a task, and in the queue.
pub(crate) const STEP_BYTES: usize = 144;
/// Most errors of retried tasks that a job keeps.
const FAILED_MAX: usize = 16;
/// Longest text of such an error, in bytes.
const FAILED_BYTES_MAX: usize = 256;
/// About the size of such an error without its text, in bytes.
const FAILED_BYTES: usize = 64;
/// Attempt numbers reserved for one incarnation of the origin.
const ATTEMPTS_PER_BOOT: u32 = 1 << 16;

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) ticket: Ticket,
    pub(crate) plan: Plan,
    /// The canvas in its wire encoding.
    pub(crate) canvas: Cbor,
    /// By [`crate::canvas::Call::key`].
    functions: Vec<Arc<Bound>>,
    /// Tasks that some nodes were too small for, by step.
    pub(crate) demands: BTreeMap<u32, Box<Demand>>,
    /// About the bytes of `demands`.
    pub(crate) demands_bytes: usize,
    /// The size that is accounted for it: see [`super::memory`].
    pub(crate) counted: usize,
    /// Its size when it was accepted.
    accepted_bytes: usize,
    /// The last errors of tasks that are being retried, by step: the first [`FAILED_MAX`] of them.
    pub(crate) failed: LiteMap<u32, Box<(Cause, String)>>,
    /// About the bytes of `failed`.
    pub(crate) failed_bytes: usize,
    /// The task that failed last.
    pub(crate) failed_last: Option<u32>,
    /// When its client was last told about a retry.
    pub(crate) retried_told: Option<Instant>,
    /// Attempt numbers of earlier incarnations of this origin go up to this one.
    attempts_before: u32,
    /// Number of steps when this incarnation took the plan over. It has appended the later steps itself, possibly in
    /// another order than an earlier incarnation that could not write them to the journal.
    steps_before: usize,
    /// By step; it grows as steps become ready.
    tasks: Vec<Task>,
    /// What delayed tasks wait for, by step.
    pub(crate) due: BTreeMap<u32, Due>,
    /// Delays noted by an earlier incarnation, by step: until when in Unix milliseconds, and the longest pause.
    pub(crate) waited: BTreeMap<u32, (Stamp, u64)>,
    /// Unexpired tasks with the option `expires`, by its value in milliseconds.
    pub(crate) expiries: BTreeMap<u64, Vec<u32>>,
    /// When this incarnation of the origin got the job.
    pub(crate) accepted: Instant,
    /// The age of the job at that time: 0 if it came from its client.
    pub(crate) age: Duration,
    /// The class of the task queued last; the next task often has the same.
    last_class: Option<LastClass>,
    told: u32,
    /// Whether progress is to be sent to the client soon.
    news_due: bool,
    /// The outcome is known; callbacks may still run.
    pub(crate) ended: bool,
}

/// The state of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Task {
    /// Number of leases: the number of the current attempt.
    pub(crate) attempt: u32,
    /// Failures of attempts that were current.
    pub(crate) failures: u32,
    /// Attempts that had started and were lost.
    pub(crate) losses: u8,
    pub(crate) phase: Phase,
    /// The queue has an entry for it. The entry remains if the task is adopted or ends.
    queued: bool,
}

/// The class of tasks with this function, routing and rate.
#[derive(Debug)]
struct LastClass {
    key: u32,
    on: Vec<String>,
    rate: Option<Rate>,
    class: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Unready,
    Delayed,
    Ready,
    Leased,
    Ended,
}

impl Job {
    pub(crate) fn new(plan: Plan, ticket: Ticket, canvas: Cbor, functions: Vec<Arc<Bound>>) -> Job {
        let mut job = Job {
            ticket,
            plan,
            canvas,
            functions,
            demands: BTreeMap::new(),
            demands_bytes: 0,
            counted: 0,
            accepted_bytes: 0,
            failed: LiteMap::new_vec(),
            failed_bytes: 0,
            failed_last: None,
            retried_told: None,
            attempts_before: 0,
            steps_before: 0,
            tasks: Vec::new(),
            due: BTreeMap::new(),
            expiries: BTreeMap::new(),
            waited: BTreeMap::new(),
            accepted: Instant::default(),
            age: Duration::ZERO,
            last_class: None,
            told: 0,
            news_due: false,
            ended: false,
        };
        job.accepted_bytes = job.bytes();
        job
    }

    /// How much it has grown since its acceptance, in bytes.
    pub(crate) fn grown(&self) -> usize {
        self.counted.saturating_sub(self.accepted_bytes)
    }

    /// Marks a job accepted by an earlier incarnation of this origin. Workers may hold attempts up to this number.
    pub(crate) fn recovered(mut self, attempts_before: u32, records: u32) -> Job {
        self.attempts_before = attempts_before;
        self.ticket.records = records;
        self.steps_before = self.plan.steps();
        self
    }

    /// Whether an attempt belongs to the step that this plan has at its number.
    pub(crate) fn knows(&self, attempt: Attempt) -> bool {
        attempt.number > self.attempts_before || (attempt.step as usize) < self.steps_before
    }

    /// The state of a task, created if needed.
    pub(crate) fn task_mut(&mut self, step: u32) -> &mut Task {
        let at = step as usize;
        if self.tasks.len() <= at {
            self.tasks.reserve_exact(self.plan.steps().max(at + 1) - self.tasks.len());
            let unready = Task { attempt: 0, failures: 0, losses: 0, phase: Phase::Unready, queued: false };
            self.tasks.resize(at + 1, unready);
        }
        &mut self.tasks[at]
    }

    /// Queues a task at the end.
    pub(crate) fn enqueue(&mut self, number: u64, step: u32, queue: &mut Queue) {
        self.set_phase(step, Phase::Ready);
        if !core::mem::replace(&mut self.task_mut(step).queued, true) {
            let class = self.class(step, queue);
            queue.push_back(class, self.priority(step), number, step);
        }
    }

    /// The queue's class for a task. It is looked up each time, since the queue drops empty classes.
    fn class(&mut self, step: u32, queue: &mut Queue) -> u32 {
        let call = self.plan.call(StepId(step));
        let Options { on, rate, .. } = call.options;
        let choosy = self.demands.contains_key(&step);
        let same = |last: &&LastClass| {
            last.key == call.key && last.rate == *rate && last.on == *on && !choosy && queue.has_class(last.class)
        };
        if let Some(last) = self.last_class.as_ref().filter(same) {
            return last.class;
        }
        let module = self.functions[call.key as usize].leased.module;
        let limit = rate.map(|rate| Limit::new(call.name, rate));
        let class = queue.class(Need { want: Want { module, on: on.clone() }, limit, choosy });
        if choosy {
            return class;
        }
        self.last_class = Some(LastClass { key: call.key, on: on.clone(), rate: *rate, class });
        class
    }

    pub(crate) fn set_phase(&mut self, step: u32, phase: Phase) {
        self.task_mut(step).phase = phase;
    }

    /// Starts a new attempt at a task whose entry was taken from the queue; none if the task is no longer ready.
    pub(crate) fn lease(&mut self, number: u64, step: u32) -> Option<Attempt> {
        let task = self.tasks.get_mut(step as usize)?;
        task.queued = false;
        if task.phase != Phase::Ready {
            return None;
        }
        task.phase = Phase::Leased;
        task.attempt = task.attempt.max(self.attempts_before) + 1;
        Some(Attempt { job: number, step, number: task.attempt })
    }

    /// Adopts an attempt of an earlier incarnation of this origin that a worker still holds, unless the task was leased
    /// since.
    pub(crate) fn adopt(&mut self, attempt: Attempt) -> bool {
        if attempt.number > self.attempts_before || !self.knows(attempt) {
            return false;
        }
        let waits = |task: &&mut Task| task.phase == Phase::Ready && task.attempt <= self.attempts_before;
        let Some(task) = self.tasks.get_mut(attempt.step as usize).filter(waits) else {
            return false;
        };
        task.phase = Phase::Leased;
        task.attempt = attempt.number;
        true
    }

    /// The message for the worker of an attempt, if the attempt is still the current one.
    pub(crate) fn leased_task(&self, attempt: Attempt) -> Option<(&Arc<LeasedFunction>, LeasedTask)> {
        let task = self.tasks.get(attempt.step as usize)?;
        if task.phase != Phase::Leased || task.attempt != attempt.number {
            return None;
        }
        let step = StepId(attempt.step);
        let call = self.plan.call(step);
        let leased = LeasedTask {
            attempt,
            function: 0,
            args: Cbor::from_encoded(self.plan.args(step).into_owned()),
            bin: call.mode == Mode::Bin,
            timeout_ms: call.options.timeout_ms,
            blob: None,
        };
        Some((&self.functions[call.key as usize].leased, leased))
    }

    /// Size of the arguments of a ready task.
    pub(crate) fn args_bytes(&self, step: u32) -> usize {
        self.plan.args(StepId(step)).len()
    }

    /// Puts the task of an attempt back to the front of the queue, if the attempt is the current one.
    pub(crate) fn requeue(&mut self, attempt: Attempt, queue: &mut Queue) -> bool {
        let step = attempt.step;
        let current = |task: &&Task| task.phase == Phase::Leased && task.attempt == attempt.number;
        if self.tasks.get(step as usize).filter(current).is_none() {
            return false;
        }
        self.set_phase(step, Phase::Ready);
        if !core::mem::replace(&mut self.task_mut(step).queued, true) {
            let class = self.class(step, queue);
            queue.push_front(class, self.priority(step), attempt.job, step);
        }
        true
    }

    /// Queues the task of a lost attempt again, if the attempt was the current one. Returns how many started runs of it
    /// were lost.
    pub(crate) fn lose(&mut self, attempt: Attempt, started: bool, queue: &mut Queue) -> Option<u8> {
        if !self.requeue(attempt, queue) {
            return None;
        }
        let task = self.task_mut(attempt.step);
        task.losses += u8::from(started);
        Some(task.losses)
    }

    /// The state of a task that has become ready and has not ended.
    pub(crate) fn open_task(&self, step: u32) -> Option<Task> {
        self.tasks.get(step as usize).filter(|task| !matches!(task.phase, Phase::Unready | Phase::Ended)).copied()
    }

    /// Whether a task has become ready and has not ended.
    pub(crate) fn is_open(&self, step: u32) -> bool {
        self.open_task(step).is_some()
    }

    /// Whether the task of an attempt still waits for other tasks.
    pub(crate) fn is_unready(&self, attempt: Attempt) -> bool {
        let is_unready = |task: &Task| task.phase == Phase::Unready;
        self.knows(attempt) && self.tasks.get(attempt.step as usize).is_none_or(is_unready)
    }

    /// Ends a task.
    pub(crate) fn complete(&mut self, step: u32, outcome: Outcome, effects: &mut Effects) {
        self.set_phase(step, Phase::Ended);
        self.due.remove(&step);
        self.remove_demand(step);
        self.remove_failure(step);
        self.plan.complete(StepId(step), outcome, effects);
    }

    /// The journal record of its acceptance. `order` is its position among all jobs.
    pub(crate) fn record(&self, order: u64) -> RecordBytes {
        let mut bindings = Vec::new();
        put_array_header(&mut bindings, self.functions.len());
        for function in &self.functions {
            bindings.extend_from_slice(function.record.as_bytes());
        }
        let (about, canvas) = (Cow::Borrowed(&self.ticket.about), Cow::Borrowed(&self.canvas));
        Record::Accepted(AcceptedRecord { order, about, canvas, bindings: Bindings(&bindings) }).encode()
    }

    /// About the size of the job in memory.
    pub(crate) fn bytes(&self) -> usize {
        let encoded = self.canvas.as_bytes().len() + self.plan.args_bytes() + self.plan.held_bytes();
        let options = core::mem::size_of_val(self.plan.options());
        JOB_BYTES + self.plan.steps() * STEP_BYTES + options + encoded + self.demands_bytes + self.failed_bytes
    }

    /// Applies a change that an earlier incarnation has noted.
    pub(crate) fn replay(
        &mut self,
        change: Change,
        limits: &Limits,
        functions: &mut Functions,
        effects: &mut Effects,
    ) -> Result<(), &'static str> {
        let room = Room { limits, tasks: u32::MAX };
        match change {
            Change::Ended { step, outcome } => {
                if !self.plan.complete(StepId(step), outcome, effects) {
                    return Err("the outcome of a task that did not run");
                }
                self.task_mut(step).phase = Phase::Ended;
            }
            Change::Failed { step, failures } if self.plan.is_running_task(StepId(step)) => {
                self.task_mut(step).failures = failures;
            }
            Change::Lost { step, losses } if self.plan.is_running_task(StepId(step)) => {
                self.task_mut(step).losses = losses;
            }
            Change::Waits { step, until, pause_ms } if self.plan.is_running_task(StepId(step)) => {
                self.waited.insert(step, (until, pause_ms));
            }
            Change::Failed { .. } | Change::Lost { .. } | Change::Waits { .. } => {
                return Err("a failure of a task that did not run");
            }
            Change::Revoked => self.plan.revoke(),
            Change::Late => self.plan.miss_deadline(None),
            Change::OnEach { step, nodes } => {
                if !self.plan.is_running_task(StepId(step)) {
                    return Err("nodes for a task that did not run");
                }
                self.plan.run_on_each(StepId(step), &nodes, room, effects);
            }
            Change::Replaced { step, result, bindings } => {
                let canvas = Canvas::replacement(&result).and_then(Result::ok).ok_or("a replacement is no canvas")?;
                let find = |name: &str| {
                    let binding = bindings.iter().find(|binding| binding.asked == name);
                    let binding = binding.ok_or("a name of a replacement is unknown")?;
                    Ok(functions.bind_again(binding.clone()))
                };
                self.replace(step, &canvas, find, room, effects).map_err(|_| "a replacement cannot be run")?;
            }
        }
        Ok(())
    }

    /// Replaces a running task with a canvas. `find` resolves names that the job does not know yet.
    pub(crate) fn replace(
        &mut self,
        step: u32,
        canvas: &Canvas,
        mut find: impl FnMut(&str) -> Result<Arc<Bound>, String>,
        room: Room<'_>,
        effects: &mut Effects,
    ) -> Result<(), CanvasError> {
        let Job { plan, functions, .. } = self;
        let known = functions.len();
        let resolve = |name: &str| {
            functions.push(find(name)?);
            Ok(functions[functions.len() - 1].target(functions.len() - 1))
        };
        if let Err(error) = plan.replace(StepId(step), canvas, resolve, room, effects) {
            self.functions.truncate(known);
            return Err(error);
        }
        self.task_mut(step).phase = Phase::Ended;
        self.due.remove(&step);
        self.remove_demand(step);
        self.remove_failure(step);
        Ok(())
    }

    /// Ends all tasks. Returns those that were leased or delayed, with their attempt and phase.
    pub(crate) fn end_all(&mut self) -> Vec<(u32, u32, Phase)> {
        let mut under_way = Vec::new();
        for (step, task) in self.tasks.iter_mut().enumerate() {
            if matches!(task.phase, Phase::Leased | Phase::Delayed) {
                under_way.push((step as u32, task.attempt, task.phase));
            }
            task.phase = Phase::Ended;
        }
        self.due.clear();
        self.expiries.clear();
        under_way
    }

    /// Whether a task is queued.
    pub(crate) fn is_ready(&self, step: u32) -> bool {
        self.tasks.get(step as usize).is_some_and(|task| task.phase == Phase::Ready)
    }

    /// Whether a task named by a queue entry still waits. If not, the entry is dropped.
    pub(crate) fn keeps_entry(&mut self, step: u32) -> bool {
        let task = self.task_mut(step);
        task.queued &= task.phase == Phase::Ready;
        task.queued
    }

    /// Whether any task was leased, as far as this incarnation knows.
    pub(crate) fn was_leased(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.phase, Phase::Leased | Phase::Ended))
    }

    /// All announced tasks, with their steps.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = (u32, &Task)> {
        self.tasks.iter().enumerate().map(|(step, task)| (step as u32, task))
    }

    /// An announced task.
    pub(crate) fn task(&self, step: u32) -> Option<&Task> {
        self.tasks.get(step as usize)
    }

    /// The node that a task is pinned to, if it is a run on each node.
    pub(crate) fn pinned_to(&self, step: u32) -> Option<NodeId> {
        pinned_to(&self.plan.call(StepId(step)).options.on)?.parse().ok()
    }

    /// The module of a task's function.
    pub(crate) fn module_of(&self, step: u32) -> ModuleHash {
        self.functions[self.plan.call(StepId(step)).key as usize].leased.module
    }

    /// Stores the error of a task that may be retried.
    pub(crate) fn note_failure(&mut self, step: u32, failure: &Failure) {
        self.remove_failure(step);
        if self.failed.len() >= FAILED_MAX
            && let Some((other, _)) = self.failed.first()
        {
            self.remove_failure(*other);
        }
        let text = &failure.text[..failure.text.floor_char_boundary(FAILED_BYTES_MAX)];
        self.failed_bytes += FAILED_BYTES + text.len();
        self.failed.insert(step, Box::new((failure.cause, text.into())));
        self.failed_last = Some(step);
    }

    fn remove_failure(&mut self, step: u32) {
        if let Some(failed) = self.failed.remove(&step) {
            self.failed_bytes -= FAILED_BYTES + failed.1.len();
            self.failed_last = self.failed_last.filter(|last| *last != step);
        }
    }

    /// The last error of a task that has not ended, or of any such task.
    pub(crate) fn last_failure(&self, step: Option<u32>) -> Option<&str> {
        let step = step.or(self.failed_last)?;
        self.failed.get(&step).map(|failed| failed.1.as_str())
    }

    /// A failure as an error with function, node and attempt.
    pub(crate) fn error(&self, step: u32, node: Option<NodeId>, attempt: u32, failure: Failure) -> TaskError {
        TaskError {
            function: self.plan.call(StepId(step)).name.into(),
            task: step,
            node,
            attempt: attempt % ATTEMPTS_PER_BOOT,
            cause: failure.cause,
            text: failure.text,
            members: Vec::new(),
        }
    }

    /// The full name of a task's function; none if the task was not announced.
    pub(crate) fn function_of(&self, step: u32) -> Option<&str> {
        self.tasks.get(step as usize).filter(|task| task.phase != Phase::Unready)?;
        Some(self.plan.call(StepId(step)).name)
    }

    /// Whether the job is bound to a module.
    pub(crate) fn uses(&self, module: &ModuleHash) -> bool {
        self.functions.iter().any(|function| function.leased.module == *module)
    }

    /// The progress of the job.
    pub(crate) fn progress_news(&self) -> JobNews {
        let progress = self.plan.progress();
        JobNews::Progress { done: progress.done, total: progress.total }
    }

    /// Whether anyone gets its news.
    fn is_heard(&self) -> bool {
        matches!(self.ticket.client, Client::Local(_)) || self.ticket.listeners().next().is_some()
    }

    /// The news that an attempt has failed and is retried; none if nobody gets news, or got such news just now.
    pub(crate) fn retried_news(&mut self, shared: &Shared, from: NodeId, attempt: Attempt) -> Option<JobNews> {
        let now = shared.now;
        let again_ms = self.due(attempt.step).map_or(0, |due| (due.from - now).as_millis() as u64);
        if !self.is_heard() || self.retried_told.is_some_and(|told| now - told < shared.timing(NEWS)) {
            return None;
        }
        self.retried_told = Some(now);
        let (cause, text) = &**self.failed.get(&attempt.step)?;
        let error = self.error(attempt.step, Some(from), attempt.number, Failure::new(*cause, text.as_str()));
        Some(JobNews::Retried { error, again_ms })
    }

    /// Whether progress must be sent later and this is not scheduled yet. Marks it as scheduled.
    pub(crate) fn news_to_come(&mut self) -> bool {
        let heard = self.is_heard();
        let come = heard && !self.news_due && !self.ended && self.plan.progress().done != self.told;
        self.news_due |= come;
        come
    }

    /// The progress, if it has changed since it was last sent.
    pub(crate) fn progress_if_changed(&mut self) -> Option<JobNews> {
        self.news_due = false;
        let done = self.plan.progress().done;
        let changed = done != self.told;
        self.told = done;
        changed.then(|| self.progress_news())
    }

    /// The outcome of the job, if it is known.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.plan.result().map(|result| result.cloned().map_err(TaskError::clone))
    }

    fn priority(&self, step: u32) -> u8 {
        self.plan.call(StepId(step)).options.priority.unwrap_or(0)
    }

    /// A node was too small for a task of this job.
    pub(crate) fn learn(&mut self, step: u32, place: &Place, args_bytes: u64, failure: Failure) {
        let demand = self.demands.entry(step).or_default();
        let before = if demand.worst.is_some() { demand.bytes() } else { 0 };
        demand.learn(place, args_bytes, failure);
        self.demands_bytes = self.demands_bytes + demand.bytes() - before;
    }

    /// Removes what is known about the size of a task that has ended.
    pub(crate) fn remove_demand(&mut self, step: u32) {
        if let Some(demand) = self.demands.remove(&step) {
            self.demands_bytes -= demand.bytes();
        }
    }
}

/// Up to this number, attempts of recovered tasks are from earlier incarnations.
pub(crate) fn attempts_before(boots: u32) -> u32 {
    boots.wrapping_mul(ATTEMPTS_PER_BOOT)
}
