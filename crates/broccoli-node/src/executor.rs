//! Runs what the core asks for: short tasks at once, long ones on the threads of their slots.
//!
//! ```text
//!   Execute ──► first slice (about 50 µs of fuel) in the node's loop ──► done: answered at once
//!                     │ not done, asleep, or a native function
//!                     ▼
//!               a slot's thread: slice, abort?, slice, … ──► finished channel
//! ```
//!
//! A task that submits a canvas waits on its slot's thread until the loop has answered. What a task asks of the
//! board is done on that thread, so that no pin keeps the loop waiting.
//!
//! It never decides what runs: the core gives it at most as many runs as there are slots.

mod progress;

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broccoli_core::{Execute, Items, RunId};
use broccoli_proto::message::Failure;
use broccoli_proto::module::NativeModule;
use broccoli_proto::{Cause, Cbor, ModuleHash};
use broccoli_wasm::{Host, HostCall, Module, Run, Step, SubmitAnswer};
use tokio::sync::mpsc::UnboundedSender;

use self::progress::Progress;
use crate::board::Board;
use crate::native::Native;
use crate::store::Installed;

/// Fuel of the first slice: about 50 µs.
const INLINE_FUEL: u64 = 10_000;
/// Fuel of a slice on a thread: about 5 ms, so that an abort is soon noticed.
const SLICE_FUEL: u64 = 1_000_000;
/// Longest line that a task may log, in bytes.
const LOG_BYTES_MAX: usize = 1_024;

/// What one run may use.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Fuel: about one unit for each instruction.
    pub fuel_max: u64,
    /// Time from start to end, waiting included.
    pub time_max: Duration,
}

impl Default for RunLimits {
    /// An hour, and fuel for about as long.
    fn default() -> RunLimits {
        RunLimits { fuel_max: 1_000_000_000_000, time_max: Duration::from_secs(3600) }
    }
}

/// What comes from the threads of a node.
#[derive(Debug)]
pub(crate) enum Report {
    /// A task has ended.
    Finished(RunId, Result<Cbor, Failure>),
    /// A running task logged a line.
    Logged(RunId, String),
    /// A running task has done so much of so much.
    Progress(RunId, u32, u32),
    /// A running task submits a canvas and waits for [`Executor::answer`]. Its bytes are unchecked.
    Submit(RunId, Vec<u8>),
    /// A task, which may, wants the machine to reboot.
    Reboot,
    /// The journal holds everything up to this write.
    Persisted(u64),
    /// The journal cannot be written, with the reason; or it can again.
    Stalled(Option<String>),
    /// A module is installed, or cannot be.
    Installed(Box<Installed>),
}

/// The executor of one node.
pub(crate) struct Executor {
    limits: RunLimits,
    result_bytes_max: usize,
    natives: HashMap<ModuleHash, HashMap<String, Native>>,
    modules: HashMap<ModuleHash, Module>,
    board: Arc<Board>,
    reports: UnboundedSender<Report>,
    /// One for each slot that was needed so far.
    threads: Vec<Slot>,
    idle: Vec<usize>,
    running: HashMap<RunId, usize>,
    seed: u64,
}

struct Slot {
    work: mpsc::Sender<Work>,
    word: Arc<Word>,
    thread: thread::JoinHandle<()>,
}

/// To a task that submits: whether the canvas was accepted, and the reason if it was not.
type Answer = (SubmitAnswer, String);

/// What the loop says to the run of a slot. Unpark the thread after a change.
#[derive(Default)]
struct Word {
    aborted: AtomicBool,
    answer: Mutex<Option<Answer>>,
}

struct Work {
    run: RunId,
    job: Job,
    started: Instant,
}

enum Job {
    Wasm(Box<Execution>),
    Native { function: Native, items: Items },
}

/// A run of Wasm, which may be a bin of several calls.
struct Execution {
    module: Module,
    function: String,
    items: Items,
    call: Option<Run<TaskHost>>,
    host: TaskHost,
    board: Arc<Board>,
    fuel_used: u64,
    wait: Wait,
    started: Instant,
}

/// What a run waits for before its next step.
enum Wait {
    Nothing,
    Time(Instant),
    /// A canvas that has not been handed to the loop yet.
    Submit(Vec<u8>),
    Answer,
    /// The board, on the thread of a slot.
    Board(HostCall),
}

enum Stepped {
    Done(Result<Cbor, Failure>),
    More,
}

/// Answers the imports of a module.
#[derive(Clone)]
struct TaskHost {
    run: RunId,
    reports: UnboundedSender<Report>,
    random: u64,
    progress: Progress,
}

impl Host for TaskHost {
    fn log(&mut self, text: &str) {
        let end = text.floor_char_boundary(LOG_BYTES_MAX);
        // Nobody listens any more when the node ends.
        let _ = self.reports.send(Report::Logged(self.run, text[..end].to_owned()));
    }

