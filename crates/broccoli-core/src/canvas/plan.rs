//! The arena of a canvas and its progress.
//!
//! Owns the state and the result of every step of a job. Each step ends exactly once. A step that can no longer run
//! counts as done, so the progress always adds up. Never decodes a result, and never reads a clock.
//!
//! The steps are in the order of writing. Each is followed by its members, and then by its callbacks:
//!
//! ```text
//!  chain(a, group(b, c)).link(d)
//!  index   0      1   2      3   4   5
//!          chain  a   group  b   c   d
//!          |          '--- end = 5   |
//!          |       callbacks = 5 ----'
//!          '--- end = 6
//! ```
//!
//! So the next sibling of a step is at its `end`. The canvas that replaces a task, and the runs of a task on each node,
//! are appended after everything else: see the module `parts`.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use broccoli_abi::Function;
use broccoli_proto::cbor::{put_array_header, put_map_header, put_text};
use broccoli_proto::{Cause, Cbor, NodeId, Options, Outcome, TaskError};

/// New options are compared with this many earlier ones. Equal options are stored once.
const OPTIONS_RECENT: usize = 16;

/// The options of a task without options.
static DEFAULTS: Options = Options::NONE;

/// The number of a step in a plan. Messages use it, too: [`TaskError::task`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// What a change of the plan leads to. The plan only appends to it. The caller reads and clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Tasks that may run now, in the order of writing. Each task is listed once.
    pub ready: Vec<StepId>,
    /// Tasks that must now run on each node: pass the nodes to [`Plan::run_on_each`]. Each task is listed once.
    pub each: Vec<StepId>,
    /// Errors of callbacks. They do not fail the job, but should be reported.
    pub failed_callbacks: Vec<TaskError>,
}

impl Effects {
    /// Removes everything.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.each.clear();
        self.failed_callbacks.clear();
    }
}

/// How a task is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One call with the arguments.
    Single,
    /// The arguments are a list of argument lists: one call for each, one after the other, on one worker. The result is
    /// the list of results. The first failure ends the task.
    Bin,
}

/// Everything about a task except its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'p> {
    /// The key that the resolver of `lower` returned for the function.
    pub key: u32,
    /// `module.function`.
    pub name: &'p str,
    /// One call or several.
    pub mode: Mode,
    /// The options, including the defaults of the enclosing canvases.
    pub options: &'p Options,
}

/// How many tasks have ended, including callbacks. Tasks that can no longer run count as ended. The total grows when a
/// task is replaced or runs on several nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that have ended.
    pub done: u32,
    /// All tasks of the canvas.
    pub total: u32,
}

/// The state of one job: which tasks have run, which may run now, and the results.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Never empty. The first step is the root.
    pub(super) steps: Vec<Step>,
    /// The arguments of all tasks as written, one after the other.
    pub(super) args: Vec<u8>,
    /// Options that differ from [`DEFAULTS`], at their index less one: see [`Plan::options_at`].
    pub(super) options: Vec<Options>,
    /// `options` of the runs of a task with `each`, by the options of the task and the node.
    pub(super) pins: BTreeMap<(u32, NodeId), u32>,
    pub(super) functions: Vec<Target>,
    /// Time limit of the whole job, in milliseconds.
    pub(super) deadline_ms: Option<u64>,
    /// Tasks in `steps`, without those that run on each node: their runs count instead.
    pub(super) total: u32,
    /// Tasks that have ended or will never run.
    pub(super) done: u32,
    /// Tasks that have ended by themselves.
    pub(super) ran: u32,
    /// Tasks that were announced as ready and have not ended.
    pub(super) running: u32,
    /// The root that stands in for a task, by task.
    pub(super) stand_ins: BTreeMap<u32, u32>,
    /// Whether the whole plan was ended from outside.
    abandoned: bool,
    /// Bytes of the results and errors in the steps.
    held_bytes: usize,
    result_bytes_max: usize,
    /// Changes that are not processed yet. Empty between calls.
    pub(super) work: Vec<Work>,
}

