//! Nodes on a microcontroller, beside one on this machine, in one cluster: on both servers.
//!
//! Owns the list of what must hold, and in which order it is looked at. First there are a PC and three guests of QEMU;
//! then the guests are alone, and what they know comes from their flash or from each other.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::chaos::cluster::{Cluster, Programs, Server, until};
use crate::process::{Background, output};
use crate::qemu::{self, Guest, LABEL, Place};
use crate::{BENCH_TEXT, Result, in_root};

#[path = "../../crates/broccoli-node/tests/data/seed.rs"]
// The demo reads fewer fields than the tests, and so does this.
#[allow(dead_code)]
mod seed;

const GUESTS: usize = 3;
/// How long anything may take: QEMU interprets, maybe on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What must hold, one after the other.
const CHECKS: [(&str, Check); 10] = [
    ("three guests join, and get a module when they need it", join),
    ("one command blinks on the board of each guest", blink),
    ("the examples of the first Broccoli, and the word count", examples),
    ("a guest is killed in the middle of a chord, and comes back", kill_in_a_chord),
    ("a task that never ends is stopped, a long one disturbs nobody", stop_and_go_on),
    ("more results than there is memory for", many_results),
    ("the third version of a module works as the first", versions),
    ("alone after a restart, a guest has its modules from flash", from_flash),
    ("a late guest gets a module from another guest", late),
    ("a guest that is asked to leave does", leave),
];

type Check = fn(&mut Stage<'_>) -> Result;

/// A cluster and its guests.
struct Stage<'c> {
    cluster: &'c Cluster,
    firmware: &'c Path,
    place: Place,
    /// None once it is gone.
    pc: Option<Background>,
    guests: Vec<Guest>,
    /// What the PC alone has counted.
    words: String,
}

/// Builds what is needed and looks at everything on one server after the other.
///
/// # Errors
/// The first thing that is not as it must be.
pub(crate) fn run() -> Result {
    let programs = Programs::build(false)?;
    let firmware = qemu::build()?;
    for server in Server::ALL {
        let cluster = Cluster::new(&programs, server, "guests")?;
        on_a_cluster(&cluster, &firmware).map_err(|error| format!("{}: {error}", server.name()))?;
    }
    Ok(())
}

fn on_a_cluster(cluster: &Cluster, firmware: &Path) -> Result {
    let _server = cluster.start_server()?;
    let url = cluster.url(cluster.addr);
    let place = Place::new(Path::new(&cluster.file()), Some(&url))?;
    let pc = ["node", "--name", "pc", "--slots", "1", "--data", "pc", "--board", "simulated", "--server", &url];
    let pc = Some(cluster.start_node("pc", cluster.broccoli(&pc))?);
    let mut stage = Stage { cluster, firmware, place, pc, guests: Vec::new(), words: String::new() };
    println!("{}", url.rsplit_once('@').map_or(&*url, |(_, address)| address));
    for (what, check) in CHECKS {
        let start = Instant::now();
        check(&mut stage).map_err(|error| format!("{what}: {error}"))?;
        stage.guests.iter().try_for_each(was_calm).map_err(|error| format!("{what}: {error}"))?;
        println!("{:>7.1} s  {what}", start.elapsed().as_secs_f32());
    }
    Ok(())
}

impl Stage<'_> {
    /// Starts a guest on the flash that it had before, if it was there.
    fn start(&self, number: usize, more: &str) -> Result<Guest> {
        let name = format!("guest-{number}");
        let flash = self.cluster.dir().join(format!("{name}.flash"));
        Guest::start(self.firmware, &self.place, &name, more, Some(&flash))
    }
}

fn join(stage: &mut Stage<'_>) -> Result {
    answer(stage.cluster, &["deploy", "--examples"])?;
    stage.words = words(stage.cluster)?;
    // The last one takes jobs of others, so that it can be asked to leave. Clients prefer the PC, which has a disk.
    let more = |number| if number == GUESTS { "resident=yes\n" } else { "" };
    stage.guests = (1..=GUESTS).map(|number| stage.start(number, more(number))).collect::<Result<_>>()?;
    for (number, guest) in (1..).zip(&stage.guests) {
        guest.process.line_with("ready", PATIENCE)?;
        sums(stage.cluster, &format!("guest-{number}"), 100)?;
        // From the PC or from another guest.
        guest.process.line_with("module tasks is installed", PATIENCE)?;
    }
    Ok(())
}

fn many_results(stage: &mut Stage<'_>) -> Result {
    // Of tasks that end faster than they are acknowledged.
    sums(stage.cluster, "guest-1", 2_000)
}

/// Each version has the memory to itself once the ones before are not called any more.
fn versions(stage: &mut Stage<'_>) -> Result {
    for _ in 0..3 {
        answer(stage.cluster, &["deploy", "--examples"])?;
        sums(stage.cluster, "guest-1", 100)?;
        stage.guests[0].process.line_with("module tasks is installed", PATIENCE)?;
    }
    Ok(())
}

/// Nobody else is there who has the module.
fn from_flash(stage: &mut Stage<'_>) -> Result {
    stage.guests.iter_mut().try_for_each(|guest| guest.process.kill())?;
    stage.pc.take().map_or(Ok(()), |mut pc| pc.kill())?;
    let guest = stage.start(1, "resident=yes\n")?;
    guest.process.line_with("module tasks is there, from flash", PATIENCE)?;
    guest.process.line_with("ready", PATIENCE)?;
    stage.guests = vec![guest];
    gives(stage.cluster, "add.s(1, 2).set(on=\"guest-1\")", "3")?;
    while let Some(line) = stage.guests[0].process.line(Instant::now()) {
        if line.contains("is installed") {
            return Err(format!("from somewhere else: {line}"));
        }
    }
    Ok(())
}

