//! A cluster in memory: real nodes, a virtual MQTT server, virtual time, one seed.
//!
//! ```text
//!   node ──publish──► server ──deliver──► node        each hop takes HOP; faults hit deliveries
//!     └─ Execute ──► run ends after its virtual time
//! ```
//!
//! The server keeps retained births and Wills in memory and nothing else. After every step the
//! invariants of every touched node are checked.

pub mod functions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broccoli_core::{Action, Config, Event, Execute, Input, Instant, Limits, Node, RunId, SubmitId};
use broccoli_proto::message::{JobNews, Message};
use broccoli_proto::module::{CHUNK_BYTES, DeployPublic, Manifest, SignedManifest, hash};
use broccoli_proto::packet::{self, Address, Header};
use broccoli_proto::seal::ClusterKey;
use broccoli_proto::{Canvas, Cbor, Epoch, ModuleHash, NodeId, Outcome};
use ed25519_dalek::SigningKey;

/// One way between a node and the server, in microseconds.
const HOP_US: u64 = 100;
/// A server notices after this time that a client was cut off without a reset.
pub const KEEP_ALIVE_MS: u64 = 1_500;
/// A connection that could not be made is tried again after this time.
const RETRY_US: u64 = 100_000;
/// Steps at one moment that mean that nodes keep each other busy for ever.
const STEPS_AT_ONCE_MAX: u32 = 100_000;

/// A node of the cluster, by the order of adding.
pub type Id = usize;

/// What a node is to be.
#[derive(Clone)]
pub struct Spec {
    pub name: String,
    pub slots: u16,
    pub features: Vec<String>,
    pub resident: bool,
    pub native: bool,
    pub holds_code: bool,
    pub limits: Limits,
}

impl Spec {
    pub fn new(name: &str, slots: u16) -> Spec {
        Spec {
            name: name.into(),
            slots,
            features: vec![],
            resident: true,
            native: true,
            holds_code: true,
            limits: Limits::host(),
        }
    }

    /// A node that takes no jobs of others.
    pub fn worker(name: &str, slots: u16) -> Spec {
        Spec { resident: false, ..Spec::new(name, slots) }
    }

    pub fn label(mut self, label: &str) -> Spec {
        self.features.push(label.into());
        self
    }

    /// A program that only submits.
    pub fn client(name: &str) -> Spec {
        Spec { resident: false, native: false, holds_code: false, ..Spec::new(name, 0) }
    }

    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Spec {
        change(&mut self.limits);
        self
    }
}

/// What may happen to a delivery, in thousandths.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub loss: u64,
    pub duplication: u64,
    pub delay: u64,
    /// Longest delay, in milliseconds.
    pub delay_ms_max: u64,
}

/// What happens to the one delivery with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    Lost,
    Doubled { after_ms: u64 },
    Delayed { by_ms: u64 },
}

/// One start of a function.
#[derive(Clone, Debug)]
pub struct Run {
    pub at_ms: u64,
    pub node: Id,
    pub function: String,
    pub args: Cbor,
    pub aborted: bool,
    pub ended: bool,
}

/// A published packet.
#[derive(Clone, Debug)]
pub struct Published {
    pub from: Id,
    pub to: Address,
    pub bytes: Vec<u8>,
}

struct Slot {
    spec: Spec,
    node: Option<Node>,
    epoch_count: u8,
    /// Number of the connection to the server; odd ones are up.
    session: Option<u64>,
    /// A link that is cut carries nothing; neither side has noticed yet.
    cut: bool,
    will: Vec<u8>,
    paused: bool,
    pending: Vec<Work>,
    chunks: BTreeMap<(ModuleHash, u32), Vec<u8>>,
    installed: BTreeMap<ModuleHash, SignedManifest>,
    corrupts: bool,
    install_error: Option<String>,
    runs: BTreeMap<RunId, usize>,
    events: Vec<(u64, Event)>,
}

