//! Executes the tasks that the core starts: short ones at once, long ones on the threads of their slots.
//!
//! ```text
//!   Execute ──► first slice (about 50 µs) in the node's loop ──► ended: answered at once
//!                     │ not ended, asleep, or it asks for something
//!                     ▼
//!               a slot's thread: answer, slice, abort?, slice, … ──► reports
//! ```
//!
//! [`Execution`] advances a run; this file provides the threads. A task that submits a canvas waits on the thread of
//! its slot until the loop has answered. Calls to the board and to functions of the program run on that thread, too, so
//! the loop never waits for them.
//!
//! It does not decide what runs: the core starts at most as many runs as there are slots.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use broccoli_core::{Execute, RunId};
use broccoli_proto::message::{Attempt, Failure};
use broccoli_proto::module::NativeModule;
use broccoli_proto::{Cause, Cbor, JobId, ModuleHash};
use broccoli_run::{Ask, Code, Execution, Items, Library, News, Pace, Progress, RunLimits, Spare, Step};
use broccoli_wasm::{Module, SubmitAnswer};
use tokio::sync::mpsc::UnboundedSender;

use crate::board::TaskBoard;
use crate::machine::{self, MACHINE, now_us};
use crate::native::Native;
use crate::panics::{self, NativeTask};
use crate::store::Installed;

/// The first slice of a run. The loop waits for it. Short tasks end in it, even if the system interrupts the process
/// during the slice.
const FIRST_SLICE: Pace = Pace::new(50, 10_000).at_least(5_000);
/// A slice on a thread. An abort takes effect after it.
const SLICE: Pace = Pace::new(5_000, 1_000_000);

/// A message from a thread of the node.
#[derive(Debug)]
pub(crate) enum Report {
    /// A task has ended.
    Finished(RunId, Result<Cbor, Failure>),
    /// A running task logged a line.
    Logged(RunId, String),
    /// A running task has done this many units, of this many.
    Progress(RunId, u32, u32),
    /// A running task submits a canvas and waits for [`Executor::answer`]. Its bytes were not checked.
    Submit(RunId, Vec<u8>),
    /// A task that may do so asks for a reboot of the machine.
    Reboot,
    /// The journal has written everything up to this write.
    Persisted(u64),
    /// The journal cannot be written, with the reason; none if it can be written again.
    Stalled(Option<String>),
    /// A module is installed, or cannot be used.
    Installed(Box<Installed>),
}

/// The executor of one node.
pub(crate) struct Executor {
    limits: RunLimits,
    result_bytes_max: usize,
    library: Library,
    /// With their full names.
    natives: HashMap<ModuleHash, HashMap<String, (Arc<str>, Native)>>,
    board: Arc<TaskBoard>,
    reports: UnboundedSender<Report>,
    first_slice: Pace,
    /// The threads of the slots. A thread is started when it is needed for the first time.
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

/// The answer to a task that submits: whether the canvas was accepted, and the reason if it was not.
type Answer = (SubmitAnswer, String);

/// Messages from the loop to the run of a slot. Unpark the thread after a change.
#[derive(Default)]
struct Word {
    aborted: AtomicBool,
    answer: Mutex<Option<Answer>>,
}

/// A run after its first slice.
struct Work {
    run: RunId,
    execution: Box<Execution>,
    /// The function that [`Ask::Function`] calls.
    native: Option<(NativeTask, Native)>,
    /// The result of the first slice.
    step: Step,
}

impl Executor {
    /// An executor. The result of each run has at most `result_bytes_max` bytes.
    pub(crate) fn new(
        limits: RunLimits,
        result_bytes_max: usize,
        seed: u64,
        library: Library,
        board: Arc<TaskBoard>,
        reports: UnboundedSender<Report>,
    ) -> Executor {
        Executor {
            limits,
            result_bytes_max,
            library,
            natives: HashMap::new(),
            board,
            reports,
            first_slice: FIRST_SLICE,
            threads: Vec::new(),
            idle: Vec::new(),
            running: HashMap::new(),
            seed,
        }
    }

