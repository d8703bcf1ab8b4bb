//! `cargo xtask firmware`: firmware for real chips, built and packed into one image that `broccoli flash` writes.
//!
//! None of it has run on hardware. For chips with RISC-V cores it is compiled, linked, packed and checked. For chips with
//! Xtensa cores this needs Espressif's tools; without them it is compiled, and its memory is laid out: see [`xtensa`].

mod xtensa;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use self::xtensa::lay_out;
use crate::dist::Home;
use crate::process::{cargo, command, run as run_command, target_dir};
use crate::{Result, imc, in_root, notices, qemu, tools};

/// Where the settings are: see `firmware/esp32/partitions`.
const SETTINGS: std::ops::Range<usize> = 0xb000..0xc000;
/// Where the program is: see there.
const PROGRAM_AT: u64 = 0x10000;
/// How much of its slot a program may fill, in percent, so that the next changes fit, too.
const SLOT_PERCENT_MAX: u64 = 95;
/// The RAM of an ESP32-C3, as it is mapped for code.
const C3_RAM: std::ops::Range<u64> = 0x4037_c000..0x403e_0000;
const USAGE: &str = "usage: cargo xtask firmware --chip esp32c6|esp32c3|esp32|esp32s3 \
                     [--partitions 4mb-two-slots|4mb-one-slot|8mb-two-slots] [--test | --layout]";

/// A chip that has firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chip {
    Esp32c6,
    Esp32c3,
    Esp32,
    Esp32s3,
}

/// What lies where in the flash of a chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Partitions {
    /// The name of its file in `firmware/esp32/partitions`, without the ending.
    name: &'static str,
    /// The size of the slot of a program.
    slot_bytes: u64,
}

const PARTITIONS: [Partitions; 3] = [
    Partitions { name: "4mb-two-slots", slot_bytes: 1664 << 10 },
    Partitions { name: "4mb-one-slot", slot_bytes: 3328 << 10 },
    Partitions { name: "8mb-two-slots", slot_bytes: 3328 << 10 },
];

/// What the command line asks for beside the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Also {
    Nothing,
    /// Settings in it.
    Test,
    /// No image, only its layout.
    Layout,
}

impl Chip {
    pub(crate) const ALL: [Chip; 4] = [Chip::Esp32c6, Chip::Esp32c3, Chip::Esp32, Chip::Esp32s3];
    /// Those whose images are made with the tools that everybody has.
    pub(crate) const RISCV: [Chip; 2] = [Chip::Esp32c6, Chip::Esp32c3];
    /// The others.
    pub(crate) const XTENSA: [Chip; 2] = [Chip::Esp32, Chip::Esp32s3];

    /// Its name on the command line, which is also that of its Cargo feature.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Chip::Esp32c6 => "esp32c6",
            Chip::Esp32c3 => "esp32c3",
            Chip::Esp32 => "esp32",
            Chip::Esp32s3 => "esp32s3",
        }
    }

    /// The name of its target.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Chip::Esp32c6 => qemu::TARGET,
            Chip::Esp32c3 => imc::TARGET,
            Chip::Esp32 => "xtensa-esp32-none-elf",
            Chip::Esp32s3 => "xtensa-esp32s3-none-elf",
        }
    }

    /// What usually lies where in its flash. The usual boards with an ESP32-S3 have 8 MB, all others 4 MB.
    const fn partitions(self) -> Partitions {
        let [two_slots, one_slot, of_8mb] = PARTITIONS;
        match self {
            Chip::Esp32c6 | Chip::Esp32c3 => two_slots,
            // Code for Xtensa is too large for half of 4 MB.
            Chip::Esp32 => one_slot,
            Chip::Esp32s3 => of_8mb,
        }
    }

    /// The directory for what its builds make.
    fn build_dir(self) -> Result<PathBuf> {
        match self {
            Chip::Esp32c6 => target_dir(),
            Chip::Esp32c3 => imc::build_dir(),
            Chip::Esp32 | Chip::Esp32s3 => xtensa::build_dir(),
        }
    }

    /// Adds its target to a command of Cargo that builds or lints with the tools that everybody has.
    fn add_target(self, cargo: &mut Command) -> Result {
        match self {
            Chip::Esp32c6 => tools::rust_targets(&[qemu::TARGET]),
            Chip::Esp32c3 => imc::add_target(cargo),
            Chip::Esp32 | Chip::Esp32s3 => xtensa::add_target(cargo, self),
        }
    }

    /// Cargo with a command for its firmware, which makes an image.
    fn cargo(self, what: &str) -> Result<Command> {
        let mut cargo = command("cargo");
        cargo.current_dir(in_root("firmware/esp32")).arg(what);
        match self {
            Chip::Esp32 | Chip::Esp32s3 => xtensa::use_espressifs_tools(&mut cargo, self)?,
            Chip::Esp32c6 | Chip::Esp32c3 => self.add_target(&mut cargo)?,
        }
        Ok(cargo)
    }

    /// Checks its program before it is packed.
    fn check(self, program: &Path) -> Result {
        match self {
            Chip::Esp32c3 => imc::check(program).and_then(|()| imc::check_place(program, &C3_RAM)),
            Chip::Esp32c6 | Chip::Esp32 | Chip::Esp32s3 => Ok(()),
        }
    }
}

