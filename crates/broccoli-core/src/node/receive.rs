//! Handles incoming packets: opens them, checks that they are fresh, and passes each message to its role.

use alloc::boxed::Box;
use alloc::vec::Vec;

use broccoli_proto::message::{Available, Birth, Death, Message};
use broccoli_proto::packet::{self, Address, Header, PacketError};
use broccoli_proto::{Epoch, NodeId};

use super::Node;
use crate::content;
use crate::content::values::held::Holder;
use crate::io::Event;
use crate::members::{Members, Told};
use crate::origin::Around;
use crate::sessions::{Answer, Standing};
use crate::shared::Shared;
use crate::timers::Timer;

/// Whether a packet contains only a death notice.
fn is_will(plaintext: &[u8]) -> bool {
    packet::messages(plaintext).all(|message| matches!(message, Ok(Message::Death(_))))
}

impl Node {
    pub(super) fn on_packet(&mut self, to: Address, bytes: &[u8]) {
        self.shared.counters.packets_in += 1;
        self.shared.counters.bytes_in += bytes.len() as u64;
        match packet::open(&self.shared.config.keys, self.shared.me(), &mut bytes.to_vec()) {
            Ok((header, plaintext)) => self.on_messages(to, &header, plaintext),
            Err(error) => {
                if error == PacketError::CannotOpen && to == Address::All {
                    self.members.on_other_key(&mut self.shared);
                }
                self.reject(None, error);
            }
        }
    }

    pub(super) fn reject(&mut self, sender: Option<NodeId>, error: PacketError) {
        self.shared.counters.rejected.add(error);
        self.shared.event(Event::Rejected { sender, error });
    }

    pub(super) fn on_messages(&mut self, to: Address, header: &Header, plaintext: &[u8]) {
        let (from, epoch) = (header.sender, header.epoch);
        if from == self.shared.me() {
            self.on_own_name(epoch, plaintext);
            return;
        }
        if matches!(to, Address::Birth(node) if node != from) {
            self.reject(Some(from), PacketError::Misdirected);
            return;
        }
        // The address in the header counts, not the topic on which it was published.
        let directed = header.destination.is_some();
        let Shared { sessions, rng, now, config, .. } = &mut self.shared;
        let fresh = match sessions.judge(*now, rng, header, directed, config.limits.nodes_max) {
            Standing::Fresh { opens } => {
                self.on_fresh(from, epoch, opens);
                true
            }
            // A Will is older than later packets of its sender.
            Standing::Repeated if !directed && is_will(plaintext) => false,
            Standing::Repeated => return self.reject(Some(from), PacketError::Repeated),
            Standing::Unproven if !directed => false,
            // A knock is answered, but contains no message.
            Standing::Unproven if plaintext.is_empty() => return,
            Standing::Unproven => return self.reject(Some(from), PacketError::Unproven),
        };
        for message in packet::messages(plaintext) {
            let (sequence, challenge) = (header.sequence, header.challenge);
            match message {
                Ok(message) if fresh => self.on_message(from, epoch, sequence, message),
                Ok(message) => self.on_hearsay(from, Told { epoch, sequence, fresh }, challenge, message),
                Err(error) => self.reject(Some(from), error),
            }
        }
    }

    /// A packet sealed under this node's name: by itself, by an earlier incarnation, or by a twin.
    pub(super) fn on_own_name(&mut self, epoch: Epoch, plaintext: &[u8]) {
        if epoch == self.shared.epoch {
            return;
        }
        for message in packet::messages(plaintext).flatten() {
            self.members.on_other_self(&mut self.shared, epoch, &message);
        }
    }

    /// A packet is proven fresh: its sender is there now, in this incarnation.
    pub(super) fn on_fresh(&mut self, from: NodeId, epoch: Epoch, opens: bool) {
        if opens {
            self.origin.on_session(&mut self.shared, from, epoch);
            self.worker.on_session(&mut self.shared, from, epoch);
            self.client.on_session(&mut self.shared, from);
        }
        self.members.on_proven(&mut self.shared, from, epoch, opens);
        if self.shared.sessions.answered(from) {
            self.shared.timers.cancel(Timer::Knock(from));
            self.shared.outbox.mark_wire(Address::Node(from));
        }
    }

