//! Any message may be lost, duplicated, delayed or reordered.

use broccoli_core::{Event, Instant, Limits};
use broccoli_proto::{Canvas, Cbor};

use crate::cluster::{Cluster, Faults, Mishap, Spec};
use crate::{add, adds, none, one, sleep};

/// A client, an origin without slots and a worker run one small job with each form of step.
fn small_run(mishap: Option<(u64, Mishap)>) -> (u64, Cluster) {
    let specs = vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 2)];
    let mut c = Cluster::new(15);
    c.mishap = mishap;
    specs.into_iter().for_each(|spec| {
        c.add(spec);
    });
    crate::attach(&mut c, 0);
    let header = vec![add(1, 2), Canvas::chain(vec![sleep(30), one("add", 1)]), add(5, 6)];
    let job = c.submit_remote(0, &Canvas::chord(header, none("tsum")));
    assert_eq!(c.wait(0, job, 60_000), Ok(Cbor::encode(&45)), "{mishap:?}");
    c.run_for(20_000);
    c.assert_idle();
    (c.deliveries, c)
}

fn at_every_delivery(mishap: Mishap) {
    let (deliveries, clean) = small_run(None);
    assert!(deliveries > 20, "{deliveries} deliveries");
    assert_eq!(clean.runs.len(), 5);
    for number in 1..=deliveries {
        small_run(Some((number, mishap)));
    }
}

#[test]
fn each_message_lost_once() {
    at_every_delivery(Mishap::Lost);
}

#[test]
fn each_message_delayed_by_seconds() {
    at_every_delivery(Mishap::Delayed { by_ms: 3_000 });
}

#[test]
fn each_message_doubled_and_nothing_runs_twice() {
    for after_ms in [0, 5, 3_000] {
        let (deliveries, _) = small_run(None);
        for number in 1..=deliveries {
            let (_, c) = small_run(Some((number, Mishap::Doubled { after_ms })));
            assert_eq!(c.runs.len(), 5, "delivery {number} doubled after {after_ms} ms");
        }
    }
}

const LOSSY: Faults = Faults { loss: 200, duplication: 100, delay: 200, delay_ms_max: 300 };

#[test]
fn jobs_finish_exactly_under_loss_duplication_and_reordering() {
    for seed in 0..300 {
        let specs = vec![Spec::client("client"), Spec::new("origin", 1), Spec::worker("w1", 2), Spec::worker("w2", 1)];
        let mut c = Cluster::new(seed);
        c.faults = LOSSY;
        specs.into_iter().for_each(|spec| {
            c.add(spec);
        });
        crate::attach(&mut c, 0);
        let (group, list) = adds(40);
        let steps = (0..8).map(|i| if i == 0 { add(0, 1) } else { one("add", 1) }).collect();
        let slow = Canvas::chord(vec![sleep(40), sleep(50), sleep(60)], none("tsum"));
        let jobs = [
            (0, c.submit_remote(0, &group), list.clone()),
            (0, c.submit_remote(0, &Canvas::chain(steps)), Cbor::encode(&8)),
            (1, c.submit(1, &slow), Cbor::encode(&150)),
            (2, c.submit(2, &group), list),
        ];
        for (id, job, expected) in jobs {
            assert_eq!(c.wait(id, job, 120_000), Ok(expected), "seed {seed}");
        }
        c.faults = Faults::default();
        c.run_for(60_000);
        c.assert_idle();
    }
}

#[test]
fn credit_never_leaks() {
    let mut c = Cluster::started(17, vec![Spec::new("origin", 0), Spec::worker("w1", 1), Spec::worker("w2", 1)]);
    c.faults = LOSSY;
    for _ in 0..100 {
        let (canvas, expected) = adds(20);
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, 120_000), Ok(expected));
    }
    c.faults = Faults::default();
    c.run_for(20_000);
    c.assert_idle();
    let (canvas, expected) = adds(500);
    let warm = c.submit(0, &canvas);
    assert_eq!(c.wait(0, warm, 1_000), Ok(expected.clone()));
    c.run_for(100);
    c.count_from_here();
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 1_000), Ok(expected));
    let packets = c.published.len();
    assert!(packets <= 8, "{packets} packets for 500 tasks at full windows");
}

