//! The node: one state machine that is origin, worker and client, built of one module a role.
//!
//! A shell feeds it everything that is ready (bounded), then drains it:
//!
//! ```text
//!   loop {
//!       handle_input(…) …                       packets, runs that ended, Timeout
//!       loop { poll_transmit → send;  poll_action → do } until both are empty
//!       wait for the link, a run, or poll_timeout()
//!   }
//! ```

mod audit;
mod drain;
mod handles;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_abi::{Function, Functions, SubmitAnswer};
use broccoli_proto::message::{
    Available, Birth, Death, JobEvent, JobNews, LeasedFunction, Message, StepNews, StepView, Submit, TaskResult,
    TaskResults, Vitals,
};
use broccoli_proto::module::SignedManifest;
use broccoli_proto::packet::{self, Address, Draft, Envelope, Header, PacketError};
use broccoli_proto::{Canvas, Cbor, Epoch, JobId, ModuleHash, NodeId, SplitMix64};

use crate::canvas::{CanvasError, Plan, Resolved, lower};
use crate::client::Client;
use crate::config::Config;
use crate::content::modules::Modules;
use crate::content::serve::Serving;
use crate::content::values::Values;
use crate::content::values::held::Holder;
use crate::content::values::pulls::{Arrival, Missing, Purpose};
use crate::counters::{Counters, Held};
use crate::io::{Action, Event, Input, OtherVersion, RecordKey, Recovery, RunId, SubmitId, Transmit};
use crate::members::{Member, Members, Told};
use crate::origin::accept::{Request, SubmitError};
use crate::origin::job::ticket;
use crate::origin::journal::writes::Submitted;
use crate::origin::{Around, Origin};
use crate::outbox::{Outbox, Room};
use crate::sessions::{Answer, Knocking, Sessions, Standing};
use crate::shared::{PACKET_BYTES_MIN, Shared};
use crate::time::{Instant, Wall, ms};
use crate::timers::{Timer, Timers};
use crate::trace::TraceLevel;
use crate::worker::Worker;
use crate::{content, text};

/// Most messages that a node delivers to itself before it sends something.
const LOOPBACK_MAX: usize = 4_096;
/// The time of day is told at least this often: a clock that was set shows.
const WALL: Duration = ms(1_000);
/// Most timers that are followed before something is sent; the others are still due then.
const TIMERS_MAX: usize = 4_096;
/// Most messages of a packet that are not bulk traffic; the roles write fewer than the rest.
const QUEUED_PER_PACKET_MAX: usize = packet::MESSAGES_MAX / 2;

/// Whether a packet holds nothing but the notice of an end.
fn is_will(plaintext: &[u8]) -> bool {
    packet::messages(plaintext).all(|message| matches!(message, Ok(Message::Death(_))))
}

/// How often this node answers questions that may be recordings: a tenth of the nodes that it remembers in a second, and as
/// many at once as are due in two.
#[derive(Debug, Default)]
struct Bucket {
    /// Answers that may be given, in millionths.
    left: u64,
    /// When it was last filled; never before the first.
    at: Option<Instant>,
}

impl Bucket {
    /// Takes one, if there is one.
    fn take(&mut self, now: Instant, nodes_max: usize) -> bool {
        let rate = (nodes_max as u64 / 10).max(8);
        let passed = self.at.map_or(2_000_000, |at| (now - at).as_micros() as u64);
        self.at = Some(now);
        self.left = self.left.saturating_add(passed.saturating_mul(rate)).min(2_000_000 * rate);
        let is_open = self.left >= 1_000_000;
        if is_open {
            self.left -= 1_000_000;
        }
        is_open
    }
}

/// A node of a cluster.
#[derive(Debug)]
pub struct Node {
    shared: Shared,
    origin: Origin,
    worker: Worker,
    client: Client,
    modules: Modules,
    /// Pieces of modules and values that other nodes have asked for.
    serving: Serving,
    members: Members,
    sequence: u64,
    last_submit: u32,
    started: Instant,
    leave: drain::Leave,
    hearsay: Bucket,
}

