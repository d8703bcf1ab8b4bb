//! Runs what the core asks for: Wasm in slices of about 5 ms, with everything else in between.
//!
//! ```text
//!   Execute ──► a slice now ──► done
//!                 │ not done      ▲
//!                 ▼               │
//!               packets, timers, a slice of the next run …
//! ```
//!
//! It never decides what runs: the core gives it at most as many runs as there are slots. One
//! slice holds up the loop; an abort counts between slices.

mod progress;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use broccoli_abi::HostCall;
use broccoli_core::{Execute, Items, RunId};
use broccoli_proto::message::Failure;
use broccoli_proto::{Cause, Cbor, ModuleHash};
use broccoli_wasm::{Host, Module, Run, Step, SubmitAnswer};
use embassy_time::{Duration, Instant};
use litemap::LiteMap;

use self::progress::Progress;
use crate::builtin::{Answer, Blink, Builtins};
use crate::device::Device;

/// Fuel of the first slices, until their time was measured.
const FUEL_AT_FIRST: u64 = 10_000;
/// Bounds of what is made of the measurements.
const FUEL_MIN: u64 = 1_000;
const FUEL_MAX: u64 = 10_000_000;
/// How long a slice is to take.
const SLICE: Duration = Duration::from_millis(5);
/// Longest run, waiting included. Fuel needs no limit of its own: each slice looks at the clock.
const RUN_MAX: Duration = Duration::from_secs(3600);
/// What a run may have.
pub(crate) const LIMITS: broccoli_wasm::Limits = broccoli_wasm::Limits::chip();
/// What a call of a function of the node's own costs a slice.
const BUILTIN_FUEL: u64 = 500;
/// Longest line that a task may log, in bytes.
const LOG_BYTES_MAX: usize = 1_024;

/// Does what a task asks of the board.
type Board = fn(HostCall) -> Result<i32, &'static str>;

/// What a step of a run has led to.
#[derive(Debug)]
pub(crate) enum Report {
    /// The task has ended.
    Finished(RunId, Result<Cbor, Failure>),
    /// The task logged a line.
    Logged(RunId, String),
    /// The task has done so much of so much.
    Progress(RunId, u32, u32),
    /// The task submits a canvas and waits for [`Executor::answer`]. Its bytes are unchecked.
    Submit(RunId, Vec<u8>),
    /// A task, which may, wants the chip to start again.
    Reboot,
}

/// The executor of one node.
pub(crate) struct Executor {
    result_bytes_max: usize,
    unix_ms: fn() -> Option<u64>,
    board: Board,
    builtins: Builtins,
    modules: LiteMap<ModuleHash, Module>,
    /// In the order of their next slices.
    running: VecDeque<Execution>,
    slice_fuel: u64,
    seed: u64,
}

/// A run, which may be a bin of several calls.
struct Execution {
    run: RunId,
    code: Code,
    function: String,
    items: Items,
    call: Option<Call>,
    host: TaskHost,
    /// Until when it sleeps.
    asleep: Option<Instant>,
    started: Instant,
    aborted: bool,
}

/// What a run calls a function of.
enum Code {
    Wasm(Module),
    /// A module that every node has by itself.
    Builtin(ModuleHash),
}

/// A call that takes more than one step.
enum Call {
    Wasm(Box<Run<TaskHost>>),
    Blink(Blink),
}

enum Stepped {
    Done(Result<Cbor, Failure>),
    Submit(Vec<u8>),
    More,
}

/// Answers the imports of a module, and keeps what the task says until the end of the slice.
#[derive(Clone)]
struct TaskHost {
    unix_ms: fn() -> Option<u64>,
    random: u64,
    progress: Progress,
    lines: Vec<String>,
    reboots: bool,
}

impl Host for TaskHost {
    fn log(&mut self, text: &str) {
        self.lines.push(text[..text.floor_char_boundary(LOG_BYTES_MAX)].into());
    }

    fn now_ms(&mut self) -> i64 {
        let unix_ms = (self.unix_ms)().unwrap_or_else(|| Instant::now().as_millis());
        i64::try_from(unix_ms).unwrap_or(i64::MAX)
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
        self.progress.say(done, total);
    }
}

