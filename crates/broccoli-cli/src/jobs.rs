//! Follows a job until its result.
//!
//! This module decides what the user sees meanwhile, and how the wait ends: with the result, at a time limit, or with
//! Ctrl-C, which cancels the job if it was submitted here.

use std::future::pending;
use std::time::Duration;

use broccoli_node::json::{self, Lossy};
use broccoli_node::view::NodeView;
use broccoli_node::{
    Canvas, Cbor, Event, JobError, JobHandle, JobId, JobNews, JobUpdate, NodeEvent, NodeId, Refusal, SubmitOptions,
    Waits,
};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::advice::Advised;
use crate::connect::Session;
use crate::duration;
use crate::exit::Failure;
use crate::function;
use crate::output::{self, Progress};
use crate::signals::Signals;
use crate::waits::{self, span};

/// Maximum time to wait for the cancellation of a job.
const CANCEL_MAX: Duration = Duration::from_secs(2);
/// After this time the command asks why the job waits …
const WHY_AFTER: Duration = Duration::from_millis(500);
/// … and waits this long for the answer of its node.
const WHY_MAX: Duration = Duration::from_millis(300);
/// After this time the progress bar is shown.
const BAR_AFTER: Duration = Duration::from_secs(1);
/// Time between two updates of the progress bar.
const BAR_EVERY: Duration = Duration::from_millis(100);

/// Checks a canvas here, so that errors are reported before anything runs.
///
/// # Errors
/// Exit code 2, with the reason why a node would refuse the canvas.
pub(crate) async fn check(session: &Session, canvas: &Canvas) -> Result<(), Failure> {
    if function::check(&session.node, canvas).await?.is_ok() {
        return Ok(());
    }
    // A node that has not answered yet may have the function.
    session.meet_all().await;
    function::check(&session.node, canvas).await?.map_err(Failure::usage)
}

/// Submits a checked canvas and waits for its result, at most for the time `limit`.
///
/// # Errors
/// If the job fails, is refused or lost, or if the wait ends without a result.
pub(crate) async fn result(
    session: &mut Session,
    canvas: Canvas,
    options: SubmitOptions,
    limit: Option<Duration>,
) -> Result<Cbor, Failure> {
    let job = session.node.submit_with(canvas, options);
    follow(session, job, limit, OnInterrupt::Cancel).await
}

/// What Ctrl-C does to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnInterrupt {
    /// It is cancelled.
    Cancel,
    /// It continues.
    GoOn,
}

/// Waits for the result of a job, at most for the time `limit`.
///
/// # Errors
/// As [`result`].
pub(crate) async fn follow(
    session: &mut Session,
    mut job: JobHandle,
    limit: Option<Duration>,
    on_interrupt: OnInterrupt,
) -> Result<Cbor, Failure> {
    let asked = job.id().filter(|_| on_interrupt == OnInterrupt::GoOn);
    let mut view = View { started: Instant::now(), progress: Progress::new(), asked, why_told: false };
    let end = limit.map(|limit| view.started + limit);
    let mut signals = Signals::of_command()?;
    let mut next_bar = view.started + BAR_AFTER;
    let outcome = loop {
        tokio::select! {
            update = job.next() => match view.on_update(session, update) {
                Some(outcome) => break outcome,
                None => continue,
            },
            event = session.event() => {
                if let (Some(NodeEvent::Cluster(Event::Member(node))), Some(id)) = (&event, job.id())
                    && *node == id.origin
                    && is_gone(session, *node).await
                {
                    view.note(format!("{node} holds the job and is offline: waiting until it is back"));
                }
                view.on_event(event);
            }
            () = signals.next() => break Err(match on_interrupt {
                OnInterrupt::Cancel => cancel(&mut job).await,
                OnInterrupt::GoOn => Failure::interrupted("interrupted: the job continues"),
            }),
            limit = reached(end, limit) => break Err(out_of_time(&job, limit)),
            () = sleep_until(view.started + WHY_AFTER), if !view.why_told && job.id().is_some() => {
                view.why_told = true;
                let Some(id) = job.id() else { continue };
                let summary = session.node.summary(id, WHY_MAX).await;
                if let Some(waits) = summary.and_then(|job| job.waits) {
                    view.note(waits::why(&waits));
                }
            }
            () = sleep_until(next_bar), if view.progress.is_visible() => {
                view.progress.draw(view.started.elapsed());
                next_bar = Instant::now() + BAR_EVERY;
            }
        }
    };
    view.progress.clear();
    outcome
}

/// A result as JSON on one line. A note tells the user if the JSON contains a substitute for a value that JSON cannot
/// express. This is not an error: the job has succeeded.
///
/// # Errors
/// If the result is not a value.
pub(crate) fn as_json(result: &Cbor) -> Result<String, Failure> {
    let Lossy { json, lost } = json::to_json_lossy(result).map_err(Failure::failed)?;
    if let Some(lost) = lost {
        output::note(format_args!("{lost}: {}", lost.stand_in()));
    }
    Ok(json)
}

/// The failure of a request about a job by its id.
pub(crate) fn failure(error: JobError) -> Failure {
    match error {
        JobError::Unknown(_) => Failure::unknown(error),
        JobError::NoAnswer(_) => Failure::unreachable(Advised(&error)),
        JobError::Refused(Refusal::NotRetriable(_)) => Failure::usage(error),
        error => Failure::failed(Advised(&error)),
    }
}

/// The failure when a canvas was refused.
pub(crate) fn refused(refusal: Refusal) -> Failure {
    let error = JobError::Refused(refusal);
    match &error {
        JobError::Refused(Refusal::BadCanvas(_)) => Failure::usage(error),
        JobError::Refused(Refusal::Unsure(_)) => Failure::unsure(Advised(&error)),
        _ => Failure::failed(error),
    }
}

