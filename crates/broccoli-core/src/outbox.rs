//! The outbox: messages that wait for a packet, by address, and messages of this node to itself.
//!
//! It limits the number of messages for each address, and the bytes of long answers (lists, manifests, texts) to other
//! nodes. Any message may be lost, so messages beyond a limit are dropped: the role that waits for an answer repeats
//! them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::{Message, Refusal};
use broccoli_proto::packet::Address;
use litemap::LiteMap;

use crate::config::Limits;

/// Long answers that wait, for all addresses together, are limited to this many packets.
const ANSWER_PACKETS_MAX: usize = 16;
/// The limit for messages of this node to itself is this many times that of an address, since several of its roles
/// write them at once.
const LOOPBACK_PER_ADDRESS: usize = 4;

/// How much a role may write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Bytes left in the packet.
    pub(crate) left: usize,
    /// Bytes in an empty packet for the same address.
    pub(crate) packet: usize,
}

/// Messages that wait for a packet, and the addresses for which there is something to send.
///
/// Bulk traffic (leases, results) is not queued here: its role keeps it until the packet is written, so that a busy
/// link makes larger batches. The role only marks the address.
#[derive(Debug)]
pub(crate) struct Outbox {
    me: NodeId,
    max: usize,
    /// Bytes of waiting long answers, and their limit.
    bytes: usize,
    bytes_max: usize,
    queues: LiteMap<Address, VecDeque<Message>>,
    marked: LiteMap<Address, ()>,
    order: VecDeque<Address>,
    /// Messages of this node to itself; they are never sent over the link.
    loopback: VecDeque<Message>,
    /// Whether a role has bulk traffic for this node itself.
    pub(crate) loopback_marked: bool,
}

impl Outbox {
    pub(crate) fn new(me: NodeId, limits: &Limits) -> Outbox {
        Outbox {
            me,
            max: limits.outbox_max,
            bytes: 0,
            bytes_max: ANSWER_PACKETS_MAX * limits.packet_bytes_max as usize,
            queues: LiteMap::new_vec(),
            marked: LiteMap::new_vec(),
            order: VecDeque::new(),
            loopback: VecDeque::new(),
            loopback_marked: false,
        }
    }

    /// Sends to one node, which may be this one.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        if to == self.me {
            self.send_loopback(message);
        } else {
            self.send_wire(Address::Node(to), message);
        }
    }

    /// Sends to every node, including this one.
    pub(crate) fn broadcast(&mut self, message: Message) {
        self.send_loopback(message.clone());
        self.send_wire(Address::All, message);
    }

    /// Sends to this node itself. Beyond a limit, the message is dropped.
    fn send_loopback(&mut self, message: Message) {
        let bytes = answer_bytes(&message);
        if self.loopback.len() < self.loopback_max() && self.has_room(bytes) {
            self.bytes += bytes;
            self.loopback.push_back(message);
        }
    }

    /// Adds what the roles have written for this node itself. It is written only when nothing else waits here, and is
    /// limited like one packet.
    pub(crate) fn deliver_bulk(&mut self, messages: Vec<Message>) {
        debug_assert!(self.loopback.is_empty(), "what waits goes first");
        self.bytes += messages.iter().map(answer_bytes).sum::<usize>();
        self.loopback.extend(messages);
    }

    /// The next message of this node to itself.
    pub(crate) fn pop_loopback(&mut self) -> Option<Message> {
        let message = self.loopback.pop_front()?;
        self.bytes -= answer_bytes(&message);
        Some(message)
    }

    /// Whether messages of this node to itself wait.
    pub(crate) fn has_loopback(&self) -> bool {
        !self.loopback.is_empty()
    }

    /// Bytes of waiting long answers.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of waiting messages, including those of this node to itself.
    pub(crate) fn len(&self) -> usize {
        self.loopback.len() + self.queues.values().map(VecDeque::len).sum::<usize>()
    }

    fn loopback_max(&self) -> usize {
        self.max * LOOPBACK_PER_ADDRESS
    }

    /// Whether there is room for a long answer of this size.
    fn has_room(&self, bytes: usize) -> bool {
        bytes == 0 || self.bytes + bytes <= self.bytes_max
    }

    /// Sends over the link, whatever the address. Beyond a limit, the message is dropped, as it might be lost on the
    /// wire: the role that waits for an answer repeats it.
    pub(crate) fn send_wire(&mut self, to: Address, message: Message) {
        let bytes = answer_bytes(&message);
        let has_room = self.has_room(bytes);
        let queue = self.queues.entry(to).or_default();
        if queue.len() < self.max && has_room {
            self.bytes += bytes;
            queue.push_back(message);
        }
        self.mark_wire(to);
    }

    /// Marks an address for which a role has something to send; it may be this node.
    pub(crate) fn mark(&mut self, to: Address) {
        if to == Address::Node(self.me) {
            self.loopback_marked = true;
        } else {
            self.mark_wire(to);
        }
    }

    /// Marks an address for which there is something to send over the link.
    pub(crate) fn mark_wire(&mut self, to: Address) {
        if self.marked.insert(to, ()).is_none() {
            self.order.push_back(to);
        }
    }

    /// The next address with something to send.
    pub(crate) fn pop_marked(&mut self) -> Option<Address> {
        let to = self.order.pop_front()?;
        self.marked.remove(&to);
        Some(to)
    }

    /// The next queued message for an address.
    pub(crate) fn pop(&mut self, to: Address) -> Option<Message> {
        let queue = self.queues.get_mut(&to)?;
        let message = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&to);
        }
        self.bytes -= message.as_ref().map_or(0, answer_bytes);
        message
    }

    /// Puts back a message that did not fit into the packet.
    pub(crate) fn unpop(&mut self, to: Address, message: Message) {
        self.bytes += answer_bytes(&message);
        self.queues.entry(to).or_default().push_front(message);
    }

    /// Whether messages wait for an address.
    pub(crate) fn has(&self, to: Address) -> bool {
        self.queues.contains_key(&to)
    }

    /// Asks a node for its birth, unless a message that waits for it will show whether it is live.
    pub(crate) fn ask_who(&mut self, node: NodeId) {
        if !self.has(Address::Node(node)) {
            self.send(node, Message::Hello);
        }
    }

    /// Drops the messages for an address.
    pub(crate) fn drop_queue(&mut self, to: Address) {
        let dropped = self.queues.remove(&to).unwrap_or_default();
        self.bytes -= dropped.iter().map(answer_bytes).sum::<usize>();
    }

    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self) {
        let bytes: usize = self.queues.values().flatten().chain(&self.loopback).map(answer_bytes).sum();
        assert_eq!(self.bytes, bytes, "answers that wait are counted");
        assert!(self.loopback.is_empty(), "everything for this node itself was delivered");
    }

    /// Reports the size and limit of each collection.
    pub(crate) fn sizes(&self, nodes_max: usize, see: &mut dyn FnMut(&'static str, usize, usize)) {
        let waiting = self.queues.values().map(VecDeque::len).max();
        // A message that did not fit is put back, so there may be one more.
        see("outbox", waiting.unwrap_or(0), self.max + 1);
        see("loopback", self.loopback.len(), self.loopback_max());
        see("bytes of answers", self.bytes, self.bytes_max);
        see("addresses", self.queues.len(), 2 * nodes_max + 2);
    }

    /// Drops messages for the lost connection. The roles repeat what matters.
    pub(crate) fn clear_wire(&mut self) {
        self.queues.clear();
        self.bytes = self.loopback.iter().map(answer_bytes).sum();
        self.marked.clear();
        self.order.clear();
    }
}

