//! The node: one state machine that is origin, worker, client and member at the same time. This file is its public
//! interface.
//!
//! Each role has its own module. [`receive`] opens incoming packets, [`transmit`] seals outgoing ones, [`due`] runs
//! timers.

mod audit;
mod bucket;
mod drain;
mod due;
mod handles;
mod receive;
mod transmit;
mod values;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_abi::{Function, Functions, SubmitAnswer};
use broccoli_proto::message::{Death, LeasedFunction, Message, Vitals};
use broccoli_proto::packet::{self, Address};
use broccoli_proto::{Canvas, Cbor, Epoch, JobId, ModuleHash, NodeId, SplitMix64};

use self::bucket::Bucket;
use self::drain::state::Leave;
use crate::canvas::{CanvasError, Plan, Resolved, lower};
use crate::client::Client;
use crate::config::Config;
use crate::content;
use crate::content::modules::Modules;
use crate::content::serve::Serving;
use crate::content::values::Values;
use crate::counters::{Counters, Held};
use crate::io::{Action, Input, OtherVersion, RecordKey, Recovery, SubmitId, Transmit};
use crate::members::{Member, Members};
use crate::origin::accept::{Request, SubmitError};
use crate::origin::job::ticket;
use crate::origin::journal::writes::Submitted;
use crate::origin::{Around, Origin};
use crate::outbox::Outbox;
use crate::sessions::Sessions;
use crate::shared::{PACKET_BYTES_MIN, Shared};
use crate::time::{Instant, Wall, ms};
use crate::timers::{Timer, Timers};
use crate::trace::TraceLevel;
use crate::worker::Worker;

/// The time of day is needed at least this often, to notice that the clock was set.
const WALL: Duration = ms(1_000);

/// A node of a cluster, without clock, I/O and threads.
///
/// A shell passes in what has happened (inputs), and then takes out everything that it has to do:
///
/// ```text
///   new ──► recover, once ──► loop {
///       handle_input(now, …)          for all inputs that are ready, but a bounded number of them
///       loop {
///           poll_transmit(now, buf)   while the link accepts packets, until it returns none;
///                                     poll_local(now) while the link accepts none
///           poll_action()             until it returns none
///       } until neither returns anything
///       wait for an input, for the link to accept packets again, or for poll_timeout()
///   }
/// ```
///
/// Many inputs before one drain give large packets; the results do not depend on the grouping. `now` must never go back
/// between calls.
///
/// | call | when | cost |
/// |---|---|---|
/// | [`Node::new`] | once for each incarnation | |
/// | [`Node::recover`] | once, before all but [`Input::WallClock`], if there is a journal (even new) | all records |
/// | [`Node::write_will`] | before each connection | seals one packet |
/// | [`Node::handle_input`] | at any time | the input, and at most 4,096 timers that are due |
/// | [`Node::poll_transmit`] | after inputs; send the packet, or it is lost | leases ready tasks, seals one packet |
/// | [`Node::poll_local`] | instead, while the link is busy | leases ready tasks |
/// | [`Node::poll_action`] | after these two | one action; before the first one, the journal record of all changes |
/// | [`Node::poll_timeout`] | before waiting; again after each input | the first timer |
/// | methods with `&self` | at any time; they change nothing | those that list iterate over the listed items |
/// | methods with `now` (submit, revoke, …) | like an input: drain afterwards | |
///
/// Actions need not be done at once, but in the order in which they are returned. Messages that depend on the disk are
/// sent after [`Input::Persisted`]. Between two drains, [`Node::validate`] checks the invariants; the simulator calls
/// it after each.
#[derive(Debug)]
pub struct Node {
    shared: Shared,
    origin: Origin,
    worker: Worker,
    client: Client,
    modules: Modules,
    /// Pieces of modules and values that other nodes have requested.
    serving: Serving,
    members: Members,
    sequence: u64,
    last_submit: u32,
    started: Instant,
    leave: Leave,
    hearsay: Bucket,
}

