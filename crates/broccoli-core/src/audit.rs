//! What a node holds, read only: for tests and the simulator, which compare it with what they have
//! seen happen. Nothing in the core depends on it.

use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::message::Attempt;
use broccoli_proto::{BlobId, Cbor, ModuleHash, NodeId, TaskError};

use crate::io::RunId;
use crate::node::Node;

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

/// What a large value is that is pulled in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Large {
    /// The arguments of a task, pulled by its worker.
    Args,
    /// The result of a task, pulled by its origin.
    Result,
    /// A canvas, pulled by its origin.
    Canvas,
    /// What a job or a step of it came to, pulled by a client.
    News,
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

impl Node {
    /// Shows the state and the attempt of each task of each job that has become ready once, in
    /// order of job and step.
    pub fn audit_tasks(&self, see: &mut dyn FnMut(u64, u32, TaskState, u32)) {
        self.origin().audit_tasks(see);
    }

    /// One task; none if it is not known or was never ready.
    pub fn audit_task(&self, job: u64, step: u32) -> Option<TaskView<'_>> {
        self.origin().audit_task(job, step)
    }

    /// The jobs held and, as soon as it is known, what each came to.
    pub fn audit_jobs(&self, see: &mut dyn FnMut(u64, Known<'_>)) {
        self.origin().audit_jobs(see);
    }

    /// Which attempt of which origin a run is.
    pub fn attempt_of(&self, run: RunId) -> Option<(NodeId, Attempt)> {
        self.worker().attempt_of(run)
    }

    /// Shows from whom this node pulls which large values, and for what.
    pub fn audit_pulls(&self, see: &mut dyn FnMut(NodeId, BlobId, Large)) {
        self.shared().blobs.audit_pulls(see);
    }

    /// What a packet for this node has to repeat now, so that it counts; none before the first packet.
    pub fn audit_challenge(&self) -> Option<u64> {
        self.shared().sessions.audit_challenge()
    }

    /// Whether this origin has heard of another one, there or not, that may hold the job of a key.
    pub fn audit_has_met(&self, node: NodeId) -> bool {
        self.origin().audit_has_met(node)
    }

    /// How full each collection is that strangers can fill.
    pub fn sizes(&self) -> Vec<Size> {
        let mut sizes = Vec::new();
        let mut see = |name, len, max| sizes.push(Size { name, len, max });
        self.shared().sizes(&mut see);
        self.origin().sizes(self.shared(), &mut see);
        self.worker().sizes(&self.shared().config.limits, &mut see);
        self.modules().sizes(&self.shared().config.limits, &mut see);
        self.members_role().sizes(&self.shared().config.limits, &mut see);
        sizes
    }
}
