//! The console: log messages, and the panic handler.

use core::fmt::{Arguments, Write};
use core::panic::{Location, PanicInfo};

use log::{LevelFilter, Log, Metadata, Record};

use crate::machine;

/// Pause after a panic, in milliseconds, so that its message can be read before the reset.
const PANIC_PAUSE_MS: u64 = 1_000;

/// Writing to it never fails.
struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        text.bytes().for_each(machine::put);
        Ok(())
    }
}

struct Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ["broccoli", "qemu_virt", "qemu_xtensa", "count", "compute", "atomics"]
            .iter()
            .any(|ours| metadata.target().starts_with(ours))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Writing to the console never fails.
            let _ = match record.level() {
                log::Level::Info => writeln!(Console, "{}", record.args()),
                level => writeln!(Console, "{level}: {}", record.args()),
            };
        }
    }

    fn flush(&self) {}
}

/// Writes log messages to the console.
pub(crate) fn init_log() {
    // Fails only if a logger is already set.
    let _ = log::set_logger(&Lines);
    log::set_max_level(LevelFilter::Info);
}

/// Inlined, and reads only the place: so the compiler finds that the text of a panic is never used, and drops all such
/// texts and the code that formats them: 70 KB.
#[panic_handler]
#[allow(unused_attributes, reason = "the linker's optimiser does what the compiler says is ignored")]
#[inline(always)]
fn panic(info: &PanicInfo<'_>) -> ! {
    panicked(info.location())
}

/// Prints the place of the panic, and resets the machine.
#[inline(never)]
fn panicked(place: Option<&Location<'_>>) -> ! {
    match place {
        Some(place) => end(format_args!("panicked at {place}")),
        None => end(format_args!("panicked")),
    }
}

/// Prints the reason and the state of the heap, and resets the machine.
pub(crate) fn end(reason: Arguments<'_>) -> ! {
    let _ = writeln!(Console, "{reason}\nheap: {}", crate::memory::heap());
    machine::pause_ms(PANIC_PAUSE_MS);
    machine::reset()
}
