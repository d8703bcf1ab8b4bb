//! Read-only views of the state of a node, for tests and the simulator. Nothing in the core depends on it.

use alloc::string::String;

use broccoli_proto::{Cbor, ModuleHash, NodeId, TaskError};

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// It waits for other tasks.
    Unready,
    /// It waits for a time.
    Delayed,
    /// It waits for a worker.
    Ready,
    /// A worker holds it, or it is on its way there.
    Leased,
    /// It has an outcome, or will never run.
    Ended,
}

/// The outcome of a task or job; none if it is not known.
pub type Known<'a> = Option<Result<&'a Cbor, &'a TaskError>>;

/// One task of a job.
#[derive(Debug)]
pub struct TaskView<'a> {
    /// Its state.
    pub state: TaskState,
    /// Number of leases so far: the number of the current attempt.
    pub attempt: u32,
    /// The worker that holds it, if it is leased.
    pub worker: Option<NodeId>,
    /// Names, labels or capabilities that its node must have.
    pub on: &'a [String],
    /// The module that its function is bound to.
    pub module: ModuleHash,
    /// Size of its arguments in bytes, if some nodes were too small for it.
    pub too_small_for: Option<usize>,
    /// How often it may be retried after a failure.
    pub retries: u32,
    /// Its outcome; none if it has not ended, or if only the list of its group was kept.
    pub outcome: Known<'a>,
}

/// The size of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its name.
    pub name: &'static str,
    /// Number of elements.
    pub len: usize,
    /// Most elements.
    pub max: usize,
}
