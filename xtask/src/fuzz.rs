//! `cargo xtask fuzz`: runs the targets in `fuzz/`, guided by coverage, on stable Rust.
//!
//! This module builds the targets, collects their seeds, and prints the table of results. It needs no tool beyond a
//! C++ compiler: each target is libFuzzer, linked with the code that it tests.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::process::{cargo, command, output, replace, run as run_command, target_dir};
use crate::{Result, in_root};

/// Counters at each edge, and the operands of each comparison. libFuzzer uses both.
const INSTRUMENTED: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Cllvm-args=-simplifycfg-branch-fold-threshold=0 \
    --cfg fuzzing";
/// An input that takes longer is a hang. An input with which a target needs more memory is a leak or worse.
const LIMITS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=2048"];
/// Minutes for each target of a long run.
const MINUTES: u64 = 5;
/// Inputs for each target of a short run, which ends after as many seconds in any case.
const SHORT_RUNS: u64 = 20_000;
const SHORT_SECONDS_MAX: u64 = 4;

/// How much work one target does.
#[derive(Clone, Copy)]
enum Length {
    /// From seed 1, and only with the inputs that are kept.
    Short,
    /// Continues where the last long run ended.
    Long { seconds: u64 },
}

/// `[--minutes N] [TARGET...]`: a long run. `--input FILE TARGET`: one input again.
///
/// # Errors
/// A target does not build, or has found something.
pub(crate) fn run(args: &[String]) -> Result {
    if let [flag, input, target] = args
        && flag == "--input"
    {
        build()?;
        return replace(command(program(&known(target)?)?).arg(input));
    }
    let (minutes, names) = match args {
        [flag, minutes, names @ ..] if flag == "--minutes" => {
            let parsed: Option<NonZeroU32> = minutes.parse().ok();
            (parsed.ok_or_else(|| format!("--minutes takes a number from 1, got {minutes:?}"))?.get().into(), names)
        }
        names => (MINUTES, names),
    };
    let chosen: Vec<String> =
        if names.is_empty() { targets()? } else { names.iter().map(|name| known(name)).collect::<Result<_>>()? };
    build()?;
    fuzz(&chosen, Length::Long { seconds: minutes * 60 })
}

/// A short run of every target, the same each time.
///
/// # Errors
/// As for [`run`].
pub(crate) fn check() -> Result {
    build()?;
    fuzz(&targets()?, Length::Short)
}

/// Lints and tests of the directory itself, which is a separate workspace.
///
/// # Errors
/// A warning, or a test that fails.
pub(crate) fn lint() -> Result {
    run_command(cargo_fuzz("clippy")?.args(["--all-targets", "--", "-D", "warnings"]))?;
    run_command(cargo_fuzz("test")?.arg("--lib"))
}

fn fuzz(targets: &[String], length: Length) -> Result {
    let mut reports = Vec::new();
    for target in targets {
        println!("fuzzing {target}");
        reports.push(Report::of(target, length)?);
    }
    println!("\n{}", table(&reports));
    let findings: Vec<_> = reports.iter().filter_map(Report::finding).collect();
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

/// The names of the targets.
fn targets() -> Result<Vec<String>> {
    let files = files(&in_root("fuzz/fuzz_targets"))?;
    Ok(files.iter().filter_map(|file| Some(file.file_stem()?.to_str()?.to_owned())).collect())
}

fn known(name: &str) -> Result<String> {
    let targets = targets()?;
    let found = targets.iter().find(|target| *target == name).cloned();
    found.ok_or_else(|| format!("there is no target {name}; there are {}", targets.join(", ")))
}

fn build() -> Result {
    run_command(&mut cargo_fuzz("build")?)
}

/// A Cargo command for the fuzz targets. Build scripts and macros are not instrumented, because the command names the
/// target machine.
fn cargo_fuzz(subcommand: &str) -> Result<Command> {
    let mut cargo = cargo(subcommand);
    cargo.args(["--release", "--locked", "--manifest-path", "fuzz/Cargo.toml", "--target", &host()?]);
    cargo.arg("--target-dir").arg(folder()?);
    cargo.env("RUSTFLAGS", INSTRUMENTED).env_remove("CARGO_ENCODED_RUSTFLAGS");
    Ok(cargo)
}

fn program(target: &str) -> Result<PathBuf> {
    Ok(folder()?.join(host()?).join("release").join(target))
}

/// The directory where everything is built, and where the corpus of long runs is kept.
fn folder() -> Result<PathBuf> {
    Ok(target_dir()?.join("fuzz"))
}

/// Rust's name of this machine.
fn host() -> Result<String> {
    let version = output(command("rustc").arg("-vV")).unwrap_or_default();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "`rustc -vV` names no host".into())
}

