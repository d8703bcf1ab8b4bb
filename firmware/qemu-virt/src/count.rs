//! Counts instructions: of loading the example module, and of runs of two of its tasks. `cargo xtask sizes` starts it
//! in a QEMU that counts instructions exactly.
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

use broccoli_wasm::{Engine, Limits, Module, NoHost, Spare, Step};
use log::{error, info};
use riscv::register::minstret;

const WASM: &[u8] = include_bytes!("../../../functions/tasks.wasm");
/// More fuel than any of the runs needs.
const FUEL: u64 = 1_000_000;

#[riscv_rt::entry]
fn main() -> ! {
    memory::init();
    console::init_log();
    let (instructions, module) = count(|| Engine::new(Limits::chip()).load(WASM));
    let module = match module {
        Ok(module) => module,
        Err(reason) => {
            error!("the module is refused: {reason}");
            machine::exit(1);
        }
    };
    info!("load of the example module: {instructions} instructions");
    let heap = memory::heap();
    info!("heap: {} bytes for it, {} at most", heap.used, heap.peak);
    // Each task runs twice: the first run finds no instance that it can use again.
    for (name, function, args) in
        [("a task that does nothing", "identity", &b"\x81\xf6"[..]), ("mapper", "mapper", b"\x81\x65green")]
    {
        let mut spare = Spare::new();
        let runs =
            [count(|| run(&module, function, args, &mut spare)), count(|| run(&module, function, args, &mut spare))];
        match runs {
            [(first, true), (later, true)] => info!("{name}: {first} instructions, later {later}"),
            _ => {
                error!("{name} fails");
                machine::exit(1);
            }
        }
    }
    machine::exit(0)
}

/// Runs a task as a node does. Returns whether it succeeded.
fn run(module: &Module, function: &str, args: &[u8], spare: &mut Spare<NoHost>) -> bool {
    let Ok(mut run) = module.start_with(function, args, NoHost, spare) else { return false };
    let succeeded = matches!(run.step(FUEL), Step::Done(Ok(_)));
    run.keep(spare);
    succeeded
}

/// Runs `work`, and returns how many instructions it took.
fn count<T>(what: impl FnOnce() -> T) -> (u64, T) {
    let before = minstret::read64();
    let value = what();
    (minstret::read64() - before, value)
}
