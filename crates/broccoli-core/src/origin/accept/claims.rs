//! Claims: before an origin accepts a job with a new key, it asks all nodes that may hold a job with this key.
//!
//! ```text
//!   Submit, new key ──► claim ──► all say that it is free ──► accepted, or refused as any other job
//!                        ├── one holds it, or its own claim goes first ──► Elsewhere
//!                        └── one does not answer ──────────────────────► Unsure
//! ```
//!
//! If two nodes claim the same key, the one with the smaller name continues and the other gives way. If two origins ask
//! each other, the later one finds the claim or the job of the earlier one, so both never accept.
//!
//! *Keepers* are the other nodes with a journal that may hold a job with a key: those that have announced themselves,
//! have sent a claim, or were named in an answer. A node that answers a claim stores the name of the asker first, in
//! its journal if it has one. So the other nodes know the name of every node that holds a job with a key. A keeper that
//! is gone remains a keeper until it says goodbye and holds no key, or until a user says that it will not come back.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::id::NODE_NAME_BYTES_MAX;
use broccoli_proto::message::{Forget, Forgotten, KeyAnswer, KeyClaim, Message, Refusal, Submit};
use broccoli_proto::options::KEY_BYTES_MAX;
use broccoli_proto::packet::Address;
use broccoli_proto::{JobId, NodeId};
use litemap::LiteMap;

use crate::origin::accept::keepers::{Keepers, digest};
use crate::origin::accept::keys::{Asked, CLAIMS_MAX, Claim, Keys};
use crate::origin::journal::records::Submitter;
use crate::origin::journal::writes::Promise;
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Claims are checked at this interval. An unanswered question is repeated after this time, doubled each time.
const LOOK: LinkTime = link_ms(100);
/// A node that has not answered for this long counts as gone.
const SILENCE: LinkTime = link_ms(1_500);
/// After a connection, other nodes have this long to announce themselves.
const SETTLE: LinkTime = link_ms(500);
/// Most submits that wait for one claim.
const WAITING_MAX: usize = 64;
/// New nodes are asked who they are only while fewer than this are known: in larger clusters, claims are frequent
/// enough.
const ASKED_MAX: usize = 64;
/// About the size of a name in a list, in bytes.
const LISTED_BYTES: usize = NODE_NAME_BYTES_MAX + 2;

/// Submits with a key.
impl Origin {
    /// Handles a submit with a key. Returns its result, or none while the key is being claimed.
    pub(crate) fn claim(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        submitter: Submitter,
        submit: &Submit,
    ) -> Option<Result<JobId, Refusal>> {
        let new = |key: &&String| (1..=KEY_BYTES_MAX).contains(&key.len()) && !self.accept.by_key.contains_key(*key);
        let Some(key) = submit.key.as_ref().filter(new).filter(|_| !shared.draining) else {
            return Some(self.take_submit(shared, around, submitter, submit));
        };
        let bytes = submit.canvas.as_bytes().len();
        let has_room = self.accept.keys.bytes + bytes <= shared.config.limits.queue_bytes_max
            && (self.accept.keys.claims.len() < CLAIMS_MAX || self.accept.keys.claims.contains_key(key));
        if !has_room {
            return Some(Err(Refusal::QueueFull));
        }
        let begin = || {
            let nonce = shared.rng.bits();
            Box::new(Claim { nonce, asked: LiteMap::new_vec(), looks: 0, waiting: Vec::new() })
        };
        let claim = self.accept.keys.claims.entry(key.clone()).or_insert_with(begin);
        if claim.waiting.iter().any(|(known, _)| *known == submitter) {
            return None;
        }
        if claim.waiting.len() >= WAITING_MAX {
            return Some(Err(Refusal::QueueFull));
        }
        claim.waiting.push((submitter, submit.clone()));
        self.accept.keys.bytes += bytes;
        self.look_after(shared, around, key);
        None
    }

