//! The worker role: gives origins credit, runs leased tasks, renews their leases, and keeps results until they are
//! acknowledged.
//!
//! ```text
//!             Lease                 slot free              Executed            ResultAck
//!   (nothing) ─────► Held::Queued ───────────► Held::Running ───────► Held::Done ───────► (nothing)
//!       │                 ▲ │ Return, Abort         │ Abort              ▼ large result         ▲
//!       └─► Held::Pulling ┘ └────────► (nothing)    └────► (nothing)   Held::Large ───────────┘
//! ```
//!
//! Arguments that do not fit into a packet are pulled before their task is queued. A result that does not fit is pulled
//! by the origin; its lease is renewed meanwhile.
//!
//! The worker knows attempts and functions, never jobs. Credit is permission, not reservation: several origins may have
//! credit for the same slots, and leases that cannot start soon are returned.

mod account;
mod audit;
mod credit;
mod drain;
mod results;
mod run;
mod runs;

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use broccoli_proto::message::{Attempt, Message, ResultAck, Return};
use broccoli_proto::packet::Address;
use broccoli_proto::{Epoch, NodeId};
use litemap::LiteMap;

use self::account::{Account, Held, RENEW, is_held};
use self::run::{Running, Waiting};
use crate::io::RunId;
use crate::outbox::Room;
use crate::shared::Shared;
use crate::timers::Timer;
use crate::trace::{Trace, TraceLevel};

/// The worker role.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    accounts: LiteMap<NodeId, Box<Account>>,
    queue: VecDeque<Waiting>,
    /// Tasks whose arguments are being pulled.
    pulling: LiteMap<(NodeId, Attempt), Waiting>,
    /// A task was returned because there was no room for its arguments.
    crowded: bool,
    running: LiteMap<RunId, Running>,
    last_run: u64,
    /// Average time of recent tasks, in microseconds; 0 before the first.
    task_us: u64,
    tasks_run: u64,
    /// The origin at which the round-robin for freed capacity continues.
    round: Option<NodeId>,
}