    /// A broadcast, which may be a recording: it changes at most what this node asks.
    pub(super) fn on_hearsay(&mut self, from: NodeId, told: Told, challenge: u64, message: Message) {
        match message {
            Message::Birth(birth) => self.on_birth(from, told, birth),
            Message::Death(death) => self.on_death(from, told.epoch, death),
            Message::Available(available) => self.on_available(from, told, &available),
            Message::Hello if Members::is_present(&self.shared) => {
                let birth = self.members.birth(&self.shared, self.modules.digest());
                self.answer(from, challenge, Message::Birth(birth));
            }
            Message::VitalsRequest if Members::is_present(&self.shared) => {
                let vitals = self.vitals();
                self.answer(from, challenge, Message::Vitals(vitals));
            }
            Message::Hello | Message::VitalsRequest => {}
            _ => self.reject(Some(from), PacketError::Unproven),
        }
    }

    /// Answers a broadcast question, at a limited rate since it may be a recording.
    pub(super) fn answer(&mut self, to: NodeId, challenge: u64, message: Message) {
        if self.hearsay.take(self.shared.now, self.shared.config.limits.nodes_max) {
            let at = self.members.answer_at(&mut self.shared);
            self.shared.sessions.answer(at, Answer { to, proof: challenge, message: Some(Box::new(message)) });
        }
    }

    pub(super) fn on_message(&mut self, from: NodeId, epoch: Epoch, sequence: u64, message: Message) {
        let shared = &mut self.shared;
        let around = Around { modules: &self.modules, members: &self.members };
        match message {
            Message::Birth(birth) => self.on_birth(from, Told { epoch, sequence, fresh: true }, birth),
            Message::Death(death) => self.on_death(from, epoch, death),
            Message::Available(available) => self.on_available(from, Told { epoch, sequence, fresh: true }, &available),
            Message::Hello => {
                let birth = self.members.birth(shared, self.modules.digest());
                shared.outbox.send(from, Message::Birth(birth));
            }
            Message::MembersRequest(request) => {
                let list = self.members.list(shared, from, &request);
                shared.outbox.send(from, Message::MemberList(list));
            }
            Message::MemberList(list) => shared.event(Event::Members(from, list)),
            Message::Fetch(fetch) => {
                self.modules.on_digest(shared, from, fetch.modules);
                self.origin.on_fetch(shared, from, epoch, sequence, fetch);
            }
            Message::Lease(lease) => self.worker.on_lease(shared, &self.modules, from, epoch, lease),
            Message::Return(returned) => self.origin.on_return(shared, from, epoch, &returned),
            Message::Renew(renew) => self.origin.on_renew(shared, from, epoch, &renew),
            Message::TaskResults(results) => self.origin.on_results(shared, &around, from, epoch, results, false),
            Message::ResultAck(ack) => self.worker.on_result_ack(shared, from, &ack),
            Message::Abort(abort) => self.worker.on_abort(shared, from, &abort.attempts),
            Message::Submit(submit) => self.origin.on_submit(shared, &around, from, epoch, &submit),
            Message::Accepted(accepted) => self.client.on_accepted(shared, from, accepted),
            Message::Refused(refused) => self.client.on_refused(shared, &self.members, from, refused),
            Message::JobEvent(event) => self.client.on_job_event(shared, from, *event),
            Message::JobEventAck(job) => {
                shared.values.held.release(Holder::Ended { client: from, job: job.number });
                self.origin.on_ended_ack(shared, job);
            }
            Message::Revoke(revoke) => self.origin.on_revoke(shared, &self.members, from, &revoke),
            Message::KeyClaim(claim) => self.origin.on_key_claim(shared, &around, from, claim),
            Message::KeyAnswer(answer) => self.origin.on_key_answer(shared, &around, from, answer),
            Message::Forget(forget) => {
                self.members.remove(shared, forget.node);
                self.origin.on_forget(shared, from, forget);
            }
            Message::Forgotten(forgotten) => shared.event(Event::Forgotten { by: from, node: forgotten.node }),
            Message::JobQuery(job) => self.origin.on_query(shared, from, job),
            Message::ManifestRequest(request) => {
                if !self.modules.on_manifest_request(shared, from, request) {
                    let birth = self.members.birth(shared, self.modules.digest());
                    shared.outbox.send(from, Message::Birth(birth));
                }
            }
            Message::Manifests(manifests) => {
                if self.modules.on_manifests(shared, from, manifests) {
                    self.origin.reconsider();
                    self.client.check_ready(shared, &self.modules, &self.members);
                }
            }
            Message::ContentRequest(request) => {
                content::on_request(shared, &self.modules, &mut self.serving, from, &request);
            }
            Message::ContentPiece(piece) => {
                content::on_piece(shared, &mut self.modules, &self.members, from, piece);
            }
            Message::ContentGone(content) => content::on_gone(shared, &mut self.modules, from, content),
            Message::ModuleRefused(refused) => {
                let (module, reason) = (refused.module, refused.reason);
                if refused.asked == Some(true) {
                    self.origin.on_module_refused(shared, from, epoch, module, reason);
                    return;
                }
                shared.event(Event::ModuleRefused { by: from, module, reason });
            }
            // Used only between incarnations of the same name: see `on_other_self`.
            Message::Claim(_) | Message::Claimed(_) => {}
            Message::VitalsRequest => {
                let vitals = self.vitals();
                self.shared.outbox.send(from, Message::Vitals(vitals));
            }
            Message::Vitals(vitals) => {
                self.client.on_vitals(shared, from, &vitals);
                shared.event(Event::Vitals(from, vitals));
            }
            Message::Log(log) => self.origin.on_log(shared, from, log),
            Message::Progress(progress) => self.origin.on_progress(shared, from, &progress),
            Message::PermitRequest(request) => self.origin.on_permit_request(shared, &self.members, from, request),
            Message::Permit(permit) => self.origin.on_permit(shared, from, &permit),
            Message::Drain(drain) => self.on_drain(from, &drain),
            Message::Jobs(jobs) => shared.event(Event::Jobs(from, jobs)),
            Message::StepNews(news) => self.on_step_news(from, news),
            Message::JobsRequest(request) => self.origin.on_jobs_request(shared, &around, from, &request),
            Message::Retry(retry) => self.origin.on_retry(shared, &around, from, epoch, &retry),
            Message::StepQuery(query) => self.origin.on_step_query(shared, &around, from, query),
        }
    }