#[derive(Clone)]
enum Work {
    Publish { from: Id, session: u64, to: Address, retain: bool, bytes: Vec<u8> },
    Deliver { node: Id, session: u64, to: Address, bytes: Vec<u8> },
    Connected { node: Id, session: u64 },
    LostLink { node: Id, session: u64 },
    RunEnds { node: Id, epoch: u8, run: RunId, outcome: Result<Cbor, broccoli_proto::message::Failure> },
}

/// The cluster.
pub struct Cluster {
    pub now_us: u64,
    seed: u64,
    rng: u64,
    slots: Vec<Slot>,
    queue: BTreeMap<(u64, u64), Work>,
    queued: u64,
    sessions: u64,
    retained: BTreeMap<NodeId, Vec<u8>>,
    pub faults: Faults,
    pub mishap: Option<(u64, Mishap)>,
    /// Deliveries with such a message are lost.
    pub lose: Option<fn(&Message) -> bool>,
    pub deliveries: u64,
    pub runs: Vec<Run>,
    pub published: Vec<Published>,
    pub validate: bool,
}

impl Cluster {
    pub fn new(seed: u64) -> Cluster {
        Cluster {
            now_us: 1_000_000,
            seed,
            rng: seed,
            slots: Vec::new(),
            queue: BTreeMap::new(),
            queued: 0,
            sessions: 0,
            retained: BTreeMap::new(),
            faults: Faults::default(),
            mishap: None,
            lose: None,
            deliveries: 0,
            runs: Vec::new(),
            published: Vec::new(),
            validate: true,
        }
    }

    /// Nodes `names` that are connected and know each other.
    pub fn started(seed: u64, specs: Vec<Spec>) -> Cluster {
        let mut cluster = Cluster::new(seed);
        for spec in specs {
            cluster.add(spec);
        }
        cluster.run_for(300);
        cluster
    }

    /// Adds a node and connects it.
    pub fn add(&mut self, spec: Spec) -> Id {
        let id = self.add_alone(spec);
        self.connect(id);
        id
    }

    /// Adds a node that is not connected.
    pub fn add_alone(&mut self, spec: Spec) -> Id {
        self.slots.push(Slot {
            spec,
            node: None,
            epoch_count: 0,
            session: None,
            cut: false,
            will: Vec::new(),
            paused: false,
            pending: Vec::new(),
            chunks: BTreeMap::new(),
            installed: BTreeMap::new(),
            corrupts: false,
            install_error: None,
            runs: BTreeMap::new(),
            events: Vec::new(),
        });
        let id = self.slots.len() - 1;
        self.boot(id);
        id
    }

    fn boot(&mut self, id: Id) {
        let (seed, now) = (self.seed, Instant(self.now_us));
        let slot = &mut self.slots[id];
        slot.epoch_count += 1;
        let mut epoch = [0; 16];
        epoch[..8].copy_from_slice(&mix(seed ^ (id as u64) << 32 ^ u64::from(slot.epoch_count)).to_be_bytes());
        epoch[8] = id as u8;
        epoch[9] = slot.epoch_count;
        let config = Config {
            name: slot.spec.name.parse().expect("a name"),
            keys: vec![cluster_key()],
            deploy_public: deploy_public(),
            slots: slot.spec.slots,
            features: slot.spec.features.clone(),
            natives: if slot.spec.native { vec![functions::natives()] } else { vec![] },
            resident: slot.spec.resident,
            durable: false,
            holds_code: slot.spec.holds_code,
            version: "test".into(),
            limits: slot.spec.limits,
        };
        let node_seed = mix(seed.wrapping_add(id as u64) ^ u64::from(slot.epoch_count) << 40);
        slot.node = Some(Node::new(config, Epoch(epoch), node_seed, now));
        slot.runs.clear();
        for manifest in slot.installed.values().cloned().collect::<Vec<_>>() {
            self.feed(id, Input::Installed { manifest, outcome: Ok(()) });
        }
    }
}

/// What a test does to nodes.
impl Cluster {
    pub fn name(&self, id: Id) -> NodeId {
        self.slots[id].spec.name.parse().expect("a name")
    }

