//! Tasks that some nodes are too small for: they go, uncounted, to nodes that are large enough.
//!
//! ```text
//!   Leased ──too small──► Ready, and looked at one by one ──► Leased by a larger node
//!                              │
//!                              └─ no live node is large enough ──► Ended: which limit of which node
//! ```
//!
//! What a node is too small for is no outcome. What it takes it says itself ([`Takes`]), so that nothing larger is
//! sent to it; what shows only when a task runs (its result, its memory, its depth) is kept for the task, in memory:
//! the next incarnation of this origin learns it again. The same for a module that a node cannot load: whoever has
//! asked for it is told, and no task waits for that node. A node whose link has just gone counts as live for 2 s;
//! after a restart with jobs, nodes have 5 s to be heard of.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem::size_of;

use broccoli_proto::message::{Attempt, Available, Failure, Message, Takes, TooSmall, Want};
use broccoli_proto::packet::Address;
use broccoli_proto::{Cause, Epoch, ModuleHash, NodeId};
use litemap::LiteMap;

use super::growth::SETTLED;
use super::jobs::Job;
use super::timeouts::{ANSWERS_WANTED, NO_NODE};
use super::{Around, LEASES, Origin};
use crate::canvas::{Effects, is_pin};
use crate::members::matches;
use crate::shared::{Shared, pop_first};
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};
use crate::worker::{too_long, too_many_args};

/// Nodes that a task is tried on which turn out to be too small for it; then it fails.
const TRIED_MAX: usize = 64;
/// Waiting tasks that are looked at for a lease in one go; the others have their turn after them …
const LEASED_AT_ONCE_MAX: usize = 256;
/// … and those that are looked at for their end.
const ENDED_AT_ONCE_MAX: usize = 4_096;
/// Refusals of modules that are remembered …
const REFUSALS_MAX: usize = 1_024;
/// … and the longest reason that is kept of one.
const REASON_BYTES_MAX: usize = 512;
/// A node that is large enough has this long to get the module.
const MODULE_COMES: LinkTime = link_ms(10_000);
/// After a restart with jobs, nodes have this long to be heard of: what has answered before may be stalled now.
const HEARD_AGAIN: LinkTime = link_ms(5_000);
/// What a node takes that does not say so.
pub(super) const ANYTHING: Takes = Takes { args_bytes: u32::MAX, result_bytes: u32::MAX };

/// A task: number of its job, and its step.
type Key = (u64, u32);

/// What is known of a task that some nodes are too small for.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Its arguments, if they were too long for a node.
    args_bytes: u64,
    /// Its result, if that was.
    result_bytes: u64,
    /// Nodes that were too small in what they do not say of themselves.
    tried: Vec<(NodeId, Epoch)>,
    /// The largest of them, as [`Place::size`].
    floor: Option<u32>,
    /// The failure that is told if there is no larger node, and whose it is.
    worst: Option<(NodeId, Failure)>,
}

/// A node that a routing allows.
#[derive(Debug)]
pub(super) struct Place {
    name: NodeId,
    epoch: Epoch,
    takes: Takes,
    pub(super) code: Code,
}

/// Whether a node can run the functions of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    /// It holds the module.
    Here,
    /// It may get it.
    ToCome,
    /// It cannot load it, or never gets it.
    Never,
    /// Its link has just gone: it may come back with what it had.
    Away,
}

/// Modules that nodes cannot load, and why.
pub(super) type Refusals = LiteMap<(ModuleHash, NodeId), (Epoch, String)>;

impl Place {
    /// The one order there is between nodes that say nothing of their memory.
    fn size(&self) -> u32 {
        self.takes.args_bytes
    }
}

impl Demand {
    /// About what it takes of the memory.
    pub(super) fn bytes(&self) -> usize {
        let text = self.worst.as_ref().map_or(0, |(_, failure)| failure.text.len());
        size_of::<Demand>() + text + self.tried.len() * size_of::<(NodeId, Epoch)>()
    }

    /// Whether a node may be large enough, as far as that is known.
    fn fits(&self, place: &Place) -> bool {
        self.args_bytes <= u64::from(place.takes.args_bytes)
            && self.result_bytes <= u64::from(place.takes.result_bytes)
            && self.tried.len() < TRIED_MAX
            && !self.tried.contains(&(place.name, place.epoch))
    }