impl Executor {
    /// An executor whose runs give at most `result_bytes_max` each.
    pub(crate) fn new(result_bytes_max: usize, device: &Device, builtins: Builtins) -> Executor {
        Executor {
            result_bytes_max,
            unix_ms: device.unix_ms,
            board: device.board,
            builtins,
            modules: LiteMap::new_vec(),
            running: VecDeque::new(),
            slice_fuel: FUEL_AT_FIRST,
            seed: device.seed,
        }
    }

    /// Whether nothing runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether a module is callable.
    pub(crate) fn has_module(&self, id: &ModuleHash) -> bool {
        self.builtins.has(id) || self.modules.contains_key(id)
    }

    /// Makes a module callable.
    pub(crate) fn add_module(&mut self, id: ModuleHash, module: Module) {
        self.modules.insert(id, module);
    }

    /// Forgets a module. Runs of it go on.
    pub(crate) fn remove_module(&mut self, id: &ModuleHash) {
        self.modules.remove(id);
    }

    /// Forgets all modules but this one, so that there is memory. Runs of them go on.
    pub(crate) fn forget_other_modules(&mut self, id: &ModuleHash) {
        self.modules.retain(|other, _| other == id);
    }

    /// Takes a run; [`Executor::step`] advances it.
    ///
    /// # Errors
    /// It ends at once.
    pub(crate) fn start(&mut self, now: Instant, execute: Execute) -> Result<(), Failure> {
        let Execute { run, function, args, bin } = execute;
        let items = Items::new(args, bin, self.result_bytes_max)?;
        let code = match self.modules.get(&function.module) {
            Some(module) => Code::Wasm(module.clone()),
            None if self.builtins.has(&function.module) => Code::Builtin(function.module),
            None => return Err(Failure::too_small("this node does not have the function any more", None)),
        };
        self.seed = self.seed.wrapping_add(1);
        let host = TaskHost {
            unix_ms: self.unix_ms,
            random: self.seed,
            progress: Progress::new(now),
            lines: Vec::new(),
            reboots: false,
        };
        // The next to run: a short task does not wait for the slices of long ones.
        self.running.push_front(Execution {
            run,
            code,
            function: function.name.clone(),
            items,
            call: None,
            host,
            asleep: None,
            started: now,
            aborted: false,
        });
        Ok(())
    }

    /// Ends a run at its next step.
    pub(crate) fn abort(&mut self, run: RunId) {
        if let Some(execution) = self.running.iter_mut().find(|execution| execution.run == run) {
            execution.aborted = true;
        }
    }

    /// Answers a run that submits a canvas. The reason is for the log of the task.
    pub(crate) fn answer(&mut self, run: RunId, answer: SubmitAnswer, why: &str) {
        let execution = self.running.iter_mut().find(|execution| execution.run == run);
        if let Some(Call::Wasm(call)) = execution.and_then(|execution| execution.call.as_mut()) {
            call.answer(answer, why);
        }
    }

    /// When there is something to do for [`Executor::step`]; a moment of the past if there is now.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.running.iter().map(Execution::due).min()
    }

    /// Gives a slice to the next run that can use it. What came of it goes to `reports`. Returns
    /// whether there was one.
    pub(crate) fn step(&mut self, reports: &mut Vec<Report>) -> bool {
        let now = Instant::now();
        let Some(at) = self.running.iter().position(|execution| execution.due() <= now) else { return false };
        let Some(mut execution) = self.running.remove(at) else { return false };
        let run = execution.run;
        let stepped = match execution.check(now) {
            Err(failure) => Stepped::Done(Err(failure)),
            Ok(()) if execution.asleep.is_some_and(|until| until > now) => Stepped::More,
            Ok(()) => self.slice(&mut execution),
        };
        let now = Instant::now();
        let is_over = matches!(stepped, Stepped::Done(_));
        execution.say(now, is_over, reports);
        match stepped {
            Stepped::Done(outcome) => reports.push(Report::Finished(run, outcome)),
            Stepped::Submit(canvas) => {
                reports.push(Report::Submit(run, canvas));
                self.running.push_back(execution);
            }
            Stepped::More => self.running.push_back(execution),
        }
        true
    }

    /// Runs one slice, and learns from its time how much fuel the next may have.
    fn slice(&mut self, execution: &mut Execution) -> Stepped {
        let (start, fuel) = (Instant::now(), self.slice_fuel);
        let (stepped, used) = execution.step(fuel, self.board, &self.builtins);
        let took_us = start.elapsed().as_micros().max(1);
        // Of a slice that was not used up, most of the time may have gone elsewhere.
        if used >= fuel {
            let fitting = used.saturating_mul(SLICE.as_micros()) / took_us;
            self.slice_fuel = fitting.clamp(fuel / 2, fuel.saturating_mul(2)).clamp(FUEL_MIN, FUEL_MAX);
        }
        stepped
    }
}

