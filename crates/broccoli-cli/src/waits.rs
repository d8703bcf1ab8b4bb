//! The reasons why jobs wait, as text.

use broccoli_node::proto::message::{JobSummary, Waits};
use broccoli_node::proto::{JobId, NodeId};

use crate::output;

/// Why no task of a job runs.
pub(crate) fn why(waits: &Waits) -> String {
    match waits {
        Waits::NoNode { function, missing, nodes } => no_node(function, missing, *nodes),
        Waits::Rate { function } => format!("{function} waits for its rate limit"),
        Waits::Until { function, ms: Some(ms), again: false } => format!("{function} waits another {}", span(*ms)),
        Waits::Until { function, ms: Some(ms), again: true } => {
            format!("{function} failed and is retried in {}", span(*ms))
        }
        Waits::Until { function, ms: None, .. } => {
            format!("{function} waits for a time of day, but its node does not know the time")
        }
        Waits::Slots { function, waiting } => {
            let waiting = output::count(*waiting as usize, "task");
            format!("{function} waits for a free slot ({waiting} in the queue)")
        }
        Waits::Larger { function } => format!("{function} waits for a node that is large enough"),
        Waits::Nodes => "the job waits for the nodes that it runs on".to_owned(),
    }
}

/// The reason that no live node can run a function, with the labels and nodes that are missing.
pub(crate) fn no_node(function: &str, missing: &[String], nodes: u32) -> String {
    let named = |one: &String| if one.contains('=') { format!("the label {one}") } else { one.clone() };
    let missing: Vec<String> = missing.iter().map(named).collect();
    let nodes = output::count(nodes as usize, "node");
    match missing.as_slice() {
        [] => format!("{function} waits: no live node can run it ({nodes})"),
        missing => format!("{function} waits: no live node has {} ({nodes})", missing.join(" and ")),
    }
}

/// A job in one line: its id and its function, or why it waits.
pub(crate) fn job(origin: NodeId, job: &JobSummary) -> String {
    let id = JobId { origin, number: job.number };
    match &job.waits {
        Some(waits) => format!("{id}: {}", why(waits)),
        None => format!("{id}: {}", job.name),
    }
}

/// `340ms`, `42s`, `7m`, `3h`, `12d`.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}s", ms / 1_000),
        60_000..3_600_000 => format!("{}m", ms / 60_000),
        3_600_000..86_400_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        assert_eq!([999, 59_000, 120_000, 7_200_000, 90_000_000].map(span), ["999ms", "59s", "2m", "2h", "1d"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = |missing: &[&str]| {
            no_node("tasks.add", &missing.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>(), 3)
        };
        assert_eq!(text(&["room=kitchn"]), "tasks.add waits: no live node has the label room=kitchn (3 nodes)");
        assert_eq!(
            text(&["room=attic", "led"]),
            "tasks.add waits: no live node has the label room=attic and led (3 nodes)"
        );
        assert_eq!(text(&[]), "tasks.add waits: no live node can run it (3 nodes)");
    }
}
