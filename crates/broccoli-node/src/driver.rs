//! The loop of a node: feeds the state machine with everything that is ready, then drains it.
//!
//! ```text
//!   loop {
//!       drain: send and do what the state machine wants, for a bounded time
//!       wait:  link | reports of slots and installers | commands of handles | timer
//!       feed:  that, and whatever else is ready by now
//!   }
//! ```
//!
//! The driver owns the link, the executor, the store and the clock. It decides nothing about tasks. All of it runs in
//! one tokio task. Only long tasks of the cluster and installations have their own threads, so that heartbeats never
//! wait for them or for a disk.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use broccoli_core::{Action, Backoff, Damage, Event, Input, Instant, Node, RunId, Submission, SubmitId};
use broccoli_proto::module::SignedManifest;
use broccoli_proto::packet::PacketError;
use broccoli_proto::{Canvas, Cbor, JobId, NodeId};
use broccoli_wasm::Engine;
use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, oneshot};
use tokio::time::Sleep;
use tokio::{task, time};

use crate::error::StartError;
use crate::executor::{Executor, Report};
use crate::job::SubmitOptions;
use crate::journal::{Journal, JournalError, Unwritten, Writer};
use crate::link::{self, Link};
use crate::logging::{self, rate::LineRate};
use crate::machine::MACHINE;
use crate::mqtt::{DisconnectReason, PublishError};
use crate::store::{Installation, Installed, Store, Stored};
use crate::updates::{JobUpdate, Updates};

/// Most inputs of one kind before the state machine is drained.
const INPUTS_MAX: usize = 256;
/// How long short tasks run before the loop reads its inputs again.
const BURST: Duration = Duration::from_millis(5);
/// Pause before sending more when the link is full.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// How long a leaving node has to send what it hands back.
const HAND_BACK_MAX: Duration = Duration::from_secs(1);
/// How long a leaving node waits before it hands back its tasks, if the journal cannot be written …
const STALLED_MAX: Duration = Duration::from_secs(4);
/// … and how long its last write may take.
const FINISH_MAX: Duration = Duration::from_secs(4);
/// Most events in the queue of one listener. When it is full, new events are dropped.
pub(crate) const EVENTS_MAX: usize = 4_096;

/// An event of a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NodeEvent {
    /// The link to the MQTT server is up.
    Connected,
    /// The link is down. The node reconnects by itself.
    Disconnected(DisconnectReason),
    /// The link is up, but the server does not deliver what this node sends to itself.
    NotHeard,
    /// The server silently drops packets larger than this many bytes. The node sends no larger ones.
    PacketLimit(u32),
    /// Something has happened in the cluster. Events about a submit are not sent here, but as [`JobUpdate`] to the
    /// handle of the job.
    Cluster(Event),
    /// An allowed request of a task to reboot this machine. The node drains and ends; then the program that runs it
    /// must reboot the machine.
    Reboot,
    /// A problem with stored data, for example a failed write or damaged data, or with a packet that is too large to be
    /// sent. The text is for people.
    Storage(String),
}

/// A request about a job or a node by its id.
pub(crate) enum Ask {
    Follow(JobId),
    Revoke(JobId),
    Retry(JobId),
    Drain(NodeId, Option<Duration>),
}

pub(crate) enum Command {
    Submit { canvas: Canvas, updates: Updates, id: oneshot::Sender<SubmitId> },
    SubmitToCluster { canvas: Canvas, options: SubmitOptions, updates: Updates, id: oneshot::Sender<SubmitId> },
    Ask { ask: Ask, updates: Updates, id: oneshot::Sender<SubmitId> },
    AskStep(JobId, Vec<u32>),
    AskWhy(JobId, Vec<u32>),
    AskJobs { origin: NodeId, after: Option<u64>, max: u16 },
    Drain,
    Revoke(SubmitId),
    AskVitals,
    AskAll,
    AskMembers { of: NodeId, after: Option<NodeId> },
    AskToForget { of: NodeId, node: NodeId },
    Query(Box<dyn FnOnce(&Node) + Send>),
    Deploy { manifest: SignedManifest, wasm: Arc<[u8]> },
    Leave,
}

impl Command {
    /// Reports to the handle that the queue has no room for the command.
    pub(crate) fn refuse(self) {
        if let Command::Submit { updates, .. }
        | Command::SubmitToCluster { updates, .. }
        | Command::Ask { updates, .. } = self
        {
            updates.tell(JobUpdate::TooManyRequests);
        }
    }
}

