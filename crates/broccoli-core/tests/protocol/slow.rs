//! A slow medium that all nodes share: 9,600 baud, frames of 64 bytes. The times of the protocol are 50 times longer
//! there, and the same promises hold.

use broccoli_core::Event;
use broccoli_proto::message::Message;
use broccoli_proto::{Canvas, Cbor};

use crate::cluster::bus::Bus;
use crate::cluster::{Cluster, Faults, Id, Spec, module};
use crate::{add, none, sleeps};

/// Longest time for anything: a lease is lost after 200 s.
const LONG_MS: u64 = 3_600_000;

fn on_bus(seed: u64, specs: Vec<Spec>) -> Cluster {
    let mut c = Cluster::new(seed);
    c.bus = Some(Bus::new(9_600, 64));
    for spec in specs {
        c.add(spec);
    }
    let all_meet = |c: &Cluster| (0..c.len()).all(|id| c.peek(id).members().count() == c.len());
    assert!(c.run_until(120_000, all_meet), "nodes meet");
    c.run_for(60_000);
    c
}

fn four(seed: u64) -> Cluster {
    on_bus(seed, [Spec::new("n0", 1), Spec::new("n1", 1), Spec::new("n2", 1), Spec::worker("n3", 1)].into())
}

fn chord(n: i64) -> (Canvas, Cbor) {
    let header = (0..n).map(|i| add(i, i)).collect();
    (Canvas::chord(header, none("tsum")), Cbor::encode(&(0..n).map(|i| 2 * i).sum::<i64>()))
}

#[test]
fn nothing_is_said_twice_because_the_medium_is_slow() {
    for seed in 1..=5 {
        let mut c = four(seed);
        c.count_from_here();
        let (canvas, sum) = chord(20);
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, LONG_MS), Ok(sum));
        c.run_for(60_000);
        let leases = c.packets_with(|message| matches!(message, Message::Lease(_)));
        let results = c.packets_with(|message| matches!(message, Message::TaskResults(_)));
        assert!(leases <= 8 && results <= 8, "{leases} packets with leases, {results} with results");
        assert_eq!(c.runs.len(), 21, "each task ran once");
        c.assert_idle();
    }
}

#[test]
fn whoever_is_there_stays_there_and_says_so_seldom() {
    let mut c = four(11);
    c.count_from_here();
    c.run_for(LONG_MS);
    for id in 0..c.len() {
        assert!(c.peek(id).members().all(|(_, member)| member.alive), "node {id} misses somebody");
    }
    // In an hour, this medium carries 1,700 packets of the longest kind.
    assert!(c.published.len() < 100, "{} packets in an hour of rest", c.published.len());
}

#[test]
fn tasks_of_a_worker_that_dies_move_and_no_other_is_suspected() {
    let mut c = four(21);
    let (canvas, expected) = sleeps(6, 20_000);
    let job = c.submit(0, &canvas);
    assert!(c.run_until(LONG_MS, |c| c.running_on(3) > 0), "the worker has begun");
    c.kill(3, false);
    assert_eq!(c.wait(0, job, LONG_MS), Ok(expected));
    let aborted = c.runs.iter().filter(|run| run.aborted).count();
    assert_eq!(c.runs.len(), 6 + aborted, "only what it ran ran again");
}

#[test]
fn frames_are_lost_and_everything_ends_all_the_same() {
    for seed in 31..=36 {
        let mut c = four(seed);
        c.faults = Faults { loss: 100, duplication: 20, delay: 50, delay_ms_max: 5_000 };
        let (canvas, sum) = chord(10);
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, LONG_MS), Ok(sum), "seed {seed}");
    }
}

#[test]
fn a_module_and_a_large_value_cross_it_in_pieces() {
    let mut c = four(41);
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    assert!(c.run_until(LONG_MS, |c| (0..c.len()).all(|id| c.holds(id, signed.id))), "all have the module");
    let echo = Canvas::task("echo", Cbor::array([Cbor::encode(&"x".repeat(6_000)).as_bytes()].into_iter()));
    let mut on_other = echo.clone();
    on_other.options.on = vec!["n3".into()];
    let job = c.submit(0, &on_other);
    assert_eq!(c.wait(0, job, LONG_MS).map(|value| value.as_bytes().len()), Ok(6_003));
    let most = c.published.iter().map(|packet| packet.bytes.len()).max();
    assert!(most.is_some_and(|most| most <= 2_304), "{most:?}");
}

fn attached(c: &Cluster, client: Id) -> bool {
    c.events(client).any(|event| matches!(event, Event::Attached(_)))
}

#[test]
fn a_client_is_served() {
    let mut c = four(51);
    let client = c.add(Spec::client("client"));
    c.attach(client);
    assert!(c.run_until(LONG_MS, |c| attached(c, client)), "no origin was found");
    let (canvas, sum) = chord(5);
    let job = c.submit_remote(client, &canvas);
    assert_eq!(c.wait(client, job, LONG_MS), Ok(sum));
}
