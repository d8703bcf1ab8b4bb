//! The arena of a canvas and its progress.
//!
//! Owns the state and the result of every step of one job. Each step ends exactly once, and a
//! step that can no longer run is counted as done, so progress always adds up. Never decodes a
//! result, never looks at a clock, never forgets a callback.
//!
//! Steps lie in the order of writing, each followed by its members and then its callbacks:
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
//! so that the next sibling of a step is at its `end`.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use broccoli_proto::cbor::put_array_header;
use broccoli_proto::{Cause, Cbor, Options, Outcome, TaskError};

/// A task of a plan. Also its number in messages: [`TaskError::task`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u32);

/// What the plan wants after a change. The plan only appends; the caller takes and clears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Tasks that may run now, in the order of writing. Each task is named once in its life.
    pub ready: Vec<StepId>,
    /// Why callbacks failed. It does not fail the job, but somebody should be told.
    pub failed_callbacks: Vec<TaskError>,
}

/// How a task is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One call with the arguments.
    Single,
    /// The arguments are a list of argument lists: one call for each, in turn, on one worker. The
    /// result is the list of results; the first failure ends it.
    Bin,
}

/// Everything about a task but its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call<'p> {
    /// What the resolver of `lower` gave for the function.
    pub key: u32,
    /// `module.function`.
    pub name: &'p str,
    /// One call or several.
    pub mode: Mode,
    /// Options with the defaults of the canvases around it filled in.
    pub options: &'p Options,
}

/// How many of the tasks have ended, callbacks included. Tasks that can no longer run count too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that have ended.
    pub done: u32,
    /// All tasks of the canvas.
    pub total: u32,
}

/// The state of one job: which tasks have run, which may run now, and what came out.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Never empty; the first is the root.
    pub(super) steps: Vec<Step>,
    /// The arguments of all tasks as written, one after the other.
    pub(super) args: Vec<u8>,
    /// The first are the defaults.
    pub(super) options: Vec<Options>,
    pub(super) functions: Vec<Target>,
    /// Tasks in `steps`.
    pub(super) total: u32,
    /// Tasks that have ended or never will run.
    done: u32,
    /// Tasks that were announced as ready and have not ended.
    running: u32,
    result_bytes_max: usize,
    /// Changes that are still to be followed; empty between calls.
    work: Vec<Work>,
}

/// A function that tasks of the plan call.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) key: u32,
    pub(super) parameters: u32,
}

/// A node of the canvas tree after lowering.
#[derive(Clone, Debug)]
pub(super) struct Step {
    kind: Kind,
    role: Role,
    state: State,
    /// Whose result or error is prepended to the arguments.
    input: Option<u32>,
    options: u32,
    /// Index of the first callback; `end` if there is none.
    callbacks: u32,
    /// Index after the subtree.
    end: u32,
    /// Tasks in the subtree.
    tasks: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// `args` in `Plan::args`: an array, or only what follows the input.
    Task { mode: Mode, function: u32, args: Range<u32> },
    /// At least one member.
    Chain { members: u32 },
    /// `pending` members have not ended; those that have succeeded hold `bytes`.
    Group { members: u32, pending: u32, bytes: usize },
}

/// What a step is to the step above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Root,
    Member { parent: u32, index: u32 },
    Link,
    OnError,
}

/// ```text
///  Waiting ──► Running ──► Done ──► Joined
///     │           ├──────► Same       ▲
///     │           ├──────► Failed ────┘
///     └───────────┴──────► Skipped
/// ```
#[derive(Clone, Debug)]
enum State {
    /// Not started.
    Waiting,
    /// A task that was announced as ready, or a form of which something is under way.
    Running,
    /// Ended with this result.
    Done(Cbor),
    /// A chain that ended with the result of this step, its last.
    Same(u32),
    /// Ended with this error.
    Failed(Box<TaskError>),
    /// Ended; its result or error has gone into that of its group.
    Joined,
    /// Never ran, or was revoked.
    Skipped,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    Start(u32),
    Ended(u32),
}

