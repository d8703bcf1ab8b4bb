//! The session of a client at an origin: stores the answers to its submits, so that a repeated submit has no effect.

use broccoli_proto::message::Refusal;
use broccoli_proto::{Epoch, JobId};
use litemap::LiteMap;

use crate::shared::pop_first;
use crate::time::Instant;

/// Most answers that are remembered for one client.
pub(crate) const ANSWERS_MAX: usize = 1_024;

/// A client that has submitted a canvas.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) epoch: Epoch,
    pub(crate) used: Instant,
    /// Answers to submits, by number.
    pub(crate) answers: LiteMap<u32, Result<JobId, Refusal>>,
    /// Submits up to this number are too old to be answered.
    pub(crate) forgotten: u32,
}

impl Session {
    pub(crate) fn new(epoch: Epoch, now: Instant) -> Session {
        Session { epoch, used: now, answers: LiteMap::new_vec(), forgotten: 0 }
    }

    pub(crate) fn remember(&mut self, number: u32, answer: Result<JobId, Refusal>) {
        self.answers.insert(number, answer);
        if self.answers.len() > ANSWERS_MAX
            && let Some(number) = pop_first(&mut self.answers)
        {
            self.forgotten = number;
        }
    }
}
