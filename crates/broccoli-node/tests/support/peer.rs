//! A peer that speaks the protocol by hand, with the key of the cluster or another one.

use std::collections::HashMap;
use std::time::Duration;

use broccoli_node::Cluster;
use broccoli_node::mqtt::{Link, LinkConfig, LinkEvent, PublishError};
use broccoli_proto::message::{Birth, Message};
use broccoli_proto::packet::{self, Address, Envelope, Header};
use broccoli_proto::seal::ClusterKey;
use broccoli_proto::topic::Topics;
use broccoli_proto::{Epoch, NodeId};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::cluster::node_id;
use super::{PATIENCE, TestServer, next_event};

/// The challenge of this peer, which others repeat as a proof.
const CHALLENGE: u64 = 0x0123_4567_89ab_cdef;

struct Outgoing {
    topic: String,
    bytes: Vec<u8>,
    retain: bool,
}

/// A connected link that seals outgoing packets and opens incoming ones.
pub(crate) struct Peer {
    outgoing: UnboundedSender<Outgoing>,
    incoming: UnboundedReceiver<(String, Vec<u8>)>,
    pump: JoinHandle<()>,
    topics: Topics,
    key: ClusterKey,
    name: NodeId,
    epoch: Epoch,
    sequence: u64,
    /// The challenges of other nodes, as far as their packets were received.
    challenges: HashMap<NodeId, u64>,
}

impl Peer {
    /// A peer with the subscriptions of a node of this name.
    pub(crate) async fn new(server: &TestServer, cluster: &Cluster, name: &str) -> Peer {
        let topics = Topics::new(cluster.id);
        let subscriptions = topics.subscriptions(node_id(name), true);
        Peer::subscribed(server, cluster, name, subscriptions).await
    }

    /// A peer that receives all packets of the cluster.
    pub(crate) async fn eavesdropper(server: &TestServer, cluster: &Cluster, name: &str) -> Peer {
        Peer::subscribed(server, cluster, name, vec![format!("broccoli/{}/#", cluster.id)]).await
    }

    async fn subscribed(server: &TestServer, cluster: &Cluster, name: &str, subscriptions: Vec<String>) -> Peer {
        let mut link =
            Link::new(LinkConfig { packet_bytes_max: 256 * 1024, ..LinkConfig::new(server.url(), subscriptions) });
        link.connect(name, None);
        assert!(matches!(next_event(&mut link).await, LinkEvent::Connected));
        let (topics, key) = (Topics::new(cluster.id), cluster.key.clone());
        let ((outgoing, to_send), (received, incoming)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let pump = tokio::spawn(pump(link, to_send, received));
        Peer {
            outgoing,
            incoming,
            pump,
            topics,
            key,
            name: node_id(name),
            epoch: Epoch([7; 16]),
            sequence: 0,
            challenges: HashMap::new(),
        }
    }

    /// Seals with this key from now on.
    pub(crate) fn use_key(&mut self, key: ClusterKey) {
        self.key = key;
    }

    /// Seals and sends messages.
    pub(crate) fn send(&mut self, to: Address, messages: &[Message]) {
        self.send_plaintext(to, |buf| messages.iter().for_each(|message| packet::put(buf, message)));
    }

    /// Seals and sends any plaintext.
    pub(crate) fn send_plaintext(&mut self, to: Address, put: impl FnOnce(&mut Vec<u8>)) {
        let mut buf = Vec::new();
        self.sequence += 1;
        let proof = if let Address::Node(node) = to { self.challenges.get(&node).copied() } else { None };
        let Peer { name: sender, epoch, sequence, .. } = *self;
        packet::seal(&self.key, &Envelope { sender, to, epoch, sequence, challenge: CHALLENGE, proof }, &mut buf, put);
        self.send_raw(&self.topics.topic(to), &buf, false);
    }

    /// Sends bytes unchanged, on any topic.
    pub(crate) fn send_raw(&mut self, topic: &str, bytes: &[u8], retain: bool) {
        assert!(self.outgoing.send(Outgoing { topic: topic.to_owned(), bytes: bytes.to_vec(), retain }).is_ok());
    }

    /// The topics of the cluster.
    pub(crate) fn topics(&self) -> Topics {
        self.topics.clone()
    }

    /// The next packet unchanged, with its topic.
    pub(crate) async fn receive_raw(&mut self) -> (String, Vec<u8>) {
        timeout(PATIENCE, self.incoming.recv()).await.expect("a packet comes in time").expect("the link is up")
    }

    /// The next packet that this peer can open, and its messages.
    pub(crate) async fn receive(&mut self) -> (Header, Vec<Message>) {
        loop {
            let (_, mut packet) = self.receive_raw().await;
            if let Ok((header, plaintext)) = packet::open(std::slice::from_ref(&self.key), self.name, &mut packet) {
                self.challenges.insert(header.sender, header.challenge);
                let messages: Vec<Message> = packet::messages(plaintext).flatten().collect();
                if messages.is_empty() && header.proof.is_none() {
                    // An empty packet asks for a proof.
                    self.send(Address::Node(header.sender), &[]);
                    continue;
                }
                return (header, messages);
            }
        }
    }

    /// Ends the link after everything was sent.
    pub(crate) async fn leave(self) {
        drop(self.outgoing);
        self.pump.await.unwrap();
    }

    /// Publishes the birth of a node with this set of modules.
    pub(crate) fn announce(&mut self, modules: u64) {
        let birth = Birth {
            connection: 1,
            slots: 1,
            features: Vec::new(),
            modules,
            packet_bytes_max: 64 * 1024,
            resident: false,
            version: "0".into(),
            durable: None,
            again_s: 35,
            draining: None,
            takes: None,
        };
        self.send(Address::Birth(self.name), &[Message::Birth(birth)]);
    }
}

async fn pump(mut link: Link, mut to_send: UnboundedReceiver<Outgoing>, received: UnboundedSender<(String, Vec<u8>)>) {
    // A packet that waits until earlier ones are acknowledged.
    let mut unsent: Option<Outgoing> = None;
    loop {
        if let Some(Outgoing { topic, bytes, retain }) = &unsent {
            match link.publish(topic, bytes, *retain) {
                Err(PublishError::Full) => {}
                sent => {
                    sent.unwrap();
                    unsent = None;
                }
            }
        }
        tokio::select! {
            () = sleep(Duration::from_millis(1)), if unsent.is_some() => {}
            event = link.next() => match event {
                LinkEvent::Packet { topic, payload, .. } => {
                    let topic = String::from_utf8(topic.to_vec()).unwrap();
                    // An error means that the peer only sends.
                    let _ = received.send((topic, payload.to_vec()));
                }
                LinkEvent::Connected => {}
                LinkEvent::Disconnected { reason } => panic!("{reason}"),
            },
            outgoing = to_send.recv(), if unsent.is_none() => match outgoing {
                Some(outgoing) => unsent = Some(outgoing),
                None => break,
            },
        }
    }
    link.disconnect().await;
}
