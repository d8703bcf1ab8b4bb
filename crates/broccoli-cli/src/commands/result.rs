//! `broccoli result`: what a job has come to.

use std::time::Duration;

use broccoli_node::proto::JobId;
use broccoli_node::proto::message::JobSummary;
use broccoli_node::{JobError, JobStatus};
use clap_complete::ArgValueCandidates;
use serde_json::{Value, json};

use crate::complete;
use crate::connect::{Common, Session, interruptible};
use crate::exit::{Exit, Failure};
use crate::jobs::{self, OnInterrupt};
use crate::{duration, output, waits};

/// How long the node may take to tell how many tasks an ended job had, or why one waits.
const SUMMARY_MAX: Duration = Duration::from_secs(2);

/// Which job, and whether to wait for it.
#[derive(Debug, clap::Args)]
pub(crate) struct ResultArgs {
    /// The job, as `broccoli run --detach` and `broccoli jobs` print it
    #[arg(value_name = "ID", add = ArgValueCandidates::new(complete::jobs))]
    job: JobId,
    /// Wait until it has ended
    #[arg(long)]
    wait: bool,
    /// Wait, but no longer than this, such as 30s; the job goes on
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// For machines: {"id", "state", "result", "error", "done", "total", "waits"}; state is pending, succeeded, failed,
    /// revoked or unknown, waits says why none of its tasks runs, and what does not apply is null
    #[arg(long)]
    json: bool,
}

/// Prints the result of a job as JSON on one line.
///
/// # Errors
/// With the exit codes of the job's state: 1 failed or revoked, 5 not ended, 6 unknown.
pub(crate) async fn run(common: &Common, args: ResultArgs) -> Result<(), Failure> {
    let mut session = common.open().await?;
    let done = show(&mut session, &args).await;
    session.close().await;
    done
}

async fn show(session: &mut Session, args: &ResultArgs) -> Result<(), Failure> {
    let job = session.node.job(args.job);
    if args.wait || args.timeout.is_some() {
        let followed = jobs::follow(session, job.follow(), args.timeout, OnInterrupt::GoOn).await;
        match followed {
            Ok(value) if !args.json => return output::print(jobs::as_json(&value)?),
            // What it came to is known now.
            Err(failure) if !args.json || !matches!(failure.exit, Exit::Failed | Exit::Unknown) => return Err(failure),
            _ => {}
        }
    }
    jobs::check_origin(session, args.job).await?;
    let state = interruptible(async { Ok(job.state().await) }).await?;
    let summary = match &state {
        Ok(JobStatus::Succeeded(_)) if !args.json => None,
        Ok(_) => session.node.summary(args.job, SUMMARY_MAX).await,
        Err(_) => None,
    };
    let failure = match &state {
        Ok(JobStatus::Succeeded(_)) => None,
        Ok(JobStatus::Pending { done, total }) => {
            let why = summary.as_ref().and_then(|job| job.waits.as_ref()).map(waits::why);
            let why = why.map(|why| format!("; {why}")).unwrap_or_default();
            let wait =
                format!("job {} has not ended ({done} of {total} tasks{why}): wait for it with --wait", args.job);
            Some(Failure::pending(wait))
        }
        Ok(JobStatus::Failed(error)) => Some(Failure::failed(error)),
        Ok(JobStatus::Revoked | JobStatus::Skipped) => {
            Some(Failure::failed(format_args!("job {} was revoked", args.job)))
        }
        Err(error) => Some(jobs::failure(error.clone())),
    };
    if args.json && !matches!(&state, Err(error) if !matches!(error, JobError::Unknown(_))) {
        output::print(as_json(args.job, &state, summary)?)?;
        return failure.map_or(Ok(()), |failure| Err(failure.silent()));
    }
    match (state, failure) {
        (Ok(JobStatus::Succeeded(value)), _) => output::print(jobs::as_json(&value)?),
        (_, failure) => failure.map_or(Ok(()), Err),
    }
}

fn as_json(id: JobId, state: &Result<JobStatus, JobError>, summary: Option<JobSummary>) -> Result<Value, Failure> {
    let (mut result, mut error) = (Value::Null, Value::Null);
    let why = summary.as_ref().and_then(|job| job.waits.as_ref()).map(waits::why);
    let mut progress = summary.map_or((Value::Null, Value::Null), |job| (json!(job.done), json!(job.total)));
    let name = match state {
        Ok(JobStatus::Succeeded(value)) => {
            let text = jobs::as_json(value)?;
            result = serde_json::from_str(&text).map_err(Failure::failed)?;
            "succeeded"
        }
        Ok(JobStatus::Pending { done, total }) => {
            progress = (json!(done), json!(total));
            "pending"
        }
        Ok(JobStatus::Failed(why)) => {
            error = Value::String(why.to_string());
            "failed"
        }
        Ok(JobStatus::Revoked | JobStatus::Skipped) => "revoked",
        Err(_) => "unknown",
    };
    let (done, total) = progress;
    Ok(json!({
        "id": id.to_string(), "state": name, "result": result, "error": error, "done": done, "total": total,
        "waits": why,
    }))
}
