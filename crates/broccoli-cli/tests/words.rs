//! The output of the command: for wrong commands, on terminals, and with hostile text from others.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use support::{Home, finish};

/// Text that would clear a terminal, forge a line and change the direction of writing.
const HOSTILE: &str = "a\u{1b}[2J\r\nerror: forged\u{9b}31m\u{202e}";
/// The same text as it is shown.
const SHOWN: &str = r"a\u001b[2J\r\nerror: forged\u009b31m\u202e";

on_both_servers! {
    async fn nothing_from_the_cluster_commands_the_terminal(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let error = format!("error: tasks.fail: {SHOWN} (step 0, attempt 1 on pi-1)\n");
        cluster.run(&["call", "fail", HOSTILE, "--key", HOSTILE]).await.fails(1, &error);
        let jobs = cluster.run(&["jobs"]).await.ok();
        assert!(jobs.lines().count() == 2 && jobs.ends_with(&format!("  {SHOWN}\n")), "{jobs:?}");
        let id = jobs.lines().nth(1).unwrap().split(' ').next().unwrap().to_owned();
        cluster.run(&["result", &id]).await.fails(1, &error);

        // In JSON the text stays the same.
        let echoed = cluster.run(&["call", "echo", &serde_json::Value::from(HOSTILE).to_string()]).await.ok();
        assert_eq!(serde_json::from_str::<String>(&echoed).unwrap(), HOSTILE);
        let json = cluster.run(&["jobs", "--json"]).await.ok();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[0]["key"], HOSTILE);
        for output in [&echoed, &jobs] {
            assert!(output.trim_end_matches('\n').chars().all(|c| !c.is_control() || c == '\n'), "{output:?}");
        }
    }
}

#[tokio::test]
async fn labels_that_nobody_could_ask_for_are_refused() {
    let home = Home::new();
    for label in ["", "room=", "=kitchen", "my room", "room=a\nb", "a\u{1b}[2J"] {
        let ended = home.run(&["node", "--label", label]).await;
        assert_eq!(ended.code, Some(2), "{label:?}");
        let hint = "write it as led or room=kitchen: no spaces, no empty part, at most 64 bytes";
        assert!(
            ended.stderr.contains(hint) || ended.stderr.contains("a value is required"),
            "{label:?}: {}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn commands_of_other_programs_are_named_as_they_are_here() {
    let home = Home::new();
    for (name, here) in [
        ("cancel", "broccoli revoke"),
        ("ps", "broccoli jobs"),
        ("list", "broccoli functions"),
        ("status", "broccoli nodes"),
        ("worker", "broccoli node"),
        ("join", "broccoli node --join"),
        ("logs", "broccoli -v"),
    ] {
        let ended = home.run(&[name]).await;
        assert_eq!(ended.code, Some(2), "{name}");
        assert!(
            ended.stderr.contains(&format!("tip: `{here}")) || ended.stderr.contains(&format!("`{here}")),
            "{}",
            ended.stderr
        );
        assert!(!ended.stderr.contains("similar"), "{}", ended.stderr);
    }
    let nearly = home.run(&["nods"]).await;
    assert!(nearly.stderr.contains("'nodes'"), "{}", nearly.stderr);
}

#[tokio::test]
async fn variables_that_are_empty_are_not_set() {
    let cluster = support::Cluster::embedded().await.with_examples().await;
    let mut command = cluster.home.command(&["run", "add.s(1, 2)"]);
    command.env("BROCCOLI_SERVER", "").env("BROCCOLI_CLUSTER", "").env("BROCCOLI_JOIN", "");
    assert_eq!(finish(command).await.ok(), "3\n");
    let mut command = cluster.home.command(&["nodes"]);
    command.env("BROCCOLI_SERVER", "mqtts://host");
    let ended = finish(command).await;
    assert!(ended.code == Some(2) && ended.stderr.starts_with("error: BROCCOLI_SERVER: mqtts://"), "{}", ended.stderr);
    // Options that the environment sets are not required.
    let ended = cluster.run(&["run"]).await;
    assert!(ended.stderr.contains("Usage: broccoli run <EXPR>"), "{}", ended.stderr);
}

#[tokio::test]
async fn files_may_begin_with_the_mark_of_an_editor() {
    let cluster = support::Cluster::embedded().await.with_examples().await;
    cluster.home.write("canvas.py", "\u{feff}add.s(1, 2)\n");
    assert_eq!(cluster.run(&["run", "-f", "canvas.py", "--timeout", "1d"]).await.ok(), "3\n");
    let text = std::fs::read_to_string(cluster.home.0.join(".config/broccoli/cluster.json")).unwrap();
    cluster.home.write("marked.json", format!("\u{feff}{text}"));
    assert_eq!(cluster.run(&["call", "add", "1", "2", "--cluster", "marked.json"]).await.ok(), "3\n");
}

/// Runs `broccoli` on its own terminal. The output is in stdout.
async fn on_terminal(cluster: &support::Cluster, term: &str, args: &str) -> String {
    let line = format!("{} {args}", env!("CARGO_BIN_EXE_broccoli"));
    let mut command = tokio::process::Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("HOME", &cluster.home.0).env("BROCCOLI_SERVER", &cluster.url);
    command.env("TERM", term).env_remove("XDG_CONFIG_HOME").env_remove("BROCCOLI_CLUSTER").kill_on_drop(true);
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    // The terminal turns each line end into two characters.
    finish(command).await.ok().replace("\r\n", "\n")
}

#[tokio::test]
async fn a_dumb_terminal_is_told_nothing_but_text() {
    let cluster = support::Cluster::embedded().await.with_examples().await;
    let slow = "run 'group(sleep_ms.s(1300, 1), sleep_ms.s(1, 2))'";
    assert_eq!(on_terminal(&cluster, "dumb", slow).await, "[1, 2]\n");
    let drawn = on_terminal(&cluster, "xterm", slow).await;
    assert!(drawn.contains("\r[") && drawn.ends_with("[1, 2]\n"), "{drawn:?}");
}
