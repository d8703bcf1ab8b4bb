//! The text form of a canvas, in Celery's Python syntax, and values as JSON; both are read and written.
//!
//! ```
//! let program = broccoli_text::parse("chord(add.s(i, i) for i in range(3))(tsum.s())")?;
//! let printed = broccoli_text::print(&program.canvas);
//! assert_eq!(printed, "chord([add.s(0, 0), add.s(1, 1), add.s(2, 2)], tsum.s())");
//! # Ok::<(), broccoli_text::SyntaxError>(())
//! ```
//!
//! A text only *builds* a [`Canvas`]. It never runs Python, reads a file or asks the cluster. So a name that the text
//! does not define is taken as the name of a function. The meaning of a canvas is defined by the origin, not here.
//!
//! ```text
//! text ─lex─► tokens ─parse─► statements ─eval─► Canvas ─print─► text        CBOR ◄─json─► JSON
//! ```
//!
//! | file | |
//! |---|---|
//! | `lex.rs`, `parse.rs`, `ast.rs` | from a text to its syntax tree |
//! | `eval.rs` | variables, literals, comprehensions, arithmetic (`number.rs`) |
//! | `calls.rs` | `f(…)`, `f.method(…)`, `canvas(…)`, and their arguments |
//! | `forms.rs`, `methods.rs`, `builtins.rs` | `chain`, …; `.s`, `.set`, … (`options.rs`); `range`, `zip`, … |
//! | `value.rs` | values during evaluation, their encoding, and the limits |
//! | `print.rs` | the canonical text of a canvas |
//! | `similar.rs` | suggestions for wrong names |
//! | [`json`] | values as JSON; arguments of a command line (`json/argument.rs`) |
#![forbid(unsafe_code)]

mod ast;
mod builtins;
mod calls;
mod eval;
mod forms;
pub mod json;
mod lex;
mod methods;
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
/// Most signatures of one canvas. The items of `map`, `starmap` and `chunks` do not count.
pub const SIGNATURES_MAX: usize = 250_000;
/// Most steps of one evaluation. A step is an expression, a list item that is made or encoded, or a copied signature.
pub const STEPS_MAX: u64 = 10_000_000;
/// Most bytes of strings and encoded arguments that one evaluation creates.
pub const BYTES_MAX: u64 = 64 << 20;

/// The content of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// The job.
    pub canvas: Canvas,
    /// How long the client waits for the result (`.get(timeout=5)`); `None` for no limit.
    pub wait: Option<Duration>,
}

/// An error in a text.
///
/// Displays as one line, followed by the line of the text with a caret below the position.
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

/// Parses a text to a canvas: one expression, or several lines with assignments, the last of which is the job. A pasted
/// Python session (`>>> ` and `... ` prompts) works too: its lines without a prompt are output and ignored.
///
/// # Errors
/// The first syntax error or exceeded limit.
pub fn parse(source: &str) -> Result<Program, SyntaxError> {
    // Some editors write a byte order mark at the start of a file.
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

/// Most columns of the source line that are shown around an error.
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

/// Tests the example in the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
