//! What a run needs from its machine, and the answers to the imports of a module.

use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use broccoli_proto::SplitMix64;
use broccoli_wasm::Host;

use crate::progress::Progress;

/// The machine, as the shell knows it. Each function returns immediately.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// A monotonic clock, in microseconds.
    pub now_us: fn() -> u64,
    /// Unix time in milliseconds, if it is known.
    pub unix_ms: fn() -> Option<u64>,
}

/// The instance of the last call, for the next call of the same module. Use one for each thread that steps runs.
#[derive(Debug, Default)]
pub struct Spare(pub(crate) broccoli_wasm::Spare<TaskHost>);

impl Spare {
    /// Frees the instance.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Measurements of the machine, for `sys.vitals`. `None` if a value is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineVitals {
    /// Runnable processes, the mean of one minute.
    pub load: Option<f64>,
    /// Memory of the machine, in bytes.
    pub memory_bytes: Option<u64>,
    /// Free memory, in bytes.
    pub memory_free_bytes: Option<u64>,
}

/// Answers the imports of a module, and keeps the output of the task until the end of the slice.
#[derive(Clone, Debug)]
pub(crate) struct TaskHost {
    pub(crate) machine: Machine,
    random: SplitMix64,
    pub(crate) progress: Progress,
    pub(crate) lines: Vec<String>,
}

impl TaskHost {
    pub(crate) fn new(machine: Machine, seed: u64, now_us: u64) -> TaskHost {
        TaskHost { machine, random: SplitMix64(seed), progress: Progress::new(now_us), lines: Vec::new() }
    }

    /// The host for a call. It takes the lines along.
    pub(crate) fn lend(&mut self) -> TaskHost {
        TaskHost { lines: mem::take(&mut self.lines), ..self.clone() }
    }
}

impl Host for TaskHost {
    fn log(&mut self, text: &str) {
        self.lines.push(text.into());
    }

    fn now_ms(&mut self) -> i64 {
        let ms = (self.machine.unix_ms)().unwrap_or_else(|| (self.machine.now_us)() / 1_000);
        i64::try_from(ms).unwrap_or(i64::MAX)
    }

    fn random(&mut self) -> u64 {
        self.random.bits()
    }

    fn progress(&mut self, done: u32, total: u32) {
        self.progress.say(done, total);
    }
}
