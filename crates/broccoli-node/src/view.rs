//! The public view of a cluster: nodes, modules, functions, jobs and steps.
//!
//! The types of the state machine and of the messages follow the protocol. The types here follow the public API. They
//! are converted only in this file. They are copies, which do not change with the cluster.

use std::time::Duration;

use broccoli_abi::builtin::is_builtin;
use broccoli_abi::{Function, Functions};
use broccoli_core::{Member, Node};
use broccoli_proto::message::{Birth, JobState, JobSummary, MemberSummary, StepState, Vitals, Waits};
use broccoli_proto::{JobId, NodeId, Outcome, message};

/// What a node knows of its cluster at one moment. Made by [`crate::NodeHandle::view`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClusterView {
    /// The node that has this view.
    pub name: NodeId,
    /// The node that takes its jobs, once one was found.
    pub origin: Option<NodeId>,
    /// The load of the node itself.
    pub load: Load,
    /// All nodes that it knows, including itself and clients, by name.
    pub nodes: Vec<NodeView>,
    /// The newest usable version of each module, by name. A module without functions was removed.
    pub modules: Vec<ModuleView>,
}

/// Whether a node is online.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeState {
    /// It is online.
    Live,
    /// It is online, takes nothing new, and leaves when its work is done.
    Draining,
    /// It should be online, but has not answered.
    Silent,
    /// It has said goodbye.
    Left,
    /// It is offline and has not said goodbye.
    Gone,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NodeView {
    /// Its name.
    pub name: NodeId,
    /// Whether it is online.
    pub state: NodeState,
    /// Whether it neither runs tasks nor takes jobs: a command, or a program that only submits.
    pub is_client: bool,
    /// Its own description. `None` if it is not known any more.
    pub about: Option<About>,
    /// Its load. `None` if it was not asked, or has not answered.
    pub load: Option<Load>,
    /// Time since its last packet. `None` if unknown.
    pub last_seen: Option<Duration>,
}

/// A node's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct About {
    /// How many tasks it runs at the same time; 0 for none.
    pub slots: u16,
    /// Whether it takes jobs of other nodes.
    pub is_resident: bool,
    /// Whether it keeps a journal, so that its jobs survive a restart.
    pub is_durable: bool,
    /// Labels (`room=kitchen`) and capabilities (`led`).
    pub labels: Vec<String>,
    /// Version of its software.
    pub version: String,
    /// Whether its set of modules is known.
    pub is_settled: bool,
}

/// The load of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Load {
    /// How many tasks it can run at the same time.
    pub slots: u16,
    /// Running tasks.
    pub running: u32,
    /// Tasks that it holds and that wait for a slot.
    pub queued: u32,
    /// Jobs that it holds as their origin and that have not ended.
    pub jobs: u32,
    /// Tasks of these jobs that wait for a node.
    pub waiting: u32,
    /// Tasks that it has run since its start.
    pub tasks_run: u64,
    /// Time since its start, in whole milliseconds.
    pub uptime: Duration,
    /// Name and version of each module that it holds, without native modules.
    pub modules: Vec<(String, u64)>,
    /// Whether it takes nothing new, and leaves when its work is done.
    pub is_draining: bool,
    /// What it waits for before it leaves, if it is draining and reports it.
    pub leaving: Option<Leaving>,
}

/// What a draining node waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leaving {
    /// Functions of its running tasks; the first 8.
    pub functions: Vec<String>,
    /// Jobs that only this node holds, in memory; the first 8.
    pub jobs: Vec<JobView>,
    /// Whether it no longer waits: it hands back its running tasks, and these jobs are lost.
    pub gives_up: bool,
}

/// A module.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModuleView {
    /// Its name: the part of its functions' names before the dot.
    pub name: String,
    /// Time of its deployment in Unix milliseconds; 0 for native functions.
    pub version: u64,
    /// Its functions, in the order of the module.
    pub functions: Functions,
}

/// A function that can be called.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FunctionView {
    /// `module.function`.
    pub name: String,
    /// Its arguments, result and documentation. Displays as a signature: `add(x: i64, y: i64) -> i64`.
    pub description: Function,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Whether it waits, runs or has ended.
    pub state: JobState,
    /// The name of its first function, at most 64 bytes.
    pub name: String,
    /// Number of tasks that have ended …
    pub done: u32,
    /// … and number of all tasks that are known so far.
    pub total: u32,
    /// When it was accepted, in Unix milliseconds. `None` if its origin did not know the time of day.
    pub submitted_unix_ms: Option<u64>,
    /// When it ended, in Unix milliseconds.
    pub ended_unix_ms: Option<u64>,
    /// Its idempotency key.
    pub key: Option<String>,
    /// Why none of its tasks runs, if it has not ended.
    pub waits: Option<Waits>,
}

/// A step of a job that has not ended: a task, or a form with members. Made by [`crate::Job::step`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StepView {
    /// Its job.
    pub job: JobId,
    /// Indices of members, from the job down to the step; empty for the whole job.
    pub path: Vec<u32>,
    /// `module.function` for a task, the form (`chain`, `group`) otherwise.
    pub name: String,
    /// Its state.
    pub state: StepState,
    /// Number of its members; 0 for a task that was not replaced.
    pub members: u32,
    /// Its outcome, if it has ended and the origin still keeps it.
    pub outcome: Option<Outcome>,
}

