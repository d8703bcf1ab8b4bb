//! How the program ends: the exit codes for scripts, and the error type of all commands.
//!
//! This module never prints. `main` prints the message, once.

use std::fmt::Display;

use broccoli_text::SyntaxError;

use crate::output::plain;

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done; also a node that was told to shut down.
    Done = 0,
    /// The job failed, or something could not be done.
    Failed = 1,
    /// Wrong use, found before anything ran: syntax, an unknown name, wrong arguments, a port or a name that is taken,
    /// a missing file.
    Usage = 2,
    /// The cluster cannot be reached: no server, wrong password, no node, another key.
    Unreachable = 3,
    /// Not finished in the given time.
    TimedOut = 4,
    /// The job that was asked for has not ended.
    Pending = 5,
    /// The node that should hold the job does not know it.
    Unknown = 6,
    /// A node that may hold a job with this key is offline. Nothing was submitted.
    Unsure = 7,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

/// Why a command ends early: the exit code, and a message of one or two lines.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code to exit with.
    pub(crate) exit: Exit,
    /// What went wrong and what to do next, made [`plain`]. Empty if there is nothing to say.
    pub(crate) message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Display) -> Failure {
        Failure { exit, message: plain(&message.to_string()) }
    }

    /// Exit code 2, with the line of the text and the place of the error.
    pub(crate) fn syntax(error: &SyntaxError) -> Failure {
        let text = error.to_string();
        Failure { exit: Exit::Usage, message: text.lines().map(plain).collect::<Vec<_>>().join("\n") }
    }

    /// Exit code 1.
    pub(crate) fn failed(message: impl Display) -> Failure {
        Failure::new(Exit::Failed, message)
    }

    /// Exit code 2.
    pub(crate) fn usage(message: impl Display) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// Exit code 3.
    pub(crate) fn unreachable(message: impl Display) -> Failure {
        Failure::new(Exit::Unreachable, message)
    }

    /// Exit code 4.
    pub(crate) fn timed_out(message: impl Display) -> Failure {
        Failure::new(Exit::TimedOut, message)
    }

    /// Exit code 5.
    pub(crate) fn pending(message: impl Display) -> Failure {
        Failure::new(Exit::Pending, message)
    }

    /// Exit code 6.
    pub(crate) fn unknown(message: impl Display) -> Failure {
        Failure::new(Exit::Unknown, message)
    }

    /// Exit code 7.
    pub(crate) fn unsure(message: impl Display) -> Failure {
        Failure::new(Exit::Unsure, message)
    }

    /// Exit code 130.
    pub(crate) fn interrupted(message: impl Display) -> Failure {
        Failure::new(Exit::Interrupted, message)
    }

    /// The same code without a message, if the command has printed everything.
    pub(crate) fn silent(self) -> Failure {
        Failure { message: String::new(), ..self }
    }

    /// The reader of the output has closed the pipe. This is a normal end, without a message.
    pub(crate) fn nobody_reads() -> Failure {
        Failure::new(Exit::Done, "")
    }
}
