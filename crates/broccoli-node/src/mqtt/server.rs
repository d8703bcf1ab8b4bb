//! An MQTT server in this process, for clusters that have none.
//!
//! Owns its thread, its listener and the one account it admits. Keeps everything in memory: after a restart it knows
//! nothing. Never touches the disk, never lets anybody in without the credentials, never listens anywhere but where it
//! was told.

use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread;

use mqtt5::broker::auth::{AuthProvider, AuthResult};
use mqtt5::broker::config::{BrokerConfig, StorageBackend, StorageConfig};
use mqtt5::broker::{BrokerShutdownHandle, MqttBroker};
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use subtle::ConstantTimeEq;
use tokio::runtime;
use tokio::sync::oneshot;

use super::mqtt_packet_bytes_max;

/// What may wait for one client that does not read, in bytes; beyond, its packets are dropped.
const CLIENT_QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// The same in packets: small ones may wait in larger numbers, within reason.
const CLIENT_QUEUE_LEN_MIN: usize = 128;
const CLIENT_QUEUE_LEN_MAX: usize = 8192;
/// Topic filters of one client.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Retained packets per client that may connect: birth, vitals, and room for the clients that came before.
const RETAINED_PER_CLIENT: usize = 16;

/// Where to listen, whom to admit, and how much to hold.
#[derive(Clone)]
pub struct ServerConfig {
    /// The one address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// User name of the one account.
    pub user: String,
    /// Its password. Long and random: failed attempts are not counted, or one stranger could lock out a cluster.
    pub password: String,
    /// The largest payload, in bytes.
    pub packet_bytes_max: usize,
    /// Clients at the same time.
    pub clients_max: usize,
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig")
            .field("listen", &self.listen)
            .field("user", &self.user)
            .field("packet_bytes_max", &self.packet_bytes_max)
            .field("clients_max", &self.clients_max)
            .finish_non_exhaustive()
    }
}

/// Why the server did not start.
#[derive(Debug)]
pub enum ServerError {
    /// Something listens there already.
    PortTaken {
        /// The address that was asked for.
        addr: SocketAddr,
    },
    /// The system does not let us listen there.
    Listen {
        /// The address that was asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave us no thread or event queue.
    Thread(io::Error),
    /// The server refused its configuration, with its words.
    Config(String),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { addr } => write!(
                f,
                "{addr} is taken: choose another address with --listen, or use the MQTT server that is there with --server mqtt://USER:PASSWORD@{addr}"
            ),
            Self::Listen { addr, source } => write!(f, "cannot listen on {addr}: {source}"),
            Self::Thread(source) => write!(f, "cannot start the MQTT server's thread: {source}"),
            Self::Config(what) => write!(f, "cannot start the MQTT server: {what}"),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::Thread(source) => Some(source),
            Self::PortTaken { .. } | Self::Config(_) => None,
        }
    }
}

/// A running server. Dropping it stops it too, without waiting for the end.
pub struct EmbeddedServer {
    local_addr: SocketAddr,
    shutdown: BrokerShutdownHandle,
    stopped: oneshot::Receiver<()>,
}

impl fmt::Debug for EmbeddedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedServer({})", self.local_addr)
    }
}

impl EmbeddedServer {
    /// Starts a server on a thread of its own, so that neither it nor the caller's loop makes the other wait.
    /// Clients can connect when this returns.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let listen = config.listen;
        let (started_tx, started_rx) = oneshot::channel();
        let (stopped_tx, stopped) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Thread)?;
        thread::Builder::new()
            .name("mqtt-server".to_owned())
            .spawn(move || {
                runtime.block_on(run(config, started_tx));
                drop(runtime);
                // Nobody waits for it if the handle was dropped.
                let _ = stopped_tx.send(());
            })
            .map_err(ServerError::Thread)?;
        match started_rx.await {
            Ok(Ok((local_addr, shutdown))) => Ok(Self { local_addr, shutdown, stopped }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ServerError::Config(format!("the server on {listen} ended at once"))),
        }
    }

    /// Where it listens, with the port that was taken for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Ends all connections and waits until the port is free again.
    pub async fn stop(mut self) {
        self.shutdown.shutdown();
        // An error means that the thread is gone already.
        let _ = (&mut self.stopped).await;
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.shutdown.shutdown();
    }
}

type Started = Result<(SocketAddr, BrokerShutdownHandle), ServerError>;

