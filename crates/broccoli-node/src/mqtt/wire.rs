//! MQTT packets on a byte stream.
//!
//! Owns the stream and its two buffers. Never waits by itself, so a caller may drop any future at any time and no byte
//! is lost. Does not know the order in which packets must come.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, BytesMut};
use rumqttc::{Packet, mqttbytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The size of a read buffer, in bytes.
const INBOX_BYTES: usize = 64 * 1024;
/// A write buffer that a burst has made larger than this is freed afterwards.
const OUTBOX_BYTES_KEPT: usize = 256 * 1024;
/// Least room for a read, in bytes. With less, the buffer is replaced.
const READ_BYTES_MIN: usize = 4 * 1024;
/// First byte of a PUBLISH, without its flags.
const PUBLISH: u8 = 0x30;

/// The byte stream to a server: TCP, or anything else that carries bytes in order.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// One stream, the received bytes that are not parsed, and the encoded bytes that are not sent.
pub(super) struct Wire {
    stream: Box<dyn ByteStream>,
    inbox: BytesMut,
    outbox: BytesMut,
    packet_bytes_max: u32,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn ByteStream>, packet_bytes_max: u32) -> Self {
        Self { stream, inbox: BytesMut::with_capacity(INBOX_BYTES), outbox: BytesMut::new(), packet_bytes_max }
    }

    /// Number of bytes that wait to be sent.
    pub(super) fn outbox_len(&self) -> usize {
        self.outbox.len()
    }

    /// The first received byte that was not parsed.
    pub(super) fn first_byte(&self) -> Option<u8> {
        self.inbox.first().copied()
    }

    /// Queues a packet.
    pub(super) fn push(&mut self, packet: &Packet) -> Result<(), mqttbytes::Error> {
        packet.write(&mut self.outbox, None).map(|_| ())
    }

    /// Queues a PUBLISH without properties. The library's encoder would need owned copies of topic and payload.
    ///
    /// ```text
    /// | 0011 dup qos qos retain | remaining length | topic length | topic | packet id if QoS 1 | 0 | payload |
    /// ```
    pub(super) fn push_publish(&mut self, publish: &Publish<'_>) {
        let retain = u8::from(publish.retain);
        let qos = u8::from(publish.packet_id.is_some());
        self.outbox.reserve(publish.packet_len());
        self.outbox.put_u8(PUBLISH | qos << 1 | retain);
        put_variable_length(&mut self.outbox, publish.remaining_len());
        self.outbox.put_u16(publish.topic.len() as u16);
        self.outbox.put_slice(publish.topic.as_bytes());
        if let Some(packet_id) = publish.packet_id {
            self.outbox.put_u16(packet_id);
        }
        self.outbox.put_u8(0);
        self.outbox.put_slice(publish.payload);
    }

    /// Parses one received packet. `None`: read more first.
    pub(super) fn pull(&mut self) -> Result<Option<Packet>, mqttbytes::Error> {
        match Packet::read(&mut self.inbox, Some(self.packet_bytes_max)) {
            Ok(packet) => Ok(Some(packet)),
            Err(mqttbytes::Error::InsufficientBytes(missing)) => {
                self.inbox.reserve(missing);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads once. Ready with the number of bytes, 0 at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbox.reserve(READ_BYTES_MIN);
        pin!(self.stream.read_buf(&mut self.inbox)).poll(cx)
    }

    /// Writes until nothing is left (ready), or the socket is full (pending).
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.outbox))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(sent);
        }
        if self.outbox.try_reclaim(OUTBOX_BYTES_KEPT + 1) {
            self.outbox = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is queued, shuts down the sending half, and waits until the server has done the same.
    ///
    /// Bytes that arrive meanwhile are read and dropped. A socket that is closed with unread bytes is reset, and the
    /// reset can overtake the last packets.
    pub(super) async fn close(mut self) -> io::Result<()> {
        self.stream.write_all(&self.outbox).await?;
        self.stream.shutdown().await?;
        loop {
            self.inbox.clear();
            self.inbox.reserve(READ_BYTES_MIN);
            if self.stream.read_buf(&mut self.inbox).await? == 0 {
                return Ok(());
            }
        }
    }
}

/// A PUBLISH to encode. QoS 1 with a packet id, otherwise QoS 0. The topic is shorter than 64 KiB.
pub(super) struct Publish<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) retain: bool,
    pub(super) packet_id: Option<u16>,
}

impl Publish<'_> {
    fn remaining_len(&self) -> usize {
        let packet_id_len = if self.packet_id.is_some() { 2 } else { 0 };
        2 + self.topic.len() + packet_id_len + 1 + self.payload.len()
    }

    /// Most bytes on the wire.
    pub(super) fn packet_len(&self) -> usize {
        1 + 4 + self.remaining_len()
    }
}

fn put_variable_length(buffer: &mut BytesMut, mut len: usize) {
    loop {
        let low = (len & 0x7f) as u8;
        len >>= 7;
        if len == 0 {
            return buffer.put_u8(low);
        }
        buffer.put_u8(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use rumqttc::{Publish as Decoded, QoS};

    use super::*;

    #[tokio::test]
    async fn publish_is_encoded_as_the_library_does_it() {
        let (stream, _server) = tokio::io::duplex(1 << 20);
        let mut wire = Wire::new(Box::new(stream), u32::MAX);
        for (payload_len, packet_id) in [(0, None), (110, Some(7)), (128, None), (70_000, Some(9))] {
            let payload = vec![0x5a; payload_len];
            wire.push_publish(&Publish {
                topic: "broccoli/c/n/in",
                payload: &payload,
                retain: packet_id.is_some(),
                packet_id,
            });
            let encoded = std::mem::take(&mut wire.outbox);

            let qos = if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
            let mut expected = Decoded::new("broccoli/c/n/in", qos, payload, None);
            expected.pkid = packet_id.unwrap_or(0);
            expected.retain = packet_id.is_some();
            wire.push(&Packet::Publish(expected)).unwrap();
            assert_eq!(encoded, std::mem::take(&mut wire.outbox));
        }
    }

    #[tokio::test]
    async fn packets_cross_any_stream_however_it_cuts_them() {
        // Seven bytes at a time.
        let (left, right) = tokio::io::duplex(7);
        let (mut sender, mut receiver) = (Wire::new(Box::new(left), u32::MAX), Wire::new(Box::new(right), u32::MAX));
        for payload_len in [0, 1, 300, 5_000] {
            let payload = vec![0x5a; payload_len];
            sender.push_publish(&Publish { topic: "t", payload: &payload, retain: false, packet_id: None });
            let received = async {
                loop {
                    match receiver.pull() {
                        Ok(Some(packet)) => break packet,
                        Ok(None) => assert!(poll_fn(|cx| receiver.poll_fill(cx)).await.unwrap() > 0),
                        Err(error) => panic!("{error}"),
                    }
                }
            };
            let (sent, packet) = tokio::join!(poll_fn(|cx| sender.poll_flush(cx)), received);
            sent.unwrap();
            assert!(matches!(&packet, Packet::Publish(publish) if publish.payload[..] == payload), "{packet:?}");
        }
    }
}
