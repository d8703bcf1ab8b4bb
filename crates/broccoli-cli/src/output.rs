//! What people and scripts see: results on stdout, everything else on stderr.
//!
//! Owns when colour is used and how a closed pipe ends the program: silently.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use crate::exit::Failure;

/// Writes a text and a line end to stdout.
///
/// # Errors
/// If it cannot be written; without a message if nobody reads any more.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::nobody_reads(),
        _ => Failure::failed(format!("cannot write the output: {error}")),
    })
}

/// Writes a line to stderr.
pub(crate) fn note(text: impl Display) {
    // There is nobody left to tell if it fails.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says on stderr why the program ends.
pub(crate) fn error(message: &str) {
    let label = if coloured(&io::stderr()) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    note(format_args!("{label} {message}"));
}

/// A text that stands out, if stdout is a terminal that may be coloured.
pub(crate) fn bold(text: &str) -> String {
    if coloured(&io::stdout()) { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// See <https://no-color.org>.
fn coloured(stream: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Rows below their headings, each column as wide as its widest cell; the last one is not padded.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let length = |text: &str| text.chars().count();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| length(&row[column]));
        cells.max().unwrap_or(0).max(length(headings[column]))
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![bold(&line(headings))];
    lines.extend(rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str()))));
    lines.join("\n")
}

/// A number with its noun: `1 node`, `3 nodes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A size in bytes: `812 B`, `3.4 KB`.
pub(crate) fn size(bytes: usize) -> String {
    if bytes < 1_000 { format!("{bytes} B") } else { format!("{:.1} KB", bytes as f64 / 1_000.0) }
}

/// The progress of a job, drawn over itself on stderr. Shows nothing unless stderr is a terminal.
pub(crate) struct Progress {
    terminal: bool,
    drawn: bool,
    done: u32,
    total: u32,
}

/// Characters of the bar itself.
const BAR_WIDTH: usize = 30;

impl Progress {
    /// Of a job that has just begun.
    pub(crate) fn new() -> Progress {
        Progress { terminal: io::stderr().is_terminal(), drawn: false, done: 0, total: 0 }
    }

    /// Whether there is something to draw, and somebody to see it.
    pub(crate) fn is_visible(&self) -> bool {
        self.terminal && self.total > 0
    }

    /// So many tasks have ended, of so many.
    pub(crate) fn set(&mut self, done: u32, total: u32) {
        (self.done, self.total) = (done, total);
    }

    /// Draws the bar as it is now.
    pub(crate) fn draw(&mut self, elapsed: Duration) {
        if !self.is_visible() {
            return;
        }
        let full = BAR_WIDTH * self.done.min(self.total) as usize / self.total as usize;
        let bar: String = (0..BAR_WIDTH).map(|at| if at < full { '#' } else { '.' }).collect();
        let text = format!("\r[{bar}] {}/{}  {:.0} s\x1b[K", self.done, self.total, elapsed.as_secs_f64());
        let mut err = io::stderr().lock();
        // A bar that cannot be drawn is no reason to stop.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        self.drawn = true;
    }

    /// Takes the bar away, so that a line can be written.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let mut err = io::stderr().lock();
            let _ = err.write_all(b"\r\x1b[K").and_then(|()| err.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_with_text() {
        let rows = [["pi-1".into(), "4".into()], ["kitchen-pi".into(), "".into()]];
        assert_eq!(table(["NAME", "SLOTS"], &rows), "NAME        SLOTS\npi-1        4\nkitchen-pi");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!((count(1, "node"), count(0, "node")), ("1 node".into(), "0 nodes".into()));
        assert_eq!((size(812), size(3_449)), ("812 B".into(), "3.4 KB".into()));
    }
}
