//! What happens to jobs and tasks on this node, one by one, for logs and spans.
//!
//! Nothing of it is made unless somebody has asked: see [`crate::Node::set_trace`]. Without the feature `trace` there
//! is none at all: a microcontroller has no room for it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use broccoli_proto::message::{Attempt, Failure, LeasedFunction};
use broccoli_proto::{JobId, NodeId, TaskError};

/// How much of what happens comes as [`Event::Trace`]; each level contains those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TraceLevel {
    /// Nothing.
    #[default]
    Off,
    /// Jobs of this node as their origin, and tasks that failed.
    Jobs,
    /// Each task, lease and credit.
    Tasks,
}

/// Something that has happened to a job or a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Trace {
    /// This node has accepted a job, and that is safe.
    JobAccepted {
        /// The job.
        job: JobId,
        /// Its first function, `module.function`.
        function: String,
        /// How many tasks it has so far.
        tasks: u32,
        /// The node that submitted it; none if that is this node.
        client: Option<NodeId>,
    },
    /// A job of this node has ended, and that is safe.
    JobEnded {
        /// The job.
        job: JobId,
        /// Its first function, `module.function`.
        function: String,
        /// Since it was accepted.
        took: Duration,
        /// Why it failed; none if it has a result.
        error: Option<Box<TaskError>>,
    },
    /// An attempt at a task of a job of this node has failed, or a task ends without one.
    TaskFailed {
        /// The job.
        job: JobId,
        /// What went wrong, where.
        error: Box<TaskError>,
        /// When it is tried again; none if the task has failed.
        again: Option<Duration>,
    },
    /// A run on this node has ended. [`TraceLevel::Jobs`] has only those that failed and whose job is on another node.
    Ran {
        /// The job.
        job: JobId,
        /// The attempt at its task.
        attempt: Attempt,
        /// What ran.
        function: Arc<LeasedFunction>,
        /// How long.
        took: Duration,
        /// Why it failed.
        failure: Option<Box<Failure>>,
    },
    /// A run has begun on this node.
    Started {
        /// The job.
        job: JobId,
        /// The attempt at its task.
        attempt: Attempt,
        /// What runs.
        function: Arc<LeasedFunction>,
    },
    /// This node has leased a task of its own job.
    Leased {
        /// To which node, which may be this one.
        worker: NodeId,
        /// The attempt at the task.
        attempt: Attempt,
    },
    /// A leased task is free again: its worker has handed it back, or seems lost.
    Freed {
        /// Whose it was.
        worker: Option<NodeId>,
        /// The attempt at the task.
        attempt: Attempt,
        /// It had started, and its worker seems lost.
        lost: bool,
    },
    /// A worker allows this node to lease it so many tasks.
    CreditReceived {
        /// The worker.
        worker: NodeId,
        /// How many tasks.
        tasks: u32,
    },
    /// This node allows an origin to lease it so many tasks.
    CreditGiven {
        /// The origin.
        origin: NodeId,
        /// How many tasks.
        tasks: u32,
    },
}
