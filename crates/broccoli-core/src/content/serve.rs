//! Serves pieces that other nodes have requested, of any kind of content, from one bounded queue for each node.
//!
//! ```text
//!   ContentRequest ──► queue of the node ──► ContentPiece, last in a packet
//!                        ▲ bytes, if the shell has to load them
//! ```
//!
//! Pieces are written after everything else, so they delay nothing. If the next piece does not fit into a packet, the
//! following packet contains only pieces. Requests that do not fit into a queue are dropped: the other node repeats
//! them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use broccoli_proto::message::{ContentPiece, ContentRequest, Message};
use broccoli_proto::{ContentId, NodeId};
use litemap::LiteMap;

use super::pull::{PIECE_BYTES_MAX, PIECE_OVERHEAD_BYTES, WINDOW_MAX};
use crate::outbox::Room;

/// Most pieces that wait to be sent to one node.
const QUEUE_MAX: usize = 512;
/// Most bytes of waiting pieces that the shell loads, for all nodes together, in packets of maximal length.
const LOADED_PACKETS_MAX: usize = 16;
/// Most pieces in one packet; together with other messages they stay below the limit of a packet.
const PIECES_PER_PACKET_MAX: usize = 6;

/// Where the bytes of a piece come from.
#[derive(Debug)]
enum Source {
    /// They are in memory, and copied when the piece is written.
    Held,
    /// The shell is loading them.
    Awaited,
    /// The shell has loaded them.
    Loaded(Vec<u8>),
}

/// A piece that waits to be sent.
#[derive(Debug)]
struct Piece {
    content: ContentId,
    offset: u32,
    len: u32,
    source: Source,
}

impl Piece {
    fn is_ready(&self) -> bool {
        !matches!(self.source, Source::Awaited)
    }

    /// Memory that it takes in the budget for loaded pieces, in bytes.
    fn loaded_bytes(&self) -> usize {
        if matches!(self.source, Source::Held) { 0 } else { self.len as usize }
    }

    fn is(&self, content: ContentId, offset: u32) -> bool {
        self.content == content && self.offset == offset
    }
}

/// The pieces that wait for one node.
#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// A piece did not fit into the last packet: the next one contains only pieces.
    overdue: bool,
}

/// The pieces that wait to be sent.
#[derive(Debug)]
pub(crate) struct Serving {
    queues: LiteMap<NodeId, Queue>,
    loaded_bytes: usize,
    loaded_bytes_max: usize,
}

impl Serving {
    /// For a node that sends packets of at most `packet_bytes_max` bytes.
    pub(crate) fn new(packet_bytes_max: u32) -> Serving {
        let loaded_bytes_max = LOADED_PACKETS_MAX * packet_bytes_max as usize;
        Serving { queues: LiteMap::new_vec(), loaded_bytes: 0, loaded_bytes_max }
    }

    /// Queues the requested pieces of a content of this length. If the shell loads this content (`is_loaded`), returns
    /// the indices of the pieces to load.
    pub(super) fn on_request(
        &mut self,
        from: NodeId,
        request: &ContentRequest,
        bytes: u32,
        is_loaded: bool,
    ) -> Vec<u32> {
        let ContentRequest { content, first, count, piece_bytes } = *request;
        let pieces = bytes.div_ceil(piece_bytes);
        let queue = self.queues.entry(from).or_default();
        let mut to_load = Vec::new();
        for index in (first..pieces).take(usize::from(count).min(WINDOW_MAX as usize)) {
            let offset = index * piece_bytes;
            let len = piece_bytes.min(bytes - offset);
            let source = if is_loaded { Source::Awaited } else { Source::Held };
            let piece = Piece { content, offset, len, source };
            let has_room = self.loaded_bytes + piece.loaded_bytes() <= self.loaded_bytes_max;
            if queue.pieces.len() >= QUEUE_MAX || !has_room {
                break;
            }
            if queue.pieces.iter().any(|waiting| waiting.is(content, offset)) {
                continue;
            }
            self.loaded_bytes += piece.loaded_bytes();
            queue.pieces.push_back(piece);
            if is_loaded {
                to_load.push(index);
            }
        }
        if queue.pieces.is_empty() {
            self.queues.remove(&from);
        }
        to_load
    }

