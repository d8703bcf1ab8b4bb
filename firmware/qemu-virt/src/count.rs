//! Prints how many instructions the core takes for a module and its tasks. `cargo xtask sizes` starts it in a QEMU that
//! counts instructions exactly.
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
mod measure;
#[allow(dead_code)]
mod memory;

use log::error;
use riscv::register::minstret;

#[riscv_rt::entry]
fn main() -> ! {
    memory::init();
    console::init_log();
    match measure::run(minstret::read64) {
        Ok(()) => machine::exit(0),
        Err(error) => {
            error!("{error}");
            machine::exit(1)
        }
    }
}
