//! Modules: which modules this node holds, which ones other nodes hold, and the pull, installation and removal of
//! modules.
//!
//! ```text
//!   Birth, Fetch, Available carry the digest of a node's set of modules
//!     unknown digest ──► ManifestRequest ──► Manifests ──► catalog, set
//!     newer version  ──► Reserve, ContentRequest … ContentPiece … ──► StoreChunk … ──► Install ──► Installed
//! ```
//!
//! A module is pulled from any node that holds it, unless the shell has no room for it. It is usable once its
//! signature, the hash of each chunk and its code were checked. Until then, or if it is refused, the previous version
//! stays in use. The shell stores the code; this file keeps only manifests.

mod manifests;
mod names;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use broccoli_abi::Functions;
use broccoli_abi::builtin::is_builtin;
use broccoli_proto::message::{ContentPiece, ManifestRequest, Manifests, Message, ModuleRefused, ModuleVersion, Want};
use broccoli_proto::module::{CHUNK_BYTES, ModuleEntry, SignedManifest, digest, hash};
use broccoli_proto::{ModuleHash, NodeId};
use litemap::LiteMap;

use self::manifests::{Hashes, Sets};
use super::pull::{Extent, Pull};
use crate::config::Limits;
use crate::io::{Action, Event};
use crate::members::Members;
use crate::shared::{Shared, pop_first};
use crate::time::Instant;
use crate::timers::Timer;

/// After this many stalls without a chunk, another node is asked. If no node has the chunks, the waiting time is
/// doubled after the same number of stalls.
const STALLS_MAX: u32 = 4;
/// The waiting time is doubled at most this often.
const DOUBLINGS_MAX: u32 = 4;
/// About how many bytes of one module are in flight at a time.
const WINDOW_BYTES: u32 = 16 * CHUNK_BYTES;

/// The state of all modules.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// Modules that can run here, or were deployed from here.
    held: Hashes,
    digest: u64,
    /// All modules with a known and verified manifest.
    catalog: LiteMap<ModuleHash, ModuleEntry>,
    /// The module sets of other nodes.
    sets: Sets,
    /// Modules of the catalog that are being pulled.
    pulls: LiteMap<ModuleHash, Box<CodePull>>,
    /// Modules that this node cannot use, with the reason.
    refused: LiteMap<ModuleHash, String>,
}

/// The pull of a module's code.
#[derive(Debug)]
struct CodePull {
    pull: Pull,
    /// Nodes that have sent invalid data.
    excluded: Vec<NodeId>,
    /// Stalls since the last chunk arrived.
    stalls: u32,
}

impl CodePull {
    /// When the chunks in flight count as lost. The time grows if no node has them.
    fn stalls_at(&self) -> Instant {
        self.pull.stalls_at((self.stalls / STALLS_MAX).min(DOUBLINGS_MAX))
    }
}

/// Queries.
impl Modules {
    pub(crate) fn new(shared: &Shared) -> Modules {
        let mut modules = Modules::default();
        for native in &shared.config.natives {
            let entry = ModuleEntry::Native(native.clone());
            modules.held.insert(entry.id(), ());
            modules.catalog.insert(entry.id(), entry);
        }
        modules.digest = digest(modules.held.keys());
        modules
    }

    /// Digest of the modules that this node holds.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether this node can run a function.
    pub(crate) fn runs(&self, module: &ModuleHash, function: &str) -> bool {
        let has = |entry: &ModuleEntry| entry.functions().iter().any(|f| f.name == function);
        self.held.contains_key(module) && self.catalog.get(module).is_some_and(has)
    }

    /// Whether this node holds a module.
    pub(crate) fn holds(&self, module: &ModuleHash) -> bool {
        self.held.contains_key(module)
    }

    /// Whether a module is pulled by other nodes: not if it is built in.
    pub(crate) fn travels(&self, module: &ModuleHash) -> bool {
        matches!(self.catalog.get(module), Some(ModuleEntry::Wasm(_)))
    }

