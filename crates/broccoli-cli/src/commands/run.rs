//! `broccoli run`: runs a canvas given as text.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use broccoli_node::text::{self, Program, SOURCE_BYTES_MAX};
use broccoli_node::{json, proto};

use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::{duration, jobs, output};

/// Which canvas, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The canvas, such as "group(add.s(2, 2), add.s(4, 4))"; - reads it from standard input
    #[arg(value_name = "EXPR", required_unless_present = "file", conflicts_with = "file")]
    expression: Option<String>,
    /// Read the canvas from a file, which may have several lines
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// End the wait after this time, such as 30s; the job goes on
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
    /// Show the canvas instead of running it
    #[arg(long)]
    print: bool,
}

/// Prints the result of a canvas as JSON on one line.
///
/// # Errors
/// If the text is not a canvas, and see [`jobs::result`].
pub(crate) fn run(common: &Common, args: RunArgs) -> Result<(), Failure> {
    let program = text::parse(&source(&args)?).map_err(Failure::usage)?;
    if args.print {
        return output::print(text::print(&program.canvas));
    }
    crate::in_runtime(submit(common, program, args.timeout))
}

async fn submit(common: &Common, program: Program, timeout: Option<Duration>) -> Result<(), Failure> {
    let mut session = common.open().await?;
    let done = print_result(&mut session, program.canvas, timeout.or(program.wait)).await;
    session.close().await;
    done
}

/// Runs a canvas and prints its result.
///
/// # Errors
/// If it cannot be run, and see [`jobs::result`].
pub(super) async fn print_result(
    session: &mut Session,
    canvas: proto::Canvas,
    timeout: Option<Duration>,
) -> Result<(), Failure> {
    jobs::check(session, &canvas).await?;
    let result = jobs::result(session, canvas, timeout).await?;
    output::print(json::to_json(&result).map_err(Failure::failed)?)
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

/// Reads a text, of which one byte too many is left for the parser to complain about.
fn read(source: impl Read) -> io::Result<String> {
    let mut text = String::new();
    source.take(SOURCE_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
