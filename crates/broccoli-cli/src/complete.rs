//! Shell completions with names that only the cluster knows.
//!
//! This module limits the time and never prints an error, because a key press must neither hang nor write over the
//! command line.

use std::ffi::OsStr;
use std::time::Duration;

use broccoli_node::JobState;
use broccoli_node::name::is_label;
use broccoli_node::view::{ClusterView, JobView};
use clap_complete::CompletionCandidate;
use tokio::time::timeout;

use crate::connect::{Common, Session};
use crate::output::plain;

/// Maximum time for an answer. People notice a longer wait.
const ANSWER_MAX: Duration = Duration::from_millis(250);
/// The part of this time for meeting the nodes.
const MEET_MAX: Duration = Duration::from_millis(100);
/// The part of this time for the lists of jobs.
const JOBS_MAX: Duration = Duration::from_millis(150);

/// Functions, with the names that a user would type.
pub(crate) fn functions() -> Vec<CompletionCandidate> {
    let view = ask(async |session| session.node.view().await).flatten();
    candidates(view.map(|view| typed_functions(&view)).unwrap_or_default())
}

fn typed_functions(view: &ClusterView) -> Vec<(String, String)> {
    let named = |name: &str| view.functions().filter(|(_, function)| function.name == name).count();
    let typed =
        |module: &str, name: &str, is_full: bool| if is_full { format!("{module}.{name}") } else { name.into() };
    let listed = view.functions().map(|(module, function)| {
        let is_full = module.is_builtin() || named(&function.name) > 1;
        (typed(&module.name, &function.name, is_full), function.to_string())
    });
    listed.collect()
}

/// Nodes, without clients.
pub(crate) fn nodes() -> Vec<CompletionCandidate> {
    candidates(members().into_iter().map(|(name, labels)| (name, labels.join(" "))).collect())
}

/// Nodes, labels and capabilities.
pub(crate) fn places() -> Vec<CompletionCandidate> {
    let mut places = Vec::new();
    for (name, labels) in members() {
        places.extend(labels.into_iter().filter(|label| is_label(label)).map(|label| (label, "label".to_owned())));
        places.push((name, "node".to_owned()));
    }
    places.sort();
    places.dedup();
    candidates(places)
}

/// All jobs.
pub(crate) fn jobs() -> Vec<CompletionCandidate> {
    candidates(listed_jobs(|_| true))
}

/// Jobs that can be cancelled.
pub(crate) fn jobs_that_run() -> Vec<CompletionCandidate> {
    candidates(listed_jobs(|job| matches!(job.state, JobState::Queued | JobState::Running)))
}

/// Jobs that can be run again.
pub(crate) fn jobs_that_failed() -> Vec<CompletionCandidate> {
    candidates(listed_jobs(|job| matches!(job.state, JobState::Failed | JobState::Revoked)))
}

fn listed_jobs(wanted: impl Fn(&JobView) -> bool) -> Vec<(String, String)> {
    let Some(listing) = ask(async |session| session.node.jobs(JOBS_MAX).await) else { return Vec::new() };
    let jobs = listing.jobs.into_values().flatten().filter(wanted);
    jobs.map(|job| (job.id.to_string(), job.name)).collect()
}

/// Names and labels of all nodes, without clients.
fn members() -> Vec<(String, Vec<String>)> {
    let view = ask(async |session| session.node.view().await).flatten();
    let online = view.into_iter().flat_map(|view| view.nodes).filter(|node| node.is_online());
    let nodes = online.filter_map(|node| Some((node.name, node.about?)));
    let nodes = nodes.filter(|(_, about)| about.slots > 0 || about.is_resident);
    nodes.map(|(name, about)| (name.to_string(), about.labels)).collect()
}

/// Names with their descriptions, which other people wrote.
fn candidates(named: Vec<(String, String)>) -> Vec<CompletionCandidate> {
    let candidate = |(name, about): (String, String)| CompletionCandidate::new(name).help(Some(plain(&about).into()));
    named.into_iter().map(candidate).collect()
}

/// Asks the cluster of the incomplete command line. Returns `None` if it does not answer in time.
fn ask<T>(question: impl AsyncFnOnce(&Session) -> T) -> Option<T> {
    let words: Vec<_> = std::env::args_os().collect();
    let told = |name: &str| {
        let at = words.iter().position(|word| word.as_os_str() == OsStr::new(name))?;
        words.get(at + 1).cloned()
    };
    let common = Common::named(told("--cluster"), told("--server")).with_environment().ok()?;
    let answer = async {
        let session = common.open().await.ok()?;
        // Nodes that have not answered by then are left out.
        let _ = timeout(MEET_MAX, session.meet_all()).await;
        let answer = question(&session).await;
        session.close().await;
        Some(answer)
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { timeout(ANSWER_MAX, answer).await }).ok().flatten()
}