/// Requests of handles that do not need a place in the command queue, because repeating them changes nothing; and the
/// listeners of events.
#[derive(Debug, Default)]
pub(crate) struct Controls {
    attach: AtomicBool,
    drain: AtomicBool,
    /// Handles of jobs were dropped.
    sweep: AtomicBool,
    changed: Notify,
    /// None when the loop has ended.
    listeners: Mutex<Option<Vec<Sender<NodeEvent>>>>,
}

impl Controls {
    /// Creates it with the first listener, which receives all events from the start.
    pub(crate) fn with_listener(listener: Sender<NodeEvent>) -> Controls {
        Controls { listeners: Mutex::new(Some(vec![listener])), ..Controls::default() }
    }

    /// Requests to look for a node that takes jobs.
    pub(crate) fn attach(&self) {
        self.wish(&self.attach);
    }

    /// Requests to drain: take nothing new, and leave when all work is done.
    pub(crate) fn drain(&self) {
        self.wish(&self.drain);
    }

    /// Requests to forget jobs whose handles were dropped.
    pub(crate) fn sweep(&self) {
        self.wish(&self.sweep);
    }

    fn wish(&self, wish: &AtomicBool) {
        wish.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// A queue of all events from now on. It is closed if the node has ended.
    pub(crate) fn listen(&self) -> Receiver<NodeEvent> {
        let (listener, events) = mpsc::channel(EVENTS_MAX);
        if let Some(listeners) = &mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner) {
            listeners.retain(|listener| !listener.is_closed());
            listeners.push(listener);
        }
        events
    }

    fn tell(&self, event: &NodeEvent) {
        if let Some(listeners) = &mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner) {
            listeners.retain(|listener| !listener.is_closed());
            for listener in listeners {
                // A listener that does not read loses events; the queue does not grow.
                let _ = listener.try_send(event.clone());
            }
        }
    }

    fn close(&self) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Runs one node. Made by [`crate::Builder::build`].
pub struct Driver {
    pub(crate) node: Node,
    pub(crate) link: Link,
    pub(crate) name: NodeId,
    /// Whether this node runs deployed code.
    pub(crate) runs_code: bool,
    pub(crate) executor: Executor,
    pub(crate) store: Store,
    /// Only if the node is durable.
    pub(crate) journal: Option<Writer>,
    pub(crate) engine: Engine,
    pub(crate) reports: UnboundedReceiver<Report>,
    /// Given to the threads that install modules.
    pub(crate) reporter: UnboundedSender<Report>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) controls: Arc<Controls>,
    pub(crate) jobs: HashMap<SubmitId, Updates>,
    pub(crate) started: std::time::Instant,
    pub(crate) connect_at: Option<time::Instant>,
    pub(crate) reconnect: Backoff,
    pub(crate) connected: bool,
    /// How long a leaving node waits for its running tasks.
    pub(crate) drain_limit: Duration,
    /// The end of this time, while the node drains.
    pub(crate) drain_until: Option<time::Instant>,
    /// Whether the journal cannot be written.
    pub(crate) stalled: bool,
    /// When a leaving node hands back its running tasks.
    pub(crate) hand_back_at: Option<time::Instant>,
    /// When it leaves in any case.
    pub(crate) leave_at: Option<time::Instant>,
    pub(crate) over: bool,
    /// Buffer for the next sealed packet.
    pub(crate) buf: Vec<u8>,
    pub(crate) line_rate: LineRate,
}

impl Driver {
    /// Runs until [`crate::NodeHandle::leave`] is called, until the last handle is dropped (handles of jobs count), or
    /// until another node turns out to have the same name.
    pub async fn run(mut self) {
        self.connect_at = Some(time::Instant::now());
        let mut sleep = pin!(time::sleep(Duration::ZERO));
        loop {
            let is_busy = self.drain();
            if self.over {
                break;
            }
            self.set_sleep(sleep.as_mut());
            tokio::select! {
                biased;
                event = self.link.next() => self.on_link(event),
                Some(report) = self.reports.recv() => self.on_report(report),
                command = self.commands.recv() => self.on_command(command.unwrap_or(Command::Leave)),
                () = self.controls.changed.notified() => {}
                () = sleep.as_mut() => self.on_time(),
                // Yield once: sockets and timers make progress only while this task waits.
                () = task::yield_now(), if is_busy => {}
            }
            self.take_what_is_ready();
        }
        self.link.disconnect().await;
        self.finish_journal().await;
    }