/// The result of one target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    target: String,
    seconds: u64,
    executions: u64,
    /// The number of places in the code that inputs have reached.
    edges: u64,
    new_files: usize,
    /// The input that broke something, and the first line of the message.
    finding: Option<(String, String)>,
}

impl Report {
    fn of(target: &str, length: Length) -> Result<Self> {
        let (mut program, corpus) = prepare(target, length)?;
        let log = folder()?.join(format!("{target}.log"));
        let to = File::create(&log).map_err(|error| cannot_write(&log, &error))?;
        let before = files(&corpus)?.len();
        let start = Instant::now();
        let status = program.stderr(to).stdout(Stdio::null()).status().map_err(|error| error.to_string())?;
        let text = fs::read(&log).map_err(|error| error.to_string())?;
        let mut report = Self::read(target, &String::from_utf8_lossy(&text));
        report.seconds = start.elapsed().as_secs().max(1);
        report.new_files = files(&corpus)?.len().saturating_sub(before);
        if status.success() || report.finding.is_some() {
            return Ok(report);
        }
        Err(format!("{target} ended with {status} without a finding; see {}", log.display()))
    }

    /// Reads what libFuzzer has printed.
    fn read(target: &str, log: &str) -> Self {
        let number = |line: &str| line.trim().split(' ').next().and_then(|word| word.parse().ok());
        let mut report = Self { target: target.into(), ..Self::default() };
        let mut reason = None;
        for line in log.lines() {
            if let Some((_, rest)) = line.split_once(" cov: ") {
                report.edges = number(rest).unwrap_or(report.edges);
            } else if let Some(rest) = line.strip_prefix("stat::number_of_executed_units:") {
                report.executions = number(rest).unwrap_or_default();
            } else if line.contains(" panicked at ") || line.contains("ERROR: libFuzzer: ") {
                reason = reason.or(Some(line));
            } else if let Some((_, path)) = line.split_once("Test unit written to ") {
                report.finding = Some((path.into(), reason.unwrap_or_default().into()));
            }
        }
        report
    }

    fn finding(&self) -> Option<String> {
        let (input, reason) = self.finding.as_ref()?;
        Some(format!("{}: {reason}\n  again: cargo xtask fuzz --input {input} {}", self.target, self.target))
    }
}

/// The program of a target with its arguments, and the folder into which it puts what it finds.
fn prepare(target: &str, length: Length) -> Result<(Command, PathBuf)> {
    let work = folder()?.join(if let Length::Short = length { "short" } else { "corpus" }).join(target);
    if let Length::Short = length {
        remove(&work)?;
    }
    let seeds = folder()?.join("seeds").join(target);
    remove(&seeds)?;
    let artifacts = in_root("fuzz/artifacts").join(target);
    for dir in [&work, &seeds, &artifacts] {
        fs::create_dir_all(dir).map_err(|error| cannot_write(dir, &error))?;
    }
    for (name, content) in self::seeds(target)? {
        let file = seeds.join(name);
        fs::write(&file, content).map_err(|error| cannot_write(&file, &error))?;
    }
    let mut program = command(program(target)?);
    program.arg(&work).arg(in_root("fuzz/corpus").join(target)).arg(&seeds);
    program.args(LIMITS).arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", artifacts.display()));
    let words = in_root("fuzz/dict").join(format!("{target}.dict"));
    if words.exists() {
        program.arg(format!("-dict={}", words.display()));
    }
    match length {
        Length::Long { seconds } => program.arg(format!("-max_total_time={seconds}")),
        Length::Short => program.args([
            "-seed=1".to_owned(),
            format!("-runs={SHORT_RUNS}"),
            format!("-max_total_time={SHORT_SECONDS_MAX}"),
        ]),
    };
    Ok((program, work))
}

