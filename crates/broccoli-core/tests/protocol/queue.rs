//! Jobs that are accepted, refused and revoked.

use broccoli_core::{Event, Limits, SubmitError};
use broccoli_proto::{Cause, Cbor, JobId};

use crate::cluster::{Cluster, Spec};
use crate::{add, adds, sleep, sleeps};

#[test]
fn a_full_queue_refuses_and_loses_nothing_that_it_accepted() {
    let origin = Spec::new("origin", 0).limits(|limits| limits.jobs_max = 4);
    let mut c = Cluster::started(70, vec![origin, Spec::client("client"), Spec::worker("w", 1)]);
    crate::attach(&mut c, 1);
    let jobs: Vec<_> = (0..4).map(|_| c.submit(0, &sleep(100))).collect();
    assert_eq!(c.try_submit(0, &add(1, 1)), Err(SubmitError::QueueFull));
    let remote = c.submit_remote(1, &add(1, 1));
    let told = |c: &Cluster| c.events(1).any(|event| matches!(event, Event::QueueFull(id, _) if *id == remote));
    assert!(c.run_until(1_000, told));
    jobs.into_iter().for_each(|job| assert!(c.wait(0, job, 2_000).is_ok()));
    let job = c.submit(0, &add(1, 1));
    assert!(c.wait(0, job, 1_000).is_ok(), "there is room again");
    assert!(c.wait(1, remote, 1_000).is_ok(), "the client has waited for it");
}

#[test]
fn the_number_of_tasks_is_bounded_too() {
    let origin = Spec::new("origin", 1).limits(|limits| limits.tasks_max = 100);
    let mut c = Cluster::started(71, vec![origin]);
    let (canvas, expected) = sleeps(60, 10);
    let job = c.submit(0, &canvas);
    assert_eq!(c.try_submit(0, &canvas), Err(SubmitError::QueueFull));
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
}

#[test]
fn a_node_that_may_say_little_to_itself_at_a_time_runs_all_its_jobs() {
    let node = Spec::new("node", 4).limits(|limits| limits.outbox_max = 1);
    let mut c = Cluster::started(79, vec![node]);
    let mut jobs: Vec<_> = (0..200).map(|_| c.submit(0, &sleep(100))).collect();
    let accepted = |c: &Cluster| -> Vec<JobId> {
        let accepted =
            c.events(0).filter_map(|event| if let Event::Accepted(_, job) = event { Some(*job) } else { None });
        accepted.collect()
    };
    assert!(c.run_until(1_000, |c| accepted(c).len() == 200));
    // Each submit is followed by a request about its job, in a message of the node to itself. There is room for 16.
    jobs.extend(accepted(&c).into_iter().map(|job| c.follow(0, job)));
    jobs.into_iter().for_each(|job| assert_eq!(c.wait(0, job, 60_000), Ok(Cbor::encode(&100))));
    assert_eq!(c.runs.len(), 200, "each ran once");
}

