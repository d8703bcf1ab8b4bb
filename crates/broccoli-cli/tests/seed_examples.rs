//! Each example of Broccoli's first document runs as written there.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

#[path = "../../broccoli-node/tests/data/seed.rs"]
mod seed;
mod support;

use support::finish_with_input;

on_both_servers! {
    async fn each_example_runs_from_standard_input(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let examples = seed::examples();
        assert_eq!(examples.len(), 11);
        for example in examples {
            let ended = finish_with_input(cluster.command(&["run", "-"]), example.source).await;
            assert_eq!(ended.ok(), format!("{}\n", example.result), "{}", example.name);
            let printed = finish_with_input(cluster.command(&["run", "--print", "-"]), example.source).await;
            assert_eq!(printed.ok(), format!("{}\n", example.canvas), "{}", example.name);
        }
    }

    async fn a_file_and_an_argument_run_too(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let file = cluster.home.write("job.txt", "xs = [1, 2, 3]\nchord(add.s(x, x) for x in xs)(tsum.s())\n");
        assert_eq!(cluster.run(&["run", "-f", &file]).await.ok(), "12\n");
        assert_eq!(cluster.run(&["run", "chain(add.s(4, 4), mul.s(8), mul.s(10))"]).await.ok(), "640\n");
    }
}
