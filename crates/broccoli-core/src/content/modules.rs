//! Modules: which are there, who has them, and how they get from one node to the others.
//!
//! ```text
//!   Birth, Fetch, Available carry the digest of a node's set of modules
//!     unknown digest ──► ManifestRequest ──► Manifests ──► catalog, set
//!     newer version  ──► Reserve, ChunkRequest … Chunk … ──► StoreChunk … ──► Install ──► Installed
//! ```
//!
//! A module is pulled from any node that holds it, unless the shell has no room for it. It counts once its signature, the hash of
//! every chunk and its code have been checked; until then, and if it is refused, the version
//! before keeps working. The bytes are the shell's; here are only manifests.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use broccoli_abi::builtin::is_builtin;
use broccoli_abi::{Function, Functions};
use broccoli_proto::message::{
    Chunk, ChunkRequest, ManifestRequest, Manifests, Message, ModuleRefused, ModuleVersion, Want,
};
use broccoli_proto::module::{ModuleEntry, SignedManifest, digest, hash};
use broccoli_proto::{ModuleHash, NodeId};
use litemap::LiteMap;

use super::flow::{Flow, Span};
use crate::config::Limits;
use crate::io::{Action, Event};
use crate::members::Members;
use crate::shared::{Shared, pop_first};
use crate::text;
use crate::time::Instant;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Manifests and chunks are asked for again after this time …
const AGAIN: LinkTime = link_ms(300);
/// … and after so many times, of another node. If nobody has them, the time is doubled after as many
/// tries again …
const TRIES_MAX: u32 = 4;
/// … and so often.
const AGAIN_DOUBLED_MAX: u32 = 4;
/// After so many times without an answer about manifests, the next digest that is heard decides.
const ASKED_MAX: u32 = 16;
/// Chunks asked for at once.
const CHUNKS_AT_ONCE: u32 = 16;
/// Sets of other nodes that are remembered.
const SETS_MAX: usize = 256;
/// Functions that an error message lists.
const LISTED_MAX: usize = 20;

/// A set of modules.
type Hashes = LiteMap<ModuleHash, ()>;

/// The modules role.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    /// Runnable here, or deployed from here.
    held: Hashes,
    digest: u64,
    /// Every module whose manifest is known and has been checked.
    catalog: LiteMap<ModuleHash, ModuleEntry>,
    /// Sets of modules of other nodes by their digest.
    sets: LiteMap<u64, Set>,
    /// Nodes that were asked for their manifests, and how often.
    asked: LiteMap<NodeId, (u64, u32)>,
    /// Of what is in the catalog.
    pulls: LiteMap<ModuleHash, Box<Pull>>,
    /// Modules that this node cannot use, and why.
    refused: LiteMap<ModuleHash, String>,
}

#[derive(Debug, Default)]
struct Set {
    modules: Hashes,
    /// Told, but not acceptable: the set is complete without them.
    unacceptable: Hashes,
    complete: bool,
}

#[derive(Debug)]
struct Pull {
    from: NodeId,
    /// Nodes that have sent something wrong.
    excluded: Vec<NodeId>,
    flow: Flow,
    /// How often the flow has stalled since a chunk came.
    tries: u32,
}

impl Pull {
    /// When the chunks under way count as lost. If nobody has them, ever later.
    fn stalls_at(&self) -> Instant {
        let (at, doubled) = (self.flow.stalls_at(), (self.tries / TRIES_MAX).min(AGAIN_DOUBLED_MAX));
        at + (at - self.flow.stirred()) * ((1 << doubled) - 1)
    }
}

/// A function that a name stands for.
pub(crate) struct Found<'m> {
    pub(crate) module: ModuleHash,
    pub(crate) module_name: &'m str,
    pub(crate) function: &'m Function,
}

impl Found<'_> {
    /// `module.function`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}.{}", self.module_name, self.function.name)
    }
}

