//! How often a node answers questions that may be recordings.

use crate::time::Instant;

/// How often this node answers questions that may be recordings: a tenth of the nodes that it remembers in a second, and as
/// many at once as are due in two.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Answers that may be given, in millionths.
    left: u64,
    /// When it was last filled; never before the first.
    at: Option<Instant>,
}

impl Bucket {
    /// Takes one, if there is one.
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
