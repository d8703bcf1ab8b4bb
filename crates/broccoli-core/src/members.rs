//! Members: the other nodes of the cluster, from their births and deaths, and the detection of twins of this node.
//!
//! ```text
//!             birth                     three intervals without a packet, silence, death
//!   unknown ────────► alive, hearsay ─────────────────────────────────────────────► gone, forgotten after a day
//!                          │ a proven packet      ▲ birth (hearsay: unless it was found silent)   │
//!                          └──► alive, proven ────┘◄──────────────────────────── a proven packet ─┘
//! ```
//!
//! A broadcast is hearsay: it may be a recording. It is used only for display, for choosing an origin and for finding
//! modules. The first answer, or its absence, corrects it. So nothing waits for a node that is gone. If a node was
//! proven to be live, hearsay of another incarnation does not change its entry; the node is asked instead. Whether a
//! worker is live is decided by its leases.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Birth, Claim, Claimed, Death, MemberList, MemberSummary, MembersRequest, Message};
use broccoli_proto::packet::{Address, OVERHEAD_BYTES_MAX};
use broccoli_proto::{Epoch, NodeId};
use litemap::LiteMap;

use crate::canvas::is_pin;
use crate::config::Limits;
use crate::io::Event;
use crate::shared::{PACKET_BYTES_MIN, Shared};
use crate::text;
use crate::time::{Instant, ms};
use crate::timers::Timer;
use crate::timing::{LinkTime, Timing, link_ms};

/// Most labels and capabilities of a node; further ones are ignored.
const FEATURES_MAX: usize = 64;
/// Longest label or capability, in bytes.
const FEATURE_BYTES_MAX: usize = 128;
/// Longest version of a program, in bytes.
const VERSION_BYTES_MAX: usize = 64;
/// The birth is published again after this time, since a birth or a claim may have been lost.
const ANNOUNCE: LinkTime = link_ms(30_000);
/// Random addition to that time, so that nodes that started together spread out.
const ANNOUNCE_JITTER: LinkTime = link_ms(5_000);
/// Further addition for each known member, so that a node receives about six births a second in a cluster of any size.
const ANNOUNCE_MEMBER: LinkTime = link_ms(300);
/// The share of this addition that a node chooses is one of this many steps.
const SHARES: u32 = 1 << u8::BITS;
/// The interval stated in the first birth, since the size of the cluster is not known yet.
const ANNOUNCE_FIRST: LinkTime = link_ms(300_000);
/// The birth is published at most once in this time, even if recordings provoke it.
const ANNOUNCE_AGAIN_MIN: LinkTime = link_ms(1_000);
/// About how many nodes publish their birth when a node with another key appears.
const OTHER_KEY_ANSWERS: u64 = 3;
/// A node is gone if it was not heard from for this many of its intervals.
const INTERVALS_MAX: u32 = 3;
/// Members are checked at most once in this time.
const LOOK_AFTER_MIN: LinkTime = link_ms(1_000);
/// A member that is gone is remembered for this long.
const GONE_KEPT: Duration = ms(24 * 3_600_000);
/// A member with contradictory messages is asked at most once in this time.
const ASK_AGAIN: LinkTime = link_ms(1_000);
/// A node answers a broadcast question within this time for each member that it knows, so that not all answers arrive
/// at once.
const SPREAD_US: u64 = 50;
/// All nodes together announce a change within this time for each packet that the server delivers for it.
const SPREAD_NEWS_US: u64 = 50;
/// About the size of a member in a list, in bytes.
const LISTED_BYTES: usize = 64;

/// Another node.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its incarnation.
    pub epoch: Epoch,
    /// Its last birth.
    pub birth: Birth,
    /// Whether it counts as live.
    pub alive: bool,
    /// When it was last heard from.
    pub heard: Instant,
    /// Whether it has said goodbye.
    pub left: bool,
    /// Whether this incarnation was proven to be live.
    proven: bool,
    /// It did not answer: it counts as gone until it is proven to be live.
    silent: bool,
    /// Sequence number of the packet with its last birth.
    sequence: u64,
    /// The last of its connections that has ended.
    ended: u32,
    /// When it was last asked for its birth.
    asked: Option<Instant>,
}

