//! The time driver of embassy, on the core's cycle counter, which counts 10,000,000 times a second, and its timer 0.

use core::cell::{Cell, RefCell};
use core::task::Waker;

use critical_section::{CriticalSection, Mutex};
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;
use xtensa_lx::timer;

/// The counter has 32 bits. An alarm at least this often, in ticks, so that no overflow is missed.
const ALARM_MAX: u64 = 1 << 30;
/// An alarm is at least so many ticks in the future, so that the counter does not pass it before it is set.
const ALARM_MIN: u64 = 50;

struct Clock {
    queue: Mutex<RefCell<Queue>>,
    /// The time when it was last asked for.
    last: Mutex<Cell<u64>>,
}

embassy_time_driver::time_driver_impl!(static CLOCK: Clock = Clock {
    queue: Mutex::new(RefCell::new(Queue::new())),
    last: Mutex::new(Cell::new(0)),
});

impl Driver for Clock {
    fn now(&self) -> u64 {
        critical_section::with(|cs| self.time(cs))
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
    fn time(&self, cs: CriticalSection<'_>) -> u64 {
        let last = self.last.borrow(cs);
        let passed = timer::get_cycle_count().wrapping_sub(last.get() as u32);
        last.set(last.get() + u64::from(passed));
        last.get()
    }

    /// Wakes the tasks that are due, and sets the alarm for the next one. An alarm in the past fires soon.
    fn set_alarm(&self, cs: CriticalSection<'_>) {
        let next = self.queue.borrow(cs).borrow_mut().next_expiration(self.time(cs));
        let mut margin = ALARM_MIN;
        loop {
            let now = self.time(cs);
            let alarm = next.clamp(now + margin, now + ALARM_MAX);
            timer::set_ccompare0(alarm as u32);
            // The counter goes on meanwhile, and fires only when it reaches the alarm.
            if self.time(cs) < alarm {
                return;
            }
            margin *= 2;
        }
    }
}

/// Sets the first alarm.
pub(crate) fn init() {
    critical_section::with(|cs| CLOCK.set_alarm(cs));
}

/// Handles the interrupt of the timer. It must be called in the interrupt, which it acknowledges.
pub(crate) fn on_alarm() {
    critical_section::with(|cs| CLOCK.set_alarm(cs));
}
