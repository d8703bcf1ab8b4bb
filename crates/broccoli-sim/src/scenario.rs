//! One seed: which nodes there are, what they do, and what goes wrong.
//!
//! ```text
//!   seed ──► topology, faults ──► trouble for some seconds ──► heal ──► every job has ended right
//! ```
//!
//! Each step is checked; what a seed comes to depends on nothing but the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use std::panic::{AssertUnwindSafe, catch_unwind};

use broccoli_core::canvas::CanvasError;
use broccoli_core::{Event, Limits, RecordKey, Submission, SubmitError, SubmitId, TaskState};
use broccoli_proto::message::{JobNews, Refusal};
use broccoli_proto::{Canvas, Cause, Cbor, Form, JobId, Options, Outcome};

use crate::check::Checker;
use crate::cluster::faults::{Counts, Fault};
use crate::cluster::{Cluster, Faults, Id, Spec, module};
use crate::oracle::{self, Generator, Rng, Value};
use crate::workload::Workload;

/// Nodes and twins of one seed.
const NODES_MAX: usize = 8;
/// Jobs of one seed.
const JOBS_MAX: usize = 24;
/// Steps of one seed, idle time included.
const STEPS_MAX: u32 = 300_000;
/// Versions of a module that are deployed: accepted jobs stay on theirs.
const VERSIONS_MAX: u64 = 4;
/// Leases end after this time without a word.
const LEASE_US: u64 = 4_000_000;
/// Nodes that stand still for longer go on soon.
const LONG_PAUSE_US: u64 = 6_000_000;
/// After the trouble, every job must have ended within this time.
const HEALED_MS: u64 = 900_000;
/// After that nothing may be under way: results that no client has asked for are kept for so long.
const IDLE_MS: u64 = 700_000;

/// What a seed came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Canvases handed in.
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

/// A canvas that was handed in.
struct Submitted {
    canvas: Canvas,
    by: Id,
    /// Incarnation of the node that handed it in.
    start: u8,
    submit: SubmitId,
    key: Option<String>,
    /// The job, and the incarnation of its origin that accepted it.
    job: Option<(JobId, Id, u8)>,
    revoked: bool,
    state: State,
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
    Ended(Outcome),
}

/// A running scenario.
pub struct Scenario {
    rng: Rng,
    generator: Generator,
    cluster: Cluster,
    checker: Checker,
    /// Kinds of trouble that this seed has.
    troubles: Vec<Trouble>,
    jobs: Vec<Submitted>,
    by_submit: BTreeMap<(Id, u8, SubmitId), usize>,
    /// Who made job numbers with this upper half.
    makers: BTreeMap<u32, (Id, u8)>,
    /// What clients were told that a job came to.
    told: BTreeMap<JobId, Outcome>,
    /// The job that a key stands for, at an origin with a disk.
    keys: BTreeMap<(Id, String), u64>,
    clients: Vec<Id>,
    twins: Vec<Id>,
    /// Nodes that lost their disk, and the last incarnation before.
    wiped: BTreeMap<Id, u8>,
    /// Jobs with records that were damaged.
    damaged: BTreeSet<(Id, u64)>,
    paused_at: BTreeMap<Id, u64>,
    packet_faults: Faults,
    /// Whether a node has small capacities.
    is_small: bool,
    versions: u64,
    trouble_ms: u64,
    steps: u32,
    tally: Tally,
}

/// Kinds of trouble that are made on purpose, beside what happens to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Crash,
    CrashSoon,
    Wipe,
    Pause,
    Cut,
    Session,
    OneWay,
    Server,
    Twin,
    Leave,
    Clock,
    Damage,
    Module,
}

const TROUBLES: [Trouble; 13] = [
    Trouble::Crash,
    Trouble::CrashSoon,
    Trouble::Wipe,
    Trouble::Pause,
    Trouble::Cut,
    Trouble::Session,
    Trouble::OneWay,
    Trouble::Server,
    Trouble::Twin,
    Trouble::Leave,
    Trouble::Clock,
    Trouble::Damage,
    Trouble::Module,
];

/// Something that must hold did not.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What.
    pub what: String,
    /// The last lines of what had happened, if they were kept.
    pub trace: Vec<String>,
}

