//! `broccoli retry`: runs a failed or revoked job again.

use broccoli_node::JobId;
use clap_complete::ArgValueCandidates;

use crate::complete;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::{jobs, output};

/// The job.
#[derive(Debug, clap::Args)]
pub(crate) struct RetryArgs {
    /// Id of the job, as `broccoli jobs` prints it
    #[arg(value_name = "ID", add = ArgValueCandidates::new(complete::jobs_that_failed))]
    job: JobId,
}

/// Prints the id of the new job.
///
/// # Errors
/// If the job has not failed, or its node does not know it or does not answer.
pub(crate) async fn run(common: &Common, args: RetryArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    let done = retry(&session, args.job).await;
    session.close().await;
    done
}

async fn retry(session: &Session, id: JobId) -> Result<(), Failure> {
    jobs::check_origin(session, id).await?;
    let job = session.node.job(id).retry().await.map_err(jobs::failure)?;
    output::print(job.id())
}
