//! The messages that nodes exchange.
//!
//! Every message may be lost, repeated, delayed or reordered. A message that has an effect counts only in a packet
//! with a proof (see [`crate::packet`]). A broadcast can at most make its receivers ask.
//!
//! ```text
//!   worker                          origin                          client
//!     │ ◄──────────── Available ──────│ ◄──────────────── Hello ──────│
//!     │ ── Fetch (credit) ──────────► │ ── Birth ───────────────────► │
//!     │ ◄──────────────── Lease ──────│ ◄──────────────── Submit ─────│
//!     │ ── Renew … ─────────────────► │ ── Accepted | Refused ──────► │
//!     │ ── TaskResults + Fetch ─────► │ ── JobEvent … ──────────────► │
//!     │ ◄──── ResultAck (+ Lease) ────│ ◄──────────── JobEventAck ────│
//! ```

mod handles;
mod keys;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Decoder, Encode, decode};

pub use self::handles::{
    Drain, JobState, JobSummary, Jobs, JobsRequest, Leaving, PATH_MAX, Retry, StepNews, StepQuery, StepState, StepView,
    WaitingTasks, Waits,
};
pub use self::keys::{Forget, Forgotten, KeyAnswer, KeyClaim};
use crate::module::ModuleEntry;
use crate::outcome::{Cause, Outcome, TaskError};
use crate::{Cbor, ContentId, Epoch, JobId, ModuleHash, NodeId};

