//! The executor of embassy: it runs the tasks that are awake, then waits for an interrupt.

use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use embassy_executor::Spawner;
use embassy_executor::raw::Executor;
use static_cell::StaticCell;

use crate::interrupts;

/// Whether a task was woken after the executor last looked.
static IS_WOKEN: AtomicBool = AtomicBool::new(false);

/// The name and the signature are those that embassy calls.
#[unsafe(export_name = "__pender")]
fn pend(_: *mut ()) {
    IS_WOKEN.store(true, Ordering::Release);
}

/// Runs tasks forever. `init` spawns the first ones. Call it once.
pub(crate) fn run(init: impl FnOnce(Spawner)) -> ! {
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    let executor = EXECUTOR.init(Executor::new(ptr::null_mut()));
    init(executor.spawner());
    loop {
        // SAFETY: the executor is initialised, and this is the only call, so it is never nested.
        unsafe { executor.poll() };
        interrupts::wait_unless(|| IS_WOKEN.swap(false, Ordering::AcqRel));
    }
}
