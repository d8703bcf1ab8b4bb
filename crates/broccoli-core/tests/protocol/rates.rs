//! Rate limits of a function, across all origins and workers.

use broccoli_proto::message::{JobNews, Message, Permit};
use broccoli_proto::options::Rate;
use broccoli_proto::packet::Address;
use broccoli_proto::{Canvas, Cbor, Options};

use crate::cluster::{Cluster, Faults, Id, Spec, open};
use crate::{add, one};

/// Longest time from a permit to the start: two hops, and the wait for a slot.
const LATE_MS: u64 = 80;
/// How long a lost lease is sent again before it counts as lost.
const RESENT_MS: u64 = 1_700;

fn limited(mut canvas: Canvas, tasks: u32, per_ms: u32) -> Canvas {
    canvas.options = Options { rate: Some(Rate { tasks, per_ms }), ..Options::default() };
    canvas
}

fn echoes(from: i64, n: i64) -> Canvas {
    Canvas::group((from..from + n).map(|i| one("echo", i)).collect())
}

/// Three origins, the first of them with a slot, and four workers.
fn cluster(seed: u64) -> Cluster {
    let mut specs = vec![Spec::new("o1", 1), Spec::new("o2", 0), Spec::new("o3", 0)];
    specs.extend((1..=4).map(|i| Spec::worker(&format!("w{i}"), 2)));
    let mut c = Cluster::started(seed, specs);
    c.run_for(1_000);
    c
}

fn starts(c: &Cluster, function: &str) -> Vec<u64> {
    c.runs.iter().filter(|run| run.function == function).map(|run| run.at_ms).collect()
}

/// No window of this length contains more starts than the limit, the burst, and the starts that may be `late_ms` later
/// than their permits.
fn assert_limited(starts: &[u64], window_ms: u64, interval_us: u64, late_ms: u64) {
    let burst = (100_000 / interval_us).max(1);
    let most = (window_ms + late_ms) * 1_000 / interval_us + burst;
    for (index, start) in starts.iter().enumerate() {
        let count = starts[index..].iter().take_while(|at| *at - start <= window_ms).count() as u64;
        assert!(count <= most, "{count} starts in {window_ms} ms from {start} on, at most {most}");
    }
}

fn end_all(c: &mut Cluster, jobs: Vec<(Id, broccoli_core::SubmitId)>, ms: u64) {
    jobs.into_iter().for_each(|(id, job)| assert!(c.wait(id, job, ms).is_ok()));
}

#[test]
fn a_rate_holds_over_all_origins_and_workers() {
    for (tasks, per_ms, n) in [(10, 1_000, 30), (100, 1_000, 200), (1, 2_000, 12)] {
        let interval_us = u64::from(per_ms) * 1_000 / u64::from(tasks);
        let mut c = cluster(140);
        let start = c.now_ms();
        let jobs: Vec<_> =
            (0..3).map(|id| (id, c.submit(id, &limited(echoes(1_000 * id as i64, n), tasks, per_ms)))).collect();
        end_all(&mut c, jobs, 100_000);
        let starts = starts(&c, "echo");
        assert_eq!(starts.len() as i64, 3 * n, "nothing ran twice");
        for window_ms in [0, 100, 1_000, 5_000] {
            assert_limited(&starts, window_ms, interval_us, LATE_MS);
        }
        let took = c.now_ms() - start;
        let least = (3 * n as u64 - 1) * interval_us / 1_000;
        assert!(took < least * 110 / 100 + 300, "{tasks} in {per_ms} ms: {took} ms, {least} would do");
        let by_origin: Vec<usize> = (0..3)
            .map(|id| {
                c.runs
                    .iter()
                    .take(2 * n as usize)
                    .filter(|run| run.args.decode::<[i64; 1]>().is_some_and(|[i]| i / 1_000 == id))
                    .count()
            })
            .collect();
        assert!(by_origin.iter().all(|runs| *runs as i64 > n / 8), "each origin has its part: {by_origin:?}");
        c.run_for(60_000);
        c.assert_idle();
    }
}

#[test]
fn a_rate_holds_when_messages_are_lost_doubled_and_late() {
    for seed in 0..40 {
        let mut c = cluster(300 + seed);
        c.faults = Faults { loss: 150, duplication: 150, delay: 200, delay_ms_max: 400 };
        let jobs: Vec<_> =
            (0..3).map(|id| (id, c.submit(id, &limited(echoes(1_000 * id as i64, 40), 20, 1_000)))).collect();
        end_all(&mut c, jobs, 300_000);
        let starts = starts(&c, "echo");
        assert!(starts.len() >= 120);
        for window_ms in [1_000, 5_000] {
            assert_limited(&starts, window_ms, 50_000, RESENT_MS);
        }
        c.faults = Faults::default();
        c.run_for(60_000);
        c.assert_idle();
    }
}

