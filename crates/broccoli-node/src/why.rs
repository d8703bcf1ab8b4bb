//! What the tasks of a job wait for.

use std::fmt;
use std::time::Duration;

use broccoli_proto::message::{WaitingTasks, Waits};
use broccoli_proto::{JobId, NodeId};

use crate::job::Place;

/// What the tasks of a job wait for: the answer of [`crate::Job::why`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Why {
    /// The job.
    pub job: JobId,
    /// Its tasks that have not ended, grouped by what they wait for, at most 32 groups. First the tasks that run or
    /// wait for a node or a time, then those that wait for other steps. Empty if all have ended. Callbacks that may
    /// never run are left out.
    pub groups: Vec<WaitingGroup>,
}

/// Tasks of a job that wait for the same thing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitingGroup {
    /// Number of tasks.
    pub tasks: u32,
    /// Path of the first of them: indices of members, from the job down, as in [`crate::Job::path`].
    pub path: Vec<u32>,
    /// Their function, `module.function`. `None` if the origin does not report it.
    pub function: Option<String>,
    /// What they wait for.
    pub reason: Reason,
}

/// What a task waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing: it runs.
    Runs {
        /// The node that runs it.
        node: NodeId,
    },
    /// No live node can run it.
    NoNode {
        /// Requirements that no live node meets: parts of its routing, or the module. Empty if each requirement is met,
        /// but not all by one node.
        missing: Vec<String>,
        /// Number of live nodes with slots.
        nodes: u32,
    },
    /// The only node that it may run on is offline.
    NodeOffline {
        /// The node.
        node: NodeId,
    },
    /// The nodes that could run it have no free slot now.
    Slots {
        /// Number of waiting tasks at its origin, of all jobs.
        waiting: u32,
    },
    /// The nodes that have tried it were too small. It waits for a larger one.
    LargerNode,
    /// It waits for the nodes that must run it, or its origin does not know all nodes yet.
    Nodes,
    /// The rate limit of its function allows no more starts now.
    Rate,
    /// It waits for a time: a countdown, an eta, or the pause before it is tried again.
    Until {
        /// Remaining time. `None` if its origin does not know the time of day.
        left: Option<Duration>,
        /// Whether it has failed before.
        again: bool,
    },
    /// It waits for the steps before it.
    Before,
    /// Its origin has no memory for more results of its job now.
    Memory,
    /// The nodes that it may run on are still fetching its module.
    Module,
    /// It was leased to a node, which has not started it yet.
    Arrival {
        /// The node.
        node: NodeId,
        /// Whether its arguments are too large for the lease, so that the node fetches them.
        pulled: bool,
    },
    /// It has run, and its result has not arrived yet.
    Result {
        /// The node that ran it.
        node: NodeId,
    },
    /// Its origin leases no tasks now: its journal is behind, or it has just restarted and asks other nodes what they
    /// run.
    Origin,
    /// A reason that this version does not know, or none.
    Unknown,
}

impl WaitingGroup {
    pub(crate) fn new(told: WaitingTasks) -> WaitingGroup {
        let WaitingTasks { tasks, path, waits } = told;
        let (function, reason) = waits.map_or((None, Reason::Unknown), Reason::of);
        WaitingGroup { tasks, path, function, reason }
    }
}

/// The reason in a job's summary, as a group of one task.
impl From<Waits> for WaitingGroup {
    fn from(waits: Waits) -> WaitingGroup {
        WaitingGroup::new(WaitingTasks { tasks: 1, path: Vec::new(), waits: Some(waits) })
    }
}

impl Reason {
    /// Splits a reason into the function and what it waits for.
    fn of(waits: Waits) -> (Option<String>, Reason) {
        let (function, reason) = match waits {
            Waits::NoNode { function, missing, nodes } => (function, Reason::NoNode { missing, nodes }),
            Waits::Rate { function } => (function, Reason::Rate),
            Waits::Until { function, ms, again } => {
                (function, Reason::Until { left: ms.map(Duration::from_millis), again })
            }
            Waits::Slots { function, waiting } => (function, Reason::Slots { waiting }),
            Waits::Larger { function } => (function, Reason::LargerNode),
            Waits::Nodes => return (None, Reason::Nodes),
            Waits::Before { function } => (function, Reason::Before),
            Waits::Offline { function, node } => (function, Reason::NodeOffline { node }),
            Waits::Memory { function } => (function, Reason::Memory),
            Waits::Module { function } => (function, Reason::Module),
            Waits::Arrival { function, node, pulled } => (function, Reason::Arrival { node, pulled }),
            Waits::Result { function, node } => (function, Reason::Result { node }),
            Waits::Origin { function } => (function, Reason::Origin),
            Waits::Runs { function, node } => (function, Reason::Runs { node }),
        };
        (Some(function), reason)
    }
}

