//! Nodes that are told to shut down gracefully, as by `broccoli drain` or SIGTERM, and that come back.

use super::{Scenario, State};
use crate::cluster::Id;
use crate::cluster::faults::Fault;

/// How long a node that has said goodbye still sends what is left.
const GOODBYE_US: u64 = 1_000;
/// A node that hands back leaves after this time, whether it could tell everybody or not.
const HAND_BACK_US_MAX: u64 = 1_000_000;
/// Longest time that a node waits for its work before it hands back.
const PATIENCE_US_MAX: usize = 8_000_000;
/// Longest time that other nodes wait.
const IMPATIENCE_US_MAX: usize = 200_000;

/// What the shell of a leaving node knows.
pub(super) struct Leaving {
    /// The incarnation of the node.
    start: u8,
    /// When it stops waiting; none once it has handed back.
    hand_back_at: Option<u64>,
    /// When it ends.
    gone_at: Option<u64>,
}

impl Scenario {
    /// A node is told to leave, or is asked to by another one.
    pub(super) fn drain_one(&mut self, id: Id) {
        let by = self.rng.below(self.cluster.len());
        let asks = self.cluster.is_up(by) && !self.cluster.is_paused(by) && by != id;
        if asks && self.cluster.spec(id).resident && self.rng.one_in(2) {
            let name = self.cluster.name(id);
            let asked = self.cluster.ask_to_drain(by, name);
            self.drains.insert((by, self.cluster.starts(by), asked));
        } else {
            self.cluster.begin_drain(id);
        }
    }

    /// Nobody asks a node any more to leave.
    pub(super) fn forget_drains(&mut self, by: Id) {
        for (node, start, asked) in self.drains.clone() {
            if node == by && start == self.cluster.starts(by) && self.cluster.is_up(by) {
                self.cluster.forget(by, asked);
            }
        }
    }

    /// A node has begun to leave.
    pub(super) fn begin_leave(&mut self, id: Id) {
        self.cluster.counts.add(Fault::Drain);
        let max = if self.rng.one_in(2) { PATIENCE_US_MAX } else { IMPATIENCE_US_MAX };
        let patience_us = self.rng.below(max) as u64;
        let hand_back_at = Some(self.cluster.now_us + patience_us);
        self.leaving.insert(id, Leaving { start: self.cluster.starts(id), hand_back_at, gone_at: None });
    }

    /// A node has nothing left to do.
    pub(super) fn on_drained(&mut self, id: Id) {
        let start = self.cluster.starts(id);
        let leaving = self.leaving.get_mut(&id).filter(|leaving| leaving.start == start);
        let leaving = leaving.expect("only a node that leaves has finished");
        let goes_at = self.cluster.now_us + GOODBYE_US;
        leaving.gone_at = Some(leaving.gone_at.map_or(goes_at, |at| at.min(goes_at)));
        if leaving.hand_back_at.is_some() {
            assert!(!self.cluster.is_working(id), "a node that has finished runs nothing");
            self.check_finished(id, start);
        }
    }

    /// A node without a disk leaves only when its jobs have ended: they are lost with it.
    fn check_finished(&self, id: Id, start: u8) {
        for job in self.jobs.iter().filter(|_| !self.cluster.spec(id).durable) {
            let Some((number, ..)) = job.job.filter(|(_, origin, by)| (*origin, *by) == (id, start)) else {
                continue;
            };
            let ended =
                matches!(job.state, State::Ended(_)) || self.checker.result((id, start), number.number).is_some();
            assert!(ended, "a node leaves with a job that nobody else has: {job}");
        }
    }

    /// What the shells of leaving nodes do when their time has come.
    pub(super) fn see_off(&mut self) {
        let now = self.cluster.now_us;
        let is_due = |at: Option<u64>| at.is_some_and(|at| at <= now);
        let is_there = |id: Id, leaving: &Leaving| self.cluster.is_up(id) && self.cluster.starts(id) == leaving.start;
        let mut leaving = std::mem::take(&mut self.leaving);
        leaving.retain(|id, leaving| is_there(*id, leaving));
        for (id, leaving) in &mut leaving {
            if self.cluster.is_paused(*id) {
                continue;
            }
            if is_due(leaving.gone_at) {
                self.cluster.depart(*id);
            } else if is_due(leaving.hand_back_at) && leaving.gone_at.is_none() {
                self.cluster.counts.add(Fault::HandBack);
                leaving.hand_back_at = None;
                leaving.gone_at = Some(now + HAND_BACK_US_MAX);
                self.cluster.hand_back(*id);
            }
        }
        self.leaving = leaving;
    }
}
