//! What all roles of a node share: identity, time, timers, outgoing messages, actions, randomness.

use alloc::collections::VecDeque;
use core::time::Duration;

use broccoli_proto::message::{Message, Refusal};
use broccoli_proto::module::CHUNK_BYTES;
use broccoli_proto::packet::{Address, OVERHEAD_BYTES_MAX};
use broccoli_proto::{Epoch, NodeId, SplitMix64};
use litemap::LiteMap;

use crate::config::{Config, Limits};
use crate::content::blobs::Blobs;
use crate::io::{Action, Event};
use crate::sessions::Sessions;
use crate::time::{Instant, Wall};
use crate::timers::Timers;
use crate::timing::{LinkTime, link_ms};

/// No packet limit of a link or of another node is taken for less: a chunk of a module has to fit.
pub(crate) const PACKET_BYTES_MIN: u32 = CHUNK_BYTES + 256;
/// Answers of so many packets wait at most, for all addresses together.
const OUTBOX_PACKETS: usize = 16;
/// Everybody is asked at most this often: each question has as many answers as there are nodes.
const ASK_ALL_AGAIN: LinkTime = link_ms(100);

/// The common ground of the roles. It has no behaviour of its own.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) epoch: Epoch,
    pub(crate) now: Instant,
    pub(crate) wall: Wall,
    pub(crate) connected: bool,
    /// Whether this node is about to leave: it takes nothing new.
    pub(crate) draining: bool,
    pub(crate) timers: Timers,
    pub(crate) outbox: Outbox,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) rng: SplitMix64,
    pub(crate) blobs: Blobs,
    pub(crate) sessions: Sessions,
    /// Longest packet that the link takes.
    pub(crate) link_bytes_max: u32,
    /// When everybody was last asked over this connection.
    pub(crate) asked_all: Option<Instant>,
}

impl Shared {
    pub(crate) fn me(&self) -> NodeId {
        self.config.name
    }

    /// The time of day in Unix milliseconds; none if this node was never told.
    pub(crate) fn unix_ms(&self) -> Option<u64> {
        self.wall.unix_ms(self.now)
    }

    /// A time of the protocol on the link of this node.
    pub(crate) fn timing(&self, time: LinkTime) -> Duration {
        self.config.timing.time(time)
    }

    /// Bytes of messages in the longest packet that this node sends.
    pub(crate) fn room(&self) -> usize {
        (self.packet_bytes_max() as usize).saturating_sub(OVERHEAD_BYTES_MAX)
    }

    /// How many times longer than on a fast link the protocol waits.
    pub(crate) fn stretch(&self) -> u64 {
        self.config.timing.stretch().into()
    }

    /// The longest packet that this node sends and takes, in bytes.
    pub(crate) fn packet_bytes_max(&self) -> u32 {
        self.config.limits.packet_bytes_max.min(self.link_bytes_max)
    }

