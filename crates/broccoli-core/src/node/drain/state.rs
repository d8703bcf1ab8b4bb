//! The state of a node that is leaving.

use broccoli_proto::NodeId;

/// Progress of a leave.
#[derive(Debug, Default)]
pub(in crate::node) struct Leave {
    /// It no longer waits for running tasks or jobs.
    pub(in crate::node) handed_back: bool,
    /// It has said goodbye.
    pub(in crate::node) told: bool,
    /// The last client that has requested it; it is told what is lost.
    pub(in crate::node) by: Option<NodeId>,
}
