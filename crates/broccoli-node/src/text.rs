//! The text form of a canvas: Celery's Python syntax, in and out.
//!
//! Owns the grammar, its evaluation (variables, comprehensions, arithmetic) and the canonical
//! print. A text only ever *builds* a [`Canvas`]: it never runs Python, never reads a file and never
//! asks the cluster, so a bare name that is not defined here is the name of a function. What a
//! canvas means is not decided here but at the origin.
//!
//! ```text
//! text ─lex─► tokens ─parse─► statements ─eval─► Canvas ─print─► text
//! ```

mod ast;
mod eval;
mod forms;
mod lex;
mod number;
mod options;
mod parse;
mod print;
mod similar;
mod value;

use std::fmt;
use std::time::Duration;

use broccoli_proto::Canvas;

use self::ast::{Failure, Pos};
pub use self::print::print;
pub use self::similar::{closest, method, python};

/// Longest text, in bytes.
pub const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of brackets and unary operators.
pub const NESTING_MAX: usize = 64;
/// Deepest nesting of lists and dicts in an argument.
pub const VALUE_DEPTH_MAX: usize = 32;
/// Most items of one list.
pub const ITEMS_MAX: usize = 1_000_000;
/// Most signatures of one canvas; a list of items for `map`, `starmap` or `chunks` is not one.
pub const SIGNATURES_MAX: usize = 250_000;
/// Most steps of one evaluation: an expression, a list item made or encoded, a signature copied.
pub const STEPS_MAX: u64 = 10_000_000;
/// Most bytes of strings and encoded arguments that one evaluation makes.
pub const BYTES_MAX: u64 = 64 << 20;

/// What a text asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The job.
    pub canvas: Canvas,
    /// How long the client waits for the result (`.get(timeout=5)`); `None` is without limit.
    pub wait: Option<Duration>,
}

/// A text is not a canvas.
///
/// Displays as one line, followed by the line of the text with a caret below the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line of the text, from 1.
    pub line: usize,
    /// Column in code points, from 1.
    pub column: usize,
    /// What was found and what was expected, in one line.
    pub message: String,
    /// The line of the text, without its end.
    pub source_line: String,
}

/// Reads the canvas that a text describes: one expression, or several lines with assignments of
/// which the last one is the job. A pasted Python session (`>>> ` and `... ` prompts) works too; then
/// lines without a prompt are output and ignored.
///
/// # Errors
/// The first place where the text stops making sense, or breaks a limit of this module.
pub fn parse(source: &str) -> Result<Program, SyntaxError> {
    // Some editors begin a file with this mark.
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let run = || {
        let tokens = lex::tokens(source)?;
        let statements = parse::statements(&tokens)?;
        eval::run(&statements)
    };
    run().map_err(|failure: Failure| failure.locate(source))
}

impl Failure {
    fn locate(self, source: &str) -> SyntaxError {
        let Pos { line, column } = self.at;
        let source_line = source.lines().nth(line - 1).unwrap_or_default().to_string();
        SyntaxError { line, column, message: self.message, source_line }
    }
}

/// Columns of the source line that are shown around an error.
const SHOWN_COLUMNS_MAX: usize = 100;

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        if self.source_line.trim().is_empty() {
            return Ok(());
        }
        let before = (self.column - 1).min(self.source_line.chars().count());
        let skipped = before.saturating_sub(SHOWN_COLUMNS_MAX / 2);
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let shown: String = self.source_line.chars().map(printable).skip(skipped).take(SHOWN_COLUMNS_MAX).collect();
        write!(f, "\n  {}\n  {:>width$}", shown.trim_end(), "^", width = before - skipped + 1)
    }
}

impl std::error::Error for SyntaxError {}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