/// As the end of a sentence about a function: `tasks.add` … `waits for its rate limit`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Runs { node } => write!(f, "runs on {node}"),
            Reason::NoNode { missing, nodes } => no_node(f, missing, *nodes),
            Reason::NodeOffline { node } => write!(f, "waits for {node}, which is offline"),
            Reason::Slots { waiting } => write!(f, "waits for a free slot ({} in the queue)", Count(*waiting, "task")),
            Reason::LargerNode => f.write_str("waits for a node that is large enough"),
            Reason::Nodes => f.write_str("waits for the nodes that it runs on"),
            Reason::Rate => f.write_str("waits for its rate limit"),
            Reason::Until { left: Some(left), again: false } => write!(f, "waits another {}", Span(*left)),
            Reason::Until { left: Some(left), again: true } => write!(f, "failed and is retried in {}", Span(*left)),
            Reason::Until { left: None, .. } => {
                f.write_str("waits for a time of day, but its node does not know the time")
            }
            Reason::Before => f.write_str("waits for the steps before it"),
            Reason::Memory => f.write_str("waits for memory for the results of the job"),
            Reason::Module => f.write_str("waits: its module is on its way to the nodes"),
            Reason::Arrival { node, pulled: false } => {
                write!(f, "is on its way to {node}, or waits for its turn there")
            }
            Reason::Arrival { node, pulled: true } => write!(f, "waits: its arguments are on their way to {node}"),
            Reason::Result { node } => write!(f, "has run: its result is on its way from {node}"),
            Reason::Origin => f.write_str("waits: its node has just restarted, or its disk is slow"),
            Reason::Unknown => f.write_str("waits for a reason that this version does not know"),
        }
    }
}

/// `2 tasks of tasks.add at [1]: waits for its rate limit`.
impl fmt::Display for WaitingGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.function, self.tasks) {
            (Some(function), 1) => write!(f, "{function}")?,
            (Some(function), tasks) => write!(f, "{function}, {tasks} tasks")?,
            (None, tasks) => write!(f, "{}", Count(tasks, "task"))?,
        }
        if !self.path.is_empty() {
            write!(f, " at {}", Place(&self.path))?;
        }
        write!(f, ": {}", self.reason)
    }
}

fn no_node(f: &mut fmt::Formatter<'_>, missing: &[String], nodes: u32) -> fmt::Result {
    let named = |one: &String| if one.contains('=') { format!("the label {one}") } else { one.clone() };
    let missing: Vec<String> = missing.iter().map(named).collect();
    let nodes = Count(nodes, "node");
    match missing.as_slice() {
        [] => write!(f, "waits: no live node can run it ({nodes})"),
        missing => write!(f, "waits: no live node has {} ({nodes})", missing.join(" and ")),
    }
}

/// `1 node`, `3 nodes`.
struct Count(u32, &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, noun) = self;
        write!(f, "{number} {noun}{}", if *number == 1 { "" } else { "s" })
    }
}

/// `340ms`, `42s`, `7m`, `3h`, `12d`.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0..1_000 => write!(f, "{ms}ms"),
            1_000..60_000 => write!(f, "{}s", ms / 1_000),
            60_000..3_600_000 => write!(f, "{}m", ms / 60_000),
            3_600_000..86_400_000 => write!(f, "{}h", ms / 3_600_000),
            _ => write!(f, "{}d", ms / 86_400_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let spans = [999, 59_000, 120_000, 7_200_000, 90_000_000].map(|ms| Span(Duration::from_millis(ms)).to_string());
        assert_eq!(spans, ["999ms", "59s", "2m", "2h", "1d"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = |missing: &[&str]| {
            Reason::NoNode { missing: missing.iter().map(|one| (*one).to_owned()).collect(), nodes: 3 }.to_string()
        };
        assert_eq!(text(&["room=kitchn"]), "waits: no live node has the label room=kitchn (3 nodes)");
        assert_eq!(text(&["room=attic", "led"]), "waits: no live node has the label room=attic and led (3 nodes)");
        assert_eq!(text(&[]), "waits: no live node can run it (3 nodes)");
    }

    #[test]
    fn a_group_is_one_line() {
        let group = |tasks, path: &[u32], function: Option<&str>| {
            let function = function.map(str::to_owned);
            WaitingGroup { tasks, path: path.to_vec(), function, reason: Reason::Rate }.to_string()
        };
        assert_eq!(group(1, &[], Some("tasks.add")), "tasks.add: waits for its rate limit");
        assert_eq!(group(3, &[1, 0], Some("tasks.add")), "tasks.add, 3 tasks at [1][0]: waits for its rate limit");
        assert_eq!(group(2, &[0], None), "2 tasks at [0]: waits for its rate limit");
    }
}
