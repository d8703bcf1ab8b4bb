//! The way of packets to other nodes, in the addresses of the core.
//!
//! ```text
//!   driver ──publish(address, packet)──► Link ──► MQTT: topics, Will, probes of the server
//!          ◄──Event────────────────────
//! ```
//!
//! Owns what each kind of link needs beyond packets. A driver sees addresses only, and a kind of link is a variant here and a
//! module beside it.

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

/// What happened on a link.
#[derive(Debug)]
pub(crate) enum Event {
    /// It carries packets of at most so many bytes.
    Connected { packet_bytes_max: u32 },
    /// It turned out to carry packets of at most so many bytes, and perhaps fewer unless this is settled.
    PacketLimit { bytes: u32, is_settled: bool },
    /// A packet for this address came.
    Packet { to: Address, packet: Bytes },
    /// Something came that is for no address of the cluster.
    Misdirected,
    /// The connection, or the attempt to make one, ended. What was published and not sent is lost.
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

    /// Starts to connect; [`Link::next`] does the work. `death` is the packet that others get when the connection ends
    /// without [`Link::disconnect`].
    pub(crate) fn connect(&mut self, death: Vec<u8>) {
        match self {
            Link::Mqtt(link) => link.connect(death),
        }
    }

    /// Whether [`Link::publish`] takes a packet now.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Link::Mqtt(link) => link.has_room(),
        }
    }

    /// Queues a packet. Never waits.
    ///
    /// # Errors
    /// It is not taken.
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

    /// The next event among what has arrived already, without a system call.
    pub(crate) fn next_buffered(&mut self) -> Option<Event> {
        match self {
            Link::Mqtt(link) => link.next_buffered(),
        }
    }

    /// When it shows that the link delivers nothing, in the time since the node started.
    pub(crate) fn silent_at(&self) -> Option<Duration> {
        match self {
            Link::Mqtt(link) => link.silent_at(),
        }
    }

    /// Whether it shows now that the link is up and delivers nothing. True once for each connection.
    pub(crate) fn is_silent(&mut self) -> bool {
        match self {
            Link::Mqtt(link) => link.is_silent(),
        }
    }

    /// Ends the connection in good order, after everything published so far. Takes at most a second.
    pub(crate) async fn disconnect(&mut self) {
        match self {
            Link::Mqtt(link) => link.disconnect().await,
        }
    }
}
