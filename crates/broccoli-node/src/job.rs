//! Jobs that are known by their id, whoever has submitted them, and nodes that are asked to leave.
//!
//! Nothing is kept here: each question goes to the job's origin, and silence is never taken for an
//! answer.

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

/// A question that may have been lost is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Jobs in one answer.
const PAGE: u16 = 256;
/// An origin that has not answered a question about a step for this long does not answer.
const NO_ANSWER: Duration = Duration::from_secs(5);

/// What a submit may ask for beside its canvas.
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
    /// What the submit is called, 1 to 128 bytes: another one with the same key, from anywhere, is the
    /// same job for as long as its origin remembers it. So a submit whose answer was lost can be repeated. If a node that
    /// may hold the job does not answer, the submit is refused with [`Refusal::Unsure`].
    ///
    /// [`Refusal::Unsure`]: broccoli_proto::message::Refusal::Unsure
    pub fn key(mut self, key: impl Into<String>) -> SubmitOptions {
        self.key = Some(key.into());
        self
    }

    /// With a key: if its job has failed or was revoked, the key stands for a new job from now on.
    pub fn again(mut self) -> SubmitOptions {
        self.again = true;
        self
    }

    /// The job outlives this client: its result is kept for whoever asks, a day by default.
    pub fn detached(mut self) -> SubmitOptions {
        self.detached = true;
        self
    }
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq)]
pub enum JobStatus {
    /// Its origin holds it, and it has not ended.
    Pending {
        /// Tasks that have ended …
        done: u32,
        /// … of all that are known so far.
        total: u32,
    },
    /// It has this result.
    Succeeded(Cbor),
    /// It has failed.
    Failed(TaskError),
    /// It was revoked.
    Revoked,
    /// A step that never ran: what it waited for has failed, or the job was revoked.
    Skipped,
}

/// What an ended job or step has come to.
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
/// Steps are named by their place: the first member of a group in a chain is a child of a child of
/// the job. They are known as long as the job runs; then its origin keeps its result only.
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

/// Where a step is in its job, for people: `[1][0]`.
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

    /// Indices of members from the job down to this step; empty for the job itself.
    pub fn path(&self) -> &[u32] {
        &self.path
    }

    /// Where it is now.
    ///
    /// # Errors
    /// [`JobError::Unknown`] if its origin does not know it, [`JobError::NoAnswer`] if the origin
    /// has said nothing for five seconds.
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

    /// The members of the form that this is: those of a group, the steps of a chain (a chord is a chain of
    /// its header and its body), the runs of a task on each node, or of what has replaced it. None of a task.
    ///
    /// # Errors
    /// [`JobError::NoStep`] if the job is over or has no such step, and as [`Job::state`].
    pub async fn children(&self) -> Result<Vec<Job>, JobError> {
        let members = self.step().await?.members;
        Ok((0..members).map(|index| self.at([&self.path[..], &[index]].concat())).collect())
    }

    /// What came before it in its chain: for a chain, what came before its last step. None if it is the
    /// first.
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

    /// The job as its first step, or the step that this is.
    ///
    /// # Errors
    /// As [`Job::children`].
    pub async fn step(&self) -> Result<StepView, JobError> {
        self.step_at(&self.path).await
    }

    /// What its tasks wait for: those of the whole job, or of this step. Of a job that has ended, nothing.
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
    /// [`JobError::NoStep`] if there is no such step, and as [`Job::state`].
    pub async fn why(&self) -> Result<Why, JobError> {
        let news = self.ask(&self.path, true).await?;
        if news.view.is_none() {
            // Of a job that is over its origin knows no steps.
            return match (self.path.is_empty(), self.at(Vec::new()).state().await?) {
                (true, state) if !matches!(state, JobStatus::Pending { .. }) => {
                    Ok(Why { job: self.id, groups: Vec::new() })
                }
                _ => Err(JobError::NoStep(self.id, self.path.clone())),
            };
        }
        let groups = match news.waiting {
            Some(waiting) => waiting.into_iter().map(WaitingGroup::new).collect(),
            // An older origin says it of one task at most.
            None => {
                let summary = self.node.summary(self.id, NO_ANSWER).await;
                let waits = summary.and_then(|job| job.waits);
                waits.into_iter().map(WaitingGroup::from).collect()
            }
        };
        Ok(Why { job: self.id, groups })
    }

    /// How a step is.
    async fn step_at(&self, path: &[u32]) -> Result<StepView, JobError> {
        let step = self.ask(path, false).await?.view.ok_or_else(|| JobError::NoStep(self.id, path.to_vec()))?;
        Ok(StepView::of(self.id, path, step))
    }

    /// Asks how a step is, and maybe why, again until there is an answer.
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
                        // Somebody else may ask for the same step, in the other way.
                        if news.view.is_none() || news.waiting.is_some() == why {
                            return Ok(news);
                        }
                        plain = Some(news).filter(|_| why);
                    }
                    _ => {}
                }
            }
            if let Some(news) = plain {
                // An older origin does not say why.
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

    /// How many of its tasks have ended, of how many; none once it is over. A step counts as one.
    ///
    /// # Errors
    /// As [`Job::state`].
    pub async fn progress(&self) -> Result<Option<(u32, u32)>, JobError> {
        Ok(match self.state().await? {
            JobStatus::Pending { done, total } => Some((done, total)),
            _ => None,
        })
    }

    /// Waits for the encoded result, as long as it takes: an origin that is away is asked again.
    ///
    /// # Errors
    /// [`JobError::Failed`], [`JobError::Revoked`] and [`JobError::Unknown`]; of a step [`JobError::NoStep`] when the job is over, or
    /// if the step never ran.
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

    /// Ends the whole job: tasks that have not run never will, running ones are stopped. Returns once its
    /// origin has confirmed that, with what the job has come to: it may have ended before.
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

    /// Runs the whole canvas of a failed or revoked job again, as a new job.
    ///
    /// # Errors
    /// If the job has succeeded, has not ended or is unknown, and as [`Job::state`].
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

    /// Everything that happens to it from now on.
    pub fn follow(&self) -> JobHandle {
        self.node.ask(Ask::Follow(self.id)).of(self.id)
    }
}

