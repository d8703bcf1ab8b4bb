//! The same key is the same job, while nodes with a journal join, stall, die and restart.

use std::collections::BTreeSet;

use broccoli_core::{Event, Instant, Submission, SubmitId};
use broccoli_proto::message::{JobNews, Message, Refusal, Submit};
use broccoli_proto::{Canvas, Cause, Cbor, JobId};

use crate::cluster::{Cluster, Id, Spec};
use crate::sleep;

/// The answer to a submit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Accepted(JobId),
    Refused(Refusal),
}

fn answer(c: &Cluster, id: Id, submit: SubmitId) -> Option<Answer> {
    c.events(id).find_map(|event| match event {
        Event::Accepted(of, job) if *of == submit => Some(Answer::Accepted(*job)),
        Event::Refused(of, refusal) if *of == submit => Some(Answer::Refused(refusal.clone())),
        _ => None,
    })
}

fn keyed(canvas: &Canvas, key: &str, again: bool) -> Submission {
    Submission { canvas: Cbor::encode(canvas), key: Some(key.into()), again, detached: true }
}

/// Submits with a key, and waits for the answer.
fn submit(c: &mut Cluster, client: Id, canvas: &Canvas, key: &str) -> Answer {
    submit_with(c, client, keyed(canvas, key, false))
}

fn submit_with(c: &mut Cluster, client: Id, submission: Submission) -> Answer {
    let submit = c.submit_with(client, submission);
    assert!(c.run_until(30_000, |c| answer(c, client, submit).is_some()), "it is answered");
    answer(c, client, submit).expect("just seen")
}

fn accepted(answer: Answer) -> JobId {
    match answer {
        Answer::Accepted(job) => job,
        Answer::Refused(why) => panic!("refused: {why:?}"),
    }
}

fn unsure(c: &Cluster, id: Id) -> Answer {
    Answer::Refused(Refusal::Unsure(c.name(id)))
}

fn origin_of(c: &Cluster, job: JobId) -> Id {
    (0..c.len()).find(|id| c.name(*id) == job.origin).expect("it is one of them")
}

/// Two clients, and nodes `o1`, `o2`, … with a journal. The clients know the nodes.
fn cluster(seed: u64, origins: usize) -> Cluster {
    let mut specs = vec![Spec::client("a"), Spec::client("b")];
    specs.extend((1..=origins).map(|number| Spec::new(&format!("o{number}"), 1).durable()));
    let mut c = Cluster::started(seed, specs);
    (0..2).for_each(|client| crate::attach(&mut c, client));
    c.run_for(1_000);
    c
}

#[test]
fn keys_stay_with_their_jobs_when_a_third_node_joins() {
    let mut c = cluster(700, 2);
    let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
    let first: Vec<JobId> = keys.iter().map(|key| accepted(submit(&mut c, 0, &sleep(1), key))).collect();
    c.add(Spec::new("o3", 1).durable());
    c.run_for(2_000);
    let second: Vec<JobId> = keys.iter().map(|key| accepted(submit(&mut c, 1, &sleep(1), key))).collect();
    assert_eq!(first, second);
    assert_eq!(c.runs.len(), keys.len(), "each ran once");
    // The new node gets its part of the new keys.
    let new = |c: &mut Cluster, number| accepted(submit(c, 1, &sleep(1), &format!("new {number}"))).origin;
    let origins: BTreeSet<_> = (0..20).map(|number| new(&mut c, number)).collect();
    assert_eq!(origins.len(), 3, "{origins:?}");
    c.run_for(20_000);
    c.assert_idle();
}

#[test]
fn nobody_is_sure_while_the_holder_is_dead_and_everybody_is_when_it_is_back() {
    let mut c = cluster(701, 2);
    let job = accepted(submit(&mut c, 0, &sleep(1), "nightly"));
    let holder = origin_of(&c, job);
    c.run_for(1_000);
    c.kill(holder, true);
    c.run_for(500);
    assert_eq!(submit(&mut c, 1, &sleep(1), "nightly"), unsure(&c, holder));
    c.restart(holder);
    c.run_for(2_000);
    assert_eq!(accepted(submit(&mut c, 1, &sleep(1), "nightly")), job);
    assert_eq!(c.runs.len(), 1);
}

