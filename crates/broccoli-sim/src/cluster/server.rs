//! The MQTT server: sessions, Wills, faults of deliveries, and an attacker with an account.

use broccoli_core::Input;
use broccoli_proto::packet::Address;

use super::faults::Fault;
use super::wire::open;
use super::{Cluster, Faults, HOP_US, Id, KEEP_ALIVE_MS, Mishap, Work};

/// How many packets the attacker keeps, and the longest of them. Packets that have an effect are short.
const HEARD_MAX: usize = 8_192;
const HEARD_BYTES_MAX: usize = 2_048;
/// How many packets the attacker makes the server retain.
const RETAINED_MAX: usize = 16;

/// The attacker: it has an account at the MQTT server, but not the key. It records all packets, and publishes any of
/// them again.
#[derive(Default)]
pub(super) struct Stranger {
    heard: Vec<(Address, Vec<u8>)>,
    /// What the server retains for later subscribers.
    pub(super) retained: Vec<(Address, Vec<u8>)>,
    favourite: Option<(Address, Vec<u8>)>,
    /// Counts what it could not keep.
    passed: usize,
}

impl Stranger {
    fn hear(&mut self, to: Address, bytes: &[u8]) {
        if bytes.len() > HEARD_BYTES_MAX {
            return;
        }
        if self.heard.len() < HEARD_MAX {
            self.heard.push((to, bytes.to_vec()));
        } else {
            // Every eighth takes the place of an early one, so that all times are there.
            self.passed += 1;
            if self.passed.is_multiple_of(8) {
                let at = self.passed / 8 % HEARD_MAX;
                self.heard[at] = (to, bytes.to_vec());
            }
        }
    }
}

impl Cluster {
    pub(super) fn route(&mut self, from: Option<Id>, to: Address, bytes: &[u8]) {
        self.stranger.hear(to, bytes);
        self.publish(from, to, bytes);
    }

    fn publish(&mut self, from: Option<Id>, to: Address, bytes: &[u8]) {
        for id in 0..self.slots.len() {
            let subscribed = match to {
                Address::Node(name) => self.name(id) == name,
                Address::Birth(name) => self.slots[id].spec.watches || self.name(id) == name,
                Address::All => true,
            };
            let blocked = from.is_some_and(|from| self.blocked.contains(&(from, id)));
            if subscribed && !blocked && self.slots[id].session.is_some() {
                self.deliver(id, to, bytes);
            }
        }
    }

    pub(super) fn deliver(&mut self, node: Id, to: Address, bytes: &[u8]) {
        let Some(session) = self.slots[node].session else {
            return;
        };
        self.deliveries += 1;
        let work = Work::Deliver { node, session, to, bytes: bytes.to_vec() };
        let mut at = self.now_us + HOP_US;
        if self.mishap.is_some_and(|(number, _)| number == self.deliveries) {
            match self.mishap.expect("just seen").1 {
                Mishap::Lost => return,
                Mishap::Doubled { after_ms } => self.push(at + after_ms * 1_000, work.clone()),
                Mishap::Delayed { by_ms } => at += by_ms * 1_000,
            }
        }
        if self.lose.is_some_and(|lose| open(bytes).1.iter().any(lose)) {
            return;
        }
        let Faults { loss, duplication, delay, delay_ms_max } = self.faults;
        if self.chance(loss) {
            self.counts.add(Fault::Loss);
            return;
        }
        if self.chance(duplication) {
            self.counts.add(Fault::Duplication);
            let later = self.below(delay_ms_max.max(1) * 1_000);
            self.push(at + later, work.clone());
        }
        if self.chance(delay) {
            self.counts.add(Fault::Delay);
            at += self.below(delay_ms_max.max(1) * 1_000);
        }
        if self.jitter_us > 0 {
            at += self.below(self.jitter_us);
        }
        let last = &mut self.slots[node].last_delivery_us;
        if at < *last {
            self.counts.add(Fault::Reordering);
        }
        *last = at.max(*last);
        self.push(at, work);
    }

    pub(super) fn disconnected(&mut self, id: Id) {
        if self.slots[id].paused {
            self.slots[id].pending.push(Work::Disconnected { node: id });
        } else {
            self.input(id, Input::Disconnected);
        }
    }

    pub(super) fn lose_link(&mut self, id: Id, reset: bool) {
        let Some(session) = self.slots[id].session else {
            return;
        };
        if reset {
            self.end_session(id, session);
        } else {
            self.slots[id].cut = true;
            let keep_alive_us = KEEP_ALIVE_MS * 1_000 * u64::from(self.timing().stretch());
            self.push(self.now_us + keep_alive_us, Work::LostLink { node: id, session });
        }
    }

    pub(super) fn connect(&mut self, id: Id) {
        self.sessions += 1;
        let session = self.sessions;
        let slot = &mut self.slots[id];
        slot.session = Some(session);
        slot.cut = false;
        if let Some(node) = &mut slot.node {
            node.write_will(&mut slot.will);
        }
        self.push(self.now_us + 4 * HOP_US, Work::Connected { node: id, session });
    }

    /// The server gives up a connection and publishes its Will.
    pub(super) fn end_session(&mut self, id: Id, session: u64) {
        if self.slots[id].session != Some(session) {
            return;
        }
        self.slots[id].session = None;
        let will = std::mem::take(&mut self.slots[id].will);
        if !will.is_empty() {
            self.route(None, Address::Birth(self.name(id)), &will);
        }
    }

    /// The attacker publishes this many of all packets that it has recorded, of any incarnation, some of them
    /// retained, and one of them again and again.
    pub fn replay(&mut self, packets: usize) {
        let heard = self.stranger.heard.len() as u64;
        if heard == 0 {
            return;
        }
        for _ in 0..packets {
            // The latest ones are the most dangerous.
            let back = if self.chance(500) { self.below(heard) } else { self.below(heard.min(64)) };
            let (to, bytes) = self.stranger.heard[(heard - 1 - back) as usize].clone();
            self.counts.add(Fault::Replay);
            if self.chance(20) && self.stranger.retained.len() < RETAINED_MAX {
                self.stranger.retained.push((to, bytes.clone()));
            }
            if self.chance(100) {
                self.stranger.favourite = Some((to, bytes.clone()));
            }
            self.publish(None, to, &bytes);
        }
        if let Some((to, bytes)) = self.stranger.favourite.clone() {
            self.counts.add(Fault::Replay);
            self.publish(None, to, &bytes);
        }
    }
}
