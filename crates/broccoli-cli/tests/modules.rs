//! The committed modules are what their sources build, byte for byte.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn committed_modules_are_what_their_sources_build() {
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("modules");
    fs::create_dir_all(&built).unwrap();
    let mut build = Command::new(functions.join("build.sh"));
    // So that functions/ chooses compiler and flags, not whoever started this test.
    for name in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        build.env_remove(name);
    }
    let output = build.arg(&built).output().unwrap();
    assert!(output.status.success(), "build.sh: {}", String::from_utf8_lossy(&output.stderr));
    for name in ["flow.wasm", "lights.wasm", "tasks.wasm", "types.wasm", "c/hello.wasm"] {
        let same = fs::read(functions.join(name)).unwrap() == fs::read(built.join(name)).unwrap();
        assert!(same, "functions/{name} is not what its source builds: run functions/build.sh and commit it");
    }
}
