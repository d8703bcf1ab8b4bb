//! What users do: submit, follow, revoke, deploy.

use broccoli_core::canvas::CanvasError;
use broccoli_core::{Submission, SubmitError, SubmitId};
use broccoli_proto::{Canvas, Cbor, Form};

use super::{JOBS_MAX, Scenario, State, Submitted, VERSIONS_MAX};
use crate::cluster::faults::Fault;
use crate::cluster::{Id, Pushed, module};

impl Scenario {
    pub(super) fn submit_some(&mut self) {
        if self.jobs.len() >= JOBS_MAX || !self.rng.one_in(2) {
            return;
        }
        let id = self.rng.below(self.cluster.len());
        if !self.cluster.is_up(id) || self.cluster.is_paused(id) {
            return;
        }
        self.generator.calls.unix_ms = self.cluster.unix_ms();
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
        if self.rng.one_in(4) && self.cluster.is_up(id) && !self.cluster.is_paused(id) {
            self.retry_one(id);
        }
    }

    /// A task for each node, or each with a label.
    fn for_each(&mut self) -> Canvas {
        let name = *self.rng.pick(&["w.number", "w.list", "w.stamp"]);
        let mut canvas = Canvas::task(name, Cbor::encode(&["each"]));
        canvas.options.each = Some(true);
        canvas.options.partial = Some(self.rng.one_in(2));
        if self.rng.one_in(2) {
            canvas.options.on = vec!["led".into()];
        }
        canvas
    }

    fn submit_remote(&mut self, id: Id, canvas: Canvas) {
        let repeated = self.rng.below(self.jobs.len().max(1));
        let (canvas, key) = match self.jobs.get(repeated) {
            Some(Submitted { canvas, key: Some(key), .. }) => {
                self.cluster.counts.add(Fault::KeyAgain);
                (canvas.clone(), Some(key.clone()))
            }
            _ => (canvas, self.rng.one_in(3).then(|| format!("key {}", self.jobs.len()))),
        };
        let detached = self.rng.one_in(4);
        let submission = Submission { canvas: Cbor::encode(&canvas), key: key.clone(), again: false, detached };
        let submit = self.cluster.submit_with(id, submission);
        self.submitted(id, submit, canvas, key);
    }

    /// Another user follows a job, or revokes it.
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
        let (submit, job) = (Some(submit), Some((job, origin, start)));
        let followed = Submitted::new(canvas, id, self.cluster.starts(id));
        self.note_submitted(Submitted { submit, job, revoked, ..followed });
    }

    fn submit(&mut self, id: Id, canvas: Canvas) {
        let stalls = self.cluster.disk(id).is_known_to_stall();
        match self.cluster.try_submit(id, &canvas) {
            Ok(submit) => {
                assert!(!stalls, "accepted by a node that cannot write its journal");
                self.submitted(id, submit, canvas, None);
            }
            Err(SubmitError::Draining) => assert!(self.leaving.contains_key(&id), "refused by a node that stays"),
            Err(error) => self.refused(id, &error),
        }
    }

    /// A canvas was refused at once: there must be a reason.
    fn refused(&mut self, id: Id, error: &SubmitError) {
        match error {
            SubmitError::QueueFull => self.cluster.counts.add(Fault::QueueFull),
            SubmitError::Canvas(CanvasError::TooManySteps { .. }) if self.is_small => {}
            SubmitError::Storage(_) if self.cluster.disk(id).is_known_to_stall() => {
                self.cluster.counts.add(Fault::StallRefusal);
            }
            error => panic!("refused: {error}"),
        }
    }

    /// Notes what tasks have submitted to their nodes. These are jobs like others, and must have the right outcome
    /// although nobody asks for it.
    pub(super) fn note_pushed(&mut self) {
        for Pushed { node, canvas, job } in std::mem::take(&mut self.cluster.pushed) {
            let start = self.cluster.starts(node);
            match job {
                Ok(job) => {
                    self.cluster.counts.add(Fault::TaskSubmit);
                    self.unsafe_jobs.insert(job);
                    self.tally.submitted += 1;
                    let job = Some((job, node, start));
                    self.jobs.push(Submitted { job, ..Submitted::new(canvas, node, start) });
                }
                Err(error) => self.refused(node, &error),
            }
        }
        let mut unsafe_jobs = std::mem::take(&mut self.unsafe_jobs);
        unsafe_jobs.retain(|job| {
            let (origin, _) = self.makers[&((job.number >> 32) as u32)];
            !self.is_on_disk(origin, *job)
        });
        self.unsafe_jobs = unsafe_jobs;
    }

    /// A user retries a failed job.
    fn retry_one(&mut self, id: Id) {
        let failed = |job: &Submitted| {
            let resident = job.job.is_some_and(|(_, origin, _)| self.cluster.spec(origin).resident);
            // Whether there is a version of a module at the origin is a matter of chance.
            let plain = !matches!(&job.canvas.form, Form::Task(task) if task.function == "app.version");
            // One that was too large for whoever asked has not failed.
            let has_failed = matches!(&job.state, State::Ended(Err(error)) if error.function != "result");
            resident && plain && has_failed
        };
        let failed: Vec<usize> = (0..self.jobs.len()).filter(|at| failed(&self.jobs[*at])).collect();
        if failed.is_empty() {
            return;
        }
        let at = *self.rng.pick(&failed);
        let Submitted { canvas, job: Some((job, ..)), .. } = &self.jobs[at] else {
            return;
        };
        let (canvas, job) = (canvas.clone(), *job);
        self.cluster.counts.add(Fault::Retry);
        let submit = self.cluster.retry_job(id, job);
        let (submit, again) = (Some(submit), Some(at));
        let retried = Submitted::new(canvas, id, self.cluster.starts(id));
        self.tally.submitted += 1;
        self.note_submitted(Submitted { submit, again, ..retried });
    }

    fn submitted(&mut self, by: Id, submit: SubmitId, canvas: Canvas, key: Option<String>) {
        let submitted = Submitted::new(canvas, by, self.cluster.starts(by));
        self.note_submitted(Submitted { submit: Some(submit), key, ..submitted });
        self.tally.submitted += 1;
    }

    fn note_submitted(&mut self, submitted: Submitted) {
        let of_submit = submitted.submit.map(|submit| (submitted.by, submitted.start, submit));
        self.by_submit.extend(of_submit.map(|submit| (submit, self.jobs.len())));
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
        if let Some(submit) = self.jobs[at].submit {
            self.cluster.revoke(self.jobs[at].by, submit);
        }
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
