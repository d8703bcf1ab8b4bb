//! Passes the memory layout to the linker.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for (name, text) in [("memory.x", &include_bytes!("memory.x")[..]), ("sections.x", include_bytes!("sections.x"))] {
        fs::write(out.join(name), text).expect("the build directory is writable");
        println!("cargo:rerun-if-changed={name}");
    }
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg=-Tsections.x");
    println!("cargo:rustc-link-arg=--no-relax");
    println!("cargo:rustc-link-arg=--gc-sections");
    println!("cargo:rerun-if-changed=build.rs");
}
