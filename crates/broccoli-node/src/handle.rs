//! A node as a library: build it, run it, submit canvases to it or through it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use broccoli_abi::{Functions, builtin::is_builtin};
use broccoli_core::canvas::{CanvasError, Plan};
use broccoli_core::{Backoff, Config, Counters, Limits, Node, SubmitId};
use broccoli_proto::message::{JobNews, Refusal};
use broccoli_proto::module::{Manifest, ManifestError, NativeModule, SignedManifest};
use broccoli_proto::options::{LABEL_BYTES_MAX, is_label};
use broccoli_proto::{Canvas, Cbor, Epoch, JobId, ModuleHash, NodeId, TaskError};
use broccoli_run::{About, Builtins, Library, RunLimits};
use broccoli_wasm::Engine;
use tokio::sync::{mpsc, oneshot};
use tokio::time;

use crate::board::Board;
use crate::cluster::{Cluster, ClusterError, DeployKey, random};
use crate::driver::{Command, Driver, EVENTS_MAX, JobUpdate, NodeEvent};
use crate::executor::Executor;
use crate::job::{Place, SubmitOptions};
use crate::journal::{Journal, JournalError};
use crate::link::{Link, MqttLink, MqttLinkConfig};
use crate::machine::MACHINE;
use crate::mqtt::ServerUrl;
use crate::native::{Native, NativeFunction};
use crate::store::Store;

/// Module of native functions whose name has none.
const NATIVE_MODULE: &str = "native";
/// Why tasks may not reboot a node's machine.
const NO_REBOOT: &str = "this node may not be rebooted by tasks: start it with `broccoli node --allow-reboot`";
/// Most labels and capabilities of a node.
const FEATURES_MAX: usize = 16;

/// Why a node cannot start.
#[derive(Debug)]
pub enum StartError {
    /// No server was given, neither to the builder nor by the cluster.
    NoServer,
    /// Too many labels, or one that is none.
    BadLabel(String),
    /// A function was given in a module that every node has by itself.
    Builtin(String),
    /// Secrets could not be made.
    Cluster(ClusterError),
    /// The data directory cannot be used.
    Data(PathBuf, io::Error),
    /// The journal in the data directory cannot be used.
    Journal(JournalError),
    /// The system gave no thread or event queue.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoServer => {
                f.write_str("no MQTT server: name one with --server, or start one with `broccoli up`")
            }
            StartError::BadLabel(label) => {
                write!(
                    f,
                    "bad label {label:?}: at most {FEATURES_MAX}, such as led or room=kitchen, each without spaces, with \
                     something on both sides of =, and at most {LABEL_BYTES_MAX} bytes"
                )
            }
            StartError::Builtin(module) => {
                write!(f, "the module {module} is part of every node: choose another name for functions of your own")
            }
            StartError::Cluster(error) => error.fmt(f),
            StartError::Data(path, error) => write!(f, "cannot use {} for data: {error}", path.display()),
            StartError::Journal(error) => error.fmt(f),
            StartError::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Why a job has no result.
#[derive(Clone, Debug)]
pub enum JobError {
    /// A task failed.
    Failed(TaskError),
    /// The canvas was refused; nothing has run.
    Refused(Refusal),
    /// The origin has restarted and does not know the job any more.
    Lost,
    /// The origin does not know such a job: it never had it, or has forgotten it since it ended.
    Unknown(JobId),
    /// The job has no such step, or it is over: then only its whole result is kept.
    NoStep(JobId, Vec<u32>),
    /// The node has said nothing for five seconds. That says nothing of its jobs: ask again.
    NoAnswer(NodeId),
    /// The result is not of the type that was asked for; here it is.
    Type(Cbor),
    /// This program has revoked the job, but others wait for it: it goes on.
    LeftToOthers,
    /// This node has stopped.
    Stopped,
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::Failed(error) => error.fmt(f),
            JobError::Refused(Refusal::QueueFull) => {
                f.write_str("queue full: the node holds as many tasks as it may; try later")
            }
            JobError::Refused(Refusal::BadCanvas(why)) => f.write_str(why),
            JobError::Refused(Refusal::Storage(why) | Refusal::Unwritten(why)) => {
                write!(f, "the node cannot write its journal: {why}; try later")
            }
            JobError::Refused(Refusal::NotResident) => f.write_str("the node takes no jobs of others"),
            JobError::Refused(Refusal::Draining) => f.write_str("the node is about to leave; submit to another"),
            JobError::Refused(Refusal::Elsewhere(node)) => write!(f, "{node} holds a job with this key; submit to it"),
            JobError::Refused(Refusal::Unsure(node)) => write!(
                f,
                "cannot be sure: {node}, which may hold a job with this key, is not there; start it, or if it will not come \
                 back, `broccoli forget {node}`, and submit again"
            ),
            JobError::LeftToOthers => f.write_str("others wait for the job: it goes on"),
            JobError::Refused(Refusal::NotRetriable(why)) => write!(f, "nothing to try again: {why}"),
            JobError::Refused(Refusal::Other(number)) => {
                write!(f, "refused for a reason that this version does not know (number {number}): update this program")
            }
            JobError::Unknown(job) => {
                write!(f, "{} knows no job {job}: the id is wrong, or its result was forgotten", job.origin)
            }
            JobError::NoStep(job, path) => {
                write!(f, "job {job} has no step {}, or none that is kept", Place(path))
            }
            JobError::NoAnswer(node) => write!(f, "no answer from {node} for 5 s"),
            JobError::Lost => f.write_str("the node that held the job has restarted and lost it; submit again"),
            JobError::Type(value) => write!(f, "the result is of another type: {value}"),
            JobError::Stopped => f.write_str("this node has stopped"),
        }
    }
}

