//! A running node as a library: submit canvases, deploy modules, read the state of the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use broccoli_abi::Functions;
use broccoli_core::{Counters, Event, Node, SubmitId};
use broccoli_proto::message::JobNews;
use broccoli_proto::module::{Manifest, ManifestError, SignedManifest};
use broccoli_proto::{Canvas, Cbor, JobId, ModuleHash, NodeId};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time;

use crate::builder::Builder;
use crate::cluster::DeployKey;
use crate::driver::{Command, Controls, NodeEvent};
use crate::error::{CheckError, FunctionError, JobError};
use crate::job::SubmitOptions;
use crate::updates::{JobUpdate, Updates};
use crate::view::{ClusterView, FunctionView};

/// Most commands of all handles that wait for one node. A submit beyond this limit fails with
/// [`JobError::TooManyRequests`]; other calls wait until there is room.
pub const COMMANDS_MAX: usize = 65_536;

/// A running node. It ends when [`NodeHandle::leave`] is called or the last handle is dropped.
pub struct NodeHandle {
    name: NodeId,
    commands: Sender<Command>,
    controls: Arc<Controls>,
    events: Option<Receiver<NodeEvent>>,
}

/// Another handle of the same node, without the events from its start.
impl Clone for NodeHandle {
    fn clone(&self) -> NodeHandle {
        NodeHandle { name: self.name, commands: self.commands.clone(), controls: self.controls.clone(), events: None }
    }
}

/// The result of a deployment.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// Nodes that hold the module.
    pub holders: Vec<NodeId>,
    /// Nodes that refused it, and why.
    pub refused: Vec<(NodeId, String)>,
    /// Live nodes that have not answered in time. They fetch the module when they are online again.
    pub missing: Vec<NodeId>,
}

