//! Bugs that seeds of the simulator have found, each as the smallest script that shows it, named after what went
//! wrong. Scripts that need no disk are among the other tests of the protocol in broccoli-core.

use broccoli_core::{Event, Limits, Submission, SubmitId};
use broccoli_proto::message::{JobNews, Message, Refusal};
use broccoli_proto::{Canvas, Cbor, Form, JobId, Task};
use broccoli_sim::cluster::{Cluster, Faults, Spec};
use broccoli_sim::scenario;

fn sleep(ms: i64) -> Canvas {
    Canvas::task("sleep", Cbor::encode(&[ms]))
}

fn after(countdown_ms: u64, mut canvas: Canvas) -> Canvas {
    canvas.options.countdown_ms = Some(countdown_ms);
    canvas
}

/// Nodes that are told the time of day.
fn started(seed: u64, specs: Vec<Spec>) -> Cluster {
    let mut c = Cluster::new(seed);
    c.tells_time = true;
    specs.into_iter().for_each(|spec| {
        c.add(spec);
    });
    c.run_for(300);
    c
}

/// A task ran, its origin restarted without having heard so, and let it wait anew. The result came
/// meanwhile; the end of the wait found a task that had ended.
#[test]
fn a_success_that_comes_while_its_task_waits_again_ends_the_wait() {
    let mut c = started(201, vec![Spec::new("origin", 0).durable(), Spec::worker("w", 1)]);
    c.submit(0, &after(500, sleep(1_000)));
    assert!(c.run_until(5_000, |c| c.running_on(1) == 1));
    c.kill(0, true);
    c.run_for(1_500);
    c.restart(0);
    c.run_for(20_000);
    c.ticks = false;
    c.run_for(2_000);
    assert_eq!(c.runs.len(), 1);
}

/// An origin with a disk writes results that nobody waits for after 100 ms. A worker whose room for results was used up
/// waited for that again and again.
#[test]
fn results_of_a_worker_without_room_for_more_are_written_at_once() {
    let few = |limits: &mut Limits| limits.results_max = 8;
    let mut c = started(77, vec![Spec::new("origin", 0).durable(), Spec::worker("w", 1).limits(few)]);
    c.submit(0, &Canvas::group((0..80).map(|_| sleep(1)).collect()));
    assert!(c.run_until(500, |c| c.runs.len() == 80), "{} runs", c.runs.len());
}

/// A canvas with more tasks than its origin can ever hold was told to come back later, for ever.
#[test]
fn a_canvas_that_can_never_fit_is_refused_and_not_put_off() {
    let origin = Spec::new("origin", 1).limits(|limits| limits.tasks_max = 5);
    let mut c = started(547, vec![origin, Spec::client("client")]);
    c.attach(1);
    let job = c.submit_remote(1, &Canvas::group((0..6).map(sleep).collect()));
    let refused = |event: &Event| matches!(event, Event::Refused(id, Refusal::BadCanvas(_)) if *id == job);
    assert!(c.run_until(2_000, |c| c.events(1).any(refused)));
}

/// A clock that was an hour ahead when a countdown began made it an hour longer after a restart.
#[test]
fn a_clock_set_back_while_its_origin_was_off_makes_no_countdown_longer() {
    let mut c = Cluster::new(56);
    c.tells_time = true;
    let origin = c.add(Spec::new("origin", 1).durable());
    c.set_wall_clock(origin, 3_600_000);
    c.run_for(2_000);
    c.submit(origin, &after(5_000, sleep(10)));
    c.run_for(1_000);
    c.kill(origin, true);
    c.set_wall_clock(origin, 0);
    c.restart(origin);
    assert!(c.run_until(8_000, |c| !c.runs.is_empty()), "the task runs");
}

/// A revoke was refused by an origin that had restarted. Its token was forgotten, and no other one
/// was asked for.
#[test]
fn a_client_whose_revoke_was_refused_says_hello_again() {
    let mut c = started(4780, vec![Spec::new("origin", 1), Spec::client("client")]);
    c.attach(1);
    c.run_for(1_000);
    let job = c.submit_remote(1, &sleep(60_000));
    c.run_for(1_000);
    c.kill(0, false);
    c.restart(0);
    // Said to the new incarnation before the client hears of it.
    c.revoke(1, job);
    c.run_for(5_000);
    let next = c.submit_remote(1, &sleep(1));
    assert!(c.wait(1, next, 5_000).is_ok());
}