impl std::error::Error for JobError {}

/// Settings of a node. Made by [`NodeHandle::builder`].
pub struct Builder {
    cluster: Option<Cluster>,
    server: Option<ServerUrl>,
    name: Option<NodeId>,
    slots: u16,
    features: Vec<String>,
    resident: bool,
    holds_code: bool,
    data: Option<PathBuf>,
    limits: Limits,
    run_limits: RunLimits,
    wasm_limits: broccoli_wasm::Limits,
    keep_alive_s: u16,
    drain_limit: Duration,
    board: Board,
    allows_reboot: bool,
    /// By module, then by function: equal programs describe themselves equally.
    natives: BTreeMap<String, BTreeMap<String, Native>>,
}

impl Builder {
    /// The cluster to be a member of. Required.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// The MQTT server; otherwise the one that the cluster names.
    pub fn server(mut self, server: ServerUrl) -> Self {
        self.server = Some(server);
        self
    }

    /// The node's name; otherwise one is made up.
    pub fn name(mut self, name: NodeId) -> Self {
        self.name = Some(name);
        self
    }

    /// Tasks to run side by side; 0 for a node that only submits. Default 0.
    pub fn slots(mut self, slots: u16) -> Self {
        self.slots = slots;
        self
    }

    /// A label (`room=kitchen`) or capability (`led`) for routing.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.features.push(label.into());
        self
    }

    /// Whether the node accepts jobs of others. Default no.
    pub fn resident(mut self, resident: bool) -> Self {
        self.resident = resident;
        self
    }

    /// Whether the node pulls the code of modules; otherwise it only knows of them. Nodes with
    /// slots and those that take jobs of others always do.
    pub fn holds_code(mut self, holds_code: bool) -> Self {
        self.holds_code = holds_code;
        self
    }

    /// Where to keep modules over a restart.
    pub fn data(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data = Some(dir.into());
        self
    }

    /// Capacities.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What one run of a task may use.
    pub fn run_limits(mut self, limits: RunLimits) -> Self {
        self.run_limits = limits;
        self
    }

    /// What one module may take.
    pub fn wasm_limits(mut self, limits: broccoli_wasm::Limits) -> Self {
        self.wasm_limits = limits;
        self
    }

    /// MQTT keep-alive in seconds.
    pub fn keep_alive_s(mut self, seconds: u16) -> Self {
        self.keep_alive_s = seconds;
        self
    }

    /// How long the node waits for running tasks, and for jobs that only it knows, when it is told to
    /// leave well; then it hands them back. Default 30 s.
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// What tasks may switch, read and measure. Its capabilities become labels of the node. Default none.
    pub fn board(mut self, board: Board) -> Self {
        self.board = board;
        self
    }

    /// Whether tasks may call `sys.reboot`. The node then drains, leaves and ends; who runs it is told by
    /// [`NodeEvent::Reboot`] and reboots the machine. Default no.
    pub fn allow_reboot(mut self, allow: bool) -> Self {
        self.allows_reboot = allow;
        self
    }

    /// A function written in Rust, as `function` or `module.function`:
    ///
    /// ```
    /// # use broccoli_node::NodeHandle;
    /// let builder = NodeHandle::builder().slots(2).function("add", |x: i64, y: i64| x + y);
    /// ```
    ///
    /// A module is all that a program declares under one name (`native` if a function has none):
    /// give programs with other functions other module names, or only one of them is found. The names
    /// `sys` and `board` are taken: nodes with slots have these modules by themselves.
    pub fn function<Args: 'static, F: NativeFunction<Args>>(mut self, name: &str, function: F) -> Self {
        let (module, name) = name.rsplit_once('.').unwrap_or((NATIVE_MODULE, name));
        self.natives.entry(module.into()).or_default().insert(name.into(), Native::new(name, function));
        self
    }

    /// The node and the loop that runs it: spawn [`Driver::run`] where you like. In the same
    /// single-threaded runtime as its user, no thread has to be woken between them.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn build(mut self) -> Result<(NodeHandle, Driver), StartError> {
        self.features = broccoli_run::features(&self.features, &self.board.capabilities());
        self.check_names()?;
        let cluster = self.cluster.ok_or_else(|| StartError::Cluster(ClusterError::Missing("cluster file".into())))?;
        let server = self.server.or_else(|| cluster.server.clone()).ok_or(StartError::NoServer)?;
        let epoch = Epoch(random().map_err(StartError::Cluster)?);
        let seed = u64::from_le_bytes(random().map_err(StartError::Cluster)?);
        let name = match self.name {
            Some(name) => name,
            None => format!("n{:08x}", seed >> 32).parse().expect("letters and digits are a name"),
        };
        let describe = |(name, natives): (String, BTreeMap<String, Native>)| {
            let functions = natives.values().map(|native| (*native.description).clone()).collect();
            (NativeModule { name, functions }, natives.into_iter().collect::<HashMap<_, _>>())
        };
        let natives: Vec<_> = self.natives.into_iter().map(describe).collect();
        let (report_sender, reports) = mpsc::unbounded_channel();
        let board = Arc::new(self.board);
        let about = About {
            name: name.as_str(),
            slots: self.slots,
            labels: &self.features,
            board: board.kind(),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            version: env!("CARGO_PKG_VERSION"),
            reboot: if self.allows_reboot { Ok(()) } else { Err(NO_REBOOT) },
        };
        let library = Library::new(Builtins::new(about, MACHINE));
        let builtins = (self.slots > 0).then(broccoli_run::builtin_modules);
        let builtins = builtins.into_iter().flatten();
        let started = std::time::Instant::now();
        let link = MqttLinkConfig {
            server,
            credentials: cluster.mqtt_credentials(),
            cluster: cluster.id,
            name,
            client_id: format!("{name}-{epoch}"),
            keep_alive_s: self.keep_alive_s,
            packet_bytes_max: self.limits.packet_bytes_max,
        };
        let link = Link::Mqtt(Box::new(MqttLink::new(link, started)));
        let config = Config {
            name,
            keys: vec![cluster.key.clone()],
            deploy_public: cluster.deploy_public,
            slots: self.slots,
            features: self.features,
            natives: natives.iter().map(|(module, _)| module.clone()).chain(builtins).collect(),
            resident: self.resident,
            durable: self.data.is_some(),
            holds_code: self.holds_code || self.slots > 0 || self.resident,
            watches: true,
            version: env!("CARGO_PKG_VERSION").into(),
            timing: link.timing(),
            limits: self.limits,
        };
        let open = |dir: &PathBuf| Journal::open(dir, &cluster.id.to_string(), name).map_err(StartError::Journal);
        let journal = self.data.as_ref().map(open).transpose()?;
        let (commands, command_receiver) = mpsc::unbounded_channel();
        let (listener, events) = mpsc::channel(EVENTS_MAX);
        let result_bytes_max = self.limits.result_bytes_max as usize;
        let mut executor =
            Executor::new(self.run_limits, result_bytes_max, seed, library, board, report_sender.clone());
        for (module, functions) in natives {
            executor.add_natives(&module, functions);
        }
        let mut driver = Driver {
            node: Node::new(config, epoch, seed, broccoli_core::Instant(0)),
            link,
            name,
            runs_code: self.slots > 0,
            executor,
            store: Store::default(),
            journal: None,
            engine: Engine::new(self.wasm_limits),
            reports,
            reporter: report_sender,
            commands: command_receiver,
            listeners: vec![listener],
            jobs: HashMap::new(),
            started,
            connect_at: None,
            reconnect: Backoff::RECONNECT,
            connected: false,
            drain_limit: self.drain_limit,
            drain_until: None,
            stalled: false,
            hand_back_at: None,
            leave_at: None,
            over: false,
            buf: Vec::new(),
        };
        driver.tell_time();
        if let Some(journal) = journal {
            let said = driver.recover(journal)?;
            driver.say(said);
        }
        // A directory whose journal is refused is not touched.
        let (store, stored, damaged) = Store::open(self.data.as_deref(), &cluster.deploy_public)
            .map_err(|error| StartError::Data(self.data.clone().unwrap_or_default(), error))?;
        driver.store = store;
        driver.say(damaged);
        driver.install_stored(stored);
        Ok((NodeHandle { name, commands, events: Some(events) }, driver))
    }

    fn check_names(&self) -> Result<(), StartError> {
        let is_bad = |label: &&String| !is_label(label);
        if let Some(bad) = self.features.iter().find(is_bad).or_else(|| self.features.get(FEATURES_MAX)) {
            return Err(StartError::BadLabel(bad.clone()));
        }
        match self.natives.keys().find(|module| is_builtin(module)) {
            Some(module) => Err(StartError::Builtin(module.clone())),
            None => Ok(()),
        }
    }

    /// Starts the node on a thread of its own.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(self) -> Result<NodeHandle, StartError> {
        let (handle, driver) = self.build()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let run = move || runtime.block_on(driver.run());
        thread::Builder::new().name("broccoli".into()).spawn(run).map_err(StartError::Thread)?;
        Ok(handle)
    }
}

