//! The journal: makes jobs survive a restart of the origin.
//!
//! ```text
//!   key       value
//!   0, 0      Node: version of this format, incarnations so far
//!   job, 0    Accepted; replaced by Over when the job has ended
//!   job, 1 …  Changes since then, in order, one record for each write
//! ```
//!
//! One write is in progress at a time. Changes that happen meanwhile go into the next one. So a slow disk makes writes
//! larger, not more numerous, and a job that is accepted and ends during one write costs one record. A message that
//! says that something is safe is sent after its write: see [`Promise`]. Nothing else waits: tasks are leased and run
//! before their job is on the disk.
//!
//! A record of changes holds at most one large value, which is shared with the job, and little else. So no values are
//! copied into one long record, and recovery never reads a longer one.
//!
//! A write starts at once if a client waits for it. Results of other nodes can wait: their workers keep them until they
//! are acknowledged. So a chain costs two writes, not one for each of its tasks.
//!
//! Recovery replays the changes of a job on the plan of its canvas. The plan is a pure computation, so it reaches the
//! same state.

pub(crate) mod archive;
pub(crate) mod promises;
pub(crate) mod records;
pub(crate) mod recovery;
pub(crate) mod writes;
