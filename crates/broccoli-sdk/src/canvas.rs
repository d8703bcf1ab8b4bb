//! Canvases: what a task submits to the queue of its node, or returns instead of a result.
//!
//! ```
//! use broccoli_sdk::canvas::{chord, sig, Replace, SetOptions};
//! use broccoli_sdk::prelude::*;
//! use core::time::Duration;
//!
//! /// The n-th Fibonacci number, by recursion over the cluster.
//! #[task]
//! fn fib_tree(n: u32) -> Replace<u64> {
//!     if n < 2 {
//!         return Replace::Value(n.into());
//!     }
//!     let smaller = |n: u32| sig("fib_tree").arg(&n).set_timeout(Duration::from_secs(9));
//!     Replace::With(chord([smaller(n - 1), smaller(n - 2)], sig("tsum")))
//! }
//! ```
//!
//! This module encodes a canvas as it is on the wire (`docs/wire.md`). It checks nothing. The node that takes the
//! canvas checks it, and reports what is wrong.

use core::time::Duration;

use broccoli_abi::{CANVAS_TAG, SubmitAnswer};

use crate::failure::millis;
use crate::{Encoder, Failure, ToCbor, TypeName};

/// The forms, with their numbers on the wire.
const TASK: u64 = 0;
const CHAIN: u64 = 1;
const GROUP: u64 = 2;
const CHORD: u64 = 3;
const MAP: u64 = 4;
const STARMAP: u64 = 5;

/// The options, with their numbers on the wire.
const RETRIES: usize = 0;
const TIMEOUT: usize = 1;
const PRIORITY: usize = 2;
const COUNTDOWN: usize = 3;
const ON: usize = 4;
const EACH: usize = 5;
const PARTIAL: usize = 6;
const BACKOFF: usize = 7;
const BACKOFF_MAX: usize = 8;
const JITTER: usize = 9;
const EXPIRES: usize = 10;
const ETA: usize = 11;
const DEADLINE: usize = 12;
const RATE: usize = 13;
const OPTIONS: usize = 14;

/// Encoded items, and their number.
#[derive(Debug, Default)]
struct Items {
    count: usize,
    encoded: Encoder,
}

impl Items {
    fn put(&self, e: &mut Encoder) {
        e.array(self.count);
        e.raw(self.encoded.as_bytes());
    }

    fn add(&mut self, canvas: &Canvas) {
        self.count = self.count.wrapping_add(1);
        canvas.put(&mut self.encoded);
    }

    fn all(canvases: impl IntoIterator<Item = impl Into<Canvas>>) -> Self {
        let mut items = Self::default();
        canvases.into_iter().for_each(|canvas| items.add(&canvas.into()));
        items
    }
}

/// A call of a function that has not been submitted: `sig("tasks.add").arg(&1).arg(&2)`.
#[derive(Debug)]
#[must_use]
pub struct Signature {
    function: Encoder,
    args: Items,
    kwargs: Items,
    immutable: bool,
}

/// A call of `function` or `module.function`, without arguments so far. In a chain, its first argument is the result
/// of the previous task. As the body of a chord, its first argument is the list of results.
pub fn sig(function: &str) -> Signature {
    let mut name = Encoder::new();
    name.str(function);
    Signature { function: name, args: Items::default(), kwargs: Items::default(), immutable: false }
}

impl Signature {
    /// Adds an argument.
    pub fn arg(mut self, value: &(impl ToCbor + ?Sized)) -> Self {
        self.args.count = self.args.count.wrapping_add(1);
        value.encode(&mut self.args.encoded);
        self
    }

    /// Adds a keyword argument.
    pub fn kwarg(mut self, name: &str, value: &(impl ToCbor + ?Sized)) -> Self {
        let mut item = Encoder::new();
        value.encode(&mut item);
        self.kwargs.count = self.kwargs.count.wrapping_add(1);
        self.kwargs.encoded.array(2);
        self.kwargs.encoded.str(name);
        self.kwargs.encoded.bytes(item.as_bytes());
        self
    }

    /// Takes nothing from the previous task (Celery's `.si`).
    pub fn immutable(mut self) -> Self {
        self.immutable = true;
        self
    }
}

impl From<Signature> for Canvas {
    fn from(signature: Signature) -> Self {
        let mut args = Encoder::new();
        signature.args.put(&mut args);
        let mut form = form(TASK, 1);
        form.array(4);
        form.raw(signature.function.as_bytes());
        form.bytes(args.as_bytes());
        signature.kwargs.put(&mut form);
        form.bool(signature.immutable);
        Self::new(form)
    }
}

/// A tree of calls with options and callbacks. As the result of a task it replaces the task. As an argument it is an
/// ordinary value.
#[derive(Debug)]
#[must_use]
pub struct Canvas {
    form: Encoder,
    /// By number; counts only where the bit in `set` is 1.
    options: [u64; OPTIONS],
    set: u32,
    on: Items,
    link: Items,
    on_error: Items,
}

