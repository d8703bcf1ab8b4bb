//! Prints the table of computations as this core computes it. `cargo xtask compute` compares it with that of the host.
#![no_std]
#![no_main]

extern crate alloc;
// The compiler calls its functions.
#[cfg(feature = "imc")]
use broccoli_atomics as _;

mod console;
// The node needs both in full; this program only parts of them.
#[allow(dead_code)]
mod machine;
#[allow(dead_code)]
mod memory;

use log::info;

#[riscv_rt::entry]
fn main() -> ! {
    memory::init();
    console::init_log();
    compute_table::run(|line| info!("{line}"));
    machine::exit(0)
}
