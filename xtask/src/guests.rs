//! Nodes on microcontrollers, beside one on this machine, in one cluster, with both MQTT servers.
//!
//! This module has the list of what must hold, and the order of the checks. First there are a PC and three QEMU
//! guests. Then the guests are alone, and have their modules from their flash or from each other.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::chaos::cluster::{Cluster, Programs, Server, until};
use crate::process::{Background, output};
use crate::qemu::{Core, Firmware, Guest, LABEL, Place};
use crate::{BENCH_TEXT, Result, in_root};

#[path = "../../crates/broccoli-node/tests/data/seed.rs"]
// The demo and this module read fewer fields than the tests.
#[allow(dead_code)]
mod seed;

const GUESTS: usize = 3;
/// How many guests there are with `--many`, and how many tasks they run.
const MANY: usize = 16;
const MANY_TASKS: usize = 2_000;
/// How many calls are measured, one after the other.
const CALLS: usize = 200;
/// Size of a module that does not fit beside a running task, and of one that does not fit at all.
const PATIENT_BYTES: usize = 42_000;
const HUGE_BYTES: usize = 60_000;
/// Longest time of any step. QEMU interprets, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What must hold, one after the other.
const CHECKS: [(&str, Check); 17] = [
    ("three guests join, and get a module when they need it", join),
    ("one broadcast blinks on the board of each node", blink),
    ("a deployed module blinks, too", morse),
    ("the roll call names all nodes, and pins are set and read", roll_call),
    ("a task reboots a guest where that is allowed", reboot),
    ("the examples of the first Broccoli, and the word count", examples),
    ("a guest is killed in the middle of a chord, and comes back", kill_in_a_chord),
    ("a task that never ends is stopped, a long one disturbs nobody", stop_and_go_on),
    ("more results than there is memory for", many_results),
    ("what a guest is too small for runs on the PC", too_small),
    ("one call after the other", calls),
    ("a module that needs too much memory is refused with the sizes", too_large),
    ("the third version of a module works as the first", versions),
    ("alone after a restart, a guest has its modules from flash", from_flash),
    ("a late guest gets a module from another guest", late),
    ("a task on a guest submits a canvas, which guests alone finish", submitted_by_a_task),
    ("a guest that is asked to leave does", leave),
];

type Check = fn(&mut Stage<'_>) -> Result;

/// A cluster and its guests.
struct Stage<'c> {
    cluster: &'c Cluster,
    /// Guests take them in turn.
    firmware: &'c [Firmware],
    place: Place,
    /// `None` after it has ended.
    pc: Option<Background>,
    guests: Vec<Guest>,
    /// The word counts that the PC has computed alone.
    words: String,
}

/// Builds what is needed, and runs all checks on one server after the other. The guests have these kinds of cores, in
/// turn.
///
/// # Errors
/// The first check that fails.
pub(crate) fn run(cores: &[Core]) -> Result {
    let programs = Programs::build(false)?;
    let firmware = cores.iter().map(|core| core.build()).collect::<Result<Vec<_>>>()?;
    // The table of `cargo xtask compute` has the atomic operations of the Xtensa core.
    for firmware in firmware.iter().filter(|firmware| Core::RISCV.contains(&firmware.core)) {
        print!("core {}: {}", firmware.core.name(), firmware.counted("atomics")?);
    }
    for server in Server::ALL {
        let cluster = Cluster::new(&programs, server, "guests")?;
        on_a_cluster(&cluster, &firmware).map_err(|error| format!("{}: {error}", server.name()))?;
    }
    Ok(())
}

/// Many guests run one group. Each of them must take part. Also measures calls to one of them.
///
/// # Errors
/// If a guest takes no part, or another check fails.
pub(crate) fn run_many() -> Result {
    let programs = Programs::build(false)?;
    let firmware = [Core::Imac.build()?];
    let cluster = Cluster::new(&programs, Server::Mosquitto, "many")?;
    let _server = cluster.start_server()?;
    // The PC holds the jobs and runs nothing.
    let mut stage = Stage::new(&cluster, &firmware, cluster.start_origin("pc", &["--data", "pc"])?)?;
    answer(&cluster, &["deploy", "--examples"])?;
    stage.guests = (1..=MANY).map(|number| stage.start(number, "")).collect::<Result<_>>()?;
    for guest in &stage.guests {
        guest.process.line_with("ready", PATIENCE)?;
    }
    for number in 1..=MANY {
        sums(&cluster, &format!("guest-{number}"), 1)?;
    }
    let before = tasks_run(&cluster)?;
    let start = Instant::now();
    sums(&cluster, LABEL, MANY_TASKS)?;
    let took = start.elapsed();
    let shares: Vec<u64> = tasks_run(&cluster)?.iter().zip(&before).map(|(after, before)| after - before).collect();
    println!("{MANY_TASKS} tasks on {MANY} guests: {:.2} s; tasks of each: {shares:?}", took.as_secs_f32());
    if shares.len() != MANY || shares.contains(&0) {
        return Err("not every guest has taken part".into());
    }
    calls(&mut stage)?;
    stage.guests.iter().try_for_each(was_calm)
}

