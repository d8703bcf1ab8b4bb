//! Which cluster and which server a command uses, and a session with them.
//!
//! This module finds the cluster file and the server, writes the file by which other commands find the server of `up`,
//! and waits until a node that takes jobs has answered. It never retries for ever: a client that cannot reach the
//! cluster reports the reason and ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use broccoli_node::cluster::{ClusterError, deploy_key_path, readable_by_others};
use broccoli_node::mqtt::{DisconnectReason, ServerUrl, UrlError};
use broccoli_node::view::NodeState;
use broccoli_node::{Cluster, DeployKey, Event, NodeEvent, NodeHandle, NodeId, PacketError, StartError};
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout, timeout_at};

use crate::advice::Advised;
use crate::exit::Failure;
use crate::output;
use crate::signals::Signals;

/// How long a client searches for a node that takes jobs.
const ATTACH_MAX: Duration = Duration::from_secs(5);
/// All nodes that are online have answered within this time.
const MEET_MAX: Duration = Duration::from_secs(1);
/// How long a client may take to say goodbye when it ends.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// The message for clients and for nodes: packets with another key look the same to both.
pub(crate) const FOREIGN_KEY: &str = "cannot read this cluster's traffic: it is sealed with another key";

/// The heading of these options in the help of each command.
const GLOBAL: &str = "Global options";

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    /// File with the cluster's id and key; default: broccoli/cluster.json in the configuration directory
    /// [env: BROCCOLI_CLUSTER]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    cluster: Option<PathBuf>,
    /// MQTT server, `mqtt://user:password@host:port` (`user:password@` and `:port` are optional), or @FILE with such an
    /// address; default: the server of a `broccoli up` on this machine, else the server in the cluster file, else this
    /// machine [env: BROCCOLI_SERVER]
    #[arg(long, global = true, value_name = "URL", value_parser = server_url, help_heading = GLOBAL)]
    server: Option<ServerUrl>,
    /// The server of the environment.
    #[arg(skip)]
    usual_server: Option<ServerUrl>,
    /// Print to stderr what happens: -v each task and event of the cluster, -vv also each packet; default: a node prints
    /// each job and each failed task, other commands nothing; see docs/observing.md [env: BROCCOLI_LOG, such as
    /// broccoli::task=debug]
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL)]
    verbose: u8,
}

/// Warns if other users can read a file with a key, and says how to fix it.
pub(crate) fn warn_if_open(path: &Path) {
    if let Some(text) = readable_by_others(path) {
        output::note(format_args!("warning: {text}"));
    }
}

impl Common {
    /// The options of an incomplete command line. Values that are not valid are left out.
    pub(crate) fn named(cluster: Option<OsString>, server: Option<OsString>) -> Common {
        let server = server.and_then(|text| server_url(text.to_str()?).ok());
        Common { cluster: cluster.map(PathBuf::from), server, usual_server: None, verbose: 0 }
    }

    /// Takes from the environment what the command line does not set. An empty variable counts as not set.
    ///
    /// # Errors
    /// If a variable is not valid.
    pub(crate) fn with_environment(mut self) -> Result<Common, Failure> {
        self.cluster = self.cluster.or_else(|| variable("BROCCOLI_CLUSTER").map(PathBuf::from));
        if let (None, Some(text)) = (&self.server, variable("BROCCOLI_SERVER")) {
            let url = text.to_str().ok_or_else(|| "not UTF-8".to_owned()).and_then(server_url);
            self.usual_server = Some(url.map_err(|error| Failure::usage(format_args!("BROCCOLI_SERVER: {error}")))?);
        }
        Ok(self)
    }

    /// The path of the cluster file.
    ///
    /// # Errors
    /// If no file is named, and there is no directory for a default one.
    pub(crate) fn cluster_path(&self) -> Result<PathBuf, Failure> {
        let default = || Some(directory("XDG_CONFIG_HOME", ".config")?.join("cluster.json"));
        let missing =
            || Failure::usage("there is no home directory for the cluster file: name the file with --cluster FILE");
        self.cluster.clone().or_else(default).ok_or_else(missing)
    }

