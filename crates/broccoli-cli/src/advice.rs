//! Errors of the library, with what to do about them.
//!
//! The library says what is wrong. This program adds which of its options and commands help.

use std::fmt::{Display, Formatter, Result};

use broccoli_node::cluster::ClusterError;
#[cfg(feature = "embedded-server")]
use broccoli_node::mqtt::{ServerError, ServerNotice};
use broccoli_node::{JobError, JournalError, Refusal, StartError};

/// An error with advice, as text.
pub(crate) struct Advised<'e, E>(pub(crate) &'e E);

impl Display for Advised<'_, StartError> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            error @ StartError::NoServer => {
                write!(f, "{error}: name one with --server, or start one with `broccoli up`")
            }
            StartError::Cluster(error) => Advised(error).fmt(f),
            StartError::Journal(error) => Advised(error).fmt(f),
            error => error.fmt(f),
        }
    }
}

impl Display for Advised<'_, ClusterError> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.0.fmt(f)?;
        f.write_str(match self.0 {
            ClusterError::Missing(_) => {
                ": begin a cluster here with `broccoli up`, or join one with `broccoli node --join`"
            }
            ClusterError::Exists(_) => "; choose another file with --out",
            ClusterError::Malformed(..) => "; `broccoli init --out FILE` makes one",
            ClusterError::BadToken => ": `broccoli token` prints one where the cluster runs",
            _ => "",
        })
    }
}

impl Display for Advised<'_, JournalError> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.0.fmt(f)?;
        f.write_str(match self.0 {
            JournalError::InUse(_) => ": stop it, or give this node a directory of its own with --data",
            JournalError::Foreign(..) => ": give this node a directory of its own with --data",
            JournalError::Unsupported(_) => ": leave out --data",
            JournalError::Version(..) | JournalError::Records(_) => {
                ": give another directory with --data, or run the program that wrote it"
            }
            _ => "",
        })
    }
}

impl Display for Advised<'_, JobError> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        self.0.fmt(f)?;
        match self.0 {
            JobError::Refused(Refusal::Unsure(node)) => {
                write!(f, "; start it, or if it will not come back, `broccoli forget {node}`, and submit again")
            }
            JobError::NoAnswer(node) => write!(f, ": start {node} again, or try later"),
            _ => Ok(()),
        }
    }
}

#[cfg(feature = "embedded-server")]
impl Display for Advised<'_, ServerError> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            error @ ServerError::PortTaken { addr } => write!(
                f,
                "{error}: choose another address with --listen, or use the MQTT server that is there with --server \
                 mqtt://USER:PASSWORD@{addr}"
            ),
            error => error.fmt(f),
        }
    }
}

#[cfg(feature = "embedded-server")]
impl Display for Advised<'_, ServerNotice> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            notice @ ServerNotice::Full { .. } => write!(f, "{notice}; raise that with --clients"),
            notice => notice.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text for people has not changed since the advice was part of the library.
    #[test]
    fn an_error_is_followed_by_what_helps() {
        let text = |error: StartError| Advised(&error).to_string();
        assert_eq!(
            text(StartError::NoServer),
            "no MQTT server: name one with --server, or start one with `broccoli up`"
        );
        assert_eq!(
            text(StartError::Cluster(ClusterError::Missing("c.json".into()))),
            "there is no c.json: begin a cluster here with `broccoli up`, or join one with `broccoli node --join`"
        );
        assert_eq!(
            text(StartError::Cluster(ClusterError::Exists("c.json".into()))),
            "c.json exists: it holds the key of a cluster; choose another file with --out"
        );
        assert_eq!(
            text(StartError::Cluster(ClusterError::Malformed("c.json".into(), "no key".into()))),
            "c.json is not a cluster file (no key); `broccoli init --out FILE` makes one"
        );
        assert_eq!(
            text(StartError::Cluster(ClusterError::BadToken)),
            "this is not a join token: `broccoli token` prints one where the cluster runs"
        );
        assert_eq!(
            text(StartError::Journal(JournalError::InUse("data".into()))),
            "another running node uses data: stop it, or give this node a directory of its own with --data"
        );
        assert_eq!(
            text(StartError::Journal(JournalError::Foreign("data".into(), "pi-1".into(), "pi-2".into()))),
            "data is the journal of pi-1, this is pi-2: give this node a directory of its own with --data"
        );
        assert_eq!(
            text(StartError::Journal(JournalError::Version("data".into(), 9, 1))),
            "data has version 9, this program reads up to version 1: give another directory with --data, or run the \
             program that wrote it"
        );
        let unsure = JobError::Refused(Refusal::Unsure("pi-1".parse().expect("a name")));
        assert_eq!(
            Advised(&unsure).to_string(),
            "cannot be sure: pi-1, which may hold a job with this key, is not there; start it, or if it will not come \
             back, `broccoli forget pi-1`, and submit again"
        );
    }
}
