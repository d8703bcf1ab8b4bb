//! The memory of the server for packets, and its limits.
//!
//! Every payload is copied once out of the read buffer (a slice would keep the whole buffer), and counts until its last
//! copy is dropped, in the queues of all clients and among the retained packets. Above the limit a packet is dropped,
//! as MQTT allows with QoS 0; the protocol above repeats what matters. A packet that cannot be retained is still
//! delivered.
//!
//! Passes on topic, payload, response topic and correlation data, but no user properties.

use std::collections::HashMap;
use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mqtt5::broker::events::{BrokerEventHandler, ClientPublishEvent, PublishAction, RetainedSetEvent};
use mqtt5::packet::publish::PublishPacket;

use super::Answer;

/// Most bytes of payloads in the queues of all clients and among the retained packets.
const PAYLOAD_BYTES_MAX: usize = 192 * 1024 * 1024;
/// Most bytes of retained packets, including their topics.
const RETAINED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that a packet costs besides its topic and payload.
const PACKET_BYTES: usize = 256;

/// Counts the bytes that are held.
pub(super) struct Hold {
    payload_bytes: Arc<AtomicUsize>,
    retained: Mutex<Retained>,
}

/// The size of each retained packet in bytes, by topic.
#[derive(Default)]
struct Retained {
    packets: HashMap<Arc<str>, usize>,
    bytes: usize,
    packets_max: usize,
}

impl Hold {
    /// Holds nothing yet. At most `retained_max` packets may be retained.
    pub(super) fn new(retained_max: usize) -> Hold {
        let retained = Retained { packets_max: retained_max, ..Retained::default() };
        Hold { payload_bytes: Arc::default(), retained: Mutex::new(retained) }
    }

    /// The packet to pass on, or the decision to drop it.
    fn take_in(&self, event: ClientPublishEvent) -> PublishAction {
        let Some(payload) = Counted::copy(&event.payload, &self.payload_bytes) else {
            return PublishAction::Handled;
        };
        let mut publish = PublishPacket::new(&*event.topic, Bytes::from_owner(payload), event.qos);
        publish.packet_id = event.packet_id;
        publish.retain = event.retain && (event.payload.is_empty() || self.has_room(&event.topic, event.payload.len()));
        if let Some(topic) = event.response_topic {
            publish.properties.set_response_topic(topic.to_string());
        }
        if let Some(data) = event.correlation_data {
            publish.properties.set_correlation_data(data);
        }
        PublishAction::Transform(publish)
    }

    /// Whether a payload of this size may replace the retained one of the topic.
    fn has_room(&self, topic: &str, payload_bytes: usize) -> bool {
        let retained = self.retained.lock().unwrap_or_else(PoisonError::into_inner);
        let before = retained.packets.get(topic).copied();
        let after = retained.bytes - before.unwrap_or(0) + cost(topic, payload_bytes);
        after <= RETAINED_BYTES_MAX && (before.is_some() || retained.packets.len() < retained.packets_max)
    }

    /// A packet is retained from now on, or no longer. Also called for a Will, for which [`Hold::take_in`] was not
    /// called.
    fn note_retained(&self, event: &RetainedSetEvent) {
        let mut retained = self.retained.lock().unwrap_or_else(PoisonError::into_inner);
        let Retained { packets, bytes, .. } = &mut *retained;
        if event.cleared {
            *bytes -= packets.remove(&event.topic).unwrap_or(0);
        } else {
            let now = cost(&event.topic, event.payload.len());
            let before = packets.insert(event.topic.clone(), now).unwrap_or(0);
            *bytes = *bytes - before + now;
        }
    }
}

fn cost(topic: &str, payload_bytes: usize) -> usize {
    topic.len() + payload_bytes + PACKET_BYTES
}

