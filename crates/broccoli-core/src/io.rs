//! What goes into a node and what comes out of it.

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

/// Something that has happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time has passed; also implied by every other input.
    Timeout,
    /// The link takes packets of at most so many bytes, from now on. Tell it before [`Input::Connected`];
    /// without it, [`crate::Limits::packet_bytes_max`] is the limit.
    PacketLimit(u32),
    /// The link is up and every subscription confirmed.
    Connected,
    /// The link is down.
    Disconnected,
    /// A packet came in.
    Packet {
        /// Where it was sent to.
        to: Address,
        /// Its bytes.
        packet: &'a [u8],
    },
    /// A run has ended, on its own or after [`Action::Abort`].
    Executed {
        /// Which.
        run: RunId,
        /// What it came to.
        outcome: Result<Cbor, Failure>,
    },
    /// A running task logged a line.
    Logged {
        /// Which run.
        run: RunId,
        /// The line.
        text: String,
    },
    /// A running task says how far it is.
    Progress {
        /// Which run.
        run: RunId,
        /// Done, in units of the task's own.
        done: u32,
        /// Of how many; 0 if it does not know.
        total: u32,
    },
    /// The answer to [`Action::LoadChunk`]; none if the store does not have it.
    ChunkLoaded {
        /// The module.
        module: ModuleHash,
        /// Index of the chunk.
        index: u32,
        /// Who asked.
        to: NodeId,
        /// Its bytes.
        bytes: Option<Vec<u8>>,
    },
    /// The journal holds everything up to [`Action::Persist`] of this number, whatever happens to the
    /// power.
    Persisted(u64),
    /// The journal cannot be written at the moment, with the reason for people; none once it can. The
    /// shell keeps trying; nobody is told meanwhile that anything is safe, and new jobs are refused.
    Stalled(Option<String>),
    /// The time of day. Tell it at the start, and before an [`Input::Timeout`] if [`crate::Node::wants_wall_clock`]: once a
    /// second, so that a clock that was set shows. A node that is never told refuses what needs it (`eta`).
    WallClock {
        /// Milliseconds since 1970-01-01 00:00 UTC.
        unix_ms: u64,
    },
    /// The answer to [`Action::Install`], a refusal after [`Action::Reserve`], or a module that was in the store at the start, or one
    /// that is deployed from here.
    Installed {
        /// The module.
        manifest: SignedManifest,
        /// Why it cannot be used.
        outcome: Result<(), String>,
    },
}

/// Where a record of the journal is kept. Records are recovered in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// [`JobId::number`]; 0 for what concerns the node itself.
    pub job: u64,
    /// Counts the records of the job, from 0.
    pub number: u32,
}

/// One change of the journal.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which record.
    pub key: RecordKey,
    /// What it is from now on; none deletes it.
    pub value: Option<RecordBytes>,
}

/// The bytes of a record. Large values in it are shared with who else holds them.
#[derive(Clone, Debug, Default)]
pub struct RecordBytes {
    /// Each large value, with what comes before it.
    pub(crate) large: Vec<(Vec<u8>, Cbor)>,
    /// What comes after the last one.
    pub(crate) tail: Vec<u8>,
}

impl RecordBytes {
    /// The record is these one after the other.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let large = self.large.iter().flat_map(|(before, value)| [before.as_slice(), value.as_bytes()]);
        large.chain([self.tail.as_slice()])
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.pieces().map(<[u8]>::len).sum()
    }

    /// The record as one.
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

