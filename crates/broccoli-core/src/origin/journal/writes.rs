//! State of the journal's writes: changes that are not written yet, and promises that wait for a write.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::message::JobNews;
use broccoli_proto::{Epoch, NodeId};
use litemap::LiteMap;

use crate::io::{RecordBytes, SubmitId};
use crate::origin::accept::keepers::Keepers;
use crate::origin::journal::records::{Change, NodeRecord, VERSION};

/// The sender of a canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Submitted {
    /// The program that this node is part of.
    Local(SubmitId),
    /// Another node, with the number that it gave to the submit.
    Remote { node: NodeId, number: u32 },
    /// A task on this node; it gets no answer.
    ByTask,
}

/// A message that is sent once everything that happened before is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// To the client: its canvas was accepted as this job.
    Accepted { job: u64, to: Submitted },
    /// To the client: the job has ended.
    Ended(u64),
    /// To the client: this node no longer waits for the node.
    Forgotten { to: NodeId, node: NodeId },
    /// To the worker: these results are acknowledged.
    Results { worker: NodeId, epoch: Epoch, number: u32 },
}

/// Unwritten data of one job.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    pub(crate) accepted: Option<RecordBytes>,
    pub(crate) changes: VecDeque<Change>,
    /// Records of a forgotten job that must be deleted.
    pub(crate) records: u32,
}

impl Unwritten {
    fn bytes(&self) -> usize {
        let accepted = self.accepted.as_ref().map_or(0, RecordBytes::bytes);
        accepted + self.changes.iter().map(Change::bytes).sum::<usize>()
    }
}

/// Changes that wait for a write, and promises that wait for a write to be safe.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Whether the node keeps a journal.
    on: bool,
    /// Unwritten data of the node itself.
    node: Option<NodeRecord>,
    /// The latest version of this data.
    noted: Option<NodeRecord>,
    unwritten: BTreeMap<u64, Unwritten>,
    /// About the bytes of the unwritten changes and acceptances.
    unwritten_bytes: usize,
    /// About the bytes of the write in progress.
    handed_bytes: usize,
    /// The unwritten data must be written at once.
    urgent: bool,
    /// Number of the last write passed to the shell.
    handed: u64,
    /// Number of the last safe write.
    safe: u64,
    /// In the order in which they were made, each with the write it waits for.
    promises: VecDeque<(u64, Promise)>,
    /// The same promises, so that a repeated one is kept once.
    given: BTreeSet<Promise>,
    /// News of jobs whose acceptance is not safe yet.
    pub(crate) early: BTreeMap<u64, Vec<JobNews>>,
    /// Why the journal cannot be written; none if it can.
    pub(crate) stalled: Option<String>,
    /// Jobs that stayed on the disk, and why: their records are damaged, or there is too little memory.
    pub(crate) left: LiteMap<u64, String>,
}

impl Journal {
    pub(crate) fn new(on: bool) -> Journal {
        Journal { on, ..Journal::default() }
    }

    /// Constant if compiled without the feature `journal`, so that the code for writing is left out.
    pub(crate) fn is_on(&self) -> bool {
        cfg!(feature = "journal") && self.on
    }

    /// Starts an incarnation: notes it for the next one.
    pub(crate) fn begin(&mut self, boots: u32, clock_ahead_ms: i64, keepers: &Keepers) {
        if self.is_on() {
            let clock_ahead_ms = Some(clock_ahead_ms);
            let node = NodeRecord { version: VERSION, boots, clock_ahead_ms, ..NodeRecord::default() };
            self.note_node(node.with(keepers));
        }
    }

    /// Notes the other nodes that may hold a job with a key.
    pub(crate) fn note_keepers(&mut self, keepers: &Keepers) {
        if let Some(noted) = self.noted.take().filter(|_| self.is_on()) {
            self.note_node(noted.with(keepers));
        }
    }

    /// The time of day was set. Later incarnations need this to compute the age of records.
    pub(crate) fn set_clock(&mut self, ahead_ms: i64) {
        let noted = self.noted.as_ref().filter(|noted| self.is_on() && noted.clock_ahead_ms != Some(ahead_ms));
        if let Some(noted) = noted.cloned() {
            self.note_node(NodeRecord { clock_ahead_ms: Some(ahead_ms), ..noted });
        }
    }

    fn note_node(&mut self, node: NodeRecord) {
        self.node = Some(node.clone());
        self.noted = Some(node);
        self.urgent = true;
    }

    /// Whether this incarnation is in the journal.
    pub(crate) fn has_begun(&self) -> bool {
        !self.is_on() || self.safe > 0
    }

    /// The unwritten data of a job; none without a journal.
    fn of(&mut self, job: u64) -> Option<&mut Unwritten> {
        self.is_on().then(|| self.unwritten.entry(job).or_default())
    }

