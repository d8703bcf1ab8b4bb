//! Checks atomic operations on the core: their results, and that none is lost while interrupts do the same. `cargo
//! xtask guests` runs it before it starts nodes.
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

use core::hint::black_box;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicI8, AtomicI16, AtomicI32, AtomicU8, AtomicU16, AtomicU32};

use log::{error, info};
use riscv::interrupt::Interrupt;
use riscv::register::{mie, mstatus};

const MTIMECMP: *mut u32 = 0x0200_4000 as *mut u32;
const MTIME: *const u32 = 0x0200_bff8 as *const u32;

/// How often each counter is increased outside of interrupts.
const ROUNDS: u32 = 200_000;
/// Fewer interrupts would prove little.
const INTERRUPTS_MIN: u32 = 5_000;

/// Increased by both.
static WORD: AtomicU32 = AtomicU32::new(0);
static HALF: AtomicU16 = AtomicU16::new(0);
static BYTE: AtomicU8 = AtomicU8::new(0);
/// Increased by both, with compare-and-swap.
static SWAPPED: AtomicU16 = AtomicU16::new(0);
/// Increased only by the interrupt.
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

#[riscv_rt::entry]
fn main() -> ! {
    memory::init();
    console::init_log();
    let checked = check_results().and_then(|()| check_interrupts());
    match checked {
        Ok(interrupts) => info!("atomic operations: exact, with {interrupts} interrupts"),
        Err(reason) => error!("atomic operations: {reason}"),
    }
    machine::exit(checked.is_err().into())
}

/// Checks operations on integers of one type at its limits. The compiler cannot know the values.
macro_rules! check {
    ($($int:ty, $atomic:ident;)*) => {$({
        let values = [0, 1, 2, 0x5a, <$int>::MAX - 1, <$int>::MAX, <$int>::MIN, <$int>::MIN + 1, <$int>::MAX / 2 + 1];
        for old in values {
            for value in values {
                let (old, value) = (black_box(old), black_box(value));
                let after = |what: &'static str, operation: fn(&$atomic, $int) -> $int, expected: $int| {
                    let place = black_box($atomic::new(old));
                    let right = operation(&place, value) == old && place.into_inner() == expected;
                    right.then_some(()).ok_or(what)
                };
                after("swap", |place, value| place.swap(value, SeqCst), value)?;
                after("fetch_add", |place, value| place.fetch_add(value, SeqCst), old.wrapping_add(value))?;
                after("fetch_sub", |place, value| place.fetch_sub(value, SeqCst), old.wrapping_sub(value))?;
                after("fetch_and", |place, value| place.fetch_and(value, SeqCst), old & value)?;
                after("fetch_or", |place, value| place.fetch_or(value, SeqCst), old | value)?;
                after("fetch_xor", |place, value| place.fetch_xor(value, SeqCst), old ^ value)?;
                after("fetch_nand", |place, value| place.fetch_nand(value, SeqCst), !(old & value))?;
                after("fetch_max", |place, value| place.fetch_max(value, SeqCst), old.max(value))?;
                after("fetch_min", |place, value| place.fetch_min(value, SeqCst), old.min(value))?;
                let place = black_box($atomic::new(old));
                let new = black_box(old.wrapping_add(3));
                let swapped = place.compare_exchange(value, new, SeqCst, SeqCst);
                let expected = if old == value { (Ok(old), new) } else { (Err(old), old) };
                if (swapped, place.into_inner()) != expected {
                    return Err(concat!("compare_exchange of ", stringify!($int)));
                }
            }
        }
    })*};
}

fn check_results() -> Result<(), &'static str> {
    check! { u8, AtomicU8; i8, AtomicI8; u16, AtomicU16; i16, AtomicI16; u32, AtomicU32; i32, AtomicI32; }
    Ok(())
}

/// Counts, while an interrupt counts, too. Returns the number of interrupts.
fn check_interrupts() -> Result<u32, &'static str> {
    set_alarm();
    // SAFETY: the handler is set. Nothing relies on interrupts being disabled.
    unsafe {
        mie::set_mtimer();
        mstatus::set_mie();
    }
    for _ in 0..ROUNDS {
        count();
    }
    // SAFETY: disabling an interrupt is always allowed.
    unsafe { mie::clear_mtimer() };
    let interrupts = INTERRUPTS.load(SeqCst);
    let expected = ROUNDS + interrupts;
    if interrupts < INTERRUPTS_MIN {
        return Err("too few interrupts came");
    }
    let counts = [WORD.load(SeqCst), HALF.load(SeqCst).into(), BYTE.load(SeqCst).into(), SWAPPED.load(SeqCst).into()];
    let exact = [expected, expected & 0xffff, expected & 0xff, expected & 0xffff];
    if counts == exact { Ok(interrupts) } else { Err("an interrupt in the middle of an operation loses a change") }
}

fn count() {
    WORD.fetch_add(1, SeqCst);
    HALF.fetch_add(1, SeqCst);
    BYTE.fetch_sub(u8::MAX, SeqCst);
    let mut seen = SWAPPED.load(SeqCst);
    while let Err(other) = SWAPPED.compare_exchange_weak(seen, seen.wrapping_add(1), SeqCst, SeqCst) {
        seen = other;
    }
}

/// Sets the alarm a little ahead. The time differs, so that it does not follow the rhythm of the loop.
fn set_alarm() {
    // SAFETY: registers that always exist, aligned. The high half of the time is 0 in the first minutes.
    unsafe {
        let ahead = 2 + INTERRUPTS.load(SeqCst) % 4;
        MTIMECMP.write_volatile(MTIME.read_volatile() + ahead);
        MTIMECMP.add(1).write_volatile(0);
    }
}

#[riscv_rt::core_interrupt(Interrupt::MachineTimer)]
fn on_alarm() {
    INTERRUPTS.store(INTERRUPTS.load(SeqCst) + 1, SeqCst);
    count();
    set_alarm();
}
