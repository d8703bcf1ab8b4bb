//! One accepted job: its plan and where each of its tasks is.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Attempt, Failure, JobNews, LeasedFunction, LeasedTask, Want};
use broccoli_proto::{Cause, Cbor, ModuleHash, NodeId, Outcome, TaskError};

use super::journal::{About, Change};
use super::queue::Queue;
use crate::canvas::{Effects, Mode, Plan, StepId};
use crate::io::SubmitId;
use crate::time::ms;

/// Nodes beside its client that hear of a job.
const WATCHERS_MAX: usize = 8;
/// Attempts of a task in one incarnation of its origin: those of the next one are counted from there.
const ATTEMPTS_PER_BOOT: u32 = 1 << 16;

/// Who waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// The program that this node is part of.
    Local(SubmitId),
    /// Another node.
    Remote(NodeId),
    /// Nobody: whoever wants to know asks.
    Detached,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) plan: Plan,
    pub(super) client: Client,
    pub(super) about: About,
    /// As it came over the wire.
    pub(super) canvas: Cbor,
    /// By [`crate::canvas::Call::key`].
    bindings: Vec<Arc<LeasedFunction>>,
    /// Attempts of earlier incarnations of this origin have numbers up to this one.
    attempts_before: u32,
    /// The write of the journal that makes its acceptance safe.
    pub(super) accepted_in: u64,
    /// The write that makes its outcome safe, once it has ended.
    pub(super) ended_in: u64,
    /// Records that the journal has of it.
    pub(super) records: u32,
    /// Other nodes that have asked after it.
    watchers: Vec<NodeId>,
    /// By step; filled as steps become ready.
    tasks: Vec<Task>,
    /// The class of the last task that became ready: mostly that of the next one too.
    last_class: Option<(u32, Vec<alloc::string::String>, u32)>,
    told: u32,
    /// Its outcome is known; callbacks may still run.
    pub(super) ended: bool,
    /// Somebody knows how the job ended.
    pub(super) seen: bool,
}

/// Where a task is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Task {
    /// Counts leases: the number of the current attempt.
    pub(super) attempt: u32,
    failures: u32,
    losses: u8,
    pub(super) phase: Phase,
    class: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Unready,
    Delayed,
    Ready,
    Leased,
    Ended,
}

impl Job {
    pub(super) fn new(
        plan: Plan,
        client: Client,
        about: About,
        canvas: Cbor,
        bindings: Vec<Arc<LeasedFunction>>,
    ) -> Job {
        Job {
            plan,
            client,
            about,
            canvas,
            bindings,
            attempts_before: 0,
            accepted_in: 0,
            ended_in: 0,
            records: 0,
            watchers: Vec::new(),
            tasks: Vec::new(),
            last_class: None,
            told: 0,
            ended: false,
            seen: false,
        }
    }

    /// The job was accepted by an earlier incarnation of this origin: attempts up to this number
    /// may be anywhere.
    pub(super) fn recovered(mut self, attempts_before: u32, records: u32) -> Job {
        (self.attempts_before, self.records) = (attempts_before, records);
        self
    }

    /// Notes that a node wants to hear of the job.
    pub(super) fn watch(&mut self, node: NodeId) {
        let is_client = self.client == Client::Remote(node);
        if !is_client && !self.watchers.contains(&node) && self.watchers.len() < WATCHERS_MAX {
            self.watchers.push(node);
        }
    }

    /// The other nodes that hear of the job.
    pub(super) fn listeners(&self) -> impl Iterator<Item = NodeId> {
        let client = if let Client::Remote(node) = self.client { Some(node) } else { None };
        client.into_iter().chain(self.watchers.iter().copied())
    }

    /// Queues a task that the plan has announced, or says how long it has to wait.
    pub(super) fn make_ready(&mut self, number: u64, step: u32, queue: &mut Queue) -> Option<Duration> {
        self.task_mut(step);
        let at = step as usize;
        let call = self.plan.call(StepId(step));
        let same = |(key, on, _): &&(u32, Vec<_>, u32)| *key == call.key && *on == call.options.on;
        let class = match self.last_class.as_ref().filter(same) {
            Some((_, _, class)) => *class,
            None => {
                let module = self.bindings[call.key as usize].module;
                let class = queue.class(Want { module, on: call.options.on.clone() });
                self.last_class = Some((call.key, call.options.on.clone(), class));
                class
            }
        };
        let delay = call.options.countdown_ms.filter(|delay| *delay > 0);
        let priority = call.options.priority.unwrap_or(0);
        self.tasks[at].class = class;
        match delay {
            Some(delay) => {
                self.tasks[at].phase = Phase::Delayed;
                Some(ms(delay))
            }
            None => {
                self.tasks[at].phase = Phase::Ready;
                queue.push_back(class, priority, number, step);
                None
            }
        }
    }

