//! New connections, from accepting a connection to a client that the server knows.
//!
//! A connection without credentials costs almost nothing. Nothing is read before its CONNECT has arrived completely; it
//! waits in the system's buffer. A CONNECT that is too large, or anything else, ends the connection at once. A
//! connection that takes too long is closed, and if there are too many, the oldest one is closed. A client with the
//! password gets an error if the server is full.

use std::collections::BTreeMap;
use std::future::{poll_fn, ready};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, ready};
use std::time::Duration;

use mqtt5::broker::auth::{AuthProvider, AuthResult};
use mqtt5::broker::client_handler::ClientHandler;
use mqtt5::broker::config::BrokerConfig;
use mqtt5::broker::resource_monitor::ResourceMonitor;
use mqtt5::broker::router::MessageRouter;
use mqtt5::broker::sys_topics::BrokerStats;
use mqtt5::broker::transport::BrokerTransport;
use mqtt5::packet::connect::ConnectPacket;
use mqtt5::protocol::v5::reason_codes::ReasonCode;
use subtle::ConstantTimeEq;
use tokio::io::ReadBuf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Answer, CONNECT_BYTES_MAX, ServerNotice};

/// Most connections whose CONNECT has not arrived.
const STRANGERS_MAX: usize = 1_024;
/// Longest time until a CONNECT has arrived.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);
/// Pause before looking again at an incomplete CONNECT. It is doubled each time, up to the maximum.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(100);
/// Longest client id, topic and topic filter, in bytes. Several copies of each are kept.
const CLIENT_ID_BYTES_MAX: usize = 128;
const TOPIC_BYTES_MAX: usize = 256;
/// A client with a longer keep alive, or none, gets this one. So a client that no longer reads is disconnected.
pub(super) const KEEP_ALIVE_MAX: Duration = Duration::from_secs(120);
/// Pause after the system could not accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long clients may take to disconnect when the server stops.
const GOODBYE_MAX: Duration = Duration::from_secs(5);

/// The only account. It replaces the library's own check, which locks out a user name after failed attempts. With one
/// account, a stranger could lock out the cluster. A random 32-byte password needs no lockout.
pub(super) struct Account {
    pub(super) user: String,
    pub(super) password: String,
}

impl Account {
    fn admits(&self, user: &str, password: &[u8]) -> bool {
        let same_user = self.user.as_bytes().ct_eq(user.as_bytes());
        let same_password = self.password.as_bytes().ct_eq(password);
        (same_user & same_password).into()
    }
}

/// The parts of the library's server that each connection needs.
pub(super) struct Rooms {
    pub(super) config: Arc<BrokerConfig>,
    /// For clients with a keep alive that is too long.
    pub(super) config_short: Arc<BrokerConfig>,
    pub(super) router: Arc<MessageRouter>,
    pub(super) stats: Arc<BrokerStats>,
    pub(super) monitor: Arc<ResourceMonitor>,
    pub(super) shutdown: broadcast::Sender<()>,
}

/// Accepts clients.
pub(super) struct Door {
    account: Account,
    rooms: Rooms,
    seats: Arc<Semaphore>,
    seats_max: usize,
    strangers: Mutex<Strangers>,
    notices: UnboundedSender<ServerNotice>,
    full_told: AtomicBool,
}

/// Connections whose CONNECT has not arrived, oldest first. Dropping an entry closes the connection.
#[derive(Default)]
struct Strangers {
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    count: u64,
}

impl Strangers {
    /// Adds a connection. Above the limit, the oldest one is closed.
    fn enter(&mut self) -> (u64, oneshot::Receiver<()>) {
        let (stays, sent_away) = oneshot::channel();
        if self.waiting.len() >= STRANGERS_MAX {
            self.waiting.pop_first();
        }
        self.count += 1;
        self.waiting.insert(self.count, stays);
        (self.count, sent_away)
    }
}

impl Door {
    /// A door for at most `clients_max` clients.
    pub(super) fn new(
        account: Account,
        rooms: Rooms,
        clients_max: usize,
        notices: UnboundedSender<ServerNotice>,
    ) -> Arc<Door> {
        let seats_max = clients_max.min(Semaphore::MAX_PERMITS);
        Arc::new(Door {
            account,
            rooms,
            seats: Arc::new(Semaphore::new(seats_max)),
            seats_max,
            strangers: Mutex::default(),
            notices,
            full_told: AtomicBool::new(false),
        })
    }

