//! The call for help ([`Available`]): tells nodes that tasks wait without credit, and clients that no node fits their
//! tasks.

use alloc::string::ToString;
use core::time::Duration;

use broccoli_proto::message::{Available, JobNews, Message};

use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::text;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// The call for help is repeated after this time, doubled up to the maximum.
const ANNOUNCE: LinkTime = link_ms(50);
const ANNOUNCE_MAX: LinkTime = link_ms(2_000);
/// Clients are told about tasks that no node fits after this time, and then at the second interval.
pub(crate) const NO_NODE: LinkTime = link_ms(2_000);
const NO_NODE_AGAIN: LinkTime = link_ms(10_000);
/// Number of nodes that should answer the first call for help. It grows with each call.
pub(crate) const ANSWERS_WANTED: u32 = 16;
/// A new node is told what waits within this time.
const ANNOUNCE_TO_NEW: LinkTime = link_ms(10);

impl Origin {
    /// Repeats the call for help while tasks of a class wait without credit.
    pub(crate) fn on_announce_timer(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32) {
        let more = self.end_homeless(shared, around, class);
        let jobs = &mut self.jobs;
        self.dispatch.queue.drop_stale(class, |job, step| jobs.get_mut(&job).is_some_and(|job| job.keeps_entry(step)));
        if more {
            shared.timers.set(Timer::Announce(class), shared.now);
            return;
        }
        if self.dispatch.queue.awaits_permits(class) {
            shared.timers.set(Timer::Announce(class), shared.now + shared.timing(ANNOUNCE_MAX));
            return;
        }
        let Some((want, round)) = self.dispatch.queue.hungry(class) else {
            return;
        };
        let again = shared.now + (shared.timing(ANNOUNCE) * (1 << round.min(8))).min(shared.timing(ANNOUNCE_MAX));
        if let Some(node) = self.dispatch.queue.pinned_to(class) {
            // No other node can help. `growth` checks whether this node is alive.
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
        let mut workers = self.leases.peers.iter();
        let unfit = fitting == 0
            && !workers.any(|(name, peer)| {
                self.dispatch.queue.fits(class, *name, &peer.features, peer.modules, around.modules)
            });
        self.send_no_node(shared, around, class, unfit);
        let told = self.dispatch.queue.without_node_until(class, shared.timing(NO_NODE)).filter(|at| *at > shared.now);
        shared.timers.set(Timer::Announce(class), told.map_or(again, |at| at.min(again)));
    }

    /// Tells the clients whose tasks no node fits: at once if no live node matches the routing, otherwise after a
    /// while, since nodes may still pull the module.
    fn send_no_node(&mut self, shared: &mut Shared, around: &Around<'_>, class: u32, unfit: bool) {
        let want = self.dispatch.queue.want(class).filter(|_| unfit).cloned();
        let missing = want.map(|want| self.missing(shared, around, &want));
        let is_sure = missing.as_ref().is_some_and(|missing| missing.is_sure);
        let after = if is_sure { Duration::ZERO } else { shared.timing(NO_NODE) };
        let Some(tasks) =
            self.dispatch.queue.long_without_node(class, unfit, shared.now, after, shared.timing(NO_NODE_AGAIN))
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
            self.send_news(shared, number, news);
        }
    }

    /// Brings the next call for help forward.
    pub(crate) fn call_soon(&self, shared: &mut Shared) {
        for (class, _) in self.dispatch.queue.order() {
            shared.timers.set_earlier(Timer::Announce(class), shared.now + shared.timing(ANNOUNCE_TO_NEW));
        }
    }
}
