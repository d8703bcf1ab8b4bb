//! `cargo xtask test`: checks everything that must hold, from the tools to the program for Raspberry Pis. It ends at
//! the first step that fails. Nothing is skipped.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{cargo, command, read_lines, run as run_command};
use crate::{Result, chaos, dist, firmware, fuzz, guests, qemu, sizes, tools};

/// Runs all steps and says how many tests ran.
///
/// # Errors
/// The first step that fails.
pub(crate) fn run() -> Result {
    let mut steps = Steps::default();
    let mut tally = Tally::default();
    steps.run("tools", tools::install)?;
    steps.run("format", format)?;
    steps.run("lints", || run_command(&mut cargo("clippy --workspace --all-targets --locked -- -D warnings")))?;
    steps.run("documentation", || {
        run_command(cargo("doc --workspace --no-deps --locked").env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    steps.run("builds without std", || {
        let chip = "-p broccoli-abi -p broccoli-proto -p broccoli-core -p broccoli-wasm -p broccoli-run";
        run_command(&mut cargo(&format!("build --locked --target {} {chip}", qemu::TARGET)))?;
        run_command(&mut cargo("build --locked --target wasm32-unknown-unknown -p broccoli-proto -p broccoli-core"))
    })?;
    steps.run("build of the tests", || run_command(&mut cargo("test --workspace --locked --no-run")))?;
    steps.run("tests", || tally.test(&mut cargo("test --workspace --locked")))?;
    steps.run("2,000 seeds of the simulator", || {
        run_command(&mut cargo("run --release --locked -p broccoli-sim -- --seeds 2000"))
    })?;
    steps.run("chaos on real processes, the short run", chaos::run_short)?;
    steps.run("guests: nodes on a microcontroller under QEMU", guests::run)?;
    steps.run("16 guests at once", guests::run_many)?;
    steps.run("sizes of the firmware for QEMU", sizes::run)?;
    steps.run("lints of the firmware", firmware::lint)?;
    let image = steps.run("firmware for the ESP32-C6", firmware::build)?;
    steps.run("that firmware with settings, short of the chip", || firmware::test(&image))?;
    tally.passed += 1;
    steps.run("lints and tests of the fuzz targets", fuzz::lint)?;
    steps.run("fuzzing, a short run", fuzz::check)?;
    let program = steps.run("program for Raspberry Pis", dist::build)?;
    steps.run("that program as a node, under qemu", || dist::test(&program))?;
    tally.passed += 1;
    steps.report();
    tally.report()
}

fn format() -> Result {
    run_command(&mut cargo("fmt --all --check"))?;
    run_command(&mut cargo("fmt --all --check --manifest-path functions/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path fuzz/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path firmware/qemu-virt/Cargo.toml"))?;
    run_command(&mut cargo("fmt --check --manifest-path firmware/esp32/Cargo.toml"))?;
    run_command(command("rustfmt").args(["--check", "--edition", "2024", "crates/broccoli-cli/template/lib.rs"]))
}

/// The steps that have run, and how long each took.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    /// Runs a step, and returns its result.
    fn run<T>(&mut self, title: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n== {title}");
        let start = Instant::now();
        let done = step();
        let took = start.elapsed();
        self.0.push((title, took));
        match &done {
            Ok(_) => println!("== {title}: {:.1} s", took.as_secs_f32()),
            Err(_) => self.report(),
        }
        done.map_err(|error| format!("\nFAILED: {title}: {error}"))
    }

    fn report(&self) {
        println!();
        for (title, took) in &self.0 {
            println!("{:>7.1} s  {title}", took.as_secs_f32());
        }
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

    fn report(&self) -> Result {
        let Self { embedded, mosquitto, plain, .. } = self;
        println!(
            "\n{embedded} tests on the embedded server, {mosquitto} on Mosquitto, {plain} without retained packets"
        );
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.skipped > 0 {
            return Err("FAILED: a test that is ignored tests nothing".into());
        }
        if embedded != mosquitto || embedded != plain || *embedded == 0 {
            return Err("FAILED: every test of the whole must run on all three servers".into());
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
        output.lines().for_each(|line| tally.read(line));
        assert_eq!(tally, Tally { passed: 13, failed: 1, skipped: 2, embedded: 1, mosquitto: 1, plain: 1 });
    }

    #[test]
    fn skipped_or_one_sided_tests_fail() {
        let good = Tally { passed: 6, embedded: 2, mosquitto: 2, plain: 2, ..Tally::default() };
        assert_eq!(good.report(), Ok(()));
        assert!(Tally { skipped: 1, ..good }.report().is_err());
        assert!(Tally { mosquitto: 1, ..good }.report().is_err());
        assert!(Tally { plain: 1, ..good }.report().is_err());
        assert!(Tally { mosquitto: 0, embedded: 0, plain: 0, ..good }.report().is_err());
    }
}
