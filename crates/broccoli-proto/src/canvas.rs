//! The canvas: a tree of signatures that defines a job. The word and its meaning come from Celery.
//!
//! This module has only the tree as its author wrote it. Its meaning is defined in one place, at the origin:
//! `broccoli_core::canvas`.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use core::fmt;

use broccoli_abi::CANVAS_TAG;
use broccoli_abi::cbor::{Head, Reader};
use minicbor::data::{Tag, Type};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::Cbor;
use crate::options::Rate;

/// Deepest nesting of canvases that a node accepts.
pub const CANVAS_DEPTH_MAX: usize = 32;
/// One canvas inside another adds at most six levels of arrays: canvas, form, its fields, the list of members. A
/// callback adds fewer.
const WIRE_DEPTH_MAX: usize = 6 * CANVAS_DEPTH_MAX + 8;

/// The bytes are not a canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanvasDecodeError {
    /// It is nested deeper than [`CANVAS_DEPTH_MAX`].
    TooDeep,
    /// Another reason.
    Malformed,
}

impl fmt::Display for CanvasDecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CanvasDecodeError::TooDeep => write!(f, "the canvas is nested deeper than {CANVAS_DEPTH_MAX} levels"),
            CanvasDecodeError::Malformed => f.write_str("not a canvas of this version"),
        }
    }
}

impl core::error::Error for CanvasDecodeError {}

/// A tree of signatures with the options and callbacks of each level.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Canvas {
    /// The form: what to do.
    #[n(0)]
    pub form: Form,
    /// Options of this task, or defaults for all tasks below it.
    #[n(1)]
    pub options: Options,
    /// Called once each with the result of this canvas (`.link`).
    #[n(2)]
    pub link: Vec<Canvas>,
    /// Called once each with `{task, error}` when this canvas fails (`.on_error`).
    #[n(3)]
    pub on_error: Vec<Canvas>,
}

