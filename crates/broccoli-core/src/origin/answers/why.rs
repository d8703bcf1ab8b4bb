//! Finds what the tasks of a step wait for: the answer to `broccoli why`. Without the feature `explain`, no such question
//! is answered.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, StepNews, WaitingTasks, Waits};
use broccoli_proto::packet::OVERHEAD_BYTES_MAX;
use broccoli_proto::{JobId, NodeId};

use crate::canvas::StepId;
use crate::content::values::held::Holder;
use crate::origin::answers::waits::{due_at, name, plain, waits_until, want};
use crate::origin::dispatch::place::Code;
use crate::origin::job::{Job, Phase, Task};
use crate::origin::{Around, Origin};
use crate::shared::Shared;

/// About the size of a step's state in an answer without the reasons why its tasks wait, in bytes.
const STEP_NEWS_BYTES: usize = 256;
/// About the size of a group of tasks in an answer without its texts, in bytes.
const WAITING_BYTES: usize = 32;

/// Tasks that wait for the same reason, as far as it shows without looking at other nodes.
struct Group {
    stage: Stage,
    /// The first task; its function and options are those of all.
    step: u32,
    tasks: u32,
}

/// The stage of a task that has not ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It waits for other steps.
    ToCome,
    /// Its nodes are being looked for: it runs on each.
    OnEach,
    Delayed,
    Ready,
    /// A worker holds it, or it is on its way there.
    Leased(NodeId, Held),
}

/// The stage of a leased task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    /// On its way, or in the worker's queue.
    Sent,
    /// Its arguments are being pulled.
    Pulling,
    Runs,
    /// It has run: its result is being pulled, or waits for memory at this origin.
    Done,
}

/// Answers about one job.
impl Origin {
    /// What the tasks at or below a path wait for, including running ones: as many groups as fit into a packet to a
    /// node. None if there is no such job, or if it has ended.
    pub(super) fn why(
        &self,
        shared: &Shared,
        around: &Around<'_>,
        to: NodeId,
        JobId { number, .. }: JobId,
        path: &[u32],
    ) -> Option<Vec<WaitingTasks>> {
        let job = self.jobs.get(&number)?;
        let mut room = around.members.room(shared, to).saturating_sub(OVERHEAD_BYTES_MAX + STEP_NEWS_BYTES);
        let mut waiting = Vec::new();
        for group in self.groups(shared, (number, job), path) {
            let waits = self.waits_of(shared, around, (number, job), &group);
            let path = job.plan.path_of(StepId(group.step));
            let bytes = waits.text_bytes() + path.len() * 5 + WAITING_BYTES;
            if bytes > room {
                break;
            }
            room -= bytes;
            waiting.push(WaitingTasks { tasks: group.tasks, path, waits: Some(waits) });
        }
        Some(waiting)
    }

    /// Groups the tasks that have not ended: first those that wait for a node or run, in the order of the canvas, then
    /// those whose nodes are being looked for, then those that wait for other steps.
    fn groups(&self, shared: &Shared, (number, job): (u64, &Job), path: &[u32]) -> Vec<Group> {
        let leased = self.leased_of(shared, number);
        let each = self.growth.each_of(number);
        let stage = |(step, task): (u32, &Task)| match task.phase {
            Phase::Ready => Some((step, Stage::Ready)),
            Phase::Delayed => Some((step, Stage::Delayed)),
            Phase::Leased => {
                let (node, held) = leased.get(&Attempt { job: number, step, number: task.attempt })?;
                Some((step, Stage::Leased(*node, *held)))
            }
            Phase::Unready | Phase::Ended => None,
        };
        let announced = job.tasks().filter_map(stage);
        let on_each = each.iter().map(|((_, step), _)| (*step, Stage::OnEach));
        let to_come = job.plan.tasks_to_come().map(|StepId(step)| (step, Stage::ToCome));
        let mut groups: Vec<Group> = Vec::new();
        for (step, stage) in announced.chain(on_each).chain(to_come) {
            if !path.is_empty() && !job.plan.path_of(StepId(step)).starts_with(path) {
                continue;
            }
            match groups.iter().position(|group| group.takes(job, step, stage)) {
                Some(at) => groups[at].add(shared, job, step),
                None if groups.len() < StepNews::WAITING_MAX => groups.push(Group { stage, step, tasks: 1 }),
                None => {}
            }
        }
        groups
    }