/// A running node. It ends when [`NodeHandle::leave`] is called or the last handle is dropped.
pub struct NodeHandle {
    name: NodeId,
    commands: mpsc::UnboundedSender<Command>,
    events: Option<mpsc::Receiver<NodeEvent>>,
}

/// Another handle of the same node, without the events from its start.
impl Clone for NodeHandle {
    fn clone(&self) -> NodeHandle {
        NodeHandle { name: self.name, commands: self.commands.clone(), events: None }
    }
}

/// How a deployment went.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// Nodes that hold the module.
    pub holders: Vec<NodeId>,
    /// Nodes that refused it, and why.
    pub refused: Vec<(NodeId, String)>,
    /// Live nodes that have not answered in time; they get it when they are back.
    pub missing: Vec<NodeId>,
}

impl NodeHandle {
    /// Settings of a new node.
    pub fn builder() -> Builder {
        Builder {
            cluster: None,
            server: None,
            name: None,
            slots: 0,
            features: Vec::new(),
            resident: false,
            holds_code: false,
            data: None,
            limits: Limits::host(),
            run_limits: RunLimits::default(),
            wasm_limits: broccoli_wasm::Limits::host(),
            keep_alive_s: 5,
            drain_limit: Duration::from_secs(30),
            board: Board::None,
            allows_reboot: false,
            natives: BTreeMap::new(),
        }
    }

