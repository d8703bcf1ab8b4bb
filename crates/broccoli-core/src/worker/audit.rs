//! Checks and sizes of the worker, for tests and the simulator.

use broccoli_proto::NodeId;
use broccoli_proto::message::Attempt;

use super::Worker;
use super::account::{Held, RETURNS_MAX};
use crate::config::Limits;
use crate::io::RunId;
use crate::shared::Shared;
use crate::timers::Timer;

impl Worker {
    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self, shared: &Shared) {
        assert!(self.running.len() <= usize::from(shared.config.slots), "no more runs than slots");
        assert!(self.queue.is_empty() || self.running.len() == usize::from(shared.config.slots), "no idle slot");
        assert!(self.queue.is_empty() || shared.timers.is_set(Timer::Return), "nothing waits unnoticed");
        for waiting in &self.queue {
            let held = self.accounts.get(&waiting.origin).and_then(|account| account.held.get(&waiting.task.attempt));
            assert!(matches!(held, Some(Held::Queued(_))), "{:?} is held", waiting.task.attempt);
        }
        for (origin, attempt) in self.pulling.keys() {
            let held = self.accounts.get(origin).and_then(|account| account.held.get(attempt));
            assert!(matches!(held, Some(Held::Pulling(_))), "{attempt:?} is held");
        }
        let pulling = self.accounts.values().flat_map(|account| account.held.values());
        assert_eq!(pulling.filter(|held| matches!(held, Held::Pulling(_))).count(), self.pulling.len());
        let queued = self.accounts.values().flat_map(|account| account.held.values());
        assert_eq!(queued.filter(|held| matches!(held, Held::Queued(_))).count(), self.queue.len());
        for (origin, account) in &self.accounts {
            account.validate(shared, *origin, &self.running);
        }
    }

    /// The origin and attempt of a run.
    pub(crate) fn attempt_of(&self, run: RunId) -> Option<(NodeId, Attempt)> {
        self.running.get(&run).map(|running| (running.origin, running.attempt))
    }

    /// Reports the size and limit of each collection.
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("origins", self.accounts.len(), limits.nodes_max);
        see("held", self.queue.len() + self.pulling.len() + self.running.len(), limits.held_max);
        let (results, _) = self.kept();
        see("results", results, limits.results_max);
        // Tasks that were held already may still be returned.
        let returns = self.accounts.values().map(|account| account.returns.len()).max();
        see("returns", returns.unwrap_or(0), RETURNS_MAX + limits.held_max);
    }

    /// Checks that the worker is idle.
    pub(crate) fn validate_idle(&self) {
        assert!(self.running.is_empty(), "nothing runs");
        assert!(self.accounts.values().all(|account| account.held.is_empty()), "no attempt is held");
    }
}
