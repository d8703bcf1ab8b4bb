//! A cluster of real processes on the loopback interface, with its own home directory.
//!
//! It owns the directory of one run (cluster file, data, logs, marks), which is kept for inspection. It starts every
//! process with an environment that does not lead to any other cluster. Its callers own the processes.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::marks::Marks;
use crate::Result;
use crate::process::{self, Background, cargo, run, target_dir};

/// Longest time for the start of a process.
pub(crate) const START_MAX: Duration = Duration::from_secs(20);
/// Pause between two checks whether something has happened.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);

const USER: &str = "chaos";
const PASSWORD: &str = "only for this run";
const PASSWORD_IN_URL: &str = "only%20for%20this%20run";

/// The MQTT server of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The embedded server of `broccoli up`, in a separate process.
    Embedded,
    /// Mosquitto, which asks for a password.
    Mosquitto,
}

impl Server {
    /// Both.
    pub(crate) const ALL: [Server; 2] = [Server::Embedded, Server::Mosquitto];

    /// Its name on the command line and in file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Server::Embedded => "embedded",
            Server::Mosquitto => "mosquitto",
        }
    }
}

/// The programs that a cluster is made of.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    broccoli: PathBuf,
    worker: PathBuf,
    round_trips: PathBuf,
}

impl Programs {
    /// Builds them, either as users get them or as tests build them.
    ///
    /// # Errors
    /// They do not build.
    pub(crate) fn build(release: bool) -> Result<Programs> {
        let profile = if release { "--release " } else { "" };
        let what = "-p broccoli-cli -p broccoli-node --bin broccoli --example chaos_worker --example round_trips";
        run(&mut cargo(&format!("build --quiet {profile}--locked {what}")))?;
        Programs::built(release)
    }

    /// Those that were built before.
    ///
    /// # Errors
    /// This program was moved.
    pub(crate) fn built(release: bool) -> Result<Programs> {
        let built = target_dir()?.join(if release { "release" } else { "debug" });
        let example = |name| built.join("examples").join(name);
        Ok(Programs {
            broccoli: built.join("broccoli"),
            worker: example("chaos_worker"),
            round_trips: example("round_trips"),
        })
    }
}

/// The directory of one run, and how to start processes in it.
pub(crate) struct Cluster {
    programs: Programs,
    dir: PathBuf,
    server: Server,
    /// The address of the MQTT server. It is the same after a restart.
    pub(crate) addr: SocketAddr,
}

impl Cluster {
    /// Makes keys and an empty directory below `target/chaos`.
    ///
    /// # Errors
    /// The folder cannot be made, or `broccoli init` fails.
    pub(crate) fn new(programs: &Programs, server: Server, title: &str) -> Result<Cluster> {
        let dir = target_dir()?.join("chaos").join(server.name()).join(title);
        // Files of an earlier run.
        let _ = fs::remove_dir_all(&dir);
        for folder in ["marks", "logs"] {
            fs::create_dir_all(dir.join(folder)).map_err(|error| cannot_write(&dir, &error))?;
        }
        let cluster = Cluster { programs: programs.clone(), dir, server, addr: free_addr()? };
        let file = cluster.file();
        let made = cluster.start_as("init", cluster.broccoli(&["init", "--out", &file]))?;
        made.answer(START_MAX)?;
        Ok(cluster)
    }

    /// Where workers write their marks.
    pub(crate) fn marks(&self) -> Result<Marks> {
        Marks::read(&self.dir.join("marks"))
    }

    /// The directory of this run.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The URL of an address that leads to the server.
    pub(crate) fn url(&self, addr: SocketAddr) -> String {
        match self.server {
            Server::Embedded => format!("mqtt://{addr}"),
            Server::Mosquitto => format!("mqtt://{USER}:{PASSWORD_IN_URL}@{addr}"),
        }
    }

