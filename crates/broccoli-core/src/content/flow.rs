//! Flow control of a pull: which pieces of one content have arrived, are in flight, or are lost.
//!
//! A window of pieces is in flight. It grows with each piece that arrives, and is halved when none arrives for some
//! time. This time depends on how long pieces take (as in TCP, RFC 5681 and 6298), so repeated requests do not fill a
//! slow link. This file knows neither bytes nor messages.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use litemap::LiteMap;

use crate::time::Instant;
use crate::timing::{LinkTime, Timing, link_ms};

/// Pieces in flight at first.
pub(super) const WINDOW: u32 = 4;
/// A piece is lost if this many pieces requested after it have arrived before it.
const REORDERED_MAX: u64 = 8;
/// Pieces are requested again if none arrives for this time, or for twice the time that a piece takes.
const PATIENCE: LinkTime = link_ms(300);
/// Upper limit of that time.
const PATIENCE_MAX: LinkTime = link_ms(4_000);

/// Consecutive pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) count: u16,
}

/// The pieces of one content.
#[derive(Debug)]
pub(crate) struct Flow {
    timing: Timing,
    have: Vec<bool>,
    missing: u32,
    /// Pieces in flight: the number of pieces requested before, and the time of the request.
    asked: LiteMap<u32, (u64, Instant)>,
    asked_so_far: u64,
    /// Pieces to request again.
    again: VecDeque<u32>,
    /// The first piece that was never requested.
    next: u32,
    window: u32,
    /// Average time between the request for a piece and its arrival.
    takes: Duration,
    /// When the last piece arrived.
    heard: Instant,
    /// When the last piece arrived or was given up.
    stirred: Instant,
}

impl Flow {
    /// A flow of this many pieces, none of which has arrived.
    pub(crate) fn new(pieces: usize, now: Instant, timing: Timing) -> Flow {
        Flow {
            timing,
            have: alloc::vec![false; pieces],
            missing: pieces as u32,
            asked: LiteMap::new_vec(),
            asked_so_far: 0,
            again: VecDeque::new(),
            next: 0,
            window: WINDOW,
            takes: Duration::ZERO,
            heard: now,
            stirred: now,
        }
    }

    /// Whether all pieces have arrived.
    pub(crate) fn is_whole(&self) -> bool {
        self.missing == 0
    }

    /// Whether the piece exists and is missing.
    pub(crate) fn lacks(&self, piece: usize) -> bool {
        self.have.get(piece) == Some(&false)
    }

    /// A missing piece has arrived.
    pub(crate) fn take(&mut self, piece: u32, now: Instant) {
        self.have[piece as usize] = true;
        self.missing -= 1;
        self.window += 1;
        self.heard = now;
        self.stirred = now;
        if let Some((number, at)) = self.asked.remove(&piece) {
            self.takes = (now - at).max(self.takes * 7 / 8);
            let passed = |(before, _): &(u64, Instant)| before + REORDERED_MAX < number;
            let lost = self.asked.iter().filter(|(_, asked)| passed(asked)).map(|(piece, _)| *piece);
            self.again.extend(lost.collect::<Vec<_>>());
            self.asked.retain(|_, asked| !passed(asked));
        }
    }

