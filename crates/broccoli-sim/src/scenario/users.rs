//! What users do: submit, follow, revoke, deploy.

use broccoli_core::canvas::CanvasError;
use broccoli_core::{Submission, SubmitError, SubmitId};
use broccoli_proto::{Canvas, Cbor};

use super::{JOBS_MAX, Scenario, State, Submitted, VERSIONS_MAX};
use crate::cluster::faults::Fault;
use crate::cluster::{Id, module};

impl Scenario {
    pub(super) fn submit_some(&mut self) {
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

    pub(super) fn deploy(&mut self, id: Id) {
        // What only a twin has is gone with it.
        if self.versions >= VERSIONS_MAX || !self.cluster.spec(id).holds_code || self.twins.contains(&id) {
            return;
        }
        self.versions += 1;
        let (signed, code) = module(self.versions, true);
        self.cluster.deploy(id, &signed, &code);
    }
}
