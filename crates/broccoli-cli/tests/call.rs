//! `call`: arguments by the types of the function, and the errors about wrong ones.
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
    fails(&["call", "add", "4", "x"], "error: tasks.add: y is a number, got x\n").await;
    fails(&["call", "spin", "-1"], "error: tasks.spin: n is a whole number, 0 or more, got -1\n").await;
    fails(
        &["call", "tsum", "1,2,3"],
        "error: tasks.tsum: numbers is a list of numbers, got 1,2,3; a list is written '[1,2,3]'\n",
    )
    .await;
    fails(&["call", "tsum", "1", "2"], "error: tasks.tsum: numbers is a list, write it as one argument: '[1,2]'\n")
        .await;
    fails(&["call", "ad", "1", "2"], "error: no function ad: did you mean add?\n").await;
}

on_both_servers! {
    async fn a_call_takes_the_options_of_a_job(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let _second = cluster.node("pi-2", &["--label", "room=kitchen"]).await;
        let failed = cluster.run(&["call", "fail", "no bread", "--on", "room=kitchen", "--retries", "1"]).await;
        let note = "tasks.fail: no bread (step 0, attempt 1 on pi-2); retrying now\n";
        failed.fails(1, &format!("{note}error: tasks.fail: no bread (step 0, attempt 2 on pi-2)\n"));
        let id = cluster.run(&["call", "add", "1", "2", "--detach", "--key", "sum"]).await.ok();
        let same = cluster.run(&["call", "add", "1", "2", "--detach", "--key", "sum"]).await.ok();
        assert_eq!(id, same);
        assert_eq!(cluster.run(&["result", id.trim(), "--wait"]).await.ok(), "3\n");
        let late = cluster.run(&["call", "add", "1", "2", "--on", "nowhere", "--timeout", "200ms"]).await;
        assert_eq!(late.code, Some(4), "{}", late.stderr);
        let wrong = cluster.run(&["call", "add", "1", "2", "--on", ""]).await;
        wrong.fails(2, "error: --on takes at most 16 nodes, labels or capabilities, none of them empty\n");
    }

    async fn a_result_that_json_cannot_express_is_shown_all_the_same(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let told = "the result holds an infinity, which JSON cannot express: texts such as \"Infinity\" stand for such numbers\n";
        let ended = cluster.run(&["run", "identity.s([{'a': float('inf')}, 1])"]).await;
        assert_eq!(ended.stderr, told);
        assert_eq!(ended.ok(), "[{\"a\": \"Infinity\"}, 1]\n");
        let id = cluster.run(&["run", "--detach", "identity.s(-float('inf'))"]).await.ok();
        let ended = cluster.run(&["result", id.trim(), "--wait", "--json"]).await;
        let json: serde_json::Value = serde_json::from_str(&ended.ok()).unwrap();
        assert_eq!(json["result"], "-Infinity");
    }
}
