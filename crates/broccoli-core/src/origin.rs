//! The origin: holds accepted jobs, leases their ready tasks to workers that gave credit, and
//! takes their results.
//!
//! ```text
//!             countdown, eta, pause         credit, permit            result
//!   Unready ──► Delayed ──► Ready ◄──────────────────────► Leased ──────────────► Ended
//!      │           ▲         ▲ ▲    Return, failure with     │
//!      └───────────┼─────────┘ └────retries left, lost ──────┤
//!                  └────────────────────pause────────────────┘
//! ```
//!
//! Every lease has an attempt number that is never used twice: the first success of any attempt
//! wins, a failure counts only from the current one. The origin evaluates nothing itself; that is
//! the plan's work.

pub(crate) mod accept;
mod answers;
mod audit;
mod dispatch;
pub(crate) mod job;
pub(crate) mod journal;
mod leases;
mod progress;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;

use broccoli_proto::message::{Attempt, Message};
use broccoli_proto::packet::Address;
use broccoli_proto::{Epoch, ModuleHash, NodeId};
use litemap::LiteMap;

use crate::canvas::Effects;
use crate::content::modules::Modules;
use crate::io::SubmitId;
use crate::members::{Members, Told};
use crate::origin::accept::keys::Keys;
use crate::origin::accept::session::Session;
use crate::origin::dispatch::place::Refusals;
use crate::origin::dispatch::queue::Queue;
use crate::origin::dispatch::rates::Arbiter;
use crate::origin::job::Job;
use crate::origin::job::functions::Functions;
use crate::origin::job::memory::Memory;
use crate::origin::job::ticket::{Client, Ticket};
use crate::origin::journal::archive::Archive;
use crate::origin::journal::writes::Journal;
use crate::origin::leases::peer::{LEASES, Peer};
use crate::origin::progress::growth::Growth;
use crate::shared::Shared;
use crate::timers::Timer;

/// The origin role: what it holds, by room.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// Jobs that run, by [`JobId::number`](broccoli_proto::JobId::number).
    jobs: BTreeMap<u64, Box<Job>>,
    /// Tasks of all of them.
    tasks: u32,
    /// What all of them take.
    memory: Memory,
    /// What they call.
    functions: Functions,
    /// What waits for nodes, and for what certain nodes do.
    growth: Growth,
    /// Jobs that are over.
    archive: Archive,
    accept: Accept,
    dispatch: Dispatch,
    leases: Leases,
    journal: Journal,
    /// A buffer that is used again.
    effects: Effects,
    /// A job is over: what only it needed may go.
    pub(crate) has_closed: bool,
}

/// From canvases to jobs.
#[derive(Debug, Default)]
struct Accept {
    /// Clients that have submitted something.
    sessions: LiteMap<NodeId, Session>,
    /// Accepted submits of an earlier incarnation, until their clients say hello again.
    recovered: LiteMap<(NodeId, Epoch), BTreeMap<u32, u64>>,
    /// Jobs with a key, running and over.
    by_key: BTreeMap<String, u64>,
    /// Keys that are to be taken, and who else may hold them.
    keys: Keys,
    /// Number of the last job of this incarnation.
    last_job: u32,
    /// Jobs accepted by all incarnations.
    count: u64,
}

/// From ready tasks to leases.
#[derive(Debug, Default)]
struct Dispatch {
    queue: Queue,
    /// Whether tasks or credit have come since the last dispatch.
    due: bool,
    /// Who got the last task.
    last_worker: Option<NodeId>,
    /// Counts the starts of functions for the cluster.
    arbiter: Arbiter,
    refusals: Refusals,
}

/// What workers hold.
#[derive(Debug, Default)]
struct Leases {
    peers: LiteMap<NodeId, Box<Peer>>,
    /// Workers may still hold tasks of an earlier incarnation: nothing is leased.
    adopting: bool,
    /// This incarnation began with jobs of the one before, which knew nodes that it has not heard of.
    took_over: bool,
}

