//! `up`: the file with its address, and where it prints the token.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::PathBuf;

use support::{Cluster, Home, Process, finish, free_addr};

/// The files that `up` has written for other commands.
fn left(home: &Home) -> Vec<PathBuf> {
    let files = std::fs::read_dir(home.0.join(".config/broccoli")).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.to_string_lossy().contains("cluster.json.up")).collect()
}

on_both_servers! {
    async fn other_commands_find_the_server_while_it_runs(cluster: Cluster) {
        let Cluster { home, up, mosquitto: _mosquitto, .. } = cluster;
        home.run(&["deploy", "--examples"]).await.ok();
        assert_eq!(home.run(&["call", "add", "1", "2"]).await.ok(), "3\n");
        let mut node = Process::start(&mut home.command(&["node", "--name", "pi-2"]));
        node.line("ready  pi-2  ").await;
        node.signal("TERM").await;
        node.end().await;

        up.signal("TERM").await;
        assert_eq!(up.end().await.code, Some(0));
        assert_eq!(left(&home), Vec::<PathBuf>::new());
    }

    async fn a_cluster_file_in_the_working_directory_will_do(cluster: Cluster) {
        let Cluster { home, up: _up, mosquitto: _mosquitto, .. } = cluster;
        let mut nodes = home.command(&["--cluster", "cluster.json", "nodes"]);
        nodes.current_dir(home.0.join(".config/broccoli"));
        assert!(finish(nodes).await.ok().contains("pi-1"));
    }

    async fn a_second_one_hides_the_first_from_nobody(cluster: Cluster) {
        let Cluster { home, up, mosquitto: _mosquitto, .. } = cluster;
        let mut second = Process::start(&mut home.command(&["up", "--name", "pi-2", "--listen", "127.0.0.1:0"]));
        second.note("warning: `broccoli up` already runs here, on mqtt://").await;
        second.line("ready  pi-2  ").await;
        let nodes = home.run(&["nodes"]).await.ok();
        assert!(nodes.contains("pi-1") && !nodes.contains("pi-2"), "{nodes}");
        up.signal("TERM").await;
        assert_eq!(up.end().await.code, Some(0));
        let nodes = home.run(&["nodes"]).await.ok();
        assert!(nodes.contains("pi-2") && !nodes.contains("pi-1"), "{nodes}");
        second.signal("TERM").await;
        assert_eq!(second.end().await.code, Some(0));
        assert_eq!(left(&home), Vec::<PathBuf>::new());
    }

    async fn what_a_killed_one_has_left_is_not_taken(cluster: Cluster) {
        let Cluster { home, up, url, mosquitto: _mosquitto, .. } = cluster;
        up.kill().await;
        assert_eq!(left(&home).len(), 1);
        let port = url.rsplit(':').next().unwrap();
        let told = home.run(&["nodes"]).await;
        assert!(told.code == Some(3) && !told.stderr.contains(port), "{}", told.stderr);
        assert!(told.stderr.contains("mqtt://127.0.0.1:1883"), "{}", told.stderr);
    }
}

#[tokio::test]
async fn the_file_is_private_and_of_its_cluster_only() {
    let cluster = Cluster::embedded().await;
    let path = left(&cluster.home).remove(0);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // It does not count for another cluster that was created afterwards.
    for name in ["cluster.json", "cluster.json.deploy-key"] {
        std::fs::remove_file(path.with_file_name(name)).unwrap();
    }
    cluster.home.run(&["init"]).await.ok();
    let told = cluster.home.run(&["nodes"]).await;
    assert!(told.stderr.contains("mqtt://127.0.0.1:1883"), "{}", told.stderr);
}

#[tokio::test]
async fn the_command_line_wins_over_the_environment() {
    let home = Home::new();
    let addr = free_addr();
    let mut command = home.command(&["up", "--name", "pi-1", "--listen", &addr.to_string()]);
    let mut up = Process::start(command.env("BROCCOLI_SERVER", "mqtt://127.0.0.1:1"));
    up.note("--listen is given, so `up` ignores BROCCOLI_SERVER").await;
    assert!(up.line("ready  pi-1  ").await.ends_with(&addr.to_string()));
    let ended = home.run(&["up", "--listen", "127.0.0.1:0", "--server", "mqtt://127.0.0.1:1"]).await;
    assert!(ended.code == Some(2) && ended.stderr.contains("cannot be used with"), "{}", ended.stderr);
    let ended = home.run(&["--server", "mqtt://127.0.0.1:1", "up", "--listen", "127.0.0.1:0"]).await;
    assert!(
        ended.code == Some(2) && ended.stderr.contains("--listen cannot be used with --server"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn the_token_is_told_to_people_and_to_who_asks() {
    let home = Home::new();
    let mut up = Process::start(&mut home.command(&["up", "--name", "pi-1", "--slots", "1", "--listen", "0.0.0.0:0"]));
    up.line("ready  ").await;
    assert_eq!(
        up.line("").await,
        "join another machine:  run `broccoli node --join -` there and paste the output of `broccoli token`"
    );
    let token = home.run(&["token"]).await;
    assert_eq!(token.stderr, "");
    let token = token.ok().trim().to_owned();
    assert!(token.starts_with("broccoli-"));
    up.signal("TERM").await;
    let rest = up.end().await;
    assert!(!rest.stdout.contains(&token) && !rest.stderr.contains(&token), "{rest:?}");

    // On a terminal it prints the token, but not if other machines cannot use it.
    let line = format!("timeout -s INT 5 {} up --name pi-1 --listen 0.0.0.0:0", env!("CARGO_BIN_EXE_broccoli"));
    let mut command = tokio::process::Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("HOME", &home.0).env_remove("BROCCOLI_SERVER").kill_on_drop(true);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut up = Process::start(&mut command);
    let join = up.line("join another machine:  run `broccoli node --join -` there").await;
    assert!(join.contains(": broccoli-"), "{join}");
}

#[tokio::test]
async fn a_token_of_no_use_elsewhere_is_told_with_a_warning() {
    let home = Home::new();
    let mut up = Process::start(&mut home.command(&["up", "--name", "pi-1", "--listen", "127.0.0.1:0"]));
    up.line("ready  ").await;
    assert!(up.line("").await.starts_with("other machines cannot reach mqtt://127.0.0.1:"));
    let token = home.run(&["token"]).await;
    assert!(token.stderr.starts_with("this token works on this machine only"), "{}", token.stderr);
    let mut named = home.command(&["token", "--server", "mqtt://10.0.0.1:7"]);
    named.env_remove("BROCCOLI_SERVER");
    let named = finish(named).await;
    assert_eq!(named.stderr, "");
    let secrets = broccoli_node::Cluster::from_token(&named.ok()).unwrap();
    assert_eq!(secrets.server.unwrap().to_string(), "mqtt://10.0.0.1:7");
}
