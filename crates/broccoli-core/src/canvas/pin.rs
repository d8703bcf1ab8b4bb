//! Routing to one node alone, whatever labels other nodes have. It ties each run of a task with `each` to its node.

use alloc::string::String;

use broccoli_proto::NodeId;

/// First character of an entry of [`broccoli_proto::Options::on`] that matches only the node with this name.
pub(super) const PIN: char = '=';

/// The node of a task that is one run of a task with `each`. `on` is its routing.
pub fn pinned_to(on: &[String]) -> Option<&str> {
    on.first()?.strip_prefix(PIN)
}

/// Whether an entry of a routing matches only this node.
pub(crate) fn is_pin(want: &str, node: NodeId) -> bool {
    want.strip_prefix(PIN) == Some(node.as_str())
}
