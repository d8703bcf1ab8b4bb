//! The memory that an origin uses for jobs is limited, whatever state they are in.

use std::collections::BTreeMap;

use broccoli_core::{Action, Event, Input, Instant, Limits, Node, RecordKey, RunId, SubmitError, SubmitId};
use broccoli_proto::message::{Failure, JobNews, Message, Refusal};
use broccoli_proto::{Canvas, Cause, Cbor, Form, Outcome, TaskError};
use broccoli_sim::cluster::functions::large;

use crate::cluster::{Cluster, Id, Spec};
use crate::{attach, durable_node_with, one, sleep, sleeps};

/// Memory for jobs, in bytes.
const QUEUE: usize = 64_000;
/// Size of a result, in bytes.
const RESULT: i64 = 5_000;

fn small(spec: Spec) -> Spec {
    spec.limits(|limits| limits.queue_bytes_max = QUEUE)
}

/// With packets that are too small for a result of [`RESULT`] bytes.
fn pulled(spec: Spec) -> Spec {
    spec.limits(|limits| limits.packet_bytes_max = 4_096)
}

fn makes(n: i64) -> Canvas {
    Canvas::group((0..n).map(|_| one("large", RESULT)).collect())
}

fn made(n: usize) -> Cbor {
    let one = large(RESULT as usize);
    Cbor::array(std::iter::repeat_n(one.as_bytes(), n))
}

fn check_sizes(node: &Node) {
    for size in node.sizes() {
        assert!(size.len <= size.max, "{} {} of at most {}", size.len, size.name, size.max);
    }
}

/// Runs until all these jobs have ended. Checks all the time that no limit is exceeded.
fn run_to_end(c: &mut Cluster, jobs: &[(Id, SubmitId)], ms: u64) -> Vec<Outcome> {
    for _ in 0..ms {
        c.run_for(1);
        (0..c.len()).for_each(|id| check_sizes(c.peek(id)));
        if jobs.iter().all(|(id, job)| c.ended(*id, *job).is_some()) {
            break;
        }
    }
    let ended = |(id, job): &(Id, SubmitId)| c.ended(*id, *job).unwrap_or_else(|| panic!("job {job:?} has not ended"));
    jobs.iter().map(ended).collect()
}

/// All memory was freed, and the next job runs.
fn assert_goes_on(c: &mut Cluster) {
    let next = c.submit(0, &one("large", RESULT));
    assert_eq!(c.wait(0, next, 10_000), Ok(large(RESULT as usize)));
    c.run_for(60_000);
    c.assert_idle();
}

fn assert_names_the_limit(error: &TaskError) {
    assert_eq!(error.cause, Cause::Unfit, "{error}");
    assert!(error.text.contains("queue memory is 62.5K"), "{error}");
}

/// The text with which a canvas of the client, node 1, is refused.
fn refusal(c: &mut Cluster, id: SubmitId) -> String {
    let text = |c: &Cluster| {
        c.events(1).find_map(|event| match event {
            Event::Refused(refused, Refusal::BadCanvas(text)) if *refused == id => Some(text.clone()),
            _ => None,
        })
    };
    assert!(c.run_until(5_000, |c| text(c).is_some()));
    text(c).expect("just seen")
}