/// Runs one after the other. Each result is prepended to the arguments of the next one. Must not be empty.
pub fn chain(steps: impl IntoIterator<Item = impl Into<Canvas>>) -> Canvas {
    members(CHAIN, &Items::all(steps))
}

/// Runs side by side. The result is the list of results, in order.
pub fn group(members_of: impl IntoIterator<Item = impl Into<Canvas>>) -> Canvas {
    members(GROUP, &Items::all(members_of))
}

/// Runs the header side by side, then the body with the list of the header's results.
pub fn chord(header: impl IntoIterator<Item = impl Into<Canvas>>, body: impl Into<Canvas>) -> Canvas {
    let mut form = form(CHORD, 2);
    Items::all(header).put(&mut form);
    body.into().put(&mut form);
    Canvas::new(form)
}

/// `[function(x) for x in items]`, one task for each item.
pub fn map<T: ToCbor>(function: &str, items: &[T]) -> Canvas {
    over(MAP, function, items)
}

/// `[function(*x) for x in items]`, one task for each item. Each item is a tuple or a list of arguments.
pub fn starmap<T: ToCbor>(function: &str, items: &[T]) -> Canvas {
    over(STARMAP, function, items)
}

fn form(number: u64, fields: usize) -> Encoder {
    let mut form = Encoder::new();
    form.array(2);
    form.uint(number);
    form.array(fields);
    form
}

fn members(number: u64, items: &Items) -> Canvas {
    let mut form = form(number, 1);
    items.put(&mut form);
    Canvas::new(form)
}

fn over<T: ToCbor>(number: u64, function: &str, items: &[T]) -> Canvas {
    let mut list = Encoder::new();
    list.array(items.len());
    items.iter().for_each(|item| item.encode(&mut list));
    let mut form = form(number, 2);
    form.str(function);
    form.bytes(list.as_bytes());
    Canvas::new(form)
}

impl Canvas {
    fn new(form: Encoder) -> Self {
        let (on, link, on_error) = (Items::default(), Items::default(), Items::default());
        Self { form, options: [0; OPTIONS], set: 0, on, link, on_error }
    }

    fn with(mut self, option: usize, value: u64) -> Self {
        if let Some(slot) = self.options.get_mut(option) {
            *slot = value;
            self.set |= 1u32.wrapping_shl(option as u32);
        }
        self
    }

    /// Writes its wire encoding.
    pub(crate) fn put(&self, e: &mut Encoder) {
        e.array(4);
        e.raw(self.form.as_bytes());
        e.map((self.set.count_ones() as usize).wrapping_add(1));
        for (number, value) in self.options.iter().enumerate() {
            if number != ON && self.set.wrapping_shr(number as u32) & 1 == 0 {
                continue;
            }
            e.uint(number as u64);
            match number {
                ON => self.on.put(e),
                EACH | PARTIAL | JITTER => e.bool(*value != 0),
                RATE => {
                    e.array(2);
                    e.uint(value.wrapping_shr(32));
                    e.uint(value & 0xffff_ffff);
                }
                _ => e.uint(*value),
            }
        }
        self.link.put(e);
        self.on_error.put(e);
    }
}

/// Options and callbacks, for a [`Signature`] and a [`Canvas`]. On a canvas of several tasks, an option is the
/// default for each task. The node refuses values out of range, and names the option.
///
/// ```
/// use broccoli_sdk::canvas::{sig, SetOptions};
/// use core::time::Duration;
///
/// let reading = sig("sensors.read").set_on("kitchen").set_retries(3).set_timeout(Duration::from_secs(1));
/// let canvas = reading.link(sig("log.keep"));
/// # let _ = canvas;
/// ```
pub trait SetOptions: Into<Canvas> {
    /// How many times a failed task is retried.
    fn set_retries(self, retries: u32) -> Canvas {
        self.into().with(RETRIES, retries.into())
    }

    /// First pause before a retry. It is doubled each time.
    fn set_backoff(self, first: Duration) -> Canvas {
        self.into().with(BACKOFF, millis(first))
    }

    /// Longest pause before a retry.
    fn set_backoff_max(self, longest: Duration) -> Canvas {
        self.into().with(BACKOFF_MAX, millis(longest))
    }

    /// Whether pauses are randomised.
    fn set_jitter(self, jitter: bool) -> Canvas {
        self.into().with(JITTER, jitter.into())
    }

    /// Time limit of one attempt.
    fn set_timeout(self, limit: Duration) -> Canvas {
        self.into().with(TIMEOUT, millis(limit))
    }

    /// Time limit of the whole job. Only for the outermost canvas.
    fn set_deadline(self, limit: Duration) -> Canvas {
        self.into().with(DEADLINE, millis(limit))
    }

    /// The priority, 0 to 9. Tasks with 9 start first.
    fn set_priority(self, priority: u8) -> Canvas {
        self.into().with(PRIORITY, priority.into())
    }

