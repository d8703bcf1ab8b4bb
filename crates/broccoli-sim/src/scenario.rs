//! One seed: which nodes there are, what they do, and which faults happen.
//!
//! ```text
//!   seed ──► topology, faults ──► trouble for some seconds ──► heal ──► every job has ended right
//! ```
//!
//! Each step is checked. What happens in a seed depends on nothing but the seed.

mod judge;
mod leaving;
mod topology;
mod trouble;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use broccoli_core::{Event, SubmitId, TaskState};
use broccoli_proto::{Canvas, JobId, NodeId, Outcome, SplitMix64};

use self::leaving::Leaving;
use self::trouble::{TROUBLES, Trouble};
use crate::canvases::{Generator, Rng, ScenarioCalls};
use crate::check::Checker;
use crate::cluster::bus::Bus;
use crate::cluster::faults::{Counts, Fault};
use crate::cluster::{Cluster, Faults, Id};
use crate::workload::Workload;

/// How many nodes and twins a seed has, at most.
const NODES_MAX: usize = 8;
/// How many jobs a seed has, at most.
const JOBS_MAX: usize = 24;
/// How many steps a seed has, at most, idle time included.
const STEPS_MAX: u32 = 300_000;
/// Versions of a module that are deployed: accepted jobs stay on theirs.
const VERSIONS_MAX: u64 = 4;
/// One seed of so many runs on a bus of 9,600 bauds with frames of 64 bytes …
const SLOW_ONE_IN: u64 = 16;
/// … chosen apart from what else a seed decides.
const SLOW_SALT: u64 = 0xb05;
/// Leases end after this time without a renewal.
const LEASE_US: u64 = 4_000_000;
/// Nodes that have been paused for longer continue soon.
const LONG_PAUSE_US: u64 = 6_000_000;
/// After the trouble, every job must have ended within this time.
const HEALED_MS: u64 = 900_000;
/// After three times this time nothing may be in progress. Results that no client has asked for are kept for this
/// time.
const IDLE_MS: u64 = 700_000;

/// The result of a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Submitted canvases.
    pub submitted: u64,
    /// Jobs that ended with a result.
    pub succeeded: u64,
    /// Jobs that ended with an error of their own functions, as the oracle says.
    pub failed: u64,
    /// Jobs that ended because of a fault: traps, time limits, tasks lost too often.
    pub broken: u64,
    /// Jobs that were lost with the memory of their origin.
    pub lost: u64,
    /// Tasks that have ended.
    pub tasks: u64,
    /// Starts of functions.
    pub runs: u64,
    /// Virtual time, in microseconds.
    pub virtual_us: u64,
    /// Packets delivered.
    pub deliveries: u64,
    /// Faults by kind.
    pub faults: Counts,
    /// A hash of all outputs of all nodes, if it was asked for.
    pub digest: u64,
}

/// A submitted canvas.
struct Submitted {
    canvas: Canvas,
    by: Id,
    /// Incarnation of the node that submitted it.
    start: u8,
    /// None if a task has submitted it; nobody waits for such a job.
    submit: Option<SubmitId>,
    key: Option<String>,
    /// The failed job that this retries.
    again: Option<usize>,
    /// The job, and the incarnation of its origin that accepted it.
    job: Option<(JobId, Id, u8)>,
    revoked: bool,
    state: State,
}

impl Submitted {
    /// Submitted by a node in one of its incarnations.
    fn new(canvas: Canvas, by: Id, start: u8) -> Submitted {
        let (revoked, state) = (false, State::Open);
        Submitted { canvas, by, start, submit: None, key: None, again: None, job: None, revoked, state }
    }
}

impl fmt::Display for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Submitted { by, start, submit, key, job, revoked, state, .. } = self;
        write!(
            f,
            "{submit:?} of node {by} in its start {start}, key {key:?}, job {job:?}, revoked {revoked}, {state:?}"
        )
    }
}

#[derive(Debug, PartialEq)]
enum State {
    Open,
    Refused,
    Unknown,
    /// It continues for other clients.
    Left,
    Ended(Outcome),
}