    /// Starts the MQTT server, with an empty memory. When this returns, the server answers.
    ///
    /// # Errors
    /// It cannot start.
    pub(crate) fn start_server(&self) -> Result<Background> {
        let command = match self.server {
            Server::Embedded => {
                let mut command = self.command(&self.programs.worker);
                command.args(["server", &self.file(), &self.addr.to_string()]);
                command
            }
            Server::Mosquitto => self.mosquitto()?,
        };
        let server = self.start_as("server", command)?;
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(self.addr).is_err() {
            if Instant::now() > deadline {
                return Err(format!("the {} server does not start: see {}", self.server.name(), self.dir.display()));
            }
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Starts a node without slots that takes jobs. When this returns, the node is ready.
    ///
    /// # Errors
    /// It cannot start.
    pub(crate) fn start_origin(&self, name: &str, args: &[&str]) -> Result<Background> {
        let url = self.url(self.addr);
        let node = ["node", "--slots", "0", "--name", name, "--server", &url];
        self.start_node(name, self.broccoli(&[&node, args].concat()))
    }

    /// Starts a program that is or becomes a node. When this returns, the node is ready.
    ///
    /// # Errors
    /// It cannot start.
    pub(crate) fn start_node(&self, name: &str, command: Command) -> Result<Background> {
        let node = self.start_as(name, command)?;
        node.line_with("ready", START_MAX).map_err(|error| format!("{error}; see {}", self.dir.display()))?;
        Ok(node)
    }

    /// Starts a worker that reaches the server through `addr`. When this returns, the worker is ready.
    ///
    /// # Errors
    /// It cannot start.
    pub(crate) fn start_worker(&self, name: &str, slots: u16, addr: SocketAddr) -> Result<Background> {
        let mut command = self.command(&self.programs.worker);
        command.args(["worker", &self.file(), &self.url(addr), name, &slots.to_string()]).arg(self.dir.join("marks"));
        self.start_node(name, command)
    }

    /// `broccoli` with these arguments, as a client of this cluster.
    pub(crate) fn client(&self, args: &[&str]) -> Command {
        let mut command = self.broccoli(args);
        command.env("BROCCOLI_SERVER", self.url(self.addr));
        command
    }

    /// Measures this many calls to a node, one after the other.
    pub(crate) fn round_trips(&self, node: &str, count: usize) -> Command {
        let mut command = self.command(&self.programs.round_trips);
        command.args([&self.file(), &self.url(self.addr), node, &count.to_string()]);
        command
    }

    /// Starts a process. Its standard error goes to a log with this name.
    ///
    /// # Errors
    /// It cannot start.
    pub(crate) fn start_as(&self, name: &str, mut command: Command) -> Result<Background> {
        let log = self.dir.join("logs").join(name);
        let log = File::options().create(true).append(true).open(&log).map_err(|error| cannot_write(&log, &error))?;
        Background::start(command.stderr(log))
    }

    /// `broccoli` with these arguments, for the cluster file of this run.
    pub(crate) fn broccoli(&self, args: &[&str]) -> Command {
        self.broccoli_under(&[], args)
    }

    /// The same, started by another program, which gets the command as its last arguments.
    pub(crate) fn broccoli_under(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let mut command = match wrapper.split_first() {
            None => self.command(&self.programs.broccoli),
            Some((program, before)) => {
                let mut command = self.command(Path::new(program));
                command.args(before).arg(&self.programs.broccoli);
                command
            }
        };
        command.args(args).env("BROCCOLI_CLUSTER", self.file());
        command
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = process::command(program);
        // Logs of a million jobs would change the measurements.
        command.current_dir(&self.dir).env("HOME", &self.dir).env("BROCCOLI_LOG", "off");
        for name in ["BROCCOLI_CLUSTER", "BROCCOLI_SERVER", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command
    }

    /// The cluster file.
    pub(crate) fn file(&self) -> String {
        self.dir.join("cluster.json").to_string_lossy().into_owned()
    }

    fn mosquitto(&self) -> Result<Command> {
        let passwords = self.dir.join("passwords");
        if !passwords.exists() {
            let mut made = process::command("mosquitto_passwd");
            run(made.args(["-b", "-c"]).arg(&passwords).args([USER, PASSWORD]).stderr(Stdio::null()))?;
        }
        let text = format!(
            "listener {} {}\nallow_anonymous false\npassword_file {}\npersistence false\nuser root\nset_tcp_nodelay true\n",
            self.addr.port(),
            self.addr.ip(),
            passwords.display()
        );
        let config = self.dir.join("mosquitto.conf");
        fs::write(&config, text).map_err(|error| cannot_write(&config, &error))?;
        // One file for each node: as many as the system allows.
        let script = "ulimit -n \"$(ulimit -Hn)\"; exec /usr/sbin/mosquitto -c \"$0\"";
        let mut command = self.command(Path::new("sh"));
        command.args(["-c", script]).arg(config);
        Ok(command)
    }
}

/// An address where nothing listens, and that the system does not assign to others.
fn free_addr() -> Result<SocketAddr> {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = IpAddr::from([127, high | 0x80, low, COUNT.fetch_add(1, Ordering::Relaxed)]);
    let listener = TcpListener::bind((ip, 0)).and_then(|listener| listener.local_addr());
    listener.map_err(|error| format!("cannot listen on loopback: {error}"))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write to {}: {error}", path.display())
}

/// Repeats `check` until it returns something, at most for `patience`.
///
/// # Errors
/// Those of `check`, and that `what` has not happened in time.
pub(crate) fn until<T>(what: &str, patience: Duration, mut check: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = check()? {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("{what} has not happened in {} s", patience.as_secs()));
        }
        sleep(LOOK_AGAIN);
    }
}
