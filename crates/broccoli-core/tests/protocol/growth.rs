//! Jobs that grow or end early: tasks that replace themselves, runs on each node, deadlines.

use std::collections::BTreeMap;

use broccoli_core::{Action, Input, Instant, Node, RecordKey};
use broccoli_proto::{Canvas, Cause, Cbor, Form, Options, Split};
use minicbor::bytes::ByteVec;

use crate::cluster::{Cluster, Faults, Id, Spec, functions};
use crate::{add, none, one, sleep};

/// An origin without slots, and workers `w1` to `w5` in the kitchen.
fn five_workers(seed: u64) -> Cluster {
    let mut specs = vec![Spec::new("origin", 0)];
    specs.extend((1..=5).map(|i| Spec::worker(&format!("w{i}"), 1).label("room=kitchen")));
    let mut c = Cluster::started(seed, specs);
    c.run_for(1_000);
    c
}

fn each(mut canvas: Canvas) -> Canvas {
    canvas.options.each = Some(true);
    canvas
}

fn each_partial(mut canvas: Canvas) -> Canvas {
    canvas.options.partial = Some(true);
    each(canvas)
}

fn on(mut canvas: Canvas, on: &str) -> Canvas {
    canvas.options.on = vec![on.into()];
    canvas
}

fn deadline(mut canvas: Canvas, ms: u64) -> Canvas {
    canvas.options = Options { deadline_ms: Some(ms), ..canvas.options };
    canvas
}

/// `{"w1": value, …}`.
fn map(workers: &[Id], value: i64) -> Cbor {
    let names: BTreeMap<String, i64> = workers.iter().map(|id| (format!("w{id}"), value)).collect();
    Cbor::encode(&names)
}

fn becomes(canvas: &Canvas) -> Canvas {
    Canvas::task("become", Cbor::encode(&[ByteVec::from(Cbor::encode(canvas).into_bytes())]))
}

fn error(c: &mut Cluster, job: broccoli_core::SubmitId, ms: u64) -> broccoli_proto::TaskError {
    c.wait(0, job, ms).expect_err("the job fails")
}

fn is_idle(mut c: Cluster) {
    c.run_for(10_000);
    c.assert_idle();
}

// --- each ---

#[test]
fn each_runs_once_on_each_node() {
    let mut c = five_workers(1);
    let start = c.now_ms();
    let job = c.submit(0, &each(add(1, 2)));
    assert_eq!(c.wait(0, job, 1_000), Ok(map(&[1, 2, 3, 4, 5], 3)));
    assert!(c.now_ms() - start < 200, "nobody waits for anything");
    assert_eq!((1..=5).map(|id| c.runs_on(id)).collect::<Vec<_>>(), [1; 5]);
    is_idle(c);
}

#[test]
fn each_runs_on_the_nodes_that_match() {
    let mut c = five_workers(2);
    c.add(Spec::worker("cellar", 1).label("room=cellar"));
    c.add(Spec::worker("client", 0).label("room=kitchen"));
    c.run_for(100);
    let job = c.submit(0, &each(on(add(1, 2), "room=kitchen")));
    assert_eq!(c.wait(0, job, 1_000), Ok(map(&[1, 2, 3, 4, 5], 3)));
    let job = c.submit(0, &each(on(add(1, 2), "w4")));
    assert_eq!(c.wait(0, job, 1_000), Ok(map(&[4], 3)));
    is_idle(c);
}

#[test]
fn each_takes_the_node_and_not_the_label_of_its_name() {
    let specs = vec![Spec::new("origin", 0), Spec::worker("led", 1).label("any"), Spec::worker("w2", 2).label("led")];
    let mut c = Cluster::started(3, specs);
    let job = c.submit(0, &each(on(sleep(10), "led")));
    let both: BTreeMap<&str, i64> = [("led", 10), ("w2", 10)].into();
    assert_eq!(c.wait(0, job, 2_000), Ok(Cbor::encode(&both)));
    assert_eq!((c.runs_on(1), c.runs_on(2)), (1, 1));
    is_idle(c);
}

#[test]
fn each_in_a_chain_hands_on_its_map() {
    let mut c = five_workers(4);
    let job = c.submit(0, &Canvas::chain(vec![add(1, 1), each(one("add", 5)), none("echo")]));
    assert_eq!(c.wait(0, job, 1_000), Ok(map(&[1, 2, 3, 4, 5], 7)));
    is_idle(c);
}

#[test]
fn an_origin_with_slots_is_one_of_the_nodes() {
    let mut c = Cluster::new(5);
    let alone = c.add_alone(Spec::new("w0", 1));
    let job = c.submit(alone, &each(add(1, 2)));
    assert_eq!(c.wait(alone, job, 3_000), Ok(map(&[0], 3)));
    is_idle(c);
}

