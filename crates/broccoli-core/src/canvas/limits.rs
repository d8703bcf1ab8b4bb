//! Limits of one canvas, and of the growth of its plan.

/// How much one canvas may take of the node that evaluates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tasks, chains and groups, callbacks included.
    pub steps_max: u32,
    /// Levels of nesting; a single task is one level. The stack of `lower` grows with it.
    pub depth_max: u32,
    /// Arguments of all tasks together as written in the canvas, in bytes.
    pub args_bytes_max: usize,
    /// Result of one task, or the list of one group, in bytes.
    pub result_bytes_max: usize,
}

/// What a plan may grow by.
#[derive(Clone, Copy, Debug)]
pub struct Room<'l> {
    /// For the whole plan, with what was there before.
    pub limits: &'l Limits,
    /// Tasks that may be added.
    pub tasks: u32,
}
