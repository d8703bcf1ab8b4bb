//! Interrupts of the core, in machine mode.

use core::arch::asm;

/// The bit of `mstatus` that enables interrupts.
const MIE: usize = 8;

/// Disables interrupts, and returns the state to [`restore`].
#[inline(always)]
pub(crate) fn disable() -> usize {
    let before: usize;
    // SAFETY: clears only the bit MIE. The compiler moves no access to memory over it.
    unsafe { asm!("csrrci {}, mstatus, {MIE}", out(reg) before, MIE = const MIE, options(nostack)) };
    before & MIE
}

/// Enables interrupts if they were enabled before.
#[inline(always)]
pub(crate) fn restore(enabled: usize) {
    // SAFETY: sets only the bit MIE, and only if it was set before. The compiler moves no access to memory over it.
    unsafe { asm!("csrs mstatus, {}", in(reg) enabled, options(nostack)) };
}
