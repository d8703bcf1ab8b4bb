//! `broccoli nodes`: who is there, and how they are.

use std::time::Duration;

use broccoli_node::JobError;
use broccoli_node::core::{Instant, Node};
use broccoli_node::proto::NodeId;
use broccoli_node::proto::message::{Birth, Vitals};
use serde_json::{Value, json};

use crate::connect::Common;
use crate::date::version;
use crate::exit::Failure;
use crate::output;

/// How long nodes may take to say how they are.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// How they are shown.
#[derive(Debug, clap::Args)]
pub(crate) struct NodesArgs {
    /// For machines: [{"name", "state", "slots", "resident", "labels", "version", "running", "queued", "jobs",
    /// "waiting", "tasks_run", "uptime_s", "last_seen_s", "modules": [{"name", "version"}]}]; state is live, draining (about to leave),
    /// silent or gone, and what only an answer tells is null for a node that gave none
    #[arg(long)]
    json: bool,
}

struct Row {
    name: NodeId,
    birth: Birth,
    state: &'static str,
    vitals: Option<Vitals>,
    last_seen: Duration,
}

/// Shows all nodes that run tasks or hold jobs; clients are not shown.
///
/// # Errors
/// If the cluster cannot be reached.
pub(crate) async fn run(common: &Common, args: NodesArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    let mut answers = session.node.vitals(ANSWER_MAX).await;
    let members = session.node.query(|node: &Node| {
        // The clock of this client starts with it.
        let now = Duration::from_millis(node.vitals().uptime_ms);
        let last_seen = |heard: Instant| now.saturating_sub(Duration::from_micros(heard.0));
        node.members()
            .map(|(name, member)| (name, member.birth.clone(), member.alive, last_seen(member.heard)))
            .collect::<Vec<_>>()
    });
    let members = members.await.ok_or_else(|| Failure::failed(JobError::Stopped))?;
    session.close().await;
    let row = |(name, birth, alive, last_seen)| {
        let vitals = answers.remove(&name);
        let drains = vitals.as_ref().is_some_and(|vitals| vitals.draining == Some(true));
        let state = match (&vitals, alive) {
            (_, false) => "gone",
            (Some(_), true) if drains => "draining",
            (Some(_), true) => "live",
            (None, true) => "silent",
        };
        Row { name, birth, state, vitals, last_seen }
    };
    let is_node = |row: &Row| row.birth.slots > 0 || row.birth.resident || row.state == "draining";
    let rows: Vec<Row> = members.into_iter().map(row).filter(is_node).collect();
    if args.json {
        output::print(Value::from_iter(rows.iter().map(as_json)))
    } else {
        let headings =
            ["NAME", "STATE", "SLOTS", "RUNNING", "QUEUED", "JOBS", "UP", "SEEN", "LABELS", "VERSION", "MODULES"];
        output::print_table(headings, rows.iter().map(cells).collect())
    }
}

fn as_json(row: &Row) -> Value {
    let vitals = row.vitals.as_ref();
    let modules = |vitals: &Vitals| {
        Value::from_iter(vitals.modules.iter().map(|module| json!({"name": module.name, "version": module.version})))
    };
    json!({
        "name": row.name.as_str(),
        "state": row.state,
        "slots": row.birth.slots,
        "resident": row.birth.resident,
        "labels": row.birth.features,
        "version": row.birth.version,
        "running": vitals.map(|vitals| vitals.running),
        "queued": vitals.map(|vitals| vitals.queued),
        "jobs": vitals.map(|vitals| vitals.jobs),
        "waiting": vitals.map(|vitals| vitals.ready),
        "tasks_run": vitals.map(|vitals| vitals.tasks_run),
        "uptime_s": vitals.map(|vitals| vitals.uptime_ms / 1_000),
        // The birth of a silent node may be old: the server keeps it.
        "last_seen_s": vitals.map(|_| row.last_seen.as_millis() as f64 / 1_000.0),
        "modules": vitals.map(modules),
    })
}

fn cells(row: &Row) -> [String; 11] {
    let vital = |get: fn(&Vitals) -> String| row.vitals.as_ref().map_or_else(|| "-".to_owned(), get);
    let modules = |vitals: &Vitals| {
        let named = vitals.modules.iter().map(|module| format!("{}@{}", module.name, version(module.version)));
        named.collect::<Vec<_>>().join(" ")
    };
    [
        row.name.to_string(),
        row.state.to_owned(),
        row.birth.slots.to_string(),
        vital(|vitals| vitals.running.to_string()),
        vital(|vitals| vitals.queued.to_string()),
        vital(|vitals| vitals.jobs.to_string()),
        vital(|vitals| uptime(vitals.uptime_ms / 1_000)),
        row.vitals.as_ref().map_or_else(|| "-".to_owned(), |_| uptime(row.last_seen.as_secs())),
        row.birth.features.join(" "),
        row.birth.version.clone(),
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