    /// The name of a module, if its manifest is known.
    pub(crate) fn name_of(&self, module: &ModuleHash) -> Option<&str> {
        self.catalog.get(module).map(ModuleEntry::name)
    }

    /// The functions of a module.
    pub(crate) fn functions_of(&self, module: &ModuleHash) -> Option<&Functions> {
        self.catalog.get(module).map(ModuleEntry::functions)
    }

    /// Whether a node with this digest of its module set holds a module.
    pub(crate) fn peer_holds(&self, digest: u64, module: &ModuleHash) -> bool {
        if digest == self.digest {
            return self.held.contains_key(module);
        }
        self.sets.holds(digest, module)
    }

    /// Whether the module set with this digest is known.
    pub(crate) fn knows(&self, digest: u64) -> bool {
        digest == self.digest || self.sets.is_complete(digest)
    }

    /// Whether no answer about manifests is pending from a node that was heard from just now. Nodes that may be gone do
    /// not count.
    pub(crate) fn is_settled(&self, shared: &Shared) -> bool {
        self.sets.is_settled(shared)
    }

    /// Newest version of each module that this node holds, except built-in ones.
    pub(crate) fn versions(&self) -> Vec<ModuleVersion> {
        let mut newest: LiteMap<&str, &ModuleEntry> = LiteMap::new_vec();
        let held = self.held.keys().filter_map(|id| self.catalog.get(id));
        for entry in held.filter(|entry| !is_builtin(entry.name())) {
            let known = newest.entry(entry.name()).or_insert(entry);
            if entry.version() > known.version() {
                *known = entry;
            }
        }
        let there = newest.into_iter().filter(|(_, entry)| !is_tombstone(entry));
        there.map(|(name, entry)| ModuleVersion { name: name.into(), version: entry.version() }).collect()
    }
}

/// Learning the modules of other nodes.
impl Modules {
    /// A node has, or recently had, a module set with this digest. If the set is unknown, the node is asked for it.
    pub(crate) fn on_digest(&mut self, shared: &mut Shared, from: NodeId, digest: u64) {
        let is_known = self.knows(digest);
        self.sets.on_digest(shared, from, digest, is_known);
    }

    /// No manifests have arrived: asks again, after some tries another node with the same set.
    pub(crate) fn on_manifests_timer(&mut self, shared: &mut Shared, members: &Members, from: NodeId) {
        self.sets.on_timer(shared, members, from);
    }

    /// A node does not answer: asks another one with the same set, if there is one.
    pub(crate) fn on_silent(&mut self, shared: &mut Shared, members: &Members, from: NodeId) {
        self.sets.on_silent(shared, members, from);
    }

    /// A node requests the manifests of this one. Returns false if the digest is outdated: then the caller sends its
    /// birth with the current one.
    pub(crate) fn on_manifest_request(&self, shared: &mut Shared, from: NodeId, request: ManifestRequest) -> bool {
        if request.digest != self.digest {
            return false;
        }
        let entries: Vec<ModuleEntry> = self.held.keys().filter_map(|id| self.catalog.get(id)).cloned().collect();
        let total = entries.len() as u16;
        if entries.is_empty() {
            shared.outbox.send(from, Message::Manifests(Manifests { digest: self.digest, total, entries }));
            return true;
        }
        for entry in entries {
            let manifests = Manifests { digest: self.digest, total, entries: alloc::vec![entry] };
            shared.outbox.send(from, Message::Manifests(manifests));
        }
        true
    }

    /// Manifests of another node have arrived. Returns whether its set is complete now.
    pub(crate) fn on_manifests(&mut self, shared: &mut Shared, from: NodeId, manifests: Manifests) -> bool {
        let modules_max = shared.config.limits.modules_max * 4;
        let Manifests { digest, total, entries } = manifests;
        self.sets.begin(digest);
        for entry in entries {
            let id = entry.id();
            let is_acceptable = self.learn(shared, entry);
            self.sets.add(digest, id, is_acceptable, modules_max);
        }
        let Some(modules) = self.sets.complete(shared, from, digest, total) else {
            return false;
        };
        self.pull_newest(shared, from, &modules);
        true
    }

