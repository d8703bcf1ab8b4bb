//! Requests about jobs that a client knows only by their id, and requests to a node to shut down gracefully.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Decoder, Encode, decode};

use super::BlobRef;
use crate::JobId;
use crate::outcome::Outcome;

/// Asks an origin for its jobs, in order of their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobsRequest {
    /// Number of the last job that the sender knows; none: from the beginning.
    #[n(0)]
    pub after: Option<u64>,
    /// How many jobs it wants, at most.
    #[n(1)]
    pub max: u16,
}

/// Some of an origin's jobs.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Jobs {
    /// As many as fit into a packet, in order of their numbers.
    #[n(0)]
    pub jobs: Vec<JobSummary>,
    /// Whether there are more after these.
    #[n(1)]
    pub more: bool,
}

/// One job, for people.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobSummary {
    /// [`JobId::number`].
    #[n(0)]
    pub number: u64,
    /// Its state.
    #[n(1)]
    #[cbor(decode_with = "JobState::known_or_other")]
    pub state: JobState,
    /// Its first function, at most [`JobSummary::NAME_BYTES_MAX`].
    #[n(2)]
    pub name: String,
    /// Tasks that have ended.
    #[n(3)]
    pub done: u32,
    /// All tasks that are known so far.
    #[n(4)]
    pub total: u32,
    /// When it was accepted, if the origin knew the time of day.
    #[n(5)]
    pub submitted_unix_ms: Option<u64>,
    /// When it ended.
    #[n(6)]
    pub ended_unix_ms: Option<u64>,
    /// The key that it was submitted with.
    #[n(7)]
    pub key: Option<String>,
    /// Why none of its tasks runs, although it has not ended.
    #[n(8)]
    #[cbor(decode_with = "Waits::known_or_none", nil = "absent")]
    pub waits: Option<Waits>,
}

/// Why no task of a job runs. It names one of the tasks that wait.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Waits {
    /// No live node can run it.
    #[n(0)]
    NoNode {
        /// `module.function`.
        #[n(0)]
        function: String,
        /// What no live node has: parts of the routing, or the module if no node that the routing allows holds it.
        #[n(1)]
        missing: Vec<String>,
        /// How many live nodes with slots there are.
        #[n(2)]
        nodes: u32,
    },
    /// The rate of its function allows no more starts now.
    #[n(1)]
    Rate {
        /// `module.function`.
        #[n(0)]
        function: String,
    },
    /// It waits for a time.
    #[n(2)]
    Until {
        /// `module.function`.
        #[n(0)]
        function: String,
        /// How long it will still wait; none if the node does not know the time of day.
        #[n(1)]
        ms: Option<u64>,
        /// Whether it has failed before.
        #[n(2)]
        again: bool,
    },
    /// The nodes that could run it have no free slot now.
    #[n(3)]
    Slots {
        /// `module.function`.
        #[n(0)]
        function: String,
        /// How many tasks wait at its origin, this one included.
        #[n(1)]
        waiting: u32,
    },
    /// The nodes that have tried it were too small.
    #[n(4)]
    Larger {
        /// `module.function`.
        #[n(0)]
        function: String,
    },
    /// It waits for the nodes that it is to run on, or for their runs.
    #[n(5)]
    Nodes,
    /// Other steps come before it. In [`StepNews`] only, as all that follow.
    #[cfg(feature = "explain")]
    #[n(6)]
    Before {
        /// `module.function`.
        #[n(0)]
        function: String,
    },
    /// The only node that it may run on is offline.
    #[cfg(feature = "explain")]
    #[n(7)]
    Offline {
        /// `module.function`.
        #[n(0)]
        function: String,
        /// The node.
        #[n(1)]
        node: crate::NodeId,
    },
    /// Its origin has no memory for more results of its job now.
    #[cfg(feature = "explain")]
    #[n(8)]
    Memory {
        /// `module.function`.
        #[n(0)]
        function: String,
    },
    /// The nodes that it may run on are still getting its module.
    #[cfg(feature = "explain")]
    #[n(9)]
    Module {
        /// `module.function`.
        #[n(0)]
        function: String,
    },
    /// A node has it, and is still getting its arguments or its turn there.
    #[cfg(feature = "explain")]
    #[n(10)]
    Arrival {
        /// `module.function`.
        #[n(0)]
        function: String,
        /// The node.
        #[n(1)]
        node: crate::NodeId,
        /// Whether its arguments are so large that they are pulled in pieces.
        #[n(2)]
        pulled: bool,
    },
    /// It has run, and its result is on its way from a node.
    #[cfg(feature = "explain")]
    #[n(11)]
    Result {
        /// `module.function`.
        #[n(0)]
        function: String,
        /// The node.
        #[n(1)]
        node: crate::NodeId,
    },
    /// Its origin leases nothing now: its journal is behind, or it has just restarted and asks the workers what they hold.
    #[cfg(feature = "explain")]
    #[n(12)]
    Origin {
        /// `module.function`.
        #[n(0)]
        function: String,
    },
    /// It runs; not a reason to wait. In [`StepNews`], so that a job with running tasks can be told from one without.
    #[cfg(feature = "explain")]
    #[n(13)]
    Runs {
        /// `module.function`.
        #[n(0)]
        function: String,
        /// The node.
        #[n(1)]
        node: crate::NodeId,
    },
}

