//! What an origin does when a time has come: leases are looked after, help is called for, what waited
//! goes on, clients hear how far their jobs are, old results are forgotten.

use alloc::string::ToString;
use core::time::Duration;

use broccoli_proto::NodeId;
use broccoli_proto::message::{Available, JobNews, Message};
use broccoli_proto::packet::Address;

use super::{ADOPT, Around, ENDED_AGAIN, LEASES, Origin, set_countdown};
use crate::shared::Shared;
use crate::text;
use crate::time::ms;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// How a job ended is told again so often, then it is kept for who asks.
const ENDED_TRIES_MAX: u32 = 8;
/// Old results are looked for at most this often.
const FORGET: Duration = ms(1_000);
/// The call for help is repeated after this time, doubled up to the maximum.
const ANNOUNCE: LinkTime = link_ms(50);
const ANNOUNCE_MAX: LinkTime = link_ms(2_000);
/// Clients hear of tasks that no node fits after this time, and again.
pub(super) const NO_NODE: LinkTime = link_ms(2_000);
const NO_NODE_AGAIN: LinkTime = link_ms(10_000);
/// Nodes that answer a call for help at first; more are asked each time.
pub(super) const ANSWERS_WANTED: u32 = 16;

impl Origin {
    /// Looks after the leases of a worker.
    pub(crate) fn on_leases_timer(&mut self, shared: &mut Shared, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if !shared.connected && node != shared.me() {
            // Nothing could be heard: judged again once the link is back.
            return;
        }
        let (lost, send) = peer.look_after(shared.now);
        if send {
            shared.outbox.mark(Address::Node(node));
        }
        if let Some(at) = peer.look_again_at(shared.now, shared.now + shared.timing(LEASES)) {
            shared.timers.set(Timer::Leases(node), at);
        }
        self.give_up(shared, lost);
    }

    /// Calls for help as long as tasks of a class wait without credit.
    pub(crate) fn on_announce_timer(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32) {
        let more = self.end_homeless(shared, around, class);
        let jobs = &mut self.jobs;
        self.queue.drop_stale(class, |job, step| jobs.get_mut(&job).is_some_and(|job| job.keeps_entry(step)));
        if more {
            shared.timers.set(Timer::Announce(class), shared.now);
            return;
        }
        if self.queue.awaits_permits(class) {
            shared.timers.set(Timer::Announce(class), shared.now + shared.timing(ANNOUNCE_MAX));
            return;
        }
        let Some((want, round)) = self.queue.hungry(class) else {
            return;
        };
        let again = shared.now + (shared.timing(ANNOUNCE) * (1 << round.min(8))).min(shared.timing(ANNOUNCE_MAX));
        if let Some(node) = self.queue.pinned_to(class) {
            // Nobody else can help; whether the node is there at all is looked after by `growth`.
            let available = Available { wants: alloc::vec![want], chance: u16::MAX, modules: around.modules.digest() };
            shared.outbox.send(node, Message::Available(available));
            shared.timers.set(Timer::Announce(class), again);
            return;
        }
        let fitting = around.members.count(|name, birth| {
            birth.slots > 0
                && around.modules.peer_holds(birth.modules, &want.module)
                && crate::members::matches(&want.on, name, &birth.features)
        });
        let everybody = u32::from(u16::MAX);
        let chance = (everybody / fitting.div_ceil(ANSWERS_WANTED).max(1)) << round.min(16);
        let available = Available {
            wants: alloc::vec![want],
            chance: chance.min(everybody) as u16,
            modules: around.modules.digest(),
        };
        if !self.call_large(shared, around, class, &available) {
            shared.outbox.broadcast(Message::Available(available));
        }
        let unfit =
            fitting == 0 && !self.peers.iter().any(|(name, peer)| self.queue.fits(class, *name, peer, around.modules));
        self.tell_without_node(shared, around, class, unfit);
        let told = self.queue.without_node_until(class, shared.timing(NO_NODE)).filter(|at| *at > shared.now);
        shared.timers.set(Timer::Announce(class), told.map_or(again, |at| at.min(again)));
    }

