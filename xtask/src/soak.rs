//! `cargo xtask soak`: mixed jobs for a long time, while a process is killed every few seconds.
//!
//! This module owns the processes (an MQTT server, three durable nodes, two native workers), decides which of them is
//! killed when, and gives the verdict: each accepted job has the one outcome that it must have, and no process grows.
//! One seed decides jobs and kills. It never ends a process that it has not started.

mod memory;
mod random;
mod work;

use std::collections::VecDeque;
use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use memory::{Memory, Trend};
use random::Random;
use work::{Outcome, Work};

use crate::chaos::cluster::{Cluster, Programs, START_MAX, Server, until};
use crate::process::Background;
use crate::{Result, in_root};

const MINUTES: u64 = 30;
const REPORT: &str = "docs/soak.md";
const CURVE: &str = "docs/soak.svg";
/// How many clients submit one job after the other.
const LANES: u64 = 3;
/// Pause between two jobs of a client.
const PAUSE: Duration = Duration::from_millis(300);
/// Pause between two kills, and how long a process stays down, in milliseconds.
const KILL_EVERY_MS: (u64, u64) = (3_000, 8_000);
const DEAD_MS: (u64, u64) = (100, 1_500);
/// Pause between two samples of the memory of all processes.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Longest wait for the outcome of a job, in seconds. A killed node restarts long before.
const OUTCOME_MAX_S: &str = "90";
/// How long nodes keep results. Their memory is constant once results are deleted as fast as new ones arrive.
const KEEP_RESULTS: &str = "5m";
/// After this time a client asks once more for the outcome of a detached job.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How many of the newest jobs are looked up in the list of jobs.
const LISTED: usize = 100;
/// How many times a client tries to reach a cluster in which a process is down.
const TRIES_MAX: u32 = 60;
/// Exit codes of the command: the cluster cannot be reached, the job failed, wrong use.
const UNREACHABLE: i32 = 3;
const FAILED: i32 = 1;
const MISUSED: i32 = 2;
/// The message about a function that no live node has. Nothing was submitted in this case.
const NO_FUNCTION: &str = "no function";
/// How many lines about errors the report has.
const SHOWN_MAX: usize = 20;

/// Settings of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options {
    length: Duration,
    seed: u64,
    built: bool,
}

/// Soaks and writes the report.
///
/// # Errors
/// If a job had a wrong outcome or none, or if memory grows.
pub(crate) fn run(args: &[String]) -> Result {
    let options = options(args)?;
    println!("seed {}, {} minutes", options.seed, options.length.as_secs() / 60);
    let programs = if options.built { Programs::built(true) } else { Programs::build(true) }?;
    let soak = Soak::start(&programs, options)?;
    let told = soak.run()?;
    println!("{}", told.text);
    let text = format!("{}\n{}", REPORT_HEAD.trim_start(), told.text);
    for (path, text) in [(REPORT, &text), (CURVE, &told.curve)] {
        let path = in_root(path);
        fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    if told.wrong.is_empty() { Ok(()) } else { Err(format!("FAILED:\n{}", told.wrong.join("\n"))) }
}

const USAGE: &str = "cargo xtask soak [--built] [--minutes N] [--seed N]";

fn options(args: &[String]) -> Result<Options> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut options = Options { length: Duration::from_secs(60 * MINUTES), seed: since.as_secs(), built: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|number| number.parse().ok()).ok_or_else(|| format!("usage: {USAGE}"));
        match arg.as_str() {
            "--built" => options.built = true,
            "--minutes" => options.length = Duration::from_secs(60 * number()?),
            "--seed" => options.seed = number()?,
            _ => return Err(format!("usage: {USAGE}")),
        }
    }
    Ok(options)
}

/// A process that can be killed and started again.
struct Member {
    name: &'static str,
    start: fn(&Cluster, &str) -> Result<Background>,
    /// How often it is chosen to be killed.
    weight: u64,
}

/// The processes, in the order of their start. A process that is never killed shows the effects of a long life.
const CAST: &[Member] = &[
    Member { name: "server", start: |cluster, _| cluster.start_server(), weight: 1 },
    Member { name: "node-1", start: start_node, weight: 0 },
    Member { name: "node-2", start: start_node, weight: 2 },
    Member { name: "node-3", start: start_node, weight: 2 },
    Member { name: "native-1", start: start_native, weight: 1 },
    Member { name: "native-2", start: start_native, weight: 1 },
];

