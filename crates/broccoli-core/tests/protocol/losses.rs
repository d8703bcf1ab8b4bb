//! Workers, origins, links and servers that fail.

use broccoli_core::Event;
use broccoli_proto::message::JobNews;
use broccoli_proto::{Canvas, Cause, Cbor};

use crate::cluster::{Cluster, Run, Spec};
use crate::{add, adds, sleep, sleeps};

fn cluster(seed: u64, workers: usize) -> Cluster {
    let mut specs = vec![Spec::new("origin", 0)];
    specs.extend((1..=workers).map(|i| Spec::worker(&format!("w{i}"), 1)));
    Cluster::started(seed, specs)
}

/// The longest time, in milliseconds, until the task of a lost run started again.
fn longest_wait(c: &Cluster, lost_at: u64, lost: &[Run]) -> u64 {
    let again =
        |lost: &Run| c.runs.iter().find(|run| run.at_ms >= lost_at && run.args == lost.args).map(|run| run.at_ms);
    lost.iter().map(|run| again(run).expect("started again") - lost_at).max().expect("something was lost")
}

fn a_killed_worker_is_replaced(reset: bool, ms_max: u64) {
    let mut c = cluster(20, 3);
    let (canvas, expected) = sleeps(60, 200);
    let job = c.submit(0, &canvas);
    c.run_for(1_000);
    let lost_at = c.now_ms();
    c.kill(1, reset);
    let lost: Vec<Run> = c.runs.iter().filter(|run| run.node == 1 && run.aborted).cloned().collect();
    assert_eq!(c.wait(0, job, 30_000), Ok(expected));
    let wait = longest_wait(&c, lost_at, &lost);
    assert!(wait <= ms_max, "lost tasks started again after {wait} ms");
    for id in [2, 3] {
        let starts: Vec<u64> = c.runs.iter().filter(|run| run.node == id).map(|run| run.at_ms).collect();
        let pause = starts.windows(2).map(|pair| pair[1] - pair[0]).max().expect("many runs");
        assert!(pause < 290, "worker {id} paused for {pause} ms");
    }
    assert_eq!(c.runs.len(), 60 + lost.len(), "nothing else ran twice");
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn tasks_of_a_killed_worker_start_again_within_three_seconds() {
    a_killed_worker_is_replaced(true, 3_000);
}

#[test]
fn tasks_of_a_worker_that_vanished_start_again_within_six_seconds() {
    a_killed_worker_is_replaced(false, 6_000);
}

#[test]
fn tasks_of_a_worker_that_restarted_start_again_within_three_seconds() {
    let mut c = cluster(21, 1);
    let (canvas, expected) = sleeps(4, 500);
    let job = c.submit(0, &canvas);
    c.run_for(700);
    let lost_at = c.now_ms();
    c.kill(1, false);
    c.restart(1);
    let lost: Vec<Run> = c.runs.iter().filter(|run| run.aborted).cloned().collect();
    assert_eq!(c.wait(0, job, 30_000), Ok(expected));
    assert!(longest_wait(&c, lost_at, &lost) <= 3_000);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_worker_that_stands_still_costs_time_not_tasks() {
    let mut c = cluster(22, 2);
    let (canvas, expected) = sleeps(20, 200);
    let job = c.submit(0, &canvas);
    c.run_for(500);
    c.pause(1);
    c.run_for(8_000);
    c.resume(1);
    assert_eq!(c.wait(0, job, 30_000), Ok(expected));
    c.run_for(20_000);
    c.assert_idle();
}

#[test]
fn nothing_runs_twice_if_a_worker_is_back_within_two_seconds() {
    for reset in [true, false] {
        let mut c = cluster(23, 2);
        let (canvas, expected) = sleeps(12, 900);
        let job = c.submit(0, &canvas);
        c.run_for(1_200);
        c.cut(1, reset);
        c.run_for(1_400);
        c.heal(1);
        assert_eq!(c.wait(0, job, 30_000), Ok(expected), "reset {reset}");
        assert_eq!(c.runs.len(), 12, "reset {reset}");
        c.run_for(10_000);
        c.assert_idle();
    }
}

#[test]
fn the_results_of_a_worker_that_was_away_longer_still_count() {
    let mut c = cluster(24, 1);
    let job = c.submit(0, &sleep(1_000));
    c.run_for(500);
    c.cut(1, true);
    c.run_for(10_000);
    c.heal(1);
    assert_eq!(c.wait(0, job, 1_000), Ok(Cbor::encode(&1_000)));
    assert_eq!(c.runs.len(), 1, "no other worker was there");
    c.run_for(10_000);
    c.assert_idle();
}

/// A worker is cut off while it runs a task. Another one takes over the task after 2 seconds. The first one comes back
/// before that run has ended.
fn taken_over(task: &Canvas) -> (Cluster, broccoli_core::SubmitId) {
    let mut c = cluster(34, 1);
    let job = c.submit(0, task);
    c.run_for(500);
    c.cut(1, true);
    c.add(Spec::worker("w2", 1));
    c.run_for(3_000);
    assert_eq!(c.running_on(2), 1, "it was taken over");
    c.heal(1);
    (c, job)
}

#[test]
fn a_failure_of_an_attempt_that_was_replaced_does_not_count() {
    let (mut c, job) = taken_over(&crate::one("first_fails", 2_000));
    assert_eq!(c.wait(0, job, 5_000), Ok(Cbor::encode(&1)), "the second attempt decides");
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_success_of_an_attempt_that_was_replaced_counts_and_aborts_the_other() {
    let (mut c, job) = taken_over(&sleep(2_000));
    assert_eq!(c.wait(0, job, 50), Ok(Cbor::encode(&2_000)));
    c.run_for(50);
    assert!(c.runs[1].aborted, "nobody waits for the second attempt");
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn results_that_no_origin_wants_are_dropped_in_the_end() {
    let mut c = cluster(35, 1);
    c.submit(0, &sleep(500));
    c.run_for(200);
    c.kill(0, true);
    c.run_for(700_000);
    c.assert_idle();
}

#[test]
fn a_worker_that_leaves_is_not_waited_for() {
    let mut c = cluster(25, 2);
    let (canvas, expected) = sleeps(2, 2_000);
    let job = c.submit(0, &canvas);
    c.run_for(300);
    let now = broccoli_core::Instant(c.now_us);
    c.node(1).leave(now);
    c.flush(1);
    c.run_for(1);
    c.kill(1, true);
    let left_at = c.now_ms();
    assert_eq!(c.wait(0, job, 10_000), Ok(expected));
    let again = c.runs[2].at_ms - left_at;
    assert!(again < 2_000, "started again after {again} ms, as soon as the other worker was free");
}

#[test]
fn a_task_that_takes_its_worker_down_three_times_fails() {
    let mut c = cluster(26, 4);
    let job = c.submit(0, &sleep(60_000));
    for _ in 0..3 {
        assert!(c.run_until(10_000, |c| (1..=4).any(|id| c.running_on(id) > 0)));
        c.run_for(200);
        let worker = (1..=4).find(|id| c.running_on(*id) > 0).expect("just seen");
        c.kill(worker, true);
    }
    let error = c.wait(0, job, 10_000).expect_err("lost");
    assert_eq!((error.cause, error.function.as_str()), (Cause::Lost, "tasks.sleep"));
    assert_eq!(c.runs.len(), 3);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_failed_task_is_tried_again_as_often_as_its_author_says() {
    for (retries, runs, fails) in [(0, 1, true), (1, 2, true), (2, 3, false), (5, 3, false)] {
        let mut c = cluster(27, 1);
        let mut canvas = crate::one("flaky", 2);
        canvas.options.retries = Some(retries);
        let job = c.submit(0, &canvas);
        let outcome = c.wait(0, job, 2_000);
        assert_eq!((outcome.is_err(), c.runs.len()), (fails, runs), "{retries} retries: {outcome:?}");
    }
}

#[test]
fn an_error_names_function_task_node_attempt_and_text() {
    let mut c = cluster(28, 1);
    let mut fail = Canvas::task("fail", Cbor::encode(&["boom"]));
    fail.options.retries = Some(1);
    let job = c.submit(0, &Canvas::group(vec![add(1, 1), fail]));
    let error = c.wait(0, job, 2_000).expect_err("fails");
    assert_eq!(error.to_string(), "tasks.fail: boom (step 2, attempt 2 on w1, member 1)");
    assert_eq!(error.cause, Cause::Returned);
}

#[test]
fn a_run_over_its_time_limit_is_aborted_and_says_so() {
    let mut c = cluster(29, 1);
    let mut canvas = sleep(5_000);
    canvas.options.timeout_ms = Some(300);
    let start = c.now_ms();
    let job = c.submit(0, &canvas);
    let error = c.wait(0, job, 2_000).expect_err("too long");
    assert_eq!((error.cause, error.text.as_str()), (Cause::TimedOut, "took longer than its timeout of 300 ms"));
    assert!((300..400).contains(&(c.now_ms() - start)));
    assert!(c.runs[0].aborted);
    let (canvas, expected) = adds(10);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 1_000), Ok(expected), "the slot is free again");
}

#[test]
fn no_task_runs_again_because_the_origin_was_away() {
    for reset in [true, false] {
        let mut c = cluster(30, 3);
        let (canvas, expected) = sleeps(9, 4_000);
        let job = c.submit(0, &canvas);
        c.run_for(1_000);
        c.cut(0, reset);
        c.run_for(10_000);
        c.heal(0);
        assert_eq!(c.wait(0, job, 60_000), Ok(expected), "reset {reset}");
        assert_eq!(c.runs.len(), 9, "reset {reset}");
        c.run_for(20_000);
        c.assert_idle();
    }
}

#[test]
fn a_server_that_restarts_with_an_empty_memory_loses_nothing() {
    let specs = vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 1), Spec::worker("w2", 1)];
    let mut c = Cluster::started(31, specs);
    crate::attach(&mut c, 0);
    let (canvas, expected) = sleeps(10, 700);
    let job = c.submit_remote(0, &canvas);
    for _ in 0..3 {
        c.run_for(800);
        c.restart_server();
    }
    assert_eq!(c.wait(0, job, 30_000), Ok(expected));
    assert_eq!(c.runs.len(), 10);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_client_whose_origin_restarted_hears_that_its_job_is_unknown() {
    let specs = vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 1)];
    let mut c = Cluster::started(32, specs);
    crate::attach(&mut c, 0);
    let job = c.submit_remote(0, &sleep(3_000));
    c.run_for(500);
    c.kill(1, true);
    c.restart(1);
    assert!(c.run_until(10_000, |c| c.news(0, job).any(|news| matches!(news, JobNews::Unknown))));
    // The next job reaches the restarted origin.
    let job = c.submit_remote(0, &add(1, 2));
    assert_eq!(c.wait(0, job, 20_000), Ok(Cbor::encode(&3)));
    c.run_for(20_000);
    c.assert_idle();
}

#[test]
fn a_client_that_lost_its_link_gets_the_result_later() {
    let specs = vec![Spec::client("client"), Spec::new("origin", 1)];
    let mut c = Cluster::started(33, specs);
    crate::attach(&mut c, 0);
    let job = c.submit_remote(0, &sleep(1_000));
    c.run_for(200);
    c.cut(0, true);
    c.run_for(60_000);
    assert!(!c.events(0).any(|event| matches!(event, Event::Job(_, JobNews::Ended(_)))));
    c.heal(0);
    assert_eq!(c.wait(0, job, 1_000), Ok(Cbor::encode(&1_000)));
}
