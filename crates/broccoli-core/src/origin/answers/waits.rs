//! Finds the reason why tasks of a job wait, for the state of a job and of a step.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::{Attempt, StepNews, WaitingTasks, Waits, Want};

use crate::canvas::{StepId, pinned_to};
use crate::content::values::held::Holder;
use crate::origin::dispatch::place::Code;
use crate::origin::dispatch::queue::Need;
use crate::origin::dispatch::rates::Limit;
use crate::origin::job::{Job, Phase, Task};
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::time::Instant;

/// About the size of a group of tasks in an answer without its texts, in bytes.
const WAITING_BYTES: usize = 32;

/// What a task needs and no live node has.
#[derive(Debug)]
pub(crate) struct Missing {
    /// Parts of its routing that no live node has; or the module, if no node that matches the routing holds it.
    pub(crate) what: Vec<String>,
    /// No live node matches the routing, and all live nodes are known.
    pub(crate) is_sure: bool,
}

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
    /// What the tasks at or below a path wait for, including running ones: as many groups as fit into `room` bytes.
    pub(crate) fn why(
        &self,
        shared: &Shared,
        around: &Around<'_>,
        (number, job): (u64, &Job),
        path: &[u32],
        mut room: usize,
    ) -> Vec<WaitingTasks> {
        let mut waiting = Vec::new();
        for group in self.groups(shared, (number, job), path) {
            let waits = self.waits_of(shared, around, (number, job), &group);
            let path = job.plan.path_of(StepId(group.step));
            let bytes = waits_bytes(&waits) + path.len() * 5 + WAITING_BYTES;
            if bytes > room {
                break;
            }
            room -= bytes;
            waiting.push(WaitingTasks { tasks: group.tasks, path, waits: Some(waits) });
        }
        waiting
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

/// About the size of a reason, in bytes.
pub(crate) fn waits_bytes(waits: &Waits) -> usize {
    match waits {
        Waits::NoNode { function, missing, .. } => {
            function.len() + missing.iter().map(|want| want.len() + 2).sum::<usize>()
        }
        Waits::Rate { function }
        | Waits::Until { function, .. }
        | Waits::Slots { function, .. }
        | Waits::Larger { function }
        | Waits::Before { function }
        | Waits::Memory { function }
        | Waits::Module { function }
        | Waits::Origin { function } => function.len(),
        Waits::Offline { function, node }
        | Waits::Arrival { function, node, .. }
        | Waits::Result { function, node }
        | Waits::Runs { function, node } => function.len() + node.as_str().len(),
        Waits::Nodes => 0,
    }
}

fn want(job: &Job, step: u32) -> Want {
    Want { module: job.module_of(step), on: job.plan.call(StepId(step)).options.on.clone() }
}

/// When a delayed task is due; none if it is not, or if the time of day is needed and unknown.
fn due_at(shared: &Shared, job: &Job, step: u32) -> Option<Instant> {
    job.due(step)?.at(&shared.wall)
}

/// Why a delayed task waits.
fn waits_until(shared: &Shared, job: &Job, step: u32) -> Waits {
    let ms = due_at(shared, job, step).map(|at| (at - shared.now).as_millis() as u64);
    let again = job.task(step).is_some_and(|task| task.failures > 0);
    Waits::Until { function: name(job, step), ms, again }
}

fn name(job: &Job, step: u32) -> String {
    job.plan.call(StepId(step)).name.into()
}

/// A part of a routing as users write it.
fn plain(one: &String) -> String {
    let pinned = pinned_to(core::slice::from_ref(one)).and_then(|node| node.parse::<NodeId>().ok());
    pinned.map_or_else(|| one.clone(), |node| node.to_string())
}

impl Origin {
    /// Why no task of a job runs; none if one runs, or all have ended.
    pub(crate) fn waits(&self, shared: &Shared, around: &Around<'_>, (number, job): (u64, &Job)) -> Option<Waits> {
        if job.ended {
            return None;
        }
        let mut ready = None;
        for (step, task) in job.tasks() {
            match task.phase {
                Phase::Leased => return None,
                Phase::Ready => ready = ready.or(Some(step)),
                Phase::Unready | Phase::Delayed | Phase::Ended => {}
            }
        }
        if let Some(step) = ready {
            return self.waits_in_queue(shared, around, job, step);
        }
        let at = |step: &u32| due_at(shared, job, *step);
        let Some(step) = job.due.keys().min_by_key(|step| (at(step).is_none(), at(step))) else {
            let ((_, step), _) = self.growth.each_of(number).first()?;
            return Some(self.waits_for_nodes(shared, around, job, *step));
        };
        Some(waits_until(shared, job, *step))
    }

    /// Why a ready task waits; none while this origin may not know all nodes that fit.
    fn waits_in_queue(&self, shared: &Shared, around: &Around<'_>, job: &Job, step: u32) -> Option<Waits> {
        if !self.has_home(shared, around, &want(job, step)) {
            return self.without_node(shared, around, job, step);
        }
        let call = job.plan.call(StepId(step));
        let choosy = job.demands.contains_key(&step);
        let limit = call.options.rate.map(|rate| Limit::new(call.name, rate));
        let need = Need { want: want(job, step), limit, choosy };
        let function = name(job, step);
        Some(if self.dispatch.queue.is_held(&need, shared.now) {
            Waits::Rate { function }
        } else if choosy {
            Waits::Larger { function }
        } else {
            Waits::Slots { function, waiting: self.dispatch.queue.len() as u32 }
        })
    }

    /// Whether a node that is live, or whose link has just gone, can run a task.
    fn has_home(&self, shared: &Shared, around: &Around<'_>, want: &Want) -> bool {
        let places = self.places(shared, around, want);
        places.iter().any(|place| matches!(place.code, Code::Here | Code::Away))
    }

    /// Why a task waits that no known node can run.
    fn waits_for_nodes(&self, shared: &Shared, around: &Around<'_>, job: &Job, step: u32) -> Waits {
        self.without_node(shared, around, job, step).unwrap_or(Waits::Nodes)
    }

    /// That no live node can run a task, if this is certain.
    fn without_node(&self, shared: &Shared, around: &Around<'_>, job: &Job, step: u32) -> Option<Waits> {
        let want = want(job, step);
        let is_known = shared.config.watches && self.sees_nodes(shared, around);
        if !is_known || self.has_home(shared, around, &want) {
            return None;
        }
        let nodes = around.members.count(|_, birth| birth.slots > 0);
        let missing = self.missing(shared, around, &want).what;
        Some(Waits::NoNode { function: name(job, step), missing, nodes })
    }

    /// What a task needs and no live node has, if no live node can run it.
    pub(crate) fn missing(&self, shared: &Shared, around: &Around<'_>, want: &Want) -> Missing {
        if !self.places(shared, around, want).is_empty() {
            let module = around.modules.name_of(&want.module);
            let what = module.map(|module| alloc::vec![format!("the module {module}")]).unwrap_or_default();
            return Missing { what, is_sure: false };
        }
        let nobody_has = |one: &&String| {
            let alone = Want { module: want.module, on: alloc::vec![(*one).clone()] };
            self.places(shared, around, &alone).is_empty()
        };
        let mut what: Vec<&String> = want.on.iter().filter(nobody_has).collect();
        if what.is_empty() {
            // Each part is found on some node, but no node has all of them.
            what = want.on.iter().collect();
        }
        let is_sure = shared.config.watches && self.sees_nodes(shared, around);
        Missing { what: what.into_iter().map(plain).collect(), is_sure }
    }
}