#[test]
fn a_limited_function_does_not_hold_up_others() {
    let mut c = cluster(141);
    let slow = c.submit(0, &limited(echoes(0, 100), 1, 60_000));
    c.run_for(100);
    let start = c.now_ms();
    let others = c.submit(0, &Canvas::group((0..100).map(|i| add(i, i)).collect()));
    assert!(c.wait(0, others, 1_000).is_ok());
    assert!(c.now_ms() - start < 50, "{} ms", c.now_ms() - start);
    // Another rate of the same function does not either, nor the same rate of another function.
    let more = [limited(echoes(500, 3), 100, 1_000), limited(add(1, 1), 1, 60_000)].map(|canvas| c.submit(0, &canvas));
    end_all(&mut c, more.map(|job| (0, job)).to_vec(), 1_000);
    c.revoke(0, slow);
    assert_eq!(starts(&c, "echo").len(), 1 + 3);
    c.run_for(60_000);
    c.assert_idle();
}

#[test]
fn a_node_alone_keeps_a_rate_for_itself() {
    let mut c = Cluster::new(142);
    let alone = c.add_alone(Spec::new("alone", 2));
    let job = c.submit(alone, &limited(echoes(0, 21), 10, 1_000));
    let start = c.now_ms();
    assert!(c.wait(alone, job, 10_000).is_ok());
    assert!((2_000..2_050).contains(&(c.now_ms() - start)), "{} ms", c.now_ms() - start);
    assert_limited(&starts(&c, "echo"), 0, 100_000, 0);
    c.run_for(1_000);
    c.assert_idle();
}

#[test]
fn retries_and_every_bin_count_as_starts() {
    let mut c = cluster(143);
    let mut canvas = limited(one("flaky", 3), 5, 1_000);
    canvas.options.retries = Some(3);
    let job = c.submit(1, &canvas);
    assert_eq!(c.wait(1, job, 5_000), Ok(Cbor::encode(&3)));
    let starts = starts(&c, "flaky");
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 200), "{starts:?}");
}

/// The origin that grants the permits of `tasks.echo`.
fn arbiter(c: &Cluster) -> Id {
    let grants = |message: &Message| matches!(message, Message::Permit(Permit { tasks, .. }) if *tasks > 0);
    c.published.iter().find(|packet| open(&packet.bytes).1.iter().any(grants)).expect("permits were granted").from
}

#[test]
fn another_node_counts_when_the_arbiter_is_gone_with_at_most_a_burst_more() {
    for reset in [true, false] {
        let mut c = cluster(144);
        let jobs: Vec<_> =
            (0..3).map(|id| (id, c.submit(id, &limited(echoes(1_000 * id as i64, 100), 20, 1_000)))).collect();
        c.run_for(3_000);
        let gone = arbiter(&c);
        c.kill(gone, reset);
        let rest = jobs.into_iter().filter(|(id, _)| *id != gone).collect();
        end_all(&mut c, rest, 60_000);
        let starts = starts(&c, "echo");
        // Permits that the old node had given in advance may be used together with those of the new one.
        for window_ms in [1_000, 5_000] {
            assert_limited(&starts, window_ms, 50_000, LATE_MS + 250 + 100);
        }
        let pause = starts.windows(2).map(|pair| pair[1] - pair[0]).max().expect("many");
        assert!(pause < 2_500, "nothing started for {pause} ms");
        c.run_for(60_000);
        c.assert_idle();
    }
}

#[test]
fn a_node_that_is_cut_off_starts_nothing_that_is_limited() {
    let mut c = cluster(145);
    // The first origin has its own worker.
    let job = c.submit(0, &limited(echoes(0, 100), 20, 1_000));
    c.run_for(1_000);
    c.cut(0, true);
    c.run_for(200);
    let before = c.runs_on(0);
    c.run_for(10_000);
    assert_eq!(c.runs_on(0), before, "the others may use the whole rate meanwhile");
    c.heal(0);
    assert!(c.wait(0, job, 20_000).is_ok());
    for window_ms in [1_000, 5_000] {
        assert_limited(&starts(&c, "echo"), window_ms, 50_000, LATE_MS);
    }
    c.run_for(60_000);
    c.assert_idle();
}

