//! A cluster in memory: real nodes, a virtual MQTT server, virtual time, one seed.
//!
//! ```text
//!   node ──publish──► server ──deliver──► node        each hop takes HOP; faults hit deliveries
//!     └─ Execute ──► run ends after its virtual time
//! ```
//!
//! The server keeps retained births and Wills in memory and nothing else. After every step the
//! invariants of every touched node are checked.

pub mod clock;
pub mod disk;
pub mod faults;
pub mod functions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use broccoli_core::{
    Action, Config, Event, Execute, Input, Instant, Limits, Node, Recovery, RunId, Submission, SubmitId,
};
use broccoli_proto::message::{JobNews, Message};
use broccoli_proto::module::{CHUNK_BYTES, DeployPublic, Manifest, SignedManifest, hash};
use broccoli_proto::packet::{self, Address, Header};
use broccoli_proto::seal::ClusterKey;
use broccoli_proto::{Canvas, Cbor, Epoch, JobId, ModuleHash, NodeId, Outcome};
use ed25519_dalek::SigningKey;

use self::clock::Clock;
use self::disk::Disk;
use self::faults::{Counts, Fault};
use crate::workload::{self, Workload};

/// One way between a node and the server, in microseconds.
const HOP_US: u64 = 100;
/// A server notices after this time that a client was cut off without a reset.
pub const KEEP_ALIVE_MS: u64 = 1_500;
/// A connection that could not be made is tried again after this time.
const RETRY_US: u64 = 100_000;
/// Nodes that are told the time of day hear it this often.
const WALL_CLOCK_US: u64 = 1_000_000;
/// The time of day at the start, in Unix milliseconds.
const WALL_START_MS: i64 = 1_800_000_000_000;
/// Steps at one moment that mean that nodes keep each other busy for ever.
const STEPS_AT_ONCE_MAX: u32 = 100_000;

/// A node of the cluster, by the order of adding.
pub type Id = usize;

/// What a node is to be.
#[derive(Clone)]
pub struct Spec {
    /// Its name; two nodes with one name are twins.
    pub name: String,
    /// Tasks it runs side by side.
    pub slots: u16,
    /// Labels and capabilities.
    pub features: Vec<String>,
    /// Whether it takes jobs of others.
    pub resident: bool,
    /// Whether it has a disk.
    pub durable: bool,
    /// Whether it has the functions of the tests built in.
    pub native: bool,
    /// Whether it pulls the code of modules.
    pub holds_code: bool,
    /// Its capacities.
    pub limits: Limits,
}

impl Spec {
    /// A node that takes jobs of others and runs tasks.
    pub fn new(name: &str, slots: u16) -> Spec {
        Spec {
            name: name.into(),
            slots,
            features: vec![],
            resident: true,
            durable: false,
            native: true,
            holds_code: true,
            limits: Limits::host(),
        }
    }

    /// A node that takes no jobs of others.
    pub fn worker(name: &str, slots: u16) -> Spec {
        Spec { resident: false, ..Spec::new(name, slots) }
    }

    /// With one more label.
    pub fn label(mut self, label: &str) -> Spec {
        self.features.push(label.into());
        self
    }

    /// With a disk.
    pub fn durable(self) -> Spec {
        Spec { durable: true, ..self }
    }

    /// A program that only submits.
    pub fn client(name: &str) -> Spec {
        Spec { resident: false, native: false, holds_code: false, ..Spec::new(name, 0) }
    }

    /// With other capacities.
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Spec {
        change(&mut self.limits);
        self
    }
}

/// What may happen to a delivery, in thousandths.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// It never comes.
    pub loss: u64,
    /// It comes again, up to the longest delay later.
    pub duplication: u64,
    /// It comes later.
    pub delay: u64,
    /// Longest delay, in milliseconds.
    pub delay_ms_max: u64,
}

/// What happens to the one delivery with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It never comes.
    Lost,
    /// It comes twice.
    Doubled {
        /// The second time so much later.
        after_ms: u64,
    },
    /// It comes later.
    Delayed {
        /// So much.
        by_ms: u64,
    },
}

