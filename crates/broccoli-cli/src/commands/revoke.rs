//! `broccoli revoke`: cancels a job.

use broccoli_node::JobId;
use broccoli_node::JobStatus;
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::{jobs, output};

/// The job.
#[derive(Debug, clap::Args)]
pub(crate) struct RevokeArgs {
    /// Id of the job, as `broccoli run --detach` and `broccoli jobs` print it
    #[arg(value_name = "ID", add = ArgValueCandidates::new(complete::jobs_that_run))]
    job: JobId,
}

/// Cancels a job: its waiting tasks never run, its running tasks are stopped.
///
/// # Errors
/// If the job has already ended, or its node does not know it or does not answer.
pub(crate) async fn run(common: &Common, args: RevokeArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    let done = revoke(&session, args.job).await;
    session.close().await;
    done
}

async fn revoke(session: &Session, id: JobId) -> Result<(), Failure> {
    jobs::check_origin(session, id).await?;
    let had = |what| Err(Failure::failed(format_args!("job {id} has already {what}: nothing to revoke")));
    match session.node.job(id).revoke().await.map_err(jobs::failure)? {
        JobStatus::Revoked | JobStatus::Skipped => output::print(format_args!("job {id} is revoked")),
        JobStatus::Succeeded(_) => had("succeeded"),
        JobStatus::Failed(_) => had("failed"),
        JobStatus::Pending { .. } => Err(Failure::failed(format_args!("job {id} has not ended yet: try again"))),
    }
}
