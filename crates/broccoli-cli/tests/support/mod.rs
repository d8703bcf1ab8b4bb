//! Helpers of the tests of the command: an empty home, processes that end with their value, and a cluster of real
//! processes on one of three MQTT servers.

// Each test binary uses a part of this.
#![allow(dead_code)]
// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

#[path = "../../../broccoli-node/tests/support/plain.rs"]
mod plain;

use std::fs::{self, Permissions};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

pub(crate) use plain::Plain;

/// Longest time for any step of a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const MOSQUITTO: &str = "/usr/sbin/mosquitto";
const USER: &str = "tester";
/// Contains characters that a URL must encode.
const PASSWORD: &str = "p@ss:word/%";
const PASSWORD_IN_URL: &str = "p%40ss%3Aword%2F%25";

/// Makes three tests of each function, `name::embedded`, `name::mosquitto` and `name::plain`.
#[macro_export]
macro_rules! on_both_servers {
    ($(async fn $name:ident($cluster:ident: Cluster) $body:block)*) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[allow(unused_mut)]
            async fn run(mut $cluster: $crate::support::Cluster) $body

            #[tokio::test]
            async fn embedded() {
                run($crate::support::Cluster::embedded().await).await;
            }

            #[tokio::test]
            async fn mosquitto() {
                run($crate::support::Cluster::mosquitto().await).await;
            }

            #[tokio::test]
            async fn plain() {
                run($crate::support::Cluster::plain().await).await;
            }
        })*
    };
}

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Its output. Fails the test if the command failed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// Asserts the exit code and the whole of stderr, and that stdout is empty.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, stderr: &str) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (Some(code), "", stderr));
    }
}

