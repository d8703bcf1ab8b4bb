//! Batches: in steady state, a batch costs two packets.

use broccoli_proto::Canvas;
use broccoli_proto::message::Message;

use crate::cluster::{Cluster, Spec};
use crate::{add, adds, one};

/// An origin and a worker that have already run short tasks.
fn warm(workers: &[&str]) -> Cluster {
    let mut specs = vec![Spec::new("origin", 0)];
    specs.extend(workers.iter().map(|name| Spec::new(name, 2)));
    let mut c = Cluster::started(4, specs);
    for _ in 0..4 {
        let (canvas, expected) = adds(400);
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, 1_000), Ok(expected));
    }
    c.run_for(100);
    c.count_from_here();
    c
}

#[test]
fn a_round_trip_with_standing_credit_takes_two_packets() {
    let mut c = warm(&["w"]);
    let job = c.submit(0, &add(1, 2));
    c.wait(0, job, 100).expect("a sum");
    let kinds = (
        c.packets_with(|message| matches!(message, Message::Lease(_))),
        c.packets_with(|message| matches!(message, Message::TaskResults(_))),
    );
    assert_eq!((kinds, c.published.len()), ((1, 1), 2));
}

#[test]
fn acknowledgements_travel_with_the_next_lease() {
    let mut c = warm(&["w"]);
    for _ in 0..50 {
        let job = c.submit(0, &add(1, 2));
        c.wait(0, job, 100).expect("a sum");
    }
    assert_eq!(c.published.len(), 100);
    c.run_for(100);
    assert_eq!(c.published.len(), 101, "the last acknowledgement travels alone");
}

#[test]
fn a_chain_of_100_takes_two_packets_a_step() {
    let mut c = warm(&["w"]);
    let steps = (0..100).map(|i| if i == 0 { add(0, 1) } else { one("add", 1) }).collect();
    let job = c.submit(0, &Canvas::chain(steps));
    assert_eq!(c.wait(0, job, 1_000).expect("a sum").decode(), Some(100_i64));
    assert_eq!(c.published.len(), 200);
}

#[test]
fn a_group_of_1000_travels_in_batches() {
    let mut c = warm(&["w1", "w2"]);
    let (canvas, expected) = adds(1_000);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 1_000), Ok(expected));
    let packets = c.published.len();
    assert!(packets <= 30, "{packets} packets for 1,000 tasks");
}

#[test]
fn an_idle_cluster_is_nearly_silent() {
    let mut c = warm(&["w1", "w2"]);
    c.run_for(1_000);
    c.count_from_here();
    c.run_for(300_000);
    let packets = c.published.len();
    assert!(packets <= 3 * 2 * 10, "{packets} packets in 5 minutes of 3 idle nodes");
}

#[test]
fn packets_stay_within_their_limit_and_large_work_finishes() {
    let small = |spec: Spec| {
        spec.limits(|limits| {
            limits.packet_bytes_max = 4_096;
            limits.result_bytes_max = 3_000;
            limits.credit_bytes = 4_096;
        })
    };
    let specs = vec![small(Spec::new("origin", 1)), small(Spec::worker("w1", 2)), small(Spec::worker("w2", 2))];
    let mut c = Cluster::started(5, specs);
    let text = |i: usize| "x".repeat(2_900 - i);
    let echo = |i| Canvas::task("echo", broccoli_proto::Cbor::encode(&[text(i)]));
    let job = c.submit(0, &Canvas::group((0..60).map(echo).collect()));
    let result = c.wait(0, job, 5_000).expect("texts");
    assert_eq!(result.decode(), Some((0..60).map(text).collect::<Vec<String>>()));
    c.run_for(10_000);
    c.assert_idle();
}
