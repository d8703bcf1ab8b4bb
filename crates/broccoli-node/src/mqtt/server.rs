//! An embedded MQTT server, for clusters without another one.
//!
//! Owns its thread, its listener and its only account. Keeps everything in memory, so it is empty after a restart.
//! Never touches the disk, never accepts a client without the credentials, never listens on any other address, and has
//! limits for everything that it holds: see docs/limits.md.

mod door;
mod hold;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mqtt5::broker::config::{BrokerConfig, StorageConfig};
use mqtt5::broker::resource_monitor::{ResourceLimits, ResourceMonitor};
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::storage::QueueLimits;
use mqtt5::broker::sys_topics::BrokerStats;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{broadcast, oneshot};
use tokio::time::sleep;

use super::mqtt_packet_bytes_max;
use door::{Account, Door, KEEP_ALIVE_MAX, Rooms};
use hold::Hold;

/// Longest CONNECT with its Will, and longest packet that is retained under one topic. Those of nodes have a few
/// hundred bytes.
const CONNECT_BYTES_MAX: usize = 8 * 1024;
/// Most packets that wait for one client. More are dropped. This is enough for the births of all nodes, which arrive at
/// once when a client subscribes.
const CLIENT_QUEUE_LEN: usize = 16_384;
/// Most copies of QoS 1 packets for one client that has fallen behind. Nodes use QoS 1 only for births.
const CLIENT_BACKLOG_LEN: usize = 256;
const CLIENT_BACKLOG_BYTES: usize = 256 * 1024;
/// Most topic filters of one client.
const SUBSCRIPTIONS_MAX: usize = 16;
/// Retained packets for each client: its birth, and room for births of earlier clients …
const RETAINED_PER_CLIENT: usize = 3;
/// … and for the Wills of all clients, for which the library does not ask the event handler.
const WILLS_PER_CLIENT: usize = 1;
/// How often the remains of disconnected clients are removed.
const SWEEP: Duration = Duration::from_secs(30);
/// Most connections that wait to be accepted. The system may have a lower limit.
const BACKLOG: u32 = 4_096;

/// Where to listen, which account to accept, and the limits.
#[derive(Clone)]
pub struct ServerConfig {
    /// The only address to listen on. Port 0 chooses a free port.
    pub listen: SocketAddr,
    /// User name of the only account.
    pub user: String,
    /// Its password. It must be long and random: failed attempts are not counted, because a lockout would let one
    /// stranger lock out the whole cluster.
    pub password: String,
    /// The largest payload, in bytes.
    pub packet_bytes_max: usize,
    /// Most clients at the same time. Each needs a file descriptor.
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
#[non_exhaustive]
pub enum ServerError {
    /// The port is already in use.
    PortTaken {
        /// The requested address.
        addr: SocketAddr,
    },
    /// The system does not allow listening on this address.
    Listen {
        /// The requested address.
        addr: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The system provided no thread or event queue.
    Thread(io::Error),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken { addr } => write!(f, "{addr} is taken"),
            Self::Listen { addr, source } => write!(f, "cannot listen on {addr}: {source}"),
            Self::Thread(source) => write!(f, "cannot start the MQTT server's thread: {source}"),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::Thread(source) => Some(source),
            Self::PortTaken { .. } => None,
        }
    }
}

/// A problem that the operator of a server should know. Each is reported once until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerNotice {
    /// A client with the right password was refused, because the server is full.
    Full {
        /// The limit of clients.
        clients_max: usize,
    },
    /// The system could not accept a connection, with its error. Usually there are no file descriptors left.
    NoConnection(String),
}

impl fmt::Display for ServerNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { clients_max } => write!(
                f,
                "the MQTT server is full: it takes {clients_max} nodes and commands at a time, and refuses more"
            ),
            Self::NoConnection(why) => {
                write!(f, "the MQTT server cannot take more connections: {why}; raise the limit with `ulimit -n`")
            }
        }
    }
}

/// A running server. Dropping it stops it, too, without waiting for the end.
pub struct EmbeddedServer {
    local_addr: SocketAddr,
    shutdown: broadcast::Sender<()>,
    stopped: oneshot::Receiver<()>,
    notices: Option<UnboundedReceiver<ServerNotice>>,
}

impl fmt::Debug for EmbeddedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedServer({})", self.local_addr)
    }
}

