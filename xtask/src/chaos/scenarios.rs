//! What is broken, how, and the largest effect that it may have.
//!
//! This module has the list of scenarios, and plays them: a job of many short tasks on two workers with one slot
//! each, a fault in the middle, then a check of what the workers have written and what the client was told.

use std::ops::Range;
use std::thread::sleep;
use std::time::Duration;

use super::cluster::{Cluster, Programs, START_MAX, Server, until};
use super::disk;
use super::marks::{Marks, now_us};
use super::proxy::{FAST, Proxy, Speed};
use crate::Result;
use crate::process::Background;

/// Longest time of a job after its fault.
pub(super) const JOB_MAX: Duration = Duration::from_secs(60);
/// How long a node is stopped and a link is silent: longer than its lease and than its keep-alive.
const AWAY: Duration = Duration::from_secs(10);
/// How long an MQTT server is down: longer than the pauses between the first attempts to connect.
const SERVER_DOWN: Duration = Duration::from_millis(3_300);
/// How long an origin is down.
const ORIGIN_DOWN: Duration = Duration::from_secs(1);
/// A flapping connection lives this long, and is then gone for a seventh of this time.
const FLAP_UP: Duration = Duration::from_millis(600);
const FLAP_DOWN: Duration = Duration::from_millis(100);
const FLAPS: u32 = 10;
/// A bad radio link.
const SLOW: Speed = Speed { latency: Duration::from_millis(50), bytes_per_s: Some(20_000) };

/// The bars: the largest effects that a fault may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bars {
    /// Runs beyond the first of each task: those that the fault interrupted in a slot.
    pub(super) repeated_max: usize,
    /// Seconds until the tasks that the fault has held up run again.
    pub(super) recovered_s_max: Option<f64>,
    /// Longest pause of a worker that the fault does not touch, in seconds.
    pub(super) pause_s_max: Option<f64>,
}

/// One row of the table.
pub(super) struct Scenario {
    /// Its name on the command line.
    pub(super) name: &'static str,
    /// Its description for people.
    pub(super) title: &'static str,
    /// The servers on which it makes sense.
    pub(super) servers: &'static [Server],
    /// The number of tasks of its job. The workers must be busy until the fault is over.
    pub(super) tasks: usize,
    pub(super) bars: Bars,
    play: fn(&Scenario, &Programs, Server) -> Result<Row>,
}

/// What was measured in a scenario.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) tasks: usize,
    /// Tasks that have not ended, or have no result.
    pub(super) lost: usize,
    /// Wrong results.
    pub(super) wrong: usize,
    pub(super) repeated: usize,
    pub(super) recovered_s: Option<f64>,
    pub(super) pause_s: Option<f64>,
    /// Other information for readers.
    pub(super) note: String,
}

const WORKER_FAULT: Bars = Bars { repeated_max: 1, recovered_s_max: Some(3.0), pause_s_max: Some(0.6) };
const CUT: Bars = Bars { recovered_s_max: Some(6.0), ..WORKER_FAULT };
const COMES_BACK: Bars = Bars { repeated_max: 0, recovered_s_max: Some(2.0), pause_s_max: None };
const BAD_LINK: Bars = Bars { repeated_max: 0, recovered_s_max: None, pause_s_max: Some(0.6) };

