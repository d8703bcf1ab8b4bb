//! The settings of a node, and how a node is built from them.
//!
//! [`Builder::build`] checks the settings, then creates the parts in this order: native functions, state machine, link,
//! executor, journal, store. It starts nothing: [`Driver::run`] does.

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
use crate::logging::rate::LineRate;
use crate::machine::MACHINE;
use crate::mqtt::ServerUrl;
use crate::native::{Native, NativeFunction};
use crate::store::Store;

/// Module of native functions that are declared without a module name.
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

/// The identity of the node in the cluster.
#[derive(Default)]
struct Identity {
    cluster: Option<Cluster>,
    name: Option<NodeId>,
    labels: Vec<String>,
    resident: bool,
}

/// The connection to the MQTT server.
struct LinkSettings {
    server: Option<ServerUrl>,
    keep_alive_s: u16,
}

/// What the node stores.
#[derive(Default)]
struct Storage {
    holds_code: bool,
    data: Option<PathBuf>,
}

/// How the node runs tasks.
struct Execution {
    slots: u16,
    run_limits: RunLimits,
    wasm_limits: broccoli_wasm::Limits,
    board: Board,
    allows_reboot: bool,
    refusals: Refusals,
    /// By module, then by function. Sorted, so that equal programs send equal descriptions.
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

    /// The MQTT server. Default: the one in the cluster file.
    pub fn server(mut self, server: ServerUrl) -> Self {
        self.link.server = Some(server);
        self
    }

    /// The node's name. Default: a random one.
    pub fn name(mut self, name: NodeId) -> Self {
        self.identity.name = Some(name);
        self
    }

    /// How many tasks run at the same time; 0 for a node that only submits. Default 0.
    pub fn slots(mut self, slots: u16) -> Self {
        self.execution.slots = slots;
        self
    }

    /// A label (`room=kitchen`) or capability (`led`) for routing. At most 16, those of the board included.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.identity.labels.push(label.into());
        self
    }

    /// Whether the node accepts jobs from other nodes. Default no.
    pub fn resident(mut self, resident: bool) -> Self {
        self.identity.resident = resident;
        self
    }

    /// Whether the node fetches the code of modules; otherwise only their manifests. Nodes with slots and resident
    /// nodes always fetch it.
    pub fn holds_code(mut self, holds_code: bool) -> Self {
        self.storage.holds_code = holds_code;
        self
    }

    /// The directory of the journal and the modules. They survive a restart. Default: nothing is stored.
    pub fn data(mut self, dir: impl Into<PathBuf>) -> Self {
        self.storage.data = Some(dir.into());
        self
    }

    /// Capacities of queues, jobs, packets and values.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Limits of one run of a task.
    pub fn run_limits(mut self, limits: RunLimits) -> Self {
        self.execution.run_limits = limits;
        self
    }

    /// Limits of one Wasm module.
    pub fn wasm_limits(mut self, limits: broccoli_wasm::Limits) -> Self {
        self.execution.wasm_limits = limits;
        self
    }

    /// MQTT keep-alive in seconds. Default 5.
    pub fn keep_alive_s(mut self, seconds: u16) -> Self {
        self.link.keep_alive_s = seconds;
        self
    }

    /// How long a draining node waits for its running tasks and for jobs that only it holds. Then it hands back the
    /// tasks, and leaves. Default 30 s.
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.drain_limit = limit;
        self
    }

    /// The hardware that tasks may use. Its capabilities become labels of the node. Default none.
    pub fn board(mut self, board: Board) -> Self {
        self.execution.board = board;
        self
    }

    /// Whether tasks may call `sys.reboot`. The node then reports [`crate::NodeEvent::Reboot`], drains and ends; the
    /// program that runs the node must reboot the machine. Default no.
    pub fn allow_reboot(mut self, allow: bool) -> Self {
        self.execution.allows_reboot = allow;
        self
    }

    /// The error texts for tasks that need a board or a reboot on a node without one.
    pub fn refusals(mut self, refusals: Refusals) -> Self {
        self.execution.refusals = refusals;
        self
    }

    /// Adds a function written in Rust, as `function` or `module.function`. Its arguments are named `a0`, `a1`, …, and
    /// it has no documentation, unless [`native::function`](crate::native::function) sets them:
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
    /// All functions of a program under one module name (`native` if none is given) form one module. Programs with
    /// different functions must use different module names; otherwise the cluster knows only one of the modules. The
    /// names `sys` and `board` are reserved for the built-in modules.
    pub fn function<Args: 'static, F: NativeFunction<Args>>(mut self, name: &str, function: F) -> Self {
        let (module, name) = name.rsplit_once('.').unwrap_or((NATIVE_MODULE, name));
        let functions = self.execution.natives.entry(module.into()).or_default();
        functions.insert(name.into(), Native::new(name, function));
        self
    }
}

/// Building the node.
impl Builder {
    /// Builds the node and its loop. Spawn [`Driver::run`] on any runtime. On the same single-threaded runtime as the
    /// code that uses the handle, no thread switch is needed between them.
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
        // Only now, because nothing in the directory may change if its journal is refused.
        let (store, stored, damaged) = Store::open(storage.as_deref(), &cluster.deploy_public)
            .map_err(|error| StartError::Data(storage.unwrap_or_default(), error))?;
        driver.store = store;
        driver.say(damaged);
        driver.install_stored(stored);
        Ok((handle, driver))
    }

    /// Starts the node on its own thread.
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

    /// Creates the link to the MQTT server. It does not connect yet.
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

    /// The configuration of the state machine.
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

    /// The executor, with the native and the built-in functions.
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

    /// Opens, locks and reads the journal of a durable node. Changes nothing in it yet.
    fn journal(&self, cluster: &Cluster, name: NodeId) -> Result<Option<Journal>, StartError> {
        let open = |dir: &PathBuf| Journal::open(dir, &cluster.id.to_string(), name).map_err(StartError::Journal);
        self.storage.data.as_ref().map(open).transpose()
    }

    /// Creates the driver from these parts, and its handle.
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
            line_rate: LineRate::default(),
        };
        (NodeHandle::new(start.name, commands, controls, events), driver)
    }
}

/// Values that are new with each start.
struct Start {
    name: NodeId,
    epoch: Epoch,
    seed: u64,
    at: Instant,
}

impl Start {
    /// Values of a start now. Without a name, a random one is chosen.
    fn now(name: Option<NodeId>) -> Result<Start, StartError> {
        let epoch = Epoch(random().map_err(StartError::Cluster)?);
        let seed = u64::from_le_bytes(random().map_err(StartError::Cluster)?);
        let random_name = || format!("n{:08x}", seed >> 32).parse().expect("letters and digits are a name");
        Ok(Start { name: name.unwrap_or_else(random_name), epoch, seed, at: Instant::now() })
    }
}

/// The native functions of the program.
struct NativeModules {
    /// The descriptions, for other nodes.
    described: Vec<NativeModule>,
    /// The functions, for the executor.
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
