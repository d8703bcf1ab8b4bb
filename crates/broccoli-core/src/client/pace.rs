//! Limits the unanswered submits of a client: a window while they are accepted, one at a time after a pause when the
//! origin is full.

use core::time::Duration;

use broccoli_proto::SplitMix64;

use crate::time::Instant;
use crate::timing::{LinkTime, Timing, link_ms};

/// Most unanswered submits.
const WINDOW_MAX: u32 = 256;
/// Pause after the first refusal, doubled up to the maximum.
const PAUSE: LinkTime = link_ms(200);
const PAUSE_MAX: LinkTime = link_ms(5_000);

/// The backpressure of one client.
#[derive(Debug)]
pub(super) struct Pace {
    /// Sent and not answered.
    pub(super) in_flight: u32,
    window: u32,
    /// The last pause; zero if the last submit was accepted.
    pause: Duration,
    until: Instant,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace { in_flight: 0, window: WINDOW_MAX, pause: Duration::ZERO, until: Instant(0) }
    }
}

impl Pace {
    /// Whether another canvas may be sent.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        now >= self.until && self.in_flight < self.window
    }

    /// When sending may continue.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// A canvas was accepted, or refused for a reason other than a full queue.
    pub(super) fn on_answer(&mut self) {
        self.in_flight -= 1;
        self.pause = Duration::ZERO;
        self.until = Instant(0);
        self.window = (self.window * 2).min(WINDOW_MAX);
    }

    /// The origin is full. Refusals of submits that were sent before the pause do not extend it.
    pub(super) fn on_full(&mut self, now: Instant, timing: Timing, rng: &mut SplitMix64) {
        self.in_flight -= 1;
        self.window = 1;
        if now < self.until {
            return;
        }
        self.pause = (self.pause * 2).clamp(timing.time(PAUSE), timing.time(PAUSE_MAX));
        // Half of it is random, so that clients that were refused together do not return together.
        let half = self.pause.as_micros() as u64 / 2;
        self.until = now + Duration::from_micros(half + rng.below(half));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ms;

    #[test]
    fn pauses_grow_to_their_limit_and_end_with_the_first_good_answer() {
        let (mut pace, mut rng, mut now) = (Pace::default(), SplitMix64(1), Instant(0));
        pace.in_flight = 20;
        for most_ms in [200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            pace.on_full(now, Timing::FAST, &mut rng);
            let pause = pace.until() - now;
            assert!(pause >= ms(most_ms / 2) && pause <= ms(most_ms), "{pause:?} of at most {most_ms} ms");
            pace.on_full(now, Timing::FAST, &mut rng);
            assert_eq!(pace.until() - now, pause, "one pause for all that were refused together");
            now = pace.until();
        }
        assert!(!pace.is_open(now), "others are still on their way");
        while pace.in_flight > 0 {
            pace.on_answer();
        }
        assert!(pace.is_open(now));
    }
}