    /// Notes the acceptance of a job. The record is made only if there is a journal.
    pub(crate) fn accept(&mut self, job: u64, record: impl FnOnce() -> RecordBytes) {
        if let Some(unwritten) = self.of(job) {
            let record = record();
            let bytes = record.bytes();
            unwritten.accepted = Some(record);
            self.unwritten_bytes += bytes;
        }
    }

    /// Notes a change of a job.
    pub(crate) fn change(&mut self, job: u64, change: impl FnOnce() -> Change) {
        if let Some(unwritten) = self.of(job) {
            let change = change();
            let bytes = change.bytes();
            unwritten.changes.push_back(change);
            self.unwritten_bytes += bytes;
        }
    }

    /// The jobs with data that was not passed to the shell yet.
    pub(crate) fn unwritten(&self) -> impl Iterator<Item = u64> {
        self.unwritten.keys().copied()
    }

    /// A job has ended: its unwritten changes are no longer needed.
    pub(crate) fn over(&mut self, job: u64) {
        if let Some(unwritten) = self.of(job) {
            let bytes: usize = unwritten.changes.drain(..).map(|change| change.bytes()).sum();
            self.unwritten_bytes -= bytes;
        }
    }

    /// An ended job is forgotten: its records are to be deleted.
    pub(crate) fn delete(&mut self, job: u64, records: u32) {
        if let Some(unwritten) = self.of(job) {
            unwritten.records = records;
        }
    }

    /// About the bytes of data that is not safe yet; some of it is shared with the jobs.
    pub(crate) fn bytes(&self) -> usize {
        if self.is_on() { self.unwritten_bytes + self.handed_bytes } else { 0 }
    }

    /// The write that makes everything safe that has happened so far.
    pub(crate) fn now(&self) -> u64 {
        let waits = self.is_on() && (self.node.is_some() || !self.unwritten.is_empty());
        self.handed + u64::from(waits)
    }

    /// Whether a write is safe.
    pub(crate) fn is_safe(&self, number: u64) -> bool {
        !self.is_on() || number <= self.safe
    }

    /// Whether there is unwritten data, and no write is in progress or requested.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_on() && self.handed == self.safe && self.now() > self.handed && !self.urgent
    }

    /// Requests a write of the unwritten data.
    pub(crate) fn hurry(&mut self) {
        self.urgent = self.now() > self.handed;
    }

    /// Stores a promise until everything that has happened so far is safe. Returns it if that is the case already.
    pub(crate) fn promise(&mut self, promise: Promise, urgent: bool) -> Option<Promise> {
        let number = self.now();
        if self.is_safe(number) {
            return Some(promise);
        }
        if urgent {
            self.hurry();
        }
        // A repeated promise waits for its earlier write, which is enough.
        if self.given.insert(promise) {
            self.promises.push_back((number, promise));
        }
        None
    }

    /// The next write, if none is in progress.
    pub(crate) fn next_write(&mut self) -> Option<(u64, Option<NodeRecord>, BTreeMap<u64, Unwritten>)> {
        if !self.is_on() || self.handed > self.safe || !self.urgent {
            return None;
        }
        self.handed += 1;
        self.urgent = false;
        self.handed_bytes = core::mem::take(&mut self.unwritten_bytes);
        Some((self.handed, self.node.take(), core::mem::take(&mut self.unwritten)))
    }

    /// A write is safe.
    pub(crate) fn on_persisted(&mut self, number: u64) {
        self.safe = self.safe.max(number.min(self.handed));
        if self.handed == self.safe {
            self.handed_bytes = 0;
        }
    }

    /// The next promise whose write is safe.
    pub(crate) fn due(&mut self) -> Option<Promise> {
        let (number, promise) = *self.promises.front().filter(|_| self.is_on())?;
        self.is_safe(number).then(|| self.promises.pop_front())?;
        self.given.remove(&promise);
        Some(promise)
    }

    /// Whether a client waits for a write.
    pub(crate) fn owes_news(&self) -> bool {
        self.is_on()
            && self.promises.iter().any(|(_, promise)| matches!(promise, Promise::Accepted { .. } | Promise::Ended(_)))
    }

    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self) {
        assert!(self.on || (self.handed == 0 && self.unwritten.is_empty()), "nothing is written without a disk");
        assert!(self.handed <= self.safe + 1, "one write at a time");
        let bytes: usize = self.unwritten.values().map(Unwritten::bytes).sum();
        assert_eq!(self.unwritten_bytes, bytes, "bytes that are not written are counted");
        assert!(!self.urgent || self.now() > self.handed, "there is something to write");
        let ordered = self.promises.iter().zip(self.promises.iter().skip(1)).all(|((a, _), (b, _))| a <= b);
        assert!(ordered, "promises are kept in order");
        let given = self.promises.len() == self.given.len()
            && self.promises.iter().all(|(_, promise)| self.given.contains(promise));
        assert!(given, "each promise waits once");
        assert!(self.promises.iter().all(|(number, _)| *number <= self.now()), "every promise has a write");
        assert!(self.promises.front().is_none_or(|(number, _)| !self.is_safe(*number)), "no promise is overdue");
    }
}
