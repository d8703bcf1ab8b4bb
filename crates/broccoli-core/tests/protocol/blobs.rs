//! Large values: a value that does not fit into a packet of its receiver is pulled in pieces.

use broccoli_core::{Event, Input, Instant};
use broccoli_proto::message::{ContentPiece, JobNews, Message};
use broccoli_proto::packet::Address;
use broccoli_proto::{Canvas, Cause, Cbor, ContentId, Options, module};
use broccoli_sim::cluster::functions::large;

use crate::cluster::{Cluster, Faults, Spec, open};
use crate::{attach, one};

const PACKET_BYTES: u32 = 65_536;
const LOSSY: Faults = Faults { loss: 50, duplication: 20, delay: 20, delay_ms_max: 20 };

/// With packets of at most this many bytes.
fn packets(spec: Spec, bytes: u32) -> Spec {
    spec.limits(|limits| limits.packet_bytes_max = bytes)
}

/// An origin and a worker with small packets on a bad network.
fn lossy(seed: u64, packet_bytes: u32) -> Cluster {
    let specs = [Spec::new("origin", 0), Spec::worker("w", 2)];
    let mut c = Cluster::started(seed, specs.map(|spec| packets(spec, packet_bytes)).into());
    c.faults = LOSSY;
    c
}

fn make(bytes: i64) -> Canvas {
    one("large", bytes)
}

fn echo(value: &Cbor) -> Canvas {
    Canvas::task("echo", Cbor::array([value.as_bytes()].into_iter()))
}

/// All values that were held or pulled are freed, a while after the faults have stopped.
fn settle(c: &mut Cluster) {
    c.faults = Faults::default();
    c.run_for(60_000);
    c.assert_idle();
}

/// No packet is longer than its sender and its receiver allow.
fn assert_packets_fit(c: &Cluster) {
    for published in &c.published {
        let max = |id| c.spec(id).limits.packet_bytes_max as usize;
        let receiver = (0..c.len()).find(|id| published.to == Address::Node(c.name(*id)));
        let max = receiver.map_or(usize::MAX, max).min(max(published.from));
        assert!(published.bytes.len() <= max, "{} bytes to {:?}", published.bytes.len(), published.to);
    }
}

fn has_piece(message: &Message) -> bool {
    matches!(message, Message::ContentPiece(_))
}

#[test]
fn a_result_of_5_mb_comes_over_a_bad_network() {
    for seed in 0..4 {
        let mut c = lossy(seed, PACKET_BYTES);
        let job = c.submit(0, &make(5_000_000));
        assert_eq!(c.wait(0, job, 60_000), Ok(large(5_000_000)));
        assert_eq!(c.runs.len(), 1, "it was run once");
        assert_packets_fit(&c);
        settle(&mut c);
    }
}

#[test]
fn an_argument_of_5_mb_goes_through_a_chain() {
    for seed in 0..4 {
        let mut c = lossy(seed, PACKET_BYTES);
        let echo = || Canvas::task("echo", Cbor::empty_array());
        let job = c.submit(0, &Canvas::chain(vec![make(5_000_000), echo(), echo()]));
        assert_eq!(c.wait(0, job, 120_000), Ok(large(5_000_000)));
        assert_eq!(c.runs.len(), 3, "each was run once");
        assert_packets_fit(&c);
        settle(&mut c);
    }
}

#[test]
fn a_canvas_of_3_mb_is_submitted_and_its_result_comes_back() {
    for seed in 0..4 {
        let mut c = lossy(seed, PACKET_BYTES);
        let client = c.add(packets(Spec::client("client"), PACKET_BYTES));
        attach(&mut c, client);
        let value = large(3_000_000);
        let job = c.submit_remote(client, &echo(&value));
        assert_eq!(c.wait(client, job, 120_000), Ok(value));
        assert_eq!(c.runs.len(), 1, "it was run once");
        assert_packets_fit(&c);
        settle(&mut c);
    }
}

#[test]
fn the_result_of_a_job_of_2_mb_comes_to_its_client() {
    for seed in 0..4 {
        let mut c = lossy(seed, PACKET_BYTES);
        let client = c.add(packets(Spec::client("client"), PACKET_BYTES));
        attach(&mut c, client);
        let job = c.submit_remote(client, &Canvas::group((0..4).map(|i| make(500_000 + i)).collect()));
        let result = c.wait(client, job, 120_000).expect("texts");
        assert_eq!(
            result,
            Cbor::array((0..4).map(|i| large(500_000 + i)).collect::<Vec<_>>().iter().map(Cbor::as_bytes))
        );
        settle(&mut c);
    }
}