/// About the memory of a long answer, in bytes; 0 for other messages. Values are not included, since they are shared
/// with their owners.
fn answer_bytes(message: &Message) -> usize {
    const JOB_BYTES: usize = 256;
    match message {
        Message::Jobs(jobs) => jobs.jobs.len() * JOB_BYTES,
        Message::Manifests(manifests) => core::mem::size_of_val(manifests.entries.as_slice()),
        Message::Refused(refused) => match &refused.reason {
            Refusal::BadCanvas(text)
            | Refusal::Storage(text)
            | Refusal::NotRetriable(text)
            | Refusal::Unwritten(text) => text.len(),
            _ => 0,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use broccoli_proto::message::Refused;

    fn outbox() -> Outbox {
        Outbox::new("me".parse().expect("a name"), &Limits { outbox_max: 4, packet_bytes_max: 2_048, ..Limits::chip() })
    }

    #[test]
    fn messages_of_a_node_to_itself_are_bounded_in_number_and_go_on_once_some_are_delivered() {
        let mut outbox = outbox();
        for _ in 0..100 {
            outbox.send(outbox.me, Message::VitalsRequest);
            outbox.broadcast(Message::Hello);
        }
        assert_eq!(outbox.loopback.len(), 16);
        assert_eq!(outbox.pop_loopback(), Some(Message::VitalsRequest));
        outbox.send(outbox.me, Message::Hello);
        outbox.send(outbox.me, Message::Hello);
        let delivered = core::iter::from_fn(|| outbox.pop_loopback()).count();
        assert_eq!(delivered, 16);
        let mut empty = outbox;
        empty.clear_wire();
        empty.validate();
    }

    #[test]
    fn answers_of_a_node_to_itself_are_bounded_in_bytes_with_those_to_others() {
        let mut outbox = outbox();
        let text: String = core::iter::repeat_n('x', 8 * 2_048).collect();
        let answer = Message::Refused(Refused { number: 1, reason: Refusal::Storage(text) });
        outbox.send_wire(Address::All, answer.clone());
        outbox.send(outbox.me, answer.clone());
        outbox.send(outbox.me, answer.clone());
        assert_eq!((outbox.loopback.len(), outbox.bytes), (1, outbox.bytes_max));
        outbox.clear_wire();
        outbox.send(outbox.me, answer);
        assert_eq!((outbox.loopback.len(), outbox.bytes), (2, outbox.bytes_max));
        assert!(outbox.pop_loopback().is_some() && outbox.pop_loopback().is_some());
        outbox.validate();
    }
}
