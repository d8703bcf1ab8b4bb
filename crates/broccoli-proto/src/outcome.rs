//! How a task or a job ended: with a result or an error.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use minicbor::{Decode, Decoder, Encode, decode};

use crate::{Cbor, NodeId};

/// The outcome of a task or a canvas. There is exactly one.
pub type Outcome = Result<Cbor, TaskError>;

/// Why a task failed. It tells a person the function, the node and the cause.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TaskError {
    /// `module.function`.
    #[n(0)]
    pub function: String,
    /// Number of the task in its job.
    #[n(1)]
    pub task: u32,
    /// The node that ran it; none if it never ran.
    #[n(2)]
    pub node: Option<NodeId>,
    /// Which attempt failed, from 1; 0 if it never ran.
    #[n(3)]
    pub attempt: u32,
    /// What went wrong.
    #[n(4)]
    #[cbor(decode_with = "Cause::known_or_other")]
    pub cause: Cause,
    /// The message of the function or of the node.
    #[n(5)]
    pub text: String,
    /// Indices of the group members on the path to the task, outermost first.
    #[n(6)]
    pub members: Vec<u32>,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Cause {
    /// The function returned an error.
    #[n(0)]
    Returned,
    /// The function panicked, trapped or broke a limit of the node.
    #[n(1)]
    Crashed,
    /// An attempt took longer than its `timeout`.
    #[n(2)]
    TimedOut,
    /// The workers that started it were lost too often.
    #[n(3)]
    Lost,
    /// The job was revoked.
    #[n(4)]
    Revoked,
    /// The arguments or the result do not fit the function or the node.
    #[n(5)]
    Unfit,
    /// It waited longer than its `expires`.
    #[n(6)]
    Expired,
    /// A kind that this version does not know. The text says more. Never sent.
    #[n(4294967295)]
    Other,
}

impl Cause {
    /// Reads a kind. An unknown kind becomes [`Cause::Other`], so that the rest of the error is kept.
    pub(crate) fn known_or_other<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<Cause, decode::Error> {
        crate::known_or(decoder, context, |decoder| decoder.u32().map(|_| Cause::Other))
    }
}

/// `tasks.add: text (step 3, attempt 1 on pi-1, member 2)`.
impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (step {}", self.function, self.text, self.task)?;
        if let Some(node) = self.node {
            write!(f, ", attempt {} on {node}", self.attempt)?;
        }
        self.members.iter().try_for_each(|member| write!(f, ", member {member}"))?;
        f.write_str(")")
    }
}

impl core::error::Error for TaskError {}