/// The end of a failed job was told while its callback still ran; trying it again was refused
/// because it had not ended.
#[test]
fn a_failed_job_is_tried_again_while_its_callback_still_runs() {
    let mut c = started(253, vec![Spec::new("origin", 2).durable()]);
    c.attach(0);
    let mut canvas = Canvas::task("fail", Cbor::encode(&["no"]));
    let callback = Task { function: "sleep".into(), args: Cbor::encode(&[10_000]), kwargs: vec![], immutable: true };
    canvas.on_error = vec![Form::Task(callback).into()];
    let job = c.submit(0, &canvas);
    assert!(c.wait(0, job, 1_000).is_err());
    let accepted = |c: &Cluster, id: SubmitId| {
        c.events(0).find_map(|event| match event {
            Event::Accepted(submit, job) if *submit == id => Some(*job),
            _ => None,
        })
    };
    let job = accepted(&c, job).expect("a job");
    let again = c.retry_job(0, job);
    assert!(c.run_until(1_000, |c| accepted(c, again).is_some()), "{:?}", c.events(0).last());
    assert_ne!(accepted(&c, again), Some(job));
}

/// An origin restarted twice with a disk that took no writes: both times its first lease of a task had
/// the same number, so that a late failure of the one would have counted for the other.
#[test]
fn no_attempt_number_is_given_twice_though_the_disk_takes_no_writes() {
    let mut c = started(902, vec![Spec::new("origin", 0).durable(), Spec::worker("w", 1)]);
    c.submit(0, &sleep(20_000));
    assert!(c.run_until(5_000, |c| c.running_on(1) == 1));
    c.kill(1, true);
    for _ in 0..2 {
        c.kill(0, true);
        c.stall(0, true);
        c.restart(0);
        c.restart(1);
        c.run_for(10_000);
        assert_eq!(c.running_on(1), 0, "nothing is leased before its number is safe");
        c.kill(1, true);
    }
    c.restart(1);
    c.stall(0, false);
    assert!(c.run_until(5_000, |c| c.running_on(1) == 1));
}

/// The end of a job was told again before it was told: when its write took longer than that. The origin
/// crashed, the job ran again, and its client heard of two ends.
#[test]
fn the_end_of_a_job_is_not_told_while_the_disk_takes_no_writes() {
    let mut c = started(1431, vec![Spec::new("origin", 1).durable(), Spec::client("client")]);
    c.attach(1);
    let job = c.submit_remote(1, &sleep(1_000));
    assert!(c.run_until(5_000, |c| c.events(1).any(|event| matches!(event, Event::Accepted(..)))));
    c.stall(0, true);
    c.run_for(10_000);
    assert_eq!(c.runs.iter().filter(|run| run.ended).count(), 1, "the job is over");
    assert_eq!(c.ended(1, job), None, "its end is not safe");
    c.stall(0, false);
    assert!(c.wait(1, job, 1_000).is_ok());
}

/// What goes on at a worker while its origin restarts is not run again.
#[test]
fn an_origin_that_restarts_adopts_what_still_runs() {
    let mut c = started(5, vec![Spec::new("origin", 0).durable(), Spec::worker("w", 2)]);
    for n in 0..2 {
        c.submit(0, &sleep(3_000 + n));
    }
    assert!(c.run_until(2_000, |c| c.running_on(1) == 2));
    c.run_for(500);
    c.kill(0, true);
    c.run_for(500);
    c.restart(0);
    c.run_for(10_000);
    assert_eq!(c.runs.len(), 2, "each task ran once");
}

/// The message with a result is lost: it is sent again, and its task does not run again.
#[test]
fn a_lost_result_is_sent_again() {
    let mut c = started(6, vec![Spec::new("origin", 0).durable(), Spec::worker("w", 1)]);
    let job = c.submit(0, &sleep(100));
    c.lose = Some(|message| matches!(message, Message::TaskResults(_)));
    c.run_for(1_000);
    c.lose = None;
    assert!(c.wait(0, job, 10_000).is_ok());
    assert_eq!(c.runs.len(), 1, "the task ran once");
}

/// A PC and a chip: what the chip could not take, or had too little memory for, failed the job, and retries ended on
/// the chip as well.
#[test]
fn a_chip_in_the_cluster_breaks_no_job() {
    let chip = Spec::worker("chip", 1).memory(12_000).limits(|limits| {
        let chip = Limits::chip();
        (limits.args_bytes_max, limits.result_bytes_max) = (chip.args_bytes_max, chip.result_bytes_max);
        limits.packet_bytes_max = chip.packet_bytes_max;
    });
    let mut c = started(9, vec![Spec::new("origin", 0).durable(), chip, Spec::worker("pc", 1)]);
    c.faults = Faults { loss: 50, duplication: 50, delay: 50, delay_ms_max: 500 };
    // For its arguments, for its memory, and for its result.
    let sum = |n: i64| Canvas::task("tsum", Cbor::encode(&[(0..n).collect::<Vec<i64>>()]));
    let large = |bytes: i64| Canvas::task("large", Cbor::encode(&[bytes]));
    for members in [[0; 10].map(|_| sum(20_000)), [0; 10].map(|_| sum(5_000)), [0; 10].map(|_| large(20_000))] {
        let job = c.submit(0, &Canvas::group(members.into()));
        assert!(c.wait(0, job, 120_000).is_ok());
    }
    let tried = c.runs.iter().filter(|run| run.node == 1 && run.function != "large").count();
    assert!(c.runs_on(1) > 0 && tried > 0, "the chip was tried");
}

