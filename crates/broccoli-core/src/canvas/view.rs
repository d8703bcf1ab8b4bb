//! The view of a plan's steps: their members, states and outcomes.

#[cfg(feature = "explain")]
use alloc::vec::Vec;

use broccoli_abi::cbor::{Head, Reader};
use broccoli_proto::message::StepState;
use broccoli_proto::{Cbor, Outcome, TaskError};

#[cfg(feature = "explain")]
use super::plan::Role;
use super::plan::{Kind, Plan, State, StepId};

/// A step of a plan that was looked up.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundStep<'p> {
    /// Its number.
    pub step: StepId,
    /// `module.function`, or the form: `chain` or `group`. A chord is a chain of its header, which is a group, and its
    /// body.
    pub name: &'p str,
    /// Its state.
    pub state: StepState,
    /// Number of members: of a form, of the form that replaced a task, or the runs of a task on each node.
    pub members: u32,
    /// Its result or error. None if it has not ended or never ran, and for members of a failed group whose outcome was
    /// not needed.
    pub outcome: Option<Outcome>,
}

impl Plan {
    /// The step at this path, which is a list of member indices, from the root down. None if there is none.
    pub fn step_at(&self, path: &[u32]) -> Option<FoundStep<'_>> {
        let (mut step, mut is_skipped) = (0, false);
        let mut outcome = self.kept(step);
        for index in path {
            is_skipped |= matches!(self.steps[step as usize].state, State::Skipped);
            let form = self.form(step);
            let member = self.members(form).nth(*index as usize)?;
            let joined = matches!(self.steps[member as usize].state, State::Joined { .. });
            outcome = if joined { self.taken_out(form, *index, member, outcome) } else { self.kept(member) };
            step = member;
        }
        let state = if is_skipped { StepState::Skipped } else { self.state(step) };
        let members = self.steps[self.form(step) as usize].members();
        let outcome = outcome.map(|outcome| outcome.map(|bytes| Cbor::from_encoded(bytes.into())));
        Some(FoundStep { step: StepId(step), name: self.step_name(step), state, members, outcome })
    }

    /// Tasks that have not begun because others come before them. Callbacks are not among them: whether they run is open.
    #[cfg(feature = "explain")]
    pub(crate) fn tasks_to_come(&self) -> impl Iterator<Item = StepId> {
        let mut next = 0;
        core::iter::from_fn(move || {
            while let Some(step) = self.steps.get(next as usize) {
                let at = next;
                let is_callback = matches!(step.role, Role::Link | Role::OnError);
                let waits = matches!(step.state, State::Waiting);
                next = if is_callback && waits { step.end } else { next + 1 };
                if waits && !is_callback && matches!(step.kind, Kind::Task { .. }) {
                    return Some(StepId(at));
                }
            }
            None
        })
    }

    /// Where a step is: indices of members from the root down. Of a callback, the place of what it belongs to.
    #[cfg(feature = "explain")]
    pub(crate) fn path_of(&self, StepId(mut step): StepId) -> Vec<u32> {
        let mut path = Vec::new();
        // Bounded: each of these lies further up.
        loop {
            match self.steps[step as usize].role {
                Role::Root => break,
                Role::Member { parent, index } => {
                    path.push(index);
                    step = parent;
                }
                Role::StandIn { of } => step = of,
                Role::Link | Role::OnError => {
                    path.clear();
                    let belongs = |owner: &u32| self.callbacks_of(*owner).contains(&step);
                    let Some(owner) = (0..step).rev().find(belongs) else { break };
                    step = owner;
                }
            }
        }
        path.reverse();
        path
    }

    fn kept(&self, step: u32) -> Option<Result<&[u8], TaskError>> {
        Some(self.outcome(StepId(step))?.map(Cbor::as_bytes).map_err(TaskError::clone))
    }

    /// A step, or the step that stands in for it.
    fn form(&self, mut step: u32) -> u32 {
        // Bounded: a stand-in comes after the step that it stands in for.
        while let Some(root) = self.stand_ins.get(&step) {
            step = *root;
        }
        step
    }

    fn state(&self, step: u32) -> StepState {
        match &self.steps[step as usize].state {
            State::Waiting => StepState::Waiting,
            State::Running | State::Replaced => StepState::Running,
            State::Done(_) | State::Joined { failed: false } => StepState::Succeeded,
            State::Failed(_) | State::Joined { failed: true } => StepState::Failed,
            State::Same(source) => self.state(*source),
            State::Skipped => StepState::Skipped,
        }
    }

    /// The outcome of a member that was moved to its group.
    fn taken_out<'p>(
        &self,
        group: u32,
        index: u32,
        member: u32,
        whole: Option<Result<&'p [u8], TaskError>>,
    ) -> Option<Result<&'p [u8], TaskError>> {
        let named = matches!(self.steps[group as usize].kind, Kind::Group { named: true, .. });
        match whole? {
            Ok(map) if named => entry(map, self.node(member)?).map(Ok),
            Ok(list) => element(list, index).map(Ok),
            Err(mut error) if !named && error.members.first() == Some(&index) => {
                error.members.remove(0);
                Some(Err(error))
            }
            Err(_) => None,
        }
    }
}

fn element(list: &[u8], index: u32) -> Option<&[u8]> {
    let mut reader = Reader::new(list);
    match reader.head() {
        Ok(Head::Array(len)) if u64::from(index) < len => (0..=index).map_while(|_| reader.item().ok()).last(),
        _ => None,
    }
}

fn entry<'m>(map: &'m [u8], key: &str) -> Option<&'m [u8]> {
    let mut reader = Reader::new(map);
    let Ok(Head::Map(len)) = reader.head() else {
        return None;
    };
    for _ in 0..len {
        let is_it = reader.head().ok()? == Head::Text(key);
        let value = reader.item().ok()?;
        if is_it {
            return Some(value);
        }
    }
    None
}
