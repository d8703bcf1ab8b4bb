//! A task that a node is too small for goes to a larger node. The refusal is not an outcome.

use broccoli_core::{Event, Limits};
use broccoli_proto::message::Message;
use broccoli_proto::options::Rate;
use broccoli_proto::{Canvas, Cause, Cbor, Outcome, TaskError};
use broccoli_sim::cluster::functions::large;

use crate::cluster::{Cluster, Id, Spec, module};
use crate::{adds, attach, none, one, sleep};

const NO_OTHER: &str = "; no live node that may run it is large enough";

fn echo(bytes: usize) -> Canvas {
    Canvas::task("echo", Cbor::array([large(bytes).as_bytes()].into_iter()))
}

fn on(mut canvas: Canvas, label: &str) -> Canvas {
    canvas.options.on = vec![label.into()];
    canvas
}

/// A node with the limits of a chip for arguments and results.
fn chip(name: &str) -> Spec {
    Spec::worker(name, 1).label("esp32").limits(|limits| {
        let chip = Limits::chip();
        (limits.args_bytes_max, limits.result_bytes_max) = (chip.args_bytes_max, chip.result_bytes_max);
        limits.packet_bytes_max = chip.packet_bytes_max;
    })
}

/// `n` results of more than 20,000 bytes.
fn larges(n: usize) -> (Canvas, Cbor) {
    let results: Vec<Cbor> = (0..n).map(|n| large(20_000 + n)).collect();
    let canvas = Canvas::group((0..n).map(|n| one("large", 20_000 + n as i64)).collect());
    (canvas, Cbor::array(results.iter().map(Cbor::as_bytes)))
}

fn run(c: &mut Cluster, canvas: &Canvas) -> Outcome {
    let job = c.submit(0, canvas);
    c.wait(0, job, 60_000)
}

fn fails(c: &mut Cluster, canvas: &Canvas) -> TaskError {
    let error = run(c, canvas).expect_err("no node is large enough");
    assert_eq!(error.cause, Cause::Unfit, "{error}");
    error
}

fn settle(c: &mut Cluster) {
    c.run_for(20_000);
    c.assert_idle();
}

/// An origin, a chip that always gives credit, and a PC.
fn mixed(seed: u64) -> Cluster {
    Cluster::started(seed, vec![Spec::new("origin", 0), chip("chip"), Spec::worker("pc", 1)])
}

#[test]
fn arguments_that_a_chip_cannot_take_go_to_the_pc() {
    let mut c = mixed(1);
    let echoes: Vec<Canvas> = (0..20).map(|n| echo(20_000 + n)).collect();
    let expected: Vec<Cbor> = (0..20).map(|n| large(20_000 + n)).collect();
    assert_eq!(run(&mut c, &Canvas::group(echoes)), Ok(Cbor::array(expected.iter().map(Cbor::as_bytes))));
    assert_eq!((c.runs_on(1), c.runs_on(2)), (0, 20), "nothing of it was sent to the chip");
    let has_args = |message: &Message| matches!(message, Message::Lease(lease) if lease.tasks.iter().any(|task| task.blob.is_some()));
    let to_chip = |packet: &&broccoli_sim::cluster::Published| format!("{:?}", packet.to).contains("chip");
    let sent = c
        .published
        .iter()
        .filter(to_chip)
        .any(|packet| broccoli_sim::cluster::open(&packet.bytes).1.iter().any(has_args));
    assert!(!sent, "the origin knows what the chip takes");
    settle(&mut c);
}

#[test]
fn what_fits_still_runs_on_both() {
    let mut c = mixed(2);
    let (mut canvas, expected) = adds(2_000);
    canvas = Canvas::group(vec![canvas, echo(20_000)]);
    let result = run(&mut c, &canvas);
    assert_eq!(result, Ok(Cbor::array([expected.as_bytes(), large(20_000).as_bytes()].into_iter())));
    assert!(c.runs_on(1) > 100 && c.runs_on(2) > 100, "{} and {}", c.runs_on(1), c.runs_on(2));
    settle(&mut c);
}

