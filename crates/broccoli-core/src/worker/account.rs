//! What this worker has with one origin: its credit, the attempts that are held for it, and their results.

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

/// Held attempts are renewed this often.
pub(super) const RENEW: LinkTime = link_ms(1_000);
/// Tasks that wait to be handed back at once to one origin; of others it hears when it sends them again.
pub(super) const RETURNS_MAX: usize = 4_096;
/// About how long an attempt is on the wire.
const ATTEMPT_BYTES: usize = 24;

/// About how long a `Fetch` is: the features are its longest part.
const FETCH_BYTES: usize = 1_024;

/// What this worker has with one origin.
#[derive(Debug)]
pub(super) struct Account {
    /// The origin's incarnation, once it has leased something.
    pub(super) epoch: Option<Epoch>,
    /// Last batch of that incarnation.
    pub(super) seen: u32,
    /// Tasks that the origin may still send.
    pub(super) credit: u32,
    pub(super) fetch_due: bool,
    /// It is the turn of others: the next `Fetch` gives no credit.
    pub(super) withheld: bool,
    pub(super) held: BTreeMap<Attempt, Held>,
    pub(super) results: Results,
    pub(super) returns: Vec<Attempt>,
    pub(super) renew_due: bool,
    pub(super) result_bytes_max: u32,
    /// When the origin was last heard of, in a packet that counts.
    pub(super) heard: Option<Instant>,
    /// When a call of it was last answered.
    pub(super) called: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum Held {
    /// Its arguments are being pulled.
    Pulling(Epoch),
    Queued(Epoch),
    Running(Epoch),
    /// Its result is being pulled, or waits to be.
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

    /// Keeps what an attempt came to until the origin has it.
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

    /// About how long all is that waits for the origin beside results.
    pub(super) fn short_bytes(&self) -> usize {
        let named = self.returns.len() + if self.renew_due { self.held.len() } else { 0 };
        named * ATTEMPT_BYTES + if self.fetch_due { FETCH_BYTES } else { 0 }
    }

    /// The snapshot for an origin in this incarnation.
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

    /// Writes results that wait, or wait again, as long as there is room. Returns whether that was all of them.
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

    /// Forgets attempts whose results are of no use any more.
    pub(super) fn remove_held(&mut self, attempts: impl IntoIterator<Item = Attempt>) {
        for attempt in attempts {
            self.held.remove(&attempt);
        }
    }

    /// Hands an attempt back to the origin.
    pub(super) fn hand_back(&mut self, attempt: Attempt) {
        self.held.remove(&attempt);
        self.returns.push(attempt);
    }

    /// Names what is held, an epoch of the origin at a time.
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
