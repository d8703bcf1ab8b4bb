//! Who is there: births and deaths of other nodes, and the defence of this node's name.
//!
//! What it holds is hearsay: a birth may be old, a death may never be told. It serves people,
//! the choice of an origin and the search for modules. Whether a worker lives is judged by its
//! leases.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Birth, Claim, Claimed, Death, Message};
use broccoli_proto::packet::Address;
use broccoli_proto::{Epoch, NodeId};
use litemap::LiteMap;

use crate::canvas::is_pin;
use crate::config::Limits;
use crate::io::Event;
use crate::shared::Shared;
use crate::text;
use crate::time::{Instant, ms};
use crate::timers::Timer;

/// Labels and capabilities of a node; more are not looked at.
const FEATURES_MAX: usize = 64;
/// Longest of them.
const FEATURE_BYTES_MAX: usize = 128;
/// Longest version of a program.
const VERSION_BYTES_MAX: usize = 64;
/// A birth that was overwritten is published again after this time.
const REPUBLISH: Duration = ms(200);
/// Presence is published again after this time, since a birth or a claim may have been lost …
const ANNOUNCE: Duration = ms(30_000);
/// … and up to this much later, so that nodes that started together spread.
const ANNOUNCE_JITTER_US: u64 = 5_000_000;

/// Another node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its incarnation.
    pub epoch: Epoch,
    /// What it says of itself.
    pub birth: Birth,
    /// Whether it was there when last heard of.
    pub alive: bool,
    /// When it was last heard of.
    pub heard: Instant,
}

/// The other nodes of the cluster, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Members {
    nodes: LiteMap<NodeId, Box<Member>>,
    connection: u32,
    claim_nonce: u64,
    started: Instant,
}

/// Whether a node fits a routing: each of `on` is its name, a label or a capability of it, or is meant
/// for it alone.
pub(crate) fn matches(on: &[String], name: NodeId, features: &[String]) -> bool {
    on.iter().all(|want| want == name.as_str() || features.contains(want) || is_pin(want, name))
}

impl Members {
    pub(crate) fn new(now: Instant) -> Members {
        Members { started: now, ..Members::default() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.nodes.iter().map(|(name, member)| (*name, &**member))
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.iter().filter(|(_, member)| member.alive)
    }

    /// What is known of one node.
    pub(crate) fn get(&self, name: NodeId) -> Option<&Member> {
        self.nodes.get(&name).map(Box::as_ref)
    }

    /// How many live nodes are like this. This node itself is one of the births that come back.
    pub(crate) fn count(&self, like: impl Fn(NodeId, &Birth) -> bool) -> u32 {
        self.alive().filter(|(name, member)| like(*name, &member.birth)).count() as u32
    }

    /// Longest packet that a node takes, if it is known.
    pub(crate) fn packet_bytes_max(&self, name: NodeId) -> Option<u32> {
        self.nodes.get(&name).map(|member| member.birth.packet_bytes_max)
    }

    /// The next live node after `name`, in the order of names, whose modules have this digest.
    pub(crate) fn other_with(&self, name: NodeId, digest: u64) -> Option<NodeId> {
        let others = || self.alive().filter(|(other, member)| *other != name && member.birth.modules == digest);
        let next = others().find(|(other, _)| *other > name).or_else(|| others().next());
        next.map(|(other, _)| other)
    }

    /// The number of the connection that is about to be made.
    pub(crate) fn next_connection(&mut self) -> u32 {
        self.connection += 1;
        self.connection
    }

    /// The link is up: say so, and ask whether the name is free.
    pub(crate) fn on_connected(&mut self, shared: &mut Shared, modules: u64) {
        // Whoever is still there is heard of again: births are retained, or published anew.
        self.nodes.iter_mut().for_each(|(_, member)| member.alive = false);
        self.announce(shared, modules);
    }

    /// Publishes this node's birth.
    pub(crate) fn publish(&mut self, shared: &mut Shared, modules: u64) {
        let config = &shared.config;
        let takes_work = !shared.draining;
        let birth = Birth {
            connection: self.connection,
            slots: if takes_work { config.slots } else { 0 },
            features: config.features.clone(),
            modules,
            packet_bytes_max: shared.packet_bytes_max(),
            resident: config.resident && takes_work,
            version: config.version.clone(),
            durable: config.durable.then_some(true),
        };
        let me = shared.me();
        let member = Member { epoch: shared.epoch, birth: birth.clone(), alive: true, heard: shared.now };
        self.nodes.insert(me, Box::new(member));
        shared.outbox.send_wire(Address::Birth(me), Message::Birth(birth));
    }

    /// Publishes the birth and claims the name, now and from time to time.
    pub(crate) fn announce(&mut self, shared: &mut Shared, modules: u64) {
        if !shared.connected {
            return;
        }
        let again = ANNOUNCE + Duration::from_micros(shared.rng.below(ANNOUNCE_JITTER_US));
        shared.timers.set(Timer::Claim, shared.now + again);
        self.publish(shared, modules);
        self.claim_nonce = shared.rng.next();
        let age_ms = (shared.now - self.started).as_millis() as u64;
        let claim = Claim { nonce: self.claim_nonce, age_ms };
        shared.outbox.send_wire(Address::Node(shared.me()), Message::Claim(claim));
    }

    /// How full the table is; this node is one more.
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("members", self.nodes.len(), limits.nodes_max + 1);
    }