impl Node {
    /// A node that starts now. `epoch` and `seed` must come from a true random source: the epoch is half of every
    /// packet's nonce.
    pub fn new(config: Config, epoch: Epoch, seed: u64, now: Instant) -> Node {
        let mut rng = SplitMix64(seed);
        // Numbers start at a random value, so that the answer to a submit of an earlier incarnation matches none of
        // this one.
        let last_submit = rng.bits() as u32 >> 1;
        let (timing, limits) = (config.timing, config.limits);
        let shared = Shared {
            outbox: Outbox::new(config.name, &limits),
            config,
            epoch,
            now,
            wall: Wall::default(),
            connected: false,
            draining: false,
            timers: Timers::default(),
            actions: VecDeque::new(),
            rng,
            values: Values::new(limits.blob_bytes_max, timing),
            sessions: Sessions::new(timing),
            counters: Counters::default(),
            trace: TraceLevel::Off,
            link_bytes_max: u32::MAX,
            asked_all: None,
        };
        Node {
            modules: Modules::new(&shared),
            serving: Serving::new(limits.packet_bytes_max),
            members: Members::new(now, timing),
            origin: Origin::new(shared.config.durable),
            shared,
            worker: Worker::default(),
            client: Client::new(last_submit),
            sequence: 0,
            last_submit,
            started: now,
            leave: Leave::default(),
            hearsay: Bucket::default(),
        }
    }

    /// Takes over the journal of earlier incarnations. Call it before anything else except [`Input::WallClock`], with
    /// all records in the order of their keys; with none if the journal is new.
    ///
    /// # Errors
    /// If the journal has another version. It must not be written then.
    pub fn recover(
        &mut self,
        now: Instant,
        records: impl Iterator<Item = (RecordKey, Vec<u8>)>,
    ) -> Result<Recovery, OtherVersion> {
        self.shared.now = now;
        self.origin.recover(&mut self.shared, records)
    }

    /// Writes the Will for the next connection: the sealed death notice.
    pub fn write_will(&mut self, will: &mut Vec<u8>) {
        let connection = self.members.next_connection();
        let to = Address::Birth(self.shared.me());
        let draft = self.draft(to, None, will);
        packet::put(will, &Message::Death(Death { connection, leaving: false, holds_no_key: None }));
        self.seal(draft, will);
    }

    /// Accepts a canvas; this node is its origin. News are [`crate::Event::Accepted`] and [`crate::Event::Job`].
    ///
    /// # Errors
    /// If the canvas cannot be run or the queue is full; then nothing has changed.
    pub fn submit(&mut self, now: Instant, canvas: &Canvas) -> Result<SubmitId, SubmitError> {
        self.shared.now = now;
        let id = self.next_submit();
        let around = Around { modules: &self.modules, members: &self.members };
        let client = ticket::Client::Local(id);
        let request =
            Request { canvas, encoded: Cbor::encode(canvas), client, submitter: None, key: None, again: false };
        let job = self.origin.submit(&mut self.shared, &around, request)?;
        self.origin.accept(&mut self.shared, job, Submitted::Local(id));
        Ok(id)
    }

