//! Bytes from a socket before the peer is authenticated: the parsers of the link and of the embedded server, called in
//! the same way as in `mqtt/wire.rs` and in the server.
#![no_main]
#![forbid(unsafe_code)]

use bytes::{Buf, Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use mqtt5_protocol::packet::{FixedHeader, Packet as ServerPacket};
use rumqttc::Packet as LinkPacket;
use rumqttc::mqttbytes::Error;

const PACKET_BYTES_MAX: u32 = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    link(data);
    [4, 5].into_iter().for_each(|version| server(data, version));
});

fn link(data: &[u8]) {
    let mut inbox = BytesMut::from(data);
    loop {
        let before = inbox.len();
        match LinkPacket::read(&mut inbox, Some(PACKET_BYTES_MAX)) {
            Ok(_) => assert!(inbox.len() < before, "a packet has bytes"),
            Err(Error::InsufficientBytes(missing)) => {
                assert!(missing > 0 && missing <= PACKET_BYTES_MAX as usize, "{missing}");
                return;
            }
            Err(_) => return,
        }
    }
}

fn server(data: &[u8], version: u8) {
    let mut rest = Bytes::copy_from_slice(data);
    while rest.has_remaining() {
        let Ok(header) = FixedHeader::decode(&mut rest) else { return };
        let len = header.remaining_length as usize;
        if len > rest.len() {
            return;
        }
        let mut body = rest.split_to(len);
        if ServerPacket::decode_from_body_with_version(header.packet_type, &header, &mut body, version).is_err() {
            return;
        }
    }
}