    /// Reads the cluster file.
    ///
    /// # Errors
    /// If it is missing or cannot be used.
    pub(crate) fn cluster(&self) -> Result<Cluster, Failure> {
        let path = self.cluster_path()?;
        let cluster = Cluster::load(&path).map_err(cluster_failure)?;
        warn_if_open(&path);
        Ok(cluster)
    }

    /// Reads the cluster file, or creates it at its first use.
    ///
    /// # Errors
    /// If it can be neither read nor created.
    pub(crate) fn cluster_or_new(&self) -> Result<Cluster, Failure> {
        let path = self.cluster_path()?;
        match Cluster::load(&path) {
            Err(ClusterError::Missing(_)) => {}
            loaded => {
                warn_if_open(&path);
                return loaded.map_err(cluster_failure);
            }
        }
        let (cluster, deploy_key) = Cluster::generate().map_err(Failure::failed)?;
        match cluster.create(&deploy_key, &path) {
            Ok(()) => {
                output::note(format_args!("created cluster {} in {}", cluster.id, path.display()));
                Ok(cluster)
            }
            // Another process was faster.
            Err(ClusterError::Exists(_)) => Cluster::load(&path).map_err(cluster_failure),
            Err(error) => Err(cluster_failure(error)),
        }
    }

    /// The private key next to the cluster file.
    ///
    /// # Errors
    /// If this machine has no key, or the key of another cluster.
    pub(crate) fn deploy_key(&self, cluster: &Cluster) -> Result<DeployKey, Failure> {
        let error = |error| match error {
            ClusterError::Missing(path) => Failure::usage(format_args!(
                "there is no deploy key {}: deploy on the machine where the cluster was created",
                path.display()
            )),
            error => cluster_failure(error),
        };
        let path = self.cluster_path()?;
        let key = DeployKey::load(&path, cluster).map_err(error)?;
        warn_if_open(&deploy_key_path(&path));
        Ok(key)
    }

    /// The server that was named on the command line or in the environment.
    pub(crate) fn named_server(&self) -> Option<ServerUrl> {
        self.server.clone().or_else(|| self.usual_server.clone())
    }

    /// Whether only the environment names a server.
    #[cfg(feature = "embedded-server")]
    pub(crate) fn has_usual_server(&self) -> bool {
        self.server.is_none() && self.usual_server.is_some()
    }

    /// The server of a cluster: the named one, that of `up`, that of the cluster file, or this machine.
    pub(crate) fn server(&self, cluster: &Cluster) -> ServerUrl {
        let local = || ServerUrl::new("127.0.0.1", DEFAULT_PORT);
        let of_up = || Some(self.running_up(cluster)?.near);
        self.named_server().or_else(of_up).or_else(|| cluster.server.clone()).unwrap_or_else(local)
    }

    /// The same server, with the address by which other machines reach it.
    pub(crate) fn server_for_others(&self, cluster: &Cluster) -> ServerUrl {
        let of_up = || Some(self.running_up(cluster)?.far);
        self.named_server().or_else(of_up).unwrap_or_else(|| self.server(cluster))
    }

    /// The file of this cluster's `up`, if `up` runs on this machine.
    pub(crate) fn running_up(&self, cluster: &Cluster) -> Option<UpFile> {
        UpFile::read(&self.cluster_path().ok()?, cluster)
    }

    /// How often -v was given.
    pub(crate) fn verbosity(&self) -> u8 {
        self.verbose
    }

    /// Connects as a client and finds a node that takes jobs.
    ///
    /// # Errors
    /// See [`Session::open`].
    pub(crate) async fn open(&self) -> Result<Session, Failure> {
        let cluster = self.cluster()?;
        let server = self.server(&cluster);
        Session::open(cluster, server).await
    }

