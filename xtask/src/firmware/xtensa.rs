//! Firmware for chips with Xtensa cores, the ESP32 and the ESP32-S3.
//!
//! An image needs Espressif's compiler and linker, which `espup` installs: their libraries for the radio can be linked only
//! by a linker for exactly these cores.
//!
//! Without them, `--layout` compiles the whole program with a release of Rust, and lets the linker for another Xtensa core
//! place it. That linker knows the format, but not all instructions of these cores, so the program could not run. But no
//! symbol is missing, all sections have their sizes and places, and the linker's script says whether they fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::read::elf::ElfFile32;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use super::{Chip, check_slot};
use crate::process::{command, output, run as run_command, target_dir};
use crate::{Result, in_root, tools};

/// The name that `espup` gives to Espressif's Rust.
const TOOLCHAIN: &str = "esp";
/// The oldest Rust that compiles the firmware: 1.95, as its Cargo.toml says.
const OLDEST_MINOR: u32 = 95;
/// What the linker's script of a chip must leave for the stack, in bytes. Tasks run on it.
const STACK_MIN: u64 = 65_536;
/// The RAM for code of an ESP32 beside the cache, in bytes. That of an ESP32-S3 is shared with data.
const CODE_RAM_ESP32: u64 = 128 << 10;

/// Options for the compiler from rustup: see `firmware/qemu-xtensa/.cargo/config.toml`. It does not know the core of the
/// ESP32-S3, which has all that the ESP32's has. The start code of both saves registers for doubles, so their names stay.
const COMPILER: [&str; 6] =
    ["-C", "target-cpu=esp32", "-C", "target-feature=-fp,-mul32high", "-C", "llvm-args=-stress-regalloc=12"];
/// Options for the linker of another core. It places instructions that it does not know, but cannot relocate them.
const OTHER_LINKER: [&str; 4] = ["-C", "linker-flavor=ld", "-C", "link-arg=--noinhibit-exec"];

/// The directory for what these builds make. Not that of other builds, for the same reason as in [`crate::imc`].
pub(super) fn build_dir() -> Result<PathBuf> {
    Ok(target_dir()?.join("xtensa"))
}

/// Adds the target of a chip, and the compiler from rustup, to a command of Cargo that lints or lays out.
pub(super) fn add_target(cargo: &mut Command, chip: Chip) -> Result {
    tools::xtensa()?;
    let version = tools::toolchain_of(&in_root(crate::qemu::XTENSA_FIRMWARE))?;
    cargo.env("RUSTUP_TOOLCHAIN", version).env("RUSTC_BOOTSTRAP", "1");
    add_library(cargo, chip);
    add_options(cargo, chip, &COMPILER);
    Ok(())
}

/// There is no library for these targets to install.
fn add_library(cargo: &mut Command, chip: Chip) {
    cargo.args(["--target", chip.target(), "-Zbuild-std=core,alloc", "-Zbuild-std-features=optimize_for_size"]);
}

/// Adds options for the compiler to those in the firmware's `.cargo/config.toml`.
fn add_options(cargo: &mut Command, chip: Chip, options: &[&str]) {
    cargo.args(["--config", &format!("target.{}.rustflags={options:?}", chip.target())]);
}

/// Adds the target of a chip, and Espressif's compiler and linker, to a command of Cargo that builds an image.
///
/// # Errors
/// They are missing or too old.
pub(super) fn use_espressifs_tools(cargo: &mut Command, chip: Chip) -> Result {
    let missing = |what: &str| {
        let chip = chip.name();
        format!(
            "{what}, which the firmware for {chip} needs; run: cargo install espup --locked && espup install; without them, \
             `cargo xtask firmware --chip {chip} --layout` compiles it, but makes no image"
        )
    };
    let rustc = |args: &[&str]| output(command("rustc").env("RUSTUP_TOOLCHAIN", TOOLCHAIN).args(args));
    let version = rustc(&["--version"]).ok_or_else(|| missing("Espressif's Rust (toolchain esp) is missing"))?;
    check_version(&version)?;
    let sysroot = rustc(&["--print", "sysroot"]).unwrap_or_default();
    let linker = find_linker(Path::new(sysroot.trim()), chip);
    let linker = linker.ok_or_else(|| missing(&format!("Espressif's linker {} is missing", linker_name(chip))))?;
    cargo.env("RUSTUP_TOOLCHAIN", TOOLCHAIN);
    add_library(cargo, chip);
    add_options(cargo, chip, &["-C", "link-arg=-nostartfiles"]);
    cargo.args(["--config", &format!("target.{}.linker={:?}", chip.target(), linker.display().to_string())]);
    Ok(())
}

/// Checks what `rustc --version` says.
fn check_version(said: &str) -> Result {
    let number = said.split_whitespace().nth(1).unwrap_or_default();
    let minor = number.strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    match minor {
        Some(minor) if minor >= OLDEST_MINOR => Ok(()),
        _ => Err(format!("Espressif's Rust is {number}, at least 1.{OLDEST_MINOR} is needed; run: espup update")),
    }
}

fn linker_name(chip: Chip) -> String {
    format!("xtensa-{}-elf-gcc", chip.name())
}

/// The linker in the PATH, or else in the folder of Espressif's Rust: `xtensa-esp-elf/VERSION/xtensa-esp-elf/bin`.
fn find_linker(sysroot: &Path, chip: Chip) -> Option<PathBuf> {
    let name = linker_name(chip);
    tools::find(&name).or_else(|| {
        let versions = fs::read_dir(sysroot.join("xtensa-esp-elf")).ok()?.flatten();
        let mut linkers: Vec<_> = versions.map(|entry| entry.path().join("xtensa-esp-elf/bin").join(&name)).collect();
        linkers.retain(|linker| linker.is_file());
        linkers.sort();
        linkers.pop()
    })
}