    /// An origin needs modules for its tasks; they may be old versions.
    pub(crate) fn on_wanted(&mut self, shared: &mut Shared, from: NodeId, wants: &[Want]) {
        for want in wants {
            if let Some(reason) = self.refused.get(&want.module) {
                // Tells the origin, so that its tasks do not wait for this node.
                let refused = ModuleRefused { module: want.module, reason: reason.clone(), asked: Some(true) };
                shared.outbox.send(from, Message::ModuleRefused(refused));
                continue;
            }
            if let Some(ModuleEntry::Wasm(signed)) = self.catalog.get(&want.module) {
                let signed = signed.clone();
                self.pull(shared, from, signed);
            }
        }
    }

    /// Adds a manifest to the catalog. Returns whether it is acceptable.
    fn learn(&mut self, shared: &mut Shared, entry: ModuleEntry) -> bool {
        let id = entry.id();
        if let ModuleEntry::Wasm(signed) = &entry
            && !self.catalog.contains_key(&id)
            && let Err(error) = signed.verify(&shared.config.deploy_public)
        {
            self.refuse(shared, id, error.to_string());
            return false;
        }
        if !self.catalog.contains_key(&id) {
            self.make_room(shared);
            self.catalog.insert(id, entry);
        }
        true
    }

    /// Pulls the newest version of each module in a node's set that is newer than what this node holds. Older versions
    /// are pulled when a task needs them.
    fn pull_newest(&mut self, shared: &mut Shared, from: NodeId, modules: &Hashes) {
        let mut newest: LiteMap<&str, &SignedManifest> = LiteMap::new_vec();
        for id in modules.keys() {
            let Some(ModuleEntry::Wasm(signed)) = self.catalog.get(id) else {
                continue;
            };
            let known = newest.entry(&signed.manifest.name).or_insert(signed);
            if signed.manifest.version > known.manifest.version {
                *known = signed;
            }
        }
        let is_newer = |signed: &&SignedManifest| {
            let held = self.held.keys().filter_map(|id| self.catalog.get(id));
            let mut same = held.filter(|entry| entry.name() == signed.manifest.name);
            same.all(|entry| entry.version() < signed.manifest.version)
        };
        let wanted: Vec<SignedManifest> = newest.values().copied().filter(is_newer).cloned().collect();
        for signed in wanted {
            self.pull(shared, from, signed);
        }
    }

    /// If there are too many manifests, drops those that no node is known to hold.
    fn make_room(&mut self, shared: &Shared) {
        if self.catalog.len() < shared.config.limits.modules_max * 4 {
            return;
        }
        let (held, pulls) = (&self.held, &self.pulls);
        self.catalog.retain(|id, _| held.contains_key(id) || pulls.contains_key(id));
        self.sets.clear();
    }
}

/// Pulls.
impl Modules {
    fn pull(&mut self, shared: &mut Shared, from: NodeId, signed: SignedManifest) {
        let id = signed.id;
        let busy = self.pulls.len() >= shared.config.limits.modules_max;
        if !shared.config.holds_code
            || busy
            || self.held.contains_key(&id)
            || self.refused.contains_key(&id)
            || self.pulls.contains_key(&id)
        {
            return;
        }
        let extent = Extent { content: id.into(), bytes: signed.manifest.size, piece_bytes: CHUNK_BYTES };
        let pull = Pull::new(from, extent, WINDOW_BYTES, shared.now, shared.config.timing);
        if !signed.manifest.is_tombstone() {
            shared.actions.push_back(Action::Reserve(signed));
        }
        self.pulls.insert(id, Box::new(CodePull { pull, excluded: Vec::new(), stalls: 0 }));
        self.ask_for_chunks(shared, id);
    }

