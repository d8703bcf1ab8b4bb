//! The output of the command: results on stdout, everything else on stderr.
//!
//! This module decides when to use colour, ends the program silently when a pipe is closed, and ensures that no text
//! from the cluster can control the terminal: other people wrote the errors and log lines of tasks, the documentation
//! of functions, keys and labels.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write as _};
use std::time::Duration;

use crate::date;
use crate::exit::Failure;

/// Writes a text and a line end to stdout, with its lines made [`plain`]. JSON in the text keeps its meaning.
///
/// # Errors
/// If it cannot be written. Without a message if the reader has closed the pipe.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    write_out(text.to_string().split('\n').map(plain).collect::<Vec<_>>().join("\n"))
}

/// Writes a text of this program without changes.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_script(text: &str) -> Result<(), Failure> {
    write_out(text.trim_end())
}

/// Writes a table with headings to stdout. In a narrow terminal the `spare` columns are left out, the first of them
/// first, and a note names them. If this is not enough, cells are cut.
///
/// # Errors
/// As [`print()`].
pub(crate) fn print_table<const N: usize>(
    headings: [&str; N],
    spare: &[&str],
    rows: Vec<[String; N]>,
) -> Result<(), Failure> {
    let terminal = terminal_size::terminal_size_of(io::stdout());
    let (table, left_out) = table(headings, spare, rows, terminal.map(|(width, _)| width.0.into()));
    write_out(table)?;
    if !left_out.is_empty() {
        note(format_args!("not shown: {}; use a wider terminal, or --json", left_out.join(", ")));
    }
    Ok(())
}

/// Writes a line to stdout with a bold beginning. Both parts are made [`plain`].
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

/// Writes a line of a node that runs for long, as [`note`]; with the time, unless stderr is a terminal.
pub(crate) fn log(text: impl Display) {
    if io::stderr().is_terminal() { note(text) } else { note(format_args!("{} {text}", date::now())) }
}

