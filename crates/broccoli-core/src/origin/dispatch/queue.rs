//! The queue of ready tasks, by what they need (their class) and by priority.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::NodeId;
use broccoli_proto::message::Want;
use litemap::LiteMap;

use crate::canvas::pinned_to;
use crate::content::modules::Modules;
use crate::members::matches;
use crate::origin::dispatch::rates::{Limit, Permits};
use crate::time::Instant;

/// Priorities 0 to 9.
const PRIORITIES: usize = 10;
/// Above this number, empty classes are dropped.
const CLASSES_MAX: usize = 256;
/// Stale entries are not removed while there are fewer than this.
const STALE_MIN: usize = 64;
/// Most waiting tasks whose clients are told at a time that no node fits.
const TOLD_MAX: usize = 16;

/// A task: the number of its job, and its step.
type Key = (u64, u32);

/// The ready tasks of all jobs.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    classes: LiteMap<u32, Box<Class>>,
    ids: LiteMap<Need, u32>,
    last_class: u32,
    len: usize,
    /// About how many entries belong to tasks that have ended while they waited.
    stale: usize,
    /// Counts pushes, so that classes are served first in, first out.
    pushed: u64,
}

/// What defines a class: what its tasks need of a node, and how often they may be started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Need {
    pub(crate) want: Want,
    pub(crate) limit: Option<Limit>,
    /// Some nodes that match the want are too small for these tasks.
    pub(crate) choosy: bool,
}

/// The waiting tasks that have the same need.
#[derive(Debug)]
struct Class {
    want: Want,
    /// Each task is matched with nodes one by one: see `unfit`.
    choosy: bool,
    /// Since when it waits for nodes that do not hold the module yet.
    hoping_since: Option<Instant>,
    limit: Option<(Limit, Permits)>,
    queues: [VecDeque<(u64, Key)>; PRIORITIES],
    /// Calls for help since the class last had enough credit.
    round: u32,
    unfit_since: Option<Instant>,
    told_at: Option<Instant>,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether a class exists.
    pub(crate) fn has_class(&self, class: u32) -> bool {
        self.classes.contains_key(&class)
    }

    /// The class of tasks with this need, created if there is none. A class that is empty may be dropped.
    pub(crate) fn class(&mut self, need: Need) -> u32 {
        if let Some(id) = self.ids.get(&need) {
            return *id;
        }
        if self.classes.len() >= CLASSES_MAX {
            self.classes.retain(|_, class| class.queues.iter().any(|queue| !queue.is_empty()));
            let classes = &self.classes;
            self.ids.retain(|_, id| classes.contains_key(id));
        }
        self.last_class += 1;
        self.ids.insert(need.clone(), self.last_class);
        let Need { want, limit, choosy } = need;
        let limit = limit.map(|limit| (limit, Permits::default()));
        let class = Class {
            want,
            choosy,
            hoping_since: None,
            limit,
            queues: Default::default(),
            round: 0,
            unfit_since: None,
            told_at: None,
        };
        self.classes.insert(self.last_class, Box::new(class));
        self.last_class
    }

    /// Whether the rate forbids starting tasks with this need now.
    pub(crate) fn is_held(&self, need: &Need, now: Instant) -> bool {
        need.limit.is_some() && self.ids.get(need).is_some_and(|class| self.open(*class, now) == 0)
    }

    /// What tasks of a class need of a node.
    pub(crate) fn want(&self, class: u32) -> Option<&Want> {
        self.classes.get(&class).map(|class| &class.want)
    }

    /// Whether tasks of a class are matched with nodes one by one.
    pub(crate) fn is_choosy(&self, class: u32) -> bool {
        self.classes.get(&class).is_some_and(|class| class.choosy)
    }

    /// The waiting tasks of a class.
    pub(crate) fn waiting_in(&self, class: u32) -> impl Iterator<Item = Key> {
        let queues = self.classes.get(&class).into_iter().flat_map(|class| &class.queues);
        queues.flatten().map(|(_, key)| *key)
    }

