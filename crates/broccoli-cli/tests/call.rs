//! `call`: arguments by the types of the function, and what does not fit them.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

on_both_servers! {
    async fn a_str_is_taken_as_it_is_and_everything_else_is_json(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        assert_eq!(cluster.run(&["call", "concat", "4", "\"x\""]).await.ok(), "\"4\\\"x\\\"\"\n");
        assert_eq!(cluster.run(&["call", "tasks.add", "4", "-5"]).await.ok(), "-1\n");
        assert_eq!(cluster.run(&["call", "add", "0.5", "1"]).await.ok(), "1.5\n");
        let json = r#"{"a": [1, 2.0, null, true, "ä"]}"#;
        assert_eq!(cluster.run(&["call", "identity", json]).await.ok(), format!("{json}\n"));
        assert_eq!(cluster.run(&["call", "tsum", "[1, 2, 3]", "--timeout", "20s"]).await.ok(), "6\n");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_said_before_anything_runs() {
    let cluster = support::Cluster::embedded().await.with_examples().await;
    let fails = async |args: &[&str], stderr: &str| cluster.run(args).await.fails(2, stderr);
    fails(&["call", "add", "1"], "error: tasks.add takes 2 arguments (x: num, y: num), got 1\n").await;
    fails(
        &["call", "add", "1", "two"],
        "error: tasks.add: argument y: expected num, got two, which is not JSON; a string is written '\"two\"'\n",
    )
    .await;
    fails(&["call", "spin", "-1"], "error: tasks.spin: argument n: expected u64, got -1\n").await;
}
