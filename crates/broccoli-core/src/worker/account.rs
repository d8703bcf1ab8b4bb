//! The worker's account of one origin: credit given to it, attempts held for it, and their results.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, Failure, Fetch, Message, Renew};
use broccoli_proto::{Cbor, Epoch, NodeId};
use litemap::LiteMap;

use super::results::{Results, Written};
use super::run::{Running, run_of};
use crate::io::RunId;
use crate::outbox::Room;
use crate::shared::Shared;
use crate::time::Instant;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Interval at which leases are renewed.
pub(super) const RENEW: LinkTime = link_ms(1_000);
/// Most tasks that wait to be returned to one origin. Further ones are returned when the origin sends them again.
pub(super) const RETURNS_MAX: usize = 4_096;
/// About the size of an attempt in a message, in bytes.
const ATTEMPT_BYTES: usize = 24;

/// About the size of a `Fetch`, in bytes; most of it are the features.
const FETCH_BYTES: usize = 1_024;

/// The worker's state for one origin.
#[derive(Debug)]
pub(super) struct Account {
    /// The incarnation of the origin that has leased tasks last.
    pub(super) epoch: Option<Epoch>,
    /// Last batch received from that incarnation.
    pub(super) seen: u32,
    /// Tasks that the origin may still send.
    pub(super) credit: u32,
    pub(super) fetch_due: bool,
    /// Other origins are next: the next `Fetch` gives no credit.
    pub(super) withheld: bool,
    pub(super) held: BTreeMap<Attempt, Held>,
    pub(super) results: Results,
    pub(super) returns: Vec<Attempt>,
    pub(super) renew_due: bool,
    pub(super) result_bytes_max: u32,
    /// When a fresh packet of the origin last arrived.
    pub(super) heard: Option<Instant>,
    /// When its call for help was last answered.
    pub(super) called: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Held {
    /// Its arguments are being pulled.
    Pulling(Epoch),
    Queued(Epoch),
    Running(Epoch),
    /// Its result is being pulled by the origin, or will be.
    Large(Epoch),
    /// Its result waits to be sent or acknowledged.
    Done,
}

impl Account {
    pub(super) fn validate(&self, shared: &Shared, origin: NodeId, running: &LiteMap<RunId, Running>) {
        let (mut open, mut done) = (0, 0);
        for (attempt, held) in &self.held {
            let runs = run_of(running, origin, *attempt).is_some();
            match held {
                Held::Pulling(_) | Held::Queued(_) => assert!(!runs, "what waits does not run"),
                Held::Running(_) => assert!(runs, "what is said to run does"),
                Held::Large(_) | Held::Done => done += 1,
            }
            open += usize::from(!matches!(held, Held::Done));
        }
        assert!(open == 0 || shared.timers.is_set(Timer::Renew(origin)), "what is held is renewed");
        self.results.validate(shared, origin, done);
    }

    pub(super) fn new() -> Account {
        Account {
            epoch: None,
            seen: 0,
            credit: 0,
            fetch_due: false,
            withheld: false,
            held: BTreeMap::new(),
            results: Results::default(),
            returns: Vec::new(),
            renew_due: false,
            result_bytes_max: u32::MAX,
            heard: None,
            called: None,
        }
    }

    pub(super) fn has_something(&self) -> bool {
        self.fetch_due || self.renew_due || !self.returns.is_empty() || self.results.is_due()
    }

    /// Keeps the result of an attempt until the origin has acknowledged it.
    pub(super) fn store_result(
        &mut self,
        shared: &mut Shared,
        origin: NodeId,
        (epoch, attempt): (Epoch, Attempt),
        outcome: Result<Cbor, Failure>,
    ) {
        self.held.insert(attempt, Held::Done);
        self.results.push(shared, origin, (epoch, attempt), outcome);
    }

    /// About the size of all waiting messages except results, in bytes.
    pub(super) fn short_bytes(&self) -> usize {
        let named = self.returns.len() + if self.renew_due { self.held.len() } else { 0 };
        named * ATTEMPT_BYTES + if self.fetch_due { FETCH_BYTES } else { 0 }
    }

    /// A credit snapshot for this incarnation of an origin.
    pub(super) fn fetch(&self, shared: &Shared, epoch: Epoch, modules: u64, full: bool) -> Fetch {
        Fetch {
            origin_epoch: Some(epoch),
            seen: if self.epoch == Some(epoch) { self.seen } else { 0 },
            tasks: self.credit,
            bytes: shared.config.limits.credit_bytes,
            modules,
            features: shared.config.features.clone(),
            packet_bytes_max: shared.config.limits.packet_bytes_max,
            full: full.then_some(true),
            takes: Some(shared.config.limits.takes()),
        }
    }

    /// Writes new and repeated results while there is room. Returns whether all were written.
    pub(super) fn put_results(
        &mut self,
        shared: &mut Shared,
        to: NodeId,
        room: Room,
        put: &mut impl FnMut(&Message),
    ) -> bool {
        let Written { all, large } = self.results.write(shared, to, room, put);
        for (attempt, epoch) in large {
            self.held.insert(attempt, Held::Large(epoch));
            shared.timers.set_earlier(Timer::Renew(to), shared.now + shared.timing(RENEW));
        }
        all
    }

    /// Drops attempts whose results are not needed any more.
    pub(super) fn remove_held(&mut self, attempts: impl IntoIterator<Item = Attempt>) {
        for attempt in attempts {
            self.held.remove(&attempt);
        }
    }

    /// Offers the origin credit with the next `Fetch`.
    pub(super) fn offer_credit(&mut self) {
        self.fetch_due = true;
        self.withheld = false;
    }

    /// Returns an attempt to the origin.
    pub(super) fn hand_back(&mut self, attempt: Attempt) {
        self.held.remove(&attempt);
        self.returns.push(attempt);
    }

    /// Writes renewals of all held attempts, one message for each epoch of the origin.
    pub(super) fn put_renews(&self, put: &mut impl FnMut(&Message)) {
        let mut renews: LiteMap<Epoch, (Vec<Attempt>, Vec<Attempt>)> = LiteMap::new_vec();
        for (attempt, held) in &self.held {
            match held {
                Held::Running(epoch) | Held::Large(epoch) => renews.entry(*epoch).or_default().0.push(*attempt),
                Held::Pulling(epoch) | Held::Queued(epoch) => renews.entry(*epoch).or_default().1.push(*attempt),
                Held::Done => {}
            }
        }
        for (origin_epoch, (started, queued)) in renews {
            put(&Message::Renew(Renew { origin_epoch, started, queued }));
        }
    }
}

/// Whether an attempt is held for an origin.
pub(super) fn is_held(accounts: &LiteMap<NodeId, Box<Account>>, origin: NodeId, attempt: Attempt) -> bool {
    accounts.get(&origin).is_some_and(|account| account.held.contains_key(&attempt))
}