impl Plan {
    pub(super) fn new(result_bytes_max: usize) -> Plan {
        Plan {
            steps: Vec::new(),
            args: Vec::new(),
            options: alloc::vec![Options::default()],
            functions: Vec::new(),
            total: 0,
            done: 0,
            running: 0,
            result_bytes_max,
            work: Vec::new(),
        }
    }

    /// Begins. What needs no task ends at once: `group([])` is `[]` before anything has run.
    /// A second call does nothing.
    pub fn start(&mut self, effects: &mut Effects) {
        if matches!(self.steps[0].state, State::Waiting) {
            self.work.push(Work::Start(0));
            self.follow(effects);
        }
    }

    /// Takes the outcome of a task that was announced as ready.
    ///
    /// Returns whether it counts: the first outcome of a task does, everything else is ignored.
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
        self.settle(step.0, state);
        self.follow(effects);
        true
    }

    /// Ends everything that has not ended: the job as revoked if it has no result yet, and its
    /// callbacks. Nothing becomes ready any more; outcomes of running tasks will not count.
    pub fn revoke(&mut self) {
        if self.result().is_none() {
            self.steps[0].state = State::Failed(Box::new(self.revoked()));
        }
        for step in &mut self.steps {
            if !step.has_ended() {
                step.state = State::Skipped;
            }
        }
        self.running = 0;
        self.done = self.total;
    }

    /// What a task calls and how.
    ///
    /// # Panics
    /// If this is not a task of this plan.
    pub fn call(&self, step: StepId) -> Call<'_> {
        let (step, mode, function, _) = self.task(step);
        let Target { name, key, .. } = &self.functions[function as usize];
        Call { key: *key, name, mode, options: &self.options[step.options as usize] }
    }

    /// The options of all its tasks, each different set at least once.
    pub fn options(&self) -> &[Options] {
        &self.options
    }

    /// The arguments of a task that was announced as ready: one CBOR array, in the order and
    /// number of the function's parameters (for [`Mode::Bin`], an array of those).
    ///
    /// # Panics
    /// If this is not a task of this plan, or what it waits for has not ended.
    pub fn args(&self, step: StepId) -> Cow<'_, [u8]> {
        let (step, _, function, args) = self.task(step);
        let own = &self.args[args.start as usize..args.end as usize];
        let Some(input) = step.input else {
            return Cow::Borrowed(own);
        };
        let first = self.input(input);
        let mut out = Vec::with_capacity(first.len() + own.len() + 9);
        put_array_header(&mut out, self.functions[function as usize].parameters as usize);
        out.extend_from_slice(&first);
        out.extend_from_slice(own);
        Cow::Owned(out)
    }

    /// The result or the error of the whole canvas, as soon as it is known.
    pub fn result(&self) -> Option<Result<&Cbor, &TaskError>> {
        self.outcome(StepId(0))
    }

    /// The result or the error of one step, if it has ended. None for a member of a group once
    /// the list of its group is there, and for what never ran.
    pub fn outcome(&self, step: StepId) -> Option<Result<&Cbor, &TaskError>> {
        let mut step = step.0;
        loop {
            match &self.steps.get(step as usize)?.state {
                State::Done(result) => return Some(Ok(result)),
                State::Failed(error) => return Some(Err(error)),
                State::Same(last) => step = *last,
                State::Waiting | State::Running | State::Joined | State::Skipped => return None,
            }
        }
    }

    /// Whether the result is known and all callbacks have ended.
    pub fn is_finished(&self) -> bool {
        self.running == 0 && self.steps[0].has_ended()
    }

    /// The first function that it calls, `module.function`; empty if it calls none.
    pub fn name(&self) -> &str {
        self.functions.first().map_or("", |target| &target.name)
    }

    /// How many tasks have ended.
    pub fn progress(&self) -> Progress {
        Progress { done: self.done, total: self.total }
    }
}

