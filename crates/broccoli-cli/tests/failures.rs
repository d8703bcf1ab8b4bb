//! Nodes that die in the middle of a job, as seen by the client that waits for it.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::{Cluster, PATIENCE, Process};
use tokio::time::timeout;

on_both_servers! {
    async fn a_worker_killed_in_the_middle_of_a_group_costs_no_task(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let expression = "group(sleep_ms.s(300, i) for i in range(20))";
        let mut run = Process::start(&mut cluster.command(&["-v", "run", expression]));
        let accepted = run.note("DEBUG job submitted").await;
        assert!(accepted.contains(" job=pi-1/"), "{accepted}");
        // This node starts later, so it cannot be the origin of the job.
        let worker = cluster.node("pi-2", &["--slots", "2"]).await;
        let working = async { while running(&cluster, "pi-2").await == 0 {} };
        timeout(PATIENCE, working).await.expect("it gets tasks");
        worker.kill().await;
        assert_eq!(run.end().await.ok(), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]\n");
    }
}

#[tokio::test]
async fn an_origin_that_dies_is_said_and_a_job_that_it_lost_fails() {
    let cluster = Cluster::mosquitto().await.with_examples().await;
    let mut run = Process::start(&mut cluster.command(&["-v", "run", "sleep_ms.s(60000, 1)"]));
    run.note("DEBUG job submitted").await;
    cluster.up.kill().await;
    run.note("pi-1 holds the job and is offline: waiting until it is back").await;
    let mut again = Process::start(&mut cluster.home.command(&["node", "--name", "pi-1", "--server", &cluster.url]));
    again.line("ready  pi-1").await;
    let ended = run.end().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let why = "error: the node that held the job has restarted and lost it; submit again\n";
    assert!(ended.stderr.ends_with(why), "{}", ended.stderr);
}

/// How many tasks a node is running.
async fn running(cluster: &Cluster, name: &str) -> u64 {
    let nodes: Value = serde_json::from_str(&cluster.run(&["nodes", "--json"]).await.ok()).unwrap();
    let node = nodes.as_array().unwrap().iter().find(|node| node["name"] == name);
    node.and_then(|node| node["running"].as_u64()).unwrap_or_default()
}