    /// A countdown is over.
    pub(super) fn delay_over(&mut self, number: u64, step: u32, queue: &mut Queue) {
        let priority = self.priority(step);
        if let Some(task) = self.tasks.get_mut(step as usize).filter(|task| task.phase == Phase::Delayed) {
            task.phase = Phase::Ready;
            queue.push_back(task.class, priority, number, step);
        }
    }

    /// A new attempt at a ready task; none if it is not ready any more.
    pub(super) fn lease(&mut self, number: u64, step: u32) -> Option<Attempt> {
        let task = self.tasks.get_mut(step as usize).filter(|task| task.phase == Phase::Ready)?;
        task.phase = Phase::Leased;
        task.attempt = task.attempt.max(self.attempts_before) + 1;
        Some(Attempt { job: number, step, number: task.attempt })
    }

    /// Takes over an attempt of an earlier incarnation of this origin that a worker still holds,
    /// unless its task has been given to somebody already.
    pub(super) fn adopt(&mut self, attempt: Attempt) -> bool {
        let waits = |task: &&mut Task| task.phase == Phase::Ready && task.attempt <= self.attempts_before;
        let Some(task) = self.tasks.get_mut(attempt.step as usize).filter(waits) else {
            return false;
        };
        if attempt.number > self.attempts_before {
            return false;
        }
        (task.phase, task.attempt) = (Phase::Leased, attempt.number);
        true
    }

    /// What goes to a worker for an attempt, if the attempt is still the current one.
    pub(super) fn leased_task(&self, attempt: Attempt) -> Option<(&Arc<LeasedFunction>, LeasedTask)> {
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
        Some((&self.bindings[call.key as usize], leased))
    }

    /// Puts the task of an attempt back to the front, if the attempt is the current one.
    pub(super) fn requeue(&mut self, attempt: Attempt, queue: &mut Queue) -> bool {
        let priority = self.priority(attempt.step);
        let current = |task: &&mut Task| task.phase == Phase::Leased && task.attempt == attempt.number;
        let Some(task) = self.tasks.get_mut(attempt.step as usize).filter(current) else {
            return false;
        };
        task.phase = Phase::Ready;
        queue.push_front(task.class, priority, attempt.job, attempt.step);
        true
    }

    /// Tries a failed task again, if its author allowed for it. Returns how often it has failed then.
    pub(super) fn retry(&mut self, attempt: Attempt, queue: &mut Queue) -> Option<u32> {
        let retries = self.plan.call(StepId(attempt.step)).options.retries.unwrap_or(0);
        let task = self.tasks.get_mut(attempt.step as usize)?;
        task.failures += 1;
        let failures = task.failures;
        (failures <= retries && self.requeue(attempt, queue)).then_some(failures)
    }

    /// Queues the task of a lost attempt again, if the attempt was the current one. Returns how often
    /// runs of it that had started were lost.
    pub(super) fn lose(&mut self, attempt: Attempt, started: bool, queue: &mut Queue) -> Option<u8> {
        if !self.requeue(attempt, queue) {
            return None;
        }
        let task = &mut self.tasks[attempt.step as usize];
        task.losses += u8::from(started);
        Some(task.losses)
    }

    /// A task that has become ready and has not ended.
    pub(super) fn open_task(&self, step: u32) -> Option<Task> {
        self.tasks.get(step as usize).filter(|task| !matches!(task.phase, Phase::Unready | Phase::Ended)).copied()
    }

    /// Whether a task may still come to something.
    pub(super) fn is_open(&self, step: u32) -> bool {
        self.open_task(step).is_some()
    }

    /// Ends a task.
    pub(super) fn complete(&mut self, step: u32, outcome: Outcome, effects: &mut Effects) {
        self.tasks[step as usize].phase = Phase::Ended;
        self.plan.complete(StepId(step), outcome, effects);
    }

