//! One run of a task, which may be a bin of several calls: a state machine that its shell steps.
//!
//! ```text
//!                 ┌───────────────── step ◄────────────────┐
//!                 ▼                                        │ answer_…
//!   new ──► Ready ──step──► Step::Ask ──► Asking ──────────┘
//!             │  ▲
//!             │  └──── the pause is over ───── Asleep ◄── Step::Waits
//!             └──► Step::Ended        (also after an abort, or when a limit is exceeded)
//! ```

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use broccoli_abi::{HostCall, SubmitAnswer};
use broccoli_proto::message::Failure;
use broccoli_proto::{Cause, Cbor, ModuleHash};
use broccoli_wasm::{Limits, Run, Step as Stepped};

use crate::builtin::{self, Builtins, Next};
use crate::failure::failure_of;
use crate::host::{Machine, MachineVitals, Spare, TaskHost};
use crate::items::Items;
use crate::library::Code;
use crate::pace::Pace;
use crate::progress::Progress;

/// Fuel that a call of a built-in function counts in its slice.
const BUILTIN_FUEL: u64 = 500;

/// Limits of one run.
#[derive(Clone, Copy, Debug)]
pub struct RunLimits {
    /// Fuel: about one unit for each Wasm instruction.
    pub fuel_max: u64,
    /// Time from start to end, including pauses.
    pub time_max: Duration,
}

impl Default for RunLimits {
    /// One hour, and fuel for about one hour on a PC.
    fn default() -> RunLimits {
        RunLimits { fuel_max: 1_000_000_000_000, time_max: Duration::from_secs(3600) }
    }
}

/// The result of a step.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// The fuel of the slice is used up. Step again.
    Yielded,
    /// Nothing to do before [`Execution::due_us`], an answer or an abort.
    Waits,
    /// The task asks its shell. Step again after the answer.
    Ask(Ask),
    /// The task has ended.
    Ended(Result<Cbor, Failure>),
}

/// A request of a task to its shell.
#[derive(Debug, PartialEq)]
pub enum Ask {
    /// Submit a canvas to this node. Its bytes were not checked. See [`Execution::answer_submit`].
    Submit(Vec<u8>),
    /// Do something with the board. See [`Execution::answer_board`].
    Board(HostCall),
    /// Measure the machine. See [`Execution::answer_vitals`].
    Vitals,
    /// Call the function of [`Code::Shell`] with these arguments. See [`Execution::answer_call`].
    Function(Cbor),
}

/// Output of a task while it runs.
#[derive(Debug, PartialEq)]
pub enum News {
    /// One log line.
    Logged(String),
    /// Progress: units done, and of how many. The total is 0 if the task does not know it.
    Progress(u32, u32),
    /// A task that may do so asks for a reboot of the machine.
    Reboot,
}

/// A running task.
#[derive(Debug)]
pub struct Execution {
    code: Code,
    function: String,
    items: Items,
    call: Call,
    state: State,
    /// Here while no Wasm call has it.
    host: TaskHost,
    limits: RunLimits,
    started_us: u64,
    fuel_used: u64,
    reboots: bool,
}

/// The state before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The run can continue.
    Ready,
    /// The run sleeps.
    Asleep {
        until_us: u64,
    },
    /// The run waits for an answer of its shell.
    Asking,
    /// The next step ends the run.
    Aborted,
    Ended,
}

/// The call of the current item.
#[derive(Debug)]
enum Call {
    /// No item is being called.
    None,
    Wasm(Run<TaskHost>),
    /// With what the next step does, unless the call waits for an answer.
    Builtin(builtin::Call, Result<Next, String>),
    /// With the answer of the shell.
    Function(Option<Result<Cbor, Failure>>),
}

