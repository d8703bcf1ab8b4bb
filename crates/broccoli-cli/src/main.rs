//! The `broccoli` command.
//!
//! Owns the command line and the exit codes; what a command does is in its module below
//! `commands`. Decides nothing about tasks: that is the node's matter.
#![forbid(unsafe_code)]

mod board;
mod commands;
mod complete;
mod connect;
mod date;
mod duration;
mod exit;
mod function;
mod jobs;
mod misuse;
mod number;
mod output;
mod resident;
#[cfg(feature = "embedded-server")]
mod server;
mod signals;
mod size;
mod waits;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::CompleteEnv;

#[cfg(feature = "flash")]
use crate::commands::flash;
use crate::commands::{
    build, call, completions, demo, deploy, drain, forget, functions, init, jobs as listing, new, node, nodes, result,
    retry, revoke, run, token, undeploy, up, wordcount,
};
use crate::connect::{Common, interruptible};
use crate::exit::{Exit, Failure};

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 the job failed, 2 wrong use (found before anything runs), 3 cannot reach the
cluster, 4 timed out, 5 the job has not ended, 6 unknown job, 7 a node that may hold a job with the key is not
there, 130 interrupted. `up` and `node` end with 0 when they are asked to leave.";

/// A distributed task queue for clusters of small computers.
#[derive(Parser)]
#[command(name = "broccoli", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start an MQTT server and a node here: the beginning of a cluster
    Up(up::UpArgs),
    /// Start a node here
    Node(node::NodeArgs),
    /// Run a canvas: broccoli run "chain(add.s(4, 4), mul.s(8))"
    Run(run::RunArgs),
    /// Call one function: broccoli call add 4 4
    Call(call::CallArgs),
    /// Show the jobs that the nodes of the cluster hold
    Jobs(listing::JobsArgs),
    /// Show what a job has come to
    Result(result::ResultArgs),
    /// End a job
    Revoke(revoke::RevokeArgs),
    /// Run a failed or revoked job again
    Retry(retry::RetryArgs),
    /// Show the nodes of the cluster
    Nodes(nodes::NodesArgs),
    /// Have a node finish what it does, and leave
    Drain(drain::DrainArgs),
    /// Say that a node will not come back, so that keys do not wait for it
    Forget(forget::ForgetArgs),
    /// Show the functions that can be called
    Functions(functions::FunctionsArgs),
    /// Write a crate for functions of your own
    New(new::NewArgs),
    /// Build a crate of functions
    Build(build::BuildArgs),
    /// Send functions to all nodes
    Deploy(deploy::DeployArgs),
    /// Take a module away from all nodes; jobs that were accepted before go on
    Undeploy(undeploy::UndeployArgs),
    /// Count the words of texts on the cluster
    Wordcount(wordcount::WordcountArgs),
    /// Make a microcontroller a node of the cluster
    #[cfg(feature = "flash")]
    Flash(flash::FlashArgs),
    /// See it work: a server, three nodes, functions, canvases and a word count on this machine
    Demo,
    /// Make the keys of a new cluster
    Init(init::InitArgs),
    /// Print the token with which another machine joins: a secret
    Token,
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    // A shell that completes a command line ends here: see `commands::completions`.
    CompleteEnv::with_factory(Cli::command).complete();
    let Cli { common, command } =
        Cli::try_parse().unwrap_or_else(|error| connect::without_password(misuse::explain(error)).exit());
    let done = common.with_environment().and_then(|common| dispatch(&common, command));
    let exit = match done {
        Ok(()) => Exit::Done,
        Err(Failure { exit, message }) => {
            if !message.is_empty() {
                output::error(&message);
            }
            exit
        }
    };
    ExitCode::from(exit as u8)
}

fn dispatch(common: &Common, command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => in_runtime(up::run(common, args)),
        Command::Node(args) => in_runtime(node::run(common, args)),
        Command::Run(args) => run::run(common, args),
        Command::Call(args) => in_runtime(call::run(common, args)),
        Command::Jobs(args) => in_runtime(interruptible(listing::run(common, args))),
        Command::Result(args) => in_runtime(result::run(common, args)),
        Command::Revoke(args) => in_runtime(interruptible(revoke::run(common, args))),
        Command::Retry(args) => in_runtime(interruptible(retry::run(common, args))),
        Command::Drain(args) => in_runtime(interruptible(drain::run(common, args))),
        Command::Forget(args) => in_runtime(interruptible(forget::run(common, args))),
        Command::Nodes(args) => in_runtime(interruptible(nodes::run(common, args))),
        Command::Functions(args) => in_runtime(interruptible(functions::run(common, args))),
        Command::New(args) => new::run(args),
        Command::Build(args) => build::run(args),
        Command::Deploy(args) => in_runtime(interruptible(deploy::run(common, args))),
        Command::Undeploy(args) => in_runtime(undeploy::run(common, args)),
        Command::Wordcount(args) => in_runtime(wordcount::run(common, args)),
        #[cfg(feature = "flash")]
        Command::Flash(args) => flash::run(common, args),
        Command::Demo => in_runtime(demo::run(common)),
        Command::Init(args) => init::run(common, args),
        Command::Token => token::run(common),
        Command::Completions(args) => completions::run(&args),
    }
}

/// One thread runs the program and the node it is: nothing has to wake another thread.
fn in_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?.block_on(work)
}