#[test]
fn a_result_that_a_chip_cannot_give_comes_from_the_pc_without_a_retry() {
    let mut c = mixed(3);
    let (canvas, expected) = larges(8);
    assert_eq!(run(&mut c, &canvas), Ok(expected));
    assert!(c.runs_on(1) > 0, "the chip was tried");
    assert_eq!(c.runs_on(2), 8);
    settle(&mut c);
}

#[test]
fn what_has_too_little_memory_runs_where_there_is_more() {
    let specs = vec![Spec::new("origin", 0), chip("a").memory(50), chip("b").memory(50), Spec::worker("pc", 1)];
    let mut c = Cluster::started(4, specs);
    let canvas = Canvas::group((100..110).map(echo).collect());
    assert!(run(&mut c, &canvas).is_ok());
    let tried = c.runs_on(1) + c.runs_on(2);
    assert!((1..=10).contains(&tried), "after one chip the PC was tried, not the other one: {tried}");
    settle(&mut c);
}

#[test]
fn another_chip_is_tried_if_there_is_nothing_larger() {
    let specs = vec![Spec::new("origin", 0), chip("a").memory(50), chip("b").memory(50), chip("c")];
    let mut c = Cluster::started(5, specs);
    let canvas = Canvas::group((100..120).map(echo).collect());
    assert!(run(&mut c, &canvas).is_ok());
    assert!(c.runs_on(1) + c.runs_on(2) > 0, "those with little memory were tried");
    settle(&mut c);
}

#[test]
fn retries_are_for_failures_of_the_function() {
    let mut c = Cluster::started(6, vec![Spec::new("origin", 0), chip("chip").memory(3), Spec::worker("pc", 1)]);
    c.pause(2);
    let mut canvas = one("flaky", 1_000);
    canvas.options.retries = Some(1);
    let job = c.submit(0, &canvas);
    c.run_for(1_000);
    assert_eq!(c.ended(0, job), None, "the chip is too small, the PC is there");
    c.resume(2);
    assert_eq!(c.wait(0, job, 5_000).expect_err("it always fails").cause, Cause::Returned);
    assert_eq!(c.runs_on(2), 2, "both tries were on the PC");
    settle(&mut c);
}

#[test]
fn without_a_larger_node_it_fails_and_names_the_largest() {
    let small = |name: &str, bytes| chip(name).limits(|limits| limits.args_bytes_max = bytes);
    let mut c = Cluster::started(7, vec![Spec::new("origin", 0), small("a", 1_000), small("b", 9_000)]);
    let error = fails(&mut c, &echo(20_000));
    assert_eq!(error.text, format!("the arguments have 20004 bytes, this node takes 9000{NO_OTHER}"));
    assert_eq!(error.node.map(|node| node.to_string()), Some("b".into()));
    assert_eq!(c.runs.len(), 0);
    let error = fails(&mut c, &one("large", 17_000));
    assert_eq!(error.text, format!("the result has 17003 bytes, this node takes 16384{NO_OTHER}"));
    assert_eq!(c.runs.len(), 1, "the other one takes as little, which is known");
    settle(&mut c);
}

#[test]
fn a_larger_node_that_comes_before_the_end_is_there() {
    let mut c = Cluster::started(8, vec![Spec::new("origin", 0), chip("chip"), Spec::worker("pc", 1)]);
    // It may come back.
    c.cut(2, true);
    let job = c.submit(0, &echo(20_000));
    c.run_for(1_500);
    assert_eq!(c.ended(0, job), None, "its link has just gone");
    c.heal(2);
    assert_eq!(c.wait(0, job, 5_000), Ok(large(20_000)));
    c.kill(2, true);
    let start = c.now_ms();
    fails(&mut c, &echo(20_000));
    assert!(c.now_ms() - start < 5_000, "it has not come back");
}

