//! Chooses the origin for a canvas.

use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::Birth;

use crate::members::Members;
use crate::shared::Shared;

/// The rank of an origin: staying nodes before leaving ones, then those that have answered, then those with a journal.
pub(super) fn rank(shared: &Shared, members: &Members, node: NodeId) -> (bool, bool, bool) {
    let durable = members.get(node).is_some_and(|member| is_durable(&member.birth));
    (!members.is_leaving(node), shared.sessions.epoch_of(node).is_some(), durable)
}

/// The origin for a canvas without a key: one of the best live resident nodes at random, if possible not `not`.
pub(super) fn choose(shared: &mut Shared, members: &Members, not: Option<NodeId>) -> Option<NodeId> {
    let mut candidates = residents(shared.me(), members, not);
    let best = candidates.iter().map(|node| rank(shared, members, *node)).max()?;
    candidates.retain(|node| rank(shared, members, *node) == best);
    let at = shared.rng.below(candidates.len() as u64) as usize;
    Some(candidates[at])
}

/// The node to ask if no live resident node is staying: a leaving one, if possible with a journal.
pub(super) fn choose_leaving(me: NodeId, members: &Members) -> Option<NodeId> {
    let leaving = members.alive().filter(|(name, member)| *name != me && member.birth.draining == Some(true));
    leaving.max_by_key(|(_, member)| is_durable(&member.birth)).map(|(name, _)| name)
}

/// The origin for a canvas with a key: the same for all clients that know the same nodes (rendezvous hashing: Thaler,
/// Ravishankar 1998).
pub(super) fn choose_by_key(me: NodeId, members: &Members, key: &str, not: Option<NodeId>) -> Option<NodeId> {
    let mut candidates = residents(me, members, not);
    let durable = |node: &NodeId| members.get(*node).is_some_and(|member| is_durable(&member.birth));
    if candidates.iter().any(durable) {
        candidates.retain(durable);
    }
    candidates.into_iter().max_by_key(|name| (weight(key, *name), *name))
}

/// The live resident nodes; without `not` if there are others.
fn residents(me: NodeId, members: &Members, not: Option<NodeId>) -> Vec<NodeId> {
    let takes_jobs = members.alive().filter(|(name, member)| member.birth.resident && *name != me);
    let mut residents: Vec<NodeId> = takes_jobs.map(|(name, _)| name).collect();
    if residents.len() > 1 {
        residents.retain(|name| Some(*name) != not);
    }
    residents
}

/// Whether a node keeps its jobs over a restart.
pub(super) fn is_durable(birth: &Birth) -> bool {
    birth.durable == Some(true)
}

/// FNV-1a over key and name, with a final mix so that similar names get very different values.
fn weight(key: &str, name: NodeId) -> u64 {
    let bytes = key.bytes().chain([0]).chain(name.as_str().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    broccoli_proto::SplitMix64(hash).bits()
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