impl NodeHandle {
    /// Settings of a new node.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(
        name: NodeId,
        commands: Sender<Command>,
        controls: Arc<Controls>,
        events: Receiver<NodeEvent>,
    ) -> NodeHandle {
        NodeHandle { name, commands, controls, events: Some(events) }
    }

    /// The node's name.
    pub fn name(&self) -> NodeId {
        self.name
    }

    /// All events from now on; for the first caller, from the start of the node. If 4,096 events are unread, new ones
    /// are dropped.
    pub fn events(&mut self) -> Receiver<NodeEvent> {
        self.events.take().unwrap_or_else(|| self.listen())
    }

    pub(crate) fn listen(&self) -> Receiver<NodeEvent> {
        self.controls.listen()
    }

    /// Submits a canvas to this node as its origin.
    pub fn submit(&self, canvas: Canvas) -> JobHandle {
        self.job_handle(|updates, id| Command::Submit { canvas, updates, id })
    }

    /// Submits a canvas to a resident node of the cluster, preferably one with a journal. If that node has no room, the
    /// canvas waits until it has.
    pub fn submit_to_cluster(&self, canvas: Canvas) -> JobHandle {
        self.submit_with(canvas, SubmitOptions::default())
    }

    /// Like [`NodeHandle::submit_to_cluster`], with options.
    pub fn submit_with(&self, canvas: Canvas, options: SubmitOptions) -> JobHandle {
        self.job_handle(|updates, id| Command::SubmitToCluster { canvas, options, updates, id })
    }

    /// Looks for a node that takes jobs. [`Event::Attached`](crate::Event::Attached) follows when it is found and the
    /// functions of the cluster are known.
    pub fn attach(&self) {
        self.controls.attach();
    }

    /// Checks a canvas against the functions that the cluster offers now. Returns the number of its tasks, as far as it
    /// is known before the canvas runs.
    ///
    /// # Errors
    /// The error with which an origin would refuse the canvas.
    pub async fn check(&self, canvas: Canvas) -> Result<u32, CheckError> {
        let checked = self.query(move |node| node.check(&canvas).map(|plan| plan.progress().total)).await;
        checked.ok_or(CheckError::Stopped)?.map_err(CheckError::Canvas)
    }

    /// Finds a function by its name, `module.function` or `function`.
    /// # Errors
    /// If no function, or more than one, has this name.
    pub async fn function(&self, name: &str) -> Result<FunctionView, FunctionError> {
        let name = name.to_owned();
        let found = self.query(move |node| {
            let found = node.function(&name);
            found.map(|(name, description)| FunctionView { name, description: description.clone() })
        });
        found.await.ok_or(FunctionError::Stopped)?.map_err(FunctionError::Unresolved)
    }

    /// What this node knows of its cluster now, without asking other nodes. `None` if it has stopped.
    pub async fn view(&self) -> Option<ClusterView> {
        let name = self.name;
        self.query(move |node| ClusterView::of(node, name)).await
    }

    /// Reads the state of the node. `None` if it has stopped.
    pub(crate) async fn query<T: Send + 'static>(&self, query: impl FnOnce(&Node) -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let query = move |node: &Node| {
            // The caller may have dropped its future.
            let _ = reply.send(query(node));
        };
        self.command(Command::Query(Box::new(query))).await;
        answer.await.ok()
    }

    /// What the node has done since its start, and what it holds now. `None` if it has stopped.
    pub async fn counters(&self) -> Option<Counters> {
        self.query(Node::counters).await
    }

    /// Signs a module and offers it to all nodes. Waits at most `wait` until each live node holds it or has refused it.
    ///
    /// # Errors
    /// If the module cannot be described in a manifest.
    pub async fn deploy(
        &self,
        name: &str,
        functions: Functions,
        wasm: Vec<u8>,
        key: &DeployKey,
        wait: Duration,
    ) -> Result<Deployment, ManifestError> {
        let manifest = Manifest::new(name, self.next_version(name).await, &wasm, functions)?.sign(&key.0);
        Ok(self.offer(manifest, wasm, wait).await)
    }

    /// Removes a module from all nodes, and waits like [`NodeHandle::deploy`]. Jobs that were accepted before go on.
    ///
    /// # Errors
    /// If the name is not a valid module name.
    pub async fn undeploy(&self, name: &str, key: &DeployKey, wait: Duration) -> Result<Deployment, ManifestError> {
        let manifest = Manifest::tombstone(name, self.next_version(name).await)?.sign(&key.0);
        Ok(self.offer(manifest, Vec::new(), wait).await)
    }

    /// A version newer than all known versions of the module.
    async fn next_version(&self, name: &str) -> u64 {
        let module = name.to_owned();
        let known = self.query(move |node| node.functions().get(module.as_str()).map(|(version, _)| *version)).await;
        unix_ms().max(known.flatten().map_or(0, |version| version + 1))
    }

    /// Offers a signed module to all nodes; see [`NodeHandle::deploy`].
    pub async fn offer(&self, manifest: SignedManifest, wasm: Vec<u8>, wait: Duration) -> Deployment {
        let module = manifest.id;
        let mut events = self.listen();
        self.command(Command::Deploy { manifest, wasm: wasm.into() }).await;
        let mut refused: BTreeMap<NodeId, String> = BTreeMap::new();
        let end = time::Instant::now() + wait;
        loop {
            if let Some(reason) = refused.get(&self.name) {
                // A module that this node refuses is not offered to others.
                return Deployment { refused: vec![(self.name, reason.clone())], ..Deployment::default() };
            }
            let deployment = self.deployment(module, &refused).await;
            if deployment.missing.is_empty() {
                return deployment;
            }
            // Not every change of a node's module set is an event, so poll from time to time.
            let next = end.min(time::Instant::now() + Duration::from_millis(10));
            match time::timeout_at(next, events.recv()).await {
                Ok(Some(NodeEvent::Cluster(Event::ModuleRefused { by, module: which, reason }))) if which == module => {
                    refused.insert(by, reason);
                }
                Ok(None) => return deployment,
                Ok(Some(_)) => {}
                Err(_) if time::Instant::now() >= end => return deployment,
                Err(_) => {}
            }
        }
    }

    async fn deployment(&self, module: ModuleHash, refused: &BTreeMap<NodeId, String>) -> Deployment {
        let me = self.name;
        let nodes = self.query(move |node| {
            let others = node.members().filter(|(name, member)| member.alive && *name != me);
            let holders = others.filter(|(_, member)| member.birth.slots > 0 || member.birth.resident);
            holders.map(|(name, member)| (name, node.holds(member, &module))).collect::<Vec<_>>()
        });
        let mut deployment = Deployment::default();
        for (name, holds) in nodes.await.unwrap_or_default() {
            match refused.get(&name) {
                _ if holds => deployment.holders.push(name),
                Some(reason) => deployment.refused.push((name, reason.clone())),
                None => deployment.missing.push(name),
            }
        }
        deployment
    }

    /// Sends a goodbye and ends the node. Returns when it has ended.
    pub async fn leave(self) {
        self.command(Command::Leave).await;
        self.ended().await;
    }

    /// Waits until the node has ended.
    pub(crate) async fn ended(self) {
        self.commands.closed().await;
    }

    pub(crate) fn job_handle(&self, command: impl FnOnce(Updates, oneshot::Sender<SubmitId>) -> Command) -> JobHandle {
        let (updates, receiver) = Updates::new();
        let (id_sender, id) = oneshot::channel();
        match self.commands.try_send(command(updates, id_sender)) {
            // If the node has stopped, the closed channel reports it.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(command)) => command.refuse(),
        }
        let (commands, controls) = (self.commands.clone(), self.controls.clone());
        JobHandle { updates: receiver, id: Some(id), commands, controls, submit: None, job: None, transient: false }
    }

    /// Sends a command. Waits while the queue is full.
    pub(crate) async fn command(&self, command: Command) {
        // If the node has stopped, its closed channels report that to callers that wait for an answer.
        let _ = self.commands.send(command).await;
    }

    /// Requests a drain without waiting. It comes after earlier submits, unless the command queue is full.
    pub(crate) fn drain_soon(&self) {
        if let Err(TrySendError::Full(_)) = self.commands.try_send(Command::Drain) {
            self.controls.drain();
        }
    }
}