impl Node {
    /// A node that starts now. `epoch` and `seed` must come from a true random source: the epoch
    /// is half of every packet's nonce.
    pub fn new(config: Config, epoch: Epoch, seed: u64, now: Instant) -> Node {
        let mut rng = SplitMix64(seed);
        // Numbers start anywhere, so that an answer to an earlier incarnation fits no submit of
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
            leave: drain::Leave::default(),
            hearsay: Bucket::default(),
        }
    }

    /// Takes over what earlier incarnations have left in the journal. Call it before anything
    /// else but [`Input::WallClock`], with all records in order of their keys; of a new journal,
    /// with none.
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

    /// Writes the Will of a connection that is about to be made: the sealed notice of its end.
    pub fn write_will(&mut self, will: &mut Vec<u8>) {
        let connection = self.members.next_connection();
        let to = Address::Birth(self.shared.me());
        let draft = self.draft(to, None, will);
        packet::put(will, &Message::Death(Death { connection, leaving: false, holds_no_key: None }));
        self.seal(draft, will);
    }

    /// Accepts a canvas as its origin. News come as [`Event::Accepted`] and [`Event::Job`].
    ///
    /// # Errors
    /// If the canvas cannot be run or the queue is full; nothing has happened then.
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

    /// Accepts a canvas that nobody waits for, as its origin: how a task submits to the queue of its node.
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

    /// The same for the bytes that a running task says are a canvas; nothing of them was checked. Gives
    /// the answer for the task, and why it was refused.
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

    /// Looks for an origin among the resident nodes; [`Event::Attached`] tells when it is found
    /// and its functions are known.
    pub fn attach(&mut self, now: Instant) {
        self.shared.now = now;
        self.client.attach(&mut self.shared);
    }

    /// Ends a job that was submitted through this node.
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
    /// What an origin would refuse it for.
    pub fn check(&self, canvas: &Canvas) -> Result<Plan, CanvasError> {
        let holds_code = self.shared.config.holds_code;
        let resolve = |name: &str| {
            let found = self.modules.resolve(&self.members, holds_code, name)?;
            Ok(Resolved { name: found.full_name(), function: found.function, key: 0 })
        };
        lower(canvas, resolve, &self.shared.config.limits.canvas)
    }

    /// Finds a function by its name, full or bare; the error says what there is.
    ///
    /// # Errors
    /// If there is none of that name, or more than one.
    pub fn function(&self, name: &str) -> Result<(String, &Function), String> {
        let found = self.modules.resolve(&self.members, self.shared.config.holds_code, name)?;
        Ok((found.full_name(), found.function))
    }

    /// The newest version of each module that can be used, by name: version and functions.
    pub fn functions(&self) -> BTreeMap<&str, (u64, &Functions)> {
        let usable = self.modules.usable(self.shared.config.holds_code, &self.members);
        usable.into_iter().map(|(name, entry)| (name, (entry.version(), entry.functions()))).collect()
    }

    /// What a module offers, if this node knows its manifest.
    pub fn functions_of(&self, module: &ModuleHash) -> Option<&Functions> {
        self.modules.functions_of(module)
    }

    /// The nodes that were heard of.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter()
    }

    /// Whether it is known what a node can run.
    pub fn knows_modules_of(&self, member: &Member) -> bool {
        self.modules.knows(member.birth.modules)
    }

    /// Whether a node is known to hold a module.
    pub fn holds(&self, member: &Member, module: &ModuleHash) -> bool {
        self.modules.peer_holds(member.birth.modules, module)
    }

    /// Asks all nodes how they are; answers come as [`Event::Vitals`].
    pub fn ask_vitals(&mut self, now: Instant) {
        self.shared.now = now;
        self.shared.outbox.broadcast(Message::VitalsRequest);
    }

    /// Says goodbye: nobody waits for this node's return. Send what is left, then disconnect.
    pub fn leave(&mut self, now: Instant) {
        self.shared.now = now;
        self.members.leave(&mut self.shared, self.origin.holds_no_key());
    }

    /// How this node is.
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

    /// Sets which [`Event::Trace`] come from now on; at first, none do. Events of each task cost time and memory: ask for
    /// them only while somebody reads them.
    pub fn set_trace(&mut self, level: TraceLevel) {
        self.shared.trace = level;
    }

    /// The full name of a function, `module.function`; `?.function` if its module is not known any more.
    pub fn name_of(&self, function: &LeasedFunction) -> String {
        let module = self.modules.name_of(&function.module).unwrap_or("?");
        alloc::format!("{module}.{}", function.name)
    }

    /// What this node has done since its start, and what it holds now. Cheap, but it walks over all addresses and workers:
    /// ask a few times a second at most.
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

    /// Takes something that has happened, and every timer that is due.
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
            // Before that, nobody could be answered.
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
                if self.shared.wall.tell(now, unix_ms) {
                    self.origin.on_clock_set(&mut self.shared);
                }
            }
            Input::Installed { manifest, outcome } => self.on_installed(manifest, outcome),
        }
        self.on_due_timers();
        self.deliver_values();
        self.drop_undeployed();
    }

    /// The jobs of which something is not handed to the journal yet.
    pub fn unwritten_jobs(&self) -> impl Iterator<Item = u64> {
        self.origin.unwritten_jobs()
    }

    /// Seals the next packet into `buf`. Call it as long as the link takes packets; while it takes none, call
    /// [`Node::poll_local`].
    pub fn poll_transmit(&mut self, now: Instant, buf: &mut Vec<u8>) -> Option<Transmit> {
        self.shared.now = now;
        self.settle();
        self.check_drained();
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
                // What did not fit its worker goes to another one.
                self.settle();
            }
        }
        if let Some(at) = self.shared.sessions.next_answer() {
            self.shared.timers.set_earlier(Timer::Answers, at);
        }
        None
    }

    /// Whether [`Input::WallClock`] is due: once a second, and at each time-out while the node does not know the time of day.
    pub fn wants_wall_clock(&self, now: Instant) -> bool {
        !self.shared.timers.is_ahead(Timer::Wall, now)
    }

    /// Goes on with what this node does for itself while its link takes no packets; [`Node::poll_transmit`] does so, too.
    pub fn poll_local(&mut self, now: Instant) {
        self.shared.now = now;
        self.settle();
    }

    /// The next thing to be done by the shell.
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
}

