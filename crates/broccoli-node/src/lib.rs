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
#![forbid(unsafe_code)]

pub mod board;
pub mod cluster;
mod driver;
mod executor;
mod handle;
mod job;
pub mod journal;
mod link;
mod logging;
mod machine;
pub mod mqtt;
pub mod native;
mod panics;
mod presence;
mod private;
mod store;
mod why;

pub use broccoli_abi as abi;
pub use broccoli_core::Counters;
pub use broccoli_core as core;
pub use broccoli_proto as proto;
pub use broccoli_run::RunLimits;
pub use broccoli_text as text;
pub use broccoli_text::json;
pub use broccoli_wasm as wasm;

pub use board::Board;
pub use cluster::{Cluster, DeployKey};
pub use driver::{Driver, JobUpdate, NodeEvent};
pub use handle::{Builder, Deployment, JobError, JobHandle, NodeHandle, StartError};
pub use job::{Job, JobStatus, Listing, SubmitOptions};
pub use journal::JournalError;
pub use presence::Presence;
pub use why::{Reason, WaitingGroup, Why};
