//! Executes runs in slices of about 5 ms. The loop does its other work between the slices.
//!
//! ```text
//!   Execute ──► a slice now ──► ended
//!                 │ not ended     ▲
//!                 ▼               │
//!               packets, timers, a slice of the next run …
//! ```
//!
//! [`Execution`] advances a run; this file runs them in turn. It does not decide what runs: the core starts at most as
//! many runs as there are slots. The loop waits during a slice. An abort takes effect between slices.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use broccoli_core::{Execute, RunId};
use broccoli_proto::Cbor;
use broccoli_proto::message::Failure;
use broccoli_run::{Ask, Builtins, Execution, Items, Library, Machine, MachineVitals, News, Pace, RunLimits, Step};
use broccoli_wasm::SubmitAnswer;
use embassy_time::Instant;

use crate::device::{Board, Device, Memory};

/// Time of a slice, and the fuel of the first ones, before their time is known.
const SLICE: Pace = Pace::new(5_000, 10_000);
/// Limits of a run.
pub(crate) const LIMITS: broccoli_wasm::Limits = broccoli_wasm::Limits::chip();

/// The result of a step of a run.
#[derive(Debug)]
pub(crate) enum Report {
    /// The task has ended.
    Finished(RunId, Result<Cbor, Failure>),
    /// The task produced output.
    News(RunId, News),
    /// The task submits a canvas and waits for [`Executor::answer`]. Its bytes are unchecked.
    Submit(RunId, Vec<u8>),
}

/// The executor of one node.
pub(crate) struct Executor {
    result_bytes_max: usize,
    machine: Machine,
    board: Board,
    memory: fn() -> Memory,
    library: Library,
    /// The runs, in the order of their next slices.
    running: VecDeque<(RunId, Box<Execution>)>,
    pace: Pace,
    seed: u64,
}

impl Executor {
    /// An executor. The result of each run has at most `result_bytes_max` bytes.
    pub(crate) fn new(result_bytes_max: usize, device: &Device, machine: Machine, builtins: Builtins) -> Executor {
        Executor {
            result_bytes_max,
            machine,
            board: device.board,
            memory: device.memory,
            library: Library::new(builtins),
            running: VecDeque::new(),
            pace: SLICE,
            seed: device.seed,
        }
    }

    /// Whether nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// The modules that can be called.
    pub(crate) fn library(&mut self) -> &mut Library {
        &mut self.library
    }

    /// Starts a run. [`Executor::step`] advances it.
    ///
    /// # Errors
    /// The run cannot start.
    pub(crate) fn start(&mut self, execute: Execute) -> Result<(), Failure> {
        let Execute { run, function, args, bin } = execute;
        let items = Items::new(args, bin, self.result_bytes_max)?;
        let code = self.library.code(&function.module);
        let code = code.ok_or_else(|| Failure::too_small("this node does not have the function any more", None))?;
        self.seed = self.seed.wrapping_add(1);
        let limits = RunLimits::default();
        let execution = Execution::new(code, function.name.clone(), items, limits, self.machine, self.seed);
        // The new run is the next one, so a short task does not wait for the slices of long ones.
        self.running.push_front((run, Box::new(execution)));
        Ok(())
    }

    /// Ends a run at its next step.
    pub(crate) fn abort(&mut self, run: RunId) {
        if let Some(execution) = self.find(run) {
            execution.abort();
        }
    }

    /// Answers a run that submits a canvas. `why` goes to the log of the task.
    pub(crate) fn answer(&mut self, run: RunId, answer: SubmitAnswer, why: &str) {
        if let Some(execution) = self.find(run) {
            execution.answer_submit(answer, why);
        }
    }

    fn find(&mut self, run: RunId) -> Option<&mut Execution> {
        self.running.iter_mut().find(|(id, _)| *id == run).map(|(_, execution)| &mut **execution)
    }

    /// When [`Executor::step`] has something to do; a time in the past if it has now.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.running.iter().map(|(_, execution)| execution.due_us()).min().map(Instant::from_micros)
    }

    /// Gives a slice to the next run that can use it. The result is added to `reports`. Returns false if there was
    /// none.
    pub(crate) fn step(&mut self, reports: &mut Vec<Report>) -> bool {
        let now_us = (self.machine.now_us)();
        let Some(at) = self.running.iter().position(|(_, execution)| execution.due_us() <= now_us) else {
            return false;
        };
        let Some((run, mut execution)) = self.running.remove(at) else { return false };
        let step = execution.step(&mut self.pace, self.library.spare());
        execution.take_news(|news| reports.push(Report::News(run, news)));
        match step {
            Step::Ended(outcome) => {
                reports.push(Report::Finished(run, outcome));
                return true;
            }
            Step::Ask(Ask::Submit(canvas)) => reports.push(Report::Submit(run, canvas)),
            Step::Ask(Ask::Board(call)) => execution.answer_board((self.board)(call)),
            Step::Ask(Ask::Vitals) => {
                let Memory { used, free, .. } = (self.memory)();
                let (memory_bytes, memory_free_bytes) = (Some((used + free) as u64), Some(free as u64));
                execution.answer_vitals(MachineVitals { load: None, memory_bytes, memory_free_bytes });
            }
            // The firmware has no functions of its own.
            Step::Ask(Ask::Function(_)) | Step::Yielded | Step::Waits => {}
        }
        self.running.push_back((run, execution));
        true
    }
}