/// The roles, for [`crate::audit`].
impl Node {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn worker(&self) -> &Worker {
        &self.worker
    }

    pub(crate) fn modules(&self) -> &Modules {
        &self.modules
    }

    pub(crate) fn serving(&self) -> &Serving {
        &self.serving
    }

    pub(crate) fn members_role(&self) -> &Members {
        &self.members
    }
}

/// Invariants, for tests and the simulator.
impl Node {
    /// Checks what must hold after the shell has drained the node.
    ///
    /// # Panics
    /// If something does not.
    pub fn validate(&self) {
        self.origin.validate(&self.shared);
        self.worker.validate(&self.shared);
        self.client.validate(&self.shared);
        self.modules.validate(&self.shared);
        self.shared.values.validate(&self.shared.timers);
        self.serving.validate();
        self.shared.outbox.validate();
        for node in self.shared.sessions.knocked() {
            assert!(self.shared.timers.is_set(Timer::Knock(node)), "{node} is knocked at again");
        }
    }

    /// Checks that nothing is under way: no job, lease, run, result or pull, and that only
    /// presence is waited for.
    ///
    /// # Panics
    /// If something is.
    pub fn validate_idle(&self) {
        self.validate();
        self.origin.validate_idle();
        self.worker.validate_idle();
        self.shared.values.validate_idle();
        let presence = |timer: &Timer| matches!(timer, Timer::Claim | Timer::Members | Timer::Forget);
        let timers: Vec<Timer> = self.shared.timers.iter().filter(|timer| !presence(timer)).collect();
        assert!(timers.is_empty(), "an idle node waits for nothing, but {timers:?}");
    }
}

/// Coming in.
impl Node {
    fn on_connected(&mut self) {
        self.shared.connected = true;
        // What was written while nobody could hear is old by now.
        self.clear_wire();
        self.shared.values.on_connected(self.shared.now, &mut self.shared.outbox);
        self.members.on_connected(&mut self.shared, self.modules.digest());
        self.worker.on_connected(&mut self.shared);
        let around = Around { modules: &self.modules, members: &self.members };
        self.origin.on_connected(&mut self.shared, &around);
        self.client.on_connected(&mut self.shared);
    }

    /// Forgets what a lost connection would have carried.
    fn clear_wire(&mut self) {
        self.shared.outbox.clear_wire();
        self.shared.asked_all = None;
        self.serving.clear();
        let knocked: Vec<NodeId> = self.shared.sessions.knocked().collect();
        knocked.into_iter().for_each(|node| self.shared.timers.cancel(Timer::Knock(node)));
        self.shared.timers.cancel(Timer::Answers);
        self.shared.sessions.on_disconnected();
    }

    fn on_packet(&mut self, to: Address, bytes: &[u8]) {
        self.shared.counters.packets_in += 1;
        self.shared.counters.bytes_in += bytes.len() as u64;
        match packet::open(&self.shared.config.keys, self.shared.me(), &mut bytes.to_vec()) {
            Ok((header, plaintext)) => self.on_messages(to, &header, plaintext),
            Err(error) => {
                if error == PacketError::CannotOpen && to == Address::All {
                    self.members.on_other_key(&mut self.shared);
                }
                self.reject(None, error);
            }
        }
    }

    fn reject(&mut self, sender: Option<NodeId>, error: PacketError) {
        self.shared.counters.rejected.add(error);
        self.shared.event(Event::Rejected { sender, error });
    }

    fn on_messages(&mut self, to: Address, header: &Header, plaintext: &[u8]) {
        let (from, epoch) = (header.sender, header.epoch);
        if from == self.shared.me() {
            self.on_own_name(epoch, plaintext);
            return;
        }
        if matches!(to, Address::Birth(node) if node != from) {
            self.reject(Some(from), PacketError::Misdirected);
            return;
        }
        // What the header says counts, and not where it was published.
        let directed = header.destination.is_some();
        let Shared { sessions, rng, now, config, .. } = &mut self.shared;
        let fresh = match sessions.judge(*now, rng, header, directed, config.limits.nodes_max) {
            Standing::Fresh { opens } => {
                self.on_fresh(from, epoch, opens);
                true
            }
            // A Will is older than what its sender has said since.
            Standing::Repeated if !directed && is_will(plaintext) => false,
            Standing::Repeated => return self.reject(Some(from), PacketError::Repeated),
            Standing::Unproven if !directed => false,
            // A knock is answered, and says nothing.
            Standing::Unproven if plaintext.is_empty() => return,
            Standing::Unproven => return self.reject(Some(from), PacketError::Unproven),
        };
        for message in packet::messages(plaintext) {
            let (sequence, challenge) = (header.sequence, header.challenge);
            match message {
                Ok(message) if fresh => self.on_message(from, epoch, sequence, message),
                Ok(message) => self.on_hearsay(from, Told { epoch, sequence, fresh }, challenge, message),
                Err(error) => self.reject(Some(from), error),
            }
        }
    }