    /// The node's name.
    pub fn name(&self) -> NodeId {
        self.name
    }

    /// Everything that happens from now on; for the first caller, from the start. Whoever does not
    /// read loses what comes after the first 4,096 events.
    pub fn events(&mut self) -> mpsc::Receiver<NodeEvent> {
        self.events.take().unwrap_or_else(|| self.listen())
    }

    pub(crate) fn listen(&self) -> mpsc::Receiver<NodeEvent> {
        let (listener, events) = mpsc::channel(EVENTS_MAX);
        self.command(Command::Listen(listener));
        events
    }

    /// Submits a canvas to this node as its origin.
    pub fn submit(&self, canvas: Canvas) -> JobHandle {
        self.job_handle(|updates, id| Command::Submit { canvas, updates, id })
    }

    /// Submits a canvas to a resident node of the cluster, one that keeps its jobs over a restart
    /// if there is any. If that node has no room, the canvas waits until it has.
    pub fn submit_to_cluster(&self, canvas: Canvas) -> JobHandle {
        self.submit_with(canvas, SubmitOptions::default())
    }

    /// The same with options: see [`SubmitOptions`].
    pub fn submit_with(&self, canvas: Canvas, options: SubmitOptions) -> JobHandle {
        self.job_handle(|updates, id| Command::SubmitToCluster { canvas, options, updates, id })
    }

    /// Looks for a node that takes jobs; [`NodeEvent::Attached`] tells when it is found and the
    /// functions of the cluster are known.
    pub fn attach(&self) {
        self.command(Command::Attach);
    }

