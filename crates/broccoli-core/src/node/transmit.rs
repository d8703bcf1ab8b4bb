//! Builds outgoing packets: collects the messages of all roles for an address, and seals them into one packet.

use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::Message;
use broccoli_proto::packet::{self, Address, Draft, Envelope};

use super::Node;
use crate::io::Transmit;
use crate::origin::Around;
use crate::outbox::Room;
use crate::sessions::{Answer, Knocking};
use crate::shared::Shared;
use crate::timers::Timer;

/// Most messages of a packet that are not bulk traffic; the roles together write fewer than the rest.
const QUEUED_PER_PACKET_MAX: usize = packet::MESSAGES_MAX / 2;

/// Most messages that a node delivers to itself before it sends something.
const LOOPBACK_MAX: usize = 4_096;

impl Node {
    /// Leases ready tasks, and delivers this node's messages to itself.
    pub(super) fn settle(&mut self) {
        let (me, epoch) = (self.shared.me(), self.shared.epoch);
        for _ in 0..LOOPBACK_MAX {
            let around = Around { modules: &self.modules, members: &self.members };
            self.origin.dispatch(&mut self.shared, &around);
            self.on_due_timers();
            self.deliver_values();
            // Queued messages come first, as in a packet.
            if !self.shared.outbox.has_loopback() && core::mem::take(&mut self.shared.outbox.loopback_marked) {
                let mut messages = Vec::new();
                let mut put = |message: &Message| messages.push(message.clone());
                let room = Room { left: usize::MAX >> 1, packet: usize::MAX >> 1 };
                self.worker.compose(&mut self.shared, self.modules.digest(), (me, epoch), room, &mut put);
                self.origin.compose(&mut self.shared, me, room, &mut put);
                self.shared.outbox.deliver_bulk(messages);
            }
            match self.shared.outbox.pop_loopback() {
                Some(message) => {
                    self.sequence += 1;
                    self.on_message(me, self.shared.epoch, self.sequence, message);
                }
                None if self.origin.is_dispatch_due() || self.shared.outbox.loopback_marked => {}
                None => break,
            }
        }
    }

    /// A packet is passed to the link.
    pub(super) fn transmit(&mut self, to: Address, packet: &[u8]) -> Transmit {
        self.shared.counters.packets_out += 1;
        self.shared.counters.bytes_out += packet.len() as u64;
        Transmit { to }
    }

    /// Seals an answer, which repeats the challenge of the question as proof.
    pub(super) fn compose_answer(&mut self, answer: Answer, buf: &mut Vec<u8>) {
        let draft = self.draft(Address::Node(answer.to), Some(answer.proof), buf);
        if let Some(message) = answer.message {
            packet::put(buf, &*message);
        }
        self.seal(draft, buf);
    }

    /// Sends a knock to a node whose challenge is not known, if something waits for it. Returns whether one was due.
    pub(super) fn compose_knock(&mut self, to: NodeId, buf: &mut Vec<u8>) -> bool {
        if !self.has_for(to) {
            if self.shared.sessions.answered(to) {
                self.shared.timers.cancel(Timer::Knock(to));
            }
            return false;
        }
        match self.shared.sessions.knock(to, self.shared.now) {
            Knocking::Waits => false,
            Knocking::Now(again) => {
                self.shared.timers.set(Timer::Knock(to), again);
                let draft = self.draft(Address::Node(to), None, buf);
                self.seal(draft, buf);
                true
            }
        }
    }

    /// Whether there are messages for a node.
    pub(super) fn has_for(&self, node: NodeId) -> bool {
        self.shared.outbox.has(Address::Node(node))
            || self.serving.has_for(node)
            || self.worker.has_for(node)
            || self.origin.has_for(node)
    }

    /// Seals the messages for an address into `buf`. Returns whether there were any.
    pub(super) fn compose_packet(&mut self, to: Address, buf: &mut Vec<u8>) -> bool {
        let mut proof = None;
        if let Address::Node(node) = to
            && node != self.shared.me()
        {
            proof = self.shared.sessions.proof(node, self.shared.now);
            if proof.is_none() {
                return self.compose_knock(node, buf);
            }
        }
        let (budget, draft) = (self.budget(to), self.draft(to, proof, buf));
        let left = |buf: &Vec<u8>| budget.saturating_sub(draft.message_bytes(buf));
        let overdue = matches!(to, Address::Node(node) if self.serving.is_overdue(node));
        let mut messages = 0;
        while messages < QUEUED_PER_PACKET_MAX && !overdue {
            let Some(message) = self.shared.outbox.pop(to) else {
                break;
            };
            let Some(message) = self.detach_large_value(to, message, budget) else {
                continue;
            };
            let before = buf.len();
            packet::put(buf, &message);
            if draft.message_bytes(buf) > budget && messages > 0 {
                buf.truncate(before);
                self.shared.outbox.unpop(to, message);
                break;
            }
            messages += 1;
        }
        if let Address::Node(node) = to
            && node != self.shared.me()
        {
            if !overdue {
                let room = Room { left: left(buf), packet: budget };
                let mut put = |message: &Message| packet::put(buf, message);
                if let Some(epoch) = self.shared.sessions.epoch_of(node) {
                    self.worker.compose(&mut self.shared, self.modules.digest(), (node, epoch), room, &mut put);
                }
                let room = Room { left: left(buf), packet: budget };
                let mut put = |message: &Message| packet::put(buf, message);
                self.origin.compose(&mut self.shared, node, room, &mut put);
            } else {
                // The roles were not asked, and may have more.
                self.shared.outbox.mark_wire(to);
            }
            let room = Room { left: left(buf), packet: budget };
            let mut put = |message: &Message| packet::put(buf, message);
            let held = |content| self.shared.values.held.bytes_of(content);
            if self.serving.compose(node, room, held, &mut put) {
                self.shared.outbox.mark(to);
            }
        }
        if let Some(message) = self.shared.outbox.pop(to) {
            self.shared.outbox.unpop(to, message);
            self.shared.outbox.mark_wire(to);
        }
        let wrote = draft.message_bytes(buf) > 0;
        if wrote {
            self.seal(draft, buf);
        }
        wrote
    }

    /// Bytes of messages that fit into a packet for an address.
    pub(super) fn budget(&self, to: Address) -> usize {
        match to {
            Address::Node(node) => self.members.room(&self.shared, node),
            Address::Birth(_) | Address::All => self.shared.room(),
        }
    }

    /// Replaces a large value in a message with a reference, so that it fits into a packet.
    pub(super) fn detach_large_value(&mut self, to: Address, message: Message, budget: usize) -> Option<Message> {
        match to {
            Address::Node(node) => {
                let Shared { values, timers, now, .. } = &mut self.shared;
                values.detach_large(*now, timers, node, message, budget)
            }
            Address::Birth(_) | Address::All => Some(message),
        }
    }

    /// Starts the next packet in `buf`.
    pub(super) fn draft(&mut self, to: Address, proof: Option<u64>, buf: &mut Vec<u8>) -> Draft {
        let Shared { sessions, rng, now, config, epoch, .. } = &mut self.shared;
        let challenge = sessions.challenge(*now, rng);
        let (sender, sequence) = (config.name, self.sequence + 1);
        let envelope = Envelope { sender, to, epoch: *epoch, sequence, challenge, proof };
        Draft::begin(&config.keys[0], &envelope, buf)
    }

    /// Seals the packet. Its sequence number is never used again.
    pub(super) fn seal(&mut self, draft: Draft, buf: &mut Vec<u8>) {
        self.sequence += 1;
        draft.seal(&self.shared.config.keys[0], buf);
    }
}
