//! Jobs that are known by their id, whoever has submitted them, and nodes that are asked to leave.
//!
//! Nothing is kept here: each question goes to the job's origin, and silence is never taken for an
//! answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broccoli_core::Node;
use broccoli_proto::message::{JobNews, JobSummary, Vitals};
use broccoli_proto::{Cause, Cbor, JobId, NodeId, TaskError};
use tokio::time;

use crate::driver::{Ask, Command, JobUpdate, NodeEvent};
use crate::handle::{JobError, JobHandle, NodeHandle, decode};
use crate::native::Value;

/// A question that may have been lost is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Jobs in one answer.
const PAGE: u16 = 256;

/// What a submit may ask for beside its canvas.
///
/// ```
/// # use broccoli_node::SubmitOptions;
/// let options = SubmitOptions::default().key("report of 2026-11-20").detached();
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmitOptions {
    pub(crate) key: Option<String>,
    pub(crate) detached: bool,
}

impl SubmitOptions {
    /// What the submit is called, 1 to 128 bytes: another one with the same key, from anywhere, is the
    /// same job for as long as its origin remembers it. So a submit whose answer was lost can be repeated.
    pub fn key(mut self, key: impl Into<String>) -> SubmitOptions {
        self.key = Some(key.into());
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
}

/// A job of the cluster. Made by [`NodeHandle::job`].
///
/// ```no_run
/// # async fn example(node: broccoli_node::NodeHandle, canvas: broccoli_node::proto::Canvas) -> Result<(), broccoli_node::JobError> {
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
}

impl Job {
    /// Its id, which stays the same when its origin restarts.
    pub fn id(&self) -> JobId {
        self.id
    }

