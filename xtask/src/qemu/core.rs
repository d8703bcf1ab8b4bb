//! The kinds of cores on which the node runs in QEMU: how its firmware is built for each, and how a machine starts it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{command, output, run as run_command, target_dir};
use crate::{Result, imc, in_root, tools};

/// The target of the firmware for RISC-V.
pub(crate) const TARGET: &str = "riscv32imac-unknown-none-elf";
/// Where the firmware for RISC-V looks for its settings: see its `memory.x`.
const RISCV_SETTINGS: &str = "0x803ff000";

/// A kind of core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Core {
    /// 32-bit RISC-V with atomics, as in the ESP32-C6.
    Imac,
    /// The same without atomics, as in the ESP32-C3.
    Imc,
}

/// The firmware for a kind of core, built.
#[derive(Clone, Debug)]
pub(crate) struct Firmware {
    pub(crate) core: Core,
    pub(crate) program: PathBuf,
}

impl Core {
    pub(crate) const ALL: [Core; 2] = [Core::Imac, Core::Imc];

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Core::Imac => "imac",
            Core::Imc => "imc",
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
        }
    }

    /// Builds the firmware.
    ///
    /// # Errors
    /// Something is missing, or it does not compile.
    pub(crate) fn build(self) -> Result<Firmware> {
        // Show Cargo's output.
        eprintln!("building the node for QEMU, core {}: some minutes at the first time", self.name());
        let target = target_dir()?;
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
        };
        Ok(Firmware { core: self, program })
    }

    /// The arguments that choose its machine.
    const fn machine(self) -> &'static [&'static str] {
        match self {
            Core::Imac => &["-M", "virt", "-m", "8M", "-bios", "none"],
            // An atomic instruction is an illegal one there.
            Core::Imc => &["-M", "virt", "-cpu", "rv32,a=false", "-m", "8M", "-bios", "none"],
        }
    }
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
        }
    }

    /// The output of a program beside the firmware that runs alone on the machine until it stops the machine. Each
    /// instruction takes one nanosecond there.
    ///
    /// # Errors
    /// It fails.
    pub(crate) fn counted(&self, program: &str) -> Result<String> {
        let program = self.program.with_file_name(program);
        let mut qemu = command("timeout");
        qemu.args(["60", self.core.emulator()]).args(self.core.machine()).args(["-icount", "shift=0"]);
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-kernel"]).arg(&program);
        output(&mut qemu).ok_or_else(|| format!("{} fails, or takes more than a minute", program.display()))
    }
}
