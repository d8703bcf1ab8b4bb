//! Servers that restart and links that break: nothing is lost, and other nodes do not wait.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use broccoli_node::NodeEvent;
use broccoli_node::mqtt::DisconnectReason;
use support::cluster::*;
use support::proxy::Proxy;
use tokio::time::sleep;

/// Lost tasks start again within this time if the server notices the end of the link …
const AGAIN_AFTER_END: Duration = Duration::from_secs(3);
/// … and within this time if it does not.
const AGAIN_AFTER_SILENCE: Duration = Duration::from_secs(6);
/// Time of a task in these tests, and the longest allowed pause of a slot.
const TAKES: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_millis(600);

on_both_servers! {
    async fn server_restarts_in_the_middle_of_a_group(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let diary = Diary::default();
        let node = |name: &str, slots| {
            cluster.node(name).slots(slots).function("double", diary.task(name, Duration::from_millis(4))).start().unwrap()
        };
        let (origin, _w1, _w2) = (node("origin", 0), node("w1", 2), node("w2", 2));
        until_workers(&origin, 2).await;
        let job = origin.submit(numbered("double", 500));
        for started in [40, 120] {
            diary.until_started("w1", started).await;
            server.restart().await;
        }
        assert_eq!(result::<Vec<u32>>(job).await, doubled(500));
        assert_eq!(tally(diary.entries().iter().map(|entry| entry.task)).len(), 500);
    }

    async fn server_restarts_under_a_client(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let gate = Gate::default();
        let _resident = cluster.node("resident").resident(true).slots(1).function("wait", gate.task()).start().unwrap();
        let client = cluster.node("client").start().unwrap();
        let mut job = client.submit_to_cluster(canvas("wait.s()"));
        accepted(&mut job).await;
        gate.until_waiting(1).await;
        server.stop().await;
        gate.open();
        server.restart().await;
        assert_eq!(result::<u32>(job).await, 1);
    }

    async fn tasks_of_a_worker_that_is_gone_start_again(server: TestServer) {
        worker_loses_its_link(&server, Proxy::cut, AGAIN_AFTER_END).await;
    }

    async fn tasks_of_a_worker_that_is_silent_start_again(server: TestServer) {
        worker_loses_its_link(&server, Proxy::stall, AGAIN_AFTER_SILENCE).await;
    }

    async fn a_worker_that_comes_back_goes_on(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (diary, proxy) = (Diary::default(), Proxy::new(&server).await);
        let takes = Duration::from_millis(1_200);
        let origin = cluster.node("origin").function("double", diary.task("origin", takes)).start().unwrap();
        let worker = cluster.node("w1").server(proxy.url()).slots(2).function("double", diary.task("w1", takes));
        let _worker = worker.start().unwrap();
        let job = origin.submit(numbered("double", 2));
        diary.until_started("w1", 2).await;
        proxy.cut();
        sleep(Duration::from_millis(300)).await;
        proxy.heal();
        assert_eq!(result::<Vec<u32>>(job).await, doubled(2));
        assert_eq!(diary.entries().len(), 2, "what it had started is not started again");
    }

    async fn an_origin_that_is_gone_for_a_while_finds_its_results(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (diary, proxy) = (Diary::default(), Proxy::new(&server).await);
        let node = |name: &str, slots| {
            cluster.node(name).slots(slots).function("double", diary.task(name, Duration::from_millis(50)))
        };
        let origin = node("origin", 0).server(proxy.url()).start().unwrap();
        let (_w1, _w2) = (node("w1", 2).start().unwrap(), node("w2", 2).start().unwrap());
        until_workers(&origin, 2).await;
        let job = origin.submit(numbered("double", 60));
        diary.until_started("w1", 6).await;
        proxy.cut();
        sleep(Duration::from_millis(1_000)).await;
        proxy.heal();
        diary.until_started("w1", 12).await;
        proxy.stall();
        sleep(Duration::from_millis(1_000)).await;
        proxy.heal();
        assert_eq!(result::<Vec<u32>>(job).await, doubled(60));
        let runs = diary.entries().len();
        assert!(runs <= 68, "{runs} runs of 60 tasks");
    }

    async fn links_that_flap_lose_nothing(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let diary = Diary::default();
        let proxies = [Proxy::new(&server).await, Proxy::new(&server).await];
        let node = |name: &str, slots| {
            cluster.node(name).slots(slots).function("double", diary.task(name, Duration::from_millis(10)))
        };
        let origin = node("origin", 0).server(proxies[0].url()).start().unwrap();
        let _w1 = node("w1", 2).server(proxies[1].url()).start().unwrap();
        let _w2 = node("w2", 1).start().unwrap();
        until_workers(&origin, 2).await;
        let flapping = async {
            for round in 0..14 {
                sleep(Duration::from_millis(700)).await;
                let proxy = &proxies[round % 2];
                proxy.cut();
                // Long enough for the relay to notice.
                sleep(Duration::from_millis(5)).await;
                proxy.heal();
            }
        };
        let (job, ()) = (origin.submit(numbered("double", 1_500)), flapping.await);
        assert_eq!(result::<Vec<u32>>(job).await, doubled(1_500));
    }

    async fn a_node_waits_for_its_server(server: TestServer) {
        let cluster = TestCluster::new(&server);
        server.stop().await;
        let mut node = cluster.node("n1").slots(1).function("double", |n: u32| 2 * n).start().unwrap();
        let job = node.submit(numbered("double", 3));
        let mut events = node.events();
        let unreachable = |event| match event {
            NodeEvent::Disconnected(DisconnectReason::Unreachable(_)) => Some(Instant::now()),
            _ => None,
        };
        let first = event(&mut events, unreachable).await;
        for _ in 0..3 {
            event(&mut events, unreachable).await;
        }
        assert!(first.elapsed() > Duration::from_millis(300), "pauses between attempts grow");
        // A node runs its own tasks without a server.
        assert_eq!(result::<Vec<u32>>(job).await, doubled(3));
        server.restart().await;
        event(&mut events, |event| matches!(event, NodeEvent::Connected).then_some(())).await;
    }

    async fn a_wrong_password_is_said(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let url = server.anonymous_url().with_credentials(support::USER, "wrong");
        let mut node = cluster.node("n1").server(url).start().unwrap();
        let refused = |event| match event {
            NodeEvent::Disconnected(reason) => Some(reason),
            _ => None,
        };
        assert_eq!(event(&mut node.events(), refused).await, DisconnectReason::RefusedCredentials);
    }
}