    /// Writes the rest of the journal, and reports what could not be written.
    async fn finish_journal(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        if let Some(Unwritten { why, mut jobs }) = journal.finish(FINISH_MAX).await {
            jobs.extend(self.node.unwritten_jobs());
            let jobs = match jobs.len() {
                0 => "nothing of a job is lost".to_owned(),
                1 => "what has just happened to 1 job is not written".to_owned(),
                count => format!("what has just happened to {count} jobs is not written"),
            };
            let text = format!(
                "left while the journal cannot be written ({why}): {jobs}. Nobody was told that it is safe; clients submit \
                 again, and tasks run again"
            );
            self.tell(&NodeEvent::Storage(text));
        }
    }

    /// Installs the modules of the store.
    pub(crate) fn install_stored(&mut self, stored: Vec<Stored>) {
        for Stored { manifest, wasm } in stored {
            self.on_installed(Installation::stored(manifest, wasm, &self.engine).run());
        }
    }

    fn now(&self) -> Instant {
        Instant(self.started.elapsed().as_micros() as u64)
    }

    fn feed(&mut self, input: Input<'_>) {
        self.node.handle_input(self.now(), input);
    }

    fn tell(&self, event: &NodeEvent) {
        logging::event(self.name, event);
        self.controls.tell(event);
    }

    /// Reports an event of the cluster.
    fn tell_of(&self, event: Event) {
        self.tell(&NodeEvent::Cluster(event));
    }

    /// Reports texts about storage to the listeners.
    pub(crate) fn say(&mut self, texts: Vec<String>) {
        for text in texts {
            self.tell(&NodeEvent::Storage(text));
        }
    }

    fn set_sleep(&self, sleep: Pin<&mut Sleep>) {
        let far = self.started + Duration::from_secs(1 << 30);
        let timer = self.node.poll_timeout().map_or(far, |at| self.started + Duration::from_micros(at.0));
        let full = self.connected && !self.link.has_room();
        let soon = if full { time::Instant::now() + FULL_PAUSE } else { far.into() };
        let silent_at = self.link.silent_at().map(|at| (self.started + at).into());
        let due = [self.connect_at, self.hand_back_at, self.leave_at, silent_at].into_iter().flatten();
        let at = due.fold(soon.min(timer.into()), time::Instant::min);
        if sleep.deadline() != at {
            sleep.reset(at);
        }
    }
}

/// Inputs.
impl Driver {
    fn take_what_is_ready(&mut self) {
        for _ in 0..INPUTS_MAX {
            match self.link.next_buffered() {
                Some(event) => self.on_link(event),
                None => break,
            }
        }
        for _ in 0..INPUTS_MAX {
            match self.reports.try_recv() {
                Ok(report) => self.on_report(report),
                Err(_) => break,
            }
        }
        for _ in 0..INPUTS_MAX {
            match self.commands.try_recv() {
                Ok(command) => self.on_command(command),
                Err(_) => break,
            }
        }
        self.take_wishes();
    }

    /// Handles the requests in [`Controls`]. They come after earlier commands, unless more than [`INPUTS_MAX`] wait.
    fn take_wishes(&mut self) {
        let (now, controls) = (self.now(), self.controls.clone());
        let is_wished = |wish: &AtomicBool| wish.load(Ordering::Relaxed) && wish.swap(false, Ordering::Acquire);
        if is_wished(&controls.attach) {
            self.node.attach(now);
        }
        if is_wished(&controls.sweep) {
            for (submit, _) in self.jobs.extract_if(|_, updates| updates.is_closed()) {
                self.node.unfollow(now, submit);
            }
        }
        if is_wished(&controls.drain) {
            self.node.drain(now);
        }
    }

    fn on_time(&mut self) {
        let is_due = |at: Option<time::Instant>| at.is_some_and(|at| at <= time::Instant::now());
        if is_due(self.connect_at) {
            self.connect();
        }
        if is_due(self.hand_back_at) {
            self.drain_until = None;
            self.hand_back_at = None;
            self.leave_at = Some(time::Instant::now() + HAND_BACK_MAX);
            self.node.hand_back(self.now());
        }
        if is_due(self.leave_at) {
            self.leave();
        }
        if self.link.is_silent() {
            self.tell(&NodeEvent::NotHeard);
        }
        if self.node.wants_wall_clock(self.now()) {
            self.tell_time();
        }
        self.feed(Input::Timeout);
    }

