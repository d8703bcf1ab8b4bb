//! Time in the core: whole microseconds since an arbitrary start. The shell provides it.

use core::ops::{Add, Sub};
use core::time::Duration;

use minicbor::{Decode, Encode};

/// A point in time, in microseconds. It never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Add<Duration> for Instant {
    type Output = Instant;

    // Not inlined: it is used in about a hundred places, which would take 5 KB of a chip's flash.
    #[inline(never)]
    fn add(self, duration: Duration) -> Instant {
        let us = duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros().into());
        Instant(self.0.saturating_add(us))
    }
}

/// The time since `earlier`; zero if `earlier` is later.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Pauses between attempts. Each is twice as long as the one before, up to the maximum.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    first: Duration,
    max: Duration,
}

impl Backoff {
    /// Before a new connection to the MQTT server.
    pub const RECONNECT: Backoff = Backoff::new(ms(50), ms(1_000));

    const fn new(first: Duration, max: Duration) -> Backoff {
        Backoff { next: first, first, max }
    }

    /// The pause before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause
    }

    /// Call it after an attempt has succeeded: starts again with the first pause.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Milliseconds.
pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// If the time of day differs by more than this from the expected one, the clock was set.
const CLOCK_SLACK_MS: u64 = 1_000;

/// A time in the journal, in milliseconds. Its clock advances like the time of day, also from one incarnation to the
/// next, but cannot be set. It is Unix time if the time of day was never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub(crate) struct Stamp(#[n(0)] pub(crate) u64);

/// The time of day, as the shell reports it.
///
/// ```text
///   time of day   ──────────╮ set                ahead = time of day - stamp:
///                           ╰──────────────►     each step is added, so that no stamp
///   stamps        ─────────────────────────►     leaps or lies before an earlier one
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wall {
    told: Option<Told>,
    /// The reading when it was last set. Small differences add up relative to it.
    set: Option<Told>,
    /// How far the time of day is ahead of the journal's stamps, in milliseconds.
    ahead_ms: i64,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Instant,
    unix_ms: u64,
}

impl Wall {
    /// Takes a reading. Returns `true` if the clock was set, so timers for a time of day must be set again.
    pub(crate) fn set(&mut self, now: Instant, unix_ms: u64) -> bool {
        let told = Told { at: now, unix_ms };
        if let Some(before) = self.told.replace(told) {
            let expected = before.unix_ms(now);
            if expected.abs_diff(unix_ms) > CLOCK_SLACK_MS {
                self.ahead_ms = self.ahead_ms.saturating_add(difference(unix_ms, expected));
            }
        }
        if self.set.is_some_and(|set| set.unix_ms(now).abs_diff(unix_ms) <= CLOCK_SLACK_MS) {
            return false;
        }
        self.set = Some(told);
        true
    }

    /// The time of day, as Unix time in milliseconds; none if no reading was taken.
    pub(crate) fn unix_ms(&self, now: Instant) -> Option<u64> {
        self.told.map(|told| told.unix_ms(now))
    }

    /// The stamp for a point in time; none if no reading was taken.
    pub(crate) fn stamp(&self, at: Instant) -> Option<Stamp> {
        self.unix_ms(at).map(|unix_ms| Stamp(unix_ms.saturating_add_signed(self.ahead_ms.saturating_neg())))
    }

    /// The time of day of a stamp, on the present clock.
    pub(crate) fn unix_ms_of(&self, stamp: Stamp) -> u64 {
        stamp.0.saturating_add_signed(self.ahead_ms)
    }

    /// The point in time of a stamp.
    pub(crate) fn moment(&self, stamp: Stamp) -> Option<Instant> {
        self.instant(self.unix_ms_of(stamp))
    }

    /// The age of a stamp; zero if it is not known, or if the stamp is in the future.
    pub(crate) fn age(&self, now: Instant, stamp: Option<Stamp>) -> Duration {
        let past = self.stamp(now).zip(stamp).map(|(now, then)| now.0.saturating_sub(then.0));
        ms(past.unwrap_or(0))
    }

