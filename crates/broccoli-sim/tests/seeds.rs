//! Some seeds of the simulator. The program `broccoli-sim` runs as many as there is time for.

use std::sync::atomic::{AtomicU64, Ordering};

use broccoli_sim::scenario;

const SEEDS: u64 = 400;

/// Seeds that have found something: see docs/simulation.md.
#[test]
fn what_was_found_once_is_not_there_again() {
    for seed in [148, 437, 1189, 1445, 2406, 10880, 2111, 5340, 30080] {
        let violation = scenario::run(seed, 0, false).err().map(|violation| violation.what);
        assert_eq!(violation, None, "seed {seed}");
    }
}

#[test]
fn whatever_goes_wrong_each_task_has_one_outcome_and_each_promised_job_ends_right() {
    let next = AtomicU64::new(1);
    let work = || {
        while let seed @ 1..=SEEDS = next.fetch_add(1, Ordering::Relaxed) {
            if let Err(violation) = scenario::run(seed, 0, false) {
                // The others need not go on.
                next.store(SEEDS + 1, Ordering::Relaxed);
                return Some(format!("seed {seed}: {}", violation.what));
            }
        }
        None
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("the panics of a seed are caught")).collect()
    });
    assert!(failures.is_empty(), "{failures:?}");
}
