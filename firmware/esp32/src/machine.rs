//! Other parts of the chip: heap, log, watchdog, random numbers, panic handler.

use core::panic::{Location, PanicInfo};

use broccoli_embassy::Memory;
use embassy_time::{Duration, Timer};
use esp_hal::delay::Delay;
use esp_hal::peripherals::RTC_TIMER;
use esp_hal::ram;
use esp_hal::rng::Trng;
use esp_hal::rtc_cntl::{Rtc, RwdtStage};
use esp_println::println;
use log::{LevelFilter, Log, Metadata, Record};

/// RAM that only the bootloader needed.
const HEAP_RECLAIMED_BYTES: usize = if cfg!(feature = "esp32") { 96 * 1024 } else { 64 * 1024 };
/// Heap of the node and the radio. The rest of the RAM is the stack.
const HEAP_BYTES: usize = if cfg!(feature = "esp32") {
    96 * 1024
} else if cfg!(feature = "esp32s3") {
    176 * 1024
} else if cfg!(feature = "esp32c3") {
    184 * 1024
} else {
    272 * 1024
};
/// If the watchdog is not fed for this time, the node hangs, and the chip is reset.
const WATCHDOG_S: u64 = 10;
const FEED_PAUSE: Duration = Duration::from_secs(1);
/// Pause after a panic, so that its message can be read before the reset.
const PANIC_PAUSE_MS: u32 = 1_000;

/// Starts the heap. Call it once, before anything else.
pub(crate) fn init_heap() {
    esp_alloc::heap_allocator!(#[ram(reclaimed)] size: HEAP_RECLAIMED_BYTES);
    esp_alloc::heap_allocator!(size: HEAP_BYTES);
}

/// The state of the heap.
pub(crate) fn heap() -> Memory {
    let stats = esp_alloc::HEAP.stats();
    Memory { used: stats.current_usage, peak: stats.max_usage, free: stats.size - stats.current_usage }
}

struct Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("broccoli")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            match record.level() {
                log::Level::Info => println!("{}", record.args()),
                level => println!("{level}: {}", record.args()),
            }
        }
    }

    fn flush(&self) {}
}

/// Writes log messages to the UART, or to the USB port if a host is connected.
pub(crate) fn init_log() {
    // Fails only if a logger is already set.
    let _ = log::set_logger(&Lines);
    log::set_max_level(LevelFilter::Info);
}

/// Bytes from the true random source of the chip.
pub(crate) fn random<const N: usize>(source: &Trng) -> [u8; N] {
    let mut bytes = [0; N];
    source.read(&mut bytes);
    bytes
}

/// Starts the watchdog, which resets the chip unless [`feed`] runs.
pub(crate) fn watchdog(clock: RTC_TIMER<'static>) -> Rtc<'static> {
    let mut clock = Rtc::new(clock);
    clock.rwdt.set_timeout(RwdtStage::Stage0, esp_hal::time::Duration::from_secs(WATCHDOG_S));
    clock.rwdt.enable();
    clock
}

/// Feeds the watchdog as long as embassy tasks run.
pub(crate) async fn feed(mut clock: Rtc<'static>) {
    loop {
        clock.rwdt.feed();
        Timer::after(FEED_PAUSE).await;
    }
}

/// Resets the chip.
pub(crate) fn reset() -> ! {
    esp_hal::system::software_reset()
}

/// Inlined, and reads only the place: so the compiler finds that the text of a panic is never used, and drops all such
/// texts and the code that formats them.
#[panic_handler]
#[allow(unused_attributes, reason = "the linker's optimiser does what the compiler says is ignored")]
#[inline(always)]
fn panic(info: &PanicInfo<'_>) -> ! {
    panicked(info.location())
}

/// Prints the place of the panic, and resets the chip.
#[inline(never)]
fn panicked(place: Option<&Location<'_>>) -> ! {
    if let Some(place) = place {
        println!("panicked at {place}");
    }
    println!("heap: {}", heap());
    Delay::new().delay_millis(PANIC_PAUSE_MS);
    reset()
}