    /// How far the time of day is ahead of the stamps, for the next incarnation.
    pub(crate) fn ahead_ms(&self) -> i64 {
        self.ahead_ms
    }

    /// Continues the stamps of earlier incarnations. The time of day was `ahead_ms` ahead of them, and `last` was the
    /// last one. If the clock was set back meanwhile, no new stamp is before `last`.
    pub(crate) fn take_over(&mut self, now: Instant, ahead_ms: i64, last: Option<Stamp>) {
        self.ahead_ms = ahead_ms;
        if let Some((stamp, last)) = self.stamp(now).zip(last).filter(|(stamp, last)| stamp < last) {
            self.ahead_ms = self.ahead_ms.saturating_sub(difference(last.0, stamp.0));
        }
    }

    /// The point in time of a time of day; the start of the core's time if it was before that.
    pub(crate) fn instant(&self, unix_ms: u64) -> Option<Instant> {
        let told = self.told?;
        let ahead = ms(unix_ms.saturating_sub(told.unix_ms));
        let behind_us = told.unix_ms.saturating_sub(unix_ms).saturating_mul(1_000);
        Some(Instant(told.at.0.saturating_sub(behind_us)) + ahead)
    }
}

/// `a - b`, limited to the range of `i64`.
fn difference(a: u64, b: u64) -> i64 {
    let most = i64::try_from(a.abs_diff(b)).unwrap_or(i64::MAX);
    if a < b { -most } else { most }
}

impl Told {
    fn unix_ms(&self, now: Instant) -> u64 {
        self.unix_ms.saturating_add((now - self.at).as_millis() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    /// A clock with a reading each second. Before each reading, it is set by one of these steps.
    fn set_by(steps: &[i64]) -> (Wall, Instant, u64) {
        let (mut wall, mut at, mut unix_ms) = (Wall::default(), Instant(0), 1_700_000_000_000_u64);
        wall.set(at, unix_ms);
        for step in steps {
            at = at + ms(1_000);
            unix_ms = (unix_ms + 1_000).saturating_add_signed(*step);
            wall.set(at, unix_ms);
        }
        (wall, at, unix_ms)
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::RECONNECT;
        let pauses: [u128; 7] = core::array::from_fn(|_| backoff.pause().as_millis());
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000]);
        backoff.reset();
        assert_eq!(backoff.pause(), ms(50));
    }

    #[test]
    fn stamps_go_on_however_often_the_clock_is_set() {
        for steps in
            [&[DAY_MS][..], &[-DAY_MS], &[DAY_MS, -DAY_MS], &[-3 * DAY_MS, 0, 7_000, DAY_MS], &[20_000 * DAY_MS]]
        {
            let (wall, at, unix_ms) = set_by(steps);
            let stamp = Stamp(1_700_000_000_000 + 1_000 * steps.len() as u64);
            assert_eq!(wall.stamp(at), Some(stamp), "{steps:?}");
            assert_eq!((wall.unix_ms_of(stamp), wall.moment(stamp)), (unix_ms, Some(at)), "{steps:?}");
            assert_eq!(wall.ahead_ms(), steps.iter().sum::<i64>());
        }
    }

    #[test]
    fn a_clock_that_runs_a_little_fast_is_not_set() {
        let (wall, _, _) = set_by(&[40; 100]);
        assert_eq!(wall.ahead_ms(), 0);
    }

    #[test]
    fn the_next_incarnation_goes_on_and_never_back() {
        let (mut wall, at, unix_ms) = set_by(&[0]);
        let now = Stamp(unix_ms);
        wall.take_over(at, DAY_MS, None);
        assert_eq!(wall.stamp(at), Some(Stamp(unix_ms - DAY_MS as u64)));
        wall.take_over(at, 0, Some(Stamp(unix_ms + 5_000)));
        assert_eq!((wall.stamp(at), wall.ahead_ms()), (Some(Stamp(unix_ms + 5_000)), -5_000));
        wall.take_over(at, 0, Some(Stamp(unix_ms - 5_000)));
        assert_eq!((wall.stamp(at), wall.age(at, Some(now))), (Some(now), ms(0)));
    }
}