#[test]
fn the_bytes_of_queued_tasks_are_bounded_too() {
    let origin = Spec::new("origin", 0).limits(|limits| limits.queue_bytes_max = 40_000);
    let mut c = Cluster::started(77, vec![origin, Spec::client("client")]);
    crate::attach(&mut c, 1);
    let (canvas, expected) = sleeps(60, 10);
    let mut jobs = Vec::new();
    let refused = loop {
        match c.try_submit(0, &canvas) {
            Ok(job) => jobs.push(job),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, SubmitError::QueueFull);
    assert!((2..=4).contains(&jobs.len()), "{} jobs of about 10 KB", jobs.len());
    let remote = c.submit_remote(1, &canvas);
    let told = |c: &Cluster| c.events(1).any(|event| matches!(event, Event::QueueFull(id, _) if *id == remote));
    assert!(c.run_until(1_000, told), "a client waits");
    c.add(Spec::worker("w", 4));
    jobs.into_iter().for_each(|job| assert_eq!(c.wait(0, job, 10_000), Ok(expected.clone())));
    assert_eq!(c.wait(1, remote, 10_000), Ok(expected.clone()), "there is room again");
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn an_origin_that_holds_nothing_takes_one_job_of_any_size_that_it_can_hold() {
    let origin = Spec::new("origin", 4).limits(|limits| limits.queue_bytes_max = 12_000);
    let mut c = Cluster::started(78, vec![origin]);
    let (canvas, expected) = sleeps(60, 10);
    let job = c.submit(0, &canvas);
    assert_eq!(c.try_submit(0, &canvas), Err(SubmitError::QueueFull));
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
}

#[test]
fn a_revoked_job_aborts_its_runs_and_ends() {
    let specs = vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 2), Spec::worker("w2", 2)];
    let mut c = Cluster::started(72, specs);
    crate::attach(&mut c, 0);
    let mut later = add(1, 1);
    later.options.countdown_ms = Some(3_600_000);
    let mut canvas = sleeps(20, 60_000).0;
    if let broccoli_proto::Form::Group(members) = &mut canvas.form {
        members.push(later);
    }
    let job = c.submit_remote(0, &canvas);
    c.run_for(1_000);
    assert_eq!(c.runs.len(), 4);
    c.revoke(0, job);
    assert_eq!(c.wait(0, job, 1_000).expect_err("revoked").cause, Cause::Revoked);
    c.run_for(100);
    assert!(c.runs.iter().all(|run| run.aborted), "all runs were aborted");
    assert_eq!(c.runs.len(), 4, "nothing else started");
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_job_that_waits_for_a_node_can_be_revoked() {
    let mut c = Cluster::started(73, vec![Spec::new("origin", 1)]);
    let mut canvas = add(1, 1);
    canvas.options.on = vec!["nobody".into()];
    let job = c.submit(0, &canvas);
    c.run_for(5_000);
    c.revoke(0, job);
    assert_eq!(c.wait(0, job, 10).expect_err("revoked").cause, Cause::Revoked);
    assert_eq!(c.node(0).vitals().ready, 0, "it takes no place in the queue");
    c.run_for(5_000);
    c.assert_idle();
}

#[test]
fn a_job_revoked_before_it_was_accepted_ends_too() {
    let specs = vec![Spec::client("client"), Spec::new("origin", 1)];
    let mut c = Cluster::started(74, specs);
    crate::attach(&mut c, 0);
    let job = c.submit_remote(0, &sleep(60_000));
    c.revoke(0, job);
    assert_eq!(c.wait(0, job, 2_000).expect_err("revoked").cause, Cause::Revoked);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_second_call_for_help_does_not_wait_for_the_first_ones_interval() {
    let mut c = Cluster::started(75, vec![Spec::new("origin", 0)]);
    let first = c.submit(0, &add(1, 1));
    // The origin has announced its tasks many times: the interval is at its longest.
    c.run_for(20_000);
    c.add(Spec::worker("w", 1));
    assert!(c.wait(0, first, 3_000).is_ok());
    c.kill(1, true);
    c.add(Spec::worker("w2", 1));
    c.run_for(100);
    let start = c.now_ms();
    let second = c.submit(0, &add(1, 1));
    assert!(c.wait(0, second, 3_000).is_ok());
    assert!(c.now_ms() - start < 20, "{} ms", c.now_ms() - start);
}

#[test]
fn a_worker_that_may_hold_less_than_its_slots_asks_for_no_more() {
    let tiny = |limits: &mut Limits| limits.held_max = 1;
    for specs in
        [vec![Spec::new("both", 4).limits(tiny)], vec![Spec::new("origin", 0), Spec::worker("w", 4).limits(tiny)]]
    {
        let mut c = Cluster::started(46, specs);
        let (canvas, expected) = sleeps(6, 10);
        c.count_from_here();
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, 5_000), Ok(expected));
        assert!(c.published.len() < 60, "{} packets for 6 tasks", c.published.len());
    }
}

#[test]
fn a_worker_with_room_for_few_results_takes_no_more_tasks_and_goes_on() {
    let few = |limits: &mut Limits| limits.results_max = 4;
    let specs = vec![Spec::new("origin", 0), Spec::worker("w", 2).limits(few)];
    let mut c = Cluster::started(47, specs);
    let (canvas, expected) = adds(200);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 10_000), Ok(expected));
}