/// A function that tasks of a plan call.
#[derive(Clone, Debug)]
pub struct Target {
    /// The function. Plans that call the same function can share it.
    pub callee: Arc<Callee>,
    /// A value of the caller, returned in [`Call::key`].
    pub key: u32,
}

/// The data of a function that a plan needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Callee {
    /// `module.function`.
    pub name: String,
    /// The function without its documentation.
    pub function: Function,
}

impl Callee {
    /// A function with its full name.
    pub fn new(name: String, function: &Function) -> Callee {
        let Function { name: short, args, ret, .. } = function;
        let function = Function { name: short.clone(), args: args.clone(), ret: ret.clone(), doc: String::new() };
        Callee { name, function }
    }
}

/// A node of the canvas tree after lowering.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) kind: Kind,
    pub(super) role: Role,
    pub(super) state: State,
    /// The step whose result or error is prepended to the arguments.
    pub(super) input: Option<u32>,
    pub(super) options: u32,
    /// Index of the first callback; `end` if there is none.
    callbacks: u32,
    /// Index after the subtree.
    pub(super) end: u32,
    /// Number of tasks in the subtree.
    tasks: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// `args` is a range in `Plan::args`: an array, or only the elements after the input.
    Task { mode: Mode, function: u32, args: Range<u32> },
    /// At least one member.
    Chain { members: u32 },
    /// `pending` members have not ended. Those that have succeeded hold `bytes`. The members of a `named` group are
    /// runs of one task on different nodes. The result of such a group is a map.
    Group { members: u32, pending: u32, bytes: usize, named: bool },
}

/// The relation of a step to the step above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Root,
    Member {
        parent: u32,
        index: u32,
    },
    Link,
    OnError,
    /// Its outcome is the outcome of an earlier task.
    StandIn {
        of: u32,
    },
}

/// ```text
///  Waiting ──► Running ──► Done ──► Joined
///     │         │ ├──────► Failed ────▲
///     │     Replaced ────► Same
///     └─────────┴─┴──────► Skipped
/// ```
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Not started.
    Waiting,
    /// A task that was announced as ready, or a form that has started.
    Running,
    /// A task that waits for the outcome of its stand-in.
    Replaced,
    /// Ended with this result.
    Done(Cbor),
    /// Ended with the outcome of this step: a chain with that of the last step that ran, a replaced task with that of
    /// its stand-in.
    Same(u32),
    /// Ended with this error.
    Failed(Box<TaskError>),
    /// Ended. Its result or error was moved to its group.
    Joined { failed: bool },
    /// Never ran, or was ended from outside.
    Skipped,
}

