//! Why jobs wait, their state, and reports of failures that are retried.

use broccoli_core::{Event, Instant, SubmitId};
use broccoli_proto::message::{JobNews, JobState, JobSummary, StepNews, WaitingTasks, Waits};
use broccoli_proto::options::Rate;
use broccoli_proto::{Canvas, Cause, Cbor, Options};

use broccoli_sim::cluster::functions::large;

use crate::cluster::bus::Bus;
use crate::cluster::{Cluster, Spec, module};
use crate::{add, attach, none, one, sleep};

/// A client, an origin, and a worker with a label.
fn cluster(seed: u64) -> Cluster {
    let specs = vec![Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 1).label("room=kitchen")];
    let mut c = Cluster::started(seed, specs);
    attach(&mut c, 0);
    c.run_for(1_000);
    c
}

/// The jobs of the origin, as the client sees them.
fn jobs(c: &mut Cluster) -> Vec<JobSummary> {
    let (now, origin) = (Instant(c.now_us), c.name(1));
    let before = c.timed_events(0).len();
    c.node(0).ask_jobs(now, origin, None, 100);
    c.flush(0);
    let listed = |c: &Cluster| {
        c.timed_events(0)[before..].iter().find_map(|(_, event)| match event {
            Event::Jobs(_, jobs) => Some(jobs.jobs.clone()),
            _ => None,
        })
    };
    assert!(c.run_until(1_000, |c| listed(c).is_some()), "the origin answers");
    listed(c).expect("just looked")
}

fn last_waits(c: &mut Cluster) -> Option<Waits> {
    jobs(c).pop().expect("a job").waits
}

fn with(mut canvas: Canvas, options: Options) -> Canvas {
    canvas.options = options;
    canvas
}

fn on(labels: &[&str]) -> Options {
    Options { on: labels.iter().map(|label| (*label).to_owned()).collect(), ..Options::default() }
}

#[test]
fn a_job_says_which_part_of_its_routing_nobody_has() {
    let mut c = cluster(400);
    let no_node = |missing: &[&str]| {
        let missing = missing.iter().map(|one| (*one).to_owned()).collect();
        Some(Waits::NoNode { function: "tasks.add".into(), missing, nodes: 1 })
    };
    for (wanted, missing) in [
        (&["room=kitchn"][..], &["room=kitchn"][..]),
        (&["room=kitchen", "led"], &["led"]),
        (&["w1", "origin"], &["origin"]),
    ] {
        c.submit_remote(0, &with(add(1, 2), on(wanted)));
        c.run_for(50);
        assert_eq!(last_waits(&mut c), no_node(missing));
    }
    c.add(Spec::worker("w2", 1).label("room=hall"));
    c.run_for(1_000);
    let both = ["room=kitchen", "room=hall"];
    c.submit_remote(0, &with(add(1, 2), on(&both)));
    c.run_for(50);
    let Some(Waits::NoNode { missing, nodes, .. }) = last_waits(&mut c) else { panic!("no node has both") };
    assert_eq!((missing, nodes), (both.map(String::from).to_vec(), 2));
}

#[test]
fn a_job_says_that_it_waits_for_a_slot_a_rate_or_a_time() {
    let mut c = cluster(401);
    let running = c.submit_remote(0, &sleep(5_000));
    c.run_for(100);
    assert_eq!(last_waits(&mut c), None, "it runs");
    for _ in 0..20 {
        c.submit_remote(0, &sleep(1));
    }
    c.run_for(50);
    let Some(Waits::Slots { function, waiting }) = last_waits(&mut c) else { panic!("the worker is busy") };
    assert!(function == "tasks.sleep" && waiting > 0, "{function} {waiting}");
    c.submit_remote(0, &with(add(1, 2), Options { countdown_ms: Some(60_000), ..Options::default() }));
    c.run_for(50);
    let Some(Waits::Until { ms: Some(ms), again: false, .. }) = last_waits(&mut c) else {
        panic!("it has a countdown")
    };
    assert!((59_000..=60_000).contains(&ms), "{ms}");
    c.revoke(0, running);
    c.run_for(2_000);
    let rate: Rate = Rate { tasks: 1, per_ms: 60_000 };
    let limited = || with(add(1, 2), Options { rate: Some(rate), ..Options::default() });
    let first = c.submit_remote(0, &limited());
    assert!(c.wait(0, first, 5_000).is_ok());
    c.submit_remote(0, &limited());
    c.run_for(500);
    assert_eq!(last_waits(&mut c), Some(Waits::Rate { function: "tasks.add".into() }));
}

