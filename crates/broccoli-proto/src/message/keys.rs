//! How origins find out which of them holds the job with a key, and which nodes they no longer need to ask.

use alloc::string::String;
use alloc::vec::Vec;

use minicbor::{Decode, Encode};

use crate::NodeId;

/// "I am about to accept a job with this key: do you hold one, or are you about to?"
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyClaim {
    /// Random; only an answer that repeats it counts.
    #[n(0)]
    pub nonce: u64,
    /// The key.
    #[n(1)]
    pub key: String,
    /// Whether the asker keeps a journal: whoever answers asks it from now on, also after its own restart.
    #[n(2)]
    pub durable: bool,
    /// Digest of the names of those that the asker asks, and of its own if it keeps a journal.
    #[n(3)]
    pub keepers: u64,
}

/// The answer to a [`KeyClaim`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct KeyAnswer {
    /// From the claim.
    #[n(0)]
    pub nonce: u64,
    /// Whether it holds a job with the key, or is about to accept one and its name is the smaller one. If it was about to
    /// and is not the smaller one, it leaves the key to the asker.
    #[n(1)]
    pub taken: bool,
    /// The nodes with a journal that it knows, if the asker's digest is another one.
    #[n(2)]
    pub keepers: Vec<NodeId>,
}

/// A node will not come back: keys work without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forget {
    /// Its name.
    #[n(0)]
    pub node: NodeId,
}

/// The sender does not wait for this node any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Forgotten {
    /// Its name.
    #[n(0)]
    pub node: NodeId,
}