impl State {
    fn held_bytes(&self) -> usize {
        match self {
            State::Done(result) => result.as_bytes().len(),
            State::Failed(error) => error.text.len(),
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Start(u32),
    Ended(u32),
}

impl Plan {
    pub(super) fn new(result_bytes_max: usize) -> Plan {
        Plan {
            steps: Vec::new(),
            args: Vec::new(),
            options: Vec::new(),
            pins: BTreeMap::new(),
            functions: Vec::new(),
            deadline_ms: None,
            total: 0,
            done: 0,
            ran: 0,
            running: 0,
            stand_ins: BTreeMap::new(),
            abandoned: false,
            held_bytes: 0,
            result_bytes_max,
            work: Vec::new(),
        }
    }

    /// Starts the plan. Steps that need no task end at once: `group([])` gives `[]` before any task has run. A second
    /// call does nothing.
    pub fn start(&mut self, effects: &mut Effects) {
        if matches!(self.steps[0].state, State::Waiting) {
            self.work.push(Work::Start(0));
            self.advance(effects);
        }
    }

    /// Lists again the tasks that were announced and have not ended, in the order of their numbers.
    pub fn announce_again(&self, effects: &mut Effects) {
        for (index, step) in (0..).zip(&self.steps) {
            if matches!((&step.kind, &step.state), (Kind::Task { .. }, State::Running)) {
                self.announce(index, step, effects);
            }
        }
    }

    fn announce(&self, index: u32, step: &Step, effects: &mut Effects) {
        let on_each = self.options_at(step.options).each == Some(true);
        let list = if on_each { &mut effects.each } else { &mut effects.ready };
        list.push(StepId(index));
    }

    /// Takes the outcome of a task that was announced as ready.
    ///
    /// Returns whether it counts. The first outcome of a task counts; all others are ignored.
    pub fn complete(&mut self, step: StepId, outcome: Outcome, effects: &mut Effects) -> bool {
        if !self.is_running_task(step) {
            return false;
        }
        let state = match outcome {
            Ok(result) => match self.result_too_large(step, &result) {
                None => State::Done(result),
                Some(error) => State::Failed(Box::new(error)),
            },
            Err(error) => State::Failed(Box::new(error)),
        };
        self.running -= 1;
        self.done += 1;
        self.ran += 1;
        self.settle(step.0, state);
        self.advance(effects);
        true
    }

    /// Ends everything that has not ended: the job as revoked if it has no result yet, and its callbacks. Nothing
    /// becomes ready any more, and outcomes of running tasks do not count.
    pub fn revoke(&mut self) {
        self.abandon(Cause::Revoked, "the job was revoked".into());
    }

    /// Like [`Plan::revoke`], because the time of [`Plan::deadline_ms`] is over. `last` is the last error of a task
    /// that waited for a retry.
    pub fn miss_deadline(&mut self, last: Option<&str>) {
        let deadline_ms = self.deadline_ms.unwrap_or(0);
        let last = last.map(|last| format!("; its last error was: {last}")).unwrap_or_default();
        self.abandon(Cause::TimedOut, format!("the job took longer than its deadline of {deadline_ms} ms{last}"));
    }

    /// Like [`Plan::revoke`], because the job needs more memory than there is. Its memory is freed.
    pub fn outgrow(&mut self, text: String) {
        self.abandon(Cause::Unfit, text);
        for step in 1..self.steps.len() as u32 {
            let state = &self.steps[step as usize].state;
            if matches!(state, State::Done(_) | State::Failed(_)) {
                self.set_state(step, State::Joined { failed: matches!(state, State::Failed(_)) });
            }
        }
    }

    fn abandon(&mut self, cause: Cause, text: String) {
        if self.result().is_none() {
            let error = self.abandoned_error(cause, text);
            self.set_state(0, State::Failed(Box::new(error)));
        }
        self.abandoned = true;
        for step in &mut self.steps {
            if !step.has_ended() {
                step.state = State::Skipped;
            }
        }
        self.running = 0;
        self.done = self.total;
    }

    /// The function, mode and options of a task.
    ///
    /// # Panics
    /// If this is not a task of this plan.
    pub fn call(&self, step: StepId) -> Call<'_> {
        let (step, mode, function, _) = self.task(step);
        let Target { callee, key } = &self.functions[function as usize];
        Call { key: *key, name: &callee.name, mode, options: self.options_at(step.options) }
    }

    /// The options of all tasks that have any. Each different set is included at least once.
    pub fn options(&self) -> &[Options] {
        &self.options
    }

    /// Number of steps: tasks, chains and groups.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// Bytes of the arguments of all tasks as written.
    pub fn args_bytes(&self) -> usize {
        self.args.len()
    }

    /// Bytes of the results and errors that are kept: for later steps, for the view of steps, and for the result.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes of the copy that a task gets of its input.
    pub fn input_bytes(&self, step: StepId) -> usize {
        self.task(step).0.input.map_or(0, |input| self.input(input).len())
    }

    /// The arguments of a task that was announced as ready: one CBOR array with all parameters of the function in their
    /// order (for [`Mode::Bin`], an array of such arrays).
    ///
    /// # Panics
    /// If this is not a task of this plan, or its input has not ended.
    pub fn args(&self, step: StepId) -> Cow<'_, [u8]> {
        let (step, _, function, args) = self.task(step);
        let own = &self.args[args.start as usize..args.end as usize];
        let Some(input) = step.input else {
            return Cow::Borrowed(own);
        };
        let first = self.input(input);
        let mut out = Vec::with_capacity(first.len() + own.len() + 9);
        put_array_header(&mut out, self.functions[function as usize].callee.function.args.len());
        out.extend_from_slice(&first);
        out.extend_from_slice(own);
        Cow::Owned(out)
    }