/// The known nodes of the cluster, including this one.
#[derive(Debug, Default)]
pub(crate) struct Members {
    nodes: LiteMap<NodeId, Box<Member>>,
    connection: u32,
    claim_nonce: u64,
    started: Instant,
    /// When this node's birth was last published.
    announced: Instant,
    /// The interval that this birth states, in seconds.
    again_s: u16,
    /// The random part of the additions to the interval, in [`SHARES`]. As a share, it grows with the cluster.
    share: u8,
    /// Whether the birth is to be published as soon as possible.
    provoked: bool,
}

/// How a birth has arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) epoch: Epoch,
    /// Sequence number of its packet.
    pub(crate) sequence: u64,
    /// In a proven packet, not as hearsay.
    pub(crate) fresh: bool,
}

/// Whether a node matches a routing: each entry of `on` is its name, one of its labels or capabilities, or a pin to it.
pub(crate) fn matches(on: &[String], name: NodeId, features: &[String]) -> bool {
    on.iter().all(|want| want == name.as_str() || features.contains(want) || is_pin(want, name))
}

/// Queries.
impl Members {
    pub(crate) fn new(now: Instant, timing: Timing) -> Members {
        Members { started: now, again_s: timing.time(ANNOUNCE_FIRST).as_secs() as u16, ..Members::default() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.nodes.iter().map(|(name, member)| (*name, &**member))
    }

    pub(crate) fn alive(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.iter().filter(|(_, member)| member.alive)
    }

    /// The entry of a node.
    pub(crate) fn get(&self, name: NodeId) -> Option<&Member> {
        self.nodes.get(&name).map(Box::as_ref)
    }

    /// Whether a node has announced that it is leaving.
    pub(crate) fn is_leaving(&self, name: NodeId) -> bool {
        self.get(name).is_some_and(|member| member.birth.draining == Some(true))
    }

    /// Whether the last known incarnation of a node was proven to be live.
    pub(crate) fn was_proven(&self, name: NodeId) -> bool {
        self.get(name).is_some_and(|member| member.proven)
    }

    /// Number of live nodes that match `like`, including this node.
    pub(crate) fn count(&self, like: impl Fn(NodeId, &Birth) -> bool) -> u32 {
        self.alive().filter(|(name, member)| like(*name, &member.birth)).count() as u32
    }

    /// Bytes of messages in the longest packet from this node to another one.
    pub(crate) fn room(&self, shared: &Shared, to: NodeId) -> usize {
        let mine = shared.packet_bytes_max();
        let theirs = self.nodes.get(&to).map_or(mine, |member| member.birth.packet_bytes_max);
        (theirs.clamp(PACKET_BYTES_MIN.min(mine), mine) as usize).saturating_sub(OVERHEAD_BYTES_MAX)
    }

    /// The next live node after `name`, in the order of names, with this digest of its modules.
    pub(crate) fn other_with(&self, name: NodeId, digest: u64) -> Option<NodeId> {
        let others = || self.alive().filter(|(other, member)| *other != name && member.birth.modules == digest);
        let next = others().find(|(other, _)| *other > name).or_else(|| others().next());
        next.map(|(other, _)| other)
    }

    /// A list of the known members, for a node that asks.
    pub(crate) fn list(&self, shared: &Shared, to: NodeId, request: &MembersRequest) -> MemberList {
        let from = request.after.map_or(0, |after| match self.nodes.find_index(&after) {
            Ok(at) => at + 1,
            Err(at) => at,
        });
        let room = self.room(shared, to) / LISTED_BYTES;
        let max = usize::from(request.max).min(room);
        let nodes = &self.nodes.as_slice()[from..];
        let members: Vec<MemberSummary> =
            nodes.iter().take(max).map(|(name, member)| member.summary(*name, shared.now)).collect();
        MemberList { more: nodes.len() > members.len(), members }
    }

    /// Reports the size of the table, which includes this node.
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("members", self.nodes.len(), limits.nodes_max + 1);
    }
}

/// The presence of this node.
impl Members {
    /// The number of the next connection.
    pub(crate) fn next_connection(&mut self) -> u32 {
        self.connection += 1;
        self.connection
    }

    /// The link is up: publishes the birth, claims the name, and asks for the other nodes.
    pub(crate) fn on_connected(&mut self, shared: &mut Shared, modules: u64) {
        // Nodes that are still live announce themselves again.
        for (_, member) in &mut self.nodes {
            member.alive = false;
        }
        self.announce(shared, modules);
        if shared.config.watches {
            shared.ask_all();
        }
        self.look_again(shared);
    }

