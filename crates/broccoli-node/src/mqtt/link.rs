//! The link to an MQTT server: one MQTT 5 connection after another.
//!
//! Owns the steps of a connection (dial, CONNECT, SUBSCRIBE, keep alive, DISCONNECT) and its limits. Everything happens
//! inside [`Link::next`], in the task that calls it; there are no other tasks. It never connects again by itself: the
//! caller decides when, and with which client id. It never keeps a packet for the next connection: sessions are always
//! clean.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use rumqttc::{
    ConnAck, Connect, ConnectAuth, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, LastWill,
    Packet, QoS, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode, mqttbytes,
};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::mqtt_packet_bytes_max;
use super::url::ServerUrl;
use super::wire::{ByteStream, Publish, Wire};

/// Packets that may arrive before the server has confirmed the subscriptions (retained ones). More are dropped.
const EARLY_PACKETS_MAX: usize = 16_384;
/// A busy server may take this many times longer to connect.
const BUSY_FACTOR_MAX: u32 = 8;
/// Longest time of a graceful end. After it, the connection is closed.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Checks in each keep-alive interval. With this many, a ping that is sent one check late is still in time.
const CHECKS_PER_KEEP_ALIVE: u32 = 2;
/// After this many checks without a packet from the server, the connection counts as lost.
const SILENT_CHECKS_MAX: u32 = 3;
/// Unacknowledged QoS 1 packets, if the server gives no number.
const RECEIVE_MAX_DEFAULT: u16 = u16::MAX;
/// Most bytes of a packet of this node besides its payload: header, topic and packet id.
const PUBLISH_OVERHEAD_BYTES: usize = 256;
/// A server with a lower limit, in bytes, cannot carry the packets of nodes.
const SERVER_BYTES_MIN: usize = 4_096;
/// The packet id of the only SUBSCRIBE. Those of publishes follow.
const SUBSCRIBE_ID: u16 = 1;

/// How to reach a server, and the limits of a connection.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The address of the server.
    pub url: ServerUrl,
    /// User and password, if the URL contains none.
    pub credentials: Option<(String, String)>,
    /// Topic filters to subscribe to on every connection, with QoS 0.
    pub subscriptions: Vec<String>,
    /// Keep alive in seconds, at least 1. The server sends the Will 1.5 times this after the last packet of this node.
    /// The link gives up a silent server after 1.5 to 2 times this. A server may set its own value.
    pub keep_alive_s: u16,
    /// Longest time for connecting, including the MQTT handshake. If a server was reached but took longer, the next
    /// attempt may take twice as long, up to eight times: the server is busy, and another attempt must not add to its
    /// work.
    pub connect_timeout: Duration,
    /// The largest payload that is sent or received, in bytes.
    pub packet_bytes_max: usize,
    /// If this many bytes wait for the socket, [`Link::publish`] accepts no more.
    pub outbox_bytes_max: usize,
}

impl LinkConfig {
    /// The defaults: keep alive 5 s, connect timeout 5 s, payloads up to 64 KiB, 256 KiB waiting.
    pub fn new(url: ServerUrl, subscriptions: Vec<String>) -> Self {
        Self {
            url,
            credentials: None,
            subscriptions,
            keep_alive_s: 5,
            connect_timeout: Duration::from_secs(5),
            packet_bytes_max: 64 * 1024,
            outbox_bytes_max: 256 * 1024,
        }
    }
}

/// The packet that the server publishes when the connection ends without [`Link::disconnect`].
#[derive(Debug, Clone)]
pub struct Will {
    /// Topic, without wildcards.
    pub topic: String,
    /// Payload, at most `packet_bytes_max` bytes.
    pub payload: Vec<u8>,
    /// Whether it replaces the retained packet of that topic.
    pub retain: bool,
}

/// An event of the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// The server has confirmed every subscription.
    Connected,
    /// A packet arrived. Topic (UTF-8) and payload share the read buffer: keeping them for long keeps 64 KiB.
    Packet {
        /// The topic it was published to.
        topic: Bytes,
        /// Its payload: at most `packet_bytes_max` bytes, plus what the server added.
        payload: Bytes,
        /// Whether the server had stored it. `false` if it was published just now.
        retain: bool,
    },
    /// The connection ended, or could not be made. Packets that were published but not sent are lost.
    Disconnected {
        /// The reason.
        reason: DisconnectReason,
    },
}

