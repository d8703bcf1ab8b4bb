//! Membership: which nodes are online.

use broccoli_core::Event;
use broccoli_proto::Cbor;
use broccoli_proto::message::Message;
use broccoli_proto::packet::Address;

use crate::adds;
use crate::cluster::{Cluster, Spec};

fn name_taken(c: &Cluster, id: usize) -> bool {
    c.events(id).any(|event| matches!(event, Event::NameTaken))
}

#[test]
fn the_later_one_of_two_nodes_with_one_name_is_told_and_the_older_goes_on() {
    let mut c = Cluster::started(60, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    let (canvas, expected) = adds(10);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 1_000), Ok(expected.clone()));
    let twin = c.add(Spec::worker("w", 1));
    assert!(c.run_until(1_000, |c| name_taken(c, twin)));
    c.kill(twin, true);
    c.run_for(1_000);
    assert!(!name_taken(&c, 1));
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 2_000), Ok(expected));
    let w = c.name(1);
    assert!(c.node(0).members().any(|(name, member)| name == w && member.alive), "the older one is still there");
}

#[test]
fn a_restarted_node_gets_its_name_back() {
    let mut c = Cluster::started(61, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    for reset in [true, false] {
        c.kill(1, reset);
        c.restart(1);
        c.run_for(5_000);
        assert!(!name_taken(&c, 1));
    }
}

#[test]
fn an_old_will_does_not_hide_a_node_that_is_back() {
    let mut c = Cluster::started(62, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    // The server notices the end of the first connection after the second one has started.
    let old_will = c.will(1);
    c.cut(1, true);
    c.heal(1);
    c.run_for(100);
    let to = broccoli_proto::packet::Address::Birth(c.name(1));
    c.publish_as_server(to, &old_will);
    c.run_for(1_000);
    let w = c.name(1);
    assert!(c.node(0).members().any(|(name, member)| name == w && member.alive));
    let late = c.add(Spec::worker("late", 0));
    c.run_for(300);
    assert!(c.node(late).members().any(|(name, member)| name == w && member.alive), "it answers who asks");
}

#[test]
fn a_client_without_an_origin_is_told_and_finds_one_that_comes() {
    let mut c = Cluster::started(63, vec![Spec::client("client")]);
    c.attach(0);
    assert!(c.run_until(3_000, |c| c.events(0).any(|event| matches!(event, Event::NoOrigin))));
    c.add(Spec::new("origin", 1));
    assert!(c.run_until(1_000, |c| c.events(0).any(|event| matches!(event, Event::Attached(_)))));
}

#[test]
fn a_client_whose_questions_about_functions_were_lost_asks_again() {
    let mut c = Cluster::started(65, vec![Spec::new("origin", 1)]);
    c.lose = Some(|message| matches!(message, Message::Manifests(_)));
    c.add(Spec::client("client"));
    c.attach(1);
    c.run_for(10_000);
    c.lose = None;
    assert!(c.run_until(1_000, |c| c.events(1).any(|event| matches!(event, Event::Attached(_)))));
}

#[test]
fn a_client_turns_to_another_origin_if_the_first_does_not_answer() {
    let mut c = Cluster::started(64, vec![Spec::client("client"), Spec::new("mute", 0), Spec::new("origin", 1)]);
    c.pause(1);
    for _ in 0..4 {
        c.kill(0, true);
        c.restart(0);
        crate::attach(&mut c, 0);
    }
}

#[test]
fn a_client_submits_elsewhere_if_its_origin_dies_before_it_answers() {
    let mut c = Cluster::started(66, vec![Spec::client("client"), Spec::new("first", 1)]);
    crate::attach(&mut c, 0);
    c.add(Spec::new("second", 1));
    c.kill(1, true);
    let job = c.submit_remote(0, &crate::add(2, 2));
    assert_eq!(c.wait(0, job, 10_000), Ok(broccoli_proto::Cbor::encode(&4)));
}

#[test]
fn a_welcome_is_not_answered_with_another_hello() {
    let mut c = Cluster::started(65, vec![Spec::new("origin", 0), Spec::client("client")]);
    // The client has found the origin, but cannot get its functions.
    c.lose = Some(|message| matches!(message, Message::Manifests(_)));
    c.faults.duplication = 1_000;
    c.attach(1);
    c.count_from_here();
    c.run_for(2_000);
    let hellos = c.packets_with(|message| matches!(message, Message::Hello));
    assert!(hellos <= 12, "{hellos} packets with hellos in 2 s");
}

#[test]
fn a_twin_that_was_replaced_comes_back_when_the_other_is_silent_and_not_before() {
    for seed in 70..80 {
        let mut c = Cluster::started(seed, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
        let (canvas, expected) = adds(3);
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, 1_000), Ok(expected.clone()));
        // The first one stalls, and the second takes its place.
        c.pause(1);
        let twin = c.add(Spec::worker("w", 1));
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, 10_000), Ok(expected.clone()));
        assert!(c.runs_on(twin) > 0, "the twin has worked");
        // Now the second one stalls. The first one waits for it as long as for any other node.
        let since = c.now_ms();
        c.pause(twin);
        c.resume(1);
        let job = c.submit(0, &crate::add(100, 1));
        let ran = |c: &Cluster| c.runs.iter().any(|run| run.node == 1 && run.args == Cbor::encode(&(100, 1)));
        assert!(c.run_until(20_000, ran), "seed {seed}: it works again");
        let after = c.now_ms() - since;
        assert!(after >= 3_500, "seed {seed}: after {after} ms");
        assert_eq!(c.wait(0, job, 10_000), Ok(Cbor::encode(&101)));
    }
}

