//! The events of a node for `tracing`.
//!
//! | target | level | content |
//! |---|---|---|
//! | `broccoli::job` | info | each job of this node, when it ends; a failed job is a warning; at debug also when it is accepted |
//! | `broccoli::task` | warn, debug | each failed attempt; at debug also each lease, start and end of a run |
//! | `broccoli::credit` | debug | how many tasks a worker allows an origin to send |
//! | `broccoli::node` | info, warn | connection, journal, leaving: events that may need an operator |
//! | `broccoli::cluster` | debug | other nodes, modules, answers, rejected packets |
//! | `broccoli::packet` | trace | each packet |
//!
//! Fields have the same names everywhere: `node` is this node, `peer` another node; `job`, `step` and `attempt`
//! identify a task. The core reports events of jobs and tasks only while one of these targets is enabled. Without
//! debug, at most [`LINES_PER_S`](rate::LINES_PER_S) lines about jobs and tasks are logged in a second.

pub(crate) mod rate;

use std::time::Instant;

use broccoli_core::{Event, Node, Trace, TraceLevel};
use broccoli_proto::message::{Attempt, Failure};
use broccoli_proto::packet::{Address, PacketError};
use broccoli_proto::{Cause, JobId, NodeId, TaskError};
use tracing::{Level, debug, enabled, info, trace, warn};

use self::rate::LineRate;
use crate::driver::NodeEvent;

/// Which events of jobs and tasks are enabled now.
pub(crate) fn wanted() -> TraceLevel {
    if enabled!(target: "broccoli::task", Level::DEBUG) || enabled!(target: "broccoli::credit", Level::DEBUG) {
        TraceLevel::Tasks
    } else if enabled!(target: "broccoli::task", Level::WARN) || enabled!(target: "broccoli::job", Level::WARN) {
        TraceLevel::Jobs
    } else {
        TraceLevel::Off
    }
}

/// Whether failures of tasks are logged.
pub(crate) fn tells_failures() -> bool {
    enabled!(target: "broccoli::task", Level::WARN)
}

/// A packet was sent.
pub(crate) fn packet_out(node: NodeId, to: Address, bytes: usize) {
    trace!(target: "broccoli::packet", %node, to = ?to, bytes, "packet out");
}

/// A packet was received.
pub(crate) fn packet_in(node: NodeId, to: Address, bytes: usize) {
    trace!(target: "broccoli::packet", %node, to = ?to, bytes, "packet in");
}

/// Something has happened to a job or a task.
pub(crate) fn trace(core: &Node, node: NodeId, told: Trace, rate: &mut LineRate) {
    let is_limited = is_line(node, &told) && !enabled!(target: "broccoli::job", Level::DEBUG);
    if is_limited && !rate.admits(node, Instant::now()) {
        return;
    }
    match told {
        Trace::JobAccepted { job, function, tasks, client } => {
            let peer = client.map(tracing::field::display);
            debug!(target: "broccoli::job", %node, %job, function, tasks, peer, "job accepted");
        }
        Trace::JobEnded { job, function, took, error } => {
            let took_ms = took.as_millis() as u64;
            match error {
                None => info!(target: "broccoli::job", %node, %job, function, took_ms, "job succeeded"),
                Some(error) if error.cause == Cause::Revoked => {
                    info!(target: "broccoli::job", %node, %job, function, took_ms, "job revoked");
                }
                Some(error) => warn!(target: "broccoli::job", %node, %job, function, took_ms, %error, "job failed"),
            }
        }
        Trace::TaskFailed { job, error, again } => {
            let TaskError { function, task: step, node: peer, attempt, cause, text: error, .. } = *error;
            let (peer, again_in_ms) = (peer.map(tracing::field::display), again.map(|again| again.as_millis() as u64));
            warn!(target: "broccoli::task", %node, peer, %job, step, attempt, function, ?cause, error, again_in_ms, "task failed");
        }
        Trace::Ran { job, attempt, function, took, failure } => {
            ran(node, (job, attempt), &core.name_of(&function), took.as_millis() as u64, failure.as_deref());
        }
        Trace::Started { job, attempt: Attempt { step, number: attempt, .. }, function } => {
            let function = core.name_of(&function);
            debug!(target: "broccoli::task", %node, peer = %job.origin, %job, step, attempt, function, "run begins");
        }
        Trace::Leased { worker, attempt } => {
            let (job, step, attempt) = named(node, attempt);
            debug!(target: "broccoli::task", %node, peer = %worker, %job, step, attempt, "task leased");
        }
        Trace::Freed { worker, attempt, lost } => {
            let ((job, step, attempt), peer) = (named(node, attempt), worker.map(tracing::field::display));
            debug!(target: "broccoli::task", %node, peer, %job, step, attempt, lost, "task is free again");
        }
        Trace::CreditReceived { worker, tasks } => {
            debug!(target: "broccoli::credit", %node, peer = %worker, tasks, "credit received");
        }
        Trace::CreditGiven { origin, tasks } => {
            debug!(target: "broccoli::credit", %node, peer = %origin, tasks, "credit given");
        }
        _ => {}
    }
}

