//! Which modules other nodes have: sets of modules by their digest, and who was asked for the manifests of a set.
//!
//! Whether a manifest is acceptable is decided by its reader. Knows neither the code of modules nor what this node
//! holds.

use broccoli_proto::message::{ManifestRequest, Message};
use broccoli_proto::{ModuleHash, NodeId};
use litemap::LiteMap;

use crate::members::Members;
use crate::shared::Shared;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Manifests are asked for again after this time …
const AGAIN: LinkTime = link_ms(300);
/// … and after so many times, of another node.
const TRIES_MAX: u32 = 4;
/// After so many times without an answer, the next digest that is heard decides.
const ASKED_MAX: u32 = 16;
/// Sets of other nodes that are remembered.
const SETS_MAX: usize = 256;

/// A set of modules.
pub(super) type Hashes = LiteMap<ModuleHash, ()>;

/// The sets of modules of other nodes.
#[derive(Debug, Default)]
pub(super) struct Sets {
    by_digest: LiteMap<u64, Set>,
    /// Nodes that were asked for their manifests, and how often.
    asked: LiteMap<NodeId, (u64, u32)>,
}

#[derive(Debug, Default)]
struct Set {
    modules: Hashes,
    /// Told, but not acceptable: the set is complete without them.
    unacceptable: Hashes,
    complete: bool,
}

impl Sets {
    /// Whether the set with this digest holds a module, as far as it is known.
    pub(super) fn holds(&self, digest: u64, module: &ModuleHash) -> bool {
        self.by_digest.get(&digest).is_some_and(|set| set.modules.contains_key(module))
    }

    /// Whether all of a set is known.
    pub(super) fn is_complete(&self, digest: u64) -> bool {
        self.by_digest.get(&digest).is_some_and(|set| set.complete)
    }

    /// Whether no answer is awaited of a node that was heard just now; one that may be gone is not waited for.
    pub(super) fn is_settled(&self, shared: &Shared) -> bool {
        self.asked.keys().all(|node| shared.sessions.epoch_of(*node).is_none())
    }

    /// A node has said the digest of its set: it is asked for the manifests, unless the set is known.
    pub(super) fn on_digest(&mut self, shared: &mut Shared, from: NodeId, digest: u64, is_known: bool) {
        let asked = self.asked.get(&from).map(|(asked, _)| *asked);
        if from == shared.me() || asked == Some(digest) {
            return;
        }
        if is_known {
            if asked.is_some() {
                self.asked.remove(&from);
                shared.timers.cancel(Timer::Manifests(from));
            }
            return;
        }
        // One answer serves for all nodes with the same set, if the one that was asked is there.
        let is_there = |node: &NodeId| shared.sessions.epoch_of(*node).is_some();
        let mut others = self.asked.iter().filter(|(_, (asked, _))| *asked == digest).map(|(node, _)| node);
        if others.any(|node| is_there(node) || !is_there(&from)) {
            return;
        }
        self.ask(shared, from, digest, 0);
    }

    /// No answer has come: asks again, sooner or later another node with the same set.
    pub(super) fn on_timer(&mut self, shared: &mut Shared, members: &Members, from: NodeId) {
        let Some((digest, tries)) = self.asked.remove(&from) else {
            return;
        };
        let tries = tries + 1;
        if tries >= ASKED_MAX {
            return;
        }
        let next = if tries.is_multiple_of(TRIES_MAX) { members.other_with(from, digest) } else { None };
        let next = next.filter(|node| *node != shared.me()).unwrap_or(from);
        self.ask(shared, next, digest, tries);
    }

    /// A node does not answer: another one with the same set is asked, if there is one.
    pub(super) fn on_silent(&mut self, shared: &mut Shared, members: &Members, from: NodeId) {
        let Some((digest, tries)) = self.asked.remove(&from) else {
            return;
        };
        shared.timers.cancel(Timer::Manifests(from));
        if let Some(next) = members.other_with(from, digest).filter(|node| *node != shared.me()) {
            self.ask(shared, next, digest, tries);
        }
    }

    fn ask(&mut self, shared: &mut Shared, from: NodeId, digest: u64, tries: u32) {
        self.asked.insert(from, (digest, tries));
        shared.outbox.send(from, Message::ManifestRequest(ManifestRequest { digest }));
        shared.timers.set(Timer::Manifests(from), shared.now + shared.timing(AGAIN));
    }

    /// Some manifests of a set have come. If there are too many sets, all others are dropped.
    pub(super) fn begin(&mut self, digest: u64) {
        if self.by_digest.len() >= SETS_MAX && !self.by_digest.contains_key(&digest) {
            self.by_digest.clear();
        }
        self.by_digest.entry(digest).or_default();
    }

    /// A manifest belongs to a set, of which at most `modules_max` are remembered.
    pub(super) fn add(&mut self, digest: u64, module: ModuleHash, is_acceptable: bool, modules_max: usize) {
        let set = self.by_digest.entry(digest).or_default();
        let modules = if is_acceptable { &mut set.modules } else { &mut set.unacceptable };
        if modules.len() < modules_max {
            modules.insert(module, ());
        }
    }

    /// Whether a set of `total` modules has become complete with what has just come from a node; gives its modules.
    pub(super) fn complete(&mut self, shared: &mut Shared, from: NodeId, digest: u64, total: u16) -> Option<Hashes> {
        let set = self.by_digest.entry(digest).or_default();
        if set.complete || set.modules.len() + set.unacceptable.len() < usize::from(total) {
            return None;
        }
        set.complete = true;
        let modules = set.modules.clone();
        self.asked.retain(|node, (asked, _)| *node != from && *asked != digest);
        shared.timers.cancel(Timer::Manifests(from));
        Some(modules)
    }

    /// Drops what is known of all sets: it is asked for again.
    pub(super) fn clear(&mut self) {
        self.by_digest.clear();
    }

    /// Checks what must hold between two inputs.
    pub(super) fn validate(&self, shared: &Shared) {
        let is_awaited = self.asked.keys().all(|node| shared.timers.is_set(Timer::Manifests(*node)));
        assert!(is_awaited, "answers about manifests are waited for");
    }

    /// How full each collection is.
    pub(super) fn sizes(&self, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("sets", self.by_digest.len(), SETS_MAX);
    }
}