/// Why a connection ended or failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// The server refuses this user and password.
    RefusedCredentials,
    /// The server accepts no more clients.
    Full,
    /// No MQTT server answered at this address, for this reason.
    Unreachable(String),
    /// The program at this address is not an MQTT server.
    NotMqtt,
    /// The server closed the connection instead of answering the first packet.
    NoAnswer,
    /// The server, or something in between, closed the connection.
    Closed,
    /// The server has been silent for 1.5 to 2 keep-alive intervals.
    Silent,
    /// The server refused a request or violated the protocol. The text says what happened.
    Other(String),
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedCredentials => {
                write!(f, "the MQTT server refused user or password")
            }
            Self::Full => write!(f, "the MQTT server is full"),
            Self::Unreachable(why) => write!(f, "cannot reach the MQTT server: {why}"),
            Self::NotMqtt => write!(f, "this is not an MQTT server"),
            Self::NoAnswer => write!(f, "the MQTT server closed the connection without an answer"),
            Self::Closed => write!(f, "the MQTT server closed the connection"),
            Self::Silent => write!(f, "the MQTT server no longer answers"),
            Self::Other(what) => write!(f, "MQTT connection failed: {what}"),
        }
    }
}

impl std::error::Error for DisconnectReason {}

/// Why a packet was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no connection. Packets are not kept for the next one.
    NotConnected,
    /// Too much waits for the socket or, with QoS 1, for the server. Call [`Link::next`] first.
    Full,
    /// The packet is larger than the limit of the link or the server. It can never be sent.
    TooLarge {
        /// Bytes of the payload.
        payload_bytes: usize,
    },
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected => write!(f, "not connected to the MQTT server"),
            Self::Full => write!(f, "the MQTT link is full, try again later"),
            Self::TooLarge { payload_bytes } => {
                write!(f, "a packet of {payload_bytes} bytes is larger than the limit of the MQTT link")
            }
        }
    }
}

impl std::error::Error for PublishError {}

/// One connection at a time to one server.
pub struct Link {
    config: LinkConfig,
    attempt: Option<Attempt>,
    /// How many times longer than configured the next attempt may take.
    busy_factor: u32,
}

impl Link {
    /// A link that does nothing before [`Link::connect`].
    pub fn new(config: LinkConfig) -> Self {
        Self { config, attempt: None, busy_factor: 1 }
    }

    /// Starts to connect with this client id; [`Link::next`] does the work. An earlier connection ends abruptly. Call
    /// it inside a tokio runtime.
    pub fn connect(&mut self, client_id: &str, will: Option<Will>) {
        let connect_timeout = self.config.connect_timeout * self.busy_factor;
        self.attempt = Some(Attempt::new(&self.config, connect_timeout, client_id, will));
    }

    /// True from [`LinkEvent::Connected`] to [`LinkEvent::Disconnected`].
    pub fn is_connected(&self) -> bool {
        self.attempt.as_ref().and_then(Attempt::open_wire).is_some()
    }

    /// The largest payload that link and server accept, in bytes.
    pub fn packet_bytes_max(&self) -> u32 {
        let server = self.attempt.as_ref().map_or(usize::MAX, |attempt| attempt.quota.packet_bytes_max);
        let payload = self.config.packet_bytes_max.min(server.saturating_sub(PUBLISH_OVERHEAD_BYTES));
        u32::try_from(payload).unwrap_or(u32::MAX)
    }

    /// True if [`Link::publish`] accepts a QoS 0 packet now.
    pub fn has_room(&self) -> bool {
        let wire = self.attempt.as_ref().and_then(Attempt::open_wire);
        wire.is_some_and(|wire| wire.outbox_len() < self.config.outbox_bytes_max)
    }

