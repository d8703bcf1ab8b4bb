//! Takes leased tasks, starts their runs in free slots, and ends them with a result, an abort or a return.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, Failure, Lease, LeasedFunction, LeasedTask, Log, Message, Progress};
use broccoli_proto::packet::Address;
use broccoli_proto::{Cause, Cbor, Epoch, JobId, NodeId};

use super::Worker;
use super::account::{Held, RETURNS_MAX, is_held};
use super::run::{Running, Waiting, args_len, run_of};
use crate::content::modules::Modules;
use crate::content::values::pulls::Purpose;
use crate::io::{Action, Execute, RunId};
use crate::shared::Shared;
use crate::text::{self, too_long, too_many_args};
use crate::time::ms;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};
use crate::trace::{Trace, TraceLevel};

/// A lease is confirmed within this time, by a result or a `Renew`.
const CONFIRM: LinkTime = link_ms(20);

/// What the worker does with a leased task.
enum Fate {
    /// It was leased before.
    Known,
    Queued,
    /// Its arguments are being pulled.
    Pulled,
    HandedBack,
    Failed(Failure),
}

impl Worker {
    /// An origin sends a lease.
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
        let Some(account) = self.account(shared, from) else {
            return;
        };
        account.heard = Some(shared.now);
        shared.counters.leases_received += lease.tasks.len() as u64;
        if account.epoch != Some(epoch) {
            account.epoch = Some(epoch);
            account.seen = 0;
        }
        shared.timers.set_earlier(Timer::Renew(from), shared.now + shared.timing(CONFIRM));
        // Packets may arrive in another order; none arrives twice.
        account.seen = account.seen.max(lease.batch);
        account.result_bytes_max = lease.result_bytes_max;
        account.credit = account.credit.saturating_sub(lease.tasks.len() as u32);
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

    /// Takes a leased task, or refuses it.
    fn take(
        &mut self,
        shared: &mut Shared,
        modules: &Modules,
        (from, epoch): (NodeId, Epoch),
        function: &Arc<LeasedFunction>,
        task: LeasedTask,
    ) {
        let fate = self.fate_of(shared, modules, from, function, &task);
        let Some(account) = self.accounts.get_mut(&from) else {
            return;
        };
        let attempt = task.attempt;
        let waiting = Waiting { origin: from, function: function.clone(), task, since: shared.now };
        match fate {
            Fate::Known => account.renew_due = true,
            Fate::Queued => {
                account.held.insert(attempt, Held::Queued(epoch));
                self.queue.push_back(waiting);
            }
            Fate::Pulled => {
                account.held.insert(attempt, Held::Pulling(epoch));
                self.pulling.insert((from, attempt), waiting);
            }
            Fate::HandedBack => {
                if account.returns.len() < RETURNS_MAX {
                    account.returns.push(attempt);
                }
                account.fetch_due = true;
                shared.outbox.mark(Address::Node(from));
            }
            Fate::Failed(failure) => {
                account.store_result(shared, from, (epoch, attempt), Err(failure));
                account.fetch_due = true;
                shared.outbox.mark(Address::Node(from));
            }
        }
    }