#[test]
fn results_that_alone_need_more_than_there_is_fail_their_job_early() {
    let bulk = [Spec::new("origin", 0), Spec::worker("w", 2)];
    let alone = [Spec::new("origin", 2)];
    let disk = [Spec::new("origin", 0).durable(), Spec::worker("w", 2)];
    let slow = [Spec::new("origin", 0), Spec::worker("w", 2)].map(pulled);
    for specs in [bulk.to_vec(), alone.to_vec(), disk.to_vec(), slow.to_vec()] {
        let few = |spec: Spec| small(spec).limits(|limits| limits.held_max = 4);
        let mut c = Cluster::started(700, specs.into_iter().map(few).collect());
        // A job that waits behind the large one is not lost.
        let doomed = c.submit(0, &makes(200));
        let behind = c.submit(0, &makes(4));
        let ended = run_to_end(&mut c, &[(0, doomed), (0, behind)], 30_000);
        let error = ended[0].as_ref().expect_err("too large");
        assert_names_the_limit(error);
        assert!(error.text.starts_with("the job needs at least "), "{error}");
        assert!(ended[1] == Ok(made(4)), "{:?}", ended[1].as_ref().err());
        assert!(c.runs.len() < 100, "it fails early: {} runs after {} ms", c.runs.len(), c.now_ms());
        assert_goes_on(&mut c);
    }
}

#[test]
fn arguments_that_alone_need_more_than_there_is_fail_their_job_early() {
    let mut c = Cluster::started(709, vec![small(Spec::new("origin", 0)), Spec::worker("w", 2)]);
    let body = Canvas::task("echo", Cbor::empty_array());
    let doomed = c.submit(0, &Canvas::chain(vec![makes(8), body.clone()]));
    let ended = run_to_end(&mut c, &[(0, doomed)], 10_000);
    let error = ended[0].as_ref().expect_err("the list and a copy of it do not fit");
    assert_names_the_limit(error);
    assert!(error.text.contains("for the arguments of its next task"), "{error}");
    let fits = c.submit(0, &Canvas::chain(vec![makes(4), body]));
    assert!(run_to_end(&mut c, &[(0, fits)], 10_000) == [Ok(made(4))]);
    assert_goes_on(&mut c);
}

#[test]
fn jobs_that_fit_alone_but_not_together_all_come_to_their_results() {
    for pulls in [false, true] {
        for durable in [false, true] {
            let origin = if durable { Spec::new("origin", 0).durable() } else { Spec::new("origin", 0) };
            let mut specs = vec![small(origin), Spec::worker("w1", 2), Spec::worker("w2", 2)];
            if pulls {
                specs = specs.into_iter().map(pulled).collect();
            }
            let mut c = Cluster::started(701, specs);
            let jobs: Vec<_> = (0..4).map(|_| (0, c.submit(0, &makes(8)))).collect();
            let ended = run_to_end(&mut c, &jobs, 120_000);
            ended.into_iter().for_each(|outcome| {
                assert!(outcome == Ok(made(8)), "pulls {pulls}, durable {durable}: {:?}", outcome.err())
            });
            assert_goes_on(&mut c);
        }
    }
}

#[test]
fn a_worker_full_of_results_that_wait_still_runs_what_makes_room() {
    let tight = |limits: &mut Limits| limits.blob_bytes_max = 6_000;
    for pulls in [false, true] {
        let mut specs = vec![small(Spec::new("origin", 0)), Spec::worker("w", 4).limits(tight)];
        if pulls {
            specs = specs.into_iter().map(pulled).collect();
        }
        let mut c = Cluster::started(702, specs);
        let jobs: Vec<_> = (0..3).map(|_| (0, c.submit(0, &makes(8)))).collect();
        let ended = run_to_end(&mut c, &jobs, 300_000);
        ended.into_iter().for_each(|outcome| assert!(outcome == Ok(made(8)), "pulls {pulls}: {:?}", outcome.err()));
        assert_goes_on(&mut c);
    }
}

#[test]
fn small_jobs_go_on_while_a_large_one_has_most_of_the_memory() {
    let mut c = Cluster::started(703, vec![small(Spec::new("origin", 0)), Spec::worker("w", 4)]);
    let mut chain: Vec<Canvas> = vec![makes(7)];
    chain.push(Canvas::from(Form::Task(broccoli_proto::Task {
        function: "sleep".into(),
        args: Cbor::encode(&[60_000]),
        kwargs: vec![],
        immutable: true,
    })));
    let large = c.submit(0, &Canvas::chain(chain));
    c.run_for(2_000);
    let start = c.now_ms();
    for _ in 0..20 {
        let job = c.submit(0, &sleep(1));
        assert!(c.wait(0, job, 1_000).is_ok());
    }
    assert!(c.now_ms() - start < 2_000, "{} ms", c.now_ms() - start);
    assert!(c.ended(0, large).is_none());
    assert!(c.wait(0, large, 100_000).is_ok());
}

