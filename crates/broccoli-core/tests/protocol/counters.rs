//! The counters of a node, and its traces of jobs and tasks.

use broccoli_core::{Event, Trace, TraceLevel};
use broccoli_proto::message::Message;
use broccoli_proto::packet::{Address, Envelope};
use broccoli_proto::{Canvas, Cbor, Options};

use crate::cluster::{Cluster, Faults, Id, Spec};
use crate::{add, adds, attach, sleeps};

const CLIENT: Id = 0;
const ORIGIN: Id = 1;
const WORKER: Id = 2;

fn cluster(seed: u64) -> Cluster {
    let specs = vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 1)];
    let mut c = Cluster::started(seed, specs);
    attach(&mut c, CLIENT);
    c.run_for(1_000);
    c
}

fn fail(text: &str) -> Canvas {
    Canvas::task("fail", Cbor::encode(&[text]))
}

#[test]
fn jobs_leases_runs_and_packets_are_counted_where_they_happen() {
    let mut c = cluster(600);
    let (canvas, expected) = adds(20);
    let job = c.submit_remote(CLIENT, &canvas);
    assert_eq!(c.wait(CLIENT, job, 5_000), Ok(expected));
    let job = c.submit_remote(CLIENT, &fail("boom"));
    assert!(c.wait(CLIENT, job, 5_000).is_err());
    c.run_for(2_000);
    let [client, origin, worker] = [CLIENT, ORIGIN, WORKER].map(|id| c.peek(id).counters());
    assert_eq!((origin.jobs_accepted, origin.jobs_succeeded, origin.jobs_failed), (2, 1, 1));
    assert_eq!((origin.leases_given, worker.leases_received), (21, 21));
    assert_eq!((worker.tasks_run, worker.tasks_failed), (21, 1));
    assert_eq!((origin.tasks_run, client.leases_given, worker.jobs_accepted), (0, 0, 0));
    for node in [client, origin, worker] {
        assert!(node.packets_in > 0 && node.packets_out > 0, "{node:?}");
        assert!(node.bytes_in > 20 * node.packets_in && node.bytes_out > 20 * node.packets_out, "{node:?}");
        assert_eq!((node.rejected.total(), node.sessions_refused), (0, 0), "{node:?}");
        assert!(node.sessions_open > 0 && node.sessions_opened >= node.sessions_open, "{node:?}");
    }
    assert_eq!((origin.repeated.leases, worker.repeated.results, client.repeated.submits), (0, 0, 0));
    assert_eq!((origin.held.jobs_bytes, origin.held.outbox_messages, worker.held.unacknowledged_bytes), (0, 0, 0));
    assert!(origin.held.results_bytes > 0, "both results are kept");
}

#[test]
fn what_is_held_shows_while_it_is() {
    let mut c = cluster(601);
    let mut canvas = add(1, 2);
    canvas.options = Options { on: vec!["led".into()], ..Options::default() };
    let job = c.submit_remote(CLIENT, &canvas);
    c.run_for(100);
    assert!(c.peek(ORIGIN).counters().held.jobs_bytes > 0, "it waits");
    c.revoke(CLIENT, job);
    assert!(c.wait(CLIENT, job, 5_000).is_err());
    assert_eq!(c.peek(ORIGIN).counters().held.jobs_bytes, 0);
    // A value that fits into no packet is held until its receiver has it. The receiver is cut off now.
    let job = c.submit_remote(CLIENT, &Canvas::task("large", Cbor::encode(&[300_000])));
    c.run_until(5_000, |c| c.runs_on(WORKER) > 0);
    c.faults = Faults { loss: 1_000, ..Faults::default() };
    assert!(c.run_until(5_000, |c| c.peek(WORKER).counters().held.unacknowledged_bytes > 0));
    c.faults = Faults::default();
    assert!(c.wait(CLIENT, job, 60_000).is_ok());
    c.run_for(5_000);
    let held = c.peek(WORKER).counters().held;
    assert_eq!((held.unacknowledged_bytes, held.blobs_bytes, held.pulled_bytes), (0, 0, 0));
}

