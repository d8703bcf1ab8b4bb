//! The worker: gives origins credit, runs what they lease, and keeps results until they are safe.
//!
//! ```text
//!             Lease                 slot free              Executed            ResultAck
//!   (nothing) ─────► Held::Queued ───────────► Held::Running ───────► Held::Done ───────► (nothing)
//!       │                 ▲ │ Return, Abort         │ Abort              ▼ into no packet     ▲
//!       └─► Held::Pulling ┘ └────────► (nothing)    └────► (nothing)   Held::Large ───────────┘
//! ```
//!
//! Arguments that fit into no packet are pulled before their task is queued; a result that fits into
//! none is pulled by the origin, and its lease renewed meanwhile.
//!
//! It knows attempts and functions, never jobs. Credit is permission, not reservation: it may be
//! given to several origins at once, and what cannot start soon is given back.

mod drain;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{
    Attempt, Available, Failure, Fetch, Lease, LeasedFunction, LeasedTask, Log, Message, Progress, Renew, ResultAck,
    Return, TaskResult, TaskResults,
};
use broccoli_proto::packet::Address;
use broccoli_proto::{Cause, Cbor, Epoch, NodeId};
use litemap::LiteMap;

use crate::config::Limits;
use crate::content::blobs::{self, Holder, VALUE_OVERHEAD_BYTES, Want};
use crate::content::modules::Modules;
use crate::io::{Action, Execute, RunId};
use crate::shared::{Room, Shared};
use crate::text::{self, too_long, too_many_args};
use crate::time::{Instant, ms};
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Work that a worker wants to have before it, beyond what runs.
const WINDOW_US: u64 = 10_000;
/// Most tasks that may be under way to a worker.
const WINDOW_TASKS_MAX: u32 = 256;
/// A run that takes longer keeps its slot from being counted on.
const LONG_US: u64 = 5_000;
/// A lease is confirmed within this time, by a result or a `Renew`.
const CONFIRM: LinkTime = link_ms(20);
/// Held attempts are renewed this often.
const RENEW: LinkTime = link_ms(1_000);
/// Tasks that cannot start within this time go back.
const WAIT_MAX: LinkTime = link_ms(50);
/// Capacity that was offered to one origin is offered to the others after this time.
const OFFER: LinkTime = link_ms(10);
/// A call for help that may be a recording is answered at most this often.
const HEARSAY_AGAIN: LinkTime = link_ms(20);
/// Results are repeated after this time, doubled up to the maximum.
const RESULTS_AGAIN: LinkTime = link_ms(250);
const RESULTS_AGAIN_MAX: LinkTime = link_ms(5_000);
/// Results that no origin has wanted for this long are dropped.
const RESULTS_KEPT: LinkTime = link_ms(600_000);
/// Origins heard of within this time share the window.
const ACTIVE: LinkTime = link_ms(10_000);
/// Messages of results that are repeated in one packet.
const REPEATED_PER_PACKET_MAX: usize = 16;
/// Tasks that wait to be handed back at once to one origin; of others it hears when it sends them again.
const RETURNS_MAX: usize = 4_096;
/// About how long an attempt is on the wire.
const ATTEMPT_BYTES: usize = 24;
/// About how long a `Fetch` is: the features are its longest part.
const FETCH_BYTES: usize = 1_024;

/// The worker role.
#[derive(Debug, Default)]
pub(crate) struct Worker {
    links: LiteMap<NodeId, Box<Link>>,
    queue: VecDeque<Waiting>,
    /// Tasks whose arguments are being pulled.
    pulling: LiteMap<(NodeId, Attempt), Waiting>,
    /// A task was returned because there is no room for its arguments.
    crowded: bool,
    running: LiteMap<RunId, Running>,
    last_run: u64,
    /// Recent time of a task, in microseconds; 0 before the first.
    task_us: u64,
    tasks_run: u64,
    /// Where the round of links that get freed capacity goes on.
    round: Option<NodeId>,
}

/// What this worker has with one origin.
#[derive(Debug)]
struct Link {
    /// The origin's incarnation, once it has leased something.
    epoch: Option<Epoch>,
    /// Last batch of that incarnation.
    seen: u32,
    /// Tasks that the origin may still send.
    credit: u32,
    fetch_due: bool,
    /// It is the turn of others: the next `Fetch` gives no credit.
    withheld: bool,
    held: BTreeMap<Attempt, Held>,
    /// Bytes of results that are kept here: those that are pulled stand among the large values.
    kept_bytes: usize,
    /// Results that have not been sent.
    done: VecDeque<Done>,
    /// Results that have been sent and not acknowledged, by their number.
    unacked: VecDeque<Unacked>,
    last_number: u32,
    returns: Vec<Attempt>,
    renew_due: bool,
    result_bytes_max: u32,
    /// When the origin was last heard of, in a packet that counts.
    heard: Option<Instant>,
    /// When a call of it was last answered.
    called: Option<Instant>,
}

#[derive(Debug)]
enum Held {
    /// Its arguments are being pulled.
    Pulling(Epoch),
    Queued(Epoch),
    Running(Epoch),
    /// Its result is being pulled, or waits to be.
    Large(Epoch),
    /// Its result waits to be sent or acknowledged.
    Done,
}