#[test]
fn the_links_of_all_nodes_may_flap() {
    let mut c = cluster(146);
    let jobs: Vec<_> =
        (0..3).map(|id| (id, c.submit(id, &limited(echoes(1_000 * id as i64, 60), 20, 1_000)))).collect();
    for turn in 0..20 {
        let id = c.random(7) as usize;
        c.cut(id, turn % 2 == 0);
        c.run_for(700);
        c.heal(id);
        if turn == 10 {
            c.restart_server();
        }
    }
    end_all(&mut c, jobs, 120_000);
    let mut runs: Vec<Cbor> = c.runs.iter().map(|run| run.args.clone()).collect();
    runs.sort();
    runs.dedup();
    assert_eq!(runs.len(), 180);
    for window_ms in [1_000, 5_000] {
        assert_limited(&starts(&c, "echo"), window_ms, 50_000, RESENT_MS);
    }
    c.run_for(700_000);
    c.assert_idle();
}

#[test]
fn a_permit_counts_once_and_only_from_the_one_that_was_asked() {
    let mut c = cluster(147);
    let job = c.submit(1, &limited(echoes(0, 40), 1, 1_000));
    c.run_for(200);
    let nonce = |c: &Cluster| {
        c.published.iter().rev().flat_map(|packet| open(&packet.bytes).1).find_map(|message| match message {
            Message::PermitRequest(request) => Some(request.nonce),
            Message::Permit(permit) => Some(permit.nonce),
            _ => None,
        })
    };
    let to = Address::Node(c.name(1));
    // All permits that were ever sent, many times, and one that was never requested.
    for turn in 0..30 {
        let permits: Vec<(Address, Vec<u8>)> = c
            .published
            .iter()
            .filter(|packet| open(&packet.bytes).1.iter().any(|message| matches!(message, Message::Permit(_))))
            .map(|packet| (packet.to, packet.bytes.clone()))
            .collect();
        permits.iter().filter(|(at, _)| *at == to).for_each(|(at, bytes)| c.inject(1, *at, bytes));
        let permit = Message::Permit(Permit { nonce: nonce(&c).unwrap_or(0), tasks: 100, wait_us: 0 });
        c.inject_as("stranger", 1, turn + 1, &[permit]);
        c.run_for(100);
    }
    assert_limited(&starts(&c, "echo"), 1_000, 1_000_000, LATE_MS);
    assert!(starts(&c, "echo").len() >= 3);
    c.revoke(1, job);
}

#[test]
fn nobody_calls_for_help_for_tasks_that_wait_for_their_rate() {
    let mut c = cluster(148);
    let job = c.submit(0, &limited(echoes(0, 10), 1, 10_000));
    c.run_for(2_000);
    c.count_from_here();
    c.run_for(9_000);
    let calls =
        c.packets_with(|message| matches!(message, Message::Available(available) if !available.wants.is_empty()));
    assert!(calls <= 2, "{calls} calls for help");
    let packets = c.packets_with(|message| matches!(message, Message::PermitRequest(_) | Message::Permit(_)));
    assert!(packets <= 6, "{packets} packets about permits for one start");
    assert!(!c.news(0, job).any(|news| matches!(news, JobNews::NoNode { .. })));
    c.revoke(0, job);
}

#[test]
fn a_limited_task_that_no_node_fits_says_so() {
    let mut c = cluster(149);
    let mut canvas = limited(one("echo", 1), 1, 1_000);
    canvas.options.on = vec!["led".into()];
    let job = c.submit(0, &canvas);
    let told = |c: &Cluster| c.news(0, job).any(|news| matches!(news, JobNews::NoNode { .. }));
    assert!(c.run_until(3_000, told));
    c.add(Spec::worker("late", 1).label("led"));
    assert!(c.wait(0, job, 3_000).is_ok());
}

#[test]
fn limits_of_hostile_origins_are_bounded_and_nonsense_is_dropped() {
    let mut c = cluster(150);
    let mut sequence = 0;
    let mut ask = |c: &mut Cluster, function: String, interval_us: u64, tasks: u32| {
        sequence += 1;
        let request = broccoli_proto::message::PermitRequest { nonce: sequence, function, interval_us, tasks };
        c.inject_as("stranger", 0, sequence, &[Message::PermitRequest(request)]);
    };
    for (interval_us, tasks) in [(0, 1), (u64::MAX, 1), (1, u32::MAX), (1_000_000, 0)] {
        ask(&mut c, "tasks.echo".into(), interval_us, tasks);
    }
    ask(&mut c, "x".repeat(100_000), 1_000, 1);
    for n in 0..5_000 {
        ask(&mut c, format!("f{n}"), 3_600_000_000, 1);
    }
    // A function that found no room in the table is counted when others no longer need it.
    let job = c.submit(0, &limited(one("echo", 1), 1, 1_000));
    assert!(c.wait(0, job, 3_700_000).is_ok());
}
