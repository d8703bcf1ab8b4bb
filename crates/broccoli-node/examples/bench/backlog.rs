//! A million queued tasks: how long a new incarnation takes until it leases the first of them, and
//! what they take of its memory.
//!
//! No network: a client hands them in to a node with a real journal, both in one process, which
//! ends without closing anything. The next process opens the journal, takes over, and leases to
//! itself. Each process is this program again.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant as Clock};

use broccoli_abi::{Arg, Function, Type};
use broccoli_core::{Action, Config, Event, Input, Instant, Limits, Node, Submission};
use broccoli_node::journal::Log;
use broccoli_proto::module::{DeployPublic, NativeModule};
use broccoli_proto::seal::ClusterKey;
use broccoli_proto::{Canvas, Cbor, Epoch};

use crate::process::{self, TempDir};
use crate::{Error, call};

/// All tasks, and how many of them are in one job of the larger shape.
const TASKS: u32 = 1_000_000;
const GROUP: u32 = 1_000;
/// Canvases that the client hands in before it waits.
const BURST: u32 = 2_048;
/// Rounds of packets without any answer before something must be wrong.
const ROUNDS_MAX: u32 = 100_000;
/// Whatever other workers may hold is known after this time.
const ADOPTED: Duration = Duration::from_secs(3);
/// When the tasks are handed in.
const NOON_UNIX_MS: u64 = 1_800_000_000_000;

/// What one process has found.
pub(crate) struct Backlog {
    /// `single` or `groups`.
    pub(crate) shape: String,
    /// From the start of the process to the first lease.
    pub(crate) wall_s: f64,
    /// Opening the journal alone.
    pub(crate) open_s: f64,
    pub(crate) cpu_s: f64,
    pub(crate) peak_mb: f64,
    /// With everything that is queued, and without.
    pub(crate) rss_mb: f64,
    pub(crate) empty_mb: f64,
    /// The node that has accepted them, without what the journal keeps of them in memory.
    pub(crate) accepted_mb: f64,
}

impl Backlog {
    /// Bytes for each queued task.
    pub(crate) fn task_bytes(&self) -> f64 {
        (self.rss_mb - self.empty_mb) * 1_048_576.0 / f64::from(TASKS)
    }

    pub(crate) fn accepted_task_bytes(&self) -> f64 {
        (self.accepted_mb - self.empty_mb) * 1_048_576.0 / f64::from(TASKS)
    }
}

/// Measures both shapes.
pub(crate) fn measure() -> Result<Vec<Backlog>, Error> {
    ["groups", "single"].into_iter().map(measure_shape).collect()
}

fn measure_shape(shape: &str) -> Result<Backlog, Error> {
    let dir = TempDir::new()?;
    let path = dir.path().to_str().ok_or("the path of the journal is not text")?;
    let [accepted_mb] = run(&["backlog", "accept", shape])?[..] else { return Err("no figure".into()) };
    run(&["backlog", "write", shape, path])?;
    let [wall_s, open_s, cpu_s, peak_mb, rss_mb, empty_mb] = run(&["backlog", "recover", path])?[..] else {
        return Err("figures are missing".into());
    };
    Ok(Backlog { shape: shape.into(), wall_s, open_s, cpu_s, peak_mb, rss_mb, empty_mb, accepted_mb })
}

