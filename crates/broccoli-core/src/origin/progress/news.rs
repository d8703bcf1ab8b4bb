//! Sends the news of a running job (progress, logs, retries) to its client and watchers.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::time::Duration;

use broccoli_proto::message::{JobEvent, JobNews, Log, Message, Progress};
use broccoli_proto::{JobId, NodeId, TaskError};

use crate::io::Event;
use crate::origin::Origin;
use crate::origin::job::ticket::Client;
use crate::shared::Shared;
use crate::text;
use crate::trace::{Trace, TraceLevel};

/// Most news of a job that wait until its acceptance is told; further ones are dropped.
pub(crate) const EARLY_MAX: usize = 64;

impl Origin {
    /// Sends news of a job to everyone who waits for it.
    pub(crate) fn send_news(&mut self, shared: &mut Shared, number: u64, news: JobNews) {
        let Some(ticket) = self.ticket(number) else {
            return;
        };
        if !self.journal.is_safe(ticket.accepted_in) {
            // The client does not know the job yet.
            let early = self.journal.early.entry(number).or_default();
            if early.len() < EARLY_MAX && self.memory.reserve_early(&shared.config.limits, &news) {
                early.push(news);
            }
            return;
        }
        let job = JobId { origin: shared.me(), number };
        for node in ticket.listeners() {
            let event = JobEvent { job, news: news.clone(), blob: None };
            shared.outbox.send(node, Message::JobEvent(Box::new(event)));
        }
        if let Client::Local(id) = ticket.client {
            shared.event(Event::Job(id, news));
        }
    }

    /// A running task logged a line.
    pub(crate) fn on_log(&mut self, shared: &mut Shared, from: NodeId, mut log: Log) {
        text::cut(&mut log.text, text::FAILURE_BYTES_MAX);
        let Some(job) = self.jobs.get(&log.attempt.job) else {
            return;
        };
        let Some(function) = job.function_of(log.attempt.step) else {
            return;
        };
        let (function, task) = (function.to_string(), log.attempt.step);
        let news = JobNews::Logged { node: from, function, task, text: log.text };
        self.send_news(shared, log.attempt.job, news);
    }

    /// A running task reports its progress.
    pub(crate) fn on_progress(&mut self, shared: &mut Shared, from: NodeId, progress: &Progress) {
        let Progress { attempt, done, total } = *progress;
        let Some(function) = self.jobs.get(&attempt.job).and_then(|job| job.function_of(attempt.step)) else {
            return;
        };
        let news =
            JobNews::TaskProgress { node: from, function: function.to_string(), task: attempt.step, done, total };
        self.send_news(shared, attempt.job, news);
    }

    /// Sends the progress of a job.
    pub(crate) fn on_news_timer(&mut self, shared: &mut Shared, number: u64) {
        let Some(job) = self.jobs.get_mut(&number).filter(|job| !job.ended) else {
            return;
        };
        if let Some(news) = job.progress_if_changed() {
            self.send_news(shared, number, news);
        }
    }
}

/// Traces the failure of a task; `again` is the pause before a retry.
pub(crate) fn trace_failure(shared: &mut Shared, number: u64, error: TaskError, again: Option<Duration>) {
    let job = JobId { origin: shared.me(), number };
    shared.trace(TraceLevel::Jobs, || Trace::TaskFailed { job, error: Box::new(error), again });
}
