//! Nodes with a journal: their jobs survive restarts.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use broccoli_node::{Builder, JournalError, NodeEvent, NodeHandle, StartError};
use support::TempDir;
use support::cluster::*;
use tokio::task::JoinHandle;

/// Time of a task in these tests.
const TAKES: Duration = Duration::from_millis(20);

fn doubled(count: u32) -> Vec<u32> {
    (0..count).map(|number| number * 2).collect()
}

/// A node that can be killed.
fn mortal(builder: Builder) -> (NodeHandle, JoinHandle<()>) {
    let (handle, driver) = builder.build().unwrap();
    (handle, tokio::spawn(driver.run()))
}

/// Ends a node like a power cut, without a goodbye.
async fn vanish(life: JoinHandle<()>) {
    life.abort();
    assert!(life.await.unwrap_err().is_cancelled(), "it was alive");
}

on_both_servers! {
    async fn an_origin_that_vanishes_goes_on_from_its_journal(server: TestServer) {
        let (cluster, data) = (TestCluster::new(&server), TempDir::new());
        let diary = Diary::default();
        let worker = |name: &str| {
            cluster.node(name).slots(2).function("double", diary.task(name, TAKES)).start().unwrap()
        };
        let origin = || cluster.node("origin").resident(true).data(data.0.clone());
        let (_w1, _w2) = (worker("w1"), worker("w2"));
        let (before, life) = mortal(origin());
        until_workers(&before, 2).await;
        let client = cluster.node("client").start().unwrap();
        let job = client.submit_to_cluster(numbered("double", 200));
        diary.until_started("w1", 20).await;
        vanish(life).await;
        let (_after, _life) = mortal(origin());
        assert_eq!(result::<Vec<u32>>(job).await, doubled(200));
        let runs = diary.entries().len();
        assert!(runs <= 200 + 4, "at most what was under way runs again, but there were {runs} runs");
    }

    async fn a_result_is_there_after_a_restart(server: TestServer) {
        let (cluster, data) = (TestCluster::new(&server), TempDir::new());
        let origin = || {
            let node = cluster.node("origin").resident(true).slots(1).data(data.0.clone());
            mortal(node.function("double", |x: u32| x * 2))
        };
        let (before, life) = origin();
        let mut job = before.submit(canvas("double.s(21)"));
        accepted(&mut job).await;
        assert_eq!(result::<u32>(job).await, 42);
        vanish(life).await;
        let (mut after, _life) = origin();
        let mut events = after.events();
        let said = event(&mut events, |event| if let NodeEvent::Storage(text) = event { Some(text) } else { None }).await;
        assert_eq!(said, "took over 0 unfinished jobs with 0 open tasks, and 1 results");
    }

    async fn a_directory_belongs_to_one_node(server: TestServer) {
        let (cluster, data) = (TestCluster::new(&server), TempDir::new());
        let (_first, life) = mortal(cluster.node("first").data(data.0.clone()));
        let in_use = cluster.node("first").data(data.0.clone()).build().map(|_| ()).unwrap_err();
        assert!(matches!(in_use, StartError::Journal(JournalError::InUse(_))), "{in_use}");
        vanish(life).await;
        let foreign = cluster.node("second").data(data.0.clone()).build().map(|_| ()).unwrap_err();
        assert!(matches!(foreign, StartError::Journal(JournalError::Foreign(..))), "{foreign}");
    }
}
