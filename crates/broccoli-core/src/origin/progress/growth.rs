//! State of tasks that run on each node: those whose nodes are being looked for, and runs pinned to a node. See
//! `each.rs`.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use broccoli_proto::NodeId;
use litemap::LiteMap;

use crate::canvas::StepId;
use crate::origin::job::Job;
use crate::shared::Shared;
use crate::time::Instant;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Nodes that runs are pinned to are checked at this interval.
pub(crate) const LOOK_AFTER: LinkTime = link_ms(250);

/// A task: the number of its job, and its step.
pub(crate) type Key = (u64, u32);

/// Tasks whose nodes are being looked for, and runs pinned to a node.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// Tasks that run on each node, and since when their nodes are being looked for.
    pub(crate) each: LiteMap<Key, Instant>,
    /// Runs pinned to a node, and since when the node seems unable to do them.
    pub(crate) pinned: LiteMap<NodeId, LiteMap<Key, Option<Instant>>>,
    pub(crate) connected_at: Instant,
}

impl Growth {
    pub(crate) fn on_connected(&mut self, now: Instant) {
        self.connected_at = now;
    }

    /// When the link came up.
    pub(crate) fn connected_at(&self) -> Instant {
        self.connected_at
    }

    /// Adds a ready run that is pinned to a node.
    pub(crate) fn watch(&mut self, shared: &mut Shared, node: NodeId, job: u64, step: u32) {
        self.pinned.entry(node).or_default().entry((job, step)).or_insert(None);
        shared.timers.set_earlier(Timer::Pinned(node), shared.now + shared.timing(LOOK_AFTER));
    }

    /// A job has ended. Its pinned runs are removed when their nodes are checked.
    pub(crate) fn remove_job(&mut self, shared: &mut Shared, job: u64) {
        if !self.each_of(job).is_empty() {
            self.each.retain(|(number, _), _| *number != job);
        }
        shared.timers.cancel(Timer::Each(job));
    }

    /// Tasks of a job whose nodes are being looked for.
    pub(crate) fn each_of(&self, job: u64) -> &[(Key, Instant)] {
        let each = self.each.as_slice();
        let from = each.partition_point(|((number, _), _)| *number < job);
        let len = each[from..].partition_point(|((number, _), _)| *number == job);
        &each[from..from + len]
    }

    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self, shared: &Shared, jobs: &BTreeMap<u64, Box<Job>>) {
        for (number, step) in self.each.keys() {
            let waits = jobs.get(number).is_some_and(|job| job.plan.is_running_task(StepId(*step)));
            assert!(waits && shared.timers.is_set(Timer::Each(*number)), "task {step} of {number} looks for its nodes");
        }
        for node in self.pinned.keys() {
            assert!(shared.timers.is_set(Timer::Pinned(*node)), "{node} is looked after");
        }
        for (number, job) in jobs {
            for (step, _) in job.tasks().filter(|(step, _)| job.is_open(*step)) {
                let watched = |node| self.pinned.get(&node).is_some_and(|runs| runs.contains_key(&(*number, step)));
                assert!(job.pinned_to(step).is_none_or(watched), "run {step} of {number} is looked after");
            }
        }
    }

    /// Number of tasks whose nodes are being looked for, and of pinned runs.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.each.len(), self.pinned.values().map(LiteMap::len).sum())
    }
}
