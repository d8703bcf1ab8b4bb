//! `broccoli why`: shows what the tasks of a job wait for.

use broccoli_node::JobId;
use broccoli_node::{WaitingGroup, Why};
use clap_complete::ArgValueCandidates;
use serde_json::{Value, json};

use crate::complete;
use crate::connect::{Common, Session, interruptible};
use crate::exit::Failure;
use crate::{jobs, output};

/// The job.
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// Id of the job, as `broccoli run --detach` and `broccoli jobs` print it
    #[arg(value_name = "ID", add = ArgValueCandidates::new(complete::jobs))]
    job: JobId,
    /// Print JSON: {"id", "groups": [{"tasks", "path", "function", "reason"}]}; tasks that wait for the same are a group;
    /// path is the place of the first of them: indices of members from the whole canvas down; no groups: the job has ended
    #[arg(long)]
    json: bool,
}

/// Prints a line for each group of tasks that have not ended.
///
/// # Errors
/// If its node does not know the job (exit code 6), or does not answer.
pub(crate) async fn run(common: &Common, args: WhyArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    let done = interruptible(show(&session, &args)).await;
    session.close().await;
    done
}

async fn show(session: &Session, args: &WhyArgs) -> Result<(), Failure> {
    jobs::check_origin(session, args.job).await?;
    let why = session.node.job(args.job).why().await.map_err(jobs::failure)?;
    if args.json {
        return output::print(as_json(&why));
    }
    if why.groups.is_empty() {
        return output::print(format_args!("job {} waits for nothing: see `broccoli result {}`", args.job, args.job));
    }
    why.groups.iter().try_for_each(output::print)
}

fn as_json(why: &Why) -> Value {
    let group = |group: &WaitingGroup| {
        json!({
            "tasks": group.tasks,
            "path": group.path,
            "function": group.function,
            "reason": group.reason.to_string(),
        })
    };
    json!({ "id": why.job.to_string(), "groups": why.groups.iter().map(group).collect::<Vec<_>>() })
}
