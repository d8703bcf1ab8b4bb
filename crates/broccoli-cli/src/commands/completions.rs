//! `broccoli completions`: prints the completion script for a shell.
//!
//! The script calls this program at each key press, with the variable `COMPLETE`. So it can complete functions, nodes
//! and jobs, too.

use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::exit::Failure;
use crate::output;

/// The shell.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// Name of the shell
    shell: Shell,
}

/// The variable that the script sets.
const VARIABLE: &str = "COMPLETE";

/// Prints the script.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let name = args.shell.to_string();
    let shells = Shells::builtins();
    let unknown = || Failure::usage(format_args!("there are no completions for {name}"));
    let shell = shells.completer(&name).ok_or_else(unknown)?;
    let mut script = Vec::new();
    let written = shell.write_registration(VARIABLE, "broccoli", "broccoli", "broccoli", &mut script);
    written.map_err(|error| Failure::failed(format_args!("cannot write the completions: {error}")))?;
    output::print_script(&String::from_utf8_lossy(&script))
}