impl Worker {
    /// Number of running tasks, and of tasks that wait for a slot or their arguments.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.running.len(), self.queue.len() + self.pulling.len())
    }

    /// Tasks run since the start of the node.
    pub(crate) fn tasks_run(&self) -> u64 {
        self.tasks_run
    }

    /// Bytes of unacknowledged results.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept().1
    }

    /// A node is now in a new incarnation. If it is an origin, it is told which attempts of the earlier one are held or
    /// done.
    pub(crate) fn on_session(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch) {
        let Some(account) = self.accounts.get_mut(&from) else {
            return;
        };
        if account.epoch.is_some_and(|known| known != epoch) && !account.held.is_empty() {
            account.fetch_due = true;
            account.renew_due = true;
            account.results.repeat_all();
            shared.outbox.mark(Address::Node(from));
        }
    }

    /// An unproven message names an incarnation of an origin. If leases of another one are held, the origin is asked.
    pub(crate) fn on_hearsay(&self, shared: &mut Shared, from: NodeId, epoch: Epoch) {
        let is_other =
            |account: &Account| account.epoch.is_some_and(|known| known != epoch) && !account.held.is_empty();
        let is_known = shared.sessions.epoch_of(from) == Some(epoch);
        if !is_known && self.accounts.get(&from).is_some_and(|account| is_other(account)) {
            shared.outbox.send(from, Message::Hello);
        }
    }

    /// Whether an attempt is held for an origin.
    pub(crate) fn holds(&self, origin: NodeId, attempt: Attempt) -> bool {
        is_held(&self.accounts, origin, attempt)
    }

    /// An origin acknowledges results.
    pub(crate) fn on_result_ack(&mut self, shared: &mut Shared, from: NodeId, ack: &ResultAck) {
        let was_full = self.results_room(shared) == 0;
        let Some(account) = self.accounts.get_mut(&from).filter(|_| ack.worker_epoch == shared.epoch) else {
            return;
        };
        account.heard = Some(shared.now);
        for number in &ack.numbers {
            let results = account.results.acknowledge(*number);
            account.remove_held(results.iter().map(|result| result.attempt));
        }
        if was_full {
            self.offer(shared);
        }
    }

    /// Confirms or renews the leases of an origin.
    pub(crate) fn on_renew_timer(&mut self, shared: &mut Shared, origin: NodeId) {
        let Some(account) = self.accounts.get_mut(&origin) else {
            return;
        };
        if account.held.values().any(|held| !matches!(held, Held::Done)) {
            account.renew_due = true;
            shared.outbox.mark(Address::Node(origin));
            shared.timers.set(Timer::Renew(origin), shared.now + shared.timing(RENEW));
        }
    }

    /// Repeats unacknowledged results.
    pub(crate) fn on_results_timer(&mut self, shared: &mut Shared, origin: NodeId) {
        let Some(account) = self.accounts.get_mut(&origin) else {
            return;
        };
        let dropped = account.results.drop_old(shared);
        account.remove_held(dropped);
        let (is_due, next) = account.results.repeat_due(shared);
        if is_due {
            shared.outbox.mark(Address::Node(origin));
        }
        if let Some(at) = next {
            shared.timers.set(Timer::Results(origin), at);
        }
    }

    /// The link is up again: tells every origin what is held and done.
    pub(crate) fn on_connected(&mut self, shared: &mut Shared) {
        for (origin, account) in &mut self.accounts {
            account.fetch_due = true;
            account.renew_due = account.held.values().any(|held| !matches!(held, Held::Done));
            account.results.repeat_all();
            shared.outbox.mark(Address::Node(*origin));
        }
    }

    /// Writes the messages for an origin, up to about `budget` bytes.
    pub(crate) fn compose(
        &mut self,
        shared: &mut Shared,
        modules: u64,
        (to, epoch): (NodeId, Epoch),
        room: Room,
        put: &mut impl FnMut(&Message),
    ) {
        let credit = self.credit_for(shared, to);
        let full = self.results_room(shared) == 0;
        let Some(account) = self.accounts.get_mut(&to) else {
            return;
        };
        let room = Room { left: room.left.saturating_sub(account.short_bytes()), ..room };
        if !account.returns.is_empty() {
            let attempts = core::mem::take(&mut account.returns);
            if let Some(origin_epoch) = account.epoch {
                shared.counters.returns_given += attempts.len() as u64;
                put(&Message::Return(Return { origin_epoch, attempts }));
            }
        }
        // An origin that has restarted must know this worker before it accepts its renewals.
        if core::mem::take(&mut account.fetch_due) {
            account.credit = if core::mem::take(&mut account.withheld) { 0 } else { credit };
            let tasks = account.credit;
            shared.trace(TraceLevel::Tasks, || Trace::CreditGiven { origin: to, tasks });
            put(&Message::Fetch(account.fetch(shared, epoch, modules, full)));
        }
        if core::mem::take(&mut account.renew_due) {
            account.put_renews(put);
        }
        if !account.put_results(shared, to, room, put) {
            shared.outbox.mark(Address::Node(to));
        }
    }

    /// Whether there are messages for an origin.
    pub(crate) fn has_for(&self, origin: NodeId) -> bool {
        self.accounts.get(&origin).is_some_and(|account| account.has_something())
    }

    /// The account of an origin, created if needed. None if there are too many.
    fn account(&mut self, shared: &mut Shared, origin: NodeId) -> Option<&mut Account> {
        if !self.accounts.contains_key(&origin) && self.accounts.len() >= shared.config.limits.nodes_max {
            let idle = self
                .accounts
                .iter()
                .filter(|(_, account)| account.held.is_empty())
                .min_by_key(|(_, account)| account.heard);
            let idle = *idle?.0;
            self.accounts.remove(&idle);
        }
        let account = self.accounts.entry(origin).or_insert_with(|| Box::new(Account::new()));
        Some(account)
    }
}
