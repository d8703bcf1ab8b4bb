//! Turns the tree of a canvas into the arena of a plan.
//!
//! Owns every check that needs no result: names, number and types of arguments, options, limits. Evaluates nothing.
//! After a failed check nothing has changed.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use broccoli_abi::cbor::{Head, Reader};
use broccoli_abi::{Function, Mismatch, Type};
use broccoli_proto::cbor::put_array_header;
use broccoli_proto::options::OptionError;
use broccoli_proto::{Canvas, Cbor, Form, Options, Split, Task};

use super::limits::{Limits, Room};
use super::pin::PIN;
use super::plan::{Callee, Kind, Mode, Plan, Role, Step, Target};
use crate::text;

/// The function that a name in the canvas refers to.
#[derive(Clone, Debug)]
pub struct Resolved<'f> {
    /// `module.function`.
    pub name: String,
    /// Its parameters.
    pub function: &'f Function,
    /// A value of the caller, returned in [`super::Call::key`].
    pub key: u32,
}

impl From<Resolved<'_>> for Target {
    fn from(resolved: Resolved<'_>) -> Target {
        Target { callee: Arc::new(Callee::new(resolved.name, resolved.function)), key: resolved.key }
    }
}

/// Why a canvas is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CanvasError {
    /// There is no function with this name. The text of the resolver says which ones there are.
    Function(String),
    /// The arguments of a call do not match its function.
    Arguments {
        /// `module.function`.
        function: String,
        /// The item of `map`, `starmap` or `chunks`, from 0.
        item: Option<usize>,
        /// What is wrong with the arguments.
        error: ArgumentError,
    },
    /// `map`, `starmap` or `chunks` with something that is not a list.
    Items {
        /// `module.function`.
        function: String,
    },
    /// `chunks` with 0 bins, or with bins of 0 items.
    NoBins {
        /// `module.function`.
        function: String,
    },
    /// An empty chain, which has no result.
    EmptyChain,
    /// An option in a place where it has no meaning.
    Misplaced {
        /// Its name.
        option: &'static str,
        /// The places where it is allowed.
        belongs: &'static str,
    },
    /// An option out of its range.
    Option(OptionError),
    /// Nested deeper than [`Limits::depth_max`].
    TooDeep {
        /// The limit.
        depth_max: u32,
    },
    /// More than [`Limits::steps_max`].
    TooManySteps {
        /// The limit.
        steps_max: u32,
    },
    /// More than [`Limits::args_bytes_max`].
    TooLarge {
        /// The limit.
        args_bytes_max: usize,
    },
    /// The origin has no room for the steps that are added to a running job.
    NoRoom,
}

/// What is wrong with the arguments of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentError {
    /// This is not a list of arguments.
    NotAList(String),
    /// There are too many or too few.
    Count {
        /// `2 arguments (x: i64, y: i64)`.
        takes: String,
        /// Number of arguments.
        got: usize,
        /// Whether one of them is the result of a parent.
        parent: bool,
    },
    /// The argument with this name has another type.
    Type(String, Mismatch),
    /// There is no parameter with this name.
    Unknown(String),
    /// This argument is given by position and by name, or twice by name.
    Twice(String),
    /// This argument is missing.
    Missing(String),
}

impl fmt::Display for CanvasError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(text) => f.write_str(text),
            Self::Arguments { function, item, error } => {
                if let Some(item) = item {
                    write!(f, "item {item}: ")?;
                }
                match error {
                    ArgumentError::Count { .. } => write!(f, "{function} {error}"),
                    _ => write!(f, "{function}: {error}"),
                }
            }
            Self::Items { function } => write!(f, "{function}: the items must be a list"),
            Self::NoBins { function } => write!(f, "{function}.chunks: n must be at least 1"),
            Self::EmptyChain => f.write_str("a chain needs at least one step"),
            Self::Misplaced { option, belongs } => write!(f, "option {option} {belongs}"),
            Self::Option(error) => error.fmt(f),
            Self::TooDeep { depth_max } => {
                write!(f, "the canvas nests deeper than {depth_max} levels")
            }
            Self::TooManySteps { steps_max } => {
                write!(f, "the canvas has more than {steps_max} steps; split it into several jobs")
            }
            Self::TooLarge { args_bytes_max } => {
                write!(f, "the arguments of the canvas are larger than {args_bytes_max} bytes")
            }
            Self::NoRoom => f.write_str("the node holds as many tasks as it may: the job cannot grow now"),
        }
    }
}

