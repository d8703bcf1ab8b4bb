//! Processes of the benchmark, and what /proc says of them.

use std::io::{BufRead as _, BufReader};
use std::ops::{AddAssign, Sub};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use broccoli_node::mqtt::ServerUrl;

use crate::Error;
use crate::report::Idle;

/// Fields of `/proc/PID/status`.
const PEAK: &str = "VmHWM:";
const RESIDENT: &str = "VmRSS:";

/// CPU time of the parts of the benchmark.
#[derive(Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) client: Duration,
    pub(crate) server: Duration,
    pub(crate) workers: Duration,
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, more: Cpu) {
        self.client += more.client;
        self.server += more.server;
        self.workers += more.workers;
    }
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        Cpu {
            client: self.client - before.client,
            server: self.server - before.server,
            workers: self.workers - before.workers,
        }
    }
}

/// A child that ends with its value.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    /// Starts a command and waits for its line that starts with `ready`.
    pub(crate) fn ready(command: &mut Command) -> Result<(Process, String), Error> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let process = Process(child);
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.by_ref().find_map(|line| line.ok().filter(|line| line.starts_with("ready")));
        let ready = ready.ok_or("a process ended before it was ready")?;
        // Somebody has to read what comes later.
        thread::spawn(move || lines.for_each(drop));
        Ok((process, ready))
    }

    /// CPU time so far, all threads.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(self.0.id())
    }

    /// Largest resident memory so far.
    pub(crate) fn peak_mb(&self) -> f64 {
        status_mb(self.0.id(), PEAK)
    }

    fn rss_mb(&self) -> f64 {
        status_mb(self.0.id(), RESIDENT)
    }
}

/// The server, with a node that runs nothing but takes jobs and keeps them in `data`, on a free port.
pub(crate) fn up(broccoli: &str, cluster: &Path, data: &Path) -> Result<(Process, ServerUrl), Error> {
    let mut command = Command::new(broccoli);
    command.arg("--cluster").arg(cluster).args(["up", "--listen", "127.0.0.1:0", "--slots", "0", "--name", "server"]);
    command.arg("--data").arg(data);
    let (process, ready) = Process::ready(&mut command)?;
    Ok((process, url_in(&ready)?))
}

/// A worker with one slot.
pub(crate) fn node(broccoli: &str, cluster: &Path, url: &ServerUrl, name: &str) -> Result<Process, Error> {
    let mut command = Command::new(broccoli);
    command.arg("--cluster").arg(cluster).args(["--server", &url.to_string()]);
    Ok(Process::ready(command.args(["node", "--slots", "1", "--name", name]))?.0)
}

/// From the start of `broccoli up`, with functions deployed earlier, to the output of `broccoli run`.
pub(crate) fn first_result(broccoli: &str, dir: &TempDir) -> Result<Duration, Error> {
    let file = dir.path().join("first.json");
    let data = dir.path().join("first-data");
    let run = |args: &[&str]| {
        let mut command = Command::new(broccoli);
        command.arg("--cluster").arg(&file).args(args);
        command
    };
    let up = || {
        let mut command = run(&["up", "--listen", "127.0.0.1:0", "--data"]);
        Process::ready(command.arg(&data))
    };
    run(&["init", "--out"]).arg(&file).stdout(Stdio::null()).status()?;
    let (first, ready) = up()?;
    let url = url_in(&ready)?.to_string();
    run(&["--server", &url, "deploy", "--examples"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    drop(first);
    let start = Instant::now();
    let (_second, ready) = up()?;
    let url = url_in(&ready)?.to_string();
    let output = run(&["--server", &url, "run", "add.s(2, 2)"]).output()?;
    let took = start.elapsed();
    match output.stdout == b"4\n" {
        true => Ok(took),
        false => Err(format!("the first result is wrong: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// What a node takes when there is nothing to do.
pub(crate) fn idle(worker: &Process) -> Result<Idle, Error> {
    let watch = Duration::from_secs(5);
    let before = worker.cpu();
    thread::sleep(watch);
    let cpu_percent = (worker.cpu() - before).as_secs_f64() / watch.as_secs_f64() * 100.0;
    Ok(Idle { rss_mb: worker.rss_mb(), cpu_percent })
}

pub(crate) fn cpu_of_self() -> Duration {
    cpu_of(std::process::id())
}

pub(crate) fn peak_of_self_mb() -> f64 {
    status_mb(std::process::id(), PEAK)
}

pub(crate) fn rss_of_self_mb() -> f64 {
    status_mb(std::process::id(), RESIDENT)
}

/// Nanoseconds on a CPU, summed over the threads (`/proc/PID/task/TID/schedstat`).
fn cpu_of(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let nanos = threads.filter_map(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn status_mb(pid: u32, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

fn url_in(ready: &str) -> Result<ServerUrl, Error> {
    let url =
        ready.split_whitespace().find(|word| word.starts_with("mqtt://")).ok_or("no address in the ready line")?;
    Ok(url.parse()?)
}

/// Counts the folders of this process.
static DIRS: AtomicU32 = AtomicU32::new(0);

/// A folder that ends with its value.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    /// Beside this program: what is temporary may not be on a disk at all.
    pub(crate) fn new() -> std::io::Result<TempDir> {
        let program = std::env::current_exe()?;
        let path = program.with_file_name(format!("bench-{}-{}", std::process::id(), DIRS.fetch_add(1, Relaxed)));
        std::fs::create_dir_all(&path)?;
        Ok(TempDir(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Left behind at worst.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
