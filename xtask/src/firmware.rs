//! `cargo xtask firmware`: firmware for real chips, built and packed into one image that `broccoli flash` writes.
//!
//! None of it has run on hardware. It is compiled, linked, packed and checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::Home;
use crate::process::{cargo, command, run as run_command, target_dir};
use crate::{Result, imc, in_root, notices, qemu, tools};

/// Where the settings are: see `firmware/esp32/partitions.csv`.
const SETTINGS: std::ops::Range<usize> = 0xb000..0xc000;
/// Where the program is, and the size of its slot: see there.
const PROGRAM_AT: u64 = 0x10000;
const SLOT_BYTES: u64 = 1664 << 10;
/// How much of its slot a program may fill, in percent, so that the next changes fit, too.
const SLOT_PERCENT_MAX: u64 = 95;
/// The RAM of an ESP32-C3, as it is mapped for code.
const C3_RAM: std::ops::Range<u64> = 0x4037_c000..0x403e_0000;
const USAGE: &str =
    "usage: cargo xtask firmware --chip esp32c6|esp32c3 [--test]; see firmware/esp32/README.md for other chips";

/// A chip that has firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chip {
    Esp32c6,
    Esp32c3,
}

impl Chip {
    pub(crate) const ALL: [Chip; 2] = [Chip::Esp32c6, Chip::Esp32c3];

    /// Its name on the command line, which is also that of its Cargo feature.
    const fn name(self) -> &'static str {
        match self {
            Chip::Esp32c6 => "esp32c6",
            Chip::Esp32c3 => "esp32c3",
        }
    }

    /// The name of its image.
    pub(crate) const fn image(self) -> &'static str {
        match self {
            Chip::Esp32c6 => "broccoli-esp32c6.bin",
            Chip::Esp32c3 => "broccoli-esp32c3.bin",
        }
    }

    /// Its package and features, as arguments of Cargo.
    pub(crate) const fn package(self) -> &'static str {
        match self {
            Chip::Esp32c6 => "-p broccoli-esp32 --features esp32c6",
            Chip::Esp32c3 => "-p broccoli-esp32 --features esp32c3",
        }
    }

    /// The name of its target.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Chip::Esp32c6 => qemu::TARGET,
            Chip::Esp32c3 => imc::TARGET,
        }
    }

    /// The directory for what its builds make.
    fn build_dir(self) -> Result<PathBuf> {
        match self {
            Chip::Esp32c6 => target_dir(),
            Chip::Esp32c3 => imc::build_dir(),
        }
    }

    /// Adds its target to a command of Cargo that builds or lints.
    fn add_target(self, cargo: &mut Command) -> Result {
        match self {
            Chip::Esp32c6 => tools::rust_targets(&[qemu::TARGET]),
            Chip::Esp32c3 => imc::add_target(cargo),
        }
    }

    /// Checks its program before it is packed.
    fn check(self, program: &Path) -> Result {
        match self {
            Chip::Esp32c6 => Ok(()),
            Chip::Esp32c3 => imc::check(program).and_then(|()| imc::check_place(program, &C3_RAM)),
        }
    }
}

/// Builds and packs what the command line asks for.
///
/// # Errors
/// There is no such chip, or as for [`build`].
pub(crate) fn run(args: &[String]) -> Result {
    let chip = |name: &str| Chip::ALL.into_iter().find(|chip| chip.name() == name).ok_or(USAGE);
    match args {
        [flag, name] if flag == "--chip" => build(chip(name)?).map(drop),
        [flag, name, and] if flag == "--chip" && and == "--test" => {
            let chip = chip(name)?;
            test(chip, &build(chip)?)
        }
        _ => Err(USAGE.into()),
    }
}

/// Lints all programs for microcontrollers, which are not in the workspace, and tests their atomic operations.
///
/// # Errors
/// If there is a warning, or a test fails.
pub(crate) fn lint() -> Result {
    let target = target_dir()?;
    let clippy_in = |target: &Path, folder: &str, features: &str| {
        let mut clippy = command("cargo");
        clippy.current_dir(in_root(folder)).args(["clippy", "--quiet", "--release", "--locked"]);
        clippy.args(["--features", features, "--target-dir"]).arg(target);
        clippy
    };
    let clippy = |folder: &str, features: &str| clippy_in(&target, folder, features);
    let warnings = ["--", "-D", "warnings"];
    run_command(clippy("firmware/compute", "").args(warnings))?;
    run_command(clippy("firmware/qemu-virt", "").args(warnings))?;
    let mut without_atomics = clippy_in(&imc::build_dir()?, "firmware/qemu-virt", "imc");
    imc::add_target(&mut without_atomics)?;
    run_command(without_atomics.args(warnings))?;
    for chip in Chip::ALL {
        let mut clippy = clippy_in(&chip.build_dir()?, "firmware/esp32", chip.name());
        chip.add_target(&mut clippy)?;
        run_command(clippy.args(warnings))?;
    }
    tools::xtensa()?;
    let mut xtensa = qemu::xtensa_cargo("clippy");
    xtensa.args(["--quiet", "--release", "--locked", "--target-dir"]).arg(&target);
    run_command(xtensa.args(warnings))?;
    run_command(clippy("firmware/atomics", "rwtext").args(["--target", qemu::TARGET]).args(warnings))?;
    run_command(clippy("firmware/atomics", "").arg("--all-targets").args(warnings))?;
    let mut test = command("cargo");
    test.current_dir(in_root("firmware/atomics")).args(["test", "--quiet", "--locked", "--target-dir"]).arg(&target);
    run_command(&mut test)
}

