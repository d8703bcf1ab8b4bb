//! Sessions: check the freshness of packets, by challenges that prove that the sender is live now, and drop repeated
//! packets.
//!
//! ```text
//!   a ── challenge a1 ────────────────────────► b     a knock: no message in it counts
//!   a ◄─ challenge b1, proof a1 ─────────────── b     b is live: a has a session with b
//!   a ── challenge a1, proof b1, messages … ──► b     a is live: b has one with a
//! ```
//!
//! Messages for a node stay with their role until the latest challenge of that node is known. A challenge is replaced
//! every [`CHALLENGE_AGE`] and accepted for twice as long. So no packet counts later than that after it was made, and
//! by its sequence number it counts only once (the window of RFC 4303, appendix A2). A recording can delay something by
//! at most that time.
//!
//! Another incarnation of a node opens a session only with a challenge that is newer than the session of the earlier
//! one; no packet of an earlier incarnation can contain it. So only open sessions are stored, and of past incarnations
//! only the last one of each node. Broadcasts are never trusted.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::time::Duration;

use broccoli_proto::message::Message;
use broccoli_proto::packet::Header;
use broccoli_proto::{Epoch, NodeId, SplitMix64};
use litemap::LiteMap;

use crate::time::Instant;
use crate::timing::{LinkTime, Timing, link_ms};

/// A challenge is replaced after this time, and accepted for twice as long.
const CHALLENGE_AGE: LinkTime = link_ms(5_000);
/// If another incarnation of a node needs a newer challenge, it is replaced earlier, but not before this age.
const CHALLENGE_AGE_MIN: LinkTime = link_ms(200);
/// Expired sessions are dropped only if there are more than the limit divided by this.
const FEW: usize = 4;
/// Most challenges that are accepted at the same time.
const CHALLENGES_MAX: usize = 50;
/// A challenge of another node is used for this long: then the other node still accepts it when the packet arrives.
const PROOF_AGE_MAX: LinkTime = link_ms(4_000);
/// Of two nodes with the same name, the other one is accepted only after the first has been silent for this long.
const TWIN_SILENCE: LinkTime = link_ms(4_000);
/// Another incarnation of a node that was heard within this time may be a twin.
const TWIN_HEARD: LinkTime = link_ms(1_500);
/// The known incarnation then has this long to answer that it is still live.
const TWIN_ANSWER: LinkTime = link_ms(200);
/// The challenge is replaced for this question if it is older than this.
const TWIN_CHALLENGE_AGE: LinkTime = link_ms(1_000);
/// A knock is repeated after this time, doubled up to the maximum.
const KNOCK_AGAIN: LinkTime = link_ms(100);
const KNOCK_AGAIN_MAX: LinkTime = link_ms(400);
/// After this many unanswered knocks the node counts as silent: 1.5 s.
const KNOCKS_MAX: u32 = 5;
/// Most answers that wait to be sent; further ones are dropped.
const ANSWERS_MAX: usize = 1_024;

/// The result of checking a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is fresh.
    Fresh {
        /// It opens a session, possibly with a new incarnation.
        opens: bool,
    },
    /// It has arrived before, or is too old to tell, or another node with this name has the session.
    Repeated,
    /// It may be a recording: a broadcast is hearsay, a directed packet does not count.
    Unproven,
}

/// A packet that proves itself by the challenge of the packet that it answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) to: NodeId,
    pub(crate) proof: u64,
    /// None: it only proves that this node is live.
    pub(crate) message: Option<Box<Message>>,
}

/// The sessions of a node.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    timing: Timing,
    /// The accepted challenges with their start times, the current one first.
    challenges: VecDeque<(u64, Instant)>,
    /// Number of challenges so far.
    generation: u64,
    open: LiteMap<NodeId, Box<Session>>,
    /// Nodes that are being knocked at, since messages wait for them.
    knocks: LiteMap<NodeId, Knock>,
    /// By due time, and a number.
    answers: LiteMap<(Instant, u64), Answer>,
    answered: u64,
    /// Number of sessions opened.
    pub(crate) opened: u64,
    /// Number of packets of another incarnation that was made to wait.
    pub(crate) refused: u64,
}

