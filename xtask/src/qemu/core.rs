//! The kinds of cores on which the node runs in QEMU: how its firmware is built for each, and how a machine starts it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{command, output, run as run_command, target_dir};
use crate::{Result, imc, in_root, tools};

/// The target of the firmware for RISC-V.
pub(crate) const TARGET: &str = "riscv32imac-unknown-none-elf";
/// The target of the firmware for Xtensa.
const XTENSA_TARGET: &str = "xtensa-esp32-none-elf";
/// The folder of the firmware for Xtensa.
pub(crate) const XTENSA_FIRMWARE: &str = "firmware/qemu-xtensa";
/// Where the firmware looks for its settings: see its `memory.x`.
const RISCV_SETTINGS: &str = "0x803ff000";
const XTENSA_SETTINGS: &str = "0x003ff000";

/// A kind of core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// 32-bit RISC-V with atomics, as in the ESP32-C6.
    Imac,
    /// The same without atomics, as in the ESP32-C3.
    Imc,
    /// Xtensa LX7, as in the ESP32-S3. The ESP32 has its predecessor, LX6.
    Xtensa,
}

/// The firmware for a kind of core, built.
#[derive(Clone, Debug)]
pub(crate) struct Firmware {
    pub(crate) core: Core,
    pub(crate) program: PathBuf,
}

impl Core {
    pub(crate) const ALL: [Core; 3] = [Core::Imac, Core::Imc, Core::Xtensa];
    /// Those of RISC-V.
    pub(crate) const RISCV: [Core; 2] = [Core::Imac, Core::Imc];

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Core::Imac => "imac",
            Core::Imc => "imc",
            Core::Xtensa => "xtensa",
        }
    }

    /// # Errors
    /// There is no such core.
    pub(crate) fn parse(name: &str) -> Result<Core> {
        let found = Core::ALL.into_iter().find(|core| core.name() == name);
        found.ok_or_else(|| format!("there is no core {name:?}, use one of: {}", Core::ALL.map(Core::name).join(", ")))
    }

    /// The program that emulates it.
    pub(crate) const fn emulator(self) -> &'static str {
        match self {
            Core::Imac | Core::Imc => "qemu-system-riscv32",
            Core::Xtensa => "qemu-system-xtensa",
        }
    }

    /// The size that the file with the content of its flash must have.
    pub(super) const fn flash_bytes(self) -> u64 {
        match self {
            Core::Imac | Core::Imc => 32 << 20,
            Core::Xtensa => 128 << 20,
        }
    }

    /// Builds the firmware.
    ///
    /// # Errors
    /// Something is missing, or it does not compile.
    pub(crate) fn build(self) -> Result<Firmware> {
        // Show Cargo's output.
        eprintln!("building the node for QEMU, core {}: some minutes at the first time", self.name());
        let target = if self == Core::Imc { imc::build_dir()? } else { target_dir()? };
        let mut cargo = command("cargo");
        cargo.current_dir(in_root("firmware/qemu-virt"));
        cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(&target);
        let program = match self {
            Core::Imac => {
                tools::rust_targets(&[TARGET])?;
                run_command(&mut cargo)?;
                target.join(TARGET).join("release/qemu-virt")
            }
            Core::Imc => {
                imc::add_target(&mut cargo)?;
                run_command(cargo.args(["--features", "imc"]))?;
                let program = target.join(imc::TARGET).join("release/qemu-virt");
                imc::check(&program)?;
                program
            }
            Core::Xtensa => {
                tools::xtensa()?;
                run_command(xtensa_cargo("build").args(["--release", "--locked", "--target-dir"]).arg(&target))?;
                target.join(XTENSA_TARGET).join("release/qemu-xtensa")
            }
        };
        Ok(Firmware { core: self, program })
    }

    /// The arguments that choose its machine.
    const fn machine(self) -> &'static [&'static str] {
        match self {
            Core::Imac => &["-M", "virt", "-m", "8M", "-bios", "none"],
            // An atomic instruction is an illegal one there.
            Core::Imc => &["-M", "virt", "-cpu", "rv32,a=false", "-m", "8M", "-bios", "none"],
            // Semihosting is for random numbers and the exit status.
            Core::Xtensa => &["-M", "kc705", "-cpu", "de233_fpu", "-m", "8M", "-semihosting"],
        }
    }
}

/// Cargo with a command for the firmware for Xtensa, and with the compiler that its `rust-toolchain.toml` names. The
/// library for this target is built with it, which a release of Rust does only with the variable.
pub(crate) fn xtensa_cargo(what: &str) -> Command {
    let mut cargo = command("cargo");
    cargo.current_dir(in_root(XTENSA_FIRMWARE)).arg(what);
    cargo.env_remove("RUSTUP_TOOLCHAIN").env("RUSTC_BOOTSTRAP", "1");
    cargo
}

impl Firmware {
    /// Adds to `qemu` the emulator and its arguments: the machine with its devices, the file with the settings of the
    /// node, and the file with the content of its flash. Its console is stdout.
    pub(super) fn add_machine(&self, qemu: &mut Command, settings: &Path, flash: &Path) {
        let (program, settings, flash) = (self.program.display(), settings.display(), flash.display());
        qemu.arg(self.core.emulator()).args(self.core.machine());
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        match self.core {
            Core::Imac | Core::Imc => {
                qemu.args(["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-rng-device"]);
                qemu.args(["-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net"]);
                qemu.args(["-drive", &format!("if=pflash,unit=1,format=raw,file={flash}")]);
                qemu.args(["-device", &format!("loader,file={settings},addr={RISCV_SETTINGS},force-raw=on")]);
                // Not as a kernel: with a flash, QEMU would start the content of the flash.
                qemu.args(["-device", &format!("loader,file={program},cpu-num=0")]);
            }
            Core::Xtensa => {
                qemu.args(["-nic", "user,model=open_eth"]);
                qemu.args(["-drive", &format!("if=pflash,format=raw,file={flash}")]);
                qemu.args(["-device", &format!("loader,file={settings},addr={XTENSA_SETTINGS},force-raw=on")]);
                // Not as a kernel: QEMU would need the tables of Linux for it.
                qemu.args(["-device", &format!("loader,file={program},cpu-num=0")]);
            }
        }
    }

    /// The output of a program beside the firmware that runs alone on the machine until it stops the machine. Each
    /// instruction takes one nanosecond there.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn counted(&self, program: &str) -> Result<String> {
        self.started_alone(program, &["-icount", "shift=0"])
    }

    /// The output of a program beside the firmware that runs alone on the machine until it stops the machine.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn alone(&self, program: &str) -> Result<String> {
        self.started_alone(program, &[])
    }

    fn started_alone(&self, program: &str, more: &[&str]) -> Result<String> {
        let program = self.program.with_file_name(program);
        let mut qemu = command("timeout");
        qemu.args(["60", self.core.emulator()]).args(self.core.machine()).args(more);
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        qemu.args(["-device", &format!("loader,file={},cpu-num=0", program.display())]);
        output(&mut qemu).ok_or_else(|| format!("{} fails, or takes more than a minute", program.display()))
    }
}