    /// Checks a canvas against the functions that the cluster offers now. The plan says how many
    /// tasks it has; none if the node has stopped.
    ///
    /// # Errors
    /// What an origin would refuse it for.
    pub async fn check(&self, canvas: Canvas) -> Option<Result<Plan, CanvasError>> {
        self.query(move |node| node.check(&canvas)).await
    }

    /// Reads something of the node's state; none if it has stopped.
    pub async fn query<T: Send + 'static>(&self, query: impl FnOnce(&Node) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Query(Box::new(move |node| {
            // Whoever asked may have gone away.
            let _ = reply.send(query(node));
        })));
        answer.await.ok()
    }

    /// What the node has done since its start, and what it holds now; none if it has stopped.
    pub async fn counters(&self) -> Option<Counters> {
        self.query(Node::counters).await
    }

    /// Signs a module and offers it to all nodes; waits until every live node has it or has
    /// refused it, at most `wait`.
    ///
    /// # Errors
    /// If the module cannot be described in a manifest.
    pub async fn deploy(
        &self,
        name: &str,
        functions: Functions,
        wasm: Vec<u8>,
        key: &DeployKey,
        wait: Duration,
    ) -> Result<Deployment, ManifestError> {
        let manifest = Manifest::new(name, self.next_version(name).await, &wasm, functions)?.sign(&key.0);
        Ok(self.offer(manifest, wasm, wait).await)
    }

    /// Takes a module away from all nodes, and waits as [`NodeHandle::deploy`] does. Jobs that were accepted before go on.
    ///
    /// # Errors
    /// If no module can have this name.
    pub async fn undeploy(&self, name: &str, key: &DeployKey, wait: Duration) -> Result<Deployment, ManifestError> {
        let manifest = Manifest::tombstone(name, self.next_version(name).await)?.sign(&key.0);
        Ok(self.offer(manifest, Vec::new(), wait).await)
    }

    /// A version that is newer than all that are known.
    async fn next_version(&self, name: &str) -> u64 {
        let module = name.to_owned();
        let known = self.query(move |node| node.functions().get(module.as_str()).map(|(version, _)| *version)).await;
        unix_ms().max(known.flatten().map_or(0, |version| version + 1))
    }

    /// Offers a signed module to all nodes; see [`NodeHandle::deploy`].
    pub async fn offer(&self, manifest: SignedManifest, wasm: Vec<u8>, wait: Duration) -> Deployment {
        let module = manifest.id;
        let mut events = self.listen();
        self.command(Command::Deploy { manifest, wasm: wasm.into() });
        let mut refused: BTreeMap<NodeId, String> = BTreeMap::new();
        let end = time::Instant::now() + wait;
        loop {
            if let Some(reason) = refused.get(&self.name) {
                // What this node refuses it offers to nobody.
                return Deployment { refused: vec![(self.name, reason.clone())], ..Deployment::default() };
            }
            let deployment = self.deployment(module, &refused).await;
            if deployment.missing.is_empty() {
                return deployment;
            }
            // A set that is learned is not an event: look again from time to time.
            let next = end.min(time::Instant::now() + Duration::from_millis(10));
            match time::timeout_at(next, events.recv()).await {
                Ok(Some(NodeEvent::ModuleRefused { by, module: which, reason })) if which == module => {
                    refused.insert(by, reason);
                }
                Ok(None) => return deployment,
                Ok(Some(_)) => {}
                Err(_) if time::Instant::now() >= end => return deployment,
                Err(_) => {}
            }
        }
    }

    async fn deployment(&self, module: ModuleHash, refused: &BTreeMap<NodeId, String>) -> Deployment {
        let me = self.name;
        let nodes = self.query(move |node| {
            let others = node.members().filter(|(name, member)| member.alive && *name != me);
            let holders = others.filter(|(_, member)| member.birth.slots > 0 || member.birth.resident);
            holders.map(|(name, member)| (name, node.holds(member, &module))).collect::<Vec<_>>()
        });
        let mut deployment = Deployment::default();
        for (name, holds) in nodes.await.unwrap_or_default() {
            match refused.get(&name) {
                _ if holds => deployment.holders.push(name),
                Some(reason) => deployment.refused.push((name, reason.clone())),
                None => deployment.missing.push(name),
            }
        }
        deployment
    }

    /// Says goodbye and ends the node. Returns when it has.
    pub async fn leave(self) {
        self.command(Command::Leave);
        self.ended().await;
    }

    /// Waits until the node has ended.
    pub(crate) async fn ended(self) {
        self.commands.closed().await;
    }

    pub(crate) fn job_handle(
        &self,
        command: impl FnOnce(mpsc::UnboundedSender<JobUpdate>, oneshot::Sender<SubmitId>) -> Command,
    ) -> JobHandle {
        let (updates, receiver) = mpsc::unbounded_channel();
        let (id_sender, id) = oneshot::channel();
        self.command(command(updates, id_sender));
        let commands = self.commands.clone();
        JobHandle { updates: receiver, id: Some(id), commands, submit: None, job: None, transient: false }
    }

    pub(crate) fn command(&self, command: Command) {
        // If the node has stopped, whoever waits for an answer learns it by the closed channel.
        let _ = self.commands.send(command);
    }
}

