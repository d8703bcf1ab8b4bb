//! `broccoli call`: calls one function with arguments from the command line.

use broccoli_node::name::{ON_MAX, RETRIES};
use broccoli_node::view::FunctionView;
use broccoli_node::{Canvas, Cbor, Function, FunctionError, json};
use clap_complete::ArgValueCandidates;

use super::run::{SubmitArgs, submit};
use crate::complete;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::function;

/// The function, its arguments, and the options of the job.
#[derive(Debug, clap::Args)]
pub(crate) struct CallArgs {
    /// Name of the function, such as add or tasks.add
    #[arg(add = ArgValueCandidates::new(complete::functions))]
    function: String,
    /// Arguments of the function: plain text for str, base64 for bytes, JSON for all other types
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    arguments: Vec<String>,
    #[command(flatten)]
    submit: SubmitArgs,
    /// Where to run: a node, a label such as room=kitchen, or a capability such as led; repeatable, all must match
    #[arg(long, value_name = "PLACE", add = ArgValueCandidates::new(complete::places))]
    on: Vec<String>,
    /// Number of retries after an error
    #[arg(long, value_name = "N", value_parser = crate::number::within(0..=*RETRIES.end() as u32))]
    retries: Option<u32>,
}

/// Prints the result of a function as JSON on one line.
///
/// # Errors
/// If the arguments do not fit the function. Also see [`crate::jobs::result`].
pub(crate) async fn run(common: &Common, args: CallArgs) -> Result<(), Failure> {
    if args.on.len() > ON_MAX || args.on.iter().any(String::is_empty) {
        return Err(Failure::usage(format_args!(
            "--on takes at most {ON_MAX} nodes, labels or capabilities, none of them empty"
        )));
    }
    let mut session = common.open_to_submit().await?;
    let done = call(&mut session, args).await;
    session.close().await;
    done
}

async fn call(session: &mut Session, args: CallArgs) -> Result<(), Failure> {
    let mut found = session.node.function(&args.function).await;
    if found.is_err() {
        // A node that has not answered yet may have the function.
        session.meet_all().await;
        found = session.node.function(&args.function).await;
    }
    let FunctionView { name, description: function, .. } = match found {
        Ok(found) => found,
        Err(FunctionError::Unresolved(refusal)) => {
            return Err(Failure::usage(function::unknown(&session.node, &args.function, refusal).await?));
        }
        Err(error) => return Err(Failure::failed(error)),
    };
    let mut canvas = Canvas::task(name.as_str(), encode(&name, &function, &args.arguments)?);
    canvas.options.on = args.on;
    canvas.options.retries = args.retries;
    submit(session, canvas, args.submit, None).await
}

/// Encodes the arguments as a CBOR array. The check of the canvas also checks their number.
fn encode(name: &str, function: &Function, texts: &[String]) -> Result<Cbor, Failure> {
    check_count(name, function, texts)?;
    let mut values = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let value = match function.args.get(at) {
            Some(arg) => json::argument(text, &arg.ty)
                .map_err(|error| Failure::usage(format_args!("{name}: {} {error}", arg.name)))?,
            None => Cbor::encode(&text.as_str()),
        };
        values.push(value);
    }
    Ok(Cbor::array(values.iter().map(Cbor::as_bytes)))
}

/// Explains how to write a list, if its items are separate arguments.
fn check_count(name: &str, function: &Function, texts: &[String]) -> Result<(), Failure> {
    let Some((last, before)) = function.args.split_last().filter(|(_, before)| texts.len() > before.len() + 1) else {
        return Ok(());
    };
    let items: Vec<&str> = texts[before.len()..].iter().map(String::as_str).collect();
    let Some(list) = json::list(&items, &last.ty) else { return Ok(()) };
    Err(Failure::usage(format_args!("{name}: {} is a list, write it as one argument: '{list}'", last.name)))
}