/// Runs one seed. Keeps the last `traced` lines of what happened, and a hash of all outputs if
/// `hashed`.
///
/// # Errors
/// If something does not hold.
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
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let mut cluster = Cluster::new(rng.bits());
        (cluster.records, cluster.tells_time) = (false, true);
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
        let generator = Generator { rng: Rng(rng.bits()), budget: 0, places: Vec::new(), tags: 0, unix_ms: 0 };
        let trouble_ms = 1_000 + rng.below(15_000) as u64;
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
            clients: Vec::new(),
            twins: Vec::new(),
            wiped: BTreeMap::new(),
            damaged: BTreeSet::new(),
            paused_at: BTreeMap::new(),
            packet_faults: Faults::default(),
            is_small: false,
            versions: 0,
            trouble_ms,
            steps: 0,
            tally: Tally::default(),
        };
        scenario.add_nodes();
        scenario.choose_packet_faults();
        scenario
    }

    fn add_nodes(&mut self) {
        let nodes = 1 + self.rng.below(NODES_MAX);
        let labels = ["room=kitchen", "room=attic", "led"];
        for at in 0..nodes {
            let slots = if at == 0 { 1 + self.rng.below(4) } else { self.rng.below(9) };
            let mut spec = Spec::new(&format!("n{at}"), slots as u16);
            spec.resident = at == 0 || self.rng.below(10) < 7;
            spec.durable = self.rng.one_in(2);
            for label in labels {
                if self.rng.one_in(3) {
                    spec.features.push(label.into());
                }
            }
            if self.rng.one_in(4) {
                let rng = &mut self.rng;
                spec = spec.limits(|limits| small(limits, rng));
                self.is_small = true;
            }
            if slots > 0 {
                self.generator.places.extend(spec.features.iter().cloned());
                self.generator.places.push(spec.name.clone());
            }
            self.add(spec);
        }
        for at in 0..self.rng.below(3) {
            let id = self.add(Spec::client(&format!("c{at}")));
            self.clients.push(id);
            self.cluster.attach(id);
        }
    }

    fn add(&mut self, spec: Spec) -> Id {
        let id = self.cluster.add(spec);
        self.started(id);
        if self.rng.one_in(3) {
            let ppm = self.rng.below(100_001) as i64 - 50_000;
            self.cluster.drift(id, ppm);
            self.cluster.counts.add(Fault::ClockDrift);
        }
        id
    }

    fn started(&mut self, id: Id) {
        let [a, b, c, d, ..] = self.cluster.epoch(id).0;
        self.makers.insert(u32::from_be_bytes([a, b, c, d]), (id, self.cluster.starts(id)));
    }

    fn choose_packet_faults(&mut self) {
        let rng = &mut self.rng;
        let mut chance = |max: usize| if rng.one_in(2) { rng.below(max) as u64 } else { 0 };
        let (loss, duplication, delay) = (chance(200), chance(150), chance(200));
        self.packet_faults = Faults { loss, duplication, delay, delay_ms_max: 1 + chance(3_000) };
        self.cluster.faults = self.packet_faults;
        self.cluster.jitter_us = chance(20_000);
        self.cluster.sync_us_max = 1 + chance(200_000) + chance(5_000);
    }
}

/// Capacities that are soon used up.
fn small(limits: &mut Limits, rng: &mut Rng) {
    limits.jobs_max = 1 + rng.below(6);
    limits.tasks_max = 20 + rng.below(200) as u32;
    limits.held_max = 1 + rng.below(8);
    limits.outbox_max = 8 + rng.below(32);
    limits.packet_bytes_max = 40_000 + rng.below(60_000) as u32;
    limits.result_bytes_max = limits.packet_bytes_max - 4_096;
    limits.credit_bytes = 1_000 + rng.below(100_000) as u32;
}

/// Playing it.
impl Scenario {
    fn play(&mut self) {
        let until = self.cluster.now_us + self.trouble_ms * 1_000;
        while self.cluster.now_us < until {
            self.submit_some();
            if !self.troubles.is_empty() {
                let trouble = *self.rng.pick(&self.troubles);
                self.make(trouble);
            }
            if self.rng.one_in(2) {
                let id = self.rng.below(self.cluster.len());
                self.mend(id);
            }
            let pause_us = 1 + self.rng.below(700_000) as u64;
            self.go_on(pause_us);
        }
    }