    /// Requests the next missing chunks, or installs the module if there are none.
    fn ask_for_chunks(&mut self, shared: &mut Shared, id: ModuleHash) {
        let Some(code) = self.pulls.get_mut(&id) else {
            return;
        };
        if code.pull.is_whole() {
            shared.timers.cancel(Timer::Pull(id));
            if let Some(ModuleEntry::Wasm(signed)) = self.catalog.get(&id) {
                shared.actions.push_back(Action::Install(signed.clone()));
            }
            return;
        }
        code.pull.ask(shared.now, &mut shared.outbox);
        shared.timers.set(Timer::Pull(id), code.stalls_at());
    }

    /// No chunk has arrived: requests them again, after some tries from another node.
    pub(crate) fn on_pull_timer(&mut self, shared: &mut Shared, members: &Members, id: ModuleHash) {
        let Some(code) = self.pulls.get_mut(&id) else {
            return;
        };
        if shared.now < code.stalls_at() {
            shared.timers.set(Timer::Pull(id), code.stalls_at());
            return;
        }
        code.pull.stall(shared.now);
        code.stalls += 1;
        if code.stalls >= STALLS_MAX {
            self.change_provider(shared, members, id);
        }
        self.ask_for_chunks(shared, id);
    }

    fn change_provider(&mut self, shared: &mut Shared, members: &Members, id: ModuleHash) {
        let me = shared.me();
        let providers: Vec<NodeId> = members
            .alive()
            .filter(|(name, member)| *name != me && self.peer_holds(member.birth.modules, &id))
            .map(|(name, _)| name)
            .collect();
        let Some(code) = self.pulls.get_mut(&id) else {
            return;
        };
        let from = code.pull.provider();
        let is_other = |name: &&NodeId| **name != from && !code.excluded.contains(name);
        let others: Vec<NodeId> = providers.iter().filter(is_other).copied().collect();
        if others.is_empty() {
            code.excluded.clear();
        } else {
            code.pull.set_provider(others[shared.rng.below(others.len() as u64) as usize]);
        }
    }

    /// Length in bytes of the code of a module that this node holds and serves to others.
    pub(super) fn code_bytes(&self, id: &ModuleHash) -> Option<u32> {
        if !self.held.contains_key(id) {
            return None;
        }
        match self.catalog.get(id)? {
            ModuleEntry::Wasm(signed) => Some(signed.manifest.size),
            ModuleEntry::Native(_) => None,
        }
    }

    /// Whether a module is being pulled.
    pub(super) fn is_pulled(&self, id: &ModuleHash) -> bool {
        self.pulls.contains_key(id)
    }

    /// A chunk has arrived.
    pub(super) fn on_piece(&mut self, shared: &mut Shared, members: &Members, from: NodeId, piece: ContentPiece) {
        let id = ModuleHash::from(piece.content);
        let (Some(code), Some(ModuleEntry::Wasm(signed))) = (self.pulls.get_mut(&id), self.catalog.get(&id)) else {
            return;
        };
        let Some(index) = code.pull.missing_index(piece.offset) else {
            return;
        };
        if signed.manifest.chunks.get(index as usize) != Some(&hash(&piece.bytes)) {
            if !code.excluded.contains(&from) {
                code.excluded.push(from);
            }
            self.refuse(shared, id, format!("chunk {index} from {from} does not match its hash"));
            self.change_provider(shared, members, id);
            return;
        }
        code.pull.take(index, shared.now);
        code.stalls = 0;
        shared.actions.push_back(Action::StoreChunk { module: id, index, bytes: piece.bytes });
        self.ask_for_chunks(shared, id);
    }

    /// A node does not hold a module. If it is the one being asked, another one is asked at the next stall.
    pub(super) fn on_gone(&mut self, from: NodeId, id: &ModuleHash) {
        if let Some(code) = self.pulls.get_mut(id).filter(|code| code.pull.provider() == from) {
            code.stalls = code.stalls.max(STALLS_MAX - 1);
        }
    }

