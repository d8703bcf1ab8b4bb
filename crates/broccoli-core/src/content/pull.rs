//! The pull of one content, of any kind: which node is asked, and the length of the pieces.
//!
//! ```text
//!   ask ──► ContentRequest ──► ContentPiece ──► missing_index, take ──► ask … until it is whole
//!    ▲                                             │ nothing arrives
//!    └──────── stall, change of provider ◄─────────┘
//! ```
//!
//! The owner of the pull decides how the bytes are verified and stored, and when the pull is given up.

use core::time::Duration;

use broccoli_proto::message::{ContentRequest, Message};
use broccoli_proto::{ContentId, NodeId};

use super::flow::{Flow, Span, WINDOW};
use crate::outbox::Outbox;
use crate::time::Instant;
use crate::timing::Timing;

/// Longest piece, in bytes: short enough that a slow link can still send heartbeats in time between pieces.
pub(super) const PIECE_BYTES_MAX: u32 = 64 << 10;
/// Shortest piece that is requested and served, in bytes.
pub(super) const PIECE_BYTES_MIN: u32 = 64;
/// Bytes in a packet in addition to those of its piece.
pub(super) const PIECE_OVERHEAD_BYTES: usize = 64;
/// Most pieces in flight, and most that are sent for one request.
pub(super) const WINDOW_MAX: u32 = 64;

/// The extent of a content and of its pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) content: ContentId,
    /// Its length in bytes.
    pub(super) bytes: u32,
    /// Length of each piece except the last, in bytes.
    pub(super) piece_bytes: u32,
}

/// A content that is being pulled from one node.
#[derive(Debug)]
pub(super) struct Pull {
    extent: Extent,
    from: NodeId,
    /// Most pieces in flight.
    window_max: u32,
    flow: Flow,
}

impl Pull {
    /// A pull without any requests yet. At most about `window_bytes` are in flight at a time.
    pub(super) fn new(from: NodeId, extent: Extent, window_bytes: u32, now: Instant, timing: Timing) -> Pull {
        let pieces = extent.bytes.div_ceil(extent.piece_bytes);
        let window_max = (window_bytes / extent.piece_bytes).clamp(WINDOW, WINDOW_MAX);
        Pull { extent, from, window_max, flow: Flow::new(pieces as usize, now, timing) }
    }

    /// The node that is asked.
    pub(super) fn provider(&self) -> NodeId {
        self.from
    }

    /// Changes the node that is asked. Pieces that have arrived stay; those in flight may still arrive.
    pub(super) fn set_provider(&mut self, from: NodeId) {
        self.from = from;
    }

    /// Requests pieces until the window is full, if half of it is free.
    pub(super) fn ask(&mut self, now: Instant, outbox: &mut Outbox) {
        let Extent { content, piece_bytes, .. } = self.extent;
        for Span { first, count } in self.flow.ask(now, self.window_max) {
            let request = ContentRequest { content, first, count, piece_bytes };
            outbox.send(self.from, Message::ContentRequest(request));
        }
    }

    /// The index of the piece at this offset, if it exists and is missing.
    pub(super) fn missing_index(&self, offset: u32) -> Option<u32> {
        let index = offset / self.extent.piece_bytes;
        let is_missing = offset.is_multiple_of(self.extent.piece_bytes) && self.flow.lacks(index as usize);
        is_missing.then_some(index)
    }

    /// Length of the piece at an offset, in bytes.
    pub(super) fn len_at(&self, offset: u32) -> usize {
        self.extent.bytes.saturating_sub(offset).min(self.extent.piece_bytes) as usize
    }

    /// A missing piece has arrived.
    pub(super) fn take(&mut self, index: u32, now: Instant) {
        self.flow.take(index, now);
    }

    /// Whether all pieces have arrived.
    pub(super) fn is_whole(&self) -> bool {
        self.flow.is_whole()
    }

    /// The complete content does not match its hash: all pieces are missing again.
    pub(super) fn begin_again(&mut self) {
        self.flow.begin_again();
    }

    /// When the pieces in flight count as lost, with the time doubled this often.
    pub(super) fn stalls_at(&self, doublings: u32) -> Instant {
        let at = self.flow.stalls_at();
        at + (at - self.flow.stirred()) * ((1 << doublings) - 1)
    }

    /// Gives up the pieces in flight, and halves the window.
    pub(super) fn stall(&mut self, now: Instant) {
        self.flow.stall(now);
    }

    /// Time since the last piece arrived.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        self.flow.silence(now)
    }

    /// No piece could arrive so far: restarts the waiting times.
    pub(super) fn wait_from(&mut self, now: Instant) {
        self.flow.wait_from(now);
    }
}
