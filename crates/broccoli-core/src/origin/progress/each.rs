//! Tasks that run on each matching node: finds the nodes, and fails the runs of nodes that are gone.
//!
//! ```text
//!   ready ──► nodes known? ──► one run for each node ──► result
//!                 │ no: checked again,   └─ its node leaves or is gone for 2 s: the run fails
//!                 ▼ for at most 2 s
//! ```
//!
//! A run that is pinned to a node never waits for ever: while there are such runs, the node is checked.

use alloc::format;
use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, Failure, Want};
use broccoli_proto::{Cause, NodeId};

use crate::canvas::{Effects, StepId};
use crate::members::matches;
use crate::origin::dispatch::announce::NO_NODE;
use crate::origin::job::Phase;
use crate::origin::journal::records::Change;
use crate::origin::progress::growth::{Key, LOOK_AFTER};
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::time::Instant;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// The births of live nodes have arrived this long after the link is up.
pub(crate) const SETTLED: LinkTime = link_ms(1_000);
/// The nodes are looked for again after this time.
const LOOK_AGAIN: LinkTime = link_ms(100);

impl Origin {
    /// Starts looking for the nodes of tasks that run on each node.
    pub(crate) fn wait_for_nodes(&mut self, shared: &mut Shared, number: u64, effects: &mut Effects) {
        for StepId(step) in effects.each.drain(..) {
            self.growth.each.insert((number, step), shared.now);
            shared.timers.set_earlier(Timer::Each(number), shared.now);
        }
    }

    /// Sets the nodes for tasks of a job, or tries again a little later.
    pub(crate) fn on_each_timer(&mut self, shared: &mut Shared, around: &Around<'_>, number: u64) {
        let waiting = self.growth.each_of(number).iter();
        let waiting: Vec<(u32, Instant)> = waiting.map(|((_, step), since)| (*step, *since)).collect();
        let connected_at = self.growth.connected_at;
        let settled = shared.connected && shared.now - connected_at >= shared.timing(SETTLED);
        // A node that was ever part of a cluster waits for the link; another one does not know of any cluster.
        let is_alone = !self.journal.is_on() && around.members.iter().all(|(name, _)| name == shared.me());
        // Tasks of one job often want the same nodes.
        let mut last: Option<(Want, Vec<NodeId>, bool)> = None;
        for (step, since) in waiting {
            let Some(job) = self.jobs.get(&number) else {
                return;
            };
            let want = Want { module: job.module_of(step), on: job.plan.call(StepId(step)).options.on.clone() };
            let (want, nodes, all_known) = last.take().filter(|(known, ..)| *known == want).unwrap_or_else(|| {
                let (nodes, all_known) = nodes_for(shared, around, &want);
                (want, nodes, all_known)
            });
            let long = shared.now - since.max(connected_at) >= shared.timing(NO_NODE) && (shared.connected || is_alone);
            if (settled && all_known && !nodes.is_empty()) || long {
                self.growth.each.remove(&(number, step));
                self.expand_each(shared, number, step, &nodes);
            } else {
                shared.timers.set(Timer::Each(number), shared.now + shared.timing(LOOK_AGAIN));
            }
            last = Some((want, nodes, all_known));
        }
    }

    /// Makes one run of a task for each of these nodes.
    fn expand_each(&mut self, shared: &mut Shared, number: u64, step: u32, nodes: &[NodeId]) {
        let room = self.room(shared);
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        let before = job.plan.progress().total;
        let mut effects = Effects::default();
        job.plan.run_on_each(StepId(step), nodes, room, &mut effects);
        self.tasks += job.plan.progress().total - before;
        self.memory.recount(number, job);
        let outcome = job.plan.outcome(StepId(step)).map(|outcome| outcome.cloned().map_err(Clone::clone));
        self.journal.change(number, || match outcome {
            None => Change::OnEach { step, nodes: nodes.to_vec() },
            Some(outcome) => Change::Ended { step, outcome },
        });
        self.apply_effects(shared, number, effects);
    }