impl Execution {
    /// A run of a function with these arguments, before its first step. `seed` is for the task's random numbers.
    #[must_use]
    pub fn new(
        code: Code,
        function: String,
        items: Items,
        limits: RunLimits,
        machine: Machine,
        seed: u64,
    ) -> Execution {
        let started_us = (machine.now_us)();
        let host = TaskHost::new(machine, seed, started_us);
        let (call, state) = (Call::None, State::Ready);
        Execution { code, function, items, call, state, host, limits, started_us, fuel_used: 0, reboots: false }
    }

    /// When [`Execution::step`] has something to do; 0 if it has now.
    #[must_use]
    pub fn due_us(&self) -> u64 {
        let until_us = match self.state {
            State::Asleep { until_us } => until_us,
            State::Asking => u64::MAX,
            State::Ready | State::Aborted | State::Ended => return 0,
        };
        until_us.min(self.end_us()).min(self.progress().due_us().unwrap_or(u64::MAX))
    }

    /// Ends the run at the next step.
    pub fn abort(&mut self) {
        if self.state != State::Ended {
            self.state = State::Aborted;
        }
    }

    /// Answers [`Ask::Submit`]. The reason of a refusal goes to the log of the task.
    pub fn answer_submit(&mut self, answer: SubmitAnswer, why: &str) {
        if let (State::Asking, Call::Wasm(run)) = (self.state, &mut self.call) {
            run.answer(answer, why);
            self.state = State::Ready;
        }
    }

    /// Answers [`Ask::Board`] with the value that the call defines, or with the reason why the call is not possible.
    pub fn answer_board(&mut self, answer: Result<i32, &str>) {
        match (self.state, &mut self.call) {
            (State::Asking, Call::Wasm(run)) => run.answer_call(answer),
            (State::Asking, Call::Builtin(call, next)) => *next = call.answer(answer),
            _ => return,
        }
        self.state = State::Ready;
    }

    /// Answers [`Ask::Vitals`].
    pub fn answer_vitals(&mut self, vitals: MachineVitals) {
        if let (State::Asking, Call::Builtin(call, next), Code::Builtin(_, builtins)) =
            (self.state, &mut self.call, &self.code)
        {
            *next = Ok(Next::Value(builtins.vitals(call, vitals)));
            self.state = State::Ready;
        }
    }

    /// Answers [`Ask::Function`]. The answer counts even if the run was aborted or is late.
    pub fn answer_call(&mut self, outcome: Result<Cbor, Failure>) {
        if let Call::Function(answer @ None) = &mut self.call {
            *answer = Some(outcome);
        }
    }

    /// The progress of the task, for functions of the shell that report it.
    pub fn progress_mut(&mut self) -> &mut Progress {
        &mut self.host_mut().progress
    }

    /// Takes the output of the task since the last call.
    pub fn take_news(&mut self, mut tell: impl FnMut(News)) {
        let is_over = self.state == State::Ended;
        let host = self.host_mut();
        for line in host.lines.drain(..) {
            tell(News::Logged(line));
        }
        if host.progress.due_us().is_some() {
            let now_us = (host.machine.now_us)();
            let told = if is_over { host.progress.end(now_us) } else { host.progress.tell(now_us) };
            if let Some((done, total)) = told {
                tell(News::Progress(done, total));
            }
        }
        if mem::take(&mut self.reboots) {
            tell(News::Reboot);
        }
    }

    /// Runs one slice. Several calls of a bin can end in one slice. `pace` learns from it. Calls that start take the
    /// instance in `spare`, and calls that end leave theirs there. After the end it does nothing.
    pub fn step(&mut self, pace: &mut Pace, spare: &mut Spare) -> Step {
        let now_us = self.now_us();
        // The answer of a function counts, even if it took too long.
        if !matches!(self.call, Call::Function(Some(_))) {
            if let Some(failure) = self.check(now_us) {
                return self.end(Err(failure));
            }
            match self.state {
                State::Asleep { until_us } if until_us > now_us => return Step::Waits,
                State::Asking => return Step::Waits,
                _ => {}
            }
        }
        if self.state != State::Aborted {
            self.state = State::Ready;
        }
        let before = self.fuel_used;
        let step = self.slice(pace.fuel(), spare);
        pace.learn(self.fuel_used - before, || self.now_us() - now_us);
        step
    }