impl ClusterView {
    /// The current view of a node.
    pub(crate) fn of(node: &Node, me: NodeId) -> ClusterView {
        let modules = node.functions().into_iter();
        let module = |(name, (version, functions)): (&str, (u64, &Functions))| ModuleView {
            name: name.into(),
            version,
            functions: functions.clone(),
        };
        ClusterView {
            name: me,
            origin: node.home(),
            load: Load::of(me, node.vitals()),
            nodes: node.members().map(|(name, member)| NodeView::known(node, name, member)).collect(),
            modules: modules.map(module).collect(),
        }
    }

    /// Finds a node by its name.
    pub fn node(&self, name: NodeId) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Whether a node is known and online.
    pub fn is_online(&self, name: NodeId) -> bool {
        self.node(name).is_some_and(NodeView::is_online)
    }

    /// Finds a module by its name. `None` if it does not exist or was removed.
    pub fn module(&self, name: &str) -> Option<&ModuleView> {
        self.modules.iter().find(|module| module.name == name && !module.functions.is_empty())
    }

    /// All functions, by module.
    pub fn functions(&self) -> impl Iterator<Item = (&ModuleView, &Function)> {
        self.modules.iter().flat_map(|module| module.functions.iter().map(move |function| (module, function)))
    }
}

impl NodeView {
    /// What a node knows of another one, without asking it.
    fn known(node: &Node, name: NodeId, member: &Member) -> NodeView {
        let state = match member {
            Member { alive: true, birth, .. } if birth.draining == Some(true) => NodeState::Draining,
            Member { alive: true, .. } => NodeState::Live,
            Member { left: true, .. } => NodeState::Left,
            _ => NodeState::Gone,
        };
        NodeView {
            name,
            state,
            is_client: !About::is_node(&member.birth),
            about: Some(About::of(&member.birth, node.knows_modules_of(member))),
            load: None,
            last_seen: None,
        }
    }

    /// A view of a node from what others report: the node's own description, if it is still known; its answer about its
    /// load; and its entry in the member list of another node.
    pub(crate) fn told(
        name: NodeId,
        known: Option<NodeView>,
        vitals: Option<Vitals>,
        listed: Option<&MemberSummary>,
    ) -> NodeView {
        let is_node = match &known {
            Some(known) => !known.is_client,
            None => vitals.is_some(),
        };
        let is_client = !is_node && listed.is_none_or(|listed| listed.client);
        // The description of a client is of no use to people.
        let (known, vitals) = match known {
            Some(known) if known.is_client => (None, None),
            known => (known, vitals),
        };
        let state = match (&vitals, listed) {
            (Some(vitals), _) if vitals.draining == Some(true) => NodeState::Draining,
            (Some(_), _) => NodeState::Live,
            (None, Some(listed)) if listed.left => NodeState::Left,
            (None, Some(listed)) if !listed.alive => NodeState::Gone,
            (None, _) => NodeState::Silent,
        };
        let last_seen = match &vitals {
            Some(_) => Some(Duration::ZERO),
            None => listed.map(|listed| Duration::from_millis(listed.heard_ms)),
        };
        let about = known.and_then(|known| known.about);
        NodeView { name, state, is_client, about, load: vitals.map(|vitals| Load::of(name, vitals)), last_seen }
    }

    /// Whether it is online, as far as known.
    pub fn is_online(&self) -> bool {
        matches!(self.state, NodeState::Live | NodeState::Draining)
    }
}

impl About {
    /// Whether this is not a client.
    fn is_node(birth: &Birth) -> bool {
        birth.slots > 0 || birth.resident || birth.draining == Some(true)
    }

    fn of(birth: &Birth, is_settled: bool) -> About {
        About {
            slots: birth.slots,
            is_resident: birth.resident,
            is_durable: birth.durable == Some(true),
            labels: birth.features.clone(),
            version: birth.version.clone(),
            is_settled,
        }
    }
}

impl Load {
    /// The load that a node reports.
    pub fn of(node: NodeId, vitals: Vitals) -> Load {
        Load {
            slots: vitals.slots,
            running: vitals.running,
            queued: vitals.queued,
            jobs: vitals.jobs,
            waiting: vitals.ready,
            tasks_run: vitals.tasks_run,
            uptime: Duration::from_millis(vitals.uptime_ms),
            modules: vitals.modules.into_iter().map(|module| (module.name, module.version)).collect(),
            is_draining: vitals.draining == Some(true),
            leaving: vitals.leaving.map(|leaving| Leaving::of(node, *leaving)),
        }
    }
}

impl Leaving {
    fn of(node: NodeId, leaving: message::Leaving) -> Leaving {
        Leaving {
            functions: leaving.tasks,
            jobs: leaving.jobs.into_iter().map(|job| JobView::of(node, job)).collect(),
            gives_up: leaving.gives_up == Some(true),
        }
    }
}

impl ModuleView {
    /// Whether every node with slots has this module: `sys`, `board`.
    pub fn is_builtin(&self) -> bool {
        is_builtin(&self.name)
    }

    /// Finds a function by its name without the module.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|function| function.name == name)
    }
}

impl JobView {
    /// A job, from the summary of its origin.
    pub fn of(origin: NodeId, job: JobSummary) -> JobView {
        JobView {
            id: JobId { origin, number: job.number },
            state: job.state,
            name: job.name,
            done: job.done,
            total: job.total,
            submitted_unix_ms: job.submitted_unix_ms,
            ended_unix_ms: job.ended_unix_ms,
            key: job.key,
            waits: job.waits,
        }
    }
}

impl StepView {
    pub(crate) fn of(job: JobId, path: &[u32], step: message::StepView) -> StepView {
        let message::StepView { name, state, members, outcome } = step;
        StepView { job, path: path.into(), name, state, members, outcome }
    }
}