/// What becomes of a leased task.
enum Fate {
    /// It had come before.
    Known,
    Queued,
    /// Its arguments are being pulled.
    Pulled,
    HandedBack,
    Failed(Failure),
}

#[derive(Debug)]
struct Waiting {
    origin: NodeId,
    function: Arc<LeasedFunction>,
    task: LeasedTask,
    since: Instant,
}

#[derive(Debug)]
struct Running {
    origin: NodeId,
    attempt: Attempt,
    since: Instant,
    timeout_ms: Option<u64>,
    function: Arc<LeasedFunction>,
}

#[derive(Debug)]
struct Done {
    /// The incarnation of the origin that leased it.
    epoch: Epoch,
    since: Instant,
    result: TaskResult,
}

#[derive(Debug)]
struct Unacked {
    results: TaskResults,
    sent: Instant,
    first_sent: Instant,
    tries: u32,
    again: bool,
}

impl Worker {
    /// Tasks running and waiting for a slot.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.running.len(), self.queue.len() + self.pulling.len())
    }

    /// Tasks run since the start.
    pub(crate) fn tasks_run(&self) -> u64 {
        self.tasks_run
    }

    /// A node is there in a new incarnation. An origin learns what is held for the one before, and what is done.
    pub(crate) fn on_session(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch) {
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
        if link.epoch.is_some_and(|known| known != epoch) && !link.held.is_empty() {
            link.fetch_due = true;
            link.renew_due = true;
            link.unacked.iter_mut().for_each(|unacked| unacked.again = true);
            shared.outbox.mark(Address::Node(from));
        }
    }

    /// Somebody says that an origin is there in this incarnation. If it is another one than that which holds leases here, it
    /// is asked.
    pub(crate) fn on_hearsay(&self, shared: &mut Shared, from: NodeId, epoch: Epoch) {
        let is_other = |link: &Link| link.epoch.is_some_and(|known| known != epoch) && !link.held.is_empty();
        let is_known = shared.sessions.epoch_of(from) == Some(epoch);
        if !is_known && self.links.get(&from).is_some_and(|link| is_other(link)) {
            shared.outbox.send(from, Message::Hello);
        }
    }

    /// An origin calls for help, and this node fits. `fresh`: the call is no recording.
    pub(crate) fn on_available(&mut self, shared: &mut Shared, from: NodeId, fresh: bool, available: &Available) {
        if shared.config.slots == 0 || shared.draining || shared.rng.below(0x1_0000) > u64::from(available.chance) {
            return;
        }
        let free = self.window(shared);
        let Some(link) = self.link(shared, from) else {
            return;
        };
        let is_early = link.called.is_some_and(|called| shared.now - called < shared.timing(HEARSAY_AGAIN));
        if (link.credit == 0 && free == 0) || (is_early && !fresh) {
            // Without credit the link stays in the round: it gets the next capacity that is freed.
            return;
        }
        link.called = Some(shared.now);
        self.fetch(shared, from);
    }

    /// Tasks to run.
    pub(crate) fn on_lease(
        &mut self,
        shared: &mut Shared,
        modules: &Modules,
        from: NodeId,
        epoch: Epoch,
        lease: Lease,
    ) {
        if shared.config.slots == 0 {
            return;
        }
        let Some(link) = self.link(shared, from) else {
            return;
        };
        link.heard = Some(shared.now);
        if link.epoch != Some(epoch) {
            link.epoch = Some(epoch);
            link.seen = 0;
        }
        shared.timers.set_earlier(Timer::Renew(from), shared.now + shared.timing(CONFIRM));
        // One packet may have overtaken another; none comes twice.
        link.seen = link.seen.max(lease.batch);
        link.result_bytes_max = lease.result_bytes_max;
        link.credit = link.credit.saturating_sub(lease.tasks.len() as u32);
        let functions: Vec<_> = lease.functions.into_iter().map(Arc::new).collect();
        for task in lease.tasks {
            if let Some(function) = functions.get(usize::from(task.function)) {
                self.take(shared, modules, (from, epoch), function, task);
            }
        }
        self.start_runs(shared);
        if !self.queue.is_empty() {
            shared.timers.set_earlier(Timer::Return, shared.now + shared.timing(CONFIRM));
        }
    }

    /// Takes a leased task, if that is what becomes of it.
    fn take(
        &mut self,
        shared: &mut Shared,
        modules: &Modules,
        (from, epoch): (NodeId, Epoch),
        function: &Arc<LeasedFunction>,
        task: LeasedTask,
    ) {
        let fate = self.fate_of(shared, modules, from, function, &task);
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
        let attempt = task.attempt;
        let waiting = Waiting { origin: from, function: function.clone(), task, since: shared.now };
        match fate {
            Fate::Known => link.renew_due = true,
            Fate::Queued => {
                link.held.insert(attempt, Held::Queued(epoch));
                self.queue.push_back(waiting);
            }
            Fate::Pulled => {
                link.held.insert(attempt, Held::Pulling(epoch));
                self.pulling.insert((from, attempt), waiting);
            }
            Fate::HandedBack => {
                if link.returns.len() < RETURNS_MAX {
                    link.returns.push(attempt);
                }
                link.fetch_due = true;
                shared.outbox.mark(Address::Node(from));
            }
            Fate::Failed(failure) => {
                link.keep_result(shared, from, (epoch, attempt), Err(failure));
                link.fetch_due = true;
                shared.outbox.mark(Address::Node(from));
            }
        }
    }

    /// What becomes of a leased task. One whose arguments are elsewhere is asked for.
    fn fate_of(
        &mut self,
        shared: &mut Shared,
        modules: &Modules,
        from: NodeId,
        function: &LeasedFunction,
        task: &LeasedTask,
    ) -> Fate {
        if is_held(&self.links, from, task.attempt) {
            return Fate::Known;
        }
        let runs = modules.runs(&function.module, &function.name);
        if !runs && modules.holds(&function.module) {
            // Handed back, it would be leased again at once, here or to another node with this module.
            return Fate::Failed(Failure::new(Cause::Unfit, format!("its module has no function {:?}", function.name)));
        }
        let (len, len_max) = (args_len(task), shared.config.limits.args_bytes_max as usize);
        if len > len_max {
            return Fate::Failed(too_many_args(len, len_max));
        }
        let held = self.queue.len() + self.pulling.len() + self.running.len();
        let is_full = held >= shared.config.limits.held_max || self.results_room(shared) == 0;
        if !runs || is_full || shared.draining {
            return Fate::HandedBack;
        }
        let Some(blob) = task.blob.as_deref().copied() else {
            return Fate::Queued;
        };
        let before = self.args_bytes();
        let is_full = before > 0 && before + len > shared.config.limits.blob_bytes_max;
        if is_full || !blobs::want(shared, from, blob, Want::Args(task.attempt)) {
            self.crowded = true;
            return Fate::HandedBack;
        }
        Fate::Pulled
    }

    /// The arguments of a task are here, or cannot be had: then the task goes back.
    pub(crate) fn on_args(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt, args: Option<Cbor>) {
        let Some(mut waiting) = self.pulling.remove(&(from, attempt)) else {
            return;
        };
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
        let Some(held) = link.held.get_mut(&attempt) else {
            return;
        };
        match (args, &*held) {
            (Some(args), Held::Pulling(epoch)) => {
                *held = Held::Queued(*epoch);
                (waiting.task.args, waiting.task.blob, waiting.since) = (args, None, shared.now);
                self.queue.push_back(waiting);
                self.start_runs(shared);
                if !self.queue.is_empty() {
                    shared.timers.set_earlier(Timer::Return, shared.now + shared.timing(CONFIRM));
                }
            }
            _ => {
                link.held.remove(&attempt);
                link.returns.push(attempt);
                (link.credit, link.fetch_due) = (0, true);
                shared.outbox.mark(Address::Node(from));
            }
        }
    }

    /// Whether an attempt is held for an origin.
    pub(crate) fn holds(&self, origin: NodeId, attempt: Attempt) -> bool {
        is_held(&self.links, origin, attempt)
    }

    /// Attempts whose results nobody waits for.
    pub(crate) fn on_abort(&mut self, shared: &mut Shared, from: NodeId, attempts: &[Attempt]) {
        let Some(link) = self.links.get_mut(&from) else {
            return;
        };
        for attempt in attempts {
            // A result on its way is not called back: its acknowledgement forgets it.
            if !matches!(link.held.get(attempt), Some(Held::Pulling(_) | Held::Queued(_) | Held::Running(_))) {
                continue;
            }
            link.held.remove(attempt);
            if let Some(run) = run_of(&self.running, from, *attempt) {
                shared.actions.push_back(Action::Abort(run));
            }
        }
        let links = &self.links;
        self.queue.retain(|waiting| is_held(links, waiting.origin, waiting.task.attempt));
        self.pulling.retain(|(origin, attempt), _| is_held(links, *origin, *attempt));
        self.rebalance(shared);
    }

    /// The origin holds these results.
    pub(crate) fn on_result_ack(&mut self, shared: &mut Shared, from: NodeId, ack: &ResultAck) {
        let was_full = self.results_room(shared) == 0;
        let Some(link) = self.links.get_mut(&from).filter(|_| ack.worker_epoch == shared.epoch) else {
            return;
        };
        link.heard = Some(shared.now);
        for number in &ack.numbers {
            let at = link.unacked.binary_search_by_key(number, |unacked| unacked.results.number);
            if let Some(unacked) = at.ok().and_then(|at| link.unacked.remove(at)) {
                unacked.results.results.iter().for_each(|result| {
                    link.held.remove(&result.attempt);
                    link.kept_bytes -= result_bytes(result);
                });
            }
        }
        if was_full {
            self.offer(shared);
        }
    }

    /// A run has ended.
    pub(crate) fn on_executed(&mut self, shared: &mut Shared, run: RunId, outcome: Result<Cbor, Failure>) {
        let Some(running) = self.running.remove(&run) else {
            return;
        };
        if running.timeout_ms.is_some() {
            shared.timers.cancel(Timer::RunTimeout(run.0));
        }
        self.tasks_run += 1;
        self.crowded = false;
        self.learn((shared.now - running.since).as_micros() as u64);
        self.finish(shared, running.origin, running.attempt, outcome);
        self.start_runs(shared);
        self.rebalance(shared);
    }

    /// The time limit of a run is over. Its slot stays taken until the shell has stopped it.
    pub(crate) fn on_run_timeout(&mut self, shared: &mut Shared, run: RunId) {
        let Some(running) = self.running.get(&run) else {
            return;
        };
        let (origin, attempt) = (running.origin, running.attempt);
        let limit = running.timeout_ms.unwrap_or_default();
        let failure = Failure::new(Cause::TimedOut, format!("took longer than its timeout of {limit} ms"));
        shared.actions.push_back(Action::Abort(run));
        self.finish(shared, origin, attempt, Err(failure));
    }

    /// A running task logged a line.
    pub(crate) fn on_logged(&self, shared: &mut Shared, run: RunId, text: String) {
        if let Some(running) = self.running.get(&run) {
            shared.outbox.send(running.origin, Message::Log(Log { attempt: running.attempt, text }));
        }
    }

    /// A running task says how far it is.
    pub(crate) fn on_progress(&self, shared: &mut Shared, run: RunId, done: u32, total: u32) {
        if let Some(running) = self.running.get(&run) {
            let progress = Progress { attempt: running.attempt, done, total };
            shared.outbox.send(running.origin, Message::Progress(progress));
        }
    }

    /// Confirms or renews what is held for an origin.
    pub(crate) fn on_renew_timer(&mut self, shared: &mut Shared, origin: NodeId) {
        let Some(link) = self.links.get_mut(&origin) else {
            return;
        };
        if link.held.values().any(|held| !matches!(held, Held::Done)) {
            link.renew_due = true;
            shared.outbox.mark(Address::Node(origin));
            shared.timers.set(Timer::Renew(origin), shared.now + shared.timing(RENEW));
        }
    }

    /// Repeats results that have not been acknowledged.
    pub(crate) fn on_results_timer(&mut self, shared: &mut Shared, origin: NodeId) {
        let Some(link) = self.links.get_mut(&origin) else {
            return;
        };
        let (now, held, kept_bytes) = (shared.now, &mut link.held, &mut link.kept_bytes);
        link.unacked.retain(|unacked| {
            let keep = now - unacked.first_sent < shared.timing(RESULTS_KEPT);
            unacked.results.results.iter().filter(|_| !keep).for_each(|result| {
                held.remove(&result.attempt);
                *kept_bytes -= result_bytes(result);
            });
            keep
        });
        while link.done.front().is_some_and(|done| now - done.since >= shared.timing(RESULTS_KEPT)) {
            if let Some(done) = link.done.pop_front() {
                link.held.remove(&done.result.attempt);
                link.kept_bytes -= result_bytes(&done.result);
            }
        }
        let mut next = (!link.done.is_empty()).then_some(now + shared.timing(RESULTS_AGAIN_MAX));
        for unacked in &mut link.unacked {
            let at = unacked.sent
                + (shared.timing(RESULTS_AGAIN) * (1 << unacked.tries.min(6))).min(shared.timing(RESULTS_AGAIN_MAX));
            if at <= now {
                unacked.again = true;
                shared.outbox.mark(Address::Node(origin));
            }
            let at = if at <= now { now + shared.timing(RESULTS_AGAIN) } else { at };
            next = Some(next.map_or(at, |next: Instant| next.min(at)));
        }
        if let Some(at) = next {
            shared.timers.set(Timer::Results(origin), at);
        }
    }

    /// Gives back what waits too long for a slot.
    pub(crate) fn on_return_timer(&mut self, shared: &mut Shared) {
        let keep = self.startable_soon(shared);
        while self.queue.len() > keep {
            let Some(waiting) = self.queue.pop_back() else {
                break;
            };
            let Some(link) = self.links.get_mut(&waiting.origin) else {
                continue;
            };
            link.held.remove(&waiting.task.attempt);
            link.returns.push(waiting.task.attempt);
            link.credit = 0;
            link.fetch_due = true;
            shared.outbox.mark(Address::Node(waiting.origin));
        }
        if !self.queue.is_empty() {
            shared.timers.set(Timer::Return, shared.now + shared.timing(CONFIRM));
        }
    }

    /// The link is up again: tell every origin what is held and what is done.
    pub(crate) fn on_connected(&mut self, shared: &mut Shared) {
        for (origin, link) in &mut self.links {
            link.fetch_due = true;
            link.renew_due = link.held.values().any(|held| !matches!(held, Held::Done));
            link.unacked.iter_mut().for_each(|unacked| unacked.again = true);
            shared.outbox.mark(Address::Node(*origin));
        }
    }

    /// Tells all origins of new modules or features.
    pub(crate) fn fetch_all(&mut self, shared: &mut Shared) {
        for (origin, link) in &mut self.links {
            link.fetch_due = true;
            shared.outbox.mark(Address::Node(*origin));
        }
    }

    /// Writes what there is for an origin, at most about `budget` bytes.
    pub(crate) fn compose(
        &mut self,
        shared: &mut Shared,
        modules: u64,
        (to, epoch): (NodeId, Epoch),
        room: Room,
        put: &mut impl FnMut(&Message),
    ) {
        let window = self.window(shared);
        let full = self.results_room(shared) == 0;
        let is_active = |link: &Link| link.heard.is_some_and(|heard| shared.now - heard < shared.timing(ACTIVE));
        let active = self.links.iter().filter(|(origin, link)| **origin == to || is_active(link)).count() as u32;
        let Some(link) = self.links.get_mut(&to) else {
            return;
        };
        let room = Room { left: room.left.saturating_sub(link.short_bytes()), ..room };
        if !link.returns.is_empty() {
            let attempts = core::mem::take(&mut link.returns);
            if let Some(origin_epoch) = link.epoch {
                put(&Message::Return(Return { origin_epoch, attempts }));
            }
        }
        // An origin that has restarted must know the worker before it believes what is held.
        if core::mem::take(&mut link.fetch_due) {
            link.credit = if core::mem::take(&mut link.withheld) { 0 } else { share(window, active) };
            put(&Message::Fetch(link.fetch(shared, epoch, modules, full)));
        }
        if core::mem::take(&mut link.renew_due) {
            link.put_renews(put);
        }
        if !link.put_results(shared, to, room, put) {
            shared.outbox.mark(Address::Node(to));
        }
    }
}

