//! A cluster in memory: real nodes, a virtual MQTT server, virtual time, all from one seed.
//!
//! ```text
//!   node ──publish──► server ──deliver──► node        each hop takes HOP; faults hit deliveries
//!     └─ Execute ──► run ends after its virtual time
//! ```
//!
//! The server keeps Wills, and the packets that an attacker makes it retain. After every step, the invariants of
//! every touched node are checked.

pub mod bus;
pub mod clock;
mod control;
pub mod disk;
pub mod faults;
pub mod functions;
mod observe;
mod server;
mod shell;
mod spec;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broccoli_core::{Config, Event, Input, Instant, Node, Recovery, RunId, SubmitError, Timing};
use broccoli_proto::message::{Failure, Message};
use broccoli_proto::module::SignedManifest;
use broccoli_proto::packet::Address;
use broccoli_proto::{Canvas, Cbor, Epoch, JobId, ModuleHash, SplitMix64};

use self::bus::Bus;
use self::clock::Clock;
use self::disk::Disk;
use self::faults::Counts;
use self::server::Stranger;
pub use self::spec::Spec;
pub use self::wire::{Sealed, cluster_key, module, open, tombstone};
use self::wire::{brief, deploy_public};
use crate::workload::{self, Workload};

/// Time of one way between a node and the server, in microseconds.
const HOP_US: u64 = 100;
/// After this time the server notices that a client was cut off without a reset.
pub const KEEP_ALIVE_MS: u64 = 1_500;
/// A failed connection attempt is repeated after this time.
const RETRY_US: u64 = 100_000;
/// How often nodes get the time of day, if they get it.
const WALL_CLOCK_US: u64 = 1_000_000;
/// The time of day at the start, in Unix milliseconds.
const WALL_START_MS: i64 = 1_800_000_000_000;
/// With this many steps at one moment, nodes count as keeping each other busy for ever.
const STEPS_AT_ONCE_MAX: u32 = 100_000;

/// A node of the cluster, by the order of adding.
pub type Id = usize;

/// The probabilities of faults of a delivery, in thousandths.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// It is lost.
    pub loss: u64,
    /// It is duplicated, and the copy comes up to the longest delay later.
    pub duplication: u64,
    /// It is delayed.
    pub delay: u64,
    /// Longest delay, in milliseconds.
    pub delay_ms_max: u64,
}

/// The fault of the one delivery with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// It is lost.
    Lost,
    /// It is duplicated.
    Doubled {
        /// How much later the copy comes.
        after_ms: u64,
    },
    /// It is delayed.
    Delayed {
        /// How much later it comes.
        by_ms: u64,
    },
}

/// One start of a function.
#[derive(Clone, Debug)]
pub struct Run {
    /// When it started.
    pub at_ms: u64,
    /// The node.
    pub node: Id,
    /// Its name without the module's.
    pub function: String,
    /// Its arguments.
    pub args: Cbor,
    /// Whether it was aborted, or its node died.
    pub aborted: bool,
    /// Whether it has ended.
    pub ended: bool,
}

/// A canvas that a task has submitted to its node.
#[derive(Debug)]
pub struct Pushed {
    /// The node.
    pub node: Id,
    /// The canvas.
    pub canvas: Canvas,
    /// The job, which is not yet safe on disk, or why it was refused.
    pub job: Result<JobId, SubmitError>,
}

/// A published packet.
#[derive(Clone, Debug)]
pub struct Published {
    /// The node that has published it.
    pub from: Id,
    /// Its address.
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
    /// Whether the link is cut: it carries nothing, and neither side has noticed yet.
    cut: bool,
    will: Vec<u8>,
    /// Whether its packets do not reach the server, or those of the server do not reach it.
    mute: bool,
    deaf: bool,
    paused: bool,
    pending: Vec<Work>,
    clock: Clock,
    disk: Disk,
    recovery: Recovery,
    /// It crashes after this many outputs.
    crash_after: Option<u32>,
    /// Until when the bus has not sent the last packet.
    sending_until_us: u64,
    /// The time of its last delivery.
    last_delivery_us: u64,
    chunks: BTreeMap<(ModuleHash, u32), Vec<u8>>,
    installed: BTreeMap<ModuleHash, SignedManifest>,
    /// How many of its chunks, in thousandths, are damaged or missing.
    corrupts: u64,
    lacks: u64,
    install_error: Option<String>,
    full_error: Option<String>,
    runs: BTreeMap<RunId, usize>,
    events: Vec<(u64, Event)>,
    /// The incarnation and the session in which it is reachable, and since when, in microseconds.
    reachable: Option<(u8, u64, u64)>,
}

#[derive(Clone)]
enum Work {
    Publish {
        from: Id,
        session: u64,
        to: Address,
        bytes: Vec<u8>,
    },
    Deliver {
        node: Id,
        session: u64,
        to: Address,
        bytes: Vec<u8>,
    },
    /// The bus has sent the last packet of a node.
    Sent {
        node: Id,
    },
    Connected {
        node: Id,
        session: u64,
    },
    LostLink {
        node: Id,
        session: u64,
    },
    Disconnected {
        node: Id,
    },
    Synced {
        node: Id,
        epoch: u8,
        number: u64,
    },
    WallClock {
        node: Id,
        epoch: u8,
    },
    RunEnds {
        node: Id,
        epoch: u8,
        run: RunId,
        outcome: Result<Cbor, Failure>,
    },
}

