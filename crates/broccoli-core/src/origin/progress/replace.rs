//! Tasks that replace themselves with a canvas. A quarter of the task limit is reserved for such growth.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use broccoli_abi::cbor::is_canvas;
use broccoli_proto::message::{Attempt, Failure};
use broccoli_proto::{Canvas, Cause, Cbor};

use crate::canvas::{Effects, Mode, Room, StepId};
use crate::config::Limits;
use crate::origin::journal::records::{Binding, Change};
use crate::origin::{Around, Origin};
use crate::shared::Shared;

/// The growth of all jobs together is limited to this fraction of the task limit.
const GROWTH_PART: u32 = 4;

/// Most tasks of all jobs, including growth.
pub(crate) fn grown_max(limits: &Limits) -> u32 {
    limits.tasks_max.saturating_add(limits.tasks_max / GROWTH_PART)
}

impl Origin {
    /// The value of an attempt; none if the value is a canvas and has replaced the task.
    pub(crate) fn replace(
        &mut self,
        shared: &Shared,
        around: &Around<'_>,
        attempt: Attempt,
        value: Cbor,
        effects: &mut Effects,
    ) -> Result<Option<Cbor>, Failure> {
        let Some(canvas) = self.replacement(attempt, &value)? else {
            return Ok(Some(value));
        };
        let room = self.room(shared);
        let Some(job) = self.jobs.get_mut(&attempt.job) else {
            return Ok(Some(value));
        };
        let before = job.plan.progress().total;
        let (functions, mut bindings) = (&mut self.functions, Vec::new());
        let find = |name: &str| {
            let found = around.modules.resolve(around.members, shared.config.holds_code, name)?;
            let (asked, full, function) = (name.into(), found.full_name(), found.function.clone());
            bindings.push(Binding { asked, full, module: found.module, function });
            Ok(functions.bind(name, found.module, found.function, || found.full_name()))
        };
        job.replace(attempt.step, &canvas, find, room, effects).map_err(|error| refused(&error.to_string()))?;
        self.tasks += job.plan.progress().total - before;
        self.memory.recount(attempt.job, job);
        self.journal.change(attempt.job, || Change::Replaced { step: attempt.step, result: value, bindings });
        Ok(None)
    }

    fn replacement(&self, attempt: Attempt, value: &Cbor) -> Result<Option<Canvas>, Failure> {
        let job = self.jobs.get(&attempt.job);
        if job.is_some_and(|job| job.plan.call(StepId(attempt.step)).mode == Mode::Bin) {
            let found = value.elements().is_some_and(|elements| elements.into_iter().any(is_canvas));
            return if found { Err(refused("it is one call of a bin; use starmap")) } else { Ok(None) };
        }
        Canvas::replacement(value).transpose().map_err(|error| refused(&error.to_string()))
    }

    pub(crate) fn room<'l>(&self, shared: &'l Shared) -> Room<'l> {
        let limits = &shared.config.limits;
        let tasks = grown_max(limits).saturating_sub(self.tasks);
        Room { limits: &limits.canvas, tasks: tasks.min(self.free_steps(shared)) }
    }
}

fn refused(reason: &str) -> Failure {
    Failure::new(Cause::Unfit, format!("it cannot be replaced: {reason}"))
}
