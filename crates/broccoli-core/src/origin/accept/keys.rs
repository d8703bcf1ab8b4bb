//! State of claims: the keys that this node is claiming, and the nodes that may hold them. See `claims.rs`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::Submit;
use litemap::LiteMap;

use crate::config::Limits;
use crate::origin::accept::keepers::Keepers;
use crate::origin::journal::records::Submitter;
use crate::shared::Shared;
use crate::time::Instant;
use crate::timers::Timer;

/// Most open claims.
pub(crate) const CLAIMS_MAX: usize = 1_024;

/// The nodes that may hold a job with a key, and the keys that this node is claiming.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    pub(crate) keepers: Keepers,
    pub(crate) claims: LiteMap<String, Box<Claim>>,
    /// Bytes of the canvases of waiting submits.
    pub(crate) bytes: usize,
    /// From this time on, other nodes have had time to announce themselves.
    pub(crate) settled: Instant,
    /// The write of the journal that makes the keepers safe.
    pub(crate) noted_in: u64,
}

/// A key that this node is claiming.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) nonce: u64,
    pub(crate) asked: LiteMap<NodeId, Asked>,
    /// How often it was checked.
    pub(crate) looks: u32,
    pub(crate) waiting: Vec<(Submitter, Submit)>,
}

#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) since: Instant,
    pub(crate) answered: bool,
}

/// Invariants, for tests and the simulator.
impl Keys {
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("claims of keys", self.claims.len(), CLAIMS_MAX);
        see("nodes that may hold a key", self.keepers.known.len(), limits.nodes_max);
        see("forgotten nodes", self.keepers.forgotten.len(), limits.nodes_max);
    }

    pub(crate) fn validate(&self, shared: &Shared) {
        let waiting = self.claims.values().flat_map(|claim| &claim.waiting);
        assert_eq!(self.bytes, waiting.map(|(_, submit)| submit.canvas.as_bytes().len()).sum::<usize>());
        assert_eq!(!self.claims.is_empty(), shared.timers.is_set(Timer::Keys), "claims are looked after");
        assert!(self.claims.values().all(|claim| !claim.waiting.is_empty()), "somebody waits for each claim");
        assert!(
            self.keepers.known.keys().all(|node| !self.keepers.forgotten.contains_key(node)),
            "a keeper is forgotten or not"
        );
    }

    pub(crate) fn has_met(&self, node: NodeId) -> bool {
        self.keepers.known.contains_key(&node) || self.keepers.forgotten.contains_key(&node)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.claims.is_empty()
    }
}
