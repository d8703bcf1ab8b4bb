//! Leaving well: nothing new is taken, what runs is finished or handed back, then goodbye.
//!
//! ```text
//!   drain ──► Draining ──► runs end, results and jobs are told of ──► goodbye, Drained
//!                                hand_back ──► all is given back ──────────▲
//! ```

use broccoli_proto::NodeId;
use broccoli_proto::message::{Drain, Message, Refusal, Refused};

use super::Node;
use crate::io::Event;
use crate::time::Instant;

/// How far a node is with its leave.
#[derive(Debug, Default)]
pub(super) struct Leave {
    /// It waits for nothing any more.
    handed_back: bool,
    /// It has said goodbye.
    told: bool,
}

impl Node {
    /// Takes nothing new from now on, as worker and as origin, gives back what has not started, and
    /// says goodbye when the rest has ended: [`Event::Drained`]. A node that keeps a journal does
    /// not wait for its jobs: they go on when it is back.
    pub fn drain(&mut self, now: Instant) {
        self.shared.now = now;
        self.begin_drain(None);
    }

    /// Ends the wait of [`Node::drain`]: what runs is stopped and given back to its origins, and
    /// jobs that this node holds in memory are lost.
    pub fn hand_back(&mut self, now: Instant) {
        self.shared.now = now;
        self.begin_drain(None);
        self.worker.hand_back(&mut self.shared);
        self.leave.handed_back = true;
    }

    fn begin_drain(&mut self, by: Option<NodeId>) {
        if core::mem::replace(&mut self.shared.draining, true) {
            return;
        }
        self.shared.event(Event::Draining(by));
        self.worker.drain(&mut self.shared);
        if self.shared.connected {
            self.members.publish(&mut self.shared, self.modules.digest());
        }
    }

    /// A client asks this node to leave.
    pub(super) fn on_drain(&mut self, from: NodeId, drain: &Drain) {
        let answer = if self.shared.config.resident {
            self.begin_drain(Some(from));
            Message::Vitals(self.vitals())
        } else {
            Message::Refused(Refused { number: drain.number, reason: Refusal::NotResident })
        };
        self.shared.outbox.send(from, answer);
    }

    /// Says goodbye as soon as there is nothing to wait for.
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
