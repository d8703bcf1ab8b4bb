//! A node whose data directory cannot be written, is missing, or can be read by other users.
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Home, Process, start_open_mosquitto};
use tokio::process::{Child, Command};

/// Longest time for a node to leave, even if its disk does not work.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// Longest time after a second signal. It is shorter than the time that a node waits for its disk after the first one.
const SECOND_SIGNAL_MAX: Duration = Duration::from_secs(3);
/// Largest file, in blocks of 512 bytes: an empty segment of the journal, 4 MiB, and a little more.
const BLOCKS_MAX: u32 = 4 * 2_048 + 8;
/// Size of a job, in bytes. A segment holds only a few of this size.
const JOB_BYTES: usize = 900_000;
const JOBS_THAT_FIT: usize = 4;
const FILE_LIMIT: &str = "the limit of file sizes is too low: raise it (ulimit -f) and start the node again";

/// A cluster on a Mosquitto, without a node.
struct Bare {
    home: Home,
    url: String,
    _mosquitto: Child,
}

impl Bare {
    async fn new() -> Bare {
        let home = Home::new();
        let (mosquitto, url) = start_open_mosquitto(&home);
        home.run(&["init"]).await.ok();
        Bare { home, url, _mosquitto: mosquitto }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(args);
        command.env("BROCCOLI_SERVER", &self.url);
        command
    }

    /// Starts the durable node. `blocks` limits the size of its files.
    async fn node(&self, blocks: Option<u32>) -> Process {
        let mut process = Process::start(&mut self.node_command(blocks));
        process.line("ready  pi-1").await;
        process
    }

    fn node_command(&self, blocks: Option<u32>) -> Command {
        let args = ["node", "--name", "pi-1", "--slots", "1", "--data", "data"];
        let Some(blocks) = blocks else { return self.command(&args) };
        let node = self.command(&args);
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -f $1; shift; exec \"$@\"", "sh", &blocks.to_string()]);
        command.arg(node.as_std().get_program()).args(node.as_std().get_args()).current_dir(&self.home.0);
        for (name, value) in node.as_std().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped()).kill_on_drop(true);
        command
    }

    /// A node that runs a task for a minute, and whose journal is full, and a client that waits for it.
    async fn stalled(&self) -> (Process, Process) {
        let mut node = self.node(Some(BLOCKS_MAX)).await;
        support::finish(self.command(&["deploy", "--examples"])).await.ok();
        support::finish(self.command(&["run", "--detach", "sleep_ms.s(60000, 1)"])).await.ok();
        let large = self.home.write("large.txt", format!("echo.s('{}')", "x".repeat(JOB_BYTES)));
        for _ in 0..JOBS_THAT_FIT {
            support::finish(self.command(&["run", "--detach", "-f", &large])).await.ok();
        }
        let run = Process::start(&mut self.command(&["run", "-f", &large]));
        let note = node.note("the journal cannot be written").await;
        assert_eq!(note, format!("the journal cannot be written: {FILE_LIMIT}; no new jobs until it can"));
        (node, run)
    }
}

#[tokio::test]
async fn a_node_that_cannot_write_leaves_in_time_and_says_what_is_not_written() {
    let cluster = Bare::new().await;
    let (mut node, _run) = cluster.stalled().await;
    node.signal("TERM").await;
    let told_at = Instant::now();
    node.note("draining: 1 task is running").await;
    let ended = node.end().await;
    assert!(told_at.elapsed() < LEAVE_MAX, "{:?}", told_at.elapsed());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let said = format!("left while the journal cannot be written ({FILE_LIMIT}): what has just happened to ");
    assert!(ended.stderr.contains(&said), "{}", ended.stderr);
}

#[tokio::test]
async fn a_second_signal_ends_a_node_that_cannot_write_at_once() {
    let cluster = Bare::new().await;
    let (mut node, _run) = cluster.stalled().await;
    node.signal("TERM").await;
    node.note("draining: 1 task is running").await;
    node.signal("INT").await;
    let told_at = Instant::now();
    let ended = node.end().await;
    assert!(told_at.elapsed() < SECOND_SIGNAL_MAX, "{:?}", told_at.elapsed());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("left while the journal cannot be written"), "{}", ended.stderr);
}