    /// Something that was sealed in this node's name: by itself, by an incarnation before, or by a twin.
    fn on_own_name(&mut self, epoch: Epoch, plaintext: &[u8]) {
        if epoch == self.shared.epoch {
            return;
        }
        for message in packet::messages(plaintext).flatten() {
            self.members.on_other_self(&mut self.shared, epoch, &message);
        }
    }

    /// A packet counts: its sender is there, in this incarnation.
    fn on_fresh(&mut self, from: NodeId, epoch: Epoch, opens: bool) {
        if opens {
            self.origin.on_session(&mut self.shared, from, epoch);
            self.worker.on_session(&mut self.shared, from, epoch);
            self.client.on_session(&mut self.shared, from);
        }
        self.members.on_proven(&mut self.shared, from, epoch, opens);
        if self.shared.sessions.answered(from) {
            self.shared.timers.cancel(Timer::Knock(from));
            self.shared.outbox.mark_wire(Address::Node(from));
        }
    }

    /// A node does not answer.
    fn on_knock_timer(&mut self, node: NodeId) {
        let shared = &mut self.shared;
        if !shared.sessions.is_silent(node) {
            shared.outbox.mark_wire(Address::Node(node));
            return;
        }
        shared.outbox.drop_queue(Address::Node(node));
        self.serving.drop_queue(node);
        self.members.on_silent(shared, node);
        self.origin.on_silent(shared, node);
        self.modules.on_silent(shared, &self.members, node);
        self.client.on_silent(shared, &self.members, node);
    }

    /// Something that was told to everybody, and may be a recording: it changes what this node asks, at most.
    fn on_hearsay(&mut self, from: NodeId, told: Told, challenge: u64, message: Message) {
        match message {
            Message::Birth(birth) => self.on_birth(from, told, birth),
            Message::Death(death) => self.on_death(from, told.epoch, death),
            Message::Available(available) => self.on_available(from, told, &available),
            Message::Hello if Members::is_present(&self.shared) => {
                let birth = self.members.birth(&self.shared, self.modules.digest());
                self.answer(from, challenge, Message::Birth(birth));
            }
            Message::VitalsRequest if Members::is_present(&self.shared) => {
                let vitals = self.vitals();
                self.answer(from, challenge, Message::Vitals(vitals));
            }
            Message::Hello | Message::VitalsRequest => {}
            _ => self.reject(Some(from), PacketError::Unproven),
        }
    }

    /// Answers a question that everybody was asked, not too often: it may be a recording.
    fn answer(&mut self, to: NodeId, challenge: u64, message: Message) {
        if self.hearsay.take(self.shared.now, self.shared.config.limits.nodes_max) {
            let at = self.members.answer_at(&mut self.shared);
            self.shared.sessions.answer(at, Answer { to, proof: challenge, message: Some(Box::new(message)) });
        }
    }

