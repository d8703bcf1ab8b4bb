//! The imports of a module, and the state of a run that they use.
//!
//! Owns the allow-list: a module with an import that [`Import::find`] does not know is refused.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use broccoli_abi::{
    EXPORT_MEMORY, HOST_TEXT_LEN_MAX, HostAnswer, HostCall, IMPORT_BOARD, IMPORT_LOG, IMPORT_NOW_MS, IMPORT_PANIC,
    IMPORT_PROGRESS, IMPORT_RANDOM, IMPORT_SLEEP_MS, IMPORT_SUBMIT, SubmitAnswer,
};
use wasmi::errors::HostError;
use wasmi::{AsContextMut, Caller, Error, Extern, Func, FuncType, Memory, ResourceLimiter, Store, ValType};
use wasmi_core::LimiterError;

use crate::{Host, Limits};

/// Longest panic text, in bytes. The rest is cut.
const PANIC_BYTES_MAX: usize = 1024;
/// Longest log text, in bytes. The rest is cut.
const LOG_LINE_BYTES_MAX: usize = 4096;
/// Fuel for each call of the host, in addition to one unit for each byte of text.
const CALL_FUEL: u64 = 100;

/// Most tables in a module.
const TABLES_MAX: usize = 4;

/// The functions of the import module `broccoli`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Import {
    Panic,
    Log,
    NowMs,
    Random,
    SleepMs,
    Progress,
    Submit,
    Board,
}

impl Import {
    pub(super) fn find(name: &str) -> Option<Self> {
        match name {
            IMPORT_PANIC => Some(Self::Panic),
            IMPORT_LOG => Some(Self::Log),
            IMPORT_NOW_MS => Some(Self::NowMs),
            IMPORT_RANDOM => Some(Self::Random),
            IMPORT_SLEEP_MS => Some(Self::SleepMs),
            IMPORT_PROGRESS => Some(Self::Progress),
            IMPORT_SUBMIT => Some(Self::Submit),
            IMPORT_BOARD => Some(Self::Board),
            _ => None,
        }
    }

    pub(super) fn ty(self) -> FuncType {
        use ValType::{I32, I64};
        match self {
            Self::Panic => FuncType::new([I32, I32, I32], []),
            Self::Log | Self::Progress => FuncType::new([I32, I32], []),
            Self::Submit => FuncType::new([I32, I32], [I64]),
            Self::Board => FuncType::new([I32; 5], [I64]),
            Self::NowMs | Self::Random => FuncType::new([], [I64]),
            Self::SleepMs => FuncType::new([I32], []),
        }
    }

    pub(super) fn bind<H: Host + 'static>(self, store: &mut Store<State<H>>) -> Func {
        match self {
            Self::Panic => Func::wrap(store, panic::<H>),
            Self::Log => Func::wrap(store, log::<H>),
            Self::NowMs => Func::wrap(store, |mut caller: Caller<'_, State<H>>| caller.data_mut().host.now_ms()),
            Self::Random => {
                Func::wrap(store, |mut caller: Caller<'_, State<H>>| caller.data_mut().host.random() as i64)
            }
            Self::SleepMs => {
                Func::wrap(store, |ms: i32| -> Result<(), Error> { Err(Error::host(Suspend::Sleep { ms: ms as u32 })) })
            }
            Self::Progress => Func::wrap(store, progress::<H>),
            Self::Submit => Func::wrap(store, submit::<H>),
            Self::Board => Func::wrap(store, board::<H>),
        }
    }
}

/// Why an import ended or suspended the call.
#[derive(Debug)]
pub(super) enum Suspend {
    Sleep { ms: u32 },
    Submit { canvas: Vec<u8> },
    Call { call: HostCall, room: Room },
    Panic { text: String, line: u32 },
    BadRange { import: &'static str },
}

impl fmt::Display for Suspend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sleep { ms } => write!(f, "sleeps for {ms} ms"),
            Self::Submit { canvas } => write!(f, "submits {} bytes", canvas.len()),
            Self::Call { call, .. } => write!(f, "asks the board for {call:?}"),
            Self::Panic { text, line } => write!(f, "{text} (line {line})"),
            Self::BadRange { import } => write!(f, "{import}: bytes out of bounds"),
        }
    }
}

impl HostError for Suspend {}

/// The data of a wasmi store, besides the instance.
pub(super) struct State<H> {
    pub(super) host: H,
    pub(super) guard: Guard,
    log_bytes_left: usize,
    canvas_bytes_max: usize,
}

impl<H> State<H> {
    pub(super) fn new(host: H, limits: &Limits) -> Self {
        Self {
            host,
            guard: Guard {
                memory_bytes_max: limits.memory_bytes_max,
                table_elements_max: limits.table_elements_max,
                wanted_bytes: 0,
                out_of_memory: false,
            },
            log_bytes_left: limits.log_bytes_max,
            canvas_bytes_max: limits.args_bytes_max,
        }
    }
}

fn panic<H: Host>(caller: Caller<'_, State<H>>, ptr: i32, len: i32, line: i32) -> Result<(), Error> {
    let text = text(&caller, IMPORT_PANIC, ptr, len, PANIC_BYTES_MAX)?;
    Err(Error::host(Suspend::Panic { text, line: line as u32 }))
}

fn log<H: Host>(mut caller: Caller<'_, State<H>>, ptr: i32, len: i32) -> Result<(), Error> {
    let text = text(&caller, IMPORT_LOG, ptr, len, LOG_LINE_BYTES_MAX)?;
    charge(&mut caller, text.len())?;
    caller.data_mut().log(&text);
    Ok(())
}

