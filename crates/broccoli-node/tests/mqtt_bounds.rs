//! The limits of the embedded server against strangers and clients, and its work meanwhile. See docs/limits.md.
#![cfg(feature = "embedded-server")]
// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::time::Duration;

use broccoli_node::mqtt::{DisconnectReason, EmbeddedServer, Link, LinkConfig, LinkEvent, ServerConfig, ServerNotice};
use broccoli_node::mqtt::{PublishError, ServerUrl};
use support::{PASSWORD, PATIENCE, USER, next_event};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

const MIB: usize = 1 << 20;
/// The largest payload that the server of these tests accepts, in bytes.
const PACKET_BYTES_MAX: usize = MIB;
/// A usual process can open this many connections, with both ends in the process.
const ATTACKERS: usize = 400;

/// These tests measure the memory of one process, so they run one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Server {
    server: EmbeddedServer,
    url: ServerUrl,
    _alone: MutexGuard<'static, ()>,
}

impl Server {
    async fn start(clients_max: usize) -> Server {
        let alone = ALONE.lock().await;
        let config = ServerConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            packet_bytes_max: PACKET_BYTES_MAX,
            clients_max,
        };
        let server = EmbeddedServer::start(config).await.unwrap();
        let url = ServerUrl::new("127.0.0.1", server.local_addr().port()).with_credentials(USER, PASSWORD);
        Server { server, url, _alone: alone }
    }

    fn link(&self, name: &str, filters: &[&str]) -> Link {
        let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
        let mut config = LinkConfig::new(self.url.clone(), filters);
        config.packet_bytes_max = PACKET_BYTES_MAX;
        let mut link = Link::new(config);
        link.connect(name, None);
        link
    }

    async fn connected(&self, name: &str, filters: &[&str]) -> Link {
        let mut link = self.link(name, filters);
        let event = next_event(&mut link).await;
        assert!(matches!(event, LinkEvent::Connected), "{event:?}");
        link
    }

    async fn dial(&self) -> TcpStream {
        TcpStream::connect(self.server.local_addr()).await.unwrap()
    }
}

#[tokio::test]
async fn strangers_who_announce_large_connects_cost_nothing() {
    let server = Server::start(10_000).await;
    let before = resident_bytes();
    let announced = [&[0x10], &length(MIB - 16)[..], b"\x00\x04MQTT\x05\xc2\x00\x05\x00\x00\x01a"].concat();
    let mut strangers = Vec::new();
    for _ in 0..ATTACKERS {
        let mut stream = server.dial().await;
        stream.write_all(&announced).await.unwrap();
        // The server may have closed the connection by now.
        let _ = timeout(Duration::from_millis(5), stream.write_all(&vec![0; MIB - 100])).await;
        strangers.push(stream);
    }
    assert_grew_by_less_than(before, 32 * MIB);
    server.connected("friend", &["n/in"]).await;
    for mut stream in strangers {
        assert_ends(&mut stream, "a CONNECT that is too large").await;
    }
}

#[tokio::test]
async fn strangers_who_send_half_a_connect_are_sent_away() {
    let server = Server::start(10_000).await;
    let before = resident_bytes();
    let connect = [&[0x10], &length(8_000)[..], b"\x00\x04MQTT\x05\xc2\x00\x05\x00", &[0; 7_000]].concat();
    let mut strangers = Vec::new();
    for index in 0..ATTACKERS {
        let mut stream = server.dial().await;
        stream.write_all(&connect[..connect.len() * index / ATTACKERS]).await.unwrap();
        strangers.push(stream);
    }
    let start = Instant::now();
    server.connected("friend", &["n/in"]).await;
    assert!(start.elapsed() < Duration::from_secs(2), "they make nobody wait");
    assert_grew_by_less_than(before, 16 * MIB);
    for stream in &mut strangers {
        assert_ends(stream, "half a CONNECT").await;
    }
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_is_no_mqtt_is_sent_away_at_once() {
    let server = Server::start(10).await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xc0\x00", b"\x10\xff\xff\xff\xff", &[0x30; 64]] {
        let mut stream = server.dial().await;
        stream.write_all(bytes).await.unwrap();
        let start = Instant::now();
        assert_ends(&mut stream, "no CONNECT").await;
        assert!(start.elapsed() < Duration::from_secs(3), "{bytes:?}");
    }
    server.connected("friend", &[]).await;
}

