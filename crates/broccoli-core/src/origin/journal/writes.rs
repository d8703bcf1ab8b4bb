//! What waits for the disk: the changes that are not written yet, and the promises that wait for them.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::message::JobNews;
use broccoli_proto::{Epoch, NodeId};
use litemap::LiteMap;

use crate::io::{RecordBytes, SubmitId};
use crate::origin::accept::keepers::Keepers;
use crate::origin::journal::records::{Change, NodeRecord, VERSION};

/// Who has handed in a canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Submitted {
    /// The program that this node is part of.
    Local(SubmitId),
    /// Another node, with its own number for the submit.
    Remote { node: NodeId, number: u32 },
    /// A task on this node: nobody waits for an answer.
    ByTask,
}

/// Something that is told once all that has happened before is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// To the client: its canvas is this job.
    Accepted { job: u64, to: Submitted },
    /// To the client: the job has ended.
    Ended(u64),
    /// To the client: a node is not waited for any more.
    Forgotten { to: NodeId, node: NodeId },
    /// To the worker: these results need not be kept any more.
    Results { worker: NodeId, epoch: Epoch, number: u32 },
}

/// What has not been written yet of one job.
#[derive(Debug, Default)]
pub(crate) struct Unwritten {
    pub(crate) accepted: Option<RecordBytes>,
    pub(crate) changes: VecDeque<Change>,
    /// Records of a forgotten job that are still there.
    pub(crate) records: u32,
}

impl Unwritten {
    fn bytes(&self) -> usize {
        let accepted = self.accepted.as_ref().map_or(0, RecordBytes::bytes);
        accepted + self.changes.iter().map(Change::bytes).sum::<usize>()
    }
}

/// The changes that wait for the disk, and the promises that wait for them.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Whether there is a disk at all.
    on: bool,
    /// What is not written yet of the node itself.
    node: Option<NodeRecord>,
    /// What was last to be written of it.
    noted: Option<NodeRecord>,
    unwritten: BTreeMap<u64, Unwritten>,
    /// About what the changes and acceptances in it take of the memory.
    unwritten_bytes: usize,
    /// The same of the write that was handed over and is not safe.
    handed_bytes: usize,
    /// What is unwritten is to be written at once.
    urgent: bool,
    /// The last write that was handed to the shell.
    handed: u64,
    /// The last write that is safe.
    safe: u64,
    /// In the order in which they were given, with the write that each waits for.
    promises: VecDeque<(u64, Promise)>,
    /// The same ones: what is repeated while it waits is told once.
    given: BTreeSet<Promise>,
    /// News of jobs whose acceptance is not safe yet.
    pub(crate) early: BTreeMap<u64, Vec<JobNews>>,
    /// Why the journal cannot be written, if it cannot.
    pub(crate) stalled: Option<String>,
    /// Jobs that were left on the disk, and why: their records are damaged, or there is no memory for them.
    pub(crate) left: LiteMap<u64, String>,
}

impl Journal {
    pub(crate) fn new(on: bool) -> Journal {
        Journal { on, ..Journal::default() }
    }

    /// Known when it is compiled without the feature `journal`: what writes is left out then.
    pub(crate) fn is_on(&self) -> bool {
        cfg!(feature = "journal") && self.on
    }

    /// Begins an incarnation.
    pub(crate) fn begin(&mut self, boots: u32, clock_ahead_ms: i64, keepers: &Keepers) {
        if self.is_on() {
            let clock_ahead_ms = Some(clock_ahead_ms);
            let node = NodeRecord { version: VERSION, boots, clock_ahead_ms, ..NodeRecord::default() };
            self.note_node(node.with(keepers));
        }
    }

    /// Other nodes may hold the job of a key, or none any more.
    pub(crate) fn note_keepers(&mut self, keepers: &Keepers) {
        if let Some(noted) = self.noted.take().filter(|_| self.is_on()) {
            self.note_node(noted.with(keepers));
        }
    }

    /// The time of day was set. Later incarnations must know before they ask how old a record is.
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

    /// Whether the next incarnation will know of this one.
    pub(crate) fn has_begun(&self) -> bool {
        !self.is_on() || self.safe > 0
    }

    /// What has not been written of a job; `None` without a disk.
    fn of(&mut self, job: u64) -> Option<&mut Unwritten> {
        self.is_on().then(|| self.unwritten.entry(job).or_default())
    }

    /// Notes that a job was accepted. The record is made only for a disk.
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

    /// The jobs of which something was not handed to the shell yet.
    pub(crate) fn unwritten(&self) -> impl Iterator<Item = u64> {
        self.unwritten.keys().copied()
    }

    /// A job is over: what has happened to it meanwhile does not matter any more.
    pub(crate) fn over(&mut self, job: u64) {
        if let Some(unwritten) = self.of(job) {
            let bytes: usize = unwritten.changes.drain(..).map(|change| change.bytes()).sum();
            self.unwritten_bytes -= bytes;
        }
    }

    /// A job that is over is forgotten, and its records with it.
    pub(crate) fn delete(&mut self, job: u64, records: u32) {
        if let Some(unwritten) = self.of(job) {
            unwritten.records = records;
        }
    }

    /// About what is not safe yet takes of the memory, some of it shared with the jobs.
    pub(crate) fn bytes(&self) -> usize {
        if self.is_on() { self.unwritten_bytes + self.handed_bytes } else { 0 }
    }

    /// The write that makes everything safe that has happened so far.
    pub(crate) fn now(&self) -> u64 {
        let waits = self.is_on() && (self.node.is_some() || !self.unwritten.is_empty());
        self.handed + u64::from(waits)
    }

    /// Whether a write has been made.
    pub(crate) fn is_safe(&self, number: u64) -> bool {
        !self.is_on() || number <= self.safe
    }

    /// Whether there is something to write, and nothing sees to it yet.
    pub(crate) fn is_waiting(&self) -> bool {
        self.is_on() && self.handed == self.safe && self.now() > self.handed && !self.urgent
    }

    /// What waits has waited long enough.
    pub(crate) fn hurry(&mut self) {
        self.urgent = self.now() > self.handed;
    }

    /// Keeps a promise until everything that has happened so far is safe; gives it back if it is.
    pub(crate) fn promise(&mut self, promise: Promise, urgent: bool) -> Option<Promise> {
        let number = self.now();
        if self.is_safe(number) {
            return Some(promise);
        }
        if urgent {
            self.hurry();
        }
        // One that was given before has an earlier write, which is enough.
        if self.given.insert(promise) {
            self.promises.push_back((number, promise));
        }
        None
    }

    /// What is to be written next, if nothing is being written.
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

    /// The next promise that can be kept.
    pub(crate) fn due(&mut self) -> Option<Promise> {
        let (number, promise) = *self.promises.front().filter(|_| self.is_on())?;
        self.is_safe(number).then(|| self.promises.pop_front())?;
        self.given.remove(&promise);
        Some(promise)
    }

    /// Whether a client is to be told something as soon as it is safe.
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