impl Execution {
    fn due(&self) -> Instant {
        if self.aborted {
            return self.started;
        }
        let asleep = self.asleep.unwrap_or(self.started).min(self.started + RUN_MAX);
        self.progress().due().map_or(asleep, |due| due.min(asleep))
    }

    fn progress(&self) -> &Progress {
        match &self.call {
            Some(Call::Wasm(call)) => &call.host().progress,
            _ => &self.host.progress,
        }
    }

    fn host_mut(&mut self) -> &mut TaskHost {
        match &mut self.call {
            Some(Call::Wasm(call)) => call.host_mut(),
            _ => &mut self.host,
        }
    }

    /// Whether it may go on.
    fn check(&self, now: Instant) -> Result<(), Failure> {
        if self.aborted {
            return Err(Failure::new(Cause::Revoked, "stopped"));
        }
        if now >= self.started + RUN_MAX {
            let text = format!("ran longer than this node's limit of {} s", RUN_MAX.as_secs());
            return Err(Failure::new(Cause::TimedOut, &text));
        }
        Ok(())
    }

    /// Hands on what the task has said.
    fn say(&mut self, now: Instant, is_over: bool, reports: &mut Vec<Report>) {
        let run = self.run;
        let host = self.host_mut();
        reports.extend(host.lines.drain(..).map(|line| Report::Logged(run, line)));
        if core::mem::take(&mut host.reboots) {
            reports.push(Report::Reboot);
        }
        if let Some((done, total)) = host.progress.tell(now, is_over) {
            reports.push(Report::Progress(run, done, total));
        }
    }

    /// Runs for about `fuel`; several calls of a bin may end in one step. Also returns the fuel that
    /// was used.
    fn step(&mut self, fuel: u64, board: Board, builtins: &Builtins) -> (Stepped, u64) {
        self.asleep = None;
        let mut used = 0;
        loop {
            let stepped = match self.call.take() {
                Some(Call::Wasm(call)) => self.step_wasm(call, fuel, &mut used, board),
                Some(Call::Blink(blink)) => self.step_blink(blink, builtins),
                None if used >= fuel => Some(Stepped::More),
                None => match self.items.next_args() {
                    None => Some(Stepped::Done(Ok(self.items.take_result()))),
                    Some(args) => self.call(&args, &mut used, builtins),
                },
            };
            if let Some(stepped) = stepped {
                return (stepped, used);
            }
        }
    }

    /// Begins the call for the next item, which may end at once. Not inlined: what it needs of the stack must not lie below
    /// the guest.
    #[inline(never)]
    fn call(&mut self, args: &Cbor, used: &mut u64, builtins: &Builtins) -> Option<Stepped> {
        let module = match &self.code {
            Code::Wasm(module) => match module.start(&self.function, args.as_bytes(), self.host.clone()) {
                Ok(call) => {
                    self.call = Some(Call::Wasm(Box::new(call)));
                    return None;
                }
                Err(error) => return Some(self.failed(&error)),
            },
            Code::Builtin(module) => module,
        };
        *used += BUILTIN_FUEL;
        match builtins.call(module, &self.function, args) {
            Ok(Answer::Value(value)) => self.push(value),
            Ok(Answer::Reboot) => {
                self.host.reboots = true;
                self.push(Cbor::null())
            }
            Ok(Answer::Blink(blink)) => {
                self.call = Some(Call::Blink(blink));
                None
            }
            Err(failure) => Some(Stepped::Done(Err(self.items.name(failure)))),
        }
    }

    /// Keeps what a call has given; there may be more items.
    fn push(&mut self, value: Cbor) -> Option<Stepped> {
        self.items.push(value).err().map(|failure| Stepped::Done(Err(self.items.name(failure))))
    }