impl Worker {
    /// Whether there is something to say to an origin.
    pub(crate) fn has_for(&self, origin: NodeId) -> bool {
        self.links.get(&origin).is_some_and(|link| link.has_something())
    }

    /// The link to an origin, made when it is new. None if there are too many.
    fn link(&mut self, shared: &mut Shared, origin: NodeId) -> Option<&mut Link> {
        if !self.links.contains_key(&origin) && self.links.len() >= shared.config.limits.nodes_max {
            let idle = self.links.iter().filter(|(_, link)| link.held.is_empty()).min_by_key(|(_, link)| link.heard);
            let idle = *idle?.0;
            self.links.remove(&idle);
        }
        let link = self.links.entry(origin).or_insert_with(|| Box::new(Link::new()));
        Some(link)
    }

    /// Sends an origin a new snapshot of its credit.
    fn fetch(&mut self, shared: &mut Shared, origin: NodeId) {
        if let Some(link) = self.link(shared, origin) {
            (link.fetch_due, link.withheld) = (true, false);
            shared.outbox.mark(Address::Node(origin));
        }
    }

    /// Hands out runs as long as slots are free.
    fn start_runs(&mut self, shared: &mut Shared) {
        while self.running.len() < usize::from(shared.config.slots) {
            let Some(Waiting { origin, function, task, .. }) = self.queue.pop_front() else {
                break;
            };
            let Some(held) = self.links.get_mut(&origin).and_then(|link| link.held.get_mut(&task.attempt)) else {
                continue;
            };
            let Held::Queued(epoch) = *held else { continue };
            *held = Held::Running(epoch);
            self.last_run += 1;
            let run = RunId(self.last_run);
            if let Some(timeout_ms) = task.timeout_ms {
                shared.timers.set(Timer::RunTimeout(run.0), shared.now + ms(timeout_ms));
            }
            let running = Running {
                origin,
                attempt: task.attempt,
                since: shared.now,
                timeout_ms: task.timeout_ms,
                function: function.clone(),
            };
            self.running.insert(run, running);
            let execute = Execute { run, function, args: task.args, bin: task.bin };
            shared.actions.push_back(Action::Execute(execute));
        }
    }