#[test]
fn who_is_sent_to_a_holder_that_dies_is_told_that_nobody_is_sure() {
    let mut c = cluster(707, 1);
    let keys: Vec<String> = (0..20).map(|number| format!("key {number}")).collect();
    keys.iter().for_each(|key| {
        accepted(submit(&mut c, 0, &sleep(1), key));
    });
    c.add(Spec::new("o2", 1).durable());
    c.run_for(2_000);
    c.lose = Some(|message| matches!(message, Message::Accepted(_)));
    let again: Vec<SubmitId> = keys.iter().map(|key| c.submit_with(1, keyed(&sleep(1), key, false))).collect();
    c.run_for(1_000);
    c.kill(2, true);
    c.lose = None;
    let all_are_told = |c: &Cluster| again.iter().all(|submit| answer(c, 1, *submit).is_some());
    assert!(c.run_until(60_000, all_are_told));
    assert!(again.iter().all(|submit| answer(&c, 1, *submit) == Some(unsure(&c, 2))));
}

#[test]
fn a_holder_that_stands_still_makes_no_second_job() {
    for seed in 710..715 {
        let mut c = cluster(seed, 2);
        let job = accepted(submit(&mut c, 0, &sleep(1), "nightly"));
        let holder = origin_of(&c, job);
        c.run_for(3_000);
        c.pause(holder);
        let again = c.submit_with(1, keyed(&sleep(1), "nightly", false));
        c.run_for(3_000);
        c.resume(holder);
        assert!(c.run_until(30_000, |c| answer(c, 1, again).is_some()));
        let told = answer(&c, 1, again).expect("just seen");
        assert!(told == Answer::Accepted(job) || told == unsure(&c, holder), "{told:?}");
        c.run_for(2_000);
        assert_eq!(accepted(submit(&mut c, 1, &sleep(1), "nightly")), job);
        assert_eq!(c.runs.len(), 1, "seed {seed}");
    }
}

#[test]
fn a_node_that_joined_later_and_was_started_again_still_knows_who_may_hold_a_key() {
    let mut c = cluster(702, 1);
    let job = accepted(submit(&mut c, 0, &sleep(1), "nightly"));
    let holder = origin_of(&c, job);
    let other = c.add(Spec::new("o2", 1).durable());
    c.run_for(2_000);
    c.kill(holder, true);
    c.kill(other, true);
    c.run_for(1_000);
    c.restart(other);
    c.run_for(2_000);
    assert_eq!(submit(&mut c, 1, &sleep(1), "nightly"), unsure(&c, holder));
    assert_eq!(submit(&mut c, 1, &sleep(1), "another"), unsure(&c, holder));
    // A node that has never met the holder learns about it from the other node.
    let third = c.add(Spec::new("o3", 1).durable());
    c.run_for(2_000);
    let told: BTreeSet<String> =
        (0..10).map(|number| format!("{:?}", submit(&mut c, 0, &sleep(1), &format!("key {number}")))).collect();
    assert_eq!(told, BTreeSet::from([format!("{:?}", unsure(&c, holder))]));

    // A client tells the nodes that the holder will not come back.
    let (now, name) = (Instant(c.now_us), c.name(holder));
    for of in [other, third] {
        let of = c.name(of);
        c.node(0).ask_to_forget(now, of, name);
    }
    c.flush(0);
    let forgotten =
        |c: &Cluster| c.events(0).filter(|e| matches!(e, Event::Forgotten { node, .. } if *node == name)).count();
    assert!(c.run_until(5_000, |c| forgotten(c) == 2));
    accepted(submit(&mut c, 1, &sleep(1), "another"));
    // This survives a restart.
    c.kill(other, true);
    c.run_for(500);
    c.restart(other);
    c.run_for(2_000);
    accepted(submit(&mut c, 1, &sleep(1), "a third"));
    // The holder comes back nevertheless: its jobs count again.
    c.restart(holder);
    c.run_for(2_000);
    assert_eq!(accepted(submit(&mut c, 1, &sleep(1), "nightly")), job);
    c.kill(holder, true);
    c.run_for(500);
    assert_eq!(submit(&mut c, 1, &sleep(1), "a fourth"), unsure(&c, holder));
}

#[test]
fn a_node_that_leaves_without_any_key_is_not_waited_for() {
    let mut c = cluster(703, 2);
    let job = accepted(submit(&mut c, 0, &sleep(1), "nightly"));
    let holder = origin_of(&c, job);
    let other = if holder == 2 { 3 } else { 2 };
    c.begin_drain(other);
    assert!(c.run_until(2_000, |c| c.events(other).any(|event| matches!(event, Event::Drained))));
    c.run_for(5);
    c.depart(other);
    c.run_for(500);
    accepted(submit(&mut c, 1, &sleep(1), "another"));
    // This node may come back with the key that it holds.
    c.restart(other);
    c.run_for(2_000);
    c.begin_drain(holder);
    assert!(c.run_until(2_000, |c| c.events(holder).any(|event| matches!(event, Event::Drained))));
    c.run_for(5);
    c.depart(holder);
    c.run_for(500);
    assert_eq!(submit(&mut c, 1, &sleep(1), "a third"), unsure(&c, holder));
}

