//! Rates: limits how often a function is started in the whole cluster.
//!
//! One node, the arbiter, counts the starts of a function. All nodes choose the same one by rendezvous hashing (Thaler,
//! Ravishankar 1998) among the live resident nodes that they know. An origin that has waiting tasks and workers for
//! them requests permits from it. Each lease costs one permit. Permits that are not used at once lapse.
//!
//! ```text
//!   origin                                    arbiter
//!     None ── PermitRequest(tasks) ─────────►  generic cell rate algorithm
//!     Asked ◄──────── Permit(tasks, wait) ──   (ITU-T I.371, annex A), starts booked ahead
//!     Booked ──── wait ────► Open ── leases ──► None
//!     Later  ──── wait ────► None              no tasks: ask again
//! ```
//!
//! A lost message can only reduce the number of starts, never increase it: an answer counts only for the request whose
//! number it repeats. A node whose link has just come up may not know all others, so it grants and requests nothing for
//! a moment, and nothing while the link is down. Thus two parts of a cluster do not both use the whole rate.

use alloc::string::String;
use core::time::Duration;

use broccoli_proto::NodeId;
use broccoli_proto::options::Rate;
use litemap::LiteMap;

use crate::shared::Shared;
use crate::time::Instant;
use crate::timing::{LinkTime, link_ms};

/// How far ahead starts are booked.
const AHEAD: LinkTime = link_ms(250);
/// A request is repeated if there is no answer within this time.
pub(crate) const ANSWER: LinkTime = link_ms(300);
/// A node knows the other nodes once its link has been up for this long.
const SETTLE: LinkTime = link_ms(1_000);
/// Most tasks of one permit.
pub(crate) const BATCH_MAX: u32 = 128;
/// Most functions that are counted at the same time.
const FUNCTIONS_MAX: usize = 1_024;
/// As many starts may come at once as the rate allows in this time, at least one.
const BURST_US: u64 = 100_000;

/// A rate limit: one function and one rate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Limit {
    /// `module.function`.
    pub(crate) function: String,
    /// Shortest time between two starts.
    pub(crate) interval_us: u64,
}

impl Limit {
    pub(crate) fn new(function: &str, rate: Rate) -> Limit {
        Limit { function: function.into(), interval_us: rate.interval_us() }
    }

    fn interval(&self) -> Duration {
        Duration::from_micros(self.interval_us)
    }

    /// Most starts at once.
    fn burst(&self) -> u32 {
        (BURST_US / self.interval_us).clamp(1, u64::from(BATCH_MAX)) as u32
    }

    /// How far starts may run ahead of evenly spaced ones.
    fn tolerance(&self) -> Duration {
        self.interval() * (self.burst() - 1)
    }
}

/// The state of an origin's permits for one class of tasks. All states except `None` and `Open` have a timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Permits {
    /// No permit: request some when there is a task to start.
    #[default]
    None,
    /// Permits for this many tasks are requested.
    Asked { of: NodeId, nonce: u64, tasks: u32 },
    /// The next request is due later.
    Later,
    /// This many tasks may be started later.
    Booked(u32),
    /// This many tasks may be started now, until the permit lapses.
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

    /// Uses up one permit.
    pub(crate) fn spend(&mut self) {
        *self = match *self {
            Permits::Open { tasks, until } if tasks > 1 => Permits::Open { tasks: tasks - 1, until },
            _ => Permits::None,
        };
    }

    /// Whether the state will change by an answer or a timer, without a new request.
    pub(crate) fn are_to_come(self) -> bool {
        matches!(self, Permits::Asked { .. } | Permits::Later | Permits::Booked(_))
    }
}

/// The arbiter: counts the starts of functions for the cluster.
#[derive(Debug, Default)]
pub(crate) struct Arbiter {
    /// The theoretical arrival time of each limit: when the next start would be due if starts were evenly spaced.
    rows: LiteMap<Limit, Instant>,
    /// Until then, some live nodes may not be known yet.
    settles: Instant,
    /// Whether this node was ever connected to a cluster.
    joined: bool,
}

impl Arbiter {
    /// The link is up.
    pub(crate) fn on_connected(&mut self, shared: &Shared) {
        self.joined = true;
        self.settles = shared.now + shared.timing(SETTLE);
    }

    /// How long to wait before anything can be granted or requested; none if it can be now.
    pub(crate) fn unsettled(&self, shared: &Shared) -> Option<Duration> {
        if self.joined && !shared.connected {
            return Some(shared.timing(ANSWER));
        }
        (shared.now < self.settles).then(|| self.settles - shared.now)
    }

    /// Books at most this many starts. Returns how many, and when they may begin. If zero: request again after that
    /// time.
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
        // A new row starts without a burst: another arbiter may just have granted it.
        let due = self.rows.entry(limit).or_insert(now + tolerance);
        let last = *due + interval * (tasks - 1);
        let at = now.max(Instant(last.0.saturating_sub(tolerance.as_micros() as u64)));
        let wait = at - now;
        if wait > ahead {
            // The wait is random, so that each origin gets its share of the next starts.
            return (0, wait - Duration::from_micros(shared.rng.below(ahead.as_micros() as u64)));
        }
        *due = (*due).max(at) + interval * tasks;
        (tasks, wait)
    }
}
