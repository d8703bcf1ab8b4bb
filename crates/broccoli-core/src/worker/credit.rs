//! Credit: how many tasks this worker asks for, and how it shares them between origins.

use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::NodeId;
use broccoli_proto::message::Available;
use broccoli_proto::packet::Address;

use super::Worker;
use super::account::Account;
use super::run::{Running, args_len};
use crate::shared::Shared;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Amount of work that a worker wants to hold in addition to running tasks, in microseconds.
const WINDOW_US: u64 = 10_000;

/// Most tasks on their way to a worker or held by it.
const WINDOW_TASKS_MAX: u32 = 256;

/// The slot of a run that takes longer than this is not counted as available soon, in microseconds.
const LONG_US: u64 = 5_000;

/// Tasks that cannot start within this time are returned.
const WAIT_MAX: LinkTime = link_ms(50);

/// Capacity offered to one origin is offered to the others after this time.
const OFFER: LinkTime = link_ms(10);

/// Origins heard from within this time share the window.
const ACTIVE: LinkTime = link_ms(10_000);
/// A call for help that may be a recording is answered at most once in this time.
const HEARSAY_AGAIN: LinkTime = link_ms(20);

impl Worker {
    /// An origin calls for help for tasks that this node can run. `fresh`: the call is proven not to be a recording.
    pub(crate) fn on_available(&mut self, shared: &mut Shared, from: NodeId, fresh: bool, available: &Available) {
        if shared.config.slots == 0 || shared.draining || shared.rng.below(0x1_0000) > u64::from(available.chance) {
            return;
        }
        let free = self.window(shared);
        let Some(account) = self.account(shared, from) else {
            return;
        };
        let is_early = account.called.is_some_and(|called| shared.now - called < shared.timing(HEARSAY_AGAIN));
        if (account.credit == 0 && free == 0) || (is_early && !fresh) {
            // An origin without credit stays in the round-robin and gets the next freed capacity.
            return;
        }
        account.called = Some(shared.now);
        self.fetch(shared, from);
    }

    /// The offered capacity may not have been used: it is offered to all origins now.
    pub(crate) fn on_offer_timer(&mut self, shared: &mut Shared) {
        self.offer(shared);
    }

    /// Sends all origins a `Fetch` with new modules or features.
    pub(crate) fn fetch_all(&mut self, shared: &mut Shared) {
        for (origin, account) in &mut self.accounts {
            account.fetch_due = true;
            shared.outbox.mark(Address::Node(*origin));
        }
    }

    /// Sends an origin a new snapshot of its credit.
    pub(super) fn fetch(&mut self, shared: &mut Shared, origin: NodeId) {
        if let Some(account) = self.account(shared, origin) {
            account.offer_credit();
            shared.outbox.mark(Address::Node(origin));
        }
    }

    /// Offers capacity to all origins without credit.
    pub(super) fn offer(&mut self, shared: &mut Shared) {
        if self.window(shared) == 0 {
            return;
        }
        for (origin, account) in self.accounts.iter_mut().filter(|(_, account)| account.credit == 0) {
            account.offer_credit();
            shared.outbox.mark(Address::Node(*origin));
        }
    }

    /// Offers freed capacity to origins without credit, round-robin. If there is too little for all, the origin whose
    /// task has just ended waits like the others.
    pub(super) fn rebalance(&mut self, shared: &mut Shared) {
        let mut starving = self.accounts.values().filter(|account| account.credit == 0);
        if starving.next().is_none_or(|account| account.fetch_due) && starving.next().is_none() {
            return;
        }
        let mut left = self.window(shared);
        let after = self.round;
        let is_later = |origin: &NodeId| after.is_none_or(|after| *origin > after);
        let (later, earlier): (Vec<NodeId>, Vec<NodeId>) = self.accounts.keys().partition(|origin| is_later(origin));
        let (mut offered, mut withheld) = (false, false);
        for origin in later.into_iter().chain(earlier) {
            let Some(account) = self.accounts.get_mut(&origin).filter(|account| account.credit == 0) else {
                continue;
            };
            if left > 0 {
                left -= 1;
                offered = true;
                account.offer_credit();
                self.round = Some(origin);
                shared.outbox.mark(Address::Node(origin));
            } else if account.fetch_due {
                withheld = true;
                account.withheld = true;
            }
        }
        if offered && withheld {
            shared.timers.set(Timer::Offer, shared.now + shared.timing(OFFER));
        }
    }