/// Three clients. One of them has just started, and knows only the node that has answered first.
#[test]
fn submits_at_the_same_time_are_one_job() {
    for seed in 720..740 {
        let mut c = cluster(seed, 3);
        let jobs: Vec<String> = (0..5).map(|number| format!("key {number}")).collect();
        for key in &jobs {
            let first = c.submit_with(0, keyed(&sleep(1), key, false));
            let blind = c.add(Spec::client(&format!("c{}", c.len())));
            let second = c.submit_with(blind, keyed(&sleep(1), key, false));
            let third = c.submit_with(1, keyed(&sleep(1), key, false));
            let all = [(0, first), (1, third), (blind, second)];
            assert!(c.run_until(20_000, |c| all.iter().all(|(id, submit)| answer(c, *id, *submit).is_some())));
            let told: BTreeSet<JobId> =
                all.iter().map(|(id, submit)| accepted(answer(&c, *id, *submit).expect("seen"))).collect();
            assert_eq!(told.len(), 1, "seed {seed}: {told:?}");
        }
        c.run_for(1_000);
        assert_eq!(c.runs.len(), jobs.len(), "seed {seed}");
    }
}

/// Each of two nodes gets the same key first, at the same time. The claim of the node with the smaller name wins.
#[test]
fn of_two_claims_for_one_key_one_goes_on() {
    for seed in 740..760 {
        let mut c = cluster(seed, 2);
        let submit = |number| Submit {
            number,
            canvas: Cbor::encode(&sleep(1)),
            key: Some("nightly".into()),
            detached: Some(true),
            blob: None,
            again: None,
        };
        c.inject_as("a", 2, 1, &[Message::Submit(submit(7))]);
        c.inject_as("b", 3, 1, &[Message::Submit(submit(8))]);
        c.run_for(3_000);
        assert_eq!(c.runs.len(), 1, "seed {seed}");
        let held = accepted(submit_with(&mut c, 0, keyed(&sleep(1), "nightly", false)));
        assert_eq!(held.origin, c.name(2));
        assert_eq!(c.runs.len(), 1);
    }
}

#[test]
fn a_key_whose_job_has_failed_stands_for_a_new_one_if_that_is_wanted() {
    let mut c = cluster(704, 2);
    let canvas = Canvas::task("fail", Cbor::encode(&["no bread"]));
    let first = accepted(submit(&mut c, 0, &canvas, "bread"));
    c.run_for(1_000);
    assert_eq!(accepted(submit(&mut c, 1, &canvas, "bread")), first, "nobody has said that it may run again");
    let again = accepted(submit_with(&mut c, 1, keyed(&canvas, "bread", true)));
    assert_ne!(again, first);
    assert_eq!(accepted(submit(&mut c, 0, &canvas, "bread")), again, "the key stands for the new one");
    // Not for a job that runs or has succeeded.
    let good = accepted(submit(&mut c, 0, &sleep(500), "good"));
    assert_eq!(accepted(submit_with(&mut c, 1, keyed(&sleep(500), "good", true))), good);
    c.run_for(2_000);
    assert_eq!(accepted(submit_with(&mut c, 1, keyed(&sleep(500), "good", true))), good);
    // After a restart, the key stands for the later job.
    let holder = origin_of(&c, again);
    c.run_for(1_000);
    c.kill(holder, true);
    c.restart(holder);
    c.run_for(2_000);
    assert_eq!(accepted(submit(&mut c, 1, &canvas, "bread")), again);
    // Also for a revoked job.
    let going = accepted(submit(&mut c, 0, &sleep(60_000), "long"));
    let revoked = c.revoke_job(1, going);
    c.wait(1, revoked, 2_000).expect_err("revoked");
    assert_ne!(accepted(submit_with(&mut c, 1, keyed(&sleep(60_000), "long", true))), going);
}

fn goes_on(c: &Cluster, id: Id, submit: SubmitId) -> bool {
    c.news(id, submit).any(|news| matches!(news, JobNews::GoesOn))
}