    /// The birth of this node.
    pub(crate) fn birth(&self, shared: &Shared, modules: u64) -> Birth {
        let config = &shared.config;
        let takes_work = !shared.draining;
        Birth {
            connection: self.connection,
            slots: if takes_work { config.slots } else { 0 },
            features: config.features.clone(),
            modules,
            packet_bytes_max: shared.packet_bytes_max(),
            resident: config.resident && takes_work,
            version: config.version.clone(),
            durable: config.durable.then_some(true),
            again_s: self.again_s,
            draining: shared.draining.then_some(true),
            takes: Some(config.limits.takes()),
        }
    }

    /// Publishes this node's birth.
    pub(crate) fn publish(&mut self, shared: &mut Shared, modules: u64) {
        let birth = self.birth(shared, modules);
        let me = shared.me();
        self.announced = shared.now;
        let told = Told { epoch: shared.epoch, sequence: 0, fresh: true };
        self.nodes.insert(me, Box::new(Member::new(birth.clone(), told, shared.now)));
        shared.outbox.send_wire(Address::Birth(me), Message::Birth(birth));
    }

    /// Publishes the birth and claims the name at intervals. The cluster may have grown since the timer was set.
    pub(crate) fn on_claim_timer(&mut self, shared: &mut Shared, modules: u64) {
        let at = self.announce_at(shared);
        if shared.now < at && !self.provoked {
            shared.timers.set(Timer::Claim, at);
        } else if shared.connected {
            self.again_s = self.spread(shared, SHARES).as_secs().min(u64::from(u16::MAX)) as u16;
            self.announce(shared, modules);
        }
    }

    /// When the birth is published next, if nothing provokes it earlier.
    fn announce_at(&self, shared: &Shared) -> Instant {
        let told = Duration::from_secs(u64::from(self.again_s));
        self.announced + self.spread(shared, u32::from(self.share)).min(told)
    }

    /// The interval between births at this share of the addition, in [`SHARES`].
    fn spread(&self, shared: &Shared, share: u32) -> Duration {
        let all = shared.timing(ANNOUNCE_JITTER) + shared.timing(ANNOUNCE_MEMBER) * self.nodes.len() as u32;
        shared.timing(ANNOUNCE) + all / SHARES * share
    }

    /// Publishes the birth again soon, but not more often than the minimum interval allows.
    fn announce_soon(&mut self, shared: &mut Shared) {
        self.provoked = true;
        shared.timers.set_earlier(Timer::Claim, shared.now.max(self.announced + shared.timing(ANNOUNCE_AGAIN_MIN)));
    }

    /// Publishes the birth and claims the name now.
    fn announce(&mut self, shared: &mut Shared, modules: u64) {
        self.publish(shared, modules);
        self.provoked = false;
        self.share = shared.rng.bits() as u8;
        shared.timers.set(Timer::Claim, self.announce_at(shared));
        self.claim_nonce = shared.rng.bits();
        let age_ms = (shared.now - self.started).as_millis() as u64;
        let claim = Claim { nonce: self.claim_nonce, age_ms };
        shared.outbox.send_wire(Address::Node(shared.me()), Message::Claim(claim));
    }

    /// Whether this node answers broadcast questions: clients do not, since they come and go.
    pub(crate) fn is_present(shared: &Shared) -> bool {
        shared.config.resident || shared.config.slots > 0
    }

    /// When to answer a broadcast question.
    pub(crate) fn answer_at(&self, shared: &mut Shared) -> Instant {
        let spread = self.nodes.len() as u64 * SPREAD_US * shared.stretch();
        shared.now + Duration::from_micros(shared.rng.below(spread.max(1)))
    }

    /// When to announce that the modules of this node have changed: at once if no other node has this set yet,
    /// otherwise at a random time, since many nodes change now.
    pub(crate) fn news_at(&self, shared: &mut Shared, modules: u64) -> Instant {
        if self.other_with(shared.me(), modules).is_none() {
            return shared.now;
        }
        let packets = (self.nodes.len() as u64).pow(2);
        shared.now + Duration::from_micros(shared.rng.below((packets * SPREAD_NEWS_US * shared.stretch()).max(1)))
    }