/// One start of a function.
#[derive(Clone, Debug)]
pub struct Run {
    /// When it started.
    pub at_ms: u64,
    /// Where.
    pub node: Id,
    /// Its name without the module's.
    pub function: String,
    /// What it was called with.
    pub args: Cbor,
    /// Whether it was told to stop, or its node died.
    pub aborted: bool,
    /// Whether it has ended.
    pub ended: bool,
}

/// A published packet.
#[derive(Clone, Debug)]
pub struct Published {
    /// By whom.
    pub from: Id,
    /// For whom.
    pub to: Address,
    /// As it was on the wire.
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
    /// Its packets do not reach the server, or those of the server do not reach it.
    mute: bool,
    deaf: bool,
    paused: bool,
    pending: Vec<Work>,
    clock: Clock,
    disk: Disk,
    recovery: Recovery,
    /// It ends after so many outputs.
    crash_after: Option<u32>,
    /// When the last delivery comes.
    last_delivery_us: u64,
    chunks: BTreeMap<(ModuleHash, u32), Vec<u8>>,
    installed: BTreeMap<ModuleHash, SignedManifest>,
    /// It has chunks, in thousandths, that are damaged or not there.
    corrupts: u64,
    lacks: u64,
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
    Disconnected { node: Id },
    Synced { node: Id, epoch: u8, number: u64 },
    WallClock { node: Id, epoch: u8 },
    RunEnds { node: Id, epoch: u8, run: RunId, outcome: Result<Cbor, broccoli_proto::message::Failure> },
}

/// The cluster.
pub struct Cluster {
    /// Microseconds of virtual time.
    pub now_us: u64,
    seed: u64,
    rng: u64,
    slots: Vec<Slot>,
    steps_now: u32,
    queue: BTreeMap<(u64, u64), Work>,
    queued: u64,
    sessions: u64,
    retained: BTreeMap<NodeId, Vec<u8>>,
    /// What may happen to each delivery.
    pub faults: Faults,
    /// Deliveries take up to this much longer, so that they overtake each other.
    pub jitter_us: u64,
    /// Packets of the first do not reach the second.
    pub blocked: BTreeSet<(Id, Id)>,
    /// How often each fault has happened.
    pub counts: Counts,
    /// Longest time that a disk takes for a write.
    pub sync_us_max: u64,
    /// What happens to the delivery with a number.
    pub mishap: Option<(u64, Mishap)>,
    /// Deliveries with such a message are lost.
    pub lose: Option<fn(&Message) -> bool>,
    /// Deliveries so far.
    pub deliveries: u64,
    /// Every start of a function.
    pub runs: Vec<Run>,
    /// Every published packet, if `records`.
    pub published: Vec<Published>,
    /// Whether packets are kept.
    pub records: bool,
    /// Whether invariants are checked after every step.
    pub validate: bool,
    /// Nodes are told the time of day.
    pub tells_time: bool,
    /// They hear it again and again.
    pub ticks: bool,
    /// The functions of the simulator, in place of those of the tests.
    pub workload: Option<Workload>,
    /// Nodes that something went into since they were last looked at.
    pub touched: BTreeSet<Id>,
    /// The last lines of what happened, if they are wanted.
    pub trace: Option<VecDeque<String>>,
    /// How many.
    pub trace_max: usize,
    /// A hash of everything that came out of nodes, if it is wanted.
    pub digest: Option<u64>,
}

