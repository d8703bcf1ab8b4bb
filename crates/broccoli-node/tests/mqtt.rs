//! The link with real servers: packets, retained packets, Wills, refusals, restarts and limits.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use std::time::Duration;

use broccoli_node::mqtt::{DisconnectReason, Link, LinkConfig, LinkEvent, PublishError, ServerError, ServerUrl, Will};
use support::{PACKET_BYTES_MAX, TestServer, free_addr, next_event, start_embedded};

on_both_servers! {
    async fn packets_arrive_in_order(server: TestServer) {
        let mut sender = connected(&server, "sender", &[]).await;
        let mut receiver = connected(&server, "receiver", &["t/+/in"]).await;
        for number in 0..100u8 {
            sender.publish("t/1/in", &[number], false).unwrap();
            sender.publish("t/1/out", b"not subscribed", false).unwrap();
        }
        let mut received = Vec::new();
        while received.len() < 100 {
            let event = either_event(&mut sender, &mut receiver).await;
            received.extend(event_packets(&mut receiver, event));
        }
        for (number, packet) in received.iter().enumerate() {
            assert_eq!(*packet, ("t/1/in".into(), vec![number as u8].into(), false));
        }
    }

    async fn retained_packet_reaches_a_later_subscriber(server: TestServer) {
        let mut sender = connected(&server, "sender", &[]).await;
        sender.publish("n/birth", b"old", true).unwrap();
        sender.publish("n/birth", b"alive", true).unwrap();
        sender.disconnect().await;

        let mut receiver = connected(&server, "receiver", &["+/birth", "+/in"]).await;
        if server.retains() {
            assert_eq!(next_packet(&mut receiver).await, packet("n/birth", b"alive", true));
        }
        echo(&mut receiver, b"nothing else").await;
    }

    async fn thousands_of_births_reach_a_later_subscriber(server: TestServer) {
        const BIRTHS: usize = 5_000;
        let mut sender = connected(&server, "sender", &["mark"]).await;
        for number in 0..BIRTHS {
            let topic = format!("n{number}/birth");
            while sender.publish(&topic, b"alive", true) == Err(PublishError::Full) {
                let idle = tokio::time::timeout(Duration::from_millis(1), sender.next()).await;
                assert!(idle.is_err(), "{idle:?} at the sender");
            }
        }
        // When this packet returns, the server has handled all earlier ones.
        sender.publish("mark", b"", false).unwrap();
        assert_eq!(next_packet(&mut sender).await, packet("mark", b"", false));

        let mut receiver = connected(&server, "receiver", &["+/birth", "n/in"]).await;
        let mut born = std::collections::BTreeSet::new();
        while born.len() < if server.retains() { BIRTHS } else { 0 } {
            born.insert(next_packet(&mut receiver).await.0);
        }
        echo(&mut receiver, b"nothing else").await;
    }

    async fn will_is_sent_after_an_abrupt_end(server: TestServer) {
        let mut observer = connected(&server, "observer", &["n/birth"]).await;
        let node = connected_with_will(&server, "node", b"lost").await;
        drop(node);
        assert_eq!(next_packet(&mut observer).await, packet("n/birth", b"lost", false));

        let mut later = connected(&server, "later", &["n/birth", "n/in"]).await;
        if server.retains() {
            assert_eq!(next_packet(&mut later).await, packet("n/birth", b"lost", true));
        }
        echo(&mut later, b"nothing else").await;
    }

    async fn will_is_not_sent_after_a_graceful_end(server: TestServer) {
        let mut observer = connected(&server, "observer", &["#"]).await;
        let mut node = connected_with_will(&server, "node", b"lost").await;
        node.publish("n/bye", b"bye", false).unwrap();
        node.disconnect().await;
        assert!(!node.is_connected());
        assert_eq!(next_packet(&mut observer).await, packet("n/bye", b"bye", false));

        // A Will would arrive before this packet: the server had seen the end when `disconnect` returned.
        let mut other = connected(&server, "other", &[]).await;
        other.publish("mark", b"", false).unwrap();
        other.disconnect().await;
        assert_eq!(next_packet(&mut observer).await, packet("mark", b"", false));
    }

    async fn unread_packets_do_not_spoil_a_graceful_end(server: TestServer) {
        let mut observer = connected(&server, "observer", &["n/birth", "mark"]).await;
        let mut sender = connected(&server, "sender", &[]).await;
        let mut node = connected_with_will(&server, "node", b"lost").await;
        for _ in 0..64 {
            sender.publish("n/in", &[0; 1024], false).unwrap();
        }
        sender.publish("mark", b"sent", false).unwrap();
        sender.disconnect().await;
        assert_eq!(next_packet(&mut observer).await, packet("mark", b"sent", false));
        node.disconnect().await;

        let mut other = connected(&server, "other", &[]).await;
        other.publish("mark", b"end", false).unwrap();
        other.disconnect().await;
        assert_eq!(next_packet(&mut observer).await, packet("mark", b"end", false));
    }

    async fn wrong_password_is_told_apart(server: TestServer) {
        let wrong = server.anonymous_url().with_credentials(support::USER, "wrong");
        for url in [wrong, server.anonymous_url()] {
            let mut link = Link::new(LinkConfig::new(url, Vec::new()));
            for _ in 0..8 {
                link.connect("stranger", None);
                assert_disconnected(&mut link, DisconnectReason::RefusedCredentials).await;
            }
        }
        // Clients with the password can still connect.
        connected(&server, "friend", &[]).await;
    }

    async fn configured_credentials_serve_a_url_without_any(server: TestServer) {
        let mut config = LinkConfig::new(server.anonymous_url(), Vec::new());
        config.credentials = Some((support::USER.into(), support::PASSWORD.into()));
        let mut link = Link::new(config);
        link.connect("node", None);
        assert!(matches!(next_event(&mut link).await, LinkEvent::Connected));
    }

    async fn link_survives_a_restart_of_the_server(server: TestServer) {
        let mut link = connected(&server, "node-1", &["n/in"]).await;
        link.publish("n/birth", b"alive", true).unwrap();
        echo(&mut link, b"before").await;

        server.stop().await;
        assert_disconnected(&mut link, DisconnectReason::Closed).await;
        assert_eq!(link.publish("n/in", b"lost", false), Err(PublishError::NotConnected));
        link.connect("node-2", None);
        let event = next_event(&mut link).await;
        let LinkEvent::Disconnected { reason: DisconnectReason::Unreachable(_) } = event else {
            panic!("{event:?} while there is no server");
        };

        server.restart().await;
        link.connect("node-3", None);
        assert!(matches!(next_event(&mut link).await, LinkEvent::Connected));
        echo(&mut link, b"after").await;

        // The server starts with an empty memory: the retained packet is gone.
        let mut later = connected(&server, "later", &["n/#"]).await;
        echo(&mut later, b"first").await;
    }

    async fn packets_pass_up_to_the_limit(server: TestServer) {
        let mut link = connected(&server, "node", &["n/in"]).await;
        let payload: Vec<u8> = (0..PACKET_BYTES_MAX).map(|index| index as u8).collect();
        echo(&mut link, &payload).await;

        let too_large = vec![0; PACKET_BYTES_MAX + 1];
        assert_eq!(
            link.publish("n/in", &too_large, false),
            Err(PublishError::TooLarge { payload_bytes: PACKET_BYTES_MAX + 1 })
        );
        echo(&mut link, b"still there").await;
    }

    async fn larger_packets_than_a_link_takes_do_not_reach_it(server: TestServer) {
        let mut config = LinkConfig::new(server.url(), vec!["n/in".to_owned()]);
        config.packet_bytes_max = 1024;
        let mut small = Link::new(config);
        small.connect("small", None);
        assert!(matches!(next_event(&mut small).await, LinkEvent::Connected));

        let mut large = connected(&server, "large", &[]).await;
        large.publish("n/in", &[1; 10_000], false).unwrap();
        large.publish("n/in", &[2; 1024], false).unwrap();
        large.disconnect().await;
        assert_eq!(next_packet(&mut small).await, packet("n/in", &[2; 1024], false));
    }

    async fn full_link_refuses_and_recovers(server: TestServer) {
        let mut link = connected(&server, "node", &["n/in"]).await;
        let payload = vec![7; 16 * 1024];
        let mut accepted = 0;
        while link.has_room() {
            link.publish("n/in", &payload, false).unwrap();
            accepted += 1;
        }
        assert_eq!(accepted, 16);
        assert_eq!(link.publish("n/in", &payload, false), Err(PublishError::Full));
        for _ in 0..accepted {
            assert_eq!(next_packet(&mut link).await.1.len(), payload.len());
        }
        assert!(link.has_room());
    }

    async fn idle_connection_outlives_its_keep_alive(server: TestServer) {
        let mut config = LinkConfig::new(server.url(), vec!["n/in".to_owned()]);
        config.keep_alive_s = 1;
        let mut link = Link::new(config);
        link.connect("node", None);
        assert!(matches!(next_event(&mut link).await, LinkEvent::Connected));
        let idle = tokio::time::timeout(Duration::from_secs(3), link.next()).await;
        assert!(idle.is_err(), "{idle:?} on an idle link");
        echo(&mut link, b"still there").await;
    }
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let addr = free_addr();
    let url = ServerUrl::new(addr.ip().to_string(), addr.port());
    let mut link = Link::new(LinkConfig::new(url, Vec::new()));
    link.connect("node", None);
    let event = next_event(&mut link).await;
    let LinkEvent::Disconnected { reason: DisconnectReason::Unreachable(_) } = event else {
        panic!("{event:?} without a server");
    };
}

