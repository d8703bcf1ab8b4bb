//! Clusters of nodes in this process, and helpers for tests.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use broccoli_abi::Functions;
use broccoli_node::mqtt::ServerUrl;
use broccoli_node::native::Value;
use broccoli_node::view::{About, ClusterView};
use broccoli_node::{
    Builder, Cluster, DeployKey, Deployment, Event, JobError, JobHandle, JobUpdate, Limits, NodeEvent, NodeHandle,
    PacketError, text,
};
use broccoli_proto::{Canvas, Cbor, NodeId, TaskError};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::{PACKET_BYTES_MAX, PATIENCE, TestServer};

/// The example module.
pub(crate) const EXAMPLES: &[u8] = include_bytes!("../../../../functions/tasks.wasm");

/// The secrets of a cluster, and the address of its server.
pub(crate) struct TestCluster {
    pub(crate) cluster: Cluster,
    pub(crate) deploy_key: DeployKey,
    url: ServerUrl,
}

impl TestCluster {
    /// A new cluster on a server.
    pub(crate) fn new(server: &TestServer) -> TestCluster {
        let (cluster, deploy_key) = Cluster::generate().unwrap();
        TestCluster::of(server, cluster, deploy_key)
    }

    /// An existing cluster, on a server.
    pub(crate) fn of(server: &TestServer, cluster: Cluster, deploy_key: DeployKey) -> TestCluster {
        TestCluster { cluster, deploy_key, url: server.url() }
    }

    /// Settings of a node of this cluster. Its packets fit the limit of the server.
    pub(crate) fn node(&self, name: &str) -> Builder {
        let packet_bytes_max = PACKET_BYTES_MAX as u32;
        let limits = Limits { packet_bytes_max, ..Limits::host() };
        let builder = NodeHandle::builder().cluster(self.cluster.clone()).server(self.url.clone()).limits(limits);
        builder.name(node_id(name))
    }

    /// Deploys the example module from a node, and expects all nodes to accept it.
    pub(crate) async fn deploy_examples(&self, from: &NodeHandle) {
        let deployment = self.deploy(from, "tasks", EXAMPLES).await;
        assert!(deployment.refused.is_empty() && deployment.missing.is_empty(), "{deployment:?}");
    }

    /// Deploys a module from a node.
    pub(crate) async fn deploy(&self, from: &NodeHandle, name: &str, wasm: &[u8]) -> Deployment {
        let functions = functions(wasm);
        from.deploy(name, functions, wasm.to_vec(), &self.deploy_key, PATIENCE).await.unwrap()
    }
}

/// The functions that a module describes.
pub(crate) fn functions(wasm: &[u8]) -> Functions {
    broccoli_node::module::functions(wasm).unwrap()
}

/// A node's name.
pub(crate) fn node_id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// A canvas from its text form.
pub(crate) fn canvas(source: &str) -> Canvas {
    text::parse(source).unwrap_or_else(|error| panic!("{error}")).canvas
}

/// `function(i)` for each number below `count`, side by side.
pub(crate) fn numbered(function: &str, count: u32) -> Canvas {
    Canvas::group((0..count).map(|number| Canvas::task(function, Cbor::encode(&(number,)))).collect())
}

/// The outcome of a job, in time.
pub(crate) async fn outcome<T: Value>(mut job: JobHandle) -> Result<T, JobError> {
    timeout(PATIENCE, job.get()).await.expect("the job ends in time")
}

/// The result of a job.
pub(crate) async fn result<T: Value>(job: JobHandle) -> T {
    outcome(job).await.unwrap_or_else(|error| panic!("{error}"))
}

/// The error of a failed job.
pub(crate) async fn task_error(job: JobHandle) -> TaskError {
    match outcome::<Cbor>(job).await {
        Err(JobError::Failed(error) | JobError::Revoked(error)) => error,
        other => panic!("expected a failed task, got {other:?}"),
    }
}

/// Waits until a job is accepted.
pub(crate) async fn accepted(job: &mut JobHandle) {
    match timeout(PATIENCE, job.next()).await.expect("the job is accepted in time") {
        Some(JobUpdate::Accepted(_)) => {}
        other => panic!("expected acceptance, got {other:?}"),
    }
}

/// The first event that matches. All others are dropped.
pub(crate) async fn event<T>(events: &mut Receiver<NodeEvent>, mut fits: impl FnMut(NodeEvent) -> Option<T>) -> T {
    let search = async {
        loop {
            let event = events.recv().await.expect("the node runs");
            if let Some(found) = fits(event) {
                return found;
            }
        }
    };
    timeout(PATIENCE, search).await.expect("the event comes in time")
}

