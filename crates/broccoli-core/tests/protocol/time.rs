//! The time options: retries, countdown, eta, expires.

use broccoli_core::{Input, Instant, SubmitError, SubmitId};
use broccoli_proto::message::{JobNews, Refusal};
use broccoli_proto::{Canvas, Cause, Cbor, Options};

use crate::cluster::{Cluster, Faults, Mishap, Spec};
use crate::{add, one, sleep};

const DAY_MS: u64 = 86_400_000;
/// A time of day, as Unix time in milliseconds.
const NOON: u64 = 1_800_000_000_000;

fn cluster(seed: u64) -> Cluster {
    Cluster::started(seed, vec![Spec::new("origin", 0), Spec::worker("w1", 1)])
}

fn with(mut canvas: Canvas, options: Options) -> Canvas {
    canvas.options = options;
    canvas
}

fn asks(times: i64, ms: i64) -> Canvas {
    Canvas::task("asks", Cbor::encode(&(times, ms)))
}

fn eta(unix_ms: u64) -> Options {
    Options { eta_unix_ms: Some(unix_ms), ..Options::default() }
}

fn countdown(ms: u64) -> Options {
    Options { countdown_ms: Some(ms), ..Options::default() }
}

fn expires(ms: u64) -> Options {
    Options { expires_ms: Some(ms), ..Options::default() }
}

/// The pauses between the runs of the cluster, in milliseconds.
fn pauses(c: &Cluster) -> Vec<u64> {
    c.runs.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).collect()
}

fn assert_near(found: u64, expected: u64) {
    assert!((expected..expected + 60).contains(&found), "{found} ms, not {expected}");
}

fn assert_expired(c: &mut Cluster, job: SubmitId, ms: u64, text: &str) {
    let error = c.wait(0, job, ms).expect_err("expired");
    assert_eq!((error.cause, error.text.as_str()), (Cause::Expired, text));
}

// --- Retries ---

fn flaky(options: Options) -> Canvas {
    with(one("flaky", 5), Options { retries: Some(9), ..options })
}