/// What is there.
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

    /// Digest of the modules held here.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether a function can be run here.
    pub(crate) fn runs(&self, module: &ModuleHash, function: &str) -> bool {
        let has = |entry: &ModuleEntry| entry.functions().iter().any(|f| f.name == function);
        self.held.contains_key(module) && self.catalog.get(module).is_some_and(has)
    }

    /// Whether this node holds a module, whatever functions it has.
    pub(crate) fn holds(&self, module: &ModuleHash) -> bool {
        self.held.contains_key(module)
    }

    /// Whether nodes get a module from each other.
    pub(crate) fn travels(&self, module: &ModuleHash) -> bool {
        matches!(self.catalog.get(module), Some(ModuleEntry::Wasm(_)))
    }

    /// The name of a module, if its manifest is known.
    pub(crate) fn name_of(&self, module: &ModuleHash) -> Option<&str> {
        self.catalog.get(module).map(ModuleEntry::name)
    }

    /// What a module offers.
    pub(crate) fn functions_of(&self, module: &ModuleHash) -> Option<&Functions> {
        self.catalog.get(module).map(ModuleEntry::functions)
    }

    /// Whether a node whose set has this digest holds a module.
    pub(crate) fn peer_holds(&self, digest: u64, module: &ModuleHash) -> bool {
        if digest == self.digest {
            return self.held.contains_key(module);
        }
        self.sets.get(&digest).is_some_and(|set| set.modules.contains_key(module))
    }

    /// Whether the set behind a digest is known.
    pub(crate) fn knows(&self, digest: u64) -> bool {
        digest == self.digest || self.sets.get(&digest).is_some_and(|set| set.complete)
    }

    /// Whether no answer about manifests is awaited of a node that was heard just now; one that may be gone is not waited for.
    pub(crate) fn is_settled(&self, shared: &Shared) -> bool {
        self.asked.keys().all(|node| shared.sessions.epoch_of(*node).is_none())
    }

    /// The newest version of each module that can be used in a new job: held here, or built into
    /// or held by a live node if this one holds no code.
    pub(crate) fn usable(&self, holds_code: bool, members: &Members) -> LiteMap<&str, &ModuleEntry> {
        let mut usable: LiteMap<&str, &ModuleEntry> = LiteMap::new_vec();
        for (id, entry) in &self.catalog {
            let elsewhere = || members.alive().any(|(_, member)| self.peer_holds(member.birth.modules, id));
            let travels = matches!(entry, ModuleEntry::Wasm(_));
            if !(self.held.contains_key(id) || (!(travels && holds_code) && elsewhere())) {
                continue;
            }
            let newest = usable.entry(entry.name()).or_insert(entry);
            if entry.version() > newest.version() {
                *newest = entry;
            }
        }
        usable
    }

    /// Finds the function that a name stands for; the error says what there is.
    pub(crate) fn resolve(&self, members: &Members, holds_code: bool, name: &str) -> Result<Found<'_>, String> {
        let usable = self.usable(holds_code, members);
        let (module, function) =
            name.rsplit_once('.').map_or((None, name), |(module, function)| (Some(module), function));
        let mut found = Vec::new();
        for (module_name, entry) in &usable {
            if module.is_some_and(|module| module != *module_name) {
                continue;
            }
            let same = entry.functions().iter().find(|f| f.name == function);
            found.extend(same.map(|function| Found { module: entry.id(), module_name: entry.name(), function }));
        }
        // What somebody has deployed is meant before what every node has by itself.
        let is_deployed = |found: &Found<'_>| !is_builtin(found.module_name);
        if found.iter().any(is_deployed) {
            found.retain(is_deployed);
        }
        match found.len() {
            1 => found.pop().ok_or_else(String::new),
            0 => Err(unknown(name, &usable)),
            _ => {
                let names: Vec<String> = found.iter().map(Found::full_name).collect();
                Err(format!("{name} is ambiguous: there are {}", names.join(" and ")))
            }
        }
    }

    /// Newest version of each module held, but for those that every node has by itself.
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

