//! The link to an MQTT server: one MQTT 5 connection over any byte stream. It maps addresses to topics, and the death
//! of the node to its Will.
//!
//! Owns the steps of a connection (CONNECT, SUBSCRIBE, keep alive, DISCONNECT) and its limits. Never keeps a packet for
//! the next connection. Nothing is retained, and QoS is 0: the protocol repeats what matters.
//!
//! Packets that arrive before the subscriptions are confirmed are dropped. The protocol expects that packets get lost.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::num::NonZero;

use broccoli_proto::NodeId;
use broccoli_proto::packet::Address;
use broccoli_proto::topic::Topics;
use embassy_time::{Duration, Instant, with_timeout};
use embedded_io_async::{ErrorType, Read, Write};
use rust_mqtt::buffer::AllocBuffer;
use rust_mqtt::client::event::Event;
use rust_mqtt::client::options::{
    ConnectOptions, DisconnectOptions, PublicationOptions, SubscriptionOptions, TopicReference, WillOptions,
};
use rust_mqtt::client::{Client, MqttError};
use rust_mqtt::config::{KeepAlive, MaximumPacketSize};
use rust_mqtt::header::FixedHeader;
use rust_mqtt::types::{MqttBinary, MqttString, ReasonCode, TopicFilter, TopicName};

/// The server sends the Will of this node after 1.5 times this time without a packet from it.
const KEEP_ALIVE_S: u16 = 5;
/// Checks in each keep-alive interval. With this many, a ping that is sent one check late is still in time.
const CHECKS_PER_KEEP_ALIVE: u32 = 2;
/// After this many checks without a packet from the server, the connection counts as lost.
const SILENT_CHECKS_MAX: u32 = 3;
/// Longest time to write a packet, or to read the rest of one.
pub(super) const PACKET_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of a packet besides its payload: header, topic and packet id.
const PUBLISH_OVERHEAD_BYTES: u32 = 256;
/// Births whose acknowledgement by the server may be outstanding.
const SEND_MAX: usize = 8;

/// One subscription at a time, no incoming QoS 1, no properties and no aliases.
type Connection<T> = Client<'static, 'static, T, AllocBuffer, 1, 1, SEND_MAX, 0, 0, 0, 0>;

/// The first bytes of a packet.
pub(crate) type Header = FixedHeader;

/// Which server to connect to, and as whom.
pub(crate) struct MqttConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) client_id: String,
    pub(crate) credentials: (String, String),
    /// The id of the cluster.
    pub(crate) cluster: NodeId,
    pub(crate) name: NodeId,
    /// The largest payload that is sent or received, in bytes.
    pub(crate) packet_bytes_max: u32,
}

/// Why a connection ended or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Down {
    /// The host name of the server has no address.
    NoAddress,
    /// The server cannot be reached.
    Unreachable,
    /// The server refuses this user and password.
    RefusedCredentials,
    /// The server refused a request, or ended the connection, with this MQTT reason code.
    Refused(u8),
    /// The server, or something in between, closed the connection.
    Closed,
    /// The server does not send or receive any more.
    Silent,
    /// The server violated the protocol, or sent more than this node allows.
    Protocol,
    /// A setting is too long for an MQTT packet.
    Unsayable,
}

impl fmt::Display for Down {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Down::NoAddress => "the MQTT server's name has no address",
            Down::Unreachable => "cannot reach the MQTT server",
            Down::RefusedCredentials => "the MQTT server refused user or password",
            Down::Refused(reason) => return write!(f, "the MQTT server refused: reason code {reason:#04x}"),
            Down::Closed => "the MQTT server closed the connection",
            Down::Silent => "the MQTT server no longer answers",
            Down::Protocol => "the MQTT server violated the protocol",
            Down::Unsayable => "user, password or labels are too long",
        })
    }
}

/// A received packet.
pub(crate) struct Packet {
    /// None if the topic is not one of this node.
    pub(crate) to: Option<Address>,
    payload: rust_mqtt::Bytes<'static>,
}

