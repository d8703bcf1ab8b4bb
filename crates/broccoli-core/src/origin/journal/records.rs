//! The records of the journal: their format, which every later version reads.

use alloc::borrow::Cow;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;

use broccoli_abi::Function;
use broccoli_proto::{Cbor, Epoch, ModuleHash, NodeId, Outcome};
use minicbor::{Decode, Encode};

use crate::io::RecordBytes;
use crate::origin::accept::keepers::{Keepers, Nodes};
use crate::time::Stamp;

/// Version of the format. A later one is refused, each earlier one is read.
pub(crate) const VERSION: u32 = 1;
/// From this length on a value in a record is not copied.
pub(crate) const LARGE_BYTES: usize = 64 << 10;
/// Changes whose values have more than this together go into several records.
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 20;
/// About what a change takes beside the value in it.
const CHANGE_BYTES: usize = 96;

/// One value of the journal.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Record<'b> {
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
pub(crate) struct NodeRecord {
    #[n(0)]
    pub(crate) version: u32,
    /// Incarnations of the node so far: part of the attempt numbers of recovered jobs.
    #[n(1)]
    pub(crate) boots: u32,
    /// How far the time of day has been set ahead of the [`Stamp`]s; none if it never was.
    #[n(2)]
    pub(crate) clock_ahead_ms: Option<i64>,
    /// Other nodes that may hold the job of a key.
    #[n(3)]
    pub(crate) keepers: Option<Vec<NodeId>>,
    /// Those of whom somebody has said that they will not come back.
    #[n(4)]
    pub(crate) forgotten: Option<Vec<NodeId>>,
}

impl NodeRecord {
    pub(crate) fn keepers(&self) -> Keepers {
        let set = |names: &Option<Vec<NodeId>>| names.iter().flatten().map(|name| (*name, ())).collect();
        Keepers { known: set(&self.keepers), forgotten: set(&self.forgotten) }
    }

    pub(crate) fn with(self, keepers: &Keepers) -> NodeRecord {
        let list = |names: &Nodes| (!names.is_empty()).then(|| names.keys().copied().collect());
        NodeRecord { keepers: list(&keepers.known), forgotten: list(&keepers.forgotten), ..self }
    }
}

/// A job as it was accepted.
#[derive(Debug, Encode, Decode)]
pub(crate) struct AcceptedRecord<'b> {
    /// Counts accepted jobs over all incarnations: the order in which they wait.
    #[n(0)]
    pub(crate) order: u64,
    #[n(1)]
    pub(crate) about: Cow<'b, About>,
    /// As it came over the wire.
    #[n(2)]
    pub(crate) canvas: Cow<'b, Cbor>,
    #[b(3)]
    pub(crate) bindings: Bindings<'b>,
}

/// An encoded list of [`Binding`]s: most jobs have the same as others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bindings<'b>(pub(crate) &'b [u8]);

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
pub(crate) struct About {
    /// The submit of another node, so that its repetition does nothing again.
    #[n(0)]
    pub(crate) submitter: Option<Submitter>,
    /// Whether that node waits for news.
    #[n(1)]
    pub(crate) waits: bool,
    /// From the client, so that another submit with it does nothing again.
    #[n(2)]
    pub(crate) key: Option<Key>,
    /// When it was accepted, if this node knew the time of day.
    #[n(3)]
    pub(crate) submitted: Option<Stamp>,
    /// Its first function, for people, once it is over; before that its plan knows it.
    #[n(4)]
    pub(crate) name: String,
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
pub(crate) struct Key {
    #[n(0)]
    pub(crate) text: String,
    /// Of the canvas: the same key for another one is a mistake.
    #[n(1)]
    pub(crate) canvas: ModuleHash,
}

/// What a name in a canvas stood for when its job was accepted.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Binding {
    /// As the canvas has it.
    #[n(0)]
    pub(crate) asked: String,
    /// `module.function`.
    #[n(1)]
    pub(crate) full: String,
    #[n(2)]
    pub(crate) module: ModuleHash,
    #[n(3)]
    pub(crate) function: Function,
}

/// What has happened to a job in one write.
#[derive(Debug, Encode, Decode)]
pub(crate) struct ChangesRecord {
    /// When, if this node knew the time of day.
    #[n(0)]
    pub(crate) at: Option<Stamp>,
    #[n(1)]
    pub(crate) changes: Vec<Change>,
}

/// Something that must not be forgotten about a running job.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) enum Change {
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
    pub(crate) fn bytes(&self) -> usize {
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
pub(crate) fn take_record(changes: &mut VecDeque<Change>) -> Vec<Change> {
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
pub(crate) struct OverRecord<'b> {
    #[n(0)]
    pub(crate) about: Cow<'b, About>,
    #[n(1)]
    pub(crate) outcome: Cow<'b, Outcome>,
    #[n(2)]
    pub(crate) tasks: u32,
    #[n(3)]
    pub(crate) ended: Option<Stamp>,
    /// Of a job that failed, so that it can be tried again.
    #[n(4)]
    pub(crate) canvas: Option<Cow<'b, Cbor>>,
    /// Tasks that ended by themselves. Default: all.
    #[n(5)]
    pub(crate) ran: Option<u32>,
}

impl OverRecord<'_> {
    pub(crate) fn into_owned(self) -> OverRecord<'static> {
        OverRecord {
            about: Cow::Owned(self.about.into_owned()),
            outcome: Cow::Owned(self.outcome.into_owned()),
            canvas: self.canvas.map(|canvas| Cow::Owned(canvas.into_owned())),
            ..self
        }
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
    pub(crate) fn encode(&self) -> RecordBytes {
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

    pub(crate) fn decode(bytes: &'b [u8]) -> Option<Record<'b>> {
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