impl EmbeddedServer {
    /// Starts a server on its own thread, so that the server and the caller's loop do not delay each other. Clients can
    /// connect when this returns.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let listen = config.listen;
        let (started_tx, started_rx) = oneshot::channel();
        let (stopped_tx, stopped) = oneshot::channel();
        let (notices_tx, notices) = unbounded_channel();
        let (shutdown, _) = broadcast::channel(1);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(ServerError::Thread)?;
        let stop = shutdown.clone();
        thread::Builder::new()
            .name("mqtt-server".to_owned())
            .spawn(move || {
                runtime.block_on(run(config, stop, notices_tx, started_tx));
                drop(runtime);
                // Nobody waits for it if the handle was dropped.
                let _ = stopped_tx.send(());
            })
            .map_err(ServerError::Thread)?;
        match started_rx.await {
            Ok(Ok(local_addr)) => Ok(Self { local_addr, shutdown, stopped, notices: Some(notices) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ServerError::Listen { addr: listen, source: io::ErrorKind::Interrupted.into() }),
        }
    }

    /// The address on which it listens, with the actual port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Problems for the operator, from now on. Empty at a second call.
    pub fn notices(&mut self) -> UnboundedReceiver<ServerNotice> {
        self.notices.take().unwrap_or_else(|| unbounded_channel().1)
    }

    /// Ends all connections, and waits until the port is free.
    pub async fn stop(mut self) {
        self.stop_soon();
        // An error means that the thread has already ended.
        let _ = (&mut self.stopped).await;
    }

    fn stop_soon(&self) {
        // An error means that nothing is running any more.
        let _ = self.shutdown.send(());
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.stop_soon();
    }
}

type Started = Result<SocketAddr, ServerError>;

/// The type of answers to the library's callbacks.
type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

async fn run(
    config: ServerConfig,
    shutdown: broadcast::Sender<()>,
    notices: UnboundedSender<ServerNotice>,
    started: oneshot::Sender<Started>,
) {
    // Subscribe first, because a shutdown may be sent as soon as the server has started.
    let (mut stop, door_stop) = (shutdown.subscribe(), shutdown.subscribe());
    let listening = listen(config.listen);
    let (listener, addr) = match listening {
        Ok(listening) => listening,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let rooms = rooms(&config, shutdown);
    let router = rooms.router.clone();
    let account = Account { user: config.user, password: config.password };
    let door = Door::new(account, rooms, config.clients_max, notices);
    let mut kept = tokio::spawn(door.keep(listener, door_stop));
    if started.send(Ok(addr)).is_err() {
        return;
    }
    loop {
        tokio::select! {
            _ = &mut kept => return,
            _ = stop.recv() => break,
            () = sleep(SWEEP) => router.sweep_sessions().await,
        }
    }
    // It panics only if the library panics. Then there is nothing to wait for.
    let _ = kept.await;
}

fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let open = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Makes the port free again as soon as its server has ended.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let listener = socket.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        Ok((listener, addr))
    };
    open().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ServerError::PortTaken { addr },
        _ => ServerError::Listen { addr, source },
    })
}

/// The server of the library without its listeners. Without a store, it keeps no sessions.
fn rooms(config: &ServerConfig, shutdown: broadcast::Sender<()>) -> Rooms {
    let clients_max = config.clients_max;
    let retained_max = clients_max.saturating_mul(RETAINED_PER_CLIENT);
    let hold = Arc::new(Hold::new(retained_max));
    let broker = broker_config(config, hold.clone());
    let backlog = QueueLimits { max_messages: CLIENT_BACKLOG_LEN, max_bytes: CLIENT_BACKLOG_BYTES };
    let retained_and_wills = retained_max.saturating_add(clients_max.saturating_mul(WILLS_PER_CLIENT));
    let router = MessageRouter::new()
        .with_fallback_queue_limits(backlog)
        .with_event_handler(hold)
        .with_retained_limits(retained_and_wills, CONNECT_BYTES_MAX);
    let mut short = broker.clone();
    short.server_keep_alive = Some(KEEP_ALIVE_MAX);
    // The door limits the number of clients; this only counts.
    let limits = ResourceLimits { max_message_rate_per_client: 0, max_bandwidth_per_client: 0, ..Default::default() };
    Rooms {
        config: Arc::new(broker),
        config_short: Arc::new(short),
        router: Arc::new(router),
        stats: Arc::new(BrokerStats::new()),
        monitor: Arc::new(ResourceMonitor::new(limits)),
        shutdown,
    }
}

fn broker_config(config: &ServerConfig, hold: Arc<Hold>) -> BrokerConfig {
    let packet_bytes_max = mqtt_packet_bytes_max(config.packet_bytes_max) as usize;
    let mut broker = BrokerConfig::new()
        .with_max_packet_size(packet_bytes_max)
        // With QoS 2, the server would have to keep messages until clients complete them.
        .with_maximum_qos(1)
        .with_client_channel_capacity(CLIENT_QUEUE_LEN)
        .with_max_subscriptions_per_client(SUBSCRIPTIONS_MAX);
    broker.storage_config = StorageConfig { enable_persistence: false, ..StorageConfig::new() };
    broker.shared_subscription_available = false;
    broker.topic_alias_maximum = 0;
    broker.sys_topics_enabled = false;
    broker.event_handler = Some(hold);
    broker
}