    /// The places that are tried next: those that are larger than all before, if there are any.
    fn next<'p>(&self, places: &'p [Place]) -> impl Iterator<Item = &'p Place> {
        let fitting = || places.iter().filter(|place| place.code == Code::Here && self.fits(place));
        let is_larger = |place: &&Place| Some(place.size()) > self.floor;
        let floor = if fitting().any(|place| is_larger(&place)) { self.floor } else { None };
        let chosen: Vec<&Place> = fitting().filter(|place| Some(place.size()) > floor).collect();
        chosen.into_iter()
    }

    /// A node was too small.
    fn learn(&mut self, place: &Place, args_bytes: u64, failure: Failure) {
        let TooSmall { result_bytes, .. } = failure.too_small.unwrap_or_default();
        if args_bytes > u64::from(place.takes.args_bytes) {
            self.args_bytes = args_bytes;
        }
        self.result_bytes = self.result_bytes.max(result_bytes.unwrap_or(0));
        if self.fits(place) {
            self.tried.push((place.name, place.epoch));
        }
        if self.worst.is_none() || Some(place.size()) >= self.floor {
            self.worst = Some((place.name, failure));
        }
        self.floor = self.floor.max(Some(place.size()));
    }

    /// Which limit of which node it was: of those that are there, the one with the largest.
    fn verdict(&self, places: &[Place]) -> Option<(NodeId, Failure)> {
        let largest = |limit: fn(&Takes) -> u32| places.iter().max_by_key(|place| limit(&place.takes));
        if let Some(place) = largest(|takes| takes.args_bytes)
            && self.args_bytes > u64::from(place.takes.args_bytes)
        {
            let failure = too_many_args(self.args_bytes as usize, place.takes.args_bytes as usize);
            return Some((place.name, failure));
        }
        if let Some(place) = largest(|takes| takes.result_bytes)
            && self.result_bytes > u64::from(place.takes.result_bytes)
        {
            let failure = Failure::result_too_large(self.result_bytes as usize, place.takes.result_bytes as usize);
            return Some((place.name, failure));
        }
        self.worst.clone()
    }
}

/// About what is kept of a failure that says that a node is too small.
pub(super) fn learned_bytes(failure: &Failure) -> usize {
    size_of::<Demand>() + size_of::<(NodeId, Epoch)>() + failure.text.len()
}

/// Whether a routing is meant for this node alone.
fn is_named(on: &[String], name: NodeId) -> bool {
    on.iter().any(|want| want == name.as_str() || is_pin(want, name))
}

impl Job {
    /// A node was too small for a task of this job.
    fn learn(&mut self, step: u32, place: &Place, args_bytes: u64, failure: Failure) {
        let demand = self.demands.entry(step).or_default();
        let before = if demand.worst.is_some() { demand.bytes() } else { 0 };
        demand.learn(place, args_bytes, failure);
        self.demands_bytes = self.demands_bytes + demand.bytes() - before;
    }

    /// A task has ended.
    pub(super) fn forget_demand(&mut self, step: u32) {
        if let Some(demand) = self.demands.remove(&step) {
            self.demands_bytes -= demand.bytes();
        }
    }
}

/// Which nodes there are.
impl Origin {
    /// The live nodes that a routing allows.
    pub(super) fn places(&self, shared: &Shared, around: &Around<'_>, want: &Want) -> Vec<Place> {
        let mut places = Vec::new();
        let me = shared.me();
        let travels = around.modules.travels(&want.module);
        let place = |name: NodeId, epoch: Epoch, takes: Takes, holds: bool| {
            let refused = self.refusals.get(&(want.module, name)).is_some_and(|(by, _)| *by == epoch);
            let code = match holds {
                true => Code::Here,
                false if travels && !refused => Code::ToCome,
                false => Code::Never,
            };
            Place { name, epoch, takes, code }
        };
        let holds = |digest: u64| around.modules.peer_holds(digest, &want.module);
        let config = &shared.config;
        if config.slots > 0 && !shared.draining && matches(&want.on, me, &config.features) {
            places.push(place(me, shared.epoch, config.limits.takes(), holds(around.modules.digest())));
        }
        for (name, member) in around.members.iter().filter(|(name, _)| *name != me) {
            let birth = &member.birth;
            let is_away = !member.alive && shared.now - member.heard < shared.timing(NO_NODE);
            if birth.slots > 0 && matches(&want.on, name, &birth.features) && (member.alive || is_away) {
                let peer = self.peers.get(&name).filter(|peer| peer.epoch == member.epoch);
                let holds = holds(birth.modules) || peer.is_some_and(|peer| holds(peer.modules));
                let place = place(name, member.epoch, birth.takes.unwrap_or(ANYTHING), holds);
                places.push(if is_away { Place { code: Code::Away, ..place } } else { place });
            }
        }
        // A chip hears of no births: for it those are there that have asked for work.
        for (name, peer) in &self.peers {
            let is_there = !peer.suspected && *name != me && around.members.get(*name).is_none();
            if is_there && matches(&want.on, *name, &peer.features) {
                places.push(place(*name, peer.epoch, peer.takes, holds(peer.modules)));
            }
        }
        places
    }

