//! The static program for 64-bit Raspberry Pis, and its test as a node of a real cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Background, cargo, command, output, run, target_dir};
use crate::{Result, in_root, notices, tools};

/// A program for this target runs on every 64-bit Linux on ARM, whatever its C library.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-musl";

/// The name of the program.
pub(crate) const NAME: &str = "broccoli-aarch64-linux";

/// Its package and features, as arguments of Cargo.
pub(crate) const PROGRAM: &str = "-p broccoli-cli --no-default-features";

/// Longest time of any step of the test. QEMU interprets.
const PATIENCE: Duration = Duration::from_secs(60);

/// Builds the program, writes the notices beside it, and returns its path.
///
/// # Errors
/// Something is missing, or it does not compile.
pub(crate) fn build() -> Result<PathBuf> {
    tools::rust_targets(&[TARGET])?;
    run(cargo(&format!("build --profile dist --locked {PROGRAM} --target {TARGET}"))
        // Rust's own linker and start files: no C compiler for ARM is needed.
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld"))?;
    let built = target_dir()?.join(TARGET).join("dist/broccoli");
    let path = in_root("dist").join(NAME);
    let copied = fs::create_dir_all(in_root("dist")).and_then(|()| fs::copy(&built, &path));
    copied.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    notices::write(&notices::program())?;
    Ok(path)
}

/// Starts `program` under qemu as a node of a cluster, whose server and other node are the
/// program for this machine, and runs a task on it.
///
/// # Errors
/// Something is missing, or the task does not come back with the right result.
pub(crate) fn test(program: &Path) -> Result {
    // The same command as for the other tests, so that nothing is built again with other features.
    run(&mut cargo("test --workspace --locked --no-run"))?;
    let home = Home::new()?;
    let up = Background::start(home.broccoli()?.args(["up", "--listen", "127.0.0.1:0", "--name", "host"]))?;
    let ready = up.line_with("ready", PATIENCE)?;
    let server = ready.split_whitespace().find(|word| word.starts_with("mqtt://")).unwrap_or_default();
    let token = output(home.broccoli()?.args(["token", "--server", server])).ok_or("`broccoli token` failed")?;
    let path = home.0.join("token");
    fs::write(&path, token).map_err(|error| format!("cannot write {}: {error}", path.display()))?;

    let mut qemu = home.command("qemu-aarch64");
    let node =
        Background::start(qemu.arg(program).args(["node", "--name", "qemu", "--slots", "1", "--join", "@token"]))?;
    node.line_with("ready", PATIENCE)?;

    run(home.broccoli()?.args(["deploy", "--examples", "--timeout", "60s", "--server", server]))?;
    let expression = "add.s(4, 4).set(on=\"qemu\")";
    let result = output(home.broccoli()?.args(["run", expression, "--timeout", "60s", "--server", server]));
    match result.as_deref().map(str::trim) {
        Some("8") => Ok(()),
        other => Err(format!("{expression} gave {other:?} instead of 8")),
    }
}

/// An empty home directory, which is removed with the value.
pub(crate) struct Home(pub(crate) PathBuf);

impl Home {
    pub(crate) fn new() -> Result<Self> {
        let home = Self(std::env::temp_dir().join(format!("broccoli-dist-{}", std::process::id())));
        fs::create_dir_all(&home.0).map_err(|error| format!("cannot make {}: {error}", home.0.display()))?;
        Ok(home)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = command(program);
        command.current_dir(&self.0).env("HOME", &self.0);
        for name in ["XDG_CONFIG_HOME", "BROCCOLI_CLUSTER", "BROCCOLI_SERVER"] {
            command.env_remove(name);
        }
        command
    }

    /// The program for this machine, which tests have built.
    pub(crate) fn broccoli(&self) -> Result<Command> {
        Ok(self.command(target_dir()?.join("debug/broccoli")))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