impl Cluster {
    /// No node yet; the seed decides on everything random.
    pub fn new(seed: u64) -> Cluster {
        Cluster {
            now_us: 1_000_000,
            seed,
            rng: seed,
            slots: Vec::new(),
            steps_now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            sessions: 0,
            retained: BTreeMap::new(),
            faults: Faults::default(),
            jitter_us: 0,
            blocked: BTreeSet::new(),
            counts: Counts::default(),
            sync_us_max: 10_000,
            mishap: None,
            lose: None,
            deliveries: 0,
            runs: Vec::new(),
            published: Vec::new(),
            records: true,
            validate: true,
            tells_time: false,
            ticks: true,
            workload: None,
            touched: BTreeSet::new(),
            trace: None,
            trace_max: 0,
            digest: None,
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
            mute: false,
            deaf: false,
            paused: false,
            pending: Vec::new(),
            clock: Clock::exact(),
            disk: Disk::default(),
            recovery: Recovery::default(),
            crash_after: None,
            last_delivery_us: 0,
            chunks: BTreeMap::new(),
            installed: BTreeMap::new(),
            corrupts: 0,
            lacks: 0,
            install_error: None,
            runs: BTreeMap::new(),
            events: Vec::new(),
        });
        let id = self.slots.len() - 1;
        self.boot(id);
        id
    }

    fn boot(&mut self, id: Id) {
        let (seed, now) = (self.seed, self.at(id));
        let natives = if self.workload.is_some() { workload::natives() } else { functions::natives() };
        let slot = &mut self.slots[id];
        slot.epoch_count += 1;
        slot.crash_after = None;
        let epoch = epoch(seed, id, slot.epoch_count);
        let config = Config {
            name: slot.spec.name.parse().expect("a name"),
            keys: vec![cluster_key()],
            deploy_public: deploy_public(),
            slots: slot.spec.slots,
            features: slot.spec.features.clone(),
            natives: if slot.spec.native { vec![natives] } else { vec![] },
            resident: slot.spec.resident,
            durable: slot.spec.durable,
            holds_code: slot.spec.holds_code,
            version: "test".into(),
            limits: slot.spec.limits,
        };
        let node_seed = mix(seed.wrapping_add(id as u64) ^ u64::from(slot.epoch_count) << 40);
        slot.node = Some(Node::new(config, epoch, node_seed, now));
        slot.runs.clear();
        if self.tells_time {
            self.tick_wall_clock(id);
        }
        let slot = &mut self.slots[id];
        if let Some(node) = slot.node.as_mut().filter(|_| slot.spec.durable) {
            let records = slot.disk.records().iter().map(|(key, value)| (*key, value.clone()));
            slot.recovery = node.recover(now, records).expect("a journal of this version");
        }
        for manifest in slot.installed.values().cloned().collect::<Vec<_>>() {
            self.feed(id, Input::Installed { manifest, outcome: Ok(()) });
        }
        self.drain(id);
    }
}

/// What a test does to nodes.
impl Cluster {
    /// Its name.
    pub fn name(&self, id: Id) -> NodeId {
        self.slots[id].spec.name.parse().expect("a name")
    }

    /// A node that runs.
    pub fn node(&mut self, id: Id) -> &mut Node {
        self.slots[id].node.as_mut().expect("the node runs")
    }

    /// A node that runs, to look at.
    pub fn peek(&self, id: Id) -> &Node {
        self.slots[id].node.as_ref().expect("the node runs")
    }

    /// Accepts a canvas at a node.
    pub fn submit(&mut self, id: Id, canvas: &Canvas) -> SubmitId {
        self.try_submit(id, canvas).expect("accepted")
    }

    /// Accepts a canvas at a node, if it can.
    pub fn try_submit(&mut self, id: Id, canvas: &Canvas) -> Result<SubmitId, broccoli_core::SubmitError> {
        let now = self.at(id);
        let submitted = self.node(id).submit(now, canvas);
        self.drain(id);
        submitted
    }

