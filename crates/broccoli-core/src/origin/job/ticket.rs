//! What an origin keeps of a job as long as it knows it, running or over.

use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::NodeId;

use crate::io::SubmitId;
use crate::origin::journal::records::About;

/// Nodes beside its client that hear of a job.
const WATCHERS_MAX: usize = 8;

/// Who waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// The program that this node is part of.
    Local(SubmitId),
    /// Another node.
    Remote(NodeId),
    /// Nobody: whoever wants to know asks.
    Detached,
}

/// Who hears of a job, and how far the journal has it.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) client: Client,
    pub(crate) about: About,
    /// Other nodes that have asked after it.
    watchers: Vec<NodeId>,
    /// The write of the journal that makes its acceptance safe.
    pub(crate) accepted_in: u64,
    /// The write that makes its outcome safe, once it has ended.
    pub(crate) ended_in: u64,
    /// Records that the journal has of it.
    pub(crate) records: u32,
    /// Another submit of the same job was detached.
    pub(crate) detached: bool,
    /// How long it was from its acceptance to its end, once it has ended in this incarnation.
    pub(crate) took: Duration,
    /// Its acceptance was traced.
    pub(crate) traced: bool,
    /// Somebody knows how the job ended.
    pub(crate) seen: bool,
}

impl Ticket {
    /// Of a job that the journal does not have yet.
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

    /// Notes that a node wants to hear of the job.
    pub(crate) fn watch(&mut self, node: NodeId) {
        let is_client = self.client == Client::Remote(node);
        if !is_client && !self.watchers.contains(&node) && self.watchers.len() < WATCHERS_MAX {
            self.watchers.push(node);
        }
    }

    /// A node waits no more for the job. Returns whether it goes on whoever waits, since somebody has detached it.
    pub(crate) fn leave(&mut self, node: NodeId) -> bool {
        let is_detached = self.detached || !self.about.waits;
        self.watchers.retain(|watcher| *watcher != node);
        if self.client == Client::Remote(node) {
            self.client = Client::Detached;
        }
        is_detached
    }

    /// The other nodes that hear of the job.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = NodeId> {
        let client = if let Client::Remote(node) = self.client { Some(node) } else { None };
        client.into_iter().chain(self.watchers.iter().copied())
    }
}
