//! Handles the results and failures of attempts that workers send.

use core::time::Duration;

use broccoli_proto::message::{Attempt, BlobRef, Failure, TaskResults};
use broccoli_proto::{Cause, Cbor, Epoch, NodeId};

use crate::canvas::Effects;
use crate::content::values::pulls::Purpose;
use crate::origin::job::memory::Admission;
use crate::origin::job::{Phase, Task};
use crate::origin::journal::records::Change;
use crate::origin::journal::writes::Promise;
use crate::origin::progress::news::trace_failure;
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::text::{self, too_long};
use crate::timers::Timer;
use crate::trace::TraceLevel;

impl Origin {
    /// A worker sends results. Memory for those with `was_pulled` is reserved already.
    pub(crate) fn on_results(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        from: NodeId,
        epoch: Epoch,
        results: TaskResults,
        was_pulled: bool,
    ) {
        let peer = self.peer(shared, from, epoch);
        peer.suspected = false;
        let mut missing = peer.missing.remove(&results.number).unwrap_or_default();
        let mut effects = core::mem::take(&mut self.effects);
        let mut current = None;
        for result in results.results {
            let attempt = result.attempt;
            let mut outcome = result.outcome.map_err(|failure| *failure);
            if self.leases.adopting && self.jobs.get(&attempt.job).is_some_and(|job| job.is_unready(attempt)) {
                // Its task is not ready yet in this incarnation. The result counts when the worker repeats it.
                missing.insert(attempt, ());
                continue;
            }
            if let Err(failure) = &mut outcome {
                text::cut(&mut failure.text, text::FAILURE_BYTES_MAX);
            }
            if let Some(blob) = result.blob.filter(|_| self.is_open(attempt)) {
                let max = shared.config.limits.result_bytes_max;
                if blob.bytes <= max {
                    match self.admit(shared, from, attempt, blob.bytes as usize) {
                        Admission::Taken | Admission::PutOff => {
                            missing.insert(attempt, ());
                            let purpose = Purpose::Result { epoch, number: results.number, attempt };
                            self.pull_result(shared, from, purpose, *blob);
                        }
                        Admission::Dropped => self.drop_result(shared, from, attempt),
                        Admission::Never => {}
                    }
                    continue;
                }
                outcome = Err(too_long(blob.bytes as usize, max));
            }
            match self.room_for(shared, from, attempt, &outcome, was_pulled) {
                Admission::Taken | Admission::Never => {}
                Admission::PutOff => {
                    missing.insert(attempt, ());
                    continue;
                }
                Admission::Dropped => {
                    self.drop_result(shared, from, attempt);
                    missing.remove(&attempt);
                    continue;
                }
            }
            missing.remove(&attempt);
            if let Some(peer) = self.leases.peers.get_mut(&from) {
                peer.leases.remove(&attempt);
            }
            if current.is_some_and(|job| job != attempt.job) {
                effects = self.apply_effects(shared, current.unwrap_or_default(), effects);
            }
            current = Some(attempt.job);
            self.on_result(shared, around, from, attempt, outcome, &mut effects);
        }
        if let Some(job) = current {
            self.effects = self.apply_effects(shared, job, effects);
        }
        if missing.is_empty() {
            self.promise(shared, Promise::Results { worker: from, epoch, number: results.number });
        } else if let Some(peer) = self.leases.peers.get_mut(&from) {
            peer.miss(results.number, missing);
        }
        self.dispatch.due = true;
    }

    /// Pulls a result that did not fit into a packet. Its lease continues meanwhile.
    fn pull_result(&mut self, shared: &mut Shared, from: NodeId, purpose: Purpose, blob: BlobRef) {
        if let (Some(peer), Purpose::Result { attempt, .. }) = (self.leases.peers.get_mut(&from), &purpose) {
            peer.renew(*attempt, true, shared.now);
        }
        // If the pull is refused, the worker repeats its message.
        shared.values.pull(shared.now, &mut shared.timers, from, blob, purpose);
    }

    /// The worker no longer has a result that it has announced.
    pub(crate) fn on_result_gone(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, attempt: Attempt) {
        let peer = self.leases.peers.get_mut(&from).filter(|peer| peer.epoch == epoch);
        if peer.is_some_and(|peer| peer.leases.remove(&attempt).is_some()) {
            self.give_up(shared, alloc::vec![(attempt, true)]);
        }
    }
}

/// A single result.
impl Origin {
    /// Takes the outcome of an attempt, if it counts.
    fn on_result(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        from: NodeId,
        attempt: Attempt,
        outcome: Result<Cbor, Failure>,
        effects: &mut Effects,
    ) {
        let job = self.jobs.get(&attempt.job).filter(|job| job.knows(attempt));
        let Some(task) = job.and_then(|job| job.open_task(attempt.step)) else {
            return;
        };
        let outcome = outcome.and_then(well_formed);
        match outcome.and_then(|value| self.replace(shared, around, attempt, value, effects)) {
            Ok(Some(value)) => self.complete(shared, attempt.job, attempt.step, Ok(value), effects),
            Ok(None) => self.waits_no_more(shared, attempt.job, attempt.step, task.phase),
            Err(failure) => return self.on_failure(shared, from, attempt, failure, effects),
        }
        if task.phase == Phase::Delayed {
            shared.timers.cancel(Timer::Countdown { job: attempt.job, step: attempt.step });
        }
        if task.phase == Phase::Leased && task.attempt != attempt.number {
            self.abort(shared, Attempt { number: task.attempt, ..attempt });
        }
    }

    /// Takes the failure of an attempt, if it is the current one.
    pub(crate) fn on_failure(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        attempt: Attempt,
        mut failure: Failure,
        effects: &mut Effects,
    ) {
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return;
        };
        let step = attempt.step;
        let is_current = |task: &Task| task.phase == Phase::Leased && task.attempt == attempt.number;
        if !job.open_task(step).as_ref().is_some_and(is_current) {
            return;
        }
        if failure.too_small.is_some() {
            match self.on_too_small(shared, from, attempt, failure) {
                Ok(()) => return,
                Err(outcome) => failure = outcome,
            }
        }
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return;
        };
        let traced = shared.traces(TraceLevel::Jobs);
        let traced = traced.then(|| job.error(step, Some(from), attempt.number, failure.clone()));
        job.note_failure(step, &failure);
        let retried = job.retry(shared, attempt, failure, &mut self.dispatch.queue);
        self.memory.recount(attempt.job, job);
        match retried {
            Ok((failures, due)) => {
                self.journal.change(attempt.job, || Change::Failed { step, failures });
                if let Some(error) = traced {
                    let again = due.map_or(Duration::ZERO, |due| due.from - shared.now);
                    trace_failure(shared, attempt.job, error, Some(again));
                }
                if let Some(due) = due {
                    self.wait(shared, attempt.job, step, due);
                }
                let job = self.jobs.get_mut(&attempt.job);
                if let Some(news) = job.and_then(|job| job.retried_news(shared, from, attempt)) {
                    self.send_news(shared, attempt.job, news);
                }
                self.dispatch.due = true;
            }
            Err(failure) => {
                let error = job.error(step, Some(from), attempt.number, failure);
                self.complete(shared, attempt.job, step, Err(error), effects);
            }
        }
    }
}

/// A result comes from another node: bytes that are not exactly one CBOR item must not get into a list or a call.
fn well_formed(value: Cbor) -> Result<Cbor, Failure> {
    match broccoli_abi::validate_item(value.as_bytes()) {
        Ok(_) => Ok(value),
        Err(_) => Err(Failure::new(Cause::Unfit, "the result is not one CBOR item")),
    }
}
