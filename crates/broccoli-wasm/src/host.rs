//! The imports that a task can call while it runs.

/// Answers the imports of a run. Each method must return immediately.
pub trait Host {
    /// One log text of the task, without a line end, at most 4 KiB.
    fn log(&mut self, text: &str);
    /// Milliseconds since 1970, or since the node started if it has no clock.
    fn now_ms(&mut self) -> i64;
    /// 64 random bits, not for secrets.
    fn random(&mut self) -> u64;
    /// The task has done `done` of `total` units. `total` is 0 if the task does not know it. A task may call this in a
    /// tight loop.
    fn progress(&mut self, done: u32, total: u32);
}

/// A host without clock, randomness and log: for measurements, and for the test when a module is loaded.
#[derive(Clone, Copy, Debug)]
pub struct NoHost;

impl Host for NoHost {
    fn log(&mut self, _: &str) {}

    fn now_ms(&mut self) -> i64 {
        0
    }

    fn random(&mut self) -> u64 {
        0
    }

    fn progress(&mut self, _: u32, _: u32) {}
}