/// A submitted canvas.
pub struct JobHandle {
    updates: Receiver<JobUpdate>,
    /// Until the node has sent the id.
    id: Option<oneshot::Receiver<SubmitId>>,
    commands: Sender<Command>,
    controls: Arc<Controls>,
    submit: Option<SubmitId>,
    job: Option<JobId>,
    /// Whether the node forgets the request when the handle is dropped.
    transient: bool,
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        if self.transient {
            self.updates.close();
            self.controls.sweep();
        }
    }
}

impl JobHandle {
    pub(crate) fn transient(mut self) -> JobHandle {
        self.transient = true;
        self
    }

    pub(crate) fn of(mut self, job: JobId) -> JobHandle {
        self.job = Some(job);
        self
    }

    /// Waits until the canvas is accepted. Returns the id of the job.
    ///
    /// # Errors
    /// [`JobError::Refused`], [`JobError::TooManyRequests`], [`JobError::Stopped`].
    pub async fn accepted(&mut self) -> Result<JobId, JobError> {
        loop {
            if let Some(job) = self.job {
                return Ok(job);
            }
            match self.next().await.ok_or(JobError::Stopped)? {
                JobUpdate::Refused(refusal) => return Err(JobError::Refused(refusal)),
                JobUpdate::TooManyRequests => return Err(JobError::TooManyRequests),
                _ => {}
            }
        }
    }

    /// The next update; `None` after the last. If 4,096 updates are unread, new ones are dropped, except the acceptance
    /// and the end.
    pub async fn next(&mut self) -> Option<JobUpdate> {
        let update = self.updates.recv().await;
        if let Some(JobUpdate::Accepted(job)) = update {
            self.job = Some(job);
        }
        update
    }

    /// The job's id, once it is accepted.
    pub fn id(&self) -> Option<JobId> {
        self.job
    }

    /// Waits for the encoded result.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn result(&mut self) -> Result<Cbor, JobError> {
        loop {
            match self.next().await.ok_or(JobError::Stopped)? {
                JobUpdate::News(JobNews::Ended(outcome)) => return outcome.map_err(JobError::from),
                JobUpdate::News(JobNews::Unknown) => return Err(JobError::Lost),
                JobUpdate::News(JobNews::GoesOn) => return Err(JobError::LeftToOthers),
                JobUpdate::Refused(refusal) => return Err(JobError::Refused(refusal)),
                JobUpdate::TooManyRequests => return Err(JobError::TooManyRequests),
                JobUpdate::Accepted(_)
                | JobUpdate::News(_)
                | JobUpdate::QueueFull(_)
                | JobUpdate::OnlyLeaving(_)
                | JobUpdate::CannotStore(..)
                | JobUpdate::NoAnswer(_) => {}
            }
        }
    }

    /// Waits for the result as a value of this type.
    ///
    /// # Errors
    /// See [`JobError`].
    pub async fn get<T: crate::native::Value>(&mut self) -> Result<T, JobError> {
        decode(self.result().await?)
    }

    /// Ends the job: waiting tasks do not start, running tasks are stopped. A job with a key goes on if other clients
    /// have submitted it too, or wait for it: [`JobError::LeftToOthers`].
    pub async fn revoke(&mut self) {
        if let Some(id) = &mut self.id {
            self.submit = id.await.ok();
            self.id = None;
        }
        if let Some(submit) = self.submit {
            // If the node has stopped, the job has ended with it.
            let _ = self.commands.send(Command::Revoke(submit)).await;
        }
    }
}

/// Decodes a result as a value of this type.
pub(crate) fn decode<T: crate::native::Value>(value: Cbor) -> Result<T, JobError> {
    let mut decoder = minicbor::Decoder::new(value.as_bytes());
    if T::ty().accepts(value.as_bytes())
        && let Ok(read) = T::read(&mut decoder)
    {
        return Ok(read);
    }
    Err(JobError::Type(value))
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
