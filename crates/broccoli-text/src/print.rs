//! The canonical text of a canvas, which parses back to the same canvas.
//!
//! The text is on one line of up to [`COLUMNS_MAX`] columns, or indented like Python code. Values that the text form
//! cannot express (a CBOR tag, an integer above 63 bits, an invalid function name from another program) are shown for
//! people; such a text does not parse.

use broccoli_abi::cbor::{CborError, Head, Reader};
use broccoli_proto::{Canvas, Cbor, Form, Options, Split, Task};

use crate::options::rate_text;

/// Longest line, in columns, unless a single name or string is longer.
const COLUMNS_MAX: usize = 100;
const INDENT: usize = 4;

/// Prints the canonical text of a canvas.
///
/// ```
/// let program = broccoli_text::parse("(add.s(4, 4) | mul.s(8))").unwrap();
/// assert_eq!(broccoli_text::print(&program.canvas), "chain(add.s(4, 4), mul.s(8))");
/// ```
pub fn print(canvas: &Canvas) -> String {
    let mut printer = Printer::default();
    printer.doc(&canvas_doc(canvas), 0, 0);
    printer.out
}

/// A text that can be broken at its brackets, with its width on one line.
struct Doc {
    width: usize,
    node: Node,
}

enum Node {
    Text(String),
    Joined(Vec<Doc>),
    Brackets {
        open: String,
        items: Vec<Doc>,
        close: &'static str,
        /// Whether each broken line takes as many items as fit, instead of one.
        fill: bool,
    },
}

fn text(text: impl Into<String>) -> Doc {
    let text = text.into();
    Doc { width: text.chars().count(), node: Node::Text(text) }
}

fn joined(parts: Vec<Doc>) -> Doc {
    Doc { width: parts.iter().map(|part| part.width).sum(), node: Node::Joined(parts) }
}

fn brackets(open: impl Into<String>, items: Vec<Doc>, close: &'static str, fill: bool) -> Doc {
    let open = open.into();
    let commas = items.len().saturating_sub(1) * 2;
    let width = open.chars().count() + items.iter().map(|item| item.width).sum::<usize>() + commas + close.len();
    Doc { width, node: Node::Brackets { open, items, close, fill } }
}

fn call(open: impl Into<String>, items: Vec<Doc>) -> Doc {
    brackets(open, items, ")", false)
}

fn canvas_doc(canvas: &Canvas) -> Doc {
    let all = |canvases: &[Canvas]| canvases.iter().map(canvas_doc).collect::<Vec<_>>();
    let form = match &canvas.form {
        Form::Task(task) => task_doc(task),
        Form::Chain(steps) => call("chain(", all(steps)),
        Form::Group(members) => call("group(", all(members)),
        Form::Chord { header, body } => call("chord(", vec![brackets("[", all(header), "]", false), canvas_doc(body)]),
        Form::Map { function, items } => call(format!("{function}.map("), vec![data(items)]),
        Form::Starmap { function, items } => call(format!("{function}.starmap("), vec![data(items)]),
        Form::Chunks { function, items, split } => {
            let split = match split {
                Split::Bins(bins) => bins.to_string(),
                Split::Size(size) => format!("size={size}"),
            };
            call(format!("{function}.chunks("), vec![data(items), text(split)])
        }
    };
    let mut parts = vec![form];
    let options = options(&canvas.options);
    if !options.is_empty() {
        parts.push(call(".set(", options));
    }
    parts.extend(canvas.link.iter().map(|callback| call(".link(", vec![canvas_doc(callback)])));
    parts.extend(canvas.on_error.iter().map(|callback| call(".on_error(", vec![canvas_doc(callback)])));
    if parts.len() == 1 { parts.remove(0) } else { joined(parts) }
}

fn task_doc(task: &Task) -> Doc {
    let mut args = match task.args.elements() {
        Some(elements) => elements.into_iter().map(|arg| data(&Cbor::from_encoded(arg.to_vec()))).collect(),
        None => vec![text(format!("*{}", task.args))],
    };
    args.extend(task.kwargs.iter().map(|(name, value)| joined(vec![text(format!("{name}=")), data(value)])));
    let method = if task.immutable { "si" } else { "s" };
    call(format!("{}.{method}(", task.function), args)
}