    /// Accepts clients until the server stops, then waits until they have disconnected.
    pub(super) async fn keep(self: Arc<Self>, listener: TcpListener, mut shutdown: broadcast::Receiver<()>) {
        let mut connections = JoinSet::new();
        let mut starved_told = false;
        loop {
            tokio::select! {
                _ = shutdown.recv() => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, addr)) => {
                        starved_told = false;
                        connections.spawn(self.clone().receive(stream, addr));
                    }
                    Err(error) => {
                        // The peer may have gone already. That is not an error of this server.
                        if !starved_told && !is_of_the_peer(&error) {
                            starved_told = true;
                            self.tell(ServerNotice::NoConnection(error.to_string()));
                        }
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let all_gone = async { while connections.join_next().await.is_some() {} };
        // The others are disconnected when the set is dropped.
        let _ = timeout(GOODBYE_MAX, all_gone).await;
    }

    /// Serves one connection to its end.
    async fn receive(self: Arc<Self>, stream: TcpStream, addr: SocketAddr) {
        let Some(keep_alive_s) = self.wait_for_connect(&stream).await else { return };
        // Without it small packets are delayed. An error means that the stream has ended.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let is_patient = !(1..=KEEP_ALIVE_MAX.as_secs()).contains(&u64::from(keep_alive_s));
        let Rooms { config, config_short, router, stats, monitor, shutdown } = &self.rooms;
        let config = if is_patient { config_short } else { config };
        let visitor = Arc::new(Visitor { door: self.clone(), seat: Mutex::new(None) });
        let handler = ClientHandler::new(
            BrokerTransport::tcp(stream),
            addr,
            config.clone(),
            router.clone(),
            visitor,
            None,
            stats.clone(),
            monitor.clone(),
            shutdown.subscribe(),
        );
        // However it ended, the Will was handled.
        let _ = handler.run().await;
    }

    /// Waits for a complete CONNECT, which stays unread. Returns its keep alive.
    async fn wait_for_connect(&self, stream: &TcpStream) -> Option<u16> {
        let (number, sent_away) = self.lock_strangers().enter();
        let arrived = tokio::select! {
            arrived = timeout(CONNECT_TIME_MAX, arrival(stream)) => arrived.ok().flatten(),
            _ = sent_away => None,
        };
        self.lock_strangers().waiting.remove(&number);
        arrived
    }

    fn lock_strangers(&self) -> std::sync::MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for one client. If there is none, this is reported once, until a tenth of the seats were free again.
    fn seat(&self) -> Option<OwnedSemaphorePermit> {
        match self.seats.clone().try_acquire_owned() {
            Ok(seat) => {
                if self.seats.available_permits() > self.seats_max / 10 {
                    self.full_told.store(false, Ordering::Relaxed);
                }
                Some(seat)
            }
            Err(_) => {
                if !self.full_told.swap(true, Ordering::Relaxed) {
                    self.tell(ServerNotice::Full { clients_max: self.seats_max });
                }
                None
            }
        }
    }

    fn tell(&self, notice: ServerNotice) {
        // An error means that the receiver was dropped.
        let _ = self.notices.send(notice);
    }
}

fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionReset)
}

/// Waits until a complete CONNECT has arrived, and returns its keep alive; none if it is something else.
async fn arrival(stream: &TcpStream) -> Option<u16> {
    let mut pause = LOOK_AGAIN;
    loop {
        let look = poll_fn(|cx| {
            let mut bytes = [0; CONNECT_BYTES_MAX];
            let mut seen = ReadBuf::new(&mut bytes);
            let peeked = ready!(stream.poll_peek(cx, &mut seen));
            Poll::Ready(peeked.map(|_| look_at(seen.filled())))
        });
        match look.await.ok()? {
            Look::Connect { keep_alive_s } => return Some(keep_alive_s),
            Look::Incomplete => sleep(pause).await,
            Look::Other => return None,
        }
        pause = (pause * 2).min(LOOK_AGAIN_MAX);
    }
}

/// The type of the first bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// A complete CONNECT.
    Connect { keep_alive_s: u16 },
    /// The start of a CONNECT.
    Incomplete,
    /// Anything else, a CONNECT that is too large, or the end of the stream.
    Other,
}

/// ```text
/// | 0001 0000 | remaining length | name length | name | version | flags | keep alive | ...
/// ```
fn look_at(bytes: &[u8]) -> Look {
    let [0x10, rest @ ..] = bytes else { return Look::Other };
    let Some(length_len) = rest.iter().take(4).position(|byte| byte & 0x80 == 0).map(|last| last + 1) else {
        return if rest.len() < 4 { Look::Incomplete } else { Look::Other };
    };
    let (length, body) = rest.split_at(length_len);
    let remaining = length.iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
    if 1 + length_len + remaining > CONNECT_BYTES_MAX {
        return Look::Other;
    }
    let Some(body) = body.get(..remaining) else { return Look::Incomplete };
    let keep_alive = || {
        let (name_len, rest) = body.split_first_chunk()?;
        let rest = rest.get(usize::from(u16::from_be_bytes(*name_len)) + 2..)?;
        rest.first_chunk().map(|keep_alive| u16::from_be_bytes(*keep_alive))
    };
    keep_alive().map_or(Look::Other, |keep_alive_s| Look::Connect { keep_alive_s })
}

