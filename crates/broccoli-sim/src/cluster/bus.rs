//! A slow medium that all nodes share, in place of a fast network: a serial bus with frames.
//!
//! ```text
//!   packet of n bytes ──► frames of frame_bytes, each with FRAME_HEAD_BYTES of its own ──► one after the other, at bytes_per_s
//! ```
//!
//! One node speaks at a time. A node hands over a packet only when its last one has left, as a shell does whose link is
//! full; whoever waits longest speaks next.

use broccoli_core::{LinkSpeed, Timing};

/// What a frame needs beside its part of a packet: sender, receiver, number, check.
const FRAME_HEAD_BYTES: usize = 8;
/// The longest packet on a bus.
const PACKET_BYTES_MAX: u32 = 2_304;

/// The medium of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Bus {
    /// Bytes in a second, as a UART of ten times as many bauds carries them.
    bytes_per_s: u32,
    frame_bytes: usize,
    /// Until when somebody speaks.
    taken_until_us: u64,
}

impl Bus {
    /// A bus of so many bauds (eight bits, no parity, one stop bit) with frames of so many bytes.
    pub fn new(bauds: u32, frame_bytes: usize) -> Bus {
        Bus { bytes_per_s: bauds / 10, frame_bytes, taken_until_us: 0 }
    }

    /// What the protocol has to know of it.
    pub fn speed(&self) -> LinkSpeed {
        let payload = self.frame_bytes - FRAME_HEAD_BYTES;
        let bytes_per_s = self.bytes_per_s * payload as u32 / self.frame_bytes as u32;
        LinkSpeed { packet_bytes_max: PACKET_BYTES_MAX, bytes_per_s }
    }

    pub(super) fn timing(&self) -> Timing {
        Timing::of(self.speed())
    }

    /// Takes a packet of so many bytes; when it has been sent.
    pub(super) fn send(&mut self, now_us: u64, bytes: usize) -> u64 {
        let frames = bytes.div_ceil(self.frame_bytes - FRAME_HEAD_BYTES);
        let on_wire = (frames * FRAME_HEAD_BYTES + bytes) as u64;
        self.taken_until_us = self.taken_until_us.max(now_us) + on_wire * 1_000_000 / u64::from(self.bytes_per_s);
        self.taken_until_us
    }
}
