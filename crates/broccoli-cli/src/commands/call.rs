//! `broccoli call`: calls one function with the arguments of the command line.

use std::time::Duration;

use broccoli_node::abi::Function;
use broccoli_node::proto::cbor::put_array_header;
use broccoli_node::proto::{Canvas, Cbor};
use broccoli_node::{JobError, SubmitOptions, json};

use super::run::print_result;
use crate::connect::{Common, Session};
use crate::duration;
use crate::exit::Failure;

/// Which function with which arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct CallArgs {
    /// Name of the function: add, or tasks.add
    function: String,
    /// Its arguments: texts as they are for str, JSON for every other type
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    arguments: Vec<String>,
    /// End the wait after this time, such as 30s; the job goes on
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

/// Prints the result of a function as JSON on one line.
///
/// # Errors
/// If the arguments do not fit the function, and see [`crate::jobs::result`].
pub(crate) async fn run(common: &Common, args: CallArgs) -> Result<(), Failure> {
    let mut session = common.open_to_submit().await?;
    let done = call(&mut session, args).await;
    session.close().await;
    done
}

async fn call(session: &mut Session, args: CallArgs) -> Result<(), Failure> {
    let wanted = args.function.clone();
    let found = session.node.query(move |node| node.function(&wanted).map(|(name, f)| (name, f.clone()))).await;
    let (name, function) = found.ok_or_else(|| Failure::failed(JobError::Stopped))?.map_err(Failure::usage)?;
    let canvas = Canvas::task(name.as_str(), encode(&name, &function, &args.arguments)?);
    print_result(session, canvas, SubmitOptions::default(), args.timeout).await
}

/// The arguments as a CBOR array. Their number is checked with the canvas.
fn encode(name: &str, function: &Function, texts: &[String]) -> Result<Cbor, Failure> {
    let mut array = Vec::new();
    put_array_header(&mut array, texts.len());
    for (at, text) in texts.iter().enumerate() {
        let value = match function.args.get(at) {
            Some(arg) => json::argument(text, &arg.ty)
                .map_err(|error| Failure::usage(format_args!("{name}: argument {}: {error}", arg.name)))?,
            None => Cbor::encode(&text.as_str()),
        };
        array.extend_from_slice(value.as_bytes());
    }
    Ok(Cbor::from_encoded(array))
}