    /// Makes the functions of a native module callable.
    pub(crate) fn add_natives(&mut self, module: &NativeModule, functions: HashMap<String, Native>) {
        panics::install();
        let full = |name: &String| Arc::from(format!("{}.{name}", module.name));
        let functions = functions.into_iter().map(|(name, native)| (name.clone(), (full(&name), native)));
        self.natives.insert(module.id(), functions.collect());
    }

    /// Makes a module callable.
    pub(crate) fn add_module(&mut self, id: ModuleHash, module: Module) {
        self.library.add(id, module);
    }

    /// Removes a module.
    pub(crate) fn remove_module(&mut self, id: &ModuleHash) {
        self.library.remove(id);
    }

    /// Starts a run. If it ends in the first slice, returns its outcome. Otherwise the outcome is sent as a [`Report`].
    /// `attempt` names the run in log lines.
    pub(crate) fn start(
        &mut self,
        execute: Execute,
        attempt: Option<(JobId, Attempt)>,
    ) -> Option<Result<Cbor, Failure>> {
        let Execute { run, function, args, bin } = execute;
        let items = match Items::new(args, bin, self.result_bytes_max) {
            Ok(items) => items,
            Err(failure) => return Some(Err(failure)),
        };
        let native = self.natives.get(&function.module).and_then(|functions| functions.get(&function.name));
        let native = native.map(|(name, native)| (NativeTask { function: name.clone(), attempt }, native.clone()));
        let code = match &native {
            Some(_) => Some(Code::Shell),
            None => self.library.code(&function.module),
        };
        let Some(code) = code else {
            return Some(Err(Failure::too_small("this node does not have the function any more", None)));
        };
        self.seed = self.seed.wrapping_add(1);
        let mut execution = Execution::new(code, function.name.clone(), items, self.limits, MACHINE, self.seed);
        let step = execution.step(&mut self.first_slice, self.library.spare());
        tell_news(run, &mut execution, &self.reports);
        match step {
            Step::Ended(outcome) => Some(outcome),
            step => self.hand_over(Work { run, execution: Box::new(execution), native, step }),
        }
    }

    /// Ends a run at its next slice.
    pub(crate) fn abort(&self, run: RunId) {
        if let Some(slot) = self.running.get(&run).and_then(|at| self.threads.get(*at)) {
            slot.word.aborted.store(true, Ordering::Release);
            slot.thread.thread().unpark();
        }
    }

    /// Answers a run that submits a canvas. `why` goes to the log of the task.
    pub(crate) fn answer(&self, run: RunId, answer: SubmitAnswer, why: String) {
        if let Some(slot) = self.running.get(&run).and_then(|at| self.threads.get(*at)) {
            slot.word.set_answer(Some((answer, why)));
            slot.thread.thread().unpark();
        }
    }

    /// The run of a thread has ended.
    pub(crate) fn ended(&mut self, run: RunId) {
        self.idle.extend(self.running.remove(&run));
    }