/// One of the processes: prints its figures.
pub(crate) fn child(args: &[&str]) -> Result<(), Error> {
    let figures = match *args {
        ["accept", shape] => accept(shape, None)?,
        ["write", shape, dir] => accept(shape, Some(Log::open(dir.as_ref())?.0))?,
        ["recover", dir] => recover(dir.as_ref())?,
        _ => return Err("usage: bench backlog accept SHAPE | write SHAPE DIR | recover DIR".into()),
    };
    println!("{}", figures.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
    Ok(())
}

fn run(args: &[&str]) -> Result<Vec<f64>, Error> {
    let output = Command::new(std::env::current_exe()?).args(args).output()?;
    if !output.status.success() {
        return Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
}

fn config(name: &str, slots: u16, durable: bool) -> Result<Config, Error> {
    let n = Arg { name: "n".into(), ty: Type::I64 };
    let noop = Function { name: "noop".into(), args: vec![n], ret: Type::Any, doc: "Does nothing.".into() };
    Ok(Config {
        name: name.parse()?,
        keys: vec![ClusterKey::new([7; 32])],
        deploy_public: DeployPublic([0; 32]),
        slots,
        features: Vec::new(),
        natives: vec![NativeModule { name: "native".into(), functions: vec![noop].into() }],
        resident: name == "origin",
        durable,
        holds_code: true,
        watches: true,
        version: String::new(),
        timing: broccoli_core::Timing::FAST,
        // A million jobs of one task each are more than a node takes unless told otherwise.
        limits: Limits { queue_bytes_max: usize::MAX, ..Limits::host() },
    })
}

/// Has a client hand in all tasks; gives the resident memory at the end. The client keeps nothing
/// of what was accepted.
fn accept(shape: &str, mut log: Option<Log>) -> Result<Vec<f64>, Error> {
    let now = Instant(0);
    let mut origin = Node::new(config("origin", 0, log.is_some())?, Epoch([1; 16]), 1, now);
    if log.is_some() {
        origin.recover(now, std::iter::empty())?;
    }
    let client = Node::new(config("client", 0, false)?, Epoch([2; 16]), 2, now);
    let mut wired = Wired { now, origin, client, accepted: 0, buf: Vec::new() };
    wired.origin.handle_input(now, Input::WallClock { unix_ms: NOON_UNIX_MS });
    wired.origin.handle_input(now, Input::Connected);
    wired.client.handle_input(now, Input::Connected);
    let (jobs, each) = if shape == "single" { (TASKS, 1) } else { (TASKS / GROUP, GROUP) };
    let mut next = 0..TASKS;
    for number in 1..=jobs {
        let mut tasks = next.by_ref().take(each as usize).map(|n| call("noop", &[n]));
        let canvas = if each == 1 { tasks.next().ok_or("no task")? } else { Canvas::group(tasks.collect()) };
        let submission = Submission { canvas: Cbor::encode(&canvas), key: None, again: false, detached: true };
        wired.client.submit_with(wired.now, submission);
        if number % BURST == 0 || number == jobs {
            wired.until_accepted(number, log.as_mut())?;
        }
    }
    if wired.origin.vitals().ready != TASKS {
        return Err(format!("{} tasks are queued", wired.origin.vitals().ready).into());
    }
    let figures = vec![process::rss_of_self_mb()];
    std::mem::forget((wired, log));
    Ok(figures)
}

/// Two nodes and what carries packets between them.
struct Wired {
    now: Instant,
    origin: Node,
    client: Node,
    accepted: u32,
    buf: Vec<u8>,
}

impl Wired {
    fn until_accepted(&mut self, jobs: u32, mut log: Option<&mut Log>) -> Result<(), Error> {
        for _ in 0..ROUNDS_MAX {
            if self.accepted >= jobs {
                return Ok(());
            }
            carry(&mut self.client, &mut self.origin, self.now, &mut self.buf);
            while let Some(action) = self.origin.poll_action() {
                if let (Action::Persist { number, writes }, Some(log)) = (action, log.as_deref_mut()) {
                    log.commit(&writes)?;
                    log.make_room()?;
                    self.origin.handle_input(self.now, Input::Persisted(number));
                }
            }
            carry(&mut self.origin, &mut self.client, self.now, &mut self.buf);
            while let Some(action) = self.client.poll_action() {
                match action {
                    Action::Event(Event::Accepted(submit, _)) => {
                        self.client.unfollow(self.now, submit);
                        self.accepted += 1;
                    }
                    Action::Event(Event::Refused(_, why)) => return Err(format!("a job was refused: {why:?}").into()),
                    _ => {}
                }
            }
            self.now = self.now + Duration::from_millis(1);
            self.origin.handle_input(self.now, Input::Timeout);
            self.client.handle_input(self.now, Input::Timeout);
        }
        Err("the jobs were not accepted".into())
    }
}

fn carry(from: &mut Node, to: &mut Node, now: Instant, buf: &mut Vec<u8>) {
    while let Some(transmit) = from.poll_transmit(now, buf) {
        to.handle_input(now, Input::Packet { to: transmit.to, packet: buf });
    }
}

/// Opens the journal, takes over, and leases to itself.
fn recover(dir: &Path) -> Result<Vec<f64>, Error> {
    let start = Clock::now();
    let now = Instant(0);
    let mut node = Node::new(config("origin", 1, true)?, Epoch([3; 16]), 3, now);
    let empty_mb = process::rss_of_self_mb();
    let (mut log, damaged) = Log::open(dir)?;
    let open_s = start.elapsed().as_secs_f64();
    node.handle_input(now, Input::WallClock { unix_ms: NOON_UNIX_MS + 1_000 });
    let recovery = node.recover(now, log.records())?;
    if recovery.tasks != TASKS || !damaged.is_empty() || !recovery.damaged.is_empty() {
        return Err(format!("{} tasks, {} damaged", recovery.tasks, recovery.damaged.len()).into());
    }
    node.handle_input(now, Input::Connected);
    // Nothing is leased before the start itself is on the disk.
    while let Some(action) = node.poll_action() {
        if let Action::Persist { number, writes } = action {
            log.commit(&writes)?;
            node.handle_input(now, Input::Persisted(number));
        }
    }
    // The time that other workers have to say what they hold passes at once.
    let later = now + ADOPTED;
    node.handle_input(later, Input::Timeout);
    while node.poll_transmit(later, &mut Vec::new()).is_some() {}
    if !std::iter::from_fn(|| node.poll_action()).any(|action| matches!(action, Action::Execute(_))) {
        return Err("nothing was leased".into());
    }
    let wall_s = start.elapsed().as_secs_f64();
    let cpu_s = process::cpu_of_self().as_secs_f64();
    let figures = vec![wall_s, open_s, cpu_s, process::peak_of_self_mb(), process::rss_of_self_mb(), empty_mb];
    // The log was open until here, as in a running node: what it keeps in memory counts. Freeing a
    // million jobs one by one would take longer than anything else in this process.
    std::mem::forget((node, log));
    Ok(figures)
}