/// A running scenario.
pub struct Scenario {
    rng: Rng,
    generator: Generator<ScenarioCalls>,
    cluster: Cluster,
    checker: Checker,
    /// Kinds of trouble that this seed has.
    troubles: Vec<Trouble>,
    jobs: Vec<Submitted>,
    by_submit: BTreeMap<(Id, u8, SubmitId), usize>,
    /// The incarnation that made job numbers with this upper half.
    makers: BTreeMap<u32, (Id, u8)>,
    /// The outcome of each job as clients were told.
    told: BTreeMap<JobId, Outcome>,
    /// The job that a key stands for at all origins with a disk together, and the submit that was told so.
    keys: BTreeMap<String, (JobId, usize)>,
    /// The nodes that the origin of a job had heard of when it accepted the job.
    met: BTreeMap<(Id, u64), BTreeSet<NodeId>>,
    clients: Vec<Id>,
    twins: Vec<Id>,
    /// Nodes that lost their disk, and the last incarnation before.
    wiped: BTreeMap<Id, u8>,
    /// Jobs with records that were damaged.
    damaged: BTreeSet<(Id, u64)>,
    paused_at: BTreeMap<Id, u64>,
    /// Nodes that are about to leave.
    leaving: BTreeMap<Id, Leaving>,
    /// Requests to shut down, and who has made them.
    drains: BTreeSet<(Id, u8, SubmitId)>,
    /// Jobs that tasks have submitted and that their origin, which has a disk, may still lose: nobody was told about
    /// them.
    unsafe_jobs: BTreeSet<JobId>,
    packet_faults: Faults,
    /// Whether a node has small capacities.
    is_small: bool,
    /// Whether a node is too small for some tasks.
    is_mixed: bool,
    versions: u64,
    /// How many packets the attacker replays at a time, at most.
    replays_max: usize,
    /// How many times longer everything takes that waits for others.
    stretch: u64,
    trouble_ms: u64,
    steps: u32,
    tally: Tally,
}

/// A check failed.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What failed.
    pub what: String,
    /// The last lines of the trace, if they were kept.
    pub trace: Vec<String>,
}

/// Runs one seed. Keeps the last `traced` lines of the trace, and a hash of all outputs if `hashed`.
///
/// # Errors
/// If a check fails.
pub fn run(seed: u64, traced: usize, hashed: bool) -> Result<Tally, Violation> {
    let mut scenario = Scenario::new(seed, traced, hashed);
    let played = catch_unwind(AssertUnwindSafe(|| {
        scenario.play();
        scenario.finish()
    }));
    played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let what = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()));
        let trace = scenario.cluster.trace.iter().flatten().cloned().collect();
        Violation { what: what.unwrap_or_default(), trace }
    })
}

/// Making it.
impl Scenario {
    fn new(seed: u64, traced: usize, hashed: bool) -> Scenario {
        let mut rng = Rng::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let mut cluster = Cluster::new(rng.bits());
        cluster.records = false;
        cluster.tells_time = true;
        if SplitMix64::mix(seed ^ SLOW_SALT).is_multiple_of(SLOW_ONE_IN) {
            cluster.bus = Some(Bus::new(9_600, 64));
            cluster.counts.add(Fault::SlowLink);
        }
        let stretch = u64::from(cluster.timing().stretch());
        cluster.trace = (traced > 0).then(Default::default);
        cluster.trace_max = traced;
        cluster.digest = hashed.then_some(0xcbf2_9ce4_8422_2325);
        let mut workload = Workload::new(rng.bits());
        workload.traps = if rng.one_in(3) { 1 + rng.below(100) } else { 0 };
        workload.long = if rng.one_in(3) { rng.below(60) } else { 0 };
        cluster.workload = Some(workload);
        let mut troubles: Vec<Trouble> = Vec::new();
        let intensity = 1 + rng.below(4);
        troubles.extend(TROUBLES.iter().filter(|_| rng.below(8) < intensity));
        let (random, calls) = (Rng::new(rng.bits()), ScenarioCalls::default());
        let mut generator = Generator { rng: random, budget: 0, calls };
        generator.calls.large = rng.one_in(4);
        let rare = [("large", generator.calls.large), ("asks", rng.one_in(4)), ("push", rng.one_in(4))];
        generator.calls.functions.extend(rare.iter().filter(|(_, on)| *on).map(|(name, _)| *name));
        let replay_rate = rng.below(4);
        let trouble_ms = (1_000 + rng.below(15_000) as u64) * stretch;
        let mut scenario = Scenario {
            rng,
            generator,
            cluster,
            checker: Checker::default(),
            troubles,
            jobs: Vec::new(),
            by_submit: BTreeMap::new(),
            makers: BTreeMap::new(),
            told: BTreeMap::new(),
            keys: BTreeMap::new(),
            met: BTreeMap::new(),
            clients: Vec::new(),
            twins: Vec::new(),
            wiped: BTreeMap::new(),
            damaged: BTreeSet::new(),
            paused_at: BTreeMap::new(),
            leaving: BTreeMap::new(),
            drains: BTreeSet::new(),
            unsafe_jobs: BTreeSet::new(),
            packet_faults: Faults::default(),
            is_small: false,
            is_mixed: false,
            versions: 0,
            replays_max: [1, 4, 16, 64][replay_rate],
            stretch,
            trouble_ms,
            steps: 0,
            tally: Tally::default(),
        };
        scenario.add_nodes();
        scenario.choose_packet_faults();
        scenario
    }
}