impl core::error::Error for CanvasError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Arguments { error, .. } => Some(error),
            Self::Option(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAList(got) => write!(f, "expected a list of arguments, got {got}"),
            Self::Count { takes, got, parent } => {
                let parent = if *parent { " (the first is the result before it)" } else { "" };
                write!(f, "takes {takes}, got {got}{parent}")
            }
            Self::Type(argument, mismatch) => write!(f, "argument {argument}: {mismatch}"),
            Self::Unknown(argument) => write!(f, "there is no argument {argument}"),
            Self::Twice(argument) => write!(f, "argument {argument} is given twice"),
            Self::Missing(argument) => write!(f, "argument {argument} is missing"),
        }
    }
}

impl core::error::Error for ArgumentError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Type(_, mismatch) => Some(mismatch),
            _ => None,
        }
    }
}

/// Builds the plan of a canvas.
///
/// `resolve` is called once for each different name. It returns the function that the job is bound to, or a message for
/// the user.
///
/// # Errors
/// The first error in the canvas, in the order of writing.
pub fn lower<R, T>(canvas: &Canvas, resolve: R, limits: &Limits) -> Result<Plan, CanvasError>
where
    R: FnMut(&str) -> Result<T, String>,
    T: Into<Target>,
{
    let mut plan = Plan::new(limits.result_bytes_max);
    let place = Place { role: Role::Root, input: None, options: 0, depth: 1 };
    Lowering::new(&mut plan, limits, resolve).canvas(canvas, place)?;
    plan.shrink();
    Ok(plan)
}

/// Appends a canvas that stands in for a task to a plan. `options` is the index of its default options. Returns its
/// root.
pub(super) fn append<R, T>(
    plan: &mut Plan,
    of: u32,
    canvas: &Canvas,
    options: u32,
    resolve: R,
    room: Room<'_>,
) -> Result<u32, CanvasError>
where
    R: FnMut(&str) -> Result<T, String>,
    T: Into<Target>,
{
    let (root, total) = (plan.steps.len(), plan.total);
    let before = (plan.args.len(), plan.options.len(), plan.functions.len());
    let place = Place { role: Role::StandIn { of }, input: None, options, depth: 1 };
    let mut appended = Lowering::new(plan, room.limits, resolve).canvas(canvas, place);
    if appended.is_ok() && plan.total - total > room.tasks {
        appended = Err(CanvasError::NoRoom);
    }
    if appended.is_err() {
        plan.steps.truncate(root);
        plan.args.truncate(before.0);
        plan.options.truncate(before.1);
        plan.functions.truncate(before.2);
        plan.total = total;
    }
    appended.map(|()| root as u32)
}

struct Lowering<'c, 'p, R> {
    plan: &'p mut Plan,
    limits: &'p Limits,
    resolve: R,
    /// Names as written, and their index in `plan.functions`.
    names: BTreeMap<&'c str, u32>,
    /// Number of functions in the plan before.
    known: usize,
}

/// The place of a step in the tree.
#[derive(Clone, Copy)]
struct Place {
    role: Role,
    /// The step whose result is prepended.
    input: Option<u32>,
    /// Index in `plan.options` of the defaults.
    options: u32,
    depth: u32,
}

impl Place {
    fn member(self, parent: u32, index: usize, input: Option<u32>) -> Place {
        // Members are steps, and `group` and `chain` have counted them, so their number fits.
        let role = Role::Member { parent, index: index as u32 };
        Place { role, input, options: self.options, depth: self.depth + 1 }
    }
}

