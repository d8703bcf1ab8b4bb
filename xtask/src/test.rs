//! `cargo xtask test`: checks everything that must hold, from the tools to the program for Raspberry Pis. `cargo xtask
//! check` is the short form for each commit. Both end at the first step that fails. Nothing is skipped.
//!
//! This module defines the steps, their names and their order. Most steps are implemented in modules of their own.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::firmware::Chip;
use crate::process::{cargo, command, read_lines, run as run_command};
use crate::{Result, chaos, compute, deny, dist, firmware, fuzz, guests, qemu, sizes, tools};

const USAGE: &str = "usage: cargo xtask test [--only STEP]..., or cargo xtask test --list";

/// A part of the test.
#[derive(Clone, Copy)]
struct Step {
    /// Its name for `--only`.
    name: &'static str,
    /// Its name in the output.
    title: &'static str,
    run: fn(&mut Run) -> Result,
}

const fn step(name: &'static str, title: &'static str, run: fn(&mut Run) -> Result) -> Step {
    Step { name, title, run }
}

const TOOLS: Step = step("tools", "tools", |_| tools::install());
const FORMAT: Step = step("format", "format", |_| format());
const LINTS: Step =
    step("lints", "lints", |_| run_command(&mut cargo("clippy --workspace --all-targets --locked -- -D warnings")));
/// The step with the tests that run on each MQTT server.
const TESTS: Step = step("tests", "tests", |run| run.tally.test(&mut cargo("test --workspace --locked")));

