//! Finds the nodes that may run a task, and whether all live nodes are known.

use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::message::{Takes, Want};
use broccoli_proto::{Epoch, ModuleHash, NodeId};

use crate::members::matches;
use crate::origin::dispatch::announce::NO_NODE;
use crate::origin::dispatch::place::{ANYTHING, Code, Place};
use crate::origin::progress::each::SETTLED;
use crate::origin::{Around, Origin};
use crate::shared::{Shared, pop_first};
use crate::timing::{LinkTime, link_ms};

/// After a restart with jobs, the origin waits this long to hear from nodes: a node that answered before may be
/// stalled.
const HEARD_AGAIN: LinkTime = link_ms(5_000);

impl Origin {
    /// The live nodes that match a routing.
    pub(crate) fn places(&self, shared: &Shared, around: &Around<'_>, want: &Want) -> Vec<Place> {
        let mut places = Vec::new();
        let me = shared.me();
        let travels = around.modules.travels(&want.module);
        let place = |name: NodeId, epoch: Epoch, takes: Takes, holds: bool| {
            let refused = self.dispatch.refusals.get(&(want.module, name)).is_some_and(|(by, _)| *by == epoch);
            let code = match holds {
                true => Code::Here,
                false if travels && !refused => Code::ToCome,
                false => Code::Never,
            };
            Place { name, epoch, takes, code }
        };
        let holds = |digest: u64| around.modules.peer_holds(digest, &want.module);
        let config = &shared.config;
        if config.slots > 0 && !shared.draining && matches(&want.on, me, &config.features) {
            places.push(place(me, shared.epoch, config.limits.takes(), holds(around.modules.digest())));
        }
        for (name, member) in around.members.iter().filter(|(name, _)| *name != me) {
            let birth = &member.birth;
            let is_away = !member.alive && shared.now - member.heard < shared.timing(NO_NODE);
            if birth.slots > 0 && matches(&want.on, name, &birth.features) && (member.alive || is_away) {
                let peer = self.leases.peers.get(&name).filter(|peer| peer.epoch == member.epoch);
                let holds = holds(birth.modules) || peer.is_some_and(|peer| holds(peer.modules));
                let place = place(name, member.epoch, birth.takes.unwrap_or(ANYTHING), holds);
                places.push(if is_away { Place { code: Code::Away, ..place } } else { place });
            }
        }
        // A chip does not subscribe to births: it knows only the nodes that have asked it for work.
        for (name, peer) in &self.leases.peers {
            let is_there = !peer.suspected && *name != me && around.members.get(*name).is_none();
            if is_there && matches(&want.on, *name, &peer.features) {
                places.push(place(*name, peer.epoch, peer.takes, holds(peer.modules)));
            }
        }
        places
    }

    /// Whether all live nodes are known by now.
    pub(crate) fn sees_nodes(&self, shared: &Shared, around: &Around<'_>) -> bool {
        let is_alone = !self.journal.is_on() && around.members.iter().all(|(name, _)| name == shared.me());
        let settled = if self.leases.took_over { shared.timing(HEARD_AGAIN) } else { shared.timing(SETTLED) };
        if shared.connected { shared.now - self.growth.connected_at() >= settled } else { is_alone }
    }

    /// A node has reported that it cannot load a module.
    pub(crate) fn on_module_refused(
        &mut self,
        shared: &Shared,
        from: NodeId,
        epoch: Epoch,
        module: ModuleHash,
        mut reason: String,
    ) {
        if self.dispatch.refusals.len() >= shared.config.limits.nodes_max.min(REFUSALS_MAX) {
            pop_first(&mut self.dispatch.refusals);
        }
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        reason.shrink_to_fit();
        self.dispatch.refusals.insert((module, from), (epoch, reason));
        self.dispatch.due = true;
    }
}

/// Most refusals of modules that are remembered.
const REFUSALS_MAX: usize = 1_024;
/// Longest reason that is kept for a refusal, in bytes.
const REASON_BYTES_MAX: usize = 512;
