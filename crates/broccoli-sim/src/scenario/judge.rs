//! Checks whether nodes tell their users the right things.

use std::collections::BTreeSet;

use broccoli_core::{Event, RecordKey};
use broccoli_proto::message::{JobNews, Refusal};
use broccoli_proto::{Canvas, Cause, Form, JobId, NodeId, Options, Outcome};

use super::trouble::Trouble;
use super::{Scenario, State, Submitted};
use crate::cluster::faults::Fault;
use crate::cluster::{Faults, Id, Spec};
use crate::oracle::{self, Value};

impl Scenario {
    pub(super) fn on_event(&mut self, id: Id, event: Event) {
        let start = self.cluster.starts(id);
        let find = |submit| self.by_submit.get(&(id, start, submit)).copied();
        match event {
            Event::Draining(..) => self.begin_leave(id),
            Event::Drained => self.on_drained(id),
            Event::Accepted(submit, job) => {
                let at = find(submit).expect("only what was submitted is accepted");
                let (origin, start) = self.makers[&((job.number >> 32) as u32)];
                assert_eq!(self.cluster.name(origin), job.origin, "the origin numbers its jobs");
                assert_eq!(self.jobs[at].job, None, "accepted once");
                self.jobs[at].job = Some((job, origin, start));
                let is_kept = self.is_on_disk(origin, job) || self.is_lost(at);
                assert!(is_kept || !self.cluster.spec(origin).durable, "{job} was accepted, but is on no disk");
                if let Some(key) = self.jobs[at].key.clone().filter(|_| self.cluster.spec(origin).durable)
                    && !self.is_lost(at)
                {
                    // With the memory of its origin, the job is gone.
                    let is_gone = |(_, at): &(JobId, usize)| self.is_lost(*at) || self.has_twin(*at);
                    if self.keys.get(&key).is_some_and(is_gone) {
                        self.keys.remove(&key);
                    }
                    let (known, _) = *self.keys.entry(key).or_insert((job, at));
                    // Two that were never there at the same time cannot know of each other.
                    let met = self.met.get(&(origin, job.number));
                    let has_met = met.is_some_and(|met| met.contains(&known.origin));
                    let is_excused = self.has_twin(at) || !has_met;
                    assert!(known == job || is_excused, "one key is one job: {known} and {job}");
                }
            }
            Event::QueueFull(..) => self.cluster.counts.add(Fault::QueueFull),
            Event::CannotStore(..) => self.cluster.counts.add(Fault::StallRefusal),
            Event::Refused(submit, refusal) => {
                let at = find(submit).expect("only what was submitted is refused");
                assert!(self.is_refused_well(at, &refusal), "refused: {refusal:?}");
                self.jobs[at].state = State::Refused;
            }
            Event::Job(submit, JobNews::Ended(outcome)) => {
                if let Some(at) = find(submit) {
                    self.on_ended(at, outcome);
                }
            }
            Event::Job(submit, JobNews::GoesOn) => {
                let at = find(submit).expect("only what was submitted is left to others");
                assert!(self.jobs[at].revoked && self.jobs[at].key.is_some(), "nobody has left this job");
                self.jobs[at].state = State::Left;
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

    /// Notes which nodes a node has heard of, for each job that it has just accepted.
    pub(super) fn note_met(&mut self, id: Id) {
        if !self.cluster.is_up(id) || !self.cluster.spec(id).durable {
            return;
        }
        let node = self.cluster.peek(id);
        let mut new = Vec::new();
        node.audit_jobs(&mut |job, _| new.extend((!self.met.contains_key(&(id, job))).then_some(job)));
        if new.is_empty() {
            return;
        }
        let names = (0..self.cluster.len()).map(|other| self.cluster.name(other));
        let met: BTreeSet<NodeId> = names.filter(|name| node.audit_has_met(*name)).collect();
        self.met.extend(new.into_iter().map(|job| ((id, job), met.clone())));
    }

    /// Whether there is a reason to refuse a canvas, or a retry of a job.
    fn is_refused_well(&mut self, at: usize, refusal: &Refusal) -> bool {
        let again = self.jobs[at].again;
        match refusal {
            Refusal::BadCanvas(why) => why.contains("split it") && self.is_small,
            // One that waits for room ends with that when it is revoked.
            Refusal::QueueFull => self.jobs[at].revoked,
            Refusal::Storage(_) => {
                self.cluster.counts.add(Fault::StallRefusal);
                self.troubles.contains(&Trouble::Stall)
            }
            // Only its origin can try a job again.
            Refusal::Draining => again.is_some() && self.troubles.contains(&Trouble::Drain),
            // Who may hold the key was away, stood still, or could not be heard.
            Refusal::Unsure(_) => {
                self.cluster.counts.add(Fault::KeyUnsure);
                self.jobs[at].key.is_some() && !self.is_calm()
            }
            Refusal::NotRetriable(_) => again.is_some_and(|of| self.is_lost(of) || self.has_twin(of)),
            _ => false,
        }
    }

    fn on_ended(&mut self, at: usize, outcome: Outcome) {
        assert_eq!(self.jobs[at].state, State::Open, "a job ends once");
        self.judge(at, &outcome);
        // That a client cannot take the result is told to it alone.
        let is_unfit = matches!(&outcome, Err(error) if error.cause == Cause::Unfit && error.function == "result");
        if let Some((job, origin, _)) = self.jobs[at].job.filter(|_| !is_unfit && !self.is_lost(at)) {
            let told = self.told.entry(job).or_insert_with(|| outcome.clone());
            assert_eq!(*told, outcome, "all are told the same");
            let known = self.checker.result((origin, self.cluster.starts(origin)), job.number);
            assert!(known.is_none_or(|known| *known == outcome), "{job} came to {known:?}, but told is {outcome:?}");
        }
        self.jobs[at].state = State::Ended(outcome);
    }

    /// Checks that the outcome of a job is what the oracle says, or a failure that a fault explains.
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
            // What a task has submitted may have such numbers in its arguments.
            _ => Some(oracle::evaluate(&job.canvas, None).map(|value| oracle::normal(&value))),
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
            // That no node was large enough is looked at when it happens.
            Cause::Unfit => self.is_small || self.is_mixed,
            Cause::Expired => any_task(&job.canvas, &|options| options.expires_ms.is_some()),
            Cause::Other => false,
            // A trap before it, or an author who wants few retries.
            Cause::Returned => {
                let gave_up = error.text.starts_with("asks (run ") && error.text.contains("; gave up after");
                let few = any_task(&job.canvas, &|options| options.retries.is_some());
                gave_up && (few || self.cluster.workload.as_ref().is_some_and(|workload| workload.trapped > 0))
            }
        };
        assert!(explained, "the oracle says {expected:?}, but it failed: {error}");
        self.tally.broken += 1;
    }

    /// Checks a job that runs on each node: it has the result of each node. Which nodes these are is random.
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
                let explained = self.is_revoked(at) || !self.is_calm() || self.is_small || self.is_mixed || !partial;
                assert!(explained, "runs on each node failed: {error}");
                self.tally.broken += 1;
            }
        }
    }

    /// Whether somebody has revoked the job, by this submit or another one of the same job.
    fn is_revoked(&self, at: usize) -> bool {
        let job = &self.jobs[at];
        let same = |other: &Submitted| job.job == other.job || (job.key.is_some() && job.key == other.key);
        job.revoked || self.jobs.iter().any(|other| other.revoked && same(other))
    }

    /// Whether no fault happened to nodes or links, and no packet was lost or late.
    pub(super) fn is_calm(&self) -> bool {
        let Faults { loss, delay, .. } = self.packet_faults;
        self.troubles.is_empty() && loss == 0 && delay == 0
    }

    /// Whether the origin of a job has lost the job.
    pub(super) fn is_lost(&self, at: usize) -> bool {
        let Some((job, origin, start)) = self.jobs[at].job else {
            return false;
        };
        let gone = self.cluster.starts(origin) != start || !self.cluster.is_up(origin);
        let forgotten = self.wiped.get(&origin).is_some_and(|wiped| *wiped >= start);
        let damaged = self.damaged.contains(&(origin, job.number));
        let untold = gone && self.unsafe_jobs.contains(&job);
        if self.cluster.spec(origin).durable { forgotten || damaged || untold } else { gone }
    }

    /// Whether the disk of an origin has a job.
    pub(super) fn is_on_disk(&self, origin: Id, job: JobId) -> bool {
        let key = |number| RecordKey { job: job.number, number };
        self.cluster.disk(origin).records().range(key(0)..=key(u32::MAX)).next().is_some()
    }

    /// Whether the origin of a job had a twin, which does not know the job and says so.
    fn has_twin(&self, at: usize) -> bool {
        let Some((job, ..)) = self.jobs[at].job else { return false };
        self.twins.iter().any(|twin| self.cluster.name(*twin) == job.origin)
    }

    /// Whether the submitter of a job still waits for it.
    pub(super) fn is_waited_for(&self, at: usize) -> bool {
        let job = &self.jobs[at];
        let is_asked = job.submit.is_some() && job.state == State::Open;
        is_asked && self.cluster.starts(job.by) == job.start && self.cluster.is_up(job.by)
    }

    /// Whether there is something to wait for.
    pub(super) fn is_open(&self, at: usize) -> bool {
        let job = &self.jobs[at];
        if self.is_waited_for(at) {
            return true;
        }
        let Some((id, origin, _)) = job.job.filter(|_| job.state == State::Open && !self.is_lost(at)) else {
            return false;
        };
        self.checker.result((origin, self.cluster.starts(origin)), id.number).is_none()
    }

    /// Checks the outcome of a job whose client is gone.
    pub(super) fn judge_orphan(&mut self, at: usize) {
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

/// Whether a canvas, or a canvas in it, has such options.
fn any_task(canvas: &Canvas, is_it: &dyn Fn(&Options) -> bool) -> bool {
    let all = |list: &[Canvas]| list.iter().any(|canvas| any_task(canvas, is_it));
    let inner = match &canvas.form {
        Form::Chain(members) | Form::Group(members) => all(members),
        Form::Chord { header, body } => all(header) || any_task(body, is_it),
        _ => false,
    };
    inner || is_it(&canvas.options) || all(&canvas.link) || all(&canvas.on_error)
}
