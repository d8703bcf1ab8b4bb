//! Helpers of the end-to-end tests: a real MQTT server on its own loopback address. It is the embedded one, Mosquitto,
//! or a plain one that retains nothing.
//!
//! All have one account, start with an empty memory, and end when the value is dropped.

// Each test binary uses a part of this.
#![allow(dead_code)]
// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

pub(crate) mod cluster;
pub(crate) mod peer;
pub(crate) mod plain;
pub(crate) mod proxy;

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use broccoli_node::mqtt::{EmbeddedServer, Link, LinkConfig, LinkEvent, ServerConfig, ServerError, ServerUrl};
use tokio::sync::Mutex;

use plain::Plain;

/// The account on all servers.
pub(crate) const USER: &str = "tester";
/// Its password, with characters that a URL must encode.
pub(crate) const PASSWORD: &str = "p@ss:word/%";
/// The largest payload that the embedded server accepts, in bytes.
pub(crate) const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Longest time for any event of a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const MOSQUITTO: &str = "/usr/sbin/mosquitto";
const START_ATTEMPTS_MAX: u32 = 5;

/// Locked while a process is spawned or a server of this process ends. Until a child executes its own program, it has
/// copies of the sockets of this process, and a copy of a listener would keep the port in use.
static SPAWN: Mutex<()> = Mutex::const_new(());

/// Makes three tests of each function, `name::embedded`, `name::mosquitto` and `name::plain`.
///
/// ```ignore
/// on_both_servers! {
///     async fn something_works(server: TestServer) { ... }
/// }
/// ```
#[macro_export]
macro_rules! on_both_servers {
    ($(async fn $name:ident($server:ident: TestServer) $body:block)*) => {
        $(mod $name {
            #[allow(unused_imports)]
            use super::*;

            #[allow(unused_mut)]
            async fn run(mut $server: $crate::support::TestServer) $body

            #[tokio::test]
            async fn embedded() {
                run($crate::support::TestServer::embedded().await).await;
            }

            #[tokio::test]
            async fn mosquitto() {
                run($crate::support::TestServer::mosquitto().await).await;
            }

            #[tokio::test]
            async fn plain() {
                run($crate::support::TestServer::plain().await).await;
            }
        })*
    };
}

/// A running (or stopped) server on its own loopback address.
pub(crate) struct TestServer {
    addr: SocketAddr,
    kind: Kind,
}

enum Kind {
    Embedded(Option<EmbeddedServer>),
    Mosquitto {
        process: Process,
        dir: TempDir,
    },
    /// The embedded server behind a relay.
    Plain {
        server: Option<(EmbeddedServer, Plain)>,
        behind: SocketAddr,
    },
}

impl TestServer {
    /// The server of this crate.
    pub(crate) async fn embedded() -> Self {
        let server = start_embedded(SocketAddr::new(own_ip(), 0)).await.unwrap();
        Self { addr: server.local_addr(), kind: Kind::Embedded(Some(server)) }
    }

    /// The real Mosquitto.
    pub(crate) async fn mosquitto() -> Self {
        let dir = TempDir::new();
        write_password_file(&dir.0).await;
        for _ in 0..START_ATTEMPTS_MAX {
            // Another process may take the port before Mosquitto does. Then Mosquitto ends at once, and another port is
            // tried.
            let addr = free_addr();
            if let Some(process) = start_mosquitto(&dir.0, addr).await {
                let kind = Kind::Mosquitto { process, dir };
                return Self { addr, kind };
            }
        }
        panic!("mosquitto does not start: {}", read_log(&dir.0));
    }

    /// A server that retains nothing.
    pub(crate) async fn plain() -> Self {
        let server = start_embedded(SocketAddr::new(own_ip(), 0)).await.unwrap();
        let behind = server.local_addr();
        let relay = Plain::start(SocketAddr::new(own_ip(), 0), behind).await;
        Self { addr: relay.addr(), kind: Kind::Plain { server: Some((server, relay)), behind } }
    }

    /// Whether it sends retained packets to new subscribers.
    pub(crate) fn retains(&self) -> bool {
        !matches!(self.kind, Kind::Plain { .. })
    }

    /// Its address with the credentials.
    pub(crate) fn url(&self) -> ServerUrl {
        self.anonymous_url().with_credentials(USER, PASSWORD)
    }