    /// The attempts of a job that workers hold.
    fn leased_of(&self, shared: &Shared, number: u64) -> BTreeMap<Attempt, (NodeId, Held)> {
        let attempt = |step, attempt| Attempt { job: number, step, number: attempt };
        let of_job = attempt(0, 0)..=attempt(u32::MAX, u32::MAX);
        let mut leased = BTreeMap::new();
        for (node, peer) in &self.leases.peers {
            for (attempt, lease) in peer.leases.range(of_job.clone()) {
                let args = Holder::Args { worker: *node, attempt: *attempt };
                let held = if peer.missing.values().any(|missing| missing.contains_key(attempt)) {
                    Held::Done
                } else if lease.has_started() {
                    Held::Runs
                } else if shared.values.held.is_pulled(args, shared.now) {
                    Held::Pulling
                } else {
                    Held::Sent
                };
                leased.insert(*attempt, (*node, held));
            }
        }
        leased
    }

    fn waits_of(&self, shared: &Shared, around: &Around<'_>, (number, job): (u64, &Job), group: &Group) -> Waits {
        let (step, function) = (group.step, name(job, group.step));
        match group.stage {
            Stage::ToCome => Waits::Before { function },
            Stage::OnEach => self.waits_for_nodes(shared, around, job, step),
            Stage::Delayed => waits_until(shared, job, step),
            Stage::Ready => self.waits_ready(shared, around, (number, job), step),
            Stage::Leased(node, Held::Sent) => Waits::Arrival { function, node, pulled: false },
            Stage::Leased(node, Held::Pulling) => Waits::Arrival { function, node, pulled: true },
            Stage::Leased(node, Held::Runs) => Waits::Runs { function, node },
            Stage::Leased(_, Held::Done) if !self.memory.is_leased(number) => Waits::Memory { function },
            Stage::Leased(node, Held::Done) => Waits::Result { function, node },
        }
    }

    /// Why a ready task is not leased.
    fn waits_ready(&self, shared: &Shared, around: &Around<'_>, (number, job): (u64, &Job), step: u32) -> Waits {
        let (function, want) = (name(job, step), want(job, step));
        if self.leases.adopting || self.is_disk_behind(shared) {
            return Waits::Origin { function };
        }
        if !self.memory.is_leased(number) {
            return Waits::Memory { function };
        }
        let places = self.places(shared, around, &want);
        if places.iter().any(|place| matches!(place.code, Code::Here | Code::Away)) {
            return self.waits_in_queue(shared, around, job, step).unwrap_or(Waits::Nodes);
        }
        if places.iter().any(|place| place.code == Code::ToCome) {
            return Waits::Module { function };
        }
        let offline = |one: &String| {
            let node: NodeId = plain(one).parse().ok()?;
            around.members.get(node).filter(|member| !member.alive).map(|_| node)
        };
        match want.on.iter().find_map(offline) {
            Some(node) => Waits::Offline { function, node },
            None => self.waits_for_nodes(shared, around, job, step),
        }
    }
}

impl Group {
    /// Adds a task. Of delayed tasks, the earliest one represents the group.
    fn add(&mut self, shared: &Shared, job: &Job, step: u32) {
        self.tasks += 1;
        let at = |step| due_at(shared, job, step);
        if self.stage == Stage::Delayed
            && let (Some(other), mine) = (at(step), at(self.step))
            && mine.is_none_or(|mine| other < mine)
        {
            self.step = step;
        }
    }

    /// Whether a task belongs to this group.
    fn takes(&self, job: &Job, step: u32, stage: Stage) -> bool {
        if self.stage != stage {
            return false;
        }
        let (mine, other) = (job.plan.call(StepId(self.step)), job.plan.call(StepId(step)));
        let choosy = |step| job.demands.contains_key(&step);
        let same_options = core::ptr::eq(mine.options, other.options) || mine.options == other.options;
        mine.key == other.key && (stage != Stage::Ready || (same_options && choosy(self.step) == choosy(step)))
    }
}