#[test]
fn if_nothing_makes_room_the_largest_job_fails_and_the_others_go_on() {
    let mut c = Cluster::started(704, vec![small(Spec::new("origin", 0)), Spec::worker("w", 4)]);
    // Each job holds its first results while it waits for the next ones, so none can end.
    let later = |n| Canvas::chain((0..n).map(|_| makes_immutable(2)).collect());
    let jobs: Vec<_> = (0..3).map(|_| (0, c.submit(0, &later(4)))).collect();
    let ended = run_to_end(&mut c, &jobs, 400_000);
    let (good, bad): (Vec<_>, Vec<_>) = ended.into_iter().partition(Result::is_ok);
    assert!(!good.is_empty(), "{bad:?}");
    bad.into_iter().for_each(|outcome| assert_names_the_limit(&outcome.expect_err("failed")));
    assert_goes_on(&mut c);
}

/// A group that gets nothing from the step before it.
fn makes_immutable(n: i64) -> Canvas {
    let task = || broccoli_proto::Task {
        function: "large".into(),
        args: Cbor::encode(&[RESULT]),
        kwargs: vec![],
        immutable: true,
    };
    Canvas::group((0..n).map(|_| Canvas::from(Form::Task(task()))).collect())
}

#[test]
fn a_canvas_that_can_never_fit_is_refused_at_once() {
    let specs = vec![small(Spec::new("origin", 1)), Spec::client("client")];
    for specs in [specs.clone(), specs.into_iter().map(pulled).collect()] {
        let mut c = Cluster::started(705, specs);
        attach(&mut c, 1);
        let huge = Canvas::task("echo", Cbor::encode(&["x".repeat(2 * QUEUE)]));
        let error = c.try_submit(0, &huge).expect_err("too large");
        assert!(matches!(error, SubmitError::TooLarge { bytes_max: QUEUE, .. }), "{error:?}");
        let remote = c.submit_remote(1, &huge);
        let text = refusal(&mut c, remote);
        assert!(text.contains("queue memory is 62.5K") && text.contains("needs"), "{text}");
        let pieces = c.packets_with(|message| matches!(message, Message::ContentPiece(_)));
        assert_eq!(pieces, 0, "nothing of it is pulled");
        assert_goes_on(&mut c);
    }
}

#[test]
fn large_canvases_are_not_pulled_while_there_is_no_room() {
    let specs = vec![small(Spec::new("origin", 0)), Spec::client("client")];
    let mut c = Cluster::started(706, specs.into_iter().map(pulled).collect());
    attach(&mut c, 1);
    let (fills, expected) = sleeps(230, 10);
    let first = c.submit(0, &fills);
    let canvas = Canvas::task("echo", Cbor::encode(&["x".repeat(QUEUE / 4)]));
    let remote = c.submit_remote(1, &canvas);
    let full = |c: &Cluster| c.events(1).any(|event| matches!(event, Event::QueueFull(id, _) if *id == remote));
    assert!(c.run_until(5_000, full));
    let pieces = c.packets_with(|message| matches!(message, Message::ContentPiece(_)));
    assert_eq!(pieces, 0, "nothing of it is pulled");
    c.add(Spec::worker("w", 4));
    let ended = run_to_end(&mut c, &[(0, first), (1, remote)], 60_000);
    assert_eq!(ended, [Ok(expected), Ok(Cbor::encode(&"x".repeat(QUEUE / 4)))]);
}