    /// Does again what an earlier incarnation has noted.
    pub(super) fn replay(&mut self, change: Change, effects: &mut Effects) -> Result<(), &'static str> {
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
            Change::Failed { .. } | Change::Lost { .. } => return Err("a failure of a task that did not run"),
            Change::Revoked => self.plan.revoke(),
        }
        Ok(())
    }

    /// A task of the plan, noted here when it was not yet.
    fn task_mut(&mut self, step: u32) -> &mut Task {
        let at = step as usize;
        if self.tasks.len() <= at {
            let blank = Task { attempt: 0, failures: 0, losses: 0, phase: Phase::Unready, class: 0 };
            self.tasks.resize(at + 1, blank);
        }
        &mut self.tasks[at]
    }

    /// Ends all tasks; gives those that were leased or delayed, with their attempt and phase.
    pub(super) fn end_all(&mut self) -> Vec<(u32, u32, Phase)> {
        let mut under_way = Vec::new();
        for (step, task) in self.tasks.iter_mut().enumerate() {
            if matches!(task.phase, Phase::Leased | Phase::Delayed) {
                under_way.push((step as u32, task.attempt, task.phase));
            }
            task.phase = Phase::Ended;
        }
        under_way
    }

    /// Whether a task is queued.
    pub(super) fn is_ready(&self, step: u32) -> bool {
        self.tasks.get(step as usize).is_some_and(|task| task.phase == Phase::Ready)
    }

    /// All tasks that were announced, with their step.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (u32, &Task)> {
        self.tasks.iter().enumerate().map(|(step, task)| (step as u32, task))
    }

    /// One task that was announced.
    pub(super) fn task(&self, step: u32) -> Option<&Task> {
        self.tasks.get(step as usize)
    }

    /// The module of a task's function.
    pub(super) fn module_of(&self, step: u32) -> ModuleHash {
        self.bindings[self.plan.call(StepId(step)).key as usize].module
    }

    /// Describes a failure for people.
    pub(super) fn error(&self, step: u32, node: Option<NodeId>, attempt: u32, failure: Failure) -> TaskError {
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

    /// The full name of a task's function; none if there is no such task.
    pub(super) fn function_of(&self, step: u32) -> Option<&str> {
        self.tasks.get(step as usize).filter(|task| task.phase != Phase::Unready)?;
        Some(self.plan.call(StepId(step)).name)
    }

    /// Whether the job is bound to a module.
    pub(super) fn uses(&self, module: &ModuleHash) -> bool {
        self.bindings.iter().any(|function| function.module == *module)
    }

    /// How far the job is.
    pub(super) fn progress_news(&self) -> JobNews {
        let progress = self.plan.progress();
        JobNews::Progress { done: progress.done, total: progress.total }
    }

    /// How far the job is, if that has changed since it was told.
    pub(super) fn progress_if_changed(&mut self) -> Option<JobNews> {
        let done = self.plan.progress().done;
        let changed = done != self.told;
        self.told = done;
        changed.then(|| self.progress_news())
    }

    /// What the job came to, if that is known.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        self.plan.result().map(|result| result.cloned().map_err(TaskError::clone))
    }

    fn priority(&self, step: u32) -> u8 {
        self.plan.call(StepId(step)).options.priority.unwrap_or(0)
    }
}

/// The number up to which attempts of recovered tasks are those of earlier incarnations.
pub(super) fn attempts_before(boots: u32) -> u32 {
    boots.wrapping_mul(ATTEMPTS_PER_BOOT)
}

/// How a job ended, with a result of at most `bytes_max`.
pub(super) fn ended_news(outcome: &Outcome, bytes_max: u32) -> JobNews {
    let is_too_large = |value: &&Cbor| value.as_bytes().len() > bytes_max as usize;
    let Some(value) = outcome.as_ref().ok().filter(is_too_large) else {
        return JobNews::Ended(outcome.clone());
    };
    JobNews::Ended(Err(too_large(value.as_bytes().len(), bytes_max)))
}

/// How a client is told that it cannot have the result of its job.
pub(crate) fn too_large(bytes: usize, bytes_max: u32) -> TaskError {
    TaskError {
        function: "result".into(),
        task: 0,
        node: None,
        attempt: 0,
        cause: Cause::Unfit,
        text: alloc::format!(
            "the result of the job has {bytes} bytes, a client can be sent {bytes_max}; return less, or reduce it on the cluster"
        ),
        members: Vec::new(),
    }
}