#[tokio::test]
async fn mute_server_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let url = ServerUrl::new(addr.ip().to_string(), addr.port());
    let mut config = LinkConfig::new(url, Vec::new());
    config.connect_timeout = Duration::from_millis(50);
    let mut link = Link::new(config);
    // The server was reached, so it may be busy: the next attempt gives it more time.
    for timeout_ms in [50, 100, 200, 400, 400] {
        link.connect("node", None);
        let reason = DisconnectReason::Unreachable(format!("no answer within {timeout_ms}ms"));
        assert_disconnected(&mut link, reason).await;
    }
}

#[tokio::test]
async fn embedded_server_stops_as_soon_as_it_has_started() {
    for _ in 0..200 {
        let mut server = TestServer::embedded().await;
        tokio::time::timeout(support::PATIENCE, server.stop()).await.expect("it stops");
    }
}

#[tokio::test]
async fn embedded_server_names_a_taken_port() {
    let server = TestServer::embedded().await;
    match start_embedded(server.addr()).await {
        Err(error @ ServerError::PortTaken { addr }) => {
            assert_eq!(addr, server.addr());
            assert_eq!(error.to_string(), format!("{addr} is taken"));
        }
        other => panic!("{other:?} on a taken port"),
    }
    connected(&server, "node", &[]).await;
}

