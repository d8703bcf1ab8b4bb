//! The MQTT edge of a node: addresses of servers, one link to a server, and a server in the process.
//!
//! Owns sockets, MQTT packets and the limits on both. Never looks into a payload, never retries, waits or acknowledges
//! on behalf of the protocol above: that one tolerates loss, duplicates and reordering by itself.

mod link;
#[cfg(feature = "embedded-server")]
mod server;
mod url;
mod wire;

pub use link::{DisconnectReason, Link, LinkConfig, LinkEvent, PublishError, Will};
#[cfg(feature = "embedded-server")]
pub use server::{EmbeddedServer, ServerConfig, ServerError, ServerNotice};
pub use url::{ServerUrl, UrlError};

/// What an MQTT packet may need beyond its payload: header, topic, and the properties that a server adds on its own.
const PACKET_OVERHEAD_BYTES: usize = 1024;

/// The largest MQTT packet that carries a payload of `payload_bytes_max`.
fn mqtt_packet_bytes_max(payload_bytes_max: usize) -> u32 {
    u32::try_from(payload_bytes_max.saturating_add(PACKET_OVERHEAD_BYTES)).unwrap_or(u32::MAX)
}