/// The link of a worker breaks while it and another one work. The other worker takes over its tasks soon, and never
/// pauses.
async fn worker_loses_its_link(server: &support::TestServer, lose: fn(&Proxy), again_after: Duration) {
    let cluster = TestCluster::new(server);
    let (diary, proxy) = (Diary::default(), Proxy::new(server).await);
    let node = |name: &str, slots| cluster.node(name).slots(slots).function("double", diary.task(name, TAKES));
    let origin = node("origin", 0).start().unwrap();
    let _w1 = node("w1", 2).server(proxy.url()).start().unwrap();
    let _w2 = node("w2", 2).start().unwrap();
    until_workers(&origin, 2).await;
    // Enough tasks, so that the other worker is busy until all lost tasks were leased again.
    let count = (again_after.as_millis() / TAKES.as_millis()) as u32 * 2 + 20;
    let job = origin.submit(numbered("double", count));
    diary.until_started("w1", 6).await;
    lose(&proxy);
    let lost_at = Instant::now();
    assert_eq!(result::<Vec<u32>>(job).await, doubled(count));

    let entries = diary.entries();
    let of = |name: &str| entries.iter().filter(|entry| entry.node == node_id(name)).collect::<Vec<_>>();
    let (w1, w2) = (of("w1"), of("w2"));
    let lost: Vec<_> = w1.iter().filter(|entry| entry.end.is_none_or(|end| end > lost_at)).collect();
    assert!(lost.len() >= 2, "the worker was busy: {w1:?}");
    for entry in lost {
        let again = w2.iter().find(|other| other.task == entry.task).expect("a lost task runs again");
        let after = again.start.saturating_duration_since(lost_at);
        assert!(after < again_after, "task {} started again after {after:?}", entry.task);
    }
    let pauses = w2.windows(2).map(|pair| pair[1].start - pair[0].start);
    assert!(pauses.clone().max().unwrap() < PAUSE_MAX, "the other worker paused for {:?}", pauses.max());
}

fn doubled(count: u32) -> Vec<u32> {
    (0..count).map(|number| 2 * number).collect()
}