    pub fn node(&mut self, id: Id) -> &mut Node {
        self.slots[id].node.as_mut().expect("the node runs")
    }

    pub fn submit(&mut self, id: Id, canvas: &Canvas) -> SubmitId {
        self.try_submit(id, canvas).expect("accepted")
    }

    pub fn try_submit(&mut self, id: Id, canvas: &Canvas) -> Result<SubmitId, broccoli_core::SubmitError> {
        let now = Instant(self.now_us);
        let submitted = self.node(id).submit(now, canvas);
        self.drain(id);
        submitted
    }

    pub fn submit_remote(&mut self, id: Id, canvas: &Canvas) -> SubmitId {
        let now = Instant(self.now_us);
        let submitted = self.node(id).submit_to_cluster(now, Cbor::encode(canvas));
        self.drain(id);
        submitted
    }

    pub fn attach(&mut self, id: Id) {
        let now = Instant(self.now_us);
        self.node(id).attach(now);
        self.drain(id);
    }

    pub fn revoke(&mut self, id: Id, job: SubmitId) {
        let now = Instant(self.now_us);
        self.node(id).revoke(now, job);
        self.drain(id);
    }

    /// Tells a node the time of day.
    pub fn tell_time(&mut self, id: Id, unix_ms: u64) {
        self.input(id, Input::WallClock { unix_ms });
    }

    /// Deploys a module from a node.
    pub fn deploy(&mut self, id: Id, signed: &SignedManifest, code: &[u8]) {
        for (index, chunk) in code.chunks(CHUNK_BYTES as usize).enumerate() {
            self.slots[id].chunks.insert((signed.id, index as u32), chunk.to_vec());
        }
        self.slots[id].installed.insert(signed.id, signed.clone());
        let now = Instant(self.now_us);
        self.node(id).handle_input(now, Input::Installed { manifest: signed.clone(), outcome: Ok(()) });
        self.drain(id);
    }

    pub fn corrupt_chunks(&mut self, id: Id, corrupts: bool) {
        self.slots[id].corrupts = corrupts;
    }

    pub fn fail_installs(&mut self, id: Id, error: &str) {
        self.slots[id].install_error = Some(error.into());
    }

    /// Sends what a node has to say.
    pub fn flush(&mut self, id: Id) {
        self.drain(id);
    }

    /// The Will of a node's present connection.
    pub fn will(&self, id: Id) -> Vec<u8> {
        self.slots[id].will.clone()
    }

    /// The server publishes a Will.
    pub fn publish_as_server(&mut self, to: Address, bytes: &[u8]) {
        self.route(to, true, bytes);
    }

    pub fn inject(&mut self, id: Id, to: Address, bytes: &[u8]) {
        let now = Instant(self.now_us);
        self.node(id).handle_input(now, Input::Packet { to, packet: bytes });
        self.drain(id);
    }

    /// Ends a node at once. With `reset` the server notices now, else by its keep-alive.
    pub fn kill(&mut self, id: Id, reset: bool) {
        for index in std::mem::take(&mut self.slots[id].runs).into_values() {
            self.runs[index].aborted = true;
        }
        self.slots[id].node = None;
        self.slots[id].pending.clear();
        self.slots[id].paused = false;
        self.lose_link(id, reset);
    }

    /// Starts a killed node again, with what it has stored.
    pub fn restart(&mut self, id: Id) {
        self.boot(id);
        self.connect(id);
    }

    /// Cuts a link. With `reset` both sides notice now, else by their keep-alive.
    pub fn cut(&mut self, id: Id, reset: bool) {
        self.lose_link(id, reset);
        if reset && self.slots[id].node.is_some() {
            self.input(id, Input::Disconnected);
        }
    }

    /// The link works again: a node that has noticed connects anew, one that has not goes on.
    pub fn heal(&mut self, id: Id) {
        if self.slots[id].session.is_some() {
            self.slots[id].cut = false;
        } else {
            self.connect(id);
        }
    }

