//! The journal: what survives this incarnation of an origin.
//!
//! ```text
//!   key       value
//!   0, 0      Node: version of this format, incarnations so far
//!   job, 0    Accepted; once the job is over, Over in its place
//!   job, 1 …  Changes since then, in order, one record for each write
//! ```
//!
//! One write is under way at a time. What happens meanwhile goes into the next one, so that a slow
//! disk makes larger writes, not more of them, and a job that is accepted and ends meanwhile costs
//! one record. Whoever is told that something is safe is told after its write: [`Promise`]. Nothing
//! else waits: tasks are leased and run before the disk knows of their job.
//!
//! A record of changes holds one large value at most, which it shares with the job, and not much else:
//! so nothing is copied into one long record, and a new incarnation reads no longer ones.
//!
//! A write begins at once if a client waits for it. The results of other nodes can wait: their
//! worker keeps them until it hears that they are safe. So a chain costs two writes, not one for
//! each of its tasks.
//!
//! A new incarnation replays the changes of a job on the plan of its canvas: the plan is a pure
//! computation, so that it comes to the same state.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use broccoli_abi::Function;
use broccoli_proto::{Cbor, Epoch, ModuleHash, NodeId, Outcome};
use minicbor::{Decode, Encode};

use super::keys::{Keepers, Nodes};
use crate::io::{RecordBytes, SubmitId};
use crate::time::Stamp;

/// Version of the format. A later one is refused, each earlier one is read.
pub(super) const VERSION: u32 = 1;
/// From this length on a value in a record is not copied.
const LARGE_BYTES: usize = 64 << 10;
/// Changes whose values have more than this together go into several records.
const RECORD_BYTES_MAX: usize = 4 << 20;
/// About what a change takes beside the value in it.
const CHANGE_BYTES: usize = 96;

/// One value of the journal.
#[derive(Debug, Encode, Decode)]
pub(super) enum Record<'b> {
    #[n(0)]
    Node(#[n(0)] NodeRecord),
    #[n(1)]
    Accepted(#[b(0)] AcceptedRecord<'b>),
    #[n(2)]
    Changes(#[n(0)] ChangesRecord),
    #[n(3)]
    Over(#[b(0)] OverRecord<'b>),
}

#[derive(Clone, Debug, Default, Encode, Decode)]
pub(super) struct NodeRecord {
    #[n(0)]
    pub(super) version: u32,
    /// Incarnations of the node so far: part of the attempt numbers of recovered jobs.
    #[n(1)]
    pub(super) boots: u32,
    /// How far the time of day has been set ahead of the [`Stamp`]s; none if it never was.
    #[n(2)]
    pub(super) clock_ahead_ms: Option<i64>,
    /// Other nodes that may hold the job of a key.
    #[n(3)]
    pub(super) keepers: Option<Vec<NodeId>>,
    /// Those of whom somebody has said that they will not come back.
    #[n(4)]
    pub(super) forgotten: Option<Vec<NodeId>>,
}

impl NodeRecord {
    pub(super) fn keepers(&self) -> Keepers {
        let set = |names: &Option<Vec<NodeId>>| names.iter().flatten().map(|name| (*name, ())).collect();
        Keepers { known: set(&self.keepers), forgotten: set(&self.forgotten) }
    }

    fn with(self, keepers: &Keepers) -> NodeRecord {
        let list = |names: &Nodes| (!names.is_empty()).then(|| names.keys().copied().collect());
        NodeRecord { keepers: list(&keepers.known), forgotten: list(&keepers.forgotten), ..self }
    }
}

/// A job as it was accepted.
#[derive(Debug, Encode, Decode)]
pub(super) struct AcceptedRecord<'b> {
    /// Counts accepted jobs over all incarnations: the order in which they wait.
    #[n(0)]
    pub(super) order: u64,
    #[n(1)]
    pub(super) about: Cow<'b, About>,
    /// As it came over the wire.
    #[n(2)]
    pub(super) canvas: Cow<'b, Cbor>,
    #[b(3)]
    pub(super) bindings: Bindings<'b>,
}

/// An encoded list of [`Binding`]s: most jobs have the same as others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bindings<'b>(pub(super) &'b [u8]);

impl<C> Encode<C> for Bindings<'_> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.writer_mut().write_all(self.0).map_err(minicbor::encode::Error::write)
    }
}