/// Doubled packets, nothing lost or late: no attempt runs twice.
#[test]
fn doubled_packets_run_nothing_twice() {
    let mut c = started(3, vec![Spec::new("origin", 0).durable(), Spec::worker("w1", 2), Spec::worker("w2", 2)]);
    c.faults = Faults { duplication: 500, delay_ms_max: 1_000, ..Faults::default() };
    for _ in 0..20 {
        let job = c.submit(0, &Canvas::group((0..10).map(sleep).collect()));
        assert!(c.wait(0, job, 5_000).is_ok());
    }
    assert_eq!(c.runs.len(), 200);
}

/// The same seed gives the same outputs, byte for byte.
#[test]
fn a_seed_is_all_that_a_scenario_depends_on() {
    for seed in 1..=20 {
        match (scenario::run(seed, 0, true), scenario::run(seed, 0, true)) {
            (Ok(first), Ok(second)) => assert_eq!(first, second, "seed {seed}"),
            (Err(violation), _) | (_, Err(violation)) => panic!("seed {seed}: {}", violation.what),
        }
    }
}

/// The job that a client was told that its canvas is.
fn job_of(c: &Cluster, client: usize, submit: SubmitId) -> Option<JobId> {
    c.events(client).find_map(|event| match event {
        Event::Accepted(id, job) if *id == submit => Some(*job),
        _ => None,
    })
}

/// A Pi starts without a network, a day behind, and takes jobs. Its clock is set, it starts again: results and keys were
/// a day old and forgotten, and what waited expired. Any step, forth and back, before and after the restart.
#[test]
fn a_clock_that_is_set_makes_no_job_older_and_none_younger() {
    const DAY: i64 = 86_400_000;
    for clocks in [&[DAY][..], &[-DAY], &[DAY, -DAY, 2 * DAY], &[DAY, 0], &[-20_000 * DAY, DAY]] {
        let mut c = Cluster::new(908);
        c.tells_time = true;
        let keeps = |limits: &mut Limits| limits.archive_ms = 3_600_000;
        let origin = c.add(Spec::new("origin", 0).durable().limits(keeps));
        let (worker, client) = (c.add(Spec::worker("w", 1)), c.add(Spec::client("client")));
        c.run_for(2_000);
        c.attach(client);
        let keyed = || {
            let (canvas, key) = (Cbor::encode(&sleep(1)), Some("key".into()));
            Submission { canvas, key, again: false, detached: false }
        };
        let first = c.submit_with(client, keyed());
        assert!(c.wait(client, first, 5_000).is_ok());
        c.kill(worker, true);
        let mut canvas = sleep(2);
        canvas.options.expires_ms = Some(60_000);
        let waiting = c.submit(origin, &canvas);
        let delayed = c.submit(origin, &after(40_000, sleep(3)));
        for ahead_ms in clocks {
            c.run_for(3_000);
            c.set_wall_clock(origin, *ahead_ms);
        }
        c.run_for(3_000);
        assert_eq!((c.ended(origin, waiting), c.ended(origin, delayed)), (None, None));
        for _ in 0..2 {
            c.kill(origin, true);
            c.run_for(1_000);
            c.restart(origin);
            c.run_for(4_000);
        }
        assert_eq!(c.recovery(origin).damaged, []);
        let again = c.submit_with(client, keyed());
        assert!(c.wait(client, again, 5_000).is_ok(), "{clocks:?}: the result is still there");
        assert_eq!(job_of(&c, client, again), job_of(&c, client, first), "{clocks:?}: the key is still known");
        assert_eq!(c.runs.len(), 1);
        let asked_at = c.unix_ms();
        c.restart(worker);
        assert!(c.run_until(10_000, |c| c.runs.len() == 2), "{clocks:?}: what waited has not expired");
        assert_eq!(c.runs[1].args, Cbor::encode(&[2_i64]), "{clocks:?}: it is the one that waited");
        assert!(c.run_until(40_000, |c| c.runs.len() == 3), "{clocks:?}: the countdown is over in time");
        let waited_ms = c.unix_ms() - asked_at;
        assert!((10_000..30_000).contains(&waited_ms), "{clocks:?}: the countdown took its time: {waited_ms}");
        // They do get old.
        c.run_for(3_700_000);
        let new = c.submit_with(client, keyed());
        assert!(c.wait(client, new, 5_000).is_ok());
        assert_ne!(job_of(&c, client, new), job_of(&c, client, first), "{clocks:?}: after an hour it is forgotten");
    }
}