/// Learning what others have.
impl Modules {
    /// A node's set has this digest, or had it when that was said: the node will answer.
    pub(crate) fn on_digest(&mut self, shared: &mut Shared, from: NodeId, digest: u64) {
        let asked = self.asked.get(&from).map(|(asked, _)| *asked);
        if from == shared.me() || asked == Some(digest) {
            return;
        }
        if self.knows(digest) {
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
        self.asked.insert(from, (digest, 0));
        self.ask(shared, from, digest);
    }

    /// No answer has come: asks again, sooner or later another node with the same set.
    pub(crate) fn on_manifests_timer(&mut self, shared: &mut Shared, members: &Members, from: NodeId) {
        let Some((digest, tries)) = self.asked.remove(&from) else {
            return;
        };
        let tries = tries + 1;
        if tries >= ASKED_MAX {
            return;
        }
        let next = if tries.is_multiple_of(TRIES_MAX) { members.other_with(from, digest) } else { None };
        let next = next.filter(|node| *node != shared.me()).unwrap_or(from);
        self.asked.insert(next, (digest, tries));
        self.ask(shared, next, digest);
    }

    /// A node does not answer: another one with the same set is asked, if there is one.
    pub(crate) fn on_silent(&mut self, shared: &mut Shared, members: &Members, from: NodeId) {
        let Some((digest, tries)) = self.asked.remove(&from) else {
            return;
        };
        shared.timers.cancel(Timer::Manifests(from));
        if let Some(next) = members.other_with(from, digest).filter(|node| *node != shared.me()) {
            self.asked.insert(next, (digest, tries));
            self.ask(shared, next, digest);
        }
    }

    /// A node asks for the manifests of this one. Returns whether it has that set: a node that has heard of an older one
    /// is told which it has now.
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

    /// Some manifests of another node. Returns whether its set is complete now.
    pub(crate) fn on_manifests(&mut self, shared: &mut Shared, from: NodeId, manifests: Manifests) -> bool {
        if self.sets.len() >= SETS_MAX && !self.sets.contains_key(&manifests.digest) {
            self.sets.clear();
        }
        for entry in manifests.entries {
            let id = entry.id();
            let counts = self.learn(shared, entry);
            let set = self.sets.entry(manifests.digest).or_default();
            let ids = if counts { &mut set.modules } else { &mut set.unacceptable };
            if ids.len() < shared.config.limits.modules_max * 4 {
                ids.insert(id, ());
            }
        }
        let set = self.sets.entry(manifests.digest).or_default();
        if !set.complete && set.modules.len() + set.unacceptable.len() >= usize::from(manifests.total) {
            set.complete = true;
            let modules = set.modules.clone();
            self.pull_newest(shared, from, &modules);
            self.asked.retain(|node, (digest, _)| *node != from && *digest != manifests.digest);
            shared.timers.cancel(Timer::Manifests(from));
            return true;
        }
        false
    }

    /// An origin needs modules for its tasks, maybe older ones than the newest.
    pub(crate) fn on_wanted(&mut self, shared: &mut Shared, from: NodeId, wants: &[Want]) {
        for want in wants {
            if let Some(reason) = self.refused.get(&want.module) {
                // Its tasks need not wait for this node.
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

    fn ask(&self, shared: &mut Shared, from: NodeId, digest: u64) {
        shared.outbox.send(from, Message::ManifestRequest(ManifestRequest { digest }));
        shared.timers.set(Timer::Manifests(from), shared.now + shared.timing(AGAIN));
    }

    /// Takes a manifest into the catalog. Returns whether it is acceptable.
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

    /// Pulls the newest version of each module of a node's set, unless what is held is as new.
    /// Older ones are pulled when a task needs them.
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
        wanted.into_iter().for_each(|signed| self.pull(shared, from, signed));
    }

    /// Forgets manifests that nobody is known to hold.
    fn make_room(&mut self, shared: &Shared) {
        if self.catalog.len() < shared.config.limits.modules_max * 4 {
            return;
        }
        let (held, pulls) = (&self.held, &self.pulls);
        self.catalog.retain(|id, _| held.contains_key(id) || pulls.contains_key(id));
        self.sets.clear();
    }
}

/// Pulling.
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
        let flow = Flow::new(signed.manifest.chunks.len(), shared.now, shared.config.timing);
        if !signed.manifest.is_tombstone() {
            shared.actions.push_back(Action::Reserve(signed));
        }
        self.pulls.insert(id, Box::new(Pull { from, excluded: Vec::new(), flow, tries: 0 }));
        self.ask_for_chunks(shared, id);
    }

    /// Asks for the next missing chunks, or installs the module if none is missing.
    fn ask_for_chunks(&mut self, shared: &mut Shared, id: ModuleHash) {
        let Some(pull) = self.pulls.get_mut(&id) else {
            return;
        };
        if pull.flow.is_whole() {
            shared.timers.cancel(Timer::Pull(id));
            if let Some(ModuleEntry::Wasm(signed)) = self.catalog.get(&id) {
                shared.actions.push_back(Action::Install(signed.clone()));
            }
            return;
        }
        for Span { first, count } in pull.flow.ask(shared.now, CHUNKS_AT_ONCE) {
            shared.outbox.send(pull.from, Message::ChunkRequest(ChunkRequest { module: id, first, count }));
        }
        shared.timers.set(Timer::Pull(id), pull.stalls_at());
    }

    /// Chunks have not come: asks again, sooner or later another node.
    pub(crate) fn on_pull_timer(&mut self, shared: &mut Shared, members: &Members, id: ModuleHash) {
        let Some(pull) = self.pulls.get_mut(&id) else {
            return;
        };
        if shared.now < pull.stalls_at() {
            shared.timers.set(Timer::Pull(id), pull.stalls_at());
            return;
        }
        pull.flow.stall(shared.now);
        pull.tries += 1;
        if pull.tries >= TRIES_MAX {
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
        let Some(pull) = self.pulls.get_mut(&id) else {
            return;
        };
        let from = pull.from;
        let others = |name: &&NodeId| **name != from && !pull.excluded.contains(name);
        let fresh: Vec<NodeId> = providers.iter().filter(others).copied().collect();
        if fresh.is_empty() {
            pull.excluded.clear();
        } else {
            pull.from = fresh[shared.rng.below(fresh.len() as u64) as usize];
        }
    }

    /// A node asks for chunks.
    pub(crate) fn on_chunk_request(&self, shared: &mut Shared, from: NodeId, request: ChunkRequest) {
        if !self.held.contains_key(&request.module) {
            return;
        }
        for index in (request.first..).take(usize::from(request.count).min(CHUNKS_AT_ONCE as usize)) {
            shared.actions.push_back(Action::LoadChunk { module: request.module, index, to: from });
        }
    }

    /// A chunk has come.
    pub(crate) fn on_chunk(&mut self, shared: &mut Shared, members: &Members, from: NodeId, chunk: Chunk) {
        let (Some(pull), Some(ModuleEntry::Wasm(signed))) =
            (self.pulls.get_mut(&chunk.module), self.catalog.get(&chunk.module))
        else {
            return;
        };
        let at = chunk.index as usize;
        let Some(expected) = signed.manifest.chunks.get(at) else {
            return;
        };
        if !pull.flow.lacks(at) {
            return;
        }
        if hash(&chunk.bytes) != *expected {
            let reason = format!("chunk {at} from {from} does not match its hash");
            pull.excluded.push(from);
            self.refuse(shared, chunk.module, reason);
            self.change_provider(shared, members, chunk.module);
            return;
        }
        pull.flow.take(chunk.index, shared.now);
        pull.tries = 0;
        shared.actions.push_back(Action::StoreChunk { module: chunk.module, index: chunk.index, bytes: chunk.bytes });
        self.ask_for_chunks(shared, chunk.module);
    }

    /// A module is runnable, or cannot be. Returns whether the set has changed.
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
        // A task that has just made this node pull an older version needs it.
        self.drop_old(shared, &name, |module| *module == id || in_use(module));
        self.digest = digest(self.held.keys());
        shared.event(Event::Modules);
        true
    }

    /// Jobs have ended: drops what was kept for them of modules that were taken away. Returns whether the set has changed.
    pub(crate) fn drop_undeployed(&mut self, shared: &mut Shared, in_use: impl Fn(&ModuleHash) -> bool) -> bool {
        let held = self.held.keys().filter_map(|id| self.catalog.get(id));
        let gone: Vec<String> = held.filter(|entry| is_tombstone(entry)).map(|entry| entry.name().into()).collect();
        for name in &gone {
            self.drop_old(shared, name, &in_use);
        }
        let before = core::mem::replace(&mut self.digest, digest(self.held.keys()));
        before != self.digest
    }

    /// Drops versions that are neither among the newest nor in use; if the newest takes the module away, all others.
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
                // Else a task of an accepted job may still need it here.
                self.catalog.remove(&id);
            }
            shared.actions.push_back(Action::Remove(id));
        }
    }

    /// Checks the invariants of this role.
    pub(crate) fn validate(&self, shared: &Shared) {
        assert!(self.held.keys().all(|id| self.catalog.contains_key(id)), "what is held is known");
        assert_eq!(self.digest, digest(self.held.keys()), "the digest is that of what is held");
        for (id, pull) in &self.pulls {
            assert!(!self.held.contains_key(id), "what is held is not pulled");
            assert!(matches!(self.catalog.get(id), Some(ModuleEntry::Wasm(_))), "what is pulled is known");
            let missing = !pull.flow.is_whole();
            assert!(!missing || shared.timers.is_set(Timer::Pull(*id)), "a pull is looked after");
        }
        let asked = self.asked.keys().all(|node| shared.timers.is_set(Timer::Manifests(*node)));
        assert!(asked, "answers about manifests are waited for");
    }

    /// How full each collection is.
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("manifests", self.catalog.len(), limits.modules_max * 4 + self.held.len());
        see("sets", self.sets.len(), SETS_MAX);
        see("pulls", self.pulls.len(), limits.modules_max);
    }

    /// Tells everybody, so that whoever deploys hears it.
    fn refuse(&self, shared: &mut Shared, module: ModuleHash, reason: String) {
        shared.outbox.broadcast(Message::ModuleRefused(ModuleRefused { module, reason, asked: None }));
    }
}

/// Whether an entry takes a module away.
fn is_tombstone(entry: &ModuleEntry) -> bool {
    matches!(entry, ModuleEntry::Wasm(signed) if signed.manifest.is_tombstone())
}

fn unknown(name: &str, usable: &LiteMap<&str, &ModuleEntry>) -> String {
    let name = text::name(name);
    let deployed = usable.iter().filter(|(module, _)| !is_builtin(module));
    let all =
        deployed.flat_map(|(module, entry)| entry.functions().iter().map(move |f| format!("{module}.{}", f.name)));
    let mut all: Vec<String> = all.collect();
    if all.is_empty() {
        return format!("no function {name}: nothing is deployed yet (broccoli deploy --examples)");
    }
    let more = all.len().saturating_sub(LISTED_MAX);
    all.truncate(LISTED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("no function {name}; there are {}{more}", all.join(", "))
}
