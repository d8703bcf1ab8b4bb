//! Stops the worker of a leaving node: returns tasks and withdraws credit.

use broccoli_proto::message::LeasedFunction;
use broccoli_proto::packet::Address;

use super::Worker;
use super::account::Held;
use crate::io::Action;
use crate::shared::Shared;

impl Worker {
    /// Returns tasks that have not started, and withdraws all credit.
    pub(crate) fn drain(&mut self, shared: &mut Shared) {
        let pulling = core::mem::take(&mut self.pulling);
        for waiting in self.queue.drain(..).chain(pulling.into_iter().map(|(_, waiting)| waiting)) {
            if let Some(account) = self.accounts.get_mut(&waiting.origin) {
                account.hand_back(waiting.task.attempt);
            }
        }
        self.fetch_all(shared);
    }

    /// Stops running tasks, and returns them too.
    pub(crate) fn hand_back(&mut self, shared: &mut Shared) {
        for (run, running) in &self.running {
            let Some(account) = self.accounts.get_mut(&running.origin) else {
                continue;
            };
            if matches!(account.held.get(&running.attempt), Some(Held::Running(_))) {
                account.hand_back(running.attempt);
                shared.actions.push_back(Action::Abort(*run));
                shared.outbox.mark(Address::Node(running.origin));
            }
        }
    }

    /// The functions of running tasks.
    pub(crate) fn functions(&self) -> impl Iterator<Item = &LeasedFunction> {
        self.running.values().map(|running| &*running.function)
    }

    /// Whether nothing runs or is held, and all results were acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        self.has_given_back() && self.accounts.values().all(|account| account.held.is_empty())
    }

    /// Whether all returned tasks were sent.
    pub(crate) fn has_given_back(&self) -> bool {
        self.accounts.values().all(|account| account.returns.is_empty())
    }
}
