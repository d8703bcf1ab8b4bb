//! One run of one task: a fresh instance, advanced in steps.
//!
//! Owns the order of a run (`_initialize`, `broccoli_alloc`, the task), its suspension, and the
//! check of what it returns. A run that fails or is dropped leaves nothing behind.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::{fmt, mem};

use broccoli_abi::cbor::{Head, Reader, is_canvas};
use broccoli_abi::{
    ArgsError, EXPORT_ALLOC, EXPORT_INITIALIZE, EXPORT_MEMORY, HostAnswer, HostCall, PackedResult, RETRY_AFTER_MS_MAX,
    SubmitAnswer, validate_item,
};
use wasmi::errors::{ErrorKind, InstantiationError};
use wasmi::{
    Error, Instance, Memory, Store, TrapCode, TypedFunc, TypedResumableCall, TypedResumableCallHostTrap,
    TypedResumableCallOutOfFuel, Val, WasmParams, WasmResults,
};

use crate::imports::{Room, State, Suspend};
use crate::{Host, Module};

/// A task that has been started. [`Run::step`] advances it until it is done.
pub struct Run<H> {
    module: Module,
    function: usize,
    /// Until they are written into the guest.
    args: Box<[u8]>,
    args_len: u32,
    store: Store<State<H>>,
    instance: Instance,
    memory: Memory,
    at: Stage,
    /// For the next step, if the task has asked something.
    answer: i64,
    /// Where the task wants to read why its board has refused.
    room: Room,
    fuel_used: u64,
}

/// How far a step came.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The task ended: one CBOR item of the function's type or a canvas that replaces the task
    /// ([`broccoli_abi::CANVAS_TAG`]), or why there is none.
    Done(Result<Vec<u8>, Failure>),
    /// The fuel of this step is used up; step again.
    Yielded,
    /// The task sleeps; step again after `ms` milliseconds.
    Sleep {
        /// How long.
        ms: u32,
    },
    /// The task submits a canvas; give it the [`Run::answer`], then step again.
    Submit {
        /// What the task says is a canvas as on the wire; nothing of it was checked.
        canvas: Vec<u8>,
    },
    /// The task asks something of the board; give it the [`Run::answer_call`], then step again.
    Call(HostCall),
}

/// Where the next step goes on.
enum Stage {
    Initialize(Entry<()>),
    Alloc(Entry<u32>),
    Task { ptr: u32, entry: Entry<i64> },
    Ended,
}

enum Entry<R> {
    Call,
    OutOfFuel(TypedResumableCallOutOfFuel<R>),
    Asleep(TypedResumableCallHostTrap<R>),
    /// It has submitted something, or called the board.
    Asked(TypedResumableCallHostTrap<R>),
}

/// How a call into the guest came out.
enum Outcome<R> {
    Returned(R),
    Yielded(Entry<R>),
    Asleep(Entry<R>, u32),
    Submitted(Entry<R>, Vec<u8>),
    Called(Entry<R>, HostCall),
    Failed(Failure),
}

impl<R> Entry<R> {
    fn required_fuel(&self) -> u64 {
        match self {
            Self::OutOfFuel(call) => call.required_fuel(),
            _ => 0,
        }
    }
}

impl Stage {
    fn required_fuel(&self) -> u64 {
        match self {
            Self::Initialize(entry) => entry.required_fuel(),
            Self::Alloc(entry) => entry.required_fuel(),
            Self::Task { entry, .. } => entry.required_fuel(),
            Self::Ended => 0,
        }
    }
}

