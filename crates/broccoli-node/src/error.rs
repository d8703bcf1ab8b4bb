//! The errors of the public API, one enum for each operation.
//!
//! An error says what is wrong. The program that shows it adds what to do, because only it knows how its node was
//! started.

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
    /// No server is set, neither in the builder nor in the cluster file.
    NoServer,
    /// Too many labels, or an invalid one.
    BadLabel(String),
    /// A native function has the module name of a built-in module.
    Builtin(String),
    /// The name or the description of a function breaks a rule.
    Function(DescribeError),
    /// No cluster is set, or the system has no randomness for secrets.
    Cluster(ClusterError),
    /// The data directory cannot be used.
    Data(PathBuf, io::Error),
    /// The journal in the data directory cannot be used.
    Journal(JournalError),
    /// The system cannot create a thread or an event queue.
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

/// Why a job has no result, or why its state is unknown.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum JobError {
    /// A task failed.
    Failed(TaskError),
    /// The job was revoked. The error describes the state it was in.
    Revoked(TaskError),
    /// The canvas was refused; nothing has run.
    Refused(Refusal),
    /// The origin has restarted and has lost the job.
    Lost,
    /// The origin does not know the job: the id is wrong, or its result was deleted.
    Unknown(JobId),
    /// The job has no such step, or has ended: then only the result of the whole job is kept.
    NoStep(JobId, Vec<u32>),
    /// The node has not answered for five seconds. Its jobs may still run: ask again.
    NoAnswer(NodeId),
    /// The result has another type than requested. Contains the result.
    Type(Cbor),
    /// This program has revoked the job, but other clients wait for it, so it goes on.
    LeftToOthers,
    /// This node has too many requests of this program; this one was dropped. Ask again when others have ended. See
    /// [`crate::Limits::requests_max`] and [`crate::COMMANDS_MAX`].
    TooManyRequests,
    /// This node has stopped.
    Stopped,
}

/// The error of a failed or revoked job.
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

/// Why a node could not be asked to drain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrainError {
    /// The node accepts no requests of others.
    Refused(Refusal),
    /// It has not answered for five seconds.
    NoAnswer(NodeId),
    /// This node has too many requests of this program: see [`JobError::TooManyRequests`].
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
    /// An origin would refuse it with this error.
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

/// Why a name cannot be resolved to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FunctionError {
    /// No function, or more than one, has this name. The text names the candidates.
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
