//! Tells the linker of the memory layout.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("memory.x"), include_bytes!("memory.x")).expect("the build directory is writable");
    println!("cargo:rustc-link-search={}", out.display());
    // In this order. Not in a configuration of Cargo, which an environment with flags of its own would replace.
    println!("cargo:rustc-link-arg=-Tmemory.x");
    println!("cargo:rustc-link-arg=-Tlink.x");
    // Code that is there twice, once. No function is compared with another one here.
    println!("cargo:rustc-link-arg=--icf=all");
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rerun-if-changed=build.rs");
}