async fn run(config: ServerConfig, started: oneshot::Sender<Started>) {
    let listen = config.listen;
    let mut server = match MqttBroker::with_config(server_config(&config)).await {
        Ok(server) => server.with_auth_provider(Arc::new(Account { user: config.user, password: config.password })),
        Err(error) => {
            let _ = started.send(Err(start_error(listen, &error.to_string())));
            return;
        }
    };
    let addr = server.local_addr().unwrap_or(listen);
    let shutdown = server.shutdown_handle();
    let mut ready = server.ready_receiver();
    let mut running = pin!(server.run());
    // Before it is ready it would not notice a shutdown.
    tokio::select! {
        _ = &mut running => return,
        _ = ready.wait_for(|ready| *ready) => {}
    }
    if started.send(Ok((addr, shutdown.clone()))).is_err() {
        shutdown.shutdown();
    }
    // It fails only before it is ready.
    let _ = running.await;
}

/// The server tells why it could not listen in prose only, so ask the system again.
fn start_error(listen: SocketAddr, message: &str) -> ServerError {
    match TcpListener::bind(listen) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => ServerError::PortTaken { addr: listen },
        Err(source) => ServerError::Listen { addr: listen, source },
        Ok(_) => ServerError::Config(message.to_owned()),
    }
}

fn server_config(config: &ServerConfig) -> BrokerConfig {
    let packet_bytes_max = mqtt_packet_bytes_max(config.packet_bytes_max) as usize;
    let queue_len = (CLIENT_QUEUE_BYTES / packet_bytes_max).clamp(CLIENT_QUEUE_LEN_MIN, CLIENT_QUEUE_LEN_MAX);
    let storage = StorageConfig::new()
        .with_backend(StorageBackend::Memory)
        .with_max_queued_messages_per_client(queue_len)
        .with_max_queued_bytes_per_client(CLIENT_QUEUE_BYTES);
    let mut broker = BrokerConfig::new()
        .with_bind_address(config.listen)
        .with_max_clients(config.clients_max)
        .with_max_packet_size(packet_bytes_max)
        .with_max_subscriptions_per_client(SUBSCRIPTIONS_MAX)
        .with_max_retained_messages(config.clients_max.saturating_mul(RETAINED_PER_CLIENT))
        .with_max_retained_message_size(packet_bytes_max);
    broker.storage_config = storage;
    broker.client_channel_capacity = queue_len;
    broker.topic_alias_maximum = 0;
    broker.sys_topics_enabled = false;
    // Without a password file the library insists on this for its own check; ours replaces that one before anybody can
    // connect.
    broker.auth_config.allow_anonymous = true;
    broker
}

/// The one account. It stands in for the server's own check, whose lockout after failed attempts goes by user name: with
/// one account, a stranger could lock out the cluster, and a random 32-byte password needs no lockout.
struct Account {
    user: String,
    password: String,
}

impl Account {
    fn admits(&self, user: &str, password: &[u8]) -> bool {
        let same_user = self.user.as_bytes().ct_eq(user.as_bytes());
        let same_password = self.password.as_bytes().ct_eq(password);
        (same_user & same_password).into()
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

impl AuthProvider for Account {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        _client_addr: SocketAddr,
    ) -> Answer<'a, mqtt5::error::Result<AuthResult>> {
        let admitted = match (&connect.username, &connect.password) {
            (Some(user), Some(password)) => self.admits(user, password),
            _ => false,
        };
        let result = if admitted {
            AuthResult::success_with_user(self.user.as_str())
        } else {
            AuthResult::fail(ReasonCode::BadUsernameOrPassword)
        };
        Box::pin(ready(Ok(result)))
    }

    fn authorize_publish<'a>(
        &'a self,
        _client_id: &str,
        _user_id: Option<&'a str>,
        _topic: &'a str,
    ) -> Answer<'a, bool> {
        Box::pin(ready(true))
    }

    fn authorize_subscribe<'a>(
        &'a self,
        _client_id: &str,
        _user_id: Option<&'a str>,
        _topic_filter: &'a str,
    ) -> Answer<'a, bool> {
        Box::pin(ready(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_admits_only_the_whole_credentials() {
        let account = Account { user: "cluster".into(), password: "secret".into() };
        assert!(account.admits("cluster", b"secret"));
        assert!(!account.admits("cluster", b"secre"));
        assert!(!account.admits("cluster", b"secret2"));
        assert!(!account.admits("Cluster", b"secret"));
        assert!(!account.admits("", b""));
    }

    #[test]
    fn queue_of_a_slow_client_is_bounded_in_bytes() {
        let config = |packet_bytes_max| {
            server_config(&ServerConfig {
                listen: ([127, 0, 0, 1], 0).into(),
                user: String::new(),
                password: String::new(),
                packet_bytes_max,
                clients_max: 4,
            })
        };
        assert_eq!(config(512).client_channel_capacity, 8192);
        let server = config(64 * 1024);
        assert!(server.client_channel_capacity * server.max_packet_size <= CLIENT_QUEUE_BYTES);
    }
}