impl Packet {
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// A connection with confirmed subscriptions.
pub(crate) struct Mqtt<T: Read + Write> {
    mqtt: Connection<T>,
    topics: Topics,
    packet_bytes_max: u32,
    check_interval: Duration,
    check_at: Instant,
    /// A packet was sent since the last check.
    sent: bool,
    /// A packet arrived since the last check.
    received: bool,
    silent_checks: u32,
}

impl<T: Read + Write> Mqtt<T> {
    /// Connects over a stream, and subscribes.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(super) async fn open(stream: T, config: &MqttConfig, death: &[u8]) -> Result<Self, Down> {
        let mut mqtt = Mqtt::hello(stream, config, death).await?;
        // Only nodes with enough memory subscribe to the births of all nodes.
        for filter in mqtt.topics.subscriptions(config.name, false) {
            mqtt.subscribe(&filter).await?;
        }
        Ok(mqtt)
    }

    /// The largest payload that link and server take, in bytes.
    pub(super) fn packet_bytes_max(&self) -> u32 {
        self.packet_bytes_max
    }

    /// Sends a packet. A packet that the server refuses is dropped.
    ///
    /// # Errors
    /// The connection is lost, and so is the packet that was being sent.
    pub(super) async fn publish(&mut self, to: Address, payload: &[u8]) -> Result<(), Down> {
        let topic = self.topics.topic(to);
        let options = PublicationOptions::new(TopicReference::Name(topic_name(&topic)?));
        self.sent = true;
        match in_time(self.mqtt.publish(&options, payload.into())).await? {
            Ok(_) => Ok(()),
            Err(error) if error.is_recoverable() => {
                log::warn!("a packet of {} bytes was not sent: {error:?}", payload.len());
                Ok(())
            }
            Err(error) => Err(down(&error)),
        }
    }

