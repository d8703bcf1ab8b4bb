//! `cargo xtask scale`: many real nodes on this machine, each a process, with both MQTT servers.
//!
//! This module owns the processes of a run, and the table of measurements. All processes end with this program,
//! however it ends: the nodes, and a watchdog for the servers, hold the other end of one pipe. Results are checked.
//! Times are only reported, not judged.

use std::fmt::Write;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, pipe};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use crate::chaos::cluster::{Cluster, Programs, Server, until};
use crate::process::{Background, output};
use crate::{Result, in_root};

/// The file for the table.
const REPORT: &str = "docs/scale.md";
const USAGE: &str = "cargo xtask scale [--built] [--debug] [--nodes N] [--server embedded|mosquitto|both]";
const NODES: usize = 1_000;
/// Longest time of any step.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many times one task runs.
const ADDS: usize = 50;
const CHORD: &str = "~chord(add.s(i, i) for i in range(10000))(tsum.s())";
const CHORD_RESULT: &str = "99990000";
const PING: &str = "sys.ping.s().set(each=True)";
/// How long idle nodes are watched. This is longer than the time in which they are silent.
const IDLE: Duration = Duration::from_secs(60);
/// Ticks of the processor's time in a second, on every Linux.
const TICKS: f64 = 100.0;
/// How many nodes start at the same time, after the previous ones are online. All nodes and the server share one
/// machine.
const STARTS_AT_ONCE: usize = 50;

/// What is measured.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    nodes: usize,
    servers: Vec<Server>,
    is_release: bool,
    is_built: bool,
}

/// The measurements of one server and its nodes.
struct Row {
    server: Server,
    ready: Duration,
    deploy: Duration,
    add: Duration,
    chord: Duration,
    each: Duration,
    listing: Duration,
    node: Memory,
    server_memory: Memory,
    /// The share of one processor that all nodes together, and the server, have used.
    nodes_busy: f64,
    server_busy: f64,
}

/// The memory of one process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Memory {
    resident: u64,
    /// The same, but shared memory is divided among the processes that share it.
    proportional: u64,
}

/// Measures, shows the table, and writes it.
///
/// # Errors
/// If a result or an argument is wrong.
pub(crate) fn run(args: &[String]) -> Result {
    let choice = choose(args)?;
    let programs = match choice.is_built {
        true => Programs::built(choice.is_release),
        false => Programs::build(choice.is_release),
    }?;
    let rows: Result<Vec<Row>> =
        choice.servers.iter().map(|server| measure(&programs, *server, choice.nodes)).collect();
    let table = table(choice.nodes, &rows?);
    println!("\n{table}");
    let path = in_root(REPORT);
    let text = format!("{}\n{table}", REPORT_HEAD.trim_start());
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

fn choose(args: &[String]) -> Result<Choice> {
    let mut choice = Choice { nodes: NODES, servers: Server::ALL.to_vec(), is_release: true, is_built: false };
    let wrong = |arg: &str| format!("wrong argument {arg}: {USAGE}");
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--built" => choice.is_built = true,
            "--debug" => choice.is_release = false,
            "--nodes" => {
                let number = args.next().and_then(|text| text.parse().ok()).filter(|nodes| *nodes > 0);
                choice.nodes = number.ok_or_else(|| wrong(arg))?;
            }
            "--server" => {
                choice.servers = match args.next().map(String::as_str) {
                    Some("both") => Server::ALL.to_vec(),
                    Some(name) => Server::ALL.into_iter().filter(|server| server.name() == name).collect(),
                    None => Vec::new(),
                };
                if choice.servers.is_empty() {
                    return Err(wrong(arg));
                }
            }
            _ => return Err(wrong(arg)),
        }
    }
    Ok(choice)
}