#[test]
fn leases_that_were_all_lost_take_no_credit_for_ever() {
    let mut c = Cluster::started(18, vec![Spec::new("origin", 0), Spec::worker("w1", 1)]);
    let job = c.submit(0, &sleep(5));
    assert!(c.wait(0, job, 1_000).is_ok());
    c.run_for(1_000);
    // The worker receives and sends nothing for longer than leases are sent again, and its Will never arrives.
    c.pause(1);
    let (canvas, expected) = adds(3);
    let job = c.submit(0, &canvas);
    c.faults.loss = 1_000;
    c.run_for(10_000);
    c.resume(1);
    c.run_for(10);
    c.faults.loss = 0;
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
}

#[test]
fn a_small_node_holds_what_it_can() {
    let small = |limits: &mut Limits| {
        limits.held_max = 4;
        limits.outbox_max = 8;
    };
    let specs = vec![Spec::new("origin", 0), Spec::worker("w1", 2).limits(small), Spec::worker("w2", 2).limits(small)];
    let mut c = Cluster::started(19, specs);
    let (canvas, expected) = adds(500);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 60_000), Ok(expected));
}

#[test]
fn a_node_that_has_too_much_to_say_to_itself_drops_the_rest_and_goes_on() {
    let spec = Spec::new("alone", 2).limits(|limits| limits.outbox_max = 8);
    let mut c = Cluster::started(20, vec![spec]);
    let (canvas, expected) = adds(50);
    let job = c.submit(0, &canvas);
    let (name, now) = (c.name(0), Instant(c.now_us));
    for _ in 0..10_000 {
        c.node(0).ask_jobs(now, name, None, 10);
    }
    c.run_for(100);
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
    let answered = |c: &Cluster| c.events(0).filter(|event| matches!(event, Event::Jobs(..))).count();
    assert_eq!(answered(&c), 32, "four times as many as wait for another address");
    let now = Instant(c.now_us);
    c.node(0).ask_jobs(now, name, None, 10);
    c.run_for(100);
    assert_eq!(answered(&c), 33);
}

/// What may be done to a node, by turns.
fn disturb(c: &mut Cluster, what: u64, id: usize, reset: bool) {
    match what {
        0 if id > 1 && c.is_up(id) => c.kill(id, reset),
        0 | 1 if !c.is_up(id) => c.restart(id),
        1 | 2 if c.is_up(id) => c.cut(id, reset),
        3 | 4 if c.is_up(id) => c.heal(id),
        5 if c.is_up(id) => c.pause(id),
        6 | 7 => c.resume(id),
        8 => c.restart_server(),
        _ => {}
    }
}

#[test]
fn whatever_happens_to_workers_links_and_server_each_job_ends_once_and_right() {
    for seed in 1_000..1_300 {
        let specs = vec![Spec::client("client"), Spec::new("origin", 1), Spec::worker("w1", 2), Spec::worker("w2", 1)];
        let mut c = Cluster::started(seed, specs);
        crate::attach(&mut c, 0);
        c.faults = Faults { loss: 50, duplication: 50, delay: 50, delay_ms_max: 500 };
        let mut jobs = Vec::new();
        for turn in 0..30 {
            let (id, reset) = (c.random(4) as usize, c.random(2) == 0);
            let what = c.random(10);
            disturb(&mut c, what, id, reset);
            if turn % 5 == 0 {
                let (canvas, expected) = crate::sleeps(6, 50 + 100 * turn);
                if !c.is_paused(0) {
                    jobs.push((0, c.submit_remote(0, &canvas), expected.clone()));
                }
                if !c.is_paused(1) {
                    jobs.push((1, c.submit(1, &canvas), expected));
                }
            }
            let ms = c.random(700);
            c.run_for(ms);
        }
        c.faults = Faults::default();
        for id in 0..4 {
            c.resume(id);
            if c.is_up(id) { c.heal(id) } else { c.restart(id) }
        }
        for (id, job, expected) in jobs {
            match c.wait(id, job, 120_000) {
                Ok(value) => assert_eq!(value, expected, "seed {seed}"),
                Err(error) => assert_eq!(error.cause, broccoli_proto::Cause::Lost, "seed {seed}: {error}"),
            }
        }
        // If the client's acknowledgement was lost, the origin keeps the job for at most ten minutes.
        c.run_for(700_000);
        c.assert_idle();
    }
}
