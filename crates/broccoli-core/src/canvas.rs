//! The meaning of a canvas.
//!
//! [`lower`] turns the canvas tree into a [`Plan`]: a bounded arena of tasks, chains and groups. No other place
//! rewrites or checks a canvas. The plan takes the outcomes of tasks, and returns the tasks that become ready. The plan
//! grows if a task returns a canvas instead of a result, or runs on each node.
//!
//! ```text
//!  canvas                  steps of the plan
//!  chord(header, body)     chain(group(header), body)
//!  f.map, f.starmap        group of tasks that take nothing from a parent
//!  f.chunks                group of bins; an empty bin is an empty group
//! ```
//!
//! All of this is a pure computation. It knows no nodes, queues or time: a countdown is an option that the plan only
//! passes on. Results stay encoded.

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
pub use view::FoundStep;
