//! Probes that test the MQTT server: whether it delivers packets, and whether it drops large ones.
//!
//! Some servers drop packets without an error. Before a node relies on packets that are larger than any that has come
//! back, it sends itself one of that size, and a small one after it. Packets from one sender to one topic keep their
//! order. So if only the small one comes back, the large one was dropped. Any packet may be lost, so this is repeated
//! once before half the size is tried. Each probe contains a random number, so a stranger can only repeat probes that
//! have already come back. Knows neither clock nor link: its caller sends the probes, and reports what has arrived.

use std::collections::VecDeque;
use std::time::Duration;

/// Every server that a link accepts delivers packets of this size, in bytes.
const PASSES: usize = 4_096;
/// Losses of a size before the size counts as too large.
const LOSSES_MAX: u8 = 2;
/// The start of a probe. No sealed packet starts like this.
const PREFIX: &[u8] = b"broccoli probe ";
/// The server counts as silent if the node has received nothing from itself for this time after the last other packet …
const ECHO_AFTER_ANYTHING: Duration = Duration::from_secs(2);
/// … or for this time in all. A server to which a thousand nodes connect at once needs this long.
const ECHO_MAX: Duration = Duration::from_secs(60);

/// The knowledge about the server. It is kept from one connection to the next.
pub(crate) struct Probe {
    /// Distinguishes the probes of this node from those of a node with the same name.
    id: Vec<u8>,
    /// The largest size that came back, in bytes.
    passed: usize,
    /// No probe is larger than this, in bytes.
    limit: usize,
    under_way: Option<UnderWay>,
    outgoing: VecDeque<Vec<u8>>,
    /// When the link came up, and when the last packet arrived; none after the node has received a packet from itself.
    unheard: Option<(Duration, Duration)>,
}

/// A size that is being tested.
#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    losses: u8,
    /// Whether a larger one was dropped.
    is_reduced: bool,
}

/// Probes that have not come back.
struct UnderWay {
    size: Size,
    /// The start of the large probe.
    large: Vec<u8>,
    /// The start of the small probe after it.
    after: Vec<u8>,
}

/// What a packet to this node's own address means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is not a probe.
    Other,
    /// It is a probe without news.
    Probe,
    /// Packets of more than this many bytes are dropped, and perhaps smaller ones.
    Limit(usize),
    /// Packets of up to this many bytes are delivered.
    Settled(usize),
}

impl Probe {
    /// The probes of one incarnation of a node, with this client id.
    pub(crate) fn new(client_id: &str) -> Probe {
        let id = [PREFIX, client_id.as_bytes(), b" "].concat();
        Probe { id, passed: 0, limit: 0, under_way: None, outgoing: VecDeque::new(), unheard: None }
    }

    /// The link is up, and carries packets of up to `limit` bytes. The server may have changed, so all sizes are tested
    /// again.
    pub(crate) fn on_connected(&mut self, now: Duration, limit: usize) {
        self.passed = PASSES;
        self.limit = limit;
        self.under_way = None;
        self.outgoing.clear();
        self.unheard = Some((now, now));
    }

    /// The link is down.
    pub(crate) fn on_disconnected(&mut self) {
        self.unheard = None;
        self.outgoing.clear();
    }

    /// A packet has arrived. `own` is its content if it was for this node's own address.
    pub(crate) fn on_packet(&mut self, now: Duration, own: Option<&[u8]>) -> Heard {
        match own {
            Some(packet) => {
                self.unheard = None;
                self.hear(packet)
            }
            None => {
                if let Some((_, last)) = &mut self.unheard {
                    *last = now;
                }
                Heard::Other
            }
        }
    }

    /// When the link counts as silent if no packet from this node comes back before.
    pub(crate) fn silent_at(&self) -> Option<Duration> {
        self.unheard.map(|(up, last)| (last + ECHO_AFTER_ANYTHING).min(up + ECHO_MAX))
    }

    /// Whether the link counts as silent now. True once for each connection.
    pub(crate) fn is_silent(&mut self, now: Duration) -> bool {
        let is_silent = self.silent_at().is_some_and(|at| at <= now);
        if is_silent {
            self.unheard = None;
        }
        is_silent
    }

    /// A packet of this size, in bytes, was sent.
    pub(crate) fn on_sent(&mut self, bytes: usize) {
        if bytes > self.passed && self.under_way.is_none() {
            let bytes = bytes.next_power_of_two().min(self.limit);
            self.send(Size { bytes, losses: 0, is_reduced: false });
        }
    }

