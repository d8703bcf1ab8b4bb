//! Clusters of large and small nodes: a task that is too large for one node runs on another one.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use broccoli_node::Limits;
use broccoli_node::{Builder, NodeHandle};
use broccoli_proto::Cause;
use support::cluster::*;

const NO_OTHER: &str = "; no live node that may run it is large enough";

/// A node with the limits of a chip.
fn chip(cluster: &TestCluster) -> Builder {
    with_text(cluster.node("chip")).slots(1).limits(Limits::chip()).wasm_limits(broccoli_node::module::Limits::chip())
}

/// A node with a function that returns a text of this many bytes.
fn with_text(node: Builder) -> Builder {
    node.function("text", |bytes: u64| "x".repeat(bytes as usize))
}

/// An origin without slots, and the workers of a cluster that has the examples.
async fn started(cluster: &TestCluster, workers: Vec<Builder>) -> (NodeHandle, Vec<NodeHandle>) {
    let origin = cluster.node("origin").start().unwrap();
    let workers: Vec<NodeHandle> = workers.into_iter().map(|worker| worker.start().unwrap()).collect();
    until_workers(&origin, workers.len()).await;
    cluster.deploy_examples(&origin).await;
    (origin, workers)
}

/// How many tasks a node has run.
async fn tasks_run(node: &NodeHandle) -> u64 {
    node.view().await.unwrap().load.tasks_run
}

on_both_servers! {
    async fn a_chip_in_the_cluster_breaks_no_job(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let pc = with_text(cluster.node("pc")).slots(2);
        let (origin, workers) = started(&cluster, vec![chip(&cluster), pc]).await;
        let sums = canvas("tsum.map([range(20000) for i in range(10)])");
        assert_eq!(result::<Vec<i64>>(origin.submit(sums)).await, [199_990_000; 10]);
        assert_eq!(tasks_run(&workers[0]).await, 0, "what it cannot take is not sent to it");

        let texts: Vec<String> = result(origin.submit(canvas("text.map([20000 + i for i in range(10)])"))).await;
        assert_eq!(texts.iter().map(String::len).collect::<Vec<_>>(), (20_000..20_010).collect::<Vec<_>>());

        // Tasks that fit still run on the chip.
        let before = tasks_run(&workers[0]).await;
        let adds: Vec<i64> = result(origin.submit(canvas("group(add.s(i, i) for i in range(1000))"))).await;
        assert_eq!(adds, (0..1_000).map(|n| 2 * n).collect::<Vec<_>>());
        assert!(tasks_run(&workers[0]).await > before, "the chip has its part");
    }

    async fn without_a_large_node_the_error_names_the_limit_and_the_node(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _workers) = started(&cluster, vec![chip(&cluster)]).await;
        let error = task_error(origin.submit(canvas("tsum.s(range(20000)).set(retries=5)"))).await;
        assert_eq!((error.cause, error.attempt), (Cause::Unfit, 1), "{error}");
        let text = format!("tasks.tsum: the arguments have 59724 bytes, this node takes 16384{NO_OTHER} (step 0, attempt 1 on chip)");
        assert_eq!(error.to_string(), text);
        let error = task_error(origin.submit(canvas("text.s(20000).set(on='chip')"))).await;
        assert_eq!(error.text, "the result has 20003 bytes, this node takes 16384");
    }

    async fn a_module_that_a_chip_refuses_runs_on_the_pc(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let tiny = broccoli_node::module::Limits { module_bytes_max: 4_096, ..broccoli_node::module::Limits::chip() };
        let origin = cluster.node("origin").start().unwrap();
        let (_chip, _pc) = (
            chip(&cluster).wasm_limits(tiny).start().unwrap(),
            cluster.node("pc").slots(1).start().unwrap(),
        );
        until_workers(&origin, 2).await;
        let deployment = cluster.deploy(&origin, "tasks", EXAMPLES).await;
        assert_eq!(deployment.holders, [node_id("pc")]);
        assert_eq!(result::<i64>(origin.submit(canvas("chain(add.s(4, 4), mul.s(8), mul.s(10))"))).await, 640);
        let error = task_error(origin.submit(canvas("add.s(1, 2).set(on='chip')"))).await;
        assert_eq!(error.node, Some(node_id("chip")), "{error}");
        assert!(error.text.contains("the limit is 4096"), "{error}");
    }
}
