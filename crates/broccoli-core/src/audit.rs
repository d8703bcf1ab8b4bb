//! What a node holds, read only: for tests and the simulator, which compare it with what they have
//! seen happen. Nothing in the core depends on it.

use alloc::string::String;

use broccoli_proto::{Cbor, ModuleHash, NodeId, TaskError};

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskState {
    /// Other tasks come before it.
    Unready,
    /// It waits for a time.
    Delayed,
    /// It waits for a worker.
    Ready,
    /// A worker has it, or is being sent it.
    Leased,
    /// It has an outcome, or will never run.
    Ended,
}

/// What a task or a job came to; none as long as that is not known.
pub type Known<'a> = Option<Result<&'a Cbor, &'a TaskError>>;

/// One task of a job.
#[derive(Debug)]
pub struct TaskView<'a> {
    /// Where it is.
    pub state: TaskState,
    /// Leases handed out so far: the number of the current attempt.
    pub attempt: u32,
    /// Who has it, if it is leased.
    pub worker: Option<NodeId>,
    /// Names, labels or capabilities that its node must have.
    pub on: &'a [String],
    /// The module that its function is bound to.
    pub module: ModuleHash,
    /// The length of its arguments, if some nodes were too small for it.
    pub too_small_for: Option<usize>,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// What it came to; none if it has not ended, and when only the list of its group is left.
    pub outcome: Known<'a>,
}

/// How full a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Which collection.
    pub name: &'static str,
    /// Elements that it holds.
    pub len: usize,
    /// Most elements that it may hold.
    pub max: usize,
}