/// A durable node that is origin and worker.
fn start_node(cluster: &Cluster, name: &str) -> Result<Background> {
    let url = cluster.url(cluster.addr);
    let node =
        ["node", "--slots", "1", "--name", name, "--data", name, "--keep-results", KEEP_RESULTS, "--server", &url];
    cluster.start_node(name, cluster.broccoli(&node))
}

/// A worker with functions that no other kind of node has. While both such workers are down, nobody knows these
/// functions.
fn start_native(cluster: &Cluster, name: &str) -> Result<Background> {
    cluster.start_worker(name, 1, cluster.addr)
}

/// A running soak.
struct Soak {
    options: Options,
    cluster: Cluster,
    started: Instant,
    over: AtomicBool,
    /// The processes, in the order of [`CAST`].
    processes: Vec<Mutex<Option<Background>>>,
    memory: Mutex<Memory>,
    records: Mutex<Vec<Record>>,
}

/// One job, and what its client was told.
struct Record {
    work: Work,
    /// The id of a detached job. Other jobs are followed by the client that submitted them.
    id: Option<String>,
    /// What is wrong, if anything.
    wrong: Option<String>,
}

/// How a client ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// The result of a soak.
struct Told {
    text: String,
    curve: String,
    wrong: Vec<String>,
}

impl Soak {
    fn start(programs: &Programs, options: Options) -> Result<Soak> {
        let cluster = Cluster::new(programs, Server::Embedded, "soak")?;
        let start = |member: &Member| Ok(Mutex::new(Some((member.start)(&cluster, member.name)?)));
        let processes = CAST.iter().map(start).collect::<Result<_>>()?;
        let soak = Soak {
            options,
            cluster,
            started: Instant::now(),
            over: AtomicBool::new(false),
            processes,
            memory: Mutex::default(),
            records: Mutex::default(),
        };
        let deployed = soak.client(&["deploy", "--examples"])?;
        if deployed.code != Some(0) {
            return Err(deployed.stderr);
        }
        until("all functions are known", START_MAX, || {
            let known = soak.client(&["functions"])?.stdout;
            Ok((known.contains("flaky") && known.contains("identity")).then_some(()))
        })?;
        Ok(soak)
    }

    fn run(&self) -> Result<Told> {
        let kills = thread::scope(|scope| {
            let lanes = (0..LANES).map(|lane| scope.spawn(move || self.submit_jobs(lane))).collect::<Vec<_>>();
            let sampling = scope.spawn(|| self.sample());
            let kills = self.kill();
            self.over.store(true, Ordering::Relaxed);
            let ended = lanes.into_iter().map(|lane| lane.join()).collect::<Vec<_>>();
            if ended.into_iter().any(|lane| lane.is_err()) || sampling.join().is_err() {
                return Err("a thread of the soak has ended early".into());
            }
            kills
        })?;
        self.find_in_list()?;
        Ok(self.tell(&kills))
    }

    /// Kills and restarts processes until the time is over. Returns how often each one was killed.
    fn kill(&self) -> Result<Vec<u32>> {
        let mut random = Random::new(self.options.seed, u64::MAX);
        let victims: Vec<usize> =
            CAST.iter().enumerate().flat_map(|(at, member)| (0..member.weight).map(move |_| at)).collect();
        let mut kills = vec![0; CAST.len()];
        let mut wait = |(least, most): (u64, u64)| {
            let ms = least + random.below(most - least);
            (Duration::from_millis(ms), victims[random.below(victims.len() as u64) as usize])
        };
        while self.started.elapsed() < self.options.length {
            let (pause, at) = wait(KILL_EVERY_MS);
            sleep(pause);
            let mut process = self.processes[at].lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(mut process) = process.take() {
                process.kill().map_err(|error| format!("{error}, before it was killed"))?;
            }
            kills[at] += 1;
            sleep(wait(DEAD_MS).0);
            *process = Some((CAST[at].start)(&self.cluster, CAST[at].name)?);
        }
        Ok(kills)
    }

    fn sample(&self) {
        while !self.over.load(Ordering::Relaxed) {
            for (member, process) in CAST.iter().zip(&self.processes) {
                // One that is being restarted is left out.
                if let Ok(process) = process.try_lock()
                    && let Some(process) = process.as_ref()
                {
                    let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
                    memory.sample(self.started.elapsed(), member.name, process.id());
                }
            }
            sleep(SAMPLE_EVERY);
        }
    }