/// Waits until a condition on the view of a node is true.
pub(crate) async fn until(node: &NodeHandle, holds: impl Fn(&ClusterView) -> bool) {
    let asked = async {
        while !holds(&node.view().await.expect("the node runs")) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if timeout(PATIENCE, asked).await.is_err() {
        panic!("it does not come in time; the node knows {:#?}", node.view().await.expect("the node runs"));
    }
}

/// Waits until a node knows this many live nodes with slots, including itself, and their functions.
pub(crate) async fn until_workers(node: &NodeHandle, count: usize) {
    let all_known = |view: &ClusterView| {
        let live = view.nodes.iter().filter(|node| node.is_online()).filter_map(|node| node.about.as_ref());
        let workers: Vec<&About> = live.filter(|about| about.slots > 0).collect();
        workers.len() == count && workers.iter().all(|about| about.is_settled)
    };
    until(node, all_known).await;
}

/// Waits until a node can call a function.
pub(crate) async fn until_function(node: &NodeHandle, name: &str) {
    let found = async {
        while node.function(name).await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("the function comes in time");
}

/// Whether a node has seen a packet that is sealed with another key.
pub(crate) fn is_foreign_key(event: &NodeEvent) -> bool {
    matches!(event, NodeEvent::Cluster(Event::Rejected { error: PacketError::CannotOpen, .. }))
}

/// Records of tasks that start and end.
#[derive(Clone, Default)]
pub(crate) struct Diary {
    entries: Arc<(Mutex<Vec<Entry>>, Condvar)>,
}

/// One run of a numbered task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) task: u32,
    pub(crate) node: NodeId,
    pub(crate) start: Instant,
    pub(crate) end: Option<Instant>,
}

impl Diary {
    /// A function `(task: u32) -> u32` of a node. It records its start and end, blocks for a time, and returns twice
    /// its argument.
    pub(crate) fn task(&self, node: &str, takes: Duration) -> impl Fn(u32) -> u32 + Send + Sync + use<> {
        let (diary, node) = (self.clone(), node_id(node));
        move |task| {
            let at = diary.note(Entry { task, node, start: Instant::now(), end: None });
            std::thread::sleep(takes);
            diary.entries.0.lock().unwrap()[at].end = Some(Instant::now());
            2 * task
        }
    }

    /// Everything so far.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.0.lock().unwrap().clone()
    }

    /// Waits until this many runs have started on a node.
    pub(crate) async fn until_started(&self, node: &str, count: usize) {
        let (diary, node) = (self.clone(), node_id(node));
        let wait = move || {
            let (entries, changed) = &*diary.entries;
            let few = |entries: &mut Vec<Entry>| entries.iter().filter(|entry| entry.node == node).count() < count;
            let late = changed.wait_timeout_while(entries.lock().unwrap(), PATIENCE, few).unwrap().1;
            let started = || tally(diary.entries().iter().map(|entry| entry.node));
            assert!(!late.timed_out(), "{count} tasks start on {node} in time: {:?}", started());
        };
        tokio::task::spawn_blocking(wait).await.unwrap();
    }

    fn note(&self, entry: Entry) -> usize {
        let (entries, changed) = &*self.entries;
        let mut entries = entries.lock().unwrap();
        entries.push(entry);
        changed.notify_all();
        entries.len() - 1
    }
}

/// A function that waits for a test. Dropping the gate opens it.
#[derive(Default)]
pub(crate) struct Gate {
    state: Arc<(Mutex<GateState>, Condvar)>,
}

#[derive(Default)]
struct GateState {
    waiting: usize,
    open: bool,
}

impl Gate {
    /// A function `() -> u32` that returns once the gate is open.
    pub(crate) fn task(&self) -> impl Fn() -> u32 + Send + Sync + use<> {
        let gate = self.state.clone();
        move || {
            let (state, changed) = &*gate;
            let mut state = state.lock().unwrap();
            state.waiting += 1;
            changed.notify_all();
            let (state, _) = changed.wait_timeout_while(state, PATIENCE, |state| !state.open).unwrap();
            u32::from(state.open)
        }
    }

    /// Waits until this many tasks wait at the gate.
    pub(crate) async fn until_waiting(&self, count: usize) {
        let gate = self.state.clone();
        let wait = move || {
            let (state, changed) = &*gate;
            let few = |state: &mut GateState| state.waiting < count;
            let late = changed.wait_timeout_while(state.lock().unwrap(), PATIENCE, few).unwrap().1;
            assert!(!late.timed_out(), "{count} tasks come to the gate in time");
        };
        tokio::task::spawn_blocking(wait).await.unwrap();
    }

    /// Opens the gate for good.
    pub(crate) fn open(&self) {
        let (state, changed) = &*self.state;
        state.lock().unwrap().open = true;
        changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// A module of hand-written tasks: `name`, type of the result, body.
pub(crate) fn hand_written(extra: &str, memory_pages: u32, tasks: &[(&str, &str, &str)]) -> Vec<u8> {
    let mut described = String::new();
    let mut exports = String::new();
    for (name, ty, body) in tasks {
        let (name_head, ty_head) = (0x60 + name.len(), 0x60 + ty.len());
        described += &format!("\\84\\{name_head:02x}{name}\\80\\{ty_head:02x}{ty}\\60");
        exports += &format!("(func (export \"task_{name}\") (param i32 i32) (result i64) {body})\n");
    }
    let text = format!(
        r#"(module
            {extra}
            (memory (export "memory") {memory_pages})
            (func (export "broccoli_alloc") (param i32) (result i32) (i32.const 1024))
            {exports}
            (@custom "broccoli.abi" "\01")
            (@custom "broccoli.tasks" "{described}"))"#
    );
    wat::parse_str(text).unwrap()
}

/// A module with a task `version() -> u32` that returns this number, below 24.
pub(crate) fn version_module(number: u8) -> Vec<u8> {
    let data = format!("(data (i32.const 0) \"\\{number:02x}\")");
    hand_written(&data, 1, &[("version", "u32", "(i64.const 1)")])
}

/// The number of occurrences of each value.
pub(crate) fn tally<T: Ord>(values: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut tally = BTreeMap::new();
    values.into_iter().for_each(|value| *tally.entry(value).or_default() += 1);
    tally
}
