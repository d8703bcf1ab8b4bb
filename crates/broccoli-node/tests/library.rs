//! A node as a library: native functions, jobs and their handles, origins that share workers.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broccoli_node::{
    Builder, COMMANDS_MAX, Cluster, Driver, Event, JobError, JobHandle, JobUpdate, Limits, NodeEvent, NodeHandle,
    StartError, native,
};
use broccoli_proto::message::Refusal;
use broccoli_proto::{Canvas, Cause, Cbor};
use minicbor::bytes::ByteVec;
use support::cluster::*;
use tokio::time::timeout;

/// One function for each kind of value, and functions that fail in different ways.
fn with_functions(builder: Builder) -> Builder {
    let mean = |xs: Vec<f64>| match xs.len() {
        0 => Err("no values"),
        len => Ok(xs.iter().sum::<f64>() / len as f64),
    };
    builder
        .function("integers", |a: i8, b: i16, c: i32, d: i64| i64::from(a) + i64::from(b) + i64::from(c) + d)
        .function("naturals", |a: u8, b: u16, c: u32, d: u64| u64::from(a) + u64::from(b) + u64::from(c) + d)
        .function("floats", |a: f32, b: f64| f64::from(a) * b)
        .function("flip", |value: bool| !value)
        .function("shout", |text: String| text.to_uppercase())
        .function("reverse", |bytes: ByteVec| ByteVec::from(bytes.iter().rev().copied().collect::<Vec<u8>>()))
        .function("nothing", |_: ()| ())
        .function("or_zero", |value: Option<i64>| value.unwrap_or(0))
        .function("swap", |(a, b): (i64, String)| (b, a))
        .function("lengths", |words: Vec<String>| {
            words.into_iter().map(|w| (w.clone(), w.len() as u64)).collect::<BTreeMap<_, _>>()
        })
        .function("six", |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8| vec![f, e, d, c, b, a])
        .function("as_it_is", |value: Cbor| value)
        .function("mean", mean)
        .function("boom", |n: i64| if n > 6 { panic!("{n} is too much") } else { n })
}

/// An origin and one worker that runs everything.
async fn pair(cluster: &TestCluster) -> (NodeHandle, NodeHandle) {
    let origin = with_functions(cluster.node("origin")).start().unwrap();
    let worker = with_functions(cluster.node("w1")).slots(2).start().unwrap();
    until_workers(&origin, 1).await;
    (origin, worker)
}

