//! Tells the linker of the memory layout.

fn main() {
    // Not in a configuration of Cargo, which an environment with flags of its own would replace.
    println!("cargo:rustc-link-arg=-Tlinkall.x");
    println!("cargo:rerun-if-changed=build.rs");
}