    /// The result or the error of the whole canvas; none until it is known.
    pub fn result(&self) -> Option<Result<&Cbor, &TaskError>> {
        self.outcome(StepId(0))
    }

    /// Like [`Plan::result`], owned.
    pub fn into_outcome(mut self) -> Option<Outcome> {
        let mut step = 0;
        loop {
            match core::mem::replace(&mut self.steps.get_mut(step)?.state, State::Skipped) {
                State::Done(result) => return Some(Ok(result)),
                State::Failed(error) => return Some(Err(*error)),
                State::Same(last) => step = last as usize,
                _ => return None,
            }
        }
    }

    /// The result or the error of one step, if it has ended. None for a member of a group when the list of its group
    /// exists, and for a step that never ran.
    pub fn outcome(&self, step: StepId) -> Option<Result<&Cbor, &TaskError>> {
        let mut step = step.0;
        loop {
            match &self.steps.get(step as usize)?.state {
                State::Done(result) => return Some(Ok(result)),
                State::Failed(error) => return Some(Err(error)),
                State::Same(last) => step = *last,
                State::Waiting | State::Running | State::Replaced | State::Joined { .. } | State::Skipped => {
                    return None;
                }
            }
        }
    }

    /// Whether the result is known and all callbacks have ended.
    pub fn is_finished(&self) -> bool {
        self.running == 0 && self.steps[0].has_ended()
    }

    /// Time limit of the whole job, in milliseconds from its acceptance.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline_ms
    }

    /// The first function of the canvas, `module.function`; empty if it calls none.
    pub fn name(&self) -> &str {
        self.functions.first().map_or("", |target| &target.callee.name)
    }

    /// How many tasks have ended by themselves, including tasks that were replaced. Tasks that will never run are not
    /// included.
    pub fn ran(&self) -> u32 {
        self.ran
    }

    /// How many tasks have ended, and of how many.
    pub fn progress(&self) -> Progress {
        Progress { done: self.done, total: self.total }
    }
}

/// Follows a change through the tree. A list of work instead of recursion, so that a chain of many steps without tasks
/// needs no deep stack.
impl Plan {
    pub(super) fn advance(&mut self, effects: &mut Effects) {
        // Bounded: each step starts at most once and ends at most once.
        while let Some(work) = self.work.pop() {
            match work {
                Work::Start(step) => self.begin(step, effects),
                Work::Ended(step) => self.ended(step, effects),
            }
        }
    }

    fn begin(&mut self, index: u32, effects: &mut Effects) {
        let step = &mut self.steps[index as usize];
        step.state = State::Running;
        match step.kind {
            Kind::Task { .. } => {
                self.running += 1;
                self.announce(index, &self.steps[index as usize], effects);
            }
            Kind::Chain { .. } => self.work.push(Work::Start(index + 1)),
            Kind::Group { members: 0, .. } => self.settle(index, State::Done(Cbor::empty_array())),
            Kind::Group { members, .. } => {
                let first = self.work.len();
                let mut member = index + 1;
                for _ in 0..members {
                    self.work.push(Work::Start(member));
                    member = self.steps[member as usize].end;
                }
                // The list of work is a stack: the first member must be on top.
                self.work[first..].reverse();
            }
        }
    }

    fn settle(&mut self, step: u32, state: State) {
        self.set_state(step, state);
        self.work.push(Work::Ended(step));
    }

    /// Sets or removes the outcome of a step. All changes of outcomes are here, so the held bytes are counted.
    fn set_state(&mut self, step: u32, state: State) {
        let after = state.held_bytes();
        let before = core::mem::replace(&mut self.steps[step as usize].state, state).held_bytes();
        self.held_bytes = self.held_bytes + after - before;
    }