#[test]
fn retries_are_told_with_their_error_and_when() {
    let mut c = cluster(402);
    let options = Options { retries: Some(2), backoff_ms: Some(2_000), jitter: Some(false), ..Options::default() };
    let job = c.submit_remote(0, &with(one("first_fails", 10), options));
    c.run_for(500);
    let Some(Waits::Until { again: true, ms: Some(ms), .. }) = last_waits(&mut c) else { panic!("it has failed once") };
    assert!((1_000..=2_000).contains(&ms), "{ms}");
    assert!(c.wait(0, job, 10_000).is_ok());
    let told: Vec<_> = c.news(0, job).filter(|news| matches!(news, JobNews::Retried { .. })).cloned().collect();
    let [JobNews::Retried { error, again_ms }] = &told[..] else { panic!("told once, not {told:?}") };
    assert_eq!((error.text.as_str(), error.function.as_str(), *again_ms), ("first", "tasks.first_fails", 2_000));
    assert_eq!(error.node.map(|node| node.to_string()).as_deref(), Some("w1"));
}

#[test]
fn of_many_retries_few_are_told() {
    let mut c = cluster(403);
    let options = || Options { retries: Some(50), ..Options::default() };
    let job = c.submit_remote(0, &Canvas::group((0..20).map(|n| with(one("flaky", 20 + n), options())).collect()));
    c.wait(0, job, 60_000).expect("in the end each succeeds");
    let (told, runs) = (c.news(0, job).filter(|news| matches!(news, JobNews::Retried { .. })).count(), c.runs.len());
    assert!(told >= 1 && told * 10 < runs, "{told} of {runs}");
}

#[test]
fn a_deadline_tells_the_last_error() {
    let mut c = cluster(404);
    let options = Options { retries: Some(9), backoff_ms: Some(60_000), jitter: Some(false), ..Options::default() };
    let mut canvas = Canvas::group(vec![with(one("first_fails", 10), options)]);
    canvas.options.deadline_ms = Some(1_500);
    let job = c.submit_remote(0, &canvas);
    let error = c.wait(0, job, 10_000).expect_err("late");
    assert_eq!(error.cause, Cause::TimedOut);
    assert_eq!(error.text, "the job took longer than its deadline of 1500 ms; its last error was: first");
}

#[test]
fn done_counts_what_has_ended_by_itself() {
    let mut c = cluster(405);
    let job = c.submit_remote(0, &with(Canvas::group((0..100).map(|n| add(n, n)).collect()), on(&["led"])));
    c.run_for(100);
    c.revoke(0, job);
    assert!(c.wait(0, job, 5_000).is_err());
    let part = c.submit_remote(0, &Canvas::group((0..5).map(|n| sleep(1_000 + n)).collect()));
    c.run_for(2_500);
    c.revoke(0, part);
    assert!(c.wait(0, part, 5_000).is_err());
    let all = c.submit_remote(0, &Canvas::group((0..5).map(|n| add(n, n)).collect()));
    assert!(c.wait(0, all, 5_000).is_ok());
    let counts: Vec<_> = jobs(&mut c).into_iter().map(|job| (job.state, job.done, job.total)).collect();
    assert_eq!(counts, [(JobState::Revoked, 0, 100), (JobState::Revoked, 2, 5), (JobState::Succeeded, 5, 5)]);
}

/// What the tasks of a job of the origin wait for, in the answer to the client.
fn why(c: &mut Cluster, submit: SubmitId, path: &[u32]) -> Vec<WaitingTasks> {
    ask_why(c, submit, path);
    let told = |c: &Cluster| c.events(0).filter_map(waiting).count();
    let before = told(c);
    assert!(c.run_until(1_000, |c| told(c) > before), "the origin answers");
    c.events(0).filter_map(waiting).last().expect("just looked").clone()
}

/// The answer to the question why.
fn waiting(event: &Event) -> Option<&Vec<WaitingTasks>> {
    match event {
        Event::Step(news) => news.waiting.as_ref(),
        _ => None,
    }
}