    /// Keeps the result of an attempt for its origin, unless nobody waits for it any more.
    fn finish(&mut self, shared: &mut Shared, origin: NodeId, attempt: Attempt, outcome: Result<Cbor, Failure>) {
        let Some(link) = self.links.get_mut(&origin) else {
            return;
        };
        let Some(Held::Running(epoch)) = link.held.get(&attempt) else {
            return;
        };
        let epoch = *epoch;
        let outcome = fit(outcome, link.result_bytes_max, shared.config.limits.result_bytes_max);
        link.keep_result(shared, origin, (epoch, attempt), outcome);
        link.fetch_due = true;
        shared.outbox.mark(Address::Node(origin));
    }

    /// Follows the time that tasks take: an eighth of each new value.
    fn learn(&mut self, us: u64) {
        self.task_us = if self.task_us == 0 { us } else { (self.task_us * 7 + us) / 8 }.max(1);
    }

    /// How many more tasks this worker wants to be sent.
    fn window(&self, shared: &Shared) -> u32 {
        let is_idle = self.running.is_empty() && self.queue.is_empty() && self.pulling.is_empty();
        if shared.draining || shared.blobs.is_full() || (self.crowded && !is_idle) {
            return 0;
        }
        let long = self.long_runs(shared);
        let open = usize::from(shared.config.slots).saturating_sub(long) as u64;
        let per_slot = (WINDOW_US * shared.stretch()).checked_div(self.task_us).unwrap_or(1).max(1);
        let tasks = (open * per_slot).min(u64::from(WINDOW_TASKS_MAX).max(open)) as usize;
        let held = self.queue.len() + self.pulling.len() + self.running.len();
        let room = shared.config.limits.held_max.saturating_sub(held);
        tasks.saturating_sub(held - long).min(room).min(self.results_room(shared)) as u32
    }

