//! The MQTT server in this process, with the account of the cluster.

use std::net::SocketAddr;

use broccoli_node::Cluster;
use broccoli_node::core::Limits;
use broccoli_node::mqtt::{EmbeddedServer, ServerConfig, ServerError};

use crate::exit::Failure;

/// Nodes and clients at the same time.
const CLIENTS_MAX: usize = 1_000;

/// Starts it. Clients can connect when this returns.
///
/// # Errors
/// If it cannot listen there.
pub(crate) async fn start(cluster: &Cluster, listen: SocketAddr) -> Result<EmbeddedServer, Failure> {
    let (user, password) = cluster.mqtt_credentials();
    let packet_bytes_max = Limits::host().packet_bytes_max as usize;
    let config = ServerConfig { listen, user, password, packet_bytes_max, clients_max: CLIENTS_MAX };
    EmbeddedServer::start(config).await.map_err(|error| match error {
        ServerError::PortTaken { .. } | ServerError::Listen { .. } => Failure::usage(error),
        ServerError::Thread(_) | ServerError::Config(_) => Failure::failed(error),
    })
}
