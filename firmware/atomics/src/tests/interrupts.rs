//! In place of a core: records for the tests whether interrupts are disabled.

use std::cell::Cell;

std::thread_local! {
    static ENABLED: Cell<bool> = const { Cell::new(true) };
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

pub(crate) fn disable() -> usize {
    COUNT.set(COUNT.get() + 1);
    ENABLED.replace(false).into()
}

pub(crate) fn restore(enabled: usize) {
    assert!(!ENABLED.get(), "they were not disabled");
    ENABLED.set(enabled == 1);
}

/// Whether they are enabled, and how often they were disabled.
pub(crate) fn state() -> (bool, u32) {
    (ENABLED.get(), COUNT.get())
}

/// Runs `work` with interrupts enabled or not.
pub(crate) fn with(enabled: bool, work: impl FnOnce()) {
    let before = ENABLED.replace(enabled);
    work();
    ENABLED.set(before);
}