/// Following a change through the tree. A list of work instead of recursion: a chain of many
/// steps that need no task must not need a deep stack.
impl Plan {
    fn follow(&mut self, effects: &mut Effects) {
        // Bounded: each step is started at most once and ends at most once.
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
                effects.ready.push(StepId(index));
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
                // The list of work is a stack: what comes first must lie on top.
                self.work[first..].reverse();
            }
        }
    }

    fn settle(&mut self, step: u32, state: State) {
        self.steps[step as usize].state = state;
        self.work.push(Work::Ended(step));
    }

    fn ended(&mut self, index: u32, effects: &mut Effects) {
        let step = &self.steps[index as usize];
        let (role, has_callbacks) = (step.role, step.callbacks < step.end);
        let failed = matches!(step.state, State::Failed(_));
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
            Role::Root => {}
        }
    }

    /// Starts the callbacks of one kind; the others will never run.
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

    /// `rest` members come after `member`, which has ended.
    fn chain_goes_on(&mut self, chain: u32, member: u32, rest: u32) {
        let step = &self.steps[member as usize];
        let mut next = step.end;
        if let State::Failed(error) = &step.state {
            let error = error.clone();
            for _ in 0..rest {
                self.skip(next);
                next = self.steps[next as usize].end;
            }
            self.settle(chain, State::Failed(error));
        } else if rest == 0 {
            self.settle(chain, State::Same(member));
        } else {
            self.work.push(Work::Start(next));
        }
    }

    fn group_goes_on(&mut self, group: u32, member: u32) {
        let result = self.outcome(StepId(member)).and_then(Result::ok);
        let (succeeded, size) = (result.is_some(), result.map_or(0, |r| r.as_bytes().len()));
        let result_bytes_max = self.result_bytes_max;
        let Kind::Group { pending, bytes, .. } = &mut self.steps[group as usize].kind else {
            unreachable!("only groups get here");
        };
        *pending -= 1;
        *bytes = bytes.saturating_add(size);
        let (complete, too_large) = (*pending == 0, *bytes > result_bytes_max);
        if complete {
            let state = self.join(group);
            self.settle(group, state);
        } else if too_large && succeeded {
            // The list can never be made: do not hold what nobody will get.
            self.release(member);
        }
    }

    /// What a group comes to whose members have all ended.
    fn join(&mut self, group: u32) -> State {
        let Kind::Group { members, bytes, .. } = self.steps[group as usize].kind else {
            unreachable!("only groups are joined");
        };
        let state = match self.first_error(group, members) {
            Some(error) => State::Failed(Box::new(error)),
            None if bytes > self.result_bytes_max => {
                let error = self.list_too_large(group, members, bytes);
                State::Failed(Box::new(error))
            }
            None => State::Done(self.list(group, members, bytes)),
        };
        let mut member = group + 1;
        for _ in 0..members {
            self.release(member);
            member = self.steps[member as usize].end;
        }
        state
    }

    fn first_error(&self, group: u32, members: u32) -> Option<TaskError> {
        let mut member = group + 1;
        for index in 0..members {
            let step = &self.steps[member as usize];
            if let State::Failed(error) = &step.state {
                let mut error = TaskError::clone(error);
                error.members.insert(0, index);
                return Some(error);
            }
            member = step.end;
        }
        None
    }

    fn list(&self, group: u32, members: u32, bytes: usize) -> Cbor {
        let mut out = Vec::with_capacity(bytes + 9);
        put_array_header(&mut out, members as usize);
        let mut member = group + 1;
        for _ in 0..members {
            if let Some(Ok(result)) = self.outcome(StepId(member)) {
                out.extend_from_slice(result.as_bytes());
            }
            member = self.steps[member as usize].end;
        }
        Cbor::from_encoded(out)
    }

    /// Frees the outcome of a member that only its group needed.
    fn release(&mut self, member: u32) {
        let step = &mut self.steps[member as usize];
        let has_callbacks = step.callbacks < step.end;
        if !has_callbacks && matches!(step.state, State::Done(_) | State::Failed(_)) {
            step.state = State::Joined;
        }
    }

    fn skip(&mut self, step: u32) {
        let step = &mut self.steps[step as usize];
        step.state = State::Skipped;
        self.done += step.tasks;
    }

    /// What a step gets from the one before it, or a callback from what it hangs on.
    fn input(&self, step: u32) -> Cow<'_, [u8]> {
        match self.outcome(StepId(step)) {
            Some(Ok(result)) => Cow::Borrowed(result.as_bytes()),
            Some(Err(error)) => Cow::Owned(error_map(error)),
            None => panic!("step {step} has no outcome yet"),
        }
    }

    /// Whether this is a task that was announced as ready and has not ended.
    pub fn is_running_task(&self, step: StepId) -> bool {
        self.steps
            .get(step.0 as usize)
            .is_some_and(|step| matches!((&step.kind, &step.state), (Kind::Task { .. }, State::Running)))
    }

    fn task(&self, id: StepId) -> (&Step, Mode, u32, &Range<u32>) {
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

    fn list_too_large(&self, group: u32, members: u32, bytes: usize) -> TaskError {
        let max = self.result_bytes_max;
        let text = format!("the list of {members} results has {bytes} bytes, the limit is {max}");
        own_error("group", group, Cause::Unfit, text)
    }

    /// Names the first task that has not ended.
    fn revoked(&self) -> TaskError {
        let open = |index: &u32| {
            let step = &self.steps[*index as usize];
            matches!(step.kind, Kind::Task { .. }) && !step.has_ended()
        };
        let first = (0..self.steps.len() as u32).find(open).unwrap_or(0);
        let name = match &self.steps[first as usize].kind {
            Kind::Task { function, .. } => &self.functions[*function as usize].name,
            _ => "group",
        };
        own_error(name, first, Cause::Revoked, "the job was revoked".into())
    }
}