    /// Its address without credentials.
    pub(crate) fn anonymous_url(&self) -> ServerUrl {
        ServerUrl::new(self.addr.ip().to_string(), self.addr.port())
    }

    /// The address on which it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Ends it. The port is free afterwards.
    pub(crate) async fn stop(&mut self) {
        match &mut self.kind {
            Kind::Embedded(server) => {
                if let Some(server) = server.take() {
                    let _no_spawn = SPAWN.lock().await;
                    server.stop().await;
                }
            }
            Kind::Mosquitto { process, .. } => process.end(),
            Kind::Plain { server, .. } => {
                if let Some((server, relay)) = server.take() {
                    let _no_spawn = SPAWN.lock().await;
                    server.stop().await;
                    relay.stop().await;
                }
            }
        }
    }

    /// Ends it and starts it on the same port, with an empty memory.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        match &mut self.kind {
            Kind::Embedded(server) => *server = Some(start_embedded(self.addr).await.unwrap()),
            Kind::Plain { server, behind } => {
                let again = start_embedded(*behind).await.unwrap();
                *server = Some((again, Plain::start(self.addr, *behind).await));
            }
            Kind::Mosquitto { process, dir } => {
                *process = start_mosquitto(&dir.0, self.addr)
                    .await
                    .unwrap_or_else(|| panic!("mosquitto does not start again: {}", read_log(&dir.0)));
            }
        }
    }
}

/// The embedded server with the account and limits of the tests.
pub(crate) async fn start_embedded(listen: SocketAddr) -> Result<EmbeddedServer, ServerError> {
    EmbeddedServer::start(ServerConfig {
        listen,
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        packet_bytes_max: PACKET_BYTES_MAX,
        clients_max: 10_000,
    })
    .await
}

/// The next event. If there is none in time, the test fails.
pub(crate) async fn next_event(link: &mut Link) -> LinkEvent {
    tokio::time::timeout(PATIENCE, link.next()).await.expect("the link reports something in time")
}

/// An address on which nothing listens now.
pub(crate) fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind((own_ip(), 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A loopback address that no other test uses. Clients connect from 127.0.0.1, so none of their ports can block a
/// server that restarts on its own port.
fn own_ip() -> IpAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    IpAddr::from([127, high | 0x80, low, count])
}

async fn write_password_file(dir: &Path) {
    let _spawning = SPAWN.lock().await;
    let status =
        Command::new("mosquitto_passwd").arg("-b").arg("-c").arg(dir.join("passwords")).args([USER, PASSWORD]).status();
    match status {
        Ok(status) => assert!(status.success(), "mosquitto_passwd fails: {status}"),
        Err(error) => panic!("cannot run mosquitto_passwd ({error}): run `cargo xtask test`"),
    }
}

/// `None` if it ended before it answered.
async fn start_mosquitto(dir: &Path, addr: SocketAddr) -> Option<Process> {
    let config = dir.join("mosquitto.conf");
    let text = format!(
        "listener {} {}\nallow_anonymous false\npassword_file {}\nset_tcp_nodelay true\n\
         persistence false\nuser root\nlog_dest file {}\n",
        addr.port(),
        addr.ip(),
        dir.join("passwords").display(),
        dir.join("log").display(),
    );
    fs::write(&config, text).unwrap();
    let spawning = SPAWN.lock().await;
    let child = Command::new(MOSQUITTO)
        .arg("-c")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    drop(spawning);
    let mut process = match child {
        Ok(child) => Process(child),
        Err(error) => panic!("cannot run {MOSQUITTO} ({error}): run `cargo xtask test`"),
    };
    let url = ServerUrl::new(addr.ip().to_string(), addr.port()).with_credentials(USER, PASSWORD);
    let mut link = Link::new(LinkConfig::new(url, Vec::new()));
    let deadline = Instant::now() + PATIENCE;
    while process.runs() && Instant::now() < deadline {
        link.connect("probe", None);
        if matches!(link.next().await, LinkEvent::Connected) {
            link.disconnect().await;
            return Some(process);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    None
}

fn read_log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// A child process that is killed when the value is dropped.
struct Process(Child);

impl Process {
    fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A directory that is deleted when the value is dropped.
pub(crate) struct TempDir(pub(crate) PathBuf);

impl TempDir {
    /// An empty directory among the temporary files of the system.
    #[allow(clippy::new_without_default)]
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("broccoli-test-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // An earlier process with the same id may have left it.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