    fn on_message(&mut self, from: NodeId, epoch: Epoch, sequence: u64, message: Message) {
        let shared = &mut self.shared;
        let around = Around { modules: &self.modules, members: &self.members };
        match message {
            Message::Birth(birth) => self.on_birth(from, Told { epoch, sequence, fresh: true }, birth),
            Message::Death(death) => self.on_death(from, epoch, death),
            Message::Available(available) => self.on_available(from, Told { epoch, sequence, fresh: true }, &available),
            Message::Hello => {
                let birth = self.members.birth(shared, self.modules.digest());
                shared.outbox.send(from, Message::Birth(birth));
            }
            Message::MembersRequest(request) => {
                let list = self.members.list(shared, from, &request);
                shared.outbox.send(from, Message::MemberList(list));
            }
            Message::MemberList(list) => shared.event(Event::Members(from, list)),
            Message::Fetch(fetch) => {
                self.modules.on_digest(shared, from, fetch.modules);
                self.origin.on_fetch(shared, from, epoch, sequence, fetch);
            }
            Message::Lease(lease) => self.worker.on_lease(shared, &self.modules, from, epoch, lease),
            Message::Return(returned) => self.origin.on_return(shared, from, epoch, &returned),
            Message::Renew(renew) => self.origin.on_renew(shared, from, epoch, &renew),
            Message::TaskResults(results) => self.origin.on_results(shared, &around, from, epoch, results, false),
            Message::ResultAck(ack) => self.worker.on_result_ack(shared, from, &ack),
            Message::Abort(abort) => self.worker.on_abort(shared, from, &abort.attempts),
            Message::Submit(submit) => self.origin.on_submit(shared, &around, from, epoch, &submit),
            Message::Accepted(accepted) => self.client.on_accepted(shared, from, accepted),
            Message::Refused(refused) => self.client.on_refused(shared, &self.members, from, refused),
            Message::JobEvent(event) => self.client.on_job_event(shared, from, *event),
            Message::JobEventAck(job) => {
                shared.values.held.release(Holder::Ended { client: from, job: job.number });
                self.origin.on_ended_ack(shared, job);
            }
            Message::Revoke(revoke) => self.origin.on_revoke(shared, &self.members, from, &revoke),
            Message::KeyClaim(claim) => self.origin.on_key_claim(shared, &around, from, claim),
            Message::KeyAnswer(answer) => self.origin.on_key_answer(shared, &around, from, answer),
            Message::Forget(forget) => {
                self.members.forget(shared, forget.node);
                self.origin.on_forget(shared, from, forget);
            }
            Message::Forgotten(forgotten) => shared.event(Event::Forgotten { by: from, node: forgotten.node }),
            Message::JobQuery(job) => self.origin.on_query(shared, from, job),
            Message::ManifestRequest(request) => {
                if !self.modules.on_manifest_request(shared, from, request) {
                    let birth = self.members.birth(shared, self.modules.digest());
                    shared.outbox.send(from, Message::Birth(birth));
                }
            }
            Message::Manifests(manifests) => {
                if self.modules.on_manifests(shared, from, manifests) {
                    self.origin.reconsider();
                    self.client.check_ready(shared, &self.modules, &self.members);
                }
            }
            Message::ContentRequest(request) => {
                content::on_request(shared, &self.modules, &mut self.serving, from, &request);
            }
            Message::ContentPiece(piece) => {
                content::on_piece(shared, &mut self.modules, &self.members, from, piece);
            }
            Message::ContentGone(content) => content::on_gone(shared, &mut self.modules, from, content),
            Message::ModuleRefused(refused) => {
                let (module, reason) = (refused.module, refused.reason);
                if refused.asked == Some(true) {
                    self.origin.on_module_refused(shared, from, epoch, module, reason);
                    return;
                }
                shared.event(Event::ModuleRefused { by: from, module, reason });
            }
            // Only between incarnations of one name: see `on_other_self`.
            Message::Claim(_) | Message::Claimed(_) => {}
            Message::VitalsRequest => {
                let vitals = self.vitals();
                self.shared.outbox.send(from, Message::Vitals(vitals));
            }
            Message::Vitals(vitals) => {
                self.client.on_vitals(shared, from, &vitals);
                shared.event(Event::Vitals(from, vitals));
            }
            Message::Log(log) => self.origin.on_log(shared, from, log),
            Message::Progress(progress) => self.origin.on_progress(shared, from, &progress),
            Message::PermitRequest(request) => self.origin.on_permit_request(shared, &self.members, from, request),
            Message::Permit(permit) => self.origin.on_permit(shared, from, &permit),
            Message::Drain(drain) => self.on_drain(from, &drain),
            Message::Jobs(jobs) => shared.event(Event::Jobs(from, jobs)),
            Message::StepNews(news) => self.on_step_news(from, news),
            Message::JobsRequest(request) => self.origin.on_jobs_request(shared, &around, from, &request),
            Message::Retry(retry) => self.origin.on_retry(shared, &around, from, epoch, &retry),
            Message::StepQuery(query) => self.origin.on_step_query(shared, &around, from, query),
        }
    }

    fn on_birth(&mut self, from: NodeId, told: Told, birth: Birth) {
        self.modules.on_digest(&mut self.shared, from, birth.modules);
        if birth.durable == Some(true) && self.shared.config.resident {
            self.origin.hear_of_keeper(&mut self.shared, from, told.fresh);
        }
        let is_news = self.members.on_birth(&mut self.shared, from, told, birth);
        if is_news || told.fresh {
            self.on_member(from, told);
        }
        self.worker.on_hearsay(&mut self.shared, from, told.epoch);
    }

    /// There is news of a node.
    fn on_member(&mut self, node: NodeId, told: Told) {
        let slots = self.members.get(node).map_or(0, |member| member.birth.slots);
        self.origin.on_birth(&mut self.shared, node, told, slots);
        self.client.on_member(&mut self.shared, &self.modules, &self.members, node);
    }

    fn on_death(&mut self, from: NodeId, epoch: Epoch, death: Death) {
        if self.members.on_death(&mut self.shared, from, epoch, death) {
            self.origin.on_death(&mut self.shared, from, epoch, death.leaving);
            // What may be a recording of an incarnation that never was there says nothing of keys.
            if death.leaving && death.holds_no_key == Some(true) && self.members.was_proven(from) {
                self.origin.forget_keeper(&self.shared, from);
            }
            self.client.on_death(&mut self.shared, &self.members, from, death.leaving);
        }
    }

