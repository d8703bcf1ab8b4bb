//! How the program ends: the exit codes that scripts rely on, and the one error of all commands.
//!
//! Never prints: `main` does, once.

use std::fmt::Display;

use broccoli_node::text::SyntaxError;

use crate::output::plain;

/// What the exit code tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done; also a node that was asked to leave.
    Done = 0,
    /// The job failed, or something could not be done.
    Failed = 1,
    /// Wrong use, found before anything ran: syntax, an unknown name, wrong arguments, a port or a
    /// name that is taken, a file that is not there.
    Usage = 2,
    /// The cluster cannot be reached: no server, wrong password, no node, another key.
    Unreachable = 3,
    /// Not finished in the time that was given.
    TimedOut = 4,
    /// The job that was asked after has not ended.
    Pending = 5,
    /// The node that is to hold it knows no such job.
    Unknown = 6,
    /// A node that may hold a job with the key is not there: nothing was submitted.
    Unsure = 7,
    /// Ended by Ctrl-C.
    Interrupted = 130,
}

/// Why a command ends early: the code, and what the user is told in one or two lines.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The code to exit with.
    pub(crate) exit: Exit,
    /// What went wrong and what to do next, [`plain`]; empty if there is nobody to tell.
    pub(crate) message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Display) -> Failure {
        Failure { exit, message: plain(&message.to_string()) }
    }

    /// Exit code 2, with the line of the text and the place in it.
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

    /// The same code without a word: what there is to say was printed.
    pub(crate) fn silent(self) -> Failure {
        Failure { message: String::new(), ..self }
    }

    /// Whoever read our output has had enough: an end like any other, without a word.
    pub(crate) fn nobody_reads() -> Failure {
        Failure::new(Exit::Done, "")
    }
}