    /// Lets everything happen that happens within this time, and checks each step.
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
        for id in self.cluster.touched.clone() {
            for (_, event) in self.cluster.take_events(id) {
                match event {
                    Event::NameTaken => stopped.push(id),
                    event => self.on_event(id, event),
                }
            }
        }
        self.checker.check(&mut self.cluster);
        // What a shell does when its name is taken.
        stopped.retain(|id| self.cluster.is_up(*id));
        for id in stopped {
            self.cluster.note(|| format!("node {id} stops: its name is taken"));
            self.cluster.kill(id, true);
        }
    }

    fn on_event(&mut self, id: Id, event: Event) {
        let start = self.cluster.starts(id);
        let find = |submit| self.by_submit.get(&(id, start, submit)).copied();
        match event {
            Event::Accepted(submit, job) => {
                let at = find(submit).expect("only what was submitted is accepted");
                let (origin, start) = self.makers[&((job.number >> 32) as u32)];
                assert_eq!(self.cluster.name(origin), job.origin, "the origin numbers its jobs");
                assert_eq!(self.jobs[at].job, None, "accepted once");
                self.jobs[at].job = Some((job, origin, start));
                if let Some(key) = self.jobs[at].key.clone().filter(|_| self.cluster.spec(origin).durable)
                    && !self.is_lost(at)
                {
                    let known = *self.keys.entry((origin, key)).or_insert(job.number);
                    assert_eq!(known, job.number, "one key is one job");
                }
            }
            Event::QueueFull(..) => self.cluster.counts.add(Fault::QueueFull),
            Event::Refused(submit, refusal) => {
                let at = find(submit).expect("only what was submitted is refused");
                let too_large = matches!(&refusal, Refusal::BadCanvas(why) if why.contains("split it"));
                // One that waits for room ends with that when it is revoked.
                let gave_up = refusal == Refusal::QueueFull && self.jobs[at].revoked;
                assert!(gave_up || (too_large && self.is_small), "refused: {refusal:?}");
                self.jobs[at].state = State::Refused;
            }
            Event::Job(submit, JobNews::Ended(outcome)) => {
                if let Some(at) = find(submit) {
                    self.on_ended(at, outcome);
                }
            }
            Event::Job(submit, JobNews::Unknown) => {
                if let Some(at) = find(submit) {
                    assert!(
                        self.is_lost(at) || self.has_twin(at),
                        "a job is unknown though its origin has not lost its memory"
                    );
                    self.jobs[at].state = State::Unknown;
                }
            }
            _ => {}
        }
    }

    fn on_ended(&mut self, at: usize, outcome: Outcome) {
        assert_eq!(self.jobs[at].state, State::Open, "a job ends once");
        self.judge(at, &outcome);
        if let Some((job, origin, _)) = self.jobs[at].job.filter(|_| !self.is_lost(at)) {
            let told = self.told.entry(job).or_insert_with(|| outcome.clone());
            assert_eq!(*told, outcome, "all are told the same");
            let known = self.checker.result((origin, self.cluster.starts(origin)), job.number);
            assert!(known.is_none_or(|known| *known == outcome), "{job} came to {known:?}, but told is {outcome:?}");
        }
        self.jobs[at].state = State::Ended(outcome);
    }

    /// Whether a job came to what the oracle says, or to a failure that a fault explains.
    fn judge(&mut self, at: usize, outcome: &Outcome) {
        let job = &self.jobs[at];
        if let Form::Task(task) = &job.canvas.form
            && task.function == "app.version"
            && let Ok(value) = outcome
        {
            let Value::Int(version) = Value::decode(value.as_bytes()) else { panic!("a version is a number") };
            assert!((1..=self.versions as i64).contains(&version), "version {version} was deployed");
            self.tally.succeeded += 1;
            return;
        }
        if job.canvas.options.each == Some(true) {
            return self.judge_each(at, outcome);
        }
        let expected = match &job.canvas.form {
            Form::Task(task) if task.function == "app.version" => None,
            _ => Some(oracle::evaluate(&job.canvas, None)),
        };
        let found = match outcome {
            Ok(value) => Ok(oracle::normal(&Value::decode(value.as_bytes()))),
            Err(error) => Err(oracle::Failure::from(error)),
        };
        if expected.as_ref() == Some(&found) {
            let count = if found.is_ok() { &mut self.tally.succeeded } else { &mut self.tally.failed };
            *count += 1;
            return;
        }
        let Err(error) = outcome else { panic!("the oracle says {expected:?}, but the result is {found:?}") };
        let explained = match error.cause {
            Cause::Revoked => self.is_revoked(at),
            Cause::Crashed => error.text.starts_with("trap (run "),
            Cause::TimedOut => {
                any_task(&job.canvas, &|options| options.timeout_ms.is_some() || options.deadline_ms.is_some())
            }
            Cause::Lost if error.function == "journal" => self.is_lost(at),
            Cause::Lost => !self.troubles.is_empty(),
            Cause::Unfit => self.is_small,
            Cause::Expired => any_task(&job.canvas, &|options| options.expires_ms.is_some()),
            Cause::Returned => false,
        };
        assert!(explained, "the oracle says {expected:?}, but it failed: {error}");
        self.tally.broken += 1;
    }

    /// A run on each node gives each node's result; which nodes there are is a matter of chance.
    fn judge_each(&mut self, at: usize, outcome: &Outcome) {
        let canvas = &self.jobs[at].canvas;
        let one = Canvas { options: Options::default(), ..canvas.clone() };
        match outcome.as_ref().map(|value| oracle::normal(&Value::decode(value.as_bytes()))) {
            Ok(Value::Map(pairs)) => {
                let expected = oracle::evaluate(&one, None);
                for (name, value) in pairs {
                    let fits = |spec: &Spec| {
                        spec.name == name && canvas.options.on.iter().all(|on| spec.features.contains(on))
                    };
                    assert!((0..self.cluster.len()).any(|id| fits(self.cluster.spec(id))), "{name} was not asked");
                    assert_eq!(Ok(value), expected, "what {name} says");
                }
                self.tally.succeeded += 1;
            }
            Ok(other) => panic!("not a map of nodes: {other:?}"),
            Err(error) => {
                let partial = canvas.options.partial == Some(true);
                let explained = self.is_revoked(at) || !self.is_calm() || self.is_small || !partial;
                assert!(explained, "runs on each node failed: {error}");
                self.tally.broken += 1;
            }
        }
    }

    /// Whether somebody has ended the job, by this submit or another one of the same job.
    fn is_revoked(&self, at: usize) -> bool {
        let job = &self.jobs[at];
        let same = |other: &Submitted| job.job == other.job || (job.key.is_some() && job.key == other.key);
        job.revoked || self.jobs.iter().any(|other| other.revoked && same(other))
    }

    /// Whether nothing was done to nodes or links, and no packet was lost or late.
    fn is_calm(&self) -> bool {
        let Faults { loss, delay, .. } = self.packet_faults;
        self.troubles.is_empty() && loss == 0 && delay == 0
    }

    /// Whether the origin of a job has lost its memory of it, or was never heard of.
    fn is_lost(&self, at: usize) -> bool {
        let Some((job, origin, start)) = self.jobs[at].job else {
            return false;
        };
        let gone = self.cluster.starts(origin) != start || !self.cluster.is_up(origin);
        let forgotten = self.wiped.get(&origin).is_some_and(|wiped| *wiped >= start);
        let damaged = self.damaged.contains(&(origin, job.number));
        if self.cluster.spec(origin).durable { forgotten || damaged } else { gone }
    }

    /// Whether the origin of a job had a twin: that one knows nothing of it, and says so.
    fn has_twin(&self, at: usize) -> bool {
        let Some((job, ..)) = self.jobs[at].job else { return false };
        self.twins.iter().any(|twin| self.cluster.name(*twin) == job.origin)
    }

    /// Whether the one who handed a job in still waits for it.
    fn is_waited_for(&self, at: usize) -> bool {
        let job = &self.jobs[at];
        job.state == State::Open && self.cluster.starts(job.by) == job.start && self.cluster.is_up(job.by)
    }

    /// Whether there is something to wait for.
    fn is_open(&self, at: usize) -> bool {
        let job = &self.jobs[at];
        if self.is_waited_for(at) {
            return true;
        }
        let Some((id, origin, _)) = job.job.filter(|_| job.state == State::Open && !self.is_lost(at)) else {
            return false;
        };
        self.checker.result((origin, self.cluster.starts(origin)), id.number).is_none()
    }
}