impl<H: Host + 'static> Run<H> {
    pub(crate) fn new(module: Module, function: usize, args: &[u8], host: H) -> Result<Self, Failure> {
        let (store, instance) = module.inner.instantiate(host).map_err(not_started)?;
        let memory = instance.get_memory(&store, EXPORT_MEMORY).ok_or_else(vanished)?;
        let at = if module.inner.initialize { Stage::Initialize(Entry::Call) } else { Stage::Alloc(Entry::Call) };
        let max = u32::MAX as usize;
        let args_len = u32::try_from(args.len()).map_err(|_| Failure::ArgsTooLarge { bytes: args.len(), max })?;
        let args = args.into();
        let room = Room::default();
        Ok(Self { module, function, args, args_len, store, instance, memory, at, answer: 0, room, fuel_used: 0 })
    }

    /// Fuel burnt so far, in the engine's units (about one per Wasm instruction).
    #[must_use]
    pub fn fuel_used(&self) -> u64 {
        self.fuel_used
    }

    /// What answers the imports.
    #[must_use]
    pub fn host(&self) -> &H {
        &self.store.data().host
    }

    /// What answers the imports.
    pub fn host_mut(&mut self) -> &mut H {
        &mut self.store.data_mut().host
    }

    /// Answers [`Step::Submit`]. Without an answer the task learns that the node takes no jobs. Why it
    /// was refused goes to the log of the task, within its limit; nothing if `why` is empty.
    pub fn answer(&mut self, answer: SubmitAnswer, why: &str) {
        self.answer = answer.code();
        if !why.is_empty() {
            self.store.data_mut().log(&format!("submit: {why}"));
        }
    }

    /// Answers [`Step::Call`]: with what the call says that it answers, or with why it cannot be done. Without
    /// an answer the task gets an error without a text.
    pub fn answer_call(&mut self, answer: Result<i32, &str>) {
        let answer = match answer {
            Ok(value) => HostAnswer::Value(value),
            Err(why) => self.room.refuse(self.memory, &mut self.store, why),
        };
        self.answer = answer.pack();
    }

    /// Ends the run and gives the host back.
    #[must_use]
    pub fn into_host(self) -> H {
        self.store.into_data().host
    }

    /// Runs until the task is done, sleeps, submits, calls the board, or has burnt `fuel`. A single instruction that needs
    /// more (a large copy) gets what it needs.
    pub fn step(&mut self, fuel: u64) -> Step {
        let fuel = fuel.max(self.at.required_fuel());
        if let Err(e) = self.store.set_fuel(fuel) {
            return Step::Done(Err(failure(e)));
        }
        let step = self.advance();
        let left = self.store.get_fuel().unwrap_or(0);
        self.fuel_used = self.fuel_used.saturating_add(fuel.saturating_sub(left));
        step
    }

    fn advance(&mut self) -> Step {
        loop {
            match mem::replace(&mut self.at, Stage::Ended) {
                Stage::Initialize(entry) => match self.enter(entry, EXPORT_INITIALIZE, ()) {
                    Outcome::Returned(()) => self.at = Stage::Alloc(Entry::Call),
                    stopped => return self.stop(stopped, Stage::Initialize),
                },
                Stage::Alloc(entry) => match self.enter(entry, EXPORT_ALLOC, self.args_len) {
                    Outcome::Returned(ptr) => match self.write_args(ptr) {
                        Ok(()) => self.at = Stage::Task { ptr, entry: Entry::Call },
                        Err(failure) => return Step::Done(Err(failure)),
                    },
                    // An allocator reports exhaustion by trapping.
                    Outcome::Failed(Failure::Trap(_)) => return Step::Done(Err(self.out_of_memory())),
                    stopped => return self.stop(stopped, Stage::Alloc),
                },
                Stage::Task { ptr, entry } => {
                    let module = self.module.clone();
                    let export = &module.inner.exports[self.function];
                    match self.enter(entry, export, (ptr, self.args_len)) {
                        Outcome::Returned(packed) => return Step::Done(self.read_result(packed)),
                        stopped => return self.stop(stopped, |entry| Stage::Task { ptr, entry }),
                    }
                }
                Stage::Ended => return Step::Done(Err(Failure::Ended)),
            }
        }
    }

    /// Keeps a suspended call for the next step; `advance` has taken what returned.
    fn stop<R>(&mut self, stopped: Outcome<R>, stage: impl FnOnce(Entry<R>) -> Stage) -> Step {
        match stopped {
            Outcome::Yielded(entry) => {
                self.at = stage(entry);
                Step::Yielded
            }
            Outcome::Asleep(entry, ms) => {
                self.at = stage(entry);
                Step::Sleep { ms }
            }
            Outcome::Submitted(entry, canvas) => {
                self.at = stage(entry);
                Step::Submit { canvas }
            }
            Outcome::Called(entry, call) => {
                self.at = stage(entry);
                Step::Call(call)
            }
            Outcome::Failed(failure) => Step::Done(Err(failure)),
            Outcome::Returned(_) => Step::Done(Err(Failure::Ended)),
        }
    }

    /// Calls an export, or goes on with a suspended call of it. Not inlined: what the other stages need of the stack must
    /// not lie below the guest.
    #[inline(never)]
    fn enter<P: WasmParams, R: WasmResults>(&mut self, entry: Entry<R>, export: &str, params: P) -> Outcome<R> {
        let store = &mut self.store;
        let call = match entry {
            Entry::Call => self
                .instance
                .get_typed_func(&*store, export)
                .and_then(|func: TypedFunc<P, R>| func.call_resumable(store, params)),
            Entry::OutOfFuel(call) => call.resume(store),
            Entry::Asleep(call) => call.resume(store, &[]),
            Entry::Asked(call) => call.resume(store, &[Val::I64(self.answer)]),
        };
        match call {
            Ok(TypedResumableCall::Finished(value)) => Outcome::Returned(value),
            Ok(TypedResumableCall::OutOfFuel(call)) => Outcome::Yielded(Entry::OutOfFuel(call)),
            Ok(TypedResumableCall::HostTrap(call)) => match call.host_error().downcast_ref() {
                Some(&Suspend::Sleep { ms }) => Outcome::Asleep(Entry::Asleep(call), ms),
                Some(Suspend::Submit { canvas }) => {
                    let canvas = canvas.clone();
                    self.answer = SubmitAnswer::NoJobs.code();
                    Outcome::Submitted(Entry::Asked(call), canvas)
                }
                Some(&Suspend::Call { call: asked, room }) => {
                    self.answer = HostAnswer::Refused { text_len: 0 }.pack();
                    self.room = room;
                    Outcome::Called(Entry::Asked(call), asked)
                }
                Some(Suspend::Panic { text, line }) => {
                    Outcome::Failed(Failure::Panic { text: text.clone(), line: *line })
                }
                _ => Outcome::Failed(Failure::Trap(call.host_error().to_string())),
            },
            Err(_) if self.store.data().guard.out_of_memory => Outcome::Failed(self.out_of_memory()),
            Err(error) if is_denied(&error) => Outcome::Failed(self.out_of_memory()),
            Err(error) => Outcome::Failed(failure(error)),
        }
    }

    /// The task has not got what it asked for last.
    fn out_of_memory(&self) -> Failure {
        let guard = &self.store.data().guard;
        let limit = (!guard.out_of_memory).then_some(self.module.inner.limits.memory_bytes_max);
        Failure::OutOfMemory { wanted: guard.wanted_bytes, limit }
    }

    fn write_args(&mut self, ptr: u32) -> Result<(), Failure> {
        let args = mem::take(&mut self.args);
        let written = self.memory.write(&mut self.store, ptr as usize, &args);
        written.map_err(|_| Failure::BadResult("broccoli_alloc: out of bounds".into()))
    }

    fn read_result(&self, packed: i64) -> Result<Vec<u8>, Failure> {
        let PackedResult { ptr, len, err } = PackedResult::unpack(packed);
        let (start, len) = (ptr as usize, len as usize);
        let max = self.module.inner.limits.result_bytes_max;
        if len > max {
            return Err(Failure::ResultTooLarge { bytes: len, max });
        }
        let body = start
            .checked_add(len)
            .and_then(|end| self.memory.data(&self.store).get(start..end))
            .ok_or_else(|| Failure::BadResult("out of bounds".into()))?;
        if err {
            return Err(task_error(body));
        }
        if is_canvas(body) {
            validate_item(body).map_err(|e| Failure::BadResult(e.to_string()))?;
        } else {
            let ret = self.module.inner.functions[self.function].ret.success();
            ret.check(body).map_err(|e| Failure::BadResult(e.to_string()))?;
        }
        Ok(body.to_vec())
    }
}

