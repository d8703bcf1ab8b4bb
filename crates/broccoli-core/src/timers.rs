//! Everything that a node waits for, in one ordered table.

use alloc::collections::{BTreeMap, BTreeSet};

use broccoli_proto::{ModuleHash, NodeId};

use crate::time::Instant;

/// What is to be done when a time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Origin: look after the leases of this worker.
    Leases(NodeId),
    /// Origin: call for help for this class of tasks.
    Announce(u32),
    /// Origin: the wait of a delayed task is over.
    Countdown { job: u64, step: u32 },
    /// Origin: tasks of a job may have expired.
    Expires(u64),
    /// Origin: starts of this class of tasks are due, or are to be asked for again.
    Permits(u32),
    /// Origin: tell the client of a job how far it is.
    JobNews(u64),
    /// Origin: tell the client again how a job ended, or forget it.
    JobEnded(u64),
    /// Origin: the time limit of a job.
    JobDeadline(u64),
    /// Origin: name the nodes for tasks of a job that run on each.
    Each(u64),
    /// Origin: look after the tasks that only this node can run.
    Pinned(NodeId),
    /// Origin: forget old results.
    Forget,
    /// Origin: lease again after a restart.
    Adopt,
    /// Origin: write what has changed.
    Journal,
    /// Origin: look after what waits for memory.
    Room,
    /// Origin: look after claims of keys.
    Keys,
    /// Worker: confirm or renew what is held for this origin.
    Renew(NodeId),
    /// Worker: send results again to this origin.
    Results(NodeId),
    /// Worker: give back what waits too long.
    Return,
    /// Worker: capacity that was offered may not be wanted.
    Offer,
    /// Worker: the time limit of a run.
    RunTimeout(u64),
    /// Client: look after the connection to the origin.
    Attach,
    /// Client: look after a submitted canvas, or a job.
    Submit(u32),
    /// Client: an origin that was full is asked again.
    Admit,
    /// Modules: ask this node for its manifests again.
    Manifests(NodeId),
    /// Modules: ask for chunks again.
    Pull(ModuleHash),
    /// Values: look after what is held and pulled.
    Values,
    /// Members: ask again whether the name is taken.
    Claim,
    /// Members: tell everybody of other modules.
    News,
    /// Members: see who was not heard of for long.
    Members,
    /// The time of day is to be told again.
    Wall,
    /// Sessions: knock again at this node, or take it for silent.
    Knock(NodeId),
    /// Sessions: an answer is due.
    Answers,
}

/// An ordered table with at most one time for each timer.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_time: BTreeSet<(Instant, Timer)>,
    by_timer: BTreeMap<Timer, Instant>,
}

impl Timers {
    /// Sets or moves a timer.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.by_time.insert((at, timer));
        self.by_timer.insert(timer, at);
    }

    /// Sets a timer, or moves it to an earlier time; never to a later one.
    pub(crate) fn set_earlier(&mut self, timer: Timer, at: Instant) {
        if self.by_timer.get(&timer).is_none_or(|set| at < *set) {
            self.set(timer, at);
        }
    }

    /// Forgets a timer.
    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.by_timer.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// Whether a timer is set to a time that is still to come.
    pub(crate) fn is_ahead(&self, timer: Timer, now: Instant) -> bool {
        self.by_timer.get(&timer).is_some_and(|at| *at > now)
    }

    /// Whether a timer is set.
    pub(crate) fn is_set(&self, timer: Timer) -> bool {
        self.by_timer.contains_key(&timer)
    }

    /// The timers that are set, the next one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Timer> {
        self.by_time.iter().map(|(_, timer)| *timer)
    }

    /// Takes the next timer whose time has come.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let (at, timer) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.cancel(timer);
        Some(timer)
    }

    /// The time of the next timer.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}
