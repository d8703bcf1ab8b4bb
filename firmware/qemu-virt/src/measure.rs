//! Counts instructions: of loading the example module, and of runs of two of its tasks.

use alloc::format;
use alloc::string::String;

use broccoli_wasm::{Engine, Limits, Module, NoHost, Spare, Step};
use log::info;

use crate::memory;

const WASM: &[u8] = include_bytes!("../../../functions/tasks.wasm");
/// More fuel than any of the runs needs.
const FUEL: u64 = 1_000_000;

/// Measures and prints. `instructions` says how many there were until now.
///
/// # Errors
/// The module is refused, or a task fails.
pub(crate) fn run(instructions: fn() -> u64) -> Result<(), String> {
    let (loading, module) = count(instructions, || Engine::new(Limits::chip()).load(WASM));
    let module = module.map_err(|reason| format!("the module is refused: {reason}"))?;
    info!("load of the example module: {loading} instructions");
    let heap = memory::heap();
    info!("heap: {} bytes for it, {} at most", heap.used, heap.peak);
    // Each task runs twice: the first run finds no instance that it can use again.
    for (name, function, args) in
        [("a task that does nothing", "identity", &b"\x81\xf6"[..]), ("mapper", "mapper", b"\x81\x65green")]
    {
        let mut spare = Spare::new();
        let mut run = || count(instructions, || run_task(&module, function, args, &mut spare));
        match (run(), run()) {
            ((first, true), (later, true)) => info!("{name}: {first} instructions, later {later}"),
            _ => return Err(format!("{name} fails")),
        }
    }
    Ok(())
}

/// Runs a task as a node does. Returns whether it succeeded.
fn run_task(module: &Module, function: &str, args: &[u8], spare: &mut Spare<NoHost>) -> bool {
    let Ok(mut run) = module.start_with(function, args, NoHost, spare) else { return false };
    let succeeded = matches!(run.step(FUEL), Step::Done(Ok(_)));
    run.keep(spare);
    succeeded
}

/// Runs `work`, and returns how many instructions it took.
fn count<T>(instructions: fn() -> u64, work: impl FnOnce() -> T) -> (u64, T) {
    let before = instructions();
    let value = work();
    (instructions() - before, value)
}
