//! The queue of updates from the loop to the handle of a job.

use broccoli_proto::JobId;
use broccoli_proto::NodeId;
use broccoli_proto::message::{JobNews, Refusal};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Most updates in the queue of one handle. When it is full, new ones are dropped, except the acceptance and the end.
pub(crate) const UPDATES_MAX: usize = 4_096;
/// Places reserved for these two.
const KEPT: usize = 2;

/// An update about a submitted canvas.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobUpdate {
    /// It was accepted as a job.
    Accepted(JobId),
    /// It was refused.
    Refused(Refusal),
    /// News of the job.
    News(JobNews),
    /// This node has no room for it now. It is submitted again until there is. Reported once.
    QueueFull(NodeId),
    /// The only node that could take it is draining, so it waits for another one. Reported once.
    OnlyLeaving(NodeId),
    /// This node cannot write its journal, for this reason, and no other node with a journal takes the canvas. It is
    /// submitted again until one does. Reported once.
    CannotStore(NodeId, String),
    /// This node holds the job and has not answered for five seconds. It is asked again. Reported once for each
    /// silence.
    NoAnswer(NodeId),
    /// The node has too many requests of this program; this one was dropped. See [`crate::JobError::TooManyRequests`].
    TooManyRequests,
}

impl JobUpdate {
    /// Whether this is the last update.
    pub(crate) fn is_last(&self) -> bool {
        match self {
            JobUpdate::Refused(_) | JobUpdate::TooManyRequests => true,
            JobUpdate::News(news) => matches!(news, JobNews::Ended(_) | JobNews::Unknown | JobNews::GoesOn),
            _ => false,
        }
    }
}

/// The sender of updates to one handle.
#[derive(Debug)]
pub(crate) struct Updates(Sender<JobUpdate>);

impl Updates {
    /// Creates the queue of one job.
    pub(crate) fn new() -> (Updates, Receiver<JobUpdate>) {
        let (sender, receiver) = channel(UPDATES_MAX);
        (Updates(sender), receiver)
    }

    /// Sends an update. Drops it if the queue is full, unless it is the acceptance or the end.
    pub(crate) fn tell(&self, update: JobUpdate) {
        let is_kept = update.is_last() || matches!(update, JobUpdate::Accepted(_));
        if is_kept || self.0.capacity() > KEPT {
            // The handle may have been dropped.
            let _ = self.0.try_send(update);
        }
    }

    /// Whether the handle was dropped, or has closed its queue.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use broccoli_proto::Cbor;

    #[test]
    fn a_handle_that_does_not_read_loses_news_but_never_the_acceptance_and_the_end() {
        let (updates, mut receiver) = Updates::new();
        let progress = |done| JobUpdate::News(JobNews::Progress { done, total: 100_000 });
        for done in 0..100_000 {
            updates.tell(progress(done));
        }
        updates.tell(JobUpdate::Accepted("pi-1/1".parse().expect("an id")));
        for done in 0..100_000 {
            updates.tell(progress(done));
        }
        updates.tell(JobUpdate::News(JobNews::Ended(Ok(Cbor::null()))));
        let mut read = Vec::new();
        while let Ok(update) = receiver.try_recv() {
            read.push(update);
        }
        assert_eq!(read.len(), UPDATES_MAX);
        let [.., accepted, ended] = read.as_slice() else { panic!("{read:?}") };
        assert!(matches!(accepted, JobUpdate::Accepted(_)), "{accepted:?}");
        assert!(matches!(ended, JobUpdate::News(JobNews::Ended(Ok(_)))), "{ended:?}");
        updates.tell(progress(1));
        assert!(receiver.try_recv().is_ok(), "one who reads again hears news again");
    }
}