    /// A node that stands still: nothing goes in, nothing comes out, no time passes for it.
    pub fn pause(&mut self, id: Id) {
        self.slots[id].paused = true;
    }

    pub fn resume(&mut self, id: Id) {
        self.slots[id].paused = false;
        for work in std::mem::take(&mut self.slots[id].pending) {
            self.push(self.now_us, work);
        }
    }

    /// The server loses its memory and every connection; nodes connect again soon after.
    pub fn restart_server(&mut self) {
        self.retained.clear();
        for id in 0..self.slots.len() {
            if self.slots[id].session.take().is_some() && self.slots[id].node.is_some() {
                self.slots[id].will.clear();
                self.input(id, Input::Disconnected);
                self.connect(id);
            }
        }
    }

    pub fn is_up(&self, id: Id) -> bool {
        self.slots[id].node.is_some()
    }

    pub fn is_paused(&self, id: Id) -> bool {
        self.slots[id].paused
    }

    /// A number below `n` of the cluster's own randomness.
    pub fn random(&mut self, n: u64) -> u64 {
        self.below(n)
    }

    fn lose_link(&mut self, id: Id, reset: bool) {
        let Some(session) = self.slots[id].session else {
            return;
        };
        if reset {
            self.end_session(id, session);
        } else {
            self.slots[id].cut = true;
            self.push(self.now_us + KEEP_ALIVE_MS * 1_000, Work::LostLink { node: id, session });
        }
    }

    fn connect(&mut self, id: Id) {
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
    fn end_session(&mut self, id: Id, session: u64) {
        if self.slots[id].session != Some(session) {
            return;
        }
        self.slots[id].session = None;
        let will = std::mem::take(&mut self.slots[id].will);
        if !will.is_empty() {
            self.route(Address::Birth(self.name(id)), true, &will);
        }
    }
}

/// What a test sees.
impl Cluster {
    pub fn events(&self, id: Id) -> impl Iterator<Item = &Event> {
        self.slots[id].events.iter().map(|(_, event)| event)
    }

    pub fn timed_events(&self, id: Id) -> &[(u64, Event)] {
        &self.slots[id].events
    }

    pub fn news(&self, id: Id, job: SubmitId) -> impl Iterator<Item = &JobNews> {
        self.events(id).filter_map(move |event| match event {
            Event::Job(submit, news) if *submit == job => Some(news),
            _ => None,
        })
    }

    /// How a job ended; a job that has ended twice is a bug.
    pub fn ended(&self, id: Id, job: SubmitId) -> Option<Outcome> {
        let mut ends = self.news(id, job).filter_map(|news| match news {
            JobNews::Ended(outcome) => Some(outcome.clone()),
            _ => None,
        });
        let first = ends.next();
        assert_eq!(ends.next(), None, "the job ended twice");
        first
    }

    /// Waits for the end of a job, at most this long.
    pub fn wait(&mut self, id: Id, job: SubmitId, ms: u64) -> Outcome {
        let came = self.run_until(ms, |cluster| cluster.ended(id, job).is_some());
        assert!(came, "no end after {ms} ms: {:?}", self.news(id, job).collect::<Vec<_>>());
        self.ended(id, job).expect("just seen")
    }

    pub fn runs_on(&self, id: Id) -> usize {
        self.runs.iter().filter(|run| run.node == id).count()
    }

    pub fn running_on(&self, id: Id) -> usize {
        self.slots[id].runs.len()
    }

    pub fn holds(&self, id: Id, module: ModuleHash) -> bool {
        self.slots[id].installed.contains_key(&module)
    }

    pub fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Nothing is under way on any node.
    pub fn assert_idle(&mut self) {
        for slot in &self.slots {
            if let Some(node) = &slot.node {
                node.validate_idle();
            }
        }
        assert!(self.slots.iter().all(|slot| slot.runs.is_empty()), "nothing runs");
    }
}

/// Time.
impl Cluster {
    pub fn run_for(&mut self, ms: u64) {
        let until = self.now_us + ms * 1_000;
        self.run_until(ms, |_| false);
        self.now_us = until;
    }