/// Invariants, for tests and the simulator.
impl Plan {
    /// Checks everything that must hold between two calls.
    ///
    /// # Panics
    /// If something does not.
    pub fn validate(&self) {
        assert!(self.work.is_empty(), "work was left undone");
        self.validate_counts();
        let revoked = matches!(self.result(), Some(Err(e)) if e.cause == Cause::Revoked);
        if !revoked {
            (0..self.steps.len() as u32).for_each(|step| self.validate_step(step));
        }
    }

    fn validate_counts(&self) {
        // Tasks under a skipped step stay waiting but count as done.
        let (mut open, mut running, mut tasks, mut index) = (0, 0, 0, 0);
        while let Some(step) = self.steps.get(index) {
            if matches!(step.state, State::Skipped) {
                (tasks, index) = (tasks + step.tasks, step.end as usize);
                continue;
            }
            if matches!(step.kind, Kind::Task { .. }) {
                tasks += 1;
                open += u32::from(!step.has_ended());
                running += u32::from(matches!(step.state, State::Running));
            }
            index += 1;
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
        let open = states.iter().filter(|s| matches!(s, State::Waiting | State::Running)).count();
        let running = states.iter().filter(|s| matches!(s, State::Running)).count();
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
    /// A step without callbacks or members; `close` adds them. `before` tasks come before it.
    pub(super) fn new(kind: Kind, role: Role, input: Option<u32>, options: u32, index: u32, before: u32) -> Step {
        let (callbacks, end) = (index + 1, index + 1);
        Step { kind, role, state: State::Waiting, input, options, callbacks, end, tasks: before }
    }

    /// Ends the subtree: its callbacks begin at `callbacks`, it ends before `end`, and with it
    /// there are `total` tasks.
    pub(super) fn close(&mut self, callbacks: u32, end: u32, total: u32) {
        (self.callbacks, self.end) = (callbacks, end);
        self.tasks = total - self.tasks;
    }

    fn has_ended(&self) -> bool {
        !matches!(self.state, State::Waiting | State::Running)
    }
}

fn own_error(function: &str, task: u32, cause: Cause, text: String) -> TaskError {
    let function = function.into();
    TaskError { function, task, node: None, attempt: 0, cause, text, members: Vec::new() }
}

/// What an errback gets: the map `{task: "tasks.add", error: "…"}`.
fn error_map(error: &TaskError) -> Vec<u8> {
    const MAP_OF_2: u8 = 0xa2;
    let mut out = alloc::vec![MAP_OF_2];
    for text in ["task", error.function.as_str(), "error", error.text.as_str()] {
        out.extend_from_slice(Cbor::encode(&text).as_bytes());
    }
    out
}