    /// One job after another until the time is over.
    fn submit_jobs(&self, lane: u64) {
        let mut random = Random::new(self.options.seed, lane);
        let mut again = VecDeque::new();
        for count in 0.. {
            let over = self.over.load(Ordering::Relaxed);
            let is_due = |(since, _): &mut (Instant, usize)| over || since.elapsed() >= AGAIN_AFTER;
            while let Some((_, at)) = again.pop_front_if(is_due) {
                self.ask_again(at);
            }
            if over {
                return;
            }
            let number = lane + LANES * count;
            let work = work::random(&mut random, number);
            let record = if random.below(2) == 0 { self.follow(work) } else { self.hand_over(work, number) };
            if let Some(wrong) = &record.wrong {
                println!("{:>6} s: {}: {wrong}", self.started.elapsed().as_secs(), record.work.canvas);
            }
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            again.push_back((Instant::now(), records.len()));
            records.push(record);
            drop(records);
            sleep(PAUSE);
        }
    }

    /// Runs a job and waits for it in the same client.
    fn follow(&self, work: Work) -> Record {
        let ended = self.reach(&["run", &work.canvas]);
        Record { wrong: compare(&work.outcome, &ended), work, id: None }
    }

    /// Submits a detached job, with a key so that the submit can be repeated, and asks for its outcome in another
    /// client.
    fn hand_over(&self, work: Work, number: u64) -> Record {
        let key = format!("soak-{}-{number}", self.options.seed);
        let submitted = self.reach(&["run", "--detach", "--key", &key, &work.canvas]);
        let id = match submitted {
            Ok(Ended { code: Some(0), stdout, .. }) => stdout,
            ended => return Record { work, id: None, wrong: Some(format!("is not accepted: {ended:?}")) },
        };
        let ended = self.reach(&["result", &id, "--wait"]);
        Record { wrong: compare(&work.outcome, &ended), work, id: Some(id) }
    }

    /// Asks once more for the outcome of a detached job. It must be the same.
    fn ask_again(&self, at: usize) {
        let records = || self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = records()[at].id.clone() else { return };
        let ended = self.reach(&["result", &id, "--wait"]);
        let record = &mut records()[at];
        if record.wrong.is_none() {
            record.wrong = compare(&record.work.outcome, &ended).map(|wrong| format!("asked again: {wrong}"));
        }
    }

    /// Looks for each of the last detached jobs in the list of jobs. Each must be there once.
    fn find_in_list(&self) -> Result {
        let listing = self.client(&["jobs", "--json"])?.stdout;
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let handed_over = records.iter_mut().rev().filter_map(|record| Some((record.id.clone()?, record)));
        for (id, record) in handed_over.take(LISTED) {
            let listed = listing.matches(&format!("\"id\":\"{id}\"")).count();
            if record.wrong.is_none() && listed != 1 {
                record.wrong = Some(format!("is listed {listed} times by `broccoli jobs`"));
            }
        }
        Ok(())
    }

    /// A client that retries as long as it cannot reach the cluster.
    fn reach(&self, args: &[&str]) -> Result<Ended> {
        for _ in 0..TRIES_MAX {
            let ended = self.client(args)?;
            // When the server has lost its memory, nodes announce their functions again a little later.
            let is_early = ended.code == Some(MISUSED) && ended.stderr.contains(NO_FUNCTION);
            if ended.code != Some(UNREACHABLE) && !is_early {
                return Ok(ended);
            }
            sleep(PAUSE);
        }
        Err(format!("cannot reach the cluster {TRIES_MAX} times"))
    }