    /// Queues a packet: QoS 1 if retained, otherwise QoS 0. Never waits. Packets are sent together by the next
    /// [`Link::next`] or [`Link::disconnect`], in this order. `topic` has no wildcards.
    pub fn publish(&mut self, topic: &str, payload: &[u8], retain: bool) -> Result<(), PublishError> {
        let config = &self.config;
        let Some(Attempt { stage: Stage::Open, wire: Some(wire), quota, sent, .. }) = &mut self.attempt else {
            return Err(PublishError::NotConnected);
        };
        let mut publish = Publish { topic, payload, retain, packet_id: None };
        if payload.len() > config.packet_bytes_max
            || topic.len() > usize::from(u16::MAX)
            || publish.packet_len() > quota.packet_bytes_max
        {
            return Err(PublishError::TooLarge { payload_bytes: payload.len() });
        }
        if wire.outbox_len() >= config.outbox_bytes_max {
            return Err(PublishError::Full);
        }
        if retain {
            publish.packet_id = Some(quota.next_packet_id().ok_or(PublishError::Full)?);
        }
        wire.push_publish(&publish);
        *sent = true;
        Ok(())
    }

    /// Sends what is queued, then waits for the next event. Cancel-safe. Waits forever before [`Link::connect`] and
    /// after [`LinkEvent::Disconnected`].
    pub async fn next(&mut self) -> LinkEvent {
        poll_fn(|cx| match self.attempt.as_mut() {
            Some(attempt) => {
                let polled = ready!(attempt.poll(cx, &self.config));
                Poll::Ready(self.conclude(polled))
            }
            None => Poll::Pending,
        })
        .await
    }

    /// The next event among the data that has already arrived. Makes no system call. To answer many packets with one
    /// write, call [`Link::next`], then this until it returns `None`, and publish afterwards.
    pub fn next_buffered(&mut self) -> Option<LinkEvent> {
        let attempt = self.attempt.as_mut()?;
        attempt.open_wire()?;
        let received = attempt.receive(&self.config).transpose()?;
        Some(self.conclude(received))
    }

    /// Sends everything published so far, and ends the connection so that the Will is not sent. Takes at most one
    /// second. If the server does not respond, or the future is dropped, the connection ends abruptly.
    pub async fn disconnect(&mut self) {
        if let Some(mut wire) = self.attempt.take().and_then(|attempt| attempt.wire) {
            let goodbye = Disconnect::new(DisconnectReasonCode::NormalDisconnection);
            if wire.push(&Packet::Disconnect(goodbye)).is_ok() {
                // An error here ends the connection, too.
                let _ = timeout(DISCONNECT_TIMEOUT, wire.close()).await;
            }
        }
    }

    fn conclude(&mut self, result: Result<LinkEvent, DisconnectReason>) -> LinkEvent {
        if matches!(result, Ok(LinkEvent::Connected)) {
            self.busy_factor = 1;
        }
        result.unwrap_or_else(|reason| {
            if self.attempt.take().is_some_and(|attempt| attempt.is_late) {
                self.busy_factor = (self.busy_factor * 2).min(BUSY_FACTOR_MAX);
            }
            LinkEvent::Disconnected { reason }
        })
    }
}

type Dial = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;

/// One connection, from the first attempt to its end.
struct Attempt {
    stage: Stage,
    /// The stream, after TCP has connected.
    wire: Option<Wire>,
    quota: Quota,
    /// The packets to send first.
    connect: Packet,
    /// Packets that arrived before the subscriptions were confirmed. They are returned after [`LinkEvent::Connected`].
    early: VecDeque<LinkEvent>,
    connect_timeout: Duration,
    /// Whether the server was reached, but has not answered in time.
    is_late: bool,
    /// Before the connection is open: the end of the attempt. Afterwards: the next check of the keep alive.
    timer: Pin<Box<Sleep>>,
    check_interval: Duration,
    /// A packet was queued since the last check.
    sent: bool,
    /// A packet arrived since the last check.
    received: bool,
    silent_checks: u32,
}

/// ```text
/// Dialing --TCP--> Connecting --CONNACK--> Subscribing --SUBACK--> Open
/// ```
enum Stage {
    Dialing(Dial),
    Connecting,
    Subscribing,
    Open,
}

