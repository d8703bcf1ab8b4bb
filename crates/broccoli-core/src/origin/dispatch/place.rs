//! A node that may run a task, as far as its origin knows.

use alloc::string::String;

use broccoli_proto::message::Takes;
use broccoli_proto::{Epoch, ModuleHash, NodeId};
use litemap::LiteMap;

/// What a node takes that does not say so.
pub(crate) const ANYTHING: Takes = Takes { args_bytes: u32::MAX, result_bytes: u32::MAX };

/// A node that a routing allows.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) name: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) takes: Takes,
    pub(crate) code: Code,
}

impl Place {
    /// The one order there is between nodes that say nothing of their memory.
    pub(crate) fn size(&self) -> u32 {
        self.takes.args_bytes
    }
}

/// Whether a node can run the functions of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// It holds the module.
    Here,
    /// It may get it.
    ToCome,
    /// It cannot load it, or never gets it.
    Never,
    /// Its link has just gone: it may come back with what it had.
    Away,
}

/// Modules that nodes cannot load, and why.
pub(crate) type Refusals = LiteMap<(ModuleHash, NodeId), (Epoch, String)>;