    /// How full each collection is.
    pub(crate) fn sizes(&self, see: &mut dyn FnMut(&'static str, usize, usize)) {
        let waiting = self.outbox.queues.values().map(VecDeque::len).max();
        // One that did not fit is put back.
        see("outbox", waiting.unwrap_or(0), self.config.limits.outbox_max + 1);
        self.blobs.sizes(&self.config.limits, see);
        self.sessions.sizes(self.config.limits.nodes_max, see);
        see("bytes of answers", self.outbox.bytes, self.outbox.bytes_max);
        see("addresses", self.outbox.queues.len(), 2 * self.config.limits.nodes_max + 2);
    }

    /// Asks everybody who is there, unless the answers to the last question are still on their way.
    pub(crate) fn ask_all(&mut self) {
        if self.asked_all.is_none_or(|asked| self.now - asked >= self.timing(ASK_ALL_AGAIN)) {
            self.asked_all = Some(self.now);
            self.outbox.send_wire(Address::All, Message::Hello);
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.actions.push_back(Action::Event(event));
    }
}

/// How much a role may write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// What is left of the packet, in bytes.
    pub(crate) left: usize,
    /// What there is in an empty one for the same address.
    pub(crate) packet: usize,
}

/// Messages that wait to be put into packets, and who has something to be sent at all.
///
/// Bulk traffic (leases, results) is not queued here: its role keeps it until the packet is
/// written, so that a busy link makes bigger batches. It only marks the address.
#[derive(Debug)]
pub(crate) struct Outbox {
    me: NodeId,
    max: usize,
    /// What the messages take that are made for who asks, and most that they may take together.
    bytes: usize,
    bytes_max: usize,
    queues: LiteMap<Address, VecDeque<Message>>,
    marked: LiteMap<Address, ()>,
    order: VecDeque<Address>,
    /// Messages of this node to itself, which never touch the wire.
    pub(crate) loopback: VecDeque<Message>,
    /// Whether a role has bulk traffic for this node itself.
    pub(crate) loopback_marked: bool,
}

impl Outbox {
    pub(crate) fn new(me: NodeId, limits: &Limits) -> Outbox {
        Outbox {
            me,
            max: limits.outbox_max,
            bytes: 0,
            bytes_max: OUTBOX_PACKETS * limits.packet_bytes_max as usize,
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
            self.loopback.push_back(message);
        } else {
            self.send_wire(Address::Node(to), message);
        }
    }

    /// Sends to every node, this one included.
    pub(crate) fn broadcast(&mut self, message: Message) {
        self.loopback.push_back(message.clone());
        self.send_wire(Address::All, message);
    }

    /// Sends over the wire whatever the address. Any message may be lost, so one too many may be
    /// dropped: the role that waits for an answer repeats it.
    pub(crate) fn send_wire(&mut self, to: Address, message: Message) {
        let bytes = answer_bytes(&message);
        let queue = self.queues.entry(to).or_default();
        if queue.len() < self.max && (bytes == 0 || self.bytes + bytes <= self.bytes_max) {
            self.bytes += bytes;
            queue.push_back(message);
        }
        self.mark_wire(to);
    }

    /// Says that a role has something for this address, which may be this node.
    pub(crate) fn mark(&mut self, to: Address) {
        if to == Address::Node(self.me) {
            self.loopback_marked = true;
        } else {
            self.mark_wire(to);
        }
    }

    /// Says that there is something on the wire for this address.
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

    /// Puts back a message that did not fit.
    pub(crate) fn unpop(&mut self, to: Address, message: Message) {
        self.bytes += answer_bytes(&message);
        self.queues.entry(to).or_default().push_front(message);
    }

    /// Whether messages wait for an address.
    pub(crate) fn has(&self, to: Address) -> bool {
        self.queues.contains_key(&to)
    }

    /// Asks a node who it is, unless something that goes there will show it.
    pub(crate) fn ask_who(&mut self, node: NodeId) {
        if !self.has(Address::Node(node)) {
            self.send(node, Message::Hello);
        }
    }

    /// Forgets what waits for an address.
    pub(crate) fn forget(&mut self, to: Address) {
        let forgotten = self.queues.remove(&to).unwrap_or_default();
        self.bytes -= forgotten.iter().map(answer_bytes).sum::<usize>();
    }

    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self) {
        let bytes: usize = self.queues.values().flatten().map(answer_bytes).sum();
        assert_eq!(self.bytes, bytes, "answers that wait are counted");
    }

    /// Forgets what a lost connection would have carried. The roles repeat what matters.
    pub(crate) fn clear_wire(&mut self) {
        self.queues.clear();
        self.bytes = 0;
        self.marked.clear();
        self.order.clear();
    }
}

/// About what a message takes that whoever asks makes this node write. Values are shared with who holds
/// them.
fn answer_bytes(message: &Message) -> usize {
    const JOB_BYTES: usize = 256;
    match message {
        Message::Chunk(chunk) => chunk.bytes.len(),
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

/// Removes the first entry of a map; gives its key.
pub(crate) fn pop_first<K: Copy + Ord, V>(map: &mut LiteMap<K, V>) -> Option<K> {
    let (&first, _) = map.first()?;
    map.remove(&first).map(|_| first)
}
