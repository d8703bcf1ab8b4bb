//! Tasks that control their own job: they ask for a retry, report progress, submit to their node, or replace
//! themselves.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use broccoli_node::Limits;
use broccoli_node::{Builder, JobHandle, JobUpdate, NodeHandle, native};
use broccoli_proto::message::JobNews;
use broccoli_proto::{Canvas, Cause, Cbor};
use support::cluster::*;
use tokio::time::timeout;

/// The example module.
const FLOW: &[u8] = include_bytes!("../../../functions/flow.wasm");

/// An origin, and the worker `w1` with the example module.
async fn pair(cluster: &TestCluster, worker: Builder) -> (NodeHandle, NodeHandle) {
    with_origin(cluster, cluster.node("origin"), worker).await
}

async fn with_origin(cluster: &TestCluster, origin: Builder, worker: Builder) -> (NodeHandle, NodeHandle) {
    let origin = origin.start().unwrap();
    let worker = worker.slots(2).start().unwrap();
    until_workers(&origin, 1).await;
    let deployment = cluster.deploy(&origin, "flow", FLOW).await;
    assert!(deployment.refused.is_empty() && deployment.missing.is_empty(), "{deployment:?}");
    (origin, worker)
}

/// All news of a job until it has ended.
async fn all_news(mut job: JobHandle) -> Vec<JobNews> {
    let mut all = Vec::new();
    while let Some(update) = timeout(support::PATIENCE, job.next()).await.expect("the job ends in time") {
        if let JobUpdate::News(news) = update {
            all.push(news);
        }
        if let Some(JobNews::Ended(_)) = all.last() {
            break;
        }
    }
    all
}

/// The progress that the tasks of a job have reported.
fn task_progress(news: &[JobNews]) -> Vec<(u32, u32)> {
    let said = |news: &JobNews| match news {
        JobNews::TaskProgress { done, total, .. } => Some((*done, *total)),
        _ => None,
    };
    news.iter().filter_map(said).collect()
}

/// The lines that the tasks of a job have logged.
fn log(news: &[JobNews]) -> Vec<&str> {
    let said = |news: &'_ JobNews| matches!(news, JobNews::Logged { .. });
    let lines = news.iter().filter(|news| said(news));
    lines.map(|news| if let JobNews::Logged { text, .. } = news { text.as_str() } else { "" }).collect()
}

/// A native function that reports its progress twelve times within about 600 ms.
fn native_steps(count: u32) -> u32 {
    for done in 1..=count {
        std::thread::sleep(Duration::from_millis(50));
        native::progress(done, count);
    }
    count
}

