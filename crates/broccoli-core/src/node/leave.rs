//! State of a node that is leaving: see `drain.rs`.

use broccoli_proto::NodeId;

/// Progress of a leave.
#[derive(Debug, Default)]
pub(super) struct Leave {
    /// It no longer waits for running tasks or jobs.
    pub(super) handed_back: bool,
    /// It has said goodbye.
    pub(super) told: bool,
    /// The last client that has requested it; it is told what is lost.
    pub(super) by: Option<NodeId>,
}