#[tokio::test]
async fn retained_packets_are_bounded_each_and_in_all() {
    let server = Server::start(10_000).await;
    let mut node = server.connected("node", &["done"]).await;
    let mut observer = server.connected("observer", &["birth/#"]).await;
    let before = resident_bytes();

    // A packet that is too large is not retained.
    publish(&mut node, "large/1", &vec![1; MIB], true).await;
    // Twice as much as is retained in all. Each packet is delivered, whether it is retained or not.
    let births = 2 * (64 * MIB) / 8_192;
    for index in 0..births {
        publish(&mut node, &format!("birth/{index}"), &vec![index as u8; 8_000], true).await;
        assert_eq!(next_payload(&mut observer).await.len(), 8_000);
    }
    // A retained packet can still be replaced.
    publish(&mut node, "birth/0", b"again", true).await;
    assert_eq!(next_payload(&mut observer).await, b"again");
    assert_grew_by_less_than(before, 100 * MIB);

    let mut later = server.connected("later", &["birth/#", "large/#", "done"]).await;
    publish(&mut node, "done", b"done", false).await;
    let mut kept = Vec::new();
    loop {
        let payload = next_payload(&mut later).await;
        if payload == b"done" {
            break;
        }
        kept.push(payload);
    }
    assert!(kept.contains(&b"again".to_vec()));
    let bytes: usize = kept.iter().map(Vec::len).sum();
    assert!((48 * MIB..=64 * MIB).contains(&bytes), "{bytes} bytes are kept");
    assert!(kept.iter().all(|payload| payload.len() <= 8_192));
}

#[tokio::test]
async fn queues_of_clients_that_do_not_read_are_bounded_together() {
    let server = Server::start(100).await;
    let before = resident_bytes();
    let mut deaf = Vec::new();
    for index in 0..20 {
        let mut stream = server.dial().await;
        stream.write_all(&connect_packet(&format!("deaf-{index}"))).await.unwrap();
        stream.write_all(&subscribe_packet("bulk/#")).await.unwrap();
        let mut confirmed = [0; 4];
        stream.read_exact(&mut confirmed).await.unwrap();
        assert_eq!(confirmed[0], 0x20, "a CONNACK");
        deaf.push(stream);
    }
    let mut sender = server.connected("sender", &["done"]).await;
    // Without a common limit, each of the twenty clients would hold 128 MB.
    for index in 0..600usize {
        publish(&mut sender, &format!("bulk/{}", index % 20), &vec![index as u8; MIB / 2], false).await;
    }
    assert_grew_by_less_than(before, 260 * MIB);
    drop(deaf);
    // Their memory is free again, and other clients are served.
    let mut receiver = server.connected("receiver", &["t"]).await;
    let end = Instant::now() + PATIENCE;
    loop {
        publish(&mut sender, "t", &vec![7; MIB / 2], false).await;
        match timeout(Duration::from_millis(100), next_payload(&mut receiver)).await {
            Ok(payload) => break assert_eq!(payload.len(), MIB / 2),
            Err(_) => assert!(Instant::now() < end, "nothing arrives"),
        }
    }
}

#[tokio::test]
async fn a_full_server_says_so_once_and_takes_others_when_it_has_room() {
    let mut server = Server::start(2).await;
    let mut notices = server.server.notices();
    let first = server.connected("first", &[]).await;
    let _second = server.connected("second", &[]).await;
    for _ in 0..3 {
        let mut third = server.link("third", &[]);
        match next_event(&mut third).await {
            LinkEvent::Disconnected { reason } => assert_eq!(reason, DisconnectReason::Full),
            event => panic!("{event:?} at a full server"),
        }
    }
    let mut stranger = Link::new(LinkConfig::new(server.url.clone().with_credentials(USER, "wrong"), Vec::new()));
    stranger.connect("stranger", None);
    let event = next_event(&mut stranger).await;
    let LinkEvent::Disconnected { reason: DisconnectReason::RefusedCredentials } = event else {
        panic!("{event:?}: a stranger learns nothing of the server");
    };
    drop(first);
    let end = Instant::now() + PATIENCE;
    loop {
        let mut third = server.link("third", &[]);
        match next_event(&mut third).await {
            LinkEvent::Connected => break,
            event => assert!(Instant::now() < end, "{event:?} though there is room"),
        }
    }
    assert_eq!(notices.recv().await, Some(ServerNotice::Full { clients_max: 2 }));
    assert!(notices.try_recv().is_err(), "it is said once");
}