fn options(options: &Options) -> Vec<Doc> {
    let boolean = |value: bool| if value { "True" } else { "False" }.to_string();
    let on = match options.on.as_slice() {
        [] => None,
        [place] => Some(quoted(place)),
        places => Some(format!("[{}]", places.iter().map(|place| quoted(place)).collect::<Vec<_>>().join(", "))),
    };
    let values = [
        ("retries", options.retries.map(|n| n.to_string())),
        ("backoff", options.backoff_ms.map(seconds)),
        ("backoff_max", options.backoff_max_ms.map(seconds)),
        ("jitter", options.jitter.map(boolean)),
        ("timeout", options.timeout_ms.map(seconds)),
        ("expires", options.expires_ms.map(seconds)),
        ("eta", options.eta_unix_ms.map(seconds)),
        ("countdown", options.countdown_ms.map(seconds)),
        ("priority", options.priority.map(|n| n.to_string())),
        ("rate", options.rate.map(|rate| format!("\"{}\"", rate_text(rate)))),
        ("on", on),
        ("each", options.each.map(boolean)),
        ("partial", options.partial.map(boolean)),
        ("deadline", options.deadline_ms.map(seconds)),
    ];
    let set = values.into_iter().filter_map(|(name, value)| Some((name, value?)));
    set.map(|(name, value)| text(format!("{name}={value}"))).collect()
}

fn seconds(ms: u64) -> String {
    let (whole, rest) = (ms / 1000, ms % 1000);
    if rest == 0 { whole.to_string() } else { format!("{whole}.{rest:03}").trim_end_matches('0').to_string() }
}

fn data(value: &Cbor) -> Doc {
    let bytes = value.as_bytes();
    let valid = broccoli_abi::validate_item(bytes);
    valid.and_then(|()| item(&mut Reader::new(bytes))).unwrap_or_else(|_| text(value.to_string()))
}

/// The next item. It must be valid CBOR, because this bounds the recursion.
fn item(reader: &mut Reader<'_>) -> Result<Doc, CborError> {
    Ok(match reader.head()? {
        Head::Int(n) => text(n.to_string()),
        Head::Text(value) => text(quoted(value)),
        Head::Bytes(bytes) => text(format!("b\"{}\"", bytes.escape_ascii().to_string().replace("\\'", "'"))),
        Head::Bool(value) => text(if value { "True" } else { "False" }),
        Head::Null => text("None"),
        Head::Float(x) if x.is_finite() => text(format!("{x:?}")),
        Head::Float(x) => text(format!("float(\"{}\")", x.to_string().to_lowercase())),
        Head::Array(len) => {
            let items = (0..len).map(|_| item(reader)).collect::<Result<_, _>>()?;
            brackets("[", items, "]", true)
        }
        Head::Map(len) => {
            let pair = |_| Ok(joined(vec![item(reader)?, text(": "), item(reader)?]));
            brackets("{", (0..len).map(pair).collect::<Result<_, _>>()?, "}", true)
        }
        Head::Tag(tag) => brackets(format!("{tag}("), vec![item(reader)?], ")", true),
    })
}

/// A Python string literal. Invisible characters are escaped.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\'' => out.push(c),
            c if c.escape_debug().len() == 1 => out.push(c),
            c if u32::from(c) < 0x100 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if u32::from(c) < 0x1_0000 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

#[derive(Default)]
struct Printer {
    out: String,
    column: usize,
}

impl Printer {
    fn push(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn line(&mut self, indent: usize) {
        self.out.push('\n');
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    fn fits(&self, width: usize) -> bool {
        self.column + width <= COLUMNS_MAX
    }

    /// Prints on one line if it fits with `after` more columns behind it, otherwise broken at its brackets.
    fn doc(&mut self, doc: &Doc, indent: usize, after: usize) {
        if self.fits(doc.width + after) { self.flat(doc) } else { self.broken(doc, indent, after) }
    }

    fn broken(&mut self, doc: &Doc, indent: usize, after: usize) {
        match &doc.node {
            Node::Text(text) => self.push(text),
            Node::Joined(parts) => {
                let widest = parts.iter().map(|part| part.width).max().unwrap_or(0);
                for (index, part) in parts.iter().enumerate() {
                    let last = index + 1 == parts.len();
                    if part.width == widest {
                        self.broken(part, indent, if last { after } else { 0 });
                    } else {
                        self.doc(part, indent, if last { after } else { 0 });
                    }
                }
            }
            Node::Brackets { open, items, close, .. } if items.is_empty() => {
                self.push(open);
                self.push(close);
            }
            Node::Brackets { open, items, close, fill } => {
                self.push(open);
                for (index, item) in items.iter().enumerate() {
                    if index == 0 || !fill || !self.fits(item.width + 2) {
                        self.line(indent + INDENT);
                    } else {
                        self.push(" ");
                    }
                    self.doc(item, indent + INDENT, 1);
                    if index + 1 < items.len() {
                        self.push(",");
                    }
                }
                self.line(indent);
                self.push(close);
            }
        }
    }

    fn flat(&mut self, doc: &Doc) {
        match &doc.node {
            Node::Text(text) => self.push(text),
            Node::Joined(parts) => parts.iter().for_each(|part| self.flat(part)),
            Node::Brackets { open, items, close, .. } => {
                self.push(open);
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.push(", ");
                    }
                    self.flat(item);
                }
                self.push(close);
            }
        }
    }
}
