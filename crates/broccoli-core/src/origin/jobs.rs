//! One accepted job: its plan and where each of its tasks is.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Attempt, Failure, JobNews, LeasedFunction, LeasedTask, Want};
use broccoli_proto::{Cause, Cbor, ModuleHash, NodeId, Outcome, TaskError};

use super::LOSSES_MAX;
use super::queue::Queue;
use crate::canvas::{Effects, Mode, Plan, StepId};
use crate::io::SubmitId;
use crate::time::{Instant, ms};

/// Who waits for a job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    /// The program that this node is part of.
    Local(SubmitId),
    /// Another node, with its own number for the submit.
    Remote(NodeId),
    /// Nobody: a task has submitted it.
    Detached,
}

#[derive(Debug)]
pub(super) struct Job {
    pub(super) plan: Plan,
    pub(super) client: Client,
    /// By [`crate::canvas::Call::key`].
    bindings: Vec<Arc<LeasedFunction>>,
    /// By step; filled as steps become ready.
    tasks: Vec<Task>,
    /// The class of the last task that became ready: mostly that of the next one too.
    last_class: Option<(u32, Vec<alloc::string::String>, u32)>,
    told: u32,
    pub(super) ended: bool,
    pub(super) ended_at: Instant,
    pub(super) ended_tries: u32,
    /// The client knows how the job ended, or will never ask.
    pub(super) acknowledged: bool,
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
    pub(super) fn new(plan: Plan, client: Client, bindings: Vec<Arc<LeasedFunction>>, now: Instant) -> Job {
        Job {
            plan,
            client,
            bindings,
            tasks: Vec::new(),
            last_class: None,
            told: 0,
            ended: false,
            ended_at: now,
            ended_tries: 0,
            acknowledged: false,
        }
    }

    /// Queues a task that the plan has announced, or says how long it has to wait.
    pub(super) fn make_ready(&mut self, number: u64, step: u32, queue: &mut Queue) -> Option<Duration> {
        let at = step as usize;
        if self.tasks.len() <= at {
            let blank = Task { attempt: 0, failures: 0, losses: 0, phase: Phase::Unready, class: 0 };
            self.tasks.resize(at + 1, blank);
        }
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
        task.attempt += 1;
        Some(Attempt { job: number, step, number: task.attempt })
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

    /// Tries a failed task again, if its author allowed for it.
    pub(super) fn retry(&mut self, attempt: Attempt, queue: &mut Queue) -> bool {
        let retries = self.plan.call(StepId(attempt.step)).options.retries.unwrap_or(0);
        let Some(task) = self.tasks.get_mut(attempt.step as usize) else {
            return false;
        };
        task.failures += 1;
        task.failures <= retries && self.requeue(attempt, queue)
    }

    /// Queues the task of a lost attempt again; `true` if that has happened too often.
    pub(super) fn lose(&mut self, attempt: Attempt, started: bool, queue: &mut Queue) -> bool {
        if !self.requeue(attempt, queue) {
            return false;
        }
        let task = &mut self.tasks[attempt.step as usize];
        task.losses += u8::from(started);
        task.losses >= LOSSES_MAX
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

    /// Describes a failure for people.
    pub(super) fn error(&self, step: u32, node: Option<NodeId>, attempt: u32, failure: Failure) -> TaskError {
        TaskError {
            function: self.plan.call(StepId(step)).name.into(),
            task: step,
            node,
            attempt,
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

    /// How the job ended, with a result of at most `bytes_max`.
    pub(super) fn ended_news(&self, bytes_max: u32) -> JobNews {
        let outcome = match self.plan.result() {
            None => return JobNews::Unknown,
            Some(Err(error)) => Err(error.clone()),
            Some(Ok(value)) if value.as_bytes().len() > bytes_max as usize => Err(TaskError {
                function: "result".into(),
                task: 0,
                node: None,
                attempt: 0,
                cause: Cause::Unfit,
                text: alloc::format!(
                    "the result of the job has {} bytes, a client can be sent {bytes_max}; return less, or reduce it on the cluster",
                    value.as_bytes().len()
                ),
                members: Vec::new(),
            }),
            Some(Ok(value)) => Ok(value.clone()),
        };
        JobNews::Ended(outcome)
    }

    fn priority(&self, step: u32) -> u8 {
        self.plan.call(StepId(step)).options.priority.unwrap_or(0)
    }
}