fn write_err(text: impl Display) {
    // If this fails, the error cannot be reported anywhere.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A text on one line that cannot control a terminal: characters that move the cursor, change colours or change the
/// direction of writing become escapes. In JSON, these escapes mean the same text.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => plain.push_str("\\n"),
            '\r' => plain.push_str("\\r"),
            '\t' => plain.push_str("\\t"),
            // The last two change the direction of writing.
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

/// Writes to stderr why the program ends. Further lines of the message are indented.
pub(crate) fn error(message: &str) {
    let label = if coloured(&io::stderr()) { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    write_err(format_args!("{label} {message}"));
}

/// Makes a text bold if stdout is a terminal with colours.
fn bold(text: &str) -> String {
    if coloured(&io::stdout()) { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// See <https://no-color.org>.
fn coloured(stream: &impl IsTerminal) -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    takes_commands(stream) && !is_set("NO_COLOR")
}

/// Whether a stream is a terminal with commands for its cursor and its colours.
fn takes_commands(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Minimum width of a cell that is cut.
const CELL_WIDTH_MIN: usize = 8;
/// The space between two columns.
const GAP: &str = "  ";

/// A table with headings. Each cell is made [`plain`]. Each column is as wide as its widest cell. The last column is
/// not padded. `room` is the maximum width of a line, see [`print_table`]. Also returns the columns that are left out.
fn table<'a, const N: usize>(
    headings: [&str; N],
    spare: &[&'a str],
    rows: Vec<[String; N]>,
    room: Option<usize>,
) -> (String, Vec<&'a str>) {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| plain(&cell))).collect();
    let length = |text: &str| text.chars().count();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| length(&row[column]));
        cells.max().unwrap_or(0).max(length(headings[column]))
    };
    let mut columns: Vec<(usize, usize)> = (0..N).map(|column| (column, width(column))).collect();
    let mut left_out = Vec::new();
    let is_too_wide = |columns: &[(usize, usize)]| {
        let all = columns.iter().map(|(_, width)| width + GAP.len()).sum::<usize>().saturating_sub(GAP.len());
        room.is_some_and(|room| all > room)
    };
    for heading in spare {
        if is_too_wide(&columns) {
            columns.retain(|(column, _)| headings[*column] != *heading);
            left_out.push(*heading);
        }
    }
    while is_too_wide(&columns)
        && let Some((_, width)) = columns.iter_mut().skip(1).max_by_key(|(_, width)| *width)
        && *width > CELL_WIDTH_MIN
    {
        *width -= 1;
    }
    let line = |cells: [&str; N]| {
        let padded = columns.iter().map(|(column, width)| format!("{:width$}", cut(cells[*column], *width)));
        padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    let mut lines = vec![bold(&line(headings))];
    lines.extend(rows.iter().map(|row| line(std::array::from_fn(|column| row[column].as_str()))));
    (lines.join("\n"), left_out)
}

/// Cuts a text to at most this many characters.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A number with its noun: `1 node`, `3 nodes`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A size in bytes: `812 B`, `3.4 KB`.
pub(crate) fn size(bytes: usize) -> String {
    if bytes < 1_000 { format!("{bytes} B") } else { format!("{:.1} KB", bytes as f64 / 1_000.0) }
}

/// The progress bar of a job on stderr. It shows nothing unless stderr is a terminal.
pub(crate) struct Progress {
    terminal: bool,
    drawn: bool,
    done: u32,
    total: u32,
}

/// Number of characters of the bar itself.
const BAR_WIDTH: usize = 30;

impl Progress {
    /// The progress of a job that has just started.
    pub(crate) fn new() -> Progress {
        Progress { terminal: takes_commands(&io::stderr()), drawn: false, done: 0, total: 0 }
    }

    /// Whether there is something to draw, and a terminal to draw it on.
    pub(crate) fn is_visible(&self) -> bool {
        self.terminal && self.total > 0
    }

    /// Sets how many tasks have ended, and how many there are.
    pub(crate) fn set(&mut self, done: u32, total: u32) {
        self.done = done;
        self.total = total;
    }

    /// Draws the current bar.
    pub(crate) fn draw(&mut self, elapsed: Duration) {
        if !self.is_visible() {
            return;
        }
        let full = BAR_WIDTH * self.done.min(self.total) as usize / self.total as usize;
        let bar: String = (0..BAR_WIDTH).map(|at| if at < full { '#' } else { '.' }).collect();
        let text = format!("\r[{bar}] {}/{}  {:.0} s\x1b[K", self.done, self.total, elapsed.as_secs_f64());
        let mut err = io::stderr().lock();
        // If the bar cannot be drawn, the command continues.
        let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
        self.drawn = true;
    }

    /// Removes the bar, so that a line can be written.
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
        assert_eq!(table(["NAME", "SLOTS"], &[], rows.into(), None).0, "NAME        SLOTS\npi-1        4\nkitchen-pi");
    }

    #[test]
    fn a_table_fits_its_terminal() {
        let rows = || vec![["kitchen-pi".to_owned(), "4".into(), "a long text with many words".into(), "0.1.0".into()]];
        let shown = |room| table(["NAME", "SLOTS", "LABELS", "VERSION"], &["VERSION", "SLOTS"], rows(), Some(room));
        let whole = "NAME        SLOTS  LABELS                       VERSION\nkitchen-pi  4      a long text with many words  0.1.0";
        assert_eq!(shown(55), (whole.to_owned(), vec![]));
        let (text, left_out) = shown(54);
        assert_eq!(text, "NAME        SLOTS  LABELS\nkitchen-pi  4      a long text with many words");
        assert_eq!(left_out, ["VERSION"]);
        let (text, left_out) = shown(25);
        assert_eq!(text, "NAME        LABELS\nkitchen-pi  a long text …");
        assert_eq!(left_out, ["VERSION", "SLOTS"]);
        // The names are never cut.
        assert_eq!(shown(1).0, "NAME        LABELS\nkitchen-pi  a long …");
    }

    #[test]
    fn nothing_commands_the_terminal() {
        let hostile = "a\x1b[2Jb\r\n\t\u{9b}31mc\u{7f}\u{202e}d\u{2028}\0";
        let shown = r"a\u001b[2Jb\r\n\t\u009b31mc\u007f\u202ed\u2028\u0000";
        assert_eq!(plain(hostile), shown);
        assert_eq!(plain("Öl 5 € 😀 👩‍🌾 \\"), "Öl 5 € 😀 👩‍🌾 \\");
        assert_eq!(table(["A", "B"], &[], vec![["x\ny".into(), "z".into()]], None).0, "A     B\nx\\ny  z");
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
