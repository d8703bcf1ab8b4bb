//! Which cluster, which server, and a session with it.
//!
//! Owns the search for the cluster file and for the server, and the wait until a node that takes
//! jobs has answered. Never retries for ever: a client that cannot get through says why and ends.

use std::path::{Path, PathBuf};
use std::time::Duration;

use broccoli_node::cluster::{ClusterError, deploy_key_path, readable_by_others};
use broccoli_node::mqtt::{DisconnectReason, ServerUrl};
use broccoli_node::{Cluster, DeployKey, NodeEvent, NodeHandle, StartError};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout, timeout_at};

use crate::exit::Failure;
use crate::output;

/// How long a client looks for a node that takes jobs.
const ATTACH_MAX: Duration = Duration::from_secs(5);
/// How long a client that ends may take to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// Said to clients and nodes alike, since both are told the same by another key.
pub(crate) const FOREIGN_KEY: &str = "cannot read this cluster's traffic: it is sealed with another key";

/// Options that every command has.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// File with the cluster's id and key; default: broccoli/cluster.json in the configuration directory
    #[arg(long, global = true, value_name = "FILE", env = "BROCCOLI_CLUSTER")]
    cluster: Option<PathBuf>,
    /// MQTT server, `mqtt://user:password@host:port` (password and port may be left out); default: the one that the cluster file names, else this machine
    #[arg(long, global = true, value_name = "URL", env = "BROCCOLI_SERVER", hide_env_values = true)]
    server: Option<ServerUrl>,
    /// Tell on stderr what happens in the cluster
    #[arg(short, long, global = true)]
    verbose: bool,
}

/// Says that others can read a file with a key, and what mends that.
pub(crate) fn warn_if_open(path: &Path) {
    if let Some(text) = readable_by_others(path) {
        output::note(format_args!("warning: {text}"));
    }
}

impl Common {
    /// The cluster file that counts.
    ///
    /// # Errors
    /// If none is named and there is no place for a default one.
    pub(crate) fn cluster_path(&self) -> Result<PathBuf, Failure> {
        let default = || Some(directory("XDG_CONFIG_HOME", ".config")?.join("cluster.json"));
        let missing =
            || Failure::usage("there is no home directory for the cluster file: name one with --cluster FILE");
        self.cluster.clone().or_else(default).ok_or_else(missing)
    }

    /// Reads the cluster file.
    ///
    /// # Errors
    /// If it is missing or cannot be used.
    pub(crate) fn cluster(&self) -> Result<Cluster, Failure> {
        let path = self.cluster_path()?;
        let cluster = Cluster::load(&path).map_err(Failure::usage)?;
        warn_if_open(&path);
        Ok(cluster)
    }

    /// Reads the cluster file, or makes it at its first use.
    ///
    /// # Errors
    /// If it can be neither read nor made.
    pub(crate) fn cluster_or_new(&self) -> Result<Cluster, Failure> {
        let path = self.cluster_path()?;
        match Cluster::load(&path) {
            Err(ClusterError::Missing(_)) => {}
            loaded => {
                warn_if_open(&path);
                return loaded.map_err(Failure::usage);
            }
        }
        let (cluster, deploy_key) = Cluster::generate().map_err(Failure::failed)?;
        match cluster.create(&deploy_key, &path) {
            Ok(()) => {
                output::note(format_args!("made cluster {} in {}", cluster.id, path.display()));
                Ok(cluster)
            }
            // Another process was faster.
            Err(ClusterError::Exists(_)) => Cluster::load(&path).map_err(Failure::usage),
            Err(error) => Err(Failure::usage(error)),
        }
    }

    /// The private key beside the cluster file.
    ///
    /// # Errors
    /// If this machine has none, or that of another cluster.
    pub(crate) fn deploy_key(&self, cluster: &Cluster) -> Result<DeployKey, Failure> {
        let error = |error| match error {
            ClusterError::Missing(path) => Failure::usage(format_args!(
                "there is no deploy key {}: deploy on the machine where the cluster was made",
                path.display()
            )),
            error => Failure::usage(error),
        };
        let path = self.cluster_path()?;
        let key = DeployKey::load(&path, cluster).map_err(error)?;
        warn_if_open(&deploy_key_path(&path));
        Ok(key)
    }

    /// The server that was named on the command line or in the environment.
    pub(crate) fn named_server(&self) -> Option<ServerUrl> {
        self.server.clone()
    }