/// Only the guest that has just started again has it.
fn late(stage: &mut Stage<'_>) -> Result {
    let guest = stage.start(GUESTS + 1, "")?;
    guest.process.line_with("module tasks is installed", PATIENCE)?;
    stage.guests.push(guest);
    sums(stage.cluster, &format!("guest-{}", GUESTS + 1), 100)
}

/// A node adds many numbers.
fn sums(cluster: &Cluster, name: &str, count: usize) -> Result {
    let sums: Vec<String> = (0..count).map(|number| (2 * number).to_string()).collect();
    let canvas = format!("group(add.s(i, i) for i in range({count})).set(on=\"{name}\")");
    gives(cluster, &canvas, &format!("[{}]", sums.join(", ")))
}

/// A guest has not panicked: it would have started again, and nothing else would show it.
fn was_calm(guest: &Guest) -> Result {
    while let Some(line) = guest.process.line(Instant::now()) {
        if line.contains("panicked") {
            let reason = guest.process.line(Instant::now() + PATIENCE).unwrap_or_default();
            return Err(format!("a guest {line} {reason}"));
        }
    }
    Ok(())
}

/// By a module that was deployed.
fn blink(stage: &mut Stage<'_>) -> Result {
    answer(stage.cluster, &["deploy", &in_root("functions/lights.wasm").to_string_lossy()])?;
    let all = "{\"guest-1\": null, \"guest-2\": null, \"guest-3\": null}";
    gives(stage.cluster, &format!("lights.morse.s('E').set(each=True, on=\"{LABEL}\")"), all)?;
    for guest in &stage.guests {
        guest.process.line_with("board: led on", PATIENCE)?;
        guest.process.line_with("board: led off", PATIENCE)?;
    }
    Ok(())
}

/// On whichever nodes.
fn examples(stage: &mut Stage<'_>) -> Result {
    for example in seed::examples().iter().filter(|example| !example.name.contains("only built")) {
        gives(stage.cluster, example.source, example.result)?;
    }
    if words(stage.cluster)? == stage.words { Ok(()) } else { Err("guests count other words".into()) }
}

fn words(cluster: &Cluster) -> Result<String> {
    answer(cluster, &["wordcount", &in_root(BENCH_TEXT).to_string_lossy()])
}

/// What ran on the killed guest runs again elsewhere; the sum is exact.
fn kill_in_a_chord(stage: &mut Stage<'_>) -> Result {
    let chord = format!("chord(sleep_ms.s(100, i).set(on=\"{LABEL}\") for i in range(60))(tsum.s())");
    let job = stage.cluster.start_as("chord", stage.cluster.client(&["run", &chord]))?;
    until("a run on guest-2", PATIENCE, || Ok(is_running(stage.cluster, "guest-2").then_some(())))?;
    stage.guests[1].process.kill()?;
    let sum = (0..60).sum::<u32>().to_string();
    expect(&chord, job, &sum)?;
    stage.guests[1] = stage.start(2, "")?;
    gives(stage.cluster, "add.s(1, 1).set(on=\"guest-2\")", "2")
}

/// Neither in time, nor for the server's patience with a silent client.
fn stop_and_go_on(stage: &mut Stage<'_>) -> Result {
    let cluster = stage.cluster;
    let endless = "spin.s(10 ** 15).set(on=\"guest-2\", timeout=1)";
    let job = cluster.start_as("endless", cluster.client(&["run", endless]))?;
    if job.answer(PATIENCE).is_ok() {
        return Err(format!("{endless} gave a result"));
    }
    gives(cluster, "add.s(2, 2).set(on=\"guest-2\")", "4")?;
    let long = "fib.s(35).set(on=\"guest-1\")";
    let job = cluster.start_as("long", cluster.client(&["run", long]))?;
    until("the run of fib", PATIENCE, || Ok(is_running(cluster, "guest-1").then_some(())))?;
    expect(long, job, "9227465")
}

/// With a status that says so; and it tells what memory it needed.
fn leave(stage: &mut Stage<'_>) -> Result {
    answer(stage.cluster, &["drain", "guest-1"])?;
    let process = &mut stage.guests[0].process;
    println!("           guest-1: {}", process.line_with("peak of the heap", PATIENCE)?);
    match process.succeeds(Instant::now() + PATIENCE) {
        Some(true) => Ok(()),
        Some(false) => Err("guest-1 did not leave well".into()),
        None => Err("guest-1 does not end".into()),
    }
}

/// Whether `broccoli nodes` shows that a node runs a task.
fn is_running(cluster: &Cluster, name: &str) -> bool {
    let shown = output(&mut cluster.client(&["nodes"])).unwrap_or_default();
    let row =
        shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|row| row.first() == Some(&name));
    // NAME STATE SLOTS RUNNING
    row.is_some_and(|row| row.get(1) == Some(&"live") && row.get(3) == Some(&"1"))
}

/// Runs a canvas, whose result must be this.
fn gives(cluster: &Cluster, canvas: &str, result: &str) -> Result {
    expect(canvas, cluster.start_as("run", cluster.client(&["run", canvas]))?, result)
}

fn expect(canvas: &str, job: Background, result: &str) -> Result {
    let given = job.answer(PATIENCE).map_err(|error| format!("{canvas}: {error}"))?;
    if given == result { Ok(()) } else { Err(format!("{canvas} gave {given} instead of {result}")) }
}

/// All that a command prints, which must succeed.
fn answer(cluster: &Cluster, args: &[&str]) -> Result<String> {
    output(&mut cluster.client(args)).ok_or_else(|| format!("`broccoli {}` failed", args.join(" ")))
}