/// What users do.
impl Scenario {
    fn submit_some(&mut self) {
        if self.jobs.len() >= JOBS_MAX || !self.rng.one_in(2) {
            return;
        }
        let id = self.rng.below(self.cluster.len());
        if !self.cluster.is_up(id) || self.cluster.is_paused(id) {
            return;
        }
        self.generator.unix_ms = self.cluster.unix_ms();
        self.generator.budget = 2 + self.rng.below(25) as u32;
        let depth = self.rng.below(5) as u32;
        let mut canvas = self.generator.canvas(depth);
        if self.rng.one_in(12) {
            canvas.options.deadline_ms = Some(500 + self.rng.below(10_000) as u64);
        } else if self.rng.one_in(12) {
            canvas = self.for_each();
        }
        if self.clients.contains(&id) {
            self.submit_remote(id, canvas);
        } else if self.versions > 0 && self.rng.one_in(4) && self.cluster.peek(id).function("app.version").is_ok() {
            self.submit(id, Canvas::task("app.version", Cbor::empty_array()));
        } else {
            self.submit(id, canvas);
        }
        if self.rng.one_in(6) {
            self.revoke_one();
        }
        let id = self.rng.below(self.cluster.len());
        if self.rng.one_in(4) && self.cluster.is_up(id) && !self.cluster.is_paused(id) {
            self.follow_one(id);
        }
    }

