//! Why something that a program asked of a node was not done.
//!
//! Each operation has one enum. An error says what is wrong. What to do about it is for the program to say, which knows how
//! its node was started.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;

use broccoli_abi::DescribeError;
use broccoli_core::canvas::CanvasError;
use broccoli_proto::message::Refusal;
use broccoli_proto::options::LABEL_BYTES_MAX;
use broccoli_proto::{Cause, Cbor, JobId, NodeId, TaskError};

use crate::builder::LABELS_MAX;
use crate::cluster::ClusterError;
use crate::job::Place;
use crate::journal::JournalError;

/// Why a node cannot start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// No server was given, neither to the builder nor by the cluster.
    NoServer,
    /// Too many labels, or one that is none.
    BadLabel(String),
    /// A function was given in a module that every node has by itself.
    Builtin(String),
    /// The name or the description of a function breaks a rule.
    Function(DescribeError),
    /// There is no cluster, or secrets could not be made.
    Cluster(ClusterError),
    /// The data directory cannot be used.
    Data(PathBuf, io::Error),
    /// The journal in the data directory cannot be used.
    Journal(JournalError),
    /// The system gave no thread or event queue.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::NoServer => f.write_str("no MQTT server"),
            StartError::BadLabel(label) => {
                write!(
                    f,
                    "bad label {label:?}: at most {LABELS_MAX}, such as led or room=kitchen, each without spaces, with \
                     something on both sides of =, and at most {LABEL_BYTES_MAX} bytes"
                )
            }
            StartError::Builtin(module) => {
                write!(f, "the module {module} is part of every node: choose another name for functions of your own")
            }
            StartError::Function(error) => write!(f, "a function of this program: {error}"),
            StartError::Cluster(error) => error.fmt(f),
            StartError::Data(path, error) => write!(f, "cannot use {} for data: {error}", path.display()),
            StartError::Journal(error) => error.fmt(f),
            StartError::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            StartError::NoServer | StartError::BadLabel(_) | StartError::Builtin(_) => None,
            StartError::Function(error) => Some(error),
            StartError::Cluster(error) => Some(error),
            StartError::Data(_, error) | StartError::Thread(error) => Some(error),
            StartError::Journal(error) => Some(error),
        }
    }
}

/// Why a job has no result, or why it is not known where it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobError {
    /// A task failed.
    Failed(TaskError),
    /// The job was revoked; the error says where it was then.
    Revoked(TaskError),
    /// The canvas was refused; nothing has run.
    Refused(Refusal),
    /// The origin has restarted and does not know the job any more.
    Lost,
    /// The origin does not know such a job: it never had it, or has forgotten it since it ended.
    Unknown(JobId),
    /// The job has no such step, or it is over: then only its whole result is kept.
    NoStep(JobId, Vec<u32>),
    /// The node has said nothing for five seconds. That says nothing of its jobs: ask again.
    NoAnswer(NodeId),
    /// The result is not of the type that was asked for; here it is.
    Type(Cbor),
    /// This program has revoked the job, but others wait for it: it goes on.
    LeftToOthers,
    /// This program has asked this node for more than it may at a time; nothing was done. Ask again when something has
    /// ended. See [`crate::Limits::requests_max`] and [`crate::COMMANDS_MAX`].
    TooManyRequests,
    /// This node has stopped.
    Stopped,
}

/// How a job has failed.
impl From<TaskError> for JobError {
    fn from(error: TaskError) -> JobError {
        match error.cause {
            Cause::Revoked => JobError::Revoked(error),
            _ => JobError::Failed(error),
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JobError::Failed(error) | JobError::Revoked(error) => error.fmt(f),
            JobError::Refused(refusal) => write_refusal(f, refusal),
            JobError::LeftToOthers => f.write_str("others wait for the job: it goes on"),
            JobError::Unknown(job) => {
                write!(f, "{} knows no job {job}: the id is wrong, or its result was forgotten", job.origin)
            }
            JobError::NoStep(job, path) => {
                write!(f, "job {job} has no step {}, or none that is kept", Place(path))
            }
            JobError::NoAnswer(node) => write_no_answer(f, *node),
            JobError::Lost => f.write_str("the node that held the job has restarted and lost it; submit again"),
            JobError::Type(value) => write!(f, "the result is of another type: {value}"),
            JobError::TooManyRequests => {
                f.write_str("this program waits for as many jobs as it may at a time; try again when some have ended")
            }
            JobError::Stopped => f.write_str(STOPPED),
        }
    }
}

impl Error for JobError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            JobError::Failed(error) | JobError::Revoked(error) => Some(error),
            _ => None,
        }
    }
}

/// Why a node did not hear that it is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrainError {
    /// The node takes no orders of others.
    Refused(Refusal),
    /// It has said nothing for five seconds.
    NoAnswer(NodeId),
    /// This program has asked this node for more than it may at a time: see [`JobError::TooManyRequests`].
    TooManyRequests,
    /// This node itself has stopped.
    Stopped,
}

impl fmt::Display for DrainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DrainError::Refused(refusal) => write_refusal(f, refusal),
            DrainError::NoAnswer(node) => write_no_answer(f, *node),
            DrainError::TooManyRequests => JobError::TooManyRequests.fmt(f),
            DrainError::Stopped => f.write_str(STOPPED),
        }
    }
}

impl Error for DrainError {}

/// Why a canvas cannot run on what the cluster offers now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckError {
    /// An origin would refuse it for this.
    Canvas(CanvasError),
    /// This node has stopped.
    Stopped,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckError::Canvas(error) => error.fmt(f),
            CheckError::Stopped => f.write_str(STOPPED),
        }
    }
}

impl Error for CheckError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            CheckError::Canvas(error) => Some(error),
            CheckError::Stopped => None,
        }
    }
}

/// Why a name is not that of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FunctionError {
    /// There is no function of this name, or more than one; the text says which there are.
    Unresolved(String),
    /// This node has stopped.
    Stopped,
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FunctionError::Unresolved(text) => text,
            FunctionError::Stopped => STOPPED,
        })
    }
}

impl Error for FunctionError {}

const STOPPED: &str = "this node has stopped";

fn write_no_answer(f: &mut fmt::Formatter<'_>, node: NodeId) -> fmt::Result {
    write!(f, "no answer from {node} for 5 s")
}

fn write_refusal(f: &mut fmt::Formatter<'_>, refusal: &Refusal) -> fmt::Result {
    match refusal {
        Refusal::QueueFull => f.write_str("queue full: the node holds as many tasks as it may; try later"),
        Refusal::BadCanvas(why) => f.write_str(why),
        Refusal::Storage(why) | Refusal::Unwritten(why) => {
            write!(f, "the node cannot write its journal: {why}; try later")
        }
        Refusal::NotResident => f.write_str("the node takes no jobs of others"),
        Refusal::Draining => f.write_str("the node is about to leave; submit to another"),
        Refusal::Elsewhere(node) => write!(f, "{node} holds a job with this key; submit to it"),
        Refusal::Unsure(node) => {
            write!(f, "cannot be sure: {node}, which may hold a job with this key, is not there")
        }
        Refusal::NotRetriable(why) => write!(f, "nothing to try again: {why}"),
        Refusal::Other(number) => {
            write!(f, "refused for a reason that this version does not know (number {number}): update this program")
        }
    }
}
