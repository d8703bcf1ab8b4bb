//! `broccoli drain`: stops a node after its running tasks have finished.

use std::time::Duration;

use broccoli_node::view::Load;
use broccoli_node::{DrainError, Event, NodeEvent, NodeId, Refusal};
use clap_complete::ArgValueCandidates;
use tokio::time::timeout;

use crate::complete;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::resident::SERVER_LABEL;
use crate::{duration, output, waits};

/// The node, and the time limits.
#[derive(Debug, clap::Args)]
pub(crate) struct DrainArgs {
    /// Name of the node, as `broccoli nodes` prints it
    #[arg(value_name = "NODE", add = ArgValueCandidates::new(complete::nodes))]
    node: NodeId,
    /// Time for the node to finish its running tasks, such as 30s; then it hands them back, so that they run on other
    /// nodes, and stops; jobs that it holds only in memory are lost then; default: 30s
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
    limit: Option<Duration>,
    /// Stop waiting after this time; the node continues to drain
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "60s")]
    timeout: Duration,
}

/// Waits until the node has left.
///
/// # Errors
/// If there is no such node, or it does not answer. Exit code 4 if it needs too long.
pub(crate) async fn run(common: &Common, args: DrainArgs) -> Result<(), Failure> {
    let mut session = common.open().await?;
    let done = drain(&mut session, &args).await;
    session.close().await;
    done
}

async fn drain(session: &mut Session, args: &DrainArgs) -> Result<(), Failure> {
    let name = args.node;
    session.meet_all().await;
    if !session.is_online(name).await {
        let reason = match session.is_known(name).await {
            true => format!("{name} is already offline: if it will not come back, run `broccoli forget {name}`"),
            false => format!("there is no node {name}: `broccoli nodes` lists the nodes"),
        };
        return Err(Failure::usage(reason));
    }
    if runs_server(session, name).await {
        output::note(format_args!(
            "the MQTT server of this cluster runs in {name} and stops with it: the nodes reconnect when it is back"
        ));
    }
    let load = session.node.drain_node(name, args.limit).await.map_err(|error| match error {
        DrainError::Refused(Refusal::NotResident) | DrainError::NoAnswer(_) => Failure::unreachable(format_args!(
            "{name} does not answer: if it takes no jobs of others, stop it on its own machine with Ctrl-C or SIGTERM"
        )),
        error => Failure::failed(error),
    })?;
    output::note(format_args!("{name} is draining{}", what_is_left(&load)));
    let left = async {
        while session.is_online(name).await
            && let Some(event) = session.event().await
        {
            tell_lost(name, &event);
        }
    };
    let late = format!("{name} has not left within {}: it continues to drain", duration::print(args.timeout));
    timeout(args.timeout, left).await.map_err(|_| Failure::timed_out(late))?;
    output::print(format_args!("{name} has left"))
}

/// Reports the jobs that are lost with a node whose time to finish is over.
fn tell_lost(name: NodeId, event: &NodeEvent) {
    let NodeEvent::Cluster(Event::Vitals(node, vitals)) = event else { return };
    let leaving = Load::of(*node, vitals.clone()).leaving;
    if let Some(leaving) = leaving.filter(|leaving| *node == name && leaving.gives_up) {
        for job in &leaving.jobs {
            output::note(format_args!("lost: job {}; {name} held it only in memory", waits::job(job)));
        }
    }
}

/// Whether the MQTT server of the cluster runs in the process of a node.
async fn runs_server(session: &Session, name: NodeId) -> bool {
    let view = session.node.view().await;
    let about = view.as_ref().and_then(|view| view.node(name)?.about.as_ref());
    about.is_some_and(|about| about.labels.iter().any(|label| label == SERVER_LABEL))
}

/// What a draining node waits for, `: 2 tasks are running (tasks.add, tasks.mul), 1 job is held in memory (pi-1/…:
/// tasks.add)`. Empty if it waits for nothing.
pub(crate) fn what_is_left(load: &Load) -> String {
    let counted = |count: u32, noun, one: &str, many: &str, named: &[String]| {
        let verb = if count == 1 { one } else { many };
        let more = if (named.len() as u32) < count { ", …" } else { "" };
        let named = if named.is_empty() { String::new() } else { format!(" ({}{more})", named.join(", ")) };
        (count > 0).then(|| format!("{} {verb}{named}", output::count(count as usize, noun)))
    };
    let leaving = load.leaving.clone().unwrap_or_default();
    let tasks = counted(load.running, "task", "is running", "are running", &leaving.functions);
    let held: Vec<String> = leaving.jobs.iter().map(waits::job).collect();
    // The jobs of a node with a journal continue when it is back.
    let jobs = if held.is_empty() { 0 } else { load.jobs };
    let jobs = counted(jobs, "job", "is held in memory", "are held in memory", &held);
    let left: Vec<String> = tasks.into_iter().chain(jobs).collect();
    if left.is_empty() { String::new() } else { format!(": {}", left.join(", ")) }
}
