//! Shell completions with names that only the cluster knows.
//!
//! This module limits the time and never prints an error, because a key press must neither hang nor write over the
//! command line.

use std::ffi::OsStr;
use std::time::Duration;

use broccoli_node::abi::builtin::is_builtin;
use broccoli_node::core::Node;
use broccoli_node::proto::JobId;
use broccoli_node::proto::message::{JobState, JobSummary};
use broccoli_node::proto::options::is_label;
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
    let listed = ask(async |session| {
        let listed = session.node.query(|node: &Node| {
            let modules = node.functions();
            let named =
                |name: &str| modules.values().flat_map(|(_, all)| all.iter()).filter(|f| f.name == name).count();
            let of_module = |(module, (_, functions)): (&&str, &(u64, &broccoli_node::abi::Functions))| {
                let typed = |name: &str| match is_builtin(module) || named(name) > 1 {
                    true => format!("{module}.{name}"),
                    false => name.to_owned(),
                };
                functions.iter().map(|f| (typed(&f.name), f.to_string())).collect::<Vec<_>>()
            };
            modules.iter().flat_map(of_module).collect::<Vec<_>>()
        });
        listed.await
    });
    candidates(listed.flatten().unwrap_or_default())
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

fn listed_jobs(wanted: impl Fn(&JobSummary) -> bool) -> Vec<(String, String)> {
    let Some(listing) = ask(async |session| session.node.jobs(JOBS_MAX).await) else { return Vec::new() };
    let jobs = listing.jobs.into_iter().flat_map(|(origin, jobs)| jobs.into_iter().map(move |job| (origin, job)));
    let row = |(origin, job): (_, JobSummary)| (JobId { origin, number: job.number }.to_string(), job.name);
    jobs.filter(|(_, job)| wanted(job)).map(row).collect()
}

/// Names and labels of all nodes, without clients.
fn members() -> Vec<(String, Vec<String>)> {
    let members = ask(async |session| {
        let members = session.node.query(|node: &Node| {
            let nodes = node.members().filter(|(_, member)| member.alive);
            let nodes = nodes.filter(|(_, member)| member.birth.slots > 0 || member.birth.resident);
            nodes.map(|(name, member)| (name.to_string(), member.birth.features.clone())).collect::<Vec<_>>()
        });
        members.await
    });
    members.flatten().unwrap_or_default()
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
