//! The ticket of a job, running or ended: its client, the nodes that get its news, and its state in the journal.

use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::NodeId;

use crate::io::SubmitId;
use crate::origin::journal::records::About;

/// Most nodes beside its client that get the news of a job.
const WATCHERS_MAX: usize = 8;

/// Who waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// The program that this node is part of.
    Local(SubmitId),
    /// Another node.
    Remote(NodeId),
    /// Nobody: interested nodes ask.
    Detached,
}

/// Who gets the news of a job, and how much of it is in the journal.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) client: Client,
    pub(crate) about: About,
    /// Other nodes that have asked for its news.
    watchers: Vec<NodeId>,
    /// The write of the journal that makes its acceptance safe.
    pub(crate) accepted_in: u64,
    /// The write that makes its outcome safe, once it has ended.
    pub(crate) ended_in: u64,
    /// Number of its records in the journal.
    pub(crate) records: u32,
    /// Another submit of the same job was detached.
    pub(crate) detached: bool,
    /// Time from its acceptance to its end, if it has ended in this incarnation.
    pub(crate) took: Duration,
    /// Its acceptance was reported as a trace.
    pub(crate) traced: bool,
    /// A client has received the outcome.
    pub(crate) seen: bool,
}

impl Ticket {
    /// The ticket of a job that is not in the journal yet.
    pub(crate) fn new(client: Client, about: About) -> Ticket {
        Ticket {
            client,
            about,
            watchers: Vec::new(),
            accepted_in: 0,
            ended_in: 0,
            records: 0,
            detached: false,
            took: Duration::ZERO,
            traced: false,
            seen: false,
        }
    }

    /// Adds a node that wants the news of the job.
    pub(crate) fn watch(&mut self, node: NodeId) {
        let is_client = self.client == Client::Remote(node);
        if !is_client && !self.watchers.contains(&node) && self.watchers.len() < WATCHERS_MAX {
            self.watchers.push(node);
        }
    }

    /// Removes a node that no longer wants the news. Returns whether the job continues without listeners, because a
    /// client has detached it.
    pub(crate) fn leave(&mut self, node: NodeId) -> bool {
        let is_detached = self.detached || !self.about.waits;
        self.watchers.retain(|watcher| *watcher != node);
        if self.client == Client::Remote(node) {
            self.client = Client::Detached;
        }
        is_detached
    }

    /// The other nodes that get the news of the job.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = NodeId> {
        let client = if let Client::Remote(node) = self.client { Some(node) } else { None };
        client.into_iter().chain(self.watchers.iter().copied())
    }
}
