//! Replayed packets, garbage, and senders without the key.

use broccoli_core::Event;
use broccoli_proto::message::{Message, TaskResult, TaskResults};
use broccoli_proto::packet::{Address, Envelope};
use broccoli_proto::{Cause, Cbor};

use crate::cluster::{Cluster, Published, Spec, open};
use crate::{add, adds, sleep};

fn rejected(c: &Cluster, id: usize) -> usize {
    c.events(id).filter(|event| matches!(event, Event::Rejected { .. })).count()
}

/// A cluster with clients, leases, results and a restart of every node, and all its packets.
fn recorded() -> (Cluster, Vec<Published>) {
    let specs = vec![Spec::client("client"), Spec::new("origin", 1), Spec::worker("w1", 1), Spec::worker("w2", 2)];
    let mut c = Cluster::started(41, specs);
    crate::attach(&mut c, 0);
    let (canvas, expected) = adds(30);
    let job = c.submit_remote(0, &canvas);
    assert_eq!(c.wait(0, job, 2_000), Ok(expected));
    let revoked = c.submit_remote(0, &sleep(2_000));
    c.run_for(300);
    c.revoke(0, revoked);
    c.run_for(1_000);
    let packets = c.published.clone();
    (c, packets)
}

fn replay(c: &mut Cluster, packets: &[Published]) {
    for packet in packets {
        for id in 0..4 {
            let is_for = match packet.to {
                Address::Node(name) => name == c.name(id),
                Address::Birth(_) | Address::All => true,
            };
            if is_for {
                c.inject(id, packet.to, &packet.bytes);
            }
        }
    }
}

#[test]
fn packets_of_earlier_incarnations_have_no_effect() {
    let (mut c, packets) = recorded();
    for id in 0..4 {
        c.kill(id, true);
        c.restart(id);
    }
    c.run_for(1_000);
    let (runs, events) = (c.runs.len(), c.events(0).count());
    replay(&mut c, &packets);
    c.run_for(10_000);
    replay(&mut c, &packets);
    c.run_for(10_000);
    assert_eq!(c.runs.len(), runs, "no function runs");
    let jobs = c.timed_events(0)[events..].iter().filter(|(_, e)| matches!(e, Event::Job(..) | Event::Accepted(..)));
    assert_eq!(jobs.count(), 0, "no job appears");
    c.assert_idle();

    // Everything continues as before.
    crate::attach(&mut c, 0);
    let (canvas, expected) = adds(30);
    let job = c.submit_remote(0, &canvas);
    assert_eq!(c.wait(0, job, 2_000), Ok(expected));
}

#[test]
fn packets_of_earlier_incarnations_do_not_disturb_work_under_way() {
    let (mut c, packets) = recorded();
    for id in 0..4 {
        c.kill(id, true);
        c.restart(id);
    }
    crate::attach(&mut c, 0);
    let before = c.runs.len();
    let (canvas, expected) = crate::sleeps(12, 300);
    let job = c.submit_remote(0, &canvas);
    for _ in 0..4 {
        c.run_for(250);
        replay(&mut c, &packets);
    }
    assert_eq!(c.wait(0, job, 20_000), Ok(expected));
    assert_eq!(c.runs.len() - before, 12, "nothing runs twice");
    c.run_for(60_000);
    c.assert_idle();
}

#[test]
fn an_answer_to_an_earlier_client_binds_no_job_of_the_present_one() {
    let (mut c, packets) = recorded();
    c.kill(0, true);
    c.restart(0);
    crate::attach(&mut c, 0);
    let job = c.submit_remote(0, &add(20, 22));
    replay(&mut c, &packets);
    assert_eq!(c.wait(0, job, 10_000), Ok(Cbor::encode(&42)));
}

#[test]
fn packets_replayed_at_once_run_nothing_twice() {
    let (mut c, packets) = recorded();
    let runs = c.runs.len();
    replay(&mut c, &packets);
    c.run_for(10_000);
    assert_eq!(c.runs.len(), runs);
    c.assert_idle();
}

#[test]
fn garbage_is_counted_and_does_no_harm() {
    let (mut c, packets) = recorded();
    let before: usize = (0..4).map(|id| rejected(&c, id)).sum();
    let mut injected = 0;
    for (number, packet) in packets.iter().enumerate() {
        let mut flipped = packet.bytes.clone();
        let at = number * 7 % flipped.len();
        flipped[at] ^= 1 << (number % 8);
        let cut = &packet.bytes[..number * 5 % packet.bytes.len()];
        for id in 0..4 {
            let name = c.name(id);
            for to in [Address::Node(name), Address::All, Address::Birth(name), Address::Birth(c.name((id + 1) % 4))] {
                for bytes in [&flipped[..], cut, &[], &[0xff; 40]] {
                    c.inject(id, to, bytes);
                    injected += 1;
                }
            }
        }
    }
    let after: usize = (0..4).map(|id| rejected(&c, id)).sum();
    assert_eq!(after - before, injected, "each was counted");
    let (canvas, expected) = adds(30);
    let job = c.submit_remote(0, &canvas);
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
}

#[test]
fn sealed_nonsense_from_a_member_is_rejected() {
    let mut c = Cluster::started(42, vec![Spec::new("origin", 1), Spec::worker("w", 1)]);
    let to = Address::Node(c.name(0));
    let key = crate::cluster::cluster_key();
    let mut packet = Vec::new();
    for (sequence, nonsense) in
        [&[0xff_u8, 0xff][..], &[0x82, 0x18, 0xc8, 0x80], &[0x9f; 300], &[0x81; 3_000]].iter().enumerate()
    {
        let before = rejected(&c, 0);
        let (sender, epoch, proof) = (c.name(1), c.epoch(1), c.peek(0).audit_challenge());
        let envelope = Envelope { sender, to, epoch, sequence: 1_000 + sequence as u64, challenge: 1, proof };
        broccoli_proto::packet::seal(&key, &envelope, &mut packet, |buf| buf.extend_from_slice(nonsense));
        c.inject(0, to, &packet);
        assert_eq!(rejected(&c, 0), before + 1, "{:02x?}", &nonsense[..2]);
    }
}

#[test]
fn a_birth_in_another_name_is_rejected() {
    let mut c = Cluster::started(43, vec![Spec::new("origin", 1), Spec::worker("w", 1)]);
    let births: Vec<Published> =
        c.published.iter().filter(|p| matches!(p.to, Address::Birth(_)) && p.from == 1).cloned().collect();
    let wrong = Address::Birth("other".parse().expect("a name"));
    c.inject(0, wrong, &births[0].bytes);
    assert_eq!(rejected(&c, 0), 1);
}

#[test]
fn a_result_that_is_no_value_fails_its_task() {
    let mut c = Cluster::started(44, vec![Spec::new("origin", 0), Spec::worker("w", 1)]);
    let job = c.submit(0, &sleep(1_000));
    c.run_for(100);
    let lease = c.published.iter().find_map(|p| {
        let (header, messages) = open(&p.bytes);
        messages.into_iter().find_map(|message| match message {
            Message::Lease(lease) => Some((header.epoch, lease.tasks[0].attempt)),
            _ => None,
        })
    });
    let (origin_epoch, attempt) = lease.expect("a lease was sent");
    let nonsense = TaskResult { attempt, outcome: Ok(Cbor::from_encoded(vec![0x82, 0x01])), blob: None };
    let message = Message::TaskResults(TaskResults { origin_epoch, number: 77, results: vec![nonsense] });
    c.inject_as("w", 0, 30, &[message]);
    assert_eq!(c.wait(0, job, 500).expect_err("nonsense").cause, Cause::Unfit);
}