/// Asks again and again what the tasks of a job wait for, every so many ms, until it has ended. Returns all reasons.
fn reasons(c: &mut Cluster, submit: SubmitId, every_ms: u64) -> Vec<Waits> {
    let before = c.timed_events(0).len();
    for _ in 0..1_000 {
        c.run_for(every_ms);
        if c.ended(0, submit).is_some() {
            break;
        }
        if c.events(0).any(|event| matches!(event, Event::Accepted(id, _) if *id == submit)) {
            ask_why(c, submit, &[]);
        }
    }
    assert!(matches!(c.ended(0, submit), Some(Ok(_))), "{:?}", c.ended(0, submit));
    let told = c.timed_events(0)[before..].iter().filter_map(|(_, event)| waiting(event));
    told.flatten().filter_map(|group| group.waits.clone()).collect()
}

fn ask_why(c: &mut Cluster, submit: SubmitId, path: &[u32]) {
    let id = c.events(0).find_map(|event| match event {
        Event::Accepted(id, job) if *id == submit => Some(*job),
        _ => None,
    });
    let (now, job) = (Instant(c.now_us), id.expect("it was accepted"));
    c.node(0).ask_why(now, job, path.to_vec());
    c.flush(0);
}

fn group_of(tasks: u32, path: &[u32], waits: Waits) -> WaitingTasks {
    WaitingTasks { tasks, path: path.to_vec(), waits: Some(waits) }
}

#[test]
fn each_waiting_task_says_what_it_waits_for() {
    let mut c = cluster(406);
    let worker = c.name(2);
    let function = || "tasks.add".to_owned();
    let countdown = Options { countdown_ms: Some(60_000), ..Options::default() };
    let chain = Canvas::chain(vec![sleep(5_000), none("identity"), none("identity")]);
    let canvas = Canvas::group(vec![
        chain,
        with(add(1, 1), on(&["room=kitchn"])),
        with(add(1, 2), countdown),
        with(add(1, 3), on(&["room=kitchn"])),
        sleep(1),
        sleep(2),
    ]);
    let job = c.submit_remote(0, &canvas);
    c.run_for(300);
    let told = why(&mut c, job, &[]);
    let [runs, no_node, until, slots, before] = &told[..] else { panic!("{told:#?}") };
    assert_eq!(*runs, group_of(1, &[0, 0], Waits::Runs { function: "tasks.sleep".into(), node: worker }));
    let missing = vec!["room=kitchn".into()];
    assert_eq!(*no_node, group_of(2, &[1], Waits::NoNode { function: function(), missing, nodes: 1 }));
    assert!(matches!(until.waits, Some(Waits::Until { ms: Some(59_000..60_000), again: false, .. })), "{until:?}");
    assert_eq!((until.tasks, &until.path[..]), (1, &[2][..]));
    assert!(
        matches!(slots.waits, Some(Waits::Slots { .. })) && (slots.tasks, &slots.path[..]) == (2, &[4]),
        "{slots:?}"
    );
    assert_eq!(*before, group_of(2, &[0, 1], Waits::Before { function: "tasks.identity".into() }));
    // The same for one member.
    assert_eq!(why(&mut c, job, &[0]), [runs.clone(), before.clone()]);
    assert_eq!(why(&mut c, job, &[3]), [WaitingTasks { tasks: 1, path: vec![3], ..no_node.clone() }]);
    c.revoke(0, job);
    assert!(c.wait(0, job, 5_000).is_err());
    c.run_for(2_000);
}

#[test]
fn a_task_for_one_node_says_that_the_node_is_offline() {
    let mut c = cluster(407);
    let worker = c.name(2);
    c.kill(2, true);
    c.run_for(10_000);
    let job = c.submit_remote(0, &with(add(1, 2), on(&["w1"])));
    c.run_for(500);
    let offline = Waits::Offline { function: "tasks.add".into(), node: worker };
    assert_eq!(why(&mut c, job, &[]), [group_of(1, &[], offline)]);
    c.restart(2);
    assert!(c.wait(0, job, 5_000).is_ok());
}