#[test]
fn a_node_that_was_killed_fails_each() {
    let mut c = five_workers(6);
    let job = c.submit(0, &each(sleep(1_000)));
    c.run_for(300);
    c.kill(3, true);
    let killed = c.now_ms();
    let error = error(&mut c, job, 10_000);
    assert_eq!((error.cause, error.text.as_str()), (Cause::Lost, "on w3: it is gone before it had answered"));
    let took = c.now_ms() - killed;
    assert!((2_000..2_600).contains(&took), "{took} ms");
    is_idle(c);
}

#[test]
fn a_node_that_was_killed_is_left_out_with_partial() {
    let mut c = five_workers(7);
    let job = c.submit(0, &each_partial(sleep(1_000)));
    c.run_for(300);
    c.kill(3, false);
    assert_eq!(c.wait(0, job, 10_000), Ok(map(&[1, 2, 4, 5], 1_000)));
    is_idle(c);
}

#[test]
fn a_node_that_says_goodbye_is_not_waited_for() {
    for partial in [false, true] {
        let mut c = five_workers(8);
        let canvas = if partial { each_partial(sleep(1_000)) } else { each(sleep(1_000)) };
        let (job, start) = (c.submit(0, &canvas), c.now_ms());
        c.run_for(300);
        let now = Instant(c.now_us);
        c.node(3).leave(now);
        c.flush(3);
        let outcome = c.wait(0, job, 10_000);
        match partial {
            true => assert_eq!(outcome, Ok(map(&[1, 2, 4, 5], 1_000))),
            false => assert_eq!(outcome.expect_err("failed").text, "on w3: it left before it had answered"),
        }
        let took = c.now_ms() - start;
        assert!((1_000..1_100).contains(&took), "{took} ms: as soon as the others have answered");
    }
}

#[test]
fn a_node_that_comes_back_soon_runs_again() {
    let mut c = five_workers(9);
    let job = c.submit(0, &each(sleep(1_000)));
    c.run_for(300);
    c.kill(3, true);
    c.run_for(500);
    c.restart(3);
    assert_eq!(c.wait(0, job, 10_000), Ok(map(&[1, 2, 3, 4, 5], 1_000)));
    assert_eq!(c.runs_on(3), 2);
    is_idle(c);
}

#[test]
fn no_node_is_lost_because_the_origin_was_cut_off() {
    let mut c = five_workers(10);
    let job = c.submit(0, &each(sleep(4_000)));
    c.run_for(300);
    c.cut(0, false);
    c.run_for(6_000);
    c.heal(0);
    assert_eq!(c.wait(0, job, 10_000), Ok(map(&[1, 2, 3, 4, 5], 4_000)));
    assert_eq!((1..=5).map(|id| c.runs_on(id)).collect::<Vec<_>>(), [1; 5]);
    is_idle(c);
}

#[test]
fn each_without_a_node_fails_after_a_while() {
    let mut c = five_workers(11);
    let (job, start) = (c.submit(0, &each(on(add(1, 2), "led"))), c.now_ms());
    let error = error(&mut c, job, 10_000);
    assert_eq!(error.text, "no live node runs it (on: led); each needs one, or partial=True");
    let took = c.now_ms() - start;
    assert!((2_000..2_200).contains(&took), "{took} ms");
    let job = c.submit(0, &each_partial(on(add(1, 2), "led")));
    assert_eq!(c.wait(0, job, 3_000), Ok(Cbor::empty_map()));
    is_idle(c);
}

#[test]
fn each_waits_a_little_for_its_first_node() {
    let mut c = five_workers(12);
    let job = c.submit(0, &each(on(add(1, 2), "led")));
    c.run_for(1_000);
    c.add(Spec::worker("w6", 1).label("led"));
    assert_eq!(c.wait(0, job, 1_000), Ok(map(&[6], 3)));
    is_idle(c);
}

#[test]
fn each_starts_with_all_nodes_right_after_the_link_is_up() {
    for seed in 0..5 {
        let mut c = five_workers(seed);
        c.restart_server();
        let job = c.submit(0, &each(add(1, 2)));
        assert_eq!(c.wait(0, job, 5_000), Ok(map(&[1, 2, 3, 4, 5], 3)), "seed {seed}");
    }
}

#[test]
fn each_loses_no_node_to_lost_messages() {
    for seed in 0..30 {
        let mut c = five_workers(seed);
        c.faults = Faults { loss: 150, duplication: 100, delay: 100, delay_ms_max: 300 };
        let job = c.submit(0, &each(sleep(300)));
        assert_eq!(c.wait(0, job, 60_000), Ok(map(&[1, 2, 3, 4, 5], 300)), "seed {seed}");
    }
}

