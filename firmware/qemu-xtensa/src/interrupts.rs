//! Interrupts: of the timer and of the network device, both at level 1, critical sections, and waiting for interrupts.

use core::arch::asm;

use critical_section::RawRestoreState;
use embassy_sync::waitqueue::AtomicWaker;
use xtensa_lx::interrupt;

/// The interrupts of timer 0 and of the network device, as bits.
const TIMER: u32 = 1 << 6;
const NETWORK_DEVICE: u32 = 1 << 1;

/// Woken by the interrupt of the network device.
pub(crate) static NETWORK: AtomicWaker = AtomicWaker::new();

/// Enables the interrupts of the timer and of the network device.
pub(crate) fn enable() {
    // SAFETY: the handler is set, and this is outside critical sections. The core starts with all levels masked.
    unsafe {
        interrupt::enable_mask(TIMER | NETWORK_DEVICE);
        asm!("rsil {0}, 0", out(reg) _);
    }
}

/// Waits for an interrupt, unless `is_due`. An interrupt after the answer is not missed: they are masked from before the
/// question until the core waits.
pub(crate) fn wait_unless(is_due: impl FnOnce() -> bool) {
    // SAFETY: it is outside critical sections. Both instructions only change the level below which interrupts are
    // masked, and the second of them waits.
    unsafe {
        asm!("rsil {0}, 3", out(reg) _);
        if is_due() {
            asm!("rsil {0}, 0", out(reg) _);
        } else {
            asm!("waiti 0");
        }
    }
}

/// Called by the entry of interrupts in `start`.
#[unsafe(no_mangle)]
extern "C" fn on_interrupt() {
    let pending = interrupt::get() & interrupt::get_mask();
    if pending & TIMER != 0 {
        crate::clock::on_alarm();
    }
    if pending & NETWORK_DEVICE != 0 {
        crate::net::acknowledge();
        NETWORK.wake();
    }
}

struct Masked;

critical_section::set_impl!(Masked);

// SAFETY: there is one core, and level 3 masks all interrupts with handlers in Rust. The state is the status register.
unsafe impl critical_section::Impl for Masked {
    unsafe fn acquire() -> RawRestoreState {
        let before: u32;
        // SAFETY: changes only the level.
        unsafe { asm!("rsil {0}, 3", out(reg) before) };
        before
    }

    unsafe fn release(before: RawRestoreState) {
        // SAFETY: the status is that of the same thread before `acquire`. It has no fields but the level that matter
        // between instructions of compiled code.
        unsafe { asm!("wsr {0}, ps", "rsync", in(reg) before) };
    }
}