on_both_servers! {
    async fn native_functions_take_and_give_every_kind_of_value(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster).await;
        let job = |source: &str| origin.submit(canvas(source));
        assert_eq!(result::<i64>(job("integers.s(-128, -32768, 5, -7)")).await, -32898);
        assert_eq!(result::<u64>(job("naturals.s(255, 65535, 1, 9223372036854775807)")).await, (1 << 63) - 1 + 65791);
        assert_eq!(result::<f64>(job("floats.s(0.5, 3)")).await, 1.5);
        assert!(!result::<bool>(job("flip.s(True)")).await);
        assert_eq!(result::<String>(job("shout.s('brokkoli ü')")).await, "BROKKOLI Ü");
        result::<()>(job("nothing.s(None)")).await;
        assert_eq!(result::<i64>(job("or_zero.s(None)")).await, 0);
        assert_eq!(result::<Option<i64>>(job("or_zero.s(3)")).await, Some(3));
        assert_eq!(result::<(String, i64)>(job("swap.s((1, 'a'))")).await, ("a".to_owned(), 1));
        let lengths = result::<BTreeMap<String, u64>>(job("lengths.s(['a', 'bcd'])")).await;
        assert_eq!(lengths, BTreeMap::from([("a".to_owned(), 1), ("bcd".to_owned(), 3)]));
        assert_eq!(result::<Vec<u8>>(job("six.s(1, 2, 3, 4, 5, 6)")).await, [6, 5, 4, 3, 2, 1]);
        assert_eq!(result::<f64>(job("mean.s([1, 2, 6])")).await, 3.0);
        let bytes = Cbor::encode(&(ByteVec::from(vec![1, 2, 3]),));
        assert_eq!(*result::<ByteVec>(origin.submit(Canvas::task("reverse", bytes))).await, [3, 2, 1]);
        let nested = Cbor::encode(&(((1, "x"), [Some(2.5), None]),));
        let back = result::<Cbor>(origin.submit(Canvas::task("as_it_is", nested))).await;
        assert_eq!(back.to_string(), "[[1, \"x\"], [2.5e0, null]]");
    }

    async fn an_error_names_function_task_node_attempt_and_text(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster).await;
        let error = task_error(origin.submit(canvas("group(boom.s(1), boom.s(7))"))).await;
        assert_eq!((error.function.as_str(), error.task, error.attempt), ("native.boom", 2, 1));
        assert_eq!((error.node, error.cause), (Some(node_id("w1")), Cause::Crashed));
        assert_eq!(error.to_string(), "native.boom: panic: 7 is too much (step 2, attempt 1 on w1, member 1)");

        let error = task_error(origin.submit(canvas("mean.s([])"))).await;
        assert_eq!((error.cause, error.text.as_str()), (Cause::Returned, "no values"));
        let error = task_error(origin.submit(canvas("boom.s(9).set(retries=2)"))).await;
        assert_eq!(error.attempt, 3);
        assert_eq!(result::<i64>(origin.submit(canvas("boom.s(6)"))).await, 6);
    }

    async fn arguments_from_a_parent_are_checked(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster).await;
        let error = task_error(origin.submit(canvas("as_it_is.s(5) | shout.s()"))).await;
        assert_eq!((error.cause, error.function.as_str()), (Cause::Unfit, "native.shout"));
        assert!(error.text.contains("expected str"), "{error}");
        let error = task_error(origin.submit(canvas("boom.chunks([(1,), (9,)], 1)"))).await;
        assert_eq!(error.text, "item 1: panic: 9 is too much");
    }

    async fn a_result_of_another_type_is_handed_out_as_it_is(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster).await;
        match outcome::<String>(origin.submit(canvas("or_zero.s(4)"))).await {
            Err(JobError::Type(value)) => assert_eq!(value, Cbor::encode(&4)),
            other => panic!("expected a type error, got {other:?}"),
        }
    }

    async fn a_full_queue_refuses_and_loses_nothing(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let limits = Limits { tasks_max: 10, ..Limits::host() };
        let origin = with_functions(cluster.node("origin")).limits(limits).start().unwrap();
        let mut first = origin.submit(numbered("boom", 6));
        accepted(&mut first).await;
        match outcome::<Cbor>(origin.submit(numbered("boom", 6))).await {
            Err(JobError::Refused(Refusal::QueueFull)) => {}
            other => panic!("expected a full queue, got {other:?}"),
        }
        let second = origin.submit(numbered("boom", 3));
        let _worker = with_functions(cluster.node("w1")).slots(1).start().unwrap();
        assert_eq!(result::<Vec<i64>>(first).await, [0, 1, 2, 3, 4, 5]);
        assert_eq!(result::<Vec<i64>>(second).await, [0, 1, 2]);
        assert_eq!(result::<Vec<i64>>(origin.submit(numbered("boom", 6))).await.len(), 6);
    }

    async fn two_origins_share_the_workers(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let diary = Diary::default();
        let node = |name: &str, slots| {
            cluster.node(name).slots(slots).function("double", diary.task(name, Duration::from_millis(5))).start().unwrap()
        };
        let (_w1, _w2) = (node("w1", 2), node("w2", 2));
        let origins = [node("o1", 0), node("o2", 0)];
        for origin in &origins {
            until_workers(origin, 2).await;
        }
        // Tasks 0 to 199 are of the first origin, 200 to 399 of the second.
        let numbers = |from: u32| Canvas::group((from..from + 200).map(|n| Canvas::task("double", Cbor::encode(&(n,)))).collect());
        let [first, second] = [origins[0].submit(numbers(0)), origins[1].submit(numbers(200))];
        let (first, second) = tokio::join!(result::<Vec<u32>>(first), result::<Vec<u32>>(second));
        let both = first.into_iter().chain(second).collect::<Vec<_>>();
        assert_eq!(both, (0..400).map(|n| 2 * n).collect::<Vec<_>>());

        let entries = diary.entries();
        assert_eq!(tally(entries.iter().map(|entry| entry.task)).len(), 400);
        let seen: BTreeSet<_> = entries.iter().map(|entry| (entry.task / 200, entry.node)).collect();
        assert_eq!(seen.len(), 4, "both workers run tasks of both origins: {seen:?}");
        // No origin waits until the other one is done.
        let first_of = |origin: u32| entries.iter().position(|entry| entry.task / 200 == origin).unwrap();
        assert!(first_of(0) < 200 && first_of(1) < 200, "{} and {}", first_of(0), first_of(1));
    }

    async fn a_job_survives_its_client(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (diary, gate) = (Diary::default(), Gate::default());
        let node = |name: &str| {
            let takes = Duration::from_millis(1);
            cluster.node(name).function("wait", gate.task()).function("double", diary.task(name, takes))
        };
        let resident = node("resident").resident(true).start().unwrap();
        let _worker = node("w1").slots(1).start().unwrap();
        let client = cluster.node("client").start().unwrap();
        let members = group_after_gate();
        let mut job = client.submit_to_cluster(members);
        accepted(&mut job).await;
        gate.until_waiting(1).await;
        assert_eq!(job.id().map(|job| job.origin), Some(node_id("resident")));
        client.leave().await;

        gate.open();
        diary.until_started("w1", 20).await;
        until(&resident, |node| node.load.waiting == 0).await;
        assert_eq!(tally(diary.entries().iter().map(|entry| entry.task)).len(), 20);
    }

    async fn the_client_of_an_origin_that_has_restarted_is_told(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let gate = Gate::default();
        let resident = || cluster.node("resident").resident(true).function("wait", gate.task()).start().unwrap();
        let before = resident();
        let _worker = cluster.node("w1").slots(1).function("wait", gate.task()).start().unwrap();
        let client = cluster.node("client").start().unwrap();
        let mut job = client.submit_to_cluster(canvas("wait.s()"));
        accepted(&mut job).await;
        gate.until_waiting(1).await;
        before.leave().await;

        let _after = resident();
        match outcome::<u32>(job).await {
            Err(JobError::Lost) => {}
            other => panic!("expected a lost job, got {other:?}"),
        }
        gate.open();
        assert_eq!(result::<u32>(client.submit_to_cluster(canvas("wait.s()"))).await, 1);
    }

    async fn a_node_that_stops_says_so_to_its_jobs(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let mut node = with_functions(cluster.node("n1")).start().unwrap();
        let mut events = node.events();
        event(&mut events, |event| matches!(event, NodeEvent::Connected).then_some(())).await;
        let mut job = node.submit(canvas("boom.s(1)"));
        accepted(&mut job).await;
        node.leave().await;
        assert!(matches!(outcome::<i64>(job).await, Err(JobError::Stopped)));
    }

    async fn a_revoked_job_ends_and_others_go_on(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let diary = Diary::default();
        let node = |name: &str, slots| {
            cluster.node(name).slots(slots).function("double", diary.task(name, Duration::from_millis(20)))
        };
        let origin = node("origin", 0).start().unwrap();
        let _worker = node("w1", 1).start().unwrap();
        let mut revoked = origin.submit(numbered("double", 400));
        diary.until_started("w1", 2).await;
        revoked.revoke().await;
        match outcome::<Vec<u32>>(revoked).await {
            Err(JobError::Revoked(error)) => assert_eq!(error.cause, Cause::Revoked, "{error}"),
            other => panic!("expected a revoked job, got {other:?}"),
        }
        assert_eq!(result::<u32>(origin.submit(canvas("double.s(1000)"))).await, 2000);
        let started = diary.entries().len();
        assert!(started < 200, "{started} of 400 tasks ran");
    }

    async fn a_client_without_an_origin_is_told_and_waits(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let mut client = cluster.node("client").start().unwrap();
        let mut events = client.events();
        let mut job = client.submit_to_cluster(canvas("flip.s(True)"));
        event(&mut events, |event| matches!(event, NodeEvent::Cluster(Event::NoOrigin)).then_some(())).await;
        let _resident = with_functions(cluster.node("resident")).resident(true).slots(1).start().unwrap();
        let update = timeout(support::PATIENCE, job.next()).await.unwrap();
        assert!(matches!(update, Some(JobUpdate::Accepted(_))), "{update:?}");
        assert!(!result::<bool>(job).await);
    }
}