impl<'b, C> Decode<'b, C> for Bindings<'b> {
    fn decode(decoder: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Bindings<'b>, minicbor::decode::Error> {
        let start = decoder.position();
        decoder.skip()?;
        Ok(Bindings(&decoder.input()[start..decoder.position()]))
    }
}

/// What is known of a job beside its tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct About {
    /// The submit of another node, so that its repetition does nothing again.
    #[n(0)]
    pub(super) submitter: Option<Submitter>,
    /// Whether that node waits for news.
    #[n(1)]
    pub(super) waits: bool,
    /// From the client, so that another submit with it does nothing again.
    #[n(2)]
    pub(super) key: Option<Key>,
    /// When it was accepted, if this node knew the time of day.
    #[n(3)]
    pub(super) submitted: Option<Stamp>,
    /// Its first function, for people, once it is over; before that its plan knows it.
    #[n(4)]
    pub(super) name: String,
}

/// A submit of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) struct Submitter {
    /// The client …
    #[n(0)]
    pub(crate) node: NodeId,
    /// … in its incarnation …
    #[n(1)]
    pub(crate) epoch: Epoch,
    /// … and its number for the submit.
    #[n(2)]
    pub(crate) number: u32,
}

/// What a client calls its submit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(super) struct Key {
    #[n(0)]
    pub(super) text: String,
    /// Of the canvas: the same key for another one is a mistake.
    #[n(1)]
    pub(super) canvas: ModuleHash,
}

/// What a name in a canvas stood for when its job was accepted.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) struct Binding {
    /// As the canvas has it.
    #[n(0)]
    pub(super) asked: String,
    /// `module.function`.
    #[n(1)]
    pub(super) full: String,
    #[n(2)]
    pub(super) module: ModuleHash,
    #[n(3)]
    pub(super) function: Function,
}

/// What has happened to a job in one write.
#[derive(Debug, Encode, Decode)]
pub(super) struct ChangesRecord {
    /// When, if this node knew the time of day.
    #[n(0)]
    pub(super) at: Option<Stamp>,
    #[n(1)]
    pub(super) changes: Vec<Change>,
}

/// Something that must not be forgotten about a running job.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(super) enum Change {
    /// A task has its outcome.
    #[n(0)]
    Ended {
        #[n(0)]
        step: u32,
        #[n(1)]
        outcome: Outcome,
    },
    /// A task has failed so often and is tried again.
    #[n(1)]
    Failed {
        #[n(0)]
        step: u32,
        #[n(1)]
        failures: u32,
    },
    /// Runs of a task that had started were lost so often.
    #[n(2)]
    Lost {
        #[n(0)]
        step: u32,
        #[n(1)]
        losses: u8,
    },
    /// The job was revoked: nothing that has not ended will.
    #[n(3)]
    Revoked,
    /// A task was replaced by a canvas: its result. The names are those that the job had not known.
    #[n(4)]
    Replaced {
        #[n(0)]
        step: u32,
        #[n(1)]
        result: Cbor,
        #[n(2)]
        bindings: Vec<Binding>,
    },
    /// A task runs on each of these nodes.
    #[n(5)]
    OnEach {
        #[n(0)]
        step: u32,
        #[n(1)]
        nodes: Vec<NodeId>,
    },
    /// The time limit of the job was over.
    #[n(6)]
    Late,
    /// A task waits until then: a countdown, or the pause before it is tried again. Only noted if the
    /// time of day is known.
    #[n(8)]
    Waits {
        #[n(0)]
        step: u32,
        #[n(1)]
        until: Stamp,
        /// How long that is: it never gets longer.
        #[n(2)]
        pause_ms: u64,
    },
}

impl Change {
    /// The value that comes with it.
    fn value(&self) -> Option<&Cbor> {
        match self {
            Change::Ended { outcome, .. } => outcome.as_ref().ok(),
            Change::Replaced { result, .. } => Some(result),
            _ => None,
        }
    }

    /// About what it takes of the memory.
    fn bytes(&self) -> usize {
        let more = match self {
            Change::Ended { outcome: Err(error), .. } => error.text.len() + error.function.len(),
            Change::OnEach { nodes, .. } => core::mem::size_of_val(nodes.as_slice()),
            Change::Replaced { bindings, .. } => bindings.len() * CHANGE_BYTES,
            _ => 0,
        };
        CHANGE_BYTES + more + self.value().map_or(0, |value| value.as_bytes().len())
    }
}

