//! `demo`: shows everything, and leaves nothing behind.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Home, Process};

#[tokio::test]
async fn the_demo_shows_everything_and_leaves_nothing() {
    let home = Home::new();
    let shown = home.run(&["demo"]).await.ok();
    for part in ["3 nodes", "deploy", "640", "[4, 8]", "90", "[45, 4950]", "that 19, have 14, with 14", "broccoli up"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(std::fs::read_dir(&home.0).unwrap().count(), 0);
}

#[tokio::test]
async fn nodes_leave_when_their_parent_is_gone() {
    let cluster = support::Cluster::embedded().await;
    let mut command = cluster.command(&["node", "--name", "pi-2", "--attended"]);
    let mut node = Process::start(command.stdin(std::process::Stdio::piped()));
    node.line("ready  pi-2  ").await;
    node.close_input();
    assert_eq!(node.end().await.code, Some(0));
}