/// All of them, in the order of the table.
pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "kill-worker",
        title: "kill -9 of one of two workers",
        servers: &Server::ALL,
        tasks: 2_000,
        bars: WORKER_FAULT,
        play: |scenario, programs, server| {
            play_worker(scenario, programs, server, FAST, |worker| worker.process.kill())
        },
    },
    Scenario {
        name: "stop-worker",
        title: "SIGSTOP of a worker for 10 s",
        servers: &Server::ALL,
        tasks: 4_000,
        bars: CUT,
        play: |scenario, programs, server| {
            play_worker(scenario, programs, server, FAST, |worker| stop(&mut worker.process))
        },
    },
    Scenario {
        name: "cut",
        title: "link of a worker silent for 10 s",
        servers: &Server::ALL,
        tasks: 4_000,
        bars: CUT,
        play: |scenario, programs, server| {
            play_worker(scenario, programs, server, FAST, |worker| {
                worker.proxy.silence();
                sleep(AWAY);
                worker.proxy.heal();
                Ok(())
            })
        },
    },
    Scenario {
        name: "flap",
        title: "link of a worker breaks every 700 ms, for 7 s",
        servers: &Server::ALL,
        tasks: 4_000,
        bars: BAD_LINK,
        play: |scenario, programs, server| play_worker(scenario, programs, server, FAST, flap),
    },
    Scenario {
        name: "slow",
        title: "link of a worker with 50 ms and 20 KB/s",
        servers: &Server::ALL,
        tasks: 2_000,
        bars: BAD_LINK,
        play: |scenario, programs, server| play_worker(scenario, programs, server, SLOW, |_| Ok(())),
    },
    Scenario {
        name: "kill-server",
        title: "kill -9 of the MQTT server, back after 3.3 s with an empty memory",
        servers: &Server::ALL,
        tasks: 2_000,
        bars: COMES_BACK,
        play: |scenario, programs, server| {
            play_centre(scenario, programs, server, Centre::Apart, |stage| {
                stage.server = None;
                sleep(SERVER_DOWN);
                stage.server = Some(stage.cluster.start_server()?);
                Ok(())
            })
        },
    },
    Scenario {
        name: "kill-origin",
        title: "kill -9 of the origin, back after 1 s",
        servers: &Server::ALL,
        tasks: 2_000,
        bars: COMES_BACK,
        play: |scenario, programs, server| {
            play_centre(scenario, programs, server, Centre::Durable, |stage| {
                stage.origin.kill()?;
                sleep(ORIGIN_DOWN);
                stage.origin = stage.cluster.start_origin(ORIGIN, DATA)?;
                Ok(())
            })
        },
    },
    Scenario {
        name: "kill-up",
        title: "kill -9 of `broccoli up`, server and origin in one, back after 1 s",
        servers: &[Server::Embedded],
        tasks: 2_000,
        bars: COMES_BACK,
        play: |scenario, programs, server| {
            play_centre(scenario, programs, server, Centre::Up, |stage| {
                stage.origin.kill()?;
                sleep(ORIGIN_DOWN);
                stage.origin = start_up(&stage.cluster)?;
                Ok(())
            })
        },
    },
    Scenario {
        name: "stop-origin",
        title: "SIGSTOP of the origin for 10 s",
        servers: &Server::ALL,
        tasks: 2_000,
        bars: COMES_BACK,
        play: |scenario, programs, server| {
            play_centre(scenario, programs, server, Centre::Durable, |stage| stop(&mut stage.origin))
        },
    },
    Scenario {
        name: "disk-full",
        title: "disk of the origin full, then free again",
        servers: &Server::ALL,
        tasks: 1_000,
        bars: COMES_BACK,
        play: disk::play,
    },
];

impl Scenario {
    /// Plays it on one server.
    ///
    /// # Errors
    /// Something could not be started, or a client failed.
    pub(super) fn play(&self, programs: &Programs, server: Server) -> Result<Row> {
        (self.play)(self, programs, server)
    }

    /// Which values of a row exceed a bar.
    pub(super) fn misses(&self, row: &Row) -> Vec<String> {
        let over = |what: &str, seen: Option<f64>, max: Option<f64>| match (seen, max) {
            (Some(seen), Some(max)) if seen > max => Some(format!("{what} {seen:.2} s, at most {max} s")),
            _ => None,
        };
        let count = |what: &str, seen, max| (seen > max).then(|| format!("{seen} {what}, at most {max}"));
        let found = [
            count("tasks lost", row.lost, 0),
            count("wrong results", row.wrong, 0),
            count("runs repeated", row.repeated, self.bars.repeated_max),
            over("runs again after", row.recovered_s, self.bars.recovered_s_max),
            over("another node paused for", row.pause_s, self.bars.pause_s_max),
        ];
        found.into_iter().flatten().collect()
    }
}

/// Name of the node that holds jobs.
pub(super) const ORIGIN: &str = "origin";
/// Where this node keeps them.
const DATA: &[&str] = &["--data", "data"];
/// The fault hits the first one. The second one must not notice it.
const WORKERS: [&str; 2] = ["worker-1", "worker-2"];