#[test]
fn pauses_before_retries_double_up_to_their_cap() {
    let mut c = cluster(100);
    let options =
        Options { backoff_ms: Some(100), backoff_max_ms: Some(700), jitter: Some(false), ..Options::default() };
    let job = c.submit(0, &flaky(options));
    assert_eq!(c.wait(0, job, 10_000), Ok(Cbor::encode(&5)));
    let pauses = pauses(&c);
    assert_eq!(pauses.len(), 5);
    for (pause, expected) in pauses.into_iter().zip([100, 200, 400, 700, 700]) {
        assert_near(pause, expected);
    }
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn pauses_are_random_up_to_the_computed_one_unless_it_is_said_otherwise() {
    let mut all = Vec::new();
    for seed in 0..20 {
        let mut c = cluster(200 + seed);
        let job = c.submit(0, &flaky(Options { backoff_ms: Some(1_000), ..Options::default() }));
        assert_eq!(c.wait(0, job, 100_000), Ok(Cbor::encode(&5)));
        for (pause, longest) in pauses(&c).into_iter().zip([1_000, 2_000, 4_000, 8_000, 16_000]) {
            assert!(pause < longest + 60, "{pause} ms of {longest}");
            all.push(pause * 100 / longest);
        }
    }
    let mean = all.iter().sum::<u64>() / all.len() as u64;
    assert!((40..60).contains(&mean), "half of the longest on average, not {mean} %");
}

#[test]
fn a_pause_is_ten_minutes_at_most_if_nothing_is_said() {
    let mut c = cluster(101);
    let options = Options { backoff_ms: Some(400_000), jitter: Some(false), retries: Some(3), ..Options::default() };
    let job = c.submit(0, &with(one("flaky", 3), options));
    assert_eq!(c.wait(0, job, DAY_MS), Ok(Cbor::encode(&3)));
    let pauses = pauses(&c);
    for (pause, expected) in pauses.into_iter().zip([400_000, 600_000, 600_000]) {
        assert_near(pause, expected);
    }
}

#[test]
fn a_task_is_tried_again_when_it_asks_for_it() {
    let mut c = cluster(102);
    let job = c.submit(0, &asks(3, 5_000));
    assert_eq!(c.wait(0, job, 60_000), Ok(Cbor::encode(&3)));
    pauses(&c).into_iter().for_each(|pause| assert_near(pause, 5_000));
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_task_that_asks_too_often_fails_with_its_text() {
    for (retries, tries) in [(None, 4), (Some(0), 1), (Some(1), 2), (Some(6), 7)] {
        let mut c = cluster(103);
        let job = c.submit(0, &with(asks(100, 10), Options { retries, ..Options::default() }));
        let error = c.wait(0, job, 5_000).expect_err("gives up");
        let said = if tries == 1 { "try" } else { "tries" };
        assert_eq!(error.text, format!("busy; gave up after {tries} {said}"));
        assert_eq!((error.cause, error.attempt as usize, c.runs.len()), (Cause::Returned, tries, tries));
    }
}

#[test]
fn a_late_success_ends_the_pause_before_a_retry() {
    let mut c = cluster(104);
    let options = Options { retries: Some(1), backoff_ms: Some(60_000), jitter: Some(false), ..Options::default() };
    let job = c.submit(0, &with(one("second_fails", 5_000), options));
    c.run_for(500);
    c.cut(1, true);
    c.add(Spec::worker("w2", 1));
    c.run_for(3_500);
    assert_eq!(c.runs_on(2), 1, "another worker has taken it over, and failed");
    c.heal(1);
    assert_eq!(c.wait(0, job, 3_000), Ok(Cbor::encode(&0)));
    c.run_for(10_000);
    assert_eq!(c.runs.len(), 2);
    c.assert_idle();
}

#[test]
fn a_job_that_waits_for_a_retry_can_be_revoked() {
    let mut c = cluster(105);
    let job = c.submit(0, &asks(3, 3_600_000));
    c.run_for(500);
    c.revoke(0, job);
    assert_eq!(c.wait(0, job, 10).expect_err("revoked").cause, Cause::Revoked);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn each_message_lost_once_between_retries() {
    let run = |mishap| {
        let mut c = Cluster::new(106);
        c.mishap = mishap;
        c.add(Spec::new("origin", 0));
        c.add(Spec::worker("w1", 1));
        c.run_for(100);
        let job = c.submit(0, &Canvas::group(vec![asks(2, 300), flaky(Options::default())]));
        assert_eq!(c.wait(0, job, 60_000), Ok(Cbor::encode(&[2, 5])), "{mishap:?}");
        assert_eq!(c.runs.len(), 9, "{mishap:?}: nothing ran more often than it had to");
        c.run_for(20_000);
        c.assert_idle();
        c.deliveries
    };
    for number in 1..=run(None) {
        run(Some((number, Mishap::Doubled { after_ms: 20 })));
    }
}

// --- Countdown and eta ---

#[test]
fn an_eta_far_beyond_any_visibility_timeout_runs_once() {
    let mut c = cluster(110);
    c.tell_time(0, NOON);
    let at = NOON + 30 * DAY_MS;
    let jobs = [c.submit(0, &with(sleep(1), eta(at))), c.submit(0, &with(sleep(2), countdown(30 * DAY_MS)))];
    let start = c.now_ms();
    c.run_for(30 * DAY_MS - 1_000);
    assert_eq!(c.runs.len(), 0, "nothing starts before its time");
    jobs.into_iter().for_each(|job| assert!(c.wait(0, job, 2_000).is_ok()));
    c.runs.iter().for_each(|run| assert_near(run.at_ms - start, 30 * DAY_MS));
    c.run_for(10_000);
    assert_eq!(c.runs.len(), 2);
    c.assert_idle();
}

#[test]
fn an_eta_in_the_past_starts_at_once() {
    let mut c = cluster(111);
    c.tell_time(0, NOON);
    for at in [0, NOON - DAY_MS, NOON] {
        let start = c.now_ms();
        let job = c.submit(0, &with(add(1, 1), eta(at)));
        assert_eq!(c.wait(0, job, 60), Ok(Cbor::encode(&2)), "{at}");
        assert_near(c.now_ms(), start);
    }
}

#[test]
fn a_node_that_does_not_know_the_time_of_day_refuses_an_eta() {
    let mut c = Cluster::started(112, vec![Spec::new("origin", 1), Spec::client("client")]);
    let canvas = Canvas::group(vec![add(1, 1), with(add(2, 2), eta(NOON))]);
    let text = "this node does not know the time of day: use countdown instead of eta";
    assert_eq!(c.try_submit(0, &canvas).map_err(|error| error.to_string()), Err(text.into()));
    assert_eq!(c.try_submit(0, &canvas), Err(SubmitError::NoClock));
    crate::attach(&mut c, 1);
    let job = c.submit_remote(1, &canvas);
    let told = |event: &broccoli_core::Event| matches!(event, broccoli_core::Event::Refused(id, Refusal::BadCanvas(why)) if *id == job && why == text);
    assert!(c.run_until(1_000, |c| c.events(1).any(told)));
    c.tell_time(0, NOON);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 100), Ok(Cbor::encode(&[2, 4])));
}

#[test]
fn a_changed_clock_moves_etas_and_never_countdowns() {
    let hour = 3_600_000;
    // The clock is set to the next day: a task that was due before that starts now.
    let mut c = cluster(113);
    c.tell_time(0, NOON);
    let soon = c.submit(0, &with(sleep(1), eta(NOON + hour)));
    let later = c.submit(0, &with(sleep(2), eta(NOON + DAY_MS + hour)));
    let pause = c.submit(0, &with(sleep(3), countdown(2 * hour)));
    let start = c.now_ms();
    c.run_for(1_000);
    c.tell_time(0, NOON + DAY_MS);
    assert!(c.wait(0, soon, 100).is_ok());
    assert!(c.wait(0, later, DAY_MS).is_ok());
    assert!(c.wait(0, pause, DAY_MS).is_ok());
    let starts: Vec<u64> = c.runs.iter().map(|run| run.at_ms - start).collect();
    assert_near(starts[0], 1_000);
    assert_near(starts[1], 1_000 + hour);
    assert_near(starts[2], 2 * hour);

    // The clock is set back by a day: the task waits a day longer.
    let mut c = cluster(114);
    c.tell_time(0, NOON);
    let job = c.submit(0, &with(sleep(1), eta(NOON + hour)));
    let start = c.now_ms();
    c.tell_time(0, NOON - DAY_MS);
    assert!(c.wait(0, job, 2 * DAY_MS).is_ok());
    assert_near(c.runs[0].at_ms - start, DAY_MS + hour);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn an_eta_follows_a_clock_that_drifts() {
    for drift in [-5_i64, 5] {
        let mut c = cluster(115);
        let unix = |ms: u64| (NOON as i64 + ms as i64 * (1_000 + drift) / 1_000) as u64;
        c.tell_time(0, NOON);
        let job = c.submit(0, &with(sleep(1), eta(NOON + DAY_MS)));
        let start = c.now_ms();
        while c.runs.is_empty() && c.now_ms() - start < 2 * DAY_MS {
            c.run_for(60_000);
            let now = unix(c.now_ms() - start);
            c.tell_time(0, now);
        }
        let at = unix(c.runs[0].at_ms - start);
        let late = at as i64 - (NOON + DAY_MS) as i64;
        assert!((-400..2_000).contains(&late), "{late} ms late with a drift of {drift} in 1000");
        assert!(c.wait(0, job, 1_000).is_ok());
    }
}

#[test]
fn of_an_eta_and_a_countdown_the_later_counts() {
    for (at, pause, expected) in [(5_000, 1_000, 5_000), (1_000, 5_000, 5_000)] {
        let mut c = cluster(116);
        c.tell_time(0, NOON);
        let options = Options { countdown_ms: Some(pause), ..eta(NOON + at) };
        let start = c.now_ms();
        let job = c.submit(0, &with(sleep(1), options));
        assert!(c.wait(0, job, 10_000).is_ok());
        assert_near(c.runs[0].at_ms - start, expected);
    }
}

#[test]
fn a_job_that_waits_for_its_time_costs_nothing() {
    let mut c = cluster(117);
    let job = c.submit(0, &with(sleep(1), countdown(DAY_MS)));
    c.run_for(1_000);
    let now = broccoli_core::Instant(c.now_us);
    let next = c.node(0).poll_timeout().expect("presence is announced");
    assert!(next.0 - now.0 > 10_000_000, "woken after {} us", next.0 - now.0);
    c.revoke(0, job);
}

// --- Expires ---

#[test]
fn a_task_that_was_not_started_in_time_expires() {
    let mut c = Cluster::started(120, vec![Spec::new("origin", 0)]);
    let start = c.now_ms();
    let waits = c.submit(0, &with(add(1, 1), expires(3_000)));
    let delayed = c.submit(0, &with(add(1, 1), Options { countdown_ms: Some(60_000), ..expires(4_000) }));
    assert_expired(&mut c, waits, 5_000, "expired: it waited longer than its 3000 ms");
    assert_near(c.now_ms() - start, 3_000);
    assert_expired(&mut c, delayed, 5_000, "expired: it waited longer than its 4000 ms");
    assert_near(c.now_ms() - start, 4_000);
    c.add(Spec::worker("w1", 1));
    c.run_for(100_000);
    assert_eq!(c.runs.len(), 0, "what has expired never runs");
    c.assert_idle();
}

#[test]
fn what_runs_when_it_expires_goes_on() {
    let mut c = cluster(121);
    let job = c.submit(0, &with(sleep(5_000), expires(1_000)));
    assert_eq!(c.wait(0, job, 10_000), Ok(Cbor::encode(&5_000)));
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn no_retry_starts_after_a_task_has_expired() {
    let mut c = cluster(122);
    let failing = with(one("first_fails", 2_000), Options { retries: Some(3), ..expires(1_000) });
    let job = c.submit(0, &failing);
    assert_expired(&mut c, job, 5_000, "expired: it waited longer than its 1000 ms; its last error was: first");
    let asking = with(asks(3, 2_000), expires(1_000));
    let job = c.submit(0, &asking);
    let start = c.now_ms();
    assert_expired(&mut c, job, 5_000, "expired: it waited longer than its 1000 ms; its last error was: busy");
    assert_near(c.now_ms() - start, 1_000);
    assert_eq!(c.runs.len(), 2);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn no_lost_attempt_starts_again_after_a_task_has_expired() {
    let mut c = Cluster::started(123, vec![Spec::new("origin", 0), Spec::worker("w1", 1), Spec::worker("w2", 1)]);
    let job = c.submit(0, &with(sleep(60_000), expires(1_000)));
    c.run_for(2_000);
    let at = c.runs[0].node;
    c.kill(at, true);
    assert_expired(&mut c, job, 5_000, "expired: it waited longer than its 1000 ms");
    c.run_for(10_000);
    assert_eq!(c.runs.len(), 1);
    c.assert_idle();
}

#[test]
fn a_step_of_a_chain_that_becomes_ready_too_late_expires_at_once() {
    let mut c = cluster(124);
    let late = with(one("identity", 1), expires(1_000));
    let mut chain = Canvas::chain(vec![sleep(2_000), late]);
    if let broccoli_proto::Form::Chain(steps) = &mut chain.form
        && let broccoli_proto::Form::Task(task) = &mut steps[1].form
    {
        task.immutable = true;
    }
    chain.on_error.push(Canvas::task("identity", Cbor::empty_array()));
    let job = c.submit(0, &chain);
    assert_expired(&mut c, job, 5_000, "expired: it waited longer than its 1000 ms");
    c.run_for(100);
    assert_eq!(c.runs.len(), 2, "the step before it, and the callback for its error");
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn many_tasks_that_expire_leave_nothing_behind() {
    let mut c = Cluster::started(125, vec![Spec::new("origin", 0)]);
    let mut blocker = add(1, 1);
    blocker.options.priority = Some(0);
    let blocker = c.submit(0, &blocker);
    let mut group = Canvas::group((0..500).map(|i| add(i, i)).collect());
    for round in 0..5 {
        group.options = expires(1_000 + round);
        let job = c.submit(0, &group);
        let error = c.wait(0, job, 2_000).expect_err("expired");
        assert_eq!((error.cause, error.members.as_slice()), (Cause::Expired, &[0][..]));
        let ready = c.node(0).vitals().ready;
        assert!(ready < 600, "{ready} entries of the queue for one task that waits");
    }
    let done = c.news(0, blocker).filter(|news| matches!(news, JobNews::Ended(_))).count();
    assert_eq!(done, 0);
    c.add(Spec::worker("w1", 1));
    assert_eq!(c.wait(0, blocker, 3_000), Ok(Cbor::encode(&2)));
    c.run_for(10_000);
    assert_eq!(c.runs.len(), 1);
    c.assert_idle();
}

#[test]
fn no_task_is_lost_when_its_class_was_forgotten_while_it_waited() {
    let mut c = cluster(126);
    let job = c.submit(0, &with(add(1, 1), countdown(60_000)));
    let asking = c.submit(0, &asks(1, 60_000));
    c.run_for(1_000);
    // So many classes of tasks that the queue forgets those without waiting tasks.
    for n in 0..300 {
        let mut other = add(n, n);
        other.options.on = vec![format!("node-{n}")];
        let job = c.submit(0, &other);
        c.revoke(0, job);
    }
    assert_eq!(c.wait(0, job, 120_000), Ok(Cbor::encode(&2)));
    assert_eq!(c.wait(0, asking, 120_000), Ok(Cbor::encode(&1)));
}

// --- Priority ---

#[test]
fn priorities_order_the_tasks_of_all_jobs_of_an_origin() {
    let mut c = cluster(130);
    let first = c.submit(0, &sleep(500));
    c.run_for(100);
    let mut jobs = vec![first];
    // Submitted in mixed order. Each job has one task of each of two priorities.
    for priority in [3, 9, 0, 6, 1, 8, 4, 7, 2, 5] {
        let task = |ms: i64, priority| with(sleep(ms), Options { priority: Some(priority), ..Options::default() });
        let canvas = Canvas::group(vec![
            task(1_000 + i64::from(priority), priority),
            task(1_000 + i64::from(9 - priority), 9 - priority),
        ]);
        jobs.push(c.submit(0, &canvas));
    }
    jobs.into_iter().for_each(|job| assert!(c.wait(0, job, 60_000).is_ok()));
    let order: Vec<i64> = c.runs[1..].iter().map(|run| run.args.decode::<[i64; 1]>().expect("ms")[0] - 1_000).collect();
    let mut sorted = order.clone();
    sorted.sort_by_key(|priority| -priority);
    assert_eq!((order.len(), order.clone()), (20, sorted), "higher ones first");
}

#[test]
fn options_of_time_hold_under_loss_duplication_and_reordering() {
    for seed in 0..60 {
        let specs = vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 2), Spec::worker("w2", 1)];
        let mut c = Cluster::new(seed);
        c.faults = Faults { loss: 150, duplication: 100, delay: 200, delay_ms_max: 300 };
        specs.into_iter().for_each(|spec| {
            c.add(spec);
        });
        crate::attach(&mut c, 0);
        c.tell_time(1, NOON);
        let start = c.now_ms();
        let canvas = Canvas::group(vec![
            with(one("flaky", 2), Options { retries: Some(2), backoff_ms: Some(200), ..Options::default() }),
            asks(2, 400),
            with(sleep(7), eta(NOON + 2_000)),
            with(sleep(8), countdown(1_500)),
            with(sleep(9), expires(60_000)),
        ]);
        let job = c.submit_remote(0, &canvas);
        let outcome = c.wait(0, job, 120_000).expect("all succeed");
        let results = outcome.decode::<Vec<i64>>().expect("numbers");
        assert_eq!(results[2..], [7, 8, 9], "seed {seed}");
        let at = |ms: i64| c.runs.iter().find(|run| run.args == Cbor::encode(&[ms])).expect("ran").at_ms - start;
        assert!(at(7) >= 2_000 && at(8) >= 1_500, "seed {seed}: {} and {}", at(7), at(8));
        c.faults = Faults::default();
        c.run_for(60_000);
        c.assert_idle();
    }
}

#[test]
fn the_time_of_day_is_wanted_once_a_second() {
    let start = Instant(1_000_000);
    let mut node = crate::durable_node(1, start);
    assert!(node.wants_wall_clock(start), "it was never told");
    node.handle_input(start, Input::WallClock { unix_ms: 1_800_000_000_000 });
    assert!(!node.wants_wall_clock(Instant(1_999_999)));
    assert!(node.wants_wall_clock(Instant(2_000_000)));
    assert!(node.poll_timeout().is_some_and(|at| at <= Instant(2_000_000)), "and a time-out is due then");
}