/// One execution on this node, unique in its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// What the shell is to do.
#[derive(Debug)]
pub enum Action {
    /// Run a function and answer with [`Input::Executed`]. At most `slots` at a time.
    Execute(Execute),
    /// Stop a run as soon as possible; it still answers with [`Input::Executed`].
    Abort(RunId),
    /// Make room for a module that is about to be pulled. Is there none, answer at once with
    /// [`Input::Installed`] and why; then no chunk of it comes.
    Reserve(SignedManifest),
    /// Keep a chunk of a module that is being pulled.
    StoreChunk {
        /// The module.
        module: ModuleHash,
        /// Index of the chunk.
        index: u32,
        /// Its bytes, checked.
        bytes: Vec<u8>,
    },
    /// Read a chunk of a held module and answer with [`Input::ChunkLoaded`].
    LoadChunk {
        /// The module.
        module: ModuleHash,
        /// Index of the chunk.
        index: u32,
        /// Who asks.
        to: NodeId,
    },
    /// Check the whole of a module whose chunks are stored, make it runnable, and answer with
    /// [`Input::Installed`].
    Install(SignedManifest),
    /// A module is no longer needed.
    Remove(ModuleHash),
    /// Write to the journal in order, and answer with [`Input::Persisted`] once all is safe. A change and
    /// the deletions that follow it are written together or not at all; what comes before a change may be
    /// there without it, if the power goes. Several may be answered at once, with the number of the last. Only with
    /// [`crate::Config::durable`].
    Persist {
        /// Counts from 1.
        number: u64,
        /// What changes.
        writes: Vec<Write>,
    },
    /// Something for whoever uses this node.
    Event(Event),
}

/// A function to run.
#[derive(Clone, Debug)]
pub struct Execute {
    /// For the answer.
    pub run: RunId,
    /// Which function of which module.
    pub function: Arc<LeasedFunction>,
    /// A CBOR array of arguments; for a bin, of argument arrays.
    pub args: Cbor,
    /// Call the function for each element of `args` in turn; the result is the list.
    pub bin: bool,
}

/// A canvas handed to [`crate::Node::submit`] or [`crate::Node::submit_to_cluster`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubmitId(pub u32);

/// Something for whoever uses the node.
#[derive(Debug)]
pub enum Event {
    /// A client has found an origin and knows its functions.
    Attached(NodeId),
    /// No node has answered as an origin so far; the client keeps trying.
    NoOrigin,
    /// A submitted canvas is a job now.
    Accepted(SubmitId, JobId),
    /// A submitted canvas was refused.
    Refused(SubmitId, Refusal),
    /// News of a submitted job.
    Job(SubmitId, JobNews),
    /// A node has no room for a submitted canvas; the client goes on asking. Told once.
    QueueFull(SubmitId, NodeId),
    /// A submitted canvas waits: the only node that could take it is about to leave. Told once.
    OnlyLeaving(SubmitId, NodeId),
    /// A node cannot write its journal, with the reason, and no other that keeps one takes a submitted canvas; the
    /// client goes on asking. Told once.
    CannotStore(SubmitId, NodeId, String),
    /// The node that holds a job, or was asked to leave, has not answered for five seconds; the
    /// client goes on asking. Told once for each silence.
    NoAnswer(SubmitId, NodeId),
    /// Some of the jobs of an origin: see [`crate::Node::ask_jobs`].
    Jobs(NodeId, Jobs),
    /// How a step of a job is: see [`crate::Node::ask_step`].
    Step(Box<StepNews>),
    /// This node takes nothing new and leaves when it has finished. Named is who asked for it over
    /// the wire, and after which time [`crate::Node::hand_back`] is wanted, if they say so.
    Draining(Option<NodeId>, Option<Duration>),
    /// This node waits no more: these jobs, which it held in memory, are lost.
    GaveUp(Vec<JobSummary>),
    /// Nothing is left to do before leaving: send what is left, then disconnect.
    Drained,
    /// Another node that is older has this node's name: stop.
    NameTaken,
    /// A packet was dropped.
    Rejected {
        /// Who sent it, if that can be told.
        sender: Option<NodeId>,
        /// Why.
        error: PacketError,
    },
    /// A node came, changed or left.
    Member(NodeId),
    /// The set of runnable modules has changed.
    Modules,
    /// A module was refused by this node, or by another one.
    ModuleRefused {
        /// By whom.
        by: NodeId,
        /// The module.
        module: ModuleHash,
        /// Why.
        reason: String,
    },
    /// A node said how it is.
    Vitals(NodeId, Vitals),
    /// A node does not wait for another one any more: see [`crate::Node::ask_to_forget`].
    Forgotten {
        /// Who says so.
        by: NodeId,
        /// Who is forgotten.
        node: NodeId,
    },
    /// A node said which others it knows: see [`crate::Node::ask_members`].
    Members(NodeId, MemberList),
}

/// A sealed packet that is to be sent. No server is to keep one for later subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Address,
}

/// What [`Node::recover`] has found.
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
