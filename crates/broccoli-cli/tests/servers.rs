//! Messages about MQTT servers: how to name one, what is wrong with one, and that one is full.
#![cfg(feature = "embedded-server")]
// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Stdio;

use support::{Home, Process, free_addr, start_open_mosquitto_with};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

#[tokio::test]
async fn up_listens_where_a_name_says() {
    let home = Home::new();
    let mut up = Process::start(&mut home.command(&["up", "--name", "pi-1", "--listen", "localhost:0"]));
    let ready = up.line("ready  pi-1  ").await;
    let url = ready.rsplit("  ").next().unwrap();
    assert!(url.starts_with("mqtt://127.0.0.1:"), "{ready}");
    let named = url.replace("mqtt://127.0.0.1", "localhost");
    assert!(home.run(&["nodes", "--server", &named]).await.ok().contains("pi-1"));
}

#[tokio::test]
async fn an_address_that_is_none_gets_an_example() {
    let home = Home::new();
    for (address, why) in [
        ("here", "unknown host here"),
        (":1883", "not an address to listen on"),
        ("0.0.0.0:port", "not an address to listen on"),
    ] {
        let refused = home.run(&["up", "--listen", address]).await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(refused.stderr.contains("0.0.0.0:1883 (every network) or localhost:1884"), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn a_wrong_server_is_refused_without_its_password() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    for wrong in [
        "mqtts://me:geheim@host",
        "mqtt://me:geheim",
        "mqtt://me:geheim@host:port",
        "mqtt://me:geheim@host/path",
        "mqtt://me:%geheim@host",
        "http://me:geheim@host",
        "mqtt://host/geheim",
    ] {
        for command in ["nodes", "up"] {
            let refused = home.run(&[command, "--server", wrong]).await;
            assert_eq!(refused.code, Some(2), "{wrong}: {refused:?}");
            assert!(!refused.stderr.contains("geheim"), "{wrong}: {}", refused.stderr);
            assert!(refused.stderr.contains("--server"), "{wrong}: {}", refused.stderr);
        }
        let mut command = home.command(&["nodes"]);
        command.env("BROCCOLI_SERVER", wrong);
        let refused = support::finish(command).await;
        assert_eq!(refused.code, Some(2), "{wrong}: {refused:?}");
        assert!(!refused.stderr.contains("geheim"), "{wrong}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn what_is_no_mqtt_server_is_called_that() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    for answer in [&b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n"] {
        let listener = TcpListener::bind(free_addr()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut connect = [0; 16];
            stream.read_exact(&mut connect).await.unwrap();
            stream.write_all(answer).await.unwrap();
        });
        home.run(&["nodes", "--server", &format!("{addr}")]).await.fails(
            3,
            &format!("error: mqtt://{addr} is not an MQTT server: give the host and port of one with --server\n"),
        );
        server.await.unwrap();
    }
}

/// For example a web server, which waits for a line, or a stopped process.
#[tokio::test]
async fn what_takes_connections_and_says_nothing_is_called_that() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    let listener = TcpListener::bind(free_addr()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let told = home.run(&["nodes", "--server", &addr.to_string()]).await;
    assert_eq!(told.code, Some(3));
    let answers = format!("mqtt://{addr} does not answer as an MQTT server does");
    let no_answer = format!("no MQTT server at mqtt://{addr} (no answer within 5s)");
    assert!(told.stderr.contains(&answers) || told.stderr.contains(&no_answer), "{}", told.stderr);
}

#[tokio::test]
async fn a_full_server_is_said_by_commands_and_once_by_itself() {
    let home = Home::new();
    let args = ["up", "--name", "pi-1", "--listen", "127.0.0.1:0", "--clients", "2"];
    let mut up = Process::start(&mut home.command(&args));
    let ready = up.line("ready  pi-1  ").await;
    let url = ready.rsplit("  ").next().unwrap().to_owned();
    let mut node = Process::start(&mut home.command(&["node", "--name", "pi-2", "--server", &url]));
    node.line("ready  pi-2  ").await;
    let full = format!(
        "error: the MQTT server {url} is full: it accepts no more nodes and commands; stop some, \
         or raise its limit (`broccoli up --clients N`)\n"
    );
    for _ in 0..3 {
        home.run(&["nodes", "--server", &url]).await.fails(3, &full);
    }
    node.signal("TERM").await;
    assert_eq!(node.end().await.code, Some(0));
    home.run(&["nodes", "--server", &url]).await.ok();
    up.signal("TERM").await;
    let told = up.end().await.stderr;
    let once = "the MQTT server is full: it takes 2 nodes and commands at a time, and refuses more; raise that with \
                --clients\n";
    assert_eq!(told.matches("is full").count(), 1, "{told}");
    assert!(told.contains(once), "{told}");
}

#[tokio::test]
async fn a_system_with_few_files_is_said() {
    let home = Home::new();
    let mut command = Command::new("sh");
    let up = format!("ulimit -n 300; exec {} up --name pi-1 --listen 127.0.0.1:0", env!("CARGO_BIN_EXE_broccoli"));
    command.args(["-c", &up]).current_dir(&home.0).env("HOME", &home.0).env_remove("BROCCOLI_SERVER");
    command.env_remove("BROCCOLI_CLUSTER").env_remove("XDG_CONFIG_HOME").env_remove("XDG_DATA_HOME");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut up = Process::start(&mut command);
    let told = up.note("the MQTT server accepts ").await;
    assert_eq!(
        told,
        "the MQTT server accepts 44 nodes and commands, not 10000: a process may open only 300 files here; raise this \
         limit with `ulimit -Hn`, or with LimitNOFILE= in a systemd unit"
    );
    up.line("ready  pi-1  ").await;
}

#[tokio::test]
async fn a_server_that_delivers_nothing_is_said_with_the_topics_it_must_allow() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    let rules = home.write("rules", "topic deny #\n");
    let (_server, url) = start_open_mosquitto_with(&home, &format!("acl_file {rules}"));
    let cluster = home.cluster_file()["cluster"].as_str().unwrap().to_owned();
    let told = format!(
        "{url} accepts the connection but delivers nothing: check its access rules (ACL); user {cluster} must be \
         allowed to read and write broccoli/{cluster}/_all and broccoli/{cluster}/+/+"
    );
    let mut node = Process::start(&mut home.command(&["node", "--name", "pi-1", "--server", &url]));
    node.line("ready  pi-1  ").await;
    assert_eq!(node.note("mqtt://").await, told);
    home.run(&["nodes", "--server", &url]).await.fails(3, &format!("error: {told}\n"));

    // With these two rules it works.
    let rules =
        format!("user {cluster}\ntopic readwrite broccoli/{cluster}/_all\ntopic readwrite broccoli/{cluster}/+/+\n");
    let rules = home.write("good-rules", rules);
    let (_server, url) = start_open_mosquitto_with(&home, &format!("acl_file {rules}"));
    let mut node = Process::start(&mut home.command(&["node", "--name", "pi-1", "--server", &url]));
    node.line("ready  pi-1  ").await;
    assert!(home.run(&["nodes", "--server", &url]).await.ok().contains("pi-1"));
}

#[tokio::test]
async fn values_pass_a_server_that_drops_large_packets_without_a_word() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    let (_server, url) = start_open_mosquitto_with(&home, "message_size_limit 32768");
    let mut node = Process::start(&mut home.command(&["node", "--name", "pi-1", "--slots", "2", "--server", &url]));
    node.line("ready  pi-1  ").await;
    home.run(&["deploy", "--examples", "--server", &url]).await.ok();
    // The arguments and the result have more than 60 KB.
    let canvas = "chain(tsum.s(list(range(20000))), add.s(1))";
    assert_eq!(home.run(&["run", canvas, "--server", &url, "--timeout", "20s"]).await.ok(), "199990001\n");
    let canvas = "add.starmap(zip(range(20000), range(20000)))";
    let list = home.run(&["run", canvas, "--server", &url, "--timeout", "25s"]).await.ok();
    assert_eq!(list.matches(',').count(), 19_999);
    // Each node with a larger limit than the server reports it, and what it does about it.
    node.note("the MQTT server silently drops packets of more than 32768 bytes").await;
}