impl<'c, 'p, R, T> Lowering<'c, 'p, R>
where
    R: FnMut(&str) -> Result<T, String>,
    T: Into<Target>,
{
    fn new(plan: &'p mut Plan, limits: &'p Limits, resolve: R) -> Lowering<'c, 'p, R> {
        let known = plan.functions.len();
        Lowering { plan, limits, resolve, names: BTreeMap::new(), known }
    }

    fn canvas(&mut self, canvas: &'c Canvas, mut place: Place) -> Result<(), CanvasError> {
        if place.depth > self.limits.depth_max {
            return Err(CanvasError::TooDeep { depth_max: self.limits.depth_max });
        }
        self.deadline(canvas.options.deadline_ms, place)?;
        place.options = self.options(&canvas.options, place.options)?;
        self.check_partial(canvas, place)?;
        let step = match &canvas.form {
            Form::Task(task) => self.task(task, place)?,
            Form::Chain(steps) => self.chain(steps, place)?,
            Form::Group(members) => self.group(members, place)?,
            Form::Chord { header, body } => self.chord(header, body, place)?,
            Form::Map { function, items } => self.map(function, items, false, place)?,
            Form::Starmap { function, items } => self.map(function, items, true, place)?,
            Form::Chunks { function, items, split } => self.chunks(function, items, *split, place)?,
        };
        let callbacks = self.next();
        self.callbacks(&canvas.link, Role::Link, step, place.depth)?;
        self.callbacks(&canvas.on_error, Role::OnError, step, place.depth)?;
        self.close(step, callbacks);
        Ok(())
    }

    fn task(&mut self, task: &'c Task, place: Place) -> Result<u32, CanvasError> {
        let function = self.function(&task.function)?;
        let input = place.input.filter(|_| !task.immutable);
        let own = elements(task.args.as_bytes()).map_err(|error| self.argument_error(function, None, error))?;
        let given = Given { parent: input.is_some(), own: &own, named: &task.kwargs };
        let start = self.plan.args.len();
        self.bind(function, None, given)?;
        self.push_task(Mode::Single, function, start, Place { input, ..place })
    }

    fn chain(&mut self, steps: &'c [Canvas], place: Place) -> Result<u32, CanvasError> {
        if steps.is_empty() {
            return Err(CanvasError::EmptyChain);
        }
        let chain = self.push(Kind::Chain { members: self.count(steps.len())? }, place)?;
        let mut input = place.input;
        for (index, step) in steps.iter().enumerate() {
            let member = self.next();
            self.canvas(step, place.member(chain, index, input))?;
            input = Some(member);
        }
        Ok(chain)
    }

    fn group(&mut self, members: &'c [Canvas], place: Place) -> Result<u32, CanvasError> {
        let group = self.push_group(members.len(), place)?;
        for (index, member) in members.iter().enumerate() {
            self.canvas(member, place.member(group, index, place.input))?;
        }
        Ok(group)
    }

    fn chord(&mut self, header: &'c [Canvas], body: &'c Canvas, place: Place) -> Result<u32, CanvasError> {
        let chain = self.push(Kind::Chain { members: 2 }, place)?;
        let in_chain = Place { depth: place.depth - 1, ..place };
        let group = self.group(header, in_chain.member(chain, 0, place.input))?;
        self.close(group, self.next());
        self.canvas(body, place.member(chain, 1, Some(group)))?;
        Ok(chain)
    }

    /// `map`; also `starmap` if an item is a list of arguments.
    fn map(&mut self, name: &'c str, items: &'c Cbor, star: bool, place: Place) -> Result<u32, CanvasError> {
        let function = self.function(name)?;
        let items = self.items(function, items)?;
        let group = self.push_group(items.len(), place)?;
        for (index, item) in items.iter().enumerate() {
            let start = self.plan.args.len();
            if star {
                self.bind_item(function, index, item)?;
            } else {
                self.bind(function, Some(index), Given::only(&[item]))?;
            }
            let place = place.member(group, index, None);
            let task = self.push_task(Mode::Single, function, start, place)?;
            self.close(task, task + 1);
        }
        Ok(group)
    }

    fn chunks(&mut self, name: &'c str, items: &'c Cbor, split: Split, place: Place) -> Result<u32, CanvasError> {
        let function = self.function(name)?;
        let items = self.items(function, items)?;
        let (Split::Bins(n) | Split::Size(n)) = split;
        let n = n as usize;
        if n == 0 {
            return Err(CanvasError::NoBins { function: self.name(function) });
        }
        if self.runs_on_each(place) {
            let belongs = "is not for chunks: a bin runs on one node; use map or starmap";
            return Err(CanvasError::Misplaced { option: "each", belongs });
        }
        let bins = if matches!(split, Split::Bins(_)) { n } else { items.len().div_ceil(n) };
        let group = self.push_group(bins, place)?;
        let mut from = 0;
        for bin in 0..bins {
            let len = match split {
                Split::Bins(_) => items.len() / n + usize::from(bin < items.len() % n),
                Split::Size(_) => n.min(items.len() - from),
            };
            self.bin(function, from, &items[from..from + len], place.member(group, bin, None))?;
            from += len;
        }
        Ok(group)
    }

    /// The time limit of the job. Only the whole canvas can have one.
    fn deadline(&mut self, deadline_ms: Option<u64>, place: Place) -> Result<(), CanvasError> {
        match deadline_ms {
            None => Ok(()),
            Some(_) if place.role != Role::Root => {
                let belongs = "is for the whole job: set it on the outermost canvas";
                Err(CanvasError::Misplaced { option: "deadline", belongs })
            }
            Some(_) => {
                self.plan.deadline_ms = deadline_ms;
                Ok(())
            }
        }
    }

    /// On a task it needs `each`. On other forms it can be for some of their tasks.
    fn check_partial(&self, canvas: &Canvas, place: Place) -> Result<(), CanvasError> {
        let has_members = matches!(canvas.form, Form::Chain(_) | Form::Group(_) | Form::Chord { .. });
        if canvas.options.partial.is_some() && !has_members && !self.runs_on_each(place) {
            return Err(CanvasError::Misplaced { option: "partial", belongs: "goes with each=True" });
        }
        Ok(())
    }

    fn runs_on_each(&self, place: Place) -> bool {
        self.plan.options_at(place.options).each == Some(true)
    }

    /// One bin of `chunks`; `from` is the index of its first item.
    fn bin(&mut self, function: u32, from: usize, items: &[&[u8]], place: Place) -> Result<(), CanvasError> {
        if items.is_empty() {
            // No calls: an empty list needs no worker.
            let empty = self.push_group(0, place)?;
            self.close(empty, empty + 1);
            return Ok(());
        }
        let start = self.plan.args.len();
        put_array_header(&mut self.plan.args, items.len());
        for (offset, item) in items.iter().enumerate() {
            self.bind_item(function, from + offset, item)?;
        }
        let bin = self.push_task(Mode::Bin, function, start, place)?;
        self.close(bin, bin + 1);
        Ok(())
    }

    /// Callbacks are separate canvases: they inherit no options from the canvas that they belong to.
    fn callbacks(&mut self, callbacks: &'c [Canvas], role: Role, step: u32, depth: u32) -> Result<(), CanvasError> {
        let place = Place { role, input: Some(step), options: 0, depth: depth + 1 };
        callbacks.iter().try_for_each(|callback| self.canvas(callback, place))
    }

    /// The index in `plan.options` of these options, merged with their defaults.
    fn options(&mut self, options: &Options, defaults: u32) -> Result<u32, CanvasError> {
        if *options == Options::default() {
            return Ok(defaults);
        }
        options.check().map_err(CanvasError::Option)?;
        if options.on.iter().any(|want| want.starts_with(PIN)) {
            let belongs = "names a node, a label or a capability; none begins with =";
            return Err(CanvasError::Misplaced { option: "on", belongs });
        }
        let merged = options.or(self.plan.options_at(defaults));
        Ok(self.plan.intern_options(Options { deadline_ms: None, ..merged }))
    }

    fn function(&mut self, name: &'c str) -> Result<u32, CanvasError> {
        if let Some(known) = self.names.get(name).copied().or_else(|| self.bound_before(name)) {
            return Ok(known);
        }
        let target = (self.resolve)(name).map_err(CanvasError::Function)?;
        let index = self.plan.functions.len() as u32;
        self.plan.functions.push(target.into());
        self.names.insert(name, index);
        Ok(index)
    }

    /// The function that a full or bare name already refers to in the job: a job keeps its versions.
    fn bound_before(&self, name: &str) -> Option<u32> {
        let before = || (0..).zip(&self.plan.functions[..self.known]);
        let full = before().find(|(_, target)| target.callee.name == name);
        let mut bare = before().filter(|(_, target)| target.callee.function.name == name);
        let bare = bare.next().filter(|(_, first)| bare.all(|(_, other)| other.callee.name == first.callee.name));
        full.or(bare).map(|(index, _)| index)
    }

    fn items<'i>(&self, function: u32, items: &'i Cbor) -> Result<Vec<&'i [u8]>, CanvasError> {
        elements(items.as_bytes()).map_err(|_| CanvasError::Items { function: self.name(function) })
    }

    /// Binds an item that is itself a list of arguments.
    fn bind_item(&mut self, function: u32, index: usize, item: &[u8]) -> Result<(), CanvasError> {
        let own = elements(item).map_err(|error| self.argument_error(function, Some(index), error))?;
        self.bind(function, Some(index), Given::only(&own))
    }

    fn bind(&mut self, function: u32, item: Option<usize>, given: Given<'_>) -> Result<(), CanvasError> {
        let Plan { functions, args, .. } = &mut *self.plan;
        bind(&functions[function as usize].callee.function, given, args)
            .map_err(|error| self.argument_error(function, item, error))?;
        let args_bytes_max = self.limits.args_bytes_max.min(u32::MAX as usize);
        if self.plan.args.len() > args_bytes_max {
            return Err(CanvasError::TooLarge { args_bytes_max });
        }
        Ok(())
    }

    fn name(&self, function: u32) -> String {
        self.plan.functions[function as usize].callee.name.clone()
    }

    fn argument_error(&self, function: u32, item: Option<usize>, error: ArgumentError) -> CanvasError {
        CanvasError::Arguments { function: self.name(function), item, error }
    }

    /// Index of the next step.
    fn next(&self) -> u32 {
        self.plan.steps.len() as u32
    }

    /// Refuses a number of members that cannot all become steps, before anything is built.
    fn count(&self, members: usize) -> Result<u32, CanvasError> {
        let steps_max = self.limits.steps_max;
        let count = u32::try_from(members).ok().filter(|&count| count <= steps_max);
        count.ok_or(CanvasError::TooManySteps { steps_max })
    }

    fn push_group(&mut self, members: usize, place: Place) -> Result<u32, CanvasError> {
        let members = self.count(members)?;
        self.push(Kind::Group { members, pending: members, bytes: 0, named: false }, place)
    }

    fn push_task(&mut self, mode: Mode, function: u32, start: usize, place: Place) -> Result<u32, CanvasError> {
        // `bind` keeps all offsets below 2^32.
        let args = start as u32..self.plan.args.len() as u32;
        let step = self.push(Kind::Task { mode, function, args }, place)?;
        self.plan.total += 1;
        Ok(step)
    }

    fn push(&mut self, kind: Kind, place: Place) -> Result<u32, CanvasError> {
        let step = self.next();
        if step >= self.limits.steps_max {
            return Err(CanvasError::TooManySteps { steps_max: self.limits.steps_max });
        }
        self.plan.steps.push(Step::new(kind, place.role, place.input, place.options, step, self.plan.total));
        Ok(step)
    }

    /// Ends the subtree of a step. Its callbacks start at `callbacks`.
    fn close(&mut self, step: u32, callbacks: u32) {
        let (end, total) = (self.next(), self.plan.total);
        self.plan.steps[step as usize].close(callbacks, end, total);
    }
}