/// One guest gets a module, runs a batch and the word count, and leaves. Returns its last line, which contains its
/// memory use.
///
/// # Errors
/// The first check that fails.
pub(crate) fn life_of_one(cluster: &Cluster, firmware: &Firmware) -> Result<String> {
    let _server = cluster.start_server()?;
    // The PC holds the jobs and runs nothing.
    let firmware = [firmware.clone()];
    let mut stage = Stage::new(cluster, &firmware, cluster.start_origin("pc", &["--data", "pc"])?)?;
    answer(cluster, &["deploy", "--examples"])?;
    stage.guests = vec![stage.start(1, "resident=yes\n")?];
    let guest = &stage.guests[0];
    guest.process.line_with("ready", PATIENCE)?;
    sums(cluster, "guest-1", 100)?;
    words(cluster)?;
    answer(cluster, &["drain", "guest-1"])?;
    guest.process.line_with("peak of the heap", PATIENCE)
}

/// The number of tasks that each guest has run, by name.
fn tasks_run(cluster: &Cluster) -> Result<Vec<u64>> {
    let nodes = answer(cluster, &["nodes", "--json"])?;
    // In the output, the name of a node comes before its number of tasks.
    let guests = nodes.split("\"name\":\"guest-").skip(1);
    let number = |guest: &str| {
        let (_, rest) = guest.split_once("\"tasks_run\":")?;
        rest.split(|end: char| !end.is_ascii_digit()).next()?.parse().ok()
    };
    guests.map(number).collect::<Option<_>>().ok_or_else(|| format!("a guest is silent: {nodes}"))
}

fn on_a_cluster(cluster: &Cluster, firmware: &[Firmware]) -> Result {
    let _server = cluster.start_server()?;
    let url = cluster.url(cluster.addr);
    let pc = ["node", "--name", "pc", "--slots", "1", "--data", "pc", "--board", "simulated", "--server", &url];
    let mut stage = Stage::new(cluster, firmware, cluster.start_node("pc", cluster.broccoli(&pc))?)?;
    println!("{}", url.rsplit_once('@').map_or(&*url, |(_, address)| address));
    for (what, check) in CHECKS {
        let start = Instant::now();
        check(&mut stage).map_err(|error| format!("{what}: {error}"))?;
        stage.guests.iter().try_for_each(was_calm).map_err(|error| format!("{what}: {error}"))?;
        println!("{:>7.1} s  {what}", start.elapsed().as_secs_f32());
    }
    Ok(())
}

impl<'c> Stage<'c> {
    fn new(cluster: &'c Cluster, firmware: &'c [Firmware], pc: Background) -> Result<Stage<'c>> {
        let url = cluster.url(cluster.addr);
        let place = Place::new(Path::new(&cluster.file()), Some(&url))?;
        Ok(Stage { cluster, firmware, place, pc: Some(pc), guests: Vec::new(), words: String::new() })
    }

    /// Starts a guest. It keeps its flash if it has started before.
    fn start(&self, number: usize, more: &str) -> Result<Guest> {
        let name = format!("guest-{number}");
        let flash = self.cluster.dir().join(format!("{name}.flash"));
        Guest::start(&self.firmware[(number - 1) % self.firmware.len()], &self.place, &name, more, Some(&flash))
    }
}

fn join(stage: &mut Stage<'_>) -> Result {
    answer(stage.cluster, &["deploy", "--examples"])?;
    stage.words = words(stage.cluster)?;
    // The last one takes jobs of others, so that it can be asked to leave. Clients prefer the PC, which has a disk.
    let more = |number| if number == GUESTS { "resident=yes\nreboot=yes\n" } else { "" };
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
    // These tasks end faster than they are acknowledged.
    sums(stage.cluster, "guest-1", 2_000)
}

/// Arguments of 60 KB run elsewhere without a routing. Routed to a guest, they fail with its limit.
fn too_small(stage: &mut Stage<'_>) -> Result {
    let expected = format!("[{}]", ["199990000"; 10].join(", "));
    gives(stage.cluster, "tsum.map([range(20000) for i in range(10)])", &expected)?;
    let alone = "tsum.s(range(20000)).set(on=\"guest-1\", retries=5)";
    let said = stage.cluster.start_as("alone", stage.cluster.client(&["run", alone]))?.answer(PATIENCE);
    if said.is_ok() {
        return Err(format!("{alone} gave a result"));
    }
    sums(stage.cluster, "guest-1", 10)
}