#[test]
fn rejected_packets_are_counted_by_their_reason() {
    let mut c = cluster(602);
    let (name, key) = (c.name(ORIGIN), crate::cluster::cluster_key());
    let rejected = |c: &Cluster| c.peek(ORIGIN).counters().rejected;
    c.inject(ORIGIN, Address::Node(name), &[]);
    assert_eq!((rejected(&c).malformed, rejected(&c).total()), (1, 1));
    let (sender, epoch, proof) = (c.name(WORKER), c.epoch(WORKER), c.peek(ORIGIN).audit_challenge());
    let envelope = Envelope { sender, to: Address::Node(name), epoch, sequence: 1_000, challenge: 1, proof };
    let mut packet = Vec::new();
    broccoli_proto::packet::seal(&key, &envelope, &mut packet, |buf| {
        broccoli_proto::packet::put(buf, &Message::VitalsRequest);
    });
    c.inject(ORIGIN, Address::Node(name), &packet);
    assert_eq!(rejected(&c).total(), 1, "it counts");
    c.inject(ORIGIN, Address::Node(name), &packet);
    assert_eq!((rejected(&c).repeated, rejected(&c).total()), (1, 2), "once");
    let last = packet.len() - 1;
    packet[last] ^= 1;
    c.inject(ORIGIN, Address::Node(name), &packet);
    assert_eq!((rejected(&c).cannot_open, rejected(&c).total()), (1, 3), "and as it was sealed");
    let envelope = Envelope { sequence: 1_001, proof: None, ..envelope };
    broccoli_proto::packet::seal(&key, &envelope, &mut packet, |buf| {
        broccoli_proto::packet::put(buf, &Message::VitalsRequest);
    });
    c.inject(ORIGIN, Address::Node(name), &packet);
    assert_eq!((rejected(&c).unproven, rejected(&c).total()), (1, 4), "if its sender is there");
}

#[test]
fn what_is_sent_again_is_counted() {
    let mut c = cluster(603);
    c.faults.loss = 400;
    let jobs: Vec<_> = (0..20).map(|n| c.submit_remote(CLIENT, &crate::sleep(20 + n))).collect();
    c.run_for(20_000);
    c.faults = Faults::default();
    jobs.into_iter().for_each(|job| assert!(c.wait(CLIENT, job, 30_000).is_ok()));
    let [client, origin, worker] = [CLIENT, ORIGIN, WORKER].map(|id| c.peek(id).counters().repeated);
    assert!(client.submits > 0, "{client:?}");
    assert!(origin.leases > 0 && origin.ends > 0, "{origin:?}");
    assert!(worker.results > 0, "{worker:?}");
    let (given, received) = (c.peek(ORIGIN).counters().leases_given, c.peek(WORKER).counters().leases_received);
    assert!(received <= given + origin.leases, "{received} of {given} came");
}

#[test]
fn returns_are_counted_on_both_sides() {
    let mut c = cluster(604);
    let (canvas, _) = adds(300);
    let job = c.submit_remote(CLIENT, &canvas);
    assert!(c.wait(CLIENT, job, 5_000).is_ok());
    // The window is wide now, and these tasks take long.
    let (canvas, expected) = sleeps(40, 300);
    let job = c.submit_remote(CLIENT, &canvas);
    assert_eq!(c.wait(CLIENT, job, 60_000), Ok(expected));
    let (given, received) = (c.peek(WORKER).counters().returns_given, c.peek(ORIGIN).counters().returns_received);
    assert!(given > 0 && given == received, "{given} handed back, {received} came");
}

#[test]
fn a_twin_that_has_to_wait_is_counted() {
    let mut c = Cluster::started(605, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    let (canvas, expected) = adds(3);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 1_000), Ok(expected));
    c.pause(1);
    c.add(Spec::worker("w", 1));
    assert!(c.run_until(5_000, |c| c.peek(0).counters().sessions_refused > 0));
}

