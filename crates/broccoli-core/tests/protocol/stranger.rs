//! A stranger with an account at the MQTT server, but without the key: records everything, and publishes any of it
//! again, also from before restarts, also retained. The worst effect is one bounded delay.

use std::collections::BTreeMap;

use broccoli_core::{Event, Submission};
use broccoli_proto::message::Message;
use broccoli_proto::options::Rate;
use broccoli_proto::packet::Address;
use broccoli_proto::{Canvas, Cbor, Options};

use crate::cluster::{Cluster, Id, Published, Spec, module, open};
use crate::{add, adds, attach, one, sleep, sleeps};

/// All packets of a node so far.
fn said_by(c: &Cluster, id: Id) -> Vec<Published> {
    c.published.iter().filter(|packet| packet.from == id).cloned().collect()
}

/// The packets that contain such a message.
fn with(packets: &[Published], kind: impl Fn(&Message) -> bool) -> Vec<Published> {
    packets.iter().filter(|packet| open(&packet.bytes).1.iter().any(&kind)).cloned().collect()
}

/// The stranger publishes packets again.
fn publish(c: &mut Cluster, packets: &[Published]) {
    packets.iter().for_each(|packet| c.publish_as_server(packet.to, &packet.bytes));
}

/// Publishes packets this many times, one after the other.
fn replay(c: &mut Cluster, packets: &[Published], times: usize, pause_ms: u64) {
    for _ in 0..times {
        publish(c, packets);
        c.run_for(pause_ms);
    }
}

fn rated(canvas: Canvas, tasks: u32, per_ms: u32) -> Canvas {
    let options = Options { rate: Some(Rate { tasks, per_ms }), ..Options::default() };
    Canvas { options, ..canvas }
}

fn echoes(n: i64) -> Canvas {
    Canvas::group((0..n).map(|i| one("echo", i)).collect())
}

#[test]
fn a_killed_worker_is_not_kept_alive_by_what_it_has_said() {
    for origin_restarts in [false, true] {
        let specs = vec![Spec::client("client"), Spec::new("origin", 0).durable(), Spec::worker("w1", 1)];
        let mut c = Cluster::started(900, specs);
        attach(&mut c, 0);
        let job = c.submit_remote(0, &sleep(3_000));
        c.run_for(2_500);
        let said = said_by(&c, 2);
        assert!(with(&said, |message| matches!(message, Message::Renew(_))).len() >= 2);
        c.kill(2, false);
        let w2 = c.add(Spec::worker("w2", 1));
        if origin_restarts {
            c.kill(1, true);
            c.restart(1);
        }
        let killed_at = c.now_ms();
        for _ in 0..200 {
            replay(&mut c, &said, 1, 100);
        }
        let moved = c.runs.iter().find(|run| run.node == w2).map(|run| run.at_ms - killed_at);
        assert!(moved.is_some_and(|ms| ms < 6_000), "{moved:?} ms, the origin has restarted: {origin_restarts}");
        assert_eq!(c.wait(0, job, 10_000), Ok(Cbor::encode(&3_000)));
    }
}

#[test]
fn births_that_were_kept_from_the_origin_prolong_no_lease() {
    let mut c = Cluster::started(903, vec![Spec::new("origin", 0), Spec::worker("w1", 1)]);
    // The server does not deliver the births. Each of them announces another module.
    c.lose = Some(|message| matches!(message, Message::Birth(_)));
    for version in 1..=5 {
        let (signed, code) = module(version, true);
        c.deploy(1, &signed, &code);
        c.run_for(40_000);
    }
    let kept = with(&said_by(&c, 1), |message| matches!(message, Message::Birth(_)));
    c.lose = None;
    let job = c.submit(0, &sleep(3_000));
    assert!(c.run_until(1_000, |c| c.running_on(1) > 0));
    c.kill(1, false);
    let (w2, killed_at) = (c.add(Spec::worker("w2", 1)), c.now_ms());
    for birth in kept {
        publish(&mut c, &[birth]);
        c.run_for(1_000);
    }
    let moved = c.runs.iter().find(|run| run.node == w2).map(|run| run.at_ms - killed_at);
    assert!(moved.is_some_and(|ms| ms <= 4_200), "{moved:?} ms");
    assert_eq!(c.wait(0, job, 10_000), Ok(Cbor::encode(&3_000)));
}

