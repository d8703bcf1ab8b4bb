//! Content that is named by its hash and pulled in pieces from whoever has it: the code of modules, and values that fit into
//! no packet.
//!
//! ```text
//!   modules   manifest ──► Flow of chunks ──► the shell's store
//!   blobs     BlobRef  ──► Flow of pieces ──► memory
//! ```
//!
//! [`flow`] decides which pieces are asked for, how many at once and when again, for both.

pub(crate) mod blobs;
pub(crate) mod flow;
pub(crate) mod modules;