#[test]
fn an_interrupt_ends_no_job_that_others_wait_for() {
    let mut c = cluster(705, 2);
    let waits = || Submission { detached: false, ..keyed(&sleep(3_000), "shared", false) };
    let first = c.submit_with(0, waits());
    assert!(c.run_until(5_000, |c| answer(c, 0, first).is_some()));
    let second = c.submit_with(1, waits());
    assert!(c.run_until(5_000, |c| answer(c, 1, second).is_some()));
    c.revoke(0, first);
    assert!(c.run_until(1_000, |c| goes_on(c, 0, first)));
    assert_eq!(c.wait(1, second, 10_000), Ok(Cbor::encode(&3_000)));

    // The last client ends it.
    let waits = || Submission { detached: false, ..keyed(&sleep(60_000), "long", false) };
    let first = c.submit_with(0, waits());
    let second = c.submit_with(1, waits());
    assert!(c.run_until(5_000, |c| answer(c, 0, first).is_some() && answer(c, 1, second).is_some()));
    c.revoke(1, second);
    assert!(c.run_until(1_000, |c| goes_on(c, 1, second)));
    c.revoke(0, first);
    assert_eq!(c.wait(0, first, 1_000).expect_err("revoked").cause, Cause::Revoked);

    // A job whose other client is gone ends, too. A detached job continues.
    let waits = |detached| Submission { detached, ..keyed(&sleep(60_000), "left", false) };
    let first = c.submit_with(0, waits(false));
    let second = c.submit_with(1, waits(false));
    assert!(c.run_until(5_000, |c| answer(c, 0, first).is_some() && answer(c, 1, second).is_some()));
    c.kill(1, true);
    c.run_for(100);
    c.revoke(0, first);
    assert_eq!(c.wait(0, first, 1_000).expect_err("revoked").cause, Cause::Revoked);
    let detached = c.submit_with(0, Submission { detached: true, ..keyed(&sleep(60_000), "kept", false) });
    assert!(c.run_until(5_000, |c| answer(c, 0, detached).is_some()));
    let waits = c.submit_with(0, Submission { detached: false, ..keyed(&sleep(60_000), "kept", false) });
    assert!(c.run_until(5_000, |c| answer(c, 0, waits).is_some()));
    c.revoke(0, waits);
    assert!(c.run_until(1_000, |c| goes_on(c, 0, waits)));
}

#[test]
fn the_other_node_takes_what_one_with_a_full_disk_cannot() {
    let mut c = cluster(706, 2);
    let full = |c: &Cluster| c.events(0).filter(|event| matches!(event, Event::CannotStore(..))).count();
    c.stall(2, true);
    // The node notices it by itself.
    c.submit(2, &sleep(1));
    c.run_for(1_000);
    for number in 0..20 {
        let key = (number % 2 == 0).then(|| format!("key {number}"));
        let submit = c.submit_with(0, Submission { key, ..keyed(&sleep(1), "", false) });
        assert!(c.run_until(20_000, |c| answer(c, 0, submit).is_some()), "submit {number}");
        accepted(answer(&c, 0, submit).expect("just seen"));
    }
    assert_eq!(full(&c), 0, "nobody has to wait");

    // If no node can write, the client waits, and gets the reason once.
    c.stall(3, true);
    c.submit(3, &sleep(1));
    c.run_for(1_000);
    let submit = c.submit_with(0, Submission { key: None, ..keyed(&sleep(1), "", false) });
    c.run_for(20_000);
    assert_eq!(answer(&c, 0, submit), None);
    assert_eq!(full(&c), 1, "it is reported once");
    c.stall(3, false);
    assert!(c.run_until(20_000, |c| answer(c, 0, submit).is_some()));
    accepted(answer(&c, 0, submit).expect("just seen"));
}

#[test]
fn who_waits_for_a_node_that_has_taken_a_job_and_cannot_write_it_is_told_why() {
    for key in [None, Some("k".to_owned())] {
        let mut c = cluster(707, 2);
        // The nodes have not noticed it yet.
        (2..4).for_each(|id| c.stall(id, true));
        let submit = c.submit_with(0, Submission { key, ..keyed(&sleep(1), "", false) });
        c.run_for(10_000);
        assert_eq!(answer(&c, 0, submit), None, "nobody has accepted it");
        let told = c.events(0).filter(|event| matches!(event, Event::CannotStore(..))).count();
        assert_eq!(told, 1, "it is reported once");
        (2..4).for_each(|id| c.stall(id, false));
        assert!(c.run_until(20_000, |c| answer(c, 0, submit).is_some()));
        accepted(answer(&c, 0, submit).expect("just seen"));
    }
}
