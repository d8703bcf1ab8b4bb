//! Prints the table of computations as this core computes it. `cargo xtask compute` compares it with that of the host.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

extern crate alloc;

// The node needs these in full; this program only parts of them.
#[allow(dead_code)]
mod clock;
#[path = "../../qemu-virt/src/console.rs"]
mod console;
#[allow(dead_code)]
mod interrupts;
#[allow(dead_code)]
mod machine;
#[allow(dead_code)]
#[path = "../../qemu-virt/src/memory.rs"]
mod memory;
#[allow(dead_code)]
mod net;
mod start;
mod wide;

use log::info;

/// Called by the first instructions in `start`.
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    memory::init();
    console::init_log();
    clock::init();
    interrupts::enable();
    compute_table::run(|line| info!("{line}"));
    machine::exit(0)
}