    /// Goes on until `done`, at most this long; whether it came.
    pub fn run_until(&mut self, ms: u64, done: impl Fn(&Cluster) -> bool) -> bool {
        let until = self.now_us + ms * 1_000;
        let (mut steps, mut at) = (0, 0);
        while !done(self) {
            let Some(next) = self.next_time().filter(|next| *next <= until) else {
                return false;
            };
            steps = if next == at { steps + 1 } else { 0 };
            at = next;
            assert!(steps < STEPS_AT_ONCE_MAX, "time stands still at {next} us");
            self.now_us = self.now_us.max(next);
            self.step();
        }
        true
    }

    fn next_time(&self) -> Option<u64> {
        let work = self.queue.keys().next().map(|(at, _)| *at);
        let awake = self.slots.iter().filter(|slot| !slot.paused).filter_map(|slot| slot.node.as_ref());
        let timer = awake.filter_map(|node| node.poll_timeout().map(|at| at.0)).min();
        work.into_iter().chain(timer).min()
    }

    /// Everything that is ready now goes in before anything comes out.
    fn step(&mut self) {
        let now = Instant(self.now_us);
        let mut touched = BTreeSet::new();
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now.0) {
            let work = entry.remove();
            touched.extend(self.do_work(work));
        }
        for (id, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| !slot.paused) {
            if let Some(node) = slot.node.as_mut().filter(|node| node.poll_timeout().is_some_and(|at| at <= now)) {
                node.handle_input(now, Input::Timeout);
                touched.insert(id);
            }
        }
        touched.into_iter().for_each(|id| self.drain(id));
    }

    fn push(&mut self, at: u64, work: Work) {
        self.queued += 1;
        self.queue.insert((at, self.queued), work);
    }

    fn do_work(&mut self, work: Work) -> Option<Id> {
        let node = match &work {
            Work::Publish { .. } | Work::LostLink { .. } => None,
            Work::Deliver { node, .. } | Work::Connected { node, .. } | Work::RunEnds { node, .. } => Some(*node),
        };
        if let Some(id) = node.filter(|id| self.slots[*id].paused) {
            self.slots[id].pending.push(work);
            return None;
        }
        let now = Instant(self.now_us);
        match work {
            Work::Publish { from, session, to, retain, bytes } => {
                if self.slots[from].session == Some(session) && !self.slots[from].cut {
                    self.route(to, retain, &bytes);
                }
                None
            }
            Work::Deliver { node, session, to, bytes } => {
                let slot = &mut self.slots[node];
                if slot.session != Some(session) || slot.cut {
                    return None;
                }
                slot.node.as_mut()?.handle_input(now, Input::Packet { to, packet: &bytes });
                Some(node)
            }
            Work::Connected { node, session } => {
                if self.slots[node].session != Some(session) {
                    return None;
                }
                if self.slots[node].cut {
                    // A shell tries again to connect.
                    self.push(self.now_us + RETRY_US, work);
                    return None;
                }
                self.slots[node].node.as_mut()?.handle_input(now, Input::Connected);
                for (name, bytes) in self.retained.clone() {
                    self.deliver(node, Address::Birth(name), &bytes);
                }
                Some(node)
            }
            Work::LostLink { node, session } => {
                let slot = &mut self.slots[node];
                if slot.session != Some(session) || !slot.cut {
                    return None;
                }
                self.end_session(node, session);
                self.slots[node].node.as_mut()?.handle_input(now, Input::Disconnected);
                Some(node)
            }
            Work::RunEnds { node, epoch, run, outcome } => {
                if self.slots[node].epoch_count != epoch {
                    return None;
                }
                let index = self.slots[node].runs.remove(&run)?;
                self.runs[index].ended = true;
                self.slots[node].node.as_mut()?.handle_input(now, Input::Executed { run, outcome });
                Some(node)
            }
        }
    }