    /// Hands a canvas to the origin that a node is attached to.
    pub fn submit_remote(&mut self, id: Id, canvas: &Canvas) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).submit_to_cluster(now, Cbor::encode(canvas));
        self.drain(id);
        submitted
    }

    /// Hands a canvas to an origin, by a key or for others to look after.
    pub fn submit_with(&mut self, id: Id, submission: Submission) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).submit_with(now, submission);
        self.drain(id);
        submitted
    }

    /// Follows a job, whoever has submitted it.
    pub fn follow(&mut self, id: Id, job: JobId) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).follow(now, job);
        self.drain(id);
        submitted
    }

    /// Ends a job, whoever has submitted it, and follows it.
    pub fn revoke_job(&mut self, id: Id, job: JobId) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).revoke_job(now, job);
        self.drain(id);
        submitted
    }

    /// A node looks for an origin.
    pub fn attach(&mut self, id: Id) {
        let now = self.at(id);
        self.node(id).attach(now);
        self.drain(id);
    }

    /// Ends a job that was submitted through a node.
    pub fn revoke(&mut self, id: Id, job: SubmitId) {
        let now = self.at(id);
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
        let now = self.at(id);
        self.node(id).handle_input(now, Input::Installed { manifest: signed.clone(), outcome: Ok(()) });
        self.drain(id);
    }

    /// All chunks that a node gives away are damaged.
    pub fn corrupt_chunks(&mut self, id: Id, corrupts: bool) {
        self.spoil_chunks(id, if corrupts { 1_000 } else { 0 }, 0);
    }

    /// Chunks that a node gives away are damaged or missing, in thousandths.
    pub fn spoil_chunks(&mut self, id: Id, corrupts: u64, lacks: u64) {
        (self.slots[id].corrupts, self.slots[id].lacks) = (corrupts, lacks);
    }

    /// A node cannot use any module.
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
        self.route(None, to, true, bytes);
    }

    /// A packet comes to a node.
    pub fn inject(&mut self, id: Id, to: Address, bytes: &[u8]) {
        let now = self.at(id);
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
        let under_way = self.slots[id].disk.under_way();
        if under_way > 0 {
            let kept = self.below(under_way as u64 + 1) as usize;
            if self.slots[id].disk.tear(kept) > 0 {
                self.counts.add(Fault::TornWrite);
            }
        }
        self.note(|| format!("node {id} is dead"));
        self.lose_link(id, reset);
    }

    /// Lets a node end after so many more outputs.
    pub fn kill_after(&mut self, id: Id, outputs: u32) {
        self.slots[id].crash_after = Some(outputs);
    }

    /// Lets a node live.
    pub fn kill_never(&mut self, id: Id) {
        self.slots[id].crash_after = None;
    }

    /// Lets a node lose its journal. It must be dead.
    pub fn wipe(&mut self, id: Id) {
        let slot = &mut self.slots[id];
        assert!(slot.node.is_none(), "a disk is not taken out of a running node");
        slot.disk.wipe();
        self.note(|| format!("node {id} has lost its disk"));
    }

    /// Damages a record on the disk of a node.
    pub fn damage(&mut self, id: Id, key: broccoli_core::RecordKey, change: impl FnOnce(&mut Vec<u8>)) {
        self.slots[id].disk.damage(key, change);
        self.counts.add(Fault::DamagedRecord);
        self.note(|| format!("record {key:?} of node {id} is damaged"));
    }

    /// The disk of a node.
    pub fn disk(&self, id: Id) -> &Disk {
        &self.slots[id].disk
    }

    /// What a node found on its disk at its last start.
    pub fn recovery(&self, id: Id) -> &Recovery {
        &self.slots[id].recovery
    }

    /// How a node was made.
    pub fn spec(&self, id: Id) -> &Spec {
        &self.slots[id].spec
    }

    /// How often a node was started.
    pub fn starts(&self, id: Id) -> u8 {
        self.slots[id].epoch_count
    }

    /// Nodes, dead ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a node has a connection, as far as the server knows.
    pub fn has_session(&self, id: Id) -> bool {
        self.slots[id].session.is_some()
    }

    /// What of a node gets through: its packets to the server, those of the server to it.
    pub fn silence(&mut self, id: Id, mute: bool, deaf: bool) {
        (self.slots[id].mute, self.slots[id].deaf) = (mute, deaf);
    }

    /// Lets a node's clock run faster by so many millionths.
    pub fn drift(&mut self, id: Id, ppm: i64) {
        self.slots[id].clock.drift(self.now_us, ppm);
    }

    /// Sets a node's time of day.
    pub fn set_wall_clock(&mut self, id: Id, ahead_ms: i64) {
        self.slots[id].clock.wall_ahead_ms = ahead_ms;
    }

    /// What the server's time of day is.
    pub fn unix_ms(&self) -> u64 {
        (WALL_START_MS as u64) + self.now_us / 1_000
    }

    /// A node says goodbye. What is left to be sent is sent; then it ends.
    pub fn leave(&mut self, id: Id) {
        let now = self.at(id);
        self.node(id).leave(now);
        self.drain(id);
    }

    /// Takes what a node has told its user since the last time.
    pub fn take_events(&mut self, id: Id) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.slots[id].events)
    }

    fn at(&self, id: Id) -> Instant {
        self.slots[id].clock.at(self.now_us)
    }

    /// Writes a line of the trace.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() >= self.trace_max {
                trace.pop_front();
            }
            trace.push_back(format!("{:>12.6} s  {}", self.now_us as f64 / 1e6, line()));
        }
    }

    fn tick_wall_clock(&mut self, id: Id) {
        let slot = &mut self.slots[id];
        let unix_ms = WALL_START_MS + (self.now_us / 1_000) as i64 + slot.clock.wall_ahead_ms;
        let (now, epoch) = (slot.clock.at(self.now_us), slot.epoch_count);
        if let Some(node) = &mut slot.node {
            node.handle_input(now, Input::WallClock { unix_ms: unix_ms.max(0) as u64 });
            if self.ticks {
                self.push(self.now_us + WALL_CLOCK_US, Work::WallClock { node: id, epoch });
            }
        }
    }

    /// Ends a node that has said goodbye: its Will is not published.
    pub fn depart(&mut self, id: Id) {
        self.slots[id].will.clear();
        self.kill(id, true);
    }

    /// The incarnation of a node that was started last.
    pub fn epoch(&self, id: Id) -> Epoch {
        epoch(self.seed, id, self.slots[id].epoch_count)
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
            self.disconnected(id);
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

    /// Connects a node whose link was cut or whose session was lost.
    pub fn heal_if_cut(&mut self, id: Id) {
        if self.slots[id].cut || self.slots[id].session.is_none() {
            self.heal(id);
        }
    }

    /// A node that stands still: nothing goes in, nothing comes out, no time passes for it.
    pub fn pause(&mut self, id: Id) {
        self.slots[id].paused = true;
    }

    /// A node goes on with all that has come meanwhile.
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
                self.disconnected(id);
                self.connect(id);
            }
        }
    }

    /// Whether it runs.
    pub fn is_up(&self, id: Id) -> bool {
        self.slots[id].node.is_some()
    }

    /// Whether it stands still.
    pub fn is_paused(&self, id: Id) -> bool {
        self.slots[id].paused
    }

    /// A number below `n` of the cluster's own randomness.
    pub fn random(&mut self, n: u64) -> u64 {
        self.below(n)
    }

    fn disconnected(&mut self, id: Id) {
        if self.slots[id].paused {
            self.slots[id].pending.push(Work::Disconnected { node: id });
        } else {
            self.input(id, Input::Disconnected);
        }
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
            self.route(None, Address::Birth(self.name(id)), true, &will);
        }
    }
}