#[test]
fn of_many_different_reasons_some_are_told() {
    let mut c = cluster(408);
    let wants = |n: i64| with(add(n, n), on(&[format!("label-{n}").as_str()]));
    let job = c.submit_remote(0, &Canvas::group((0..100).map(wants).collect()));
    c.run_for(500);
    assert_eq!(why(&mut c, job, &[]).len(), StepNews::WAITING_MAX);
    assert_eq!(why(&mut c, job, &[99])[0].path, [99]);
}

/// A client, an origin and a worker on a medium of 9,600 baud.
fn on_bus(seed: u64) -> Cluster {
    let mut c = Cluster::new(seed);
    c.bus = Some(Bus::new(9_600, 64));
    for spec in [Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 1)] {
        c.add(spec);
    }
    let all_meet = |c: &Cluster| (1..c.len()).all(|id| c.peek(id).members().count() >= 2);
    assert!(c.run_until(120_000, all_meet), "nodes meet");
    c.attach(0);
    c.run_for(60_000);
    c
}

#[test]
fn a_task_whose_values_travel_says_so() {
    let mut c = on_bus(409);
    let node = c.name(2);
    let value = large(8_000);
    let echo = Canvas::task("echo", Cbor::array([value.as_bytes()].into_iter()));
    let job = c.submit_remote(0, &echo);
    let seen = reasons(&mut c, job, 2_000);
    let function = || "tasks.echo".to_owned();
    for wanted in
        [Waits::Arrival { function: function(), node, pulled: true }, Waits::Result { function: function(), node }]
    {
        assert!(seen.contains(&wanted), "{wanted:?} is not among {seen:?}");
    }
}

#[test]
fn a_task_whose_worker_is_out_of_reach_waits_for_its_start() {
    let mut c = cluster(410);
    let node = c.name(2);
    // So that the origin has credit of the worker.
    let first = c.submit_remote(0, &add(1, 1));
    assert!(c.wait(0, first, 5_000).is_ok());
    // Packets of the worker and to it are lost without a word.
    c.silence(2, true, true);
    let job = c.submit_remote(0, &add(1, 2));
    c.run_for(500);
    let arrival = Waits::Arrival { function: "tasks.add".into(), node, pulled: false };
    assert_eq!(why(&mut c, job, &[]), [group_of(1, &[], arrival)]);
    c.silence(2, false, false);
    assert!(c.wait(0, job, 60_000).is_ok());
}

#[test]
fn a_task_whose_module_travels_says_so() {
    let mut c = on_bus(411);
    let (signed, code) = module(1, true);
    c.deploy(1, &signed, &code);
    assert!(c.run_until(600_000, |c| c.holds(1, signed.id)), "the origin has it");
    c.run_for(5_000);
    let job = c.submit_remote(0, &none("app.version"));
    let seen = reasons(&mut c, job, 2_000);
    assert!(seen.contains(&Waits::Module { function: "app.version".into() }), "{seen:?}");
}

#[test]
fn tasks_of_a_job_without_memory_say_so() {
    let small = |spec: Spec| spec.limits(|limits| limits.queue_bytes_max = 64_000);
    let specs = [Spec::client("client"), Spec::new("origin", 0), Spec::worker("w1", 32)];
    let mut c = Cluster::started(412, specs.map(small).into());
    attach(&mut c, 0);
    c.run_for(1_000);
    // `sleep` returns its argument, which is the size of the result after it.
    let late = || Canvas::chain(vec![sleep(5_000), none("large")]);
    let jobs: Vec<_> = (0..4).map(|_| c.submit_remote(0, &Canvas::group((0..6).map(|_| late()).collect()))).collect();
    c.run_for(4_900);
    let seen = reasons(&mut c, jobs[3], 20);
    assert!(seen.contains(&Waits::Memory { function: "tasks.large".into() }), "{seen:?}");
}

#[test]
fn an_origin_that_has_restarted_says_that_it_asks_workers_first() {
    let specs = vec![Spec::client("client"), Spec::new("origin", 0).durable(), Spec::worker("w1", 1)];
    let mut c = Cluster::started(413, specs);
    attach(&mut c, 0);
    c.run_for(1_000);
    let job = c.submit_remote(0, &Canvas::group((0..50).map(|_| sleep(200)).collect()));
    c.run_for(1_000);
    c.kill(1, true);
    c.restart(1);
    let seen = reasons(&mut c, job, 50);
    assert!(seen.contains(&Waits::Origin { function: "tasks.sleep".into() }), "{seen:?}");
}