#[test]
fn a_node_that_is_named_and_too_small_fails_its_task_at_once() {
    let mut c = mixed(9);
    let start = c.now_ms();
    let error = fails(&mut c, &on(echo(20_000), "chip"));
    assert_eq!(error.text, "the arguments have 20004 bytes, this node takes 16384");
    assert!(c.now_ms() - start < 1_000, "there is nothing to wait for");
    settle(&mut c);
}

#[test]
fn a_run_on_each_fails_for_the_node_that_is_too_small() {
    let mut c = mixed(10);
    let mut canvas = echo(20_000);
    canvas.options.each = Some(true);
    let error = fails(&mut c, &canvas);
    assert_eq!(error.node.map(|node| node.to_string()), Some("chip".into()));
    assert!(error.text.contains("the arguments have 20004 bytes, this node takes 16384"), "{error}");
    canvas.options.partial = Some(true);
    let job = c.submit(0, &canvas);
    let result = c.wait(0, job, 10_000).expect("what the PC says");
    assert!(result.as_bytes().len() > 20_000 && result.as_bytes().len() < 21_000, "that of the PC alone");
    settle(&mut c);
}

#[test]
fn what_the_origin_itself_does_not_take_is_an_outcome() {
    let origin = Spec::new("origin", 0).limits(|limits| limits.result_bytes_max = 10_000);
    let mut c = Cluster::started(11, vec![origin, chip("chip"), Spec::worker("pc", 1)]);
    let error = fails(&mut c, &one("large", 20_000));
    assert_eq!(error.text, "the result has 20003 bytes, its origin takes 10000");
    assert_eq!(c.runs.len(), 1, "no node could help");
    settle(&mut c);
}

#[test]
fn the_node_itself_may_be_too_small() {
    let small = |limits: &mut Limits| limits.args_bytes_max = 1_000;
    let mut c = Cluster::started(12, vec![Spec::new("origin", 2).limits(small), Spec::worker("pc", 1)]);
    assert_eq!(run(&mut c, &echo(5_000)), Ok(large(5_000)));
    assert_eq!(c.runs_on(1), 1);
    c.kill(1, true);
    c.run_for(3_000);
    let error = fails(&mut c, &echo(5_000));
    assert_eq!(error.node.map(|node| node.to_string()), Some("origin".into()));
}

#[test]
fn a_node_without_a_link_knows_that_it_is_alone() {
    let mut c = Cluster::new(13);
    let alone = c.add_alone(Spec::new("alone", 1).limits(|limits| limits.args_bytes_max = 1_000));
    let job = c.submit(alone, &echo(5_000));
    let error = c.wait(alone, job, 5_000).expect_err("it is too small");
    assert!(error.text.starts_with("the arguments have 5004 bytes, this node takes 1000"), "{error}");
}

#[test]
fn a_restarted_origin_learns_it_again() {
    let specs = vec![Spec::new("origin", 0).durable(), chip("chip").memory(50), Spec::worker("pc", 1)];
    let mut c = Cluster::started(14, specs);
    c.pause(2);
    let job = c.submit(0, &echo(1_000));
    assert!(c.run_until(5_000, |c| c.runs_on(1) == 1), "the chip was tried");
    c.run_for(500);
    assert_eq!(c.ended(0, job), None);
    c.kill(0, true);
    c.restart(0);
    c.run_for(2_000);
    c.resume(2);
    assert!(c.run_until(10_000, |c| c.runs_on(2) == 1));
    settle(&mut c);
}

#[test]
fn a_busy_large_node_is_waited_for() {
    let mut c = mixed(15);
    let long = c.submit(0, &on(sleep(8_000), "pc"));
    assert!(c.run_until(2_000, |c| c.running_on(2) == 1));
    let job = c.submit(0, &echo(20_000));
    assert_eq!(c.wait(0, job, 30_000), Ok(large(20_000)));
    assert!(c.ended(0, long).is_some());
    settle(&mut c);
}

