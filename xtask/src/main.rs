//! Developer commands: `cargo xtask demo|check|test|dist|…`; without one it lists them.
//!
//! This crate knows which tools and steps each command needs, and in which order. It never depends on the project's
//! own crates, so it builds in seconds on a fresh clone.
#![forbid(unsafe_code)]

mod chaos;
mod compute;
mod deny;
mod dist;
mod firmware;
mod fuzz;
mod guests;
mod imc;
mod metadata;
mod mutants;
mod notices;
mod package;
mod process;
mod qemu;
mod scale;
mod sizes;
mod soak;
mod test;
mod tools;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use process::{cargo, replace, run, target_dir};

/// An error, in a line or two that say what to do.
type Result<T = ()> = std::result::Result<T, String>;

const USAGE: &str = "usage: cargo xtask COMMAND

  demo [ARG...]        build the release and run `broccoli demo`
  qemu [--core imac|imc|xtensa] [--nodes N] [--flash DIR]
                       build the firmware for a machine of QEMU with this core and start N nodes on it, one unless
                       told, in the cluster of the file BROCCOLI_CLUSTER at the server BROCCOLI_SERVER (defaults:
                       as for `broccoli`); they end with this program. DIR keeps their flash over runs
  guests [--core NAME] test such nodes, of each kind of core unless told, beside one on this machine, on both servers
  guests --many        have 16 of them run a group of 2,000 tasks, and measure calls to one
  compute [--core imac|xtensa]
                       compare what programs on such cores compute with what this machine computes
  sizes                check what the firmware for QEMU takes of flash, memory and instructions
  firmware --chip esp32c6|esp32c3|esp32|esp32s3 [--partitions NAME] [--test | --layout]
                       build the firmware for this chip and pack it into dist/broccoli-CHIP.bin; NAME is that of a file
                       in firmware/esp32/partitions; --test writes settings into it. The esp32 and the esp32s3 need
                       Espressif's tools (espup); without them, --layout compiles and shows what fits
  check                what to run before each commit, in a few minutes: format, lints, and the tests that need
                       neither a server nor another program
  test                 install what tests need, then check and test everything
  test --only STEP [--only STEP]...
                       install it, then run these steps alone
  test --list          the steps, by their names
  dist [--test]        build a static program for 64-bit Raspberry Pis; --test runs it under qemu as a node
  notices              write the licences of all that is in that program and in the firmware into dist/*.THIRD-PARTY.md,
                       as dist and firmware do
  package              pack and build each crate as it would be published, and install the command from the packages
  mutants [NAME...]    apply each deliberate defect to a copy and show which test finds it
  mutants --check      only check that the defects still apply
  fuzz [--minutes N] [TARGET...]
                       fuzz, guided by coverage; N minutes for each target, 5 unless told
  fuzz --input FILE TARGET
                       run one input again
  bench [--json FILE]  build what is carried to other machines and measure it
  chaos [--built] [--server embedded|mosquitto|both] [--only NAME]...
                       kill, stop and cut off real processes in the middle of jobs; writes docs/chaos.md.
                       --built takes the programs that are there
  chaos --short        the same in less than a minute, as tests do it: three kills, the embedded server
  soak [--built] [--minutes N] [--seed N]
                       mixed jobs, and a kill every few seconds; 30 minutes unless told; writes docs/soak.md
  scale [--built] [--debug] [--nodes N] [--server embedded|mosquitto|both]
                       start N real nodes, 1,000 unless told, on each server and measure them; writes docs/scale.md";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", &[][..]),
    };
    let done = match (command, rest) {
        ("demo", args) => demo(args),
        ("qemu", args) => qemu::run(args),
        ("firmware", args) => firmware::run(args),
        ("guests", []) => guests::run(&qemu::Core::ALL),
        ("guests", [flag]) if flag == "--many" => guests::run_many(),
        ("guests", [flag, core]) if flag == "--core" => qemu::Core::parse(core).and_then(|core| guests::run(&[core])),
        ("compute", []) => compute::run(&qemu::Core::ALL),
        ("compute", [flag, core]) if flag == "--core" => qemu::Core::parse(core).and_then(|core| compute::run(&[core])),
        ("sizes", []) => sizes::run(),
        ("check", []) => test::check(),
        ("test", args) => test::run(args),
        ("dist", []) => dist::build().map(|path| println!("{}", path.display())),
        ("dist", [flag]) if flag == "--test" => dist::build().and_then(|path| dist::test(&path)),
        ("package", []) => package::run(),
        ("notices", []) => notices::run(),
        ("mutants", [flag]) if flag == "--check" => mutants::check(),
        ("mutants", names) => mutants::run(names),
        ("fuzz", args) => fuzz::run(args),
        ("bench", args) => bench(args),
        ("chaos", args) => chaos::run(args),
        ("soak", args) => soak::run(args),
        ("scale", args) => scale::run(args),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn demo(args: &[String]) -> Result {
    run(&mut cargo("build --release --locked -p broccoli-cli"))?;
    replace(Command::new(target_dir()?.join("release/broccoli")).arg("demo").args(args))
}

fn bench(args: &[String]) -> Result {
    // In one call, so that what both need is built once.
    run(&mut cargo("build --profile dist --locked -p broccoli-cli -p broccoli-node --bin broccoli --example bench"))?;
    let built = target_dir()?.join("dist");
    let mut bench = Command::new(built.join("examples/bench"));
    replace(bench.arg(built.join("broccoli")).arg(in_root(BENCH_TEXT)).args(args))
}

/// The text whose words the benchmark counts.
const BENCH_TEXT: &str = "crates/broccoli-cli/data/fables-2190-words.txt";

/// The clone that this program was built from.
fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A path in the clone.
fn in_root(path: &str) -> PathBuf {
    root().join(path)
}
