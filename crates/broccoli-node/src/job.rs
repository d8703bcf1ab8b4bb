//! Jobs of the cluster by their id, from any client, and requests to drain a node.
//!
//! Nothing is cached here: each question goes to the origin of the job. No answer is an error, never a state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use broccoli_core::{Event, Node};
use broccoli_proto::message::{Birth, JobNews, JobSummary, StepNews, StepState};
use broccoli_proto::{Cause, Cbor, JobId, NodeId, Outcome, TaskError};
use tokio::time;

use crate::driver::{Ask, Command, NodeEvent};
use crate::error::{DrainError, JobError};
use crate::handle::{JobHandle, NodeHandle, decode};
use crate::native::Value;
use crate::updates::JobUpdate;
use crate::view::{JobView, Load, StepView};
use crate::why::{WaitingGroup, Why};

/// How long to wait for an answer before a question is sent again.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Most jobs in one answer.
const PAGE: u16 = 256;
/// How long to ask an origin about a step before [`JobError::NoAnswer`].
const NO_ANSWER: Duration = Duration::from_secs(5);

/// Options of a submit besides its canvas.
///
/// ```
/// # use broccoli_node::SubmitOptions;
/// let options = SubmitOptions::default().key("report of 2026-11-20").detached();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmitOptions {
    pub(crate) key: Option<String>,
    pub(crate) again: bool,
    pub(crate) detached: bool,
}

impl SubmitOptions {
    /// An idempotency key, 1 to 128 bytes. Another submit with the same key, from any client, gets the same job, as
    /// long as its origin remembers it. So a submit whose answer was lost can be repeated. If a node that may hold the
    /// job does not answer, the submit is refused with [`Refusal::Unsure`].
    ///
    /// [`Refusal::Unsure`]: broccoli_proto::message::Refusal::Unsure
    pub fn key(mut self, key: impl Into<String>) -> SubmitOptions {
        self.key = Some(key.into());
        self
    }

    /// With a key whose job has failed or was revoked: starts a new job, which then has the key.
    pub fn again(mut self) -> SubmitOptions {
        self.again = true;
        self
    }

    /// The job outlives this client. Its result is kept for later requests, a day by default.
    pub fn detached(mut self) -> SubmitOptions {
        self.detached = true;
        self
    }
}

/// The state of a job or a step.
#[derive(Clone, Debug, PartialEq)]
pub enum JobStatus {
    /// Its origin holds it, and it has not ended.
    Pending {
        /// Tasks that have ended …
        done: u32,
        /// … of all that are known so far.
        total: u32,
    },
    /// It has succeeded, with this result.
    Succeeded(Cbor),
    /// It has failed.
    Failed(TaskError),
    /// It was revoked.
    Revoked,
    /// A step that never ran, because a step before it has failed or the job was revoked.
    Skipped,
}

/// The state of an ended job or step.
impl From<Outcome> for JobStatus {
    fn from(outcome: Outcome) -> JobStatus {
        match outcome {
            Ok(value) => JobStatus::Succeeded(value),
            Err(error) if error.cause == Cause::Revoked => JobStatus::Revoked,
            Err(error) => JobStatus::Failed(error),
        }
    }
}

/// A job of the cluster, or one step of it. Made by [`NodeHandle::job`].
///
/// A step is addressed by its path: the first member of a group in a chain is a child of a child of the job. The origin
/// knows the steps while the job runs; afterwards it keeps only the result of the job.
///
/// ```no_run
/// # async fn example(node: broccoli_node::NodeHandle, canvas: broccoli_node::Canvas) -> Result<(), broccoli_node::JobError> {
/// use broccoli_node::SubmitOptions;
///
/// let id = node.submit_with(canvas, SubmitOptions::default().detached()).accepted().await?;
/// // Later, perhaps in another program:
/// let job = node.job(id);
/// if !job.ready().await? {
///     println!("{:?}", job.progress().await?);
/// }
/// let sum: i64 = job.get().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Job {
    node: NodeHandle,
    id: JobId,
    path: Vec<u32>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({}{})", self.id, Place(&self.path))
    }
}

/// The path of a step in its job, for people: `[1][0]`.
pub(crate) struct Place<'a>(pub(crate) &'a [u32]);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|index| write!(f, "[{index}]"))
    }
}

impl Job {
    /// The id of the job, which stays the same when its origin restarts.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Indices of members, from the job down to this step; empty for the job itself.
    pub fn path(&self) -> &[u32] {
        &self.path
    }