#[tokio::test]
async fn another_node_takes_what_one_with_a_full_disk_cannot() {
    let cluster = Bare::new().await;
    let _stalled = cluster.stalled().await;
    // There is no other node, so clients wait and report why.
    let mut waits = Process::start(&mut cluster.command(&["run", "add.s(1, 2)"]));
    let note = waits.note("pi-1 cannot write its journal").await;
    let why = format!("{FILE_LIMIT}; waiting until it or another node with a journal can");
    assert_eq!(note, format!("pi-1 cannot write its journal: {why}"));
    let args = ["node", "--name", "pi-2", "--slots", "1", "--data", "data-2"];
    let mut other = Process::start(&mut cluster.command(&args));
    other.line("ready  pi-2").await;
    let ended = waits.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "3\n"), "{}", ended.stderr);
    for number in 0..20 {
        let key = format!("key {number}");
        let args = ["run", "add.s(1, 2)", "--key", key.as_str()];
        let args = if number % 2 == 0 { &args[..2] } else { &args };
        assert_eq!(support::finish(cluster.command(args)).await.ok(), "3\n");
    }
}

#[tokio::test]
async fn a_limit_of_file_sizes_is_named_and_kills_nobody() {
    let cluster = Bare::new().await;
    let ended = Process::start(&mut cluster.node_command(Some(1))).end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(FILE_LIMIT), "{}", ended.stderr);
}

#[tokio::test]
async fn a_node_whose_directory_was_removed_accepts_nothing() {
    let cluster = Bare::new().await;
    let mut node = cluster.node(None).await;
    support::finish(cluster.command(&["run", "sys.ping.s()"])).await.ok();
    fs::remove_dir_all(cluster.home.0.join("data")).unwrap();
    let mut waiting = Process::start(&mut cluster.command(&["run", "--key", "k", "sys.ping.s()"]));
    let note = node.note("the journal cannot be written").await;
    let why = "data/journal is gone, or another one is in its place: start the node again";
    assert!(note.contains(why), "{note}");
    let note = waiting.note("pi-1 cannot write its journal").await;
    assert!(note.contains(why), "{note}");
    node.signal("TERM").await;
    assert_eq!(node.end().await.code, Some(0));
    // No accepted job is lost: the next node recovers them.
    let _again = cluster.node(None).await;
    assert_eq!(waiting.end().await.ok(), "\"pong\"\n");
}

fn modes(path: &Path, found: &mut Vec<(String, u32)>) {
    let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
    found.push((path.display().to_string(), mode));
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| modes(&entry.unwrap().path(), found));
    }
}

#[tokio::test]
async fn others_cannot_read_what_a_node_keeps() {
    let cluster = Bare::new().await;
    let data = cluster.home.0.join("data");
    let node = cluster.node(None).await;
    support::finish(cluster.command(&["deploy", "--examples"])).await.ok();
    support::finish(cluster.command(&["run", "add.s(1, 1)"])).await.ok();
    let is_private = |found: &[(String, u32)]| {
        let wrong: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
        assert!(found.len() > 6 && wrong.is_empty(), "{wrong:?} of {found:?}");
    };
    let mut found = Vec::new();
    modes(&data, &mut found);
    is_private(&found);
    node.signal("TERM").await;
    node.end().await;
    // As an earlier version has left the files.
    for (path, mode) in found.iter().filter(|(path, _)| *path != data.display().to_string()) {
        let open = if mode & 0o100 == 0 { 0o644 } else { 0o755 };
        fs::set_permissions(path, Permissions::from_mode(open)).unwrap();
    }
    let _node = cluster.node(None).await;
    let mut found = Vec::new();
    modes(&data, &mut found);
    is_private(&found);
}

#[tokio::test]
async fn a_cluster_file_that_others_can_read_is_said_with_what_mends_it() {
    let cluster = Bare::new().await;
    let _node = cluster.node(None).await;
    let file = cluster.home.0.join(".config/broccoli/cluster.json");
    let key = cluster.home.0.join(".config/broccoli/cluster.json.deploy-key");
    let warning = |path: &Path| {
        let path = path.display();
        format!(
            "warning: other users of this machine can read {path}, which holds a key: close it with `chmod 600 {path}`\n"
        )
    };
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let ended = support::finish(cluster.command(&["nodes"])).await;
    assert_eq!((ended.code, ended.stderr), (Some(0), warning(&file)));
    let ended = support::finish(cluster.command(&["deploy", "--examples"])).await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains(&warning(&file)) && ended.stderr.contains(&warning(&key)), "{}", ended.stderr);
    for path in [&file, &key] {
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(support::finish(cluster.command(&["nodes"])).await.stderr, "");
}