#[test]
fn a_node_with_the_smallest_packets_takes_and_gives_1_mb() {
    let specs = vec![Spec::new("origin", 0), packets(Spec::worker("chip", 1), 4_096)];
    let mut c = Cluster::started(7, specs);
    c.faults = LOSSY;
    let value = large(1_000_000);
    let job = c.submit(0, &echo(&value));
    assert_eq!(c.wait(0, job, 60_000), Ok(value));
    assert_packets_fit(&c);
    settle(&mut c);
}

#[test]
fn long_errors_and_logs_are_cut_to_the_smallest_packets() {
    let specs = [Spec::client("client"), Spec::new("origin", 0), Spec::worker("w", 1)];
    let mut c = Cluster::started(18, specs.map(|spec| packets(spec, 2_048)).into());
    attach(&mut c, 0);
    let long = "é".repeat(5_000);
    let options = Options { retries: Some(1), ..Options::default() };
    let fails = Canvas { options, ..Canvas::task("fail", Cbor::encode(&[&long])) };
    let job = c.submit_remote(0, &fails);
    let error = c.wait(0, job, 10_000).expect_err("it fails");
    assert!(long.starts_with(&error.text) && error.text.len() > 1_000, "{} bytes", error.text.len());
    let retried = c.news(0, job).filter(|news| matches!(news, JobNews::Retried { .. })).count();
    assert_eq!(retried, 1, "the client was told of the first failure");

    let job = c.submit_remote(0, &one("sleep", 500));
    c.run_for(100);
    c.log(2, &long);
    assert!(c.wait(0, job, 2_000).is_ok());
    let logged = c.news(0, job).find_map(|news| match news {
        JobNews::Logged { text, .. } => Some(text.clone()),
        _ => None,
    });
    assert!(logged.is_some_and(|text| long.starts_with(&text) && text.len() > 1_000));
    assert_packets_fit(&c);
    settle(&mut c);
}

#[test]
fn results_that_an_origin_with_smaller_packets_has_not_got_are_pulled() {
    let specs = [Spec::client("client"), Spec::new("origin", 0).durable(), Spec::worker("w", 4)];
    let mut c = Cluster::started(19, specs.map(|spec| packets(spec, PACKET_BYTES)).into());
    attach(&mut c, 0);
    c.lose = Some(|message| matches!(message, Message::TaskResults(_)));
    let job = c.submit_remote(0, &Canvas::group(vec![make(40_000), make(3_000), make(3_000)]));
    c.run_for(1_000);
    c.kill(1, true);
    c.change_limits(1, |limits| limits.packet_bytes_max = 4_096);
    c.lose = None;
    c.restart(1);
    let results = [40_000, 3_000, 3_000].map(large);
    assert_eq!(c.wait(0, job, 20_000), Ok(Cbor::array(results.iter().map(Cbor::as_bytes))));
    assert_eq!(c.runs.len(), 3, "each was run once");
    settle(&mut c);
}

#[test]
fn a_large_value_does_not_hold_up_small_ones() {
    let mut c = Cluster::started(8, vec![Spec::new("origin", 0), packets(Spec::worker("w", 2), 4_096)]);
    let big = c.submit(0, &make(2_000_000));
    c.run_until(1_000, |c| c.packets_with(has_piece) > 10);
    let small = c.submit(0, &make(10));
    assert_eq!(c.wait(0, small, 100), Ok(large(10)));
    assert_eq!(c.ended(0, big), None, "the large one is still on its way");
    assert_eq!(c.wait(0, big, 60_000), Ok(large(2_000_000)));
    settle(&mut c);
}

#[test]
fn a_node_has_its_own_values_without_pulling_them() {
    let mut c = Cluster::started(9, vec![packets(Spec::new("alone", 2), PACKET_BYTES)]);
    let job = c.submit(0, &Canvas::chain(vec![make(3_000_000), Canvas::task("echo", Cbor::empty_array())]));
    assert_eq!(c.wait(0, job, 1_000), Ok(large(3_000_000)));
    assert_eq!(c.packets_with(has_piece), 0);
    settle(&mut c);
}