    /// Asks its origin for the state.
    ///
    /// # Errors
    /// [`JobError::Unknown`] if its origin does not know it, [`JobError::NoAnswer`] if the origin has not answered for
    /// five seconds.
    pub async fn state(&self) -> Result<JobStatus, JobError> {
        if !self.path.is_empty() {
            return self.state_of_step().await;
        }
        let mut updates = self.follow();
        loop {
            match updates.next().await.ok_or(JobError::Stopped)? {
                JobUpdate::News(JobNews::Progress { done, total }) => return Ok(JobStatus::Pending { done, total }),
                JobUpdate::News(JobNews::Ended(outcome)) => return Ok(outcome.into()),
                JobUpdate::News(JobNews::Unknown) => return Err(JobError::Unknown(self.id)),
                JobUpdate::Refused(refusal) => return Err(JobError::Refused(refusal)),
                JobUpdate::NoAnswer(node) => return Err(JobError::NoAnswer(node)),
                JobUpdate::TooManyRequests => return Err(JobError::TooManyRequests),
                JobUpdate::Accepted(_)
                | JobUpdate::QueueFull(_)
                | JobUpdate::OnlyLeaving(_)
                | JobUpdate::CannotStore(..)
                | JobUpdate::News(_) => {}
            }
        }
    }

    async fn state_of_step(&self) -> Result<JobStatus, JobError> {
        let step = self.step().await?;
        Ok(match (step.state, step.outcome) {
            (StepState::Waiting | StepState::Running | StepState::Other, _) => JobStatus::Pending { done: 0, total: 1 },
            (StepState::Skipped, _) => JobStatus::Skipped,
            (_, Some(outcome)) => outcome.into(),
            (_, None) => return Err(JobError::NoStep(self.id, self.path.clone())),
        })
    }

    /// The members of this step: the members of a group, the steps of a chain (a chord is a chain of its header and its
    /// body), the runs of a task on each node, or the canvas that has replaced a task. Empty for other tasks.
    ///
    /// # Errors
    /// [`JobError::NoStep`] if the job has ended or has no such step; otherwise as [`Job::state`].
    pub async fn children(&self) -> Result<Vec<Job>, JobError> {
        let members = self.step().await?.members;
        Ok((0..members).map(|index| self.at([&self.path[..], &[index]].concat())).collect())
    }

    /// The step before this one in its chain; for a chain, the step before its last one. `None` if there is no such
    /// step.
    ///
    /// # Errors
    /// As [`Job::children`].
    pub async fn parent(&self) -> Result<Option<Job>, JobError> {
        let step = self.step().await?;
        if step.name == "chain" && step.members > 1 {
            return Ok(Some(self.at([&self.path[..], &[step.members - 2]].concat())));
        }
        let mut path = self.path.clone();
        while let Some(index) = path.pop() {
            if index > 0 && self.step_at(&path).await?.name == "chain" {
                path.push(index - 1);
                return Ok(Some(self.at(path)));
            }
        }
        Ok(None)
    }

    fn at(&self, path: Vec<u32>) -> Job {
        Job { node: self.node.clone(), id: self.id, path }
    }

    /// The name, state and members of this step; for a job, of its outermost form.
    ///
    /// # Errors
    /// As [`Job::children`].
    pub async fn step(&self) -> Result<StepView, JobError> {
        self.step_at(&self.path).await
    }

