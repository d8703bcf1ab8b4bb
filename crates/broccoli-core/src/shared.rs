//! State that all roles of a node share: identity, time, timers, outgoing messages, actions, random numbers.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::time::Duration;

use broccoli_proto::message::Message;
use broccoli_proto::module::CHUNK_BYTES;
use broccoli_proto::packet::{Address, OVERHEAD_BYTES_MAX};
use broccoli_proto::{Epoch, NodeId, SplitMix64};
use litemap::LiteMap;

use crate::config::Config;
use crate::content::values::Values;
use crate::counters::{Counters, Held};
use crate::io::{Action, Event};
use crate::outbox::Outbox;
use crate::sessions::Sessions;
use crate::time::{Instant, Wall};
use crate::timers::Timers;
use crate::timing::{LinkTime, link_ms};
use crate::trace::{Trace, TraceLevel};

/// Lower bound for the packet limit of a link or of another node: a chunk of a module has to fit.
pub(crate) const PACKET_BYTES_MIN: u32 = CHUNK_BYTES + 256;
/// All nodes are asked at most once in this time, since each question has as many answers as there are nodes.
const ASK_ALL_AGAIN: LinkTime = link_ms(100);

/// The shared state. It has no behaviour of its own.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) epoch: Epoch,
    pub(crate) now: Instant,
    pub(crate) wall: Wall,
    pub(crate) connected: bool,
    /// Whether this node is leaving: it takes nothing new.
    pub(crate) draining: bool,
    pub(crate) timers: Timers,
    pub(crate) outbox: Outbox,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) rng: SplitMix64,
    /// Values that do not fit into a packet: held for other nodes, and pulled from them.
    pub(crate) values: Values,
    pub(crate) sessions: Sessions,
    /// Counts of what has happened. Amounts currently held are computed when they are queried.
    pub(crate) counters: Counters,
    /// Which events of jobs and tasks are reported.
    pub(crate) trace: TraceLevel,
    /// Longest packet of the link, in bytes.
    pub(crate) link_bytes_max: u32,
    /// When all nodes were last asked over this connection.
    pub(crate) asked_all: Option<Instant>,
}

impl Shared {
    pub(crate) fn me(&self) -> NodeId {
        self.config.name
    }

    /// The time of day in Unix milliseconds; none if it is not known.
    pub(crate) fn unix_ms(&self) -> Option<u64> {
        self.wall.unix_ms(self.now)
    }

    /// A time of the protocol, scaled for the link of this node.
    pub(crate) fn timing(&self, time: LinkTime) -> Duration {
        self.config.timing.time(time)
    }

    /// Bytes of messages in the longest packet that this node sends.
    pub(crate) fn room(&self) -> usize {
        (self.packet_bytes_max() as usize).saturating_sub(OVERHEAD_BYTES_MAX)
    }

    /// The factor by which times of the protocol are longer than on a fast link.
    pub(crate) fn stretch(&self) -> u64 {
        self.config.timing.stretch().into()
    }

    /// The longest packet that this node sends and receives, in bytes.
    pub(crate) fn packet_bytes_max(&self) -> u32 {
        self.config.limits.packet_bytes_max.min(self.link_bytes_max)
    }

    /// Reports the size and limit of each collection.
    pub(crate) fn sizes(&self, see: &mut dyn FnMut(&'static str, usize, usize)) {
        self.outbox.sizes(self.config.limits.nodes_max, see);
        self.values.sizes(see);
        self.sessions.sizes(self.config.limits.nodes_max, see);
    }

    /// Asks all nodes for their births, unless the answers to the last question are still arriving.
    pub(crate) fn ask_all(&mut self) {
        if self.asked_all.is_none_or(|asked| self.now - asked >= self.timing(ASK_ALL_AGAIN)) {
            self.asked_all = Some(self.now);
            self.outbox.send_wire(Address::All, Message::Hello);
        }
    }

    /// Whether events of a level are reported. Check this before making one.
    pub(crate) fn traces(&self, level: TraceLevel) -> bool {
        cfg!(feature = "trace") && self.trace >= level
    }

    /// Reports an event, if its level is enabled.
    pub(crate) fn trace(&mut self, level: TraceLevel, trace: impl FnOnce() -> Trace) {
        if self.traces(level) {
            self.event(Event::Trace(Box::new(trace())));
        }
    }

    /// The bytes held in the shared state.
    pub(crate) fn held(&self) -> Held {
        Held {
            outbox_bytes: self.outbox.bytes() as u64,
            outbox_messages: self.outbox.len() as u64,
            blobs_bytes: self.values.held.bytes() as u64,
            pulled_bytes: self.values.pulls.bytes() as u64,
            ..Held::default()
        }
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.actions.push_back(Action::Event(event));
    }
}

/// Removes the first entry of a map, and returns its key.
pub(crate) fn pop_first<K: Copy + Ord, V>(map: &mut LiteMap<K, V>) -> Option<K> {
    let (&first, _) = map.first()?;
    map.remove(&first).map(|_| first)
}
