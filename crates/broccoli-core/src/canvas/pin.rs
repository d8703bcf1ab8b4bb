//! Routing to one node alone, whatever labels others have: how each run of a task on several nodes is tied to its node.

use alloc::string::String;

use broccoli_proto::NodeId;

/// How an entry of [`broccoli_proto::Options::on`] begins that only the node of this name fits, whatever labels others have.
pub(super) const PIN: char = '=';

/// The node that this routing ties a task to, if it is a run on one of several nodes.
pub fn pinned_to(on: &[String]) -> Option<&str> {
    on.first()?.strip_prefix(PIN)
}

/// Whether an entry of a routing names exactly this node.
pub(crate) fn is_pin(want: &str, node: NodeId) -> bool {
    want.strip_prefix(PIN) == Some(node.as_str())
}