    /// Waits for the first bytes of a packet; the rest comes with [`Mqtt::packet`]. Cancel-safe.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn header(&mut self) -> Result<Header, Down> {
        let header = self.mqtt.poll_header().await.map_err(|error| down(&error))?;
        self.received = true;
        Ok(header)
    }

    /// Reads the packet after `header`. `None` if it is not for the node.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn packet(&mut self, header: Header) -> Result<Option<Packet>, Down> {
        match in_time(self.mqtt.poll_body(header)).await?.map_err(|error| down(&error))? {
            Event::Publish(publish) => {
                let to = publish.topic.name().and_then(|topic| self.topics.address(topic.as_ref().as_str()));
                Ok(Some(Packet { to, payload: publish.message }))
            }
            _ => Ok(None),
        }
    }

    /// When [`Mqtt::check`] is due.
    pub(super) fn check_at(&self) -> Instant {
        self.check_at
    }

    /// Checks the connection. Called a few times for each keep-alive interval, so that no packet needs a clock reading.
    ///
    /// # Errors
    /// The server does not answer.
    pub(super) async fn check(&mut self) -> Result<(), Down> {
        self.silent_checks = if self.received { 0 } else { self.silent_checks + 1 };
        if self.silent_checks >= SILENT_CHECKS_MAX {
            return Err(Down::Silent);
        }
        if !self.sent || !self.received {
            in_time(self.mqtt.ping()).await?.map_err(|error| down(&error))?;
        }
        self.sent = false;
        self.received = false;
        self.check_at = Instant::now() + self.check_interval;
        Ok(())
    }

    /// Sends everything published so far, and ends the connection so that the Will is not sent. Returns the stream.
    pub(super) async fn disconnect(mut self) -> Option<T> {
        in_time(self.mqtt.disconnect(&DisconnectOptions::new())).await.ok()?.ok()
    }

    async fn hello(stream: T, config: &MqttConfig, death: &[u8]) -> Result<Self, Down> {
        // It allocates nothing, so nothing can leak.
        let buffers = Box::leak(Box::new(AllocBuffer));
        let mut mqtt = Connection::new(buffers);
        let topics = Topics::new(config.cluster);
        let will_topic = topics.topic(Address::Birth(config.name));
        let accepted = NonZero::new(config.packet_bytes_max + PUBLISH_OVERHEAD_BYTES).ok_or(Down::Unsayable)?;
        let (user, password) = &config.credentials;
        let payload = MqttBinary::from_slice(death).map_err(|_| Down::Unsayable)?;
        let will = WillOptions::new(topic_name(&will_topic)?, payload);
        let options = ConnectOptions::new()
            .clean_start()
            .keep_alive(NonZero::new(KEEP_ALIVE_S).map_or(KeepAlive::Infinite, KeepAlive::Seconds))
            .maximum_packet_size(accepted)
            .user_name(string(user)?)
            .password(MqttBinary::from_slice(password.as_bytes()).map_err(|_| Down::Unsayable)?)
            .will(will);
        mqtt.connect(stream, &options, Some(string(&config.client_id)?)).await.map_err(|error| down(&error))?;
        let server = match mqtt.server_config().maximum_packet_size {
            MaximumPacketSize::Unlimited => u32::MAX,
            MaximumPacketSize::Limit(bytes) => bytes.get(),
        };
        // A server may set its own interval.
        let keep_alive_s = match mqtt.shared_config().keep_alive {
            KeepAlive::Infinite => KEEP_ALIVE_S,
            KeepAlive::Seconds(seconds) => seconds.get(),
        };
        let check_interval = Duration::from_secs(keep_alive_s.into()) / CHECKS_PER_KEEP_ALIVE;
        Ok(Mqtt {
            mqtt,
            topics,
            packet_bytes_max: config.packet_bytes_max.min(server.saturating_sub(PUBLISH_OVERHEAD_BYTES)),
            check_interval,
            check_at: Instant::now() + check_interval,
            sent: false,
            received: false,
            silent_checks: 0,
        })
    }

    async fn subscribe(&mut self, filter: &str) -> Result<(), Down> {
        let filter = TopicFilter::new(string(filter)?).ok_or(Down::Unsayable)?;
        self.mqtt.subscribe(filter, &SubscriptionOptions::new()).await.map_err(|error| down(&error))?;
        loop {
            match self.mqtt.poll().await.map_err(|error| down(&error))? {
                Event::Suback(ack) if ack.reason_code.is_success() => return Ok(()),
                Event::Suback(ack) => return Err(Down::Refused(ack.reason_code.value())),
                _ => {}
            }
        }
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> Result<T, Down> {
    with_timeout(PACKET_TIMEOUT, future).await.map_err(|_| Down::Silent)
}

fn string(text: &str) -> Result<MqttString<'_>, Down> {
    MqttString::from_str(text).map_err(|_| Down::Unsayable)
}

fn topic_name(topic: &str) -> Result<TopicName<'_>, Down> {
    TopicName::new(string(topic)?).ok_or(Down::Unsayable)
}

fn down<const PROPERTIES: usize>(error: &MqttError<'_, PROPERTIES>) -> Down {
    match error {
        MqttError::Disconnect { reason, .. } => match reason {
            ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized | ReasonCode::Banned => {
                Down::RefusedCredentials
            }
            ReasonCode::Success | ReasonCode::ServerShuttingDown => Down::Closed,
            reason => Down::Refused(reason.value()),
        },
        MqttError::Network(_) => Down::Closed,
        _ => Down::Protocol,
    }
}

/// A stream whose flush does not wait for the peer. Written data is sent when this task waits, so a whole packet is
/// sent at once if there is room for it.
pub(crate) struct Unflushed<T>(pub(super) T);

impl<T: ErrorType> ErrorType for Unflushed<T> {
    type Error = T::Error;
}

impl<T: Read> Read for Unflushed<T> {
    async fn read(&mut self, buf: &mut [u8]) -> Result<usize, T::Error> {
        self.0.read(buf).await
    }
}

impl<T: Write> Write for Unflushed<T> {
    async fn write(&mut self, buf: &[u8]) -> Result<usize, T::Error> {
        self.0.write(buf).await
    }

    async fn flush(&mut self) -> Result<(), T::Error> {
        Ok(())
    }
}