    /// A task for each node, or each with a label.
    fn for_each(&mut self) -> Canvas {
        let name = *self.rng.pick(&["w.number", "w.list", "w.stamp"]);
        let mut canvas = Canvas::task(name, Cbor::encode(&["each"]));
        (canvas.options.each, canvas.options.partial) = (Some(true), Some(self.rng.one_in(2)));
        if self.rng.one_in(2) {
            canvas.options.on = vec!["led".into()];
        }
        canvas
    }

    fn submit_remote(&mut self, id: Id, canvas: Canvas) {
        let repeated = self.rng.below(self.jobs.len().max(1));
        let (canvas, key) = match self.jobs.get(repeated) {
            Some(Submitted { canvas, key: Some(key), .. }) => (canvas.clone(), Some(key.clone())),
            _ => (canvas, self.rng.one_in(3).then(|| format!("key {}", self.jobs.len()))),
        };
        let detached = self.rng.one_in(4);
        let submission = Submission { canvas: Cbor::encode(&canvas), key: key.clone(), detached };
        let submit = self.cluster.submit_with(id, submission);
        self.submitted(id, submit, canvas, key);
    }

    /// Somebody else wants to know how a job ends, or ends it.
    fn follow_one(&mut self, id: Id) {
        let at = self.rng.below(self.jobs.len().max(1));
        let Some((job, origin, start)) = self.jobs.get(at).and_then(|job| job.job) else {
            return;
        };
        let submit = if self.rng.one_in(8) {
            self.cluster.counts.add(Fault::Revoke);
            self.jobs[at].revoked = true;
            self.cluster.revoke_job(id, job)
        } else {
            self.cluster.follow(id, job)
        };
        let (canvas, revoked) = (self.jobs[at].canvas.clone(), self.jobs[at].revoked);
        self.note_submitted(Submitted {
            canvas,
            by: id,
            start: self.cluster.starts(id),
            submit,
            key: None,
            job: Some((job, origin, start)),
            revoked,
            state: State::Open,
        });
    }

    fn submit(&mut self, id: Id, canvas: Canvas) {
        match self.cluster.try_submit(id, &canvas) {
            Ok(submit) => self.submitted(id, submit, canvas, None),
            Err(SubmitError::QueueFull) => self.cluster.counts.add(Fault::QueueFull),
            Err(SubmitError::Canvas(CanvasError::TooManySteps { .. })) if self.is_small => {}
            Err(error) => panic!("refused: {error}"),
        }
    }

    fn submitted(&mut self, by: Id, submit: SubmitId, canvas: Canvas, key: Option<String>) {
        let start = self.cluster.starts(by);
        let (job, revoked, state) = (None, false, State::Open);
        self.note_submitted(Submitted { canvas, by, start, submit, key, job, revoked, state });
        self.tally.submitted += 1;
    }

    fn note_submitted(&mut self, submitted: Submitted) {
        self.by_submit.insert((submitted.by, submitted.start, submitted.submit), self.jobs.len());
        self.jobs.push(submitted);
        self.look();
    }

    fn revoke_one(&mut self) {
        let at = self.rng.below(self.jobs.len().max(1));
        if self.jobs.is_empty() || !self.is_waited_for(at) || self.cluster.is_paused(self.jobs[at].by) {
            return;
        }
        self.cluster.counts.add(Fault::Revoke);
        self.jobs[at].revoked = true;
        self.cluster.revoke(self.jobs[at].by, self.jobs[at].submit);
        self.look();
    }