/// Whether an event is logged at the default level of a node.
fn is_line(node: NodeId, told: &Trace) -> bool {
    match told {
        Trace::JobEnded { .. } | Trace::TaskFailed { .. } => true,
        Trace::Ran { job, failure: Some(_), .. } => job.origin != node,
        _ => false,
    }
}

/// A run has ended. If it failed for a job of this node, the failure is not logged here: this node logs it as the
/// origin.
fn ran(node: NodeId, (job, attempt): (JobId, Attempt), function: &str, took_ms: u64, failure: Option<&Failure>) {
    let (peer, step, attempt) = (job.origin, attempt.step, attempt.number);
    match failure {
        Some(Failure { cause, text: error, .. }) if peer != node => {
            warn!(target: "broccoli::task", %node, %peer, %job, step, attempt, function, took_ms, ?cause, error, "task failed");
        }
        failure => {
            let failed = failure.is_some();
            debug!(target: "broccoli::task", %node, %peer, %job, step, attempt, function, took_ms, failed, "run has ended");
        }
    }
}

fn named(origin: NodeId, Attempt { job: number, step, number: attempt }: Attempt) -> (JobId, u32, u32) {
    (JobId { origin, number }, step, attempt)
}

/// Logs an event that listeners receive, too.
pub(crate) fn event(node: NodeId, event: &NodeEvent) {
    match event {
        NodeEvent::Connected => info!(target: "broccoli::node", %node, "connected"),
        NodeEvent::Disconnected(reason) => warn!(target: "broccoli::node", %node, %reason, "disconnected"),
        NodeEvent::NotHeard => {
            warn!(target: "broccoli::node", %node, "the MQTT server does not deliver this node's own packets");
        }
        NodeEvent::PacketLimit(bytes) => {
            warn!(target: "broccoli::node", %node, bytes, "the MQTT server drops longer packets");
        }
        NodeEvent::Storage(text) => warn!(target: "broccoli::node", %node, text, "storage"),
        NodeEvent::Reboot => info!(target: "broccoli::node", %node, "a task requests a reboot"),
        NodeEvent::Cluster(event) => cluster_event(node, event),
    }
}

/// Logs an event of the core. Events about a submit are not logged here: they go to its handle.
fn cluster_event(node: NodeId, event: &Event) {
    match event {
        Event::NameTaken => warn!(target: "broccoli::node", %node, "another node has this name"),
        Event::Rejected { error: PacketError::CannotOpen, .. } => {
            warn!(target: "broccoli::node", %node, "a packet is sealed with another key");
        }
        Event::Draining(by, _) => {
            info!(target: "broccoli::node", %node, peer = by.map(tracing::field::display), "draining");
        }
        Event::GaveUp(jobs) => {
            warn!(target: "broccoli::node", %node, jobs = jobs.len(), "the time to finish is over: these jobs are lost");
        }
        Event::ModuleRefused { by, module, reason } if *by == node => {
            warn!(target: "broccoli::node", %node, %module, %reason, "module refused");
        }
        Event::ModuleRefused { by: peer, module, reason } => {
            debug!(target: "broccoli::cluster", %node, %peer, %module, %reason, "module refused");
        }
        Event::NoOrigin => debug!(target: "broccoli::cluster", %node, "no node has answered yet"),
        Event::Attached(peer) => debug!(target: "broccoli::cluster", %node, %peer, "attached"),
        Event::Rejected { sender, error: reason } => {
            let peer = sender.map(tracing::field::display);
            debug!(target: "broccoli::cluster", %node, peer, ?reason, "packet rejected");
        }
        Event::Member(peer) => debug!(target: "broccoli::cluster", %node, %peer, "member changed"),
        Event::Modules => debug!(target: "broccoli::cluster", %node, "modules changed"),
        Event::Vitals(peer, vitals) => {
            let (running, queued, run) = (vitals.running, vitals.queued, vitals.tasks_run);
            debug!(target: "broccoli::cluster", %node, %peer, running, queued, run, "vitals");
        }
        Event::Members(peer, list) => {
            debug!(target: "broccoli::cluster", %node, %peer, nodes = list.members.len(), "members");
        }
        Event::Forgotten { by: peer, node: forgotten } => {
            debug!(target: "broccoli::cluster", %node, %peer, %forgotten, "node forgotten");
        }
        Event::Jobs(peer, jobs) => {
            debug!(target: "broccoli::cluster", %node, %peer, jobs = jobs.jobs.len(), "jobs");
        }
        Event::Step(news) => debug!(target: "broccoli::cluster", %node, job = %news.job, path = ?news.path, "step"),
        _ => {}
    }
}
