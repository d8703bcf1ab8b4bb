//! Rates: how often a function may be started, over the whole cluster.
//!
//! One node counts the starts of a function, its arbiter: all nodes choose the same one by
//! rendezvous hashing (Thaler, Ravishankar 1998) among the live resident nodes that they know. An
//! origin with waiting tasks and workers for them asks it for permits. Each lease costs one; what is
//! not used at once lapses.
//!
//! ```text
//!   origin                                    arbiter
//!     None ── PermitRequest(tasks) ─────────►  generic cell rate algorithm
//!     Asked ◄──────── Permit(tasks, wait) ──   (ITU-T I.371, annex A), starts booked ahead
//!     Booked ──── wait ────► Open ── leases ──► None
//!     Later  ──── wait ────► None              no tasks: ask again
//! ```
//!
//! Whatever is lost costs starts, never adds any: an answer counts for the one request whose number it
//! repeats. Nodes that have just come may not know all others: nothing is granted or asked for a
//! moment after a link is up, and nothing while it is down, so that two parts of a cluster do not
//! both use the whole rate.

use alloc::string::String;
use core::time::Duration;

use broccoli_proto::NodeId;
use broccoli_proto::options::Rate;
use litemap::LiteMap;

use crate::shared::Shared;
use crate::time::Instant;
use crate::timing::{LinkTime, link_ms};

/// Starts are booked so far ahead.
const AHEAD: LinkTime = link_ms(250);
/// An answer that has not come after this time is asked for again.
pub(crate) const ANSWER: LinkTime = link_ms(300);
/// A node whose link is up for so long knows who else is there.
const SETTLE: LinkTime = link_ms(1_000);
/// Most tasks of one permit.
pub(crate) const BATCH_MAX: u32 = 128;
/// Functions that are counted at a time.
const FUNCTIONS_MAX: usize = 1_024;
/// So many starts may come at once: those of this time, or one.
const BURST_US: u64 = 100_000;

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Limit {
    /// `module.function`.
    pub(crate) function: String,
    /// The least time between two starts.
    pub(crate) interval_us: u64,
}

impl Limit {
    pub(crate) fn new(function: &str, rate: Rate) -> Limit {
        Limit { function: function.into(), interval_us: rate.interval_us() }
    }

    fn interval(&self) -> Duration {
        Duration::from_micros(self.interval_us)
    }

    /// How many starts may come at once.
    fn burst(&self) -> u32 {
        (BURST_US / self.interval_us).clamp(1, u64::from(BATCH_MAX)) as u32
    }

    /// How far the starts may be ahead of an even row of them.
    fn tolerance(&self) -> Duration {
        self.interval() * (self.burst() - 1)
    }
}

/// What an origin has of the permits for one class of tasks. All but `None` and `Open` have a timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Permits {
    /// Nothing: ask when there is something to start.
    #[default]
    None,
    /// Has asked for so many.
    Asked { of: NodeId, nonce: u64, tasks: u32 },
    /// Is to ask again later.
    Later,
    /// May start so many later.
    Booked(u32),
    /// May start so many now.
    Open { tasks: u32, until: Instant },
}

impl Permits {
    /// How many tasks may be started now.
    pub(crate) fn open(self, now: Instant) -> u32 {
        match self {
            Permits::Open { tasks, until } if now <= until => tasks,
            _ => 0,
        }
    }

    /// One was started.
    pub(crate) fn spend(&mut self) {
        *self = match *self {
            Permits::Open { tasks, until } if tasks > 1 => Permits::Open { tasks: tasks - 1, until },
            _ => Permits::None,
        };
    }

    /// Whether something will come without being asked for.
    pub(crate) fn are_to_come(self) -> bool {
        matches!(self, Permits::Asked { .. } | Permits::Later | Permits::Booked(_))
    }
}

/// The starts that this node counts for the cluster.
#[derive(Debug, Default)]
pub(crate) struct Arbiter {
    /// The theoretical arrival time of each: when the next start would be due in an even row.
    rows: LiteMap<Limit, Instant>,
    /// Until when other nodes may be there that are not known yet.
    settles: Instant,
    /// Whether this node has ever been part of a cluster.
    joined: bool,
}

impl Arbiter {
    /// The link is up.
    pub(crate) fn on_connected(&mut self, shared: &Shared) {
        self.joined = true;
        self.settles = shared.now + shared.timing(SETTLE);
    }

    /// Why nothing can be granted or asked now: how long to wait.
    pub(crate) fn unsettled(&self, shared: &Shared) -> Option<Duration> {
        if self.joined && !shared.connected {
            return Some(shared.timing(ANSWER));
        }
        (shared.now < self.settles).then(|| self.settles - shared.now)
    }

    /// Books up to so many starts: how many, and in what time. None: ask again after that time.
    pub(crate) fn book(&mut self, shared: &mut Shared, limit: Limit, tasks: u32) -> (u32, Duration) {
        let (now, ahead) = (shared.now, shared.timing(AHEAD));
        if !self.rows.contains_key(&limit) && self.rows.len() >= FUNCTIONS_MAX {
            self.rows.retain(|_, due| *due > now);
            if self.rows.len() >= FUNCTIONS_MAX {
                return (0, shared.timing(SETTLE));
            }
        }
        let (interval, tolerance) = (limit.interval(), limit.tolerance());
        let tasks = tasks.clamp(1, limit.burst());
        // A new row has no burst to give: another arbiter may just have given it.
        let due = self.rows.entry(limit).or_insert(now + tolerance);
        let last = *due + interval * (tasks - 1);
        let at = now.max(Instant(last.0.saturating_sub(tolerance.as_micros() as u64)));
        let wait = at - now;
        if wait > ahead {
            // Whoever asks first then gets the next start: chance gives each its part.
            return (0, wait - Duration::from_micros(shared.rng.below(ahead.as_micros() as u64)));
        }
        *due = (*due).max(at) + interval * tasks;
        (tasks, wait)
    }
}