    fn on_available(&mut self, from: NodeId, told: Told, available: &Available) {
        self.worker.on_hearsay(&mut self.shared, from, told.epoch);
        self.modules.on_digest(&mut self.shared, from, available.modules);
        if self.members.on_modules(&mut self.shared, from, told, available.modules) {
            self.on_member(from, told);
        }
        let me = self.shared.me();
        let features = &self.shared.config.features;
        let routed = available.wants.iter().filter(|want| crate::members::matches(&want.on, me, features));
        let (mut fits, mut missing) = (false, Vec::new());
        for want in routed {
            if self.modules.peer_holds(self.modules.digest(), &want.module) {
                fits = true;
            } else {
                missing.push(want.clone());
            }
        }
        self.modules.on_wanted(&mut self.shared, from, &missing);
        if fits {
            self.worker.on_available(&mut self.shared, from, told.fresh, available);
        }
    }

    fn on_installed(&mut self, manifest: SignedManifest, outcome: Result<(), String>) {
        let origin = &self.origin;
        if !self.modules.on_installed(&mut self.shared, manifest, outcome, |module| origin.uses(module)) {
            return;
        }
        self.on_modules_changed();
    }

    /// Jobs may have been the last that needed a module which was taken away.
    fn drop_undeployed(&mut self) {
        let origin = &mut self.origin;
        if core::mem::take(&mut origin.has_closed) {
            let origin = &self.origin;
            if self.modules.drop_undeployed(&mut self.shared, |module| origin.uses(module)) {
                self.on_modules_changed();
            }
        }
    }

    fn on_modules_changed(&mut self) {
        self.worker.fetch_all(&mut self.shared);
        self.origin.reconsider();
        let at = self.members.news_at(&mut self.shared, self.modules.digest());
        self.shared.timers.set_earlier(Timer::News, at);
    }

    fn on_news_timer(&mut self) {
        if self.shared.connected {
            // Not as a birth: nodes that do not watch those hear of it as well.
            let news = Available { wants: Vec::new(), chance: 0, modules: self.modules.digest() };
            self.shared.outbox.broadcast(Message::Available(news));
        }
    }

    fn on_due_timers(&mut self) {
        for _ in 0..TIMERS_MAX {
            let Some(timer) = self.shared.timers.pop_due(self.shared.now) else {
                break;
            };
            self.on_timer(timer);
        }
    }

    fn on_timer(&mut self, timer: Timer) {
        let shared = &mut self.shared;
        let around = Around { modules: &self.modules, members: &self.members };
        match timer {
            Timer::Leases(node) => self.origin.on_leases_timer(shared, node),
            Timer::Announce(class) => self.origin.on_announce_timer(shared, &around, class),
            Timer::Countdown { job, step } => self.origin.on_countdown(shared, job, step),
            Timer::Expires(job) => self.origin.on_expires_timer(shared, job),
            Timer::Permits(class) => self.origin.on_permits_timer(shared, class),
            Timer::JobNews(job) => self.origin.on_news_timer(shared, job),
            Timer::JobDeadline(job) => self.origin.on_deadline(shared, job),
            Timer::Each(job) => self.origin.on_each_timer(shared, &around, job),
            Timer::Pinned(node) => self.origin.on_pinned_timer(shared, &around, node),
            Timer::JobEnded(job) => self.origin.on_ended_timer(shared, job),
            Timer::Forget => self.origin.forget_old(shared),
            Timer::Adopt => self.origin.on_adopt_timer(shared),
            Timer::Journal => self.origin.on_journal_timer(),
            Timer::Room => self.origin.on_room_timer(shared),
            Timer::Keys => self.origin.on_keys_timer(shared, &around),
            Timer::Renew(node) => self.worker.on_renew_timer(shared, node),
            Timer::Results(node) => self.worker.on_results_timer(shared, node),
            Timer::Return => self.worker.on_return_timer(shared),
            Timer::Offer => self.worker.on_offer_timer(shared),
            Timer::RunTimeout(run) => self.worker.on_run_timeout(shared, RunId(run)),
            Timer::Attach => self.client.on_attach_timer(shared, &self.members, &self.modules),
            Timer::Submit(id) => self.client.on_submit_timer(shared, &self.members, id),
            Timer::Admit => self.client.on_admit_timer(shared),
            Timer::Manifests(node) => self.modules.on_manifests_timer(shared, &self.members, node),
            Timer::Pull(module) => self.modules.on_pull_timer(shared, &self.members, module),
            Timer::Values => self.on_values_timer(),
            Timer::Claim => self.members.on_claim_timer(shared, self.modules.digest()),
            Timer::News => self.on_news_timer(),
            Timer::Members => self.members.on_look_timer(shared),
            Timer::Knock(node) => self.on_knock_timer(node),
            // What is due is sent next; the time of day was told before.
            Timer::Answers | Timer::Wall => {}
        }
    }
}

/// Large values.
impl Node {
    fn on_step_news(&mut self, from: NodeId, mut news: Box<StepNews>) {
        let max = self.shared.config.limits.result_bytes_max;
        match news.blob {
            Some(blob) if blob.bytes <= max => {
                let Shared { values, timers, now, .. } = &mut self.shared;
                values.pull(*now, timers, from, blob, Purpose::Step(news));
                return;
            }
            Some(blob) => {
                let error = text::result_too_large(blob.bytes as usize, max);
                news.view = news.view.map(|view| StepView { outcome: Some(Err(error)), ..view });
            }
            None => {}
        }
        self.shared.event(Event::Step(news));
    }

