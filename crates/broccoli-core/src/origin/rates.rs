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
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Message, Permit, PermitRequest};
use broccoli_proto::module::hash;
use broccoli_proto::options::{RATE_MAX, Rate};
use broccoli_proto::{ModuleHash, NodeId};
use litemap::LiteMap;

use super::{Around, Origin};
use crate::members::Members;
use crate::shared::Shared;
use crate::time::{Instant, ms};
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Starts are booked so far ahead.
const AHEAD: LinkTime = link_ms(250);
/// An answer that has not come after this time is asked for again.
const ANSWER: LinkTime = link_ms(300);
/// A permit that was not used after this time has lapsed.
const LAPSE: LinkTime = link_ms(20);
/// After this time another request is made, whatever the answer to the last one said: its arbiter
/// may be gone.
const LATER_MAX: Duration = ms(30_000);
/// A node whose link is up for so long knows who else is there.
const SETTLE: LinkTime = link_ms(1_000);
/// Most tasks of one permit.
const BATCH_MAX: u32 = 128;
/// Functions that are counted at a time.
const FUNCTIONS_MAX: usize = 1_024;
/// Longest name of a function with its module's, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest time between two starts.
const INTERVAL_US_MAX: u64 = u32::MAX as u64 * 1_000;
/// So many starts may come at once: those of this time, or one.
const BURST_US: u64 = 100_000;

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Limit {
    /// `module.function`.
    function: String,
    /// The least time between two starts.
    interval_us: u64,
}

