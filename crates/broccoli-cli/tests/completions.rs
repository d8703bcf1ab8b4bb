//! The completions that a shell gets when the user presses the tab key.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use support::{Home, becomes, finish};
use tokio::process::Command;

/// Completes the last word, as the script for bash does.
async fn completed(mut command: Command, words: &[&str]) -> Vec<String> {
    command.arg("--").arg("broccoli").args(words);
    command.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", words.len().to_string());
    command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "false");
    let ended = finish(command).await;
    assert_eq!(ended.stderr, "");
    ended.ok().split('\n').filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

on_both_servers! {
    async fn functions_nodes_and_jobs_are_completed(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let _node = cluster.node("pi-2", &["--label", "room=kitchen"]).await;
        // A busy machine may not answer in time. Then nothing is completed.
        let complete = async |words: &[&str], expected: &[&str]| {
            let expected: Vec<String> = expected.iter().map(|word| (*word).to_owned()).collect();
            becomes(expected, async || completed(cluster.command(&[]), words).await).await;
        };
        complete(&["call", "a"], &["add"]).await;
        complete(&["call", "sys.p"], &["sys.ping"]).await;
        complete(&["drain", "pi-"], &["pi-1", "pi-2"]).await;
        complete(&["call", "add", "--on", "ro"], &["room=kitchen"]).await;

        let failed = cluster.run(&["run", "--detach", "fail.s('x')"]).await.ok();
        cluster.run(&["result", failed.trim(), "--wait"]).await;
        let waits = cluster.run(&["run", "--detach", "add.s(1, 2).set(on='nowhere')"]).await.ok();
        let (failed, waits) = (failed.trim(), waits.trim());
        complete(&["retry", "pi-1/"], &[failed]).await;
        complete(&["revoke", "pi-1/"], &[waits]).await;
        complete(&["result", "pi-1/"], &[failed, waits]).await;
        // Flags and commands.
        complete(&["comp"], &["completions"]).await;
    }
}

#[tokio::test]
async fn without_a_cluster_there_is_silence_at_once() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    // A server that accepts connections and sends nothing.
    let silent = std::net::TcpListener::bind(support::free_addr()).unwrap();
    let url = format!("mqtt://{}", silent.local_addr().unwrap());
    let begun = Instant::now();
    let mut command = home.command(&[]);
    command.env("BROCCOLI_SERVER", &url);
    let words = completed(command, &["drain", "pi"]).await;
    // The limit is 250 ms, but a busy machine may be slow.
    assert!(words.is_empty() && begun.elapsed() < Duration::from_secs(2), "{words:?} after {:?}", begun.elapsed());
    assert!(completed(Home::new().command(&[]), &["call", "a"]).await.is_empty());
}

#[tokio::test]
async fn each_shell_has_a_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Home::new().run(&["completions", shell]).await.ok();
        assert!(script.contains("COMPLETE") && script.contains("broccoli"), "{shell}: {script}");
    }
}
