//! `broccoli drain`: has a node finish what it does, and leave.

use std::time::Duration;

use broccoli_node::JobError;
use broccoli_node::core::Node;
use broccoli_node::proto::NodeId;
use broccoli_node::proto::message::{Refusal, Vitals};
use clap_complete::ArgValueCandidates;
use tokio::time::timeout;

use crate::complete;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::{duration, output};

/// Which node.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// The node, as `broccoli nodes` prints it
    #[arg(value_name = "NODE", add = ArgValueCandidates::new(complete::nodes))]
    node: NodeId,
    /// End the wait after this time; the node goes on finishing
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "60s")]
    timeout: Duration,
}

/// Waits until the node has left.
///
/// # Errors
/// If there is no such node, if it does not answer, and with exit code 4 if it needs too long.
pub(crate) async fn run(common: &Common, args: DrainArgs) -> Result<(), Failure> {
    let mut session = common.open().await?;
    let done = drain(&mut session, &args).await;
    session.close().await;
    done
}

async fn drain(session: &mut Session, args: &DrainArgs) -> Result<(), Failure> {
    let name = args.node;
    session.meet_all().await;
    let has_left = move |node: &Node| !node.members().any(|(other, member)| other == name && member.alive);
    if session.node.query(has_left).await != Some(false) {
        return Err(Failure::usage(format_args!(
            "there is no node {name}: `broccoli nodes` shows those that are there"
        )));
    }
    let vitals = session.node.drain_node(name).await.map_err(|error| match error {
        JobError::Refused(Refusal::NotResident) | JobError::NoAnswer(_) => Failure::unreachable(format_args!(
            "{name} does not answer: nodes that take no jobs of others are drained where they run, by Ctrl-C or SIGTERM"
        )),
        error => Failure::failed(error),
    })?;
    output::note(format_args!("{name} is draining{}", what_is_left(&vitals)));
    let left = async { while session.node.query(has_left).await == Some(false) && session.event().await.is_some() {} };
    let late = format!("{name} has not left within {}: it goes on finishing", duration::print(args.timeout));
    timeout(args.timeout, left).await.map_err(|_| Failure::timed_out(late))?;
    output::print(format_args!("{name} has left"))
}

/// `: 3 tasks run, 1 job is held`; empty if there is nothing to wait for.
pub(crate) fn what_is_left(vitals: &Vitals) -> String {
    let counted = |count: u32, noun, one: &str, many: &str| {
        let verb = if count == 1 { one } else { many };
        (count > 0).then(|| format!("{} {verb}", output::count(count as usize, noun)))
    };
    let tasks = counted(vitals.running, "task", "runs", "run");
    let jobs = counted(vitals.jobs, "job", "is held", "are held");
    let left: Vec<String> = tasks.into_iter().chain(jobs).collect();
    if left.is_empty() { String::new() } else { format!(": {}", left.join(", ")) }
}