#[test]
fn a_worker_that_dies_while_its_result_is_pulled_costs_one_run() {
    let specs = [Spec::new("origin", 0), Spec::worker("w1", 1), Spec::worker("w2", 1)];
    let mut c = Cluster::started(10, specs.map(|spec| packets(spec, PACKET_BYTES)).into());
    let job = c.submit(0, &make(5_000_000));
    assert!(c.run_until(5_000, |c| c.packets_with(has_piece) > 20), "the result is being pulled");
    let dead = c.runs[0].node;
    c.kill(dead, true);
    assert_eq!(c.wait(0, job, 30_000), Ok(large(5_000_000)));
    assert_eq!(c.runs.len(), 2, "it was run again, on the other worker");
    settle(&mut c);
}

#[test]
fn a_worker_that_restarts_while_it_pulls_arguments_costs_no_task() {
    let mut c = lossy(11, PACKET_BYTES);
    let value = large(4_000_000);
    let job = c.submit(0, &echo(&value));
    assert!(c.run_until(5_000, |c| c.packets_with(has_piece) > 20), "the arguments are being pulled");
    c.kill(1, true);
    c.restart(1);
    assert_eq!(c.wait(0, job, 60_000), Ok(value));
    settle(&mut c);
}

#[test]
fn an_origin_that_restarts_while_it_pulls_a_result_has_it_without_another_run() {
    let specs = [Spec::new("origin", 0).durable(), Spec::worker("w", 1), Spec::client("client")];
    let mut c = Cluster::started(12, specs.map(|spec| packets(spec, PACKET_BYTES)).into());
    attach(&mut c, 2);
    c.sync_us_max = 100;
    let job = c.submit_remote(2, &make(5_000_000));
    assert!(c.run_until(5_000, |c| c.packets_with(has_piece) > 20), "the result is being pulled");
    assert!(c.events(2).any(|event| matches!(event, Event::Accepted(..))), "the job is safe");
    c.kill(0, true);
    c.restart(0);
    assert_eq!(c.wait(2, job, 60_000), Ok(large(5_000_000)));
    assert_eq!(c.runs.len(), 1, "the worker still has the result");
    settle(&mut c);
}

#[test]
fn an_origin_that_restarts_while_a_worker_pulls_arguments_leases_them_again() {
    let specs = [Spec::new("origin", 0).durable(), Spec::worker("w", 1), Spec::client("client")];
    let mut c = Cluster::started(13, specs.map(|spec| packets(spec, PACKET_BYTES)).into());
    attach(&mut c, 2);
    let value = large(4_000_000);
    let job = c.submit_remote(2, &echo(&value));
    let of_worker = |c: &Cluster| {
        let to = Address::Node(c.name(1));
        c.published.iter().filter(|p| p.to == to && open(&p.bytes).1.iter().any(has_piece)).count()
    };
    assert!(c.run_until(5_000, |c| of_worker(c) > 20), "the arguments are being pulled");
    c.kill(0, true);
    c.restart(0);
    assert_eq!(c.wait(2, job, 60_000), Ok(value));
    settle(&mut c);
}

#[test]
fn a_link_that_comes_back_goes_on_with_a_pull() {
    let mut c = lossy(14, PACKET_BYTES);
    let job = c.submit(0, &make(5_000_000));
    assert!(c.run_until(5_000, |c| c.packets_with(has_piece) > 20), "the result is being pulled");
    c.cut(1, true);
    c.run_for(500);
    c.heal(1);
    assert_eq!(c.wait(0, job, 60_000), Ok(large(5_000_000)));
    assert_eq!(c.runs.len(), 1, "it was run once");
    settle(&mut c);
}

#[test]
fn a_value_over_the_limit_fails_its_task_with_both_sizes() {
    let mut c = Cluster::started(
        15,
        vec![
            Spec::new("origin", 0).limits(|limits| limits.result_bytes_max = 1_000_000),
            packets(Spec::worker("w", 1), PACKET_BYTES),
        ],
    );
    let job = c.submit(0, &make(2_000_000));
    let error = c.wait(0, job, 10_000).expect_err("too large");
    assert_eq!(error.cause, Cause::Unfit);
    assert_eq!(error.text, "the result has 2000005 bytes, its origin takes 1000000");
    settle(&mut c);
}