    /// The shell has installed a module, or could not. Returns whether the module set has changed.
    pub(crate) fn on_installed(
        &mut self,
        shared: &mut Shared,
        signed: SignedManifest,
        outcome: Result<(), String>,
        in_use: impl Fn(&ModuleHash) -> bool,
    ) -> bool {
        let id = signed.id;
        self.pulls.remove(&id);
        let verified = signed.verify(&shared.config.deploy_public).map_err(|error| error.to_string());
        if let Err(reason) = verified.and(outcome) {
            if self.refused.len() >= shared.config.limits.modules_max * 4 {
                pop_first(&mut self.refused);
            }
            self.refused.insert(id, reason.clone());
            self.refuse(shared, id, reason);
            shared.actions.push_back(Action::Remove(id));
            return false;
        }
        self.make_room(shared);
        let name = signed.manifest.name.clone();
        self.catalog.insert(id, ModuleEntry::Wasm(signed));
        self.held.insert(id, ());
        // The new module may be an old version that a task needs, so it is kept.
        self.drop_old(shared, &name, |module| *module == id || in_use(module));
        self.digest = digest(self.held.keys());
        shared.event(Event::Modules);
        true
    }

    /// Jobs have ended: drops the undeployed modules that were kept for them. Returns whether the module set has
    /// changed.
    pub(crate) fn drop_undeployed(&mut self, shared: &mut Shared, in_use: impl Fn(&ModuleHash) -> bool) -> bool {
        let held = self.held.keys().filter_map(|id| self.catalog.get(id));
        let gone: Vec<String> = held.filter(|entry| is_tombstone(entry)).map(|entry| entry.name().into()).collect();
        for name in &gone {
            self.drop_old(shared, name, &in_use);
        }
        let before = core::mem::replace(&mut self.digest, digest(self.held.keys()));
        before != self.digest
    }

    /// Drops versions that are neither among the newest nor in use. If the newest is an undeployment, drops all other
    /// ones.
    fn drop_old(&mut self, shared: &mut Shared, name: &str, in_use: impl Fn(&ModuleHash) -> bool) {
        let held = self.held.keys().filter_map(|id| self.catalog.get(id)).filter(|entry| entry.name() == name);
        let newest = held.clone().max_by_key(|entry| entry.version());
        let is_gone = newest.is_some_and(is_tombstone);
        let kept = if is_gone { 1 } else { shared.config.limits.versions_kept };
        let mut versions: Vec<(u64, ModuleHash)> = held.map(|entry| (entry.version(), entry.id())).collect();
        versions.sort_unstable();
        versions.reverse();
        for (_, id) in versions.into_iter().skip(kept).filter(|(_, id)| !in_use(id)) {
            self.held.remove(&id);
            if !is_gone {
                // An undeployed module stays in the catalog: tasks of accepted jobs may still need it here.
                self.catalog.remove(&id);
            }
            shared.actions.push_back(Action::Remove(id));
        }
    }

    /// Checks the invariants of this role.
    pub(crate) fn validate(&self, shared: &Shared) {
        assert!(self.held.keys().all(|id| self.catalog.contains_key(id)), "what is held is known");
        assert_eq!(self.digest, digest(self.held.keys()), "the digest is that of what is held");
        for (id, code) in &self.pulls {
            assert!(!self.held.contains_key(id), "what is held is not pulled");
            assert!(matches!(self.catalog.get(id), Some(ModuleEntry::Wasm(_))), "what is pulled is known");
            let missing = !code.pull.is_whole();
            assert!(!missing || shared.timers.is_set(Timer::Pull(*id)), "a pull is looked after");
        }
        self.sets.validate(shared);
    }

    /// Reports the size and limit of each collection.
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("manifests", self.catalog.len(), limits.modules_max * 4 + self.held.len());
        self.sets.sizes(see);
        see("pulls", self.pulls.len(), limits.modules_max);
    }

    /// Tells all nodes, so that the one that deploys is told as well.
    fn refuse(&self, shared: &mut Shared, module: ModuleHash, reason: String) {
        shared.outbox.broadcast(Message::ModuleRefused(ModuleRefused { module, reason, asked: None }));
    }
}

/// Whether an entry undeploys its module.
fn is_tombstone(entry: &ModuleEntry) -> bool {
    matches!(entry, ModuleEntry::Wasm(signed) if signed.manifest.is_tombstone())
}
