//! Finds the reason why no task of a job runs, for the state of a job.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::{Waits, Want};

use crate::canvas::{StepId, pinned_to};
use crate::origin::dispatch::place::Code;
use crate::origin::dispatch::queue::Need;
use crate::origin::dispatch::rates::Limit;
use crate::origin::job::{Job, Phase};
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::time::Instant;

/// What a task needs and no live node has.
#[derive(Debug)]
pub(crate) struct Missing {
    /// Parts of its routing that no live node has; or the module, if no node that matches the routing holds it.
    pub(crate) what: Vec<String>,
    /// No live node matches the routing, and all live nodes are known.
    pub(crate) is_sure: bool,
}

pub(super) fn want(job: &Job, step: u32) -> Want {
    Want { module: job.module_of(step), on: job.plan.call(StepId(step)).options.on.clone() }
}

/// When a delayed task is due; none if it is not, or if the time of day is needed and unknown.
pub(super) fn due_at(shared: &Shared, job: &Job, step: u32) -> Option<Instant> {
    job.due(step)?.at(&shared.wall)
}

/// Why a delayed task waits.
pub(super) fn waits_until(shared: &Shared, job: &Job, step: u32) -> Waits {
    let ms = due_at(shared, job, step).map(|at| (at - shared.now).as_millis() as u64);
    let again = job.task(step).is_some_and(|task| task.failures > 0);
    Waits::Until { function: name(job, step), ms, again }
}

pub(super) fn name(job: &Job, step: u32) -> String {
    job.plan.call(StepId(step)).name.into()
}

/// A part of a routing as users write it.
pub(super) fn plain(one: &String) -> String {
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
    pub(super) fn waits_in_queue(&self, shared: &Shared, around: &Around<'_>, job: &Job, step: u32) -> Option<Waits> {
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
    pub(super) fn waits_for_nodes(&self, shared: &Shared, around: &Around<'_>, job: &Job, step: u32) -> Waits {
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
