//! `broccoli result`: shows the result of a job.

use std::time::Duration;

use broccoli_node::view::JobView;
use broccoli_node::{JobError, JobId, JobStatus};
use clap_complete::ArgValueCandidates;
use serde_json::{Value, json};

use crate::complete;
use crate::connect::{Common, Session, interruptible};
use crate::exit::{Exit, Failure};
use crate::jobs::{self, OnInterrupt};
use crate::{duration, output, waits};

/// Maximum time for the node to tell how many tasks the job has, or why it waits.
const SUMMARY_MAX: Duration = Duration::from_secs(2);

/// The job, and whether to wait for it.
#[derive(Debug, clap::Args)]
pub(crate) struct ResultArgs {
    /// Id of the job, as `broccoli run --detach` and `broccoli jobs` print it
    #[arg(value_name = "ID", add = ArgValueCandidates::new(complete::jobs))]
    job: JobId,
    /// Wait until the job has ended
    #[arg(long)]
    wait: bool,
    /// Wait at most this long, such as 30s; the job continues
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Print JSON: {"id", "state", "result", "error", "done", "total", "waits"}; state is pending, succeeded, failed,
    /// revoked or unknown; waits is the reason why none of its tasks runs; a value that does not apply is null
    #[arg(long)]
    json: bool,
}

/// Prints the result of a job as JSON on one line.
///
/// # Errors
/// The exit code depends on the state of the job: 1 failed or revoked, 5 not ended, 6 unknown.
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
            // The outcome is known now.
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
                format!("job {} has not ended ({done} of {total} tasks done{why}): wait for it with --wait", args.job);
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

fn as_json(id: JobId, state: &Result<JobStatus, JobError>, summary: Option<JobView>) -> Result<Value, Failure> {
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