    fn hand_over(&mut self, work: Work) -> Option<Result<Cbor, Failure>> {
        let at = match self.idle.pop() {
            Some(at) => at,
            None => match Slot::spawn(self.board.clone(), self.reports.clone()) {
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
            return Some(Err(Failure::new(Cause::Crashed, "the slot's thread has ended")));
        }
        self.running.insert(run, at);
        None
    }
}

/// When the node ends, its running tasks are aborted.
impl Drop for Executor {
    fn drop(&mut self) {
        for run in self.running.keys() {
            self.abort(*run);
        }
    }
}

impl Slot {
    fn spawn(board: Arc<TaskBoard>, reports: UnboundedSender<Report>) -> std::io::Result<Slot> {
        let (work, todo) = mpsc::channel::<Work>();
        let word = Arc::new(Word::default());
        let heard = word.clone();
        let thread = thread::Builder::new().name("slot".into()).spawn(move || {
            let mut pace = SLICE;
            while let Ok(work) = todo.recv() {
                let run = work.run;
                // If the thread ended here, its slot would stay busy.
                let run_it = AssertUnwindSafe(|| run_to_end(work, &mut pace, &board, &heard, &reports));
                let outcome = catch_unwind(run_it).unwrap_or_else(|panic| Err(panicked(panics::text(panic.as_ref()))));
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

/// Advances a run until it ends. When the node ends, it aborts the run, and errors of sending are ignored.
fn run_to_end(
    work: Work,
    pace: &mut Pace,
    board: &TaskBoard,
    word: &Word,
    reports: &UnboundedSender<Report>,
) -> Result<Cbor, Failure> {
    let Work { run, mut execution, native, mut step } = work;
    // For the calls of a bin. It ends with the run, because it holds a module.
    let mut spare = Spare::default();
    loop {
        match step {
            Step::Ended(outcome) => return outcome,
            Step::Yielded => {}
            Step::Waits => {
                let wait = execution.due_us().saturating_sub(now_us());
                thread::park_timeout(Duration::from_micros(wait));
            }
            Step::Ask(Ask::Submit(canvas)) => {
                let _ = reports.send(Report::Submit(run, canvas));
            }
            Step::Ask(Ask::Board(call)) => {
                let answer = board.perform(call);
                execution.answer_board(answer.as_ref().copied().map_err(String::as_str));
            }
            Step::Ask(Ask::Vitals) => execution.answer_vitals(machine::vitals()),
            Step::Ask(Ask::Function(args)) => {
                PROGRESS.set(Some((*execution.progress_mut(), run, reports.clone())));
                let outcome = call_native(native.as_ref(), &args);
                if let Some((progress, ..)) = PROGRESS.take() {
                    *execution.progress_mut() = progress;
                }
                execution.answer_call(outcome);
            }
        }
        if word.aborted.load(Ordering::Acquire) {
            execution.abort();
        }
        if let Some((answer, why)) = word.take_answer() {
            execution.answer_submit(answer, &why);
        }
        step = execution.step(pace, &mut spare);
        tell_news(run, &mut execution, reports);
    }
}

fn tell_news(run: RunId, execution: &mut Execution, reports: &UnboundedSender<Report>) {
    execution.take_news(|news| {
        let _ = reports.send(match news {
            News::Logged(line) => Report::Logged(run, line),
            News::Progress(done, total) => Report::Progress(run, done, total),
            News::Reboot => Report::Reboot,
        });
    });
}

thread_local! {
    /// The progress of the native function that runs on this thread.
    static PROGRESS: RefCell<Option<(Progress, RunId, UnboundedSender<Report>)>> = const { RefCell::new(None) };
}

/// Receives the reports of [`crate::native::progress`].
pub(crate) fn say_progress(done: u32, total: u32) {
    PROGRESS.with_borrow_mut(|running| {
        let Some((progress, run, reports)) = running else { return };
        progress.say(done, total);
        if let Some((done, total)) = progress.tell(now_us()) {
            let _ = reports.send(Report::Progress(*run, done, total));
        }
    });
}

/// Calls a native function. A panic of the function is a failure of the task, and does not end the node.
fn call_native(native: Option<&(NativeTask, Native)>, args: &Cbor) -> Result<Cbor, Failure> {
    let (task, native) = native.ok_or_else(|| Failure::new(Cause::Crashed, "the program has no such function"))?;
    let checked = native.description.check_args(args.as_bytes());
    checked.map_err(|error| Failure::new(Cause::Unfit, error.to_string()))?;
    let returned = catch_unwind(AssertUnwindSafe(|| panics::call(task, || (native.call)(args))));
    returned.map_err(|panic| panicked(panics::text(panic.as_ref())))?
}

fn panicked(text: &str) -> Failure {
    Failure::new(Cause::Crashed, format!("panic: {text}"))
}
