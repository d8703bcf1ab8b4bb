//! The clock of one node: it starts at any time, and may run too fast or too slow.

use broccoli_core::Instant;

/// Parts of a million.
const MILLION: i128 = 1_000_000;

/// A monotonic clock, and what the node believes the time of day to be.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    since_us: u64,
    since: Instant,
    ppm: i64,
    /// How far its time of day is ahead, in milliseconds.
    pub wall_ahead_ms: i64,
}

impl Clock {
    /// A clock that shows the time of the simulation.
    pub fn exact() -> Clock {
        Clock { since_us: 0, since: Instant(0), ppm: 0, wall_ahead_ms: 0 }
    }

    /// Runs at another speed from now on: so many millionths too fast.
    pub fn drift(&mut self, now_us: u64, ppm: i64) {
        self.since = self.at(now_us);
        self.since_us = now_us;
        self.ppm = ppm;
    }

    /// What it shows at a time of the simulation.
    pub fn at(&self, now_us: u64) -> Instant {
        let passed = i128::from(now_us.saturating_sub(self.since_us));
        Instant(self.since.0 + (passed * (MILLION + i128::from(self.ppm)) / MILLION) as u64)
    }

    /// The first time of the simulation at which it shows `at` or later.
    pub fn when(&self, at: Instant) -> u64 {
        let left = i128::from(at.0.saturating_sub(self.since.0));
        let speed = MILLION + i128::from(self.ppm);
        self.since_us + ((left * MILLION + speed - 1) / speed) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_due_when_the_clock_shows_its_time() {
        for ppm in [-50_000, -1, 0, 1, 333, 50_000] {
            let mut clock = Clock::exact();
            clock.drift(1_234_567, ppm);
            for at in [1_234_567, 1_234_568, 2_000_001, 99_999_999_999] {
                let when = clock.when(Instant(at));
                assert!(clock.at(when) >= Instant(at), "{ppm} {at}");
                assert!(when <= 1_234_567 || clock.at(when - 1) < Instant(at), "{ppm} {at}");
            }
        }
    }
}
