//! `broccoli jobs`: lists the jobs of the cluster.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broccoli_node::JobState;
use broccoli_node::view::JobView;
use serde_json::{Value, json};

use crate::connect::Common;
use crate::exit::Failure;
use crate::output;
use crate::waits::{self, span};

/// Maximum time for the answers of the nodes.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// How to show the jobs.
#[derive(Debug, clap::Args)]
pub(crate) struct JobsArgs {
    /// Print JSON: [{"id", "state", "name", "done", "total", "submitted_unix_ms", "ended_unix_ms", "key", "waits"}];
    /// state is queued, running, succeeded, failed or revoked; waits is the reason why none of its tasks runs; a value
    /// that the node does not know is null
    #[arg(long)]
    json: bool,
}

/// Shows all jobs that wait, run, or have a stored result, by node, oldest first.
///
/// # Errors
/// If the cluster cannot be reached.
pub(crate) async fn run(common: &Common, args: JobsArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    session.meet_all().await;
    let listing = session.node.jobs(ANSWER_MAX).await;
    session.close().await;
    for node in &listing.silent {
        output::note(format_args!("no answer from {node}: some or all of its jobs are not shown"));
    }
    let mut all: Vec<&JobView> = listing.jobs.values().flatten().collect();
    all.sort_by_key(|job| (job.id.origin, job.submitted_unix_ms, job.id.number));
    if args.json {
        return output::print(Value::from_iter(all.into_iter().map(as_json)));
    }
    if all.is_empty() {
        return output::print("no jobs: submit one with `broccoli run --detach`");
    }
    let waiting: Vec<String> = all.iter().filter(|job| job.waits.is_some()).map(|job| waits::job(job)).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let rows: Vec<[String; 7]> = all.into_iter().map(|job| cells(job, now)).collect();
    output::print_table(["ID", "STATE", "FUNCTION", "DONE", "AGE", "TOOK", "KEY"], &["TOOK"], rows)?;
    waiting.into_iter().for_each(output::note);
    Ok(())
}

fn as_json(job: &JobView) -> Value {
    json!({
        "id": job.id.to_string(),
        "state": state(job.state),
        "name": job.name,
        "done": job.done,
        "total": job.total,
        "submitted_unix_ms": job.submitted_unix_ms,
        "ended_unix_ms": job.ended_unix_ms,
        "key": job.key,
        "waits": job.waits.as_ref().map(waits::why),
    })
}

fn cells(job: &JobView, now: u64) -> [String; 7] {
    let since = |from: Option<u64>, to: Option<u64>| match (from, to) {
        (Some(from), Some(to)) => span(to.saturating_sub(from)),
        _ => "-".into(),
    };
    [
        job.id.to_string(),
        state(job.state).into(),
        job.name.clone(),
        format!("{}/{}", job.done, job.total),
        since(job.submitted_unix_ms, Some(now)),
        since(job.submitted_unix_ms, job.ended_unix_ms),
        job.key.clone().unwrap_or_default(),
    ]
}

/// The name of a state, for people and machines.
fn state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Revoked => "revoked",
        JobState::Other => "unknown",
    }
}
