//! Trace events of jobs and tasks on this node, for logs and spans.
//!
//! None are made unless enabled: see [`crate::Node::set_trace`]. Without the feature `trace` the code is left out,
//! since a microcontroller has no room for it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::time::Duration;

use broccoli_proto::message::{Attempt, Failure, LeasedFunction};
use broccoli_proto::{JobId, NodeId, TaskError};

/// Which [`crate::Event::Trace`] are reported; each level includes the earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TraceLevel {
    /// Nothing.
    #[default]
    Off,
    /// Jobs of this node as origin, and failed tasks.
    Jobs,
    /// Each task, lease and credit.
    Tasks,
}

/// A trace event of a job or task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Trace {
    /// This node has accepted a job, and the acceptance is safe.
    JobAccepted {
        /// The job.
        job: JobId,
        /// Its first function, `module.function`.
        function: String,
        /// Number of its tasks so far.
        tasks: u32,
        /// The node that submitted it; none if that is this node.
        client: Option<NodeId>,
    },
    /// A job of this node has ended, and its outcome is safe.
    JobEnded {
        /// The job.
        job: JobId,
        /// Its first function, `module.function`.
        function: String,
        /// Time since it was accepted.
        took: Duration,
        /// Why it failed; none if it has a result.
        error: Option<Box<TaskError>>,
    },
    /// An attempt at a task of a job of this node has failed, or the task has failed without an attempt.
    TaskFailed {
        /// The job.
        job: JobId,
        /// The error.
        error: Box<TaskError>,
        /// Pause before the retry; none if the task has failed.
        again: Option<Duration>,
    },
    /// A run on this node has ended. [`TraceLevel::Jobs`] includes only failed runs for jobs of other nodes.
    Ran {
        /// The job.
        job: JobId,
        /// The attempt at its task.
        attempt: Attempt,
        /// Its function.
        function: Arc<LeasedFunction>,
        /// Duration of the run.
        took: Duration,
        /// Why it failed; none if it succeeded.
        failure: Option<Box<Failure>>,
    },
    /// A run has started on this node.
    Started {
        /// The job.
        job: JobId,
        /// The attempt at its task.
        attempt: Attempt,
        /// Its function.
        function: Arc<LeasedFunction>,
    },
    /// This node has leased a task of its own job.
    Leased {
        /// The worker, which may be this node.
        worker: NodeId,
        /// The attempt at the task.
        attempt: Attempt,
    },
    /// A leased task is free again: its worker has returned it, or seems lost.
    Freed {
        /// The worker.
        worker: Option<NodeId>,
        /// The attempt at the task.
        attempt: Attempt,
        /// It had started, and its worker seems lost.
        lost: bool,
    },
    /// A worker gives this node credit for this many tasks.
    CreditReceived {
        /// The worker.
        worker: NodeId,
        /// Number of tasks.
        tasks: u32,
    },
    /// This node gives an origin credit for this many tasks.
    CreditGiven {
        /// The origin.
        origin: NodeId,
        /// Number of tasks.
        tasks: u32,
    },
}
