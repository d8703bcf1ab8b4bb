//! The checks after every step, from outside: each task is in one state and has one outcome, only failures of current
//! attempts count, leases go only where they fit, everything is within its bounds.
//!
//! A node checks its internal invariants itself: [`broccoli_core::Node::validate`].

use std::collections::{BTreeMap, BTreeSet};

use broccoli_core::{Large, Node, TaskState, TaskView};
use broccoli_proto::message::Attempt;
use broccoli_proto::{Canvas, Cause, ContentId, NodeId, Outcome};

use crate::cluster::faults::Fault;
use crate::cluster::{Cluster, Id, Spec, fnv};
use crate::workload::{self, Run, Workload};

/// Attempts of recovered jobs are numbered from a multiple of this.
const ATTEMPTS_PER_BOOT: u32 = 1 << 16;

/// One incarnation of a node.
type Incarnation = (Id, u8);

/// The state of a task at the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    state: TaskState,
    attempt: u32,
}

/// Remembers states, to notice when something changes that must not change.
#[derive(Debug, Default)]
pub struct Checker {
    tasks: BTreeMap<(Incarnation, u64, u32), Seen>,
    /// The outcomes of jobs.
    results: BTreeMap<(Incarnation, u64), Outcome>,
    /// How many runs of the ledger were checked.
    runs: usize,
    /// Where each attempt runs.
    places: BTreeMap<(NodeId, Attempt), Incarnation>,
    /// A hash of the arguments of each task. An origin that lost unwritten changes may compute other arguments in its
    /// next incarnation. The attempt numbers tell the incarnations apart.
    args: BTreeMap<(NodeId, u64, u32, u32), u64>,
    /// The large values that a node was pulling at the last look.
    pulls: BTreeMap<Id, BTreeSet<(NodeId, ContentId, Large)>>,
    /// Tasks that some nodes were too small for, and how long their arguments are.
    choosy: BTreeMap<(Incarnation, u64, u32), usize>,
    /// Nodes that have been reachable for this long know each other, in microseconds.
    pub births_come_us: u64,
    /// How many attempts ran again on the same node.
    pub repeats: u64,
    /// Tasks that have ended.
    pub ended: u64,
}

impl Checker {
    /// Checks every node that has had an input since the last check.
    ///
    /// # Panics
    /// If a check fails.
    pub fn check(&mut self, cluster: &mut Cluster) {
        self.check_runs(cluster);
        cluster.note_reachable();
        for id in std::mem::take(&mut cluster.touched) {
            if cluster.is_up(id) && !cluster.is_paused(id) {
                let me = (id, cluster.starts(id));
                let too_small = self.check_node(cluster, me);
                for _ in 0..too_small {
                    cluster.counts.add(Fault::TooSmall);
                }
                self.count_pulls(cluster, id);
            }
        }
    }

    /// The outcome of a job at an incarnation of its origin.
    pub fn result(&self, incarnation: Incarnation, job: u64) -> Option<&Outcome> {
        self.results.get(&(incarnation, job))
    }

    /// Returns how many more tasks there are for which nodes were too small.
    fn check_node(&mut self, cluster: &Cluster, me: Incarnation) -> usize {
        let known = self.choosy.len();
        let mut changed = Vec::new();
        let tasks = &mut self.tasks;
        cluster.peek(me.0).audit_tasks(&mut |job, step, state, attempt| {
            let now = Seen { state, attempt };
            let before = tasks.insert((me, job, step), now);
            if before != Some(now) {
                changed.push((job, step, before, now));
            }
        });
        for (job, step, before, now) in changed {
            if let Some(before) = before {
                assert!(before.attempt <= now.attempt, "attempts of task {job:x}/{step} go back");
                assert!(before.state != TaskState::Ended, "task {job:x}/{step} ended and is {:?} again", now.state);
            }
            self.ended += u64::from(now.state == TaskState::Ended);
            if let Some(view) = cluster.peek(me.0).audit_task(job, step) {
                check_lease(&view, cluster);
                if let Some(bytes) = view.too_small_for {
                    self.choosy.insert((me, job, step), bytes);
                }
                let bytes = self.choosy.get(&(me, job, step)).copied();
                check_unfit(&view, cluster, me.0, (job, step), bytes, self.births_come_us);
                check_outcome(&view, cluster.workload.as_ref(), cluster.name(me.0), job, step);
            }
        }
        self.check_results(cluster.peek(me.0), me);
        for size in cluster.peek(me.0).sizes() {
            assert!(size.len <= size.max, "node {}: {} {} of at most {}", me.0, size.len, size.name, size.max);
        }
        self.choosy.len() - known
    }

    /// Counts the large values that were not pulled when the node was last looked at.
    fn count_pulls(&mut self, cluster: &mut Cluster, id: Id) {
        let mut now = BTreeSet::new();
        cluster.peek(id).audit_pulls(&mut |from, blob, what| {
            now.insert((from, blob, what));
        });
        let before = self.pulls.entry(id).or_default();
        for (.., what) in now.difference(before) {
            cluster.counts.add(match what {
                Large::Args => Fault::LargeArgs,
                Large::Result => Fault::LargeResult,
                Large::Canvas => Fault::LargeCanvas,
                Large::News => Fault::LargeNews,
            });
        }
        *before = now;
    }

    fn check_results(&mut self, node: &Node, me: Incarnation) {
        node.audit_jobs(&mut |job, result| {
            let Some(result) = result else {
                assert!(!self.results.contains_key(&(me, job)), "the result of job {job:x} is gone");
                return;
            };
            match self.results.get(&(me, job)) {
                Some(known) => assert!(known.as_ref() == result, "job {job:x} came to {known:?}, now to {result:?}"),
                None => drop(self.results.insert((me, job), result.cloned().map_err(Clone::clone))),
            }
        });
    }

