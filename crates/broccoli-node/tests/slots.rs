//! Slots: tasks run at the same time, and the node always answers.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use broccoli_node::view::{Load, NodeView};
use broccoli_proto::Cause;
use support::cluster::*;
use tokio::time::sleep;

/// Longer than a lease without renewal.
const LONGER_THAN_A_LEASE: Duration = Duration::from_millis(4_800);

/// The load of a node that has answered.
fn load<'n>(nodes: &'n [NodeView], name: &str) -> &'n Load {
    let node = nodes.iter().find(|node| node.name == node_id(name)).expect("the node is known");
    node.load.as_ref().expect("the node has answered")
}

on_both_servers! {
    async fn so_many_tasks_as_slots_run_side_by_side(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let diary = Diary::default();
        let task = |name: &str| diary.task(name, Duration::from_millis(60));
        let origin = cluster.node("origin").function("double", task("origin")).start().unwrap();
        let _worker = cluster.node("w1").slots(4).function("double", task("w1")).start().unwrap();
        until_workers(&origin, 1).await;
        result::<Vec<u32>>(origin.submit(numbered("double", 24))).await;
        let entries = diary.entries();
        let at_once = |now: Instant| entries.iter().filter(|e| e.start <= now && e.end.unwrap() > now).count();
        let most = entries.iter().map(|entry| at_once(entry.start)).max();
        assert_eq!(most, Some(4));
        let (first, last) = (entries[0].start, entries.iter().filter_map(|entry| entry.end).max().unwrap());
        assert!(last - first < Duration::from_millis(24 * 60 / 2), "took {:?}", last - first);
    }

    async fn sleeping_tasks_overlap(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").start().unwrap();
        let _worker = cluster.node("w1").slots(4).start().unwrap();
        until_workers(&origin, 1).await;
        cluster.deploy_examples(&origin).await;
        let start = Instant::now();
        let job = origin.submit(canvas("group(sleep_ms.s(200, i) for i in range(8))"));
        assert_eq!(result::<Vec<u32>>(job).await, (0..8).collect::<Vec<_>>());
        let took = start.elapsed();
        assert!((Duration::from_millis(400)..Duration::from_millis(1_200)).contains(&took), "took {took:?}");
    }

    async fn a_busy_node_answers_and_keeps_its_leases(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").start().unwrap();
        let worker = cluster.node("w1").slots(2).start().unwrap();
        until_workers(&origin, 1).await;
        cluster.deploy_examples(&origin).await;
        let mut spinning = origin.submit(canvas("group(spin.s(9000000000000000000), spin.s(9000000000000000000))"));
        until(&worker, |node| node.load.running == 2).await;
        let start = Instant::now();
        while start.elapsed() < LONGER_THAN_A_LEASE {
            let asked = Instant::now();
            let nodes = origin.nodes(support::PATIENCE).await.unwrap();
            assert!(asked.elapsed() < Duration::from_secs(1), "answered after {:?}", asked.elapsed());
            let load = load(&nodes, "w1");
            assert_eq!((load.running, load.tasks_run), (2, 0));
            // As often as a user would look.
            sleep(Duration::from_millis(200)).await;
        }
        let waiting = origin.view().await.map(|view| view.load.waiting);
        assert_eq!(waiting, Some(0), "no lease was given up");

        spinning.revoke().await;
        assert_eq!(task_error(spinning).await.cause, Cause::Revoked);
        assert_eq!(result::<i64>(origin.submit(canvas("add.s(2, 3)"))).await, 5);
        until(&worker, |node| node.load.running == 0).await;
    }

    async fn a_node_is_its_own_worker_for_ever_so_many_tasks_and_still_answers(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let node = cluster.node("n1").slots(1).start().unwrap();
        let other = cluster.node("other").start().unwrap();
        until_workers(&other, 1).await;
        cluster.deploy_examples(&node).await;
        until_function(&node, "add").await;
        let job = node.submit(canvas("add.starmap([(i, i) for i in range(60000)])"));
        until(&node, |node| node.load.tasks_run > 0).await;
        let asked = Instant::now();
        let nodes = other.nodes(support::PATIENCE).await.unwrap();
        let (ready, took) = (load(&nodes, "n1").waiting, asked.elapsed());
        assert!(ready > 0, "it answers while it works");
        assert!(took < Duration::from_secs(1), "answered after {took:?}");
        let sums = result::<Vec<u64>>(job).await;
        assert_eq!(sums.iter().sum::<u64>(), 60_000 * 59_999);
    }
}