    /// The shell has loaded a piece, or does not have it. Returns whether the piece can be sent now.
    pub(super) fn on_loaded(&mut self, to: NodeId, content: ContentId, offset: u32, bytes: Option<Vec<u8>>) -> bool {
        let Some(queue) = self.queues.get_mut(&to) else {
            return false;
        };
        let Some(at) = queue.pieces.iter().position(|piece| piece.is(content, offset) && !piece.is_ready()) else {
            return false;
        };
        let len = queue.pieces[at].len as usize;
        if let Some(bytes) = bytes.filter(|bytes| bytes.len() == len) {
            queue.pieces[at].source = Source::Loaded(bytes);
            return true;
        }
        queue.pieces.remove(at);
        self.loaded_bytes -= len;
        if queue.pieces.is_empty() {
            self.queues.remove(&to);
        }
        false
    }

    /// Writes pieces for a node while there is room. `held` returns the bytes of a content in memory, if it is still
    /// held. Returns whether there are more to send.
    pub(crate) fn compose<'h>(
        &mut self,
        to: NodeId,
        room: Room,
        held: impl Fn(ContentId) -> Option<&'h [u8]>,
        put: &mut impl FnMut(&Message),
    ) -> bool {
        let Some(queue) = self.queues.get_mut(&to) else {
            return false;
        };
        let (mut written, mut pieces) = (0, 0);
        queue.overdue = false;
        while let Some(at) = queue.pieces.iter().position(Piece::is_ready) {
            let size = queue.pieces[at].len as usize + PIECE_OVERHEAD_BYTES;
            let is_full = pieces >= PIECES_PER_PACKET_MAX || written + size > PIECE_BYTES_MAX as usize;
            let fits = size <= room.packet;
            if fits && (written + size > room.left || (pieces > 0 && is_full)) {
                queue.overdue = pieces == 0;
                break;
            }
            let Some(piece) = queue.pieces.remove(at) else {
                break;
            };
            self.loaded_bytes -= piece.loaded_bytes();
            if let Some(message) = piece.into_message(&held).filter(|_| fits) {
                put(&message);
                written += size;
                pieces += 1;
            }
        }
        let has_more = queue.pieces.iter().any(Piece::is_ready);
        if queue.pieces.is_empty() {
            self.queues.remove(&to);
        }
        has_more
    }

    /// Whether the next packet for a node must contain only pieces.
    pub(crate) fn is_overdue(&self, to: NodeId) -> bool {
        self.queues.get(&to).is_some_and(|queue| queue.overdue)
    }

    /// Whether there are pieces for a node that can be sent now.
    pub(crate) fn has_for(&self, to: NodeId) -> bool {
        self.queues.get(&to).is_some_and(|queue| queue.pieces.iter().any(Piece::is_ready))
    }

    /// A node does not answer: drops the pieces that it has requested.
    pub(crate) fn drop_queue(&mut self, to: NodeId) {
        let queue = self.queues.remove(&to).unwrap_or_default();
        self.loaded_bytes -= queue.pieces.iter().map(Piece::loaded_bytes).sum::<usize>();
    }

    /// Drops pieces for the lost connection; they are requested again.
    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        self.loaded_bytes = 0;
    }

    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self) {
        let loaded = self.queues.values().flat_map(|queue| &queue.pieces).map(Piece::loaded_bytes).sum::<usize>();
        assert_eq!(self.loaded_bytes, loaded, "bytes of loaded pieces are counted");
        assert!(self.queues.values().all(|queue| !queue.pieces.is_empty()), "an empty queue is dropped");
    }

    /// Reports the size and limit of each collection.
    pub(crate) fn sizes(&self, see: &mut dyn FnMut(&'static str, usize, usize)) {
        let waiting = self.queues.values().map(|queue| queue.pieces.len()).max();
        see("pieces to send", waiting.unwrap_or(0), QUEUE_MAX);
        see("bytes of loaded pieces", self.loaded_bytes, self.loaded_bytes_max);
    }
}

