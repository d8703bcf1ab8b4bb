//! The progress of a run, with a limit on how often it is reported.
//!
//! A task may report progress in a tight loop. A report within the pause replaces the one before. The last report is
//! passed on at the end. A run that ends before the first pause is over reports nothing: its end is enough.

/// Least time between two reports of a run, and before the first one, in microseconds.
const PAUSE_US: u64 = 250_000;

/// The progress of one run.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    started_us: u64,
    /// When it was last reported, or the run started.
    told_us: u64,
    /// The latest report that was not passed on: units done, and of how many.
    untold: Option<(u32, u32)>,
}

impl Progress {
    /// The progress of a run that starts now.
    pub(crate) fn new(now_us: u64) -> Progress {
        Progress { started_us: now_us, told_us: now_us, untold: None }
    }

    /// The task has done `done` of `total` units. `total` is 0 if the task does not know it.
    pub fn say(&mut self, done: u32, total: u32) {
        self.untold = Some((done, total));
    }

    /// When the next report can be passed on.
    pub(crate) fn due_us(&self) -> Option<u64> {
        self.untold.map(|_| self.told_us + PAUSE_US)
    }

    /// The report to pass on now, if any.
    pub fn tell(&mut self, now_us: u64) -> Option<(u32, u32)> {
        self.tell_since(self.told_us, now_us)
    }

    /// The last report, if the run took long enough.
    pub(crate) fn end(&mut self, now_us: u64) -> Option<(u32, u32)> {
        self.tell_since(self.started_us, now_us)
    }

    fn tell_since(&mut self, since_us: u64, now_us: u64) -> Option<(u32, u32)> {
        if now_us < since_us + PAUSE_US {
            return None;
        }
        let told = self.untold.take()?;
        self.told_us = now_us;
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_tight_loop_is_told_four_times_a_second_and_at_the_end() {
        let mut progress = Progress::new(0);
        let said = |progress: &mut Progress, ms: u32| {
            progress.say(ms, 2_000);
            progress.tell(u64::from(ms) * 1_000)
        };
        let told: Vec<_> = (0..1_100).filter_map(|ms| said(&mut progress, ms)).collect();
        assert_eq!(told, [(250, 2_000), (500, 2_000), (750, 2_000), (1_000, 2_000)]);
        assert_eq!(progress.due_us(), Some(1_250_000));
        assert_eq!(progress.end(1_100_000), Some((1_099, 2_000)));
        assert_eq!((progress.end(1_100_000), progress.due_us()), (None, None));
    }

    #[test]
    fn a_short_run_says_nothing_and_a_silent_one_is_told_in_time() {
        let mut progress = Progress::new(0);
        progress.say(1, 2);
        assert_eq!(progress.end(PAUSE_US / 2), None);
        assert_eq!(progress.tell(PAUSE_US), Some((1, 2)));
    }
}
