//! Until when a task waits, and what becomes of a task that has become ready.

use broccoli_proto::message::Failure;

use crate::time::{Instant, Wall};

/// Until when a task is not queued: until both have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// The end of a pause.
    pub(crate) from: Instant,
    /// A time of day.
    pub(crate) eta_unix_ms: Option<u64>,
}

impl Due {
    /// When that is; none as long as the time of day is needed and not known.
    pub(crate) fn at(self, wall: &Wall) -> Option<Instant> {
        match self.eta_unix_ms {
            None => Some(self.from),
            Some(eta) => Some(wall.instant(eta)?.max(self.from)),
        }
    }
}

/// What becomes of a task that was announced.
pub(crate) enum Announced {
    /// It is queued.
    Ready,
    /// It will be.
    Delayed(Due),
    /// It will be, as an earlier incarnation has noted.
    DelayedBefore(Due),
    /// It is too late for it.
    Expired(Failure),
}