impl Piece {
    /// The message for this piece; none if its content is not held any more.
    fn into_message<'h>(self, held: &impl Fn(ContentId) -> Option<&'h [u8]>) -> Option<Message> {
        let Piece { content, offset, len, source } = self;
        let start = offset as usize;
        let bytes = match source {
            Source::Held => held(content)?.get(start..start + len as usize)?.to_vec(),
            Source::Loaded(bytes) => bytes,
            Source::Awaited => return None,
        };
        Some(Message::ContentPiece(ContentPiece { content, offset, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use broccoli_proto::module::CHUNK_BYTES;

    const VALUE: ContentId = ContentId([1; 32]);
    const CODE: ContentId = ContentId([2; 32]);
    const BYTES: [u8; 1_000] = [7; 1_000];

    fn node(name: &str) -> NodeId {
        name.parse().expect("a name")
    }

    fn request(content: ContentId, first: u32, count: u16, piece_bytes: u32) -> ContentRequest {
        ContentRequest { content, first, count, piece_bytes }
    }

    /// Offset and length of the pieces in the next packet for a node, and whether there are more.
    fn packet(serving: &mut Serving, to: NodeId, left: usize) -> (Vec<(u32, usize)>, bool) {
        let mut pieces = Vec::new();
        let mut put = |message: &Message| match message {
            Message::ContentPiece(piece) => pieces.push((piece.offset, piece.bytes.len())),
            other => panic!("{other:?} is no piece"),
        };
        let room = Room { left, packet: 4_000 };
        let has_more = serving.compose(to, room, |content| (content == VALUE).then_some(&BYTES[..]), &mut put);
        serving.validate();
        (pieces, has_more)
    }

    #[test]
    fn pieces_are_sent_in_order_and_the_last_one_is_shorter() {
        let (mut serving, to) = (Serving::new(4_096), node("a"));
        assert!(serving.on_request(to, &request(VALUE, 1, 16, 300), 1_000, false).is_empty());
        assert!(serving.on_request(to, &request(VALUE, 1, 1, 300), 1_000, false).is_empty(), "it waits already");
        assert_eq!(packet(&mut serving, to, 800), (vec![(300, 300), (600, 300)], true));
        assert_eq!(packet(&mut serving, to, 4_000), (vec![(900, 100)], false));
        assert!(!serving.has_for(to));
    }

    #[test]
    fn a_piece_without_room_has_the_next_packet_for_itself() {
        let (mut serving, to) = (Serving::new(4_096), node("a"));
        serving.on_request(to, &request(VALUE, 0, 1, 900), 1_000, false);
        assert_eq!(packet(&mut serving, to, 500), (vec![], true));
        assert!(serving.is_overdue(to));
        assert_eq!(packet(&mut serving, to, 4_000), (vec![(0, 900)], false));
        assert!(!serving.is_overdue(to));
    }

    #[test]
    fn what_fits_into_no_packet_or_is_held_no_more_is_dropped() {
        let (mut serving, to) = (Serving::new(4_096), node("a"));
        serving.on_request(to, &request(VALUE, 0, 1, 5_000), 10_000, false);
        serving.on_request(to, &request(ContentId([3; 32]), 0, 1, 900), 1_000, false);
        serving.on_request(to, &request(VALUE, 3, 1, 300), 1_000, false);
        assert_eq!(packet(&mut serving, to, 4_000), (vec![(900, 100)], false));
    }

    #[test]
    fn pieces_that_the_shell_loads_are_sent_when_they_are_there() {
        let (mut serving, to) = (Serving::new(4_096), node("a"));
        let bytes = 2 * CHUNK_BYTES + 10;
        assert_eq!(serving.on_request(to, &request(CODE, 0, 16, CHUNK_BYTES), bytes, true), [0, 1, 2]);
        assert!(!serving.has_for(to), "nothing is loaded");
        assert_eq!(packet(&mut serving, to, 4_000), (vec![], false));
        assert!(serving.on_loaded(to, CODE, 2 * CHUNK_BYTES, Some(vec![0; 10])));
        assert!(!serving.on_loaded(to, CODE, 0, None), "the store does not have it");
        assert!(!serving.on_loaded(to, CODE, CHUNK_BYTES, Some(vec![0; 9])), "it is too short");
        assert!(!serving.on_loaded(node("b"), CODE, 0, Some(vec![0; 10])), "nobody waits for it");
        assert_eq!(packet(&mut serving, to, 4_000), (vec![(2 * CHUNK_BYTES, 10)], false));
        assert_eq!(serving.loaded_bytes, 0);
    }

    #[test]
    fn pieces_are_bounded_in_number_for_each_node_and_in_bytes_for_all() {
        let mut serving = Serving::new(4_096);
        for first in (0..1_000).step_by(50) {
            serving.on_request(node("a"), &request(VALUE, first, 50, 64), 64_000, false);
        }
        let mut loading = 0;
        for name in ["a", "b", "c"] {
            loading += serving.on_request(node(name), &request(CODE, 0, 64, CHUNK_BYTES), 1 << 20, true).len();
        }
        assert_eq!(loading, 32, "16 packets of 4 KiB, and none for a full queue");
        serving.sizes(&mut |name, len, max| assert_eq!(len, max, "{name}"));
        serving.drop_queue(node("b"));
        serving.validate();
        assert_eq!(serving.loaded_bytes, 0);
    }
}
