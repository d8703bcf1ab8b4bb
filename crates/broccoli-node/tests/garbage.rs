//! Packets that are malformed, damaged, or sealed with another key: they are reported, and have no other effect.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use broccoli_node::{Cluster, Event, NodeEvent, NodeHandle};
use broccoli_proto::message::{Death, Message};
use broccoli_proto::packet::{Address, PacketError};
use support::cluster::*;
use support::peer::Peer;

/// An origin and a worker that must continue to work.
async fn pair(cluster: &TestCluster) -> (NodeHandle, NodeHandle) {
    let node = |name: &str, slots| cluster.node(name).slots(slots).function("double", |n: u32| 2 * n).start().unwrap();
    let (origin, worker) = (node("origin", 0), node("w1", 1));
    until_workers(&origin, 1).await;
    (origin, worker)
}

async fn works(origin: &NodeHandle) {
    let doubled = result::<Vec<u32>>(origin.submit(numbered("double", 50))).await;
    assert_eq!(doubled, (0..50).map(|n| 2 * n).collect::<Vec<_>>());
}

/// Topics of two nodes, of all nodes, of a node that does not exist, and some without a meaning.
fn topics(peer: &Peer) -> Vec<String> {
    let topics = peer.topics();
    let addresses = ["w1", "origin", "ghost"].map(node_id).into_iter();
    let mut all: Vec<String> =
        addresses.flat_map(|node| [Address::Node(node), Address::Birth(node)]).map(|to| topics.topic(to)).collect();
    let everybody = topics.topic(Address::All);
    let root = everybody.trim_end_matches("_all").to_owned();
    all.extend([everybody, format!("{root}_bad/birth"), format!("{root}{}/birth", "x".repeat(99))]);
    all
}

/// A fixed pseudorandom sequence (xorshift64).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

on_both_servers! {
    async fn noise_on_every_topic_changes_nothing(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, mut worker) = pair(&cluster).await;
        let mut events = worker.events();
        let mut vandal = Peer::new(&server, &cluster.cluster, "vandal").await;
        let job = origin.submit(numbered("double", 500));
        for (seed, topic) in (1..).zip(topics(&vandal)) {
            for len in [0, 1, 2, 16, 40, 100, 1_000, 60_000] {
                vandal.send_raw(&topic, &noise(len, seed), topic.ends_with("birth"));
            }
            // Many nested arrays, and a header with a length beyond the end.
            vandal.send_raw(&topic, &[0x9f; 500], false);
            vandal.send_raw(&topic, &[0x86, 1, 0, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], false);
        }
        vandal.leave().await;
        event(&mut events, |event| matches!(event, NodeEvent::Cluster(Event::Rejected { sender: None, error: PacketError::Malformed })).then_some(())).await;
        assert_eq!(result::<Vec<u32>>(job).await.len(), 500);
        works(&origin).await;
        // A node that joins later receives the retained noise, and works nevertheless.
        let later = cluster.node("w2").slots(1).function("double", |n: u32| 2 * n).start().unwrap();
        until_workers(&later, 2).await;
        works(&later).await;
    }

    async fn damaged_copies_of_real_packets_change_nothing(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, mut worker) = pair(&cluster).await;
        let mut events = worker.events();
        let mut vandal = Peer::eavesdropper(&server, &cluster.cluster, "vandal").await;
        works(&origin).await;
        let mut real = Vec::new();
        while !real.iter().any(|(topic, _): &(String, _)| topic.ends_with("origin/in")) {
            real.push(vandal.receive_raw().await);
        }
        for (topic, packet) in &real {
            for at in (0..packet.len()).step_by(7) {
                vandal.send_raw(topic, &packet[..at], false);
                let mut flipped = packet.clone();
                flipped[at] ^= 1 << (at % 8);
                vandal.send_raw(topic, &flipped, false);
            }
            // The unchanged packet, on the right topic and on others: a replay.
            for other in topics(&vandal) {
                vandal.send_raw(&other, packet, false);
            }
        }
        vandal.leave().await;
        event(&mut events, |event| is_foreign_key(&event).then_some(())).await;
        works(&origin).await;
        until_workers(&origin, 1).await;
    }

    async fn packets_of_another_key_are_told_and_dropped(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (mut origin, worker) = pair(&cluster).await;
        let mut events = origin.events();
        let mut stranger = Peer::new(&server, &cluster.cluster, "w1").await;
        stranger.use_key(Cluster::generate().unwrap().0.key);
        let death = Message::Death(Death { connection: u32::MAX, leaving: true, holds_no_key: None });
        for to in [Address::Node(node_id("origin")), Address::Birth(worker.name()), Address::All] {
            stranger.send(to, std::slice::from_ref(&death));
            event(&mut events, |event| is_foreign_key(&event).then_some(())).await;
        }
        works(&origin).await;
        until_workers(&origin, 1).await;
    }

    async fn sealed_nonsense_of_a_member_names_the_member(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, mut worker) = pair(&cluster).await;
        let mut events = worker.events();
        let mut fool = Peer::new(&server, &cluster.cluster, "fool").await;
        for seed in 1..60 {
            let bytes = noise(20 * seed, seed as u64);
            fool.send_plaintext(Address::Node(node_id("w1")), |buf| buf.extend_from_slice(&bytes));
            fool.send_plaintext(Address::All, |buf| buf.extend_from_slice(&bytes));
        }
        let named = |event| match event {
            NodeEvent::Cluster(Event::Rejected { sender: Some(sender), error: PacketError::Malformed }) => Some(sender),
            _ => None,
        };
        assert_eq!(event(&mut events, named).await, node_id("fool"));
        fool.leave().await;
        works(&origin).await;
    }

    async fn a_node_with_a_wrong_key_learns_that_it_has_one(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster).await;
        let mut wrong = cluster.cluster.clone();
        wrong.key = Cluster::generate().unwrap().0.key;
        let mut stranger = cluster.node("stranger").cluster(wrong).start().unwrap();
        event(&mut stranger.events(), |event| is_foreign_key(&event).then_some(())).await;
        assert_eq!(stranger.view().await.map(|view| view.nodes.len()), Some(1), "it knows nobody but itself");
        works(&origin).await;
    }

    async fn a_listener_that_does_not_listen_costs_no_memory(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, mut worker) = pair(&cluster).await;
        let unread = worker.events();
        let mut vandal = Peer::new(&server, &cluster.cluster, "vandal").await;
        let topic = vandal.topics().topic(Address::Node(node_id("w1")));
        let mut watched = worker.events();
        for round in 0..100 {
            for _ in 0..60 {
                vandal.send_raw(&topic, &[0xff], false);
            }
            vandal.send_raw(&topic, &[], false);
            let is_rejected = |event| matches!(event, NodeEvent::Cluster(Event::Rejected { .. })).then_some(());
            for _ in 0..if round < 99 { 61 } else { 1 } {
                event(&mut watched, is_rejected).await;
            }
        }
        assert_eq!(unread.len(), 4_096, "no more events than that wait");
        works(&origin).await;
    }
}
