//! The origin role: holds accepted jobs, leases their ready tasks to workers with credit, and takes the results.
//!
//! ```text
//!             countdown, eta, pause         credit, permit            result
//!   Unready ──► Delayed ──► Ready ◄──────────────────────► Leased ──────────────► Ended
//!      │           ▲         ▲ ▲    Return, failure with     │
//!      └───────────┼─────────┘ └────retries left, lost ──────┤
//!                  └────────────────────pause────────────────┘
//! ```
//!
//! Every lease has an attempt number that is never used twice. The first success of any attempt wins; a failure counts
//! only from the current attempt. The origin never evaluates a canvas itself: the plan does.

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

/// The state of the origin role.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// Running jobs, by [`JobId::number`](broccoli_proto::JobId::number).
    jobs: BTreeMap<u64, Box<Job>>,
    /// Number of tasks of all running jobs.
    tasks: u32,
    /// Memory used by running jobs.
    memory: Memory,
    /// Functions that jobs call.
    functions: Functions,
    /// Tasks that wait for nodes, and runs that are tied to one node.
    growth: Growth,
    /// Jobs that have ended.
    archive: Archive,
    accept: Accept,
    dispatch: Dispatch,
    leases: Leases,
    journal: Journal,
    /// A buffer that is reused.
    effects: Effects,
    /// A job has ended: modules that only it needed may be deleted.
    pub(crate) has_closed: bool,
}

/// State for accepting canvases as jobs.
#[derive(Debug, Default)]
struct Accept {
    /// Clients that have submitted a canvas.
    sessions: LiteMap<NodeId, Session>,
    /// Submits accepted by an earlier incarnation, until their clients open a session again.
    recovered: LiteMap<(NodeId, Epoch), BTreeMap<u32, u64>>,
    /// Running and ended jobs that have a key.
    by_key: BTreeMap<String, u64>,
    /// Keys being claimed, and the nodes that may hold a job with them.
    keys: Keys,
    /// Number of the last job of this incarnation.
    last_job: u32,
    /// Number of jobs accepted by all incarnations.
    count: u64,
}

/// State for leasing ready tasks.
#[derive(Debug, Default)]
struct Dispatch {
    queue: Queue,
    /// Whether tasks or credit have arrived since the last dispatch.
    due: bool,
    /// The worker that got the last task.
    last_worker: Option<NodeId>,
    /// Counts the starts of functions that have a rate, for the whole cluster.
    arbiter: Arbiter,
    refusals: Refusals,
}

/// Tasks that workers hold.
#[derive(Debug, Default)]
struct Leases {
    peers: LiteMap<NodeId, Box<Peer>>,
    /// Workers may still hold tasks of an earlier incarnation: nothing is leased yet.
    adopting: bool,
    /// This incarnation took over jobs from the journal. The one before may have known nodes that this one has not
    /// heard from.
    took_over: bool,
}

/// State of other roles that the origin reads.
pub(crate) struct Around<'a> {
    pub(crate) modules: &'a Modules,
    pub(crate) members: &'a Members,
}

impl Origin {
    pub(crate) fn new(durable: bool) -> Origin {
        Origin { journal: Journal::new(durable), ..Origin::default() }
    }

    /// Number of running jobs, and of tasks that wait for a worker.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.jobs.len(), self.dispatch.queue.len())
    }

    /// A node has sent its birth: it is new, repeats it, or has restarted. A birth that is not fresh may be a
    /// recording; it only makes this origin ask the worker, if the worker holds leases.
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

    /// The link of this node is up again. No worker could be heard while it was down, so their leases are extended.
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

    /// Dispatches again: a change may let tasks fit workers that did not fit before.
    pub(crate) fn reconsider(&mut self) {
        self.dispatch.due = true;
    }
}

/// Queries of other roles.
impl Origin {
    /// Whether an accepted job is bound to a module.
    pub(crate) fn uses(&self, module: &ModuleHash) -> bool {
        self.jobs.values().any(|job| job.uses(module))
    }

    /// The job of a canvas that the user of this node has submitted.
    pub(crate) fn job_of(&self, id: SubmitId) -> Option<u64> {
        self.jobs.iter().find(|(_, job)| job.ticket.client == Client::Local(id)).map(|(number, _)| *number)
    }

    /// Whether a worker holds an attempt, according to this origin.
    pub(crate) fn is_leased_to(&self, worker: NodeId, attempt: Attempt) -> bool {
        self.leases.peers.get(&worker).is_some_and(|peer| peer.leases.contains_key(&attempt))
    }

    /// Whether a success of an attempt would count.
    pub(crate) fn is_open(&self, attempt: Attempt) -> bool {
        self.jobs.get(&attempt.job).is_some_and(|job| job.is_open(attempt.step))
    }

    /// Whether the outcome of a job is known.
    pub(crate) fn has_ended(&self, number: u64) -> bool {
        self.jobs.get(&number).is_some_and(|job| job.ended) || self.archive.get(number).is_some()
    }

    /// Whether a client still has a session in this incarnation.
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