    /// How many more tasks there is room for until origins have acknowledged results: what is held will
    /// be a result, too.
    fn results_room(&self, shared: &Shared) -> usize {
        let (held, bytes) = self.kept();
        let limits = &shared.config.limits;
        if bytes < limits.blob_bytes_max { limits.results_max.saturating_sub(held) } else { 0 }
    }

    /// Attempts that are held for all origins, and bytes of the results among them.
    fn kept(&self) -> (usize, usize) {
        self.links.values().fold((0, 0), |(held, bytes), link| (held + link.held.len(), bytes + link.kept_bytes))
    }

    /// Bytes of arguments of tasks that wait for a slot, or for their arguments.
    fn args_bytes(&self) -> usize {
        self.queue.iter().chain(self.pulling.values()).map(|waiting| args_len(&waiting.task)).sum()
    }

    /// Runs whose slots are not counted on.
    fn long_runs(&self, shared: &Shared) -> usize {
        let long_us = LONG_US * shared.stretch();
        let is_long = |running: &&Running| (shared.now - running.since).as_micros() as u64 > long_us;
        self.running.values().filter(is_long).count()
    }

    /// How many of the waiting tasks will start soon enough to be kept.
    fn startable_soon(&self, shared: &Shared) -> usize {
        let oldest = self.queue.front().map_or(Duration::ZERO, |waiting| shared.now - waiting.since);
        let open = usize::from(shared.config.slots).saturating_sub(self.long_runs(shared));
        if open == 0 {
            return 0;
        }
        let expected = shared.timing(WAIT_MAX).as_micros() as u64 / self.task_us.max(1) * open as u64;
        if oldest > shared.timing(WAIT_MAX) { open.min(self.queue.len()) } else { (expected as usize).max(open) }
    }