    fn ended(&mut self, index: u32, effects: &mut Effects) {
        let step = &self.steps[index as usize];
        let (role, has_callbacks) = (step.role, step.callbacks < step.end);
        let failed = self.has_failed(index);
        if has_callbacks {
            self.call_back(index, if failed { Role::OnError } else { Role::Link });
        }
        match role {
            Role::Member { parent, index: number } => match self.steps[parent as usize].kind {
                Kind::Chain { members } => self.chain_goes_on(parent, index, members - number - 1),
                Kind::Group { .. } => self.group_goes_on(parent, index),
                Kind::Task { .. } => unreachable!("a task has no members"),
            },
            Role::Link | Role::OnError => {
                let error = self.outcome(StepId(index)).and_then(Result::err);
                effects.failed_callbacks.extend(error.cloned());
            }
            Role::StandIn { of } => self.settle(of, State::Same(self.source(index))),
            Role::Root => {}
        }
    }

    /// Starts the callbacks of one kind. The others will never run.
    fn call_back(&mut self, owner: u32, due: Role) {
        let Step { callbacks, end, .. } = self.steps[owner as usize];
        let first = self.work.len();
        let mut callback = callbacks;
        while callback < end {
            let next = self.steps[callback as usize].end;
            if self.steps[callback as usize].role == due {
                self.work.push(Work::Start(callback));
            } else {
                self.skip(callback);
            }
            callback = next;
        }
        self.work[first..].reverse();
    }

    /// `member` has ended. `rest` members follow it.
    fn chain_goes_on(&mut self, chain: u32, member: u32, rest: u32) {
        let failed = self.has_failed(member);
        let mut next = self.steps[member as usize].end;
        if failed {
            for _ in 0..rest {
                self.skip(next);
                next = self.steps[next as usize].end;
            }
        }
        if failed || rest == 0 {
            self.settle(chain, State::Same(self.source(member)));
        } else {
            self.work.push(Work::Start(next));
        }
    }

    fn group_goes_on(&mut self, group: u32, member: u32) {
        let result = self.outcome(StepId(member)).and_then(Result::ok);
        let (succeeded, size) = (result.is_some(), result.map_or(0, |r| r.as_bytes().len() + self.key_bytes(member)));
        let result_bytes_max = self.result_bytes_max;
        let Kind::Group { pending, bytes, .. } = &mut self.steps[group as usize].kind else {
            unreachable!("only groups get here");
        };
        *pending -= 1;
        let fitted = *bytes <= result_bytes_max;
        *bytes = bytes.saturating_add(size);
        let (complete, fits) = (*pending == 0, *bytes <= result_bytes_max);
        if complete {
            let state = self.join(group);
            self.settle(group, state);
        } else if !fits && fitted {
            // The list of the group can never be made: do not keep results for it.
            let succeeded = self.results(group).map(|(member, _)| member);
            for member in succeeded.collect::<Vec<_>>() {
                self.release(member);
            }
        } else if !fits && succeeded {
            self.release(member);
        }
    }

    /// The outcome of a group whose members have all ended.
    fn join(&mut self, group: u32) -> State {
        let Kind::Group { members, bytes, named, .. } = self.steps[group as usize].kind else {
            unreachable!("only groups are joined");
        };
        let options = self.steps[group as usize].options;
        let partial = named && self.options_at(options).partial == Some(true);
        let error = if partial { None } else { self.first_error(group, members, named) };
        let error = error.or_else(|| (bytes > self.result_bytes_max).then(|| self.too_large_together(group, bytes)));
        let mut out = Vec::new();
        if error.is_none() {
            out.reserve_exact(bytes + 9);
            if named {
                put_map_header(&mut out, self.results(group).count())
            } else {
                put_array_header(&mut out, members as usize)
            }
        }
        let mut member = group + 1;
        for _ in 0..members {
            if error.is_none() {
                self.put_result(member, named, &mut out);
            }
            // One by one, so that a long list is never in memory twice.
            self.release(member);
            member = self.steps[member as usize].end;
        }
        match error {
            Some(error) => State::Failed(Box::new(error)),
            None => State::Done(Cbor::from_encoded(out)),
        }
    }

