//! MQTT: addresses of servers, the link to a server, and an embedded server.
//!
//! Owns sockets, MQTT packets and the limits of both. Never reads a payload. Does not retry or acknowledge for the
//! protocol above, which tolerates loss, duplicates and reordering.

mod link;
#[cfg(feature = "embedded-server")]
mod server;
mod url;
mod wire;

pub use link::{DisconnectReason, Link, LinkConfig, LinkEvent, PublishError, Will};
#[cfg(feature = "embedded-server")]
pub use server::{EmbeddedServer, ServerConfig, ServerError, ServerNotice};
pub use url::{ServerUrl, UrlError};

/// Most bytes of an MQTT packet besides its payload: header, topic, and the properties that a server adds.
const PACKET_OVERHEAD_BYTES: usize = 1024;

/// The largest MQTT packet that carries a payload of `payload_bytes_max`.
fn mqtt_packet_bytes_max(payload_bytes_max: usize) -> u32 {
    u32::try_from(payload_bytes_max.saturating_add(PACKET_OVERHEAD_BYTES)).unwrap_or(u32::MAX)
}
