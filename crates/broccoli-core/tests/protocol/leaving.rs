//! Nodes that leave on purpose: nothing is lost, nothing runs twice, and no task waits for them.

use core::time::Duration;

use broccoli_core::{Event, Instant, SubmitError};
use broccoli_proto::message::{JobNews, Message, Waits};
use broccoli_proto::{Cause, Cbor, NodeId};

use crate::cluster::{Cluster, Id, Run, Spec};
use crate::{add, sleep, sleeps};

/// Longest time that a task may wait because a node leaves.
const WAIT_MAX_MS: u64 = 300;

fn drain(c: &mut Cluster, id: Id) {
    let now = Instant(c.now_us);
    c.node(id).drain(now);
    c.flush(id);
}

fn hand_back(c: &mut Cluster, id: Id) {
    let now = Instant(c.now_us);
    c.node(id).hand_back(now);
    c.flush(id);
}

fn is_drained(c: &Cluster, id: Id) -> bool {
    c.events(id).any(|event| matches!(event, Event::Drained))
}

/// Waits until a node has sent its goodbye, and ends it.
fn leaves_within(c: &mut Cluster, id: Id, ms: u64) {
    assert!(c.run_until(ms, |c| is_drained(c, id)), "not drained after {ms} ms");
    c.run_for(1);
    c.kill(id, true);
}

/// The longest time between the starts of runs on a node, without the time of a run.
fn longest_pause(c: &Cluster, id: Id, takes_ms: u64) -> u64 {
    let starts: Vec<u64> = c.runs.iter().filter(|run| run.node == id).map(|run| run.at_ms).collect();
    starts.windows(2).map(|pair| (pair[1] - pair[0]).saturating_sub(takes_ms)).max().expect("many runs")
}

fn workers(seed: u64, count: usize) -> Cluster {
    let mut specs = vec![Spec::new("origin", 0)];
    specs.extend((1..=count).map(|i| Spec::worker(&format!("w{i}"), 1)));
    Cluster::started(seed, specs)
}