/// A node whose loop does not run, and whose server does not exist.
fn unconnected(builder: Builder) -> (NodeHandle, Driver) {
    let (cluster, _) = Cluster::generate().unwrap();
    builder.cluster(cluster).server("mqtt://127.0.0.1:1".parse().unwrap()).build().unwrap()
}

#[tokio::test]
async fn more_submits_than_a_node_can_take_up_end_with_an_error() {
    let (node, driver) = unconnected(with_functions(NodeHandle::builder()).slots(1));
    let mut taken: Vec<JobHandle> = (0..COMMANDS_MAX).map(|_| node.submit(canvas("flip.s(True)"))).collect();
    let refused = outcome::<bool>(node.submit(canvas("flip.s(True)"))).await;
    assert!(matches!(refused, Err(JobError::TooManyRequests)), "{refused:?}");
    let refused = outcome::<bool>(node.submit_to_cluster(canvas("flip.s(True)"))).await;
    assert!(matches!(refused, Err(JobError::TooManyRequests)), "{refused:?}");
    let _runs = tokio::spawn(driver.run());
    assert!(!result::<bool>(taken.swap_remove(0)).await);
    assert!(!result::<bool>(node.submit(canvas("flip.s(True)"))).await, "there is room again");
}

#[tokio::test]
async fn a_drain_that_finds_no_room_is_not_lost() {
    // Its jobs are only in memory, and it starts no more tasks: what has not run is lost after this time.
    let builder = with_functions(NodeHandle::builder()).slots(1).drain_limit(Duration::from_millis(100));
    let (node, driver) = unconnected(builder);
    let _taken: Vec<JobHandle> = (0..COMMANDS_MAX).map(|_| node.submit(canvas("flip.s(True)"))).collect();
    node.begin_drain();
    timeout(support::PATIENCE, driver.run()).await.expect("the node ends");
    assert!(node.view().await.is_none());
}