/// Takes as many changes as go into one record, so that whoever reads it needs no more memory than for a
/// part of them; one of any size goes.
pub(super) fn take_record(changes: &mut VecDeque<Change>) -> Vec<Change> {
    let mut bytes = 0;
    let mut fits = |change: &Change| {
        bytes += change.bytes();
        bytes <= RECORD_BYTES_MAX
    };
    let count = changes.iter().take_while(|change| fits(change)).count().max(1).min(changes.len());
    changes.drain(..count).collect()
}

/// How a job ended.
#[derive(Debug, Encode, Decode)]
pub(super) struct OverRecord<'b> {
    #[n(0)]
    pub(super) about: Cow<'b, About>,
    #[n(1)]
    pub(super) outcome: Cow<'b, Outcome>,
    #[n(2)]
    pub(super) tasks: u32,
    #[n(3)]
    pub(super) ended: Option<Stamp>,
    /// Of a job that failed, so that it can be tried again.
    #[n(4)]
    pub(super) canvas: Option<Cow<'b, Cbor>>,
    /// Tasks that ended by themselves. Default: all.
    #[n(5)]
    pub(super) ran: Option<u32>,
}

impl OverRecord<'_> {
    pub(super) fn into_owned(self) -> OverRecord<'static> {
        OverRecord {
            about: Cow::Owned(self.about.into_owned()),
            outcome: Cow::Owned(self.outcome.into_owned()),
            canvas: self.canvas.map(|canvas| Cow::Owned(canvas.into_owned())),
            ..self
        }
    }
}

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
pub(super) enum Promise {
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
pub(super) struct Unwritten {
    pub(super) accepted: Option<RecordBytes>,
    pub(super) changes: VecDeque<Change>,
    /// Records of a forgotten job that are still there.
    pub(super) records: u32,
}

impl Unwritten {
    fn bytes(&self) -> usize {
        let accepted = self.accepted.as_ref().map_or(0, RecordBytes::bytes);
        accepted + self.changes.iter().map(Change::bytes).sum::<usize>()
    }
}

/// The changes that wait for the disk, and the promises that wait for them.
#[derive(Debug, Default)]
pub(super) struct Journal {
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
}

impl Journal {
    pub(super) fn new(on: bool) -> Journal {
        Journal { on, ..Journal::default() }
    }

    /// Known when it is compiled without the feature `journal`: what writes is left out then.
    pub(super) fn is_on(&self) -> bool {
        cfg!(feature = "journal") && self.on
    }

    /// Begins an incarnation.
    pub(super) fn begin(&mut self, boots: u32, clock_ahead_ms: i64, keepers: &Keepers) {
        if self.is_on() {
            let clock_ahead_ms = Some(clock_ahead_ms);
            let node = NodeRecord { version: VERSION, boots, clock_ahead_ms, ..NodeRecord::default() };
            self.note_node(node.with(keepers));
        }
    }

    /// Other nodes may hold the job of a key, or none any more.
    pub(super) fn note_keepers(&mut self, keepers: &Keepers) {
        if let Some(noted) = self.noted.take().filter(|_| self.is_on()) {
            self.note_node(noted.with(keepers));
        }
    }

    /// The time of day was set. Later incarnations must know before they ask how old a record is.
    pub(super) fn set_clock(&mut self, ahead_ms: i64) {
        let noted = self.noted.as_ref().filter(|noted| self.is_on() && noted.clock_ahead_ms != Some(ahead_ms));
        if let Some(noted) = noted.cloned() {
            self.note_node(NodeRecord { clock_ahead_ms: Some(ahead_ms), ..noted });
        }
    }

    fn note_node(&mut self, node: NodeRecord) {
        (self.node, self.noted, self.urgent) = (Some(node.clone()), Some(node), true);
    }

    /// Whether the next incarnation will know of this one.
    pub(super) fn has_begun(&self) -> bool {
        !self.is_on() || self.safe > 0
    }

    /// What has not been written of a job; `None` without a disk.
    fn of(&mut self, job: u64) -> Option<&mut Unwritten> {
        self.is_on().then(|| self.unwritten.entry(job).or_default())
    }

