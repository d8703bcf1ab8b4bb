//! `cargo xtask package`: tests what `cargo publish` would upload.
//!
//! Cargo builds each package from its own files. Then the command is installed from these packages, as from a registry: a
//! directory with them and all other crates in `Cargo.lock` takes the place of crates.io. Cargo is offline for this, and
//! its home is empty. This module writes to `target/install`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::Result;
use crate::metadata::{Package, members};
use crate::process::{cargo, command, output, run as run_command, target_dir};

/// The package with the command `broccoli`.
const COMMAND: &str = "broccoli-cli";

/// Packs and builds all published packages, and installs and tries the command.
///
/// # Errors
/// If a package is incomplete or does not build, or the command does not work.
pub(crate) fn run() -> Result {
    let ours = members()?;
    // Nothing is published, so uncommitted changes are allowed.
    let mut pack = cargo("package --workspace --locked --allow-dirty");
    for package in ours.iter().filter(|package| !package.is_public) {
        pack.args(["--exclude", &package.name]);
    }
    run_command(&mut pack)?;
    let public: Vec<&Package> = ours.iter().filter(|package| package.is_public).collect();
    let folder = target_dir()?.join("install");
    // What was built stays.
    for part in ["packages", "cargo-home", "root", "my-tasks"] {
        let _ = fs::remove_dir_all(folder.join(part));
    }
    collect(&public, &folder.join("packages"))?;
    install(&public, &folder)?;
    let names: Vec<_> = public.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
    println!("packed and built: {}", names.join(", "));
    Ok(())
}

/// Fills the directory that replaces crates.io: with all dependencies in `Cargo.lock`, and with our packages.
fn collect(public: &[&Package], packages: &Path) -> Result {
    run_command(cargo("vendor --quiet --locked --versioned-dirs").arg(packages).stdout(Stdio::null()))?;
    let packed = target_dir()?.join("package");
    for Package { name, version, .. } in public {
        let file = packed.join(format!("{name}-{version}.crate"));
        run_command(command("tar").arg("-xzf").arg(&file).arg("-C").arg(packages))?;
        // The Cargo.lock in the package of the command contains it.
        let sum =
            output(command("sha256sum").arg(&file)).ok_or_else(|| format!("`sha256sum {}` failed", file.display()))?;
        let sum = sum.split_whitespace().next().unwrap_or_default();
        let path = packages.join(format!("{name}-{version}/.cargo-checksum.json"));
        let written = fs::write(&path, format!("{{\"files\": {{}}, \"package\": \"{sum}\"}}"));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Installs the command from that directory, and tries it.
fn install(public: &[&Package], folder: &Path) -> Result {
    let command_of = public.iter().find(|package| package.name == COMMAND);
    let version = command_of.map(|package| &package.version).ok_or_else(|| format!("{COMMAND} is not published"))?;
    let (packages, root, home) = (folder.join("packages"), folder.join("root"), folder.join("cargo-home"));
    // A debug build is enough: this tests files, not speed.
    let mut install = cargo("install --debug --locked --offline --root");
    install.arg(&root).arg("--target-dir").arg(folder.join("target"));
    install.args(["--config", "source.crates-io.replace-with='packages'"]);
    install.args(["--config", &format!("source.packages.directory={packages:?}")]);
    run_command(install.arg(format!("{COMMAND}@{version}")).env("CARGO_HOME", &home).env("CARGO_NET_OFFLINE", "true"))?;
    try_out(&root.join("bin/broccoli"), version, &folder.join("my-tasks"))
}

/// Checks the version of the command, and the task crate that it writes from embedded files.
fn try_out(program: &Path, version: &str, tasks: &Path) -> Result {
    let told = output(command(program).arg("--version"));
    let expected = format!("broccoli {version}");
    if told.as_deref().map(str::trim) != Some(&expected) {
        return Err(format!("{} --version prints {told:?} instead of {expected}", program.display()));
    }
    run_command(command(program).arg("new").arg(tasks).stdout(Stdio::null()))?;
    let missing: Vec<PathBuf> = ["src/lib.rs", ".broccoli/broccoli-sdk/src/lib.rs", ".cargo/config.toml"]
        .map(|file| tasks.join(file))
        .into_iter()
        .filter(|file| !file.is_file())
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("`broccoli new` did not write {missing:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_root;

    /// Returns all symbolic links below a directory.
    fn links(dir: &Path) -> Vec<PathBuf> {
        let entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        let (links, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|path| path.is_symlink());
        let below = others.iter().filter(|path| path.is_dir()).flat_map(|dir| super::tests::links(dir));
        below.chain(links).collect()
    }

    /// Cargo packs the target of a link. It must be a file of this repository.
    #[test]
    fn links_lead_to_files_of_the_tree() {
        let root = in_root("").canonicalize().unwrap();
        let links = links(&root.join("crates"));
        for link in &links {
            let file = link.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", link.display()));
            assert!(file.is_file() && file.starts_with(&root), "{} leads to {}", link.display(), file.display());
        }
        let of_command = links.iter().filter(|link| link.starts_with(root.join("crates/broccoli-cli"))).count();
        assert!(of_command > 15, "git has checked out links as files: set core.symlinks, and check out again");
    }

    #[test]
    fn each_public_package_has_its_readme_and_licences() {
        for package in members().unwrap().iter().filter(|package| package.is_public) {
            for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT"] {
                assert!(package.dir.join(file).is_file(), "{} has no {file}", package.name);
            }
        }
    }

    #[test]
    fn an_installed_command_is_tried_out() {
        let nothing = Path::new("/nonexistent");
        let failed = try_out(nothing, "1.2.3", nothing).unwrap_err();
        assert_eq!(failed, "/nonexistent --version prints None instead of broccoli 1.2.3");
    }
}