    fn input(&mut self, id: Id, input: Input<'_>) {
        let now = Instant(self.now_us);
        self.node(id).handle_input(now, input);
        self.drain(id);
    }
}

/// The server.
impl Cluster {
    fn route(&mut self, to: Address, retain: bool, bytes: &[u8]) {
        if let (Address::Birth(name), true) = (to, retain) {
            self.retained.insert(name, bytes.to_vec());
        }
        for id in 0..self.slots.len() {
            let subscribed = match to {
                Address::Node(name) => self.name(id) == name,
                Address::Birth(_) | Address::All => true,
            };
            if subscribed && self.slots[id].session.is_some() {
                self.deliver(id, to, bytes);
            }
        }
    }

    fn deliver(&mut self, node: Id, to: Address, bytes: &[u8]) {
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
            return;
        }
        if self.chance(duplication) {
            let later = self.below(delay_ms_max.max(1) * 1_000);
            self.push(at + later, work.clone());
        }
        if self.chance(delay) {
            at += self.below(delay_ms_max.max(1) * 1_000);
        }
        self.push(at, work);
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.rng) % n
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.below(1_000) < thousandths
    }
}

/// What a shell does.
impl Cluster {
    fn drain(&mut self, id: Id) {
        if self.slots[id].paused {
            return;
        }
        let now = Instant(self.now_us);
        let mut packet = Vec::new();
        loop {
            let Some(node) = self.slots[id].node.as_mut() else {
                return;
            };
            if let Some(action) = node.poll_action() {
                self.act(id, action);
                continue;
            }
            let Some(transmit) = node.poll_transmit(now, &mut packet) else {
                // The last poll may have delivered something to the node itself.
                match node.poll_action() {
                    Some(action) => self.act(id, action),
                    None => break,
                }
                continue;
            };
            assert!(packet.len() <= self.slots[id].spec.limits.packet_bytes_max as usize, "a packet within its limit");
            self.published.push(Published { from: id, to: transmit.to, bytes: packet.clone() });
            if let Some(session) = self.slots[id].session.filter(|_| !self.slots[id].cut) {
                let (to, retain, bytes) = (transmit.to, transmit.retain, packet.clone());
                self.push(self.now_us + HOP_US, Work::Publish { from: id, session, to, retain, bytes });
            }
        }
        if let Some(node) = self.slots[id].node.as_ref().filter(|_| self.validate) {
            node.validate();
        }
    }

    fn act(&mut self, id: Id, action: Action) {
        let now = self.now_us;
        match action {
            Action::Execute(execute) => self.execute(id, &execute),
            Action::Abort(run) => {
                if let Some(index) = self.slots[id].runs.get(&run) {
                    self.runs[*index].aborted = true;
                    let failure = broccoli_proto::message::Failure::new(broccoli_proto::Cause::Revoked, "aborted");
                    let epoch = self.slots[id].epoch_count;
                    self.push(now, Work::RunEnds { node: id, epoch, run, outcome: Err(failure) });
                }
            }
            Action::StoreChunk { module, index, bytes } => {
                self.slots[id].chunks.insert((module, index), bytes);
            }
            Action::LoadChunk { module, index, to } => {
                let mut bytes = self.slots[id].chunks.get(&(module, index)).cloned();
                if self.slots[id].corrupts {
                    bytes.iter_mut().for_each(|bytes| bytes[0] ^= 1);
                }
                self.feed(id, Input::ChunkLoaded { module, index, to, bytes });
            }
            Action::Install(manifest) => {
                let outcome = self.install(id, &manifest);
                self.feed(id, Input::Installed { manifest, outcome });
            }
            Action::Remove(module) => {
                self.slots[id].installed.remove(&module);
                self.slots[id].chunks.retain(|(of, _), _| *of != module);
            }
            Action::Persist { .. } => {}
            Action::Event(event) => self.slots[id].events.push((now / 1_000, event)),
        }
    }