    fn now_us(&self) -> u64 {
        (self.host.machine.now_us)()
    }

    fn end_us(&self) -> u64 {
        self.started_us.saturating_add(u64::try_from(self.limits.time_max.as_micros()).unwrap_or(u64::MAX))
    }

    fn progress(&self) -> &Progress {
        match &self.call {
            Call::Wasm(run) => &run.host().progress,
            _ => &self.host.progress,
        }
    }

    fn host_mut(&mut self) -> &mut TaskHost {
        match &mut self.call {
            Call::Wasm(run) => run.host_mut(),
            _ => &mut self.host,
        }
    }

    /// Why the run may not continue.
    fn check(&self, now_us: u64) -> Option<Failure> {
        match self.state {
            State::Aborted => Some(Failure::new(Cause::Revoked, "stopped")),
            State::Ended => Some(Failure::new(Cause::Crashed, "the run has ended")),
            _ if now_us >= self.end_us() => {
                let limit = seconds(self.limits.time_max);
                Some(Failure::new(Cause::TimedOut, format!("ran longer than this node's limit of {limit} s")))
            }
            _ => None,
        }
    }

    fn slice(&mut self, fuel: u64, spare: &mut Spare) -> Step {
        let goal = self.fuel_used.saturating_add(fuel);
        loop {
            let step = match &mut self.call {
                Call::Wasm(_) => self.step_wasm(goal, spare),
                Call::Builtin(..) => self.step_builtin(),
                Call::Function(_) => self.step_function(),
                Call::None if self.fuel_used >= goal => Some(Step::Yielded),
                Call::None => match self.items.next_args() {
                    None => {
                        let result = self.items.take_result();
                        Some(self.end(Ok(result)))
                    }
                    Some(args) => self.begin(args, spare),
                },
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Starts the call of the next item. Not inlined: its stack frame must not stay below the guest.
    #[inline(never)]
    fn begin(&mut self, args: Cbor, spare: &mut Spare) -> Option<Step> {
        let code = self.code.clone();
        match &code {
            Code::Wasm(module) => {
                let host = self.host.lend();
                match module.start_with(&self.function, args.as_bytes(), host, &mut spare.0) {
                    Ok(run) => {
                        self.call = Call::Wasm(run);
                        None
                    }
                    Err(error) => Some(self.fail(failure_of(&error, module.limits()))),
                }
            }
            Code::Builtin(module, builtins) => self.begin_builtin(module, builtins, &args),
            Code::Shell => {
                self.call = Call::Function(None);
                Some(self.ask(Ask::Function(args)))
            }
        }
    }

    fn begin_builtin(&mut self, module: &ModuleHash, builtins: &Builtins, args: &Cbor) -> Option<Step> {
        self.fuel_used += BUILTIN_FUEL;
        match builtins.begin(module, &self.function, args) {
            Ok((call, next)) => {
                self.call = Call::Builtin(call, Ok(next));
                None
            }
            Err(failure) => Some(self.fail(failure)),
        }
    }

    #[inline(never)]
    fn step_wasm(&mut self, goal: u64, spare: &mut Spare) -> Option<Step> {
        let Call::Wasm(run) = &mut self.call else { return None };
        let left = goal.min(self.limits.fuel_max).saturating_sub(self.fuel_used).max(1);
        let before = run.fuel_used();
        let stepped = run.step(left);
        self.fuel_used += run.fuel_used() - before;
        match stepped {
            Stepped::Done(result) => self.end_wasm(result, spare),
            Stepped::Sleep { ms } => Some(self.sleep(u64::from(ms) * 1_000)),
            Stepped::Submit { canvas } => Some(self.ask(Ask::Submit(canvas))),
            Stepped::Call(call) => Some(self.ask(Ask::Board(call))),
            Stepped::Yielded if self.fuel_used >= self.limits.fuel_max => {
                let text = format!("out of fuel: used {} of {}", self.fuel_used, self.limits.fuel_max);
                self.end_run(spare);
                Some(self.fail(Failure::new(Cause::Crashed, text)))
            }
            Stepped::Yielded => Some(Step::Yielded),
        }
    }

    /// Not inlined: its stack frame must not stay below the guest.
    #[inline(never)]
    fn end_wasm(&mut self, result: Result<Vec<u8>, broccoli_wasm::Failure>, spare: &mut Spare) -> Option<Step> {
        self.end_run(spare);
        match (result, &self.code) {
            (Ok(value), _) => self.push(Cbor::from_encoded(value)),
            (Err(error), Code::Wasm(module)) => Some(self.fail(failure_of(&error, module.limits()))),
            (Err(error), _) => Some(self.fail(failure_of(&error, &Limits::host()))),
        }
    }

    /// Ends the call, takes its host back, and leaves its instance in `spare`.
    fn end_run(&mut self, spare: &mut Spare) {
        if let Call::Wasm(mut run) = mem::replace(&mut self.call, Call::None) {
            mem::swap(&mut self.host, run.host_mut());
            run.keep(&mut spare.0);
        }
    }

    fn step_builtin(&mut self) -> Option<Step> {
        let Call::Builtin(mut call, next) = mem::replace(&mut self.call, Call::None) else { return None };
        match next {
            Ok(Next::Value(value)) => self.push(value),
            Ok(Next::Reboot) => {
                self.reboots = true;
                self.push(Cbor::null())
            }
            Ok(Next::Board(asked)) => {
                self.call = Call::Builtin(call, Err(String::new()));
                Some(self.ask(Ask::Board(asked)))
            }
            Ok(Next::Vitals) => {
                self.call = Call::Builtin(call, Err(String::new()));
                Some(self.ask(Ask::Vitals))
            }
            Ok(Next::Sleep(us)) => {
                let next = call.wake();
                self.call = Call::Builtin(call, Ok(next));
                Some(self.sleep(us))
            }
            Err(text) => Some(self.fail(Failure::new(Cause::Returned, text))),
        }
    }

    fn step_function(&mut self) -> Option<Step> {
        let Call::Function(answer) = mem::replace(&mut self.call, Call::None) else { return None };
        match answer {
            Some(Ok(value)) => {
                // The limits apply between the items of a bin, too.
                let more = if self.items.is_empty() { None } else { Some(Step::Yielded) };
                self.push(value).or(more)
            }
            Some(Err(failure)) => Some(self.fail(failure)),
            None => {
                self.call = Call::Function(None);
                Some(Step::Waits)
            }
        }
    }

    fn ask(&mut self, ask: Ask) -> Step {
        self.state = State::Asking;
        Step::Ask(ask)
    }

    fn sleep(&mut self, us: u64) -> Step {
        self.state = State::Asleep { until_us: self.now_us().saturating_add(us) };
        Step::Waits
    }

    /// Keeps the result of a call. There may be more items.
    fn push(&mut self, value: Cbor) -> Option<Step> {
        let pushed = self.items.push(value);
        pushed.err().map(|failure| self.fail(failure))
    }

    /// An item failed: the run ends with its failure.
    fn fail(&mut self, failure: Failure) -> Step {
        let failure = self.items.name(failure);
        self.end(Err(failure))
    }

    fn end(&mut self, outcome: Result<Cbor, Failure>) -> Step {
        self.state = State::Ended;
        Step::Ended(outcome)
    }
}

/// Seconds, with up to three decimals: `3600`, `0.2`. No floating point: printing it needs 15 KB of a chip's flash.
fn seconds(time: Duration) -> String {
    let text = format!("{}.{:03}", time.as_secs(), time.subsec_millis());
    text.trim_end_matches('0').trim_end_matches('.').into()
}
