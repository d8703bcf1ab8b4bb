//! What an origin tells those who know a job by its id, and what it does before it leaves.

use broccoli_proto::{Epoch, NodeId};

use super::{ANNOUNCE_TO_NEW, Origin};
use crate::shared::Shared;
use crate::timers::Timer;

/// The end of a job is told so often before a leaving origin waits no more for an answer.
const ENDED_TRIES_LEAVING: u32 = 2;

impl Origin {
    /// Whether a client has this token of this incarnation.
    pub(crate) fn has_session(&self, from: NodeId, epoch: Epoch, token: u64) -> bool {
        self.sessions.get(&from).is_some_and(|session| session.epoch == epoch && session.token == token)
    }

    /// Calls for help soon, however long the next call would have waited.
    pub(super) fn call_soon(&self, shared: &mut Shared) {
        for (class, _) in self.queue.order() {
            shared.timers.set_earlier(Timer::Announce(class), shared.now + ANNOUNCE_TO_NEW);
        }
    }

    /// Whether no job is lost if this node goes now.
    pub(crate) fn is_drained(&self, shared: &Shared) -> bool {
        let told = |tries| tries > ENDED_TRIES_LEAVING;
        shared.config.durable || self.jobs.values().all(|job| job.ended && (job.acknowledged || told(job.ended_tries)))
    }
}