    /// Notes that a job was accepted. The record is made only for a disk.
    pub(super) fn accept(&mut self, job: u64, record: impl FnOnce() -> RecordBytes) {
        if let Some(unwritten) = self.of(job) {
            let record = record();
            let bytes = record.bytes();
            unwritten.accepted = Some(record);
            self.unwritten_bytes += bytes;
        }
    }

    /// Notes a change of a job.
    pub(super) fn change(&mut self, job: u64, change: impl FnOnce() -> Change) {
        if let Some(unwritten) = self.of(job) {
            let change = change();
            let bytes = change.bytes();
            unwritten.changes.push_back(change);
            self.unwritten_bytes += bytes;
        }
    }

    /// The jobs of which something was not handed to the shell yet.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = u64> {
        self.unwritten.keys().copied()
    }

    /// A job is over: what has happened to it meanwhile does not matter any more.
    pub(super) fn over(&mut self, job: u64) {
        if let Some(unwritten) = self.of(job) {
            let bytes: usize = unwritten.changes.drain(..).map(|change| change.bytes()).sum();
            self.unwritten_bytes -= bytes;
        }
    }

    /// A job that is over is forgotten, and its records with it.
    pub(super) fn forget(&mut self, job: u64, records: u32) {
        if let Some(unwritten) = self.of(job) {
            unwritten.records = records;
        }
    }

    /// About what is not safe yet takes of the memory, some of it shared with the jobs.
    pub(super) fn bytes(&self) -> usize {
        if self.is_on() { self.unwritten_bytes + self.handed_bytes } else { 0 }
    }

    /// The write that makes everything safe that has happened so far.
    pub(super) fn now(&self) -> u64 {
        let waits = self.is_on() && (self.node.is_some() || !self.unwritten.is_empty());
        self.handed + u64::from(waits)
    }

    /// Whether a write has been made.
    pub(super) fn is_safe(&self, number: u64) -> bool {
        !self.is_on() || number <= self.safe
    }

    /// Whether there is something to write, and nothing sees to it yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_on() && self.handed == self.safe && self.now() > self.handed && !self.urgent
    }

    /// What waits has waited long enough.
    pub(super) fn hurry(&mut self) {
        self.urgent = self.now() > self.handed;
    }

    /// Keeps a promise until everything that has happened so far is safe; gives it back if it is.
    pub(super) fn promise(&mut self, promise: Promise, urgent: bool) -> Option<Promise> {
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
    pub(super) fn next_write(&mut self) -> Option<(u64, Option<NodeRecord>, BTreeMap<u64, Unwritten>)> {
        if !self.is_on() || self.handed > self.safe || !self.urgent {
            return None;
        }
        self.handed += 1;
        self.urgent = false;
        self.handed_bytes = core::mem::take(&mut self.unwritten_bytes);
        Some((self.handed, self.node.take(), core::mem::take(&mut self.unwritten)))
    }

    /// A write is safe.
    pub(super) fn on_persisted(&mut self, number: u64) {
        self.safe = self.safe.max(number.min(self.handed));
        if self.handed == self.safe {
            self.handed_bytes = 0;
        }
    }

    /// The next promise that can be kept.
    pub(super) fn due(&mut self) -> Option<Promise> {
        let (number, promise) = *self.promises.front().filter(|_| self.is_on())?;
        self.is_safe(number).then(|| self.promises.pop_front())?;
        self.given.remove(&promise);
        Some(promise)
    }

    /// Whether a client is to be told something as soon as it is safe.
    pub(super) fn owes_news(&self) -> bool {
        self.is_on()
            && self.promises.iter().any(|(_, promise)| matches!(promise, Promise::Accepted { .. } | Promise::Ended(_)))
    }

    /// Checks what must hold between two inputs.
    pub(super) fn validate(&self) {
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

/// Takes what is encoded; the bytes of large values as they are.
struct PieceWriter<'a> {
    /// Those to come, in their order.
    large: VecDeque<&'a Cbor>,
    bytes: RecordBytes,
}

impl minicbor::encode::Write for &mut PieceWriter<'_> {
    type Error = Infallible;

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        match self.large.front().copied() {
            Some(large) if core::ptr::eq(large.as_bytes(), bytes) => {
                self.large.pop_front();
                self.bytes.large.push((core::mem::take(&mut self.bytes.tail), large.clone()));
            }
            _ => self.bytes.tail.extend_from_slice(bytes),
        }
        Ok(())
    }
}