/// The arguments of a call.
#[derive(Clone, Copy)]
struct Given<'a> {
    /// Whether the first argument is the result of a parent.
    parent: bool,
    own: &'a [&'a [u8]],
    named: &'a [(String, Cbor)],
}

impl<'a> Given<'a> {
    fn only(own: &'a [&'a [u8]]) -> Given<'a> {
        Given { parent: false, own, named: &[] }
    }
}

/// Appends the arguments of a call as one array, in the order of the parameters. If the result of a parent comes first,
/// appends only the arguments after it, and no array header.
fn bind(function: &Function, given: Given<'_>, out: &mut Vec<u8>) -> Result<(), ArgumentError> {
    let parameters = &function.args;
    let first = usize::from(given.parent);
    let placed = first + given.own.len();
    let wrong_count =
        || ArgumentError::Count { takes: takes(function), got: placed + given.named.len(), parent: given.parent };
    if placed > parameters.len() {
        return Err(wrong_count());
    }
    check_names(function, placed, given.named)?;
    if !given.parent {
        put_array_header(out, parameters.len());
    }
    for (place, parameter) in parameters.iter().enumerate().skip(first) {
        let by_name = || given.named.iter().find(|(name, _)| *name == parameter.name);
        let by_place = given.own.get(place - first).copied();
        let value = by_place.or_else(|| by_name().map(|(_, value)| value.as_bytes()));
        match value {
            Some(value) => {
                let wrong_type = |mismatch| ArgumentError::Type(parameter.name.clone(), mismatch);
                parameter.ty.check(value).map_err(wrong_type)?;
                out.extend_from_slice(value);
            }
            None if matches!(parameter.ty, Type::Optional(_)) => {
                out.extend_from_slice(Cbor::null().as_bytes());
            }
            None if given.named.is_empty() => return Err(wrong_count()),
            None => return Err(ArgumentError::Missing(parameter.name.clone())),
        }
    }
    Ok(())
}