/// The jobs of all origins.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Listing {
    /// By origin, in order of their numbers.
    pub jobs: BTreeMap<NodeId, Vec<JobView>>,
    /// Origins that have not answered, or not completely.
    pub silent: BTreeSet<NodeId>,
}

/// Jobs and nodes of the cluster.
impl NodeHandle {
    /// A job by its id. Nothing is asked yet.
    pub fn job(&self, id: JobId) -> Job {
        Job { node: self.clone(), id, path: Vec::new() }
    }

    /// Asks all live nodes that hold jobs which ones, and waits this long for answers.
    pub async fn jobs(&self, wait: Duration) -> Listing {
        let mut events = self.listen();
        let me = self.name();
        let origins = self.query(move |node: &Node| {
            // One that is about to leave holds jobs, and takes no new ones.
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

    /// What the node that holds a job lists of it; none if it lists none of this id, or does not answer in this time.
    pub async fn summary(&self, id: JobId, wait: Duration) -> Option<JobView> {
        let mut events = self.listen();
        let end = time::Instant::now() + wait;
        while time::Instant::now() < end {
            // The page that begins with this job.
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

    /// Asks those that have not answered completely.
    async fn ask_all_jobs(&self, listing: &Listing) {
        for origin in &listing.silent {
            self.ask_jobs(listing, *origin).await;
        }
    }

    async fn ask_jobs(&self, listing: &Listing, origin: NodeId) {
        let after = listing.jobs.get(&origin).and_then(|jobs| jobs.last()).map(|last| last.id.number);
        self.command(Command::AskJobs { origin, after, max: PAGE }).await;
    }

    /// Takes nothing new, finishes what runs or hands it back after the time that the builder says, and
    /// leaves. Returns when the node has ended.
    pub async fn drain(self) {
        self.begin_drain();
        self.ended().await;
    }

    /// The same, without waiting: [`Event::Draining`], then the end of all events.
    pub fn begin_drain(&self) {
        self.drain_soon();
    }

    /// Asks another node to leave when it has finished, and waits until it has heard it. After `limit`, or the time that its
    /// operator has set, it hands back what it runs and leaves; jobs that it holds in memory are lost then.
    ///
    /// # Errors
    /// [`DrainError::Refused`] if the node takes no orders of others, [`DrainError::NoAnswer`].
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

    /// Tells all live nodes that take jobs that another node will not come back, so that submits with a key do not
    /// wait for it, and waits this long for their answers. Gives those that have not answered.
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
    /// Takes one page of an origin's jobs; `true` if there are more to ask for.
    fn take(&mut self, origin: NodeId, page: Vec<JobSummary>, more: bool) -> bool {
        let Some(jobs) = self.jobs.get_mut(&origin).filter(|_| self.silent.contains(&origin)) else {
            return false;
        };
        // A page may come twice, or late.
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