#[tokio::test]
async fn functions_are_described_by_their_program() {
    let add = native::function(|x: i64, y: i64| x + y).args(["x", "y"]).doc("The sum of two numbers.");
    let (node, driver) = unconnected(NodeHandle::builder().slots(1).function("add", add));
    let _runs = tokio::spawn(driver.run());
    let found = node.function("add").await.unwrap();
    assert_eq!(
        (found.name.as_str(), found.description.to_string().as_str()),
        ("native.add", "add(x: i64, y: i64) -> i64")
    );
    assert_eq!(found.description.doc, "The sum of two numbers.");
    assert_eq!(result::<i64>(node.submit(canvas("add.s(y=2, x=40)"))).await, 42);
    let refused = outcome::<i64>(node.submit(canvas("add.s(1, z=2)"))).await.unwrap_err();
    assert_eq!(refused.to_string(), "native.add: there is no argument z");
    let unknown = node.function("sub").await.unwrap_err();
    assert_eq!(unknown.to_string(), "no function sub; there are native.add");
}

#[test]
fn a_description_that_no_cluster_would_take_is_an_error_at_the_start() {
    let (cluster, _) = Cluster::generate().unwrap();
    let builder = || NodeHandle::builder().cluster(cluster.clone()).server("mqtt://127.0.0.1:1".parse().unwrap());
    let why = |builder: Builder| match builder.build() {
        Err(error @ StartError::Function(_)) => {
            assert!(std::error::Error::source(&error).is_some());
            error.to_string()
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it starts"),
    };
    let twice = native::function(|x: i64, y: i64| x + y).args(["x", "x"]);
    assert_eq!(why(builder().function("add", twice)), "a function of this program: x is there twice");
    let names = native::function(|x: i64| x).args(["1st"]);
    let bad = "a function of this program: bad name \"1st\": use letters, digits and _, at most 64";
    assert_eq!(why(builder().function("same", names)), bad);
    let long = native::function(|x: i64| x).doc("x".repeat(1_025));
    assert!(why(builder().function("same", long)).contains("longer than 1024 bytes"));
}

/// Twenty tasks that become ready when the gate opens.
fn group_after_gate() -> Canvas {
    let members = (0..20).map(|n| Canvas::task("double", Cbor::encode(&(n,)))).map(immutable).collect();
    Canvas::chain(vec![canvas("wait.s()"), Canvas::group(members)])
}

fn immutable(mut canvas: Canvas) -> Canvas {
    if let broccoli_proto::canvas::Form::Task(task) = &mut canvas.form {
        task.immutable = true;
    }
    canvas
}