    /// Appends the result of a member to that of its group. In a map, the name of its node is written before it.
    fn put_result(&self, member: u32, named: bool, out: &mut Vec<u8>) {
        if let Some(Ok(result)) = self.outcome(StepId(member)) {
            if named {
                put_text(out, self.node(member).unwrap_or_default());
            }
            out.extend_from_slice(result.as_bytes());
        }
    }

    fn first_error(&self, group: u32, members: u32, named: bool) -> Option<TaskError> {
        let mut member = group + 1;
        for index in 0..members {
            if let Some(Err(error)) = self.outcome(StepId(member)) {
                let mut error = error.clone();
                if named {
                    error.text = format!("on {}: {}", self.node(member).unwrap_or_default(), error.text);
                } else {
                    error.members.insert(0, index);
                }
                return Some(error);
            }
            member = self.steps[member as usize].end;
        }
        None
    }

    /// The members of a group that have succeeded, with their results, in order.
    fn results(&self, group: u32) -> impl Iterator<Item = (u32, &Cbor)> {
        self.members(group).filter_map(|member| Some((member, self.outcome(StepId(member))?.ok()?)))
    }

    /// The members of a form, in order; none for a task.
    pub(super) fn members(&self, form: u32) -> impl Iterator<Item = u32> {
        let mut next = form + 1;
        (0..self.steps[form as usize].members()).map(move |_| {
            let member = next;
            next = self.steps[member as usize].end;
            member
        })
    }

    /// Frees the outcome of a member that only its group needed.
    fn release(&mut self, member: u32) {
        let step = &self.steps[member as usize];
        let has_callbacks = step.callbacks < step.end;
        if !has_callbacks && matches!(step.state, State::Done(_) | State::Failed(_)) {
            let failed = matches!(step.state, State::Failed(_));
            self.set_state(member, State::Joined { failed });
        }
    }

    fn skip(&mut self, step: u32) {
        let step = &mut self.steps[step as usize];
        step.state = State::Skipped;
        self.done += step.tasks;
    }