    /// Feeds the time of day.
    pub(crate) fn tell_time(&mut self) {
        if let Some(unix_ms) = (MACHINE.unix_ms)() {
            self.feed(Input::WallClock { unix_ms });
        }
    }

    /// Recovers the jobs of the node's last run from the journal, and starts to write. Returns texts about damage.
    pub(crate) fn recover(&mut self, journal: Journal) -> Result<Vec<String>, StartError> {
        self.tell_time();
        let recovery = self.node.recover(self.now(), journal.records());
        let recovery = recovery.map_err(|error| StartError::Journal(JournalError::Records(error)))?;
        let (opened, mut said) = journal.begin().map_err(StartError::Journal)?;
        self.journal = Some(opened.start(self.reporter.clone()).map_err(StartError::Thread)?);
        let name = self.name;
        let text = |damage: &Damage| {
            let job = JobId { origin: name, number: damage.job };
            format!("job {job} cannot go on: {}; its records are left in the journal", damage.reason)
        };
        said.extend(recovery.damaged.iter().map(text));
        if recovery.jobs + recovery.results > 0 {
            let (jobs, tasks, results) = (recovery.jobs, recovery.tasks, recovery.results);
            said.push(format!("took over {jobs} unfinished jobs with {tasks} open tasks, and {results} results"));
        }
        Ok(said)
    }

    fn connect(&mut self) {
        self.connect_at = None;
        let mut death = Vec::new();
        self.node.write_will(&mut death);
        self.link.connect(death);
    }

    fn on_link(&mut self, event: link::Event) {
        match event {
            link::Event::Connected { packet_bytes_max } => {
                self.connected = true;
                self.reconnect.reset();
                self.feed(Input::PacketLimit(packet_bytes_max));
                self.feed(Input::Connected);
                self.tell(&NodeEvent::Connected);
            }
            link::Event::PacketLimit { bytes, is_settled } => {
                self.feed(Input::PacketLimit(bytes));
                if is_settled {
                    self.tell(&NodeEvent::PacketLimit(bytes));
                }
            }
            link::Event::Packet { to, packet } => {
                logging::packet_in(self.name, to, packet.len());
                self.feed(Input::Packet { to, packet: &packet });
            }
            link::Event::Misdirected => {
                self.tell_of(Event::Rejected { sender: None, error: PacketError::Misdirected });
            }
            link::Event::Disconnected(reason) => {
                self.connected = false;
                self.connect_at = Some(time::Instant::now() + self.reconnect.pause());
                self.feed(Input::Disconnected);
                self.tell(&NodeEvent::Disconnected(reason));
            }
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Finished(run, outcome) => {
                self.executor.ended(run);
                self.feed(Input::Executed { run, outcome });
            }
            Report::Reboot => {
                self.tell(&NodeEvent::Reboot);
                self.node.drain(self.now());
            }
            Report::Persisted(number) => self.feed(Input::Persisted(number)),
            Report::Stalled(reason) => {
                let text = match &reason {
                    Some(why) => format!("the journal cannot be written: {why}; no new jobs until it can"),
                    None => "the journal can be written again".to_owned(),
                };
                self.tell(&NodeEvent::Storage(text));
                self.stalled = reason.is_some();
                self.set_hand_back();
                self.feed(Input::Stalled(reason));
            }
            Report::Logged(run, text) => self.feed(Input::Logged { run, text }),
            Report::Progress(run, done, total) => self.feed(Input::Progress { run, done, total }),
            Report::Submit(run, canvas) => self.on_task_submit(run, &canvas),
            Report::Installed(installed) => self.on_installed(*installed),
        }
    }

    /// Sets when to hand back the running tasks. If the journal cannot be written, the node does not wait the whole
    /// time, because its last records may never be safe.
    fn set_hand_back(&mut self) {
        let soon = time::Instant::now() + STALLED_MAX;
        self.hand_back_at = self.drain_until.map(|until| if self.stalled { until.min(soon) } else { until });
    }

    /// A running task submits a canvas to this node.
    fn on_task_submit(&mut self, run: RunId, canvas: &[u8]) {
        let (answer, why) = self.node.submit_for_task(self.now(), canvas);
        self.executor.answer(run, answer, why);
    }