    /// What to request now: nothing unless half of the window is free; otherwise enough to fill it. The window has at
    /// most `window_max` pieces.
    pub(crate) fn ask(&mut self, now: Instant, window_max: u32) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        if self.again.is_empty() && self.asked.len() as u32 > self.window / 2 {
            return spans;
        }
        self.window = self.window.min(window_max);
        while (self.asked.len() as u32) < self.window {
            let Some(piece) = self.next_to_ask(now) else {
                break;
            };
            match spans.last_mut() {
                Some(last) if last.first + u32::from(last.count) == piece => last.count += 1,
                _ => spans.push(Span { first: piece, count: 1 }),
            }
        }
        spans
    }

    /// Takes the next piece to request and marks it as in flight.
    fn next_to_ask(&mut self, now: Instant) -> Option<u32> {
        let again = core::iter::from_fn(|| self.again.pop_front()).find(|piece| !self.have[*piece as usize]);
        let piece = again.or_else(|| {
            let next = (self.next as usize..self.have.len()).find(|piece| !self.have[*piece])?;
            self.next = next as u32 + 1;
            Some(next as u32)
        })?;
        self.asked_so_far += 1;
        self.asked.insert(piece, (self.asked_so_far, now));
        Some(piece)
    }

    /// When the pieces in flight count as lost, if none arrives before.
    pub(crate) fn stalls_at(&self) -> Instant {
        let patience = (self.takes * 2).clamp(self.timing.time(PATIENCE), self.timing.time(PATIENCE_MAX));
        self.stirred + patience
    }

    /// When the last piece arrived or was given up.
    pub(crate) fn stirred(&self) -> Instant {
        self.stirred
    }

    /// Time since the last piece arrived.
    pub(crate) fn silence(&self, now: Instant) -> Duration {
        now - self.heard
    }

    /// No piece could arrive so far: restarts the waiting times.
    pub(crate) fn wait_from(&mut self, now: Instant) {
        self.heard = now;
        self.stirred = now;
    }

    /// Gives up the pieces in flight, and halves the window.
    pub(crate) fn stall(&mut self, now: Instant) {
        self.again.extend(core::mem::take(&mut self.asked).into_iter().map(|(piece, _)| piece));
        self.window = (self.window / 2).max(1);
        self.takes = (self.takes * 2).clamp(self.timing.time(PATIENCE) / 2, self.timing.time(PATIENCE_MAX) / 2);
        self.stirred = now;
    }

    /// The complete content does not match its hash: all pieces are missing again.
    pub(crate) fn begin_again(&mut self) {
        self.have.fill(false);
        self.missing = self.have.len() as u32;
        self.asked.clear();
        self.again.clear();
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ms;

    const MAX: u32 = 16;

    fn flow(pieces: usize) -> Flow {
        Flow::new(pieces, Instant(0), Timing::FAST)
    }

    fn span(first: u32, count: u16) -> Span {
        Span { first, count }
    }

    #[test]
    fn the_window_grows_with_what_comes_up_to_its_most() {
        let mut flow = flow(100);
        let now = Instant(0);
        assert_eq!(flow.ask(now, MAX), [span(0, 4)]);
        assert_eq!(flow.ask(now, MAX), [], "it is full");
        for piece in 0..2 {
            flow.take(piece, now);
        }
        // Six may be in flight, two are.
        assert_eq!(flow.ask(now, MAX), [span(4, 4)]);
        for piece in 2..100 {
            flow.take(piece, now);
            flow.ask(now, MAX);
            assert!(flow.asked.len() <= MAX as usize);
        }
        assert!(flow.is_whole());
    }

    #[test]
    fn what_does_not_come_is_asked_for_again_and_less_of_it() {
        let mut flow = flow(10);
        assert_eq!(flow.ask(Instant(0), MAX), [span(0, 4)]);
        assert_eq!(flow.stalls_at(), Instant(0) + ms(300));
        flow.stall(Instant(0) + ms(300));
        assert_eq!(flow.ask(Instant(0) + ms(300), MAX), [span(0, 2)]);
        flow.take(1, Instant(0) + ms(400));
        assert_eq!(flow.ask(Instant(0) + ms(400), MAX), [span(2, 2)]);
    }

    #[test]
    fn patience_follows_what_pieces_take() {
        let mut flow = flow(10);
        flow.ask(Instant(0), MAX);
        flow.take(0, Instant(0) + ms(1_000));
        assert_eq!(flow.stalls_at(), Instant(0) + ms(3_000));
        flow.take(1, Instant(0) + ms(9_000));
        assert_eq!(flow.stalls_at(), Instant(0) + ms(13_000), "four seconds at most");
    }

    #[test]
    fn a_piece_that_many_later_ones_have_passed_is_lost() {
        let mut flow = flow(100);
        flow.ask(Instant(0), MAX);
        for piece in 1..20 {
            flow.take(piece, Instant(0));
            let again = flow.ask(Instant(0), MAX).contains(&span(0, 1));
            assert_eq!(again, piece == 9, "after piece {piece}");
        }
    }

    #[test]
    fn pieces_that_are_not_what_they_should_be_are_asked_for_again() {
        let mut flow = flow(2);
        flow.ask(Instant(0), MAX);
        for piece in 0..2 {
            flow.take(piece, Instant(0));
        }
        assert!(flow.is_whole() && !flow.lacks(0) && !flow.lacks(2));
        flow.begin_again();
        assert!(flow.lacks(0) && flow.lacks(1));
        assert_eq!(flow.ask(Instant(0), MAX), [span(0, 2)]);
    }
}
