//! What a run needs of the machine that it is on, and the answers to the imports of a module.

use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::SplitMix64;
use broccoli_wasm::Host;

use crate::progress::Progress;

/// The machine, as the shell knows it. Each function returns at once.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// A clock that never goes back, in microseconds.
    pub now_us: fn() -> u64,
    /// The time of day in milliseconds since 1970, if it is known.
    pub unix_ms: fn() -> Option<u64>,
}

/// How a machine is, for `sys.vitals`; none of what cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachineVitals {
    /// Runnable processes, as the mean of a minute.
    pub load: Option<f64>,
    /// Memory of the machine, in bytes.
    pub memory_bytes: Option<u64>,
    /// How much of it can be had.
    pub memory_free_bytes: Option<u64>,
}

/// Answers the imports of a module, and keeps what the task says until the end of the slice.
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