    pub(super) fn on_birth(&mut self, from: NodeId, told: Told, birth: Birth) {
        self.modules.on_digest(&mut self.shared, from, birth.modules);
        if birth.durable == Some(true) && self.shared.config.resident {
            self.origin.hear_of_keeper(&mut self.shared, from, told.fresh);
        }
        let is_news = self.members.on_birth(&mut self.shared, from, told, birth);
        if is_news || told.fresh {
            self.on_member(from, told);
        }
        self.worker.on_hearsay(&mut self.shared, from, told.epoch);
    }

    /// The state of a member has changed.
    pub(super) fn on_member(&mut self, node: NodeId, told: Told) {
        let slots = self.members.get(node).map_or(0, |member| member.birth.slots);
        self.origin.on_birth(&mut self.shared, node, told, slots);
        self.client.on_member(&mut self.shared, &self.modules, &self.members, node);
    }

    pub(super) fn on_death(&mut self, from: NodeId, epoch: Epoch, death: Death) {
        if self.members.on_death(&mut self.shared, from, epoch, death) {
            self.origin.on_death(&mut self.shared, from, epoch, death.leaving);
            // An unproven notice may be a recording or of an incarnation that never existed; it does not change the
            // keepers.
            if death.leaving && death.holds_no_key == Some(true) && self.members.was_proven(from) {
                self.origin.retire_keeper(&self.shared, from);
            }
            self.client.on_death(&mut self.shared, &self.members, from, death.leaving);
        }
    }

    pub(super) fn on_available(&mut self, from: NodeId, told: Told, available: &Available) {
        self.worker.on_hearsay(&mut self.shared, from, told.epoch);
        self.modules.on_digest(&mut self.shared, from, available.modules);
        if self.members.on_modules(&mut self.shared, from, told, available.modules) {
            self.on_member(from, told);
        }
        let me = self.shared.me();
        let features = &self.shared.config.features;
        let routed = available.wants.iter().filter(|want| crate::members::matches(&want.on, me, features));
        let (mut fits, mut missing) = (false, Vec::new());
        for want in routed {
            if self.modules.peer_holds(self.modules.digest(), &want.module) {
                fits = true;
            } else {
                missing.push(want.clone());
            }
        }
        self.modules.on_wanted(&mut self.shared, from, &missing);
        if fits {
            self.worker.on_available(&mut self.shared, from, told.fresh, available);
        }
    }
}
