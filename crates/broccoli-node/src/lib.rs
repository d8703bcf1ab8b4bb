//! The tokio shell of a Broccoli node, and the node as a library.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use broccoli_node::{Cluster, NodeHandle, text};
//!
//! let cluster = Cluster::load("cluster.json".as_ref())?;
//! let node = NodeHandle::builder()
//!     .cluster(cluster)
//!     .server("mqtt://raspberrypi.local".parse()?)
//!     .slots(2)
//!     .function("add", |x: i64, y: i64| x + y)
//!     .start()?;
//! let canvas = text::parse("chord(add.s(i, i) for i in range(10))(tsum.s())")?.canvas;
//! let sum: i64 = node.submit(canvas).get().await?;
//! # Ok(())
//! # }
//! ```
//!
//! | | |
//! |---|---|
//! | [`Builder`], [`NodeHandle`], [`Driver`] | the settings of a node, the running node, and its loop |
//! | [`JobHandle`], [`Job`] | a job that was submitted through this node, and any job by its id |
//! | [`text`], [`json`], [`Canvas`], [`Cbor`] | canvases and values, from text and as data |
//! | [`native`] | functions of the program |
//! | [`view`], [`NodeEvent`], [`JobUpdate`] | the view of the cluster, and its events |
//! | [`JobError`] and the other errors | what is wrong; the program adds what to do about it |
//! | [`mqtt`], [`board`], [`journal`], [`module`], [`cluster`], [`name`] | the parts of a node, for programs that use one of them alone |
#![forbid(unsafe_code)]

pub mod board;
mod builder;
pub mod cluster;
mod driver;
mod error;
mod executor;
mod handle;
mod job;
pub mod journal;
mod link;
mod logging;
mod machine;
pub mod module;
pub mod mqtt;
pub mod name;
pub mod native;
mod panics;
mod presence;
mod private;
mod store;
mod updates;
pub mod view;
mod why;

pub use broccoli_abi::{Arg, Function, Functions, Type};
pub use broccoli_core::canvas::{ArgumentError, CanvasError, Limits as CanvasLimits};
pub use broccoli_core::{Counters, Event, Limits};
pub use broccoli_proto::canvas::{Form, Split, Task};
pub use broccoli_proto::message::{JobNews, JobState, Refusal, StepState, Waits};
pub use broccoli_proto::options::Rate;
pub use broccoli_proto::packet::PacketError;
pub use broccoli_proto::{Canvas, Cause, Cbor, JobId, ModuleHash, NodeId, Options, Outcome, TaskError};
pub use broccoli_run::RunLimits;
pub use broccoli_text as text;
pub use broccoli_text::json;

pub use board::Board;
pub use builder::Builder;
pub use cluster::{Cluster, DeployKey};
pub use driver::{Driver, NodeEvent};
pub use error::{CheckError, DrainError, FunctionError, JobError, StartError};
pub use handle::{COMMANDS_MAX, Deployment, JobHandle, NodeHandle};
pub use job::{Job, JobStatus, Listing, SubmitOptions};
pub use journal::JournalError;
pub use updates::JobUpdate;
pub use why::{Reason, WaitingGroup, Why};
