//! The link to an MQTT server. It maps addresses to topics, and the death of a node to its Will.
//!
//! Nothing is retained, and QoS is 0: the protocol repeats what matters.

mod probe;

use std::time::{Duration, Instant};

use broccoli_proto::NodeId;
use broccoli_proto::packet::Address;
use broccoli_proto::topic::Topics;

use self::probe::{Heard, Probe};
use super::Event;
use crate::mqtt::{Link as Connection, LinkConfig, LinkEvent, PublishError, ServerUrl, Will};

/// How to reach a cluster through an MQTT server.
pub(crate) struct MqttLinkConfig {
    pub(crate) server: ServerUrl,
    pub(crate) credentials: (String, String),
    /// The id of the cluster.
    pub(crate) cluster: NodeId,
    pub(crate) name: NodeId,
    /// Unique for each incarnation of a node. Otherwise two nodes with the same name would end each other's
    /// connections.
    pub(crate) client_id: String,
    pub(crate) keep_alive_s: u16,
    pub(crate) packet_bytes_max: u32,
}

/// One connection after another.
pub(crate) struct MqttLink {
    connection: Connection,
    topics: Topics,
    name: NodeId,
    client_id: String,
    probe: Probe,
    started: Instant,
}

impl MqttLink {
    /// A link of a node that starts now. It does nothing before [`MqttLink::connect`].
    pub(crate) fn new(config: MqttLinkConfig, started: Instant) -> MqttLink {
        let MqttLinkConfig { server, credentials, cluster, name, client_id, keep_alive_s, packet_bytes_max } = config;
        let topics = Topics::new(cluster);
        let connection = Connection::new(LinkConfig {
            credentials: Some(credentials),
            keep_alive_s,
            packet_bytes_max: packet_bytes_max as usize,
            outbox_bytes_max: 2 * packet_bytes_max as usize,
            ..LinkConfig::new(server, topics.subscriptions(name, true))
        });
        MqttLink { connection, topics, name, probe: Probe::new(&client_id), client_id, started }
    }

    pub(crate) fn connect(&mut self, death: Vec<u8>) {
        let will = Will { topic: self.topics.topic(Address::Birth(self.name)), payload: death, retain: false };
        self.connection.connect(&self.client_id, Some(will));
    }

    pub(crate) fn has_room(&self) -> bool {
        self.connection.has_room()
    }

    pub(crate) fn publish(&mut self, to: Address, packet: &[u8]) -> Result<(), PublishError> {
        self.connection.publish(&self.topics.topic(to), packet, false)?;
        self.probe.on_sent(packet.len());
        self.send_probes();
        Ok(())
    }

    pub(crate) async fn next(&mut self) -> Event {
        loop {
            let event = self.connection.next().await;
            if let Some(event) = self.on_event(event) {
                return event;
            }
        }
    }

    pub(crate) fn next_buffered(&mut self) -> Option<Event> {
        loop {
            let event = self.connection.next_buffered()?;
            if let Some(event) = self.on_event(event) {
                return Some(event);
            }
        }
    }

    pub(crate) fn silent_at(&self) -> Option<Duration> {
        self.probe.silent_at()
    }

    pub(crate) fn is_silent(&mut self) -> bool {
        self.probe.is_silent(self.started.elapsed())
    }

    pub(crate) async fn disconnect(&mut self) {
        self.connection.disconnect().await;
    }

    /// Converts an event for the node. `None` for a probe without news.
    fn on_event(&mut self, event: LinkEvent) -> Option<Event> {
        match event {
            LinkEvent::Connected => {
                let packet_bytes_max = self.connection.packet_bytes_max();
                self.probe.on_connected(self.started.elapsed(), packet_bytes_max as usize);
                Some(Event::Connected { packet_bytes_max })
            }
            LinkEvent::Packet { topic, payload, .. } => {
                let to = std::str::from_utf8(&topic).ok().and_then(|topic| self.topics.address(topic));
                let own = (to == Some(Address::Node(self.name))).then_some(&payload[..]);
                match self.probe.on_packet(self.started.elapsed(), own) {
                    Heard::Other => Some(to.map_or(Event::Misdirected, |to| Event::Packet { to, packet: payload })),
                    Heard::Probe => {
                        self.send_probes();
                        None
                    }
                    Heard::Limit(bytes) => {
                        self.send_probes();
                        Some(limit(bytes, false))
                    }
                    Heard::Settled(bytes) => Some(limit(bytes, true)),
                }
            }
            LinkEvent::Disconnected { reason } => {
                self.probe.on_disconnected();
                Some(Event::Disconnected(reason))
            }
        }
    }

    /// Sends probes to the node itself, to find out which packets the server delivers.
    fn send_probes(&mut self) {
        let own = self.topics.topic(Address::Node(self.name));
        while self.connection.has_room() {
            let Some(packet) = self.probe.poll_transmit() else { break };
            // There is room, and no probe is larger than the link allows.
            let _ = self.connection.publish(&own, &packet, false);
        }
    }
}

fn limit(bytes: usize, is_settled: bool) -> Event {
    Event::PacketLimit { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), is_settled }
}