    /// The same, for a command that submits a job.
    ///
    /// # Errors
    /// See [`Session::open`]. Exit code 3 if all nodes that are online are shutting down.
    pub(crate) async fn open_to_submit(&self) -> Result<Session, Failure> {
        let session = self.open().await?;
        let view = session.node.view().await;
        let origin = view.as_ref().and_then(|view| view.node(view.origin?));
        let Some(node) = origin.filter(|node| node.state == NodeState::Draining).map(|node| node.name) else {
            return Ok(session);
        };
        session.close().await;
        Err(Failure::unreachable(format_args!(
            "the only node, {node}, is shutting down and takes no new jobs: start another node with \
             `broccoli node`, or try again when {node} is back"
        )))
    }
}

/// Reads a server: a URL, or a file with a URL, so that the password is in no list of processes.
fn server_url(text: &str) -> Result<ServerUrl, String> {
    match text.strip_prefix('@') {
        Some(path) => {
            let text = read_line(Path::new(path)).map_err(|error| format!("cannot read {path}: {error}"))?;
            text.parse().map_err(|error| format!("{path}: {error}"))
        }
        None => text.parse().map_err(|error: UrlError| error.to_string()),
    }
}

/// Maximum size of a secret in a file or on standard input, in bytes.
pub(crate) const SECRET_BYTES_MAX: u64 = 4_096;

/// The first line of a small file, without the byte order mark that some editors write.
pub(crate) fn read_line(path: &Path) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(File::open(path)?.take(SECRET_BYTES_MAX)).read_line(&mut line)?;
    Ok(line.trim_start_matches('\u{feff}').trim().to_owned())
}

/// A variable of the environment. An empty variable counts as not set.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The file that a running `up` writes next to the cluster file, so that other commands of this user find its server
/// on any address. It is a JSON object in FILE.up.PID. Only its owner can read it, because an address can contain a
/// password. If there are several, the file of the `up` that was started first counts.
#[derive(Clone, Debug)]
pub(crate) struct UpFile {
    /// The address by which this machine reaches the server.
    pub(crate) near: ServerUrl,
    /// The address by which other machines reach the server.
    pub(crate) far: ServerUrl,
}

impl UpFile {
    /// The prefix of the names of these files, with their directory.
    fn prefix(cluster_path: &Path) -> OsString {
        let mut prefix = cluster_path.as_os_str().to_owned();
        prefix.push(".up.");
        prefix
    }

    /// All these files, each with the process that wrote it.
    fn all(cluster_path: &Path) -> Vec<(PathBuf, String)> {
        let prefix = UpFile::prefix(cluster_path);
        let prefix = Path::new(&prefix);
        // A file name without a directory is in the working directory.
        let folder = prefix.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let left = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let pid = name.to_str()?.strip_prefix(prefix.file_name()?.to_str()?)?;
            pid.bytes().all(|byte| byte.is_ascii_digit()).then(|| (entry.path(), pid.to_owned()))
        };
        entries.filter_map(left).collect()
    }

    /// Reads the file that counts. Its content is only a hint: nothing else depends on it.
    fn read(cluster_path: &Path, cluster: &Cluster) -> Option<UpFile> {
        let started = |path: &PathBuf| fs::metadata(path).and_then(|about| about.modified()).ok();
        // A process that was killed has not removed its file.
        let mut files: Vec<_> = UpFile::all(cluster_path).into_iter().filter(|(_, pid)| runs(pid)).collect();
        files.sort_by_key(|(path, _)| started(path));
        files.into_iter().find_map(|(path, _)| UpFile::parse(&fs::read_to_string(path).ok()?, cluster))
    }

    /// Returns `None` if the file belongs to another cluster.
    fn parse(text: &str, cluster: &Cluster) -> Option<UpFile> {
        let json: Value = serde_json::from_str(text).ok()?;
        let url = |name: &str| json[name].as_str()?.parse().ok();
        let is_ours = json["cluster"].as_str() == Some(cluster.id.as_str());
        is_ours.then_some(UpFile { near: url("server")?, far: url("server_for_others")? })
    }

    /// Writes the file, and removes it when the guard is dropped. Also removes files of processes that were killed.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn leave(&self, cluster_path: &Path, cluster: &Cluster) -> io::Result<UpGuard> {
        for (left, _) in UpFile::all(cluster_path).into_iter().filter(|(_, pid)| !runs(pid)) {
            // Another process may have removed it.
            let _ = fs::remove_file(left);
        }
        let beside = |end: &str| {
            let mut name = UpFile::prefix(cluster_path);
            name.push(format!("{}{end}", std::process::id()));
            PathBuf::from(name)
        };
        let (path, unfinished) = (beside(""), beside(".new"));
        let json = json!({
            "cluster": cluster.id.as_str(),
            "server": self.near.to_url_with_password(),
            "server_for_others": self.far.to_url_with_password(),
        });
        let text = format!("{json:#}\n");
        let written = write_private(&unfinished, &text).and_then(|()| fs::rename(&unfinished, &path));
        written.inspect_err(|_| {
            // The unfinished file is useless.
            let _ = fs::remove_file(&unfinished);
        })?;
        Ok(UpGuard { path })
    }
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

