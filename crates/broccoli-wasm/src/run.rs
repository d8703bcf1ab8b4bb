//! One run of one task: a fresh instance that is stepped.
//!
//! Owns the order of a run (`_initialize`, `broccoli_alloc`, the task) and the check of its result. The engine suspends
//! calls. A run that fails or is dropped leaves nothing behind, and the instance of one that has ended well is made
//! fresh before the next run.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::{fmt, mem};

use broccoli_abi::cbor::{Head, Reader, is_canvas};
use broccoli_abi::{
    ArgsError, EXPORT_ALLOC, EXPORT_INITIALIZE, HostAnswer, HostCall, PackedResult, RETRY_AFTER_MS_MAX, SubmitAnswer,
    validate_item,
};

use crate::engine::{Instance, Stop};
use crate::load::export_name;
use crate::{Host, Module, Spare};

/// A started task. [`Run::step`] runs it until it is done.
pub struct Run<H> {
    module: Module,
    function: usize,
    /// The arguments, until they are written into the guest.
    args: Box<[u8]>,
    args_len: u32,
    instance: Box<Instance<H>>,
    at: Stage,
    /// Whether the call of this stage has started.
    begun: bool,
}

/// The result of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The task ended. The result is one CBOR item of the function's type, or a canvas that replaces the task
    /// ([`broccoli_abi::CANVAS_TAG`]).
    Done(Result<Vec<u8>, Failure>),
    /// The fuel of this step is used up. Step again.
    Yielded,
    /// The task sleeps. Step again after `ms` milliseconds.
    Sleep {
        /// How long, in milliseconds.
        ms: u32,
    },
    /// The task submits a canvas. Call [`Run::answer`], then step again.
    Submit {
        /// The canvas, as on the wire. It was not checked.
        canvas: Vec<u8>,
    },
    /// The task asks the board. Call [`Run::answer_call`], then step again.
    Call(HostCall),
}

/// The call that the next step starts or resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Initialize,
    Alloc,
    Task {
        ptr: u32,
    },
    /// The task returned.
    Ended,
    Failed,
}