#[test]
fn each_for_many_items_is_one_run_an_item_and_node() {
    let mut c = five_workers(13);
    let items: Vec<i64> = (0..200).collect();
    let canvas = each(Form::Map { function: "echo".into(), items: Cbor::encode(&items) }.into());
    let job = c.submit(0, &canvas);
    let expected: Vec<BTreeMap<String, i64>> =
        items.iter().map(|item| (1..=5).map(|id| (format!("w{id}"), *item)).collect()).collect();
    assert_eq!(c.wait(0, job, 5_000), Ok(Cbor::encode(&expected)));
    assert_eq!((1..=5).map(|id| c.runs_on(id)).collect::<Vec<_>>(), [200; 5]);
    is_idle(c);
}

#[test]
fn revoking_ends_the_runs_on_each_node() {
    let mut c = five_workers(14);
    let job = c.submit(0, &each(sleep(60_000)));
    c.run_for(300);
    c.revoke(0, job);
    assert_eq!(error(&mut c, job, 100).cause, Cause::Revoked);
    c.run_for(100);
    assert!(c.runs.iter().all(|run| run.aborted));
    is_idle(c);
}

// --- Tasks that replace themselves ---

#[test]
fn a_task_that_replaces_itself_in_a_chain() {
    let mut c = five_workers(20);
    let two = Canvas::chain(vec![add(1, 1), one("mul", 10)]);
    let job = c.submit(0, &Canvas::chain(vec![becomes(&two), one("add", 3)]));
    assert_eq!(c.wait(0, job, 1_000), Ok(Cbor::encode(&23)));
    is_idle(c);
}

#[test]
fn a_task_that_replaces_itself_in_a_header() {
    let mut c = five_workers(21);
    let group = Canvas::chord(vec![add(1, 1), add(2, 2), becomes(&add(4, 4))], none("tsum"));
    let job = c.submit(0, &Canvas::chord(vec![add(1, 0), becomes(&group), add(2, 0)], none("tsum")));
    assert_eq!(c.wait(0, job, 1_000), Ok(Cbor::encode(&17)));
    is_idle(c);
}

#[test]
fn a_client_gets_what_a_replacement_comes_to() {
    let mut c = Cluster::started(22, vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 2)]);
    crate::attach(&mut c, 0);
    let job = c.submit_remote(0, &becomes(&Canvas::group(vec![add(1, 1), becomes(&add(2, 2))])));
    assert_eq!(c.wait(0, job, 1_000), Ok(Cbor::encode(&[2, 4])));
    is_idle(c);
}

#[test]
fn a_replacement_that_cannot_be_run_fails_its_task() {
    let mut c = five_workers(23);
    let job = c.submit(0, &becomes(&none("nope")));
    let error = error(&mut c, job, 1_000);
    assert_eq!((error.cause, error.function.as_str()), (Cause::Unfit, "tasks.become"));
    assert!(error.text.starts_with("it cannot be replaced: no function nope; there are "), "{error}");
    is_idle(c);
}

#[test]
fn a_call_of_a_bin_cannot_be_replaced() {
    let mut c = five_workers(24);
    let encoded = [ByteVec::from(Cbor::encode(&add(1, 1)).into_bytes())];
    let chunks = Form::Chunks { function: "become".into(), items: Cbor::encode(&[encoded]), split: Split::Bins(1) };
    let job = c.submit(0, &chunks.into());
    let error = error(&mut c, job, 1_000);
    assert_eq!(error.text, "it cannot be replaced: it is one call of a bin; use starmap");
    is_idle(c);
}

#[test]
fn jobs_grow_by_a_quarter_of_what_can_be_accepted() {
    let specs = vec![Spec::new("origin", 0).limits(|limits| limits.tasks_max = 8), Spec::worker("w1", 1)];
    let mut c = Cluster::started(25, specs);
    let group = |n| becomes(&Canvas::group(vec![sleep(50); n]));
    // 7 tasks sleep, and one is replaced by 2: 10 tasks in all.
    let mut members = vec![sleep(50); 7];
    members.push(group(2));
    let job = c.submit(0, &Canvas::group(members.clone()));
    assert!(c.wait(0, job, 5_000).is_ok());
    members[7] = group(3);
    let job = c.submit(0, &Canvas::group(members));
    let error = error(&mut c, job, 5_000);
    let text = "it cannot be replaced: the node holds as many tasks as it may: the job cannot grow now";
    assert_eq!(error.text, text);
    is_idle(c);
}

// --- deadline ---

#[test]
fn a_deadline_ends_a_job_and_aborts_its_tasks() {
    let mut c = five_workers(30);
    let sleeps = Canvas::group(vec![sleep(10_000), sleep(100), sleep(20_000)]);
    let (job, start) = (c.submit(0, &deadline(sleeps, 1_000)), c.now_ms());
    let error = error(&mut c, job, 5_000);
    assert_eq!(
        (error.cause, error.text.as_str()),
        (Cause::TimedOut, "the job took longer than its deadline of 1000 ms")
    );
    let took = c.now_ms() - start;
    assert!((1_000..1_010).contains(&took), "{took} ms");
    c.run_for(100);
    assert!(c.runs.iter().all(|run| run.ended || run.aborted), "{:?}", c.runs);
    is_idle(c);
}