#[test]
fn a_worker_works_on_once_its_twin_is_gone() {
    let mut c = Cluster::started(66, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    let (canvas, expected) = adds(3);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 1_000), Ok(expected.clone()));
    // The older one stalls for a moment. Meanwhile its twin starts and gets tasks.
    c.pause(1);
    let twin = c.add(Spec::worker("w", 1));
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 5_000), Ok(expected.clone()));
    assert!(c.runs_on(twin) > 0, "the twin has worked");
    c.resume(1);
    assert!(c.run_until(1_000, |c| name_taken(c, twin)));
    c.kill(twin, true);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 10_000), Ok(expected));
}

/// The number of births that each node publishes in this many minutes.
fn births_a_node(c: &mut Cluster, minutes: u64) -> f64 {
    c.count_from_here();
    c.run_for(minutes * 60_000);
    c.packets_with(|message| matches!(message, Message::Birth(_))) as f64 / c.len() as f64
}

#[test]
fn nodes_say_less_often_that_they_are_there_the_more_there_are() {
    let cluster = |workers: usize| {
        let workers = (0..workers).map(|number| Spec::worker(&format!("w{number}"), 1));
        Cluster::started(64, [Spec::new("origin", 0)].into_iter().chain(workers).collect())
    };
    let (mut few, mut many) = (cluster(2), cluster(100));
    // An interval of 30 to 35 s, and one of 30 to 65 s.
    let (often, seldom) = (births_a_node(&mut few, 20), births_a_node(&mut many, 20));
    assert!((33.0..41.0).contains(&often), "{often}");
    assert!((18.0..32.0).contains(&seldom), "{seldom}");
    let gone = |c: &Cluster| c.events(0).filter(|event| matches!(event, Event::Member(_))).count();
    assert!(many.peek(0).members().all(|(_, member)| member.alive), "nobody is taken for gone");
    assert!(gone(&many) <= 101, "nor was for a while");
    for member in many.peek(0).members().map(|(_, member)| member) {
        assert!((35..=66).contains(&member.birth.again_s), "{}", member.birth.again_s);
    }
}

#[test]
fn new_modules_are_told_once_to_everybody() {
    let mut c = Cluster::started(65, vec![Spec::new("origin", 0), Spec::worker("w1", 1), Spec::worker("w2", 1)]);
    let before = c.peek(0).members().next().map(|(_, member)| member.birth.modules);
    c.count_from_here();
    let (signed, code) = crate::cluster::module(2, true);
    c.deploy(0, &signed, &code);
    c.run_for(2_000);
    for id in 0..c.len() {
        let modules: Vec<u64> = c.peek(id).members().map(|(_, member)| member.birth.modules).collect();
        assert_eq!(modules.len(), 3);
        assert_ne!(Some(modules[0]), before);
        assert!(modules.iter().all(|digest| *digest == modules[0]), "each is known to have them");
    }
    assert_eq!(c.packets_with(|message| matches!(message, Message::Available(_))), 3);
    assert_eq!(c.packets_with(|message| matches!(message, Message::Birth(_))), 0);
}

#[test]
fn a_client_asks_everybody_once() {
    let mut c = Cluster::started(66, vec![Spec::new("origin", 0), Spec::worker("w1", 1), Spec::client("client")]);
    c.kill(2, true);
    c.run_for(1_000);
    c.count_from_here();
    c.restart(2);
    crate::attach(&mut c, 2);
    let asked = c.published.iter().filter(|packet| packet.from == 2 && packet.to == Address::All).count();
    assert_eq!(asked, 1);
}

#[test]
fn a_node_that_ends_without_a_will_is_gone_after_three_of_its_intervals() {
    let mut c = Cluster::started(67, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    // By then it has announced its interval.
    c.run_for(40_000);
    c.depart(1);
    let (w, departed_at) = (c.name(1), c.now_ms());
    let is_gone = |c: &Cluster| c.peek(0).members().any(|(name, member)| name == w && !member.alive);
    assert!(c.run_until(300_000, is_gone));
    let after = c.now_ms() - departed_at;
    assert!((60_000..=107_000).contains(&after), "{after} ms");
}

#[test]
fn a_client_takes_an_origin_that_keeps_its_jobs_if_there_is_one() {
    for seed in 0..20 {
        let nodes = (0..8).map(|number| Spec::new(&format!("n{number}"), 1));
        let mut c = Cluster::started(seed, nodes.chain([Spec::new("durable", 1).durable()]).collect());
        // It may be busy, and answer later than others.
        c.jitter_us = 40_000;
        let client = c.add(Spec::client("client"));
        crate::attach(&mut c, client);
        assert_eq!(c.peek(client).home(), Some(c.name(8)), "seed {seed}");
    }
}
