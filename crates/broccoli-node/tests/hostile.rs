//! Hostile modules: their tasks fail with a complete error, and the node continues to work.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use broccoli_node::Limits;
use broccoli_node::{NodeHandle, RunLimits};
use broccoli_proto::{Cause, TaskError};
use support::PACKET_BYTES_MAX;
use support::cluster::*;

/// The limit of the worker, in bytes.
const RESULT_BYTES_MAX: u32 = 258_048;

/// The memory starts with the header of a byte string of 1 MiB.
const EXTRA: &str = r#"(import "broccoli" "sleep_ms" (func $sleep (param i32)))
    (data (i32.const 0) "\5a\00\10\00\00")
    (func $deep (call $deep))"#;

const TASKS: [(&str, &str, &str); 8] = [
    ("forever", "i64", "(loop (br 0)) (i64.const 0)"),
    ("asleep", "i64", "(loop (call $sleep (i32.const 60000)) (br 0)) (i64.const 0)"),
    ("bomb", "i64", "(loop (drop (memory.grow (i32.const 16))) (br 0)) (i64.const 0)"),
    ("deep", "i64", "(call $deep) (i64.const 0)"),
    ("outside", "i64", "(i64.const 0x7fffff00_00000009)"),
    ("trap", "i64", "(unreachable)"),
    ("huge", "bytes", "(i64.const 0x00000000_00100005)"),
    ("lie", "str", "(i64.const 0x00000001_00000001)"),
];

/// An origin, and one worker that has the hostile module and the examples.
async fn pair(cluster: &TestCluster, limits: RunLimits) -> (NodeHandle, NodeHandle) {
    let origin = cluster.node("origin").start().unwrap();
    let packet_bytes_max = PACKET_BYTES_MAX as u32;
    let results = Limits { packet_bytes_max, result_bytes_max: RESULT_BYTES_MAX, ..Limits::host() };
    let worker = cluster.node("w1").slots(1).limits(results).run_limits(limits).start().unwrap();
    until_workers(&origin, 1).await;
    cluster.deploy_examples(&origin).await;
    let wasm = hand_written(EXTRA, 20, &TASKS);
    let deployment = cluster.deploy(&origin, "evil", &wasm).await;
    assert_eq!(deployment.holders, [node_id("w1")], "{deployment:?}");
    (origin, worker)
}

/// Runs a hostile task, then a normal one in the same slot.
async fn fails(origin: &NodeHandle, source: &str) -> TaskError {
    let error = task_error(origin.submit(canvas(source))).await;
    assert_eq!((error.node, error.task, error.attempt), (Some(node_id("w1")), 0, 1), "{error}");
    assert!(error.function.starts_with("evil."), "{error}");
    assert_eq!(result::<i64>(origin.submit(canvas("add.s(2, 3)"))).await, 5);
    error
}

on_both_servers! {
    async fn a_task_that_breaks_the_rules_fails_alone(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster, RunLimits::default()).await;
        let cases = [
            ("bomb", "out of memory: it needs 17039360 bytes, this node gives 16777216"),
            ("deep", "stack overflow"),
            ("outside", "bad result: out of bounds"),
            ("trap", "trap: wasm `unreachable` instruction executed"),
            ("lie", "bad result: expected str, got int"),
            ("huge", "the result has 1048581 bytes, this node takes 258048; no live node that may run it is large enough"),
        ];
        for (function, text) in cases {
            let error = fails(&origin, &format!("evil.{function}.s()")).await;
            assert_eq!(error.text, text);
            let whole = format!("evil.{function}: {text} (step 0, attempt 1 on w1)");
            assert_eq!(error.to_string(), whole);
        }
        let error = task_error(origin.submit(canvas("evil.trap.chunks([(), ()], 1)"))).await;
        assert_eq!(error.text, "item 0: trap: wasm `unreachable` instruction executed");
    }

    async fn an_endless_task_is_stopped_by_its_timeout(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster, RunLimits::default()).await;
        for function in ["forever", "asleep"] {
            let error = fails(&origin, &format!("evil.{function}.s().set(timeout=0.2)")).await;
            assert_eq!((error.cause, error.text.as_str()), (Cause::TimedOut, "took longer than its timeout of 200 ms"));
        }
    }

    async fn an_endless_task_is_stopped_by_the_fuel_limit(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let (origin, _worker) = pair(&cluster, RunLimits { fuel_max: 3_000_000, ..RunLimits::default() }).await;
        let error = fails(&origin, "evil.forever.s()").await;
        assert_eq!(error.cause, Cause::Crashed);
        assert!(error.text.starts_with("out of fuel: used 3000"), "{error}");
    }

    async fn an_endless_task_is_stopped_by_the_time_limit(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let limits = RunLimits { time_max: Duration::from_millis(200), ..RunLimits::default() };
        let (origin, _worker) = pair(&cluster, limits).await;
        for function in ["forever", "asleep"] {
            let error = fails(&origin, &format!("evil.{function}.s()")).await;
            assert_eq!((error.cause, error.text.as_str()), (Cause::TimedOut, "ran longer than this node's limit of 0.2 s"));
        }
    }
}
