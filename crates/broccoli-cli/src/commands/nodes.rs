//! `broccoli nodes`: lists the nodes of the cluster with their state and load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broccoli_node::core::Node;
use broccoli_node::proto::message::{Birth, JobSummary, Leaving, Vitals};
use broccoli_node::proto::{JobId, NodeId};
use broccoli_node::{JobError, Presence};
use serde_json::{Value, json};

use super::drain::what_is_left;
use crate::connect::Common;
use crate::date::version;
use crate::exit::Failure;
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

struct Row {
    name: NodeId,
    /// What the node has announced about itself, unless it is gone.
    birth: Option<Birth>,
    state: &'static str,
    vitals: Option<Vitals>,
    last_seen: Option<Duration>,
}

/// Shows all nodes that run tasks or hold jobs, and for a day also nodes that are offline. Clients are not shown.
///
/// # Errors
/// If the cluster cannot be reached.
pub(crate) async fn run(common: &Common, args: NodesArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    let presence = session.node.presence(ANSWER_MAX).await;
    let births = session.node.query(|node: &Node| {
        node.members().map(|(name, member)| (name, member.birth.clone())).collect::<BTreeMap<_, _>>()
    });
    let births = births.await.ok_or_else(|| Failure::failed(JobError::Stopped))?;
    session.close().await;
    let rows = rows(presence, births);
    if args.json {
        output::print(Value::from_iter(rows.iter().map(as_json)))
    } else {
        let headings =
            ["NAME", "STATE", "SLOTS", "RUNNING", "QUEUED", "JOBS", "UP", "SEEN", "LABELS", "VERSION", "MODULES"];
        output::print_table(headings, &["VERSION", "UP", "MODULES"], rows.iter().map(cells).collect())?;
        for row in &rows {
            if let (Some(vitals), "draining") = (&row.vitals, row.state) {
                output::note(format_args!("{} is draining{}", row.name, what_is_left(row.name, vitals)));
            }
        }
        Ok(())
    }
}

/// One row for each known node.
fn rows(mut presence: Presence, mut births: BTreeMap<NodeId, Birth>) -> Vec<Row> {
    let is_node = |birth: &Birth| birth.slots > 0 || birth.resident || birth.draining == Some(true);
    let clients: Vec<NodeId> = births.iter().filter(|(_, birth)| !is_node(birth)).map(|(name, _)| *name).collect();
    for client in clients {
        births.remove(&client);
        presence.vitals.remove(&client);
    }
    let listed = presence.members.values().filter(|member| !member.client).map(|member| member.name);
    let names: BTreeSet<NodeId> = listed.chain(births.keys().copied()).chain(presence.vitals.keys().copied()).collect();
    let row = |name: NodeId| {
        let (member, vitals) = (presence.members.get(&name), presence.vitals.remove(&name));
        let state = match (&vitals, member) {
            (Some(vitals), _) if vitals.draining == Some(true) => "draining",
            (Some(_), _) => "live",
            (None, Some(member)) if member.left => "left",
            (None, Some(member)) if !member.alive => "gone",
            (None, _) => "silent",
        };
        let last_seen = match &vitals {
            Some(_) => Some(Duration::ZERO),
            None => member.map(|member| Duration::from_millis(member.heard_ms)),
        };
        Row { name, birth: births.remove(&name), state, vitals, last_seen }
    };
    names.into_iter().map(row).collect()
}

fn waits_for(name: NodeId, leaving: &Leaving) -> Value {
    let job = |job: &JobSummary| {
        let id = JobId { origin: name, number: job.number };
        json!({"id": id.to_string(), "name": job.name, "waits": job.waits.as_ref().map(waits::why)})
    };
    json!({"tasks": leaving.tasks, "jobs": Value::from_iter(leaving.jobs.iter().map(job))})
}

fn as_json(row: &Row) -> Value {
    let (vitals, birth) = (row.vitals.as_ref(), row.birth.as_ref());
    let modules = |vitals: &Vitals| {
        Value::from_iter(vitals.modules.iter().map(|module| json!({"name": module.name, "version": module.version})))
    };
    json!({
        "name": row.name.as_str(),
        "state": row.state,
        "slots": birth.map(|birth| birth.slots),
        "resident": birth.map(|birth| birth.resident),
        "labels": birth.map(|birth| birth.features.clone()),
        "version": birth.map(|birth| birth.version.clone()),
        "running": vitals.map(|vitals| vitals.running),
        "queued": vitals.map(|vitals| vitals.queued),
        "jobs": vitals.map(|vitals| vitals.jobs),
        "waiting": vitals.map(|vitals| vitals.ready),
        "tasks_run": vitals.map(|vitals| vitals.tasks_run),
        "uptime_s": vitals.map(|vitals| vitals.uptime_ms / 1_000),
        "last_seen_s": row.last_seen.map(|seen| seen.as_millis() as f64 / 1_000.0),
        "modules": vitals.map(modules),
        "waits_for": vitals.and_then(|vitals| vitals.leaving.as_deref()).map(|leaving| waits_for(row.name, leaving)),
    })
}

fn cells(row: &Row) -> [String; 11] {
    let unknown = || "-".to_owned();
    let vital = |get: fn(&Vitals) -> String| row.vitals.as_ref().map_or_else(unknown, get);
    let born = |get: fn(&Birth) -> String| row.birth.as_ref().map_or_else(unknown, get);
    let modules = |vitals: &Vitals| {
        let named = vitals.modules.iter().map(|module| format!("{}@{}", module.name, version(module.version)));
        named.collect::<Vec<_>>().join(" ")
    };
    [
        row.name.to_string(),
        row.state.to_owned(),
        born(|birth| birth.slots.to_string()),
        vital(|vitals| vitals.running.to_string()),
        // Tasks that wait here for a slot, and tasks of its jobs that wait for a node.
        vital(|vitals| (u64::from(vitals.queued) + u64::from(vitals.ready)).to_string()),
        vital(|vitals| vitals.jobs.to_string()),
        vital(|vitals| uptime(vitals.uptime_ms / 1_000)),
        row.last_seen.map_or_else(unknown, |seen| uptime(seen.as_secs())),
        born(|birth| birth.features.join(" ")),
        born(|birth| birth.version.clone()),
        vital(modules),
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