    fn deploy(&mut self, id: Id) {
        // What only a twin has is gone with it.
        if self.versions >= VERSIONS_MAX || !self.cluster.spec(id).holds_code || self.twins.contains(&id) {
            return;
        }
        self.versions += 1;
        let (signed, code) = module(self.versions, true);
        self.cluster.deploy(id, &signed, &code);
    }
}

/// What goes wrong, and right again.
impl Scenario {
    fn make(&mut self, trouble: Trouble) {
        let id = self.rng.below(self.cluster.len());
        let (up, paused) = (self.cluster.is_up(id), self.cluster.is_paused(id));
        let reset = self.rng.one_in(2);
        match trouble {
            Trouble::Crash if up => {
                self.cluster.counts.add(Fault::Crash);
                self.cluster.kill(id, reset);
            }
            Trouble::CrashSoon if up => {
                let outputs = 1 + self.rng.below(12) as u32;
                self.cluster.kill_after(id, outputs);
            }
            Trouble::Wipe if !up && self.cluster.spec(id).durable => {
                self.cluster.wipe(id);
                self.keys.retain(|(origin, _), _| *origin != id);
                self.wiped.insert(id, self.cluster.starts(id));
            }
            Trouble::Pause if up && !paused => {
                self.cluster.counts.add(Fault::Pause);
                self.paused_at.insert(id, self.cluster.now_us);
                if reset {
                    self.cluster.cut(id, false);
                }
                self.cluster.pause(id);
            }
            Trouble::Cut if up => {
                self.cluster.counts.add(Fault::Cut);
                self.cluster.cut(id, false);
            }
            Trouble::Session if up => {
                self.cluster.counts.add(Fault::SessionLost);
                self.cluster.cut(id, true);
            }
            Trouble::OneWay => self.partition(id),
            Trouble::Server if self.rng.one_in(4) => {
                self.cluster.counts.add(Fault::ServerRestart);
                self.cluster.restart_server();
            }
            Trouble::Twin if self.twins.is_empty() && !self.clients.contains(&id) => {
                self.cluster.counts.add(Fault::Twin);
                let spec = Spec { durable: false, ..self.cluster.spec(id).clone() };
                let twin = self.add(spec);
                self.twins.push(twin);
            }
            Trouble::Leave if up && !paused => {
                self.cluster.counts.add(Fault::Leave);
                self.cluster.leave(id);
                self.go_on(1_000);
                if self.cluster.is_up(id) {
                    self.cluster.depart(id);
                }
            }
            Trouble::Clock => {
                self.cluster.counts.add(Fault::ClockSet);
                let ahead_ms = self.rng.below(400_000) as i64 - 200_000;
                self.cluster.set_wall_clock(id, ahead_ms);
            }
            Trouble::Damage if !up => self.damage(id),
            Trouble::Module if up && !paused => {
                let (corrupts, lacks) = (self.rng.below(300) as u64, self.rng.below(300) as u64);
                self.cluster.spoil_chunks(id, corrupts, lacks);
                self.deploy(id);
            }
            _ => {}
        }
        self.look();
    }

    /// Packets go one way only.
    fn partition(&mut self, id: Id) {
        self.cluster.counts.add(Fault::Partition);
        match self.rng.below(3) {
            0 => self.cluster.silence(id, true, false),
            1 => self.cluster.silence(id, false, true),
            _ => {
                let other = self.rng.below(self.cluster.len());
                self.cluster.blocked.insert((id, other));
            }
        }
    }

    fn damage(&mut self, id: Id) {
        let keys: Vec<RecordKey> = self.cluster.disk(id).records().keys().filter(|key| key.job != 0).copied().collect();
        if keys.is_empty() {
            return;
        }
        let key = *self.rng.pick(&keys);
        self.damaged.insert((id, key.job));
        self.keys.retain(|(origin, _), job| (*origin, *job) != (id, key.job));
        // A shell notices by its checksums what is not as it was written; then it is no record.
        self.cluster.damage(id, key, |value| value.truncate(value.len() / 2));
    }

    /// Ends one trouble of a node, if it has any.
    fn mend(&mut self, id: Id) {
        if self.twins.contains(&id) && !self.cluster.is_up(id) {
            return;
        }
        if !self.cluster.is_up(id) {
            self.restart(id);
        } else if self.cluster.is_paused(id) {
            let since = self.paused_at.get(&id).copied().unwrap_or_default();
            // Some stand still for longer than a lease lasts.
            if self.cluster.now_us - since > LONG_PAUSE_US || self.rng.one_in(2) {
                self.resume(id);
            }
        } else if !self.cluster.blocked.is_empty() && self.rng.one_in(2) {
            self.cluster.blocked.clear();
        } else {
            self.cluster.silence(id, false, false);
            self.cluster.heal_if_cut(id);
        }
        self.look();
    }