/// The cluster.
pub struct Cluster {
    /// Microseconds of virtual time.
    pub now_us: u64,
    seed: u64,
    rng: SplitMix64,
    slots: Vec<Slot>,
    steps_now: u32,
    queue: BTreeMap<(u64, u64), Work>,
    queued: u64,
    sessions: u64,
    stranger: Stranger,
    /// The faults of each delivery.
    pub faults: Faults,
    /// Deliveries take up to this much longer, so they can overtake each other.
    pub jitter_us: u64,
    /// The medium, if it is not a fast network. To be set before nodes are added.
    pub bus: Option<Bus>,
    /// Packets of the first node do not reach the second node.
    pub blocked: BTreeSet<(Id, Id)>,
    /// How often each fault has happened.
    pub counts: Counts,
    /// Longest time that a disk takes for a write.
    pub sync_us_max: u64,
    /// The fault of the delivery with each number.
    pub mishap: Option<(u64, Mishap)>,
    /// Deliveries with such a message are lost.
    pub lose: Option<fn(&Message) -> bool>,
    /// The number of deliveries so far.
    pub deliveries: u64,
    /// Every start of a function.
    pub runs: Vec<Run>,
    /// Every published packet, if `records`.
    pub published: Vec<Published>,
    /// Whether published packets are kept.
    pub records: bool,
    /// Whether invariants are checked after every step.
    pub validate: bool,
    /// Whether nodes get the time of day.
    pub tells_time: bool,
    /// Whether they get it again and again.
    pub ticks: bool,
    /// The functions of the simulator, instead of those of the tests.
    pub workload: Option<Workload>,
    /// What tasks have submitted since the last look.
    pub pushed: Vec<Pushed>,
    /// Nodes that have had an input since the last look.
    pub touched: BTreeSet<Id>,
    /// The last lines of the trace, if requested.
    pub trace: Option<VecDeque<String>>,
    /// Their maximum number.
    pub trace_max: usize,
    /// A hash of all outputs of nodes, if requested.
    pub digest: Option<u64>,
}

impl Cluster {
    /// A cluster without nodes. The seed decides everything random.
    pub fn new(seed: u64) -> Cluster {
        Cluster {
            now_us: 1_000_000,
            seed,
            rng: SplitMix64(seed),
            slots: Vec::new(),
            steps_now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            sessions: 0,
            stranger: Stranger::default(),
            faults: Faults::default(),
            jitter_us: 0,
            bus: None,
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
            pushed: Vec::new(),
            touched: BTreeSet::new(),
            trace: None,
            trace_max: 0,
            digest: None,
        }
    }

    /// How long the protocol waits for others.
    pub fn timing(&self) -> Timing {
        self.bus.as_ref().map_or(Timing::FAST, Bus::timing)
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
            sending_until_us: 0,
            last_delivery_us: 0,
            chunks: BTreeMap::new(),
            installed: BTreeMap::new(),
            corrupts: 0,
            lacks: 0,
            install_error: None,
            full_error: None,
            runs: BTreeMap::new(),
            events: Vec::new(),
            reachable: None,
        });
        let id = self.slots.len() - 1;
        self.boot(id);
        id
    }

    fn boot(&mut self, id: Id) {
        let (seed, now, timing) = (self.seed, self.at(id), self.timing());
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
            watches: slot.spec.watches,
            version: "test".into(),
            timing,
            limits: slot.spec.limits,
        };
        let node_seed = SplitMix64::mix(seed.wrapping_add(id as u64) ^ u64::from(slot.epoch_count) << 40);
        let mut node = Node::new(config, epoch, node_seed, now);
        if let Some(bus) = &self.bus {
            node.handle_input(now, Input::PacketLimit(bus.speed().packet_bytes_max));
        }
        slot.node = Some(node);
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

/// The clocks of nodes, and the randomness of the cluster.
impl Cluster {
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

    fn below(&mut self, n: u64) -> u64 {
        self.rng.below(n)
    }

    fn chance(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.below(1_000) < thousandths
    }
}

/// Virtual time.
impl Cluster {
    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let until = self.now_us + ms * 1_000;
        self.run_until(ms, |_| false);
        self.now_us = until;
    }

    /// Continues until `done`, at most for this time. Returns whether `done` was reached.
    pub fn run_until(&mut self, ms: u64, done: impl Fn(&Cluster) -> bool) -> bool {
        let until = self.now_us + ms * 1_000;
        while !done(self) {
            if !self.advance(until) {
                return false;
            }
        }
        true
    }

    /// Does everything that is due next, if it is due by `until_us`; otherwise nothing.
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

    /// Feeds everything that is ready now, before it takes any output.
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
        for id in touched {
            self.drain(id);
        }
    }

    fn push(&mut self, at: u64, work: Work) {
        self.queued += 1;
        self.queue.insert((at, self.queued), work);
    }

    fn do_work(&mut self, work: Work) -> Option<Id> {
        let node = match &work {
            Work::Publish { .. } | Work::LostLink { .. } => None,
            Work::Deliver { node, .. }
            | Work::Sent { node }
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
            Work::Publish { from, session, to, bytes } => {
                let slot = &self.slots[from];
                if slot.session == Some(session) && !slot.cut && !slot.mute {
                    self.route(Some(from), to, &bytes);
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
            Work::Sent { node } => Some(node),
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
                for (to, bytes) in self.stranger.retained.clone() {
                    if !matches!(to, Address::Node(name) if name != self.name(node)) {
                        self.deliver(node, to, &bytes);
                    }
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
                self.synced(node, epoch, number);
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

/// The stand-in for a true random source.
fn epoch(seed: u64, id: Id, start: u8) -> Epoch {
    let mut epoch = [0; 16];
    epoch[..8].copy_from_slice(&SplitMix64::mix(seed ^ (id as u64) << 32 ^ u64::from(start)).to_be_bytes());
    (epoch[8], epoch[9]) = (id as u8, start);
    Epoch(epoch)
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo).
pub(crate) fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