    /// Asks the nodes that have not answered, and ends a claim once all answers are known.
    fn look_after(&mut self, shared: &mut Shared, around: &Around<'_>, key: &String) {
        shared.timers.set_earlier(Timer::Keys, shared.now + shared.timing(LOOK));
        let Keys { keepers, claims, settled, .. } = &mut self.accept.keys;
        let Some(claim) = claims.get_mut(key).filter(|_| shared.connected) else {
            return;
        };
        let me = shared.me();
        let live = around.members.alive().filter(|(_, member)| member.birth.durable == Some(true));
        for node in keepers.known.keys().copied().chain(live.map(|(node, _)| node)).filter(|node| *node != me) {
            claim.asked.entry(node).or_insert(Asked { since: shared.now, answered: false });
        }
        let keepers_digest = digest(&keepers.names(shared));
        let mut missing = None;
        let mut waits = shared.now < *settled;
        for (node, asked) in claim.asked.iter().filter(|(_, asked)| !asked.answered) {
            let is_over = shared.now - asked.since >= shared.timing(SILENCE);
            waits |= !is_over;
            // A node known only from the answers of others may have been gone for long.
            if is_over && keepers.known.contains_key(node) {
                missing = Some(*node);
            }
            let is_new = asked.since == shared.now;
            if !is_over && (is_new || (claim.looks.is_power_of_two() && !shared.outbox.has(Address::Node(*node)))) {
                let (nonce, key, durable) = (claim.nonce, key.clone(), shared.config.durable);
                let claim = KeyClaim { nonce, key, durable, keepers: keepers_digest };
                shared.outbox.send(*node, Message::KeyClaim(claim));
            }
        }
        claim.looks += 1;
        match missing {
            Some(node) => self.leave_key(shared, key, &Refusal::Unsure(node)),
            None if waits => {}
            None => self.take_key(shared, around, key),
        }
    }

    /// Accepts the waiting submits: no other node has the key.
    fn take_key(&mut self, shared: &mut Shared, around: &Around<'_>, key: &String) {
        for (submitter, submit) in self.end_claim(shared, key) {
            if self.is_session(submitter.node, submitter.epoch) {
                let answer = self.take_submit(shared, around, submitter, &submit);
                self.answer_submit(shared, submitter, true, answer);
            }
        }
    }

    /// Refuses the waiting submits: another node has the key, or may have it.
    fn leave_key(&mut self, shared: &mut Shared, key: &String, why: &Refusal) {
        for (submitter, _) in self.end_claim(shared, key) {
            self.answer_submit(shared, submitter, true, Err(why.clone()));
        }
    }

    fn end_claim(&mut self, shared: &mut Shared, key: &String) -> Vec<(Submitter, Submit)> {
        let waiting = self.accept.keys.claims.remove(key).map(|claim| claim.waiting).unwrap_or_default();
        self.accept.keys.bytes -= waiting.iter().map(|(_, submit)| submit.canvas.as_bytes().len()).sum::<usize>();
        if self.accept.keys.claims.is_empty() {
            shared.timers.cancel(Timer::Keys);
        }
        waiting
    }

    /// Checks claims that wait for answers.
    pub(crate) fn on_keys_timer(&mut self, shared: &mut Shared, around: &Around<'_>) {
        let keys: Vec<String> = self.accept.keys.claims.keys().cloned().collect();
        for key in &keys {
            self.look_after(shared, around, key);
        }
    }

    /// The link is up again: starts the open claims anew, since no node could answer before.
    pub(crate) fn claim_again(&mut self, shared: &Shared) {
        self.accept.keys.settled = shared.now + shared.timing(SETTLE);
        for (_, claim) in self.accept.keys.claims.iter_mut() {
            claim.looks = 0;
            for (_, asked) in &mut claim.asked {
                asked.since = shared.now;
            }
        }
    }
}