impl<'b> Record<'b> {
    pub(super) fn encode(&self) -> RecordBytes {
        let mut large = self.values();
        large.retain(|value| value.as_bytes().len() >= LARGE_BYTES);
        let mut writer = PieceWriter { large, bytes: RecordBytes::default() };
        let Ok(()) = minicbor::encode(self, &mut writer).map_err(drop) else {
            unreachable!("writing to memory cannot fail");
        };
        writer.bytes
    }

    /// What may be large in it, in the order in which it is written.
    fn values(&self) -> VecDeque<&Cbor> {
        match self {
            Record::Accepted(accepted) => [accepted.canvas.as_ref()].into(),
            Record::Changes(record) => record.changes.iter().filter_map(Change::value).collect(),
            Record::Over(over) => {
                let result = over.outcome.as_ref().as_ref().ok();
                result.into_iter().chain(over.canvas.as_deref()).collect()
            }
            Record::Node(_) => VecDeque::new(),
        }
    }

    pub(super) fn decode(bytes: &'b [u8]) -> Option<Record<'b>> {
        let mut decoder = minicbor::Decoder::new(bytes);
        let record = decoder.decode().ok()?;
        (decoder.position() == bytes.len()).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_all_sizes_are_read_in_their_order_and_what_is_copied_of_them_is_bounded() {
        let ended = |step, len: usize| Change::Ended { step, outcome: Ok(Cbor::encode(&"x".repeat(len))) };
        let mut changes: VecDeque<Change> = (0..3).map(|step| ended(step, RECORD_BYTES_MAX + 1)).collect();
        changes.extend((3..200).map(|step| ended(step, LARGE_BYTES / 2)));
        let (mut left, mut read, mut records) = (changes.clone(), Vec::new(), 0);
        while !left.is_empty() {
            let record = Record::Changes(ChangesRecord { at: None, changes: take_record(&mut left) }).encode();
            let shared: usize = record.large.iter().map(|(_, value)| value.as_bytes().len()).sum();
            assert!(record.bytes() - shared <= RECORD_BYTES_MAX, "{} bytes copied", record.bytes() - shared);
            let bytes = record.to_vec();
            let Some(Record::Changes(record)) = Record::decode(&bytes) else { panic!("{record:?}") };
            read.extend(record.changes);
            records += 1;
        }
        assert_eq!(read, Vec::from(changes), "all of them, in order");
        assert_eq!(records, 3 + 2, "one of any size goes alone");
    }

    #[test]
    fn a_large_value_is_shared_and_the_record_is_the_same() {
        let about = About { name: "f".into(), ..About::default() };
        for len in [LARGE_BYTES - 100, LARGE_BYTES] {
            let canvas = Cbor::encode(&"x".repeat(len));
            let record = Record::Accepted(AcceptedRecord {
                order: 7,
                about: Cow::Borrowed(&about),
                canvas: Cow::Borrowed(&canvas),
                bindings: Bindings(&[0x80]),
            });
            let bytes = record.encode();
            assert_eq!(bytes.to_vec(), minicbor::to_vec(&record).expect("encodes"));
            let is_shared = bytes.pieces().any(|piece| core::ptr::eq(piece, canvas.as_bytes()));
            assert_eq!(is_shared, len == LARGE_BYTES);
        }
    }

    #[test]
    fn the_values_of_many_changes_are_shared_and_go_into_several_records() {
        let values: Vec<Cbor> = (0..10).map(|at| Cbor::encode(&"x".repeat((1 << 20) + at))).collect();
        let ended = |(step, value): (u32, &Cbor)| Change::Ended { step, outcome: Ok(value.clone()) };
        let mut changes: VecDeque<Change> = (0..).zip(&values).map(ended).collect();
        let (mut records, mut shared) = (0, 0);
        while !changes.is_empty() {
            let record = Record::Changes(ChangesRecord { at: None, changes: take_record(&mut changes) });
            let bytes = record.encode();
            assert_eq!(bytes.to_vec(), minicbor::to_vec(&record).expect("encodes"));
            assert!(bytes.bytes() <= RECORD_BYTES_MAX + LARGE_BYTES, "{}", bytes.bytes());
            shared += bytes
                .pieces()
                .filter(|piece| values.iter().any(|value| core::ptr::eq(*piece, value.as_bytes())))
                .count();
            records += 1;
        }
        assert_eq!((records, shared), (4, 10));
    }
}
