//! The time driver of embassy, on the machine's timer (CLINT), which counts 10,000,000 times a second.

use core::cell::RefCell;
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;
use riscv::interrupt::Interrupt;
use riscv::register::mie;

const MTIMECMP: *mut u32 = 0x0200_4000 as *mut u32;
const MTIME: *mut u32 = 0x0200_bff8 as *mut u32;

struct Clock {
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock { queue: Mutex::new(RefCell::new(Queue::new())) });

impl Driver for Clock {
    fn now(&self) -> u64 {
        loop {
            // SAFETY: registers that always exist, aligned.
            let (high, low, again) =
                unsafe { (MTIME.add(1).read_volatile(), MTIME.read_volatile(), MTIME.add(1).read_volatile()) };
            if high == again {
                return u64::from(high) << 32 | u64::from(low);
            }
        }
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            if self.queue.borrow(cs).borrow_mut().schedule_wake(at, waker) {
                self.set_alarm(cs);
            }
        });
    }
}

impl Clock {
    /// Wakes the tasks that are due, and sets the alarm for the next one. An alarm in the past fires at once.
    fn set_alarm(&self, cs: CriticalSection<'_>) {
        let next = self.queue.borrow(cs).borrow_mut().next_expiration(self.now());
        // SAFETY: registers that always exist, aligned. The high half is set to its maximum first, so that no alarm
        // fires between the writes of the two halves.
        unsafe {
            MTIMECMP.add(1).write_volatile(u32::MAX);
            MTIMECMP.write_volatile(next as u32);
            MTIMECMP.add(1).write_volatile((next >> 32) as u32);
        }
    }
}

/// Enables alarms.
pub(crate) fn init() {
    critical_section::with(|cs| CLOCK.set_alarm(cs));
    // SAFETY: the handler is set. No critical section relies on this interrupt being disabled.
    unsafe { mie::set_mtimer() };
}

#[riscv_rt::core_interrupt(Interrupt::MachineTimer)]
fn on_alarm() {
    critical_section::with(|cs| CLOCK.set_alarm(cs));
}
