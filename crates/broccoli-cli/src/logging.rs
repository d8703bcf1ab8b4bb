//! Logging to stderr: -v, -vv and `BROCCOLI_LOG`.
//!
//! One line for each event: the time (only if stderr is not a terminal), the level, the message, the fields. The
//! library defines the targets and levels: see docs/observing.md.

use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

use crate::connect::variable;
use crate::exit::Failure;
use crate::{date, output};

/// The variable that selects what is logged.
const VARIABLE: &str = "BROCCOLI_LOG";

/// The kind of program that logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// A node that runs until it is told to shut down. It prints messages to its operator itself, so the target
    /// `broccoli::node` is left out.
    Node,
    /// A command that ends.
    Command,
}

/// Starts logging, at most once. `verbose` is the number of -v options; it has priority over the variable.
///
/// # Errors
/// If the variable is not valid.
pub(crate) fn start(program: Program, verbose: u8) -> Result<(), Failure> {
    let told = variable(VARIABLE).filter(|_| verbose == 0);
    let told = told.map(|text| text.into_string().map_err(|_| Failure::usage(format_args!("{VARIABLE} is not UTF-8"))));
    let filter = match (told.transpose()?, program, verbose) {
        (Some(text), ..) => text.parse().map_err(|_| bad(&text))?,
        (None, Program::Node, 0) => "broccoli=info,broccoli::node=off".parse().map_err(|_| bad("the default"))?,
        (None, Program::Command, 0) => return Ok(()),
        (None, Program::Node, verbose) => {
            of(verbose).with_target("broccoli::node", tracing::metadata::LevelFilter::OFF)
        }
        (None, Program::Command, verbose) => of(verbose),
    };
    let line = Line { times: !io::stderr().is_terminal() };
    let layer = tracing_subscriber::fmt::layer().event_format(line).with_writer(io::stderr).log_internal_errors(false);
    // Cannot fail: the command sets it only once.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(filter).with(layer));
    Ok(())
}

fn of(verbose: u8) -> Targets {
    let level = if verbose == 1 { Level::DEBUG } else { Level::TRACE };
    Targets::new().with_target("broccoli", level)
}

fn bad(text: &str) -> Failure {
    Failure::usage(format_args!(
        "{VARIABLE}: cannot use {text:?}: write a level (off, error, warn, info, debug or trace), or targets with levels, \
         such as broccoli=info,broccoli::task=debug"
    ))
}

/// The format of a line.
struct Line {
    /// Whether it starts with the time.
    times: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if self.times {
            write!(out, "{} ", date::now())?;
        }
        let Fields { message, others } = fields;
        writeln!(out, "{:5} {}", event.metadata().level(), output::plain(&format!("{message}{others}")))
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    /// ` key=value` for each other field.
    others: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
            return;
        }
        let is_plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"');
        // Writing to a String cannot fail.
        let _ = match is_plain {
            true => write!(self.others, " {}={value}", field.name()),
            false => write!(self.others, " {}={value:?}", field.name()),
        };
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}
