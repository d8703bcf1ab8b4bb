//! Tasks that steer their own way: they say how far they are, and submit to their node's queue.

// Helpers of tests, too, stop where something fails; the lint knows test functions only.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use broccoli_node::core::Limits;
use broccoli_node::proto::Cause;
use broccoli_node::proto::message::JobNews;
use broccoli_node::{JobHandle, JobUpdate, NodeHandle, native};
use support::cluster::*;
use tokio::time::timeout;

/// The example module.
const FLOW: &[u8] = include_bytes!("../../../functions/flow.wasm");

/// An origin, and the worker `w1` with the example module.
async fn pair(cluster: &TestCluster, worker: broccoli_node::Builder) -> (NodeHandle, NodeHandle) {
    let origin = cluster.node("origin").start().unwrap();
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

/// What the tasks of a job have said about how far they are.
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

/// A native function that says twelve times within about 600 ms how far it is.
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
        // Asleep for long after its only word, which comes in time all the same.
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
        until(&worker, |node| node.vitals().jobs == 0 && node.vitals().running == 0).await;
        let jobs = origin.query(|node| node.vitals().jobs).await;
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
        // An error text of one letter, unless the answer is -2.
        let body = "(if (result i64) (i64.eq (call $submit (i32.const 0) (i32.const 2)) (i64.const -2))
                        (then (i64.const 1)) (else (unreachable)))";
        let wasm = hand_written(&format!("{import} (data (i32.const 0) \"\\07\\07\")"), 1, &[("f", "u32", body)]);
        cluster.deploy(&origin, "raw", &wasm).await;
        let news = all_news(origin.submit(canvas("raw.f.s()"))).await;
        assert!(matches!(news.last(), Some(JobNews::Ended(Ok(_)))), "{news:?}");
        assert_eq!(log(&news), ["submit: not a canvas of this version"]);
    }

    async fn a_full_queue_refuses_what_tasks_submit(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let limits = Limits { jobs_max: 0, packet_bytes_max: support::PACKET_BYTES_MAX as u32, ..Limits::host() };
        let (origin, _worker) = pair(&cluster, cluster.node("w1").limits(limits)).await;
        let error = task_error(origin.submit(canvas("later.s('flow.steps', 1, 0)"))).await;
        assert_eq!((error.cause, error.text.as_str()), (Cause::Returned, "queue full"));
    }
}