    fn now_ms(&mut self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// SplitMix64, as in the core; not for secrets.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn progress(&mut self, done: u32, total: u32) {
        self.progress.say(Instant::now(), done, total);
    }
}

impl Executor {
    /// An executor whose runs give at most `result_bytes_max` each.
    pub(crate) fn new(
        limits: RunLimits,
        result_bytes_max: usize,
        seed: u64,
        board: Arc<Board>,
        reports: UnboundedSender<Report>,
    ) -> Executor {
        Executor {
            limits,
            result_bytes_max,
            natives: HashMap::new(),
            modules: HashMap::new(),
            board,
            reports,
            threads: Vec::new(),
            idle: Vec::new(),
            running: HashMap::new(),
            seed,
        }
    }

    /// Makes the functions of a native module callable.
    pub(crate) fn add_natives(&mut self, module: &NativeModule, functions: HashMap<String, Native>) {
        self.natives.insert(module.id(), functions);
    }

    /// Makes a module callable.
    pub(crate) fn add_module(&mut self, id: ModuleHash, module: Module) {
        self.modules.insert(id, module);
    }

    /// Forgets a module.
    pub(crate) fn remove_module(&mut self, id: &ModuleHash) {
        self.modules.remove(id);
    }

    /// Starts a run. The outcome comes back at once if the run is short, else as a [`Report`].
    pub(crate) fn start(&mut self, execute: Execute) -> Option<Result<Cbor, Failure>> {
        let Execute { run, function, args, bin } = execute;
        let items = match Items::new(args, bin, self.result_bytes_max) {
            Ok(items) => items,
            Err(failure) => return Some(Err(failure)),
        };
        let started = Instant::now();
        if let Some(module) = self.modules.get(&function.module) {
            self.seed = self.seed.wrapping_add(1);
            let progress = Progress::new(run, self.reports.clone(), started);
            let host = TaskHost { run, reports: self.reports.clone(), random: self.seed, progress };
            let (module, function) = (module.clone(), function.name.clone());
            let (wait, board) = (Wait::Nothing, self.board.clone());
            let mut execution =
                Execution { module, function, items, call: None, host, board, fuel_used: 0, wait, started };
            return match execution.step(INLINE_FUEL.min(self.limits.fuel_max), &self.limits) {
                Stepped::Done(outcome) => Some(outcome),
                Stepped::More => self.hand_over(Work { run, job: Job::Wasm(Box::new(execution)), started }),
            };
        }
        match self.natives.get(&function.module).and_then(|functions| functions.get(&function.name)) {
            Some(native) => {
                let function = native.clone();
                self.hand_over(Work { run, job: Job::Native { function, items }, started })
            }
            None => Some(Err(Failure::too_small("this node does not have the function any more", None))),
        }
    }

    /// Ends a run at its next slice.
    pub(crate) fn abort(&self, run: RunId) {
        if let Some(slot) = self.running.get(&run).and_then(|at| self.threads.get(*at)) {
            slot.word.aborted.store(true, Ordering::Release);
            slot.thread.thread().unpark();
        }
    }

    /// Answers a run that submits a canvas. The reason is for the log of the task.
    pub(crate) fn answer(&self, run: RunId, answer: SubmitAnswer, why: String) {
        if let Some(slot) = self.running.get(&run).and_then(|at| self.threads.get(*at)) {
            slot.word.set_answer(Some((answer, why)));
            slot.thread.thread().unpark();
        }
    }

    /// A run that was handed to a thread has ended.
    pub(crate) fn ended(&mut self, run: RunId) {
        self.idle.extend(self.running.remove(&run));
    }

    fn hand_over(&mut self, work: Work) -> Option<Result<Cbor, Failure>> {
        let at = match self.idle.pop() {
            Some(at) => at,
            None => match Slot::spawn(self.limits, self.reports.clone()) {
                Ok(slot) => {
                    self.threads.push(slot);
                    self.threads.len() - 1
                }
                Err(error) => return Some(Err(Failure::too_small(format!("no thread for the task: {error}"), None))),
            },
        };
        let (run, slot) = (work.run, &self.threads[at]);
        slot.word.aborted.store(false, Ordering::Release);
        slot.word.set_answer(None);
        if slot.work.send(work).is_err() {
            return Some(Err(failure(Cause::Crashed, "the slot's thread has ended")));
        }
        self.running.insert(run, at);
        None
    }
}

/// Tasks that are still running when the node ends have nobody to run for.
impl Drop for Executor {
    fn drop(&mut self) {
        self.running.keys().for_each(|run| self.abort(*run));
    }
}

