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

mod limits;
mod lower;
mod parts;
mod pin;
mod plan;
mod view;

pub use limits::{Limits, Room};
pub use lower::{ArgumentError, CanvasError, Resolved, lower};
pub(crate) use pin::is_pin;
pub use pin::pinned_to;
pub use plan::{Call, Callee, Effects, Mode, Plan, Progress, StepId, Target};
pub use view::{StepState, StepView};
