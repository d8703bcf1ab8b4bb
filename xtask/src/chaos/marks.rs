//! The marks that workers write about their runs, and the times derived from them.
//!
//! Times are microseconds since 1970, by the clock of this machine. This module never talks to the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Result;

/// A task that starts this much later than a task behind it was held up.
const HELD_UP_US: u64 = 100_000;

/// One run of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Name of the worker.
    pub(crate) worker: String,
    /// Number of the task.
    pub(crate) task: usize,
    /// When it started.
    pub(crate) start_us: u64,
    /// Whether it has ended.
    pub(crate) ended: bool,
}

/// All runs so far, in the order of their start.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<Run>);

impl Marks {
    /// Reads the files of all workers. A line that is just being written is left out.
    ///
    /// # Errors
    /// A file cannot be read or holds something else.
    pub(crate) fn read(dir: &Path) -> Result<Marks> {
        let mut runs = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| error.to_string())? {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((worker, _)) = name.rsplit_once('-').filter(|_| !name.starts_with("flaky-")) else { continue };
            let text = fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let bad = || format!("{} holds something else than marks", path.display());
            add(&mut runs, worker, &text).ok_or_else(bad)?;
        }
        runs.sort_by_key(|run| run.start_us);
        Ok(Marks(runs))
    }

    /// How many of the tasks with these numbers have ended. Each counts once.
    pub(crate) fn done(&self, tasks: Range<usize>) -> usize {
        let ended = self.0.iter().filter(|run| run.ended && tasks.contains(&run.task));
        ended.map(|run| run.task).collect::<BTreeSet<_>>().len()
    }

    /// Whether a worker has ended a run.
    pub(crate) fn has_worked(&self, worker: &str) -> bool {
        self.0.iter().any(|run| run.ended && run.worker == worker)
    }

    /// How many runs there were beyond the first of each task.
    pub(crate) fn repeated(&self) -> usize {
        self.0.len() - self.0.iter().map(|run| run.task).collect::<BTreeSet<_>>().len()
    }

    /// Seconds from `since_us` until the last task that the fault of `victim` held up has started. A task was held up
    /// if another worker starts it again, or if it starts later than tasks behind it. 0 if there was none. Runs that
    /// the victim repeats when it is back do not count, because no task waits for them.
    pub(crate) fn recovered_after(&self, victim: &str, since_us: u64) -> f64 {
        let (mut of_victim, mut of_others) = (BTreeMap::new(), BTreeMap::new());
        // In reverse, so that the earliest start of each task is kept.
        for run in self.0.iter().rev() {
            let starts = if run.worker == victim { &mut of_victim } else { &mut of_others };
            starts.insert(run.task, run.start_us);
        }
        let tasks: BTreeSet<usize> = of_victim.keys().chain(of_others.keys()).copied().collect();
        let (mut behind_us, mut recovered_us) = (u64::MAX, since_us);
        for task in tasks.into_iter().rev() {
            let (torn_us, other_us) = (of_victim.get(&task).copied(), of_others.get(&task).copied());
            let starts_us = other_us.or(torn_us).unwrap_or(u64::MAX);
            let again = torn_us.zip(other_us).is_some_and(|(torn_us, other_us)| torn_us < other_us);
            if starts_us >= since_us && (again || starts_us > behind_us.saturating_add(HELD_UP_US)) {
                recovered_us = recovered_us.max(starts_us);
            }
            behind_us = behind_us.min(torn_us.unwrap_or(u64::MAX)).min(starts_us);
        }
        seconds(since_us, recovered_us)
    }

    /// Seconds from `since_us` until each of these workers has started a run; `None` if one never does.
    pub(crate) fn all_work_after(&self, workers: &[String], since_us: u64) -> Option<f64> {
        let first = |name: &String| self.starts(name).find(|start_us| *start_us >= since_us);
        let last_us = workers.iter().map(first).collect::<Option<Vec<_>>>()?.into_iter().max()?;
        Some(seconds(since_us, last_us))
    }

    /// The longest time in seconds between two starts of one of these workers, beginning with the last start before
    /// `since_us`.
    pub(crate) fn longest_pause(&self, workers: &[String], since_us: u64) -> f64 {
        let pause = |name: &String| {
            let starts: Vec<u64> = self.starts(name).collect();
            let after = starts.windows(2).filter(|pair| pair[1] > since_us);
            after.map(|pair| seconds(pair[0], pair[1])).fold(0.0, f64::max)
        };
        workers.iter().map(pause).fold(0.0, f64::max)
    }

    /// How many runs a worker has ended.
    pub(crate) fn runs_of(&self, worker: &str) -> usize {
        self.0.iter().filter(|run| run.ended && run.worker == worker).count()
    }

    fn starts(&self, worker: &str) -> impl Iterator<Item = u64> {
        self.0.iter().filter(move |run| run.worker == worker).map(|run| run.start_us)
    }
}

/// The runs that one process has written.
fn add(runs: &mut Vec<Run>, worker: &str, text: &str) -> Option<()> {
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let mut words = line.split(' ');
        let (kind, task, us) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        match kind {
            "S" => {
                open.insert(task, runs.len());
                runs.push(Run { worker: worker.to_owned(), task, start_us: us, ended: false });
            }
            "E" => runs.get_mut(open.remove(&task)?)?.ended = true,
            _ => return None,
        }
    }
    Some(())
}

/// Now, in microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

fn seconds(from_us: u64, to_us: u64) -> f64 {
    to_us.saturating_sub(from_us) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(files: &[(&str, &str)]) -> Marks {
        let mut runs = Vec::new();
        for (worker, text) in files {
            add(&mut runs, worker, text).expect("marks");
        }
        runs.sort_by_key(|run| run.start_us);
        Marks(runs)
    }

    #[test]
    fn a_killed_run_and_its_repetition_are_counted() {
        let marks = marks(&[
            ("a", "S 0 1000\nE 0 2000\nS 2 2000\nE"),
            ("b", "S 1 1000\nE 1 2000\nS 3 2000000\nE 3 2100000\nS 2 2500000\nE 2 2600000\n"),
        ]);
        assert_eq!((marks.done(0..4), marks.repeated()), (4, 1));
        assert_eq!(marks.recovered_after("a", 500_000), 2.0);
        assert_eq!(marks.longest_pause(&["b".into()], 500_000), 1.999);
        assert_eq!(marks.all_work_after(&["b".into()], 500_000), Some(1.5));
        assert_eq!(marks.all_work_after(&["a".into()], 500_000), None);
        assert!(marks.has_worked("a") && marks.runs_of("a") == 1);
    }

    #[test]
    fn what_the_victim_repeats_holds_nobody_up() {
        let marks = marks(&[
            ("a", "S 1 9000000\nE 1 9000001\n"),
            ("b", "S 1 2000000\nE 1 2000001\nS 2 1000000\nE 2 1000001\n"),
        ]);
        assert_eq!((marks.repeated(), marks.recovered_after("a", 500_000)), (1, 1.5));
    }

    #[test]
    fn a_task_that_later_ones_overtook_was_held_up() {
        let marks = marks(&[("a", "S 5 1000\nE 5 1001\nS 6 1002\nE 6 1003\nS 4 3001000\nE 4 3001001\n")]);
        assert_eq!((marks.repeated(), marks.recovered_after("b", 1_000)), (0, 3.0));
    }
}