/// The message when no node can write its journal.
pub(crate) fn cannot_store(node: NodeId, why: &str) -> String {
    format!("{node} cannot write its journal: {why}; waiting until it or another node with a journal can")
}

/// Checks that the origin of a job is online, so that the command does not wait for ever.
///
/// # Errors
/// Exit code 3 if it is offline.
pub(crate) async fn check_origin(session: &Session, job: JobId) -> Result<(), Failure> {
    let origin = job.origin;
    if session.is_online(origin).await {
        return Ok(());
    }
    session.meet_all().await;
    if session.is_online(origin).await {
        return Ok(());
    }
    Err(Failure::unreachable(format_args!(
        "{origin}, which should hold job {job}, is offline: start it again, or check the id with `broccoli jobs`"
    )))
}

async fn is_gone(session: &Session, node: NodeId) -> bool {
    let view = session.node.view().await;
    view.as_ref().and_then(|view| view.node(node)).is_some_and(|node: &NodeView| !node.is_online())
}

async fn reached(end: Option<Instant>, limit: Option<Duration>) -> Duration {
    match (end, limit) {
        (Some(end), Some(limit)) => {
            sleep_until(end).await;
            limit
        }
        _ => pending().await,
    }
}

fn out_of_time(job: &JobHandle, limit: Duration) -> Failure {
    let limit = duration::print(limit);
    Failure::timed_out(match job.id() {
        Some(id) => format!("no result within {limit}: job {id} continues; get its result with `broccoli result ID`"),
        None => format!("no node has accepted the job within {limit}; see `broccoli nodes`"),
    })
}

/// Cancels the job, and waits a short time for its end.
async fn cancel(job: &mut JobHandle) -> Failure {
    let end = Instant::now() + CANCEL_MAX;
    job.revoke().await;
    Failure::interrupted(match timeout_at(end, job.result()).await {
        Ok(Err(JobError::LeftToOthers)) => "interrupted: the job continues, because others wait for it",
        Ok(_) => "interrupted: the job is cancelled",
        Err(_) => "interrupted: cancellation requested, but no node has confirmed it",
    })
}

/// The message when a job waits because the only node is shutting down.
pub(crate) fn only_leaving(node: NodeId) -> String {
    format!("the only node, {node}, is shutting down and takes no new jobs: waiting for another node")
}

/// The output about a job while the user waits.
struct View {
    started: Instant,
    progress: Progress,
    /// A job that was not submitted here.
    asked: Option<JobId>,
    /// The user knows why the job waits, or does not need to know.
    why_told: bool,
}

impl View {
    /// Shows news of the job. Returns its outcome when it has ended.
    fn on_update(&mut self, session: &Session, update: Option<JobUpdate>) -> Option<Result<Cbor, Failure>> {
        match update {
            Some(JobUpdate::Accepted(job)) => {
                tracing::debug!(target: "broccoli::job", node = %session.node.name(), %job, "job submitted");
                None
            }
            Some(JobUpdate::News(news)) => self.on_news(news),
            Some(JobUpdate::QueueFull(node)) => {
                self.note(format!("queue full at {node}: waiting for room"));
                None
            }
            Some(JobUpdate::OnlyLeaving(node)) => {
                self.note(only_leaving(node));
                None
            }
            Some(JobUpdate::NoAnswer(node)) => {
                self.note(format!("no answer from {node} for 5 s: asking again"));
                None
            }
            Some(JobUpdate::CannotStore(node, why)) => {
                self.note(cannot_store(node, &why));
                None
            }
            Some(JobUpdate::Refused(refusal)) => Some(Err(refused(refusal))),
            Some(JobUpdate::TooManyRequests) => Some(Err(Failure::failed(JobError::TooManyRequests))),
            Some(_) => None,
            None => Some(Err(Failure::failed(JobError::Stopped))),
        }
    }

    fn on_news(&mut self, news: JobNews) -> Option<Result<Cbor, Failure>> {
        match news {
            JobNews::Progress { done, total } => self.progress.set(done, total),
            JobNews::Logged { node, function, task, text } => self.note(format!("[{node} {function} #{task}] {text}")),
            JobNews::TaskProgress { node, function, task, done, total: 0 } => {
                self.note(format!("[{node} {function} #{task}] {done} done"));
            }
            JobNews::TaskProgress { node, function, task, done, total } => {
                self.note(format!("[{node} {function} #{task}] {done} of {total}"));
            }
            JobNews::NoNode { function, on, nodes } => {
                self.why_told = true;
                self.note(waits::why(&Waits::NoNode { function, missing: on, nodes }));
            }
            JobNews::CallbackFailed(error) => self.note(format!("a callback failed: {error}")),
            JobNews::Retried { error, again_ms } => {
                let again = if again_ms == 0 { "now".into() } else { format!("in {}", span(again_ms)) };
                self.note(format!("{error}; retrying {again}"));
            }
            JobNews::Ended(outcome) => return Some(outcome.map_err(Failure::failed)),
            // This arrives only after an interrupt, when the wait has ended.
            JobNews::GoesOn => {}
            JobNews::Unknown => {
                return Some(Err(match self.asked {
                    Some(job) => Failure::unknown(JobError::Unknown(job)),
                    None => Failure::failed(JobError::Lost),
                }));
            }
        }
        None
    }

    fn on_event(&mut self, event: Option<NodeEvent>) {
        match event {
            Some(NodeEvent::Disconnected(reason)) => self.note(format!("{reason}; the job continues, reconnecting")),
            Some(NodeEvent::Connected) => self.note("connected again".into()),
            // When the client ends, the news of the job ends, too.
            _ => {}
        }
    }

    fn note(&mut self, line: String) {
        self.progress.clear();
        output::note(line);
    }
}
