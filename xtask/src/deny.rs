//! The step `dependencies` of `cargo xtask test`: cargo-deny checks the licences and the sources of all dependencies, as
//! `deny.toml` allows them.
//!
//! It looks up no advisories. They change without a change of this repository: the workflow in `.github` reads them.

use crate::metadata::WORKSPACE;
use crate::process::{command, run};
use crate::{Result, tools};

/// The workspaces with a `Cargo.lock` of their own. Duplicates count in the main one only.
const OTHERS: &[&str] = &[
    "functions/Cargo.toml",
    "firmware/atomics/Cargo.toml",
    "firmware/compute/Cargo.toml",
    "firmware/esp32/Cargo.toml",
    "firmware/qemu-virt/Cargo.toml",
    "firmware/qemu-xtensa/Cargo.toml",
    "fuzz/Cargo.toml",
    "benches/stores/Cargo.toml",
];

/// Checks all workspaces.
///
/// # Errors
/// A dependency is not allowed, or cargo-deny cannot be installed.
pub(crate) fn check() -> Result {
    check_one(WORKSPACE, &["licenses", "bans", "sources"])?;
    OTHERS.iter().try_for_each(|manifest| check_one(manifest, &["licenses", "sources"]))
}

fn check_one(manifest: &str, what: &[&str]) -> Result {
    println!("{manifest}");
    let mut deny = command(tools::cargo_deny()?);
    deny.args(["--locked", "--all-features", "--config", "deny.toml", "--manifest-path", manifest, "check"]);
    run(deny.args(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::output;

    #[test]
    fn every_lock_file_is_checked() {
        let files = output(command("git").args(["ls-files", "Cargo.lock", "*/Cargo.lock"])).unwrap();
        let not_built = "crates/broccoli-cli/template/Cargo.lock";
        let mut found: Vec<_> = files.lines().filter(|file| *file != not_built).collect();
        let mut checked: Vec<_> =
            OTHERS.iter().chain([&WORKSPACE]).map(|path| path.replace(".toml", ".lock")).collect();
        found.sort_unstable();
        checked.sort_unstable();
        assert_eq!(found, checked);
    }
}
