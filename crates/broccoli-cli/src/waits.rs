//! Why jobs wait, in words.

use broccoli_node::proto::message::{JobSummary, Waits};
use broccoli_node::proto::{JobId, NodeId};

use crate::output;

/// Why no task of a job runs.
pub(crate) fn why(waits: &Waits) -> String {
    match waits {
        Waits::NoNode { function, missing, nodes } => no_node(function, missing, *nodes),
        Waits::Rate { function } => format!("{function} waits for its rate"),
        Waits::Until { function, ms: Some(ms), again: false } => format!("{function} is to wait {} more", span(*ms)),
        Waits::Until { function, ms: Some(ms), again: true } => {
            format!("{function} has failed and is tried again in {}", span(*ms))
        }
        Waits::Until { function, ms: None, .. } => {
            format!("{function} waits for a time of day, which its node does not know")
        }
        Waits::Slots { function, waiting } => {
            let waiting = output::count(*waiting as usize, "task");
            format!("{function} waits for a free slot ({waiting} in the queue)")
        }
        Waits::Larger { function } => format!("{function} waits for a node that is large enough"),
        Waits::Nodes => "it waits for the nodes that it runs on".to_owned(),
    }
}

/// That no live node can run a function, for want of these parts of its routing.
pub(crate) fn no_node(function: &str, missing: &[String], nodes: u32) -> String {
    let named = |one: &String| if one.contains('=') { format!("the label {one}") } else { one.clone() };
    let missing: Vec<String> = missing.iter().map(named).collect();
    let nodes = output::count(nodes as usize, "node");
    match missing.as_slice() {
        [] => format!("{function} waits: no live node can run it ({nodes})"),
        missing => format!("{function} waits: no live node has {} ({nodes})", missing.join(" and ")),
    }
}

/// A job as its node lists it: its id, its function, and why it waits.
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
