//! Passes the memory layout to the linker.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("memory.x"), include_bytes!("memory.x")).expect("the build directory is writable");
    println!("cargo:rustc-link-search={}", out.display());
    // The order matters. These are not in .cargo/config.toml, because the environment variable RUSTFLAGS would replace
    // them.
    println!("cargo:rustc-link-arg=-Tmemory.x");
    println!("cargo:rustc-link-arg=-Tlink.x");
    // Merges identical functions. No function pointers are compared here.
    println!("cargo:rustc-link-arg=--icf=all");
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=build.rs");
}
