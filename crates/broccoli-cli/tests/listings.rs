//! `nodes` and `functions`, for people and for machines.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};

on_both_servers! {
    async fn nodes_are_listed_with_their_load(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let _node = cluster.node("pi-2", &["--slots", "3", "--label", "room=kitchen", "--label", "led"]).await;
        let mut nodes: Value = serde_json::from_str(&cluster.run(&["nodes", "--json"]).await.ok()).unwrap();
        let version = nodes[0]["modules"][0]["version"].clone();
        assert!(version.as_u64().is_some_and(|version| version > 1_700_000_000_000), "{nodes}");
        for node in nodes.as_array_mut().unwrap() {
            let node = node.as_object_mut().unwrap();
            assert!(node.remove("uptime_s").unwrap().as_u64().unwrap() < 60);
            assert!(node.remove("last_seen_s").unwrap().as_f64().unwrap() < 2.0);
            // The module may still be on its way to the younger node.
            node.remove("modules");
        }
        // A node whose process also runs the server has a label for it.
        let server: &[&str] = if cluster.mosquitto.is_some() { &[] } else { &["mqtt-server"] };
        let node = |name: &str, slots: u16, labels: &[&str]| {
            json!({
                "name": name, "state": "live", "slots": slots, "resident": true, "labels": labels,
                "version": env!("CARGO_PKG_VERSION"), "running": 0, "queued": 0, "jobs": 0, "waiting": 0, "tasks_run": 0,
                "waits_for": null,
            })
        };
        assert_eq!(nodes, json!([node("pi-1", 2, server), node("pi-2", 3, &["room=kitchen", "led"])]));
    }

    async fn functions_are_listed_with_their_types(cluster: Cluster) {
        let empty = cluster.run(&["functions"]).await;
        assert_eq!(empty.stderr, "nothing is deployed: try `broccoli deploy --examples` or `broccoli deploy DIR`\n");
        let lines: Vec<&str> = empty.stdout.lines().collect();
        assert_eq!(lines.len(), 8);
        assert!(lines[1].starts_with("board.blink(times: u32, period_ms: u32) -> !null  -        Blinks"), "{}", lines[1]);
        let cluster = cluster.with_examples().await;
        let functions: Value = serde_json::from_str(&cluster.run(&["functions", "--json"]).await.ok()).unwrap();
        let functions = functions.as_array().unwrap();
        let names: Vec<&str> = functions.iter().map(|function| function["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "board.blink", "board.gpio_read", "board.gpio_write",
                "sys.info", "sys.ping", "sys.reboot", "sys.vitals",
                "tasks.add", "tasks.concat", "tasks.echo", "tasks.fail", "tasks.fib", "tasks.identity", "tasks.mapper",
                "tasks.mul", "tasks.primes", "tasks.sleep_ms", "tasks.spin", "tasks.sub", "tasks.tsum", "tasks.xsum",
            ]
        );
        let mut concat = functions[8].clone();
        assert!(concat.as_object_mut().unwrap().remove("version").unwrap().is_u64());
        let expected = json!({
            "name": "tasks.concat", "module": "tasks", "returns": "str", "doc": "Joins two texts.",
            "args": [{"name": "a", "type": "str"}, {"name": "b", "type": "str"}],
        });
        assert_eq!(concat, expected);
    }
}

#[tokio::test]
async fn a_task_that_waits_for_a_node_is_queued_where_its_job_is() {
    let cluster = support::Cluster::embedded().await.with_examples().await;
    cluster.run(&["run", "--detach", "add.s(1, 2).set(on='room=kitchen')"]).await.ok();
    let nodes = cluster.run(&["nodes"]).await.ok();
    let row = nodes.lines().nth(1).unwrap();
    assert!(row.starts_with("pi-1  live   2      0        1       1     "), "{nodes}");
}

#[tokio::test]
async fn tables_are_aligned() {
    let cluster = support::Cluster::embedded().await.with_examples().await;
    let nodes = cluster.run(&["nodes"]).await.ok();
    let (headings, rows) = nodes.split_once('\n').unwrap();
    assert_eq!(headings, "NAME  STATE  SLOTS  RUNNING  QUEUED  JOBS  UP  SEEN  LABELS       VERSION  MODULES");
    let start = "pi-1  live   2      0        0       0     ";
    let end = format!("  mqtt-server  {:7}  tasks@20", env!("CARGO_PKG_VERSION"));
    assert!(rows.starts_with(start) && rows.contains(&end), "{rows}");
    // The version is the time of the deployment.
    let version = rows.trim().rsplit('@').next().unwrap();
    assert!(version.len() == 17 && version.ends_with('Z') && version.contains('T'), "{version}");

    let functions = cluster.run(&["functions"]).await.ok();
    let lines: Vec<&str> = functions.lines().collect();
    let start = |line: &str| line.split("  ").next().unwrap().to_owned();
    assert_eq!((lines.len(), start(lines[8])), (22, "tasks.add(x: num, y: num) -> !num".into()));
    assert!(lines[8].ends_with("  Adds two numbers."), "{}", lines[8]);
}

#[tokio::test]
async fn a_reader_that_stops_reading_is_no_error() {
    let cluster = support::Cluster::embedded().await.with_examples().await;
    let mut command = cluster.command(&["functions"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