impl Slot {
    fn spawn(limits: RunLimits, reports: UnboundedSender<Report>) -> std::io::Result<Slot> {
        let (work, todo) = mpsc::channel::<Work>();
        let word = Arc::new(Word::default());
        let heard = word.clone();
        let thread = thread::Builder::new().name("slot".into()).spawn(move || {
            while let Ok(Work { run, job, started }) = todo.recv() {
                let progress = Progress::new(run, reports.clone(), started);
                // A slot that stays away would be taken for ever.
                let run_it = AssertUnwindSafe(|| run_to_end(job, progress, started, &limits, &heard));
                let outcome = catch_unwind(run_it).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
                if reports.send(Report::Finished(run, outcome)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Slot { work, word, thread })
    }
}

impl Word {
    fn set_answer(&self, answer: Option<Answer>) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    fn take_answer(&self) -> Option<Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Advances a run until it ends, is aborted or breaks a limit.
fn run_to_end(
    job: Job,
    progress: Progress,
    started: Instant,
    limits: &RunLimits,
    word: &Word,
) -> Result<Cbor, Failure> {
    let mut execution = match job {
        Job::Native { function, items } => {
            return run_native(&function, items, progress, started, limits, word);
        }
        Job::Wasm(execution) => execution,
    };
    let deadline = started + limits.time_max;
    loop {
        let now = Instant::now();
        check_time(now, deadline, limits, word)?;
        if let Some(until) = execution.waits_until(now, deadline, word) {
            thread::park_timeout(until - now);
        } else if let Stepped::Done(outcome) = execution.step(SLICE_FUEL, limits) {
            return outcome;
        }
    }
}

/// Whether a run may go on.
fn check_time(now: Instant, deadline: Instant, limits: &RunLimits, word: &Word) -> Result<(), Failure> {
    if word.aborted.load(Ordering::Acquire) {
        return Err(failure(Cause::Revoked, "stopped"));
    }
    if now >= deadline {
        let text = format!("ran longer than this node's limit of {} s", limits.time_max.as_secs_f64());
        return Err(failure(Cause::TimedOut, &text));
    }
    Ok(())
}

/// A panic of the function is its failure, not the node's. Limits count between the items of a
/// bin.
fn run_native(
    function: &Native,
    mut items: Items,
    progress: Progress,
    started: Instant,
    limits: &RunLimits,
    word: &Word,
) -> Result<Cbor, Failure> {
    let deadline = started + limits.time_max;
    PROGRESS.set(Some(progress));
    let mut run = || {
        while let Some(args) = items.next_args() {
            check_time(Instant::now(), deadline, limits, word)?;
            let outcome = call_native(function, &args).and_then(|value| items.push(value));
            outcome.map_err(|failure| items.name(failure))?;
        }
        Ok(items.take_result())
    };
    let outcome = run();
    if let Some(mut progress) = PROGRESS.take() {
        progress.end(started, Instant::now());
    }
    outcome
}

thread_local! {
    /// Of the native function that runs on this slot's thread.
    static PROGRESS: RefCell<Option<Progress>> = const { RefCell::new(None) };
}

/// What [`crate::native::progress`] says.
pub(crate) fn say_progress(done: u32, total: u32) {
    PROGRESS.with_borrow_mut(|progress| {
        if let Some(progress) = progress {
            progress.say(Instant::now(), done, total);
        }
    });
}

fn call_native(function: &Native, args: &Cbor) -> Result<Cbor, Failure> {
    let checked = function.description.check_args(args.as_bytes());
    checked.map_err(|error| failure(Cause::Unfit, &error.to_string()))?;
    let returned = catch_unwind(AssertUnwindSafe(|| (function.call)(args)));
    returned.map_err(|panic| panicked(panic.as_ref()))?
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    failure(Cause::Crashed, &format!("panic: {}", text.unwrap_or("no text")))
}

impl Execution {
    /// Until when the run waits, at most until `latest`; none if it can go on. Says meanwhile what
    /// the task has to say.
    fn waits_until(&mut self, now: Instant, latest: Instant, word: &Word) -> Option<Instant> {
        let progress = self.call.as_mut().map(|call| &mut call.host_mut().progress);
        let tell_at = progress.and_then(|progress| {
            progress.tell_if_due(now);
            progress.due()
        });
        let until = match std::mem::replace(&mut self.wait, Wait::Nothing) {
            Wait::Time(until) if until > now => {
                self.wait = Wait::Time(until);
                until
            }
            Wait::Nothing | Wait::Time(_) => return None,
            Wait::Submit(canvas) => {
                self.wait = Wait::Answer;
                // Nobody answers any more when the node ends, which aborts the run.
                let _ = self.host.reports.send(Report::Submit(self.host.run, canvas));
                latest
            }
            Wait::Answer => match word.take_answer() {
                Some((answer, why)) => {
                    self.call.iter_mut().for_each(|call| call.answer(answer, &why));
                    return None;
                }
                None => {
                    self.wait = Wait::Answer;
                    latest
                }
            },
            Wait::Board(call) => {
                let answer = self.board.perform(call).map_err(|error| error.to_string());
                self.call.iter_mut().for_each(|run| run.answer_call(answer.as_ref().copied().map_err(String::as_str)));
                return None;
            }
        };
        Some(tell_at.unwrap_or(until).min(until).min(latest))
    }

    /// Runs for about `fuel`; several calls of a bin may end in one step.
    fn step(&mut self, fuel: u64, limits: &RunLimits) -> Stepped {
        let goal = self.fuel_used.saturating_add(fuel);
        loop {
            let mut call = match self.call.take() {
                Some(call) => call,
                None => match self.items.next_args() {
                    None => return self.done(),
                    Some(args) => match self.module.start(&self.function, args.as_bytes(), self.host.clone()) {
                        Ok(call) => call,
                        Err(error) => return self.failed(&error),
                    },
                },
            };
            let left = goal.min(limits.fuel_max).saturating_sub(self.fuel_used).max(1);
            let before = call.fuel_used();
            let step = call.step(left);
            self.fuel_used += call.fuel_used() - before;
            match step {
                Step::Done(result) => {
                    self.host = call.into_host();
                    let outcome = match result {
                        Ok(value) => self.items.push(Cbor::from_encoded(value)),
                        Err(error) => return self.failed(&error),
                    };
                    if let Err(failure) = outcome {
                        return self.end(Err(self.items.name(failure)));
                    }
                    continue;
                }
                Step::Sleep { ms } => self.wait = Wait::Time(Instant::now() + Duration::from_millis(u64::from(ms))),
                Step::Submit { canvas } => self.wait = Wait::Submit(canvas),
                Step::Call(call) => self.wait = Wait::Board(call),
                Step::Yielded if self.fuel_used >= limits.fuel_max => {
                    self.host = call.into_host();
                    let text = format!("out of fuel: used {} of {}", self.fuel_used, limits.fuel_max);
                    return self.end(Err(self.items.name(failure(Cause::Crashed, &text))));
                }
                Step::Yielded => {}
            }
            self.call = Some(call);
            return Stepped::More;
        }
    }

    fn done(&mut self) -> Stepped {
        let result = self.items.take_result();
        self.end(Ok(result))
    }

    fn end(&mut self, outcome: Result<Cbor, Failure>) -> Stepped {
        if self.host.progress.due().is_some() {
            self.host.progress.end(self.started, Instant::now());
        }
        Stepped::Done(outcome)
    }

    fn failed(&mut self, error: &broccoli_wasm::Failure) -> Stepped {
        self.end(Err(self.items.name(told(error))))
    }
}

/// What a run has come to that gave no result. A PC has the limits that are meant for tasks: only what is a matter of
/// this machine, or of what it takes, is none of the function.
fn told(error: &broccoli_wasm::Failure) -> Failure {
    use broccoli_wasm::Failure as Wasm;
    let text = error.to_string();
    match error {
        Wasm::TaskError(_) => failure(Cause::Returned, &text),
        Wasm::Retry { after_ms, .. } => Failure { retry_after_ms: Some(*after_ms), ..failure(Cause::Returned, &text) },
        Wasm::BadArgs(_) | Wasm::BadResult(_) => failure(Cause::Unfit, &text),
        Wasm::ArgsTooLarge { max, .. } => Failure::too_small(text, Some(*max as u64)),
        Wasm::ResultTooLarge { bytes, max } => Failure::result_too_large(*bytes, *max),
        Wasm::OutOfMemory { limit: None, .. } => Failure::too_small(text, None),
        _ => failure(Cause::Crashed, &text),
    }
}

fn failure(cause: Cause, text: &str) -> Failure {
    Failure::new(cause, text)
}

#[cfg(test)]
mod tests {
    use broccoli_wasm::Failure as Wasm;

    use super::*;

    #[test]
    fn only_what_is_of_the_machine_is_none_of_the_function() {
        let too_small = |error: Wasm| told(&error).too_small.is_some();
        assert!(too_small(Wasm::ArgsTooLarge { bytes: 20_000, max: 16_384 }));
        assert!(too_small(Wasm::ResultTooLarge { bytes: 20_000, max: 16_384 }));
        assert!(too_small(Wasm::OutOfMemory { wanted: 131_072, limit: None }));
        // Every PC has these limits.
        assert!(!too_small(Wasm::OutOfMemory { wanted: 17 << 20, limit: Some(16 << 20) }));
        assert!(!too_small(Wasm::StackOverflow));
        assert!(!too_small(Wasm::Trap("unreachable".into())));
    }
}
