//! An MQTT server in this process, for clusters that have none.
//!
//! Owns its thread, its listener and the one account it admits. Keeps everything in memory: after a restart it knows
//! nothing. Never touches the disk, never lets anybody in without the credentials, never listens anywhere but where it
//! was told, and holds no more than its bounds: see docs/limits.md.

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

/// A CONNECT with its Will, and what may be retained under one topic. One of ours has a few hundred bytes.
const CONNECT_BYTES_MAX: usize = 8 * 1024;
/// Packets that may wait for one client; beyond, new ones for it are dropped. Room for the births of as many nodes as
/// there may be, which come all at once when it subscribes.
const CLIENT_QUEUE_LEN: usize = 16_384;
/// Copies of packets at QoS 1 for one client that has fallen behind: births only, as far as we are concerned.
const CLIENT_BACKLOG_LEN: usize = 256;
const CLIENT_BACKLOG_BYTES: usize = 256 * 1024;
/// Topic filters of one client.
const SUBSCRIPTIONS_MAX: usize = 16;
/// Retained packets for each client that may connect: its birth, and room for those of clients that came before …
const RETAINED_PER_CLIENT: usize = 3;
/// … and for the Wills of all of them, which the library asks nobody about.
const WILLS_PER_CLIENT: usize = 1;
/// How often what is left of clients that have gone is cleared away.
const SWEEP: Duration = Duration::from_secs(30);
/// Connections that wait to be accepted; the system may take fewer.
const BACKLOG: u32 = 4_096;

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
    /// Clients at the same time; each takes a file descriptor.
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

/// What the operator of a server has to know, told once until it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerNotice {
    /// A client with the right password was refused, because there are as many as the server takes.
    Full {
        /// How many that is.
        clients_max: usize,
    },
    /// The system gave no connection to one who came, with its words: most often there are no file descriptors left.
    NoConnection(String),
}

impl fmt::Display for ServerNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { clients_max } => write!(
                f,
                "the MQTT server is full: it takes {clients_max} nodes and commands at a time, and refuses more; \
                 raise that with --clients"
            ),
            Self::NoConnection(why) => {
                write!(f, "the MQTT server cannot take more connections: {why}; raise the limit with `ulimit -n`")
            }
        }
    }
}

/// A running server. Dropping it stops it too, without waiting for the end.
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
    /// Starts a server on a thread of its own, so that neither it nor the caller's loop makes the other wait.
    /// Clients can connect when this returns.
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

    /// Where it listens, with the port that was taken for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What its operator has to know, from now on. Empty if it was taken before.
    pub fn notices(&mut self) -> UnboundedReceiver<ServerNotice> {
        self.notices.take().unwrap_or_else(|| unbounded_channel().1)
    }

    /// Ends all connections and waits until the port is free again.
    pub async fn stop(mut self) {
        self.stop_soon();
        // An error means that the thread is gone already.
        let _ = (&mut self.stopped).await;
    }

    fn stop_soon(&self) {
        // An error means that nobody is left who could hear it.
        let _ = self.shutdown.send(());
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.stop_soon();
    }
}

type Started = Result<SocketAddr, ServerError>;

/// What the library wants back from those who decide for it.
type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

async fn run(
    config: ServerConfig,
    shutdown: broadcast::Sender<()>,
    notices: UnboundedSender<ServerNotice>,
    started: oneshot::Sender<Started>,
) {
    // Before anybody can send a shutdown, who may do so as soon as the server has started.
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
    // It panics only if the library does; then there is nobody left to wait for.
    let _ = kept.await;
}

fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), ServerError> {
    let open = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A port is free again at once when its server has ended.
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

/// The library's server without its own listeners. Without a store of its own it keeps no sessions.
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
    // The door counts clients; this only adds up.
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
        // At QoS 2 the server would hold what clients have begun to send.
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