    /// Says goodbye to all nodes.
    pub(crate) fn leave(&self, shared: &mut Shared, holds_no_key: bool) {
        let holds_no_key = holds_no_key.then_some(true);
        let death = Death { connection: self.connection, leaving: true, holds_no_key };
        shared.outbox.send_wire(Address::Birth(shared.me()), Message::Death(death));
    }

    /// A node with another key uses the topics of this cluster. A few random nodes publish their birth, so that it
    /// notices the cluster.
    pub(crate) fn on_other_key(&mut self, shared: &mut Shared) {
        let nodes = self.alive().count().max(1) as u64;
        if shared.rng.below(nodes) < OTHER_KEY_ANSWERS {
            self.announce_soon(shared);
        }
    }

    /// A message of another incarnation under this node's name: a recording or a twin. In both cases the answer is to
    /// announce this incarnation again.
    pub(crate) fn on_other_self(&mut self, shared: &mut Shared, epoch: Epoch, message: &Message) {
        match message {
            Message::Claim(claim) => {
                let age_ms = (shared.now - self.started).as_millis() as u64;
                let older = (age_ms, epoch) > (claim.age_ms, shared.epoch);
                let answer = Message::Claimed(Claimed { nonce: claim.nonce });
                if older {
                    shared.outbox.send_wire(Address::Node(shared.me()), answer);
                } else {
                    self.announce_soon(shared);
                }
            }
            Message::Claimed(claimed) if claimed.nonce == self.claim_nonce => shared.event(Event::NameTaken),
            Message::Birth(_) | Message::Death(_) => self.announce_soon(shared),
            _ => {}
        }
    }
}

/// Other nodes.
impl Members {
    /// Handles a birth; `true` if the entry has changed.
    pub(crate) fn on_birth(&mut self, shared: &mut Shared, name: NodeId, told: Told, mut birth: Birth) -> bool {
        cut_features(&mut birth.features);
        text::cut(&mut birth.version, VERSION_BYTES_MAX);
        let now = shared.now;
        if let Some(known) = self.nodes.get_mut(&name) {
            if known.epoch == told.epoch {
                let is_late = birth.connection < known.birth.connection || birth.connection <= known.ended;
                if is_late || (!told.fresh && told.sequence <= known.sequence) {
                    return false;
                }
                known.sequence = known.sequence.max(told.sequence);
                if known.silent && !told.fresh {
                    known.ask(shared, name);
                    return false;
                }
                // A changed interval alone is not a change.
                if core::mem::replace(&mut known.birth.again_s, birth.again_s) > birth.again_s {
                    shared.timers.set_earlier(Timer::Members, now + known.age_max());
                }
                let is_known = known.alive && known.birth == birth;
                known.alive = true;
                known.silent = false;
                known.proven |= told.fresh;
                known.heard = now;
                known.birth = birth;
                if !is_known {
                    shared.event(Event::Member(name));
                }
                return !is_known;
            }
            if !told.fresh && (known.proven || known.silent) {
                known.ask(shared, name);
                return false;
            }
        } else if self.nodes.len() >= shared.config.limits.nodes_max {
            self.nodes.retain(|_, member| member.alive);
            if self.nodes.len() >= shared.config.limits.nodes_max {
                return false;
            }
        }
        let member = Member::new(birth, told, now);
        shared.timers.set_earlier(Timer::Members, now + member.age_max());
        self.nodes.insert(name, Box::new(member));
        shared.event(Event::Member(name));
        true
    }

    /// A node announces the digest of its modules; `true` if it is a known node and the digest has changed.
    pub(crate) fn on_modules(&mut self, shared: &mut Shared, name: NodeId, told: Told, modules: u64) -> bool {
        let Some(known) = self.nodes.get_mut(&name).filter(|known| known.epoch == told.epoch && known.alive) else {
            return false;
        };
        let is_late = !told.fresh && told.sequence <= known.sequence;
        if is_late || known.birth.modules == modules {
            return false;
        }
        known.sequence = known.sequence.max(told.sequence);
        known.birth.modules = modules;
        shared.event(Event::Member(name));
        true
    }

    /// Handles a death notice; `true` if it is for the known incarnation and new.
    pub(crate) fn on_death(&mut self, shared: &mut Shared, name: NodeId, epoch: Epoch, death: Death) -> bool {
        let Some(member) = self.nodes.get_mut(&name).filter(|member| member.epoch == epoch) else {
            return false;
        };
        if death.connection < member.birth.connection
            || (death.connection <= member.ended && !death.leaving)
            || member.left
        {
            return false;
        }
        member.alive = false;
        member.ended = death.connection;
        member.left = death.leaving;
        member.heard = shared.now;
        if member.left && member.is_client() {
            self.nodes.remove(&name);
        }
        shared.event(Event::Member(name));
        true
    }