/// Inputs that the project has anyway. They stay valid when the code changes.
fn seeds(target: &str) -> Result<Vec<(String, Vec<u8>)>> {
    match target {
        "packet" | "abi" | "json" => golden(""),
        "canvas" => golden("canvas-"),
        "manifest" => golden("manifests"),
        "text" => documented(),
        "module" => modules(),
        _ => Ok(Vec::new()),
    }
}

/// The golden vectors of the wire whose names start with `prefix`.
fn golden(prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let mut vectors = Vec::new();
    for file in files(&in_root("crates/broccoli-proto/tests/golden"))? {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
            vectors.push((name, unhex(&digits)?));
        }
    }
    Ok(vectors)
}

fn unhex(digits: &str) -> Result<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect::<Option<_>>().ok_or_else(|| "a golden vector is not hexadecimal".into())
}

/// Each canvas in the document about them.
fn documented() -> Result<Vec<(String, Vec<u8>)>> {
    let text = fs::read_to_string(in_root("docs/canvas.md")).map_err(|error| error.to_string())?;
    let code = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    let canvases = code.filter(|code| code.contains('(')).enumerate();
    Ok(canvases.map(|(number, code)| (number.to_string(), code.as_bytes().to_vec())).collect())
}

/// The example modules.
fn modules() -> Result<Vec<(String, Vec<u8>)>> {
    let paths = ["tasks.wasm", "types.wasm", "c/hello.wasm"].map(|name| in_root("functions").join(name));
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        fs::read(path).map(|wasm| (name, wasm)).map_err(|error| format!("{}: {error}", path.display()))
    };
    paths.iter().map(read).collect()
}

/// The files of a folder, sorted.
fn files(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<BTreeSet<_>>>();
    paths.map_err(|error| error.to_string())
}

fn remove(dir: &Path) -> Result {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot_write(dir, &error)),
        _ => Ok(()),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// One row for each target, as Markdown.
fn table(reports: &[Report]) -> String {
    let mut table =
        String::from("| target | seconds | executions | a second | edges reached | new files | findings |\n");
    table += "|---|--:|--:|--:|--:|--:|--:|\n";
    for report in reports {
        let Report { target, seconds, executions, edges, new_files, finding } = report;
        let (rate, findings) = (executions / seconds.max(&1), u8::from(finding.is_some()));
        table += &format!("| {target} | {seconds} | {executions} | {rate} | {edges} | {new_files} | {findings} |\n");
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1
#2\tINITED cov: 20 ft: 21 corp: 1/1b exec/s: 0 rss: 28Mb
#80\tNEW    cov: 31 ft: 40 corp: 2/9b lim: 4 exec/s: 0 rss: 28Mb L: 8/8 MS: 1 InsertByte-

thread '<unnamed>' (7) panicked at src/canvas.rs:320:34:
attempt to add with overflow
==7== ERROR: libFuzzer: deadly signal
artifact_prefix='fuzz/artifacts/canvas/'; Test unit written to fuzz/artifacts/canvas/crash-12
stat::number_of_executed_units: 1175
stat::peak_rss_mb:              112
";

    #[test]
    fn output_of_the_fuzzer_is_read() {
        let report = Report::read("canvas", LOG);
        let reason = "thread '<unnamed>' (7) panicked at src/canvas.rs:320:34:";
        let finding = Some(("fuzz/artifacts/canvas/crash-12".to_owned(), reason.to_owned()));
        let expected =
            Report { target: "canvas".into(), seconds: 0, executions: 1175, edges: 31, new_files: 0, finding };
        assert_eq!(report, expected);
        assert!(report.finding().is_some_and(|text| text.ends_with("--input fuzz/artifacts/canvas/crash-12 canvas")));
        assert!(table(&[report]).ends_with("| canvas | 0 | 1175 | 1175 | 31 | 0 | 1 |\n"));
    }

    #[test]
    fn every_target_is_built_and_has_something_to_start_from() {
        let manifest = fs::read_to_string(in_root("fuzz/Cargo.toml")).expect("is there");
        for target in targets().expect("are there") {
            assert!(
                manifest.contains(&format!("name = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"\n")),
                "{target}"
            );
            let kept = files(&in_root("fuzz/corpus").join(&target)).map_or(0, |files| files.len());
            assert!(kept + seeds(&target).expect("are read").len() > 0, "{target}");
        }
    }
}
