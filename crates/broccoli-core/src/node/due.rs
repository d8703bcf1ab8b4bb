//! Runs the timers that are due, and reacts to changes of the link and of the modules.

use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::{Available, Message};
use broccoli_proto::module::SignedManifest;
use broccoli_proto::packet::Address;

use super::Node;
use crate::io::RunId;
use crate::origin::Around;
use crate::timers::Timer;

/// Most timers that are run before something is sent; the others remain due.
const TIMERS_MAX: usize = 4_096;

impl Node {
    pub(super) fn on_due_timers(&mut self) {
        for _ in 0..TIMERS_MAX {
            let Some(timer) = self.shared.timers.pop_due(self.shared.now) else {
                break;
            };
            self.on_timer(timer);
        }
    }

    pub(super) fn on_timer(&mut self, timer: Timer) {
        let shared = &mut self.shared;
        let around = Around { modules: &self.modules, members: &self.members };
        match timer {
            Timer::Leases(node) => self.origin.on_leases_timer(shared, node),
            Timer::Announce(class) => self.origin.on_announce_timer(shared, &around, class),
            Timer::Countdown { job, step } => self.origin.on_countdown(shared, job, step),
            Timer::Expires(job) => self.origin.on_expires_timer(shared, job),
            Timer::Permits(class) => self.origin.on_permits_timer(shared, class),
            Timer::JobNews(job) => self.origin.on_news_timer(shared, job),
            Timer::JobDeadline(job) => self.origin.on_deadline(shared, job),
            Timer::Each(job) => self.origin.on_each_timer(shared, &around, job),
            Timer::Pinned(node) => self.origin.on_pinned_timer(shared, &around, node),
            Timer::JobEnded(job) => self.origin.on_ended_timer(shared, job),
            Timer::Forget => self.origin.clean_archive(shared),
            Timer::Adopt => self.origin.on_adopt_timer(shared),
            Timer::Journal => self.origin.on_journal_timer(),
            Timer::Room => self.origin.on_room_timer(shared),
            Timer::Keys => self.origin.on_keys_timer(shared, &around),
            Timer::Renew(node) => self.worker.on_renew_timer(shared, node),
            Timer::Results(node) => self.worker.on_results_timer(shared, node),
            Timer::Return => self.worker.on_return_timer(shared),
            Timer::Offer => self.worker.on_offer_timer(shared),
            Timer::RunTimeout(run) => self.worker.on_run_timeout(shared, RunId(run)),
            Timer::Attach => self.client.on_attach_timer(shared, &self.members, &self.modules),
            Timer::Submit(id) => self.client.on_submit_timer(shared, &self.members, id),
            Timer::Admit => self.client.on_admit_timer(shared),
            Timer::Manifests(node) => self.modules.on_manifests_timer(shared, &self.members, node),
            Timer::Pull(module) => self.modules.on_pull_timer(shared, &self.members, module),
            Timer::Values => self.on_values_timer(),
            Timer::Claim => self.members.on_claim_timer(shared, self.modules.digest()),
            Timer::News => self.on_news_timer(),
            Timer::Members => self.members.on_look_timer(shared),
            Timer::Knock(node) => self.on_knock_timer(node),
            // The answers are sent next; the time of day was passed in before.
            Timer::Answers | Timer::Wall => {}
        }
    }

    pub(super) fn on_news_timer(&mut self) {
        if self.shared.connected {
            // Not as a birth, so that nodes that do not subscribe to births get it as well.
            let news = Available { wants: Vec::new(), chance: 0, modules: self.modules.digest() };
            self.shared.outbox.broadcast(Message::Available(news));
        }
    }

    /// A node does not answer.
    pub(super) fn on_knock_timer(&mut self, node: NodeId) {
        let shared = &mut self.shared;
        if !shared.sessions.is_silent(node) {
            shared.outbox.mark_wire(Address::Node(node));
            return;
        }
        shared.outbox.drop_queue(Address::Node(node));
        self.serving.drop_queue(node);
        self.members.on_silent(shared, node);
        self.origin.on_silent(shared, node);
        self.modules.on_silent(shared, &self.members, node);
        self.client.on_silent(shared, &self.members, node);
    }

    pub(super) fn on_connected(&mut self) {
        self.shared.connected = true;
        // Messages written while the link was down are outdated.
        self.clear_wire();
        self.shared.values.on_connected(self.shared.now, &mut self.shared.outbox);
        self.members.on_connected(&mut self.shared, self.modules.digest());
        self.worker.on_connected(&mut self.shared);
        let around = Around { modules: &self.modules, members: &self.members };
        self.origin.on_connected(&mut self.shared, &around);
        self.client.on_connected(&mut self.shared);
    }

    /// Drops messages for the lost connection.
    pub(super) fn clear_wire(&mut self) {
        self.shared.outbox.clear_wire();
        self.shared.asked_all = None;
        self.serving.clear();
        let knocked: Vec<NodeId> = self.shared.sessions.knocked().collect();
        for node in knocked {
            self.shared.timers.cancel(Timer::Knock(node));
        }
        self.shared.timers.cancel(Timer::Answers);
        self.shared.sessions.on_disconnected();
    }

    pub(super) fn on_installed(&mut self, manifest: SignedManifest, outcome: Result<(), String>) {
        let origin = &self.origin;
        if !self.modules.on_installed(&mut self.shared, manifest, outcome, |module| origin.uses(module)) {
            return;
        }
        self.on_modules_changed();
    }

    /// Drops undeployed modules that only ended jobs needed.
    pub(super) fn drop_undeployed(&mut self) {
        let origin = &mut self.origin;
        if core::mem::take(&mut origin.has_closed) {
            let origin = &self.origin;
            if self.modules.drop_undeployed(&mut self.shared, |module| origin.uses(module)) {
                self.on_modules_changed();
            }
        }
    }

    pub(super) fn on_modules_changed(&mut self) {
        self.worker.fetch_all(&mut self.shared);
        self.origin.reconsider();
        let at = self.members.news_at(&mut self.shared, self.modules.digest());
        self.shared.timers.set_earlier(Timer::News, at);
    }
}