impl<H: Host> State<H> {
    /// Passes on a log line, within the limit of the run.
    pub(super) fn log(&mut self, text: &str) {
        if text.len() <= self.log_bytes_left {
            self.log_bytes_left -= text.len();
            self.host.log(text);
        } else if self.log_bytes_left > 0 {
            self.log_bytes_left = 0;
            self.host.log("log limit reached, further lines are dropped");
        }
    }
}

/// Takes fuel for a call of the host. Without it, a loop of such calls would run longer than the limit.
fn charge<H>(caller: &mut Caller<'_, State<H>>, bytes: usize) -> Result<(), Error> {
    let fuel = caller.get_fuel()?;
    caller.set_fuel(fuel.saturating_sub(CALL_FUEL + bytes as u64))
}

fn progress<H: Host>(mut caller: Caller<'_, State<H>>, done: i32, total: i32) -> Result<(), Error> {
    charge(&mut caller, 0)?;
    caller.data_mut().host.progress(done as u32, total as u32);
    Ok(())
}

/// Ends the step with the canvas. [`crate::Run::answer`] gives the answer.
fn submit<H: Host>(mut caller: Caller<'_, State<H>>, ptr: i32, len: i32) -> Result<i64, Error> {
    let (bytes, max) = (len as u32 as usize, caller.data().canvas_bytes_max);
    if bytes > max {
        caller.data_mut().log(&format!("submit: the canvas has {bytes} bytes, the limit is {max}"));
        return Ok(SubmitAnswer::BadCanvas.code());
    }
    let canvas = bytes_of(&caller, IMPORT_SUBMIT, ptr, len)?.to_vec();
    charge(&mut caller, bytes)?;
    Err(Error::host(Suspend::Submit { canvas }))
}

/// Ends the step with the call. [`crate::Run::answer_call`] gives the answer. An invalid call is refused here.
fn board<H: Host>(
    mut caller: Caller<'_, State<H>>,
    code: i32,
    a: i32,
    b: i32,
    room: i32,
    room_len: i32,
) -> Result<i64, Error> {
    bytes_of(&caller, IMPORT_BOARD, room, room_len)?;
    let room = Room { start: room as u32, len: room_len as u32 };
    charge(&mut caller, 0)?;
    match HostCall::from_raw(code as u32, a as u32, b as u32) {
        Ok(call) => Err(Error::host(Suspend::Call { call, room })),
        Err(bad) => {
            let memory = caller.get_export(EXPORT_MEMORY).and_then(Extern::into_memory);
            let memory = memory.ok_or_else(|| Error::host(Suspend::BadRange { import: IMPORT_BOARD }))?;
            Ok(room.refuse(memory, caller, &bad.to_string()).pack())
        }
    }
}

/// Where to write the text of an error. It is in the guest's memory, which never shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Room {
    start: u32,
    len: u32,
}

impl Room {
    /// Writes as many whole characters of the text as fit.
    pub(super) fn refuse(self, memory: Memory, mut store: impl AsContextMut, text: &str) -> HostAnswer {
        let end = text.floor_char_boundary(HOST_TEXT_LEN_MAX.min(self.len as usize));
        let written = memory.write(&mut store, self.start as usize, &text.as_bytes()[..end]);
        HostAnswer::Refused { text_len: if written.is_ok() { end as u32 } else { 0 } }
    }
}

/// Copies a text of the guest, cut to `max` bytes. Invalid UTF-8 is replaced.
fn text<H>(
    caller: &Caller<'_, State<H>>,
    import: &'static str,
    ptr: i32,
    len: i32,
    max: usize,
) -> Result<String, Error> {
    let bytes = bytes_of(caller, import, ptr, len)?;
    let cut = &bytes[..bytes.len().min(max)];
    Ok(String::from_utf8_lossy(cut).trim_end_matches('\u{fffd}').to_owned())
}

/// Bytes in the guest's memory.
fn bytes_of<'a, H>(
    caller: &'a Caller<'_, State<H>>,
    import: &'static str,
    ptr: i32,
    len: i32,
) -> Result<&'a [u8], Error> {
    let memory = caller.get_export(EXPORT_MEMORY).and_then(Extern::into_memory);
    let range = memory.and_then(|memory| {
        let start = usize::try_from(ptr as u32).ok()?;
        let end = start.checked_add(usize::try_from(len as u32).ok()?)?;
        memory.data(caller).get(start..end)
    });
    range.ok_or_else(|| Error::host(Suspend::BadRange { import }))
}

/// Limits memory and tables. Growing beyond a limit ends the run with a clear error, because few guests check for it.
pub(super) struct Guard {
    pub(super) memory_bytes_max: usize,
    table_elements_max: usize,
    /// The largest memory that the guest asked for.
    pub(super) wanted_bytes: usize,
    /// Whether the machine had no memory for a growth within the limits. The guest knows it. If it traps, this is the
    /// reason.
    pub(super) out_of_memory: bool,
}

impl ResourceLimiter for Guard {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        self.wanted_bytes = self.wanted_bytes.max(desired);
        within(desired, self.memory_bytes_max)
    }

    fn memory_grow_failed(&mut self, error: &LimiterError) {
        self.out_of_memory |= matches!(error, LimiterError::OutOfSystemMemory);
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool, LimiterError> {
        within(desired, self.table_elements_max)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        1
    }
}

fn within(desired: usize, max: usize) -> Result<bool, LimiterError> {
    if desired <= max { Ok(true) } else { Err(LimiterError::ResourceLimiterDeniedAllocation) }
}
