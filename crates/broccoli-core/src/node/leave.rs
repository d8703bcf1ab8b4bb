//! How far a node is with its leave: see `drain.rs`.

use broccoli_proto::NodeId;

/// How far a node is with its leave.
#[derive(Debug, Default)]
pub(super) struct Leave {
    /// It waits for nothing any more.
    pub(super) handed_back: bool,
    /// It has said goodbye.
    pub(super) told: bool,
    /// The last client that has asked for it: it hears what is lost.
    pub(super) by: Option<NodeId>,
}
