//! All timers of a node, in one ordered table.

use alloc::collections::{BTreeMap, BTreeSet};

use broccoli_proto::{ModuleHash, NodeId};

use crate::time::Instant;

/// What to do when the time of a timer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Origin: check the leases of this worker.
    Leases(NodeId),
    /// Origin: announce this class of tasks to workers.
    Announce(u32),
    /// Origin: the wait of a delayed task is over.
    Countdown { job: u64, step: u32 },
    /// Origin: tasks of a job may have expired.
    Expires(u64),
    /// Origin: tasks of this class may start, or permits for them must be requested again.
    Permits(u32),
    /// Origin: report the progress of a job to its client.
    JobNews(u64),
    /// Origin: report the end of a job to its client again, or forget the job.
    JobEnded(u64),
    /// Origin: the time limit of a job.
    JobDeadline(u64),
    /// Origin: choose the nodes for the tasks of a job that run on each node.
    Each(u64),
    /// Origin: check the tasks that only this node can run.
    Pinned(NodeId),
    /// Origin: forget old results.
    Forget,
    /// Origin: start to lease again after a restart.
    Adopt,
    /// Origin: write the changes to the journal.
    Journal,
    /// Origin: check what waits for memory.
    Room,
    /// Origin: check the claims of keys.
    Keys,
    /// Worker: confirm or renew the attempts of this origin.
    Renew(NodeId),
    /// Worker: send results again to this origin.
    Results(NodeId),
    /// Worker: return tasks that have waited too long.
    Return,
    /// Worker: the offered capacity may not be needed.
    Offer,
    /// Worker: the time limit of a run.
    RunTimeout(u64),
    /// Client: check the connection to the origin.
    Attach,
    /// Client: check a submitted canvas, or a job.
    Submit(u32),
    /// Client: ask an origin again that was full.
    Admit,
    /// Modules: ask this node for its manifests again.
    Manifests(NodeId),
    /// Modules: ask for chunks again.
    Pull(ModuleHash),
    /// Values: check what is held and what is pulled.
    Values,
    /// Members: ask again whether the name is taken.
    Claim,
    /// Members: tell all nodes about other modules.
    News,
    /// Members: find the nodes that have been silent for long.
    Members,
    /// The shell must report the time of day again.
    Wall,
    /// Sessions: challenge this node again, or count it as silent.
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
    /// Sets a timer, or moves it.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(timer);
        self.by_time.insert((at, timer));
        self.by_timer.insert(timer, at);
    }

    /// Sets a timer, or moves it to an earlier time, but never to a later one.
    pub(crate) fn set_earlier(&mut self, timer: Timer, at: Instant) {
        if self.by_timer.get(&timer).is_none_or(|set| at < *set) {
            self.set(timer, at);
        }
    }

    /// Removes a timer.
    pub(crate) fn cancel(&mut self, timer: Timer) {
        if let Some(at) = self.by_timer.remove(&timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    /// Whether a timer is set to a time in the future.
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