/// Removes the file of `up` when `up` ends.
pub(crate) struct UpGuard {
    path: PathBuf,
}

impl Drop for UpGuard {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether a process runs. True if the system cannot tell.
fn runs(pid: &str) -> bool {
    !Path::new("/proc/self").exists() || Path::new("/proc").join(pid).exists()
}

/// The port of an MQTT server if its address has none.
pub(crate) const DEFAULT_PORT: u16 = 1883;

/// The variable that names the home directory of the user.
const HOME: &str = if cfg!(windows) { "USERPROFILE" } else { "HOME" };

/// The directory of Broccoli in a base directory of the user, which a variable names or which is in the home directory.
pub(crate) fn directory(base: &str, in_home: &str) -> Option<PathBuf> {
    let named = |name: &str| variable(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
    let base = named(base).or_else(|| Some(named(HOME)?.join(in_home)))?;
    Some(base.join("broccoli"))
}

/// A client of a cluster, attached to a node that takes jobs.
pub(crate) struct Session {
    /// The client itself, a node without slots.
    pub(crate) node: NodeHandle,
    /// The cluster of the client.
    pub(crate) cluster: Cluster,
    events: Receiver<NodeEvent>,
}

impl Session {
    /// Connects to a cluster and waits until one of its nodes has answered. Runs in the current
    /// runtime.
    ///
    /// # Errors
    /// Exit code 3 if the cluster cannot be reached, after a few seconds at most.
    pub(crate) async fn open(cluster: Cluster, server: ServerUrl) -> Result<Session, Failure> {
        let builder = NodeHandle::builder().cluster(cluster.clone()).server(server.clone());
        let (mut node, driver) = builder.build().map_err(start_failure)?;
        tokio::spawn(driver.run());
        node.attach();
        let events = node.events();
        let mut session = Session { node, cluster, events };
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
        let (mut trouble, mut connected) = (None, false);
        while let Ok(event) = timeout_at(end, self.event()).await {
            match event {
                Some(NodeEvent::Cluster(Event::Attached(_))) => return Ok(()),
                Some(NodeEvent::Disconnected(reason)) => {
                    let message = link_trouble(server, &reason);
                    if is_final(&reason) {
                        return Err(Failure::unreachable(message));
                    }
                    trouble = Some(message);
                }
                Some(NodeEvent::Connected) => connected = true,
                Some(NodeEvent::NotHeard) => return Err(Failure::unreachable(not_heard(&self.cluster, server))),
                Some(NodeEvent::Cluster(Event::Rejected { error: PacketError::CannotOpen, .. })) => {
                    trouble = Some(format!("{FOREIGN_KEY}; use the cluster file or the token of that cluster"));
                }
                Some(_) => {}
                None => return Err(Failure::failed("this client has stopped, because its name is taken: try again")),
            }
        }
        Err(Failure::unreachable(trouble.unwrap_or_else(|| {
            let id = self.cluster.id;
            if !connected {
                return format!(
                    "{server} does not answer as an MQTT server does: check the address, and that the server runs"
                );
            }
            format!("no node of cluster {id} answers on {server}: start one with `broccoli up` or `broccoli node`")
        })))
    }

    /// Waits until all nodes that are online are known: they answer one after the other.
    pub(crate) async fn meet_all(&self) {
        self.node.meet_all(MEET_MAX).await;
    }

    /// Whether the cluster knows a node, online or offline.
    pub(crate) async fn is_known(&self, name: NodeId) -> bool {
        self.node.nodes(MEET_MAX).await.is_some_and(|nodes| nodes.iter().any(|node| node.name == name))
    }

    /// Whether this client knows a node as online, without asking.
    pub(crate) async fn is_online(&self, name: NodeId) -> bool {
        self.node.view().await.is_some_and(|view| view.is_online(name))
    }

    /// The next event of the cluster, or `None` if the client has stopped.
    pub(crate) async fn event(&mut self) -> Option<NodeEvent> {
        self.events.recv().await
    }

    /// Says goodbye.
    pub(crate) async fn close(self) {
        // If this takes too long, the server informs the others with our Will.
        let _ = timeout(GOODBYE_MAX, self.node.leave()).await;
    }
}

/// The failure when a node could not start.
pub(crate) fn start_failure(error: StartError) -> Failure {
    match error {
        StartError::Thread(_) => Failure::failed(error),
        StartError::Cluster(error) => cluster_failure(error),
        error => Failure::usage(Advised(&error)),
    }
}

/// The failure when a cluster file, a deploy key or a token cannot be used.
pub(crate) fn cluster_failure(error: ClusterError) -> Failure {
    match error {
        ClusterError::NoEntropy(_) => Failure::failed(error),
        error => Failure::usage(Advised(&error)),
    }
}

/// Why there is no connection, and what to do about it.
pub(crate) fn link_trouble(server: &ServerUrl, reason: &DisconnectReason) -> String {
    match reason {
        DisconnectReason::RefusedCredentials => format!(
            "{server} refused the user or the password: use the cluster file of that server, \
             or give both with --server mqtt://user:password@host"
        ),
        DisconnectReason::Unreachable(why) => {
            // The number of an error does not help people.
            let why = why.split(" (os error").next().unwrap_or(why).to_lowercase();
            format!("no MQTT server at {server} ({why}): start one with `broccoli up`, or name another with --server")
        }
        DisconnectReason::Full => format!(
            "the MQTT server {server} is full: it accepts no more nodes and commands; stop some, \
             or raise its limit (`broccoli up --clients N`)"
        ),
        DisconnectReason::NotMqtt => {
            format!("{server} is not an MQTT server: give the host and port of one with --server")
        }
        DisconnectReason::NoAnswer => {
            format!("{server} closed the connection without an answer: it is not an MQTT server, or it is full")
        }
        reason => format!("{server}: {reason}"),
    }
}

/// Whether a retry makes no sense.
fn is_final(reason: &DisconnectReason) -> bool {
    use DisconnectReason::{Full, NotMqtt, RefusedCredentials, Unreachable};
    matches!(reason, RefusedCredentials | Full | NotMqtt | Unreachable(_))
}

/// Why there is a connection that delivers nothing.
pub(crate) fn not_heard(cluster: &Cluster, server: &ServerUrl) -> String {
    let id = cluster.id;
    let user = server.credentials().map_or_else(|| cluster.mqtt_credentials().0, |(user, _)| user.to_owned());
    format!(
        "{server} accepts the connection but delivers nothing: check its access rules (ACL); user {user} must be \
         allowed to read and write broccoli/{id}/_all and broccoli/{id}/+/+"
    )
}

/// Removes the address of a server from an error, because it can contain a password.
pub(crate) fn without_password(mut error: clap::Error) -> clap::Error {
    use clap::error::{ContextKind, ContextValue};
    let is_server = |value: &ContextValue| value.to_string().starts_with("--server");
    if error.get(ContextKind::InvalidArg).is_some_and(is_server) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("…".into()));
    }
    error
}

/// Runs a future until it is done or the user presses Ctrl-C.
///
/// # Errors
/// Those of the future, and exit code 130.
pub(crate) async fn interruptible<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut signals = Signals::of_command()?;
    tokio::select! {
        biased;
        outcome = work => outcome,
        () = signals.next() => Err(Failure::interrupted("interrupted")),
    }
}