/// Playing it.
impl Scenario {
    fn play(&mut self) {
        let until = self.cluster.now_us + self.trouble_ms * 1_000;
        while self.cluster.now_us < until {
            self.submit_some();
            self.replay_some();
            if !self.troubles.is_empty() {
                let trouble = *self.rng.pick(&self.troubles);
                self.make(trouble);
            }
            if self.rng.one_in(2) {
                let id = self.rng.below(self.cluster.len());
                self.mend(id);
            }
            let pause_us = (1 + self.rng.below(700_000) as u64) * self.stretch;
            self.go_on(pause_us);
        }
    }

    /// The attacker publishes some of the packets that it has recorded.
    fn replay_some(&mut self) {
        let packets = self.rng.below(self.replays_max + 1);
        self.cluster.replay(packets);
    }

    /// Plays everything that happens within this time, and checks each step.
    fn go_on(&mut self, us: u64) {
        let until_us = self.cluster.now_us + us;
        self.look();
        while self.cluster.advance(until_us) {
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "more than {STEPS_MAX} steps: nodes keep each other busy");
            self.look();
        }
        self.cluster.now_us = until_us;
    }

    fn look(&mut self) {
        let mut stopped = Vec::new();
        let touched = self.cluster.touched.clone();
        self.checker.check(&mut self.cluster);
        for id in &touched {
            self.note_met(*id);
        }
        for id in touched {
            for (_, event) in self.cluster.take_events(id) {
                match event {
                    Event::NameTaken => stopped.push(id),
                    event => self.on_event(id, event),
                }
            }
        }
        self.note_pushed();
        self.see_off();
        // What a shell does when its name is taken.
        stopped.retain(|id| self.cluster.is_up(*id));
        for id in stopped {
            self.cluster.note(|| format!("node {id} stops: its name is taken"));
            self.cluster.kill(id, true);
        }
    }
}

/// The end.
impl Scenario {
    fn finish(&mut self) -> Tally {
        self.heal();
        let until = self.cluster.now_us + HEALED_MS * 1_000 * self.stretch;
        while self.cluster.now_us < until && (0..self.jobs.len()).any(|at| self.is_open(at)) {
            self.go_on(1_000_000 * self.stretch);
            self.replay_some();
            // A twin that was stopped late takes the name with it.
            for id in 0..self.cluster.len() {
                self.restart_if_stopped(id);
            }
        }
        self.note_open_tasks();
        for at in 0..self.jobs.len() {
            assert!(!self.is_open(at), "has not ended after all was well again: {}", self.jobs[at]);
            self.judge_orphan(at);
        }
        for _ in 0..3 {
            // One that left late is back, or its clients would look for it.
            for id in 0..self.cluster.len() {
                self.restart_if_stopped(id);
            }
            self.go_on(IDLE_MS * 1_000 * self.stretch);
        }
        self.note_open_tasks();
        self.cluster.assert_idle();
        if self.is_calm() {
            assert_eq!(self.checker.repeats, 0, "an attempt ran twice though nothing was lost or late");
        }
        self.tally.tasks = self.checker.ended;
        self.tally.runs = self.cluster.workload.as_ref().map_or(0, |workload| workload.runs.len() as u64);
        self.tally.virtual_us = self.cluster.now_us;
        self.tally.deliveries = self.cluster.deliveries;
        self.tally.faults = self.cluster.counts;
        self.tally.digest = self.cluster.digest.unwrap_or(0);
        self.tally
    }

    /// For the trace: what has not ended.
    fn note_open_tasks(&mut self) {
        for id in 0..self.cluster.len() {
            let mut open = Vec::new();
            if self.cluster.is_up(id) && self.cluster.trace.is_some() {
                self.cluster.peek(id).audit_tasks(&mut |job, step, state, attempt| {
                    if state != TaskState::Ended {
                        open.push(format!("job {job} task {step} is {state:?}, attempt {attempt}"));
                    }
                });
                self.cluster.peek(id).audit_jobs(&mut |job, result| {
                    if result.is_none() {
                        open.push(format!("job {job} has no result"));
                    }
                });
            }
            open.into_iter().for_each(|line| self.cluster.note(|| format!("node {id}: {line}")));
        }
    }

    fn restart_if_stopped(&mut self, id: Id) {
        if !self.cluster.is_up(id) && !self.twins.contains(&id) {
            self.restart(id);
        }
    }
}

impl Tally {
    /// Adds the result of another seed.
    pub fn add(&mut self, other: &Tally) {
        self.submitted += other.submitted;
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.broken += other.broken;
        self.lost += other.lost;
        self.tasks += other.tasks;
        self.runs += other.runs;
        self.virtual_us += other.virtual_us;
        self.deliveries += other.deliveries;
        self.faults += other.faults;
    }
}