/// A worker and its cable.
struct Worker {
    process: Background,
    proxy: Proxy,
}

/// Which process holds jobs, and where.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Centre {
    /// A node that keeps jobs in memory.
    Apart,
    /// A node that keeps jobs on disk.
    Durable,
    /// `broccoli up`: the MQTT server and a node that keeps jobs on disk.
    Up,
}

/// All processes of a scenario.
struct Stage {
    workers: Vec<Worker>,
    origin: Background,
    server: Option<Background>,
    cluster: Cluster,
}

impl Stage {
    fn start(scenario: &Scenario, programs: &Programs, server: Server, centre: Centre, speed: Speed) -> Result<Stage> {
        let cluster = Cluster::new(programs, server, scenario.name)?;
        let (server, origin) = match centre {
            Centre::Apart => (Some(cluster.start_server()?), cluster.start_origin(ORIGIN, &[])?),
            Centre::Durable => (Some(cluster.start_server()?), cluster.start_origin(ORIGIN, DATA)?),
            Centre::Up => (None, start_up(&cluster)?),
        };
        let worker = |(name, speed): (&str, Speed)| {
            let proxy = Proxy::start(cluster.addr, speed)?;
            Ok(Worker { process: cluster.start_worker(name, 1, proxy.addr())?, proxy })
        };
        let workers = WORKERS.into_iter().zip([speed, FAST]).map(worker).collect::<Result<_>>()?;
        wait_for_functions(&cluster)?;
        Ok(Stage { workers, origin, server, cluster })
    }

    /// Submits the job of a scenario and lets both workers work on it for a while.
    fn begin(&self, scenario: &Scenario, centre: Centre) -> Result<Background> {
        let client = match centre {
            Centre::Apart => self.cluster.client(&["run", &canvas(&(0..scenario.tasks))]),
            Centre::Durable | Centre::Up => {
                let id = submit(&self.cluster, &(0..scenario.tasks))?;
                self.cluster.client(&["result", &id, "--wait"])
            }
        };
        let client = self.cluster.start_as("client", client)?;
        until("40 % of the job", JOB_MAX, || {
            let marks = self.cluster.marks()?;
            let all_work = WORKERS.iter().all(|name| marks.has_worked(name));
            Ok((marks.done(0..scenario.tasks) * 5 >= scenario.tasks * 2 && all_work).then_some(()))
        })?;
        Ok(client)
    }
}

/// Plays a fault of the first worker.
fn play_worker(
    scenario: &Scenario,
    programs: &Programs,
    server: Server,
    speed: Speed,
    fault: impl FnOnce(&mut Worker) -> Result,
) -> Result<Row> {
    let mut stage = Stage::start(scenario, programs, server, Centre::Apart, speed)?;
    let client = stage.begin(scenario, Centre::Apart)?;
    let fault_us = now_us();
    fault(&mut stage.workers[0])?;
    let mut row = observe(&stage.cluster, 0..scenario.tasks, client)?;
    let marks = stage.cluster.marks()?;
    row.recovered_s = scenario.bars.recovered_s_max.map(|_| marks.recovered_after(WORKERS[0], fault_us));
    row.pause_s = Some(marks.longest_pause(&[WORKERS[1].to_owned()], fault_us));
    row.note = share(&marks);
    Ok(row)
}

/// Plays a fault of a process that all workers depend on.
fn play_centre(
    scenario: &Scenario,
    programs: &Programs,
    server: Server,
    centre: Centre,
    fault: impl FnOnce(&mut Stage) -> Result,
) -> Result<Row> {
    let mut stage = Stage::start(scenario, programs, server, centre, FAST)?;
    let client = stage.begin(scenario, centre)?;
    fault(&mut stage)?;
    let back_us = now_us();
    let mut row = observe(&stage.cluster, 0..scenario.tasks, client)?;
    let marks = stage.cluster.marks()?;
    row.recovered_s = Some(marks.all_work_after(&WORKERS.map(str::to_owned), back_us).unwrap_or(f64::INFINITY));
    row.note = share(&marks);
    Ok(row)
}

fn share(marks: &Marks) -> String {
    let [first, second] = WORKERS.map(|name| marks.runs_of(name));
    format!("{first} + {second} runs")
}

