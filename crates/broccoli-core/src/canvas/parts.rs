//! Steps that are added to a running plan: the canvas that replaces a task, and the runs of a task on each node.
//!
//! Both are appended at the end of the arena, under their own root, which stands in for the task: when the root ends,
//! the task has its outcome. Earlier steps are not moved, so they keep their numbers, and the same calls in the same
//! order always give the same numbers.
//!
//! ```text
//!  chain(a, b), a replaced by group(c, d)        role of group(c, d): StandIn { of: 1 }
//!  index   0      1   2   3      4   5           a: Replaced, then Same(3)
//!          chain  a   b   group  c   d
//! ```

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use broccoli_proto::{Canvas, Cause, Cbor, NodeId, Options};

use super::limits::Room;
use super::lower::{self, CanvasError};
use super::pin::{PIN, pinned_to};
use super::plan::{Effects, Kind, Mode, Plan, Role, State, Step, StepId, Target, Work, own_error};
use crate::text;

impl Plan {
    /// Replaces a running task by a canvas. The outcome of the task is that of the canvas. The canvas gets nothing from
    /// the parent of the task. Of the task's options it inherits only the priority.
    ///
    /// Functions that the plan knows keep their version. `resolve` is called for the others. If the task does not run,
    /// nothing happens.
    ///
    /// # Errors
    /// The first error in the canvas. Then nothing has changed.
    pub fn replace<R, T>(
        &mut self,
        task: StepId,
        canvas: &Canvas,
        resolve: R,
        room: Room<'_>,
        effects: &mut Effects,
    ) -> Result<(), CanvasError>
    where
        R: FnMut(&str) -> Result<T, String>,
        T: Into<Target>,
    {
        if !self.is_running_task(task) {
            return Ok(());
        }
        let priority = self.call(task).options.priority;
        let options = self.intern_options(Options { priority, ..Options::default() });
        let root = lower::append(self, task.0, canvas, options, resolve, room)?;
        self.done += 1;
        self.ran += 1;
        self.stand_in(task.0, root, effects);
        Ok(())
    }

    /// Runs a task of [`Effects::each`] once on each of these nodes. Its outcome is the map node → result. If a run
    /// fails, it is the error of the first such node in the order of names; with the option `partial`, nodes whose runs
    /// fail are left out instead. Without nodes, the task fails; with `partial`, its result is `{}`.
    ///
    /// If the task does not wait for its nodes, nothing happens.
    pub fn run_on_each(&mut self, task: StepId, nodes: &[NodeId], room: Room<'_>, effects: &mut Effects) {
        if !self.is_running_task(task) || self.call(task).options.each != Some(true) {
            return;
        }
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes.dedup();
        match self.refuse_each(task, nodes.len(), room) {
            Some(error) => {
                let error = own_error(self.step_name(task.0), task.0, Cause::Unfit, error);
                self.complete(task, Err(error), effects);
            }
            None if nodes.is_empty() => {
                self.complete(task, Ok(Cbor::empty_map()), effects);
            }
            None => {
                let root = self.append_runs(task, &nodes);
                // From now on the runs are counted instead of the task.
                self.total -= 1;
                self.stand_in(task.0, root, effects);
            }
        }
    }

    /// The node of a step that is one run of a task with `each`.
    pub(super) fn node(&self, step: u32) -> Option<&str> {
        pinned_to(&self.options_at(self.steps[step as usize].options).on)
    }

    /// Most bytes of the key of a member in the map of its group.
    pub(super) fn key_bytes(&self, member: u32) -> usize {
        const HEAD_BYTES: usize = 2;
        self.node(member).map_or(0, |name| name.len() + HEAD_BYTES)
    }

    fn refuse_each(&self, task: StepId, nodes: usize, room: Room<'_>) -> Option<String> {
        let call = self.call(task);
        if nodes == 0 && call.options.partial != Some(true) {
            let names: Vec<_> = call.options.on.iter().map(|on| text::name(on)).collect();
            let on = if names.is_empty() { "any" } else { &names.join(" ") };
            return Some(format!("no live node runs it (on: {on}); each needs one, or partial=True"));
        }
        let steps_max = room.limits.steps_max;
        if nodes > room.tasks as usize {
            return Some(CanvasError::NoRoom.to_string());
        }
        let too_many = self.steps.len() + nodes >= steps_max as usize;
        too_many.then(|| CanvasError::TooManySteps { steps_max }.to_string())
    }

    fn append_runs(&mut self, task: StepId, nodes: &[NodeId]) -> u32 {
        let members = nodes.len() as u32;
        let (step, _, function, args) = self.task(task);
        let (input, options, args) = (step.input, step.options, args.clone());
        let kind = Kind::Group { members, pending: members, bytes: 0, named: true };
        let root = self.append(kind, Role::StandIn { of: task.0 }, None, options);
        for (index, node) in (0..).zip(nodes) {
            let kind = Kind::Task { mode: Mode::Single, function, args: args.clone() };
            let pinned = self.pinned(options, *node);
            let run = self.append(kind, Role::Member { parent: root, index }, input, pinned);
            self.total += 1;
            self.close(run);
        }
        self.close(root);
        root
    }

    fn append(&mut self, kind: Kind, role: Role, input: Option<u32>, options: u32) -> u32 {
        // `refuse_each` has counted the runs.
        let index = self.steps.len() as u32;
        self.steps.push(Step::new(kind, role, input, options, index, self.total));
        index
    }

    fn close(&mut self, step: u32) {
        let (end, total) = (self.steps.len() as u32, self.total);
        self.steps[step as usize].close(end, end, total);
    }

    /// The options of a task's run on one node.
    fn pinned(&mut self, options: u32, node: NodeId) -> u32 {
        if let Some(known) = self.pins.get(&(options, node)) {
            return *known;
        }
        let on = alloc::vec![format!("{PIN}{node}")];
        let index = self.push_options(Options { on, each: None, partial: None, ..self.options_at(options).clone() });
        self.pins.insert((options, node), index);
        index
    }

    fn stand_in(&mut self, task: u32, root: u32, effects: &mut Effects) {
        self.running -= 1;
        self.steps[task as usize].state = State::Replaced;
        self.stand_ins.insert(task, root);
        self.work.push(Work::Start(root));
        self.advance(effects);
    }
}
