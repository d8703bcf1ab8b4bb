//! Tasks that wait for a slot, and running tasks.

use alloc::sync::Arc;

use broccoli_proto::NodeId;
use broccoli_proto::message::{Attempt, LeasedFunction, LeasedTask};
use litemap::LiteMap;

use crate::io::RunId;
use crate::time::Instant;

/// A task that waits for a slot, or for its arguments.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) origin: NodeId,
    pub(super) function: Arc<LeasedFunction>,
    pub(super) task: LeasedTask,
    pub(super) since: Instant,
}

/// A running task.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) origin: NodeId,
    pub(super) attempt: Attempt,
    pub(super) since: Instant,
    pub(super) timeout_ms: Option<u64>,
    pub(super) function: Arc<LeasedFunction>,
}

/// The run of an attempt.
pub(super) fn run_of(running: &LiteMap<RunId, Running>, origin: NodeId, attempt: Attempt) -> Option<RunId> {
    running.iter().find(|(_, r)| r.origin == origin && r.attempt == attempt).map(|(run, _)| *run)
}

/// Size of a task's arguments, also if they are pulled.
pub(super) fn args_len(task: &LeasedTask) -> usize {
    task.blob.as_ref().map_or(task.args.as_bytes().len(), |blob| blob.bytes as usize)
}
