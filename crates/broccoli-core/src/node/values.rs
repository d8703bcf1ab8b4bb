//! Pulled values: delivers the messages that waited for values which did not fit into a packet.

use alloc::boxed::Box;

use broccoli_proto::NodeId;
use broccoli_proto::message::{JobEvent, JobNews, StepNews, StepView, Submit, TaskResult, TaskResults};

use super::Node;
use crate::content::values::held::Holder;
use crate::content::values::pulls::{Arrival, Missing, Purpose};
use crate::io::Event;
use crate::origin::Around;
use crate::shared::Shared;
use crate::text;

impl Node {
    pub(super) fn on_step_news(&mut self, from: NodeId, mut news: Box<StepNews>) {
        let max = self.shared.config.limits.result_bytes_max;
        match news.blob {
            Some(blob) if blob.bytes <= max => {
                let Shared { values, timers, now, .. } = &mut self.shared;
                values.pull(*now, timers, from, blob, Purpose::Step(news));
                return;
            }
            Some(blob) => {
                let error = text::result_too_large(blob.bytes as usize, max);
                news.view = news.view.map(|view| StepView { outcome: Some(Err(error)), ..view });
            }
            None => {}
        }
        self.shared.event(Event::Step(news));
    }

    pub(super) fn on_values_timer(&mut self) {
        let (origin, worker, client) = (&self.origin, &self.worker, &self.client);
        let is_held = |holder: &Holder| match *holder {
            Holder::Args { worker, attempt } => origin.is_leased_to(worker, attempt),
            Holder::Result { origin, attempt } => worker.holds(origin, attempt),
            Holder::Canvas(number) => client.is_unanswered(number),
            Holder::Ended { job, .. } => origin.has_ended(job),
            Holder::Step { .. } => true,
        };
        let is_needed = |from, purpose: &Purpose| match purpose {
            Purpose::Args(attempt) => worker.holds(from, *attempt),
            Purpose::Result { attempt, .. } => origin.is_open(*attempt),
            Purpose::Canvas { epoch, .. } => origin.is_session(from, *epoch),
            Purpose::Ended(job) => client.follows(*job),
            Purpose::Step(_) => true,
        };
        let Shared { values, outbox, timers, now, connected, .. } = &mut self.shared;
        values.on_timer((*now, *connected), outbox, timers, is_held, is_needed);
    }

    /// Delivers messages whose values have arrived, as if they had been complete.
    pub(super) fn deliver_values(&mut self) {
        let shared = &mut self.shared;
        while let Some(Arrival { from, purpose, value }) = shared.values.pulls.pop_arrived() {
            let around = Around { modules: &self.modules, members: &self.members };
            match (purpose, value) {
                (Purpose::Args(attempt), value) => self.worker.on_args(shared, from, attempt, value.ok()),
                (Purpose::Result { epoch, number, attempt }, Ok(value)) => {
                    let results = alloc::vec![TaskResult { attempt, outcome: Ok(value), blob: None }];
                    let results = TaskResults { origin_epoch: shared.epoch, number, results };
                    self.origin.on_results(shared, &around, from, epoch, results, true);
                }
                (Purpose::Result { epoch, attempt, .. }, Err(Missing::Gone)) => {
                    self.origin.on_result_gone(shared, from, epoch, attempt);
                }
                (Purpose::Canvas { epoch, submit }, Ok(canvas)) => {
                    let submit = Submit { canvas, blob: None, ..submit };
                    self.origin.on_submit(shared, &around, from, epoch, &submit);
                }
                (Purpose::Ended(job), Ok(value)) => {
                    let event = JobEvent { job, news: JobNews::Ended(Ok(value)), blob: None };
                    self.client.on_job_event(shared, from, event);
                }
                (Purpose::Step(mut news), Ok(value)) => {
                    news.view = news.view.map(|view| StepView { outcome: Some(Ok(value)), ..view });
                    news.blob = None;
                    shared.event(Event::Step(news));
                }
                // The sender repeats its message.
                (Purpose::Result { .. } | Purpose::Canvas { .. } | Purpose::Ended(_) | Purpose::Step(_), Err(_)) => {}
            }
        }
        self.origin.watch_memory(shared);
        let packet_bytes_max = shared.packet_bytes_max();
        shared.values.pulls.start(shared.now, packet_bytes_max, &mut shared.outbox);
    }
}
