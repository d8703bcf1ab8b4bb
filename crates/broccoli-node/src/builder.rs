//! The settings of a node, and how a node is made of them.
//!
//! [`Builder::build`] checks the settings, then makes the parts one after the other: functions of the program, state
//! machine, link, executor, journal and store. It starts nothing: that is for [`Driver::run`].

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use broccoli_abi::builtin::is_builtin;
use broccoli_core::{Backoff, Config, Limits, Node, Timing};
use broccoli_proto::module::NativeModule;
use broccoli_proto::options::is_label;
use broccoli_proto::{Epoch, NodeId};
use broccoli_run::{About, Builtins, Library, RunLimits};
use broccoli_wasm::Engine;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::board::{Board, Refusals, TaskBoard};
use crate::cluster::{Cluster, ClusterError, random};
use crate::driver::{Controls, Driver, EVENTS_MAX};
use crate::error::StartError;
use crate::executor::{Executor, Report};
use crate::handle::{COMMANDS_MAX, NodeHandle};
use crate::journal::Journal;
use crate::link::{Link, MqttLink, MqttLinkConfig};
use crate::machine::MACHINE;
use crate::mqtt::ServerUrl;
use crate::native::{Native, NativeFunction};
use crate::store::Store;

/// Module of native functions whose name has none.
const NATIVE_MODULE: &str = "native";
/// Most labels and capabilities of a node.
pub(crate) const LABELS_MAX: usize = 16;

/// Settings of a node. Made by [`NodeHandle::builder`].
pub struct Builder {
    identity: Identity,
    link: LinkSettings,
    storage: Storage,
    execution: Execution,
    limits: Limits,
    drain_limit: Duration,
}

/// Who the node is to others.
#[derive(Default)]
struct Identity {
    cluster: Option<Cluster>,
    name: Option<NodeId>,
    labels: Vec<String>,
    resident: bool,
}

/// How it reaches the others.
struct LinkSettings {
    server: Option<ServerUrl>,
    keep_alive_s: u16,
}

/// What it keeps.
#[derive(Default)]
struct Storage {
    holds_code: bool,
    data: Option<PathBuf>,
}

/// What it runs.
struct Execution {
    slots: u16,
    run_limits: RunLimits,
    wasm_limits: broccoli_wasm::Limits,
    board: Board,
    allows_reboot: bool,
    refusals: Refusals,
    /// By module, then by function: equal programs describe themselves equally.
    natives: BTreeMap<String, BTreeMap<String, Native>>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            identity: Identity::default(),
            link: LinkSettings { server: None, keep_alive_s: 5 },
            storage: Storage::default(),
            execution: Execution {
                slots: 0,
                run_limits: RunLimits::default(),
                wasm_limits: broccoli_wasm::Limits::host(),
                board: Board::None,
                allows_reboot: false,
                refusals: Refusals::default(),
                natives: BTreeMap::new(),
            },
            limits: Limits::host(),
            drain_limit: Duration::from_secs(30),
        }
    }
}

/// Settings.
impl Builder {
    /// The cluster to be a member of. Required.
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.identity.cluster = Some(cluster);
        self
    }

    /// The MQTT server; otherwise the one that the cluster names.
    pub fn server(mut self, server: ServerUrl) -> Self {
        self.link.server = Some(server);
        self
    }

    /// The node's name; otherwise one is made up.
    pub fn name(mut self, name: NodeId) -> Self {
        self.identity.name = Some(name);
        self
    }

    /// Tasks to run side by side; 0 for a node that only submits. Default 0.
    pub fn slots(mut self, slots: u16) -> Self {
        self.execution.slots = slots;
        self
    }

    /// A label (`room=kitchen`) or capability (`led`) for routing. At most 16, those of the board included.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.identity.labels.push(label.into());
        self
    }

    /// Whether the node accepts jobs of others. Default no.
    pub fn resident(mut self, resident: bool) -> Self {
        self.identity.resident = resident;
        self
    }

    /// Whether the node pulls the code of modules; otherwise it only knows of them. Nodes with
    /// slots and those that take jobs of others always do.
    pub fn holds_code(mut self, holds_code: bool) -> Self {
        self.storage.holds_code = holds_code;
        self
    }

    /// Where to keep the journal and modules over a restart.
    pub fn data(mut self, dir: impl Into<PathBuf>) -> Self {
        self.storage.data = Some(dir.into());
        self
    }

    /// Capacities.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// What one run of a task may use.
    pub fn run_limits(mut self, limits: RunLimits) -> Self {
        self.execution.run_limits = limits;
        self
    }

    /// What one module may take.
    pub fn wasm_limits(mut self, limits: broccoli_wasm::Limits) -> Self {
        self.execution.wasm_limits = limits;
        self
    }

    /// MQTT keep-alive in seconds. Default 5.
    pub fn keep_alive_s(mut self, seconds: u16) -> Self {
        self.link.keep_alive_s = seconds;
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
        self.execution.board = board;
        self
    }

    /// Whether tasks may call `sys.reboot`. The node then drains, leaves and ends; who runs it is told by
    /// [`crate::NodeEvent::Reboot`] and reboots the machine. Default no.
    pub fn allow_reboot(mut self, allow: bool) -> Self {
        self.execution.allows_reboot = allow;
        self
    }

    /// What tasks are told that ask for a board or a reboot, where there is none.
    pub fn refusals(mut self, refusals: Refusals) -> Self {
        self.execution.refusals = refusals;
        self
    }

    /// A function written in Rust, as `function` or `module.function`. Its arguments are called `a0`, `a1`, …, and it has no
    /// documentation, unless [`native::function`](crate::native::function) says more:
    ///
    /// ```
    /// use broccoli_node::{NodeHandle, native};
    ///
    /// let builder = NodeHandle::builder()
    ///     .slots(2)
    ///     .function("add", |x: i64, y: i64| x + y)
    ///     .function("mul", native::function(|x: i64, y: i64| x * y).args(["x", "y"]).doc("The product of two numbers."));
    /// ```
    ///
    /// A module is all that a program declares under one name (`native` if a function has none):
    /// give programs with other functions other module names, or only one of them is found. The names
    /// `sys` and `board` are taken: nodes with slots have these modules by themselves.
    pub fn function<Args: 'static, F: NativeFunction<Args>>(mut self, name: &str, function: F) -> Self {
        let (module, name) = name.rsplit_once('.').unwrap_or((NATIVE_MODULE, name));
        let functions = self.execution.natives.entry(module.into()).or_default();
        functions.insert(name.into(), Native::new(name, function));
        self
    }
}

