//! Every form ends with the correct result, wherever its tasks run.

use broccoli_proto::message::Message;
use broccoli_proto::{Canvas, Cbor, Form, Split};

use crate::cluster::{Cluster, Spec};
use crate::{add, none, one};

/// One canvas of each form, with its result.
fn forms() -> Vec<(Canvas, Cbor)> {
    let pairs: Vec<(i64, i64)> = (0..10).map(|i| (i, i)).collect();
    let chunks = |split| Form::Chunks { function: "add".into(), items: Cbor::encode(&pairs), split }.into();
    vec![
        (add(1, 2), Cbor::encode(&3)),
        (Canvas::chain(vec![add(4, 4), one("mul", 8), one("mul", 10)]), Cbor::encode(&640)),
        (
            Canvas::group((0..50).map(|i| add(i, i)).collect()),
            Cbor::encode(&(0..50).map(|i| 2 * i).collect::<Vec<i64>>()),
        ),
        (Canvas::chord((0..10).map(|i| add(i, i)).collect(), none("tsum")), Cbor::encode(&90)),
        (Canvas::chord(vec![], none("tsum")), Cbor::encode(&0)),
        (Form::Map { function: "echo".into(), items: Cbor::encode(&[1, 2, 3]) }.into(), Cbor::encode(&[1, 2, 3])),
        (
            Form::Starmap { function: "add".into(), items: Cbor::encode(&[(1, 2), (3, 4)]) }.into(),
            Cbor::encode(&[3, 7]),
        ),
        (chunks(Split::Bins(4)), Cbor::encode(&vec![vec![0, 2, 4], vec![6, 8, 10], vec![12, 14], vec![16, 18]])),
        (Canvas::group(vec![]), Cbor::empty_array()),
    ]
}

#[test]
fn one_node_alone_runs_every_form_itself() {
    let mut c = Cluster::new(1);
    let alone = c.add_alone(Spec::new("alone", 2));
    for (canvas, expected) in forms() {
        let job = c.submit(alone, &canvas);
        assert_eq!(c.wait(alone, job, 1_000), Ok(expected), "{canvas:?}");
    }
    assert_eq!(c.published.len(), 0, "nothing touched the wire");
    c.run_for(5_000);
    c.assert_idle();
}

#[test]
fn one_connected_node_keeps_its_work_to_itself() {
    let mut c = Cluster::started(1, vec![Spec::new("alone", 2)]);
    for (canvas, expected) in forms() {
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, 1_000), Ok(expected), "{canvas:?}");
    }
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_node_never_sends_its_own_work_over_the_wire() {
    let mut c = Cluster::started(1, vec![Spec::new("alone", 2)]);
    let (canvas, expected) = crate::sleeps(10, 300);
    let job = c.submit(0, &canvas);
    for _ in 0..4 {
        c.run_for(250);
        c.restart_server();
    }
    assert_eq!(c.wait(0, job, 5_000), Ok(expected));
    let presence = |message: &Message| matches!(message, Message::Birth(_) | Message::Claim(_) | Message::Hello);
    let bulk = |message: &Message| !presence(message) && !matches!(message, Message::Available(_));
    assert_eq!(c.packets_with(bulk), 0);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn an_origin_without_slots_leaves_every_form_to_its_workers() {
    let specs = vec![Spec::new("origin", 0), Spec::worker("w1", 2), Spec::worker("w2", 2)];
    let mut c = Cluster::started(2, specs);
    for (canvas, expected) in forms() {
        let job = c.submit(0, &canvas);
        assert_eq!(c.wait(0, job, 1_000), Ok(expected), "{canvas:?}");
    }
    assert_eq!(c.runs_on(0), 0);
    assert!(c.runs_on(1) > 0 && c.runs_on(2) > 0);
    c.run_for(10_000);
    c.assert_idle();
}

#[test]
fn a_client_without_slots_gets_every_form_from_a_resident_origin() {
    let specs = vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 2)];
    let mut c = Cluster::started(3, specs);
    crate::attach(&mut c, 0);
    for (canvas, expected) in forms() {
        let job = c.submit_remote(0, &canvas);
        assert_eq!(c.wait(0, job, 1_000), Ok(expected), "{canvas:?}");
    }
    c.run_for(10_000);
    c.assert_idle();
}