impl<H> fmt::Debug for Run<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("function", &self.module.inner.functions[self.function].name)
            .field("fuel_used", &self.fuel_used)
            .finish_non_exhaustive()
    }
}

fn task_error(body: &[u8]) -> Failure {
    if let Err(e) = validate_item(body) {
        return Failure::BadResult(e.to_string());
    }
    let mut reader = Reader::new(body);
    match reader.head() {
        Ok(Head::Text(text)) => Failure::TaskError(text.into()),
        Ok(Head::Array(2)) => match (reader.head(), reader.head()) {
            (Ok(Head::Text(text)), Ok(Head::Int(ms))) if (0..=RETRY_AFTER_MS_MAX.into()).contains(&ms) => {
                Failure::Retry { text: text.into(), after_ms: ms as u64 }
            }
            _ => Failure::BadResult("the error is not [text, after_ms]".into()),
        },
        _ => Failure::BadResult("the error is not a text".into()),
    }
}

fn failure(error: Error) -> Failure {
    match error.as_trap_code() {
        Some(TrapCode::StackOverflow) => Failure::StackOverflow,
        _ => Failure::Trap(error.to_string()),
    }
}

/// Whether a guest was not given what it asked for.
fn is_denied(error: &Error) -> bool {
    error.as_trap_code() == Some(TrapCode::GrowthOperationLimited)
}