    fn client(&self, args: &[&str]) -> Result<Ended> {
        let mut command = self.cluster.broccoli_under(&["timeout", "-s", "KILL", OUTCOME_MAX_S], args);
        command.env("BROCCOLI_SERVER", self.cluster.url(self.cluster.addr));
        let output = command.output().map_err(|error| format!("cannot run a client: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Ok(Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }

    fn tell(&self, kills: &[u32]) -> Told {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let trends = memory.trends(self.options.length);
        let bad =
            records.iter().filter_map(|record| Some(format!("{}: {}", record.work.canvas, record.wrong.as_ref()?)));
        let growing =
            trends.iter().filter(|trend| trend.grows()).map(|trend| format!("memory of {} grows", trend.name));
        let wrong: Vec<String> = bad.chain(growing).collect();
        let text = report(self.options, &records, kills, &trends, &wrong);
        Told { text, curve: memory.curve(self.options.length), wrong }
    }
}

/// What is wrong with how a client ended.
fn compare(expected: &Outcome, ended: &Result<Ended>) -> Option<String> {
    let is_right = match (expected, ended) {
        (Outcome::Prints(line), Ok(ended)) => ended.code == Some(0) && ended.stdout == *line,
        (Outcome::Fails(part), Ok(ended)) => ended.code == Some(FAILED) && ended.stderr.contains(part),
        (_, Err(_)) => false,
    };
    (!is_right).then(|| format!("{ended:?} instead of {expected:?}"))
}

fn report(options: Options, records: &[Record], kills: &[u32], trends: &[Trend], wrong: &[String]) -> String {
    let minutes = options.length.as_secs() / 60;
    let handed_over = records.iter().filter(|record| record.id.is_some()).count();
    let failing = records.iter().filter(|record| matches!(record.work.outcome, Outcome::Fails(_))).count();
    let all_kills = kills.iter().sum::<u32>();
    let mut text = format!(
        "{minutes} minutes, seed {}: {} jobs, {handed_over} of them handed over and asked for by another client, {failing} \
         that must fail; {all_kills} kills; {} wrong or missing outcomes.\n\n\
         | process | kills | memory in the 2nd quarter, MiB | in the last, MiB | most, MiB | |\n|---|---:|---:|---:|---:|---|\n",
        options.seed,
        records.len(),
        records.iter().filter(|record| record.wrong.is_some()).count(),
    );
    for trend in trends {
        let killed =
            CAST.iter().zip(kills).find(|(member, _)| member.name == trend.name).map_or(0, |(_, kills)| *kills);
        let mib = |kib: f64| kib / 1024.0;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {killed} | {:.1} | {:.1} | {:.1} | {} |",
            trend.name,
            mib(trend.second_kib),
            mib(trend.last_kib),
            mib(trend.most_kib as f64),
            if trend.grows() { "**grows**" } else { "flat" },
        );
    }
    if !wrong.is_empty() {
        let _ = write!(text, "\n**{} things are wrong:**\n\n", wrong.len());
        for line in wrong.iter().take(SHOWN_MAX) {
            let _ = writeln!(text, "- {line}");
        }
    }
    text
}

const REPORT_HEAD: &str = "
# Soak

`cargo xtask soak` runs jobs of every form against a cluster of real processes (the embedded MQTT server, three durable nodes that
are origins and workers, two workers with native functions), kills one of them with SIGKILL every few seconds and starts it again, and
compares every outcome with what it must be. It asks for each job that was handed over once more a minute later: every accepted job has exactly
one outcome, and it does not change. It fails if one is wrong, missing or unknown, or if a process takes more memory in the
last quarter than in the second (by more than a tenth and 2 MiB). `node-1` is never killed.

An origin keeps the results of jobs that are over, so its memory rises by some KiB for each job until it forgets them as fast as they come.
Here the nodes run with `--keep-results 5m`, and do so after five minutes. A node also remembers others, up to 10,000: each client of a soak is
one, so a node that lives through all of it still rises a little.

![resident memory of each process](soak.svg)
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options> {
        options(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_set_the_length_and_the_seed() {
        let expected = Options { length: Duration::from_secs(120), seed: 7, built: true };
        assert_eq!(parse(&["--minutes", "2", "--seed", "7", "--built"]), Ok(expected));
        assert!(parse(&["--minutes"]).is_err() && parse(&["--hours", "1"]).is_err());
    }

    #[test]
    fn outcomes_must_be_the_same_to_the_letter() {
        let ended = |code, stdout: &str, stderr: &str| {
            Ok(Ended { code: Some(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() })
        };
        let four = Outcome::Prints("4".into());
        assert_eq!(compare(&four, &ended(0, "4", "")), None);
        assert!(compare(&four, &ended(0, "5", "")).is_some() && compare(&four, &ended(1, "4", "")).is_some());
        let fails = Outcome::Fails("on purpose 3".into());
        assert_eq!(compare(&fails, &ended(1, "", "error: fail: on purpose 3")), None);
        assert!(compare(&fails, &ended(0, "null", "")).is_some());
        assert!(compare(&four, &Err("nobody answers".into())).is_some());
    }
}