/// What a test sees.
impl Cluster {
    /// What a node has told its user.
    pub fn events(&self, id: Id) -> impl Iterator<Item = &Event> {
        self.slots[id].events.iter().map(|(_, event)| event)
    }

    /// The same, with the time in milliseconds.
    pub fn timed_events(&self, id: Id) -> &[(u64, Event)] {
        &self.slots[id].events
    }

    /// News of a job.
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

    /// How many runs were started on a node.
    pub fn runs_on(&self, id: Id) -> usize {
        self.runs.iter().filter(|run| run.node == id).count()
    }

    /// How many runs are under way on a node.
    pub fn running_on(&self, id: Id) -> usize {
        self.slots[id].runs.len()
    }

    /// Whether a module is installed on a node.
    pub fn holds(&self, id: Id, module: ModuleHash) -> bool {
        self.slots[id].installed.contains_key(&module)
    }

    /// Virtual time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Nothing is under way on any node.
    pub fn assert_idle(&mut self) {
        for id in 0..self.slots.len() {
            self.note(|| format!("node {id} must be idle"));
            if let Some(node) = &self.slots[id].node {
                node.validate_idle();
            }
        }
        assert!(self.slots.iter().all(|slot| slot.runs.is_empty()), "nothing runs");
    }
}

/// Time.
impl Cluster {
    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let until = self.now_us + ms * 1_000;
        self.run_until(ms, |_| false);
        self.now_us = until;
    }

    /// Goes on until `done`, at most this long; whether it came.
    pub fn run_until(&mut self, ms: u64, done: impl Fn(&Cluster) -> bool) -> bool {
        let until = self.now_us + ms * 1_000;
        while !done(self) {
            if !self.advance(until) {
                return false;
            }
        }
        true
    }

    /// Does all that comes next, if it comes by `until_us`; otherwise nothing.
    pub fn advance(&mut self, until_us: u64) -> bool {
        let Some(next) = self.next_time().filter(|next| *next <= until_us) else {
            return false;
        };
        let next = next.max(self.now_us);
        self.steps_now = if next == self.now_us { self.steps_now + 1 } else { 0 };
        assert!(self.steps_now < STEPS_AT_ONCE_MAX, "time stands still at {next} us");
        self.now_us = next;
        self.step();
        true
    }

    fn next_time(&self) -> Option<u64> {
        let work = self.queue.keys().next().map(|(at, _)| *at);
        let awake = self.slots.iter().filter(|slot| !slot.paused);
        let due = |slot: &Slot| Some(slot.clock.when(slot.node.as_ref()?.poll_timeout()?));
        let timer = awake.filter_map(due).min();
        work.into_iter().chain(timer).min()
    }

    /// Everything that is ready now goes in before anything comes out.
    fn step(&mut self) {
        let mut touched = BTreeSet::new();
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now_us) {
            let work = entry.remove();
            touched.extend(self.do_work(work));
        }
        for (id, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| !slot.paused) {
            let now = slot.clock.at(self.now_us);
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
            Work::Deliver { node, .. }
            | Work::Connected { node, .. }
            | Work::Disconnected { node }
            | Work::Synced { node, .. }
            | Work::WallClock { node, .. }
            | Work::RunEnds { node, .. } => Some(*node),
        };
        if let Some(id) = node.filter(|id| self.slots[*id].paused) {
            self.slots[id].pending.push(work);
            return None;
        }
        let now = node.map_or(Instant(self.now_us), |id| self.at(id));
        match work {
            Work::Publish { from, session, to, retain, bytes } => {
                let slot = &self.slots[from];
                if slot.session == Some(session) && !slot.cut && !slot.mute {
                    self.route(Some(from), to, retain, &bytes);
                }
                None
            }
            Work::Deliver { node, session, to, bytes } => {
                if self.trace.is_some() {
                    self.note(|| format!("node {node} gets {}", brief(&bytes)));
                }
                let slot = &mut self.slots[node];
                if slot.session != Some(session) || slot.cut || slot.deaf {
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
                self.push(self.now_us, Work::Disconnected { node });
                None
            }
            Work::Disconnected { node } => {
                self.slots[node].node.as_mut()?.handle_input(now, Input::Disconnected);
                Some(node)
            }
            Work::Synced { node, epoch, number } => {
                if self.slots[node].epoch_count != epoch {
                    return None;
                }
                let slot = &mut self.slots[node];
                let node_there = slot.node.as_mut()?;
                slot.disk.sync(number);
                node_there.handle_input(now, Input::Persisted(number));
                Some(node)
            }
            Work::WallClock { node, epoch } => {
                if self.slots[node].epoch_count != epoch {
                    return None;
                }
                self.tick_wall_clock(node);
                Some(node)
            }
            Work::RunEnds { node, epoch, run, outcome } => {
                if self.slots[node].epoch_count != epoch {
                    return None;
                }
                let index = self.slots[node].runs.remove(&run)?;
                self.runs[index].ended = true;
                if let Some(workload) = &mut self.workload {
                    workload.ended(node, epoch, run);
                }
                self.slots[node].node.as_mut()?.handle_input(now, Input::Executed { run, outcome });
                Some(node)
            }
        }
    }

    fn input(&mut self, id: Id, input: Input<'_>) {
        let now = self.at(id);
        self.node(id).handle_input(now, input);
        self.drain(id);
    }
}

