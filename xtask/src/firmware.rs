//! `cargo xtask firmware`: firmware for real chips, built and packed into one image that `broccoli flash` writes.
//!
//! None of it has run on hardware. It is compiled, linked, packed and checked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dist::Home;
use crate::process::{cargo, command, run as run_command, target_dir};
use crate::{Result, in_root, notices, qemu, tools};

/// The only chip that has firmware.
const CHIP: &str = "esp32c6";
/// The name of its image.
pub(crate) const IMAGE: &str = "broccoli-esp32c6.bin";
/// Its package and features, as arguments of Cargo.
pub(crate) const PACKAGE: &str = "-p broccoli-esp32 --features esp32c6";
/// Where the settings are: see `firmware/esp32/partitions.csv`.
const SETTINGS: std::ops::Range<usize> = 0xb000..0xc000;
const USAGE: &str = "usage: cargo xtask firmware --chip esp32c6 [--test]; see firmware/esp32/README.md for other chips";

/// Builds and packs what the command line asks for.
///
/// # Errors
/// The chip is another, or as for [`build`].
pub(crate) fn run(args: &[String]) -> Result {
    match args {
        [flag, chip] if flag == "--chip" && chip == CHIP => build().map(drop),
        [flag, chip, and] if flag == "--chip" && chip == CHIP && and == "--test" => test(&build()?),
        _ => Err(USAGE.into()),
    }
}

/// Lints the programs for microcontrollers, which are not in the workspace.
///
/// # Errors
/// If there is a warning.
pub(crate) fn lint() -> Result {
    let target = target_dir()?;
    let lint = |mut clippy: Command, features: &str| {
        clippy.args(["--quiet", "--release", "--locked", "--features", features, "--target-dir"]).arg(&target);
        run_command(clippy.args(["--", "-D", "warnings"]))
    };
    for (folder, features) in [("firmware/compute", ""), ("firmware/qemu-virt", ""), ("firmware/esp32", CHIP)] {
        let mut clippy = command("cargo");
        clippy.current_dir(in_root(folder)).arg("clippy");
        lint(clippy, features)?;
    }
    tools::xtensa()?;
    lint(qemu::xtensa_cargo("clippy"), "")
}

/// Builds and packs the firmware, writes the notices beside it, and returns the path of the image.
///
/// # Errors
/// Something is missing, it does not compile, or the program does not fit its slot.
pub(crate) fn build() -> Result<PathBuf> {
    tools::rust_targets(&[qemu::TARGET])?;
    let target = target_dir()?;
    let mut build = command("cargo");
    build.current_dir(in_root("firmware/esp32"));
    build.args(["build", "--quiet", "--release", "--locked"]).args(PACKAGE.split_whitespace());
    build.arg("--target-dir").arg(&target);
    // Panics name source files. Replace their directories, so that the image does not depend on this machine.
    let sources = cargo_home().map(|home| home.join("registry/src/"));
    for folder in sources.into_iter().chain([in_root("")]) {
        let flag = format!("--remap-path-prefix={}=", folder.display());
        build.args(["--config", &format!("target.{}.rustflags=[{flag:?}]", qemu::TARGET)]);
    }
    run_command(&mut build)?;
    let program = target.join(qemu::TARGET).join("release/broccoli-esp32");
    let image = in_root("dist").join(IMAGE);
    fs::create_dir_all(in_root("dist")).map_err(|error| format!("cannot make dist: {error}"))?;
    let mut pack = cargo("run --quiet --locked -p broccoli-flash --bin broccoli-pack --");
    run_command(pack.arg(CHIP).arg(program).arg(in_root("firmware/esp32/partitions.csv")).arg(&image))?;
    notices::write(&notices::FIRMWARE)?;
    Ok(image)
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
pub(crate) fn test(image: &Path) -> Result {
    // The same command as for the other tests, so that nothing is built again with other features.
    run_command(&mut cargo("test --workspace --locked --no-run"))?;
    let home = Home::new()?;
    run_command(home.broccoli()?.arg("init"))?;
    let mut flash = home.broccoli()?;
    flash.args(["flash", "--chip", CHIP, "--name", "c6", "--ssid", "net", "--password", "password"]);
    flash.args(["--server", "mqtt://192.168.1.10", "--image-only", "flashed.bin", "--image"]);
    run_command(flash.arg(image))?;
    let read = |path: &Path| fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let (packed, flashed) = (read(image)?, read(&home.0.join("flashed.bin"))?);
    let settings = flashed.get(SETTINGS).unwrap_or_default();
    if !settings.starts_with(b"broccoli settings 1\nname=c6\nssid=net\nserver=192.168.1.10:1883\n") {
        return Err("the image has no settings where the chip looks for them".into());
    }
    let rest = |bytes: &[u8]| Some([bytes.get(..SETTINGS.start)?, bytes.get(SETTINGS.end..)?].concat());
    if rest(&packed) == rest(&flashed) { Ok(()) } else { Err("the settings have changed the firmware".into()) }
}