impl Waits {
    /// An unknown reason is read as none.
    fn known_or_none<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<Option<Waits>, decode::Error> {
        if cfg!(feature = "explain") {
            return crate::known_or(decoder, context, |decoder| decoder.skip().map(|()| None));
        }
        decoder.skip().map(|()| None)
    }

    /// The length of all its texts, in bytes.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match self {
            Waits::NoNode { function, missing, .. } => {
                function.len() + missing.iter().map(|want| want.len() + 2).sum::<usize>()
            }
            Waits::Rate { function }
            | Waits::Until { function, .. }
            | Waits::Slots { function, .. }
            | Waits::Larger { function } => function.len(),
            Waits::Nodes => 0,
            #[cfg(feature = "explain")]
            Waits::Before { function }
            | Waits::Memory { function }
            | Waits::Module { function }
            | Waits::Origin { function } => function.len(),
            #[cfg(feature = "explain")]
            Waits::Offline { function, node }
            | Waits::Arrival { function, node, .. }
            | Waits::Result { function, node }
            | Waits::Runs { function, node } => function.len() + node.as_str().len(),
        }
    }
}

/// What a leaving node waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Leaving {
    /// Functions of tasks that it runs; the first [`Leaving::LISTED_MAX`] of [`super::Vitals::running`].
    #[n(0)]
    pub tasks: Vec<String>,
    /// Jobs that would be lost with the node; the first [`Leaving::LISTED_MAX`] of [`super::Vitals::jobs`].
    #[n(1)]
    pub jobs: Vec<JobSummary>,
    /// It waits no longer: it hands back what it runs, and these jobs are lost.
    #[n(2)]
    pub gives_up: Option<bool>,
}

impl Leaving {
    /// How many tasks, and how many jobs, are listed at most.
    pub const LISTED_MAX: usize = 8;
}

impl JobSummary {
    /// Longest name, in bytes.
    pub const NAME_BYTES_MAX: usize = 64;
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum JobState {
    /// None of its tasks has been leased to a worker.
    #[n(0)]
    Queued,
    /// Its tasks run.
    #[n(1)]
    Running,
    /// It has a result.
    #[n(2)]
    Succeeded,
    /// It has failed.
    #[n(3)]
    Failed,
    /// It was revoked.
    #[n(4)]
    Revoked,
    /// A state that this version does not know. Never sent.
    #[n(4294967295)]
    Other,
}

impl JobState {
    fn known_or_other<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<JobState, decode::Error> {
        crate::known_or(decoder, context, |decoder| decoder.u32().map(|_| JobState::Other))
    }
}

/// Retries a failed or revoked job, as a new job with the same canvas. Answered by `Accepted` or `Refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Retry {
    /// As [`super::Submit::number`].
    #[n(0)]
    pub number: u32,
    /// The job that has failed or was revoked.
    #[n(1)]
    pub job: JobId,
}

