//! The reasons why jobs wait, as text.

use broccoli_node::view::JobView;
use broccoli_node::{WaitingGroup, Waits};

/// Why no task of a job runs.
pub(crate) fn why(waits: &Waits) -> String {
    match WaitingGroup::from(waits.clone()) {
        WaitingGroup { function: Some(function), reason, .. } => format!("{function} {reason}"),
        WaitingGroup { reason, .. } => format!("the job {reason}"),
    }
}

/// A job in one line: its id and its function, or why it waits.
pub(crate) fn job(job: &JobView) -> String {
    let id = job.id;
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
}
