//! `broccoli-sim`: runs seeds of the simulator, one after the other, and prints a report.
//!
//! ```text
//! cargo run --release -p broccoli-sim -- --seeds 2000 --from 1
//! cargo run --release -p broccoli-sim -- --seeds 1 --from SEED       replays a failure
//! ```
//!
//! It exits with 1 if a check failed in a seed, if a seed held too much memory, if two runs of a seed had different
//! outputs (`--check-determinism`), or if a kind of fault never happened in a run that is long enough for all of
//! them.
#![deny(unsafe_code)]

mod heap;

use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broccoli_sim::cluster::faults::Fault;
use broccoli_sim::scenario::{self, Tally, Violation};

const USAGE: &str = "usage: broccoli-sim [--seeds N] [--from SEED] [--minutes M] [--threads N] [--check-determinism]
                    [--trace LINES]

  --seeds N             how many seeds (default 100; with --minutes as many as there is time for)
  --from SEED           the first one (default 1)
  --minutes M           go on for so long
  --threads N           seeds side by side (default: one for each CPU)
  --check-determinism   run each seed twice and compare all outputs of all nodes
  --trace LINES         what happened last before a failure (default 100 lines)";

/// How many bytes one seed may hold at any time: eight nodes, their disks, and the ledger.
const HEAP_BYTES_MAX: usize = 64 << 20;
/// Lines of a trace.
const TRACE: usize = 100;
/// In a run of at least so many seeds, every kind of fault must have happened.
const ALL_FAULTS_FROM: u64 = 500;

struct Options {
    seeds: u64,
    from: u64,
    deadline: Option<Instant>,
    threads: usize,
    twice: bool,
    trace: usize,
}

/// The result of all seeds.
#[derive(Default)]
struct Report {
    seeds: u64,
    sum: Tally,
    heap_bytes: usize,
    slowest: (Duration, u64),
    /// The first seed that failed, and why.
    failure: Option<(u64, Violation)>,
}

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A panic is told with its seed, once.
    std::panic::set_hook(Box::new(note_place));
    let started = Instant::now();
    let report = run(&options);
    report.print(started.elapsed());
    if let Some((seed, violation)) = &report.failure {
        tell(*seed, violation, options.trace);
        return ExitCode::FAILURE;
    }
    let missing: Vec<&str> =
        Fault::ALL.iter().filter(|fault| report.sum.faults.of(**fault) == 0).map(|fault| fault.name()).collect();
    if report.seeds >= ALL_FAULTS_FROM && !missing.is_empty() {
        eprintln!("FAILED: these never happened: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

thread_local! {
    static PLACE: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

fn note_place(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
    PLACE.set(place.unwrap_or_default());
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut options = Options { seeds: 100, from: 1, deadline: None, threads, twice: false, trace: TRACE };
        let mut seeds = None;
        while let Some(option) = args.next() {
            let mut number = || {
                let text = args.next().ok_or_else(|| format!("{option} needs a number"))?;
                text.parse::<u64>().map_err(|_| format!("{option}: {text} is not a number"))
            };
            match option.as_str() {
                "--seeds" => seeds = Some(number()?),
                "--from" => options.from = number()?,
                "--minutes" => options.deadline = Some(Instant::now() + Duration::from_secs(60 * number()?)),
                "--threads" => options.threads = number()?.clamp(1, 64) as usize,
                "--trace" => options.trace = number()? as usize,
                "--check-determinism" => options.twice = true,
                _ => return Err(format!("unknown option {option}")),
            }
        }
        options.seeds = seeds.unwrap_or(if options.deadline.is_some() { u64::MAX } else { options.seeds });
        Ok(options)
    }
}

fn run(options: &Options) -> Report {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let report = Mutex::new(Report::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) && options.deadline.is_none_or(|at| Instant::now() < at) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= options.seeds {
                break;
            }
            let seed = options.from.wrapping_add(at);
            let started = Instant::now();
            let (outcome, heap_bytes) = heap::peak_of(|| one(seed, options.twice));
            let Ok(mut report) = report.lock() else { break };
            report.seeds += 1;
            report.heap_bytes = report.heap_bytes.max(heap_bytes);
            report.slowest = report.slowest.max((started.elapsed(), seed));
            let outcome = outcome.and_then(|tally| within_heap(tally, heap_bytes));
            match outcome {
                Ok(tally) => report.sum.add(&tally),
                Err(violation) => {
                    stop.store(true, Ordering::Relaxed);
                    report.failure.get_or_insert((seed, violation));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            drop(scope.spawn(work));
        }
    });
    report.into_inner().unwrap_or_default()
}

fn one(seed: u64, twice: bool) -> Result<Tally, Violation> {
    let placed = |violation: Violation| Violation {
        what: format!("{} ({})", violation.what, PLACE.with_borrow(String::clone)),
        ..violation
    };
    let first = scenario::run(seed, 0, twice).map_err(placed)?;
    if twice && scenario::run(seed, 0, true).map_err(placed)? != first {
        return Err(Violation { what: "the same seed came to something else".into(), trace: Vec::new() });
    }
    Ok(first)
}

fn within_heap(tally: Tally, heap_bytes: usize) -> Result<Tally, Violation> {
    let what = format!("held {heap_bytes} bytes, the limit is {HEAP_BYTES_MAX}");
    if heap_bytes > HEAP_BYTES_MAX { Err(Violation { what, trace: Vec::new() }) } else { Ok(tally) }
}

/// Reports how a seed failed, with the last steps. For this it runs the seed again.
fn tell(seed: u64, violation: &Violation, lines: usize) {
    let again = scenario::run(seed, lines, false);
    if let Err(violation) = again {
        eprintln!("\nthe last steps of seed {seed}:");
        violation.trace.iter().for_each(|line| eprintln!("{line}"));
    }
    eprintln!("\nFAILED: seed {seed} at commit {}: {}", commit(), violation.what);
    eprintln!("replay: cargo run --release -p broccoli-sim -- --seeds 1 --from {seed}");
}

fn commit() -> String {
    let said = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let text =
        said.ok().filter(|said| said.status.success()).map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    text.map_or_else(|| "unknown".into(), |text| text.trim().to_owned())
}

impl Report {
    fn print(&self, took: Duration) {
        let Tally { submitted, succeeded, failed, broken, lost, tasks, runs, virtual_us, deliveries, faults, .. } =
            &self.sum;
        println!(
            "{:>10}  seeds in {:.1} s, the slowest {:.2} s (seed {})",
            self.seeds,
            took.as_secs_f32(),
            self.slowest.0.as_secs_f32(),
            self.slowest.1
        );
        println!("{submitted:>10}  canvases handed in, {lost} lost with a memory that nobody promised to keep");
        println!(
            "{:>10}  ends told: {succeeded} results and {failed} failures as the oracle says, {broken} by a fault",
            succeeded + failed + broken
        );
        println!("{tasks:>10}  tasks ended, {runs} runs, {deliveries} packets");
        println!("{:>10.1}  virtual hours", *virtual_us as f64 / 3.6e9);
        println!("{:>10.1}  MiB held at most by one seed", self.heap_bytes as f64 / f64::from(1 << 20));
        for fault in Fault::ALL {
            println!("{:>10}  {fault}", faults.of(fault));
        }
    }
}
