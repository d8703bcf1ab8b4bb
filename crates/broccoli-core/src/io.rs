//! Inputs and outputs of a node.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use broccoli_proto::message::{
    Failure, JobNews, JobSummary, Jobs, LeasedFunction, MemberList, Refusal, StepNews, Vitals,
};
use broccoli_proto::module::SignedManifest;
use broccoli_proto::packet::{Address, PacketError};
use broccoli_proto::{Cbor, JobId, ModuleHash, NodeId};

use crate::trace::Trace;

/// An input: something has happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time has passed. Every other input implies this, too.
    Timeout,
    /// From now on, the link carries packets of at most this many bytes. Feed it before [`Input::Connected`]. Without
    /// it, the limit is [`crate::Limits::packet_bytes_max`].
    PacketLimit(u32),
    /// The link is up, and every subscription is confirmed.
    Connected,
    /// The link is down.
    Disconnected,
    /// A packet arrived.
    Packet {
        /// The address that it was sent to.
        to: Address,
        /// Its bytes.
        packet: &'a [u8],
    },
    /// A run has ended, by itself or after [`Action::Abort`].
    Executed {
        /// The run.
        run: RunId,
        /// Its result or failure.
        outcome: Result<Cbor, Failure>,
    },
    /// A running task logged a line.
    Logged {
        /// The run.
        run: RunId,
        /// The line.
        text: String,
    },
    /// A running task reports progress.
    Progress {
        /// The run.
        run: RunId,
        /// Units done. The task defines the unit.
        done: u32,
        /// Units in all; 0 if the task does not know.
        total: u32,
    },
    /// The answer to [`Action::LoadChunk`].
    ChunkLoaded {
        /// The module.
        module: ModuleHash,
        /// Index of the chunk.
        index: u32,
        /// The node that asked.
        to: NodeId,
        /// Its bytes; none if the store does not have it.
        bytes: Option<Vec<u8>>,
    },
    /// The journal has everything up to and including the [`Action::Persist`] with this number safe on disk, also if
    /// the power is cut.
    Persisted(u64),
    /// The journal cannot be written at the moment, with the reason for people; none when it can be written again. The
    /// shell keeps trying. Meanwhile nothing is reported as safe, and new jobs are refused.
    Stalled(Option<String>),
    /// The time of day. Feed it at the start, and before an [`Input::Timeout`] if [`crate::Node::wants_wall_clock`]:
    /// once a second, so that a change of the clock is noticed. A node without it refuses what needs it (`eta`).
    WallClock {
        /// Milliseconds since 1970-01-01 00:00 UTC.
        unix_ms: u64,
    },
    /// The answer to [`Action::Install`], or a refusal after [`Action::Reserve`], or a module that was in the store at
    /// the start, or a module that is deployed from this node.
    Installed {
        /// The module.
        manifest: SignedManifest,
        /// Why it cannot be used.
        outcome: Result<(), String>,
    },
}

/// The key of a journal record. Records are recovered in the order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// [`JobId::number`]; 0 for records of the node itself.
    pub job: u64,
    /// Number of the record in its job, from 0.
    pub number: u32,
}

/// One change of the journal.
#[derive(Clone, Debug)]
pub struct Write {
    /// The record.
    pub key: RecordKey,
    /// Its new bytes; none deletes it.
    pub value: Option<RecordBytes>,
}

/// The bytes of a record. Large values are shared with their other holders.
#[derive(Clone, Debug, Default)]
pub struct RecordBytes {
    /// Each large value, and the bytes before it.
    pub(crate) large: Vec<(Vec<u8>, Cbor)>,
    /// The bytes after the last large value.
    pub(crate) tail: Vec<u8>,
}

impl RecordBytes {
    /// The pieces. The record is their concatenation.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let large = self.large.iter().flat_map(|(before, value)| [before.as_slice(), value.as_bytes()]);
        large.chain([self.tail.as_slice()])
    }

    /// The length in bytes.
    pub fn bytes(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// The record in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.bytes());
        for piece in self.pieces() {
            all.extend_from_slice(piece);
        }
        all
    }
}

impl From<Vec<u8>> for RecordBytes {
    fn from(bytes: Vec<u8>) -> RecordBytes {
        RecordBytes { large: Vec::new(), tail: bytes }
    }
}

/// The id of an execution on this node, unique in its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// An output: something that the shell must do.
#[derive(Debug)]
pub enum Action {
    /// Run a function and answer with [`Input::Executed`]. At most `slots` run at a time.
    Execute(Execute),
    /// Stop a run as soon as possible. It still answers with [`Input::Executed`].
    Abort(RunId),
    /// Make room for a module before it is pulled. If there is no room, answer at once with [`Input::Installed`] and
    /// the reason. Then no chunk is pulled.
    Reserve(SignedManifest),
    /// Store a chunk of a module that is being pulled.
    StoreChunk {
        /// The module.
        module: ModuleHash,
        /// Index of the chunk.
        index: u32,
        /// Its bytes. Their hash was checked.
        bytes: Vec<u8>,
    },
    /// Read a chunk of a held module and answer with [`Input::ChunkLoaded`].
    LoadChunk {
        /// The module.
        module: ModuleHash,
        /// Index of the chunk.
        index: u32,
        /// The node that asks.
        to: NodeId,
    },
    /// Check a module whose chunks are all stored, make it runnable, and answer with [`Input::Installed`].
    Install(SignedManifest),
    /// Remove a module that is not needed any more.
    Remove(ModuleHash),
    /// Write to the journal in this order, and answer with [`Input::Persisted`] when all of it is safe. A change and
    /// the deletions after it are written together or not at all. If the power is cut, earlier changes may be there
    /// without later ones. One answer may be for several actions, with the number of the last one. Only with
    /// [`crate::Config::durable`]. [`crate::Config::durable`].
    Persist {
        /// Counts from 1.
        number: u64,
        /// What changes.
        writes: Vec<Write>,
    },
    /// An event for the user of this node.
    Event(Event),
}

