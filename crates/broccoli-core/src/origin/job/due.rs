//! When a delayed task is due, and the possible states of a task that the plan has announced.

use broccoli_proto::message::Failure;

use crate::time::{Instant, Wall};

/// A delayed task is queued once both times have passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// The end of a pause.
    pub(crate) from: Instant,
    /// A time of day.
    pub(crate) eta_unix_ms: Option<u64>,
}

impl Due {
    /// When both have passed; none while the time of day is needed and not known.
    pub(crate) fn at(self, wall: &Wall) -> Option<Instant> {
        match self.eta_unix_ms {
            None => Some(self.from),
            Some(eta) => Some(wall.instant(eta)?.max(self.from)),
        }
    }
}

/// What becomes of an announced task.
pub(crate) enum Announced {
    /// It is queued.
    Ready,
    /// It will be queued later.
    Delayed(Due),
    /// It will be queued at the time that an earlier incarnation has noted.
    DelayedBefore(Due),
    /// It has expired.
    Expired(Failure),
}