    /// Offers freed capacity to origins without credit, one after the other. Where it does not go
    /// round, the origin whose task has just ended waits like the others.
    fn rebalance(&mut self, shared: &mut Shared) {
        let mut starving = self.links.values().filter(|link| link.credit == 0);
        if starving.next().is_none_or(|link| link.fetch_due) && starving.next().is_none() {
            return;
        }
        let mut left = self.window(shared);
        let after = self.round;
        let is_later = |origin: &NodeId| after.is_none_or(|after| *origin > after);
        let (later, earlier): (Vec<NodeId>, Vec<NodeId>) = self.links.keys().partition(|origin| is_later(origin));
        let (mut offered, mut withheld) = (false, false);
        for origin in later.into_iter().chain(earlier) {
            let Some(link) = self.links.get_mut(&origin).filter(|link| link.credit == 0) else {
                continue;
            };
            if left > 0 {
                left -= 1;
                offered = true;
                (link.fetch_due, link.withheld) = (true, false);
                self.round = Some(origin);
                shared.outbox.mark(Address::Node(origin));
            } else if link.fetch_due {
                withheld = true;
                link.withheld = true;
            }
        }
        if offered && withheld {
            shared.timers.set(Timer::Offer, shared.now + shared.timing(OFFER));
        }
    }

    /// Capacity that was offered may not be wanted: now it is offered to all.
    pub(crate) fn on_offer_timer(&mut self, shared: &mut Shared) {
        self.offer(shared);
    }

    /// Offers capacity to all origins without credit.
    fn offer(&mut self, shared: &mut Shared) {
        if self.window(shared) == 0 {
            return;
        }
        for (origin, link) in self.links.iter_mut().filter(|(_, link)| link.credit == 0) {
            (link.fetch_due, link.withheld) = (true, false);
            shared.outbox.mark(Address::Node(*origin));
        }
    }
}

/// Invariants, for tests and the simulator.
impl Worker {
    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self, shared: &Shared) {
        assert!(self.running.len() <= usize::from(shared.config.slots), "no more runs than slots");
        assert!(self.queue.is_empty() || self.running.len() == usize::from(shared.config.slots), "no idle slot");
        assert!(self.queue.is_empty() || shared.timers.is_set(Timer::Return), "nothing waits unnoticed");
        for waiting in &self.queue {
            let held = self.links.get(&waiting.origin).and_then(|link| link.held.get(&waiting.task.attempt));
            assert!(matches!(held, Some(Held::Queued(_))), "{:?} is held", waiting.task.attempt);
        }
        for (origin, attempt) in self.pulling.keys() {
            let held = self.links.get(origin).and_then(|link| link.held.get(attempt));
            assert!(matches!(held, Some(Held::Pulling(_))), "{attempt:?} is held");
        }
        let pulling = self.links.values().flat_map(|link| link.held.values());
        assert_eq!(pulling.filter(|held| matches!(held, Held::Pulling(_))).count(), self.pulling.len());
        let queued = self.links.values().flat_map(|link| link.held.values());
        assert_eq!(queued.filter(|held| matches!(held, Held::Queued(_))).count(), self.queue.len());
        for (origin, link) in &self.links {
            link.validate(shared, *origin, &self.running);
        }
    }

    /// Which attempt of which origin a run is.
    pub(crate) fn attempt_of(&self, run: RunId) -> Option<(NodeId, Attempt)> {
        self.running.get(&run).map(|running| (running.origin, running.attempt))
    }

    /// How full each collection is.
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("origins", self.links.len(), limits.nodes_max);
        see("held", self.queue.len() + self.pulling.len() + self.running.len(), limits.held_max);
        let (results, _) = self.kept();
        see("results", results, limits.results_max);
        // What was held already may still be handed back.
        let returns = self.links.values().map(|link| link.returns.len()).max();
        see("returns", returns.unwrap_or(0), RETURNS_MAX + limits.held_max);
    }

    /// Checks that nothing is under way.
    pub(crate) fn validate_idle(&self) {
        assert!(self.running.is_empty(), "nothing runs");
        assert!(self.links.values().all(|link| link.held.is_empty()), "no attempt is held");
    }
}

