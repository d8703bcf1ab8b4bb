//! The committed modules are equal to what their sources build, byte for byte, whatever is installed on the machine.
// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// With rustup's component `rust-src`, the compiler writes the directory of the standard library's sources into paths.
#[test]
fn committed_modules_are_what_their_sources_build() {
    for has_sources in [false, true] {
        let kind = if has_sources { "with rust-src" } else { "without rust-src" };
        let built = build(has_sources);
        for name in ["flow.wasm", "lights.wasm", "tasks.wasm", "types.wasm", "c/hello.wasm"] {
            let same = fs::read(functions().join(name)).unwrap() == fs::read(built.join(name)).unwrap();
            assert!(
                same,
                "functions/{name} is not what its source builds {kind}: run functions/build.sh and commit it"
            );
        }
    }
}

fn functions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions")
}

/// Builds the modules with or without the standard library's sources, and with another Cargo home. Returns the
/// directory of the modules.
fn build(has_sources: bool) -> PathBuf {
    let place =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(if has_sources { "with-sources" } else { "without-sources" });
    // Files of an earlier run.
    let _ = fs::remove_dir_all(&place);
    let built = place.join("modules");
    fs::create_dir_all(&built).unwrap();
    let mut build = Command::new(functions().join("build.sh"));
    // Only functions/ may choose compiler and flags, not the environment of this test.
    for name in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        build.env_remove(name);
    }
    build.env("RUSTC", compiler(&place, has_sources)).env("CARGO_HOME", cargo_home(&place));
    let output = build.arg(&built).output().unwrap();
    assert!(output.status.success(), "build.sh: {}", String::from_utf8_lossy(&output.stderr));
    built
}

/// A compiler whose sysroot is that of the real one, optionally without the sources.
fn compiler(place: &Path, has_sources: bool) -> PathBuf {
    let mut asked = Command::new("rustc");
    asked.args(["--print", "sysroot"]).current_dir(functions()).env_remove("RUSTUP_TOOLCHAIN");
    let real = PathBuf::from(String::from_utf8(asked.output().unwrap().stdout).unwrap().trim());
    let libraries = place.join("sysroot/lib/rustlib");
    fs::create_dir_all(&libraries).unwrap();
    for entry in fs::read_dir(real.join("lib/rustlib")).unwrap().map(Result::unwrap) {
        if entry.file_name() != "src" {
            symlink(entry.path(), libraries.join(entry.file_name())).unwrap();
        }
    }
    if has_sources {
        // The compiler detects the sources by this file.
        let sources = libraries.join("src/rust/library/std/src");
        fs::create_dir_all(&sources).unwrap();
        fs::write(sources.join("lib.rs"), "").unwrap();
    }
    let compiler = place.join("rustc");
    let script = format!(
        "#!/bin/sh\nexec '{}' --sysroot '{}' \"$@\"\n",
        real.join("bin/rustc").display(),
        place.join("sysroot").display()
    );
    fs::write(&compiler, script).unwrap();
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).unwrap();
    compiler
}

/// Another Cargo home, with the downloads of the real one.
fn cargo_home(place: &Path) -> PathBuf {
    let default = || std::env::home_dir().unwrap().join(".cargo").into();
    let real = PathBuf::from(std::env::var_os("CARGO_HOME").unwrap_or_else(default));
    let home = place.join("cargo");
    fs::create_dir_all(&home).unwrap();
    symlink(real.join("registry"), home.join("registry")).unwrap();
    home
}
