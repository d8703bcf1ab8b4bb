//! The pull of one content: whom it is asked of, and in pieces of which length. The same for every kind of content.
//!
//! ```text
//!   ask ──► ContentRequest ──► ContentPiece ──► missing_index, take ──► ask … until it is whole
//!    ▲                                             │ nothing comes
//!    └──────── stall, change of provider ◄─────────┘
//! ```
//!
//! What the bytes are checked against, where they are stored and when a pull is given up is decided by its owner.

use core::time::Duration;

use broccoli_proto::message::{ContentRequest, Message};
use broccoli_proto::{ContentId, NodeId};

use super::flow::{Flow, Span, WINDOW};
use crate::outbox::Outbox;
use crate::time::Instant;
use crate::timing::Timing;

/// Longest piece, in bytes: short enough that heartbeats between pieces are not late on a slow link.
pub(super) const PIECE_BYTES_MAX: u32 = 64 << 10;
/// Shortest piece that is asked for and served, in bytes.
pub(super) const PIECE_BYTES_MIN: u32 = 64;
/// What a packet takes beside the bytes of a piece in it.
pub(super) const PIECE_OVERHEAD_BYTES: usize = 64;
/// Most pieces under way, and most that are sent for one request.
pub(super) const WINDOW_MAX: u32 = 64;

/// What is pulled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) content: ContentId,
    /// Its length.
    pub(super) bytes: u32,
    /// Length of each piece but the last.
    pub(super) piece_bytes: u32,
}

/// A content that is being pulled from one node.
#[derive(Debug)]
pub(super) struct Pull {
    extent: Extent,
    from: NodeId,
    /// Most pieces under way.
    window_max: u32,
    flow: Flow,
}

impl Pull {
    /// Nothing of it is here or asked for yet. At most about `window_bytes` are under way at a time.
    pub(super) fn new(from: NodeId, extent: Extent, window_bytes: u32, now: Instant, timing: Timing) -> Pull {
        let pieces = extent.bytes.div_ceil(extent.piece_bytes);
        let window_max = (window_bytes / extent.piece_bytes).clamp(WINDOW, WINDOW_MAX);
        Pull { extent, from, window_max, flow: Flow::new(pieces as usize, now, timing) }
    }

    /// The node that is asked.
    pub(super) fn provider(&self) -> NodeId {
        self.from
    }

    /// From now on another node is asked. What is here stays, what is under way may still come.
    pub(super) fn set_provider(&mut self, from: NodeId) {
        self.from = from;
    }

    /// Asks for pieces until the window is full, if half of it is free.
    pub(super) fn ask(&mut self, now: Instant, outbox: &mut Outbox) {
        let Extent { content, piece_bytes, .. } = self.extent;
        for Span { first, count } in self.flow.ask(now, self.window_max) {
            let request = ContentRequest { content, first, count, piece_bytes };
            outbox.send(self.from, Message::ContentRequest(request));
        }
    }

    /// The index of the piece at this offset, if there is one and it is missing.
    pub(super) fn missing_index(&self, offset: u32) -> Option<u32> {
        let index = offset / self.extent.piece_bytes;
        let is_missing = offset.is_multiple_of(self.extent.piece_bytes) && self.flow.lacks(index as usize);
        is_missing.then_some(index)
    }

    /// How long the piece at an offset is.
    pub(super) fn len_at(&self, offset: u32) -> usize {
        self.extent.bytes.saturating_sub(offset).min(self.extent.piece_bytes) as usize
    }

    /// A piece that was missing is here.
    pub(super) fn take(&mut self, index: u32, now: Instant) {
        self.flow.take(index, now);
    }

    /// Whether all pieces are here.
    pub(super) fn is_whole(&self) -> bool {
        self.flow.is_whole()
    }

    /// All pieces are to come again: together they are not what they should be.
    pub(super) fn begin_again(&mut self) {
        self.flow.begin_again();
    }

    /// When the pieces under way count as lost; the wait is doubled so many times.
    pub(super) fn stalls_at(&self, doublings: u32) -> Instant {
        let at = self.flow.stalls_at();
        at + (at - self.flow.stirred()) * ((1 << doublings) - 1)
    }

    /// Gives up what is under way, and asks for less at a time.
    pub(super) fn stall(&mut self, now: Instant) {
        self.flow.stall(now);
    }

    /// For how long no piece has come.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.flow.silence(now)
    }

    /// Nothing could come so far: its time begins now.
    pub(super) fn wait_from(&mut self, now: Instant) {
        self.flow.wait_from(now);
    }
}