/// The module was instantiated at its load, within the same limits.
fn not_started(error: Error) -> Failure {
    use InstantiationError::{FailedToInstantiateMemory, FailedToInstantiateTable};
    match error.kind() {
        ErrorKind::Instantiation(FailedToInstantiateMemory(_) | FailedToInstantiateTable(_)) => {
            Failure::OutOfMemory { wanted: 0, limit: None }
        }
        _ => failure(error),
    }
}

/// Exports are checked at load, so this would be an error of the engine.
fn vanished() -> Failure {
    Failure::Trap("the memory export is gone".into())
}

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The task returned an error; its text.
    TaskError(String),
    /// The task returned an error, and asks to be tried again.
    Retry {
        /// The error's text.
        text: String,
        /// How long to wait before, at most [`RETRY_AFTER_MS_MAX`].
        after_ms: u64,
    },
    /// The task panicked.
    Panic {
        /// What it said.
        text: String,
        /// Line in its source, 0 if unknown.
        line: u32,
    },
    /// The task trapped: an access out of bounds, a division by zero, `unreachable`.
    Trap(String),
    /// The task asked for more memory than there is.
    OutOfMemory {
        /// How much it wanted to have, in bytes; 0 if that is not known.
        wanted: usize,
        /// The limit; none if the machine has no more.
        limit: Option<usize>,
    },
    /// The task nested its calls too deep.
    StackOverflow,
    /// The task returned something else than one CBOR item of its type.
    BadResult(String),
    /// The result is larger than the limit.
    ResultTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The module has no such function.
    UnknownFunction(String),
    /// The arguments do not fit the function.
    BadArgs(ArgsError),
    /// The arguments are larger than the limit.
    ArgsTooLarge {
        /// Their size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The run was over before this step.
    Ended,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TaskError(text) | Self::Retry { text, .. } => write!(f, "{text}"),
            Self::Panic { text, line: 0 } => write!(f, "panic: {text}"),
            Self::Panic { text, line } => write!(f, "panic: {text} (line {line})"),
            Self::Trap(reason) => write!(f, "trap: {reason}"),
            Self::OutOfMemory { wanted: 0, .. } => write!(f, "out of memory"),
            Self::OutOfMemory { wanted, limit: Some(limit) } => {
                write!(f, "out of memory: it needs {wanted} bytes, this node gives {limit}")
            }
            Self::OutOfMemory { wanted, limit: None } => {
                write!(f, "out of memory: it needs {wanted} bytes, this node has no more")
            }
            Self::StackOverflow => write!(f, "stack overflow"),
            Self::BadResult(reason) => write!(f, "bad result: {reason}"),
            Self::ResultTooLarge { bytes, max } => {
                write!(f, "the result has {bytes} bytes, this node takes {max}")
            }
            Self::UnknownFunction(name) => write!(f, "the module has no function {name}"),
            Self::BadArgs(reason) => write!(f, "{reason}"),
            Self::ArgsTooLarge { bytes, max } => {
                write!(f, "the arguments have {bytes} bytes, this node takes {max}")
            }
            Self::Ended => write!(f, "the run has ended"),
        }
    }
}

impl core::error::Error for Failure {}