/// The forms of Celery Canvas.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Form {
    /// One call: `f.s(a, b)`.
    #[n(0)]
    Task(#[n(0)] Task),
    /// One after the other. Each result is prepended to the arguments of the next one. Never empty.
    #[n(1)]
    Chain(#[n(0)] Vec<Canvas>),
    /// Side by side. The result is the list of results, in order.
    #[n(2)]
    Group(#[n(0)] Vec<Canvas>),
    /// The body is called with the list of the header's results.
    #[n(3)]
    Chord {
        /// The members, which run side by side; may be empty.
        #[n(0)]
        header: Vec<Canvas>,
        /// The body, which gets the list.
        #[n(1)]
        body: Box<Canvas>,
    },
    /// `f.map(items)`: `[f(x) for x in items]`, one task for each item.
    #[n(4)]
    Map {
        /// Name of the function.
        #[n(0)]
        function: String,
        /// A CBOR array.
        #[n(1)]
        items: Cbor,
    },
    /// `f.starmap(items)`: `[f(*x) for x in items]`, one task for each item.
    #[n(5)]
    Starmap {
        /// Name of the function.
        #[n(0)]
        function: String,
        /// A CBOR array of argument arrays.
        #[n(1)]
        items: Cbor,
    },
    /// `f.chunks(items, …)`: `starmap` in bins. Each bin is one task on one worker. The result is a list of lists.
    #[n(6)]
    Chunks {
        /// Name of the function.
        #[n(0)]
        function: String,
        /// A CBOR array of argument arrays.
        #[n(1)]
        items: Cbor,
        /// How the items are divided.
        #[n(2)]
        split: Split,
    },
}

/// One call of a function that has not been submitted yet.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Task {
    /// `function` or `module.function`.
    #[n(0)]
    pub function: String,
    /// A CBOR array of positional arguments.
    #[n(1)]
    pub args: Cbor,
    /// Arguments by the names in the manifest.
    #[n(2)]
    pub kwargs: Vec<(String, Cbor)>,
    /// Whether it takes nothing from its parent (`.si`).
    #[n(3)]
    pub immutable: bool,
}

/// How `chunks` divides its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Split {
    /// This many bins, as equal as possible, larger bins first (the meaning of `chunks(xs, n)`).
    #[n(0)]
    Bins(#[n(0)] u32),
    /// Bins of this many items; the last bin may be shorter (Celery's meaning: `chunks(xs, size=n)`).
    #[n(1)]
    Size(#[n(0)] u32),
}

/// Options of a task. An unset option takes the value of the canvas around it, then the default.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Options {
    /// How many times a failed task is retried; default 0.
    #[n(0)]
    pub retries: Option<u32>,
    /// Time limit of one attempt, in milliseconds; default none.
    #[n(1)]
    pub timeout_ms: Option<u64>,
    /// 0 to 9; tasks with 9 start first; default 0.
    #[n(2)]
    pub priority: Option<u8>,
    /// Delay before the task becomes ready, in milliseconds.
    #[n(3)]
    pub countdown_ms: Option<u64>,
    /// Node names, labels (`room=kitchen`) or capabilities (`led`); a node must match all of them.
    #[n(4)]
    pub on: Vec<String>,
    /// Whether it runs once on each matching node.
    #[n(5)]
    pub each: Option<bool>,
    /// With `each`: whether nodes that fail or leave are left out of the result.
    #[n(6)]
    pub partial: Option<bool>,
    /// First pause before a retry, in milliseconds. It is doubled each time.
    #[n(7)]
    pub backoff_ms: Option<u64>,
    /// Longest pause before a retry, in milliseconds.
    #[n(8)]
    pub backoff_max_ms: Option<u64>,
    /// Whether pauses are randomised.
    #[n(9)]
    pub jitter: Option<bool>,
    /// The task does not start later than this many milliseconds after its submit.
    #[n(10)]
    pub expires_ms: Option<u64>,
    /// The task does not start before this Unix time, in milliseconds.
    #[n(11)]
    pub eta_unix_ms: Option<u64>,
    /// Time limit of the whole job, in milliseconds.
    #[n(12)]
    pub deadline_ms: Option<u64>,
    /// How often the function may start, in the whole cluster.
    #[n(13)]
    pub rate: Option<Rate>,
}

impl Options {
    /// Nothing is set.
    pub const NONE: Options = Options {
        retries: None,
        timeout_ms: None,
        priority: None,
        countdown_ms: None,
        on: Vec::new(),
        each: None,
        partial: None,
        backoff_ms: None,
        backoff_max_ms: None,
        jitter: None,
        expires_ms: None,
        eta_unix_ms: None,
        deadline_ms: None,
        rate: None,
    };

    /// These options. Unset options are taken from `defaults`.
    pub fn or(&self, defaults: &Options) -> Options {
        Options {
            retries: self.retries.or(defaults.retries),
            timeout_ms: self.timeout_ms.or(defaults.timeout_ms),
            priority: self.priority.or(defaults.priority),
            countdown_ms: self.countdown_ms.or(defaults.countdown_ms),
            on: if self.on.is_empty() { defaults.on.clone() } else { self.on.clone() },
            each: self.each.or(defaults.each),
            partial: self.partial.or(defaults.partial),
            backoff_ms: self.backoff_ms.or(defaults.backoff_ms),
            backoff_max_ms: self.backoff_max_ms.or(defaults.backoff_max_ms),
            jitter: self.jitter.or(defaults.jitter),
            expires_ms: self.expires_ms.or(defaults.expires_ms),
            eta_unix_ms: self.eta_unix_ms.or(defaults.eta_unix_ms),
            deadline_ms: self.deadline_ms.or(defaults.deadline_ms),
            rate: self.rate.or(defaults.rate),
        }
    }
}

impl From<Form> for Canvas {
    fn from(form: Form) -> Canvas {
        Canvas { form, options: Options::default(), link: Vec::new(), on_error: Vec::new() }
    }
}

impl Canvas {
    /// The signature `function(*args)`; `args` must be a CBOR array.
    pub fn task(function: impl Into<String>, args: Cbor) -> Canvas {
        let task = Task { function: function.into(), args, kwargs: Vec::new(), immutable: false };
        Form::Task(task).into()
    }

    /// Decodes a canvas from outside. The nesting is checked before any recursion.
    ///
    /// # Errors
    /// If it is nested too deep, or is not a canvas. The opaque values in it are checked, too.
    pub fn from_wire(bytes: &[u8]) -> Result<Canvas, CanvasDecodeError> {
        if !nested_within(bytes, WIRE_DEPTH_MAX) {
            return Err(CanvasDecodeError::TooDeep);
        }
        let canvas: Canvas = minicbor::decode(bytes).map_err(|_| CanvasDecodeError::Malformed)?;
        canvas.check_values().then_some(canvas).ok_or(CanvasDecodeError::Malformed)
    }

    /// The result with which a task replaces itself by this canvas.
    pub fn to_replacement(&self) -> Cbor {
        let mut encoder = Encoder::new(Vec::new());
        encoder.tag(Tag::new(CANVAS_TAG)).and_then(|e| e.encode(self)).expect("writing to a Vec cannot fail");
        Cbor::from_encoded(encoder.into_writer())
    }

    /// The canvas that replaces a task with this result; none for any other result.
    pub fn replacement(result: &Cbor) -> Option<Result<Canvas, CanvasDecodeError>> {
        let mut reader = Reader::new(result.as_bytes());
        let is_canvas = matches!(reader.head(), Ok(Head::Tag(CANVAS_TAG)));
        is_canvas.then(|| Canvas::from_wire(&result.as_bytes()[reader.position()..]))
    }

    /// Whether every opaque value is one well-formed item, and an array where it must be one.
    fn check_values(&self) -> bool {
        let valid = |value: &Cbor| broccoli_abi::validate_item(value.as_bytes()).is_ok();
        let array = |value: &Cbor| valid(value) && value.array_len().is_some();
        let all = |canvases: &[Canvas]| canvases.iter().all(Canvas::check_values);
        let form = match &self.form {
            Form::Task(task) => array(&task.args) && task.kwargs.iter().all(|(_, value)| valid(value)),
            Form::Chain(members) | Form::Group(members) => all(members),
            Form::Chord { header, body } => all(header) && body.check_values(),
            Form::Map { items, .. } | Form::Starmap { items, .. } | Form::Chunks { items, .. } => array(items),
        };
        form && all(&self.link) && all(&self.on_error)
    }

    /// `chain(steps…)`.
    pub fn chain(steps: Vec<Canvas>) -> Canvas {
        Form::Chain(steps).into()
    }

    /// `group(members…)`.
    pub fn group(members: Vec<Canvas>) -> Canvas {
        Form::Group(members).into()
    }

    /// `chord(header)(body)`.
    pub fn chord(header: Vec<Canvas>, body: Canvas) -> Canvas {
        Form::Chord { header, body: Box::new(body) }.into()
    }

    /// Calls the canvas with arguments. All of them are prepended to its first task, or to every member. An immutable
    /// task, `map`, `starmap` and `chunks` ignore them.
    pub fn prepend_args(&mut self, args: &[Cbor]) {
        match &mut self.form {
            Form::Task(task) if task.immutable => {}
            Form::Task(task) => {
                for arg in args.iter().rev() {
                    task.args = task.args.prepend(arg.as_bytes());
                }
            }
            Form::Chain(steps) => {
                if let Some(first) = steps.first_mut() {
                    first.prepend_args(args);
                }
            }
            Form::Group(members) | Form::Chord { header: members, .. } => {
                for member in members.iter_mut() {
                    member.prepend_args(args);
                }
            }
            Form::Map { .. } | Form::Starmap { .. } | Form::Chunks { .. } => {}
        }
    }
}

/// Whether arrays and maps are nested at most `max` deep. Also `false` if this is not CBOR. It is iterative, so
/// hostile nesting cannot exhaust the stack.
fn nested_within(bytes: &[u8], max: usize) -> bool {
    let mut decoder = Decoder::new(bytes);
    let mut open: Vec<u64> = Vec::new();
    while decoder.position() < bytes.len() {
        let entered = match decoder.datatype() {
            Ok(Type::Array) => decoder.array().map(|len| len.unwrap_or(0)),
            Ok(Type::Map) => decoder.map().map(|len| len.unwrap_or(0).saturating_mul(2)),
            // Nothing of ours is tagged or of indefinite length.
            Ok(Type::Tag | Type::ArrayIndef | Type::MapIndef | Type::BytesIndef | Type::StringIndef) | Err(_) => {
                return false;
            }
            Ok(_) => decoder.skip().map(|()| 0),
        };
        match entered {
            Ok(0) => {}
            Ok(len) => open.push(len.saturating_add(1)),
            Err(_) => return false,
        }
        if open.len() > max {
            return false;
        }
        while let Some(left) = open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nest(depth: usize) -> Canvas {
        (0..depth).fold(Canvas::task("f", Cbor::empty_array()), |inner, _| Canvas::group(alloc::vec![inner]))
    }

    #[test]
    fn a_canvas_survives_the_wire() {
        let mut canvas = Canvas::chord(alloc::vec![nest(3)], Canvas::task("g", Cbor::empty_array()));
        canvas.options.priority = Some(9);
        canvas.link.push(nest(1));
        assert_eq!(Canvas::from_wire(Cbor::encode(&canvas).as_bytes()), Ok(canvas));
    }

    #[test]
    fn a_replacement_is_a_tagged_canvas_and_nothing_else_is() {
        let canvas = Canvas::chain(alloc::vec![nest(3), nest(1)]);
        let result = canvas.to_replacement();
        assert_eq!(broccoli_abi::validate_item(result.as_bytes()), Ok(()));
        assert_eq!(Canvas::replacement(&result), Some(Ok(canvas.clone())));
        assert_eq!(Canvas::replacement(&Cbor::encode(&canvas)), None);
        assert_eq!(Canvas::replacement(&Cbor::array([result.as_bytes()].into_iter())), None);
        let tagged = |content: &[u8]| Cbor::from_encoded([&[0xda, 0x42, 0x52, 0x4f, 0x43], content].concat());
        assert_eq!(Canvas::replacement(&tagged(&[0x80])), Some(Err(CanvasDecodeError::Malformed)));
        let deep = alloc::vec![0x81; 1 << 20];
        assert_eq!(Canvas::replacement(&tagged(&deep)), Some(Err(CanvasDecodeError::TooDeep)));
    }

    #[test]
    fn hostile_nesting_is_refused_before_it_recurses() {
        assert!(Canvas::from_wire(Cbor::encode(&nest(CANVAS_DEPTH_MAX)).as_bytes()).is_ok());
        assert_eq!(Canvas::from_wire(&alloc::vec![0x81; 1 << 20]), Err(CanvasDecodeError::TooDeep));
        assert_eq!(Canvas::from_wire(&[0x80]), Err(CanvasDecodeError::Malformed));
    }

    #[test]
    fn a_map_or_array_that_claims_all_lengths_is_refused() {
        for head in [0x9b, 0xbb] {
            let bytes = [head, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00];
            assert_eq!(Canvas::from_wire(&bytes), Err(CanvasDecodeError::Malformed));
        }
    }

    #[test]
    fn a_value_that_is_no_item_is_refused() {
        let canvas = Canvas::task("f", Cbor::from_encoded(alloc::vec![0x82, 0x01]));
        assert_eq!(Canvas::from_wire(Cbor::encode(&canvas).as_bytes()), Err(CanvasDecodeError::Malformed));
    }
}
