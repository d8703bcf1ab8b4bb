//! Some seeds of the simulator; `broccoli-sim` runs as many as there is time for.

use std::sync::atomic::{AtomicU64, Ordering};

use broccoli_sim::scenario;

const SEEDS: u64 = 400;

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
