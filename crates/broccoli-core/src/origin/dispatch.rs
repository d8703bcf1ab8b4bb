//! Dispatch: leases ready tasks to workers with credit.

pub(crate) mod announce;
mod assign;
mod permits;
pub(crate) mod place;
pub(crate) mod places;
pub(crate) mod queue;
pub(crate) mod rates;
mod unfit;

use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::timers::Timer;

impl Origin {
    /// Leases ready tasks to workers with credit, shared equally.
    pub(crate) fn dispatch(&mut self, shared: &mut Shared, around: &Around<'_>) {
        if !core::mem::take(&mut self.dispatch.due) || self.dispatch.queue.is_empty() {
            return;
        }
        for (class, priority) in self.dispatch.queue.order() {
            let is_held_back = self.leases.adopting || self.is_disk_behind(shared);
            if !is_held_back && self.dispatch.queue.is_choosy(class) {
                self.dispatch_one_by_one(shared, around, class, priority);
            } else if !is_held_back {
                self.dispatch_class(shared, around, class, priority);
            }
            if !self.dispatch.queue.is_hungry(class) {
                shared.timers.cancel(Timer::Announce(class));
            } else if !shared.timers.is_set(Timer::Announce(class)) {
                shared.timers.set(Timer::Announce(class), shared.now);
            }
        }
    }

    /// Whether there are ready tasks that were not offered to workers yet.
    pub(crate) fn is_dispatch_due(&self) -> bool {
        self.dispatch.due && !self.dispatch.queue.is_empty()
    }
}