#[test]
fn credit_of_a_dead_worker_cannot_be_given_again() {
    let mut c = Cluster::started(901, vec![Spec::new("origin", 0), Spec::worker("w1", 4), Spec::worker("w2", 1)]);
    let (canvas, expected) = adds(20);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 2_000), Ok(expected));
    let fetches = with(&said_by(&c, 1), |message| matches!(message, Message::Fetch(_)));
    c.kill(1, true);
    c.run_for(3_000);
    for n in 1..=20 {
        publish(&mut c, &fetches);
        let asked_at = c.now_ms();
        let job = c.submit(0, &add(n, n));
        assert_eq!(c.wait(0, job, 1_000), Ok(Cbor::encode(&(2 * n))));
        assert!(c.now_ms() - asked_at < 200, "task {n} was leased to the dead one: {} ms", c.now_ms() - asked_at);
    }
}

#[test]
fn no_recorded_question_takes_of_a_rate() {
    let specs = vec![Spec::new("o1", 2), Spec::new("o2", 0), Spec::new("o3", 0)];
    let mut c = Cluster::started(902, specs);
    c.run_for(1_000);
    for id in 0..3 {
        let job = c.submit(id, &rated(echoes(3), 2, 1_000));
        assert!(c.wait(id, job, 10_000).is_ok());
    }
    let asked = with(&c.published.clone(), |message| matches!(message, Message::PermitRequest(_)));
    assert!(!asked.is_empty());
    let start = c.now_ms();
    let job = c.submit(1, &rated(echoes(10), 2, 1_000));
    while c.ended(1, job).is_none() && c.now_ms() - start < 60_000 {
        replay(&mut c, &asked, 1, 50);
    }
    let took = c.now_ms() - start;
    assert!(took < 6_500, "ten tasks at two a second took {took} ms");
}