/// The limits of the server.
struct Quota {
    /// The largest MQTT packet that it accepts, in bytes.
    packet_bytes_max: usize,
    /// How many QoS 1 publishes may be unacknowledged.
    receive_max: u16,
    unacknowledged: u16,
    last_packet_id: u16,
}

impl Quota {
    fn new(packet_bytes_max: Option<u32>, receive_max: Option<u16>) -> Self {
        Self {
            packet_bytes_max: packet_bytes_max.map_or(usize::MAX, |max| max as usize),
            receive_max: receive_max.unwrap_or(RECEIVE_MAX_DEFAULT),
            unacknowledged: 0,
            last_packet_id: SUBSCRIBE_ID,
        }
    }

    fn next_packet_id(&mut self) -> Option<u16> {
        if self.unacknowledged >= self.receive_max {
            return None;
        }
        self.unacknowledged += 1;
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        Some(self.last_packet_id)
    }
}

impl Attempt {
    fn new(config: &LinkConfig, connect_timeout: Duration, client_id: &str, will: Option<Will>) -> Self {
        Self {
            stage: Stage::Dialing(dial(&config.url)),
            wire: None,
            quota: Quota::new(None, None),
            connect: connect_packet(config, client_id, will),
            early: VecDeque::new(),
            connect_timeout,
            is_late: false,
            timer: Box::pin(sleep(connect_timeout)),
            check_interval: check_interval(config.keep_alive_s),
            sent: false,
            received: false,
            silent_checks: 0,
        }
    }

    fn open_wire(&self) -> Option<&Wire> {
        match self.stage {
            Stage::Open => self.wire.as_ref(),
            _ => None,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, config: &LinkConfig) -> Poll<Result<LinkEvent, DisconnectReason>> {
        loop {
            if let Poll::Ready(dialed) = self.poll_dial(cx, config) {
                dialed?;
                if let Poll::Ready(event) = self.poll_wire(cx, config)? {
                    return Poll::Ready(Ok(event));
                }
            }
            ready!(self.timer.as_mut().poll(cx));
            self.handle_timer()?;
        }
    }

    fn poll_dial(&mut self, cx: &mut Context<'_>, config: &LinkConfig) -> Poll<Result<(), DisconnectReason>> {
        let Stage::Dialing(dial) = &mut self.stage else {
            return Poll::Ready(Ok(()));
        };
        let dialed = ready!(dial.as_mut().poll(cx));
        let stream = dialed.map_err(|error| DisconnectReason::Unreachable(error.to_string()))?;
        let mut wire = Wire::new(stream, mqtt_packet_bytes_max(config.packet_bytes_max));
        wire.push(&self.connect).map_err(protocol)?;
        self.wire = Some(wire);
        self.stage = Stage::Connecting;
        Poll::Ready(Ok(()))
    }

    /// Sends, parses and receives until there is an event, or nothing more to do now.
    fn poll_wire(&mut self, cx: &mut Context<'_>, config: &LinkConfig) -> Poll<Result<LinkEvent, DisconnectReason>> {
        loop {
            self.poll_flush(cx)?;
            if let Some(event) = self.receive(config)? {
                return Poll::Ready(Ok(event));
            }
            // A received packet may have queued an answer.
            self.poll_flush(cx)?;
            let Some(wire) = &mut self.wire else {
                return Poll::Pending;
            };
            let filled = ready!(wire.poll_fill(cx)).map_err(broken).map_err(|reason| self.ended(reason));
            if filled? == 0 {
                return Poll::Ready(Err(self.ended(DisconnectReason::Closed)));
            }
        }
    }

    /// If the socket is full, the rest is sent by a later poll. The socket wakes the task for it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<(), DisconnectReason> {
        match self.wire.as_mut().map(|wire| wire.poll_flush(cx)) {
            // Before that, a failed write may mean that the server refuses the client. The next read returns its
            // reason.
            Some(Poll::Ready(Err(error))) if matches!(self.stage, Stage::Open) => Err(broken(error)),
            _ => Ok(()),
        }
    }

