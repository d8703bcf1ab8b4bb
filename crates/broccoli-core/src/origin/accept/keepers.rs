//! Keepers: the nodes with a journal that may hold a job with a key. See `claims.rs`.

use alloc::string::String;

use broccoli_proto::NodeId;
use broccoli_proto::module::hash;
use litemap::LiteMap;

use crate::shared::Shared;

/// A set of nodes.
pub(crate) type Nodes = LiteMap<NodeId, ()>;

/// Other nodes with a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keepers {
    /// Keepers that are asked.
    pub(crate) known: Nodes,
    /// Keepers that are not asked any more, unless they announce themselves again.
    pub(crate) forgotten: Nodes,
}

impl Keepers {
    /// Adds a node that has announced itself. Returns whether anything changed.
    pub(crate) fn add(&mut self, node: NodeId, max: usize) -> bool {
        let was_forgotten = self.forgotten.remove(&node).is_some();
        let has_room = self.known.len() < max;
        (has_room && self.known.insert(node, ()).is_none()) || was_forgotten
    }

    /// Removes a node that need not be asked any more.
    pub(crate) fn retire(&mut self, node: NodeId, max: usize) -> bool {
        let is_known = self.known.remove(&node).is_some();
        if is_known && self.forgotten.len() < max {
            self.forgotten.insert(node, ());
        }
        is_known
    }

    /// The names of all keepers, including this node if it has a journal.
    pub(crate) fn names(&self, shared: &Shared) -> Nodes {
        let mut names = self.known.clone();
        if shared.config.durable {
            names.insert(shared.me(), ());
        }
        names
    }
}

/// A digest of the names; equal sets have equal digests.
pub(crate) fn digest(names: &Nodes) -> u64 {
    let mut text = String::new();
    for name in names.keys() {
        text.push_str(name.as_str());
        text.push('\n');
    }
    let [a, b, c, d, e, f, g, h, ..] = hash(text.as_bytes()).0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