impl Link {
    fn validate(&self, shared: &Shared, origin: NodeId, running: &LiteMap<RunId, Running>) {
        let (mut open, mut done) = (0, 0);
        for (attempt, held) in &self.held {
            let runs = run_of(running, origin, *attempt).is_some();
            match held {
                Held::Pulling(_) | Held::Queued(_) => assert!(!runs, "what waits does not run"),
                Held::Running(_) => assert!(runs, "what is said to run does"),
                Held::Large(_) | Held::Done => done += 1,
            }
            open += usize::from(!matches!(held, Held::Done));
        }
        assert!(open == 0 || shared.timers.is_set(Timer::Renew(origin)), "what is held is renewed");
        let unacked: usize = self.unacked.iter().map(|unacked| unacked.results.results.len()).sum();
        assert_eq!(done, unacked + self.done.len(), "a result is kept until it is acknowledged");
        let unacked_results = self.unacked.iter().flat_map(|unacked| &unacked.results.results);
        let bytes: usize = self.done.iter().map(|done| &done.result).chain(unacked_results).map(result_bytes).sum();
        assert_eq!(self.kept_bytes, bytes, "bytes of results are counted");
        assert!(unacked == 0 || shared.timers.is_set(Timer::Results(origin)), "results are sent again");
    }

    fn new() -> Link {
        Link {
            epoch: None,
            seen: 0,
            credit: 0,
            fetch_due: false,
            withheld: false,
            held: BTreeMap::new(),
            kept_bytes: 0,
            done: VecDeque::new(),
            unacked: VecDeque::new(),
            last_number: 0,
            returns: Vec::new(),
            renew_due: false,
            result_bytes_max: u32::MAX,
            heard: None,
            called: None,
        }
    }

    fn has_something(&self) -> bool {
        let is_due = self.fetch_due || self.renew_due || !self.returns.is_empty() || !self.done.is_empty();
        is_due || self.unacked.iter().any(|unacked| unacked.again)
    }

    /// Keeps what an attempt came to until the origin has it.
    fn keep_result(
        &mut self,
        shared: &mut Shared,
        origin: NodeId,
        (epoch, attempt): (Epoch, Attempt),
        outcome: Result<Cbor, Failure>,
    ) {
        self.held.insert(attempt, Held::Done);
        let result = TaskResult { attempt, outcome: outcome.map_err(Box::new), blob: None };
        self.kept_bytes += result_bytes(&result);
        self.done.push_back(Done { epoch, since: shared.now, result });
        shared.timers.set_earlier(Timer::Results(origin), shared.now + shared.timing(RESULTS_AGAIN_MAX));
    }

    /// About how long all is that waits for the origin beside results.
    fn short_bytes(&self) -> usize {
        let named = self.returns.len() + if self.renew_due { self.held.len() } else { 0 };
        named * ATTEMPT_BYTES + if self.fetch_due { FETCH_BYTES } else { 0 }
    }

    /// The snapshot for an origin in this incarnation.
    fn fetch(&self, shared: &Shared, epoch: Epoch, modules: u64, full: bool) -> Fetch {
        Fetch {
            origin_epoch: Some(epoch),
            seen: if self.epoch == Some(epoch) { self.seen } else { 0 },
            tasks: self.credit,
            bytes: shared.config.limits.credit_bytes,
            modules,
            features: shared.config.features.clone(),
            packet_bytes_max: shared.config.limits.packet_bytes_max,
            full: full.then_some(true),
            takes: Some(shared.config.limits.takes()),
        }
    }

    /// Writes results that wait, or wait again, as long as there is room. Returns whether that
    /// was all of them.
    fn put_results(&mut self, shared: &mut Shared, to: NodeId, room: Room, put: &mut impl FnMut(&Message)) -> bool {
        self.take_back_too_long(room.packet);
        let mut left = room.left;
        for (repeated, unacked) in self.unacked.iter_mut().filter(|unacked| unacked.again).enumerate() {
            let bytes = results_bytes(&unacked.results);
            if bytes > left || repeated >= REPEATED_PER_PACKET_MAX {
                return false;
            }
            left -= bytes;
            (unacked.again, unacked.sent, unacked.tries) = (false, shared.now, unacked.tries + 1);
            put(&Message::TaskResults(unacked.results.clone()));
        }
        let Some(&Done { epoch: origin_epoch, .. }) = self.done.front() else {
            return true;
        };
        let (mut results, mut is_starved) = (Vec::new(), false);
        while let Some(Done { epoch, result, .. }) = self.done.front_mut() {
            if *epoch == origin_epoch && is_large(result, room.packet) {
                self.held.insert(result.attempt, Held::Large(*epoch));
                shared.timers.set_earlier(Timer::Renew(to), shared.now + shared.timing(RENEW));
                let before = result_bytes(result);
                let is_detached = detach(shared, to, result, room.packet);
                self.kept_bytes = self.kept_bytes + result_bytes(result) - before;
                if !is_detached {
                    // Its address is marked when there is room to hold it.
                    is_starved = true;
                    break;
                }
            }
            if let Err(failure) = &mut result.outcome {
                let before = failure.text.len();
                text::cut(&mut failure.text, room.packet.saturating_sub(VALUE_OVERHEAD_BYTES));
                self.kept_bytes = self.kept_bytes + failure.text.len() - before;
            }
            let bytes = result_bytes(result);
            if *epoch != origin_epoch || bytes > left {
                break;
            }
            left -= bytes;
            results.extend(self.done.pop_front().map(|done| done.result));
        }
        if results.is_empty() {
            return is_starved;
        }
        // Kept until it is acknowledged.
        results.shrink_to_fit();
        self.last_number += 1;
        let message = Message::TaskResults(TaskResults { origin_epoch, number: self.last_number, results });
        put(&message);
        if let Message::TaskResults(results) = message {
            let unacked = Unacked { results, sent: shared.now, first_sent: shared.now, tries: 0, again: false };
            self.unacked.push_back(unacked);
            shared.timers.set_earlier(Timer::Results(to), shared.now + shared.timing(RESULTS_AGAIN));
        }
        self.done.is_empty() || is_starved
    }