/// The session with a node that was proven to be live.
#[derive(Debug)]
struct Session {
    epoch: Epoch,
    /// The challenge that was current when it was opened.
    opened: u64,
    /// The earlier incarnation, which may be a twin, and the last challenge that it may have known while it had the
    /// session.
    replaced: Option<(Epoch, u64)>,
    /// The latest challenge of the node, and when it arrived.
    challenge: u64,
    challenged: Instant,
    window: Window,
    /// When the node was last proven to be live.
    heard: Instant,
    /// Another incarnation that tries to replace it.
    rival: Option<Rival>,
}

/// An incarnation that wants the session of another one that was live just now: the node has restarted, or has a twin.
#[derive(Clone, Copy, Debug)]
struct Rival {
    epoch: Epoch,
    /// Until when the known incarnation may answer.
    until: Instant,
    /// Its answer must contain this challenge or a later one.
    generation: u64,
}

/// The sequence numbers that have arrived.
#[derive(Debug)]
struct Window {
    newest: u64,
    /// Which of the 64 numbers up to the newest have arrived; the newest is the lowest bit.
    seen: u64,
}

#[derive(Debug)]
struct Knock {
    tries: u32,
    again: Instant,
}

/// What to do for a node whose challenge is not known.
pub(crate) enum Knocking {
    /// Send a knock, and check again at this time.
    Now(Instant),
    /// Wait for the answer to the last knock.
    Waits,
}

/// Incoming packets.
impl Sessions {
    pub(crate) fn new(timing: Timing) -> Sessions {
        Sessions { timing, ..Sessions::default() }
    }

    /// Checks an opened packet. `directed`: it is addressed to this node alone.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        rng: &mut SplitMix64,
        header: &Header,
        directed: bool,
        max: usize,
    ) -> Standing {
        let Header { sender, epoch, sequence, challenge, proof, .. } = *header;
        let known = self.open.get(&sender).filter(|session| session.epoch == epoch);
        if known.is_some_and(|session| session.window.has(sequence)) {
            return Standing::Repeated;
        }
        if !directed {
            let session = self.open.get_mut(&sender).filter(|session| session.is_live(epoch, now, self.timing));
            return session.map_or(Standing::Unproven, |session| session.take(sequence, challenge, now));
        }
        let before = self.open.get(&sender).filter(|session| session.epoch != epoch).map(|session| session.opened);
        let is_newer = |generation: &u64| before.is_none_or(|opened| *generation > opened);
        let Some(generation) = self.proven_generation(now, rng, proof).filter(is_newer) else {
            if before.is_some_and(|opened| self.generation <= opened)
                && self.challenge_age(now) >= self.timing.time(CHALLENGE_AGE_MIN)
            {
                self.renew_challenge(now, rng);
            }
            self.answer(now, Answer { to: sender, proof: challenge, message: None });
            return Standing::Unproven;
        };
        match self.open.get_mut(&sender) {
            Some(session) if session.epoch == epoch => {
                session.heard = now;
                session.keep_out_rival(generation);
                session.take(sequence, challenge, now)
            }
            Some(session) if session.keeps_out(epoch, generation, now, self.timing) => {
                self.refused += 1;
                Standing::Repeated
            }
            Some(session) if session.may_be_twin(epoch, now, self.timing) => {
                self.refused += 1;
                self.ask_which(now, rng, header);
                Standing::Repeated
            }
            other => {
                let replaced = other.map(|session| (session.epoch, self.generation));
                self.make_room(now, max);
                let window = Window { newest: sequence, seen: 1 };
                let opened = self.generation;
                let session =
                    Session { epoch, opened, replaced, challenge, challenged: now, window, heard: now, rival: None };
                self.open.insert(sender, Box::new(session));
                self.opened += 1;
                Standing::Fresh { opens: true }
            }
        }
    }

    /// Another incarnation of a node wants to replace one that was live just now. The known one is asked first, then
    /// the other.
    fn ask_which(&mut self, now: Instant, rng: &mut SplitMix64, header: &Header) {
        let Header { sender: to, epoch, challenge, .. } = *header;
        if self.challenge_age(now) >= self.timing.time(TWIN_CHALLENGE_AGE) {
            self.renew_challenge(now, rng);
        }
        let Some(session) = self.open.get_mut(&to) else {
            return;
        };
        if session.rival.is_some_and(|rival| rival.epoch == epoch || now < rival.until) {
            // If there are more than two, they are handled one after another.
            return;
        }
        let until = now + self.timing.time(TWIN_ANSWER);
        session.rival = Some(Rival { epoch, until, generation: self.generation });
        let known = session.challenge;
        self.answer(now, Answer { to, proof: known, message: Some(Box::new(Message::Hello)) });
        self.answer(until, Answer { to, proof: challenge, message: Some(Box::new(Message::Hello)) });
    }

    /// The number of the accepted challenge that a packet repeats; none if it repeats none.
    fn proven_generation(&mut self, now: Instant, rng: &mut SplitMix64, proof: Option<u64>) -> Option<u64> {
        self.challenge(now, rng);
        let proof = proof?;
        let mut counting =
            self.challenges.iter().take_while(|(_, since)| now - *since < self.timing.time(CHALLENGE_AGE) * 2);
        let back = counting.position(|(challenge, _)| *challenge == proof)?;
        Some(self.generation - back as u64)
    }

    /// Drops the session that was idle for longest if there are too many, or if there are more than a few and its
    /// challenges have expired, for example of clients that are gone.
    fn make_room(&mut self, now: Instant, max: usize) {
        if self.open.len() < max / FEW {
            return;
        }
        let Some((node, session)) = self.open.iter().min_by_key(|(_, session)| session.heard) else {
            return;
        };
        let is_over = now - session.heard >= self.timing.time(CHALLENGE_AGE) * 2;
        if self.open.len() >= max || is_over {
            let node = *node;
            self.open.remove(&node);
        }
    }

    /// The link is down: no node can be heard.
    pub(crate) fn on_disconnected(&mut self) {
        self.knocks.clear();
        self.answers.clear();
    }

    /// Whether an earlier incarnation of a node had a session.
    pub(crate) fn has_restarted(&self, node: NodeId) -> bool {
        self.open.get(&node).is_some_and(|session| session.replaced.is_some())
    }

    /// Number of open sessions.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// The incarnation of a node that has a session.
    pub(crate) fn epoch_of(&self, node: NodeId) -> Option<Epoch> {
        self.open.get(&node).map(|session| session.epoch)
    }
}

