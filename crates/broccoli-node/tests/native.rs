//! Native functions over a real MQTT server: the smallest cluster there is.

mod support;

use broccoli_node::{Cluster, NodeHandle, text};
use support::TestServer;

#[test]
fn smoke() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let (cluster, _) = Cluster::generate().expect("random");
        let server = TestServer::embedded().await;
        let url = server.url();
        let node = |name: &str, slots| {
            NodeHandle::builder().cluster(cluster.clone()).server(url.clone()).name(name.parse().expect("name")).slots(slots)
                .function("add", |x: i64, y: i64| x + y)
                .function("tsum", |xs: Vec<i64>| xs.iter().sum::<i64>())
        };
        let origin = node("origin", 0).start().expect("start");
        let _w1 = node("w1", 1).start().expect("start");
        let _w2 = node("w2", 1).start().expect("start");
        let canvas = text::parse("chord(add.s(i, i) for i in range(10))(tsum.s())").expect("parses").canvas;
        let sum: i64 = origin.submit(canvas).get().await.expect("result");
        assert_eq!(sum, 90);
    });
}
