//! The module sets of other nodes, by their digest, and the requests for their manifests.
//!
//! The caller decides whether a manifest is acceptable. This file knows neither the code of modules nor what this node
//! holds.

use broccoli_proto::message::{ManifestRequest, Message};
use broccoli_proto::{ModuleHash, NodeId};
use litemap::LiteMap;

use crate::members::Members;
use crate::shared::Shared;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Manifests are requested again after this time.
const AGAIN: LinkTime = link_ms(300);
/// After this many requests, another node is asked.
const TRIES_MAX: u32 = 4;
/// After this many requests without an answer, the set is requested only when its digest is announced again.
const ASKED_MAX: u32 = 16;
/// Most module sets of other nodes that are remembered.
const SETS_MAX: usize = 256;

/// A set of modules.
pub(super) type Hashes = LiteMap<ModuleHash, ()>;

/// The module sets of other nodes.
#[derive(Debug, Default)]
pub(super) struct Sets {
    by_digest: LiteMap<u64, Set>,
    /// Nodes with a pending request: the digest, and the number of requests.
    asked: LiteMap<NodeId, (u64, u32)>,
}

#[derive(Debug, Default)]
struct Set {
    modules: Hashes,
    /// Manifests that are not acceptable: the set counts as complete without them.
    unacceptable: Hashes,
    complete: bool,
}

impl Sets {
    /// Whether the set with this digest is known to hold a module.
    pub(super) fn holds(&self, digest: u64, module: &ModuleHash) -> bool {
        self.by_digest.get(&digest).is_some_and(|set| set.modules.contains_key(module))
    }

    /// Whether a set is completely known.
    pub(super) fn is_complete(&self, digest: u64) -> bool {
        self.by_digest.get(&digest).is_some_and(|set| set.complete)
    }

    /// Whether no answer is pending from a node that was heard from just now. Nodes that may be gone do not count.
    pub(super) fn is_settled(&self, shared: &Shared) -> bool {
        self.asked.keys().all(|node| shared.sessions.epoch_of(*node).is_none())
    }

    /// A node has announced the digest of its set. If the set is unknown, its manifests are requested.
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
        // One answer is enough for all nodes with the same set, if the asked node is live.
        let is_there = |node: &NodeId| shared.sessions.epoch_of(*node).is_some();
        let mut others = self.asked.iter().filter(|(_, (asked, _))| *asked == digest).map(|(node, _)| node);
        if others.any(|node| is_there(node) || !is_there(&from)) {
            return;
        }
        self.ask(shared, from, digest, 0);
    }

    /// No answer has arrived: asks again, after some tries another node with the same set.
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

    /// A node does not answer: asks another one with the same set, if there is one.
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

    /// Manifests of a set have arrived. If there are too many sets, drops all others.
    pub(super) fn begin(&mut self, digest: u64) {
        if self.by_digest.len() >= SETS_MAX && !self.by_digest.contains_key(&digest) {
            self.by_digest.clear();
        }
        self.by_digest.entry(digest).or_default();
    }

    /// Adds a manifest to a set of at most `modules_max` manifests.
    pub(super) fn add(&mut self, digest: u64, module: ModuleHash, is_acceptable: bool, modules_max: usize) {
        let set = self.by_digest.entry(digest).or_default();
        let modules = if is_acceptable { &mut set.modules } else { &mut set.unacceptable };
        if modules.len() < modules_max {
            modules.insert(module, ());
        }
    }

    /// Returns the modules of a set of `total` modules if the latest manifests have completed it.
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

    /// Forgets all sets; they are requested again.
    pub(super) fn clear(&mut self) {
        self.by_digest.clear();
    }

    /// Checks what must hold between two inputs.
    pub(super) fn validate(&self, shared: &Shared) {
        let is_awaited = self.asked.keys().all(|node| shared.timers.is_set(Timer::Manifests(*node)));
        assert!(is_awaited, "answers about manifests are waited for");
    }

    /// Reports the size and limit of each collection.
    pub(super) fn sizes(&self, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("sets", self.by_digest.len(), SETS_MAX);
    }
}