    /// Accepts a canvas whose client does not wait; this node is its origin. A task submits to the queue of its node in
    /// this way.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_detached(&mut self, now: Instant, canvas: &Canvas) -> Result<JobId, SubmitError> {
        self.shared.now = now;
        let around = Around { modules: &self.modules, members: &self.members };
        let client = ticket::Client::Detached;
        let request =
            Request { canvas, encoded: Cbor::encode(canvas), client, submitter: None, key: None, again: false };
        let job = self.origin.submit(&mut self.shared, &around, request)?;
        self.origin.accept(&mut self.shared, job, Submitted::ByTask);
        Ok(job)
    }

    /// The same for an encoded canvas from a running task; the bytes need not be valid. Returns the answer for the
    /// task, and why it was refused.
    pub fn submit_for_task(&mut self, now: Instant, canvas: &[u8]) -> (SubmitAnswer, String) {
        let canvas = match Canvas::from_wire(canvas) {
            Ok(canvas) => canvas,
            Err(error) => return (SubmitAnswer::BadCanvas, error.to_string()),
        };
        let Err(error) = self.submit_detached(now, &canvas) else {
            return (SubmitAnswer::Accepted, String::new());
        };
        let answer = match &error {
            SubmitError::QueueFull => SubmitAnswer::QueueFull,
            SubmitError::Canvas(_) | SubmitError::TooLarge { .. } | SubmitError::KeyTaken | SubmitError::NoClock => {
                SubmitAnswer::BadCanvas
            }
            SubmitError::Draining | SubmitError::Storage(_) => SubmitAnswer::NoJobs,
        };
        (answer, error.to_string())
    }

    /// Looks for an origin among the resident nodes. [`crate::Event::Attached`] reports that it was found and its
    /// functions are known.
    pub fn attach(&mut self, now: Instant) {
        self.shared.now = now;
        self.client.attach(&mut self.shared);
    }

    /// Revokes a job that was submitted through this node.
    pub fn revoke(&mut self, now: Instant, id: SubmitId) {
        self.shared.now = now;
        if self.client.revoke(&mut self.shared, id) {
            return;
        }
        if let Some(job) = self.origin.job_of(id) {
            self.origin.revoke(&mut self.shared, job);
        }
    }

    /// Checks a canvas against the functions that the cluster offers now.
    ///
    /// # Errors
    /// The reason why an origin would refuse it.
    pub fn check(&self, canvas: &Canvas) -> Result<Plan, CanvasError> {
        let holds_code = self.shared.config.holds_code;
        let resolve = |name: &str| {
            let found = self.modules.resolve(&self.members, holds_code, name)?;
            Ok(Resolved { name: found.full_name(), function: found.function, key: 0 })
        };
        lower(canvas, resolve, &self.shared.config.limits.canvas)
    }

    /// Finds a function by its full or bare name. The error lists the available functions.
    ///
    /// # Errors
    /// If there is no function with this name, or more than one.
    pub fn function(&self, name: &str) -> Result<(String, &Function), String> {
        let found = self.modules.resolve(&self.members, self.shared.config.holds_code, name)?;
        Ok((found.full_name(), found.function))
    }

    /// The newest usable version of each module, by name: version and functions.
    pub fn functions(&self) -> BTreeMap<&str, (u64, &Functions)> {
        let usable = self.modules.usable(self.shared.config.holds_code, &self.members);
        usable.into_iter().map(|(name, entry)| (name, (entry.version(), entry.functions()))).collect()
    }

    /// The functions of a module, if this node knows its manifest.
    pub fn functions_of(&self, module: &ModuleHash) -> Option<&Functions> {
        self.modules.functions_of(module)
    }

    /// The nodes that this node knows.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter()
    }

    /// Whether the module set of a node is known.
    pub fn knows_modules_of(&self, member: &Member) -> bool {
        self.modules.knows(member.birth.modules)
    }

    /// Whether a node is known to hold a module.
    pub fn holds(&self, member: &Member, module: &ModuleHash) -> bool {
        self.modules.peer_holds(member.birth.modules, module)
    }

    /// Asks all nodes for their vitals; the answers are [`crate::Event::Vitals`].
    pub fn ask_vitals(&mut self, now: Instant) {
        self.shared.now = now;
        self.shared.outbox.broadcast(Message::VitalsRequest);
    }

    /// Says goodbye: other nodes then do not wait for this node to return. Send the remaining packets, then disconnect.
    pub fn leave(&mut self, now: Instant) {
        self.shared.now = now;
        self.members.leave(&mut self.shared, self.origin.holds_no_key());
    }

    /// The vitals of this node.
    pub fn vitals(&self) -> Vitals {
        let (running, queued) = self.worker.load();
        let (jobs, ready) = self.origin.load();
        Vitals {
            slots: self.shared.config.slots,
            running: running as u32,
            queued: queued as u32,
            jobs: jobs as u32,
            ready: ready as u32,
            uptime_ms: (self.shared.now - self.started).as_millis() as u64,
            tasks_run: self.worker.tasks_run(),
            modules: self.modules.versions(),
            draining: self.shared.draining.then_some(true),
            leaving: self.leaving(),
        }
    }

    /// Sets which [`crate::Event::Trace`] are reported from now on; initially none. Events of each task cost time and
    /// memory: enable them only while they are read.
    pub fn set_trace(&mut self, level: TraceLevel) {
        self.shared.trace = level;
    }

    /// The full name of a function, `module.function`; `?.function` if its module is no longer known.
    pub fn name_of(&self, function: &LeasedFunction) -> String {
        let module = self.modules.name_of(&function.module).unwrap_or("?");
        alloc::format!("{module}.{}", function.name)
    }

    /// What this node has done since its start, and what it holds now. Cheap, but it iterates over all addresses and
    /// workers: call it at most a few times a second.
    pub fn counters(&self) -> Counters {
        let (sessions, origin) = (&self.shared.sessions, self.origin.held(&self.shared));
        let unacknowledged_bytes = self.worker.kept_bytes() as u64;
        Counters {
            tasks_run: self.worker.tasks_run(),
            sessions_open: sessions.len() as u64,
            sessions_opened: sessions.opened,
            sessions_refused: sessions.refused,
            held: Held { unacknowledged_bytes, ..origin },
            ..self.shared.counters
        }
    }

    /// Handles an input, and every timer that is due.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        self.shared.now = now;
        match input {
            Input::Timeout => {}
            Input::PacketLimit(bytes) => self.shared.link_bytes_max = bytes.max(PACKET_BYTES_MIN),
            Input::Connected => self.on_connected(),
            Input::Disconnected => {
                self.shared.connected = false;
                self.clear_wire();
            }
            // While the link is down, no packet can be answered.
            Input::Packet { to, packet } if self.shared.connected => self.on_packet(to, packet),
            Input::Packet { .. } => {}
            Input::Executed { run, outcome } => self.worker.on_executed(&mut self.shared, run, outcome),
            Input::Logged { run, text } => self.worker.on_logged(&mut self.shared, run, text),
            Input::ChunkLoaded { module, index, to, bytes } => {
                content::on_chunk_loaded(&mut self.shared, &mut self.serving, to, (module, index), bytes);
            }
            Input::Progress { run, done, total } => self.worker.on_progress(&mut self.shared, run, done, total),
            Input::Persisted(number) => self.origin.on_persisted(&mut self.shared, number),
            Input::Stalled(reason) => self.origin.on_stalled(reason),
            Input::WallClock { unix_ms } => {
                self.shared.timers.set(Timer::Wall, now + WALL);
                if self.shared.wall.set(now, unix_ms) {
                    self.origin.on_clock_set(&mut self.shared);
                }
            }
            Input::Installed { manifest, outcome } => self.on_installed(manifest, outcome),
        }
        self.on_due_timers();
        self.deliver_values();
        self.drop_undeployed();
    }

    /// The jobs with changes that were not passed to the journal yet.
    pub fn unwritten_jobs(&self) -> impl Iterator<Item = u64> {
        self.origin.unwritten_jobs()
    }

    /// Seals the next packet into `buf`. Call it while the link accepts packets; otherwise call [`Node::poll_local`].
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.poll_local(now);
        while self.shared.connected {
            if let Some(answer) = self.shared.sessions.pop_answer(now) {
                let to = Address::Node(answer.to);
                self.compose_answer(answer, buf);
                return Some(self.transmit(to, buf));
            }
            let Some(to) = self.shared.outbox.pop_marked() else {
                break;
            };
            if self.compose_packet(to, buf) {
                return Some(self.transmit(to, buf));
            }
            if self.origin.is_dispatch_due() {
                // Tasks that did not fit their worker go to another one.
                self.settle();
            }
        }
        if let Some(at) = self.shared.sessions.next_answer() {
            self.shared.timers.set_earlier(Timer::Answers, at);
        }
        None
    }

    /// Whether [`Input::WallClock`] is due: once a second, and at each time-out while the time of day is not known.
    pub fn wants_wall_clock(&self, now: Instant) -> bool {
        !self.shared.timers.is_ahead(Timer::Wall, now)
    }

    /// Continues the local work of this node while its link accepts no packets. [`Node::poll_transmit`] does this, too.
    pub fn poll_local(&mut self, now: Instant) {
        self.shared.now = now;
        self.settle();
        self.check_drained();
    }

    /// The next action for the shell.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.shared.actions.is_empty() {
            self.origin.write_journal(&mut self.shared);
        }
        self.shared.actions.pop_front()
    }

    /// When [`Input::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unfinished = self.shared.outbox.has_loopback();
        if unfinished { Some(self.shared.now) } else { self.shared.timers.next() }
    }

    fn next_submit(&mut self) -> SubmitId {
        self.last_submit += 1;
        SubmitId(self.last_submit)
    }
}