#[test]
fn nineteen_earlier_incarnations_of_a_worker_cost_no_task() {
    let mut c = Cluster::started(903, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    for n in 0..19 {
        let job = c.submit(0, &add(n, 1));
        assert_eq!(c.wait(0, job, 5_000), Ok(Cbor::encode(&(n + 1))));
        c.kill(1, true);
        c.restart(1);
        c.run_for(300);
    }
    let said = said_by(&c, 1);
    let now = c.epoch(1);
    let old: Vec<Published> = said.into_iter().filter(|packet| open(&packet.bytes).0.epoch != now).collect();
    let runs = c.runs.len();
    let job = c.submit(0, &sleep(4_000));
    c.run_for(100);
    replay(&mut c, &old, 30, 100);
    assert_eq!(c.wait(0, job, 5_000), Ok(Cbor::encode(&4_000)));
    assert_eq!(c.runs.len() - runs, 1, "it ran once");
}

#[test]
fn an_earlier_incarnation_of_a_client_makes_no_second_job() {
    let mut c = Cluster::started(904, vec![Spec::client("client"), Spec::new("origin", 2)]);
    attach(&mut c, 0);
    let job = c.submit_remote(0, &add(1, 1));
    assert!(c.wait(0, job, 1_000).is_ok());
    let old = said_by(&c, 0);
    c.kill(0, true);
    c.restart(0);
    attach(&mut c, 0);
    // The client does not get the answers, so it submits the canvas again and again.
    c.lose = Some(|message| matches!(message, Message::Accepted(_)));
    let runs = c.runs.len();
    let job = c.submit_remote(0, &sleep(50));
    replay(&mut c, &old, 40, 50);
    c.lose = None;
    assert_eq!(c.wait(0, job, 5_000), Ok(Cbor::encode(&50)));
    assert_eq!(c.runs.len() - runs, 1, "one submit is one job");
}

#[test]
fn of_many_incarnations_of_a_client_none_comes_back() {
    let mut c = Cluster::started(912, vec![Spec::client("client"), Spec::new("origin", 2)]);
    for n in 0..3 {
        attach(&mut c, 0);
        let job = c.submit_remote(0, &add(n, 1));
        assert!(c.wait(0, job, 5_000).is_ok());
        c.run_for(1_650);
        if n < 2 {
            c.kill(0, true);
            c.restart(0);
        }
    }
    let (said, runs) = (said_by(&c, 0), c.runs.len());
    assert_eq!(runs, 3);
    c.kill(0, false);
    for _ in 0..60 {
        replay(&mut c, &said, 1, 250);
    }
    assert_eq!(c.runs.len(), runs, "what was submitted has run once");
}

#[test]
fn dead_nodes_that_a_server_remembers_hold_up_no_key() {
    let ghosts: Vec<Spec> = (0..12).map(|at| Spec::new(&format!("ghost-{at}"), 1).durable()).collect();
    let mut c = Cluster::started(913, ghosts);
    let births = with(&c.published.clone(), |message| matches!(message, Message::Birth(_)));
    (0..12).for_each(|id| c.depart(id));
    for birth in births.iter().filter(|packet| matches!(packet.to, Address::Birth(_))) {
        c.retain(birth.to, &birth.bytes);
    }
    c.add(Spec::new("origin", 1).durable());
    for n in 0..8 {
        let client = c.add(Spec::client(&format!("client-{n}")));
        attach(&mut c, client);
        c.run_for(50);
        let start = c.now_ms();
        let key = format!("key {n}");
        let submission =
            Submission { canvas: Cbor::encode(&add(n, 1)), key: Some(key.clone()), again: false, detached: false };
        let job = c.submit_with(client, submission);
        assert!(c.wait(client, job, 60_000).is_ok());
        assert!(c.now_ms() - start < 2_500, "{key} took {} ms", c.now_ms() - start);
        c.depart(client);
    }
}

#[test]
fn births_of_dead_nodes_that_a_server_keeps_hold_nothing_up() {
    let ghosts: Vec<Spec> = (0..6).map(|at| Spec::new(&format!("ghost-{at}"), 1).durable()).collect();
    let mut c = Cluster::started(905, ghosts);
    let births = with(&c.published.clone(), |message| matches!(message, Message::Birth(_)));
    (0..6).for_each(|id| c.kill(id, true));
    for birth in births.iter().filter(|packet| matches!(packet.to, Address::Birth(_))) {
        c.retain(birth.to, &birth.bytes);
    }
    let origin = c.add(Spec::new("origin", 1));
    let client = c.add(Spec::client("client"));
    let start = c.now_ms();
    attach(&mut c, client);
    assert!(c.now_ms() - start < 50, "a client has found the one that is there after {} ms", c.now_ms() - start);

    let mut ping = one("echo", 1);
    ping.options = Options { each: Some(true), partial: Some(true), timeout_ms: Some(2_000), ..Options::default() };
    let start = c.now_ms();
    let job = c.submit_remote(client, &ping);
    let outcome = c.wait(client, job, 60_000).expect("what is there has answered");
    assert!(c.now_ms() - start < 8_000, "each waited for {} ms", c.now_ms() - start);
    assert_eq!(outcome.decode::<BTreeMap<String, i64>>(), Some([("origin".to_owned(), 1)].into()));

    let start = c.now_ms();
    let job = c.submit(origin, &rated(echoes(5), 10, 1_000));
    while c.ended(origin, job).is_none() && c.now_ms() - start < 60_000 {
        replay(&mut c, &births, 1, 500);
    }
    assert!(c.now_ms() - start < 10_000, "a rate waited for {} ms", c.now_ms() - start);
}

#[test]
fn a_recorded_will_stops_no_worker() {
    let mut c = Cluster::started(906, vec![Spec::new("origin", 0), Spec::worker("w", 2)]);
    c.cut(1, true);
    c.run_for(500);
    c.heal(1);
    c.run_for(500);
    let deaths: Vec<Published> = {
        // The server publishes a Will, so it is not in the list of packets that nodes have sent.
        let (to, will) = (Address::Birth(c.name(1)), c.will(1));
        vec![Published { from: 1, to, bytes: will }]
    };
    let w = c.name(1);
    let changes = |c: &Cluster| c.events(0).filter(|event| matches!(event, Event::Member(name) if *name == w)).count();
    let (start, before) = (c.now_ms(), changes(&c));
    let mut worst = 0;
    for n in 0..40 {
        let asked_at = c.now_ms();
        let job = c.submit(0, &add(n, n));
        publish(&mut c, &deaths);
        assert!(c.wait(0, job, 5_000).is_ok());
        worst = worst.max(c.now_ms() - asked_at);
        c.run_for(50);
    }
    assert!(worst < 2_500, "one bounded delay, {worst} ms");
    assert!(c.now_ms() - start < 6_000, "and no more than one: {} ms", c.now_ms() - start);
    assert_eq!(changes(&c) - before, 2, "it was taken for gone once, and was there again");
}

/// The packets that nodes publish because a packet is published again.
#[test]
fn no_packet_makes_nodes_say_much_more_than_it_says() {
    let specs =
        vec![Spec::client("client"), Spec::new("origin", 1).durable(), Spec::worker("w1", 1), Spec::new("o2", 2)];
    let mut c = Cluster::started(907, specs);
    attach(&mut c, 0);
    let (signed, code) = crate::cluster::module(1, true);
    c.deploy(1, &signed, &code);
    c.run_for(2_000);
    let job = c.submit_remote(0, &rated(sleeps(8, 300).0, 10, 1_000));
    assert!(c.wait(0, job, 60_000).is_ok());
    c.run_for(2_000);
    let recorded = c.published.clone();
    for restarted in [false, true] {
        if restarted {
            (1..4).for_each(|id| {
                c.kill(id, true);
                c.restart(id);
            });
        }
        c.run_for(3_000);
        let mut seen = BTreeMap::new();
        for packet in &recorded {
            let kind = format!("{:.16?}", open(&packet.bytes).1.first());
            if *seen.entry(kind.clone()).and_modify(|count| *count += 1).or_insert(1) > 5 {
                continue;
            }
            c.count_from_here();
            replay(&mut c, std::slice::from_ref(packet), 20, 5);
            c.run_for(500);
            let heard: usize = c.published.iter().map(|packet| packet.bytes.len()).sum();
            let receivers = if matches!(packet.to, Address::Node(_)) { 1 } else { 4 };
            let most = 20 * packet.bytes.len() * receivers * 4 + 1_000;
            assert!(heard <= most, "{kind} of {} bytes, 20 times: {heard} bytes", packet.bytes.len());
        }
        c.validate = true;
    }
}

#[test]
fn what_was_lost_and_recorded_counts_once_and_soon_or_never() {
    let mut c = Cluster::started(908, vec![Spec::new("origin", 0), Spec::worker("w1", 1), Spec::worker("w2", 1)]);
    let job = c.submit(0, &sleep(60_000));
    c.run_for(500);
    let (runner, other) = if c.running_on(1) == 1 { (1, 2) } else { (2, 1) };
    // For ten seconds, the packets of the worker reach only the stranger, and not its origin.
    c.count_from_here();
    c.silence(runner, true, false);
    c.run_for(3_000);
    c.kill(runner, false);
    let lost = said_by(&c, runner);
    let killed_at = c.now_ms();
    for packet in lost.iter().cycle().take(200) {
        publish(&mut c, std::slice::from_ref(packet));
        c.run_for(200);
    }
    let moved = c.runs.iter().find(|run| run.node == other).map(|run| run.at_ms - killed_at);
    // A packet counts for ten seconds after it was made, and extends a lease by four.
    assert!(moved.is_some_and(|ms| ms < 15_000), "{moved:?} ms");
    c.revoke(0, job);
}

#[test]
fn what_is_told_to_everybody_changes_nothing_at_a_node_that_knows_better() {
    let mut c = Cluster::started(909, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    let old = said_by(&c, 1);
    c.kill(1, true);
    c.restart(1);
    let job = c.submit(0, &add(1, 1));
    assert!(c.wait(0, job, 2_000).is_ok());
    let (w, now) = (c.name(1), c.epoch(1));
    let births = with(&old, |message| matches!(message, Message::Birth(_)));
    for _ in 0..20 {
        replay(&mut c, &births, 1, 100);
        let known = c.node(0).members().find(|(name, _)| *name == w).map(|(_, member)| (member.epoch, member.alive));
        assert_eq!(known, Some((now, true)));
    }
    let changes = c.events(0).filter(|event| matches!(event, Event::Member(name) if *name == w)).count();
    assert!(changes <= 4, "{changes} changes of one node that restarted once");
}

#[test]
fn births_that_were_lost_and_recorded_keep_no_dead_worker_alive() {
    let mut c = Cluster::started(910, vec![Spec::new("origin", 0), Spec::worker("w1", 1)]);
    let earlier = with(&said_by(&c, 1), |message| matches!(message, Message::Birth(_)));
    c.kill(1, true);
    c.restart(1);
    let job = c.submit(0, &sleep(30_000));
    c.run_for(500);
    // The packets of the worker reach only the stranger, and not its origin. The stranger makes the worker publish many
    // births.
    c.count_from_here();
    c.silence(1, true, false);
    for _ in 0..16 {
        publish(&mut c, &earlier);
        c.run_for(1_100);
    }
    // No Will announces that it is gone.
    c.depart(1);
    let w2 = c.add(Spec::worker("w2", 1));
    let births = with(&said_by(&c, 1), |message| matches!(message, Message::Birth(_)));
    assert!(births.len() >= 16, "{}", births.len());
    let (w1, killed_at) = (c.name(1), c.now_ms());
    let mut alive = 0;
    for birth in &births {
        publish(&mut c, std::slice::from_ref(birth));
        c.run_for(1);
        alive += u32::from(c.peek(0).members().any(|(name, member)| name == w1 && member.alive));
        c.run_for(2_000);
    }
    let moved = c.runs.iter().find(|run| run.node == w2).map(|run| run.at_ms - killed_at);
    // The same limit as above.
    assert!(moved.is_some_and(|ms| ms < 15_000), "{moved:?} ms");
    assert!(alive < 8, "it was taken for alive after {alive} of {} births", births.len());
    assert_eq!(c.wait(0, job, 60_000), Ok(Cbor::encode(&30_000)));
}

#[test]
fn the_last_words_of_an_incarnation_do_not_bring_it_back() {
    for silent_ms in [0, 500, 2_000, 5_000] {
        let mut c = Cluster::started(911, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
        let job = c.submit(0, &add(1, 1));
        assert!(c.wait(0, job, 2_000).is_ok());
        let last = said_by(&c, 1);
        c.kill(1, true);
        c.restart(1);
        let job = c.submit(0, &add(2, 2));
        assert!(c.wait(0, job, 2_000).is_ok());
        c.run_for(silent_ms);
        publish(&mut c, &last);
        c.run_for(20);
        let asked_at = c.now_ms();
        let job = c.submit(0, &add(3, 3));
        assert_eq!(c.wait(0, job, 5_000), Ok(Cbor::encode(&6)));
        let took = c.now_ms() - asked_at;
        assert!(took < 50, "{took} ms, {silent_ms} ms after the new one was heard");
    }
}

#[test]
fn recorded_news_of_modules_change_nothing() {
    let mut c = Cluster::started(913, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    for version in 2..6 {
        let (signed, code) = crate::cluster::module(version, true);
        c.deploy(1, &signed, &code);
        c.run_for(1_000);
    }
    let w = c.name(1);
    let known = |c: &Cluster| c.peek(0).members().find(|(name, _)| *name == w).map(|(_, member)| member.birth.modules);
    let last = known(&c);
    let news = with(&said_by(&c, 1), |message| matches!(message, Message::Available(_)));
    assert!(news.len() >= 4, "{}", news.len());
    for packet in news.iter().cycle().take(20) {
        publish(&mut c, std::slice::from_ref(packet));
        c.run_for(100);
        assert_eq!(known(&c), last);
    }
    // The same holds for a node that knows the worker only from recordings, after the last of them.
    let births = with(&said_by(&c, 1), |message| matches!(message, Message::Birth(_)));
    c.silence(1, true, false);
    c.kill(0, true);
    c.restart(0);
    c.run_for(50);
    publish(&mut c, &births);
    publish(&mut c, &news);
    c.run_for(100);
    for packet in news.iter().cycle().take(20) {
        publish(&mut c, std::slice::from_ref(packet));
        c.run_for(100);
        assert_eq!(known(&c), last);
    }
}