/// With results kept for no time, each client was told that its job was lost.
#[test]
fn whoever_waits_for_a_job_gets_its_result_though_none_is_kept() {
    let nothing = |limits: &mut Limits| limits.archive_ms = 0;
    for spec in [Spec::new("origin", 1).limits(nothing), Spec::new("origin", 1).durable().limits(nothing)] {
        let mut c = started(62, vec![spec, Spec::client("client"), Spec::client("watcher")]);
        (1..3).for_each(|id| c.attach(id));
        let local = c.submit(0, &sleep(5));
        assert!(c.wait(0, local, 1_000).is_ok(), "the program itself");
        let job = c.submit_remote(1, &sleep(500));
        assert!(c.run_until(300, |c| job_of(c, 1, job).is_some()));
        let id = job_of(&c, 1, job).expect("accepted");
        c.lose = Some(|message| matches!(message, Message::JobEvent(_)));
        c.run_for(1_000);
        c.lose = None;
        assert!(c.wait(1, job, 5_000).is_ok(), "told again until it was heard");
        let submission = Submission { canvas: Cbor::encode(&sleep(700)), key: None, again: false, detached: true };
        let detached = c.submit_with(2, submission);
        assert!(c.run_until(300, |c| job_of(c, 2, detached).is_some()));
        let watched = c.follow(2, job_of(&c, 2, detached).expect("accepted"));
        assert!(c.wait(2, watched, 5_000).is_ok(), "who asked for it before its end");
        c.run_for(1_000);
        let late = c.follow(2, id);
        let unknown = |c: &Cluster| c.news(2, late).any(|news| matches!(news, JobNews::Unknown));
        assert!(c.run_until(2_000, unknown), "what was acknowledged is not kept");
    }
}

/// The same, if the origin starts again before its client has heard of the end.
#[test]
fn a_result_that_is_not_kept_is_there_after_a_restart_for_who_waits() {
    let nothing = |limits: &mut Limits| limits.archive_ms = 0;
    let mut c = started(63, vec![Spec::new("origin", 1).durable().limits(nothing), Spec::client("client")]);
    c.attach(1);
    let job = c.submit_remote(1, &sleep(300));
    c.lose = Some(|message| matches!(message, Message::JobEvent(_)));
    assert!(c.run_until(2_000, |c| c.runs.iter().any(|run| run.ended)));
    c.run_for(500);
    c.kill(0, true);
    c.restart(0);
    c.lose = None;
    assert!(c.wait(1, job, 10_000).is_ok());
    assert_eq!(c.runs.len(), 1);
}

/// An origin was full of results, was killed and came back to more of them than it had memory for. Each job comes to its
/// result, or is told what it lacked; and what is held stays within its bounds.
#[test]
fn jobs_that_compete_for_memory_survive_restarts_of_their_origin() {
    (800..808).for_each(compete_for_memory);
}

fn compete_for_memory(seed: u64) {
    const QUEUE: usize = 64_000;
    let small = |limits: &mut Limits| limits.queue_bytes_max = QUEUE;
    for packets in [1 << 20, 4_096] {
        let spec = |spec: Spec| spec.limits(|limits| limits.packet_bytes_max = packets);
        let origin = spec(Spec::new("origin", 0).durable().limits(small));
        let workers = ["w1", "w2"].map(|name| spec(Spec::worker(name, 2)));
        let mut c = started(seed, [vec![origin, spec(Spec::client("client"))], workers.into()].concat());
        c.faults = Faults { loss: 20, duplication: 20, delay: 20, delay_ms_max: 20 };
        c.attach(1);
        let large = || Canvas::task("large", Cbor::encode(&[5_000]));
        let group = || Canvas::group((0..8).map(|_| large()).collect());
        let jobs: Vec<_> = (0..4).map(|_| c.submit_remote(1, &group())).collect();
        let doomed = c.submit_remote(1, &Canvas::group((0..40).map(|_| large()).collect()));
        for round in 0..3_000 {
            c.run_for(20);
            for size in c.peek(0).sizes() {
                assert!(size.len <= size.max, "{} {} of at most {}", size.len, size.name, size.max);
            }
            if round % 40 == 20 && round < 200 {
                c.kill(0, true);
                c.run_for(100);
                c.restart(0);
            }
        }
        for job in jobs {
            if let Err(error) = c.wait(1, job, 600_000) {
                assert!(error.text.contains("queue memory is 62.5K"), "seed {seed}: {error}");
            }
        }
        let error = c.wait(1, doomed, 600_000).expect_err("too large");
        assert!(error.text.contains("queue memory is 62.5K"), "{error}");
    }
}