    /// Delays the start of the task by this time.
    fn set_countdown(self, delay: Duration) -> Canvas {
        self.into().with(COUNTDOWN, millis(delay))
    }

    /// The task does not start before this time, in milliseconds since 1970.
    fn set_eta_unix_ms(self, time: u64) -> Canvas {
        self.into().with(ETA, time)
    }

    /// The task does not start later than this time after its submit.
    fn set_expires(self, time: Duration) -> Canvas {
        self.into().with(EXPIRES, millis(time))
    }

    /// At most this many starts of the function in this time (at most 49 days), in the whole
    /// cluster.
    fn set_rate(self, tasks: u32, per: Duration) -> Canvas {
        let per_ms = millis(per).min(u32::MAX.into());
        self.into().with(RATE, u64::from(tasks).wrapping_shl(32) | per_ms)
    }

    /// The task runs only on nodes with this name, label (`room=kitchen`) or capability (`led`). If this is called
    /// several times, all must match.
    fn set_on(self, node: &str) -> Canvas {
        let mut canvas = self.into();
        canvas.on.count = canvas.on.count.wrapping_add(1);
        canvas.on.encoded.str(node);
        canvas
    }

    /// Whether the task runs once on each node that matches.
    fn set_each(self, each: bool) -> Canvas {
        self.into().with(EACH, each.into())
    }

    /// With `each`: whether nodes that fail or leave are left out of the result.
    fn set_partial(self, partial: bool) -> Canvas {
        self.into().with(PARTIAL, partial.into())
    }

    /// Adds a callback that is called with the result.
    fn link(self, callback: impl Into<Canvas>) -> Canvas {
        let mut canvas = self.into();
        canvas.link.add(&callback.into());
        canvas
    }

    /// Adds a callback that is called with `{task, error}` if this fails.
    fn on_error(self, callback: impl Into<Canvas>) -> Canvas {
        let mut canvas = self.into();
        canvas.on_error.add(&callback.into());
        canvas
    }
}

impl<T: Into<Canvas>> SetOptions for T {}

impl ToCbor for Canvas {
    const TYPE: TypeName = TypeName::new("any");

    fn encode(&self, e: &mut Encoder) {
        e.tag(CANVAS_TAG);
        self.put(e);
    }
}

/// The result of a task that may replace itself. It must be the whole result, or be in a `Result`.
///
/// The task has then ended. Whoever waits for it gets the result of the canvas, of whatever type. The tasks of the
/// canvas count against the limits of the job.
#[derive(Debug)]
#[must_use]
#[allow(clippy::large_enum_variant)] // It lives for a moment; a box would be in the author's way.
pub enum Replace<T> {
    /// The result.
    Value(T),
    /// The canvas that replaces the task.
    With(Canvas),
}

impl<T: ToCbor> ToCbor for Replace<T> {
    const TYPE: TypeName = T::TYPE;

    fn encode(&self, e: &mut Encoder) {
        match self {
            Self::Value(value) => value.encode(e),
            Self::With(canvas) => canvas.encode(e),
        }
    }
}

/// Why [`submit`] failed. The log of the task says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The node holds its maximum of jobs or tasks; try later.
    QueueFull,
    /// The canvas cannot run: a name that no module has, a wrong argument, an option out of range.
    BadCanvas,
    /// The node takes no jobs, because it is about to leave or its disk is full.
    NoJobs,
}

impl SubmitError {
    const fn text(self) -> &'static str {
        match self {
            Self::QueueFull => "queue full",
            Self::BadCanvas => "the submitted canvas was refused: see the log of the task",
            Self::NoJobs => "this node takes no jobs",
        }
    }
}

impl AsRef<str> for SubmitError {
    fn as_ref(&self) -> &str {
        self.text()
    }
}

impl From<SubmitError> for Failure {
    fn from(error: SubmitError) -> Self {
        error.text().into()
    }
}

/// Puts a canvas into the queue of the node that runs this task. It becomes a separate job that nobody waits for. The
/// task is suspended until the node has answered.
///
/// A task that runs twice, because its node was lost after it had submitted, submits twice. So make the jobs that you
/// submit idempotent.
///
/// # Errors
/// See [`SubmitError`]. In this case nothing was submitted.
///
/// ```
/// use broccoli_sdk::canvas::{sig, submit, SubmitError};
/// use broccoli_sdk::prelude::*;
///
/// #[task]
/// fn door_opened() -> Result<(), SubmitError> {
///     submit(sig("light.on").arg("hall"))
/// }
/// ```
pub fn submit(canvas: impl Into<Canvas>) -> Result<(), SubmitError> {
    let mut e = Encoder::new();
    canvas.into().put(&mut e);
    match crate::host::submit(e.as_bytes()) {
        SubmitAnswer::Accepted => Ok(()),
        SubmitAnswer::QueueFull => Err(SubmitError::QueueFull),
        SubmitAnswer::BadCanvas => Err(SubmitError::BadCanvas),
        SubmitAnswer::NoJobs => Err(SubmitError::NoJobs),
    }
}
