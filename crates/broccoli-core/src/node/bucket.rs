//! A token bucket that limits answers to questions that may be recordings.

use crate::time::Instant;

/// Limits answers to questions that may be recordings: per second, a tenth of the nodes that this node can remember; at
/// once, as many as in two seconds.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Answers that may be given now, in millionths.
    left: u64,
    /// When it was last filled; none before the first use.
    at: Option<Instant>,
}

impl Bucket {
    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, now: Instant, nodes_max: usize) -> bool {
        let rate = (nodes_max as u64 / 10).max(8);
        let passed = self.at.map_or(2_000_000, |at| (now - at).as_micros() as u64);
        self.at = Some(now);
        self.left = self.left.saturating_add(passed.saturating_mul(rate)).min(2_000_000 * rate);
        let is_open = self.left >= 1_000_000;
        if is_open {
            self.left -= 1_000_000;
        }
        is_open
    }
}
