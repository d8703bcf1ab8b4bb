//! Limits the lines about jobs and tasks: the first ones of a second are logged, the others are only counted.

use std::time::{Duration, Instant};

use broccoli_proto::NodeId;
use tracing::info;

/// Most lines in each second.
pub(crate) const LINES_PER_S: u32 = 20;
const SECOND: Duration = Duration::from_secs(1);

/// The lines of the current second. It starts with a line.
#[derive(Debug, Default)]
pub(crate) struct LineRate {
    since: Option<Instant>,
    logged: u32,
    left_out: u64,
}

impl LineRate {
    /// Whether one more line may be logged. If not, it is counted.
    pub(super) fn admits(&mut self, node: NodeId, now: Instant) -> bool {
        self.report(node, now);
        self.since.get_or_insert(now);
        if self.logged < LINES_PER_S {
            self.logged += 1;
            return true;
        }
        self.left_out += 1;
        false
    }

    /// Logs how many lines were left out, once their second is over.
    pub(crate) fn report(&mut self, node: NodeId, now: Instant) {
        if self.since.is_some_and(|since| now >= since + SECOND) {
            self.finish(node);
        }
    }

    /// Logs how many lines were left out so far.
    pub(crate) fn finish(&mut self, node: NodeId) {
        let lines = std::mem::take(self).left_out;
        if lines > 0 {
            info!(target: "broccoli::job", %node, lines, "too many jobs and failed tasks in a second: lines left out");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_each_second_are_logged_and_the_others_counted() {
        let (mut rate, start) = (LineRate::default(), Instant::now());
        let node: NodeId = "pi-1".parse().unwrap();
        let admitted = |rate: &mut LineRate, at| (0..1_000).filter(|_| rate.admits(node, at)).count();
        assert_eq!(admitted(&mut rate, start), LINES_PER_S as usize);
        assert_eq!(admitted(&mut rate, start + SECOND - Duration::from_nanos(1)), 0);
        assert_eq!(rate.left_out, 2_000 - u64::from(LINES_PER_S));
        assert_eq!(admitted(&mut rate, start + SECOND), LINES_PER_S as usize);
        rate.report(node, start + 2 * SECOND);
        assert_eq!((rate.since, rate.logged, rate.left_out), (None, 0, 0));
    }
}