    /// The next packet to send to this node's own address.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    fn send(&mut self, size: Size) {
        self.under_way = None;
        // Without random numbers no probe is sent. The server then counts as one that reports its own limit.
        let (Some(large), Some(after)) = (self.packet(), self.packet()) else { return };
        let mut padded = large.clone();
        padded.resize(size.bytes.max(large.len()), 0);
        self.outgoing.extend([padded, after.clone()]);
        self.under_way = Some(UnderWay { size, large, after });
    }

    /// A random number.
    fn packet(&self) -> Option<Vec<u8>> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).ok()?;
        Some([&self.id[..], &nonce[..]].concat())
    }

    fn hear(&mut self, packet: &[u8]) -> Heard {
        if !packet.starts_with(PREFIX) {
            return Heard::Other;
        }
        let Some(UnderWay { size, large, after }) = &self.under_way else { return Heard::Probe };
        let size = *size;
        if packet.starts_with(large) && packet.len() >= size.bytes {
            self.under_way = None;
            self.passed = size.bytes;
            return if size.is_reduced { Heard::Settled(size.bytes) } else { Heard::Probe };
        }
        if packet == after { self.on_lost(size) } else { Heard::Probe }
    }

    fn on_lost(&mut self, size: Size) -> Heard {
        let losses = size.losses + 1;
        if losses < LOSSES_MAX {
            self.send(Size { losses, ..size });
            return Heard::Probe;
        }
        self.limit = (size.bytes / 2).max(self.passed);
        if self.limit == self.passed {
            self.under_way = None;
            return Heard::Settled(self.limit);
        }
        self.send(Size { bytes: self.limit, losses: 0, is_reduced: true });
        Heard::Limit(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn connected(limit: usize) -> Probe {
        let mut probe = Probe::new("node-1");
        probe.on_connected(NOW, limit);
        probe
    }

    /// A server that drops packets above a size. Returns the result.
    fn deliver(probe: &mut Probe, server: usize) -> Vec<Heard> {
        let mut learnt = Vec::new();
        while let Some(packet) = probe.poll_transmit() {
            if packet.len() <= server {
                learnt.push(probe.on_packet(NOW, Some(&packet)));
            }
        }
        learnt.retain(|heard| *heard != Heard::Probe);
        learnt
    }

    #[test]
    fn what_passes_is_tried_once() {
        let mut probe = connected(1 << 20);
        probe.on_sent(PASSES);
        assert_eq!(probe.poll_transmit(), None);
        probe.on_sent(20_000);
        probe.on_sent(30_000);
        assert_eq!(deliver(&mut probe, usize::MAX), []);
        probe.on_sent(32_768);
        assert_eq!(probe.poll_transmit(), None, "so much has passed");
        probe.on_sent(900_000);
        assert_eq!(probe.poll_transmit().map(|large| large.len()), Some(1 << 20));
    }

    #[test]
    fn the_limit_is_found_by_halving() {
        let mut probe = connected((1 << 20) - 10);
        probe.on_sent(600_000);
        let learnt = deliver(&mut probe, 40_000);
        let limits = [524_283, 262_141, 131_070, 65_535, 32_767].map(Heard::Limit);
        assert_eq!(learnt, limits.into_iter().chain([Heard::Settled(32_767)]).collect::<Vec<_>>());
        probe.on_sent(32_767);
        assert_eq!(probe.poll_transmit(), None);

        let mut probe = connected(1 << 20);
        probe.on_sent(5_000);
        assert_eq!(deliver(&mut probe, 5_000), [Heard::Settled(PASSES)]);
    }

    #[test]
    fn one_loss_says_nothing() {
        let mut probe = connected(1 << 20);
        probe.on_sent(8_192);
        probe.poll_transmit();
        assert_eq!(deliver(&mut probe, usize::MAX), []);
        probe.on_sent(8_192);
        assert_eq!(probe.poll_transmit(), None, "the second has passed");
    }

    #[test]
    fn probes_of_others_and_of_before_are_dropped() {
        let (mut probe, mut twin) = (connected(1 << 20), Probe::new("node-2"));
        probe.on_sent(8_192);
        twin.on_connected(NOW, 1 << 20);
        twin.on_sent(8_192);
        let (large, after) = (twin.poll_transmit().unwrap(), twin.poll_transmit().unwrap());
        for packet in [large, after, b"broccoli probe".to_vec()] {
            let is_probe = packet.starts_with(PREFIX);
            let heard = probe.on_packet(NOW, Some(&packet));
            assert_eq!(heard, if is_probe { Heard::Probe } else { Heard::Other });
        }
        let old: Vec<_> = std::iter::from_fn(|| probe.poll_transmit()).collect();
        probe.on_connected(NOW, 1 << 20);
        probe.on_sent(8_192);
        assert!(old.iter().all(|packet| probe.on_packet(NOW, Some(packet)) == Heard::Probe));
        assert_eq!(probe.passed, PASSES);
    }

    #[test]
    fn what_a_stranger_makes_up_or_repeats_says_nothing() {
        let mut probe = connected(1 << 20);
        probe.on_sent(600_000);
        let (large, after) = (probe.poll_transmit().unwrap(), probe.poll_transmit().unwrap());
        // The server has dropped the large probe. A stranger knows only the small one, and the name of the node.
        let mut made_up = after.clone();
        made_up.resize(1 << 20, 0);
        for packet in [&made_up[..], &large[..100], b"broccoli probe node-1 \0\0\0\x01L"] {
            assert_eq!(probe.on_packet(NOW, Some(packet)), Heard::Probe);
        }
        assert_eq!(probe.passed, PASSES);
        // A probe counts only once. The next probes have other numbers.
        probe.on_packet(NOW, Some(&after));
        let again: Vec<_> = std::iter::from_fn(|| probe.poll_transmit()).collect();
        assert!(!again.contains(&large) && !again.contains(&after));
        assert_eq!(probe.on_packet(NOW, Some(&after)), Heard::Probe);
        assert_eq!(probe.poll_transmit(), None, "it was counted once");
    }

    #[test]
    fn who_does_not_hear_itself_notices_once() {
        let at = |seconds| NOW + Duration::from_secs(seconds);
        let mut probe = connected(1 << 20);
        assert!(!probe.is_silent(at(1)));
        probe.on_packet(at(1), None);
        assert!(!probe.is_silent(at(2)), "it may still come, after the births of all others");
        assert!(probe.is_silent(at(3)));
        assert!(!probe.is_silent(at(4)));

        probe.on_connected(NOW, 1 << 20);
        for second in 1..60 {
            assert!(!probe.is_silent(at(second)), "a busy server takes its time");
            probe.on_packet(at(second), None);
        }
        assert!(probe.is_silent(at(60)), "others alone are not enough");

        probe.on_connected(NOW, 1 << 20);
        probe.on_packet(at(1), Some(b"claim"));
        assert!(!probe.is_silent(at(20)));
    }
}