#[test]
fn a_job_that_ends_in_time_knows_no_deadline() {
    let mut c = five_workers(31);
    let job = c.submit(0, &deadline(sleep(500), 1_000));
    assert_eq!(c.wait(0, job, 5_000), Ok(Cbor::encode(&500)));
    is_idle(c);
}

#[test]
fn a_deadline_holds_while_no_node_fits() {
    let mut c = five_workers(32);
    let job = c.submit(0, &deadline(on(add(1, 1), "led"), 1_000));
    assert_eq!(error(&mut c, job, 2_000).cause, Cause::TimedOut);
    is_idle(c);
}

// --- The journal ---

/// A durable node that runs its tasks itself.
struct Durable {
    node: Node,
    now: Instant,
    boots: u8,
    disk: BTreeMap<RecordKey, Vec<u8>>,
    writes: usize,
}

impl Durable {
    fn new() -> Durable {
        let (now, disk) = (Instant(1_000_000), BTreeMap::new());
        Durable { node: Durable::boot(now, 1, &disk), now, boots: 1, disk, writes: 0 }
    }

    fn boot(now: Instant, boots: u8, disk: &BTreeMap<RecordKey, Vec<u8>>) -> Node {
        let mut node = crate::durable_node(boots, now);
        let recovery = node.recover(now, disk.clone().into_iter()).expect("the same version");
        assert_eq!(recovery.damaged, []);
        node.handle_input(now, Input::Connected);
        node
    }

    /// Runs until a job is over. Restarts the node right after the write with this number.
    fn run(&mut self, crash_after: Option<usize>) -> &[u8] {
        let mut running = Vec::new();
        for _ in 0..100_000 {
            while self.node.poll_transmit(self.now, &mut Vec::new()).is_some() {}
            match self.node.poll_action() {
                Some(Action::Execute(execute)) => {
                    let (_, outcome) = functions::call(&execute, 0, 0);
                    running.push((execute.run, outcome));
                }
                Some(Action::Persist { number, writes }) => {
                    crate::write_to(&mut self.disk, writes);
                    self.writes += 1;
                    if crash_after == Some(self.writes) {
                        self.boots += 1;
                        self.node = Durable::boot(self.now, self.boots, &self.disk);
                        running.clear();
                        continue;
                    }
                    self.node.handle_input(self.now, Input::Persisted(number));
                    let jobs: Vec<_> = self.disk.keys().filter(|key| key.job > 0).copied().collect();
                    if self.node.vitals().jobs == 0 && jobs.len() == 1 && self.writes > 1 {
                        return &self.disk[&jobs[0]];
                    }
                }
                Some(_) => {}
                None if !running.is_empty() => {
                    let (run, outcome) = running.remove(0);
                    self.node.handle_input(self.now, Input::Executed { run, outcome });
                }
                None => {
                    self.node.validate();
                    self.now = self.node.poll_timeout().expect("something is waited for");
                    self.node.handle_input(self.now, Input::Timeout);
                }
            }
        }
        panic!("no end");
    }
}

#[test]
fn a_job_that_has_grown_survives_a_restart_after_any_write() {
    let header = vec![add(1, 1), becomes(&Canvas::chain(vec![add(2, 2), becomes(&add(3, 3))]))];
    let canvas = Canvas::group(vec![
        becomes(&Canvas::chord(header, none("tsum"))),
        each(add(3, 4)),
        Canvas::chain(vec![each_partial(add(1, 1)), none("echo")]),
        becomes(&Canvas::group(vec![])),
        becomes(&each(becomes(&add(5, 5)))),
    ]);
    let mut undisturbed = Durable::new();
    undisturbed.node.submit(undisturbed.now, &canvas).expect("accepted");
    let expected = undisturbed.run(None).to_vec();
    let writes = undisturbed.writes;
    assert!(writes > 5, "{writes} writes");
    for crash_after in 1..=writes {
        let mut disturbed = Durable::new();
        disturbed.node.submit(disturbed.now, &canvas).expect("accepted");
        assert_eq!(disturbed.run(Some(crash_after)), expected, "a crash after write {crash_after}");
    }
}

#[test]
fn a_deadline_goes_on_after_a_restart() {
    let mut durable = Durable::new();
    durable.node.submit(durable.now, &deadline(on(add(1, 1), "led"), 1_000)).expect("accepted");
    let over = durable.run(Some(1)).to_vec();
    assert!(String::from_utf8_lossy(&over).contains("longer than its deadline of 1000 ms"));
}
