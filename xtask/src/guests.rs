//! Nodes on a microcontroller, beside one on this machine, in one cluster: on both servers.
//!
//! Three guests of QEMU and a PC blink, run the seed's examples and a word count; a guest is killed in the middle
//! of a chord and comes back; a task that never ends is stopped; a long one keeps nobody waiting; a guest
//! leaves well, and says how much memory it needed.

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

/// Builds what is needed and runs everything on one server after the other.
///
/// # Errors
/// The first thing that is not as it must be.
pub(crate) fn run() -> Result {
    let programs = Programs::build(false)?;
    let firmware = qemu::build()?;
    for server in Server::ALL {
        let start = Instant::now();
        let cluster = Cluster::new(&programs, server, "guests")?;
        on_a_cluster(&cluster, &firmware).map_err(|error| format!("{}: {error}", server.name()))?;
        println!("{}: {:.1} s", server.name(), start.elapsed().as_secs_f32());
    }
    Ok(())
}

fn on_a_cluster(cluster: &Cluster, firmware: &Path) -> Result {
    let _server = cluster.start_server()?;
    let url = cluster.url(cluster.addr);
    let pc = ["node", "--name", "pc", "--slots", "1", "--data", "pc", "--server", &url];
    let _pc = cluster.start_node("pc", cluster.broccoli(&pc))?;
    answer(cluster, &["deploy", "--examples"])?;
    let text = in_root(BENCH_TEXT).to_string_lossy().into_owned();
    let words = answer(cluster, &["wordcount", &text])?;

    let place = Place::new(Path::new(&cluster.file()), Some(&url))?;
    // The last one takes jobs of others, so that it can be asked to leave. Clients prefer the PC, which has a disk.
    let more = |number| if number == GUESTS { "resident=yes\n" } else { "" };
    let start = |number| Guest::start(firmware, &place, &format!("guest-{number}"), more(number));
    let mut guests = (1..=GUESTS).map(start).collect::<Result<Vec<_>>>()?;
    for (number, guest) in (1..).zip(&guests) {
        guest.process.line_with("ready", PATIENCE)?;
        sums(cluster, &format!("guest-{number}"), 100)?;
        // It gets the module when the first task wants it, from the PC or from another guest.
        guest.process.line_with("module tasks is installed", PATIENCE)?;
    }
    blink(cluster, &guests)?;
    examples(cluster)?;
    if answer(cluster, &["wordcount", &text])? != words {
        return Err("guests count other words".into());
    }
    kill_in_a_chord(cluster, &mut guests[1])?;
    guests[1] = start(2)?;
    gives(cluster, "add.s(1, 1).set(on=\"guest-2\")", "2")?;
    stop_and_go_on(cluster)?;
    // More results than there is memory for, of tasks that end faster than they are acknowledged.
    sums(cluster, "guest-1", 2_000)?;
    guests.iter().try_for_each(was_calm)?;
    leave(cluster, &mut guests[GUESTS - 1])
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

/// One command blinks on the board of each guest.
fn blink(cluster: &Cluster, guests: &[Guest]) -> Result {
    answer(cluster, &["deploy", &in_root("functions/lights.wasm").to_string_lossy()])?;
    let all = "{\"guest-1\": null, \"guest-2\": null, \"guest-3\": null}";
    gives(cluster, &format!("lights.morse.s('E').set(each=True, on=\"{LABEL}\")"), all)?;
    for guest in guests {
        guest.process.line_with("board: led on", PATIENCE)?;
        guest.process.line_with("board: led off", PATIENCE)?;
    }
    Ok(())
}

/// The examples of the document that Broccoli began with, on whichever nodes.
fn examples(cluster: &Cluster) -> Result {
    for example in seed::examples().iter().filter(|example| !example.name.contains("only built")) {
        gives(cluster, example.source, example.result)?;
    }
    Ok(())
}

/// What ran on the killed guest runs again elsewhere; the sum is exact.
fn kill_in_a_chord(cluster: &Cluster, guest: &mut Guest) -> Result {
    let chord = format!("chord(sleep_ms.s(100, i).set(on=\"{LABEL}\") for i in range(60))(tsum.s())");
    let job = cluster.start_as("chord", cluster.client(&["run", &chord]))?;
    until("a run on guest-2", PATIENCE, || Ok(is_running(cluster, "guest-2").then_some(())))?;
    guest.process.kill()?;
    let sum = (0..60).sum::<u32>().to_string();
    expect(&chord, job, &sum)
}

/// A task that does not end is stopped in time, its slot goes on; and one that takes longer than the
/// server's patience with a silent client disturbs nobody.
fn stop_and_go_on(cluster: &Cluster) -> Result {
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

/// A guest that is asked to leave does, with a status that says so, and tells what memory it needed.
fn leave(cluster: &Cluster, guest: &mut Guest) -> Result {
    answer(cluster, &["drain", "guest-3"])?;
    println!("guest-3: {}", guest.process.line_with("peak of the heap", PATIENCE)?);
    match guest.process.succeeds(Instant::now() + PATIENCE) {
        Some(true) => Ok(()),
        Some(false) => Err("guest-3 did not leave well".into()),
        None => Err("guest-3 does not end".into()),
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