#[test]
fn what_waits_for_a_large_node_holds_up_nothing_else() {
    let mut c = mixed(16);
    c.submit(0, &on(sleep(8_000), "pc"));
    assert!(c.run_until(2_000, |c| c.running_on(2) == 1));
    let waits = c.submit(0, &Canvas::group((0..300).map(|n| echo(20_000 + n)).collect()));
    c.run_for(200);
    let (canvas, expected) = adds(50);
    let job = c.submit(0, &canvas);
    assert_eq!(c.wait(0, job, 1_000), Ok(expected));
    assert!(c.ended(0, waits).is_none());
    assert!(c.wait(0, waits, 60_000).is_ok());
    settle(&mut c);
}

#[test]
fn tasks_with_a_rate_go_to_the_large_node_too() {
    let mut c = mixed(17);
    c.run_for(2_000);
    let mut canvas = Canvas::group((0..6).map(|n| echo(20_000 + n)).collect());
    canvas.options.rate = Some(Rate { tasks: 10, per_ms: 1_000 });
    let start = c.now_ms();
    assert!(run(&mut c, &canvas).is_ok());
    let took = c.now_ms() - start;
    assert!((400..3_000).contains(&took), "{took} ms");
    assert_eq!(c.runs_on(2), 6);
    settle(&mut c);
}

/// A node that cannot load a module, like a chip without enough memory.
fn refusing(seed: u64, others: Vec<Spec>) -> (Cluster, Id) {
    let mut specs = vec![Spec::new("origin", 0), chip("chip")];
    specs.extend(others);
    let mut c = Cluster::started(seed, specs);
    c.fail_installs(1, "the module needs about 248192 bytes of memory, there are 150000");
    let (signed, code) = module(1, true);
    c.deploy(0, &signed, &code);
    c.run_for(1_000);
    (c, 1)
}

#[test]
fn a_module_that_a_chip_refuses_runs_elsewhere() {
    let (mut c, chip) = refusing(20, vec![Spec::worker("pc", 1)]);
    assert_eq!(run(&mut c, &none("app.version")), Ok(Cbor::encode(&1)));
    let mut each = none("app.version");
    each.options.each = Some(true);
    assert!(run(&mut c, &each).is_ok(), "no run waits for the chip");
    assert_eq!(c.runs_on(chip), 0);
    settle(&mut c);
}

#[test]
fn a_module_that_all_live_nodes_refuse_fails_its_tasks_with_the_reason() {
    let (mut c, _) = refusing(21, vec![Spec::worker("pc", 1)]);
    let error = fails(&mut c, &on(none("app.version"), "chip"));
    assert_eq!(error.text, "the module needs about 248192 bytes of memory, there are 150000");
    assert_eq!(error.node.map(|node| node.to_string()), Some("chip".into()));
    c.kill(2, true);
    c.run_for(3_000);
    let error = fails(&mut c, &none("app.version"));
    assert!(error.text.ends_with(NO_OTHER), "{error}");
    let refused = |event: &Event| matches!(event, Event::ModuleRefused { .. });
    assert_eq!(c.events(0).filter(|event| refused(event)).count(), 1, "whoever deploys hears it once");
}

#[test]
fn a_client_is_told_which_limit_of_which_node_it_was() {
    let mut c = Cluster::started(22, vec![Spec::new("origin", 0), chip("chip"), Spec::client("client")]);
    attach(&mut c, 2);
    let job = c.submit_remote(2, &echo(20_000));
    let error = c.wait(2, job, 10_000).expect_err("too large for the chip");
    let text = format!(
        "tasks.echo: the arguments have 20004 bytes, this node takes 16384{NO_OTHER} (step 0, attempt 1 on chip)"
    );
    assert_eq!(error.to_string(), text);
}
