//! What a canvas means.
//!
//! [`lower`] turns the tree that its author wrote into a [`Plan`]: a bounded arena of tasks, chains
//! and groups. It is the only place that rewrites a canvas and the only one that checks it. The
//! plan then answers each outcome of a task with the tasks that are ready because of it. A task may
//! give a canvas instead of a result, or run on each node: then the plan grows.
//!
//! ```text
//!  canvas                  steps of the plan
//!  chord(header, body)     chain(group(header), body)
//!  f.map, f.starmap        group of tasks that take nothing from a parent
//!  f.chunks                group of bins; an empty bin is an empty group
//! ```
//!
//! Everything here is a pure computation. It knows no node, no queue and no time: a countdown is
//! an option that the plan only hands on, and results stay the encoded bytes that they came as.

mod lower;
mod parts;
mod plan;
mod view;

pub use lower::{ArgumentError, CanvasError, Resolved, lower};
pub(crate) use parts::is_pin;
pub use parts::{Room, pinned_to};
pub use plan::{Call, Callee, Effects, Mode, Plan, Progress, StepId, Target};
pub use view::{StepState, StepView};

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
