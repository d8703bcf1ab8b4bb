//! Hints for command names that other programs use.
//!
//! This module has only the table of names. clap does everything else about the command line.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Names that people try, and the commands of Broccoli for them.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (&["cancel", "abort", "kill", "rm"], "`broccoli revoke ID` cancels a job, `broccoli jobs` lists the jobs"),
    (
        &["ps", "list", "ls"],
        "`broccoli jobs` lists the jobs, `broccoli nodes` the nodes, `broccoli functions` the functions",
    ),
    (
        &["status", "inspect", "top", "info"],
        "`broccoli nodes` lists the nodes, `broccoli jobs` lists the jobs, `broccoli result ID` shows one job",
    ),
    (&["explain", "wait", "waits"], "`broccoli why ID` shows what the tasks of a job wait for"),
    (&["worker", "start", "serve"], "`broccoli node` starts a node, `broccoli up` starts a node and an MQTT server"),
    (&["join", "add-node"], "`broccoli node --join @FILE` joins a cluster with the token that `broccoli token` prints"),
    (
        &["leave", "stop", "down", "shutdown"],
        "`broccoli drain NODE` stops a node after its running tasks have finished; so does Ctrl-C in its terminal",
    ),
    (
        &["logs", "log", "events", "watch"],
        "`broccoli run` prints the log lines of its tasks, `broccoli -v COMMAND` prints events of the cluster; \
         docs/observing.md says what nodes log",
    ),
    (
        &["exec", "apply", "submit", "send"],
        "`broccoli run \"add.s(1, 2)\"` runs a canvas, `broccoli call add 1 2` calls one function",
    ),
    (&["create", "scaffold"], "`broccoli new DIR` creates a task crate, `broccoli init` creates a cluster"),
    (&["beat", "purge", "flower"], "docs/celery.md compares Celery and Broccoli"),
];

/// Adds a hint to the error about an unknown command, if the table has its name.
pub(crate) fn explain(mut error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let here = ELSEWHERE.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, here)| *here);
    if let Some(here) = here {
        // clap's own suggestion only compares letters.
        error.remove(ContextKind::SuggestedSubcommand);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![here.into()]));
    }
    error
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_name_is_a_command_here_or_there_twice() {
        let names: Vec<&str> = ELSEWHERE.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(crate::Cli::command().find_subcommand(name).is_none(), "{name} is a command");
            assert!(!names[..at].contains(name), "{name} is there twice");
        }
    }
}