/// Builds, checks and packs the firmware, writes the notices beside it, and returns the path of the image.
///
/// # Errors
/// Something is missing, it does not compile, it contains what the chip cannot run, or it fills its slot.
pub(crate) fn build(chip: Chip) -> Result<PathBuf> {
    let target = chip.build_dir()?;
    let mut build = command("cargo");
    build.current_dir(in_root("firmware/esp32"));
    build.args(["build", "--quiet", "--release", "--locked"]).args(chip.package().split_whitespace());
    build.arg("--target-dir").arg(&target);
    chip.add_target(&mut build)?;
    // Panics name source files. Replace their directories, so that the image does not depend on this machine.
    let sources = cargo_home().map(|home| home.join("registry/src/"));
    for folder in sources.into_iter().chain(tools::source_dir()).chain([in_root("")]) {
        let flag = format!("--remap-path-prefix={}=", folder.display());
        build.args(["--config", &format!("target.{}.rustflags=[{flag:?}]", chip.target())]);
    }
    run_command(&mut build)?;
    let program = target.join(chip.target()).join("release/broccoli-esp32");
    chip.check(&program)?;
    let image = in_root("dist").join(chip.image());
    fs::create_dir_all(in_root("dist")).map_err(|error| format!("cannot make dist: {error}"))?;
    let mut pack = cargo("run --quiet --locked -p broccoli-flash --bin broccoli-pack --");
    run_command(pack.arg(chip.name()).arg(program).arg(in_root("firmware/esp32/partitions.csv")).arg(&image))?;
    check_slot(&image)?;
    notices::write(&notices::firmware(chip))?;
    Ok(image)
}

/// Checks how much of its slot the program fills. An image ends with its program.
fn check_slot(image: &Path) -> Result {
    let length = fs::metadata(image).map_err(|error| format!("{}: {error}", image.display()))?.len();
    let program = length.saturating_sub(PROGRAM_AT);
    if program * 100 <= SLOT_BYTES * SLOT_PERCENT_MAX {
        return Ok(());
    }
    let most = SLOT_BYTES * SLOT_PERCENT_MAX / 100;
    Err(format!("{}: the program has {program} bytes, at most {most} are allowed: make it smaller", image.display()))
}

/// The directory in which Cargo keeps the sources of other crates.
fn cargo_home() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("CARGO_HOME").or_else(|| Some(variable("HOME")?.join(".cargo")))
}

/// Writes the settings of a node of a new cluster into the image with `broccoli flash`. This tests everything except
/// the serial port.
///
/// # Errors
/// It fails, or the new image is not the old one with these settings.
pub(crate) fn test(chip: Chip, image: &Path) -> Result {
    // The same command as for the other tests, so that nothing is built again with other features.
    run_command(&mut cargo("test --workspace --locked --no-run"))?;
    let home = Home::new()?;
    run_command(home.broccoli()?.arg("init"))?;
    let mut flash = home.broccoli()?;
    flash.args(["flash", "--chip", chip.name(), "--name", "board", "--ssid", "net", "--password", "password"]);
    flash.args(["--server", "mqtt://192.168.1.10", "--image-only", "flashed.bin", "--image"]);
    run_command(flash.arg(image))?;
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let (packed, flashed) = (read(image)?, read(&home.0.join("flashed.bin"))?);
    let settings = flashed.get(SETTINGS).unwrap_or_default();
    if !settings.starts_with(b"broccoli settings 1\nname=board\nssid=net\nserver=192.168.1.10:1883\n") {
        return Err("the image has no settings where the chip looks for them".into());
    }
    let rest = |bytes: &[u8]| Some([bytes.get(..SETTINGS.start)?, bytes.get(SETTINGS.end..)?].concat());
    if rest(&packed) == rest(&flashed) { Ok(()) } else { Err("the settings have changed the firmware".into()) }
}
