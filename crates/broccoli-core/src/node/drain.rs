//! Draining: a node that is asked to leave takes nothing new, finishes or returns its tasks, and says goodbye.
//!
//! ```text
//!   drain ──► Draining ──► runs end, results and jobs are acknowledged ──► goodbye, Drained
//!                                hand_back ──► all is returned ────────────▲
//! ```

pub(super) mod state;

use alloc::boxed::Box;
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::NodeId;
use broccoli_proto::message::{Drain, JobSummary, Leaving, Message, Refusal, Refused};

use super::Node;
use crate::io::Event;
use crate::origin::Around;
use crate::time::{Instant, ms};

impl Node {
    /// Leaves in an orderly way: takes nothing new as worker or origin, returns tasks that have not started, and says
    /// goodbye when the rest has ended: [`Event::Drained`]. A node with a journal does not wait for its jobs: they
    /// continue when it is back.
    pub fn drain(&mut self, now: Instant) {
        self.shared.now = now;
        self.begin_drain(None, None);
    }

    /// Ends the wait of [`Node::drain`]: stops running tasks and returns them to their origins. Jobs that are only in
    /// memory are lost.
    pub fn hand_back(&mut self, now: Instant) {
        self.shared.now = now;
        self.begin_drain(None, None);
        if !core::mem::replace(&mut self.leave.handed_back, true) {
            let mut vitals = self.vitals();
            let lost = vitals.leaving.as_mut().map(|leaving| {
                leaving.gives_up = Some(true);
                leaving.jobs.clone()
            });
            if let Some(by) = self.leave.by {
                self.shared.outbox.send(by, Message::Vitals(vitals));
            }
            self.shared.event(Event::GaveUp(lost.unwrap_or_default()));
        }
        self.worker.hand_back(&mut self.shared);
    }

    fn begin_drain(&mut self, by: Option<NodeId>, limit: Option<Duration>) {
        self.leave.by = by.or(self.leave.by);
        if core::mem::replace(&mut self.shared.draining, true) {
            if limit.is_some() {
                self.shared.event(Event::Draining(by, limit));
            }
            return;
        }
        self.shared.event(Event::Draining(by, limit));
        self.worker.drain(&mut self.shared);
        if self.shared.connected {
            self.members.publish(&mut self.shared, self.modules.digest());
        }
    }

    /// A client asks this node to leave.
    pub(super) fn on_drain(&mut self, from: NodeId, drain: &Drain) {
        let answer = if self.shared.config.resident {
            self.begin_drain(Some(from), drain.for_ms.map(ms));
            Message::Vitals(self.vitals())
        } else {
            Message::Refused(Refused { number: drain.number, reason: Refusal::NotResident })
        };
        self.shared.outbox.send(from, answer);
    }

    /// What the node still waits for; none if it is not leaving.
    pub(super) fn leaving(&self) -> Option<Box<Leaving>> {
        if !self.shared.draining {
            return None;
        }
        let around = Around { modules: &self.modules, members: &self.members };
        let holds = if self.shared.config.durable { 0 } else { Leaving::LISTED_MAX };
        let jobs: Vec<JobSummary> = self.origin.running(&self.shared, &around).take(holds).collect();
        let tasks = self.worker.functions().take(Leaving::LISTED_MAX);
        let tasks = tasks.map(|function| match self.modules.name_of(&function.module) {
            Some(module) => format!("{module}.{}", function.name),
            None => function.name.clone(),
        });
        Some(Box::new(Leaving { tasks: tasks.collect(), jobs, gives_up: None }))
    }

    /// Says goodbye as soon as there is nothing left to wait for.
    pub(super) fn check_drained(&mut self) {
        if !self.shared.draining || self.leave.told {
            return;
        }
        let finished = self.worker.is_drained() && self.origin.is_drained(&self.shared);
        if finished || (self.leave.handed_back && self.worker.has_given_back()) {
            self.leave.told = true;
            self.members.leave(&mut self.shared, self.origin.holds_no_key());
            self.shared.event(Event::Drained);
        }
    }
}