    /// Where it is now.
    ///
    /// # Errors
    /// [`JobError::Unknown`] if its origin does not know it, [`JobError::NoAnswer`] if the origin
    /// has said nothing for five seconds.
    pub async fn state(&self) -> Result<JobStatus, JobError> {
        let mut updates = self.follow();
        loop {
            match updates.next().await.ok_or(JobError::Stopped)? {
                JobUpdate::News(JobNews::Progress { done, total }) => return Ok(JobStatus::Pending { done, total }),
                JobUpdate::News(JobNews::Ended(Ok(value))) => return Ok(JobStatus::Succeeded(value)),
                JobUpdate::News(JobNews::Ended(Err(error))) if error.cause == Cause::Revoked => {
                    return Ok(JobStatus::Revoked);
                }
                JobUpdate::News(JobNews::Ended(Err(error))) => return Ok(JobStatus::Failed(error)),
                JobUpdate::News(JobNews::Unknown) => return Err(JobError::Unknown(self.id)),
                JobUpdate::Refused(refusal) => return Err(JobError::Refused(refusal)),
                JobUpdate::NoAnswer(node) => return Err(JobError::NoAnswer(node)),
                JobUpdate::Accepted(_) | JobUpdate::QueueFull(_) | JobUpdate::News(_) => {}
            }
        }
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// As [`Job::state`].
    pub async fn ready(&self) -> Result<bool, JobError> {
        Ok(!matches!(self.state().await?, JobStatus::Pending { .. }))
    }

    /// How many of its tasks have ended, of how many; none once it is over.
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
    /// [`JobError::Failed`] and [`JobError::Unknown`].
    pub async fn result(&self) -> Result<Cbor, JobError> {
        match self.follow().result().await {
            Err(JobError::Lost) => Err(JobError::Unknown(self.id)),
            ended => ended,
        }
    }

    /// Waits for the result as a value of this type.
    ///
    /// # Errors
    /// As [`Job::result`], and [`JobError::Type`].
    pub async fn get<T: Value>(&self) -> Result<T, JobError> {
        decode(self.result().await?)
    }

    /// Ends it: tasks that have not run never will, running ones are stopped. Returns once its
    /// origin has confirmed that, with what the job has come to: it may have ended before.
    ///
    /// # Errors
    /// As [`Job::state`].
    pub async fn revoke(&self) -> Result<JobStatus, JobError> {
        let mut updates = self.node.ask(Ask::Revoke(self.id));
        loop {
            let status = match updates.next().await.ok_or(JobError::Stopped)? {
                JobUpdate::News(JobNews::Ended(Ok(value))) => JobStatus::Succeeded(value),
                JobUpdate::News(JobNews::Ended(Err(error))) if error.cause == Cause::Revoked => JobStatus::Revoked,
                JobUpdate::News(JobNews::Ended(Err(error))) => JobStatus::Failed(error),
                JobUpdate::News(JobNews::Unknown) => return Err(JobError::Unknown(self.id)),
                JobUpdate::Refused(refusal) => return Err(JobError::Refused(refusal)),
                JobUpdate::NoAnswer(node) => return Err(JobError::NoAnswer(node)),
                JobUpdate::Accepted(_) | JobUpdate::QueueFull(_) | JobUpdate::News(_) => continue,
            };
            return Ok(status);
        }
    }

    /// Runs the canvas of a failed or revoked job again, as a new job.
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
                JobUpdate::QueueFull(_) | JobUpdate::News(_) => {}
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
pub struct Listing {
    /// By origin, in order of their numbers.
    pub jobs: BTreeMap<NodeId, Vec<JobSummary>>,
    /// Origins that have not answered, or not completely.
    pub silent: BTreeSet<NodeId>,
}

/// Jobs and nodes of the cluster.
impl NodeHandle {
    /// A job by its id. Nothing is asked yet.
    pub fn job(&self, id: JobId) -> Job {
        Job { node: self.clone(), id }
    }

    /// Asks all live nodes that hold jobs which ones, and waits this long for answers.
    pub async fn jobs(&self, wait: Duration) -> Listing {
        let mut events = self.listen();
        let me = self.name();
        let origins = self.query(move |node: &Node| {
            let holds = |name, resident, durable: Option<bool>| name != me && (resident || durable == Some(true));
            let live = node.members().filter(|(_, member)| member.alive);
            live.filter(|(name, m)| holds(*name, m.birth.resident, m.birth.durable)).map(|(name, _)| name).collect()
        });
        let silent: BTreeSet<NodeId> = origins.await.unwrap_or_default();
        let jobs = silent.iter().map(|origin| (*origin, Vec::new())).collect();
        let mut listing = Listing { jobs, silent };
        listing.silent.iter().for_each(|origin| self.ask_jobs(&listing, *origin));
        let end = time::Instant::now() + wait;
        let mut again = time::Instant::now() + ASK_AGAIN;
        while !listing.silent.is_empty() {
            match time::timeout_at(end.min(again), events.recv()).await {
                Ok(Some(NodeEvent::Jobs(origin, page))) => {
                    if listing.take(origin, page.jobs, page.more) {
                        self.ask_jobs(&listing, origin);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) if time::Instant::now() >= end => break,
                Err(_) => {
                    again = time::Instant::now() + ASK_AGAIN;
                    listing.silent.iter().for_each(|origin| self.ask_jobs(&listing, *origin));
                }
            }
        }
        listing
    }

    fn ask_jobs(&self, listing: &Listing, origin: NodeId) {
        let after = listing.jobs.get(&origin).and_then(|jobs| jobs.last()).map(|last| last.number);
        self.command(Command::AskJobs { origin, after, max: PAGE });
    }

    /// Takes nothing new, finishes what runs or hands it back after the time that the builder says, and
    /// leaves. Returns when the node has ended.
    pub async fn drain(self) {
        self.begin_drain();
        self.ended().await;
    }

    /// The same, without waiting: [`NodeEvent::Draining`], then the end of all events.
    pub fn begin_drain(&self) {
        self.command(Command::Drain);
    }

    /// Asks another node to leave when it has finished, and waits until it has heard it.
    ///
    /// # Errors
    /// [`JobError::Refused`] if the node takes no orders of others, [`JobError::NoAnswer`].
    pub async fn drain_node(&self, name: NodeId) -> Result<Vitals, JobError> {
        let mut events = self.listen();
        let mut updates = self.ask(Ask::Drain(name));
        loop {
            tokio::select! {
                event = events.recv() => match event.ok_or(JobError::Stopped)? {
                    NodeEvent::Vitals(node, vitals) if node == name && vitals.draining == Some(true) => return Ok(vitals),
                    _ => {}
                },
                update = updates.next() => match update {
                    Some(JobUpdate::Refused(refusal)) => return Err(JobError::Refused(refusal)),
                    Some(JobUpdate::NoAnswer(node)) => return Err(JobError::NoAnswer(node)),
                    Some(_) => {}
                    None => return Err(JobError::Stopped),
                },
            }
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
        let last = jobs.last().map(|job| job.number);
        let is_next = page.first().is_none_or(|first| last.is_none_or(|last| first.number > last));
        if !is_next {
            return false;
        }
        jobs.extend(page);
        if !more {
            self.silent.remove(&origin);
        }
        more
    }
}