/// Compiles the firmware for a chip, lets a linker place it, checks that all fits, and prints how much room is left.
///
/// # Errors
/// Something is missing or does not fit.
pub(crate) fn lay_out(chip: Chip) -> Result {
    let target = build_dir()?;
    let mut build = command("cargo");
    build.current_dir(in_root("firmware/esp32"));
    build.args(["build", "--quiet", "--release", "--locked", "--features", chip.name(), "--target-dir"]).arg(&target);
    add_target(&mut build, chip)?;
    let linker = format!("target.{}.linker={:?}", chip.target(), tools::XTENSA_LINKER);
    add_options(&mut build, chip, &OTHER_LINKER);
    run_command(build.args(["--config", &linker]))?;
    Layout::of(&target.join(chip.target()).join("release/broccoli-esp32"))?.check_and_print(chip)
}

/// What a program takes of the memories of its chip, in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Layout {
    /// Code and constants in flash, and what is copied from there to RAM.
    flash: u64,
    /// Code in RAM.
    code: u64,
    /// Variables, without the heap.
    statics: u64,
    /// The heap, and the part of it in RAM that only the bootloader needs.
    heap: u64,
    reclaimed: u64,
    /// What is left in the RAM for variables.
    stack: u64,
}

impl Layout {
    /// Reads the sections of a program.
    fn of(program: &Path) -> Result<Layout> {
        let cannot = |error: &dyn std::fmt::Display| format!("{}: {error}", program.display());
        let bytes = fs::read(program).map_err(|error| cannot(&error))?;
        let file = ElfFile32::<object::Endianness>::parse(&*bytes).map_err(|error| cannot(&error))?;
        let missing = file.symbols().find(|symbol| symbol.is_undefined() && !symbol.is_weak() && symbol.is_global());
        if let Some(symbol) = missing {
            return Err(cannot(&format!("{} is missing", symbol.name().unwrap_or_default())));
        }
        let mut layout = Layout::default();
        for section in file.sections() {
            let (name, size) = (section.name().unwrap_or_default(), section.size());
            match name {
                ".text" | ".rodata" | ".rodata.wifi" | ".flash.appdesc" => layout.flash += size,
                ".vectors" | ".rwtext" | ".rwtext.wifi" => {
                    layout.code += size;
                    layout.flash += size;
                }
                ".data" | ".data.wifi" => {
                    layout.statics += size;
                    layout.flash += size;
                }
                ".bss" | ".noinit" => layout.statics += size,
                ".stack" => layout.stack = size,
                ".dram2_uninit" => layout.reclaimed = size,
                _ => {}
            }
        }
        // The static variables of `init_heap` in `machine.rs` of the firmware.
        let is_heap = |name: &str| name.contains("init_heap");
        let variables = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Data);
        let heaps = variables.filter(|symbol| symbol.name().is_ok_and(is_heap));
        layout.heap = heaps.map(|symbol| symbol.size()).sum();
        let of_variables = layout.heap.checked_sub(layout.reclaimed).filter(|heap| *heap > 0);
        layout.statics = of_variables.and_then(|heap| layout.statics.checked_sub(heap)).ok_or("there is no heap")?;
        Ok(layout)
    }

    fn check_and_print(&self, chip: Chip) -> Result {
        let Layout { flash, code, statics, heap, reclaimed, stack } = self;
        let (name, slot) = (chip.name(), chip.partitions().slot_bytes);
        println!("{name}: compiled and laid out, no image; bytes");
        println!("{flash:>10} code and constants in flash, {} % of a slot of {slot}", flash * 100 / slot);
        println!("{code:>10} code in RAM");
        println!("{statics:>10} variables of node and radio");
        println!("{heap:>10} heap, {reclaimed} of it in RAM that only the bootloader needs");
        println!("{stack:>10} left for the stack");
        if *stack < STACK_MIN {
            return Err(format!("{name}: {stack} bytes are left for the stack, at least {STACK_MIN} are needed"));
        }
        if chip == Chip::Esp32 && *code > CODE_RAM_ESP32 {
            return Err(format!("{name}: {code} bytes of code do not fit into {CODE_RAM_ESP32} of RAM"));
        }
        check_slot(chip, *flash, chip.partitions())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_compiler_is_refused() {
        for said in ["rustc 1.95.0-nightly (abc 2026-05-01) (1.95.0.0)", "rustc 1.99.1 (x 2026-11-01)"] {
            assert_eq!(check_version(said), Ok(()), "{said}");
        }
        let error = check_version("rustc 1.88.0-nightly (x 2025-07-01) (1.88.0.0)").unwrap_err();
        assert_eq!(error, "Espressif's Rust is 1.88.0-nightly, at least 1.95 is needed; run: espup update");
        assert!(check_version("").is_err());
    }

    #[test]
    fn the_newest_linker_in_the_folder_of_the_compiler_is_found() {
        let folder = std::env::temp_dir().join(format!("broccoli-espup-{}", std::process::id()));
        let bin = |version: &str| folder.join("xtensa-esp-elf").join(version).join("xtensa-esp-elf/bin");
        for version in ["esp-14.2.0_20240906", "esp-15.1.0_20250607"] {
            fs::create_dir_all(bin(version)).unwrap();
            fs::write(bin(version).join("xtensa-esp32-elf-gcc"), "").unwrap();
        }
        let found = [Chip::Esp32, Chip::Esp32s3].map(|chip| find_linker(&folder, chip));
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found, [Some(bin("esp-15.1.0_20250607").join("xtensa-esp32-elf-gcc")), None]);
    }
}
