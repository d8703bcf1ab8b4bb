//! Commands by the names that other programs have for them.
//!
//! Owns the table; everything else about the command line is clap's.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What people try, and what it is here.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (&["cancel", "abort", "kill", "rm"], "`broccoli revoke ID` ends a job, `broccoli jobs` shows them"),
    (
        &["ps", "list", "ls"],
        "`broccoli jobs` shows the jobs, `broccoli nodes` the nodes, `broccoli functions` the functions",
    ),
    (
        &["status", "inspect", "top", "info"],
        "`broccoli nodes` shows the nodes, `broccoli jobs` the jobs, `broccoli result ID` one job",
    ),
    (&["worker", "start", "serve"], "`broccoli node` starts a node, `broccoli up` one with an MQTT server"),
    (&["join", "add-node"], "`broccoli node --join @FILE` joins, with the token that `broccoli token` prints"),
    (
        &["leave", "stop", "down", "shutdown"],
        "`broccoli drain NODE` lets a node finish and leave, and so does Ctrl-C where it runs",
    ),
    (
        &["logs", "log", "events", "watch"],
        "`broccoli run` shows what tasks log while they run, `broccoli -v COMMAND` what happens in the cluster",
    ),
    (
        &["exec", "apply", "submit", "send"],
        "`broccoli run \"add.s(1, 2)\"` runs a canvas, `broccoli call add 1 2` one function",
    ),
    (&["create", "scaffold"], "`broccoli new DIR` writes a crate of functions, `broccoli init` makes a cluster"),
    (&["beat", "purge", "flower"], "docs/celery.md has a table for those who know Celery"),
];

/// The error of a command line, with the name that an unknown command has here.
pub(crate) fn explain(mut error: clap::Error) -> clap::Error {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return error;
    }
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let here = ELSEWHERE.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, here)| *here);
    if let Some(here) = here {
        // Its own guesses are by letters.
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