/// A home directory, which is removed with its value.
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    /// An empty home.
    #[allow(clippy::new_without_default)]
    pub(crate) fn new() -> Home {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("broccoli-cli-{}-{count}", std::process::id()));
        // Files of an earlier process with this id.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Home(path)
    }

    /// `broccoli` with these arguments, in this home.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_broccoli"));
        command.args(args).current_dir(&self.0).env("HOME", &self.0);
        for name in [
            "BROCCOLI_CLUSTER",
            "BROCCOLI_SERVER",
            "BROCCOLI_JOIN",
            "BROCCOLI_WIFI_PASSWORD",
            "XDG_CONFIG_HOME",
            "XDG_DATA_HOME",
        ] {
            command.env_remove(name);
        }
        // Tests of logs set this variable themselves.
        command.env("BROCCOLI_LOG", "off");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        finish(self.command(args)).await
    }

    /// Writes a file to the home that only its owner can read.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The default cluster file as a JSON value.
    pub(crate) fn cluster_file(&self) -> serde_json::Value {
        let text = fs::read_to_string(self.0.join(".config/broccoli/cluster.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads something again and again until it is as expected.
pub(crate) async fn becomes<T: PartialEq + std::fmt::Debug>(expected: T, mut read: impl AsyncFnMut() -> T) {
    let end = Instant::now() + PATIENCE;
    loop {
        let last = read().await;
        if last == expected || Instant::now() >= end {
            assert_eq!(last, expected);
            return;
        }
    }
}

/// Runs a command to its end.
pub(crate) async fn finish(mut command: Command) -> Ended {
    let output = timeout(PATIENCE, command.output()).await.expect("the command ends in time").unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs a command to its end, with this standard input.
pub(crate) async fn finish_with_input(mut command: Command, input: &str) -> Ended {
    let mut process = Process::start(command.stdin(Stdio::piped()));
    process.write(input).await;
    process.close_input();
    process.end().await
}

/// A running process, which ends with its value.
pub(crate) struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

impl Process {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Process {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Process { child, stdout, stderr }
    }

    /// The next line of stdout that starts with `start`.
    pub(crate) async fn line(&mut self, start: &str) -> String {
        line(&mut self.stdout, start).await
    }

    /// The next line of stderr that starts with `start`.
    pub(crate) async fn note(&mut self, start: &str) -> String {
        line(&mut self.stderr, start).await
    }

    /// Writes to its standard input.
    pub(crate) async fn write(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    /// Closes its standard input.
    pub(crate) fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends it a signal by its name, such as `INT`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().await.unwrap();
        assert!(status.success());
    }

    /// Waits for its end. Returns the output that was not read.
    pub(crate) async fn end(mut self) -> Ended {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let all = async {
            tokio::try_join!(self.stdout.read_to_string(&mut stdout), self.stderr.read_to_string(&mut stderr)).unwrap();
            self.child.wait().await.unwrap()
        };
        let status = timeout(PATIENCE, all).await.expect("the process ends in time");
        let stderr = stderr.split_inclusive('\n').map(untimed).collect();
        Ended { code: status.code(), stdout, stderr }
    }

    /// Kills it, like a power cut.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A line without the time at its start, which nodes write if stderr is not a terminal.
pub(crate) fn untimed(line: &str) -> &str {
    const TIME: &str = "2026-11-29T23:31:07.042Z ";
    let same = |(a, b): (char, char)| a == b || (a.is_ascii_digit() && b.is_ascii_digit());
    match line.split_at_checked(TIME.len()) {
        Some((time, rest)) if time.chars().zip(TIME.chars()).all(same) => rest,
        _ => line,
    }
}

async fn line(from: &mut (impl AsyncBufRead + Unpin), start: &str) -> String {
    let mut seen = String::new();
    let found = async {
        loop {
            let mut line = String::new();
            let length = from.read_line(&mut line).await.unwrap();
            assert!(length > 0, "no line begins with {start:?}: {seen}");
            if untimed(&line).starts_with(start) {
                return untimed(&line).trim_end().to_owned();
            }
            seen += &line;
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no line begins with {start:?} in time"))
}

/// A cluster with one node, `pi-1`, that has two slots.
pub(crate) struct Cluster {
    pub(crate) home: Home,
    /// Its server with user and password, if it needs them.
    pub(crate) url: String,
    /// The token with which other machines join.
    pub(crate) token: String,
    pub(crate) up: Process,
    pub(crate) mosquitto: Option<Child>,
    /// The relay that prevents retained packets.
    relay: Option<Plain>,
}

impl Cluster {
    /// On the embedded server of `broccoli up`.
    pub(crate) async fn embedded() -> Cluster {
        Cluster::up(Home::new(), &["--listen", "127.0.0.1:0"], None).await
    }

    /// On a real Mosquitto with one account.
    pub(crate) async fn mosquitto() -> Cluster {
        let home = Home::new();
        let addr = free_addr();
        let mosquitto = start_mosquitto(&home, addr).await;
        let url = format!("mqtt://{USER}:{PASSWORD_IN_URL}@{addr}");
        Cluster { url: url.clone(), ..Cluster::up(home, &["--server", &url], Some(mosquitto)).await }
    }

    /// On a server that retains nothing: a Mosquitto behind a relay.
    pub(crate) async fn plain() -> Cluster {
        let home = Home::new();
        let behind = free_addr();
        let mosquitto = start_mosquitto(&home, behind).await;
        let relay = Plain::start((behind.ip(), 0).into(), behind).await;
        let url = format!("mqtt://{USER}:{PASSWORD_IN_URL}@{}", relay.addr());
        let up = Cluster::up(home, &["--server", &url], Some(mosquitto)).await;
        Cluster { url: url.clone(), relay: Some(relay), ..up }
    }

    async fn up(home: Home, args: &[&str], mosquitto: Option<Child>) -> Cluster {
        let args = [&["up", "--name", "pi-1", "--slots", "2"], args].concat();
        let mut up = Process::start(&mut home.command(&args));
        let ready = up.line("ready  pi-1  2 slots  ").await;
        let url = ready.rsplit("  ").next().unwrap().to_owned();
        Cluster { mosquitto, ..Cluster::of(home, url, up).await }
    }

    /// From an `up` that is ready, on this server.
    pub(crate) async fn of(home: Home, url: String, up: Process) -> Cluster {
        // `up` has written its address next to the cluster file.
        let token = home.run(&["token"]).await.ok().trim().to_owned();
        Cluster { home, url, token, up, mosquitto: None, relay: None }
    }

    /// Shuts the node down. Returns the output that was not read.
    pub(crate) async fn stop(self) -> Ended {
        self.up.signal("TERM").await;
        self.up.end().await
    }

    /// `broccoli` with these arguments, for this cluster.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        command.env("BROCCOLI_SERVER", &self.url);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        finish(self.command(args)).await
    }

    /// The same cluster with the example functions.
    pub(crate) async fn with_examples(self) -> Cluster {
        self.run(&["deploy", "--examples"]).await.ok();
        self
    }

    /// Starts another node of this cluster and waits until it is ready.
    pub(crate) async fn node(&self, name: &str, args: &[&str]) -> Process {
        let mut command = self.command(&["node", "--name", name]);
        let mut node = Process::start(command.args(args));
        node.line("ready  ").await;
        node
    }
}

/// A free address, which no other test uses.
pub(crate) fn free_addr() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let ip = IpAddr::from([127, high | 0x80, low, COUNT.fetch_add(1, Ordering::Relaxed)]);
    TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap()
}

/// Starts Mosquitto. Nodes wait until it answers.
async fn start_mosquitto(home: &Home, addr: SocketAddr) -> Child {
    let passwords = home.0.join("passwords");
    let made = Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(&passwords).args([USER, PASSWORD]).status();
    assert!(made.await.is_ok_and(|status| status.success()), "mosquitto_passwd fails: run `cargo xtask test`");
    let text = format!(
        "listener {} {}\nallow_anonymous false\npassword_file {}\npersistence false\nuser root\n",
        addr.port(),
        addr.ip(),
        passwords.display()
    );
    let config = home.write("mosquitto.conf", text);
    start_mosquitto_with(&config)
}

/// Starts a Mosquitto without accounts. Returns its URL.
pub(crate) fn start_open_mosquitto(home: &Home) -> (Child, String) {
    start_open_mosquitto_with(home, "")
}

/// The same behind a relay that prevents retained packets.
pub(crate) async fn start_open_plain(home: &Home) -> (Child, Plain, String) {
    let (server, url) = start_open_mosquitto(home);
    let behind: SocketAddr = url.strip_prefix("mqtt://").unwrap().parse().unwrap();
    let relay = Plain::start((behind.ip(), 0).into(), behind).await;
    let url = format!("mqtt://{}", relay.addr());
    (server, relay, url)
}

/// The same with these lines in the configuration.
pub(crate) fn start_open_mosquitto_with(home: &Home, lines: &str) -> (Child, String) {
    let addr = free_addr();
    let text = format!(
        "listener {} {}\nallow_anonymous true\npersistence false\nuser root\n{lines}\n",
        addr.port(),
        addr.ip()
    );
    let config = home.write("mosquitto.conf", text);
    (start_mosquitto_with(&config), format!("mqtt://{addr}"))
}

fn start_mosquitto_with(config: &str) -> Child {
    let mut command = Command::new(MOSQUITTO);
    command.args(["-c", config]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap_or_else(|error| panic!("cannot run {MOSQUITTO} ({error}): run `cargo xtask test`"))
}
