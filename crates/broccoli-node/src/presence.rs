//! The list of all nodes of the cluster. The origin to which this node is attached knows the others, including those
//! that are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broccoli_core::{Event, Node};
use broccoli_proto::NodeId;
use broccoli_proto::message::{MemberSummary, Vitals};
use tokio::time::{self, Instant};

use crate::driver::{Command, NodeEvent};
use crate::handle::NodeHandle;
use crate::view::NodeView;

/// Requests without an answer are repeated after this time.
const AGAIN: Duration = Duration::from_millis(300);

/// The nodes of a cluster at one time.
#[derive(Default)]
struct Presence {
    /// All members that the origin of this node knows, by name, including clients.
    members: BTreeMap<NodeId, MemberSummary>,
    /// The vitals of the nodes that have answered.
    vitals: BTreeMap<NodeId, Vitals>,
}

impl NodeHandle {
    /// Asks all nodes for their vitals, and waits until all nodes that are known to be online have answered, at most
    /// `wait`. Returns all known nodes by name: also clients, and for a day those that are offline. None if this node has
    /// stopped.
    pub async fn nodes(&self, wait: Duration) -> Option<Vec<NodeView>> {
        let Presence { members, mut vitals } = self.presence(wait).await;
        let known = self.view().await?.nodes.into_iter();
        let mut known: BTreeMap<NodeId, NodeView> = known.map(|node| (node.name, node)).collect();
        let names = members.keys().chain(known.keys()).chain(vitals.keys()).copied();
        let names: BTreeSet<NodeId> = names.collect();
        let node = |name| NodeView::told(name, known.remove(&name), vitals.remove(&name), members.get(&name));
        Some(names.into_iter().map(node).collect())
    }

    async fn presence(&self, wait: Duration) -> Presence {
        let mut events = self.listen();
        let mut presence = Presence::default();
        let end = Instant::now() + wait;
        let home = self.query(Node::home).await.flatten();
        let (mut listed, mut again) = (home.is_none(), Instant::now());
        while !(listed && self.is_complete(&presence).await) && Instant::now() < end {
            if again <= Instant::now() {
                again = Instant::now() + AGAIN;
                self.command(Command::AskVitals).await;
                if let Some(of) = home.filter(|_| !listed) {
                    presence.members.clear();
                    self.command(Command::AskMembers { of, after: None }).await;
                }
            }
            match time::timeout_at(again.min(end), events.recv()).await {
                Ok(Some(NodeEvent::Cluster(Event::Vitals(name, vitals)))) => drop(presence.vitals.insert(name, vitals)),
                Ok(Some(NodeEvent::Cluster(Event::Members(of, list)))) if Some(of) == home => {
                    let after = list.members.last().map(|last| last.name);
                    presence.members.extend(list.members.into_iter().map(|member| (member.name, member)));
                    match after.filter(|_| list.more) {
                        Some(_) => self.command(Command::AskMembers { of, after }).await,
                        None => listed = true,
                    }
                }
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {}
            }
        }
        presence
    }

    /// Waits until this node knows all nodes that the cluster knows to be online, at most `wait`.
    pub async fn meet_all(&self, wait: Duration) {
        let end = Instant::now() + wait;
        let known = self.presence(wait).await;
        let expected: Vec<NodeId> = known.vitals.into_keys().collect();
        let mut again = Instant::now() + AGAIN;
        while Instant::now() < end {
            let names = expected.clone();
            let is_known = move |node: &Node| {
                let alive: Vec<NodeId> =
                    node.members().filter(|(_, member)| member.alive).map(|(name, _)| name).collect();
                names.iter().all(|name| alive.binary_search(name).is_ok())
            };
            if self.query(is_known).await != Some(false) {
                return;
            }
            if again <= Instant::now() {
                again = Instant::now() + AGAIN;
                self.command(Command::AskAll).await;
            }
            time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Whether all nodes that are known to be online have answered.
    async fn is_complete(&self, presence: &Presence) -> bool {
        let heard: Vec<NodeId> = presence.vitals.keys().copied().collect();
        let is_heard = move |name: &NodeId| heard.binary_search(name).is_ok();
        let listed = presence.members.values().filter(|member| member.alive && !member.client);
        if !listed.map(|member| &member.name).all(&is_heard) {
            return false;
        }
        let is_node = |member: &broccoli_core::Member| {
            let birth = &member.birth;
            member.alive && (birth.slots > 0 || birth.resident || birth.draining == Some(true))
        };
        let all =
            move |node: &Node| node.members().filter(|(_, member)| is_node(member)).all(|(name, _)| is_heard(&name));
        self.query(all).await != Some(false)
    }
}