/// Outgoing packets.
impl Sessions {
    /// The current challenge, which packets of other nodes have to repeat.
    pub(crate) fn challenge(&mut self, now: Instant, rng: &mut SplitMix64) -> u64 {
        match self.challenges.front() {
            Some((challenge, since)) if now - *since < self.timing.time(CHALLENGE_AGE) => *challenge,
            _ => self.renew_challenge(now, rng),
        }
    }

    /// The age of the current challenge.
    fn challenge_age(&self, now: Instant) -> Duration {
        self.challenges.front().map_or(Duration::MAX, |(_, since)| now - *since)
    }

    fn renew_challenge(&mut self, now: Instant, rng: &mut SplitMix64) -> u64 {
        let counts = |(_, since): &(u64, Instant)| now - *since < self.timing.time(CHALLENGE_AGE) * 2;
        let counting = self.challenges.iter().take_while(|challenge| counts(challenge)).count();
        self.challenges.truncate(counting.min(CHALLENGES_MAX - 1));
        let challenge = rng.bits();
        self.challenges.push_front((challenge, now));
        self.generation += 1;
        challenge
    }

    /// The challenge of a node, if a current one is known: it proves to that node that this one is live.
    pub(crate) fn proof(&self, to: NodeId, now: Instant) -> Option<u64> {
        let session =
            self.open.get(&to).filter(|session| now - session.challenged < self.timing.time(PROOF_AGE_MAX))?;
        Some(session.challenge)
    }

    /// Messages wait for a node whose challenge is not known.
    pub(crate) fn knock(&mut self, to: NodeId, now: Instant) -> Knocking {
        let knock = self.knocks.entry(to).or_insert(Knock { tries: 0, again: now });
        if knock.again > now {
            return Knocking::Waits;
        }
        knock.again =
            now + (self.timing.time(KNOCK_AGAIN) * (1 << knock.tries.min(8))).min(self.timing.time(KNOCK_AGAIN_MAX));
        knock.tries += 1;
        Knocking::Now(knock.again)
    }

