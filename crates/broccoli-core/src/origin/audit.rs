//! Checks and sizes of the origin, for tests and the simulator.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::Attempt;

use crate::audit::{Known, TaskState, TaskView};
use crate::canvas::StepId;
use crate::origin::Origin;
use crate::origin::accept::session::ANSWERS_MAX;
use crate::origin::job::{Phase, Task};
use crate::origin::leases::peer::UNSAID_MAX;
use crate::origin::progress::news::EARLY_MAX;
use crate::origin::progress::replace::grown_max;
use crate::shared::Shared;
use crate::timers::Timer;

/// Whether a task was announced. A revoked job also ends steps that are not tasks or were never ready.
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
        let worker = self.leases.peers.iter().find(|(_, peer)| peer.leases.contains_key(&attempt));
        let call = job.plan.call(StepId(step));
        Some(TaskView {
            state: state(task.phase),
            attempt: task.attempt,
            worker: worker.map(|(name, _)| *name),
            on: &call.options.on,
            module: job.module_of(step),
            too_small_for: job.demands.contains_key(&step).then(|| job.args_bytes(step)),
            retries: call.options.retries.unwrap_or(0),
            outcome: job.plan.outcome(StepId(step)),
        })
    }

    pub(crate) fn audit_jobs(&self, see: &mut dyn FnMut(u64, Known<'_>)) {
        for (number, job) in &self.jobs {
            see(*number, job.plan.result());
        }
        for (number, ended) in self.archive.iter() {
            see(number, Some(ended.outcome.as_ref()));
        }
    }

    pub(crate) fn audit_has_met(&self, node: NodeId) -> bool {
        self.accept.keys.has_met(node)
    }

    pub(crate) fn sizes(&self, shared: &Shared, see: &mut dyn FnMut(&'static str, usize, usize)) {
        let limits = &shared.config.limits;
        self.memory_sizes(shared, see);
        see("jobs", self.jobs.len(), limits.jobs_max);
        see("tasks", self.tasks as usize, grown_max(limits) as usize);
        // After a late success, the entry remains until it reaches the front.
        see("queue", self.dispatch.queue.len(), 2 * grown_max(limits) as usize);
        see("workers", self.leases.peers.len(), limits.nodes_max + self.peers_with_leases());
        see("clients", self.accept.sessions.len(), limits.nodes_max);
        let answers = self.accept.sessions.values().map(|session| session.answers.len()).max();
        see("answers", answers.unwrap_or(0), ANSWERS_MAX);
        let leases = self.leases.peers.values().map(|peer| peer.leases.len()).sum();
        see("unsaid", self.leases.peers.values().map(|peer| peer.unsaid()).max().unwrap_or(0), UNSAID_MAX);
        see("leases", leases, grown_max(limits) as usize);
        see("refusals of modules", self.dispatch.refusals.len(), limits.nodes_max);
        self.accept.keys.sizes(limits, see);
        let (each, pinned) = self.growth.sizes();
        see("tasks for each node", each, grown_max(limits) as usize);
        see("runs on each node", pinned, 2 * grown_max(limits) as usize);
    }

    fn peers_with_leases(&self) -> usize {
        self.leases.peers.values().filter(|peer| !peer.leases.is_empty()).count()
    }
}

/// Invariants, for tests and the simulator.
impl Origin {
    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self, shared: &Shared) {
        self.journal.validate();
        self.archive.validate();
        self.accept.keys.validate(shared);
        self.growth.validate(shared, &self.jobs);
        assert!(self.journal.early.values().all(|early| early.len() <= EARLY_MAX), "early news are bounded");
        assert!(self.archive.iter().all(|(number, _)| !self.jobs.contains_key(&number)), "a job is over or not");
        let totals = self.jobs.values().map(|job| job.plan.progress().total).sum::<u32>();
        assert_eq!(self.tasks, totals, "tasks of all jobs are counted");
        self.memory.validate(shared, self.jobs.iter().map(|(number, job)| (*number, &**job)));
        let mut leased = BTreeMap::new();
        for (name, peer) in &self.leases.peers {
            let watched = peer.leases.is_empty() || shared.timers.is_set(Timer::Leases(*name));
            assert!(watched || !shared.connected, "the leases of {name} are looked after");
            for attempt in peer.leases.keys() {
                assert_eq!(leased.insert(*attempt, *name), None, "an attempt is leased once");
            }
        }
        let queued: Vec<(u64, u32)> = self.dispatch.queue.iter().map(|(_, key)| key).collect();
        assert_eq!(queued.len(), self.dispatch.queue.len(), "queued tasks are counted");
        let mut waiting: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        for key in &queued {
            *waiting.entry(*key).or_default() += 1;
        }
        for (number, job) in &self.jobs {
            job.plan.validate();
            let expires =
                self.leases.adopting || job.next_expiry().is_none() || shared.timers.is_set(Timer::Expires(*number));
            assert!(expires, "what may expire has its timer");
            for (step, task) in job.tasks() {
                let attempt = Attempt { job: *number, step, number: task.attempt };
                let is_leased = leased.remove(&attempt).is_some();
                assert_eq!(is_leased, task.phase == Phase::Leased, "{attempt:?} is {:?}", task.phase);
                let entries = waiting.get(&(*number, step)).copied().unwrap_or(0);
                assert!(task.phase != Phase::Ready || entries == 1, "a ready task is queued once, not {entries} times");
                let due = job.due(step);
                assert_eq!(due.is_some(), task.phase == Phase::Delayed, "a delayed task waits for something");
                let delayed = shared.timers.is_set(Timer::Countdown { job: *number, step });
                let at = due.and_then(|due| due.at(&shared.wall));
                assert_eq!(delayed, at.is_some(), "a delayed task has its timer");
            }
        }
        assert!(leased.is_empty(), "leases of no task: {leased:?}");
        let hungry = self.dispatch.queue.iter().all(|(class, _)| shared.timers.is_set(Timer::Announce(class)));
        assert!(hungry, "help is called for as long as tasks wait");
        let permits = self.dispatch.queue.awaiting_permits().all(|class| shared.timers.is_set(Timer::Permits(class)));
        assert!(permits, "permits that are waited for have their timer");
    }

    /// Checks that the origin is idle.
    pub(crate) fn validate_idle(&self) {
        assert!(self.jobs.is_empty(), "no job is held: {:?}", self.jobs.keys());
        assert!(self.dispatch.queue.is_empty(), "no task is queued");
        assert!(self.accept.keys.is_idle(), "no key is claimed");
        assert!(self.leases.peers.values().all(|peer| peer.leases.is_empty()), "nothing is leased");
    }
}