    fn on_values_timer(&mut self) {
        let (origin, worker, client) = (&self.origin, &self.worker, &self.client);
        let is_held = |holder: &Holder| match *holder {
            Holder::Args { worker, attempt } => origin.is_leased_to(worker, attempt),
            Holder::Result { origin, attempt } => worker.holds(origin, attempt),
            Holder::Canvas(number) => client.is_unanswered(number),
            Holder::Ended { job, .. } => origin.has_ended(job),
            Holder::Step { .. } => true,
        };
        let is_needed = |from, purpose: &Purpose| match purpose {
            Purpose::Args(attempt) => worker.holds(from, *attempt),
            Purpose::Result { attempt, .. } => origin.is_open(*attempt),
            Purpose::Canvas { epoch, .. } => origin.is_session(from, *epoch),
            Purpose::Ended(job) => client.follows(*job),
            Purpose::Step(_) => true,
        };
        let Shared { values, outbox, timers, now, connected, .. } = &mut self.shared;
        values.on_timer((*now, *connected), outbox, timers, is_held, is_needed);
    }

    /// Takes the messages whose values have come, as if they had come with them.
    fn deliver_values(&mut self) {
        let shared = &mut self.shared;
        while let Some(Arrival { from, purpose, value }) = shared.values.pulls.pop_arrived() {
            let around = Around { modules: &self.modules, members: &self.members };
            match (purpose, value) {
                (Purpose::Args(attempt), value) => self.worker.on_args(shared, from, attempt, value.ok()),
                (Purpose::Result { epoch, number, attempt }, Ok(value)) => {
                    let results = alloc::vec![TaskResult { attempt, outcome: Ok(value), blob: None }];
                    let results = TaskResults { origin_epoch: shared.epoch, number, results };
                    self.origin.on_results(shared, &around, from, epoch, results, true);
                }
                (Purpose::Result { epoch, attempt, .. }, Err(Missing::Gone)) => {
                    self.origin.on_result_gone(shared, from, epoch, attempt);
                }
                (Purpose::Canvas { epoch, submit }, Ok(canvas)) => {
                    let submit = Submit { canvas, blob: None, ..submit };
                    self.origin.on_submit(shared, &around, from, epoch, &submit);
                }
                (Purpose::Ended(job), Ok(value)) => {
                    let event = JobEvent { job, news: JobNews::Ended(Ok(value)), blob: None };
                    self.client.on_job_event(shared, from, event);
                }
                (Purpose::Step(mut news), Ok(value)) => {
                    news.view = news.view.map(|view| StepView { outcome: Some(Ok(value)), ..view });
                    news.blob = None;
                    shared.event(Event::Step(news));
                }
                // The message is repeated.
                (Purpose::Result { .. } | Purpose::Canvas { .. } | Purpose::Ended(_) | Purpose::Step(_), Err(_)) => {}
            }
        }
        self.origin.watch_memory(shared);
        let packet_bytes_max = shared.packet_bytes_max();
        shared.values.pulls.start(shared.now, packet_bytes_max, &mut shared.outbox);
    }
}

/// Going out.
impl Node {
    /// Leases what is ready, and delivers what this node has for itself.
    fn settle(&mut self) {
        let (me, epoch) = (self.shared.me(), self.shared.epoch);
        for _ in 0..LOOPBACK_MAX {
            let around = Around { modules: &self.modules, members: &self.members };
            self.origin.dispatch(&mut self.shared, &around);
            self.on_due_timers();
            self.deliver_values();
            // What waits goes first, as in a packet.
            if !self.shared.outbox.has_loopback() && core::mem::take(&mut self.shared.outbox.loopback_marked) {
                let mut messages = Vec::new();
                let mut put = |message: &Message| messages.push(message.clone());
                let room = Room { left: usize::MAX >> 1, packet: usize::MAX >> 1 };
                self.worker.compose(&mut self.shared, self.modules.digest(), (me, epoch), room, &mut put);
                self.origin.compose(&mut self.shared, me, room, &mut put);
                self.shared.outbox.deliver_bulk(messages);
            }
            match self.shared.outbox.pop_loopback() {
                Some(message) => {
                    self.sequence += 1;
                    self.on_message(me, self.shared.epoch, self.sequence, message);
                }
                None if self.origin.is_dispatch_due() || self.shared.outbox.loopback_marked => {}
                None => break,
            }
        }
    }

    /// A packet is handed to the link.
    fn transmit(&mut self, to: Address, packet: &[u8]) -> Transmit {
        self.shared.counters.packets_out += 1;
        self.shared.counters.bytes_out += packet.len() as u64;
        Transmit { to }
    }

    /// Seals an answer, which proves itself by the question.
    fn compose_answer(&mut self, answer: Answer, buf: &mut Vec<u8>) {
        let draft = self.draft(Address::Node(answer.to), Some(answer.proof), buf);
        if let Some(message) = answer.message {
            packet::put(buf, &*message);
        }
        self.seal(draft, buf);
    }