    /// The server of a cluster: as named, as its file says, or on this machine.
    pub(crate) fn server(&self, cluster: &Cluster) -> ServerUrl {
        let local = || ServerUrl::new("127.0.0.1", DEFAULT_PORT);
        self.named_server().or_else(|| cluster.server.clone()).unwrap_or_else(local)
    }

    /// Whether to tell everything.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Connects as a client and finds a node that takes jobs.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub(crate) async fn open(&self) -> Result<Session, Failure> {
        let cluster = self.cluster()?;
        let server = self.server(&cluster);
        Session::open(cluster, server, self.verbose).await
    }
}

/// The port of an MQTT server that names none.
pub(crate) const DEFAULT_PORT: u16 = 1883;

/// Our directory in one of the user's base directories, which a variable names or home holds.
pub(crate) fn directory(variable: &str, in_home: &str) -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
    let base = named(variable).or_else(|| Some(named("HOME")?.join(in_home)))?;
    Some(base.join("broccoli"))
}

/// A client of a cluster, attached to a node that takes jobs.
pub(crate) struct Session {
    /// The client itself, a node without slots.
    pub(crate) node: NodeHandle,
    /// The cluster it is a member of.
    pub(crate) cluster: Cluster,
    events: Receiver<NodeEvent>,
    verbose: bool,
}

impl Session {
    /// Connects to a cluster and waits until one of its nodes has answered. Runs in the current
    /// runtime.
    ///
    /// # Errors
    /// With exit code 3 if there is no way through, which is said after a few seconds at most.
    pub(crate) async fn open(cluster: Cluster, server: ServerUrl, verbose: bool) -> Result<Session, Failure> {
        let builder = NodeHandle::builder().cluster(cluster.clone()).server(server.clone());
        let (mut node, driver) = builder.build().map_err(start_failure)?;
        tokio::spawn(driver.run());
        node.attach();
        let events = node.events();
        let mut session = Session { node, cluster, events, verbose };
        match interruptible(session.attach(&server)).await {
            Ok(()) => Ok(session),
            Err(failure) => {
                session.close().await;
                Err(failure)
            }
        }
    }

    async fn attach(&mut self, server: &ServerUrl) -> Result<(), Failure> {
        let end = Instant::now() + ATTACH_MAX;
        let mut trouble = None;
        while let Ok(event) = timeout_at(end, self.event()).await {
            match event {
                Some(NodeEvent::Attached(_)) => return Ok(()),
                Some(NodeEvent::Disconnected(reason)) => {
                    let message = link_trouble(server, &reason);
                    if is_final(&reason) {
                        return Err(Failure::unreachable(message));
                    }
                    trouble = Some(message);
                }
                Some(NodeEvent::NotHeard) => return Err(Failure::unreachable(not_heard(&self.cluster, server))),
                Some(NodeEvent::ForeignKey) => {
                    trouble = Some(format!("{FOREIGN_KEY}; use the file or the token of that cluster"));
                }
                Some(_) => {}
                None => return Err(Failure::failed("this client has stopped: its name is taken; try again")),
            }
        }
        Err(Failure::unreachable(trouble.unwrap_or_else(|| {
            let id = self.cluster.id;
            format!("no node of cluster {id} answers on {server}: start one with `broccoli up` or `broccoli node`")
        })))
    }

    /// The next thing that happens in the cluster; none if the client has stopped.
    pub(crate) async fn event(&mut self) -> Option<NodeEvent> {
        let event = self.events.recv().await;
        if let (true, Some(event)) = (self.verbose, &event) {
            note_event(event);
        }
        event
    }

    /// Writes a line to stderr if the user wants to know everything.
    pub(crate) fn note_verbose(&self, line: impl std::fmt::Display) {
        if self.verbose {
            output::note(line);
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(self) {
        // If it takes too long, the server tells the others by our Will.
        let _ = timeout(GOODBYE_MAX, self.node.leave()).await;
    }
}

/// Why a node could not start, and how to exit then.
pub(crate) fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::Thread(_) | StartError::Cluster(ClusterError::NoEntropy(_)) => Failure::failed(error),
        error => Failure::usage(error),
    }
}