/// This is measured, not judged, because the machine may be busy.
fn calls(stage: &mut Stage<'_>) -> Result {
    let measured = stage.cluster.start_as("calls", stage.cluster.round_trips("guest-1", CALLS))?;
    println!("           {}", measured.answer(PATIENCE)?);
    Ok(())
}

fn too_large(stage: &mut Stage<'_>) -> Result {
    if answer(stage.cluster, &["deploy", &padded(stage.cluster, "huge", HUGE_BYTES)?]).is_ok() {
        return Err("it is taken".into());
    }
    let line = stage.guests[0].process.line_with("module huge is refused", PATIENCE)?;
    // Four times its size, and a stack.
    let need = format!("the module needs about {} bytes of memory, there are ", HUGE_BYTES * 4 + 8_192);
    if line.contains(&need) { sums(stage.cluster, "guest-1", 10) } else { Err(line) }
}

/// Writes a module with the functions of `lights`. A custom section makes it larger.
fn padded(cluster: &Cluster, name: &str, len: usize) -> Result<String> {
    let wasm = in_root("functions/lights.wasm");
    let file = cluster.dir().join(format!("{name}.wasm"));
    let cannot = |error| format!("{}: {error}", file.display());
    let mut bytes = fs::read(&wasm).map_err(cannot)?;
    // A custom section: 0, its length in three bytes of LEB128, the length of its name, its name, anything.
    let content = len - bytes.len() - 4;
    let leb = [content & 0x7f | 0x80, content >> 7 & 0x7f | 0x80, content >> 14].map(|byte| byte as u8);
    bytes.extend([&[0][..], &leb, b"\x03pad"].concat());
    bytes.resize(len, 0);
    fs::write(&file, bytes).map_err(cannot)?;
    Ok(file.to_string_lossy().into_owned())
}

/// Each version has all the memory once the previous ones are no longer called.
fn versions(stage: &mut Stage<'_>) -> Result {
    for _ in 0..3 {
        answer(stage.cluster, &["deploy", "--examples"])?;
        sums(stage.cluster, "guest-1", 100)?;
        stage.guests[0].process.line_with("module tasks is installed", PATIENCE)?;
    }
    Ok(())
}

