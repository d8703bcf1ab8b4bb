//! Requests of the user about jobs and nodes that are known by their id.

use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Forget, JobsRequest, MembersRequest, Message, StepQuery};
use broccoli_proto::{Cbor, JobId, NodeId};

use super::Node;
use crate::client::Submission;
use crate::io::{Event, SubmitId};
use crate::time::Instant;

impl Node {
    /// Submits an encoded canvas to the origin that this node is attached to. News come as [`crate::Event::Accepted`]
    /// or [`crate::Event::Refused`], and [`crate::Event::Job`].
    pub fn submit_to_cluster(&mut self, now: Instant, canvas: Cbor) -> SubmitId {
        self.submit_with(now, Submission { canvas, key: None, again: false, detached: false })
    }

    /// Submits a canvas. One with a key goes to the origin that all submits with this key go to. This and every other
    /// request with a [`SubmitId`] may end with [`Event::TooManyRequests`].
    pub fn submit_with(&mut self, now: Instant, submission: Submission) -> SubmitId {
        self.ask(now, |node, id| node.client.submit(&mut node.shared, id, submission))
    }

    /// Follows a job to its end, even if another client has submitted it: [`crate::Event::Job`] with its progress, its
    /// end, or `Unknown`. An origin that is away is asked until it is back.
    pub fn follow(&mut self, now: Instant, job: JobId) -> SubmitId {
        self.ask(now, |node, id| node.client.follow(&mut node.shared, id, job, false))
    }

    /// Revokes a job, even if another client has submitted it, and follows it to its end.
    pub fn revoke_job(&mut self, now: Instant, job: JobId) -> SubmitId {
        self.ask(now, |node, id| {
            let is_mine = job.origin == node.shared.me();
            if is_mine {
                node.origin.revoke(&mut node.shared, job.number);
            }
            node.client.follow(&mut node.shared, id, job, !is_mine);
        })
    }

    /// Runs the canvas of a failed job again. News are those of a submit.
    pub fn retry_job(&mut self, now: Instant, job: JobId) -> SubmitId {
        self.ask(now, |node, id| node.client.retry(&mut node.shared, id, job))
    }

    /// Asks another node to leave once its work is done, or after this time. Its vitals confirm the request.
    pub fn drain_node(&mut self, now: Instant, name: NodeId, limit: Option<Duration>) -> SubmitId {
        self.ask(now, |node, id| node.client.drain(&mut node.shared, id, name, limit))
    }

    /// Stops reporting a job; the job continues.
    pub fn unfollow(&mut self, now: Instant, id: SubmitId) {
        self.shared.now = now;
        self.client.unfollow(&mut self.shared, id);
    }

    /// Asks an origin once for its jobs after a number. The answer is [`crate::Event::Jobs`].
    pub fn ask_jobs(&mut self, now: Instant, origin: NodeId, after: Option<u64>, max: u16) {
        self.shared.now = now;
        self.shared.outbox.send(origin, Message::JobsRequest(JobsRequest { after, max }));
    }

    /// The origin for canvases without a key, once one was found.
    pub fn home(&self) -> Option<NodeId> {
        self.client.home()
    }

    /// Asks all nodes to announce themselves; the answers appear in [`Node::members`].
    pub fn ask_all(&mut self, now: Instant) {
        self.shared.now = now;
        self.shared.ask_all();
    }

    /// Asks a node once for the members that it knows after a name. The answer is [`crate::Event::Members`].
    pub fn ask_members(&mut self, now: Instant, node: NodeId, after: Option<NodeId>, max: u16) {
        self.shared.now = now;
        self.shared.outbox.send(node, Message::MembersRequest(MembersRequest { after, max }));
    }

    /// Tells a node once that another one will not come back, so that keys do not wait for it. The answer is
    /// [`crate::Event::Forgotten`].
    pub fn ask_to_forget(&mut self, now: Instant, of: NodeId, node: NodeId) {
        self.shared.now = now;
        self.shared.outbox.send(of, Message::Forget(Forget { node }));
    }

    /// Asks once for the state of a step. The answer is [`crate::Event::Step`].
    pub fn ask_step(&mut self, now: Instant, job: JobId, path: Vec<u32>) {
        self.shared.now = now;
        self.shared.outbox.send(job.origin, Message::StepQuery(StepQuery { job, path, why: None }));
    }

    /// The same, and what each task of the step waits for. It costs the origin more: for people, not for polling.
    pub fn ask_why(&mut self, now: Instant, job: JobId, path: Vec<u32>) {
        self.shared.now = now;
        self.shared.outbox.send(job.origin, Message::StepQuery(StepQuery { job, path, why: Some(true) }));
    }

    /// Adds a request of the user, if there is room.
    fn ask(&mut self, now: Instant, ask: impl FnOnce(&mut Node, SubmitId)) -> SubmitId {
        self.shared.now = now;
        let id = self.next_submit();
        if self.client.has_room(&self.shared) {
            ask(self, id);
        } else {
            self.shared.event(Event::TooManyRequests(id));
        }
        id
    }
}