/// Why there is no link, and what to do about it.
pub(crate) fn link_trouble(server: &ServerUrl, reason: &DisconnectReason) -> String {
    match reason {
        DisconnectReason::RefusedCredentials => format!(
            "{server} refused user or password: use the cluster file of that server, \
             or name both with --server mqtt://user:password@host"
        ),
        DisconnectReason::Unreachable(why) => {
            // The number of an error means nothing to people.
            let why = why.split(" (os error").next().unwrap_or(why).to_lowercase();
            format!("no MQTT server at {server} ({why}): start one with `broccoli up`, or name another with --server")
        }
        DisconnectReason::Full => format!(
            "the MQTT server {server} is full: it takes no more nodes and commands; end some, \
             or raise its limit (`broccoli up --clients N`)"
        ),
        DisconnectReason::NotMqtt => {
            format!("what answers at {server} is no MQTT server: name the host and port of one with --server")
        }
        DisconnectReason::NoAnswer => {
            format!("{server} closed the connection without an answer: it is no MQTT server, or takes no more clients")
        }
        reason => format!("{server}: {reason}"),
    }
}

/// Whether it makes no sense to try again soon.
fn is_final(reason: &DisconnectReason) -> bool {
    use DisconnectReason::{Full, NotMqtt, RefusedCredentials, Unreachable};
    matches!(reason, RefusedCredentials | Full | NotMqtt | Unreachable(_))
}

/// Why there is a link and yet nothing to hear.
pub(crate) fn not_heard(cluster: &Cluster, server: &ServerUrl) -> String {
    let id = cluster.id;
    let user = server.credentials().map_or_else(|| cluster.mqtt_credentials().0, |(user, _)| user.to_owned());
    format!(
        "{server} accepts the connection but delivers nothing: look at its access rules (ACL); user {user} must be \
         allowed to read and write broccoli/{id}/_all and broccoli/{id}/+/+"
    )
}

/// The error without the address of a server, which may hold a password.
pub(crate) fn without_password(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let is_server = |value: &ContextValue| value.to_string().starts_with("--server");
    if error.get(ContextKind::InvalidArg).is_some_and(is_server) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("…".into()));
    }
    error
}

/// Writes an event to stderr, for `--verbose`.
pub(crate) fn note_event(event: &NodeEvent) {
    match event {
        NodeEvent::Disconnected(reason) => output::note(format_args!("[disconnected] {reason}")),
        NodeEvent::Attached(node) => output::note(format_args!("[attached] to {node}")),
        NodeEvent::Member(node) => output::note(format_args!("[member] {node}")),
        NodeEvent::Rejected(Some(node), error) => output::note(format_args!("[rejected] from {node}: {error:?}")),
        NodeEvent::Rejected(None, error) => output::note(format_args!("[rejected] {error:?}")),
        NodeEvent::ForeignKey => output::note(format_args!("[rejected] {FOREIGN_KEY}")),
        NodeEvent::NotHeard => output::note("[not heard] the MQTT server does not deliver what this node sends itself"),
        NodeEvent::PacketLimit(bytes) => {
            output::note(format_args!("[packets] the MQTT server drops packets of more than {bytes} bytes"));
        }
        NodeEvent::ModuleRefused { by, module, reason } => {
            output::note(format_args!("[module refused] {module} by {by}: {reason}"));
        }
        NodeEvent::Vitals(node, vitals) => output::note(format_args!(
            "[vitals] {node}: {} running, {} queued, {} run",
            vitals.running, vitals.queued, vitals.tasks_run
        )),
        NodeEvent::Storage(text) => output::note(format_args!("[storage] {text}")),
        NodeEvent::Draining(Some(by)) => output::note(format_args!("[draining] asked by {by}")),
        NodeEvent::Draining(None) => output::note("[draining]"),
        NodeEvent::Reboot => output::note("[reboot]"),
        NodeEvent::Jobs(node, jobs) => {
            output::note(format_args!("[jobs] {} of {node}", output::count(jobs.jobs.len(), "job")));
        }
        NodeEvent::Step(news) => output::note(format_args!("[step] {:?} of {}", news.path, news.job)),
        NodeEvent::Members(node, list) => {
            output::note(format_args!("[members] {} known to {node}", output::count(list.members.len(), "node")));
        }
        NodeEvent::Connected => output::note("[connected]"),
        NodeEvent::NoOrigin => output::note("[no node has answered yet]"),
        NodeEvent::NameTaken => output::note("[name taken]"),
        NodeEvent::Modules => output::note("[modules changed]"),
        NodeEvent::Forgotten { by, node } => output::note(format_args!("[forgotten] {node} at {by}")),
    }
}

/// Runs a future until it is done or the user presses Ctrl-C.
///
/// # Errors
/// Those of the future, and exit code 130.
pub(crate) async fn interruptible<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        outcome = work => outcome,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted("interrupted")),
    }
}