    /// Decides what to do with a leased task. Starts the pull of arguments that are not in the message.
    fn fate_of(
        &mut self,
        shared: &mut Shared,
        modules: &Modules,
        from: NodeId,
        function: &LeasedFunction,
        task: &LeasedTask,
    ) -> Fate {
        if is_held(&self.accounts, from, task.attempt) {
            return Fate::Known;
        }
        let runs = modules.runs(&function.module, &function.name);
        if !runs && modules.holds(&function.module) {
            // If it were returned, it would be leased again at once, to this node or another one with the module.
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
        let purpose = Purpose::Args(task.attempt);
        if is_full || !shared.values.pull(shared.now, &mut shared.timers, from, blob, purpose) {
            self.crowded = true;
            return Fate::HandedBack;
        }
        Fate::Pulled
    }

    /// The arguments of a task were pulled, or the pull has failed: then the task is returned.
    pub(crate) fn on_args(&mut self, shared: &mut Shared, from: NodeId, attempt: Attempt, args: Option<Cbor>) {
        let Some(mut waiting) = self.pulling.remove(&(from, attempt)) else {
            return;
        };
        let Some(account) = self.accounts.get_mut(&from) else {
            return;
        };
        let Some(held) = account.held.get_mut(&attempt) else {
            return;
        };
        match (args, &*held) {
            (Some(args), Held::Pulling(epoch)) => {
                *held = Held::Queued(*epoch);
                waiting.task.args = args;
                waiting.task.blob = None;
                waiting.since = shared.now;
                self.queue.push_back(waiting);
                self.start_runs(shared);
                if !self.queue.is_empty() {
                    shared.timers.set_earlier(Timer::Return, shared.now + shared.timing(CONFIRM));
                }
            }
            _ => {
                account.hand_back(attempt);
                account.credit = 0;
                account.fetch_due = true;
                shared.outbox.mark(Address::Node(from));
            }
        }
    }

    /// An origin aborts attempts: their results are not needed.
    pub(crate) fn on_abort(&mut self, shared: &mut Shared, from: NodeId, attempts: &[Attempt]) {
        let Some(account) = self.accounts.get_mut(&from) else {
            return;
        };
        for attempt in attempts {
            // A result that was sent stays until it is acknowledged.
            if !matches!(account.held.get(attempt), Some(Held::Pulling(_) | Held::Queued(_) | Held::Running(_))) {
                continue;
            }
            account.held.remove(attempt);
            if let Some(run) = run_of(&self.running, from, *attempt) {
                shared.actions.push_back(Action::Abort(run));
            }
        }
        let accounts = &self.accounts;
        self.queue.retain(|waiting| is_held(accounts, waiting.origin, waiting.task.attempt));
        self.pulling.retain(|(origin, attempt), _| is_held(accounts, *origin, *attempt));
        self.rebalance(shared);
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
        self.finish(shared, &running, outcome);
        self.start_runs(shared);
        self.rebalance(shared);
    }

    /// The time limit of a run has passed. Its slot stays in use until the shell has stopped it.
    pub(crate) fn on_run_timeout(&mut self, shared: &mut Shared, run: RunId) {
        let Some(running) = self.running.get(&run).cloned() else {
            return;
        };
        let limit = running.timeout_ms.unwrap_or_default();
        let failure = Failure::new(Cause::TimedOut, format!("took longer than its timeout of {limit} ms"));
        shared.actions.push_back(Action::Abort(run));
        self.finish(shared, &running, Err(failure));
    }

    /// A running task logged a line.
    pub(crate) fn on_logged(&self, shared: &mut Shared, run: RunId, text: String) {
        if let Some(running) = self.running.get(&run) {
            shared.outbox.send(running.origin, Message::Log(Log { attempt: running.attempt, text }));
        }
    }

    /// A running task reports its progress.
    pub(crate) fn on_progress(&self, shared: &mut Shared, run: RunId, done: u32, total: u32) {
        if let Some(running) = self.running.get(&run) {
            let progress = Progress { attempt: running.attempt, done, total };
            shared.outbox.send(running.origin, Message::Progress(progress));
        }
    }

    /// Returns tasks that would wait too long for a slot.
    pub(crate) fn on_return_timer(&mut self, shared: &mut Shared) {
        let keep = self.startable_soon(shared);
        while self.queue.len() > keep {
            let Some(waiting) = self.queue.pop_back() else {
                break;
            };
            let Some(account) = self.accounts.get_mut(&waiting.origin) else {
                continue;
            };
            account.hand_back(waiting.task.attempt);
            account.credit = 0;
            account.fetch_due = true;
            shared.outbox.mark(Address::Node(waiting.origin));
        }
        if !self.queue.is_empty() {
            shared.timers.set(Timer::Return, shared.now + shared.timing(CONFIRM));
        }
    }

    /// Starts runs while slots are free.
    pub(super) fn start_runs(&mut self, shared: &mut Shared) {
        while self.running.len() < usize::from(shared.config.slots) {
            let Some(Waiting { origin, function, task, .. }) = self.queue.pop_front() else {
                break;
            };
            let Some(held) = self.accounts.get_mut(&origin).and_then(|account| account.held.get_mut(&task.attempt))
            else {
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
            shared.trace(TraceLevel::Tasks, || Trace::Started {
                job: JobId { origin, number: running.attempt.job },
                attempt: running.attempt,
                function: running.function.clone(),
            });
            self.running.insert(run, running);
            let execute = Execute { run, function, args: task.args, bin: task.bin };
            shared.actions.push_back(Action::Execute(execute));
        }
    }

    /// Keeps the result of an attempt for its origin, unless it is not needed any more.
    pub(super) fn finish(&mut self, shared: &mut Shared, running: &Running, outcome: Result<Cbor, Failure>) {
        let (origin, attempt) = (running.origin, running.attempt);
        let Some(account) = self.accounts.get_mut(&origin) else {
            return;
        };
        let Some(Held::Running(epoch)) = account.held.get(&attempt) else {
            return;
        };
        let epoch = *epoch;
        let outcome = limit_result(outcome, account.result_bytes_max, shared.config.limits.result_bytes_max);
        shared.counters.tasks_failed += u64::from(outcome.is_err());
        trace_run(shared, running, outcome.as_ref().err());
        account.store_result(shared, origin, (epoch, attempt), outcome);
        account.fetch_due = true;
        shared.outbox.mark(Address::Node(origin));
    }
}

/// Replaces a result that is too large with a failure: for its origin, which no other node can change, or for this
/// node.
fn limit_result(outcome: Result<Cbor, Failure>, origin_max: u32, mine_max: u32) -> Result<Cbor, Failure> {
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

/// Traces the end of a run. A failure is also traced at level `Jobs` if the origin is another node, whose traces may
/// not be seen here.
fn trace_run(shared: &mut Shared, running: &Running, failure: Option<&Failure>) {
    let is_told = failure.is_some() && running.origin != shared.me();
    let level = if is_told { TraceLevel::Jobs } else { TraceLevel::Tasks };
    let took = shared.now - running.since;
    shared.trace(level, || Trace::Ran {
        job: JobId { origin: running.origin, number: running.attempt.job },
        attempt: running.attempt,
        function: running.function.clone(),
        took,
        failure: failure.cloned().map(Box::new),
    });
}