/// One message. A packet holds one or more. The numbers 11, 20 and 21 are retired: no message takes them again.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Message {
    /// A node is online. Sent to everybody, or to a node that asks.
    #[n(0)]
    Birth(#[n(0)] Birth),
    /// A node is gone. This is its Will, or its goodbye.
    #[n(1)]
    Death(#[n(0)] Death),
    /// An origin has tasks and needs workers, or a node has other modules.
    #[n(2)]
    Available(#[n(0)] Available),
    /// A worker gives an origin credit.
    #[n(3)]
    Fetch(#[n(0)] Fetch),
    /// An origin leases a batch of tasks to a worker.
    #[n(4)]
    Lease(#[n(0)] Lease),
    /// A worker returns tasks that it cannot start soon, or cannot finish.
    #[n(5)]
    Return(#[n(0)] Return),
    /// A worker reports which attempts it holds.
    #[n(6)]
    Renew(#[n(0)] Renew),
    /// The results of attempts. The worker keeps and repeats them until they are acknowledged.
    #[n(7)]
    TaskResults(#[n(0)] TaskResults),
    /// The origin has these results; the worker may forget them.
    #[n(8)]
    ResultAck(#[n(0)] ResultAck),
    /// The origin no longer needs these attempts.
    #[n(9)]
    Abort(#[n(0)] Abort),
    /// "Who are you?" The answer is a `Birth`. If all nodes are asked, all answer.
    #[n(10)]
    Hello,
    /// A client submits a canvas to an origin.
    #[n(12)]
    Submit(#[n(0)] Submit),
    /// The origin has accepted the job.
    #[n(13)]
    Accepted(#[n(0)] Accepted),
    /// The origin has refused it.
    #[n(14)]
    Refused(#[n(0)] Refused),
    /// News of a job for its client.
    #[n(15)]
    JobEvent(#[n(0)] Box<JobEvent>),
    /// The client has seen how the job ended.
    #[n(16)]
    JobEventAck(#[n(0)] JobId),
    /// A client ends its job.
    #[n(17)]
    Revoke(#[n(0)] Revoke),
    /// Asks for the manifests of the set with this digest, which the receiver has.
    #[n(18)]
    ManifestRequest(#[n(0)] ManifestRequest),
    /// Some of the sender's manifests.
    #[n(19)]
    Manifests(#[n(0)] Manifests),
    /// A node refuses a module.
    #[n(22)]
    ModuleRefused(#[n(0)] ModuleRefused),
    /// Asks whether another node has the sender's name.
    #[n(23)]
    Claim(#[n(0)] Claim),
    /// The answer to a claim: the name is taken.
    #[n(24)]
    Claimed(#[n(0)] Claimed),
    /// Asks nodes for their state.
    #[n(25)]
    VitalsRequest,
    /// The state of a node.
    #[n(26)]
    Vitals(#[n(0)] Vitals),
    /// A line that a running task logged. Best effort.
    #[n(27)]
    Log(#[n(0)] Log),
    /// A client asks about its job. So it notices a lost event, or an origin that has lost its jobs.
    #[n(28)]
    JobQuery(#[n(0)] JobId),
    /// Progress of a running task, in the task's own units. Best effort.
    #[n(29)]
    Progress(#[n(0)] Progress),
    /// Asks an origin for its jobs.
    #[n(30)]
    JobsRequest(#[n(0)] JobsRequest),
    /// Some of an origin's jobs.
    #[n(31)]
    Jobs(#[n(0)] Jobs),
    /// A client retries a failed or revoked job.
    #[n(32)]
    Retry(#[n(0)] Retry),
    /// A client asks a node to shut down gracefully.
    #[n(33)]
    Drain(#[n(0)] Drain),
    /// An origin asks the arbiter of a function how many of its tasks may start.
    #[n(34)]
    PermitRequest(#[n(0)] PermitRequest),
    /// The answer.
    #[n(35)]
    Permit(#[n(0)] Permit),
    /// A client asks for the state of a step of a job.
    #[n(36)]
    StepQuery(#[n(0)] StepQuery),
    /// The state of a step of a job.
    #[n(37)]
    StepNews(#[n(0)] Box<StepNews>),
    /// Asks for pieces of content: the code of a module, or a large value.
    #[n(38)]
    ContentRequest(#[n(0)] ContentRequest),
    /// A piece of content.
    #[n(39)]
    ContentPiece(#[n(0)] ContentPiece),
    /// The sender does not hold this content, or no longer holds it.
    #[n(40)]
    ContentGone(#[n(0)] ContentId),
    /// Asks a node which other nodes it knows.
    #[n(41)]
    MembersRequest(#[n(0)] MembersRequest),
    /// Some of them.
    #[n(42)]
    MemberList(#[n(0)] MemberList),
    /// An origin asks another one whether it holds a job with a key.
    #[n(43)]
    KeyClaim(#[n(0)] KeyClaim),
    /// The answer.
    #[n(44)]
    KeyAnswer(#[n(0)] KeyAnswer),
    /// A client reports that a node will not come back, whatever jobs it may hold.
    #[n(45)]
    Forget(#[n(0)] Forget),
    /// The answer, once it is safe.
    #[n(46)]
    Forgotten(#[n(0)] Forgotten),
}

/// The presence of a node, on its birth topic or as the answer to a `Hello`.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Birth {
    /// Counts the connections of this epoch, from 1.
    #[n(0)]
    pub connection: u32,
    /// How many tasks it runs side by side; 0 for a client.
    #[n(1)]
    pub slots: u16,
    /// Labels (`room=kitchen`) and capabilities (`led`).
    #[n(2)]
    pub features: Vec<String>,
    /// Digest of the modules it holds.
    #[n(3)]
    pub modules: u64,
    /// Longest packet it takes.
    #[n(4)]
    pub packet_bytes_max: u32,
    /// Whether it accepts jobs of other nodes.
    #[n(5)]
    pub resident: bool,
    /// Version of its program.
    #[n(6)]
    pub version: String,
    /// Whether it keeps a journal, so that its jobs survive its end.
    #[n(7)]
    pub durable: Option<bool>,
    /// It publishes its birth again within this time, in seconds. A node that is silent for three times as long
    /// counts as gone.
    #[n(8)]
    pub again_s: u16,
    /// Whether it is about to leave: it takes no new tasks or jobs.
    #[n(9)]
    pub draining: Option<bool>,
    /// The largest tasks that it takes. Default: of any size.
    #[n(10)]
    pub takes: Option<Takes>,
}

/// The largest tasks that a node takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Takes {
    /// Longest arguments, in bytes.
    #[n(0)]
    pub args_bytes: u32,
    /// Longest result, in bytes.
    #[n(1)]
    pub result_bytes: u32,
}

/// The end of one connection of one incarnation. It counts only for these two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Death {
    /// The connection that ended.
    #[n(0)]
    pub connection: u32,
    /// Whether the node left on purpose, so that nobody needs to wait for its return.
    #[n(1)]
    pub leaving: bool,
    /// Whether it holds no job with a key, running or ended, and will accept none. So nobody needs to ask it about
    /// keys.
    #[n(2)]
    pub holds_no_key: Option<bool>,
}

/// An origin needs workers. Repeated at growing intervals while tasks wait and no worker has given credit for them.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Available {
    /// What the waiting tasks need. A node that fits one of these may answer. May be empty.
    #[n(0)]
    pub wants: Vec<Want>,
    /// The probability that a fitting node answers, as a fraction of 65535.
    #[n(1)]
    pub chance: u16,
    /// Digest of the modules that the origin holds.
    #[n(2)]
    pub modules: u64,
}

/// What a class of tasks needs from a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Want {
    /// The module that holds the function.
    #[n(0)]
    pub module: ModuleHash,
    /// Names, labels or capabilities; all must match.
    #[n(1)]
    pub on: Vec<String>,
}

/// A snapshot of a worker's credit at one origin; it replaces the earlier one.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Fetch {
    /// The incarnation of the origin that `seen` refers to; none if the worker has not heard from it yet.
    #[n(0)]
    pub origin_epoch: Option<Epoch>,
    /// Number of the last batch received from it. Later batches count against this credit.
    #[n(1)]
    pub seen: u32,
    /// Tasks that may be sent beyond `seen`.
    #[n(2)]
    pub tasks: u32,
    /// Bytes of arguments that may be sent beyond `seen`.
    #[n(3)]
    pub bytes: u32,
    /// Digest of the modules it holds.
    #[n(4)]
    pub modules: u64,
    /// Labels and capabilities.
    #[n(5)]
    pub features: Vec<String>,
    /// Longest packet it takes.
    #[n(6)]
    pub packet_bytes_max: u32,
    /// Whether it has no room for more results, and takes no tasks before some of its results are acknowledged.
    #[n(7)]
    pub full: Option<bool>,
    /// The largest tasks that it takes. Default: of any size.
    #[n(8)]
    pub takes: Option<Takes>,
}

/// A batch of tasks for one worker. The header's epoch is the origin's.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Lease {
    /// Counts the batches to this worker, from 1.
    #[n(0)]
    pub batch: u32,
    /// The functions that the tasks name by index.
    #[n(1)]
    pub functions: Vec<LeasedFunction>,
    /// The tasks.
    #[n(2)]
    pub tasks: Vec<LeasedTask>,
    /// Longest result that the origin can receive, in bytes.
    #[n(3)]
    pub result_bytes_max: u32,
}

/// A function bound to the code that runs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct LeasedFunction {
    /// The module.
    #[n(0)]
    pub module: ModuleHash,
    /// Its function's name, without the module's.
    #[n(1)]
    pub name: String,
}

/// One attempt at a task.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct LeasedTask {
    /// Which.
    #[n(0)]
    pub attempt: Attempt,
    /// Index into [`Lease::functions`].
    #[n(1)]
    pub function: u16,
    /// A CBOR array of arguments; for a bin, of argument arrays.
    #[n(2)]
    pub args: Cbor,
    /// Whether to call the function for each element of `args` and return the list of results.
    #[n(3)]
    pub bin: bool,
    /// Time limit of this attempt, in milliseconds.
    #[n(4)]
    pub timeout_ms: Option<u64>,
    /// Where to pull `args` from, if they do not fit into a packet; `args` are null then. Boxed, because a node holds
    /// many tasks and very few of them have it.
    #[n(5)]
    pub blob: Option<Box<BlobRef>>,
}

/// One try at running a task, unique within an epoch of its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Attempt {
    /// [`JobId::number`].
    #[n(0)]
    pub job: u64,
    /// The task's index in its job.
    #[n(1)]
    pub step: u32,
    /// Counts the leases of this task, from 1. A restarted origin continues at a higher number.
    #[n(2)]
    pub number: u32,
}

/// Attempts that the worker gives back, because it cannot start them soon or because it leaves. This also cancels its
/// credit at the origin.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Return {
    /// The incarnation of the origin that leased them.
    #[n(0)]
    pub origin_epoch: Epoch,
    /// The attempts.
    #[n(1)]
    pub attempts: Vec<Attempt>,
}

/// Attempts that the worker holds. This confirms their leases and extends them.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Renew {
    /// The incarnation of the origin that leased them.
    #[n(0)]
    pub origin_epoch: Epoch,
    /// Those that have started.
    #[n(1)]
    pub started: Vec<Attempt>,
    /// Those that wait for a slot.
    #[n(2)]
    pub queued: Vec<Attempt>,
}

/// The results of attempts.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TaskResults {
    /// The incarnation of the origin that leased them.
    #[n(0)]
    pub origin_epoch: Epoch,
    /// Number of this message among the worker's results to this origin, for the acknowledgement.
    #[n(1)]
    pub number: u32,
    /// The results.
    #[n(2)]
    pub results: Vec<TaskResult>,
}

/// The result of one attempt.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TaskResult {
    /// Which attempt.
    #[n(0)]
    pub attempt: Attempt,
    /// Its value, or why there is none. Boxed as in [`LeasedTask`], because a failure is rare.
    #[n(1)]
    pub outcome: Result<Cbor, Box<Failure>>,
    /// Where to pull the value from, if it does not fit into a packet; the value is null then. Boxed as in
    /// [`LeasedTask`].
    #[n(2)]
    pub blob: Option<Box<BlobRef>>,
}

/// Why an attempt failed, as its worker saw it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Failure {
    /// The kind.
    #[n(0)]
    #[cbor(decode_with = "Cause::known_or_other")]
    pub cause: Cause,
    /// The text.
    #[n(1)]
    pub text: String,
    /// The function asks for a retry after this many milliseconds.
    #[n(2)]
    pub retry_after_ms: Option<u64>,
    /// The worker is too small for the task. Then this is not an outcome of the task, and another node may run it.
    #[n(3)]
    pub too_small: Option<TooSmall>,
}

/// Which limit of the worker was too low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TooSmall {
    /// The limit of the worker, in bytes or calls; none if it is not a number.
    #[n(0)]
    pub has: Option<u64>,
    /// The length of the result, if the result was too long.
    #[n(1)]
    pub result_bytes: Option<u64>,
}

impl Failure {
    /// A failure without a request for a retry.
    pub fn new(cause: Cause, text: impl Into<String>) -> Failure {
        Failure { cause, text: text.into(), retry_after_ms: None, too_small: None }
    }

    /// A worker with this limit is too small for the task, or cannot run it at all.
    pub fn too_small(text: impl Into<String>, has: Option<u64>) -> Failure {
        Failure { too_small: Some(TooSmall { has, result_bytes: None }), ..Failure::new(Cause::Unfit, text) }
    }

    /// The worker takes results of at most `max` bytes.
    pub fn result_too_large(bytes: usize, max: usize) -> Failure {
        let too_small = TooSmall { has: Some(max as u64), result_bytes: Some(bytes as u64) };
        let text = format!("the result has {bytes} bytes, this node takes {max}");
        Failure { too_small: Some(too_small), ..Failure::new(Cause::Unfit, text) }
    }
}

/// The origin holds these results; the worker may forget them.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct ResultAck {
    /// The incarnation of the worker that numbered them.
    #[n(0)]
    pub worker_epoch: Epoch,
    /// Numbers of `TaskResults`.
    #[n(1)]
    pub numbers: Vec<u32>,
}

/// Attempts whose results nobody waits for. Their ids are enough, because no number is used twice.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Abort {
    /// The attempts.
    #[n(0)]
    pub attempts: Vec<Attempt>,
}

/// A canvas for an origin. The client repeats it with the same number until it gets an answer.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Submit {
    /// Number of this submit. An incarnation of a client starts at a random number and counts up. So an answer to an
    /// earlier incarnation matches no submit of this one.
    #[n(0)]
    pub number: u32,
    /// An encoded [`crate::Canvas`]: see [`crate::Canvas::from_wire`].
    #[n(1)]
    pub canvas: Cbor,
    /// The key that the client has chosen, 1 to 128 bytes. Another submit with the same key, to any origin, is the
    /// same job, as long as its origin remembers the job.
    #[n(2)]
    pub key: Option<String>,
    /// Whether nobody waits for news. Default: the client waits.
    #[n(3)]
    pub detached: Option<bool>,
    /// Where to pull `canvas` from, if it does not fit into a packet; `canvas` is null then.
    #[n(4)]
    pub blob: Option<BlobRef>,
    /// Whether the key may stand for a new job if the previous job has failed or was revoked. Default: no.
    #[n(5)]
    pub again: Option<bool>,
}

/// The job is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Accepted {
    /// [`Submit::number`].
    #[n(0)]
    pub number: u32,
    /// The job.
    #[n(1)]
    pub job: JobId,
}

/// The job is refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refused {
    /// [`Submit::number`].
    #[n(0)]
    pub number: u32,
    /// Why.
    #[n(1)]
    #[cbor(decode_with = "Refusal::known_or_other")]
    pub reason: Refusal,
}

/// Why an origin did not accept a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// The queue is full: try later.
    #[n(1)]
    QueueFull,
    /// The canvas cannot be accepted; the text says why.
    #[n(2)]
    BadCanvas(#[n(0)] String),
    /// The node takes no jobs of other nodes.
    #[n(3)]
    NotResident,
    /// The node is about to leave: ask another node.
    #[n(4)]
    Draining,
    /// The node cannot write its journal; the text says why. Try later.
    #[n(5)]
    Storage(#[n(0)] String),
    /// The job has not failed, so it cannot be retried; the text says why.
    #[n(6)]
    NotRetriable(#[n(0)] String),
    /// This node holds a job with the key, or is about to accept one: submit to it.
    #[n(7)]
    Elsewhere(#[n(0)] NodeId),
    /// This node may hold a job with the key, and does not answer.
    #[n(8)]
    Unsure(#[n(0)] NodeId),
    /// The node has taken the job but cannot write it to its journal; the text says why. It accepts the job as soon
    /// as it can.
    #[n(9)]
    Unwritten(#[n(0)] String),
    /// A reason that this version does not know, by its number. Never sent.
    #[n(4294967295)]
    Other(#[n(0)] u32),
}

impl Refusal {
    /// Reads a reason. An unknown reason becomes [`Refusal::Other`], so that its client does not wait for ever.
    fn known_or_other<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<Refusal, decode::Error> {
        crate::known_or(decoder, context, |decoder| {
            let start = decoder.position();
            decoder.array()?;
            let number = decoder.u32()?;
            decoder.set_position(start);
            decoder.skip()?;
            Ok(Refusal::Other(number))
        })
    }
}

/// News of a job.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct JobEvent {
    /// Which job.
    #[n(0)]
    pub job: JobId,
    /// What happened.
    #[n(1)]
    pub news: JobNews,
    /// Where to pull the result of an ended job from, if it does not fit into a packet; the result is null then.
    #[n(2)]
    pub blob: Option<BlobRef>,
}

/// News of a job. Only `Ended` is repeated until acknowledged.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum JobNews {
    /// How many tasks have ended.
    #[n(0)]
    Progress {
        /// Ended tasks.
        #[n(0)]
        done: u32,
        /// All tasks.
        #[n(1)]
        total: u32,
    },
    /// A task logged a line.
    #[n(1)]
    Logged {
        /// Where it runs.
        #[n(0)]
        node: NodeId,
        /// `module.function`.
        #[n(1)]
        function: String,
        /// Number of the task in the job.
        #[n(2)]
        task: u32,
        /// The line.
        #[n(3)]
        text: String,
    },
    /// Tasks of this function wait, and no live node can run them.
    #[n(2)]
    NoNode {
        /// `module.function`.
        #[n(0)]
        function: String,
        /// What no live node has: parts of the routing, or the module.
        #[n(1)]
        on: Vec<String>,
        /// How many live nodes with slots there are.
        #[n(2)]
        nodes: u32,
    },
    /// A callback failed. The job does not.
    #[n(3)]
    CallbackFailed(#[n(0)] TaskError),
    /// How the job ended.
    #[n(4)]
    Ended(#[n(0)] Outcome),
    /// The origin does not know the job: it has restarted, or forgotten it.
    #[n(5)]
    Unknown,
    /// Progress of a task.
    #[n(6)]
    TaskProgress {
        /// Where it runs.
        #[n(0)]
        node: NodeId,
        /// `module.function`.
        #[n(1)]
        function: String,
        /// Number of the task in the job.
        #[n(2)]
        task: u32,
        /// How much is done, in the task's own units.
        #[n(3)]
        done: u32,
        /// Of how many; 0 if it does not know.
        #[n(4)]
        total: u32,
    },
    /// A task has failed and is retried. Best effort: if many tasks fail at once, only a few of them are reported.
    #[n(7)]
    Retried {
        /// The failure.
        #[n(0)]
        error: TaskError,
        /// When it is retried, in milliseconds from now.
        #[n(1)]
        again_ms: u64,
    },
    /// The answer to [`Revoke::mine`]: other clients wait for the job, so it continues.
    #[n(8)]
    GoesOn,
}

/// A client ends its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Revoke {
    /// The job.
    #[n(0)]
    pub job: JobId,
    /// Whether the job continues if it is detached or another client waits for it. This client no longer waits.
    #[n(1)]
    pub mine: Option<bool>,
}

/// Asks for manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ManifestRequest {
    /// Digest of the set that the sender has heard of. If the receiver has another set by now, it answers with its
    /// `Birth`.
    #[n(0)]
    pub digest: u64,
}

/// Some of the sender's manifests, as many as fit into a packet.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Manifests {
    /// Digest of the whole set.
    #[n(0)]
    pub digest: u64,
    /// How many modules the whole set has.
    #[n(1)]
    pub total: u16,
    /// Some of them.
    #[n(2)]
    pub entries: Vec<ModuleEntry>,
}

/// A value that does not fit into a packet of its receiver. It stays with the sender of the message until the
/// receiver has pulled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlobRef {
    /// The value.
    #[n(0)]
    pub id: ContentId,
    /// Its length.
    #[n(1)]
    pub bytes: u32,
    /// Longest piece that the sender can send. The receiver may ask for shorter pieces.
    #[n(2)]
    pub piece_bytes: u32,
}

/// Asks for pieces of content. All pieces except the last have the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContentRequest {
    /// The content.
    #[n(0)]
    pub content: ContentId,
    /// Index of the first piece.
    #[n(1)]
    pub first: u32,
    /// How many.
    #[n(2)]
    pub count: u16,
    /// Length of each piece, in bytes; of a module, [`crate::module::CHUNK_BYTES`].
    #[n(3)]
    pub piece_bytes: u32,
}

/// A piece of content. The receiver checks a piece of a module against its hash in the manifest, and a value as a
/// whole.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ContentPiece {
    /// The content.
    #[n(0)]
    pub content: ContentId,
    /// Offset of the piece in the content, in bytes.
    #[n(1)]
    pub offset: u32,
    /// Its bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// A node refuses a module, and keeps the modules that it has.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ModuleRefused {
    /// The module.
    #[n(0)]
    pub module: ModuleHash,
    /// Why.
    #[n(1)]
    pub reason: String,
    /// Whether this answers an origin that wants the module. Its tasks need not wait for this node.
    #[n(2)]
    pub asked: Option<bool>,
}

/// "Does another node have my name?" Sent to the sender's own name after connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    /// A random number. Only an answer that repeats it counts, so old answers cannot be replayed.
    #[n(0)]
    pub nonce: u64,
    /// How long the sender has been running.
    #[n(1)]
    pub age_ms: u64,
}

/// "Yes, and it has been running for longer."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Claimed {
    /// From the claim.
    #[n(0)]
    pub nonce: u64,
}

/// The state of a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Vitals {
    /// How many tasks it runs side by side, at most.
    #[n(0)]
    pub slots: u16,
    /// Tasks running.
    #[n(1)]
    pub running: u32,
    /// Leased tasks waiting for a slot.
    #[n(2)]
    pub queued: u32,
    /// Jobs that it holds as origin.
    #[n(3)]
    pub jobs: u32,
    /// Tasks that wait in its queue as origin.
    #[n(4)]
    pub ready: u32,
    /// Time since its start.
    #[n(5)]
    pub uptime_ms: u64,
    /// Tasks it has run.
    #[n(6)]
    pub tasks_run: u64,
    /// Newest version of each module it holds.
    #[n(7)]
    pub modules: Vec<ModuleVersion>,
    /// Whether it is about to leave.
    #[n(8)]
    pub draining: Option<bool>,
    /// What it waits for, if it is about to leave.
    #[n(9)]
    pub leaving: Option<Box<Leaving>>,
}

/// A module by name and version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct ModuleVersion {
    /// Name.
    #[n(0)]
    pub name: String,
    /// Version; 0 for native functions.
    #[n(1)]
    pub version: u64,
}

/// A line that a task logged.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Log {
    /// Which attempt.
    #[n(0)]
    pub attempt: Attempt,
    /// The line, at most 4 KiB.
    #[n(1)]
    pub text: String,
}

/// Progress of a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Progress {
    /// Which attempt.
    #[n(0)]
    pub attempt: Attempt,
    /// How much is done, in the task's own units.
    #[n(1)]
    pub done: u32,
    /// Of how many; 0 if it does not know.
    #[n(2)]
    pub total: u32,
}

/// "May I start some of these?" Sent to the one node that counts the starts of the function.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PermitRequest {
    /// A random number. Only an answer that repeats it counts, so no permit counts twice.
    #[n(0)]
    pub nonce: u64,
    /// `module.function`.
    #[n(1)]
    pub function: String,
    /// The minimum time between two starts, in microseconds. Starts are counted for each pair of function and
    /// interval.
    #[n(2)]
    pub interval_us: u64,
    /// How many tasks could be started.
    #[n(3)]
    pub tasks: u32,
}

/// "This many, from this time on."
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Permit {
    /// From the request.
    #[n(0)]
    pub nonce: u64,
    /// How many tasks may start; 0: ask again.
    #[n(1)]
    pub tasks: u32,
    /// When, in microseconds from now.
    #[n(2)]
    pub wait_us: u64,
}

/// Asks a node which other nodes it knows, in order of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MembersRequest {
    /// The last member that the sender knows; none: from the beginning.
    #[n(0)]
    pub after: Option<NodeId>,
    /// How many members it wants, at most.
    #[n(1)]
    pub max: u16,
}

/// Some of the members that a node knows.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberList {
    /// As many as were requested and fit into a packet, in order of their names.
    #[n(0)]
    pub members: Vec<MemberSummary>,
    /// Whether there are more after these.
    #[n(1)]
    pub more: bool,
}

/// A member as another node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberSummary {
    /// Its name.
    #[n(0)]
    pub name: NodeId,
    /// Whether it was online when it was last heard of, and this is not too long ago.
    #[n(1)]
    pub alive: bool,
    /// How long ago it was last heard of.
    #[n(2)]
    pub heard_ms: u64,
    /// Whether it has said goodbye.
    #[n(3)]
    pub left: bool,
    /// Whether it neither runs tasks nor takes jobs.
    #[n(4)]
    pub client: bool,
}