impl Limit {
    pub(super) fn new(function: &str, rate: Rate) -> Limit {
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
pub(super) enum Permits {
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
    pub(super) fn open(self, now: Instant) -> u32 {
        match self {
            Permits::Open { tasks, until } if now <= until => tasks,
            _ => 0,
        }
    }

    /// One was started.
    pub(super) fn spend(&mut self) {
        *self = match *self {
            Permits::Open { tasks, until } if tasks > 1 => Permits::Open { tasks: tasks - 1, until },
            _ => Permits::None,
        };
    }

    /// Whether something will come without being asked for.
    pub(super) fn are_to_come(self) -> bool {
        matches!(self, Permits::Asked { .. } | Permits::Later | Permits::Booked(_))
    }
}

/// The starts that this node counts for the cluster.
#[derive(Debug, Default)]
pub(super) struct Arbiter {
    /// The theoretical arrival time of each: when the next start would be due in an even row.
    rows: LiteMap<Limit, Instant>,
    /// Until when other nodes may be there that are not known yet.
    settles: Instant,
    /// Whether this node has ever been part of a cluster.
    joined: bool,
}

impl Arbiter {
    /// The link is up.
    pub(super) fn on_connected(&mut self, shared: &Shared) {
        self.joined = true;
        self.settles = shared.now + shared.timing(SETTLE);
    }

    /// Why nothing can be granted or asked now: how long to wait.
    fn unsettled(&self, shared: &Shared) -> Option<Duration> {
        if self.joined && !shared.connected {
            return Some(shared.timing(ANSWER));
        }
        (shared.now < self.settles).then(|| self.settles - shared.now)
    }

    /// Books up to so many starts: how many, and in what time. None: ask again after that time.
    fn book(&mut self, shared: &mut Shared, limit: Limit, tasks: u32) -> (u32, Duration) {
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

/// The node that counts the starts of a function: this one if no resident node is known.
fn arbiter(shared: &Shared, members: &Members, function: &str) -> NodeId {
    let me = shared.me();
    let others = members.alive().filter(|(_, member)| member.birth.resident).map(|(name, _)| name);
    let this = shared.config.resident.then_some(me);
    others.chain(this).max_by_key(|name| (weight(*name, function), *name)).unwrap_or(me)
}

/// The node that counts the starts of a function, if it is another one.
fn other_arbiter(shared: &Shared, members: &Members, function: &str) -> Option<NodeId> {
    Some(arbiter(shared, members, function)).filter(|arbiter| *arbiter != shared.me())
}

/// The weight of a node for a function: the first 8 bytes of the hash of both names.
fn weight(node: NodeId, function: &str) -> u64 {
    let names: Vec<u8> = [node.as_str().as_bytes(), b"/", function.as_bytes()].concat();
    let ModuleHash([a, b, c, d, e, f, g, h, ..]) = hash(&names);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// As the one that asks.
impl Origin {
    /// Asks for permits for tasks of a class that could be leased now.
    pub(super) fn ask_permits(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32, tasks: u32) {
        let unsettled = self.arbiter.unsettled(shared);
        let Some((limit, permits)) = self.queue.permits(class) else {
            return;
        };
        let after = match unsettled {
            Some(wait) => {
                *permits = Permits::Later;
                wait
            }
            None => {
                let (of, nonce) = (arbiter(shared, around.members, &limit.function), shared.rng.bits());
                let tasks = tasks.min(BATCH_MAX);
                *permits = Permits::Asked { of, nonce, tasks };
                let (function, interval_us) = (limit.function.clone(), limit.interval_us);
                let request = PermitRequest { nonce, function, interval_us, tasks };
                shared.outbox.send(of, Message::PermitRequest(request));
                shared.timing(ANSWER)
            }
        };
        shared.timers.set(Timer::Permits(class), shared.now + after);
    }

    /// The arbiter has answered.
    pub(crate) fn on_permit(&mut self, shared: &mut Shared, from: NodeId, permit: &Permit) {
        let Some((class, asked)) = self.queue.asked(from, permit.nonce) else {
            return;
        };
        let Some((_, permits)) = self.queue.permits(class) else {
            return;
        };
        let wait = Duration::from_micros(permit.wait_us).min(LATER_MAX);
        *permits = match permit.tasks.min(asked) {
            0 => Permits::Later,
            tasks => Permits::Booked(tasks),
        };
        // Never at once, so that two nodes cannot keep each other busy.
        let wait = if permit.tasks == 0 { wait.max(ms(1)) } else { wait };
        shared.timers.set(Timer::Permits(class), shared.now + wait);
    }

    /// What was waited for has come, or nothing has.
    pub(crate) fn on_permits_timer(&mut self, shared: &Shared, class: u32) {
        if let Some((_, permits)) = self.queue.permits(class) {
            *permits = match *permits {
                Permits::Booked(tasks) => Permits::Open { tasks, until: shared.now + shared.timing(LAPSE) },
                Permits::Open { .. } | Permits::None | Permits::Asked { .. } | Permits::Later => Permits::None,
            };
            self.dispatch_due = true;
        }
    }
}

/// As the one that is asked.
impl Origin {
    /// An origin asks how many tasks it may start.
    pub(crate) fn on_permit_request(
        &mut self,
        shared: &mut Shared,
        members: &Members,
        from: NodeId,
        request: PermitRequest,
    ) {
        let PermitRequest { nonce, function, interval_us, tasks } = request;
        let shortest = 1_000_000 / u64::from(RATE_MAX);
        if function.len() > NAME_BYTES_MAX || !(shortest..=INTERVAL_US_MAX).contains(&interval_us) {
            return;
        }
        let (tasks, wait) = match self.arbiter.unsettled(shared) {
            Some(wait) => (0, wait),
            None => match other_arbiter(shared, members, &function) {
                Some(other) => {
                    // Who asks knows other nodes than this one does. If the one that counts is gone, it will not answer.
                    shared.outbox.send(other, Message::Hello);
                    (0, shared.timing(ANSWER))
                }
                None => self.arbiter.book(shared, Limit { function, interval_us }, tasks),
            },
        };
        let permit = Permit { nonce, tasks, wait_us: wait.as_micros() as u64 };
        shared.outbox.send(from, Message::Permit(permit));
    }
}