    /// Whether what is known of other nodes is to be relied on.
    pub(super) fn sees_nodes(&self, shared: &Shared, around: &Around<'_>) -> bool {
        let is_alone = !self.journal.is_on() && around.members.iter().all(|(name, _)| name == shared.me());
        let settled = if self.took_over { shared.timing(HEARD_AGAIN) } else { shared.timing(SETTLED) };
        if shared.connected { shared.now - self.growth.connected_at() >= settled } else { is_alone }
    }
}

/// Learning.
impl Origin {
    /// A node is too small for the current attempt at a task, which goes elsewhere.
    pub(super) fn on_too_small(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        attempt: Attempt,
        failure: Failure,
    ) -> Result<(), Failure> {
        let max = shared.config.limits.result_bytes_max;
        let result_bytes = failure.too_small.and_then(|too_small| too_small.result_bytes).unwrap_or(0);
        if result_bytes > u64::from(max) {
            // Nor does this origin take it, whoever gives it.
            return Err(too_long(result_bytes as usize, max));
        }
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return Ok(());
        };
        let (epoch, takes) = self.peers.get(&from).map_or((shared.epoch, ANYTHING), |peer| (peer.epoch, peer.takes));
        let place = Place { name: from, epoch, takes, code: Code::Here };
        let args_bytes = job.args_bytes(attempt.step) as u64;
        job.learn(attempt.step, &place, args_bytes, failure);
        self.memory.recount(attempt.job, job);
        self.give_back(shared, attempt);
        self.dispatch_due = true;
        Ok(())
    }

    /// A node cannot load a module that it was asked for.
    pub(crate) fn on_module_refused(
        &mut self,
        shared: &Shared,
        from: NodeId,
        epoch: Epoch,
        module: ModuleHash,
        mut reason: String,
    ) {
        if self.refusals.len() >= shared.config.limits.nodes_max.min(REFUSALS_MAX) {
            pop_first(&mut self.refusals);
        }
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        reason.shrink_to_fit();
        self.refusals.insert((module, from), (epoch, reason));
        self.dispatch_due = true;
    }
}

/// Leasing.
impl Origin {
    /// Hands out tasks of which each has its own nodes, one by one.
    pub(super) fn dispatch_one_by_one(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32, priority: u8) {
        let Some(want) = self.queue.want(class).cloned() else {
            return;
        };
        if self.with_credit(shared, around, class).is_empty() {
            return;
        }
        let places = self.places(shared, around, &want);
        let (mut kept, mut permits_wanted) = (Vec::new(), 0);
        for _ in 0..self.queue.waiting(class, priority).min(LEASED_AT_ONCE_MAX) {
            let Some((number, step)) = self.queue.pop(class, priority) else {
                break;
            };
            if !self.jobs.get_mut(&number).is_some_and(|job| job.keeps_entry(step)) {
                continue;
            }
            // One whose result there is no room for is passed over.
            let has_room = self.memory.is_leased(number);
            let place = self.place_for(shared, (number, step), &places).filter(|_| has_room);
            let is_open = self.queue.open(class, shared.now) > 0;
            match place {
                Some(name) if is_open => self.lease_to(shared, class, name, (number, step)),
                _ => {
                    permits_wanted += u32::from(place.is_some());
                    kept.push((number, step));
                }
            }
        }
        kept.into_iter().for_each(|(number, step)| self.queue.push_back(class, priority, number, step));
        if permits_wanted > 0 && !self.queue.awaits_permits(class) {
            self.ask_permits(shared, around, class, permits_wanted);
        }
    }

    /// Which node with credit is to get a task; of those that are equally large the one with most credit.
    fn place_for(&self, shared: &Shared, (number, step): Key, places: &[Place]) -> Option<NodeId> {
        let demand = self.jobs.get(&number)?.demands.get(&step)?;
        let credit = |place: &Place| {
            let reachable = shared.connected || place.name == shared.me();
            let peer = self.peers.get(&place.name).filter(|peer| reachable && peer.epoch == place.epoch);
            peer.map_or(0, |peer| peer.credit())
        };
        let open = demand.next(places).filter(|place| credit(place) > 0);
        open.max_by_key(|place| (place.size(), credit(place))).map(|place| place.name)
    }

