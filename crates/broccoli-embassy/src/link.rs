//! The link to other nodes, in the addresses of the core.
//!
//! Owns the choice of the link and the connection of a TCP socket. Each kind of link has its own module.

mod mqtt;

use alloc::boxed::Box;

use broccoli_core::Timing;
use broccoli_proto::packet::Address;
use embassy_net::dns::DnsQueryType;
use embassy_net::tcp::TcpSocket;
use embassy_net::{IpEndpoint, Stack};
use embassy_time::{Duration, Instant, with_timeout};

pub(crate) use self::mqtt::{Down, Header, MqttConfig, Packet};
use self::mqtt::{Mqtt, Unflushed};

/// Longest time for connecting, including the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Times of the protocol on the links of this shell.
pub(crate) const TIMING: Timing = Timing::FAST;

/// A connection that carries packets.
pub(crate) enum Link<'s> {
    /// To an MQTT server, over TCP.
    Mqtt(Mqtt<Unflushed<TcpSocket<'s>>>),
}

impl<'s> Link<'s> {
    /// Connects. Waits for the network as long as necessary. Other nodes get the packet `death` when the connection
    /// ends without [`Link::disconnect`]. The link is boxed, because each move would take its size on the stack.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn open(
        stack: Stack<'s>,
        socket: TcpSocket<'s>,
        config: &MqttConfig,
        death: &[u8],
    ) -> Result<Box<Self>, Down> {
        stack.wait_config_up().await;
        let connect = async {
            let socket = dial(stack, socket, config).await?;
            Mqtt::open(Unflushed(socket), config, death).await.map(|mqtt| Box::new(Link::Mqtt(mqtt)))
        };
        with_timeout(CONNECT_TIMEOUT, connect).await.unwrap_or(Err(Down::Unreachable))
    }

    /// The longest packet that link and server take, in bytes.
    pub(crate) fn packet_bytes_max(&self) -> u32 {
        let Link::Mqtt(mqtt) = self;
        mqtt.packet_bytes_max()
    }

    /// Sends a packet. A packet that the server refuses is dropped.
    ///
    /// # Errors
    /// The connection is lost, and so is the packet that was being sent.
    pub(crate) async fn publish(&mut self, to: Address, packet: &[u8]) -> Result<(), Down> {
        let Link::Mqtt(mqtt) = self;
        mqtt.publish(to, packet).await
    }

    /// Waits for the first bytes of a packet; the rest comes with [`Link::packet`]. Cancel-safe.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn header(&mut self) -> Result<Header, Down> {
        let Link::Mqtt(mqtt) = self;
        mqtt.header().await
    }

    /// Reads the packet after `header`. `None` if it is not for the node.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) async fn packet(&mut self, header: Header) -> Result<Option<Packet>, Down> {
        let Link::Mqtt(mqtt) = self;
        mqtt.packet(header).await
    }

    /// When [`Link::check`] is due.
    pub(crate) fn check_at(&self) -> Instant {
        let Link::Mqtt(mqtt) = self;
        mqtt.check_at()
    }

    /// Checks the connection. Called at intervals, so that no packet needs a clock reading.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) async fn check(&mut self) -> Result<(), Down> {
        let Link::Mqtt(mqtt) = self;
        mqtt.check().await
    }

    /// Sends everything published so far, and ends the connection so that other nodes do not get the `death` packet.
    pub(crate) async fn disconnect(self: Box<Self>) {
        let Link::Mqtt(mqtt) = *self;
        if let Some(Unflushed(mut socket)) = mqtt.disconnect().await {
            socket.close();
            // If this takes too long, other nodes get the `death` packet.
            let _ = with_timeout(mqtt::PACKET_TIMEOUT, socket.flush()).await;
        }
    }
}

async fn dial<'s>(stack: Stack<'s>, mut socket: TcpSocket<'s>, config: &MqttConfig) -> Result<TcpSocket<'s>, Down> {
    let found = stack.dns_query(&config.host, DnsQueryType::A).await.map_err(|_| Down::NoAddress)?;
    let addr = *found.first().ok_or(Down::NoAddress)?;
    // Nagle's algorithm would delay every task by 40 ms and more.
    socket.set_nagle_enabled(false);
    socket.connect(IpEndpoint::new(addr, config.port)).await.map_err(|_| Down::Unreachable)?;
    Ok(socket)
}
