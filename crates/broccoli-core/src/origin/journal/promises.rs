//! Starts the writes of the journal, and sends the messages (promises) that wait for them.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Accepted, Message};
use broccoli_proto::packet::Address;
use broccoli_proto::{JobId, NodeId};

use crate::io::{Action, Event, RecordKey, Write};
use crate::origin::Origin;
use crate::origin::journal::records::{ChangesRecord, Record, take_record};
use crate::origin::journal::writes::{Promise, Submitted};
use crate::origin::leases::peer::Acknowledged;
use crate::shared::Shared;
use crate::time::ms;
use crate::timers::Timer;
use crate::trace::{Trace, TraceLevel};

/// Changes that no client waits for are written within this time: workers do not repeat their results earlier.
const WRITE: Duration = ms(100);

fn put(job: u64, number: u32, record: &Record<'_>) -> Write {
    Write { key: RecordKey { job, number }, value: Some(record.encode()) }
}

impl Origin {
    /// Asks the shell to write the changes, unless a write is in progress or they can wait.
    pub(crate) fn write_journal(&mut self, shared: &mut Shared) {
        if self.journal.is_waiting() {
            shared.timers.set_earlier(Timer::Journal, shared.now + WRITE);
        }
        let Some((number, node, unwritten)) = self.journal.next_write() else {
            return;
        };
        shared.timers.cancel(Timer::Journal);
        let mut writes = Vec::new();
        let at = shared.wall.stamp(shared.now);
        if let Some(node) = node {
            writes.push(put(0, 0, &Record::Node(node)));
        }
        for (job, mut unwritten) in unwritten {
            let key = |number| RecordKey { job, number };
            let delete = |number| Write { key: key(number), value: None };
            if let Some(running) = self.jobs.get_mut(&job) {
                if let Some(accepted) = unwritten.accepted {
                    writes.push(Write { key: key(0), value: Some(accepted) });
                    running.ticket.records = 1;
                }
                while !unwritten.changes.is_empty() {
                    let changes = take_record(&mut unwritten.changes);
                    writes.push(put(job, running.ticket.records, &Record::Changes(ChangesRecord { at, changes })));
                    running.ticket.records += 1;
                }
            } else if let Some(ended) = self.archive.get_mut(job) {
                writes.push(put(job, 0, &Record::Over(ended.record())));
                writes.extend((1..ended.ticket.records).map(delete));
                ended.ticket.records = 1;
            } else {
                writes.extend((0..unwritten.records).map(delete));
            }
        }
        shared.actions.push_back(Action::Persist { number, writes });
    }

    /// The jobs with unwritten changes.
    pub(crate) fn unwritten_jobs(&self) -> impl Iterator<Item = u64> {
        self.journal.unwritten()
    }

    /// The changes have waited long enough: writes them.
    pub(crate) fn on_journal_timer(&mut self) {
        self.journal.hurry();
    }

    /// A write is safe: keeps the promises that waited for it.
    pub(crate) fn on_persisted(&mut self, shared: &mut Shared, number: u64) {
        self.dispatch.due |= self.is_disk_behind(shared);
        self.journal.on_persisted(number);
        while let Some(promise) = self.journal.due() {
            self.fulfil(shared, promise);
        }
    }

    /// The journal cannot be written (with the reason), or can be again (none).
    pub(crate) fn on_stalled(&mut self, reason: Option<String>) {
        self.journal.stalled = reason;
    }

    /// Keeps a promise as soon as everything that has happened so far is safe.
    pub(crate) fn promise(&mut self, shared: &mut Shared, promise: Promise) {
        let can_wait = matches!(promise, Promise::Results { worker, .. } if self.has_room(shared, worker));
        if let Some(promise) = self.journal.promise(promise, !can_wait) {
            self.fulfil(shared, promise);
        }
    }

    /// Whether a worker has room for more results while these are not acknowledged.
    fn has_room(&self, shared: &Shared, worker: NodeId) -> bool {
        worker != shared.me() && self.leases.peers.get(&worker).is_some_and(|peer| !peer.full)
    }

    /// Traces the acceptance of a job, once, if tracing is on. The job may have ended already.
    fn trace_accepted(&mut self, shared: &mut Shared, id: JobId) {
        if !shared.traces(TraceLevel::Jobs) {
            return;
        }
        let function = self.function_of_job(id.number);
        let running = self.jobs.get(&id.number).map(|job| job.plan.progress().total);
        let tasks = running.or_else(|| self.archive.get(id.number).map(|ended| ended.tasks));
        let ticket = self.ticket_mut(id.number).filter(|ticket| !ticket.traced);
        let (Some(ticket), Some(tasks)) = (ticket, tasks) else {
            return;
        };
        ticket.traced = true;
        let client = ticket.about.submitter.map(|submitter| submitter.node);
        shared.trace(TraceLevel::Jobs, || Trace::JobAccepted { job: id, function, tasks, client });
    }

    /// Traces the end of a job, if tracing is on.
    fn trace_ended(&self, shared: &mut Shared, number: u64) {
        if !shared.traces(TraceLevel::Jobs) {
            return;
        }
        let running = self.jobs.get(&number).and_then(|job| job.plan.result());
        let outcome = running.or_else(|| self.archive.get(number).map(|ended| ended.outcome.as_ref()));
        let (Some(outcome), Some(ticket)) = (outcome, self.ticket(number)) else {
            return;
        };
        let (job, function) = (JobId { origin: shared.me(), number }, self.function_of_job(number));
        let (took, error) = (ticket.took, outcome.err().cloned().map(Box::new));
        shared.trace(TraceLevel::Jobs, || Trace::JobEnded { job, function, took, error });
    }

    /// The first function of a job, running or ended.
    fn function_of_job(&self, number: u64) -> String {
        let running = self.jobs.get(&number).map(|job| job.plan.name());
        let over = || self.archive.get(number).map(|ended| ended.ticket.about.name.as_str());
        running.or_else(over).unwrap_or_default().into()
    }

    pub(crate) fn fulfil(&mut self, shared: &mut Shared, promise: Promise) {
        match promise {
            Promise::Accepted { job: number, to } => {
                let job = JobId { origin: shared.me(), number };
                match to {
                    Submitted::Local(id) => shared.event(Event::Accepted(id, job)),
                    Submitted::Remote { node, number } => {
                        shared.outbox.send(node, Message::Accepted(Accepted { number, job }));
                    }
                    Submitted::ByTask => {}
                }
                self.trace_accepted(shared, job);
                for news in self.journal.early.remove(&job.number).unwrap_or_default() {
                    self.memory.release_early(&news);
                    self.send_news(shared, job.number, news);
                }
            }
            Promise::Ended(number) => {
                self.trace_ended(shared, number);
                self.send_ended(shared, number);
            }
            Promise::Forgotten { to, node } => Origin::send_forgotten(shared, to, node),
            Promise::Results { worker, epoch, number } => {
                let Some(peer) = self.leases.peers.get_mut(&worker).filter(|peer| peer.epoch == epoch) else {
                    return;
                };
                match peer.acknowledge(number, shared.now) {
                    Acknowledged::Later(at) => shared.timers.set_earlier(Timer::Leases(worker), at),
                    Acknowledged::Now => shared.outbox.mark(Address::Node(worker)),
                }
            }
        }
    }
}
