//! The journal: what survives this incarnation of an origin.
//!
//! ```text
//!   key       value
//!   0, 0      Node: version of this format, incarnations so far
//!   job, 0    Accepted; once the job is over, Over in its place
//!   job, 1 …  Changes since then, in order, one record for each write
//! ```
//!
//! One write is under way at a time. What happens meanwhile goes into the next one, so that a slow
//! disk makes larger writes, not more of them, and a job that is accepted and ends meanwhile costs
//! one record. Whoever is told that something is safe is told after its write: [`Promise`]. Nothing
//! else waits: tasks are leased and run before the disk knows of their job.
//!
//! A record of changes holds one large value at most, which it shares with the job, and not much else:
//! so nothing is copied into one long record, and a new incarnation reads no longer ones.
//!
//! A write begins at once if a client waits for it. The results of other nodes can wait: their
//! worker keeps them until it hears that they are safe. So a chain costs two writes, not one for
//! each of its tasks.
//!
//! A new incarnation replays the changes of a job on the plan of its canvas: the plan is a pure
//! computation, so that it comes to the same state.

pub(crate) mod archive;
pub(crate) mod promises;
pub(crate) mod records;
pub(crate) mod recovery;
pub(crate) mod writes;