#[tokio::test]
async fn names_that_are_too_long_are_refused() {
    let server = Server::start(10).await;
    let long = "x".repeat(300);
    let mut link = server.link("node", &[&long]);
    let event = next_event(&mut link).await;
    let LinkEvent::Disconnected { reason: DisconnectReason::Other(why) } = event else { panic!("{event:?}") };
    assert!(why.starts_with("refused to subscribe"), "{why}");

    let mut link = server.link(&long, &[]);
    let event = next_event(&mut link).await;
    let LinkEvent::Disconnected { reason: DisconnectReason::Other(why) } = event else { panic!("{event:?}") };
    assert!(why.starts_with("refused"), "{why}");

    let many: Vec<String> = (0..17).map(|index| format!("t/{index}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut link = server.link("node", &many);
    let event = next_event(&mut link).await;
    let LinkEvent::Disconnected { reason: DisconnectReason::Other(why) } = event else { panic!("{event:?}") };
    assert!(why.starts_with("refused to subscribe"), "{why}");

    let mut observer = server.connected("observer", &["#"]).await;
    let mut sender = server.connected("sender", &[]).await;
    publish(&mut sender, &long, b"1", false).await;
    publish(&mut sender, "short", b"2", false).await;
    assert_eq!(next_payload(&mut observer).await, b"2");
}

async fn publish(link: &mut Link, topic: &str, payload: &[u8], retain: bool) {
    let sent = async {
        while let Err(error) = link.publish(topic, payload, retain) {
            assert_eq!(error, PublishError::Full);
            // The sender receives nothing. This only sends what waits, and reads acknowledgements.
            let _ = timeout(Duration::from_millis(1), link.next()).await;
        }
        while !link.has_room() {
            let _ = timeout(Duration::from_millis(1), link.next()).await;
        }
    };
    timeout(PATIENCE, sent).await.expect("the server takes packets");
    // One call writes what the socket accepts.
    let _ = timeout(Duration::ZERO, link.next()).await;
}

async fn next_payload(link: &mut Link) -> Vec<u8> {
    match next_event(link).await {
        LinkEvent::Packet { payload, .. } => payload.to_vec(),
        event => panic!("{event:?} instead of a packet"),
    }
}

async fn assert_ends(stream: &mut TcpStream, what: &str) {
    let mut byte = [0];
    let end = timeout(PATIENCE, stream.read(&mut byte)).await.unwrap_or_else(|_| panic!("{what} is kept"));
    assert!(matches!(end, Ok(0) | Err(_)), "{what} is answered with {byte:?}");
}

/// Memory of this process: mostly that of the server.
fn resident_bytes() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

#[track_caller]
fn assert_grew_by_less_than(before: usize, bytes: usize) {
    let grown = resident_bytes().saturating_sub(before);
    println!("grew by {} KiB", grown / 1024);
    assert!(grown < bytes, "{} MiB more", grown / MIB);
}

/// A length in the encoding of MQTT.
fn length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let more = length >= 0x80;
        bytes.push((length & 0x7f) as u8 | u8::from(more) << 7);
        length >>= 7;
        if !more {
            return bytes;
        }
    }
}

fn connect_packet(client_id: &str) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let body = [&b"\x00\x04MQTT\x05\xc2\x00\x3c\x00"[..], &text(client_id), &text(USER), &text(PASSWORD)].concat();
    [&[0x10], &length(body.len())[..], &body].concat()
}

fn subscribe_packet(filter: &str) -> Vec<u8> {
    let body = [&[0, 1, 0][..], &(filter.len() as u16).to_be_bytes(), filter.as_bytes(), &[0]].concat();
    [&[0x82], &length(body.len())[..], &body].concat()
}