on_both_servers! {
    async fn tasks_say_how_far_they_are(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let worker = cluster.node("w1").function("own.steps", native_steps);
        let (origin, _worker) = pair(&cluster, worker).await;
        for function in ["flow.steps.s(12, 50)", "own.steps.s(12)"] {
            let start = Instant::now();
            let said = task_progress(&all_news(origin.submit(canvas(function))).await);
            let quarters = start.elapsed().as_millis() / 250 + 1;
            assert!(said.len() >= 2 && said.len() as u128 <= quarters, "{function}: {said:?} in {quarters} quarters");
            assert!(said.is_sorted() && said.iter().all(|(_, total)| *total == 12), "{function}: {said:?}");
            assert_eq!(said.last(), Some(&(12, 12)), "{function}: the last word is told");
        }
        // The task sleeps for long after its only report. The report arrives in time nevertheless.
        let start = Instant::now();
        let mut job = origin.submit(canvas("flow.steps.s(1, 3000)"));
        let first = loop {
            match timeout(support::PATIENCE, job.next()).await.unwrap() {
                Some(JobUpdate::News(JobNews::TaskProgress { done, total, .. })) => break (done, total),
                Some(_) => {}
                None => panic!("the job has ended"),
            }
        };
        assert_eq!(first, (0, 1));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        job.revoke().await;
        let short = all_news(origin.submit(canvas("flow.steps.s(100, 1)"))).await;
        assert_eq!(task_progress(&short), [], "a run that is soon over says nothing");
    }

    async fn a_task_asks_to_be_tried_again_and_takes_no_slot_meanwhile(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, worker) = pair(&cluster, cluster.node("w1")).await;
        let (start, pause) = (Instant::now(), Duration::from_millis(2_000));
        let time = (SystemTime::now() + pause).duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
        let waiting: Vec<JobHandle> =
            (0..8).map(|n| origin.submit(Canvas::task("not_before", Cbor::encode(&(time, n))))).collect();
        // Both slots are free for other tasks.
        until(&worker, |node| node.load.tasks_run >= 8).await;
        assert_eq!(result::<u32>(origin.submit(canvas("flow.steps.s(3, 1)"))).await, 3);
        assert!(start.elapsed() < pause, "{:?}", start.elapsed());
        for (n, job) in (0..).zip(waiting) {
            assert_eq!(result::<u32>(job).await, n);
        }
        assert!(start.elapsed() >= pause, "{:?}", start.elapsed());
    }

    async fn a_task_may_ask_three_times_or_as_often_as_its_retries_say(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let tries = Arc::new(AtomicU32::new(0));
        let count = tries.clone();
        let shy = move |succeeds: u32| -> Result<u32, native::Failure> {
            match count.fetch_add(1, Ordering::Relaxed) + 1 {
                tried if tried >= succeeds => Ok(tried),
                _ => Err(native::Retry::after(Duration::from_millis(10)).because("not yet").into()),
            }
        };
        let (origin, _worker) = pair(&cluster, cluster.node("w1").function("own.shy", shy)).await;
        let tried = || tries.swap(0, Ordering::Relaxed);
        assert_eq!(result::<u32>(origin.submit(canvas("own.shy.s(4)"))).await, 4);
        assert_eq!(tried(), 4);
        let error = task_error(origin.submit(canvas("own.shy.s(5)"))).await;
        assert_eq!((tried(), error.text.as_str()), (4, "not yet; gave up after 4 tries"));
        assert_eq!(error.cause, Cause::Returned);
        assert_eq!(result::<u32>(origin.submit(canvas("own.shy.s(7).set(retries=6)"))).await, 7);
        assert_eq!(tried(), 7);
        let error = task_error(origin.submit(canvas("own.shy.s(2).set(retries=0)"))).await;
        assert_eq!((tried(), error.text.as_str()), (1, "not yet; gave up after 1 try"));
        // The same from Wasm. A plain error is final.
        let error = task_error(origin.submit(canvas("flow.refuse.s('no', 1)"))).await;
        assert_eq!((error.attempt, error.text.as_str()), (4, "no; gave up after 4 tries"));
        let error = task_error(origin.submit(canvas("flow.refuse.s('no', None)"))).await;
        assert_eq!((error.attempt, error.text.as_str()), (1, "no"));
    }

    async fn tasks_submit_to_the_queue_of_their_node(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (note, notes) = mpsc::channel();
        let worker = cluster.node("w1").function("own.note", move |n: u32| note.send(n).unwrap());
        let (origin, worker) = pair(&cluster, worker).await;
        for n in 0..20 {
            result::<()>(origin.submit(canvas(&format!("later.s('own.note', {n}, 0)")))).await;
        }
        let noted = move || (0..20).map(|_| notes.recv_timeout(support::PATIENCE).unwrap()).collect::<Vec<_>>();
        let mut noted = tokio::task::spawn_blocking(noted).await.unwrap();
        noted.sort_unstable();
        assert_eq!(noted, (0..20).collect::<Vec<_>>());
        until(&worker, |node| node.load.jobs == 0 && node.load.running == 0).await;
        let jobs = origin.view().await.map(|view| view.load.jobs);
        assert_eq!(jobs, Some(0), "the origin of the first tasks has nothing to do with the others");
    }

    async fn a_refused_submit_is_an_error_of_the_task_with_its_reason_in_the_log(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster, cluster.node("w1")).await;
        let news = all_news(origin.submit(canvas("later.s('nothing.such', 1, 0)"))).await;
        let Some(JobNews::Ended(Err(error))) = news.last() else { panic!("{news:?}") };
        assert_eq!(error.text, "the submitted canvas was refused: see the log of the task");
        assert!(log(&news).concat().contains("nothing"), "{news:?}");

        let import = r#"(import "broccoli" "submit" (func $submit (param i32 i32) (result i64)))"#;
        // Fails unless the answer is -2.
        let body = "(if (result i64) (i64.eq (call $submit (i32.const 0) (i32.const 2)) (i64.const -2))
                        (then (i64.const 1)) (else (unreachable)))";
        let wasm = hand_written(&format!("{import} (data (i32.const 0) \"\\07\\07\")"), 1, &[("f", "u32", body)]);
        cluster.deploy(&origin, "raw", &wasm).await;
        let news = all_news(origin.submit(canvas("raw.f.s()"))).await;
        assert!(matches!(news.last(), Some(JobNews::Ended(Ok(_)))), "{news:?}");
        assert_eq!(log(&news), ["submit: not a canvas of this version"]);
    }

    async fn a_task_is_replaced_by_the_canvas_that_it_gives(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let halves = |n: u32| -> Result<native::Replace<u32>, &'static str> {
            match n {
                0 => Err("nothing to count"),
                1 => Ok(native::Replace::Value(1)),
                _ => {
                    let half = |n: u32| Canvas::task("own.halves", Cbor::encode(&(n,)));
                    let body = Canvas::task("own.sum", Cbor::empty_array());
                    Ok(native::Replace::With(Canvas::chord(vec![half(n / 2), half(n - n / 2)], body)))
                }
            }
        };
        let sum = |parts: Vec<u32>| parts.iter().sum::<u32>();
        let worker = cluster.node("w1").function("own.halves", halves).function("own.sum", sum);
        let (origin, _worker) = pair(&cluster, worker).await;
        let sorted: Vec<i64> = (-60..60).collect();
        let shuffled: Vec<i64> = (0..120).map(|i| i * 77 % 120 - 60).collect();
        let quicksort = Canvas::task("quicksort", Cbor::encode(&(&shuffled,)));
        assert_eq!(result::<Vec<i64>>(origin.submit(quicksort.clone())).await, sorted);
        assert_eq!(result::<u32>(origin.submit(canvas("own.halves.s(37)"))).await, 37);
        // In the middle of other canvases, like any other task.
        let both = Canvas::group(vec![quicksort, canvas("chain(own.halves.s(9), own.halves.s())")]);
        let (first, second) = result::<(Vec<i64>, u32)>(origin.submit(both)).await;
        assert_eq!((first, second), (sorted, 9));

        let error = task_error(origin.submit(canvas("own.halves.chunks([(1,), (2,)], size=2)"))).await;
        assert_eq!(error.text, "it cannot be replaced: it is one call of a bin; use starmap");
        assert_eq!(task_error(origin.submit(canvas("own.halves.s(0)"))).await.text, "nothing to count");
    }

    async fn a_canvas_that_cannot_be_run_fails_the_task_that_gives_it(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let astray = || native::Replace::<u32>::With(Canvas::task("no.such", Cbor::empty_array()));
        let endless = || native::Replace::<u32>::With(Canvas::task("own.endless", Cbor::empty_array()));
        let worker = cluster.node("w1").function("own.astray", astray).function("own.endless", endless);
        let mut limits = Limits { packet_bytes_max: support::PACKET_BYTES_MAX as u32, ..Limits::host() };
        limits.canvas.steps_max = 100;
        let (origin, _worker) = with_origin(&cluster, cluster.node("origin").limits(limits), worker).await;
        let error = task_error(origin.submit(canvas("own.astray.s()"))).await;
        assert_eq!(error.cause, Cause::Unfit);
        assert!(error.text.contains("no.such"), "{error}");
        let body = "(i64.const 0x00000000_00000006)";
        let data = "(data (i32.const 0) \"\\da\\42\\52\\4f\\43\\80\")";
        cluster.deploy(&origin, "raw", &hand_written(data, 1, &[("f", "u32", body)])).await;
        let error = task_error(origin.submit(canvas("raw.f.s()"))).await;
        assert_eq!(error.cause, Cause::Unfit, "{error}");
        let error = task_error(origin.submit(canvas("own.endless.s()"))).await;
        assert_eq!(error.cause, Cause::Unfit, "{error}");
        assert!(error.text.contains("100"), "{error}");
    }

    async fn a_full_queue_refuses_what_tasks_submit(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let limits = Limits { jobs_max: 0, packet_bytes_max: support::PACKET_BYTES_MAX as u32, ..Limits::host() };
        let (origin, _worker) = pair(&cluster, cluster.node("w1").limits(limits)).await;
        let error = task_error(origin.submit(canvas("later.s('flow.steps', 1, 0)"))).await;
        assert_eq!((error.cause, error.text.as_str()), (Cause::Returned, "queue full"));
    }
}