/// A function to run.
#[derive(Clone, Debug)]
pub struct Execute {
    /// The id for the answer.
    pub run: RunId,
    /// The function and its module.
    pub function: Arc<LeasedFunction>,
    /// A CBOR array of arguments; for a bin, an array of such arrays.
    pub args: Cbor,
    /// Whether to call the function for each element of `args`, one after the other. The result is the list of results.
    pub bin: bool,
}

/// The id of a canvas that was passed to [`crate::Node::submit`] or [`crate::Node::submit_to_cluster`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId(pub u32);

/// An event for the user of the node.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client has found an origin, and knows its functions.
    Attached(NodeId),
    /// No node has answered as an origin yet. The client keeps trying.
    NoOrigin,
    /// A submitted canvas was accepted as this job.
    Accepted(SubmitId, JobId),
    /// A submitted canvas was refused.
    Refused(SubmitId, Refusal),
    /// News of a submitted job.
    Job(SubmitId, JobNews),
    /// A node has no room for a submitted canvas. The client keeps trying. Reported once.
    QueueFull(SubmitId, NodeId),
    /// A submitted canvas waits, because the only node that could accept it is about to leave. Reported once.
    OnlyLeaving(SubmitId, NodeId),
    /// A node cannot write its journal, for this reason, and no other node with a journal accepts the submitted canvas.
    /// The client keeps trying. Reported once.
    CannotStore(SubmitId, NodeId, String),
    /// A node that holds a job, or that was asked to leave, has not answered for five seconds. The client keeps trying.
    /// Reported once for each silence.
    NoAnswer(SubmitId, NodeId),
    /// This was not asked for: the node already has [`crate::Limits::requests_max`] requests of its user. Ask again when
    /// some of them have ended.
    TooManyRequests(SubmitId),
    /// Some of the jobs of an origin: see [`crate::Node::ask_jobs`].
    Jobs(NodeId, Jobs),
    /// The state of a step: see [`crate::Node::ask_step`].
    Step(Box<StepNews>),
    /// This node accepts nothing new, and leaves when it has finished. With the node that asked for it over the wire,
    /// if any, and the time after which [`crate::Node::hand_back`] must be called, if it was given.
    Draining(Option<NodeId>, Option<Duration>),
    /// This node stops waiting. These jobs were only in its memory and are lost.
    GaveUp(Vec<JobSummary>),
    /// Nothing is left to do before leaving: send the remaining packets, then disconnect.
    Drained,
    /// Another node with the same name started earlier: stop.
    NameTaken,
    /// A packet was dropped.
    Rejected {
        /// The sender, if it is known.
        sender: Option<NodeId>,
        /// The reason.
        error: PacketError,
    },
    /// A node joined, changed or left.
    Member(NodeId),
    /// The set of runnable modules has changed.
    Modules,
    /// This or another node has refused a module.
    ModuleRefused {
        /// The node that refused it.
        by: NodeId,
        /// The module.
        module: ModuleHash,
        /// The reason.
        reason: String,
    },
    /// A node reported its state.
    Vitals(NodeId, Vitals),
    /// A node no longer waits for another one: see [`crate::Node::ask_to_forget`].
    Forgotten {
        /// The node that reports it.
        by: NodeId,
        /// The node that is forgotten.
        node: NodeId,
    },
    /// The other nodes that a node knows: see [`crate::Node::ask_members`].
    Members(NodeId, MemberList),
    /// Something has happened to a job or a task. Only if somebody has asked: see [`crate::Node::set_trace`].
    Trace(Box<Trace>),
}

/// A sealed packet to send. No server may retain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The destination.
    pub to: Address,
}

/// What [`crate::Node::recover`] has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Jobs that go on.
    pub jobs: usize,
    /// Their tasks that have not ended.
    pub tasks: u32,
    /// Ended jobs whose results are still kept.
    pub results: usize,
    /// Jobs that cannot go on. Their records were left alone: keep them for people to look at.
    pub damaged: Vec<Damage>,
}

/// The journal was written by another version of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherVersion {
    /// Its version, if it says one.
    pub found: Option<u32>,
    /// The version that this program reads and writes.
    pub known: u32,
}

impl fmt::Display for OtherVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            Some(found) => write!(f, "the journal has version {found}, this program knows version {}", self.known),
            None => write!(f, "the journal says no version, this program knows version {}", self.known),
        }
    }
}

impl core::error::Error for OtherVersion {}

/// Records that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// [`broccoli_proto::JobId::number`].
    pub job: u64,
    /// What is wrong.
    pub reason: String,
}