    /// Knocks at a node whose challenge is not known, if something waits for it. Returns whether it is time for it.
    fn compose_knock(&mut self, to: NodeId, buf: &mut Vec<u8>) -> bool {
        if !self.has_for(to) {
            if self.shared.sessions.answered(to) {
                self.shared.timers.cancel(Timer::Knock(to));
            }
            return false;
        }
        match self.shared.sessions.knock(to, self.shared.now) {
            Knocking::Waits => false,
            Knocking::Now(again) => {
                self.shared.timers.set(Timer::Knock(to), again);
                let draft = self.draft(Address::Node(to), None, buf);
                self.seal(draft, buf);
                true
            }
        }
    }

    /// Whether something is to be said to a node.
    fn has_for(&self, node: NodeId) -> bool {
        self.shared.outbox.has(Address::Node(node))
            || self.serving.has_for(node)
            || self.worker.has_for(node)
            || self.origin.has_for(node)
    }

    /// Seals what there is for an address into `buf`. Returns whether there was anything.
    fn compose_packet(&mut self, to: Address, buf: &mut Vec<u8>) -> bool {
        let mut proof = None;
        if let Address::Node(node) = to
            && node != self.shared.me()
        {
            proof = self.shared.sessions.proof(node, self.shared.now);
            if proof.is_none() {
                return self.compose_knock(node, buf);
            }
        }
        let (budget, draft) = (self.budget(to), self.draft(to, proof, buf));
        let left = |buf: &Vec<u8>| budget.saturating_sub(draft.message_bytes(buf));
        let overdue = matches!(to, Address::Node(node) if self.serving.is_overdue(node));
        let mut messages = 0;
        while messages < QUEUED_PER_PACKET_MAX && !overdue {
            let Some(message) = self.shared.outbox.pop(to) else {
                break;
            };
            let Some(message) = self.fit(to, message, budget) else {
                continue;
            };
            let before = buf.len();
            packet::put(buf, &message);
            if draft.message_bytes(buf) > budget && messages > 0 {
                buf.truncate(before);
                self.shared.outbox.unpop(to, message);
                break;
            }
            messages += 1;
        }
        if let Address::Node(node) = to
            && node != self.shared.me()
        {
            if !overdue {
                let room = Room { left: left(buf), packet: budget };
                let mut put = |message: &Message| packet::put(buf, message);
                if let Some(epoch) = self.shared.sessions.epoch_of(node) {
                    self.worker.compose(&mut self.shared, self.modules.digest(), (node, epoch), room, &mut put);
                }
                let room = Room { left: left(buf), packet: budget };
                let mut put = |message: &Message| packet::put(buf, message);
                self.origin.compose(&mut self.shared, node, room, &mut put);
            } else {
                // The roles have what they had.
                self.shared.outbox.mark_wire(to);
            }
            let room = Room { left: left(buf), packet: budget };
            let mut put = |message: &Message| packet::put(buf, message);
            let held = |content| self.shared.values.held.bytes_of(content);
            if self.serving.compose(node, room, held, &mut put) {
                self.shared.outbox.mark(to);
            }
        }
        if let Some(message) = self.shared.outbox.pop(to) {
            self.shared.outbox.unpop(to, message);
            self.shared.outbox.mark_wire(to);
        }
        let wrote = draft.message_bytes(buf) > 0;
        if wrote {
            self.seal(draft, buf);
        }
        wrote
    }

    /// Bytes of messages in the longest packet for an address.
    fn budget(&self, to: Address) -> usize {
        match to {
            Address::Node(node) => self.members.room(&self.shared, node),
            Address::Birth(_) | Address::All => self.shared.room(),
        }
    }

    /// A message as it goes into a packet.
    fn fit(&mut self, to: Address, message: Message, budget: usize) -> Option<Message> {
        match to {
            Address::Node(node) => {
                let Shared { values, timers, now, .. } = &mut self.shared;
                values.detach_large(*now, timers, node, message, budget)
            }
            Address::Birth(_) | Address::All => Some(message),
        }
    }

    /// Begins the next packet in `buf`.
    fn draft(&mut self, to: Address, proof: Option<u64>, buf: &mut Vec<u8>) -> Draft {
        let Shared { sessions, rng, now, config, epoch, .. } = &mut self.shared;
        let challenge = sessions.challenge(*now, rng);
        let (sender, sequence) = (config.name, self.sequence + 1);
        let envelope = Envelope { sender, to, epoch: *epoch, sequence, challenge, proof };
        Draft::begin(&config.keys[0], &envelope, buf)
    }

    /// Ends the packet. Its number is taken: no other is ever sealed with it.
    fn seal(&mut self, draft: Draft, buf: &mut Vec<u8>) {
        self.sequence += 1;
        draft.seal(&self.shared.config.keys[0], buf);
    }

    fn next_submit(&mut self) -> SubmitId {
        self.last_submit += 1;
        SubmitId(self.last_submit)
    }
}
