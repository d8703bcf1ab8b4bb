//! Prints how many instructions the core takes for a module and its tasks. `cargo xtask sizes` starts it in a QEMU in which
//! each instruction takes a nanosecond.
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
#[path = "../../qemu-virt/src/measure.rs"]
mod measure;
#[allow(dead_code)]
#[path = "../../qemu-virt/src/memory.rs"]
mod memory;
#[allow(dead_code)]
mod net;
mod start;
mod wide;

use log::error;
use xtensa_lx::timer;

/// The cycle counter counts once in so many nanoseconds.
const CYCLE_NS: u64 = 100;

/// Called by the first instructions in `start`.
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    memory::init();
    console::init_log();
    match measure::run(|| u64::from(timer::get_cycle_count()) * CYCLE_NS) {
        Ok(()) => machine::exit(0),
        Err(error) => {
            error!("{error}");
            machine::exit(1)
        }
    }
}
