//! How far a run is, told no more often than somebody can read it.
//!
//! A task may say so in a tight loop. What it says within a pause replaces what it said before; the
//! last word is told at the end. A run that is over before the first pause is, says nothing: its end
//! says more.

use std::time::{Duration, Instant};

use broccoli_core::RunId;
use tokio::sync::mpsc::UnboundedSender;

use super::Report;

/// Least time between two reports of a run, and before the first.
const PAUSE: Duration = Duration::from_millis(250);

/// The progress of one run.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    run: RunId,
    reports: UnboundedSender<Report>,
    /// When the last report went out, or the run began.
    told: Instant,
    /// What the task has said since: done, and of how many.
    untold: Option<(u32, u32)>,
}

impl Progress {
    /// Of a run that begins now.
    pub(super) fn new(run: RunId, reports: UnboundedSender<Report>, now: Instant) -> Progress {
        Progress { run, reports, told: now, untold: None }
    }

    /// The task says how far it is.
    pub(super) fn say(&mut self, now: Instant, done: u32, total: u32) {
        self.untold = Some((done, total));
        self.tell_if_due(now);
    }

    /// When there is something to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.untold.map(|_| self.told + PAUSE)
    }

    /// Tells what is due. Also for the end of the run.
    pub(super) fn tell_if_due(&mut self, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            self.tell(now);
        }
    }

    /// The run ends: tells the last word, if the run took long enough for anybody to care.
    pub(super) fn end(&mut self, started: Instant, now: Instant) {
        if now >= started + PAUSE {
            self.tell(now);
        }
    }

    fn tell(&mut self, now: Instant) {
        if let Some((done, total)) = self.untold.take() {
            self.told = now;
            // Nobody listens any more when the node ends.
            let _ = self.reports.send(Report::Progress(self.run, done, total));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    fn told(receiver: &mut UnboundedReceiver<Report>) -> Vec<(u32, u32)> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|report| match report {
                Report::Progress(RunId(7), done, total) => (done, total),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_tight_loop_is_told_four_times_a_second_and_at_the_end() {
        let (sender, mut receiver) = unbounded_channel();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut progress = Progress::new(RunId(7), sender, start);
        for ms in 0..1_100 {
            progress.say(at(ms), ms as u32, 2_000);
        }
        assert_eq!(told(&mut receiver), [(250, 2_000), (500, 2_000), (750, 2_000), (1_000, 2_000)]);
        assert_eq!(progress.due(), Some(at(1_250)));
        progress.end(start, at(1_100));
        progress.end(start, at(1_100));
        assert_eq!(told(&mut receiver), [(1_099, 2_000)]);
        assert_eq!(progress.due(), None);
    }

    #[test]
    fn a_short_run_says_nothing_and_a_silent_one_is_told_in_time() {
        let (sender, mut receiver) = unbounded_channel();
        let start = Instant::now();
        let mut progress = Progress::new(RunId(7), sender, start);
        progress.say(start, 1, 2);
        progress.end(start, start + PAUSE / 2);
        assert_eq!(told(&mut receiver), []);
        progress.tell_if_due(start + PAUSE);
        assert_eq!(told(&mut receiver), [(1, 2)]);
    }
}
