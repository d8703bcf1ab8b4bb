//! Frequent complaints about other task queues. These must not happen here. More of them are in other files:
//! `pending_never_means_unknown` and `a_revoke_survives_a_restart` in `clients.rs`,
//! `an_eta_far_beyond_any_visibility_timeout_runs_once` in `time.rs`.

use broccoli_core::Event;
use broccoli_proto::{Canvas, Cbor};
use broccoli_sim::cluster::{Cluster, Spec};

use crate::{attach, none, sleep, sleeps};

/// Celery acknowledges a task before it runs, unless it is configured otherwise.
#[test]
fn a_task_is_not_lost_when_its_worker_dies() {
    let specs = vec![Spec::client("a"), Spec::new("origin", 0).durable(), Spec::worker("w1", 2), Spec::worker("w2", 2)];
    for ms in (0..400).step_by(20) {
        let mut c = Cluster::started(700 + ms, specs.clone());
        attach(&mut c, 0);
        let (canvas, expected) = sleeps(20, 100);
        let job = c.submit_remote(0, &canvas);
        c.run_for(ms);
        c.kill(2, true);
        assert_eq!(c.wait(0, job, 20_000), Ok(expected), "killed after {ms} ms");
        assert!(c.runs.len() <= 20 + 2, "only what the worker ran is run again, not {} runs", c.runs.len());
    }
}

/// Celery counts the header of a chord in the result backend, and can miscount.
#[test]
fn a_chord_body_fires_exactly_once_whatever_happens() {
    let specs = vec![Spec::client("a"), Spec::new("origin", 0).durable(), Spec::worker("w1", 2), Spec::worker("w2", 2)];
    let header: Vec<i64> = (0..12).map(|i| 20 + i).collect();
    let chord = Canvas::chord(header.iter().map(|ms| sleep(*ms)).collect(), none("tsum"));
    for ms in 0..150 {
        let mut c = Cluster::started(800 + ms, specs.clone());
        attach(&mut c, 0);
        let job = c.submit_remote(0, &chord);
        assert!(c.run_until(5_000, |c| c.events(0).any(|event| matches!(event, Event::Accepted(..)))));
        c.run_for(ms);
        c.kill(1, true);
        c.restart(1);
        assert_eq!(c.wait(0, job, 20_000), Ok(Cbor::encode(&header.iter().sum::<i64>())), "restarted after {ms} ms");
        c.run_for(10_000);
        let bodies: Vec<&Cbor> = c.runs.iter().filter(|run| run.function == "tsum").map(|run| &run.args).collect();
        assert_eq!(bodies, [&Cbor::encode(&[&header])], "restarted after {ms} ms");
    }
}
