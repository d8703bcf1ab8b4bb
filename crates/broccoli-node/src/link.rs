//! The link to other nodes, in the addresses of the core.
//!
//! ```text
//!   driver ──publish(address, packet)──► Link ──► MQTT: topics, Will, probes of the server
//!          ◄──Event────────────────────
//! ```
//!
//! Owns everything that a kind of link needs besides packets. The driver uses only addresses. Each kind of link is a
//! variant here, and has its own module.

mod mqtt;

use std::time::Duration;

use broccoli_core::Timing;
use broccoli_proto::packet::Address;
use bytes::Bytes;

pub(crate) use self::mqtt::{MqttLink, MqttLinkConfig};
use crate::mqtt::{DisconnectReason, PublishError};

/// The link of a node.
pub(crate) enum Link {
    /// To an MQTT server.
    Mqtt(Box<MqttLink>),
}

/// An event of a link.
#[derive(Debug)]
pub(crate) enum Event {
    /// The link is up. It carries packets of at most this many bytes.
    Connected { packet_bytes_max: u32 },
    /// The link carries only packets of at most this many bytes. If this is not settled, the limit may be even lower.
    PacketLimit { bytes: u32, is_settled: bool },
    /// A packet for this address arrived.
    Packet { to: Address, packet: Bytes },
    /// A packet arrived that is not for an address of the cluster.
    Misdirected,
    /// The connection ended, or could not be made. Packets that were published but not sent are lost.
    Disconnected(DisconnectReason),
}

impl Link {
    /// The times of the protocol on this link.
    pub(crate) fn timing(&self) -> Timing {
        match self {
            // Over a network.
            Link::Mqtt(_) => Timing::FAST,
        }
    }

    /// Starts to connect; [`Link::next`] does the work. Other nodes get the packet `death` when the connection ends
    /// without [`Link::disconnect`].
    pub(crate) fn connect(&mut self, death: Vec<u8>) {
        match self {
            Link::Mqtt(link) => link.connect(death),
        }
    }

    /// Whether [`Link::publish`] accepts a packet now.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Link::Mqtt(link) => link.has_room(),
        }
    }

    /// Queues a packet. Never waits.
    ///
    /// # Errors
    /// If the packet is not accepted.
    pub(crate) fn publish(&mut self, to: Address, packet: &[u8]) -> Result<(), PublishError> {
        match self {
            Link::Mqtt(link) => link.publish(to, packet),
        }
    }

    /// Sends what is queued, then waits for the next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Event {
        match self {
            Link::Mqtt(link) => link.next().await,
        }
    }

    /// The next event among the data that has already arrived. Makes no system call.
    pub(crate) fn next_buffered(&mut self) -> Option<Event> {
        match self {
            Link::Mqtt(link) => link.next_buffered(),
        }
    }

    /// When the link counts as silent if nothing is delivered until then, as the time since the node started.
    pub(crate) fn silent_at(&self) -> Option<Duration> {
        match self {
            Link::Mqtt(link) => link.silent_at(),
        }
    }

    /// Whether the link is up but delivers nothing. True once for each connection.
    pub(crate) fn is_silent(&mut self) -> bool {
        match self {
            Link::Mqtt(link) => link.is_silent(),
        }
    }

    /// Sends everything published so far, and ends the connection properly. Takes at most one second.
    pub(crate) async fn disconnect(&mut self) {
        match self {
            Link::Mqtt(link) => link.disconnect().await,
        }
    }
}