/// Making the node.
impl Builder {
    /// The node and the loop that runs it: spawn [`Driver::run`] where you like. In the same
    /// single-threaded runtime as its user, no thread has to be woken between them.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn build(mut self) -> Result<(NodeHandle, Driver), StartError> {
        let labels = std::mem::take(&mut self.identity.labels);
        self.identity.labels = broccoli_run::features(&labels, &self.execution.board.capabilities());
        self.check()?;
        let identity = &mut self.identity;
        let cluster = identity.cluster.take();
        let cluster = cluster.ok_or_else(|| StartError::Cluster(ClusterError::Missing("cluster file".into())))?;
        let server = self.link.server.take().or_else(|| cluster.server.clone()).ok_or(StartError::NoServer)?;
        let start = Start::now(self.identity.name)?;
        let natives = NativeModules::of(std::mem::take(&mut self.execution.natives));
        let link = self.link(&cluster, server, &start);
        let config = self.config(&cluster, &start, natives.described, link.timing());
        let (reporter, reports) = mpsc::unbounded_channel();
        let executor = self.executor(&start, natives.callable, reporter.clone());
        let journal = self.journal(&cluster, start.name)?;
        let storage = self.storage.data.clone();
        let (handle, mut driver) = self.assemble(config, link, &start, executor, (reporter, reports));
        driver.tell_time();
        if let Some(journal) = journal {
            let said = driver.recover(journal)?;
            driver.say(said);
        }
        // A directory whose journal is refused is not touched.
        let (store, stored, damaged) = Store::open(storage.as_deref(), &cluster.deploy_public)
            .map_err(|error| StartError::Data(storage.unwrap_or_default(), error))?;
        driver.store = store;
        driver.say(damaged);
        driver.install_stored(stored);
        Ok((handle, driver))
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

    /// Checks labels, and the names and descriptions of functions.
    fn check(&self) -> Result<(), StartError> {
        let labels = &self.identity.labels;
        let is_bad = |label: &&String| !is_label(label);
        if let Some(bad) = labels.iter().find(is_bad).or_else(|| labels.get(LABELS_MAX)) {
            return Err(StartError::BadLabel(bad.clone()));
        }
        let natives = &self.execution.natives;
        if let Some(module) = natives.keys().find(|module| is_builtin(module)) {
            return Err(StartError::Builtin(module.clone()));
        }
        let mut described = natives.values().flat_map(BTreeMap::values).map(|native| &native.description);
        described.try_for_each(|function| function.validate()).map_err(StartError::Function)
    }

    /// The link to the MQTT server. It does not connect yet.
    fn link(&self, cluster: &Cluster, server: ServerUrl, start: &Start) -> Link {
        let config = MqttLinkConfig {
            server,
            credentials: cluster.mqtt_credentials(),
            cluster: cluster.id,
            name: start.name,
            client_id: format!("{}-{}", start.name, start.epoch),
            keep_alive_s: self.link.keep_alive_s,
            packet_bytes_max: self.limits.packet_bytes_max,
        };
        Link::Mqtt(Box::new(MqttLink::new(config, start.at)))
    }

