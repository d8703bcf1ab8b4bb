//! Tasks that sleep use no CPU. Alone in its binary, because it measures the whole process.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::cluster::*;

/// Limit for all tests of this file together, because they may run at the same time.
const CPU_MAX: Duration = Duration::from_millis(300);

on_both_servers! {
    async fn sleeping_tasks_and_idle_nodes_cost_no_cpu(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let origin = cluster.node("origin").start().unwrap();
        let worker = cluster.node("w1").slots(4).start().unwrap();
        until_workers(&origin, 1).await;
        cluster.deploy_examples(&origin).await;
        let job = origin.submit(canvas("group(sleep_ms.s(1500, i) for i in range(8))"));
        until(&worker, |node| node.load.running == 4).await;
        let before = cpu_time();
        assert_eq!(result::<Vec<u32>>(job).await.len(), 8);
        let used = cpu_time() - before;
        assert!(used < CPU_MAX, "used {used:?} in about 3 s");
    }
}

/// CPU time of this process so far, from `/proc/self/stat`: ticks of 10 ms.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(10 * ticks)
}
