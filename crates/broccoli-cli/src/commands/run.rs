//! `broccoli run`: runs a canvas that is given as text.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use broccoli_node::name::KEY_BYTES_MAX;
use broccoli_node::{Canvas, JobError, JobUpdate, SubmitOptions};
use broccoli_text::{Program, SOURCE_BYTES_MAX};
use serde_json::json;

use crate::connect::{Common, Session, interruptible};
use crate::exit::Failure;
use crate::{duration, jobs, output};

/// The canvas, and the options of the job.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// Canvas, such as "group(add.s(2, 2), add.s(4, 4))"; - reads it from standard input
    #[arg(value_name = "EXPR", required_unless_present = "file", conflicts_with = "file")]
    expression: Option<String>,
    /// Read the canvas from a file; it can have several lines
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print the canvas instead of running it
    #[arg(long, conflicts_with_all = ["timeout", "detach"])]
    print: bool,
    #[command(flatten)]
    submit: SubmitArgs,
}

/// How to submit a job and wait for it.
#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArgs {
    /// Stop waiting after this time, such as 30s; the job continues
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Do not wait for the result; print the id of the job, for `broccoli result ID`
    #[arg(long, conflicts_with = "timeout")]
    detach: bool,
    /// Key of the job, 1 to 128 bytes; if you submit it again with the same key, it is the same job
    #[arg(long, value_name = "KEY", value_parser = key)]
    key: Option<String>,
    /// With --key: if the job with this key failed or was revoked, run it again as a new job
    #[arg(long, requires = "key")]
    again: bool,
    /// With --detach: print JSON, {"id"}
    #[arg(long, requires = "detach")]
    json: bool,
}

fn key(text: &str) -> Result<String, String> {
    let fits = (1..=KEY_BYTES_MAX).contains(&text.len());
    if fits { Ok(text.to_owned()) } else { Err(format!("a key has 1 to {KEY_BYTES_MAX} bytes")) }
}

/// Prints the result of a canvas as JSON on one line.
///
/// # Errors
/// If the text is not a canvas. Also see [`jobs::result`].
pub(crate) fn run(common: &Common, args: RunArgs) -> Result<(), Failure> {
    let program = broccoli_text::parse(&source(&args)?).map_err(|error| Failure::syntax(&error))?;
    if args.print {
        return output::print(broccoli_text::print(&program.canvas));
    }
    crate::in_runtime(in_session(common, program, args.submit))
}

async fn in_session(common: &Common, program: Program, args: SubmitArgs) -> Result<(), Failure> {
    let mut session = common.open_to_submit().await?;
    let done = submit(&mut session, program.canvas, args, program.wait).await;
    session.close().await;
    done
}

/// Submits a canvas and prints its result, or the id of its job. `wait` is the time limit if the command line has none.
///
/// # Errors
/// If it cannot be run. Also see [`jobs::result`].
pub(super) async fn submit(
    session: &mut Session,
    canvas: Canvas,
    args: SubmitArgs,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    jobs::check(session, &canvas).await?;
    let options = args.key.into_iter().fold(SubmitOptions::default(), SubmitOptions::key);
    let options = if args.again { options.again() } else { options };
    if args.detach {
        return interruptible(detach(session, canvas, options.detached(), args.json)).await;
    }
    let result = jobs::result(session, canvas, options, args.timeout.or(wait)).await?;
    output::print(jobs::as_json(&result)?)
}

/// Submits a canvas and prints the id of its job.
async fn detach(session: &Session, canvas: Canvas, options: SubmitOptions, json: bool) -> Result<(), Failure> {
    let mut job = session.node.submit_with(canvas, options);
    let id = loop {
        match job.next().await {
            Some(JobUpdate::Accepted(id)) => break id,
            Some(JobUpdate::Refused(refusal)) => return Err(jobs::refused(refusal)),
            Some(JobUpdate::QueueFull(node)) => output::note(format_args!("queue full at {node}: waiting for room")),
            Some(JobUpdate::OnlyLeaving(node)) => output::note(jobs::only_leaving(node)),
            Some(JobUpdate::CannotStore(node, why)) => output::note(jobs::cannot_store(node, &why)),
            Some(JobUpdate::TooManyRequests) => return Err(Failure::failed(JobError::TooManyRequests)),
            Some(_) => {}
            None => return Err(Failure::failed(JobError::Stopped)),
        }
    };
    let view = session.node.view().await;
    let origin = view.as_ref().and_then(|view| view.node(id.origin)?.about.as_ref());
    if !origin.is_some_and(|origin| origin.is_durable) {
        output::note(format_args!(
            "{} has no journal: the job is lost if this node restarts; to prevent this, start a node with \
             `broccoli node --data DIR`",
            id.origin
        ));
    }
    if json { output::print(json!({"id": id.to_string()})) } else { output::print(id) }
}

fn source(args: &RunArgs) -> Result<String, Failure> {
    match (args.file.as_ref(), args.expression.as_deref()) {
        (Some(path), _) => {
            let unreadable = |error| Failure::usage(format_args!("cannot read {}: {error}", path.display()));
            read(File::open(path).map_err(unreadable)?).map_err(unreadable)
        }
        (None, Some("-")) => {
            read(io::stdin().lock()).map_err(|error| Failure::usage(format_args!("cannot read the canvas: {error}")))
        }
        (None, expression) => Ok(expression.unwrap_or_default().to_owned()),
    }
}

/// Reads a text, at most one byte more than the parser accepts, so that the parser reports the error.
fn read(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(SOURCE_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