/// Asks a node to take nothing new, and to leave when it has finished. Answered by `Vitals`, or `Refused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Drain {
    /// As [`super::Submit::number`], for `Refused`.
    #[n(0)]
    pub number: u32,
    /// After this time, in milliseconds, it hands back what still runs, and leaves. Default: the time that its
    /// operator has set.
    #[n(1)]
    pub for_ms: Option<u64>,
}

/// Asks for the state of one step of a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct StepQuery {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Indices of members from the root of the canvas; empty for the job as a whole.
    #[n(1)]
    pub path: Vec<u32>,
    /// Whether to say also what the tasks of the step wait for.
    #[n(2)]
    pub why: Option<bool>,
}

/// The state of one step of a job.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct StepNews {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// From the question.
    #[n(1)]
    pub path: Vec<u32>,
    /// None if the job has no such step, or if the origin has no such job.
    #[n(2)]
    pub view: Option<StepView>,
    /// Where to pull the result from, if it does not fit into a packet; the result is null then.
    #[n(3)]
    pub blob: Option<BlobRef>,
    /// What tasks of the step wait for, if that was asked: at most [`StepNews::WAITING_MAX`].
    #[n(4)]
    #[cbor(decode_with = "waiting_tasks", nil = "absent")]
    pub waiting: Option<Vec<WaitingTasks>>,
}

fn waiting_tasks<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<Option<Vec<WaitingTasks>>, decode::Error> {
    if cfg!(feature = "explain") {
        return Option::decode(decoder, context);
    }
    decoder.skip().map(|()| None)
}

#[expect(clippy::unnecessary_wraps, clippy::option_option, reason = "the signature that the derived decoder wants")]
fn absent<T>() -> Option<Option<T>> {
    Some(None)
}

impl StepNews {
    /// How many groups of waiting tasks are told at most.
    pub const WAITING_MAX: usize = 32;
}

/// Tasks of a job that wait for the same.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct WaitingTasks {
    /// How many.
    #[n(0)]
    pub tasks: u32,
    /// Where the first of them is: indices of members from the root of the canvas. Callbacks have no such place; then
    /// it is that of the step that they belong to.
    #[n(1)]
    pub path: Vec<u32>,
    /// What they wait for; none if this version does not know it.
    #[n(2)]
    #[cbor(decode_with = "Waits::known_or_none", nil = "absent")]
    pub waits: Option<Waits>,
}

/// A step of a canvas: a task, or a form with members.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct StepView {
    /// `module.function` of a task, or `chain`, `group`, `chord`, `map`, `starmap`, `chunks`.
    #[n(0)]
    pub name: String,
    /// Its state.
    #[n(1)]
    #[cbor(decode_with = "StepState::known_or_other")]
    pub state: StepState,
    /// How many members it has; 0 for a task.
    #[n(2)]
    pub members: u32,
    /// Its outcome, once it has ended, and as long as the outcome is kept.
    #[n(3)]
    pub outcome: Option<Outcome>,
}

/// The state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum StepState {
    /// It waits for other steps.
    #[n(0)]
    Waiting,
    /// It waits for a worker, or runs.
    #[n(1)]
    Running,
    /// It has a result.
    #[n(2)]
    Succeeded,
    /// It has failed.
    #[n(3)]
    Failed,
    /// It never ran, because a step that it waited for has failed, or because the job was revoked.
    #[n(4)]
    Skipped,
    /// A state that this version does not know. Never sent.
    #[n(4294967295)]
    Other,
}

impl StepState {
    fn known_or_other<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<StepState, decode::Error> {
        crate::known_or(decoder, context, |decoder| decoder.u32().map(|_| StepState::Other))
    }
}

/// Longest path of a step: as deep as a canvas may be.
pub const PATH_MAX: usize = crate::canvas::CANVAS_DEPTH_MAX;