/// Stops a process for a while.
fn stop(process: &mut Background) -> Result {
    process.signal("STOP")?;
    sleep(AWAY);
    process.signal("CONT")
}

fn flap(worker: &mut Worker) -> Result {
    for _ in 0..FLAPS {
        worker.proxy.cut();
        sleep(FLAP_DOWN);
        worker.proxy.heal();
        sleep(FLAP_UP);
    }
    Ok(())
}

fn start_up(cluster: &Cluster) -> Result<Background> {
    let listen = cluster.addr.to_string();
    let up = ["up", "--listen", &listen, "--slots", "0", "--name", ORIGIN];
    cluster.start_node(ORIGIN, cluster.broccoli(&[&up, DATA].concat()))
}

/// Until clients can call the functions of the workers.
pub(super) fn wait_for_functions(cluster: &Cluster) -> Result {
    until("the functions of the workers are known", START_MAX, || {
        let listing = cluster.start_as("functions", cluster.client(&["functions"]))?;
        Ok(listing.line_with("chaos", START_MAX).ok())
    })?;
    Ok(())
}

/// A job that marks each of these numbers.
fn canvas(tasks: &Range<usize>) -> String {
    format!("group(chaos.mark.s(i) for i in range({}, {}))", tasks.start, tasks.end)
}

/// Submits such a job to a durable node, and returns its id.
///
/// # Errors
/// It is refused.
pub(super) fn submit(cluster: &Cluster, tasks: &Range<usize>) -> Result<String> {
    let client = cluster.client(&["run", "--detach", &canvas(tasks)]);
    cluster.start_as("submit", client)?.answer(START_MAX)
}

/// Waits for the result that the client of such a job gets, and compares it.
///
/// # Errors
/// The client fails, or marks cannot be read.
pub(super) fn observe(cluster: &Cluster, tasks: Range<usize>, client: Background) -> Result<Row> {
    let answer = client.answer(JOB_MAX);
    let marks = cluster.marks()?;
    let lost = tasks.len() - marks.done(tasks.clone());
    let failed =
        |error| format!("{error}, and {lost} of {} tasks have no end: see {}", tasks.len(), cluster.dir().display());
    let wrong = wrong_results(&answer.map_err(failed)?, tasks.clone());
    let repeated = marks.repeated();
    Ok(Row { tasks: tasks.len(), lost, wrong, repeated, recovered_s: None, pause_s: None, note: String::new() })
}

/// How many results of a job are missing or wrong.
fn wrong_results(answer: &str, tasks: Range<usize>) -> usize {
    let list = answer.strip_prefix('[').and_then(|list| list.strip_suffix(']')).unwrap_or_default();
    let got: Vec<Option<usize>> = list.split(", ").map(|item| item.parse().ok()).collect();
    let wrong = tasks.clone().enumerate().filter(|(at, task)| got.get(*at).copied().flatten() != Some(task * 3 + 1));
    wrong.count() + got.len().saturating_sub(tasks.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_wrong_and_surplus_results_are_counted() {
        assert_eq!(wrong_results("[1, 4, 7]", 0..3), 0);
        assert_eq!(wrong_results("[1, 5, 7]", 0..3), 1);
        assert_eq!(wrong_results("[1, 4]", 0..3), 1);
        assert_eq!(wrong_results("[1, 4, 7, 10]", 0..3), 1);
        assert_eq!(wrong_results("[4, 7]", 1..3), 0);
        assert_eq!(wrong_results("", 0..3), 3);
    }

    #[test]
    fn what_is_over_a_bar_is_named() {
        let scenario = &SCENARIOS[0];
        let good = Row {
            tasks: 2_000,
            lost: 0,
            wrong: 0,
            repeated: 1,
            recovered_s: Some(2.9),
            pause_s: Some(0.1),
            note: String::new(),
        };
        assert!(scenario.misses(&good).is_empty());
        let bad = Row { lost: 1, repeated: 2, recovered_s: Some(3.1), ..good };
        let expected =
            ["1 tasks lost, at most 0", "2 runs repeated, at most 1", "runs again after 3.10 s, at most 3 s"];
        assert_eq!(scenario.misses(&bad), expected);
    }
}