/// All steps, in their order.
const STEPS: &[Step] = &[
    TOOLS,
    FORMAT,
    LINTS,
    step("dependencies", "licences and sources of dependencies", |_| deny::check()),
    step("docs", "documentation", |_| {
        run_command(cargo("doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "-D warnings"))
    }),
    step("no-std", "builds without std, and for wasm32", |_| no_std()),
    step("systems", "code for Windows and macOS", |_| other_systems()),
    step("build", "build of the tests", |_| run_command(&mut cargo("test --workspace --locked --no-run"))),
    TESTS,
    step("seeds", "2,000 seeds of the simulator", |_| {
        run_command(&mut cargo("run --release --locked -p broccoli-sim -- --seeds 2000"))
    }),
    step("chaos", "chaos on real processes, the short run", |_| chaos::run_short()),
    step("guests", "guests: nodes on a microcontroller under QEMU", |_| guests::run(&qemu::Core::ALL)),
    step("many-guests", "16 guests at once", |_| guests::run_many()),
    step("compute", "compute: code for small cores, compared with this machine", |_| compute::run(&qemu::Core::ALL)),
    step("sizes", "sizes of the firmware for QEMU", |_| sizes::run()),
    step("firmware-lints", "lints of the firmware", |_| firmware::lint()),
    step("firmware", "firmware for the ESP32-C6 and the ESP32-C3", Run::build_firmware),
    step("layout", "layout of the firmware for the ESP32 and the ESP32-S3", |_| {
        Chip::XTENSA.into_iter().try_for_each(firmware::lay_out)
    }),
    step("settings", "that firmware with settings, short of the chip", Run::test_firmware),
    step("fuzz-lints", "lints and tests of the fuzz targets", |_| fuzz::lint()),
    step("fuzz", "fuzzing, a short run", |_| fuzz::check()),
    step("dist", "program for Raspberry Pis", Run::build_program),
    step("dist-node", "that program as a node, under qemu", Run::test_program),
];

/// The steps for each commit. They need no server and no other program, and take a few minutes.
const CHECK: &[Step] = &[
    step("components", "rustfmt and clippy", |_| tools::components()),
    FORMAT,
    LINTS,
    step("small", "tests of abi, proto, wasm and run", |run| {
        run.tally.test(&mut cargo("test --locked -p broccoli-abi -p broccoli-proto -p broccoli-wasm -p broccoli-run"))
    }),
    step("core", "tests of core: its own, and the protocol", |run| {
        run.tally.test(&mut cargo("test --locked -p broccoli-core --lib --test protocol"))
    }),
    step("text", "tests of the text form", |run| run.tally.test(&mut cargo("test --locked -p broccoli-text"))),
];

/// Runs the steps that the command line names, by default all, and prints how many tests ran.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run(args: &[String]) -> Result {
    if let [flag] = args
        && flag == "--list"
    {
        STEPS.iter().for_each(|step| println!("{:16}{}", step.name, step.title));
        return Ok(());
    }
    let steps = chosen(args)?;
    let run = Run::through(&steps)?;
    // Only this step runs tests on all servers.
    if steps.iter().any(|step| step.name == TESTS.name) { run.tally.report() } else { run.tally.report_counts() }
}

/// Runs the steps for each commit.
///
/// # Errors
/// As for [`run`].
pub(crate) fn check() -> Result {
    Run::through(CHECK)?.tally.report_counts()
}

/// The steps that `[--only STEP]...` names, after the tools; without arguments all steps.
fn chosen(args: &[String]) -> Result<Vec<Step>> {
    let mut names = vec![TOOLS.name];
    for pair in args.chunks(2) {
        let [flag, name] = pair else { return Err(USAGE.into()) };
        if flag != "--only" {
            return Err(USAGE.into());
        }
        let step = STEPS.iter().find(|step| step.name == name);
        names.push(step.ok_or_else(|| format!("there is no step {name}: cargo xtask test --list names them"))?.name);
    }
    Ok(STEPS.iter().filter(|step| args.is_empty() || names.contains(&step.name)).copied().collect())
}

fn format() -> Result {
    run_command(&mut cargo("fmt --all --check"))?;
    run_command(&mut cargo("fmt --all --check --manifest-path functions/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path fuzz/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path firmware/compute/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path firmware/qemu-virt/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path firmware/qemu-xtensa/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path firmware/esp32/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path firmware/atomics/Cargo.toml"))?;
    run_command(command("rustfmt").args(["--check", "--edition", "2024", "crates/broccoli-cli/template/lib.rs"]))
}

fn no_std() -> Result {
    let chip = "-p broccoli-abi -p broccoli-proto -p broccoli-core -p broccoli-wasm -p broccoli-run";
    run_command(&mut cargo(&format!("build --locked --target {} {chip}", qemu::TARGET)))?;
    run_command(&mut cargo(
        "build --locked --target wasm32-unknown-unknown -p broccoli-proto -p broccoli-core -p broccoli-text",
    ))
}

/// Checks the program, and so the libraries that it uses, for systems on which it is not tested. Nothing is linked.
fn other_systems() -> Result {
    for target in tools::OTHER_SYSTEMS {
        let variable = target.replace('-', "_");
        let mut check = cargo(&format!("check --locked --target {target} -p broccoli-cli"));
        // The build of `ring` calls a C compiler. A check does not need its objects, so `true` replaces the compiler:
        // no C compiler for these systems is required.
        check.env(format!("CC_{variable}"), "true").env(format!("AR_{variable}"), "true").env("SDKROOT", "/");
        run_command(&mut check)?;
    }
    Ok(())
}

/// The results of steps, for later steps and for the report.
#[derive(Default)]
struct Run {
    tally: Tally,
    /// The steps that have run, with their times.
    took: Vec<(&'static str, Duration)>,
    /// The firmware for each chip, packed.
    images: Vec<(Chip, PathBuf)>,
    /// The program for Raspberry Pis.
    program: Option<PathBuf>,
}

impl Run {
    /// Runs steps one after the other, and prints their times.
    fn through(steps: &[Step]) -> Result<Run> {
        let mut run = Run::default();
        let done = steps.iter().try_for_each(|step| run.step(step));
        run.report();
        done.map(|()| run)
    }

    fn step(&mut self, Step { title, run, .. }: &Step) -> Result {
        println!("\n== {title}");
        let start = Instant::now();
        let done = run(self);
        let took = start.elapsed();
        self.took.push((title, took));
        if done.is_ok() {
            println!("== {title}: {:.1} s", took.as_secs_f32());
        }
        done.map_err(|error| format!("\nFAILED: {title}: {error}"))
    }

    fn report(&self) {
        println!();
        for (title, took) in &self.took {
            println!("{:>7.1} s  {title}", took.as_secs_f32());
        }
    }

    fn build_firmware(&mut self) -> Result {
        let build = |chip| firmware::build(chip).map(|image| (chip, image));
        self.images = Chip::RISCV.into_iter().map(build).collect::<Result<_>>()?;
        Ok(())
    }

    fn test_firmware(&mut self) -> Result {
        if self.images.is_empty() {
            self.build_firmware()?;
        }
        for (chip, image) in &self.images {
            firmware::test(*chip, image)?;
            self.tally.passed += 1;
        }
        Ok(())
    }

    fn build_program(&mut self) -> Result {
        self.program = Some(dist::build()?);
        Ok(())
    }

    fn test_program(&mut self) -> Result {
        if self.program.is_none() {
            self.build_program()?;
        }
        self.program.iter().try_for_each(|program| dist::test(program))?;
        self.tally.passed += 1;
        Ok(())
    }
}

/// What test programs have reported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
    embedded: u32,
    mosquitto: u32,
    plain: u32,
}

impl Tally {
    /// Runs `command`, shows what it prints, and counts.
    fn test(&mut self, command: &mut Command) -> Result {
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        for line in child.stdout.take().into_iter().flat_map(read_lines) {
            println!("{line}");
            self.read(&line);
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        match (status.success(), self.failed) {
            (true, 0) => Ok(()),
            (_, failed) => Err(format!("{failed} tests failed")),
        }
    }

    /// Counts one line of libtest's output.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, " passed");
            self.failed += count(counts, " failed");
            self.skipped += count(counts, " ignored");
        } else if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... ok")) {
            self.embedded += u32::from(name.ends_with("::embedded"));
            self.mosquitto += u32::from(name.ends_with("::mosquitto"));
            self.plain += u32::from(name.ends_with("::plain"));
        }
    }

    /// Prints the counts. Each server must have run the same number of tests.
    fn report(&self) -> Result {
        let Self { embedded, mosquitto, plain, .. } = self;
        println!(
            "\n{embedded} tests on the embedded server, {mosquitto} on Mosquitto, {plain} without retained packets"
        );
        self.report_counts()?;
        if embedded != mosquitto || embedded != plain || *embedded == 0 {
            return Err("FAILED: every test of the whole must run on all three servers".into());
        }
        Ok(())
    }

    /// Prints how many tests have passed and failed, on all servers together.
    fn report_counts(&self) -> Result {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.skipped > 0 {
            return Err("FAILED: a test that is ignored tests nothing".into());
        }
        Ok(())
    }
}