/// Messages of other origins.
impl Origin {
    /// Another origin claims a key.
    pub(crate) fn on_key_claim(&mut self, shared: &mut Shared, around: &Around<'_>, from: NodeId, claim: KeyClaim) {
        let KeyClaim { nonce, key, durable, keepers } = claim;
        if durable {
            self.add_keeper(shared, from);
            if !self.journal.is_safe(self.accept.keys.noted_in) && self.journal.stalled.is_none() {
                // No answer before the new keeper is in the journal. The other origin repeats its claim.
                return;
            }
        }
        let goes_first = self.accept.keys.claims.contains_key(&key) && shared.me() < from;
        let taken = goes_first || self.accept.by_key.contains_key(&key);
        if !taken {
            self.leave_key(shared, &key, &Refusal::Elsewhere(from));
        }
        let names = self.accept.keys.keepers.names(shared);
        let room = around.members.room(shared, from) / LISTED_BYTES;
        let differs = digest(&names) != keepers;
        let keepers = names.keys().copied().filter(|_| differs).take(room.saturating_sub(1)).collect();
        shared.outbox.send(from, Message::KeyAnswer(KeyAnswer { nonce, taken, keepers }));
    }

    /// Another origin answers whether it has a key.
    pub(crate) fn on_key_answer(&mut self, shared: &mut Shared, around: &Around<'_>, from: NodeId, answer: KeyAnswer) {
        let mut claims = self.accept.keys.claims.iter_mut();
        let Some((key, claim)) = claims.find(|(_, claim)| claim.nonce == answer.nonce) else {
            return;
        };
        let key = key.clone();
        match claim.asked.get_mut(&from) {
            Some(asked) => asked.answered = true,
            None => return,
        }
        self.hear_of_keepers(shared, answer.keepers);
        if answer.taken {
            self.leave_key(shared, &key, &Refusal::Elsewhere(from));
        } else {
            self.look_after(shared, around, &key);
        }
    }

    /// A node with a journal has announced itself. If the message may be a recording, this node asks it first.
    pub(crate) fn hear_of_keeper(&mut self, shared: &mut Shared, node: NodeId, fresh: bool) {
        if fresh {
            self.add_keeper(shared, node);
            return;
        }
        let known = &self.accept.keys.keepers.known;
        let asks = shared.config.durable && known.len() < ASKED_MAX && !known.contains_key(&node);
        if asks && node != shared.me() {
            shared.outbox.ask_who(node);
        }
    }

    /// Adds a node with a journal that has announced itself.
    fn add_keeper(&mut self, shared: &Shared, node: NodeId) {
        if node != shared.me() && self.accept.keys.keepers.add(node, shared.config.limits.nodes_max) {
            self.note_keepers();
        }
    }

    /// Adds keepers that another node has named.
    fn hear_of_keepers(&mut self, shared: &Shared, nodes: Vec<NodeId>) {
        let Keepers { known, forgotten } = &mut self.accept.keys.keepers;
        let before = known.len();
        for node in nodes {
            let is_new = node != shared.me() && !forgotten.contains_key(&node);
            if is_new && known.len() < shared.config.limits.nodes_max {
                known.insert(node, ());
            }
        }
        if known.len() != before {
            self.note_keepers();
        }
    }

    /// A node has left for good, or holds no job with a key.
    pub(crate) fn retire_keeper(&mut self, shared: &Shared, node: NodeId) {
        if self.accept.keys.keepers.retire(node, shared.config.limits.nodes_max) {
            self.note_keepers();
        }
    }

    fn note_keepers(&mut self) {
        self.journal.note_keepers(&self.accept.keys.keepers);
        self.accept.keys.noted_in = self.journal.now();
    }

    /// Restores the keepers from the journal.
    pub(crate) fn recover_keepers(&mut self, keepers: Keepers) {
        self.accept.keys.keepers = keepers;
    }

    /// A user says that a node will not come back.
    pub(crate) fn on_forget(&mut self, shared: &mut Shared, from: NodeId, forget: Forget) {
        self.retire_keeper(shared, forget.node);
        self.promise(shared, Promise::Forgotten { to: from, node: forget.node });
    }

    pub(crate) fn send_forgotten(shared: &mut Shared, to: NodeId, node: NodeId) {
        shared.outbox.send(to, Message::Forgotten(Forgotten { node }));
    }

    /// Whether this node may leave without being asked about keys later.
    pub(crate) fn holds_no_key(&self) -> bool {
        self.accept.by_key.is_empty() && self.journal.left.is_empty()
    }
}