    /// The input of a step: the outcome of the step before it, or for a callback, of the step that it belongs to.
    fn input(&self, step: u32) -> Cow<'_, [u8]> {
        match self.outcome(StepId(step)) {
            Some(Ok(result)) => Cow::Borrowed(result.as_bytes()),
            Some(Err(error)) => Cow::Owned(error_map(error)),
            None => panic!("step {step} has no outcome yet"),
        }
    }

    fn has_failed(&self, step: u32) -> bool {
        matches!(self.outcome(StepId(step)), Some(Err(_)))
    }

    /// The step that stores the outcome of an ended step.
    fn source(&self, step: u32) -> u32 {
        match self.steps[step as usize].state {
            State::Same(source) => source,
            _ => step,
        }
    }

    /// Whether this is a task that was announced as ready and has not ended.
    pub fn is_running_task(&self, step: StepId) -> bool {
        self.steps
            .get(step.0 as usize)
            .is_some_and(|step| matches!((&step.kind, &step.state), (Kind::Task { .. }, State::Running)))
    }

    pub(super) fn task(&self, id: StepId) -> (&Step, Mode, u32, &Range<u32>) {
        match self.steps.get(id.0 as usize) {
            Some(step) => match &step.kind {
                Kind::Task { mode, function, args } => (step, *mode, *function, args),
                _ => panic!("step {} is not a task", id.0),
            },
            None => panic!("there is no step {}", id.0),
        }
    }

    fn result_too_large(&self, step: StepId, result: &Cbor) -> Option<TaskError> {
        let (size, max) = (result.as_bytes().len(), self.result_bytes_max);
        let text = || format!("the result has {size} bytes, the limit is {max}");
        (size > max).then(|| own_error(self.call(step).name, step.0, Cause::Unfit, text()))
    }

    fn too_large_together(&self, group: u32, bytes: usize) -> TaskError {
        let (step, max) = (&self.steps[group as usize], self.result_bytes_max);
        let form = if matches!(step.kind, Kind::Group { named: true, .. }) { "map" } else { "list" };
        let text = format!("the {form} of {} results has {bytes} bytes, the limit is {max}", step.members());
        own_error("group", group, Cause::Unfit, text)
    }

    /// The error of a plan that was ended from outside. It names the first task that has not ended.
    fn abandoned_error(&self, cause: Cause, text: String) -> TaskError {
        let open = |index: &u32| {
            let step = &self.steps[*index as usize];
            matches!((&step.kind, &step.state), (Kind::Task { .. }, State::Waiting | State::Running))
        };
        let first = (0..self.steps.len() as u32).find(open).unwrap_or(0);
        own_error(self.step_name(first), first, cause, text)
    }

    /// The steps of the callbacks of a step.
    #[cfg(feature = "explain")]
    pub(super) fn callbacks_of(&self, step: u32) -> Range<u32> {
        let step = &self.steps[step as usize];
        step.callbacks..step.end
    }

    /// The name of the function of a task, or of the form.
    pub(super) fn step_name(&self, step: u32) -> &str {
        match self.steps[step as usize].kind {
            Kind::Task { function, .. } => &self.functions[function as usize].callee.name,
            Kind::Chain { .. } => "chain",
            Kind::Group { .. } => "group",
        }
    }

    /// The index of these options. Other tasks may share them.
    pub(super) fn intern_options(&mut self, options: Options) -> u32 {
        if options == DEFAULTS {
            return 0;
        }
        let recent = self.options.len().saturating_sub(OPTIONS_RECENT);
        let same = self.options[recent..].iter().position(|known| *known == options);
        match same {
            Some(at) => (recent + at) as u32 + 1,
            None => self.push_options(options),
        }
    }

    pub(super) fn push_options(&mut self, options: Options) -> u32 {
        self.options.push(options);
        self.options.len() as u32
    }

    pub(super) fn options_at(&self, index: u32) -> &Options {
        index.checked_sub(1).map_or(&DEFAULTS, |at| &self.options[at as usize])
    }

    /// Frees the spare capacity for more steps: most plans never grow.
    pub(super) fn shrink(&mut self) {
        self.steps.shrink_to_fit();
        self.args.shrink_to_fit();
        self.options.shrink_to_fit();
        self.functions.shrink_to_fit();
    }
}

/// Invariants, for tests and the simulator.
impl Plan {
    /// Checks the invariants that hold between two calls.
    ///
    /// # Panics
    /// If one is violated.
    pub fn validate(&self) {
        assert!(self.work.is_empty(), "work was left undone");
        self.validate_counts();
        let held: usize = self.steps.iter().map(|step| step.state.held_bytes()).sum();
        assert_eq!(self.held_bytes, held, "bytes that are held are counted");
        self.validate_stand_ins();
        if !self.abandoned {
            for step in 0..self.steps.len() as u32 {
                self.validate_step(step);
            }
        }
    }

    fn validate_counts(&self) {
        // Tasks under a skipped step stay waiting but count as done. For a task that runs on each node, its runs are
        // counted.
        let (mut open, mut running, mut tasks, mut skipped_to) = (0, 0, 0, 0);
        for (index, step) in self.steps.iter().enumerate() {
            if matches!(step.state, State::Skipped) {
                skipped_to = skipped_to.max(step.end as usize);
            }
            let stand_in = self.stand_ins.get(&(index as u32)).map(|root| &self.steps[*root as usize].kind);
            let runs_elsewhere = matches!(stand_in, Some(Kind::Group { named: true, .. }));
            if !matches!(step.kind, Kind::Task { .. }) || runs_elsewhere {
                continue;
            }
            tasks += 1;
            let is_open = matches!(step.state, State::Waiting | State::Running) && index >= skipped_to;
            open += u32::from(is_open);
            running += u32::from(is_open && matches!(step.state, State::Running));
        }
        assert_eq!(tasks, self.total, "total is the number of tasks");
        assert_eq!(self.done, self.total - open, "done counts what has ended or cannot run");
        assert_eq!(self.running, running, "running counts the tasks that were announced");
        if self.is_finished() {
            assert_eq!(self.done, self.total, "a finished job has no open task");
        } else if !matches!(self.steps[0].state, State::Waiting) {
            assert!(running > 0, "an unfinished job waits for some task");
        }
    }

