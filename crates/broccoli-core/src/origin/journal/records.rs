//! The records of the journal: their format. Every later version must be able to read it.

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

/// Version of the format. Later versions are refused, all earlier ones are read.
pub(crate) const VERSION: u32 = 1;
/// A value of at least this many bytes is not copied into its record.
pub(crate) const LARGE_BYTES: usize = 64 << 10;
/// Changes with more bytes of values than this are split into several records.
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 20;
/// About the size of a change without its value, in bytes.
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
    /// Number of incarnations of the node so far. Attempt numbers of recovered jobs depend on it.
    #[n(1)]
    pub(crate) boots: u32,
    /// How far the time of day is ahead of the [`Stamp`]s; none if it was never set.
    #[n(2)]
    pub(crate) clock_ahead_ms: Option<i64>,
    /// Other nodes that may hold a job with a key.
    #[n(3)]
    pub(crate) keepers: Option<Vec<NodeId>>,
    /// Nodes that, according to a user, will not come back.
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
    /// Number of jobs accepted before, over all incarnations: recovered jobs are queued in this order.
    #[n(0)]
    pub(crate) order: u64,
    #[n(1)]
    pub(crate) about: Cow<'b, About>,
    /// The canvas in its wire encoding.
    #[n(2)]
    pub(crate) canvas: Cow<'b, Cbor>,
    #[b(3)]
    pub(crate) bindings: Bindings<'b>,
}

/// An encoded list of [`Binding`]s. It is not decoded at once, since many jobs have the same.
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

/// Data of a job apart from its tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct About {
    /// The submit of another node, so that its repetition has no effect.
    #[n(0)]
    pub(crate) submitter: Option<Submitter>,
    /// Whether that node waits for news.
    #[n(1)]
    pub(crate) waits: bool,
    /// Key of the client, so that another submit with it has no effect.
    #[n(2)]
    pub(crate) key: Option<Key>,
    /// When it was accepted, if the time of day was known.
    #[n(3)]
    pub(crate) submitted: Option<Stamp>,
    /// Its first function, for people. Empty while the job runs, since the plan knows it.
    #[n(4)]
    pub(crate) name: String,
}

/// A submit of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub(crate) struct Submitter {
    /// The client.
    #[n(0)]
    pub(crate) node: NodeId,
    /// Its incarnation.
    #[n(1)]
    pub(crate) epoch: Epoch,
    /// The number that the client gave to the submit.
    #[n(2)]
    pub(crate) number: u32,
}

/// The key of a submit.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Key {
    #[n(0)]
    pub(crate) text: String,
    /// Hash of the canvas: the same key with another canvas is an error.
    #[n(1)]
    pub(crate) canvas: ModuleHash,
}

/// The function that a name in a canvas was bound to at acceptance.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct Binding {
    /// The name in the canvas.
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

/// The changes of one job in one write.
#[derive(Debug, Encode, Decode)]
pub(crate) struct ChangesRecord {
    /// When they were written, if the time of day was known.
    #[n(0)]
    pub(crate) at: Option<Stamp>,
    #[n(1)]
    pub(crate) changes: Vec<Change>,
}

/// A change of a running job that must survive a restart.
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
    /// A task has failed this many times and is retried.
    #[n(1)]
    Failed {
        #[n(0)]
        step: u32,
        #[n(1)]
        failures: u32,
    },
    /// This many started runs of a task were lost.
    #[n(2)]
    Lost {
        #[n(0)]
        step: u32,
        #[n(1)]
        losses: u8,
    },
    /// The job was revoked. Tasks that had not ended never end.
    #[n(3)]
    Revoked,
    /// A task was replaced by a canvas, its result. The names are those that were new to the job.
    #[n(4)]
    Replaced {
        #[n(0)]
        step: u32,
        #[n(1)]
        result: Cbor,
        #[n(2)]
        bindings: Vec<Binding>,
    },
    /// A task that runs on each node got these nodes.
    #[n(5)]
    OnEach {
        #[n(0)]
        step: u32,
        #[n(1)]
        nodes: Vec<NodeId>,
    },
    /// The time limit of the job has passed.
    #[n(6)]
    Late,
    /// A task is delayed until then: a countdown, or the pause before a retry. Noted only if the time of day is known.
    #[n(8)]
    Waits {
        #[n(0)]
        step: u32,
        #[n(1)]
        until: Stamp,
        /// Length of the delay: after a restart, it never becomes longer.
        #[n(2)]
        pause_ms: u64,
    },
}

impl Change {
    /// The value that a change holds.
    fn value(&self) -> Option<&Cbor> {
        match self {
            Change::Ended { outcome, .. } => outcome.as_ref().ok(),
            Change::Replaced { result, .. } => Some(result),
            _ => None,
        }
    }

    /// Approximate size in memory.
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

/// Takes as many changes as fit into one record, so that a reader needs little memory. At least one is taken, whatever
/// its size.
pub(crate) fn take_record(changes: &mut VecDeque<Change>) -> Vec<Change> {
    let mut bytes = 0;
    let mut fits = |change: &Change| {
        bytes += change.bytes();
        bytes <= RECORD_BYTES_MAX
    };
    let count = changes.iter().take_while(|change| fits(change)).count().max(1).min(changes.len());
    changes.drain(..count).collect()
}

/// An ended job.
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
    /// The canvas of a failed job, so that it can be retried.
    #[n(4)]
    pub(crate) canvas: Option<Cow<'b, Cbor>>,
    /// Number of tasks that ended by themselves. Default: all.
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

/// Collects the encoded bytes as pieces, and large values without copying.
struct PieceWriter<'a> {
    /// Large values still to come, in order.
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

    /// Values that may be large, in the order in which they are written.
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