    /// Whether a node has not answered the maximum number of knocks. If so, the knocking ends.
    pub(crate) fn is_silent(&mut self, node: NodeId) -> bool {
        let silent = self.knocks.get(&node).is_some_and(|knock| knock.tries >= KNOCKS_MAX);
        if silent {
            self.knocks.remove(&node);
        }
        silent
    }

    /// Whether this node, whose challenge is known now, was being knocked at. Ends the knocking.
    pub(crate) fn answered(&mut self, node: NodeId) -> bool {
        self.knocks.remove(&node).is_some()
    }

    /// Sends an answer, now or later.
    pub(crate) fn answer(&mut self, at: Instant, answer: Answer) {
        if self.answers.len() < ANSWERS_MAX {
            self.answered += 1;
            self.answers.insert((at, self.answered), answer);
        }
    }

    /// The next answer that is due.
    pub(crate) fn pop_answer(&mut self, now: Instant) -> Option<Answer> {
        let (&first, _) = self.answers.first().filter(|((at, _), _)| *at <= now)?;
        self.answers.remove(&first)
    }

    /// When the next answer is due.
    pub(crate) fn next_answer(&self) -> Option<Instant> {
        self.answers.first().map(|((at, _), _)| *at)
    }
}

/// Invariants, for tests and the simulator.
impl Sessions {
    /// Nodes that are being knocked at.
    pub(crate) fn knocked(&self) -> impl Iterator<Item = NodeId> {
        self.knocks.keys().copied()
    }

    /// The current challenge.
    pub(crate) fn audit_challenge(&self) -> Option<u64> {
        self.challenges.front().map(|(challenge, _)| *challenge)
    }

    /// Reports the size and limit of each collection.
    pub(crate) fn sizes(&self, max: usize, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("sessions", self.open.len(), max);
        see("knocks", self.knocks.len(), 2 * max + 2);
        see("answers", self.answers.len(), ANSWERS_MAX);
        see("challenges", self.challenges.len(), CHALLENGES_MAX);
    }
}

impl Session {
    /// Whether this incarnation was proven to be live recently.
    fn is_live(&self, epoch: Epoch, now: Instant, timing: Timing) -> bool {
        self.epoch == epoch && now - self.heard < timing.time(CHALLENGE_AGE) * 2
    }

    /// Whether another incarnation is refused: it was replaced, and the current one is still live, or its challenge
    /// proves nothing that it could not have known before.
    fn keeps_out(&self, epoch: Epoch, generation: u64, now: Instant, timing: Timing) -> bool {
        let is_there = now - self.heard < timing.time(TWIN_SILENCE);
        self.replaced.is_some_and(|(replaced, known)| replaced == epoch && (is_there || generation <= known))
    }

    /// Whether another incarnation may be a twin: the current one was live just now, and has not been asked or may
    /// still answer.
    fn may_be_twin(&self, epoch: Epoch, now: Instant, timing: Timing) -> bool {
        match self.rival.filter(|rival| rival.epoch == epoch) {
            Some(rival) => now < rival.until,
            None => now - self.heard < timing.time(TWIN_HEARD),
        }
    }

    /// The current incarnation has answered: the one that wanted to replace it is a twin.
    fn keep_out_rival(&mut self, generation: u64) {
        if let Some(rival) = self.rival.take_if(|rival| generation >= rival.generation) {
            self.replaced = Some((rival.epoch, generation));
        }
    }

    fn take(&mut self, sequence: u64, challenge: u64, now: Instant) -> Standing {
        let is_newest = sequence > self.window.newest;
        if !self.window.take(sequence) {
            return Standing::Repeated;
        }
        if is_newest {
            self.challenge = challenge;
            self.challenged = now;
        }
        Standing::Fresh { opens: false }
    }
}

impl Window {
    /// Whether a sequence number has arrived, or is too old to tell.
    fn has(&self, sequence: u64) -> bool {
        let Some(back) = self.newest.checked_sub(sequence) else {
            return false;
        };
        back >= 64 || self.seen & (1 << back) != 0
    }