    #[inline(never)]
    fn step_wasm(&mut self, mut call: Box<Run<TaskHost>>, fuel: u64, used: &mut u64, board: Board) -> Option<Stepped> {
        let before = call.fuel_used();
        let step = call.step(fuel.saturating_sub(*used).max(1));
        *used += call.fuel_used() - before;
        let stepped = match step {
            Step::Done(result) => {
                self.host = call.into_host();
                return match result {
                    Ok(value) => self.push(Cbor::from_encoded(value)),
                    Err(error) => Some(self.failed(&error)),
                };
            }
            Step::Sleep { ms } => {
                self.asleep = Some(Instant::now() + Duration::from_millis(ms.into()));
                Stepped::More
            }
            Step::Submit { canvas } => Stepped::Submit(canvas),
            Step::Call(asked) => {
                call.answer_call(board(asked));
                Stepped::More
            }
            Step::Yielded => Stepped::More,
        };
        self.call = Some(Call::Wasm(call));
        Some(stepped)
    }

    fn step_blink(&mut self, mut blink: Blink, builtins: &Builtins) -> Option<Stepped> {
        match builtins.switch(&mut blink) {
            Ok(Some(pause)) => {
                self.asleep = Some(Instant::now() + pause);
                self.call = Some(Call::Blink(blink));
                Some(Stepped::More)
            }
            Ok(None) => self.push(Cbor::null()),
            Err(failure) => Some(Stepped::Done(Err(self.items.name(failure)))),
        }
    }

    fn failed(&self, error: &broccoli_wasm::Failure) -> Stepped {
        Stepped::Done(Err(self.items.name(told(error))))
    }
}

/// What a run has come to that gave no result. On a chip, memory and depth are its own, and none of the function: a
/// larger node has more.
fn told(error: &broccoli_wasm::Failure) -> Failure {
    use broccoli_wasm::Failure as Wasm;
    let text = error.to_string();
    match error {
        Wasm::TaskError(_) => Failure::new(Cause::Returned, text),
        Wasm::Retry { after_ms, .. } => {
            Failure { retry_after_ms: Some(*after_ms), ..Failure::new(Cause::Returned, text) }
        }
        Wasm::BadArgs(_) | Wasm::BadResult(_) => Failure::new(Cause::Unfit, text),
        Wasm::ArgsTooLarge { max, .. } => Failure::too_small(text, Some(*max as u64)),
        Wasm::ResultTooLarge { bytes, max } => Failure::result_too_large(*bytes, *max),
        Wasm::OutOfMemory { limit, .. } => Failure::too_small(text, limit.map(|limit| limit as u64)),
        Wasm::StackOverflow => {
            let (calls, bytes) = (LIMITS.call_depth_max, LIMITS.stack_bytes_max);
            let text = format!("{text}: this node nests {calls} calls and {bytes} bytes of stack");
            Failure::too_small(text, Some(calls as u64))
        }
        _ => Failure::new(Cause::Crashed, text),
    }
}

#[cfg(test)]
mod tests {
    use broccoli_wasm::Failure as Wasm;

    use super::*;

    #[test]
    fn memory_and_depth_of_the_chip_are_none_of_the_function() {
        let has = |error: Wasm| told(&error).too_small.map(|too_small| too_small.has);
        assert_eq!(has(Wasm::OutOfMemory { wanted: 131_072, limit: Some(65_536) }), Some(Some(65_536)));
        assert_eq!(has(Wasm::OutOfMemory { wanted: 131_072, limit: None }), Some(None));
        assert_eq!(has(Wasm::StackOverflow), Some(Some(64)));
        assert_eq!(has(Wasm::ArgsTooLarge { bytes: 20_000, max: 16_384 }), Some(Some(16_384)));
        let result = told(&Wasm::ResultTooLarge { bytes: 20_000, max: 16_384 });
        assert_eq!(result, Failure::result_too_large(20_000, 16_384));
        let text = "stack overflow: this node nests 64 calls and 8192 bytes of stack";
        assert_eq!(told(&Wasm::StackOverflow).text, text);
    }

    #[test]
    fn what_the_function_does_is_its_outcome() {
        let errors = [
            (Wasm::TaskError("no".into()), Cause::Returned),
            (Wasm::Retry { text: "busy".into(), after_ms: 5 }, Cause::Returned),
            (Wasm::Trap("unreachable".into()), Cause::Crashed),
            (Wasm::BadResult("no item".into()), Cause::Unfit),
        ];
        for (error, cause) in errors {
            let failure = told(&error);
            assert_eq!((failure.cause, failure.too_small), (cause, None), "{error}");
        }
    }
}
