//! Time as the core sees it: whole microseconds since an arbitrary start, given by the shell.

use core::ops::{Add, Sub};
use core::time::Duration;

/// A moment, in microseconds. Never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(duration.as_micros() as u64))
    }
}

/// The time since `earlier`; zero if that is later.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds.
pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The time of day may differ from what was expected by so much before it counts as set anew.
const CLOCK_SLACK_MS: u64 = 1_000;

/// The time of day, as the shell tells it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wall {
    told: Option<Told>,
    /// What it was when it was last set: small differences add up against this.
    set: Option<Told>,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    unix_ms: u64,
}

impl Wall {
    /// Takes a reading; `true` if the clock was set: whoever waits for a time of day must look again.
    pub(crate) fn tell(&mut self, now: Instant, unix_ms: u64) -> bool {
        let told = Told { at: now, unix_ms };
        self.told = Some(told);
        if self.set.is_some_and(|set| set.unix_ms(now).abs_diff(unix_ms) <= CLOCK_SLACK_MS) {
            return false;
        }
        self.set = Some(told);
        true
    }

    /// The time of day in Unix milliseconds; none if it was never told.
    pub(crate) fn unix_ms(&self, now: Instant) -> Option<u64> {
        self.told.map(|told| told.unix_ms(now))
    }

    /// When it is or was this time of day; the beginning of time if that was before it.
    pub(crate) fn instant(&self, unix_ms: u64) -> Option<Instant> {
        let told = self.told?;
        let ahead = ms(unix_ms.saturating_sub(told.unix_ms));
        let behind_us = told.unix_ms.saturating_sub(unix_ms).saturating_mul(1_000);
        Some(Instant(told.at.0.saturating_sub(behind_us)) + ahead)
    }
}

impl Told {
    fn unix_ms(&self, now: Instant) -> u64 {
        self.unix_ms.saturating_add((now - self.at).as_millis() as u64)
    }
}
