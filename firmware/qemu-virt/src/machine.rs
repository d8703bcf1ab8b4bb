//! Other parts of the machine: UART, test device, clock of the host, panic handler.

use core::fmt::Write;
use core::panic::{Location, PanicInfo};

use log::{LevelFilter, Log, Metadata, Record};

const UART: *mut u8 = 0x1000_0000 as *mut u8;
const UART_STATUS: *const u8 = 0x1000_0005 as *const u8;
const UART_IDLE: u8 = 0x20;
/// Ends or resets the machine.
const TEST: *mut u32 = 0x0010_0000 as *mut u32;
const TEST_PASS: u32 = 0x5555;
const TEST_FAIL: u32 = 0x3333;
const TEST_RESET: u32 = 0x7777;
/// Nanoseconds since 1970. Reading the low half latches the high half.
const RTC: *const u32 = 0x0010_1000 as *const u32;
/// Pause after a panic, in milliseconds, so that its message can be read before the reset.
const PANIC_PAUSE_MS: u64 = 1_000;

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            // SAFETY: registers that always exist.
            unsafe {
                while UART_STATUS.read_volatile() & UART_IDLE == 0 {}
                UART.write_volatile(byte);
            }
        }
        Ok(())
    }
}

struct Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ["broccoli", "qemu_virt", "count", "atomics"].iter().any(|ours| metadata.target().starts_with(ours))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Writing to the UART never fails.
            let _ = match record.level() {
                log::Level::Info => writeln!(Uart, "{}", record.args()),
                level => writeln!(Uart, "{level}: {}", record.args()),
            };
        }
    }

    fn flush(&self) {}
}

/// Writes log messages to the UART.
pub(crate) fn init_log() {
    // Fails only if a logger is already set.
    let _ = log::set_logger(&Lines);
    log::set_max_level(LevelFilter::Info);
}

/// Unix time of the host, in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    // SAFETY: registers that always exist, aligned.
    let (low, high) = unsafe { (RTC.read_volatile(), RTC.add(1).read_volatile()) };
    (u64::from(high) << 32 | u64::from(low)) / 1_000_000
}

/// Ends QEMU with this exit status.
pub(crate) fn exit(status: u16) -> ! {
    let word = if status == 0 { TEST_PASS } else { u32::from(status) << 16 | TEST_FAIL };
    // SAFETY: a register that always exists.
    unsafe { TEST.write_volatile(word) };
    loop {
        riscv::asm::wfi();
    }
}

/// Resets the machine.
pub(crate) fn reset() -> ! {
    // SAFETY: a register that always exists.
    unsafe { TEST.write_volatile(TEST_RESET) };
    loop {
        riscv::asm::wfi();
    }
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
    let heap = crate::memory::heap();
    if let Some(place) = place {
        let _ = writeln!(Uart, "panicked at {place}");
    }
    let _ = writeln!(Uart, "heap: {heap}");
    let end = unix_ms() + PANIC_PAUSE_MS;
    while unix_ms() < end {}
    reset()
}
