//! `broccoli completions`: completions for a shell.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::exit::Failure;
use crate::output;

/// For which shell.
#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Prints them.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "broccoli", &mut script);
    output::print(String::from_utf8_lossy(&script).trim_end())
}
