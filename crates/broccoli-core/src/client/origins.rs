//! The nodes that a client speaks to: which one takes a canvas, and the tokens that they gave.

use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::{Birth, Message};
use litemap::LiteMap;

use super::AGAIN;
use crate::members::Members;
use crate::shared::{Shared, pop_first};
use crate::time::Instant;

/// Sessions without a use are forgotten beyond this number.
const SESSIONS_MAX: usize = 64;

/// What this client has with one origin.
#[derive(Debug)]
struct Session {
    token: Option<u64>,
    /// Hellos that were not answered.
    hellos: u32,
    hello_at: Instant,
}

/// The origins of one client.
#[derive(Debug, Default)]
pub(super) struct Origins {
    sessions: LiteMap<NodeId, Session>,
}

impl Origins {
    /// The token of an origin.
    pub(super) fn token(&self, node: NodeId) -> Option<u64> {
        self.sessions.get(&node)?.token
    }

    /// The token of an origin; asks for one if there is none, not too often.
    pub(super) fn ask_token(&mut self, shared: &mut Shared, node: NodeId) -> Option<u64> {
        if self.sessions.len() >= SESSIONS_MAX && !self.sessions.contains_key(&node) {
            pop_first(&mut self.sessions);
        }
        let unasked = Session { token: None, hellos: 0, hello_at: shared.now };
        let session = self.sessions.entry(node).or_insert(unasked);
        if session.token.is_none() && shared.now >= session.hello_at {
            session.hellos += 1;
            session.hello_at = shared.now + AGAIN;
            shared.outbox.send(node, Message::Hello);
        }
        session.token
    }

    /// How many hellos an origin has not answered.
    pub(super) fn hellos(&self, node: NodeId) -> u32 {
        self.sessions.get(&node).map_or(0, |session| session.hellos)
    }

    /// An origin has given a token. Returns whether it was asked.
    pub(super) fn on_welcome(&mut self, node: NodeId, token: u64) -> bool {
        let Some(session) = self.sessions.get_mut(&node) else {
            return false;
        };
        (session.token, session.hellos) = (Some(token), 0);
        true
    }

    /// The token of an origin does not count any more.
    pub(super) fn on_stale(&mut self, node: NodeId) {
        if let Some(session) = self.sessions.get_mut(&node) {
            session.token = None;
        }
    }

    /// Nothing that an origin has said counts any more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.sessions.remove(&node);
    }

    /// Origins may have restarted meanwhile: those without an answer are asked anew, at once.
    pub(super) fn on_connected(&mut self, now: Instant) {
        for (_, session) in &mut self.sessions {
            (session.hellos, session.hello_at) = (0, now);
        }
    }
}

/// The origin of a canvas without a key: any live node that takes jobs of others, preferably one that
/// keeps them over a restart, and preferably not `not`.
pub(super) fn choose(shared: &mut Shared, members: &Members, not: Option<NodeId>) -> Option<NodeId> {
    let candidates = candidates(shared.me(), members, not);
    if candidates.is_empty() {
        return None;
    }
    let at = shared.rng.below(candidates.len() as u64) as usize;
    Some(candidates[at])
}

/// The origin of a canvas with a key: the same one for all clients that see the same nodes
/// (rendezvous hashing: Thaler, Ravishankar 1998).
pub(super) fn choose_by_key(me: NodeId, members: &Members, key: &str, not: Option<NodeId>) -> Option<NodeId> {
    candidates(me, members, not).into_iter().max_by_key(|name| (weight(key, *name), *name))
}

fn candidates(me: NodeId, members: &Members, not: Option<NodeId>) -> Vec<NodeId> {
    let takes_jobs = |(name, member): &(NodeId, &crate::members::Member)| member.birth.resident && *name != me;
    let resident = || members.alive().filter(takes_jobs);
    let any_durable = resident().any(|(name, member)| is_durable(&member.birth) && Some(name) != not);
    let fits = resident().filter(|(_, member)| !any_durable || is_durable(&member.birth));
    let mut candidates: Vec<NodeId> = fits.map(|(name, _)| name).collect();
    if candidates.len() > 1 {
        candidates.retain(|name| Some(*name) != not);
    }
    candidates
}

/// Whether a node keeps its jobs over a restart.
pub(super) fn is_durable(birth: &Birth) -> bool {
    birth.durable == Some(true)
}

/// FNV-1a over key and name, finished so that names that differ in one digit are far apart.
fn weight(key: &str, name: NodeId) -> u64 {
    let bytes = key.bytes().chain([0]).chain(name.as_str().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    crate::shared::Rng(hash).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_over_nodes_and_stay_when_another_node_comes() {
        let node = |number: usize| alloc::format!("pi-{number}").parse().expect("a name");
        let best = |nodes: usize, key: &str| (0..nodes).map(node).max_by_key(|name| weight(key, *name));
        let keys: Vec<_> = (0..1_000).map(|number| alloc::format!("job {number}")).collect();
        let share = |at| keys.iter().filter(|key| best(4, key) == Some(node(at))).count();
        assert!((0..4).all(|at| (180..320).contains(&share(at))), "{:?}", [0, 1, 2, 3].map(share));
        let moved = keys.iter().filter(|key| best(5, key) != best(4, key) && best(5, key) != Some(node(4))).count();
        assert_eq!(moved, 0, "only the new node takes keys over");
    }
}