    fn restart(&mut self, id: Id) {
        self.look();
        let kept = self.cluster.spec(id).durable && !self.cluster.disk(id).records().is_empty();
        self.cluster.counts.add(if kept { Fault::RebootWithDisk } else { Fault::RebootWithoutDisk });
        self.cluster.restart(id);
        self.started(id);
        for damage in &self.cluster.recovery(id).damaged {
            assert!(self.damaged.contains(&(id, damage.job)), "a sound job was given up: {damage:?}");
        }
        if self.clients.contains(&id) {
            self.cluster.attach(id);
        }
    }

    fn resume(&mut self, id: Id) {
        let since = self.paused_at.remove(&id).unwrap_or(self.cluster.now_us);
        let stood_still = self.cluster.now_us - since;
        if stood_still > LEASE_US && self.cluster.running_on(id) > 0 {
            self.cluster.counts.add(Fault::LeaseOverrun);
        }
        self.cluster.resume(id);
        self.go_on(1);
        self.cluster.heal_if_cut(id);
    }
}

/// The end.
impl Scenario {
    fn heal(&mut self) {
        self.cluster.note(|| "everything heals".into());
        self.cluster.faults = Faults::default();
        (self.cluster.jitter_us, self.cluster.ticks) = (0, false);
        self.cluster.blocked.clear();
        for id in self.twins.clone() {
            if self.cluster.is_up(id) {
                self.cluster.kill(id, true);
            }
        }
        self.look();
        for id in 0..self.cluster.len() {
            self.cluster.silence(id, false, false);
            self.cluster.spoil_chunks(id, 0, 0);
            self.cluster.set_wall_clock(id, 0);
            if self.cluster.is_up(id) && !self.cluster.is_paused(id) {
                self.cluster.tell_time(id, self.cluster.unix_ms());
            }
            if self.twins.contains(&id) {
                continue;
            }
            self.cluster.kill_never(id);
            if self.cluster.is_paused(id) {
                self.resume(id);
            }
            if self.cluster.is_up(id) {
                self.cluster.heal_if_cut(id);
            } else {
                self.restart(id);
            }
        }
    }

    fn finish(&mut self) -> Tally {
        self.heal();
        let until = self.cluster.now_us + HEALED_MS * 1_000;
        while self.cluster.now_us < until && (0..self.jobs.len()).any(|at| self.is_open(at)) {
            self.go_on(1_000_000);
            // A twin that was stopped late takes the name with it.
            (0..self.cluster.len()).for_each(|id| self.restart_if_stopped(id));
        }
        self.note_open_tasks();
        for at in 0..self.jobs.len() {
            assert!(!self.is_open(at), "has not ended after all was well again: {}", self.jobs[at]);
            self.judge_orphan(at);
        }
        for _ in 0..3 {
            self.go_on(IDLE_MS * 1_000);
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

    /// A job whose client is gone must have come to the right thing, too.
    fn judge_orphan(&mut self, at: usize) {
        match &self.jobs[at] {
            Submitted { state: State::Open, job: Some((id, origin, _)), .. } if !self.is_lost(at) => {
                let incarnation = (*origin, self.cluster.starts(*origin));
                let outcome = self.checker.result(incarnation, id.number).cloned();
                self.judge(at, &outcome.expect("it has ended"));
            }
            Submitted { state: State::Open | State::Unknown, .. } => self.tally.lost += 1,
            _ => {}
        }
    }
}

/// Whether a canvas, or one in it, has such options.
fn any_task(canvas: &Canvas, is_it: &dyn Fn(&Options) -> bool) -> bool {
    let all = |list: &[Canvas]| list.iter().any(|canvas| any_task(canvas, is_it));
    let inner = match &canvas.form {
        Form::Chain(members) | Form::Group(members) => all(members),
        Form::Chord { header, body } => all(header) || any_task(body, is_it),
        _ => false,
    };
    inner || is_it(&canvas.options) || all(&canvas.link) || all(&canvas.on_error)
}

impl Tally {
    /// Adds what another seed came to.
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