    /// Says goodbye to everybody.
    pub(crate) fn leave(&self, shared: &mut Shared) {
        let death = Death { connection: self.connection, leaving: true };
        shared.outbox.send_wire(Address::Birth(shared.me()), Message::Death(death));
    }

    /// A birth; `true` if it is news.
    pub(crate) fn on_birth(&mut self, shared: &mut Shared, name: NodeId, epoch: Epoch, mut birth: Birth) -> bool {
        cut_features(&mut birth.features);
        text::cut(&mut birth.version, VERSION_BYTES_MAX);
        if let Some(known) = self.nodes.get(&name) {
            let is_late = known.birth.connection > birth.connection;
            let is_known = known.alive && known.birth == birth;
            if known.epoch == epoch && (is_late || is_known) {
                return false;
            }
        } else if self.nodes.len() >= shared.config.limits.nodes_max {
            self.nodes.retain(|_, member| member.alive);
            if self.nodes.len() >= shared.config.limits.nodes_max {
                return false;
            }
        }
        self.nodes.insert(name, Box::new(Member { epoch, birth, alive: true, heard: shared.now }));
        shared.event(Event::Member(name));
        true
    }

    /// A death; `true` if it is that of the node as it is known.
    pub(crate) fn on_death(&mut self, shared: &mut Shared, name: NodeId, epoch: Epoch, death: Death) -> bool {
        let same = |member: &&mut Box<Member>| member.epoch == epoch && member.birth.connection <= death.connection;
        let Some(member) = self.nodes.get_mut(&name).filter(same) else {
            return false;
        };
        member.alive = false;
        member.heard = shared.now;
        shared.event(Event::Member(name));
        true
    }

    /// Any packet of a member shows that it lives.
    pub(crate) fn on_heard(&mut self, now: Instant, name: NodeId, epoch: Epoch) {
        if let Some(member) = self.nodes.get_mut(&name).filter(|member| member.epoch == epoch) {
            member.heard = now;
        }
    }

    /// Something that is no presence came to an address. If it is that of this node's birth, it
    /// has taken the birth's place at the server.
    pub(crate) fn on_nonsense(&self, shared: &mut Shared, to: Address) {
        if to == Address::Birth(shared.me()) {
            shared.timers.set_earlier(Timer::Claim, shared.now + REPUBLISH);
        }
    }

    /// Something of another incarnation was said in this node's name: it may be a retained
    /// message of the past, or a twin. Both are answered by saying again who is here.
    pub(crate) fn on_other_self(&mut self, shared: &mut Shared, epoch: Epoch, message: &Message) {
        match message {
            Message::Claim(claim) => {
                let age_ms = (shared.now - self.started).as_millis() as u64;
                let older = (age_ms, epoch) > (claim.age_ms, shared.epoch);
                let answer = Message::Claimed(Claimed { nonce: claim.nonce });
                if older {
                    shared.outbox.send_wire(Address::Node(shared.me()), answer);
                } else {
                    shared.timers.set_earlier(Timer::Claim, shared.now);
                }
            }
            Message::Claimed(claimed) if claimed.nonce == self.claim_nonce => shared.event(Event::NameTaken),
            Message::Birth(_) | Message::Death(_) => shared.timers.set_earlier(Timer::Claim, shared.now + REPUBLISH),
            _ => {}
        }
    }
}

/// Drops what no node says of itself.
pub(crate) fn cut_features(features: &mut Vec<String>) {
    features.retain(|feature| feature.len() <= FEATURE_BYTES_MAX);
    features.truncate(FEATURES_MAX);
    features.shrink_to_fit();
}
