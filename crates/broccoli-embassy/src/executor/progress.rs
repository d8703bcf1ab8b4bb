//! How far a run is, told no more often than somebody can read it.
//!
//! What a task says within a pause replaces what it said before; the last word is told at the end. A
//! run that is over before the first pause is, says nothing: its end says more.

use embassy_time::{Duration, Instant};

/// Least time between two reports of a run, and before the first.
const PAUSE: Duration = Duration::from_millis(250);

/// The progress of one run.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    started: Instant,
    /// When it was last told, or the run began.
    told: Instant,
    /// What the task has said since: done, and of how many.
    untold: Option<(u32, u32)>,
}

impl Progress {
    /// Of a run that begins now.
    pub(super) fn new(now: Instant) -> Progress {
        Progress { started: now, told: now, untold: None }
    }

    /// The task says how far it is.
    pub(super) fn say(&mut self, done: u32, total: u32) {
        self.untold = Some((done, total));
    }

    /// When there is something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.untold.map(|_| self.told + PAUSE)
    }

    /// What is to be told now, if anything.
    pub(super) fn tell(&mut self, now: Instant, is_over: bool) -> Option<(u32, u32)> {
        let from = if is_over { self.started } else { self.told };
        if now < from + PAUSE {
            return None;
        }
        let told = self.untold.take();
        self.told = if told.is_some() { now } else { self.told };
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tight_loop_is_told_four_times_a_second_and_at_the_end() {
        let mut progress = Progress::new(Instant::from_millis(0));
        let mut told = alloc::vec::Vec::new();
        for ms in 0..1_100 {
            progress.say(ms, 2_000);
            told.extend(progress.tell(Instant::from_millis(ms.into()), false).map(|(done, _)| done));
        }
        assert_eq!(told, [250, 500, 750, 1_000]);
        assert_eq!(progress.due(), Some(Instant::from_millis(1_250)));
        assert_eq!(progress.tell(Instant::from_millis(1_100), true), Some((1_099, 2_000)));
        assert_eq!(progress.due(), None);
    }

    #[test]
    fn a_short_run_says_nothing() {
        let mut progress = Progress::new(Instant::from_millis(0));
        progress.say(1, 2);
        assert_eq!(progress.tell(Instant::from_millis(125), true), None);
    }
}