    /// For how long a class has waited for nodes that do not hold its module yet.
    pub(crate) fn hopes_for(&mut self, class: u32, hopes: bool, now: Instant) -> Duration {
        let Some(class) = self.classes.get_mut(&class) else {
            return Duration::ZERO;
        };
        class.hoping_since = if hopes { class.hoping_since.or(Some(now)) } else { None };
        class.hoping_since.map_or(Duration::ZERO, |since| now - since)
    }

    /// The rate limit of a class, and the state of its permits; none if it has no rate.
    pub(crate) fn permits(&mut self, class: u32) -> Option<(&Limit, &mut Permits)> {
        let (limit, permits) = self.classes.get_mut(&class)?.limit.as_mut()?;
        Some((limit, permits))
    }

    /// How many tasks of a class the rate allows to lease now.
    pub(crate) fn open(&self, class: u32, now: Instant) -> usize {
        let limit = self.classes.get(&class).and_then(|class| class.limit.as_ref());
        limit.map_or(usize::MAX, |(_, permits)| permits.open(now) as usize)
    }

    /// Whether a class waits only for its permits: no worker could help.
    pub(crate) fn awaits_permits(&self, class: u32) -> bool {
        let limit = self.classes.get(&class).and_then(|class| class.limit.as_ref());
        limit.is_some_and(|(_, permits)| permits.are_to_come())
    }

    /// The classes that wait for permits.
    pub(crate) fn awaiting_permits(&self) -> impl Iterator<Item = u32> {
        self.classes.keys().copied().filter(|class| self.awaits_permits(*class))
    }

    /// The class that waits for this answer of a node, and the number of permits it requested.
    pub(crate) fn asked(&self, node: NodeId, number: u64) -> Option<(u32, u32)> {
        self.classes.iter().find_map(|(id, class)| match class.limit {
            Some((_, Permits::Asked { of, nonce, tasks })) if of == node && nonce == number => Some((*id, tasks)),
            _ => None,
        })
    }

    pub(crate) fn push_back(&mut self, class: u32, priority: u8, job: u64, step: u32) {
        self.pushed += 1;
        let pushed = self.pushed;
        if let Some(queue) = self.slot(class, priority) {
            queue.push_back((pushed, (job, step)));
            self.len += 1;
        }
    }

    /// Puts a task back at the front: it has waited in the queue before.
    pub(crate) fn push_front(&mut self, class: u32, priority: u8, job: u64, step: u32) {
        if let Some(queue) = self.slot(class, priority) {
            let pushed = queue.front().map_or(0, |(pushed, _)| *pushed);
            queue.push_front((pushed, (job, step)));
            self.len += 1;
        }
    }

    pub(crate) fn pop(&mut self, class: u32, priority: u8) -> Option<Key> {
        let (_, key) = self.slot(class, priority)?.pop_front()?;
        self.len -= 1;
        Some(key)
    }

    /// Takes the next tasks of the jobs that `which` accepts, at most `max`.
    pub(crate) fn take(&mut self, class: u32, priority: u8, max: usize, which: impl Fn(u64) -> bool) -> Vec<Key> {
        let mut taken = Vec::new();
        if let Some(slot) = self.slot(class, priority) {
            slot.retain(|(_, key)| {
                let is_taken = taken.len() < max && which(key.0);
                taken.extend(is_taken.then_some(*key));
                !is_taken
            });
        }
        self.len -= taken.len();
        taken
    }

    /// Notes that a queued task has ended. Its entry is removed when it reaches the front, or together with others once
    /// half of all entries are stale.
    pub(crate) fn went_stale(&mut self, mut waits: impl FnMut(u64, u32) -> bool) {
        self.stale += 1;
        if self.stale < STALE_MIN || self.stale * 2 < self.len {
            return;
        }
        for queue in self.classes.iter_mut().flat_map(|(_, class)| &mut class.queues) {
            queue.retain(|(_, (job, step))| waits(*job, *step));
        }
        self.len = self.iter().count();
        self.stale = 0;
    }

    /// Removes the entries of a job that has ended.
    pub(crate) fn remove_job(&mut self, job: u64) {
        for queue in self.classes.iter_mut().flat_map(|(_, class)| &mut class.queues) {
            let before = queue.len();
            queue.retain(|(_, (of, _))| *of != job);
            self.len -= before - queue.len();
        }
    }