    /// Checks a node that runs are pinned to: the runs fail if it has been unable to do them for long.
    pub(crate) fn on_pinned_timer(&mut self, shared: &mut Shared, around: &Around<'_>, node: NodeId) {
        let Some(mut runs) = self.growth.pinned.remove(&node) else {
            return;
        };
        let jobs = &self.jobs;
        runs.retain(|(number, step), _| jobs.get(number).is_some_and(|job| job.is_open(*step)));
        let mut lost = Vec::new();
        for ((number, step), since) in &mut runs {
            *since = self.unable_since(shared, around, node, (*number, *step), *since);
            if since.is_some_and(|since| shared.now - since >= shared.timing(NO_NODE)) {
                lost.push((*number, *step));
            }
        }
        runs.retain(|key, _| !lost.contains(key));
        if !runs.is_empty() {
            self.growth.pinned.insert(node, runs);
            shared.timers.set(Timer::Pinned(node), shared.now + shared.timing(LOOK_AFTER));
        }
        for key in lost {
            let is_there = around.members.get(node).is_some_and(|member| member.alive);
            self.lose_run(shared, key, if is_there { "it cannot run the function any more" } else { "it is gone" });
        }
    }

    /// A node has said goodbye: the runs pinned to it fail.
    pub(crate) fn on_goodbye(&mut self, shared: &mut Shared, node: NodeId) {
        let runs = self.growth.pinned.remove(&node).unwrap_or_default();
        shared.timers.cancel(Timer::Pinned(node));
        for key in runs.keys() {
            self.lose_run(shared, *key, "it left");
        }
    }

    /// Since when a node has been unable to do a run; none if it is able. `before` is the answer of the last check.
    fn unable_since(
        &self,
        shared: &Shared,
        around: &Around<'_>,
        node: NodeId,
        (number, step): Key,
        before: Option<Instant>,
    ) -> Option<Instant> {
        let job = self.jobs.get(&number)?;
        if node == shared.me() || !shared.connected {
            // This node is always there. Other nodes cannot be heard now.
            return None;
        }
        let Some(member) = around.members.get(node) else {
            return before.or(Some(shared.now));
        };
        if !member.alive {
            let heard = member.heard.max(self.growth.connected_at);
            return Some(before.unwrap_or(heard).max(heard));
        }
        let runs = job.open_task(step).is_some_and(|task| task.phase == Phase::Leased);
        let holds = member.birth.slots > 0 && around.modules.peer_holds(member.birth.modules, &job.module_of(step));
        if runs || holds { None } else { before.or(Some(shared.now)) }
    }

    fn lose_run(&mut self, shared: &mut Shared, (number, step): Key, why: &str) {
        let Some(job) = self.jobs.get(&number) else {
            return;
        };
        let Some(task) = job.open_task(step) else {
            return;
        };
        let text = format!("{why} before it had answered");
        let error = job.error(step, None, task.attempt, Failure::new(Cause::Lost, text));
        let mut effects = Effects::default();
        self.complete(shared, number, step, Err(error), &mut effects);
        if task.phase == Phase::Leased {
            self.abort(shared, Attempt { job: number, step, number: task.attempt });
        }
        self.apply_effects(shared, number, effects);
    }
}

/// The live nodes that match `on` and can run the function, and whether the modules of all of them are known.
fn nodes_for(shared: &Shared, around: &Around<'_>, want: &Want) -> (Vec<NodeId>, bool) {
    let me = shared.me();
    let config = &shared.config;
    let mut all_known = true;
    let mut nodes = Vec::new();
    let holds = around.modules.peer_holds(around.modules.digest(), &want.module);
    if config.slots > 0 && matches(&want.on, me, &config.features) && holds {
        nodes.push(me);
    }
    for (name, member) in around.members.alive().filter(|(name, _)| *name != me) {
        let birth = &member.birth;
        if birth.slots > 0 && matches(&want.on, name, &birth.features) {
            let holds = around.modules.peer_holds(birth.modules, &want.module);
            nodes.extend(holds.then_some(name));
            all_known &= holds || around.modules.knows(birth.modules);
        }
    }
    (nodes, all_known)
}