/// The traces of a node, in their order.
fn traces(c: &Cluster, id: Id) -> Vec<&Trace> {
    fn trace(event: &Event) -> Option<&Trace> {
        match event {
            Event::Trace(trace) => Some(&**trace),
            _ => None,
        }
    }
    c.events(id).filter_map(trace).collect()
}

#[test]
fn a_node_that_nobody_watches_tells_of_no_task() {
    let mut c = cluster(606);
    let before: Vec<usize> = (0..3).map(|id| c.events(id).count()).collect();
    let (canvas, expected) = adds(200);
    let job = c.submit_remote(CLIENT, &canvas);
    assert_eq!(c.wait(CLIENT, job, 5_000), Ok(expected));
    for id in [ORIGIN, WORKER] {
        assert_eq!(c.events(id).count(), before[id], "{:?}", c.events(id).last());
    }
    assert!(traces(&c, CLIENT).is_empty());
}

#[test]
fn jobs_and_failed_tasks_are_told_at_the_first_level() {
    let mut c = cluster(607);
    [ORIGIN, WORKER].into_iter().for_each(|id| c.node(id).set_trace(TraceLevel::Jobs));
    let (canvas, expected) = adds(3);
    let job = c.submit_remote(CLIENT, &canvas);
    assert_eq!(c.wait(CLIENT, job, 5_000), Ok(expected));
    let mut failing = fail("boom");
    failing.options = Options { retries: Some(1), backoff_ms: Some(100), jitter: Some(false), ..Options::default() };
    let job = c.submit_remote(CLIENT, &failing);
    assert!(c.wait(CLIENT, job, 5_000).is_err());
    let told = traces(&c, ORIGIN);
    let [
        Trace::JobAccepted { job: first, function, tasks: 3, client: Some(client) },
        Trace::JobEnded { job: ended, error: None, .. },
        Trace::JobAccepted { tasks: 1, .. },
        Trace::TaskFailed { error, again: Some(again), .. },
        Trace::TaskFailed { error: last, again: None, .. },
        Trace::JobEnded { function: failed, took, error: Some(_), .. },
    ] = &told[..]
    else {
        panic!("{told:#?}")
    };
    assert_eq!((first, function.as_str(), client.as_str()), (ended, "tasks.add", "client"));
    assert_eq!((error.to_string().as_str(), last.attempt), ("tasks.fail: boom (step 0, attempt 1 on w1)", 2));
    assert_eq!((again.as_millis(), failed.as_str()), (100, "tasks.fail"));
    assert!((100..1_000).contains(&took.as_millis()), "{took:?}");
    let told = traces(&c, WORKER);
    let [Trace::Ran { job, attempt, function, failure: Some(failure), .. }, Trace::Ran { .. }] = &told[..] else {
        panic!("{told:#?}")
    };
    assert_eq!((job.origin, attempt.step, failure.text.as_str()), (c.name(ORIGIN), 0, "boom"));
    assert_eq!(c.peek(WORKER).name_of(function), "tasks.fail");
}

#[test]
fn each_task_is_told_at_the_second_level() {
    let mut c = cluster(608);
    [ORIGIN, WORKER].into_iter().for_each(|id| c.node(id).set_trace(TraceLevel::Tasks));
    let job = c.submit_remote(CLIENT, &add(1, 2));
    assert!(c.wait(CLIENT, job, 5_000).is_ok());
    let worker = c.name(WORKER);
    assert!(traces(&c, ORIGIN).iter().any(|trace| matches!(trace, Trace::Leased { worker: to, .. } if *to == worker)));
    let credit = |trace: &&Trace| matches!(trace, Trace::CreditReceived { worker: of, tasks: 1.. } if *of == worker);
    assert!(traces(&c, ORIGIN).iter().any(credit));
    let ran = traces(&c, WORKER).into_iter().filter(|trace| !matches!(trace, Trace::CreditGiven { .. }));
    let ran: Vec<_> = ran.collect();
    let [Trace::Started { attempt, .. }, Trace::Ran { attempt: ended, failure: None, .. }] = ran[..] else {
        panic!("{ran:#?}")
    };
    assert_eq!(attempt, ended);
}