/// The number before `what`.
fn count(text: &str, what: &str) -> u32 {
    let before = text.split_once(what).map_or("", |(before, _)| before);
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn output_of_tests_is_counted() {
        let mut tally = Tally::default();
        let output = "running 5 tests
test restart::embedded ... ok
test restart::mosquitto ... ok
test restart::plain ... ok
test other::mosquitto ... FAILED
test plain - should panic ... ok
test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: ok. 10 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        for line in output.lines() {
            tally.read(line);
        }
        assert_eq!(tally, Tally { passed: 13, failed: 1, skipped: 2, embedded: 1, mosquitto: 1, plain: 1 });
    }

    fn names(args: &[&str]) -> Result<Vec<&'static str>> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        chosen(&args).map(|steps| steps.iter().map(|step| step.name).collect())
    }

    #[test]
    fn steps_are_chosen_by_their_names() {
        let all = names(&[]).unwrap();
        assert_eq!((all.len(), all[0]), (STEPS.len(), "tools"));
        assert_eq!(BTreeSet::from_iter(&all).len(), all.len(), "no name is that of two steps");
        assert_eq!(names(&["--only", "fuzz", "--only", "format"]), Ok(vec!["tools", "format", "fuzz"]));
        assert_eq!(names(&["--only", "tools"]), Ok(vec!["tools"]));
        assert_eq!(
            names(&["--only", "nothing"]),
            Err("there is no step nothing: cargo xtask test --list names them".into())
        );
        for args in [&["fuzz"][..], &["--only"], &["--only", "fuzz", "--list"], &["--fuzz", "fuzz"]] {
            assert_eq!(names(args), Err(USAGE.into()), "{args:?}");
        }
    }

    #[test]
    fn a_step_that_fails_ends_the_run() {
        let good = step("good", "good", |run| {
            run.tally.passed += 1;
            Ok(())
        });
        let bad = step("bad", "bad", |_| Err("no".into()));
        assert_eq!(Run::through(&[good, good]).map(|run| run.tally.passed), Ok(2));
        let failed = Run::through(&[good, bad, step("never", "never", |_| unreachable!())]);
        assert_eq!(failed.map(|_| ()), Err("\nFAILED: bad: no".into()));
    }

    #[test]
    fn skipped_or_one_sided_tests_fail() {
        let good = Tally { passed: 6, embedded: 2, mosquitto: 2, plain: 2, ..Tally::default() };
        assert_eq!(good.report(), Ok(()));
        assert!(Tally { skipped: 1, ..good }.report().is_err());
        assert!(Tally { mosquitto: 1, ..good }.report().is_err());
        assert!(Tally { plain: 1, ..good }.report().is_err());
        let some = Tally { mosquitto: 0, embedded: 0, plain: 0, ..good };
        assert!(some.report().is_err());
        assert_eq!(some.report_counts(), Ok(()));
        assert!(Tally { skipped: 1, ..some }.report_counts().is_err());
    }
}
