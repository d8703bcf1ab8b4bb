//! How origins find out which of them holds the job with a key, and which nodes they no longer need to ask.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use crate::NodeId;

/// "I am about to accept a job with this key: do you hold one, or are you about to?"
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyClaim {
    /// A random number. Only an answer that repeats it counts.
    #[n(0)]
    pub nonce: u64,
    /// The key.
    #[n(1)]
    pub key: String,
    /// Whether the sender keeps a journal. Then the receiver asks it about keys from now on, also after a restart of
    /// the receiver.
    #[n(2)]
    pub durable: bool,
    /// Digest of the names of the nodes that the sender asks, and of its own name if it keeps a journal.
    #[n(3)]
    pub keepers: u64,
}

/// The answer to a [`KeyClaim`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyAnswer {
    /// From the claim.
    #[n(0)]
    pub nonce: u64,
    /// Whether it holds a job with the key, or is about to accept one and has the smaller name. If it is about to
    /// accept one and has the larger name, it leaves the key to the other node.
    #[n(1)]
    pub taken: bool,
    /// The nodes with a journal that it knows, itself included, if the digest of the other node differs: the first
    /// ones in order of name that fit into a packet.
    #[n(2)]
    pub keepers: Vec<NodeId>,
}

/// A node will not come back, so nobody asks it about keys any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forget {
    /// Its name.
    #[n(0)]
    pub node: NodeId,
}

/// The sender no longer asks this node about keys, and that is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forgotten {
    /// Its name.
    #[n(0)]
    pub node: NodeId,
}
