//! Two nodes with the same name: the older one stays.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use broccoli_node::{Event, NodeEvent};
use support::PATIENCE;
use support::cluster::*;
use tokio::time::timeout;

on_both_servers! {
    async fn the_later_twin_stops_and_the_older_goes_on(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let diary = Diary::default();
        let node = |name: &str, slots| {
            cluster.node(name).slots(slots).function("double", diary.task(name, Duration::from_millis(20)))
        };
        let origin = node("origin", 0).start().unwrap();
        let older = node("twin", 1).start().unwrap();
        until_workers(&origin, 1).await;
        let job = origin.submit(numbered("double", 60));
        diary.until_started("twin", 2).await;

        let mut later = node("twin", 1).start().unwrap();
        let start = Instant::now();
        let mut events = later.events();
        event(&mut events, |event| matches!(event, NodeEvent::Cluster(Event::NameTaken)).then_some(())).await;
        let ended = timeout(PATIENCE, async { while events.recv().await.is_some() {} }).await;
        assert!(ended.is_ok() && start.elapsed() < Duration::from_secs(2), "it stops at once");
        assert!(later.view().await.is_none());

        assert_eq!(result::<Vec<u32>>(job).await, (0..60).map(|n| 2 * n).collect::<Vec<_>>());
        let starts: Vec<_> = diary.entries().iter().map(|entry| entry.start).collect();
        let pause = starts.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(pause < Some(Duration::from_millis(500)), "the older one paused for {pause:?}");
        assert!(older.view().await.is_some());
    }

    async fn a_name_is_free_again_when_its_node_has_left(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let node = || cluster.node("twin").slots(1).function("double", |n: u32| 2 * n).start().unwrap();
        let origin = cluster.node("origin").function("double", |n: u32| 2 * n).start().unwrap();
        for _ in 0..3 {
            let twin = node();
            assert_eq!(result::<u32>(origin.submit(canvas("double.s(4)"))).await, 8);
            twin.leave().await;
        }
    }
}