/// Builds and packs what the command line asks for.
///
/// # Errors
/// There is no such chip, or as for [`build`].
pub(crate) fn run(args: &[String]) -> Result {
    let (chip, partitions, also) = options(args)?;
    match also {
        Also::Layout => lay_out(chip),
        Also::Test => test(chip, &build_with(chip, partitions)?),
        Also::Nothing => build_with(chip, partitions).map(drop),
    }
}

/// Reads the command line.
fn options(args: &[String]) -> Result<(Chip, Partitions, Also)> {
    let (mut chip, mut partitions, mut also) = (None, None, Also::Nothing);
    let mut args = args.iter().map(String::as_str);
    while let Some(flag) = args.next() {
        match flag {
            "--chip" => {
                let name = args.next().ok_or(USAGE)?;
                let found = Chip::ALL.into_iter().find(|chip| chip.name() == name);
                chip = Some(found.ok_or_else(|| format!("there is no firmware for {name:?}; {USAGE}"))?);
            }
            "--partitions" => {
                let name = args.next().ok_or(USAGE)?;
                let found = PARTITIONS.into_iter().find(|partitions| partitions.name == name);
                partitions = Some(found.ok_or_else(|| format!("there are no partitions {name:?}; {USAGE}"))?);
            }
            "--test" => also = Also::Test,
            "--layout" => also = Also::Layout,
            _ => return Err(USAGE.into()),
        }
    }
    let chip = chip.ok_or(USAGE)?;
    if also == Also::Layout && !Chip::XTENSA.contains(&chip) {
        return Err(format!(
            "--layout is for esp32 and esp32s3: for {} an image is built anyway; {USAGE}",
            chip.name()
        ));
    }
    Ok((chip, partitions.unwrap_or(chip.partitions()), also))
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

/// Builds, checks and packs the firmware with the usual partitions, writes the notices beside it, and returns the path
/// of the image.
///
/// # Errors
/// Something is missing, it does not compile, it contains what the chip cannot run, or it fills its slot.
pub(crate) fn build(chip: Chip) -> Result<PathBuf> {
    build_with(chip, chip.partitions())
}

/// The same with these partitions.
fn build_with(chip: Chip, partitions: Partitions) -> Result<PathBuf> {
    let target = chip.build_dir()?;
    let mut build = chip.cargo("build")?;
    build.args(["--quiet", "--release", "--locked", "--features", chip.name(), "--target-dir"]).arg(&target);
    // Panics name source files. Replace their directories, so that the image does not depend on this machine.
    let sources = cargo_home().map(|home| home.join("registry/src/"));
    for folder in sources.into_iter().chain(tools::source_dir()).chain([in_root("")]) {
        let flag = format!("--remap-path-prefix={}=", folder.display());
        build.args(["--config", &format!("target.{}.rustflags=[{flag:?}]", chip.target())]);
    }
    run_command(&mut build)?;
    let program = target.join(chip.target()).join("release/broccoli-esp32");
    chip.check(&program)?;
    let notices = notices::firmware(chip);
    let usual = in_root("dist").join(&notices.file);
    let image = if partitions == chip.partitions() {
        usual
    } else {
        usual.with_file_name(format!("broccoli-{}-{}.bin", chip.name(), partitions.name))
    };
    fs::create_dir_all(in_root("dist")).map_err(|error| format!("cannot make dist: {error}"))?;
    let table = in_root(&format!("firmware/esp32/partitions/{}.csv", partitions.name));
    let mut pack = cargo("run --quiet --locked -p broccoli-flash --bin broccoli-pack --");
    run_command(pack.arg(chip.name()).arg(program).arg(table).arg(&image))?;
    // An image ends with its program.
    let length = fs::metadata(&image).map_err(|error| format!("{}: {error}", image.display()))?.len();
    check_slot(chip, length.saturating_sub(PROGRAM_AT), partitions)?;
    notices::write(&notices)?;
    Ok(image)
}

/// Checks how much of its slot a program fills.
fn check_slot(chip: Chip, program: u64, partitions: Partitions) -> Result {
    let most = partitions.slot_bytes * SLOT_PERCENT_MAX / 100;
    if program <= most {
        return Ok(());
    }
    let (chip, partitions) = (chip.name(), partitions.name);
    Err(format!(
        "the program for {chip} has {program} bytes, at most {most} are allowed with {partitions}: make it smaller"
    ))
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