#[test]
fn a_worker_that_drains_finishes_what_runs_and_gives_back_the_rest() {
    let mut c = workers(300, 3);
    let (canvas, expected) = sleeps(60, 200);
    let job = c.submit(0, &canvas);
    c.run_for(1_000);
    let asked_at = c.now_ms();
    drain(&mut c, 1);
    leaves_within(&mut c, 1, 200 + WAIT_MAX_MS);
    assert_eq!(c.wait(0, job, 30_000), Ok(expected));
    assert_eq!(c.runs.len(), 60, "nothing ran twice");
    assert!(c.runs.iter().all(|run| run.node != 1 || run.at_ms <= asked_at), "it started nothing more");
    for id in [2, 3] {
        let pause = longest_pause(&c, id, 260);
        assert!(pause < WAIT_MAX_MS, "worker {id} paused for {pause} ms");
    }
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn short_tasks_do_not_wait_for_a_worker_that_leaves() {
    let mut c = workers(301, 2);
    let (canvas, expected) = sleeps(100, 3);
    let job = c.submit(0, &canvas);
    c.run_for(100);
    drain(&mut c, 1);
    leaves_within(&mut c, 1, WAIT_MAX_MS);
    let left_at = c.now_ms();
    c.add(Spec::worker("w3", 1));
    assert_eq!(c.wait(0, job, 30_000), Ok(expected));
    assert_eq!(c.runs.len(), 100);
    assert!(longest_pause(&c, 2, 102) < WAIT_MAX_MS);
    assert!(c.runs.iter().any(|run| run.node == 3 && run.at_ms < left_at + WAIT_MAX_MS), "a new node helps soon");
}

#[test]
fn the_last_worker_leaves_and_its_tasks_wait_for_the_next_one_only() {
    let mut c = workers(302, 1);
    let (canvas, expected) = sleeps(8, 100);
    let job = c.submit(0, &canvas);
    c.run_for(250);
    drain(&mut c, 1);
    leaves_within(&mut c, 1, 100 + WAIT_MAX_MS);
    c.run_for(20_000);
    let came_at = c.now_ms();
    c.add(Spec::worker("w2", 1));
    assert!(c.run_until(WAIT_MAX_MS, |c| c.running_on(2) == 1), "at {} ms", c.now_ms() - came_at);
    assert_eq!(c.wait(0, job, 30_000), Ok(expected));
    assert_eq!(c.runs.len(), 8);
}

#[test]
fn what_a_leaving_worker_cannot_finish_goes_back_as_often_as_it_happens() {
    let mut c = workers(303, 1);
    let job = c.submit(0, &sleep(5_000));
    // More often than a task may be lost.
    for next in 2..=6 {
        assert!(c.run_until(3_000, |c| c.running_on(next - 1) == 1));
        c.add(Spec::worker(&format!("w{next}"), 1));
        c.run_for(1_000);
        drain(&mut c, next - 1);
        c.run_for(500);
        assert!(!is_drained(&c, next - 1), "it waits for its task");
        let handed_back_at = c.now_ms();
        hand_back(&mut c, next - 1);
        leaves_within(&mut c, next - 1, 10);
        assert!(c.run_until(WAIT_MAX_MS, |c| c.running_on(next) == 1), "{} ms", c.now_ms() - handed_back_at);
    }
    assert_eq!(c.wait(0, job, 6_000), Ok(Cbor::encode(&5_000)));
    let aborted: Vec<&Run> = c.runs.iter().filter(|run| run.aborted).collect();
    assert_eq!((c.runs.len(), aborted.len()), (6, 5));
}

#[test]
fn a_leaving_origin_refuses_and_its_clients_turn_to_another_at_once() {
    let specs = vec![Spec::client("client"), Spec::new("o1", 1)];
    let mut c = Cluster::started(304, specs);
    crate::attach(&mut c, 0);
    let running = c.submit_remote(0, &sleep(2_000));
    c.run_for(100);
    c.add(Spec::new("o2", 1));
    c.run_for(300);
    drain(&mut c, 1);
    assert_eq!(c.try_submit(1, &add(1, 1)), Err(SubmitError::Draining));
    let start = c.now_ms();
    let next = c.submit_remote(0, &add(2, 3));
    assert_eq!(c.wait(0, next, WAIT_MAX_MS), Ok(Cbor::encode(&5)), "after {} ms", c.now_ms() - start);
    assert!(!is_drained(&c, 1), "it holds a job that only it knows");
    assert_eq!(c.wait(0, running, 3_000), Ok(Cbor::encode(&2_000)));
    leaves_within(&mut c, 1, WAIT_MAX_MS);
    assert_eq!(c.runs.len(), 2);
}

#[test]
fn jobs_of_a_leaving_origin_go_on_at_other_workers_until_they_end() {
    let specs = vec![Spec::client("client"), Spec::new("o1", 2), Spec::worker("w1", 1)];
    let mut c = Cluster::started(305, specs);
    crate::attach(&mut c, 0);
    let (canvas, expected) = sleeps(12, 100);
    let job = c.submit_remote(0, &canvas);
    c.run_for(150);
    drain(&mut c, 1);
    let asked_at = c.now_ms();
    assert_eq!(c.wait(0, job, 10_000), Ok(expected));
    assert!(c.runs.iter().all(|run| run.node == 2 || run.at_ms <= asked_at), "its own worker starts nothing more");
    assert_eq!(c.runs.len(), 12);
    leaves_within(&mut c, 1, WAIT_MAX_MS);
}

#[test]
fn a_leaving_origin_does_not_wait_for_a_client_that_is_gone() {
    let specs = vec![Spec::client("client"), Spec::new("o1", 1)];
    let mut c = Cluster::started(306, specs);
    crate::attach(&mut c, 0);
    c.submit_remote(0, &sleep(300));
    c.run_for(100);
    c.kill(0, true);
    drain(&mut c, 1);
    leaves_within(&mut c, 1, 5_000);
}

#[test]
fn a_node_leaves_when_a_client_asks_it_to_and_knows_who() {
    let specs = vec![Spec::client("client"), Spec::new("o1", 1), Spec::new("o2", 1)];
    let mut c = Cluster::started(307, specs);
    // The first request arrives at a node that has just restarted.
    for (id, restarts) in [(1, true), (2, false)] {
        let (now, name) = (Instant(c.now_us), c.name(id));
        c.node(0).drain_node(now, name, None);
        if restarts {
            c.lose = Some(|message| matches!(message, Message::Drain(_)));
            c.flush(0);
            c.run_for(100);
            c.kill(id, true);
            c.restart(id);
            c.lose = None;
        }
        c.flush(0);
        let client: NodeId = c.name(0);
        let asked =
            |c: &Cluster| c.events(id).any(|event| matches!(event, Event::Draining(Some(by), None) if *by == client));
        assert!(c.run_until(2_000, asked));
        leaves_within(&mut c, id, WAIT_MAX_MS);
        let gone = c.node(0).members().any(|(node, member)| node == name && !member.alive);
        assert!(gone, "the client sees that it is gone");
    }
    c.run_for(10_000);
    c.assert_idle();
}

/// A client that only asks for something reaches a node that is about to leave. A client with a new job waits for
/// another node.
#[test]
fn a_leaving_node_is_asked_and_says_what_it_waits_for() {
    let mut c = Cluster::started(308, vec![Spec::client("first"), Spec::new("o1", 1), Spec::client("second")]);
    crate::attach(&mut c, 0);
    let running = c.submit_remote(0, &sleep(20_000));
    let mut homeless = add(1, 2);
    homeless.options.on = vec!["room=kitchn".into()];
    let waiting = c.submit_remote(0, &homeless);
    c.run_for(2_000);
    drain(&mut c, 1);
    crate::attach(&mut c, 2);
    let vitals = c.peek(1).vitals();
    let leaving = vitals.leaving.expect("it is about to leave");
    assert_eq!(leaving.tasks, ["tasks.sleep"]);
    let [_, held] = &leaving.jobs[..] else { panic!("two jobs, not {:?}", leaving.jobs) };
    let missing = vec!["room=kitchn".to_owned()];
    assert_eq!(held.waits, Some(Waits::NoNode { function: "tasks.add".into(), missing, nodes: 0 }));

    let next = c.submit_remote(2, &add(2, 3));
    let told =
        |c: &Cluster| c.events(2).filter(|event| matches!(event, Event::OnlyLeaving(id, _) if *id == next)).count();
    assert!(c.run_until(500, |c| told(c) == 1));
    c.run_for(3_000);
    assert_eq!((told(&c), c.ended(2, next)), (1, None), "told once, and it waits");
    c.add(Spec::new("o2", 1));
    assert_eq!(c.wait(2, next, 1_000), Ok(Cbor::encode(&5)));
    assert_eq!((c.ended(0, running), c.ended(0, waiting)), (None, None));
}

#[test]
fn a_drain_with_a_time_names_what_is_lost_to_whoever_has_asked() {
    let mut c = Cluster::started(309, vec![Spec::client("client"), Spec::new("o1", 1)]);
    crate::attach(&mut c, 0);
    c.submit_remote(0, &sleep(20_000));
    c.run_for(200);
    let (now, name) = (Instant(c.now_us), c.name(1));
    c.node(0).drain_node(now, name, Some(Duration::from_secs(3)));
    c.flush(0);
    let limit = |c: &Cluster| {
        c.events(1).find_map(|event| if let Event::Draining(_, limit) = event { Some(*limit) } else { None })
    };
    assert!(c.run_until(1_000, |c| limit(c).is_some()));
    assert_eq!(limit(&c), Some(Some(Duration::from_secs(3))));
    hand_back(&mut c, 1);
    leaves_within(&mut c, 1, WAIT_MAX_MS);
    let lost = c.events(1).find_map(|event| if let Event::GaveUp(jobs) = event { Some(jobs.clone()) } else { None });
    let lost = lost.expect("it says what is lost");
    assert_eq!(lost.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["tasks.sleep"]);
    let told = c.events(0).find_map(|event| match event {
        Event::Vitals(_, vitals) => vitals.leaving.clone().filter(|leaving| leaving.gives_up == Some(true)),
        _ => None,
    });
    assert_eq!(told.map(|leaving| leaving.jobs), Some(lost));
}

#[test]
fn a_leaving_node_with_a_journal_tells_first_what_came_of_a_revoke() {
    for seed in 340..350 {
        let mut c = Cluster::started(seed, vec![Spec::client("client"), Spec::new("o1", 1).durable()]);
        crate::attach(&mut c, 0);
        let running = c.submit_remote(0, &sleep(20_000));
        c.run_for(300);
        let accepted = |event: &Event| if let Event::Accepted(_, job) = event { Some(*job) } else { None };
        let job = c.events(0).find_map(accepted).expect("it is accepted");
        let other = c.add(Spec::client("other"));
        c.run_for(300);
        drain(&mut c, 1);
        crate::attach(&mut c, other);
        let asked = c.revoke_job(other, job);
        assert!(c.run_until(1_000, |c| is_drained(c, 1)), "seed {seed}");
        let error = c.wait(other, asked, 100).expect_err("it is revoked");
        assert_eq!((error.cause, c.ended(0, running).is_some()), (Cause::Revoked, true), "seed {seed}");
    }
}

#[test]
fn leaving_works_over_links_that_lose_a_tenth() {
    for seed in 310..330 {
        let specs = vec![Spec::client("client"), Spec::new("o1", 1), Spec::worker("w1", 2), Spec::worker("w2", 2)];
        let mut c = Cluster::started(seed, specs);
        crate::attach(&mut c, 0);
        let (canvas, expected) = sleeps(40, 50);
        let job = c.submit_remote(0, &canvas);
        c.run_for(200);
        c.faults.loss = 100;
        drain(&mut c, 2);
        leaves_within(&mut c, 2, 20_000);
        assert_eq!(c.wait(0, job, 60_000), Ok(expected), "seed {seed}");
        drain(&mut c, 1);
        leaves_within(&mut c, 1, 20_000);
        assert_eq!(c.runs.len(), 40, "seed {seed}: nothing ran twice");
        assert!(!c.news(0, job).any(|news| matches!(news, JobNews::Unknown)), "seed {seed}");
    }
}

/// A client has found only a node that was leaving. After the restart of that node, it does not use it for anything
/// else.
#[test]
fn who_was_asked_while_it_left_is_given_no_jobs_when_it_is_back() {
    let mut c = Cluster::started(309, vec![Spec::worker("mine", 0), Spec::worker("w", 2), Spec::client("client")]);
    c.submit(0, &sleep(20_000));
    c.run_for(500);
    assert_eq!(c.running_on(1), 1);
    drain(&mut c, 1);
    crate::attach(&mut c, 2);
    let job = c.submit_remote(2, &add(2, 3));
    c.run_for(1_000);
    assert!(c.events(2).any(|event| matches!(event, Event::OnlyLeaving(id, _) if *id == job)));
    // The node is gone, but no other node gets its goodbye.
    c.depart(1);
    c.restart(1);
    c.run_for(2_000);
    assert!(!c.events(2).any(|event| matches!(event, Event::Refused(..))), "it takes no jobs, and is given none");
    c.add(Spec::new("origin", 0));
    assert_eq!(c.wait(2, job, 5_000), Ok(Cbor::encode(&5)));
}