    /// Removes stale entries from the front of a class (a late success has ended their tasks), so that the tasks left
    /// at the front really wait.
    pub(crate) fn drop_stale(&mut self, class: u32, mut waits: impl FnMut(u64, u32) -> bool) {
        let Some(class) = self.classes.get_mut(&class) else {
            return;
        };
        for queue in &mut class.queues {
            while queue.front().is_some_and(|(_, (job, step))| !waits(*job, *step)) {
                queue.pop_front();
                self.len -= 1;
            }
        }
    }

    /// All entries, with their class.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, Key)> {
        self.classes.iter().flat_map(|(id, class)| class.queues.iter().flatten().map(|(_, key)| (*id, *key)))
    }

    /// Number of tasks of a class that wait with this priority.
    pub(crate) fn waiting(&self, class: u32, priority: u8) -> usize {
        self.classes.get(&class).map_or(0, |class| class.queues[usize::from(priority)].len())
    }

    /// The order in which queues are served: higher priorities first, then older tasks.
    pub(crate) fn order(&self) -> Vec<(u32, u8)> {
        let mut order = Vec::new();
        for (id, class) in &self.classes {
            for (priority, queue) in class.queues.iter().enumerate() {
                if let Some((pushed, _)) = queue.front() {
                    order.push((PRIORITIES - priority, *pushed, *id));
                }
            }
        }
        order.sort_unstable();
        order.into_iter().map(|(rank, _, id)| (id, (PRIORITIES - rank) as u8)).collect()
    }

    /// Whether tasks of a class still wait. If not, its calls for help start again from the first.
    pub(crate) fn is_hungry(&mut self, class: u32) -> bool {
        let Some(class) = self.classes.get_mut(&class) else {
            return false;
        };
        let hungry = class.queues.iter().any(|queue| !queue.is_empty());
        if !hungry {
            class.round = 0;
            class.unfit_since = None;
            class.told_at = None;
            class.hoping_since = None;
        }
        hungry
    }

    /// What a class with waiting tasks needs, and how many calls for help there were before.
    pub(crate) fn hungry(&mut self, id: u32) -> Option<(Want, u32)> {
        if !self.is_hungry(id) {
            return None;
        }
        let class = self.classes.get_mut(&id)?;
        class.round += 1;
        Some((class.want.clone(), class.round - 1))
    }

    /// Whether a worker with these features can run tasks of a class. `digest` is the digest of the worker's modules.
    pub(crate) fn fits(&self, class: u32, worker: NodeId, features: &[String], digest: u64, modules: &Modules) -> bool {
        let can_run = |want: &Want| matches(&want.on, worker, features) && modules.peer_holds(digest, &want.module);
        self.classes.get(&class).is_some_and(|class| can_run(&class.want))
    }

    /// The node that tasks of a class are pinned to, if they are.
    pub(crate) fn pinned_to(&self, class: u32) -> Option<NodeId> {
        pinned_to(&self.classes.get(&class)?.want.on)?.parse().ok()
    }

    /// Tracks how long no node has fitted a class. When it is time to tell the clients, returns some of its tasks, one
    /// for each job.
    pub(crate) fn long_without_node(
        &mut self,
        class: u32,
        unfit: bool,
        now: Instant,
        after: Duration,
        again: Duration,
    ) -> Option<LiteMap<u64, u32>> {
        let class = self.classes.get_mut(&class)?;
        if !unfit {
            class.unfit_since = None;
            class.told_at = None;
            return None;
        }
        let since = *class.unfit_since.get_or_insert(now);
        let silent = class.told_at.is_none_or(|told| now - told >= again);
        if now - since < after || !silent {
            return None;
        }
        class.told_at = Some(now);
        let mut some = LiteMap::new_vec();
        for (_, (job, step)) in class.queues.iter().flatten().take(TOLD_MAX) {
            some.insert(*job, *step);
        }
        Some(some)
    }

    /// When a class that no node fits will have waited for this long.
    pub(crate) fn without_node_until(&self, class: u32, after: Duration) -> Option<Instant> {
        Some(self.classes.get(&class)?.unfit_since? + after)
    }

    fn slot(&mut self, class: u32, priority: u8) -> Option<&mut VecDeque<(u64, Key)>> {
        self.classes.get_mut(&class)?.queues.get_mut(usize::from(priority))
    }
}