    /// How many waiting tasks will start soon enough to be kept.
    pub(super) fn startable_soon(&self, shared: &Shared) -> usize {
        let oldest = self.queue.front().map_or(Duration::ZERO, |waiting| shared.now - waiting.since);
        let open = usize::from(shared.config.slots).saturating_sub(self.long_runs(shared));
        if open == 0 {
            return 0;
        }
        let expected = shared.timing(WAIT_MAX).as_micros() as u64 / self.task_us.max(1) * open as u64;
        if oldest > shared.timing(WAIT_MAX) { open.min(self.queue.len()) } else { (expected as usize).max(open) }
    }

    /// Updates the average task time: each new value counts an eighth.
    pub(super) fn learn(&mut self, us: u64) {
        self.task_us = if self.task_us == 0 { us } else { (self.task_us * 7 + us) / 8 }.max(1);
    }

    /// How many more tasks this worker wants.
    pub(super) fn window(&self, shared: &Shared) -> u32 {
        let is_idle = self.running.is_empty() && self.queue.is_empty() && self.pulling.is_empty();
        if shared.draining || shared.values.held.is_full() || (self.crowded && !is_idle) {
            return 0;
        }
        let long = self.long_runs(shared);
        let open = usize::from(shared.config.slots).saturating_sub(long) as u64;
        let per_slot = (WINDOW_US * shared.stretch()).checked_div(self.task_us).unwrap_or(1).max(1);
        let tasks = (open * per_slot).min(u64::from(WINDOW_TASKS_MAX).max(open)) as usize;
        let held = self.queue.len() + self.pulling.len() + self.running.len();
        let room = shared.config.limits.held_max.saturating_sub(held);
        tasks.saturating_sub(held - long).min(room).min(self.results_room(shared)) as u32
    }

    /// The share of an origin in the window: equal for all that were heard from lately, and at least one if the window
    /// is not empty.
    pub(super) fn credit_for(&self, shared: &Shared, origin: NodeId) -> u32 {
        let window = self.window(shared);
        let is_active =
            |account: &Account| account.heard.is_some_and(|heard| shared.now - heard < shared.timing(ACTIVE));
        let active =
            self.accounts.iter().filter(|(name, account)| **name == origin || is_active(account)).count() as u32;
        (window / active.max(1)).max(window.min(1))
    }

    /// How many more tasks there is room for until results are acknowledged. Held tasks count, since each will have a
    /// result.
    pub(super) fn results_room(&self, shared: &Shared) -> usize {
        let (held, bytes) = self.kept();
        let limits = &shared.config.limits;
        if bytes < limits.blob_bytes_max { limits.results_max.saturating_sub(held) } else { 0 }
    }

    /// Number of attempts held for all origins, and bytes of their results.
    pub(super) fn kept(&self) -> (usize, usize) {
        self.accounts
            .values()
            .fold((0, 0), |(held, bytes), account| (held + account.held.len(), bytes + account.results.bytes()))
    }

    /// Bytes of arguments of tasks that wait for a slot or for their arguments.
    pub(super) fn args_bytes(&self) -> usize {
        self.queue.iter().chain(self.pulling.values()).map(|waiting| args_len(&waiting.task)).sum()
    }

    /// Number of runs whose slots are not counted as available soon.
    pub(super) fn long_runs(&self, shared: &Shared) -> usize {
        let long_us = LONG_US * shared.stretch();
        let is_long = |running: &&Running| (shared.now - running.since).as_micros() as u64 > long_us;
        self.running.values().filter(is_long).count()
    }
}