/// The server.
impl Cluster {
    fn route(&mut self, from: Option<Id>, to: Address, retain: bool, bytes: &[u8]) {
        if let (Address::Birth(name), true) = (to, retain) {
            self.retained.insert(name, bytes.to_vec());
        }
        for id in 0..self.slots.len() {
            let subscribed = match to {
                Address::Node(name) => self.name(id) == name,
                Address::Birth(_) | Address::All => true,
            };
            let blocked = from.is_some_and(|from| self.blocked.contains(&(from, id)));
            if subscribed && !blocked && self.slots[id].session.is_some() {
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
        self.touched.insert(id);
        let now = self.at(id);
        let mut packet = Vec::new();
        loop {
            if self.slots[id].crash_after == Some(0) && self.slots[id].node.is_some() {
                self.counts.add(Fault::CrashBetweenOutputs);
                self.kill(id, true);
            }
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
            self.output(id);
            if let Some(digest) = &mut self.digest {
                *digest = fnv(fnv(*digest, format!("{id} {:?}", transmit.to).as_bytes()), &packet);
            }
            if self.trace.is_some() {
                self.note(|| format!("node {id} sends to {:?}: {}", transmit.to, brief(&packet)));
            }
            if self.records {
                self.published.push(Published { from: id, to: transmit.to, bytes: packet.clone() });
            }
            if let Some(session) = self.slots[id].session.filter(|_| !self.slots[id].cut) {
                let (to, retain, bytes) = (transmit.to, transmit.retain, packet.clone());
                self.push(self.now_us + HOP_US, Work::Publish { from: id, session, to, retain, bytes });
            }
        }
        if let Some(node) = self.slots[id].node.as_ref().filter(|_| self.validate) {
            node.validate();
        }
    }

    fn output(&mut self, id: Id) {
        if let Some(left) = &mut self.slots[id].crash_after {
            *left = left.saturating_sub(1);
        }
    }

    fn act(&mut self, id: Id, action: Action) {
        let now = self.now_us;
        self.output(id);
        if let Some(digest) = &mut self.digest {
            *digest = fnv(*digest, format!("{id} {action:?}").as_bytes());
        }
        if self.trace.is_some() {
            self.note(|| format!("node {id} asks for {}", cropped(format!("{action:?}"))));
        }
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
                if self.chance(self.slots[id].corrupts) {
                    self.counts.add(Fault::CorruptChunk);
                    bytes.iter_mut().for_each(|bytes| bytes[0] ^= 1);
                }
                if self.chance(self.slots[id].lacks) {
                    self.counts.add(Fault::MissingChunk);
                    bytes = None;
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
            Action::Persist { number, writes } => {
                assert!(self.slots[id].spec.durable, "only a node with a disk writes to it");
                let took = 1 + self.below(self.sync_us_max);
                let slot = &mut self.slots[id];
                slot.disk.write(number, writes);
                // A disk does one thing after the other.
                let at = slot.disk.busy_until_us.max(now + took);
                slot.disk.busy_until_us = at;
                let epoch = slot.epoch_count;
                self.push(at, Work::Synced { node: id, epoch, number });
            }
            Action::Event(event) => self.slots[id].events.push((now / 1_000, event)),
        }
    }

    fn feed(&mut self, id: Id, input: Input<'_>) {
        let now = self.at(id);
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
        let before = if self.workload.is_none() { self.runs.iter().filter(same).count() } else { 0 };
        let slot = &mut self.slots[id];
        assert!(slot.runs.len() < usize::from(slot.spec.slots), "at most `slots` runs at a time");
        let version = slot.installed.get(&execute.function.module).map_or(0, |signed| signed.manifest.version);
        let (took, outcome) = match &mut self.workload {
            Some(workload) => {
                let attempt = slot.node.as_ref().and_then(|node| node.attempt_of(execute.run));
                let traps = workload.trapped;
                let started = workload.start(id, slot.epoch_count, self.now_us, attempt, execute, version);
                if workload.trapped > traps {
                    self.counts.add(Fault::Trap);
                }
                started
            }
            None => functions::call(execute, version, before),
        };
        let function = execute.function.name.clone();
        let at_ms = self.now_us / 1_000;
        let ended = took == Duration::ZERO;
        if self.workload.is_some() && ended {
            self.workload.iter_mut().for_each(|workload| workload.ended(id, self.slots[id].epoch_count, execute.run));
        }
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

/// The key of the cluster.
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

/// What takes the place of a true random source.
fn epoch(seed: u64, id: Id, start: u8) -> Epoch {
    let mut epoch = [0; 16];
    epoch[..8].copy_from_slice(&mix(seed ^ (id as u64) << 32 ^ u64::from(start)).to_be_bytes());
    (epoch[8], epoch[9]) = (id as u8, start);
    Epoch(epoch)
}

/// SplitMix64's finisher.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The messages of a packet, shortened.
fn brief(packet: &[u8]) -> String {
    let texts: Vec<String> = open(packet).1.iter().map(|message| cropped(format!("{message:?}"))).collect();
    texts.join("; ")
}

fn cropped(mut text: String) -> String {
    const LEN_MAX: usize = 240;
    if text.len() > LEN_MAX {
        text.truncate((0..=LEN_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
        text.push('…');
    }
    text
}