    /// What the tasks of the whole job, or of this step, wait for. Empty for a job that has ended.
    ///
    /// ```no_run
    /// # async fn example(job: broccoli_node::Job) -> Result<(), broccoli_node::JobError> {
    /// for group in job.why().await?.groups {
    ///     println!("{group}"); // tasks.add, 3 tasks at [1]: waits: no live node has led (4 nodes)
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`JobError::NoStep`] if there is no such step; otherwise as [`Job::state`].
    pub async fn why(&self) -> Result<Why, JobError> {
        let news = self.ask(&self.path, true).await?;
        if news.view.is_none() {
            // The origin does not know the steps of an ended job.
            return match (self.path.is_empty(), self.at(Vec::new()).state().await?) {
                (true, state) if !matches!(state, JobStatus::Pending { .. }) => {
                    Ok(Why { job: self.id, groups: Vec::new() })
                }
                _ => Err(JobError::NoStep(self.id, self.path.clone())),
            };
        }
        let groups = match news.waiting {
            Some(waiting) => waiting.into_iter().map(WaitingGroup::new).collect(),
            // An older origin reports the reason of at most one task.
            None => {
                let summary = self.node.summary(self.id, NO_ANSWER).await;
                let waits = summary.and_then(|job| job.waits);
                waits.into_iter().map(WaitingGroup::from).collect()
            }
        };
        Ok(Why { job: self.id, groups })
    }

    /// Asks for a step by its path.
    async fn step_at(&self, path: &[u32]) -> Result<StepView, JobError> {
        let step = self.ask(path, false).await?.view.ok_or_else(|| JobError::NoStep(self.id, path.to_vec()))?;
        Ok(StepView::of(self.id, path, step))
    }

    /// Asks for a step, and optionally for what its tasks wait for. Repeats the question until there is an answer.
    async fn ask(&self, path: &[u32], why: bool) -> Result<Box<StepNews>, JobError> {
        let mut events = self.node.listen();
        let end = time::Instant::now() + NO_ANSWER;
        let mut plain = None;
        while time::Instant::now() < end {
            let ask = if why { Command::AskWhy } else { Command::AskStep };
            self.node.command(ask(self.id, path.to_vec())).await;
            let again = time::Instant::now() + ASK_AGAIN;
            while let Ok(event) = time::timeout_at(again, events.recv()).await {
                match event.ok_or(JobError::Stopped)? {
                    NodeEvent::Cluster(Event::Step(news)) if news.job == self.id && news.path == path => {
                        // Another caller may have asked for the same step without `why`, or with it.
                        if news.view.is_none() || news.waiting.is_some() == why {
                            return Ok(news);
                        }
                        plain = Some(news).filter(|_| why);
                    }
                    _ => {}
                }
            }
            if let Some(news) = plain {
                // An older origin does not answer `why`.
                return Ok(news);
            }
        }
        Err(JobError::NoAnswer(self.id.origin))
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// As [`Job::state`].
    pub async fn ready(&self) -> Result<bool, JobError> {
        Ok(!matches!(self.state().await?, JobStatus::Pending { .. }))
    }

    /// The number of its tasks that have ended, and the number of all that are known; `None` once the job has ended. A
    /// step counts as one task.
    ///
    /// # Errors
    /// As [`Job::state`].
    pub async fn progress(&self) -> Result<Option<(u32, u32)>, JobError> {
        Ok(match self.state().await? {
            JobStatus::Pending { done, total } => Some((done, total)),
            _ => None,
        })
    }

    /// Waits for the encoded result, without a time limit: an origin that does not answer is asked again.
    ///
    /// # Errors
    /// [`JobError::Failed`], [`JobError::Revoked`], [`JobError::Unknown`]. For a step: [`JobError::NoStep`] if the job
    /// has ended or the step never ran.
    pub async fn result(&self) -> Result<Cbor, JobError> {
        if !self.path.is_empty() {
            return self.result_of_step().await;
        }
        match self.follow().result().await {
            Err(JobError::Lost) => Err(JobError::Unknown(self.id)),
            ended => ended,
        }
    }

    async fn result_of_step(&self) -> Result<Cbor, JobError> {
        loop {
            match self.state_of_step().await {
                Ok(JobStatus::Succeeded(value)) => return Ok(value),
                Ok(JobStatus::Failed(error)) => return Err(JobError::Failed(error)),
                Ok(JobStatus::Revoked | JobStatus::Skipped) => {
                    return Err(JobError::NoStep(self.id, self.path.clone()));
                }
                Ok(JobStatus::Pending { .. }) => time::sleep(ASK_AGAIN / 5).await,
                Err(JobError::NoAnswer(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the result as a value of this type.
    ///
    /// # Errors
    /// As [`Job::result`], and [`JobError::Type`].
    pub async fn get<T: Value>(&self) -> Result<T, JobError> {
        decode(self.result().await?)
    }

    /// Ends the whole job: waiting tasks do not start, running tasks are stopped. Returns the state of the job when its
    /// origin has confirmed it; the job may have ended before.
    ///
    /// # Errors
    /// As [`Job::state`].
    pub async fn revoke(&self) -> Result<JobStatus, JobError> {
        let mut updates = self.node.ask(Ask::Revoke(self.id));
        loop {
            match updates.next().await.ok_or(JobError::Stopped)? {
                JobUpdate::News(JobNews::Ended(outcome)) => return Ok(outcome.into()),
                JobUpdate::News(JobNews::Unknown) => return Err(JobError::Unknown(self.id)),
                JobUpdate::Refused(refusal) => return Err(JobError::Refused(refusal)),
                JobUpdate::NoAnswer(node) => return Err(JobError::NoAnswer(node)),
                JobUpdate::TooManyRequests => return Err(JobError::TooManyRequests),
                JobUpdate::Accepted(_)
                | JobUpdate::QueueFull(_)
                | JobUpdate::OnlyLeaving(_)
                | JobUpdate::CannotStore(..)
                | JobUpdate::News(_) => {}
            }
        }
    }

    /// Runs the whole canvas of a failed or revoked job again, as a new job. Returns the new job.
    ///
    /// # Errors
    /// If the job has succeeded, has not ended or is unknown; otherwise as [`Job::state`].
    pub async fn retry(&self) -> Result<Job, JobError> {
        let mut updates = self.node.ask(Ask::Retry(self.id));
        loop {
            match updates.next().await.ok_or(JobError::Stopped)? {
                JobUpdate::Accepted(id) => return Ok(self.node.job(id)),
                JobUpdate::Refused(refusal) => return Err(JobError::Refused(refusal)),
                JobUpdate::NoAnswer(node) => return Err(JobError::NoAnswer(node)),
                JobUpdate::TooManyRequests => return Err(JobError::TooManyRequests),
                JobUpdate::QueueFull(_)
                | JobUpdate::OnlyLeaving(_)
                | JobUpdate::CannotStore(..)
                | JobUpdate::News(_) => {}
            }
        }
    }

    /// All updates of the job from now on.
    pub fn follow(&self) -> JobHandle {
        self.node.ask(Ask::Follow(self.id)).of(self.id)
    }
}

/// The jobs of all origins.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// By origin, sorted by the number of the job.
    pub jobs: BTreeMap<NodeId, Vec<JobView>>,
    /// Origins that have not answered, or only in part.
    pub silent: BTreeSet<NodeId>,
}

/// Operations on jobs and nodes of the cluster.
impl NodeHandle {
    /// A job by its id. Sends nothing yet.
    pub fn job(&self, id: JobId) -> Job {
        Job { node: self.clone(), id, path: Vec::new() }
    }

    /// Asks all live nodes that hold jobs for a list, and waits `wait` for the answers.
    pub async fn jobs(&self, wait: Duration) -> Listing {
        let mut events = self.listen();
        let me = self.name();
        let origins = self.query(move |node: &Node| {
            // A draining node holds jobs, but takes no new ones.
            let holds = |b: &Birth| b.resident || b.durable == Some(true) || b.draining == Some(true);
            let live = node.members().filter(|(name, member)| member.alive && *name != me);
            live.filter(|(_, member)| holds(&member.birth)).map(|(name, _)| name).collect()
        });
        let silent: BTreeSet<NodeId> = origins.await.unwrap_or_default();
        let jobs = silent.iter().map(|origin| (*origin, Vec::new())).collect();
        let mut listing = Listing { jobs, silent };
        self.ask_all_jobs(&listing).await;
        let end = time::Instant::now() + wait;
        let mut again = time::Instant::now() + ASK_AGAIN;
        while !listing.silent.is_empty() {
            match time::timeout_at(end.min(again), events.recv()).await {
                Ok(Some(NodeEvent::Cluster(Event::Jobs(origin, page)))) => {
                    if listing.take(origin, page.jobs, page.more) {
                        self.ask_jobs(&listing, origin).await;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) if time::Instant::now() >= end => break,
                Err(_) => {
                    again = time::Instant::now() + ASK_AGAIN;
                    self.ask_all_jobs(&listing).await;
                }
            }
        }
        listing
    }

    /// Asks the origin of a job for its summary. `None` if the origin does not list the job, or does not answer within
    /// `wait`.
    pub async fn summary(&self, id: JobId, wait: Duration) -> Option<JobView> {
        let mut events = self.listen();
        let end = time::Instant::now() + wait;
        while time::Instant::now() < end {
            // The page that starts with this job.
            self.command(Command::AskJobs { origin: id.origin, after: id.number.checked_sub(1), max: 1 }).await;
            let again = end.min(time::Instant::now() + ASK_AGAIN);
            while let Ok(event) = time::timeout_at(again, events.recv()).await {
                match event? {
                    NodeEvent::Cluster(Event::Jobs(origin, page)) if origin == id.origin => {
                        let job = page.jobs.into_iter().find(|job| job.number == id.number);
                        return job.map(|job| JobView::of(origin, job));
                    }
                    _ => {}
                }
            }
        }
        None
    }

    /// Asks the origins that have not answered completely.
    async fn ask_all_jobs(&self, listing: &Listing) {
        for origin in &listing.silent {
            self.ask_jobs(listing, *origin).await;
        }
    }

    async fn ask_jobs(&self, listing: &Listing, origin: NodeId) {
        let after = listing.jobs.get(&origin).and_then(|jobs| jobs.last()).map(|last| last.id.number);
        self.command(Command::AskJobs { origin, after, max: PAGE }).await;
    }

    /// Takes nothing new, waits for running tasks up to the time set by [`crate::Builder::drain_limit`], hands back the
    /// rest, and leaves. Returns when the node has ended.
    pub async fn drain(self) {
        self.begin_drain();
        self.ended().await;
    }

    /// Like [`NodeHandle::drain`], without waiting. [`Event::Draining`] follows; when the node has ended, the events
    /// end.
    pub fn begin_drain(&self) {
        self.drain_soon();
    }

    /// Asks another node to drain, and waits for its answer. After `limit`, or the time that its operator has set, it
    /// hands back its running tasks and leaves; jobs that it holds only in memory are then lost.
    ///
    /// # Errors
    /// [`DrainError::Refused`] if the node accepts no requests of others, [`DrainError::NoAnswer`].
    pub async fn drain_node(&self, name: NodeId, limit: Option<Duration>) -> Result<Load, DrainError> {
        let mut events = self.listen();
        let mut updates = self.ask(Ask::Drain(name, limit));
        loop {
            tokio::select! {
                event = events.recv() => match event.ok_or(DrainError::Stopped)? {
                    NodeEvent::Cluster(Event::Vitals(node, vitals)) if node == name && vitals.draining == Some(true) => {
                        return Ok(Load::of(name, vitals));
                    }
                    _ => {}
                },
                update = updates.next() => match update {
                    Some(JobUpdate::Refused(refusal)) => return Err(DrainError::Refused(refusal)),
                    Some(JobUpdate::NoAnswer(node)) => return Err(DrainError::NoAnswer(node)),
                    Some(JobUpdate::TooManyRequests) => return Err(DrainError::TooManyRequests),
                    Some(_) => {}
                    None => return Err(DrainError::Stopped),
                },
            }
        }
    }

    /// Tells all live nodes that take jobs that another node will not come back, so that submits with a key do not wait
    /// for it. Waits `wait` for answers. Returns the nodes that have not answered.
    pub async fn forget_node(&self, name: NodeId, wait: Duration) -> BTreeSet<NodeId> {
        let mut events = self.listen();
        let me = self.name();
        let origins = self.query(move |node: &Node| {
            let live = node.members().filter(|(other, member)| member.alive && *other != me && *other != name);
            live.filter(|(_, m)| m.birth.resident || m.birth.durable == Some(true)).map(|(other, _)| other).collect()
        });
        let mut silent: BTreeSet<NodeId> = origins.await.unwrap_or_default();
        self.ask_to_forget(&silent, name).await;
        let end = time::Instant::now() + wait;
        let mut again = time::Instant::now() + ASK_AGAIN;
        while !silent.is_empty() && time::Instant::now() < end {
            match time::timeout_at(end.min(again), events.recv()).await {
                Ok(Some(NodeEvent::Cluster(Event::Forgotten { by, node }))) if node == name => {
                    silent.remove(&by);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    again = time::Instant::now() + ASK_AGAIN;
                    self.ask_to_forget(&silent, name).await;
                }
            }
        }
        silent
    }

    async fn ask_to_forget(&self, of: &BTreeSet<NodeId>, node: NodeId) {
        for of in of {
            self.command(Command::AskToForget { of: *of, node }).await;
        }
    }

    fn ask(&self, ask: Ask) -> JobHandle {
        self.job_handle(|updates, id| Command::Ask { ask, updates, id }).transient()
    }
}

impl Listing {
    /// Adds one page of an origin's jobs. Returns whether there are more to ask for.
    fn take(&mut self, origin: NodeId, page: Vec<JobSummary>, more: bool) -> bool {
        let Some(jobs) = self.jobs.get_mut(&origin).filter(|_| self.silent.contains(&origin)) else {
            return false;
        };
        // A page may arrive twice, or late.
        let last = jobs.last().map(|job| job.id.number);
        let is_next = page.first().is_none_or(|first| last.is_none_or(|last| first.number > last));
        if !is_next {
            return false;
        }
        jobs.extend(page.into_iter().map(|job| JobView::of(origin, job)));
        if !more {
            self.silent.remove(&origin);
        }
        more
    }
}
