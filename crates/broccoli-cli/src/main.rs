//! The `broccoli` command.
//!
//! This file defines the command line and the exit codes. Each command has its own module in `commands`. The command
//! decides nothing about tasks: the node does that.
#![forbid(unsafe_code)]

mod advice;
mod board;
mod commands;
mod complete;
mod connect;
mod date;
mod duration;
mod exit;
mod function;
mod jobs;
mod logging;
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
    retry, revoke, run, token, undeploy, up, why, wordcount,
};
use crate::connect::{Common, interruptible};
use crate::exit::{Exit, Failure};
use crate::logging::Program;

const EXIT_CODES: &str = "\
Exit codes:
    0  done; also a node that was told to shut down
    1  the job failed, or something could not be done
    2  wrong use, found before anything ran
    3  the cluster cannot be reached
    4  timed out
    5  the job has not ended
    6  unknown job
    7  a node that may hold a job with this key is offline
  130  interrupted";

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
    /// Start an MQTT server and a node on this machine; creates a cluster if there is none
    Up(up::UpArgs),
    /// Start a node on this machine
    Node(node::NodeArgs),
    /// Run a canvas: broccoli run "chain(add.s(4, 4), mul.s(8))"
    Run(run::RunArgs),
    /// Call one function: broccoli call add 4 4
    Call(call::CallArgs),
    /// List the jobs of the cluster
    Jobs(listing::JobsArgs),
    /// Show what the tasks of a job wait for
    Why(why::WhyArgs),
    /// Show the result of a job
    Result(result::ResultArgs),
    /// Cancel a job
    Revoke(revoke::RevokeArgs),
    /// Run a failed or revoked job again
    Retry(retry::RetryArgs),
    /// List the nodes of the cluster
    Nodes(nodes::NodesArgs),
    /// Stop a node after its running tasks have finished
    Drain(drain::DrainArgs),
    /// Tell the cluster that a node will not come back, so that it no longer blocks jobs with keys
    Forget(forget::ForgetArgs),
    /// List the functions that you can call
    Functions(functions::FunctionsArgs),
    /// Create a task crate: a Rust crate for your own functions
    New(new::NewArgs),
    /// Build a task crate into a Wasm module
    Build(build::BuildArgs),
    /// Deploy functions to all nodes
    Deploy(deploy::DeployArgs),
    /// Remove a module from all nodes; jobs that were accepted before continue
    Undeploy(undeploy::UndeployArgs),
    /// Count the words in text files, with tasks on the cluster
    Wordcount(wordcount::WordcountArgs),
    /// Write the firmware to a microcontroller, so that it joins the cluster as a node
    #[cfg(feature = "flash")]
    Flash(flash::FlashArgs),
    /// Run a demo on this machine: a server, three nodes, functions, canvases and a word count
    Demo,
    /// Create the keys of a new cluster
    Init(init::InitArgs),
    /// Print the secret token that another machine needs to join the cluster
    Token,
    /// Print the completion script for a shell
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    // Ends the program here if a shell asks for completions: see `commands::completions`.
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
    let is_node = matches!(command, Command::Up(_) | Command::Node(_));
    logging::start(if is_node { Program::Node } else { Program::Command }, common.verbosity())?;
    match command {
        Command::Up(args) => in_runtime(up::run(common, args)),
        Command::Node(args) => in_runtime(node::run(common, args)),
        Command::Run(args) => run::run(common, args),
        Command::Call(args) => in_runtime(call::run(common, args)),
        Command::Jobs(args) => in_runtime(interruptible(listing::run(common, args))),
        Command::Why(args) => in_runtime(why::run(common, args)),
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
        Command::Demo => in_runtime(demo::run()),
        Command::Init(args) => init::run(common, args),
        Command::Token => token::run(common),
        Command::Completions(args) => completions::run(&args),
    }
}

/// Runs the program and its node in one thread, so that no thread has to wake another one.
fn in_runtime(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?.block_on(work)
}