#[test]
fn results_wait_while_the_disk_takes_nothing() {
    let mut c = Cluster::started(707, vec![small(Spec::new("origin", 0).durable()), Spec::worker("w", 2)]);
    c.stall(0, true);
    let fails = Canvas::task("flaky", Cbor::encode(&[1_000_000]));
    let mut fails = fails;
    fails.options.retries = Some(1_000);
    let job = c.submit(0, &Canvas::group(vec![makes(8), fails]));
    for _ in 0..20_000 {
        c.run_for(1);
        check_sizes(c.peek(0));
    }
    let runs = c.runs.len();
    c.run_for(5_000);
    assert_eq!(c.runs.len(), runs, "nothing more is run of which nothing can be kept");
    c.stall(0, false);
    c.run_for(5_000);
    assert!(c.runs.len() > runs, "it goes on");
    c.revoke(0, job);
    assert!(c.wait(0, job, 5_000).is_err());
    c.run_for(60_000);
    c.assert_idle();
}

#[test]
fn names_and_texts_of_any_length_are_quoted_in_part() {
    let mut c = Cluster::started(708, vec![Spec::new("origin", 1), Spec::client("client")]);
    attach(&mut c, 1);
    let long = "x".repeat(900_000);
    let mut kwargs = one("sleep", 1);
    if let Form::Task(task) = &mut kwargs.form {
        (task.args, task.kwargs) = (Cbor::empty_array(), vec![(long.clone(), Cbor::null())]);
    }
    for canvas in [Canvas::task(&long, Cbor::empty_array()), kwargs] {
        let id = c.submit_remote(1, &canvas);
        let text = refusal(&mut c, id);
        assert!(text.len() < 1_100 && text.contains("xxx… (900000 bytes)"), "{} bytes", text.len());
    }
    let mut nowhere = sleep(1);
    nowhere.options.on = vec![long];
    let id = c.submit_remote(1, &nowhere);
    let told = |c: &Cluster| {
        c.news(1, id).find_map(|news| match news {
            JobNews::NoNode { on, .. } => Some(on.clone()),
            _ => None,
        })
    };
    assert!(c.run_until(10_000, |c| told(c).is_some()));
    assert!(told(&c).is_some_and(|on| on[0].len() < 200), "a label is quoted in part");
}

/// A durable node with its records in a map. Its runs return large results.
struct Durable {
    node: Node,
    disk: BTreeMap<RecordKey, Vec<u8>>,
    now: u64,
    boots: u8,
    /// Runs that have not ended.
    running: Vec<RunId>,
}

impl Durable {
    fn new(bytes_max: usize) -> Durable {
        let node = durable_node_with(1, Instant(0), limits(bytes_max));
        let mut durable = Durable { node, disk: BTreeMap::new(), now: 0, boots: 0, running: vec![] };
        durable.restart(bytes_max);
        durable
    }

    /// Restarts with another limit. Returns what it reports about jobs that cannot continue.
    fn restart(&mut self, bytes_max: usize) -> Vec<String> {
        self.boots += 1;
        self.now += 1_000_000;
        self.running.clear();
        self.node = durable_node_with(self.boots, Instant(self.now), limits(bytes_max));
        let recovery = self.node.recover(Instant(self.now), self.disk.clone().into_iter()).expect("the same version");
        self.run(0);
        recovery.damaged.into_iter().map(|damage| damage.reason).collect()
    }

