//! Handles the submits of other nodes.

use alloc::format;
use alloc::string::ToString;

use broccoli_proto::message::{BlobRef, Message, Refusal, Refused, Submit};
use broccoli_proto::options::KEY_BYTES_MAX;
use broccoli_proto::{Canvas, Epoch, JobId, NodeId};

use crate::content::values::pulls::Purpose;
use crate::origin::accept::session::Session;
use crate::origin::accept::{Request, SubmitError};
use crate::origin::job::ticket::Client;
use crate::origin::journal::records::Submitter;
use crate::origin::journal::writes::Submitted;
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::text;

impl Origin {
    /// The session of a client, created if there is none. If there are too many, the least recently used one is
    /// dropped.
    fn session(&mut self, shared: &Shared, from: NodeId, epoch: Epoch) -> &mut Session {
        if self.accept.sessions.get(&from).is_none_or(|session| session.epoch != epoch) {
            if self.accept.sessions.len() >= shared.config.limits.nodes_max {
                let oldest = self.accept.sessions.iter().min_by_key(|(_, session)| session.used).map(|(node, _)| *node);
                oldest.map(|node| self.accept.sessions.remove(&node));
            }
            let mut session = Session::new(epoch, shared.now);
            for (number, job) in self.accept.recovered.remove(&(from, epoch)).unwrap_or_default() {
                session.remember(number, Ok(JobId { origin: shared.me(), number: job }));
            }
            self.accept.sessions.insert(from, session);
        }
        let session = self.accept.sessions.entry(from).or_insert_with(|| Session::new(epoch, shared.now));
        session.used = shared.now;
        session
    }

    /// A client submits a canvas.
    pub(crate) fn on_submit(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        from: NodeId,
        epoch: Epoch,
        submit: &Submit,
    ) {
        let number = submit.number;
        if !shared.config.resident {
            shared.outbox.send(from, Message::Refused(Refused { number, reason: Refusal::NotResident }));
            return;
        }
        let session = self.session(shared, from, epoch);
        if number <= session.forgotten {
            return;
        }
        let submitter = Submitter { node: from, epoch, number };
        let answer = match (session.answers.get(&number).cloned(), submit.blob) {
            (Some(answer), _) => answer,
            (None, Some(blob)) => match self.can_take_canvas(shared, from, &blob) {
                Ok(()) => {
                    let purpose = Purpose::Canvas { epoch, submit: submit.clone() };
                    shared.values.pull(shared.now, &mut shared.timers, from, blob, purpose);
                    return;
                }
                Err(reason) => Err(reason),
            },
            (None, None) => match self.claim(shared, around, submitter, submit) {
                Some(answer) => answer,
                None => return,
            },
        };
        self.answer_submit(shared, submitter, submit.key.is_some(), answer);
    }

    /// Sends a client the answer to its submit, and stores it for a repeated submit.
    pub(crate) fn answer_submit(
        &mut self,
        shared: &mut Shared,
        submitter: Submitter,
        has_key: bool,
        answer: Result<JobId, Refusal>,
    ) {
        let Submitter { node, epoch, number } = submitter;
        let Some(session) = self.accept.sessions.get_mut(&node).filter(|session| session.epoch == epoch) else {
            return;
        };
        if answer.is_err() && !session.answers.contains_key(&number) {
            shared.counters.jobs_refused += 1;
        }
        // Not stored: a client that the other origin sends back here must get a new answer.
        if !matches!(answer, Err(Refusal::Elsewhere(_))) {
            session.remember(number, answer.clone());
        }
        match answer {
            Ok(job) => {
                self.accept(shared, job, Submitted::Remote { node, number });
                if let Some(reason) = &self.journal.stalled
                    && !self.is_written(job)
                {
                    let reason = Refusal::Unwritten(text::refusal(reason.clone()));
                    shared.outbox.send(node, Message::Refused(Refused { number, reason }));
                }
                if has_key {
                    // The job may have ended long ago; then the client would hear about it only when it asks.
                    self.on_query(shared, node, job);
                }
            }
            Err(reason) => shared.outbox.send(node, Message::Refused(Refused { number, reason })),
        }
    }

    /// Whether the acceptance of a job is safe in the journal.
    fn is_written(&self, job: JobId) -> bool {
        self.ticket(job.number).is_none_or(|ticket| self.journal.is_safe(ticket.accepted_in))
    }

    /// Checks the size of a canvas before it is pulled.
    fn can_take_canvas(&self, shared: &Shared, from: NodeId, blob: &BlobRef) -> Result<(), Refusal> {
        let (limits, bytes) = (&shared.config.limits, blob.bytes as usize);
        let (canvas_max, bytes_max) = (limits.canvas.args_bytes_max, limits.queue_bytes_max);
        if bytes > canvas_max {
            let text = format!("the canvas has {bytes} bytes, this node takes {canvas_max}: submit it in parts");
            return Err(Refusal::BadCanvas(text));
        }
        if bytes > bytes_max {
            return Err(SubmitError::TooLarge { bytes, bytes_max }.into());
        }
        let is_counted = shared.values.pulls.has(from, blob.id);
        if is_counted || self.has_room_for_job(shared, bytes) { Ok(()) } else { Err(Refusal::QueueFull) }
    }

    pub(crate) fn take_submit(
        &mut self,
        shared: &mut Shared,
        around: &Around<'_>,
        submitter: Submitter,
        submit: &Submit,
    ) -> Result<JobId, Refusal> {
        let key = submit.key.clone();
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(Refusal::BadCanvas(format!("a key has 1 to {KEY_BYTES_MAX} bytes")));
        }
        let canvas =
            Canvas::from_wire(submit.canvas.as_bytes()).map_err(|error| Refusal::BadCanvas(error.to_string()))?;
        let waits = submit.detached != Some(true);
        let client = if waits { Client::Remote(submitter.node) } else { Client::Detached };
        let encoded = submit.canvas.clone();
        let request = Request {
            canvas: &canvas,
            encoded,
            client,
            submitter: Some(submitter),
            key,
            again: submit.again == Some(true),
        };
        self.submit(shared, around, request).map_err(Refusal::from)
    }
}
