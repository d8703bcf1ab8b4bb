//! `broccoli drain`: has a node finish what it does, and leave.

use std::time::Duration;

use broccoli_node::core::{Member, Node};
use broccoli_node::proto::NodeId;
use broccoli_node::proto::message::{Refusal, Vitals};
use broccoli_node::{JobError, NodeEvent};
use clap_complete::ArgValueCandidates;
use tokio::time::timeout;

use crate::complete;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::resident::SERVER_LABEL;
use crate::{duration, output, waits};

/// Which node.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// The node, as `broccoli nodes` prints it
    #[arg(value_name = "NODE", add = ArgValueCandidates::new(complete::nodes))]
    node: NodeId,
    /// How long the node may finish what it runs, such as 30s: then it hands that back to run elsewhere, and leaves; jobs that it
    /// holds in memory only are lost then. Default: 30s
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    limit: Option<Duration>,
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
        let reason = match session.is_known(name).await {
            true => format!("{name} is gone already: if it does not come back, `broccoli forget {name}`"),
            false => format!("there is no node {name}: `broccoli nodes` shows those that are there"),
        };
        return Err(Failure::usage(reason));
    }
    let serves = move |node: &Node| {
        let server = |member: &Member| member.birth.features.iter().any(|feature| feature == SERVER_LABEL);
        node.members().any(|(other, member)| other == name && server(member))
    };
    if session.node.query(serves).await == Some(true) {
        output::note(format_args!(
            "the MQTT server of this cluster runs in {name} and ends with it: nodes connect again when it is back"
        ));
    }
    let vitals = session.node.drain_node(name, args.limit).await.map_err(|error| match error {
        JobError::Refused(Refusal::NotResident) | JobError::NoAnswer(_) => Failure::unreachable(format_args!(
            "{name} does not answer: nodes that take no jobs of others are drained where they run, by Ctrl-C or SIGTERM"
        )),
        error => Failure::failed(error),
    })?;
    output::note(format_args!("{name} is draining{}", what_is_left(name, &vitals)));
    let left = async {
        while session.node.query(has_left).await == Some(false)
            && let Some(event) = session.event().await
        {
            tell_lost(name, &event);
        }
    };
    let late = format!("{name} has not left within {}: it goes on finishing", duration::print(args.timeout));
    timeout(args.timeout, left).await.map_err(|_| Failure::timed_out(late))?;
    output::print(format_args!("{name} has left"))
}

/// Names the jobs that are lost with a node which has waited long enough.
fn tell_lost(name: NodeId, event: &NodeEvent) {
    let NodeEvent::Vitals(node, Vitals { leaving: Some(leaving), .. }) = event else {
        return;
    };
    if *node == name && leaving.gives_up == Some(true) {
        for job in &leaving.jobs {
            output::note(format_args!("lost with {name}, which held it in memory: job {}", waits::job(name, job)));
        }
    }
}

/// `: 2 tasks run (tasks.add, tasks.mul), 1 job is held in memory (pi-1/…: tasks.add)`; empty if there is nothing to wait for.
pub(crate) fn what_is_left(name: NodeId, vitals: &Vitals) -> String {
    let counted = |count: u32, noun, one: &str, many: &str, named: &[String]| {
        let verb = if count == 1 { one } else { many };
        let more = if (named.len() as u32) < count { ", …" } else { "" };
        let named = if named.is_empty() { String::new() } else { format!(" ({}{more})", named.join(", ")) };
        (count > 0).then(|| format!("{} {verb}{named}", output::count(count as usize, noun)))
    };
    let leaving = vitals.leaving.as_deref().cloned().unwrap_or_default();
    let tasks = counted(vitals.running, "task", "runs", "run", &leaving.tasks);
    let held: Vec<String> = leaving.jobs.iter().map(|job| waits::job(name, job)).collect();
    // The jobs of a node with a journal go on when it is back.
    let jobs = if held.is_empty() { 0 } else { vitals.jobs };
    let jobs = counted(jobs, "job", "is held in memory", "are held in memory", &held);
    let left: Vec<String> = tasks.into_iter().chain(jobs).collect();
    if left.is_empty() { String::new() } else { format!(": {}", left.join(", ")) }
}