    fn validate_stand_ins(&self) {
        for (of, root) in &self.stand_ins {
            let (task, root) = (&self.steps[*of as usize], &self.steps[*root as usize]);
            assert_eq!(root.role, Role::StandIn { of: *of });
            assert!(matches!(task.kind, Kind::Task { .. }), "only tasks are replaced");
            let waits = matches!(task.state, State::Replaced);
            assert_eq!(waits, !root.has_ended(), "a replaced task ends with its stand-in");
        }
        let stand_ins = self.steps.iter().filter(|step| matches!(step.role, Role::StandIn { .. }));
        assert_eq!(stand_ins.count(), self.stand_ins.len(), "each stand-in is found by its task");
    }

    fn validate_step(&self, index: u32) {
        let step = &self.steps[index as usize];
        let (Kind::Chain { members } | Kind::Group { members, .. }) = step.kind else {
            return;
        };
        let mut states = Vec::new();
        let mut member = index + 1;
        for number in 0..members {
            let below = &self.steps[member as usize];
            assert_eq!(below.role, Role::Member { parent: index, index: number });
            states.push(&below.state);
            member = below.end;
        }
        assert_eq!(member, step.callbacks, "callbacks lie behind the members");
        let open = states.iter().filter(|s| matches!(s, State::Waiting | State::Running | State::Replaced)).count();
        let running = states.iter().filter(|s| matches!(s, State::Running | State::Replaced)).count();
        match (&step.state, &step.kind) {
            (State::Waiting, _) => assert_eq!(open, states.len(), "nothing of it has started"),
            (State::Skipped, _) => assert_eq!(running, 0, "nothing of it runs"),
            (State::Running, Kind::Group { pending, .. }) => {
                assert_eq!((running, *pending as usize), (open, open), "all members start at once");
            }
            (State::Running, _) => assert_eq!(running, 1, "one step of a chain at a time"),
            _ => assert_eq!(open, 0, "a form ends after its members"),
        }
    }
}

impl Step {
    /// A step without callbacks or members; `close` adds them. `before` is the number of tasks before it.
    pub(super) fn new(kind: Kind, role: Role, input: Option<u32>, options: u32, index: u32, before: u32) -> Step {
        let (callbacks, end) = (index + 1, index + 1);
        Step { kind, role, state: State::Waiting, input, options, callbacks, end, tasks: before }
    }

    /// Ends the subtree: its callbacks start at `callbacks`, it ends before `end`, and `total` tasks are in the plan up
    /// to there.
    pub(super) fn close(&mut self, callbacks: u32, end: u32, total: u32) {
        self.callbacks = callbacks;
        self.end = end;
        self.tasks = total - self.tasks;
    }

    /// The number of members of a form; none for a task.
    pub(super) fn members(&self) -> u32 {
        match self.kind {
            Kind::Task { .. } => 0,
            Kind::Chain { members } | Kind::Group { members, .. } => members,
        }
    }

    fn has_ended(&self) -> bool {
        !matches!(self.state, State::Waiting | State::Running | State::Replaced)
    }
}

pub(super) fn own_error(function: &str, task: u32, cause: Cause, text: String) -> TaskError {
    let function = function.into();
    TaskError { function, task, node: None, attempt: 0, cause, text, members: Vec::new() }
}

/// The argument of an error callback: the map `{task: "tasks.add", error: "…"}`.
fn error_map(error: &TaskError) -> Vec<u8> {
    let mut out = Vec::new();
    put_map_header(&mut out, 2);
    for text in ["task", error.function.as_str(), "error", error.text.as_str()] {
        put_text(&mut out, text);
    }
    out
}
