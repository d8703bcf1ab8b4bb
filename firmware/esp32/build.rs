//! Passes the memory layout to the linker.

fn main() {
    // Not in .cargo/config.toml, because the environment variable RUSTFLAGS would replace it.
    println!("cargo:rustc-link-arg=-Tlinkall.x");
    println!("cargo:rerun-if-changed=build.rs");
}