#[tokio::test]
async fn embedded_server_admits_a_whole_cluster_at_once() {
    let mut server = TestServer::embedded().await;
    let mut links: Vec<Link> =
        (0..63).map(|_| Link::new(LinkConfig::new(server.url(), vec!["n/in".to_owned()]))).collect();
    for round in 0..3 {
        for (index, link) in links.iter_mut().enumerate() {
            link.connect(&format!("node-{index}-{round}"), None);
        }
        for link in &mut links {
            assert!(matches!(next_event(link).await, LinkEvent::Connected));
        }
        server.restart().await;
        for link in &mut links {
            assert_disconnected(link, DisconnectReason::Closed).await;
        }
    }
}

type Packet = (Bytes, Bytes, bool);

fn packet(topic: &str, payload: &[u8], retain: bool) -> Packet {
    (Bytes::copy_from_slice(topic.as_bytes()), Bytes::copy_from_slice(payload), retain)
}

async fn connected(server: &TestServer, client_id: &str, subscriptions: &[&str]) -> Link {
    connected_as(server, client_id, subscriptions, None).await
}

async fn connected_with_will(server: &TestServer, client_id: &str, payload: &[u8]) -> Link {
    let will = Will { topic: "n/birth".to_owned(), payload: payload.to_vec(), retain: true };
    connected_as(server, client_id, &["n/in"], Some(will)).await
}

async fn connected_as(server: &TestServer, client_id: &str, subscriptions: &[&str], will: Option<Will>) -> Link {
    let subscriptions = subscriptions.iter().map(|&filter| filter.to_owned()).collect();
    let mut config = LinkConfig::new(server.url(), subscriptions);
    config.packet_bytes_max = PACKET_BYTES_MAX;
    let mut link = Link::new(config);
    link.connect(client_id, will);
    let event = next_event(&mut link).await;
    assert!(matches!(event, LinkEvent::Connected), "{event:?}");
    link
}

async fn assert_disconnected(link: &mut Link, expected: DisconnectReason) {
    match next_event(link).await {
        LinkEvent::Disconnected { reason } => assert_eq!(reason, expected),
        event => panic!("{event:?} instead of {expected:?}"),
    }
}

async fn next_packet(link: &mut Link) -> Packet {
    match next_event(link).await {
        LinkEvent::Packet { topic, payload, retain } => (topic, payload, retain),
        event => panic!("{event:?} instead of a packet"),
    }
}

/// Sends a packet to itself.
async fn echo(link: &mut Link, payload: &[u8]) {
    link.publish("n/in", payload, false).unwrap();
    assert_eq!(next_packet(link).await, packet("n/in", payload, false));
}

async fn either_event(sender: &mut Link, receiver: &mut Link) -> LinkEvent {
    tokio::select! {
        event = sender.next() => panic!("{event:?} at the sender"),
        event = next_event(receiver) => event,
    }
}

/// The packet of this event, and those that have arrived with it.
fn event_packets(link: &mut Link, first: LinkEvent) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut event = Some(first);
    while let Some(LinkEvent::Packet { topic, payload, retain }) = event {
        packets.push((topic, payload, retain));
        event = link.next_buffered();
    }
    packets
}