    /// Tells the clients whose tasks no node fits: at once if none is there that their routing allows, else when it has been so
    /// for long, since modules travel.
    fn tell_without_node(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32, unfit: bool) {
        let want = self.queue.want(class).filter(|_| unfit).cloned();
        let missing = want.map(|want| self.missing(shared, around, &want));
        let is_sure = missing.as_ref().is_some_and(|missing| missing.is_sure);
        let after = if is_sure { Duration::ZERO } else { shared.timing(NO_NODE) };
        let Some(tasks) = self.queue.long_without_node(class, unfit, shared.now, after, shared.timing(NO_NODE_AGAIN))
        else {
            return;
        };
        let on = missing.map(|missing| missing.what).unwrap_or_default();
        let nodes = around.members.count(|_, birth| birth.slots > 0);
        for (number, step) in tasks {
            let Some(function) = self.jobs.get(&number).and_then(|job| job.function_of(step)) else {
                continue;
            };
            let on = on.iter().map(|on| text::name(on).into_owned()).collect();
            let news = JobNews::NoNode { function: function.to_string(), on, nodes };
            self.tell(shared, number, news);
        }
    }

    /// The wait of a delayed task is over, unless the clock says otherwise by now.
    pub(crate) fn on_countdown(&mut self, shared: &mut Shared, number: u64, step: u32) {
        let Some(job) = self.jobs.get_mut(&number) else {
            return;
        };
        match job.due(step).and_then(|due| due.at(&shared.wall)) {
            Some(at) if at > shared.now => shared.timers.set(Timer::Countdown { job: number, step }, at),
            _ => job.delay_over(number, step, &mut self.queue),
        }
        self.dispatch_due = true;
    }

    /// The time of day is known, or was set: what waits for it waits until another moment.
    pub(crate) fn on_clock_set(&mut self, shared: &mut Shared) {
        self.journal.set_clock(shared.wall.ahead_ms());
        for (number, job) in &self.jobs {
            for (step, due) in job.etas() {
                set_countdown(shared, *number, step, due);
            }
        }
    }

    /// Ends the tasks of a job that have waited for too long.
    pub(crate) fn on_expires_timer(&mut self, shared: &mut Shared, number: u64) {
        // What waits may run: that shows when it is adopted.
        let Some(job) = self.jobs.get_mut(&number).filter(|_| !self.adopting) else {
            return;
        };
        let mut effects = core::mem::take(&mut self.effects);
        for step in job.take_expired(shared.now) {
            self.expire(shared, number, step, None, &mut effects);
        }
        self.effects = self.follow(shared, number, effects);
    }

    /// Tells a client how far its job is.
    pub(crate) fn on_news_timer(&mut self, shared: &mut Shared, number: u64) {
        let Some(job) = self.jobs.get_mut(&number).filter(|job| !job.ended) else {
            return;
        };
        if let Some(news) = job.progress_if_changed() {
            self.tell(shared, number, news);
        }
    }

    /// Tells a client again how its job ended.
    pub(crate) fn on_ended_timer(&mut self, shared: &mut Shared, number: u64) {
        let Some(ended) = self.archive.get_mut(number).filter(|ended| !ended.ticket.seen) else {
            return;
        };
        if !self.journal.is_safe(ended.ticket.ended_in) {
            // The first time is still to come.
            shared.timers.set(Timer::JobEnded(number), shared.now + shared.timing(ENDED_AGAIN));
            return;
        }
        ended.tries += 1;
        if ended.tries <= ENDED_TRIES_MAX {
            let again = shared.timing(ENDED_AGAIN * (1 << ended.tries));
            shared.timers.set(Timer::JobEnded(number), shared.now + again);
            self.tell_ended(shared, number);
        }
    }

    /// Forgets results that are too old, or too many.
    pub(crate) fn forget_old(&mut self, shared: &mut Shared) {
        let bytes_max = shared.config.limits.archive_bytes_max;
        for (number, ended) in self.archive.forget(shared.now, bytes_max) {
            shared.timers.cancel(Timer::JobEnded(number));
            let key = ended.ticket.about.key.as_ref();
            if let Some(key) = key.filter(|key| self.keys.get(&key.text) == Some(&number)) {
                self.keys.remove(&key.text);
            }
            self.journal.forget(number, ended.ticket.records);
        }
        if let Some(until) = self.archive.next_until() {
            shared.timers.set(Timer::Forget, until.max(shared.now + FORGET));
        }
    }

    /// Whoever held tasks of an earlier incarnation has said so by now.
    pub(crate) fn on_adopt_timer(&mut self, shared: &mut Shared) {
        if !self.journal.has_begun() {
            // The next incarnation would give the numbers of this one's attempts again.
            shared.timers.set(Timer::Adopt, shared.now + shared.timing(ADOPT));
            return;
        }
        self.adopting = false;
        self.dispatch_due = true;
        for (number, job) in &self.jobs {
            if let Some(at) = job.next_expiry() {
                shared.timers.set(Timer::Expires(*number), at);
            }
        }
    }
}