/// No other node that has the module is online.
fn from_flash(stage: &mut Stage<'_>) -> Result {
    stage.guests.iter_mut().try_for_each(|guest| guest.process.kill())?;
    stage.pc.take().map_or(Ok(()), |mut pc| pc.kill())?;
    let guest = stage.start(1, "resident=yes\n")?;
    guest.process.line_with("module tasks found in flash", PATIENCE)?;
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

/// Only the guest that has just restarted has it.
fn late(stage: &mut Stage<'_>) -> Result {
    let guest = stage.start(GUESTS + 1, "")?;
    stage.guests.push(guest);
    sums(stage.cluster, &format!("guest-{}", GUESTS + 1), 100)?;
    stage.guests[1].process.line_with("module tasks is installed", PATIENCE).map(drop)
}

/// A node adds many numbers.
fn sums(cluster: &Cluster, name: &str, count: usize) -> Result {
    let sums: Vec<String> = (0..count).map(|number| (2 * number).to_string()).collect();
    let canvas = format!("group(add.s(i, i) for i in range({count})).set(on=\"{name}\")");
    gives(cluster, &canvas, &format!("[{}]", sums.join(", ")))
}

/// Checks that a guest has not panicked. It would have restarted, and nothing else would show it.
fn was_calm(guest: &Guest) -> Result {
    while let Some(line) = guest.process.line(Instant::now()) {
        if line.contains("panicked") {
            let reason = guest.process.line(Instant::now() + PATIENCE).unwrap_or_default();
            return Err(format!("a guest {line} {reason}"));
        }
    }
    Ok(())
}

/// With a built-in function.
fn blink(stage: &mut Stage<'_>) -> Result {
    gives(stage.cluster, "board.blink.s(2, 20).set(each=True, on=\"led\")", &each(&["null"; GUESTS + 1]))?;
    let log = stage.cluster.dir().join("logs/pc");
    until("a blink of the PC", PATIENCE, || {
        let said = fs::read_to_string(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        Ok((said.matches("board: LED on").count() == 2 && said.matches("board: LED off").count() == 2).then_some(()))
    })?;
    stage.guests.iter().try_for_each(|guest| {
        let expected = ["board: LED on", "board: LED off"].repeat(2);
        expected.iter().try_for_each(|line| guest.process.line_with(line, PATIENCE).map(drop))
    })
}

fn morse(stage: &mut Stage<'_>) -> Result {
    answer(stage.cluster, &["deploy", &in_root("functions/lights.wasm").to_string_lossy()])?;
    gives(stage.cluster, "lights.morse.s('E').set(on=\"guest-1\")", "null")?;
    let process = &stage.guests[0].process;
    process.line_with("board: LED on", PATIENCE)?;
    process.line_with("board: LED off", PATIENCE).map(drop)
}

fn roll_call(stage: &mut Stage<'_>) -> Result {
    gives(stage.cluster, "sys.ping.s().set(each=True)", &each(&["\"pong\""; GUESTS + 1]))?;
    let vitals = answer(stage.cluster, &["run", &format!("sys.vitals.s().set(each=True, on=\"{LABEL}\")")])?;
    if vitals.matches("\"memory_bytes\": 212992").count() != GUESTS {
        return Err(format!("the vitals are {vitals}"));
    }
    gives(stage.cluster, "board.gpio_write.s(5, True).set(on=\"guest-1\")", "null")?;
    gives(stage.cluster, "board.gpio_read.map([4, 5]).set(on=\"guest-1\")", "[false, true]")
}

fn reboot(stage: &mut Stage<'_>) -> Result {
    if answer(stage.cluster, &["run", "sys.reboot.s().set(on=\"guest-1\")"]).is_ok() {
        return Err("guest-1 may be rebooted".into());
    }
    gives(stage.cluster, "sys.reboot.s().set(on=\"guest-3\")", "null")?;
    let process = &stage.guests[GUESTS - 1].process;
    process.line_with("module tasks found in flash", PATIENCE)?;
    process.line_with("ready", PATIENCE)?;
    gives(stage.cluster, "add.s(3, 3).set(on=\"guest-3\")", "6")
}

/// The result of `each`: a JSON object with the guests and the PC, and their results.
fn each(results: &[&str]) -> String {
    let guests = (1..=GUESTS).map(|number| format!("guest-{number}"));
    let items = guests.chain(["pc".to_owned()]).zip(results).map(|(node, result)| format!("\"{node}\": {result}"));
    format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
}

/// On any nodes.
fn examples(stage: &mut Stage<'_>) -> Result {
    for example in seed::examples().iter().filter(|example| !example.name.contains("only built")) {
        gives(stage.cluster, example.source, example.result)?;
    }
    if words(stage.cluster)? == stage.words { Ok(()) } else { Err("guests count other words".into()) }
}

fn words(cluster: &Cluster) -> Result<String> {
    answer(cluster, &["wordcount", &in_root(BENCH_TEXT).to_string_lossy()])
}

/// The tasks of the killed guest run again on other nodes. The sum is exact.
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

/// A long task delays no other task, and the server does not disconnect the guest as a silent client.
fn stop_and_go_on(stage: &mut Stage<'_>) -> Result {
    let cluster = stage.cluster;
    let endless = "spin.s(10 ** 15).set(on=\"guest-2\", timeout=1)";
    let job = cluster.start_as("endless", cluster.client(&["run", endless]))?;
    if job.answer(PATIENCE).is_ok() {
        return Err(format!("{endless} gave a result"));
    }
    gives(cluster, "add.s(2, 2).set(on=\"guest-2\")", "4")?;
    let long = "fib.s(34).set(on=\"guest-1\")";
    let job = cluster.start_as("long", cluster.client(&["run", long]))?;
    until("the run of fib", PATIENCE, || Ok(is_running(cluster, "guest-1").then_some(())))?;
    // The module waits until the run has freed its memory.
    answer(cluster, &["deploy", &padded(cluster, "patient", PATIENT_BYTES)?])?;
    expect(long, job, "5702887")?;
    stage.guests[0].process.line_with("module patient is installed", PATIENCE).map(drop)
}

/// The client that has submitted it is gone, and so is the PC. Only two guests and the server are left.
fn submitted_by_a_task(stage: &mut Stage<'_>) -> Result {
    answer(stage.cluster, &["deploy", &in_root("functions/flow.wasm").to_string_lossy()])?;
    gives(stage.cluster, "flow.squares.s(10, \"guest-1\", 1000).set(on=\"guest-1\")", "null")?;
    stage.guests[0].process.line_with("task: 285", PATIENCE).map(drop)
}

/// The guest ends with the right exit status, and reports its memory use.
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

/// Runs a canvas and checks its result.
fn gives(cluster: &Cluster, canvas: &str, result: &str) -> Result {
    expect(canvas, cluster.start_as("run", cluster.client(&["run", canvas]))?, result)
}

fn expect(canvas: &str, job: Background, result: &str) -> Result {
    let given = job.answer(PATIENCE).map_err(|error| format!("{canvas}: {error}"))?;
    if given == result { Ok(()) } else { Err(format!("{canvas} gave {given} instead of {result}")) }
}

/// The output of a command, which must succeed.
fn answer(cluster: &Cluster, args: &[&str]) -> Result<String> {
    output(&mut cluster.client(args)).ok_or_else(|| format!("`broccoli {}` failed", args.join(" ")))
}
