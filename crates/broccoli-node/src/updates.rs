//! News of one job on their way to its handle.

use broccoli_proto::JobId;
use broccoli_proto::NodeId;
use broccoli_proto::message::{JobNews, Refusal};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// News that wait for one handle; those after them are dropped, but never the acceptance and the end.
pub(crate) const UPDATES_MAX: usize = 4_096;
/// Places that are kept for these two.
const KEPT: usize = 2;

/// News of a submitted canvas.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobUpdate {
    /// It is a job now.
    Accepted(JobId),
    /// It was refused.
    Refused(Refusal),
    /// What happened to the job.
    News(JobNews),
    /// This node has no room for it now; it is submitted again until there is. Told once.
    QueueFull(NodeId),
    /// The only node that could take it is about to leave: it waits for another one. Told once.
    OnlyLeaving(NodeId),
    /// This node cannot write its journal, for this reason, and no other that keeps one takes it; it is submitted again
    /// until one does. Told once.
    CannotStore(NodeId, String),
    /// This node, which holds it, has said nothing for five seconds; it is asked again. Told once for
    /// each silence.
    NoAnswer(NodeId),
    /// Nothing was done: the program has asked for more than it may at a time. See
    /// [`crate::JobError::TooManyRequests`].
    TooManyRequests,
}

impl JobUpdate {
    /// Whether none comes after it.
    pub(crate) fn is_last(&self) -> bool {
        match self {
            JobUpdate::Refused(_) | JobUpdate::TooManyRequests => true,
            JobUpdate::News(news) => matches!(news, JobNews::Ended(_) | JobNews::Unknown | JobNews::GoesOn),
            _ => false,
        }
    }
}

/// Where the loop tells a handle what happens to its job.
#[derive(Debug)]
pub(crate) struct Updates(Sender<JobUpdate>);

impl Updates {
    /// For one job, with what its handle reads.
    pub(crate) fn new() -> (Updates, Receiver<JobUpdate>) {
        let (sender, receiver) = channel(UPDATES_MAX);
        (Updates(sender), receiver)
    }

    /// Tells the handle, if it reads, or if this must not be lost.
    pub(crate) fn tell(&self, update: JobUpdate) {
        let is_kept = update.is_last() || matches!(update, JobUpdate::Accepted(_));
        if is_kept || self.0.capacity() > KEPT {
            // The handle may have been dropped.
            let _ = self.0.try_send(update);
        }
    }

    /// Whether the handle was dropped, or wants to hear no more.
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