impl BrokerEventHandler for Hold {
    fn on_client_publish<'a>(&'a self, event: ClientPublishEvent) -> Answer<'a, PublishAction> {
        Box::pin(ready(self.take_in(event)))
    }

    fn on_retained_set<'a>(&'a self, event: RetainedSetEvent) -> Answer<'a, ()> {
        self.note_retained(&event);
        Box::pin(ready(()))
    }
}

/// A payload that counts as long as any copy of its packet exists.
struct Counted {
    payload: Box<[u8]>,
    total: Arc<AtomicUsize>,
}

impl Counted {
    /// A copy, if there is room for it.
    fn copy(payload: &[u8], total: &Arc<AtomicUsize>) -> Option<Counted> {
        let bytes = payload.len() + PACKET_BYTES;
        if total.fetch_add(bytes, Ordering::Relaxed) + bytes > PAYLOAD_BYTES_MAX {
            total.fetch_sub(bytes, Ordering::Relaxed);
            return None;
        }
        Some(Counted { payload: payload.into(), total: total.clone() })
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.payload.len() + PACKET_BYTES, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use mqtt5::QoS;

    use super::*;

    fn publish(hold: &Hold, topic: &str, payload: &[u8], retain: bool) -> Option<PublishPacket> {
        let event = ClientPublishEvent {
            client_id: "node".into(),
            user_id: None,
            topic: topic.into(),
            payload: Bytes::copy_from_slice(payload),
            qos: QoS::AtLeastOnce,
            retain,
            packet_id: Some(7),
            response_topic: None,
            correlation_data: None,
        };
        match hold.take_in(event) {
            PublishAction::Transform(publish) => {
                if publish.retain {
                    let (topic, payload) = (publish.topic_name.as_str().into(), publish.payload.clone());
                    let cleared = payload.is_empty();
                    hold.note_retained(&RetainedSetEvent { topic, payload, qos: publish.qos, cleared });
                }
                Some(publish)
            }
            _ => None,
        }
    }

    #[test]
    fn payloads_count_until_their_last_copy_is_gone() {
        let hold = Hold::new(1);
        let mebibyte = vec![1; 1 << 20];
        let mut held: Vec<_> = (0..).map_while(|_| publish(&hold, "t", &mebibyte, false)).collect();
        assert!(held.len() * mebibyte.len() > PAYLOAD_BYTES_MAX * 9 / 10 && held.len() << 20 <= PAYLOAD_BYTES_MAX);
        assert!(held.iter().all(|publish| publish.payload == mebibyte && publish.packet_id == Some(7)));
        let copy = held.pop();
        held.push(copy.clone().unwrap());
        drop(copy);
        assert!(publish(&hold, "t", &mebibyte, false).is_none(), "a copy of it is still held");
        held.clear();
        assert_eq!(hold.payload_bytes.load(Ordering::Relaxed), 0);
        assert!(publish(&hold, "t", &mebibyte, false).is_some());
    }

    #[test]
    fn retained_packets_are_bounded_in_number_and_bytes() {
        let retains = |hold: &Hold, topic: &str, payload: &[u8]| publish(hold, topic, payload, true).unwrap().retain;
        let hold = Hold::new(2);
        assert!(retains(&hold, "a", b"1") && retains(&hold, "b", b"1"));
        assert!(!retains(&hold, "c", b"1"), "two are the limit");
        assert!(retains(&hold, "a", b"2"), "one takes the place of another");
        assert!(retains(&hold, "b", b"") && retains(&hold, "c", b"1"), "what is cleared leaves room");

        let hold = Hold::new(usize::MAX);
        let large = vec![0; 8 << 10];
        let kept = (0..10_000).filter(|number| retains(&hold, &number.to_string(), &large)).count();
        assert!(kept << 13 <= RETAINED_BYTES_MAX && kept << 13 > RETAINED_BYTES_MAX * 9 / 10, "{kept} were kept");
        assert!(retains(&hold, "0", b""));
        assert!(retains(&hold, "another", &large));
        assert_eq!(hold.retained.lock().unwrap().packets.len(), kept);
    }
}