/// What the origin reads of the other roles.
pub(crate) struct Around<'a> {
    pub(crate) modules: &'a Modules,
    pub(crate) members: &'a Members,
}

impl Origin {
    pub(crate) fn new(durable: bool) -> Origin {
        Origin { journal: Journal::new(durable), ..Origin::default() }
    }

    /// Jobs held, and tasks that wait for a worker.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.jobs.len(), self.dispatch.queue.len())
    }

    /// A node says that it is there: for the first time, again, or in another incarnation. What may be a recording
    /// makes this origin ask a worker, if there is something to ask for.
    pub(crate) fn on_birth(&mut self, shared: &mut Shared, node: NodeId, told: Told, slots: u16) {
        if slots > 0 {
            self.call_soon(shared);
        }
        let Some(peer) = self.leases.peers.get_mut(&node) else {
            return;
        };
        if told.fresh {
            peer.extend(shared.now);
            peer.suspected = false;
        } else if !peer.leases.is_empty() && (peer.suspected || peer.epoch != told.epoch) {
            shared.outbox.send(node, Message::Hello);
        }
        shared.timers.set_earlier(Timer::Leases(node), shared.now + shared.timing(LEASES));
        // A new node may be the first that fits.
        self.dispatch.due = true;
    }

    /// The link of this node is up again: workers could not be heard meanwhile.
    pub(crate) fn on_connected(&mut self, shared: &mut Shared, around: &Around<'_>) {
        self.dispatch.arbiter.on_connected(shared);
        self.claim_again(shared);
        for (node, peer) in &mut self.leases.peers {
            peer.extend(shared.now);
            shared.outbox.mark(Address::Node(*node));
            shared.timers.set(Timer::Leases(*node), shared.now);
        }
        self.call_held(shared, around);
        self.growth.on_connected(shared.now);
        self.dispatch.due = true;
    }

    /// Something has changed that may let tasks fit workers that did not fit before.
    pub(crate) fn reconsider(&mut self) {
        self.dispatch.due = true;
    }
}

/// What other roles ask.
impl Origin {
    /// Whether an accepted job is bound to a module.
    pub(crate) fn uses(&self, module: &ModuleHash) -> bool {
        self.jobs.values().any(|job| job.uses(module))
    }

    /// The job of a canvas that this node itself has submitted.
    pub(crate) fn job_of(&self, id: SubmitId) -> Option<u64> {
        self.jobs.iter().find(|(_, job)| job.ticket.client == Client::Local(id)).map(|(number, _)| *number)
    }

    /// Whether a worker holds an attempt, as far as this origin knows.
    pub(crate) fn is_leased_to(&self, worker: NodeId, attempt: Attempt) -> bool {
        self.leases.peers.get(&worker).is_some_and(|peer| peer.leases.contains_key(&attempt))
    }

    /// Whether a success of an attempt would count.
    pub(crate) fn is_open(&self, attempt: Attempt) -> bool {
        self.jobs.get(&attempt.job).is_some_and(|job| job.is_open(attempt.step))
    }

    /// Whether it is known how a job has ended.
    pub(crate) fn has_ended(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(|job| job.ended) || self.archive.get(number).is_some()
    }

    /// Whether a client is still the one that has handed something in.
    pub(crate) fn is_session(&self, client: NodeId, epoch: Epoch) -> bool {
        self.accept.sessions.get(&client).is_some_and(|session| session.epoch == epoch)
    }

    pub(crate) fn ticket(&self, number: u64) -> Option<&Ticket> {
        let running = self.jobs.get(&number).map(|job| &job.ticket);
        running.or_else(|| self.archive.get(number).map(|ended| &ended.ticket))
    }

    pub(crate) fn ticket_mut(&mut self, number: u64) -> Option<&mut Ticket> {
        let running = self.jobs.get_mut(&number).map(|job| &mut job.ticket);
        running.or_else(|| self.archive.get_mut(number).map(|ended| &mut ended.ticket))
    }
}
