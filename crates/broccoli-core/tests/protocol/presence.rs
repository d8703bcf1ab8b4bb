//! Who is there.

use broccoli_core::Event;
use broccoli_proto::message::Message;

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
    // The server notices the end of the first connection after the second has begun.
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
    // The client has found it, but cannot learn the functions.
    c.lose = Some(|message| matches!(message, Message::Manifests(_)));
    c.faults.duplication = 1_000;
    c.attach(1);
    c.count_from_here();
    c.run_for(2_000);
    let hellos = c.packets_with(|message| matches!(message, Message::Hello));
    assert!(hellos <= 12, "{hellos} packets with hellos in 2 s");
}

#[test]
fn a_worker_works_on_once_its_twin_is_gone() {
    let mut c = Cluster::started(66, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    let (canvas, expected) = adds(3);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 1_000), Ok(expected.clone()));
    // The older one cannot be heard for a moment, in which its twin comes and is given work.
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