    fn feed(&mut self, id: Id, input: Input<'_>) {
        let now = Instant(self.now_us);
        self.node(id).handle_input(now, input);
    }

    fn install(&mut self, id: Id, signed: &SignedManifest) -> Result<(), String> {
        let slot = &mut self.slots[id];
        if let Some(error) = &slot.install_error {
            return Err(error.clone());
        }
        let chunks = 0..signed.manifest.chunks.len() as u32;
        let code: Vec<u8> = chunks.flat_map(|index| slot.chunks[&(signed.id, index)].clone()).collect();
        assert_eq!(hash(&code), signed.manifest.hash, "every chunk was checked");
        slot.installed.insert(signed.id, signed.clone());
        Ok(())
    }

    fn execute(&mut self, id: Id, execute: &Execute) {
        let same = |run: &&Run| run.function == execute.function.name && run.args == execute.args;
        let before = self.runs.iter().filter(same).count();
        let slot = &mut self.slots[id];
        assert!(slot.runs.len() < usize::from(slot.spec.slots), "at most `slots` runs at a time");
        let version = slot.installed.get(&execute.function.module).map_or(0, |signed| signed.manifest.version);
        let (took, outcome) = functions::call(execute, version, before);
        let function = execute.function.name.clone();
        let at_ms = self.now_us / 1_000;
        let ended = took == Duration::ZERO;
        self.runs.push(Run { at_ms, node: id, function, args: execute.args.clone(), aborted: false, ended });
        if ended {
            self.feed(id, Input::Executed { run: execute.run, outcome });
        } else {
            let epoch = self.slots[id].epoch_count;
            self.slots[id].runs.insert(execute.run, self.runs.len() - 1);
            let at = self.now_us + took.as_micros() as u64;
            self.push(at, Work::RunEnds { node: id, epoch, run: execute.run, outcome });
        }
    }
}

/// Looking into packets.
impl Cluster {
    /// Forgets what was published so far.
    pub fn count_from_here(&mut self) {
        self.published.clear();
    }

    /// Published packets with a message of this kind.
    pub fn packets_with(&self, kind: impl Fn(&Message) -> bool) -> usize {
        self.published.iter().filter(|p| open(&p.bytes).1.iter().any(&kind)).count()
    }
}

/// Opens a packet as the node that it is for.
pub fn open(bytes: &[u8]) -> (Header, Vec<Message>) {
    let header: Header = minicbor::decode(bytes).expect("a header");
    let me = header.destination.unwrap_or(header.sender);
    let mut bytes = bytes.to_vec();
    let (header, plaintext) = packet::open(&[cluster_key()], me, &mut bytes).expect("opens");
    (header, packet::messages(plaintext).map(|message| message.expect("a message")).collect())
}

/// Seals messages as any node of the cluster could.
pub fn seal(sender: &str, to: Address, epoch: Epoch, sequence: u64, messages: &[Message]) -> Vec<u8> {
    let mut buf = Vec::new();
    let sender = sender.parse().expect("a name");
    packet::seal(&cluster_key(), sender, to, epoch, sequence, &mut buf, |buf| {
        messages.iter().for_each(|message| packet::put(buf, message));
    });
    buf
}

pub fn cluster_key() -> ClusterKey {
    ClusterKey::new([7; 32])
}

fn deploy_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn deploy_public() -> DeployPublic {
    DeployPublic(deploy_key().verifying_key().to_bytes())
}

/// A module `app` with a function `version`, and its code.
pub fn module(version: u64, signed_well: bool) -> (SignedManifest, Vec<u8>) {
    let code: Vec<u8> = (0..40_000u64).map(|at| mix(at ^ version << 32) as u8).collect();
    let key = if signed_well { deploy_key() } else { SigningKey::from_bytes(&[4; 32]) };
    let manifest = Manifest::new("app", version, &code, vec![functions::version_function()]).expect("within limits");
    (manifest.sign(&key), code)
}

/// SplitMix64's finisher.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
