//! Limits of one canvas: its size, nesting and arguments, and the growth of its plan.

/// Limits of one canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tasks, chains and groups, including callbacks.
    pub steps_max: u32,
    /// Levels of nesting. A single task is one level. The stack that `lower` needs grows with it.
    pub depth_max: u32,
    /// Arguments of all tasks together as written in the canvas, in bytes.
    pub args_bytes_max: usize,
    /// Result of one task, or the list of one group, in bytes.
    pub result_bytes_max: usize,
}

/// How much a plan may grow.
#[derive(Clone, Copy, Debug)]
pub struct Room<'l> {
    /// Limits of the whole plan, including the steps before.
    pub limits: &'l Limits,
    /// Most tasks that may be added.
    pub tasks: u32,
}