/// Decides what one connection may do.
struct Visitor {
    door: Arc<Door>,
    /// Taken when the client is accepted, and freed when the connection has ended.
    seat: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Visitor {
    fn judge(&self, connect: &ConnectPacket) -> AuthResult {
        let account = &self.door.account;
        let admitted = match (&connect.username, &connect.password) {
            (Some(user), Some(password)) => account.admits(user, password),
            _ => false,
        };
        if !admitted {
            return AuthResult::fail(ReasonCode::BadUsernameOrPassword);
        }
        if connect.client_id.len() > CLIENT_ID_BYTES_MAX {
            return AuthResult::fail(ReasonCode::ClientIdentifierNotValid);
        }
        let Some(seat) = self.door.seat() else {
            return AuthResult::fail_with_reason(ReasonCode::QuotaExceeded, "no more clients");
        };
        *self.seat.lock().unwrap_or_else(PoisonError::into_inner) = Some(seat);
        AuthResult::success_with_user(account.user.as_str())
    }
}

impl AuthProvider for Visitor {
    fn authenticate<'a>(
        &'a self,
        connect: &'a ConnectPacket,
        _client_addr: SocketAddr,
    ) -> Answer<'a, mqtt5::error::Result<AuthResult>> {
        Box::pin(ready(Ok(self.judge(connect))))
    }

    fn authorize_publish<'a>(
        &'a self,
        _client_id: &str,
        _user_id: Option<&'a str>,
        topic: &'a str,
    ) -> Answer<'a, bool> {
        Box::pin(ready(topic.len() <= TOPIC_BYTES_MAX))
    }

    /// Shared subscriptions are refused: they leave counters behind, and nodes do not use them.
    fn authorize_subscribe<'a>(
        &'a self,
        _client_id: &str,
        _user_id: Option<&'a str>,
        topic_filter: &'a str,
    ) -> Answer<'a, bool> {
        Box::pin(ready(topic_filter.len() <= TOPIC_BYTES_MAX && !topic_filter.starts_with("$share/")))
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
    fn too_many_strangers_send_the_first_away() {
        let mut strangers = Strangers::default();
        let mut waiting: Vec<_> = (0..STRANGERS_MAX + 2).map(|_| strangers.enter()).collect();
        let is_sent_away = |stranger: &mut (u64, oneshot::Receiver<()>)| {
            matches!(stranger.1.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        };
        let gone: Vec<u64> = waiting.iter_mut().filter_map(|one| is_sent_away(one).then_some(one.0)).collect();
        assert_eq!(gone, [1, 2]);
        assert_eq!(strangers.waiting.len(), STRANGERS_MAX);
    }

    /// A CONNECT of MQTT 5 with a keep alive of five seconds and a client id of zeros.
    fn connect(client_id_len: usize) -> Vec<u8> {
        let remaining = 13 + client_id_len;
        let mut bytes = vec![0x10, (remaining & 0x7f) as u8 | 0x80, (remaining >> 7 & 0x7f) as u8];
        if remaining >> 14 > 0 {
            bytes[2] |= 0x80;
            bytes.push((remaining >> 14) as u8);
        }
        bytes.extend(b"\x00\x04MQTT\x05\x02\x00\x05\x00");
        bytes.extend((client_id_len as u16).to_be_bytes());
        bytes.resize(bytes.len() + client_id_len, b'0');
        bytes
    }

    #[test]
    fn connects_are_told_from_everything_else() {
        let whole = connect(20);
        for len in 1..whole.len() {
            assert_eq!(look_at(&whole[..len]), Look::Incomplete, "{len} bytes");
        }
        let with_more = [&whole[..], b"more"].concat();
        for bytes in [&whole, &with_more, &connect(8_000)] {
            assert_eq!(look_at(bytes), Look::Connect { keep_alive_s: 5 });
        }
        let too_large = connect(CONNECT_BYTES_MAX);
        for bytes in [&b""[..], b"GET / HTTP/1.1", b"\x20\x02\x00\x00", &too_large, &too_large[..4]] {
            assert_eq!(look_at(bytes), Look::Other, "{:?}", &bytes[..bytes.len().min(8)]);
        }
        assert_eq!(look_at(b"\x10\xff\xff\xff"), Look::Incomplete);
        assert_eq!(look_at(b"\x10\xff\xff\xff\xff"), Look::Other, "a length has four bytes");
        assert_eq!(look_at(b"\x10\x03\x00\x04M"), Look::Other, "it ends before its keep alive");
        assert_eq!(look_at(b"\x10\x00"), Look::Other);
    }
}
