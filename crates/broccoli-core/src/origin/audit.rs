//! The origin as the simulator sees it.

use broccoli_proto::message::Attempt;

use super::growth::grown_max;
use super::jobs::{Phase, Task};
use super::{ANSWERS_MAX, Origin};
use crate::audit::{Known, TaskState, TaskView};
use crate::canvas::StepId;
use crate::config::Limits;

impl Origin {
    pub(crate) fn audit_tasks(&self, see: &mut dyn FnMut(u64, u32, TaskState, u32)) {
        for (number, job) in &self.jobs {
            for (step, task) in job.tasks().filter(|(_, task)| was_announced(task)) {
                see(*number, step, state(task.phase), task.attempt);
            }
        }
    }

    pub(crate) fn audit_task(&self, number: u64, step: u32) -> Option<TaskView<'_>> {
        let job = self.jobs.get(&number)?;
        let task = job.task(step).filter(|task| was_announced(task))?;
        let attempt = Attempt { job: number, step, number: task.attempt };
        let worker = self.peers.iter().find(|(_, peer)| peer.leases.contains_key(&attempt));
        let call = job.plan.call(StepId(step));
        Some(TaskView {
            state: state(task.phase),
            attempt: task.attempt,
            worker: worker.map(|(name, _)| *name),
            on: &call.options.on,
            module: job.module_of(step),
            retries: call.options.retries.unwrap_or(0),
            outcome: job.plan.outcome(StepId(step)),
        })
    }

    pub(crate) fn audit_jobs(&self, see: &mut dyn FnMut(u64, Known<'_>)) {
        self.jobs.iter().for_each(|(number, job)| see(*number, job.plan.result()));
        self.archive.iter().for_each(|(number, ended)| see(number, Some(ended.outcome.as_ref())));
    }

    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("jobs", self.jobs.len(), limits.jobs_max);
        see("tasks", self.tasks as usize, grown_max(limits) as usize);
        // A late success leaves its entry behind until it comes to the front.
        see("queue", self.queue.len(), 2 * grown_max(limits) as usize);
        see("workers", self.peers.len(), limits.nodes_max + self.peers_with_leases());
        see("clients", self.sessions.len(), limits.nodes_max);
        let answers = self.sessions.values().map(|session| session.answers.len()).max();
        see("answers", answers.unwrap_or(0), ANSWERS_MAX);
        let leases = self.peers.values().map(|peer| peer.leases.len()).sum();
        see("leases", leases, grown_max(limits) as usize);
        let (each, pinned) = self.growth.sizes();
        see("tasks for each node", each, grown_max(limits) as usize);
        see("runs on each node", pinned, 2 * grown_max(limits) as usize);
    }

    fn peers_with_leases(&self) -> usize {
        self.peers.values().filter(|peer| !peer.leases.is_empty()).count()
    }
}

/// A revoked job ends even steps that are no tasks, or were never ready.
fn was_announced(task: &Task) -> bool {
    task.phase != Phase::Unready && (task.phase != Phase::Ended || task.attempt > 0)
}

fn state(phase: Phase) -> TaskState {
    match phase {
        Phase::Unready => TaskState::Unready,
        Phase::Delayed => TaskState::Delayed,
        Phase::Ready => TaskState::Ready,
        Phase::Leased => TaskState::Leased,
        Phase::Ended => TaskState::Ended,
    }
}