/// A submitted canvas.
pub struct JobHandle {
    updates: mpsc::UnboundedReceiver<JobUpdate>,
    /// Until the node has said it.
    id: Option<oneshot::Receiver<SubmitId>>,
    commands: mpsc::UnboundedSender<Command>,
    submit: Option<SubmitId>,
    job: Option<JobId>,
    /// The node forgets what was asked when the handle is dropped.
    transient: bool,
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if self.transient {
            self.updates.close();
            // If the node has stopped, there is nothing to forget.
            let _ = self.commands.send(Command::Sweep);
        }
    }
}

impl JobHandle {
    pub(crate) fn transient(mut self) -> JobHandle {
        self.transient = true;
        self
    }

    pub(crate) fn of(mut self, job: JobId) -> JobHandle {
        self.job = Some(job);
        self
    }

    /// Waits until it is accepted, and gives its id.
    ///
    /// # Errors
    /// [`JobError::Refused`], [`JobError::Stopped`].
    pub async fn accepted(&mut self) -> Result<JobId, JobError> {
        loop {
            if let Some(job) = self.job {
                return Ok(job);
            }
            if let JobUpdate::Refused(refusal) = self.next().await.ok_or(JobError::Stopped)? {
                return Err(JobError::Refused(refusal));
            }
        }
    }

    /// The next news; none after the end.
    pub async fn next(&mut self) -> Option<JobUpdate> {
        let update = self.updates.recv().await;
        if let Some(JobUpdate::Accepted(job)) = update {
            self.job = Some(job);
        }
        update
    }

    /// The job's id, once it is accepted.
    pub fn id(&self) -> Option<JobId> {
        self.job
    }

    /// Waits for the encoded result.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn result(&mut self) -> Result<Cbor, JobError> {
        loop {
            match self.next().await.ok_or(JobError::Stopped)? {
                JobUpdate::News(JobNews::Ended(outcome)) => return outcome.map_err(JobError::Failed),
                JobUpdate::News(JobNews::Unknown) => return Err(JobError::Lost),
                JobUpdate::News(JobNews::GoesOn) => return Err(JobError::LeftToOthers),
                JobUpdate::Refused(refusal) => return Err(JobError::Refused(refusal)),
                JobUpdate::Accepted(_)
                | JobUpdate::News(_)
                | JobUpdate::QueueFull(_)
                | JobUpdate::OnlyLeaving(_)
                | JobUpdate::CannotStore(..)
                | JobUpdate::NoAnswer(_) => {}
            }
        }
    }

    /// Waits for the result as a value of this type.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn get<T: crate::native::Value>(&mut self) -> Result<T, JobError> {
        decode(self.result().await?)
    }

    /// Ends the job: tasks that have not run never will, running ones are stopped. One that was submitted with a key goes on
    /// if others have submitted it too, or wait for it: [`JobError::LeftToOthers`].
    pub async fn revoke(&mut self) {
        if let Some(id) = &mut self.id {
            self.submit = id.await.ok();
            self.id = None;
        }
        if let Some(submit) = self.submit {
            // If the node has stopped, the job has ended with it.
            let _ = self.commands.send(Command::Revoke(submit));
        }
    }
}

/// A result as a value of a type.
pub(crate) fn decode<T: crate::native::Value>(value: Cbor) -> Result<T, JobError> {
    let mut decoder = minicbor::Decoder::new(value.as_bytes());
    if T::ty().accepts(value.as_bytes())
        && let Ok(read) = T::read(&mut decoder)
    {
        return Ok(read);
    }
    Err(JobError::Type(value))
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