    /// Handles what has arrived, up to the first event for the caller.
    fn receive(&mut self, config: &LinkConfig) -> Result<Option<LinkEvent>, DisconnectReason> {
        if matches!(self.stage, Stage::Open)
            && let Some(event) = self.early.pop_front()
        {
            return Ok(Some(event));
        }
        while let Some(packet) = self.pull()? {
            self.received = true;
            if let Some(event) = self.handle_packet(packet, config)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The reason for the end of the stream. It depends on the state of the connection.
    fn ended(&self, reason: DisconnectReason) -> DisconnectReason {
        match (&self.stage, reason) {
            (Stage::Connecting, DisconnectReason::Closed) => DisconnectReason::NoAnswer,
            (_, reason) => reason,
        }
    }

    fn pull(&mut self) -> Result<Option<Packet>, DisconnectReason> {
        let Some(wire) = &mut self.wire else { return Ok(None) };
        if matches!(self.stage, Stage::Connecting) && wire.first_byte().is_some_and(|first| !is_answer(first)) {
            return Err(DisconnectReason::NotMqtt);
        }
        wire.pull().map_err(protocol)
    }

    fn push(&mut self, packet: &Packet) -> Result<(), DisconnectReason> {
        match &mut self.wire {
            Some(wire) => wire.push(packet).map_err(protocol),
            None => Ok(()),
        }
    }

    fn handle_packet(&mut self, packet: Packet, config: &LinkConfig) -> Result<Option<LinkEvent>, DisconnectReason> {
        match (&self.stage, packet) {
            (Stage::Open, Packet::Publish(publish)) => Ok(Some(packet_event(publish))),
            (Stage::Open, Packet::PubAck(_)) => {
                self.quota.unacknowledged = self.quota.unacknowledged.saturating_sub(1);
                Ok(None)
            }
            (Stage::Open, Packet::PingResp) => Ok(None),
            (Stage::Subscribing, Packet::Publish(publish)) => {
                if self.early.len() < EARLY_PACKETS_MAX {
                    self.early.push_back(packet_event(publish));
                }
                Ok(None)
            }
            (Stage::Connecting, Packet::ConnAck(ack)) => self.handle_connack(&ack, config),
            (Stage::Subscribing, Packet::SubAck(ack)) => self.handle_suback(&ack, config),
            (_, Packet::Disconnect(disconnect)) => Err(disconnected_by(&disconnect)),
            (_, packet) => Err(DisconnectReason::Other(format!("unexpected {:?}", packet.packet_type()))),
        }
    }

    fn handle_connack(&mut self, ack: &ConnAck, config: &LinkConfig) -> Result<Option<LinkEvent>, DisconnectReason> {
        match ack.code {
            ConnectReturnCode::Success => {}
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized | ConnectReturnCode::Banned => {
                return Err(DisconnectReason::RefusedCredentials);
            }
            ConnectReturnCode::QuotaExceeded | ConnectReturnCode::ServerBusy => return Err(DisconnectReason::Full),
            code => return Err(DisconnectReason::Other(format!("refused: {code:?}"))),
        }
        let limits = ack.properties.as_ref();
        if let Some(keep_alive_s) = limits.and_then(|limits| limits.server_keep_alive) {
            self.check_interval = check_interval(keep_alive_s);
        }
        self.quota =
            Quota::new(limits.and_then(|limits| limits.max_packet_size), limits.and_then(|limits| limits.receive_max));
        if self.quota.packet_bytes_max < SERVER_BYTES_MIN {
            let max = self.quota.packet_bytes_max;
            let why = format!("the MQTT server accepts packets of {max} bytes, at least {SERVER_BYTES_MIN} are needed");
            return Err(DisconnectReason::Other(why));
        }
        if config.subscriptions.is_empty() {
            return Ok(Some(self.open()));
        }
        self.push(&subscribe_packet(&config.subscriptions))?;
        self.stage = Stage::Subscribing;
        Ok(None)
    }

    fn handle_suback(&mut self, ack: &SubAck, config: &LinkConfig) -> Result<Option<LinkEvent>, DisconnectReason> {
        let granted = |code: &SubscribeReasonCode| matches!(code, SubscribeReasonCode::Success(_));
        if let Some(index) = ack.return_codes.iter().position(|code| !granted(code)) {
            let filter = config.subscriptions.get(index).map_or("?", String::as_str);
            return Err(DisconnectReason::Other(format!(
                "refused to subscribe to {filter}: {:?}",
                ack.return_codes[index]
            )));
        }
        Ok(Some(self.open()))
    }

    fn open(&mut self) -> LinkEvent {
        self.stage = Stage::Open;
        self.restart_check();
        LinkEvent::Connected
    }

    fn restart_check(&mut self) {
        self.sent = false;
        self.received = false;
        let next = Instant::now() + self.check_interval;
        self.timer.as_mut().reset(next);
    }

    /// Checks the keep alive. Called a few times for each interval, so that no packet needs a clock reading.
    fn handle_timer(&mut self) -> Result<(), DisconnectReason> {
        if !matches!(self.stage, Stage::Open) {
            self.is_late = !matches!(self.stage, Stage::Dialing(_));
            return Err(DisconnectReason::Unreachable(format!("no answer within {:?}", self.connect_timeout)));
        }
        if self.received {
            self.silent_checks = 0;
        } else {
            self.silent_checks += 1;
        }
        if self.silent_checks >= SILENT_CHECKS_MAX {
            return Err(DisconnectReason::Silent);
        }
        if !self.sent || !self.received {
            self.push(&Packet::PingReq)?;
        }
        self.restart_check();
        Ok(())
    }
}

fn dial(url: &ServerUrl) -> Dial {
    let (host, port) = (url.host().to_owned(), url.port());
    Box::pin(async move {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream) as Box<dyn ByteStream>)
    })
}

