//! Checks and views of the node, for tests and the simulator.

use alloc::vec::Vec;

use broccoli_proto::message::Attempt;
use broccoli_proto::{ContentId, NodeId};

use super::Node;
use crate::audit::{Known, Size, TaskState, TaskView};
use crate::content::values::pulls::Large;
use crate::io::RunId;
use crate::timers::Timer;

impl Node {
    /// Shows the state and attempt of each task that was ever ready, in order of job and step.
    pub fn audit_tasks(&self, see: &mut dyn FnMut(u64, u32, TaskState, u32)) {
        self.origin.audit_tasks(see);
    }

    /// One task; none if it is not known or was never ready.
    pub fn audit_task(&self, job: u64, step: u32) -> Option<TaskView<'_>> {
        self.origin.audit_task(job, step)
    }

    /// Shows the jobs held, with their outcomes if known.
    pub fn audit_jobs(&self, see: &mut dyn FnMut(u64, Known<'_>)) {
        self.origin.audit_jobs(see);
    }

    /// The origin and attempt of a run.
    pub fn attempt_of(&self, run: RunId) -> Option<(NodeId, Attempt)> {
        self.worker.attempt_of(run)
    }

    /// Shows the large values that this node pulls, from which node and for what.
    pub fn audit_pulls(&self, see: &mut dyn FnMut(NodeId, ContentId, Large)) {
        self.shared.values.pulls.audit(see);
    }

    /// The challenge that a packet for this node must repeat now to be accepted; none before the first packet.
    pub fn audit_challenge(&self) -> Option<u64> {
        self.shared.sessions.audit_challenge()
    }

    /// Whether this origin knows another one, live or not, that may hold a job with a key.
    pub fn audit_has_met(&self, node: NodeId) -> bool {
        self.origin.audit_has_met(node)
    }

    /// The size and limit of each collection that other nodes can fill.
    pub fn sizes(&self) -> Vec<Size> {
        let mut sizes = Vec::new();
        let mut see = |name, len, max| sizes.push(Size { name, len, max });
        self.shared.sizes(&mut see);
        self.origin.sizes(&self.shared, &mut see);
        self.worker.sizes(&self.shared.config.limits, &mut see);
        self.client.sizes(&self.shared.config.limits, &mut see);
        self.serving.sizes(&mut see);
        self.modules.sizes(&self.shared.config.limits, &mut see);
        self.members.sizes(&self.shared.config.limits, &mut see);
        sizes
    }
}

/// Invariants.
impl Node {
    /// Checks what must hold after the shell has drained the node.
    ///
    /// # Panics
    /// If an invariant is violated.
    pub fn validate(&self) {
        self.origin.validate(&self.shared);
        self.worker.validate(&self.shared);
        self.client.validate(&self.shared);
        self.modules.validate(&self.shared);
        self.shared.values.validate(&self.shared.timers);
        self.serving.validate();
        self.shared.outbox.validate();
        for node in self.shared.sessions.knocked() {
            assert!(self.shared.timers.is_set(Timer::Knock(node)), "{node} is knocked at again");
        }
    }

    /// Checks that the node is idle: no job, lease, run, result or pull, and no timers but those of presence.
    ///
    /// # Panics
    /// If it is not idle.
    pub fn validate_idle(&self) {
        self.validate();
        self.origin.validate_idle();
        self.worker.validate_idle();
        self.shared.values.validate_idle();
        let presence = |timer: &Timer| matches!(timer, Timer::Claim | Timer::Members | Timer::Forget);
        let timers: Vec<Timer> = self.shared.timers.iter().filter(|timer| !presence(timer)).collect();
        assert!(timers.is_empty(), "an idle node waits for nothing, but {timers:?}");
    }
}