    /// Lets at most this many runs end.
    fn run(&mut self, mut runs: usize) {
        for _ in 0..200 {
            self.now += 20_000;
            for run in self.running.drain(..runs.min(self.running.len())) {
                runs -= 1;
                let outcome: Result<Cbor, Failure> = Ok(large(RESULT as usize));
                self.node.handle_input(Instant(self.now), Input::Executed { run, outcome });
            }
            self.node.handle_input(Instant(self.now), Input::Timeout);
            let mut buf = Vec::new();
            while self.node.poll_transmit(Instant(self.now), &mut buf).is_some() {}
            while let Some(action) = self.node.poll_action() {
                match action {
                    Action::Persist { number, writes } => {
                        crate::write_to(&mut self.disk, writes);
                        self.node.handle_input(Instant(self.now), Input::Persisted(number));
                    }
                    Action::Execute(execute) => self.running.push(execute.run),
                    _ => {}
                }
            }
            self.node.validate();
            check_sizes(&self.node);
        }
    }

    fn records_of(&self, job: usize) -> usize {
        let mut jobs: Vec<u64> = self.disk.keys().map(|key| key.job).filter(|job| *job > 0).collect();
        jobs.dedup();
        self.disk.keys().filter(|key| jobs.get(job) == Some(&key.job)).count()
    }
}

fn limits(bytes_max: usize) -> Limits {
    Limits { queue_bytes_max: bytes_max, ..Limits::host() }
}

#[test]
fn a_recovered_job_that_alone_needs_more_than_there_is_fails_and_is_not_read_whole() {
    let mut durable = Durable::new(1 << 20);
    durable.node.submit(Instant(durable.now), &makes(40)).expect("accepted");
    durable.run(30);
    assert!(durable.records_of(0) > 1, "its results stand in the journal");
    assert_eq!(durable.restart(QUEUE), Vec::<String>::new());
    let mut ended = Vec::new();
    durable
        .node
        .audit_jobs(&mut |_, outcome| ended.push(outcome.map(|outcome| outcome.cloned().map_err(Clone::clone))));
    let [Some(Err(error))] = &ended[..] else { panic!("{ended:?}") };
    assert_names_the_limit(error);
    assert_eq!(durable.records_of(0), 1, "how it ended is all that is left");
    // The next incarnation reads the same, and has nothing to do.
    assert_eq!(durable.restart(QUEUE), Vec::<String>::new());
    durable.node.validate_idle();
}

#[test]
fn recovered_jobs_that_need_too_much_leave_the_room_to_those_after_them() {
    let mut durable = Durable::new(16 << 20);
    for _ in 0..3 {
        let canvas = Canvas::chain(vec![makes(40), makes_immutable(1)]);
        durable.node.submit(Instant(durable.now), &canvas).expect("accepted");
    }
    // All but the last step of each job.
    durable.run(120);
    durable.node.submit(Instant(durable.now), &makes(5)).expect("accepted");
    durable.run(0);
    assert_eq!(durable.restart(QUEUE), Vec::<String>::new(), "nothing is left on the disk");
    durable.run(100);
    let mut ended = Vec::new();
    durable.node.audit_jobs(&mut |_, outcome| ended.push(outcome.is_some_and(|outcome| outcome.is_ok())));
    assert_eq!(ended, [false, false, false, true]);
}

#[test]
fn recovered_jobs_for_which_there_is_no_room_stay_on_the_disk_until_there_is() {
    let mut durable = Durable::new(1 << 20);
    for _ in 0..3 {
        let canvas = Canvas::chain(vec![makes(10), makes_immutable(1)]);
        durable.node.submit(Instant(durable.now), &canvas).expect("accepted");
    }
    // All but the last step of each job.
    durable.run(30);
    let records = durable.disk.clone();
    let left = durable.restart(QUEUE);
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.iter().all(|reason| reason.contains("queue memory is 62.5K")), "{left:?}");
    let is_there = |key: &RecordKey| durable.disk.contains_key(key);
    assert!(records.keys().all(is_there), "no record of theirs is touched");
    assert_eq!(durable.restart(1 << 20), Vec::<String>::new());
    durable.run(100);
    let mut done = 0;
    durable.node.audit_jobs(&mut |_, outcome| done += usize::from(outcome.is_some_and(|outcome| outcome.is_ok())));
    assert_eq!(done, 3, "all of them end");
}