    fn on_command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Submit { canvas, updates, id } => match self.node.submit(now, &canvas) {
                Ok(submit) => self.follow(submit, updates, id),
                Err(error) => {
                    updates.tell(JobUpdate::Refused(error.into()));
                }
            },
            Command::SubmitToCluster { canvas, options, updates, id } => {
                let canvas = Cbor::encode(&canvas);
                let SubmitOptions { key, again, detached } = options;
                let submit = self.node.submit_with(now, Submission { canvas, key, again, detached });
                self.follow(submit, updates, id);
            }
            Command::Ask { ask, updates, id } => {
                let submit = match ask {
                    Ask::Follow(job) => self.node.follow(now, job),
                    Ask::Revoke(job) => self.node.revoke_job(now, job),
                    Ask::Retry(job) => self.node.retry_job(now, job),
                    Ask::Drain(node, limit) => self.node.drain_node(now, node, limit),
                };
                self.follow(submit, updates, id);
            }
            Command::AskJobs { origin, after, max } => self.node.ask_jobs(now, origin, after, max),
            Command::AskStep(job, path) => self.node.ask_step(now, job, path),
            Command::AskWhy(job, path) => self.node.ask_why(now, job, path),
            Command::Drain => self.node.drain(now),
            Command::Revoke(submit) => self.node.revoke(now, submit),
            Command::AskVitals => self.node.ask_vitals(now),
            Command::AskAll => self.node.ask_all(now),
            Command::AskToForget { of, node } => self.node.ask_to_forget(now, of, node),
            Command::AskMembers { of, after } => self.node.ask_members(now, of, after, u16::MAX),
            Command::Query(query) => query(&self.node),
            Command::Deploy { manifest, wasm } => {
                let engine = self.runs_code.then_some(&self.engine);
                let installation = self.store.deployed(manifest, wasm, engine);
                self.install(installation);
            }
            Command::Leave => self.leave(),
        }
    }

    fn leave(&mut self) {
        self.node.leave(self.now());
        self.over = true;
    }

    fn follow(&mut self, submit: SubmitId, updates: Updates, id: oneshot::Sender<SubmitId>) {
        if updates.is_closed() {
            // The handle was dropped meanwhile. The job goes on.
            self.node.unfollow(self.now(), submit);
            return;
        }
        self.jobs.insert(submit, updates);
        let _ = id.send(submit);
    }
}

/// Outputs.
impl Driver {
    /// Sends packets and executes actions for a bounded time. Returns whether more may be left.
    fn drain(&mut self) -> bool {
        self.node.set_trace(logging::wanted());
        let now = std::time::Instant::now();
        self.line_rate.report(self.name, now);
        let end = now + BURST;
        loop {
            self.transmit();
            if !self.act_until(end) {
                return false;
            }
            if std::time::Instant::now() >= end {
                return true;
            }
        }
    }

    fn transmit(&mut self) {
        if self.connected && !self.link.has_room() {
            self.node.poll_local(self.now());
        }
        let mut buf = std::mem::take(&mut self.buf);
        while !self.connected || self.link.has_room() {
            let Some(transmit) = self.node.poll_transmit(self.now(), &mut buf) else { break };
            logging::packet_out(self.name, transmit.to, buf.len());
            match self.link.publish(transmit.to, &buf) {
                // Lost packets are sent again by the protocol.
                Ok(()) | Err(PublishError::NotConnected | PublishError::Full) => {}
                Err(error @ PublishError::TooLarge { .. }) => self.tell(&NodeEvent::Storage(error.to_string())),
            }
        }
        self.buf = buf;
    }

    /// Executes actions until `end`, at least one. Returns whether there was any.
    fn act_until(&mut self, end: std::time::Instant) -> bool {
        let Some(mut action) = self.node.poll_action() else { return false };
        if matches!(action, Action::Execute(_)) {
            // Otherwise the packets just published would wait until the task has ended.
            self.flush();
        }
        loop {
            self.act(action);
            if std::time::Instant::now() >= end {
                return true;
            }
            match self.node.poll_action() {
                Some(next) => action = next,
                None => return true,
            }
        }
    }