fn measure(programs: &Programs, server: Server, nodes: usize) -> Result<Row> {
    println!("== {nodes} nodes on the {} server", server.name());
    let cluster = Cluster::new(programs, server, "scale")?;
    let addr = cluster.addr.to_string();
    let mosquitto = match server {
        Server::Embedded => None,
        Server::Mosquitto => Some(cluster.start_server()?),
    };
    let origin = match server {
        Server::Embedded => cluster.broccoli(&["up", "--name", "origin", "--slots", "0", "--listen", &addr]),
        Server::Mosquitto => cluster.client(&["up", "--name", "origin", "--slots", "0"]),
    };
    let origin = cluster.start_node("origin", origin)?;
    let servers = [Some(origin.id()), mosquitto.as_ref().map(Background::id)];
    let mut fleet = Fleet::new(servers.into_iter().flatten())?;
    let ready = step("all ready", || fleet.start(&cluster, nodes))?;
    let (deploy, _) = step("deploy of the examples, until all have them", || fleet.deploy(&cluster))?;
    let add = step("one add", || median_add(&cluster))?;
    let (chord, sum) = step("10,000 adds", || timed(&cluster, &["run", CHORD]))?;
    expect("the chord", sum.trim(), CHORD_RESULT)?;
    let (each, answers) = step("a ping of each", || timed(&cluster, &["run", PING]))?;
    expect("the answers of each node", answers.matches("\"n").count(), nodes)?;
    let (listing, text) = step("broccoli nodes", || timed(&cluster, &["nodes"]))?;
    expect("the lines of `nodes`", text.lines().count(), nodes + 2)?;
    let server_id = mosquitto.as_ref().map_or(origin.id(), Background::id);
    let (nodes_busy, server_busy) = fleet.idle(server_id)?;
    let (node, server_memory) = (fleet.median_memory(), memory(server_id).unwrap_or_default());
    fleet.end();
    Ok(Row { server, ready, deploy, add, chord, each, listing, node, server_memory, nodes_busy, server_busy })
}

/// Prints what is measured, and the result.
fn step<T: Took>(what: &str, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    let measured = measure().map_err(|error| format!("{what}: {error}"))?;
    println!("{:>10}  {what}", shown(measured.took()));
    Ok(measured)
}

trait Took {
    fn took(&self) -> Duration;
}

impl Took for Duration {
    fn took(&self) -> Duration {
        *self
    }
}

impl<T> Took for (Duration, T) {
    fn took(&self) -> Duration {
        self.0
    }
}

fn expect<T: PartialEq + std::fmt::Display>(what: &str, found: T, wanted: T) -> Result {
    if found == wanted { Ok(()) } else { Err(format!("{what}: {found} instead of {wanted}")) }
}

/// Runs a command of the cluster. Returns how long it took, and what it printed.
fn timed(cluster: &Cluster, args: &[&str]) -> Result<(Duration, String)> {
    let start = Instant::now();
    let failed = |why: &str| format!("`broccoli {}`: {}", args.join(" "), why.trim());
    let ended = cluster.client(args).output().map_err(|error| failed(&error.to_string()))?;
    if !ended.status.success() {
        return Err(failed(&String::from_utf8_lossy(&ended.stderr)));
    }
    Ok((start.elapsed(), String::from_utf8_lossy(&ended.stdout).into_owned()))
}

fn median_add(cluster: &Cluster) -> Result<Duration> {
    let mut took = Vec::new();
    for number in 0..ADDS {
        let (add, sum) = timed(cluster, &["call", "add", &number.to_string(), "1"])?;
        expect("a sum", sum.trim(), &(number + 1).to_string())?;
        took.push(add);
    }
    took.sort();
    Ok(took[took.len() / 2])
}

/// The nodes of a run.
struct Fleet {
    nodes: Vec<Child>,
    attended: PipeReader,
    /// When this is closed, the nodes leave …
    alive: Option<PipeWriter>,
    /// … and this process ends the servers, which nothing else would do.
    watchman: Child,
}