    /// Results that are to be sent again and went into one packet, but do not any more: the origin takes shorter ones than
    /// was known, or has restarted. They go as if they had not been sent.
    fn take_back_too_long(&mut self, packet: usize) {
        let is_too_long = |unacked: &Unacked| unacked.again && results_bytes(&unacked.results) > packet;
        while let Some(at) = self.unacked.iter().rposition(is_too_long) {
            let Some(Unacked { results, first_sent: since, .. }) = self.unacked.remove(at) else {
                return;
            };
            let epoch = results.origin_epoch;
            for result in results.results.into_iter().rev() {
                self.done.push_front(Done { epoch, since, result });
            }
        }
    }

    /// Names what is held, an epoch of the origin at a time.
    fn put_renews(&self, put: &mut impl FnMut(&Message)) {
        let mut renews: LiteMap<Epoch, (Vec<Attempt>, Vec<Attempt>)> = LiteMap::new_vec();
        for (attempt, held) in &self.held {
            match held {
                Held::Running(epoch) | Held::Large(epoch) => renews.entry(*epoch).or_default().0.push(*attempt),
                Held::Pulling(epoch) | Held::Queued(epoch) => renews.entry(*epoch).or_default().1.push(*attempt),
                Held::Done => {}
            }
        }
        for (origin_epoch, (started, queued)) in renews {
            put(&Message::Renew(Renew { origin_epoch, started, queued }));
        }
    }
}

/// How long the arguments of a task are, wherever they are.
fn args_len(task: &LeasedTask) -> usize {
    task.blob.as_ref().map_or(task.args.as_bytes().len(), |blob| blob.bytes as usize)
}

/// Whether a result fits into no packet of so many bytes.
fn is_large(result: &TaskResult, packet: usize) -> bool {
    result.outcome.as_ref().is_ok_and(|value| value.as_bytes().len() + VALUE_OVERHEAD_BYTES > packet)
}

/// Takes the value out of a large result, for the origin to pull. Returns whether there was room to hold
/// it.
fn detach(shared: &mut Shared, origin: NodeId, result: &mut TaskResult, packet: usize) -> bool {
    let Ok(value) = &mut result.outcome else {
        return true;
    };
    let taken = core::mem::replace(value, Cbor::null());
    let holder = Holder::Result { origin, attempt: result.attempt };
    match blobs::hold(shared, origin, holder, taken, packet) {
        Ok(blob) => result.blob = Some(Box::new(blob)),
        Err(taken) => *value = taken,
    }
    result.blob.is_some()
}

/// An equal part of the window for each of several origins, never nothing as long as there is any.
fn share(window: u32, links: u32) -> u32 {
    (window / links.max(1)).max(window.min(1))
}

/// Replaces a result that is too long for its origin, which no node can help, or for this node.
fn fit(outcome: Result<Cbor, Failure>, origin_max: u32, mine_max: u32) -> Result<Cbor, Failure> {
    let fits = |bytes: usize, max: u32| bytes <= max as usize;
    match outcome {
        Ok(value) if !fits(value.as_bytes().len(), origin_max) => Err(too_long(value.as_bytes().len(), origin_max)),
        Ok(value) if !fits(value.as_bytes().len(), mine_max) => {
            Err(Failure::result_too_large(value.as_bytes().len(), mine_max as usize))
        }
        Err(mut failure) => {
            text::cut(&mut failure.text, text::FAILURE_BYTES_MAX);
            Err(failure)
        }
        outcome => outcome,
    }
}

/// About how long the address of a value is that is pulled.
const BLOB_REF_BYTES: usize = 48;

/// About how long a result is in a packet.
fn result_bytes(result: &TaskResult) -> usize {
    let body = match &result.outcome {
        Ok(value) => value.as_bytes().len(),
        Err(failure) => failure.text.len(),
    };
    let blob = if result.blob.is_some() { BLOB_REF_BYTES } else { 0 };
    body + blob + 32
}

/// The same of several.
fn results_bytes(results: &TaskResults) -> usize {
    results.results.iter().map(result_bytes).sum()
}

fn run_of(running: &LiteMap<RunId, Running>, origin: NodeId, attempt: Attempt) -> Option<RunId> {
    running.iter().find(|(_, r)| r.origin == origin && r.attempt == attempt).map(|(run, _)| *run)
}

fn is_held(links: &LiteMap<NodeId, Box<Link>>, origin: NodeId, attempt: Attempt) -> bool {
    links.get(&origin).is_some_and(|link| link.held.contains_key(&attempt))
}