impl<H: Host + 'static> Run<H> {
    pub(crate) fn new(
        module: Module,
        function: usize,
        args: &[u8],
        host: H,
        spare: &mut Spare<H>,
    ) -> Result<Self, Failure> {
        let inner = &module.inner;
        let instance = spare.instance(&module, host)?;
        let at = if inner.compiled.initialize { Stage::Initialize } else { Stage::Alloc };
        let max = u32::MAX as usize;
        let args_len = u32::try_from(args.len()).map_err(|_| Failure::ArgsTooLarge { bytes: args.len(), max })?;
        Ok(Self { module, function, args: args.into(), args_len, instance, at, begun: false })
    }

    /// Fuel used so far, in the engine's units (about one for each Wasm instruction).
    #[must_use]
    pub fn fuel_used(&self) -> u64 {
        self.instance.fuel_used()
    }

    /// The host that answers the imports.
    #[must_use]
    pub fn host(&self) -> &H {
        self.instance.host()
    }

    /// The host that answers the imports.
    pub fn host_mut(&mut self) -> &mut H {
        self.instance.host_mut()
    }

    /// Answers [`Step::Submit`]. If it is not called, the task gets the answer that the node takes no jobs. `why` is
    /// the reason of a refusal and goes to the log of the task, within its limit, unless it is empty.
    pub fn answer(&mut self, answer: SubmitAnswer, why: &str) {
        self.instance.answer(answer.code());
        if !why.is_empty() {
            self.instance.log(&format!("submit: {why}"));
        }
    }

    /// Answers [`Step::Call`] with the value that the call defines, or with the reason why it is not possible. If it is
    /// not called, the task gets an error without a text.
    pub fn answer_call(&mut self, answer: Result<i32, &str>) {
        match answer {
            Ok(value) => self.instance.answer(HostAnswer::Value(value).pack()),
            Err(why) => self.instance.refuse(why),
        }
    }

    /// Ends the run and gives the host back.
    #[must_use]
    pub fn into_host(self) -> H {
        self.instance.into_host()
    }

    /// Ends the run. If the task has returned, its instance is kept for the next run of the module, with the host.
    pub fn keep(self, spare: &mut Spare<H>) {
        if self.at == Stage::Ended {
            spare.keep(self.module, self.instance);
        }
    }

    /// Runs until the task is done, sleeps, submits, calls the board, or has used `fuel`. A single instruction that
    /// needs more (a large copy) gets it.
    pub fn step(&mut self, fuel: u64) -> Step {
        let goal = self.fuel_used().saturating_add(fuel);
        loop {
            let left = goal.saturating_sub(self.fuel_used());
            let stop = if self.begun { self.instance.resume(left) } else { self.begin(left) };
            match stop {
                Stop::Returned(value) => {
                    if let Some(step) = self.returned(value) {
                        return step;
                    }
                }
                Stop::Yielded => return Step::Yielded,
                Stop::Asleep { ms } => return Step::Sleep { ms },
                Stop::Submitted(canvas) => return Step::Submit { canvas },
                Stop::Asked(call) => return Step::Call(call),
                Stop::Failed(failure) => return self.failed(failure),
            }
        }
    }

    /// Starts the call of this stage.
    fn begin(&mut self, fuel: u64) -> Stop {
        self.begun = true;
        let (instance, inner) = (&mut self.instance, &self.module.inner);
        match self.at {
            Stage::Initialize => instance.call(EXPORT_INITIALIZE, &[], false, fuel),
            Stage::Alloc => instance.call(EXPORT_ALLOC, &[self.args_len], true, fuel),
            Stage::Task { ptr } => {
                let export = export_name(&inner.functions[self.function]);
                instance.call(&export, &[ptr, self.args_len], true, fuel)
            }
            Stage::Ended | Stage::Failed => Stop::Failed(Failure::Ended),
        }
    }

    /// The call of this stage has succeeded: goes to the next stage, or ends the run.
    fn returned(&mut self, value: i64) -> Option<Step> {
        let next = match self.at {
            Stage::Initialize => Ok(Stage::Alloc),
            Stage::Alloc => self.write_args(value as u32),
            Stage::Task { .. } => {
                self.at = Stage::Ended;
                return Some(Step::Done(self.read_result(value)));
            }
            Stage::Ended | Stage::Failed => Err(Failure::Ended),
        };
        match next {
            Ok(stage) => {
                self.at = stage;
                self.begun = false;
                None
            }
            Err(failure) => Some(self.failed(failure)),
        }
    }

    fn failed(&mut self, failure: Failure) -> Step {
        let at = mem::replace(&mut self.at, Stage::Failed);
        self.begun = false;
        Step::Done(Err(match failure {
            // An allocator traps when memory is exhausted.
            Failure::Trap(_) if at == Stage::Alloc => self.instance.out_of_memory(),
            failure => failure,
        }))
    }

    fn write_args(&mut self, ptr: u32) -> Result<Stage, Failure> {
        let (args, start) = (mem::take(&mut self.args), ptr as usize);
        let room = start.checked_add(args.len()).and_then(|end| self.instance.memory_mut().get_mut(start..end));
        let room = room.ok_or_else(|| Failure::BadResult("broccoli_alloc: out of bounds".into()))?;
        room.copy_from_slice(&args);
        Ok(Stage::Task { ptr })
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
            .and_then(|end| self.instance.memory().get(start..end))
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
            .field("at", &self.at)
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

/// Why a task gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The task returned an error with this text.
    TaskError(String),
    /// The task returned an error and asks for a retry.
    Retry {
        /// The error's text.
        text: String,
        /// How long to wait before the retry, in milliseconds, at most [`RETRY_AFTER_MS_MAX`].
        after_ms: u64,
    },
    /// The task panicked.
    Panic {
        /// The text of the panic.
        text: String,
        /// The line in its source, 0 if unknown.
        line: u32,
    },
    /// The task trapped: an access out of bounds, a division by zero, `unreachable`, …
    Trap(String),
    /// The task asked for more memory than there is.
    OutOfMemory {
        /// How much memory it wanted in all, in bytes; 0 if this is not known.
        wanted: usize,
        /// The limit in bytes; none if the machine has no more memory.
        limit: Option<usize>,
    },
    /// The task nested its calls too deeply.
    StackOverflow,
    /// The task did not return one CBOR item of its type.
    BadResult(String),
    /// The result is larger than the limit.
    ResultTooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The module has no such function.
    UnknownFunction(String),
    /// The arguments do not match the function.
    BadArgs(ArgsError),
    /// The arguments are larger than the limit.
    ArgsTooLarge {
        /// Their size in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The run had ended before this step.
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