/// Whether the answer of an MQTT server to a CONNECT can start with this byte: a CONNACK, DISCONNECT or AUTH.
fn is_answer(first: u8) -> bool {
    matches!(first, 0x20 | 0xe0 | 0xf0)
}

fn check_interval(keep_alive_s: u16) -> Duration {
    Duration::from_secs(keep_alive_s.max(1).into()) / CHECKS_PER_KEEP_ALIVE
}

fn connect_packet(config: &LinkConfig, client_id: &str, will: Option<Will>) -> Packet {
    let configured = config.credentials.as_ref();
    let credentials =
        config.url.credentials().or_else(|| configured.map(|(user, password)| (user.as_str(), password.as_str())));
    let auth = match credentials {
        Some((user, password)) => ConnectAuth::UsernamePassword {
            username: user.to_owned(),
            password: Bytes::copy_from_slice(password.as_bytes()),
        },
        None => ConnectAuth::None,
    };
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(mqtt_packet_bytes_max(config.packet_bytes_max));
    let connect = Connect {
        keep_alive: config.keep_alive_s.max(1),
        client_id: client_id.to_owned(),
        clean_start: true,
        properties: Some(properties),
    };
    Packet::Connect(connect, will.map(last_will), auth)
}

fn last_will(will: Will) -> LastWill {
    let qos = if will.retain { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    LastWill::new(will.topic, will.payload, qos, will.retain, None)
}

fn subscribe_packet(filters: &[String]) -> Packet {
    let filters = filters.iter().map(|filter| SubscribeFilter::new(filter, QoS::AtMostOnce));
    let mut subscribe = Subscribe::new_many(filters, None);
    subscribe.pkid = SUBSCRIBE_ID;
    Packet::Subscribe(subscribe)
}

fn packet_event(publish: rumqttc::Publish) -> LinkEvent {
    LinkEvent::Packet { topic: publish.topic, payload: publish.payload, retain: publish.retain }
}

fn disconnected_by(disconnect: &Disconnect) -> DisconnectReason {
    match disconnect.reason_code {
        DisconnectReasonCode::NotAuthorized => DisconnectReason::RefusedCredentials,
        DisconnectReasonCode::NormalDisconnection | DisconnectReasonCode::ServerShuttingDown => {
            DisconnectReason::Closed
        }
        code => DisconnectReason::Other(format!("ended by the server: {code:?}")),
    }
}

fn protocol(error: mqttbytes::Error) -> DisconnectReason {
    DisconnectReason::Other(error.to_string())
}

fn broken(error: io::Error) -> DisconnectReason {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset => DisconnectReason::Closed,
        _ => DisconnectReason::Other(error.to_string()),
    }
}
