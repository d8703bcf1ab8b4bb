//! What people and scripts see: results on stdout, everything else on stderr.
//!
//! Owns when colour is used, how a closed pipe ends the program (silently), and that nothing which came from the cluster can
//! command the terminal: errors of tasks, their log lines, documentation, keys and labels are what somebody else wrote.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use crate::exit::Failure;

/// Writes a text and a line end to stdout, its lines made [`plain`]. What JSON such a text holds stays the same JSON.
///
/// # Errors
/// If it cannot be written; without a message if nobody reads any more.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    write_out(text.to_string().split('\n').map(plain).collect::<Vec<_>>().join("\n"))
}

/// Writes a text of this program's own as it is.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_script(text: &str) -> Result<(), Failure> {
    write_out(text.trim_end())
}

/// Writes rows below their headings to stdout.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> Result<(), Failure> {
    write_out(table(headings, rows))
}

/// Writes a line to stdout whose beginning stands out, both made [`plain`].
///
/// # Errors
/// As [`print()`].
#[cfg(feature = "embedded-server")]
pub(crate) fn print_headed(head: &str, rest: &str) -> Result<(), Failure> {
    write_out(format_args!("{} {}", bold(&plain(head)), plain(rest)))
}

fn write_out(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::nobody_reads(),
        _ => Failure::failed(format!("cannot write the output: {error}")),
    })
}

/// Writes a line to stderr, made [`plain`].
pub(crate) fn note(text: impl Display) {
    write_err(plain(&text.to_string()));
}

fn write_err(text: impl Display) {
    // There is nobody left to tell if it fails.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A text on one line that a terminal shows as it is: what would move its cursor, change its colours or turn the direction of
/// writing is shown as an escape, which in JSON is the same text.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            // The last two turn the direction of what follows.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                plain.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => plain.push(c),
        }
    }
    plain
}

/// Says on stderr why the program ends; further lines of a message are indented.
pub(crate) fn error(message: &str) {
    let label = if coloured(&io::stderr()) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    write_err(format_args!("{label} {message}"));
}

/// A text that stands out, if stdout is a terminal that may be coloured.
fn bold(text: &str) -> String {
    if coloured(&io::stdout()) { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// See <https://no-color.org>.
fn coloured(stream: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    takes_commands(stream) && !is_set("NO_COLOR")
}

/// Whether a stream is a terminal that moves its cursor and changes its colours when it is told to.
fn takes_commands(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Rows below their headings, each cell made [`plain`], each column as wide as its widest cell; the last one is not padded.
fn table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| plain(&cell))).collect();
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
        Progress { terminal: takes_commands(&io::stderr()), drawn: false, done: 0, total: 0 }
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
        assert_eq!(table(["NAME", "SLOTS"], rows.into()), "NAME        SLOTS\npi-1        4\nkitchen-pi");
    }

    #[test]
    fn nothing_commands_the_terminal() {
        let hostile = "a\x1b[2Jb\r\n\t\u{9b}31mc\u{7f}\u{202e}d\u{2028}\0";
        let shown = r"a\u001b[2Jb\r\n\t\u009b31mc\u007f\u202ed\u2028\u0000";
        assert_eq!(plain(hostile), shown);
        assert_eq!(plain("Öl 5 € 😀 👩‍🌾 \\"), "Öl 5 € 😀 👩‍🌾 \\");
        assert_eq!(table(["A", "B"], vec![["x\ny".into(), "z".into()]]), "A     B\nx\\ny  z");
        // Text in JSON stays the same text.
        let json = serde_json::Value::from("\u{9b}31m\u{202e}").to_string();
        assert_eq!(serde_json::from_str::<String>(&plain(&json)).unwrap(), "\u{9b}31m\u{202e}");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!((count(1, "node"), count(0, "node")), ("1 node".into(), "0 nodes".into()));
        assert_eq!((size(812), size(3_449)), ("812 B".into(), "3.4 KB".into()));
    }
}