    /// Notes a sequence number. Returns whether it has arrived for the first time.
    fn take(&mut self, sequence: u64) -> bool {
        if self.has(sequence) {
            return false;
        }
        match self.newest.checked_sub(sequence) {
            Some(back) => self.seen |= 1 << back,
            None => {
                let ahead = u32::try_from(sequence - self.newest).unwrap_or(u32::MAX);
                self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
                self.newest = sequence;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn each_sequence_counts_once_and_none_after_sixty_four_later_ones() {
        let mut window = Window { newest: 100, seen: 1 };
        for (sequence, is_new) in [(100, false), (99, true), (99, false), (102, true), (101, true), (102, false)] {
            assert_eq!(window.take(sequence), is_new, "{sequence}");
        }
        assert!(window.take(200), "a leap forward");
        assert!(window.take(137) && !window.take(136), "64 are remembered");
        assert!(window.take(u64::MAX) && !window.take(0));
    }

    fn header(epoch: u8, sequence: u64, challenge: u64, proof: Option<u64>) -> Header {
        let sender = "a".parse().expect("a name");
        Header {
            version: 2,
            key_id: 0,
            sender,
            destination: None,
            epoch: Epoch([epoch; 16]),
            sequence,
            challenge,
            proof,
        }
    }

    struct Receiver {
        sessions: Sessions,
        rng: SplitMix64,
    }

    impl Receiver {
        fn new() -> Receiver {
            Receiver { sessions: Sessions::default(), rng: SplitMix64(7) }
        }

        fn challenge(&mut self, at_ms: u64) -> u64 {
            self.sessions.challenge(Instant(at_ms * 1_000), &mut self.rng)
        }

        /// The challenge that is made for an incarnation that knows only the current one.
        fn renewed(&mut self, at_ms: u64, epoch: u8) -> u64 {
            let known = self.challenge(at_ms);
            assert_eq!(self.judge(at_ms, header(epoch, 1, 9, Some(known))), Standing::Unproven);
            let made = self.challenge(at_ms);
            assert_ne!(made, known);
            made
        }

        fn judge(&mut self, at_ms: u64, header: Header) -> Standing {
            self.sessions.judge(Instant(at_ms * 1_000), &mut self.rng, &header, true, 8)
        }
    }

    const OPENS: Standing = Standing::Fresh { opens: true };
    const GOES_ON: Standing = Standing::Fresh { opens: false };

    #[test]
    fn a_packet_counts_once_and_for_at_most_twice_the_age_of_a_challenge() {
        let mut receiver = Receiver::new();
        let first = receiver.challenge(1_000);
        assert_eq!(receiver.judge(1_001, header(1, 1, 9, None)), Standing::Unproven);
        assert_eq!(receiver.judge(1_002, header(1, 2, 9, Some(first))), OPENS);
        assert_eq!(receiver.judge(1_003, header(1, 2, 9, Some(first))), Standing::Repeated);
        assert_eq!(
            receiver.judge(10_999, header(1, 3, 9, Some(first))),
            GOES_ON,
            "the challenge before the present one"
        );
        assert_eq!(receiver.judge(16_500, header(1, 4, 9, Some(first))), Standing::Unproven);
        let answers: Vec<u64> =
            core::iter::from_fn(|| receiver.sessions.pop_answer(Instant(20_000_000))).map(|a| a.proof).collect();
        assert_eq!(
            answers,
            [9, 9],
            "each packet without a proof is answered with its own challenge, one that was seen is not"
        );
    }

    #[test]
    fn an_incarnation_that_was_replaced_counts_again_only_when_the_other_is_silent() {
        let mut receiver = Receiver::new();
        let proof = Some(receiver.challenge(1_000));
        assert_eq!(receiver.judge(1_000, header(1, 1, 9, proof)), OPENS);
        let newer = Some(receiver.renewed(1_201, 2));
        assert_eq!(receiver.judge(1_202, header(2, 2, 9, newer)), Standing::Repeated, "it has restarted, or is a twin");
        assert_eq!(receiver.judge(1_403, header(2, 3, 9, newer)), OPENS, "the other one has not answered");
        assert_eq!(receiver.judge(1_404, header(1, 2, 9, newer)), Standing::Unproven, "it may have said so before");
        let newest = Some(receiver.challenge(1_605));
        assert_eq!(receiver.judge(1_606, header(1, 3, 9, newest)), Standing::Repeated, "the other one is there");
        assert_eq!(receiver.judge(5_500, header(1, 4, 9, newest)), OPENS, "it is there now");
    }

    #[test]
    fn nothing_brings_back_an_incarnation_before_the_last() {
        let mut receiver = Receiver::new();
        let mut proof = Some(receiver.challenge(1_000));
        for epoch in 1..=4_u8 {
            let at_ms = 1_000 + 1_800 * u64::from(epoch);
            if epoch > 1 {
                proof = Some(receiver.renewed(at_ms - 1, epoch));
            }
            assert_eq!(receiver.judge(at_ms, header(epoch, 2, 9, proof)), OPENS, "incarnation {epoch}");
            for old in 1..epoch {
                assert_eq!(receiver.judge(at_ms, header(old, 3, 9, proof)), Standing::Unproven, "{old} after {epoch}");
            }
        }
    }

    #[test]
    fn a_node_that_is_there_is_not_replaced_by_its_twin() {
        let mut receiver = Receiver::new();
        let proof = Some(receiver.challenge(1_000));
        assert_eq!(receiver.judge(1_000, header(1, 1, 9, proof)), OPENS);
        let proof = Some(receiver.renewed(1_400, 2));
        assert_eq!(receiver.judge(2_499, header(1, 5, 9, proof)), GOES_ON);
        receiver.sessions.answers.clear();
        assert_eq!(receiver.judge(2_501, header(2, 1, 7, proof)), Standing::Repeated);
        let asked = receiver.sessions.pop_answer(Instant(2_501_000)).expect("the one that is known is asked");
        assert_eq!((asked.proof, asked.message.as_deref()), (9, Some(&Message::Hello)));
        assert_eq!(receiver.judge(2_502, header(1, 2, 9, proof)), GOES_ON, "it may have been on its way");
        let proof = Some(receiver.challenge(2_503));
        assert_eq!(receiver.judge(2_503, header(1, 3, 9, proof)), GOES_ON, "it has answered");
        assert_eq!(receiver.judge(3_000, header(2, 2, 7, proof)), Standing::Repeated, "so this is a twin");
    }

    #[test]
    fn of_many_incarnations_one_is_asked_at_a_time() {
        let mut receiver = Receiver::new();
        let proof = Some(receiver.challenge(1_000));
        assert_eq!(receiver.judge(1_000, header(1, 1, 9, proof)), OPENS);
        let proof = Some(receiver.renewed(1_201, 2));
        receiver.sessions.answers.clear();
        for (epoch, sequence) in [(2, 2), (3, 1), (2, 3), (3, 2)] {
            assert_eq!(receiver.judge(1_202, header(epoch, sequence, 9, proof)), Standing::Repeated);
        }
        let asked = core::iter::from_fn(|| receiver.sessions.pop_answer(Instant(9_000_000))).count();
        assert_eq!(asked, 2, "the one that is known, and the first of the others");
    }

    #[test]
    fn a_late_packet_does_not_bring_back_an_older_challenge() {
        let mut receiver = Receiver::new();
        let proof = Some(receiver.challenge(1_000));
        assert_eq!(receiver.judge(1_000, header(1, 5, 55, proof)), OPENS);
        assert_eq!(receiver.judge(1_000, header(1, 4, 44, proof)), GOES_ON);
        let a = "a".parse().expect("a name");
        assert_eq!(receiver.sessions.proof(a, Instant(1_100_000)), Some(55));
        assert_eq!(receiver.sessions.proof(a, Instant(5_100_000)), None, "too old: knock");
    }

    #[test]
    fn whoever_does_not_answer_is_silent_after_a_second_and_a_half() {
        let (mut sessions, a) = (Sessions::default(), "a".parse().expect("a name"));
        let mut now = Instant(1_000_000);
        let mut knocks = 0;
        while !sessions.is_silent(a) {
            match sessions.knock(a, now) {
                Knocking::Now(again) => (knocks, now) = (knocks + 1, again),
                Knocking::Waits => panic!("its time has come"),
            }
            assert!(matches!(sessions.knock(a, Instant(now.0 - 1)), Knocking::Waits));
        }
        assert_eq!((knocks, now), (KNOCKS_MAX, Instant(2_500_000)));
    }
}