    /// What the state machine is told.
    fn config(&self, cluster: &Cluster, start: &Start, natives: Vec<NativeModule>, timing: Timing) -> Config {
        let Builder { identity, storage, execution, .. } = self;
        let slots = execution.slots;
        let builtins = (slots > 0).then(broccoli_run::builtin_modules).into_iter().flatten();
        Config {
            name: start.name,
            keys: vec![cluster.key.clone()],
            deploy_public: cluster.deploy_public,
            slots,
            features: identity.labels.clone(),
            natives: natives.into_iter().chain(builtins).collect(),
            resident: identity.resident,
            durable: storage.data.is_some(),
            holds_code: storage.holds_code || slots > 0 || identity.resident,
            watches: true,
            version: env!("CARGO_PKG_VERSION").into(),
            timing,
            limits: self.limits,
        }
    }

    /// What runs tasks, with the functions of the program and those that every node has.
    fn executor(
        &mut self,
        start: &Start,
        natives: Vec<(NativeModule, HashMap<String, Native>)>,
        reporter: UnboundedSender<Report>,
    ) -> Executor {
        let execution = &mut self.execution;
        let board = std::mem::replace(&mut execution.board, Board::None);
        let about = About {
            name: start.name.as_str(),
            slots: execution.slots,
            labels: &self.identity.labels,
            board: board.kind(),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            version: env!("CARGO_PKG_VERSION"),
            reboot: if execution.allows_reboot { Ok(()) } else { Err(execution.refusals.reboot) },
        };
        let library = Library::new(Builtins::new(about, MACHINE));
        let board = Arc::new(TaskBoard { board, refusals: execution.refusals });
        let result_bytes_max = self.limits.result_bytes_max as usize;
        let mut executor = Executor::new(execution.run_limits, result_bytes_max, start.seed, library, board, reporter);
        for (module, functions) in natives {
            executor.add_natives(&module, functions);
        }
        executor
    }

    /// The journal of a durable node, locked and read. Nothing in it is changed yet.
    fn journal(&self, cluster: &Cluster, name: NodeId) -> Result<Option<Journal>, StartError> {
        let open = |dir: &PathBuf| Journal::open(dir, &cluster.id.to_string(), name).map_err(StartError::Journal);
        self.storage.data.as_ref().map(open).transpose()
    }

    /// The loop around these parts, and its handle.
    fn assemble(
        self,
        config: Config,
        link: Link,
        start: &Start,
        executor: Executor,
        (reporter, reports): (UnboundedSender<Report>, UnboundedReceiver<Report>),
    ) -> (NodeHandle, Driver) {
        let (commands, command_receiver) = mpsc::channel(COMMANDS_MAX);
        let (listener, events) = mpsc::channel(EVENTS_MAX);
        let controls = Arc::new(Controls::with_listener(listener));
        let driver = Driver {
            node: Node::new(config, start.epoch, start.seed, broccoli_core::Instant(0)),
            link,
            name: start.name,
            runs_code: self.execution.slots > 0,
            executor,
            store: Store::default(),
            journal: None,
            engine: Engine::new(self.execution.wasm_limits),
            reports,
            reporter,
            commands: command_receiver,
            controls: controls.clone(),
            jobs: HashMap::new(),
            started: start.at,
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
        (NodeHandle::new(start.name, commands, controls, events), driver)
    }
}

/// What is new with each start.
struct Start {
    name: NodeId,
    epoch: Epoch,
    seed: u64,
    at: Instant,
}

impl Start {
    /// A node that starts now. Without a name it gets a random one.
    fn now(name: Option<NodeId>) -> Result<Start, StartError> {
        let epoch = Epoch(random().map_err(StartError::Cluster)?);
        let seed = u64::from_le_bytes(random().map_err(StartError::Cluster)?);
        let random_name = || format!("n{:08x}", seed >> 32).parse().expect("letters and digits are a name");
        Ok(Start { name: name.unwrap_or_else(random_name), epoch, seed, at: Instant::now() })
    }
}

/// The functions of the program.
struct NativeModules {
    /// For the other nodes.
    described: Vec<NativeModule>,
    /// For the executor.
    callable: Vec<(NativeModule, HashMap<String, Native>)>,
}

impl NativeModules {
    fn of(natives: BTreeMap<String, BTreeMap<String, Native>>) -> NativeModules {
        let module = |(name, natives): (String, BTreeMap<String, Native>)| {
            let functions = natives.values().map(|native| (*native.description).clone()).collect();
            (NativeModule { name, functions }, natives.into_iter().collect())
        };
        let callable: Vec<(NativeModule, HashMap<String, Native>)> = natives.into_iter().map(module).collect();
        NativeModules { described: callable.iter().map(|(module, _)| module.clone()).collect(), callable }
    }
}
