//! A node that may run a task, as its origin knows it.

use alloc::string::String;

use broccoli_proto::message::Takes;
use broccoli_proto::{Epoch, ModuleHash, NodeId};
use litemap::LiteMap;

/// Limits assumed for a node that does not state any.
pub(crate) const ANYTHING: Takes = Takes { args_bytes: u32::MAX, result_bytes: u32::MAX };

/// A node that matches a routing.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) takes: Takes,
    pub(crate) code: Code,
}

impl Place {
    /// Orders nodes by size. Nodes do not state their memory; their limit on arguments stands for it.
    pub(crate) fn size(&self) -> u32 {
        self.takes.args_bytes
    }
}

/// Whether a node can run the functions of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It holds the module.
    Here,
    /// It may still get the module.
    ToCome,
    /// It cannot load the module, or will never get it.
    Never,
    /// Its link has just gone down: it may come back with its modules.
    Away,
}

/// Modules that nodes could not load, with the reason.
pub(crate) type Refusals = LiteMap<(ModuleHash, NodeId), (Epoch, String)>;