impl Fleet {
    /// A run without nodes. The servers end with it.
    fn new(servers: impl Iterator<Item = u32>) -> Result<Fleet> {
        let no_pipe = |error| format!("no pipe: {error}");
        let (attended, alive) = pipe().map_err(no_pipe)?;
        let mut watchman = Command::new("sh");
        watchman.args(["-c", "cat; kill -KILL \"$@\"", "sh"]).args(servers.map(|id| id.to_string()));
        // Ctrl-C in a terminal must not end it with this program.
        watchman.process_group(0).stdin(attended.try_clone().map_err(no_pipe)?);
        let watchman = watchman.spawn().map_err(|error| format!("no shell: {error}"))?;
        Ok(Fleet { nodes: Vec::new(), attended, alive: Some(alive), watchman })
    }

    /// Starts this many nodes, and waits until `nodes` shows all of them.
    fn start(&mut self, cluster: &Cluster, count: usize) -> Result<Duration> {
        let start = Instant::now();
        let log = File::create(cluster.dir().join("logs/nodes")).map_err(|error| format!("no log: {error}"))?;
        for number in 0..count {
            let name = format!("n{number:05}");
            let mut command = cluster.client(&["node", "--attended", "--slots", "1", "--name", &name]);
            self.nodes.push(spawn(&mut command, &self.attended, &log)?);
            if self.nodes.len().is_multiple_of(STARTS_AT_ONCE) || self.nodes.len() == count {
                self.until_ready(cluster)?;
            }
        }
        Ok(start.elapsed())
    }

    /// Waits until `nodes` shows all of them.
    fn until_ready(&self, cluster: &Cluster) -> Result {
        let all = self.nodes.len() + 1;
        let live = |text: &str| text.matches("\"state\":\"live\"").count();
        until(&format!("`broccoli nodes` shows {all} live nodes"), PATIENCE, || {
            let shown = output(&mut cluster.client(&["nodes", "--json"])).is_some_and(|text| live(&text) == all);
            Ok(shown.then_some(()))
        })
    }

    /// Waits until each node has the example functions.
    fn deploy(&self, cluster: &Cluster) -> Result<(Duration, String)> {
        let all = self.nodes.len() + 1;
        let start = Instant::now();
        let (_, printed) = timed(cluster, &["deploy", "--examples", "--timeout", "120s"])?;
        let done = until("each node has the examples", PATIENCE, || {
            let text = output(&mut cluster.client(&["nodes", "--json"])).unwrap_or_default();
            Ok((text.matches("\"name\":\"tasks\"").count() == all).then(|| start.elapsed()))
        })?;
        Ok((done, printed))
    }

    /// The share of a processor that the nodes and the server use while they are idle.
    fn idle(&self, server: u32) -> Result<(f64, f64)> {
        sleep(Duration::from_secs(2));
        let nodes_ticks = || self.nodes.iter().filter_map(|node| ticks(node.id())).sum::<u64>();
        let (nodes_before, server_before, start) = (nodes_ticks(), ticks(server), Instant::now());
        sleep(IDLE);
        let share = |ticks: u64| ticks as f64 / TICKS / start.elapsed().as_secs_f64();
        let nodes = share(nodes_ticks().saturating_sub(nodes_before));
        let server = ticks(server).zip(server_before).map(|(after, before)| share(after.saturating_sub(before)));
        Ok((nodes, server.ok_or("the server has ended")?))
    }

    fn median_memory(&self) -> Memory {
        let mut taken: Vec<Memory> = self.nodes.iter().filter_map(|node| memory(node.id())).collect();
        taken.sort();
        taken.get(taken.len() / 2).copied().unwrap_or_default()
    }

    /// Makes all nodes leave. Nodes that do not leave are killed.
    fn end(&mut self) {
        // The servers run until the nodes have left. The code that has started them ends them.
        let _ = self.watchman.kill();
        let _ = self.watchman.wait();
        drop(self.alive.take());
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline && self.nodes.iter_mut().any(|node| matches!(node.try_wait(), Ok(None))) {
            sleep(Duration::from_millis(50));
        }
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
        self.nodes.clear();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.end();
    }
}

