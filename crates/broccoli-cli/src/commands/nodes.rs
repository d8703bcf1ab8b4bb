//! `broccoli nodes`: lists the nodes of the cluster with their state and load.

use std::time::Duration;

use broccoli_node::view::{About, JobView, Leaving, Load, NodeState, NodeView};
use serde_json::{Value, json};

use super::drain::what_is_left;
use crate::connect::Common;
use crate::date::version;
use crate::exit::Failure;
use crate::function::stopped;
use crate::{output, waits};

/// Maximum time for the answers of the nodes.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How to show the nodes.
#[derive(Debug, clap::Args)]
pub(crate) struct NodesArgs {
    /// Print JSON: [{"name", "state", "slots", "resident", "labels", "version", "running", "queued", "jobs",
    /// "waiting", "tasks_run", "uptime_s", "last_seen_s", "modules": [{"name", "version"}], "waits_for": {"tasks",
    /// "jobs"}}]; state is live, draining (the node stops when everything in waits_for has ended: functions that run,
    /// and jobs that only this node holds), silent (no answer), left (the node has said goodbye) or gone; a value that
    /// is unknown because the node has not answered is null
    #[arg(long)]
    json: bool,
}

/// Shows all nodes that run tasks or hold jobs, and for a day also nodes that are offline. Clients are not shown.
///
/// # Errors
/// If the cluster cannot be reached.
pub(crate) async fn run(common: &Common, args: NodesArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    let nodes = session.node.nodes(ANSWER_MAX).await.ok_or_else(stopped)?;
    session.close().await;
    let rows: Vec<NodeView> = nodes.into_iter().filter(|node| !node.is_client).collect();
    if args.json {
        output::print(Value::from_iter(rows.iter().map(as_json)))
    } else {
        let headings =
            ["NAME", "STATE", "SLOTS", "RUNNING", "QUEUED", "JOBS", "UP", "SEEN", "LABELS", "VERSION", "MODULES"];
        output::print_table(headings, &["VERSION", "UP", "MODULES"], rows.iter().map(cells).collect())?;
        for row in &rows {
            if let (Some(load), NodeState::Draining) = (&row.load, row.state) {
                output::note(format_args!("{} is draining{}", row.name, what_is_left(load)));
            }
        }
        Ok(())
    }
}

/// The name of a state, for people and machines.
fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Live => "live",
        NodeState::Draining => "draining",
        NodeState::Left => "left",
        NodeState::Gone => "gone",
        _ => "silent",
    }
}

fn waits_for(leaving: &Leaving) -> Value {
    let job = |job: &JobView| json!({"id": job.id.to_string(), "name": job.name, "waits": job.waits.as_ref().map(waits::why)});
    json!({"tasks": leaving.functions, "jobs": Value::from_iter(leaving.jobs.iter().map(job))})
}

fn as_json(node: &NodeView) -> Value {
    let (load, about) = (node.load.as_ref(), node.about.as_ref());
    let modules = |load: &Load| {
        Value::from_iter(load.modules.iter().map(|(name, version)| json!({"name": name, "version": version})))
    };
    json!({
        "name": node.name.as_str(),
        "state": state(node.state),
        "slots": about.map(|about| about.slots),
        "resident": about.map(|about| about.is_resident),
        "labels": about.map(|about| about.labels.clone()),
        "version": about.map(|about| about.version.clone()),
        "running": load.map(|load| load.running),
        "queued": load.map(|load| load.queued),
        "jobs": load.map(|load| load.jobs),
        "waiting": load.map(|load| load.waiting),
        "tasks_run": load.map(|load| load.tasks_run),
        "uptime_s": load.map(|load| load.uptime.as_secs()),
        "last_seen_s": node.last_seen.map(|seen| seen.as_millis() as f64 / 1_000.0),
        "modules": load.map(modules),
        "waits_for": load.and_then(|load| load.leaving.as_ref()).map(waits_for),
    })
}

fn cells(node: &NodeView) -> [String; 11] {
    let unknown = || "-".to_owned();
    let load = |get: fn(&Load) -> String| node.load.as_ref().map_or_else(unknown, get);
    let about = |get: fn(&About) -> String| node.about.as_ref().map_or_else(unknown, get);
    let modules = |load: &Load| {
        let named = load.modules.iter().map(|(name, number)| format!("{name}@{}", version(*number)));
        named.collect::<Vec<_>>().join(" ")
    };
    [
        node.name.to_string(),
        state(node.state).to_owned(),
        about(|about| about.slots.to_string()),
        load(|load| load.running.to_string()),
        // Tasks that wait here for a slot, and tasks of its jobs that wait for a node.
        load(|load| (u64::from(load.queued) + u64::from(load.waiting)).to_string()),
        load(|load| load.jobs.to_string()),
        load(|load| uptime(load.uptime.as_secs())),
        node.last_seen.map_or_else(unknown, |seen| uptime(seen.as_secs())),
        about(|about| about.labels.join(" ")),
        about(|about| about.version.clone()),
        load(modules),
    ]
}

/// `42s`, `7m`, `3h`, `12d`.
fn uptime(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::uptime;

    #[test]
    fn uptimes_are_short() {
        assert_eq!([59, 60, 7_200, 90_000].map(uptime), ["59s", "1m", "2h", "1d"]);
    }
}