#[test]
fn arguments_over_the_limit_of_a_worker_fail_their_task_with_both_sizes() {
    let chip = packets(Spec::worker("chip", 1), 4_096).limits(|limits| {
        limits.args_bytes_max = 16_000;
    });
    let mut c = Cluster::started(16, vec![Spec::new("origin", 0), chip]);
    let job = c.submit(0, &echo(&large(20_000)));
    let error = c.wait(0, job, 10_000).expect_err("too large");
    assert_eq!(error.cause, Cause::Unfit);
    let expected =
        "the arguments have 20004 bytes, this node takes 16000; no live node that may run it is large enough";
    assert_eq!(error.text, expected);
    settle(&mut c);
}

#[test]
fn a_canvas_over_the_limit_is_refused_with_both_sizes() {
    let origin = Spec::new("origin", 0).limits(|limits| limits.canvas.args_bytes_max = 100_000);
    let mut c = Cluster::started(17, vec![origin, packets(Spec::client("client"), PACKET_BYTES)]);
    attach(&mut c, 1);
    c.submit_remote(1, &echo(&large(200_000)));
    let refused = |c: &Cluster| c.events(1).any(|event| format!("{event:?}").contains("this node takes 100000"));
    assert!(c.run_until(5_000, refused), "{:?}", c.events(1).collect::<Vec<_>>());
    settle(&mut c);
}

#[test]
fn large_values_are_bounded_and_all_of_them_come() {
    let small = |spec: Spec| packets(spec, PACKET_BYTES).limits(|limits| limits.blob_bytes_max = 1_000_000);
    let specs = [Spec::new("origin", 0), Spec::worker("w1", 4), Spec::worker("w2", 4)];
    let mut c = Cluster::started(18, specs.map(small).into());
    let values: Vec<Cbor> = (0..40).map(|i| large(300_000 + i)).collect();
    let job = c.submit(0, &Canvas::group(values.iter().map(echo).collect()));
    let is_within = |c: &Cluster| {
        let sizes = (0..c.len()).flat_map(|id| c.peek(id).sizes());
        sizes.filter(|size| size.name.starts_with("value")).all(|size| size.len <= size.max)
    };
    let over = c.run_until(60_000, |c| !is_within(c) || c.ended(0, job).is_some());
    assert!(over && is_within(&c), "the bounds hold: {:?}", c.peek(0).sizes());
    assert_eq!(c.ended(0, job), Some(Ok(Cbor::array(values.iter().map(Cbor::as_bytes)))));
    settle(&mut c);
}

#[test]
fn pieces_that_are_not_what_they_should_be_are_pulled_again() {
    let mut c = lossy(19, PACKET_BYTES);
    c.faults = Faults::default();
    let job = c.submit(0, &make(2_000_000));
    assert!(c.run_until(5_000, |c| c.packets_with(has_piece) > 0), "the result is being pulled");
    let content = ContentId::from(module::hash(large(2_000_000).as_bytes()));
    let pieces = c.published.iter().flat_map(|p| open(&p.bytes).1);
    let first =
        pieces.filter_map(|message| if let Message::ContentPiece(piece) = message { Some(piece) } else { None });
    let piece_bytes = first.map(|piece| piece.bytes.len()).next().expect("just seen");
    let bytes = vec![0; piece_bytes];
    let bad = Message::ContentPiece(ContentPiece { content, offset: 20 * piece_bytes as u32, bytes });
    let odd = Message::ContentPiece(ContentPiece { content, offset: 7, bytes: vec![0; 9] });
    let far = Message::ContentPiece(ContentPiece { content, offset: u32::MAX, bytes: vec![0; 9] });
    c.inject_as("w", 0, 30, &[bad, odd, far]);
    assert_eq!(c.wait(0, job, 10_000), Ok(large(2_000_000)));
    assert_eq!(c.runs.len(), 1, "it was run once");
    settle(&mut c);
}

#[test]
fn a_server_with_small_packets_gets_no_larger_ones() {
    let mut c = Cluster::new(20);
    for spec in [Spec::new("origin", 0), Spec::worker("w", 1)] {
        let id = c.add_alone(spec);
        let now = Instant(c.now_us);
        c.node(id).handle_input(now, Input::PacketLimit(8_192));
    }
    (0..2).for_each(|id| c.heal(id));
    c.run_for(300);
    let value = large(100_000);
    let job = c.submit(0, &echo(&value));
    assert_eq!(c.wait(0, job, 10_000), Ok(value));
    let longest = c.published.iter().map(|published| published.bytes.len()).max();
    assert!(longest <= Some(8_192), "{longest:?}");
    settle(&mut c);
}