    /// A proven packet shows that a node is live in this incarnation. An unknown node is asked for its birth.
    pub(crate) fn on_proven(&mut self, shared: &mut Shared, name: NodeId, epoch: Epoch, opens: bool) {
        let Some(member) = self.nodes.get_mut(&name) else {
            return;
        };
        if member.epoch != epoch {
            if opens {
                // Earlier questions do not count for the new incarnation.
                member.asked = None;
            }
            member.ask(shared, name);
            return;
        }
        member.heard = shared.now;
        member.proven = true;
        member.silent = false;
        if !member.alive && !member.left {
            member.alive = true;
            shared.event(Event::Member(name));
        }
    }

    /// A user says that a node will not come back: removes it, unless it is live.
    pub(crate) fn remove(&mut self, shared: &mut Shared, name: NodeId) {
        if self.nodes.get(&name).is_some_and(|member| !member.alive) {
            self.nodes.remove(&name);
            shared.event(Event::Member(name));
        }
    }

    /// A node does not answer.
    pub(crate) fn on_silent(&mut self, shared: &mut Shared, name: NodeId) {
        if let Some(member) = self.nodes.get_mut(&name) {
            member.silent = true;
            member.proven = false;
            if core::mem::take(&mut member.alive) {
                shared.event(Event::Member(name));
            }
        }
    }

    /// Checks for members that were not heard from for too long.
    pub(crate) fn on_look_timer(&mut self, shared: &mut Shared) {
        if !shared.connected {
            return;
        }
        let (me, now) = (shared.me(), shared.now);
        for (name, member) in self.nodes.iter_mut().filter(|(name, _)| **name != me) {
            if member.alive && now - member.heard >= member.age_max() {
                member.alive = false;
                shared.event(Event::Member(*name));
            }
        }
        let is_kept = |member: &Member| member.alive || !(member.is_client() || now - member.heard >= GONE_KEPT);
        self.nodes.retain(|name, member| *name == me || is_kept(member));
        self.look_again(shared);
    }

    /// Sets the timer for the next member that may be gone or be forgotten.
    fn look_again(&self, shared: &mut Shared) {
        let end = |member: &Member| member.heard + if member.alive { member.age_max() } else { GONE_KEPT };
        let others = self.iter().filter(|(name, _)| *name != shared.me());
        if let Some(next) = others.map(|(_, member)| end(member)).min() {
            shared.timers.set_earlier(Timer::Members, next.max(shared.now + shared.timing(LOOK_AFTER_MIN)));
        }
    }
}

impl Member {
    fn new(birth: Birth, told: Told, now: Instant) -> Member {
        Member {
            epoch: told.epoch,
            birth,
            alive: true,
            heard: now,
            left: false,
            proven: told.fresh,
            silent: false,
            sequence: told.sequence,
            ended: 0,
            asked: None,
        }
    }

    /// Whether it is a client: nobody looks for it once it is gone.
    fn is_client(&self) -> bool {
        self.birth.slots == 0 && !self.birth.resident && self.birth.draining.is_none()
    }

    fn age_max(&self) -> Duration {
        Duration::from_secs(u64::from(self.birth.again_s.max(1))) * INTERVALS_MAX
    }

    /// Asks a node for its birth, but not too often.
    fn ask(&mut self, shared: &mut Shared, name: NodeId) {
        if self.asked.is_none_or(|asked| shared.now - asked >= shared.timing(ASK_AGAIN)) {
            self.asked = Some(shared.now);
            shared.outbox.send(name, Message::Hello);
        }
    }

    fn summary(&self, name: NodeId, now: Instant) -> MemberSummary {
        let heard_ms = (now - self.heard).as_millis() as u64;
        MemberSummary { name, alive: self.alive, heard_ms, left: self.left, client: self.is_client() }
    }
}

/// Drops labels and capabilities beyond the limits.
pub(crate) fn cut_features(features: &mut Vec<String>) {
    features.retain(|feature| feature.len() <= FEATURE_BYTES_MAX);
    features.truncate(FEATURES_MAX);
    features.shrink_to_fit();
}