    /// Writes to the socket as much as it takes now.
    fn flush(&mut self) {
        let event = pin!(self.link.next()).poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(event) = event {
            self.on_link(event);
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Execute(execute) => {
                let run = execute.run;
                let attempt = self.node.attempt_of(run);
                let attempt = attempt.map(|(origin, attempt)| (JobId { origin, number: attempt.job }, attempt));
                if let Some(outcome) = self.executor.start(execute, attempt) {
                    // Feed the log lines of the task before its end: afterwards its run is unknown.
                    for _ in 0..self.reports.len() {
                        match self.reports.try_recv() {
                            Ok(report) => self.on_report(report),
                            Err(_) => break,
                        }
                    }
                    self.feed(Input::Executed { run, outcome });
                }
            }
            Action::Abort(run) => self.executor.abort(run),
            // Hosts have enough memory and disk for a module. Installing it reports an error if not.
            Action::Reserve(_) => {}
            Action::StoreChunk { module, index, bytes } => self.store.put_chunk(module, index, bytes),
            Action::LoadChunk { module, index, to } => {
                let bytes = self.store.chunk(&module, index);
                self.feed(Input::ChunkLoaded { module, index, to, bytes });
            }
            Action::Install(manifest) => {
                let installation = self.store.pulled(manifest, &self.engine);
                self.install(installation);
            }
            Action::Remove(module) => {
                self.executor.remove_module(&module);
                self.store.remove(&module);
            }
            Action::Persist { number, writes } => {
                if let Some(journal) = &self.journal {
                    journal.write(number, writes);
                }
            }
            Action::Event(event) => self.on_event(event),
        }
    }

    /// Checks, compiles and writes a module on its own thread, which then sends a report.
    fn install(&mut self, installation: Installation) {
        let (reporter, manifest) = (self.reporter.clone(), installation.manifest.clone());
        let run = move || {
            // Fails if the node has ended.
            let _ = reporter.send(Report::Installed(Box::new(installation.run())));
        };
        if let Err(error) = thread::Builder::new().name("install".into()).spawn(run) {
            let outcome = Err(format!("no thread to install it: {error}"));
            self.on_installed(Installed { manifest, outcome, unwritten: None });
        }
    }

    fn on_installed(&mut self, installed: Installed) {
        let Installed { manifest, outcome, unwritten } = installed;
        let outcome = outcome.map(|code| {
            self.store.keep(manifest.id, code.wasm);
            if let Some(module) = code.module {
                self.executor.add_module(manifest.id, module);
            }
        });
        if let Some(error) = unwritten {
            let text = format!("module {} is only kept in memory: {error}", manifest.manifest.name);
            self.tell(&NodeEvent::Storage(text));
        }
        self.feed(Input::Installed { manifest, outcome });
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Accepted(submit, job) => self.update(submit, JobUpdate::Accepted(job)),
            Event::Refused(submit, refusal) => self.update(submit, JobUpdate::Refused(refusal)),
            Event::Job(submit, news) => self.update(submit, JobUpdate::News(news)),
            Event::QueueFull(submit, node) => self.update(submit, JobUpdate::QueueFull(node)),
            Event::CannotStore(submit, node, why) => self.update(submit, JobUpdate::CannotStore(node, why)),
            Event::NoAnswer(submit, node) => self.update(submit, JobUpdate::NoAnswer(node)),
            Event::OnlyLeaving(submit, node) => self.update(submit, JobUpdate::OnlyLeaving(node)),
            Event::TooManyRequests(submit) => self.update(submit, JobUpdate::TooManyRequests),
            Event::Drained => self.over = true,
            Event::NameTaken => {
                self.over = true;
                self.tell_of(event);
            }
            Event::Draining(_, limit) => {
                self.drain_until = Some(time::Instant::now() + limit.unwrap_or(self.drain_limit));
                self.set_hand_back();
                self.tell_of(event);
            }
            Event::Trace(trace) => logging::trace(&self.node, self.name, *trace, &mut self.line_rate),
            event => self.tell_of(event),
        }
    }

    /// Sends an update to the handle of a job.
    fn update(&mut self, submit: SubmitId, update: JobUpdate) {
        let is_last = update.is_last();
        let Some(updates) = self.jobs.get(&submit) else { return };
        updates.tell(update);
        if is_last {
            self.jobs.remove(&submit);
        }
    }
}

/// Closes the queues of all listeners.
impl Drop for Driver {
    fn drop(&mut self) {
        self.line_rate.finish(self.name);
        self.controls.close();
    }
}