    fn lease_to(&mut self, shared: &mut Shared, class: u32, name: NodeId, (number, step): Key) {
        let attempt = self.jobs.get_mut(&number).and_then(|job| job.lease(number, step));
        let (Some(attempt), Some(peer)) = (attempt, self.peers.get_mut(&name)) else {
            return;
        };
        peer.lease(attempt, shared.now);
        if let Some((_, permits)) = self.queue.permits(class) {
            permits.spend();
        }
        self.last_worker = Some(name);
        shared.outbox.mark(Address::Node(name));
        shared.timers.set_earlier(Timer::Leases(name), shared.now + shared.timing(LEASES));
    }

    /// Asks nodes for credit that are large enough for tasks of a class. Returns whether any is known.
    pub(super) fn call_large(
        &self,
        shared: &mut Shared,
        around: &Around<'_>,
        class: u32,
        available: &Available,
    ) -> bool {
        let Some(want) = self.queue.want(class).filter(|_| self.queue.is_choosy(class)) else {
            return false;
        };
        let places = self.places(shared, around, want);
        let waiting = self.queue.waiting_in(class).take(ANSWERS_WANTED as usize);
        let demands: Vec<&Demand> = waiting.filter_map(|key| self.demand(key)).collect();
        let is_wanted = |place: &&Place| {
            matches!(place.code, Code::Here | Code::ToCome) && demands.iter().any(|demand| demand.fits(place))
        };
        let mut any = false;
        for place in places.iter().filter(is_wanted).take(ANSWERS_WANTED as usize) {
            any = true;
            shared.outbox.send(place.name, Message::Available(Available { chance: u16::MAX, ..available.clone() }));
        }
        any
    }

    fn demand(&self, (number, step): Key) -> Option<&Demand> {
        self.jobs.get(&number)?.demands.get(&step).map(Box::as_ref)
    }
}

/// Giving up.
impl Origin {
    /// Ends those tasks of a class that no live node is large enough for. Returns whether there may be more.
    pub(super) fn end_homeless(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32) -> bool {
        let is_choosy = self.queue.is_choosy(class);
        if (!is_choosy && self.refusals.is_empty()) || !self.sees_nodes(shared, around) {
            return false;
        }
        let Some(want) = self.queue.want(class).cloned() else {
            return false;
        };
        let mut places = self.places(shared, around, &want);
        if places.is_empty() || (!is_choosy && places.iter().any(|place| place.code != Code::Never)) {
            // It waits for a node, as any task does.
            return false;
        }
        let hopes = places.iter().any(|place| place.code == Code::ToCome);
        if self.queue.hopes_for(class, hopes, shared.now) >= shared.timing(MODULE_COMES) {
            places.retain(|place| place.code != Code::ToCome);
        }
        let refusal = places.iter().find_map(|place| {
            let (_, reason) = self.refusals.get(&(want.module, place.name))?;
            Some((place.name, Failure::new(Cause::Unfit, reason)))
        });
        let waiting: Vec<Key> = self.queue.waiting_in(class).take(ENDED_AT_ONCE_MAX).collect();
        let mut ended = 0;
        for key in waiting {
            let demand = self.demand(key).filter(|_| is_choosy);
            let is_home = |place: &Place| place.code != Code::Never && demand.is_none_or(|demand| demand.fits(place));
            if places.iter().any(is_home) {
                continue;
            }
            let verdict = demand.and_then(|demand| demand.verdict(&places)).or_else(|| refusal.clone());
            if let Some((node, failure)) = verdict {
                self.end_unfit(shared, key, &want, node, failure);
                ended += 1;
            }
        }
        ended == ENDED_AT_ONCE_MAX
    }

    fn end_unfit(&mut self, shared: &mut Shared, (number, step): Key, want: &Want, node: NodeId, mut failure: Failure) {
        let Some(job) = self.jobs.get(&number).filter(|job| job.is_ready(step)) else {
            return;
        };
        if !is_named(&want.on, node) {
            failure.text.push_str("; no live node that may run it is large enough");
        }
        let attempt = job.open_task(step).map_or(0, |task| task.attempt);
        let error = job.error(step, Some(node), attempt, failure);
        let mut effects = Effects::default();
        self.complete(shared, number, step, Err(error), &mut effects);
        self.follow(shared, number, effects);
    }
}
