//! Values that are larger than any packet, between real nodes.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use broccoli_node::Limits;
use broccoli_node::NodeEvent;
use broccoli_proto::{Canvas, Cbor};
use support::cluster::*;

/// Longest time for a value of 64 MB there and back.
const LARGE_MAX: Duration = Duration::from_secs(20);

fn text(bytes: usize) -> String {
    let mut text: String = (0..bytes / 10 + 1).map(|at| format!("{at:10}")).collect();
    text.truncate(bytes);
    text
}

fn echo(text: &String) -> Canvas {
    Canvas::task("echo", Cbor::encode(&(text,)))
}

on_both_servers! {
    async fn a_value_of_64_mb_goes_to_a_worker_and_comes_back(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").start().unwrap();
        let _worker = cluster.node("w1").function("echo", |text: String| text).slots(1).start().unwrap();
        until_workers(&origin, 1).await;
        let text = text(64_000_000);
        let start = Instant::now();
        let mut job = origin.submit(echo(&text));
        let back: String = tokio::time::timeout(LARGE_MAX, job.get()).await.expect("it comes in time").unwrap();
        let took = start.elapsed();
        println!("64 MB there and back in {took:?}: {:.0} MB/s", 128.0 / took.as_secs_f64());
        assert!(back == text, "it comes back as it was");
    }

    async fn a_client_has_large_canvases_and_results(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let _pi = cluster.node("pi").function("echo", |text: String| text).resident(true).slots(1).start().unwrap();
        let client = cluster.node("client").start().unwrap();
        until_workers(&client, 1).await;
        let text = text(3_000_000);
        let back: String = result(client.submit_to_cluster(echo(&text))).await;
        assert!(back == text, "it comes back as it was");
    }

    async fn packets_are_as_small_as_the_server_needs_them(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let node = |name| cluster.node(name).limits(Limits::host());
        let mut origin = node("origin").start().unwrap();
        let mut events = origin.events();
        let _worker = node("w1").function("echo", |text: String| text).slots(1).start().unwrap();
        until_workers(&origin, 1).await;
        // It would fit into a packet, but not into one of the embedded server of these tests.
        let text = text(700_000);
        let back: String = result(origin.submit(echo(&text))).await;
        assert!(back == text, "it comes back as it was");
        let too_large = std::iter::from_fn(|| events.try_recv().ok()).find(|event| matches!(event, NodeEvent::Storage(_)));
        assert!(too_large.is_none(), "{too_large:?}");
    }
}