    fn check_runs(&mut self, cluster: &Cluster) {
        let Some(workload) = &cluster.workload else {
            return;
        };
        for run in &workload.runs[self.runs..] {
            let Run { node, start, origin, attempt, args, .. } = run;
            match self.places.insert((*origin, *attempt), (*node, *start)) {
                Some(before) if before == (*node, *start) => self.repeats += 1,
                Some(before) => panic!("{attempt:?} of {origin} ran on {before:?} and on {:?}", (node, start)),
                None => {}
            }
            let hash = fnv(0, args.as_bytes());
            let known = *self
                .args
                .entry((*origin, attempt.job, attempt.step, attempt.number / ATTEMPTS_PER_BOOT))
                .or_insert(hash);
            assert_eq!(known, hash, "{attempt:?} of {origin} gets other arguments than before: {args}");
        }
        self.runs = workload.runs.len();
    }
}

/// Checks that a leased task is at a node where it may be.
fn check_lease(view: &TaskView<'_>, cluster: &Cluster) {
    let Some(worker) = view.worker else {
        return;
    };
    let fits = |spec: &Spec| spec.name == worker.as_str() && spec.slots > 0 && is_routed(view.on, spec);
    assert!((0..cluster.len()).any(|id| fits(cluster.spec(id))), "a task for {:?} is leased to {worker}", view.on);
}

/// Checks that no task fails for lack of a large node while there is one: a node that has slots, matches, does not
/// leave and, like the origin, has been reachable for long enough that its birth has arrived.
fn check_unfit(
    view: &TaskView<'_>,
    cluster: &Cluster,
    origin: Id,
    (job, step): (u64, u32),
    args_bytes: Option<usize>,
    births_come_us: u64,
) {
    let Some(Err(error)) = view.outcome else { return };
    let is_of_node = error.text.contains("this node takes") || error.text.contains("this node gives");
    let is_native = view.module == workload::natives().id();
    if error.cause != Cause::Unfit || !is_of_node || !is_native || cluster.reachable_us(origin) < births_come_us {
        return;
    }
    let name = cluster.name(origin);
    let runs = cluster.workload.iter().flat_map(|workload| &workload.runs);
    let runs: Vec<&Run> =
        runs.filter(|run| run.origin == name && (run.attempt.job, run.attempt.step) == (job, step)).collect();
    let results = runs.iter().filter_map(|run| run.outcome.as_ref().ok()).map(|value| value.as_bytes().len());
    let result_bytes = results.max().unwrap_or(0);
    // Neither has it run, nor was it seen to wait.
    let Some(args_bytes) = args_bytes.or(runs.first().map(|run| run.args.as_bytes().len())) else { return };
    let is_large = |id: &Id| {
        let spec = cluster.spec(*id);
        let limits = &spec.limits;
        spec.slots > 0
            && spec.native
            && is_routed(view.on, spec)
            && args_bytes <= spec.memory_bytes_max.min(limits.args_bytes_max as usize)
            && result_bytes <= limits.result_bytes_max as usize
            && cluster.reachable_us(*id) >= births_come_us
    };
    let large = (0..cluster.len()).find(is_large);
    assert_eq!(large, None, "task {job:x}/{step} of node {origin} fits a live node, but failed: {error}");
}

/// Whether a routing allows a node.
fn is_routed(on: &[String], spec: &Spec) -> bool {
    on.iter().all(|on| on.trim_start_matches('=') == spec.name || spec.features.contains(on))
}

/// Checks that an outcome is that of a run that happened, and a failure that of the current attempt.
fn check_outcome(view: &TaskView<'_>, workload: Option<&Workload>, origin: NodeId, job: u64, step: u32) {
    let (Some(outcome), Some(workload)) = (view.outcome, workload) else {
        return;
    };
    let runs = || {
        let is_it = move |run: &&Run| run.origin == origin && (run.attempt.job, run.attempt.step) == (job, step);
        workload.runs.iter().filter(is_it)
    };
    let gave_canvas = |run: &Run| run.outcome.as_ref().is_ok_and(|made| Canvas::replacement(made).is_some());
    if runs().any(gave_canvas) {
        // What took its place is looked at in its stead.
        return;
    }
    let error = match outcome {
        Ok(value) => {
            let gave = |run: &Run| run.outcome.as_ref().is_ok_and(|made| made == value);
            assert!(runs().any(gave), "task {job:x}/{step} came to {value}, which no run gave");
            return;
        }
        Err(error) => error,
    };
    let text = error.text.split_once("; gave up after").map_or(error.text.as_str(), |(text, _)| text);
    let named = |run: &Run| run.outcome.as_ref().err().is_some_and(|failure| failure.text == text);
    match error.cause {
        Cause::Returned | Cause::Crashed => {
            assert_eq!(
                error.attempt,
                view.attempt % ATTEMPTS_PER_BOOT,
                "task {job:x}/{step} failed by an old attempt: {error}"
            );
            let by = runs().find(|run| named(run));
            let by = by.unwrap_or_else(|| panic!("task {job:x}/{step} failed, but no run did so: {error}"));
            assert_eq!(by.attempt.number % ATTEMPTS_PER_BOOT, error.attempt, "{error}");
            let counts = |run: &&Run| run.outcome.as_ref().is_err_and(|failure| failure.too_small.is_none());
            let failed = runs().filter(counts).count();
            assert!(failed > view.retries as usize, "task {job:x}/{step} has failed {failed} times: {error}");
        }
        // A run on each node fails with its node.
        Cause::Lost if error.text.starts_with("the nodes that ran it") => {
            let started = runs().count();
            assert!(started >= 3, "task {job:x}/{step} was lost, but had only {started} runs");
        }
        _ => {}
    }
}