/// Each name must be a parameter that has no argument yet.
fn check_names(function: &Function, placed: usize, named: &[(String, Cbor)]) -> Result<(), ArgumentError> {
    for (index, (name, _)) in named.iter().enumerate() {
        let place = function.args.iter().position(|parameter| parameter.name == *name);
        let place = place.ok_or_else(|| ArgumentError::Unknown(text::name(name).into_owned()))?;
        if place < placed || named[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(ArgumentError::Twice(name.clone()));
        }
    }
    Ok(())
}

/// `2 arguments (x: i64, y: i64)`, `1 to 2 arguments (x: i64, y: ?i64)`, `no arguments`.
fn takes(function: &Function) -> String {
    let parameters = &function.args;
    let required = parameters.iter().filter(|p| !matches!(p.ty, Type::Optional(_))).count();
    let list: Vec<String> = parameters.iter().map(|p| format!("{}: {}", p.name, p.ty)).collect();
    let number = match (required, parameters.len()) {
        (_, 0) => return "no arguments".into(),
        (min, max) if min == max => format!("{max}"),
        (min, max) => format!("{min} to {max}"),
    };
    let plural = if parameters.len() == 1 { "" } else { "s" };
    format!("{number} argument{plural} ({})", list.join(", "))
}

/// The encoded elements of an array. Checks that all of them are well-formed.
fn elements(array: &[u8]) -> Result<Vec<&[u8]>, ArgumentError> {
    let mut reader = Reader::new(array);
    if let Ok(Head::Array(len)) = reader.head() {
        let elements: Option<Vec<_>> = (0..len).map(|_| reader.item().ok()).collect();
        if let Some(elements) = elements.filter(|_| reader.is_at_end()) {
            return Ok(elements);
        }
    }
    let mismatch = Type::List(Box::new(Type::Any)).check(array).err();
    Err(ArgumentError::NotAList(mismatch.map_or_else(String::new, |mismatch| mismatch.got)))
}
