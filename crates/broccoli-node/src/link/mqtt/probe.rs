//! What the MQTT server does with packets: whether it delivers any, and which it drops because of their size.
//!
//! Some servers drop without a word. Before a packet is relied on that is larger than any that has come back, a node
//! sends itself one of that size, and a small one after it: packets of one sender to one topic keep their order, so
//! when the small one comes alone, the large one was dropped. Twice, since any packet may be lost; then half the size is
//! tried. Each probe has a number that nobody can guess, so that a stranger can only repeat what has come back already.
//! Knows neither clock nor link: its driver asks it what to send and tells it what has come.

use std::collections::VecDeque;
use std::time::Duration;

/// Packets of this size pass every server that a link accepts.
const PASSES: usize = 4_096;
/// How often a packet of a size may be lost before the size is to blame.
const LOSSES_MAX: u8 = 2;
/// How probes begin. No sealed packet begins so.
const PREFIX: &[u8] = b"broccoli probe ";
/// A node that has heard nothing of itself so long after anything has arrived hears nothing …
const ECHO_AFTER_ANYTHING: Duration = Duration::from_secs(2);
/// … and so does one that has only heard others so long. A server to which a thousand nodes come at once takes its time.
const ECHO_MAX: Duration = Duration::from_secs(60);

/// What is known of the server, from one connection to the next.
pub(crate) struct Probe {
    /// Tells probes of this node from those of a twin.
    id: Vec<u8>,
    /// The largest that came back.
    passed: usize,
    /// None is sent that is larger.
    limit: usize,
    under_way: Option<UnderWay>,
    outgoing: VecDeque<Vec<u8>>,
    /// Since when the link is up and when something last came, until this node has heard itself.
    unheard: Option<(Duration, Duration)>,
}

/// A size that is being tried.
#[derive(Clone, Copy)]
struct Size {
    bytes: usize,
    losses: u8,
    /// A larger one was dropped.
    is_reduced: bool,
}

/// Probes that have not come back.
struct UnderWay {
    size: Size,
    /// How the large one begins, …
    large: Vec<u8>,
    /// … and the one after it.
    after: Vec<u8>,
}

/// What a packet to this node's own address was.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// No probe.
    Other,
    /// A probe, and nothing new.
    Probe,
    /// Packets of more than so many bytes are dropped, and perhaps smaller ones.
    Limit(usize),
    /// This is what passes.
    Settled(usize),
}

impl Probe {
    /// For the incarnation of a node with this client id.
    pub(crate) fn new(client_id: &str) -> Probe {
        let id = [PREFIX, client_id.as_bytes(), b" "].concat();
        Probe { id, passed: 0, limit: 0, under_way: None, outgoing: VecDeque::new(), unheard: None }
    }

    /// The link is up, and takes packets of so many bytes. What the server is like may have changed.
    pub(crate) fn on_connected(&mut self, now: Duration, limit: usize) {
        (self.passed, self.limit) = (PASSES, limit);
        self.under_way = None;
        self.outgoing.clear();
        self.unheard = Some((now, now));
    }

    /// The link is down.
    pub(crate) fn on_disconnected(&mut self) {
        self.unheard = None;
        self.outgoing.clear();
    }

    /// Something has come from the server; `own` is what came to this node's own address.
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

    /// When it shows that this node does not hear itself.
    pub(crate) fn silent_at(&self) -> Option<Duration> {
        self.unheard.map(|(up, last)| (last + ECHO_AFTER_ANYTHING).min(up + ECHO_MAX))
    }

    /// Whether it shows now. True once for each connection.
    pub(crate) fn is_silent(&mut self, now: Duration) -> bool {
        let is_silent = self.silent_at().is_some_and(|at| at <= now);
        if is_silent {
            self.unheard = None;
        }
        is_silent
    }

    /// A packet of this size was sent.
    pub(crate) fn on_sent(&mut self, bytes: usize) {
        if bytes > self.passed && self.under_way.is_none() {
            let bytes = bytes.next_power_of_two().min(self.limit);
            self.send(Size { bytes, losses: 0, is_reduced: false });
        }
    }

    /// What to send to this node's own address next.
    pub(crate) fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.outgoing.pop_front()
    }

    fn send(&mut self, size: Size) {
        self.under_way = None;
        // Without a source of randomness nothing can be known, as on a server that tells its limit.
        let (Some(large), Some(after)) = (self.packet(), self.packet()) else { return };
        let mut padded = large.clone();
        padded.resize(size.bytes.max(large.len()), 0);
        self.outgoing.extend([padded, after.clone()]);
        self.under_way = Some(UnderWay { size, large, after });
    }

    /// One that nobody can guess.
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

    /// Delivers what is to be sent by a server that drops what is larger; gives what was learnt.
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
        // The server has dropped the large one: a stranger knows of the other alone, and of the name.
        let mut made_up = after.clone();
        made_up.resize(1 << 20, 0);
        for packet in [&made_up[..], &large[..100], b"broccoli probe node-1 \0\0\0\x01L"] {
            assert_eq!(probe.on_packet(NOW, Some(packet)), Heard::Probe);
        }
        assert_eq!(probe.passed, PASSES);
        // What has come back is over: the next probes have other numbers.
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