fn spawn(command: &mut Command, attended: &PipeReader, log: &File) -> Result<Child> {
    let cannot = |error: std::io::Error| format!("cannot start a node: {error}");
    let (attended, log) = (attended.try_clone().map_err(cannot)?, log.try_clone().map_err(cannot)?);
    command.stdin(attended).stdout(Stdio::null()).stderr(log).spawn().map_err(cannot)
}

/// Processor time that a process has taken.
fn ticks(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The 12th and 13th field after its name, which may contain spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

fn memory(process: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let kib = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some(Memory { resident: kib("Rss:")?, proportional: kib("Pss:")? })
}

fn shown(took: Duration) -> String {
    match took.as_secs_f64() {
        seconds if seconds < 0.1 => format!("{:.0} ms", seconds * 1_000.0),
        seconds => format!("{seconds:.2} s"),
    }
}

const REPORT_HEAD: &str = "
# Scale

`cargo xtask scale --nodes 1000` starts so many real nodes on one machine, each a process of its own with one slot, first on the
embedded MQTT server (in the process of `broccoli up`), then on Mosquitto. All commands are the ones that users type, with the start of
their process; each result is checked, and `broccoli nodes` must show every node. One machine runs all of it, so these are times of a
busy machine, not of a network.

A node tells every other one that it is there and which modules it has: what starting and deploying cost together grows with the
square of the number of nodes. Each node spreads it over a time that grows likewise, so that a server keeps up.
";

fn table(nodes: usize, rows: &[Row]) -> String {
    let cpus = available_parallelism().map_or(1, usize::from);
    let mut table = format!("{nodes} nodes on {cpus} processors:\n\n| |");
    let mut line = |title: &str, cell: &dyn Fn(&Row) -> String| {
        let cells: Vec<String> = rows.iter().map(cell).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(table, "{title} {} |", cells.join(" | "));
    };
    line("", &|row| row.server.name().to_owned());
    line("|---|", &|_| "---:".to_owned());
    line("| all ready, from the start of the first (50 at a time) |", &|row| shown(row.ready));
    line("| `deploy --examples`, until each node has them |", &|row| shown(row.deploy));
    line("| `call add 4 4`, median of 50 |", &|row| shown(row.add));
    line("| a chord of 10,000 `add` |", &|row| shown(row.chord));
    line("| `sys.ping.s().set(each=True)` |", &|row| shown(row.each));
    line("| `broccoli nodes` |", &|row| shown(row.listing));
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let both = |memory: Memory| format!("{} ({})", mib(memory.resident), mib(memory.proportional));
    line("| memory of a node, median (without what it shares with the others) |", &|row| both(row.node));
    line("| memory of the server's process |", &|row| both(row.server_memory));
    line("| idle: all nodes together, of one processor |", &|row| format!("{:.1} %", row.nodes_busy * 100.0));
    line("| idle: the server's process |", &|row| format!("{:.1} %", row.server_busy * 100.0));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(args: &[&str]) -> Result<Choice> {
        choose(&args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_choose_what_is_measured() {
        let all = Choice { nodes: 1_000, servers: Server::ALL.to_vec(), is_release: true, is_built: false };
        assert_eq!(chosen(&[]), Ok(all));
        let few = Choice { nodes: 50, servers: vec![Server::Mosquitto], is_release: false, is_built: true };
        assert_eq!(chosen(&["--nodes", "50", "--debug", "--built", "--server", "mosquitto"]), Ok(few));
        for wrong in [&["--nodes"][..], &["--nodes", "0"], &["--server", "other"], &["--server"], &["more"]] {
            assert!(chosen(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let me = std::process::id();
        assert!(memory(me).is_some_and(|memory| memory.resident > 100 && memory.proportional <= memory.resident));
        assert!(ticks(me).is_some());
    }
}
