//! The exit codes and their messages.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::TcpListener;

use support::{Cluster, Home, Process, free_addr, start_open_mosquitto};

on_both_servers! {
    async fn done_failed_and_timed_out(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        cluster.run(&["run", "add.s(1, 2)"]).await.ok();
        cluster
            .run(&["run", "group(add.s(1, 2), fail.s('no bread'))"])
            .await
            .fails(1, "error: tasks.fail: no bread (step 2, attempt 1 on pi-1, member 1)\n");
        let late = cluster.run(&["run", "sleep_ms.s(60000, 1)", "--timeout", "300ms"]).await;
        assert_eq!((late.code, late.stdout.as_str()), (Some(4), ""));
        let told = late.stderr.strip_prefix("error: no result within 300ms: job pi-1/").expect(&late.stderr);
        assert!(told.ends_with(" continues; get its result with `broccoli result ID`\n"), "{told}");
        let late = cluster.run(&["run", "sleep_ms.s(60000, 1).delay().get(timeout=0.2)"]).await;
        assert!(late.stderr.starts_with("error: no result within 200ms: "), "{}", late.stderr);
    }

    async fn ctrl_c_and_timeout_cancel_the_job(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        // `timeout` of the shell sends SIGTERM.
        for signal in ["INT", "TERM"] {
            let mut run = Process::start(&mut cluster.command(&["-v", "run", "sleep_ms.s(60000, 1)"]));
            run.note("DEBUG attached").await;
            run.note("DEBUG job submitted").await;
            run.signal(signal).await;
            let ended = run.end().await;
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""), "{signal}");
            assert!(ended.stderr.ends_with("error: interrupted: the job is cancelled\n"), "{signal}: {}", ended.stderr);
        }
        // Both slots are free again, and the origin holds nothing.
        cluster.run(&["run", "group(sleep_ms.s(1, 1), sleep_ms.s(1, 2))", "--timeout", "10s"]).await.ok();
        let nodes: serde_json::Value = serde_json::from_str(&cluster.run(&["nodes", "--json"]).await.ok()).unwrap();
        assert_eq!((&nodes[0]["running"], &nodes[0]["jobs"]), (&0.into(), &0.into()), "{nodes}");
    }
}

#[tokio::test]
async fn wrong_use_is_found_without_a_cluster() {
    let home = Home::new();
    home.run(&["run", "add.s(1"]).await.fails(
        2,
        "error: line 1, column 6: `(` is never closed: expected `)` before the end of the text\n  add.s(1\n       ^\n",
    );
    home.run(&["run", "-f", "missing.txt"])
        .await
        .fails(2, "error: cannot read missing.txt: No such file or directory (os error 2)\n");
    let path = home.0.join(".config/broccoli/cluster.json");
    home.run(&["nodes"]).await.fails(
        2,
        &format!(
            "error: there is no {}: begin a cluster here with `broccoli up`, or join one with `broccoli node --join`\n",
            path.display()
        ),
    );
    home.run(&["nodes", "--cluster", "other.json"])
        .await
        .fails(2, "error: there is no other.json: begin a cluster here with `broccoli up`, or join one with `broccoli node --join`\n");
    let refused = home.run(&["nodes", "--server", "mqtts://host"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("mqtts:// is not supported; packets are sealed anyway, use mqtt://"),
        "{refused:?}"
    );
    let refused = home.run(&["run", "add.s(1, 2)", "--timeout", "30"]).await;
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("add a unit: 30s, 30ms, 30m, 30h or 30d"), "{refused:?}");
    home.run(&["node", "--join", "nonsense"])
        .await
        .fails(2, "error: this is not a join token: `broccoli token` prints one where the cluster runs\n");
}

#[tokio::test]
async fn wrong_use_is_found_before_the_call() {
    let cluster = Cluster::embedded().await;
    cluster
        .run(&["run", "add.s(1, 2)"])
        .await
        .fails(2, "error: no function add: nothing is deployed yet (broccoli deploy --examples)\n");
    let cluster = cluster.with_examples().await;
    for (text, meant) in [
        ("ad.s(1, 2)", "ad: did you mean add?"),
        ("group(add.s(1, 2), mlu.s(2, 3))", "mlu: did you mean mul?"),
        ("add.s(1, 2).link(tasks.emul.s(1))", "tasks.emul: did you mean tasks.mul?"),
        ("other.add.s(1, 2)", "other.add: did you mean tasks.add?"),
        ("sys.pong()", "sys.pong: did you mean sys.ping?"),
        ("add.mpa([1])", "add.mpa: did you mean the method add.map(…)?"),
        ("print('a')", "print: `print` is not needed: the result of the last line is printed"),
        ("frobnicate(1)", "frobnicate: `broccoli functions` lists the 14 that are deployed"),
    ] {
        cluster.run(&["run", text]).await.fails(2, &format!("error: no function {meant}\n"));
    }
    let text = "add.s(1, 2).set(partial=True)";
    cluster.run(&["run", text]).await.fails(2, "error: option partial goes with each=True\n");
    cluster.run(&["run", "add.s(1, 'two')"]).await.fails(2, "error: tasks.add: argument y: expected num, got str\n");
}

#[tokio::test]
async fn no_server_is_said_at_once() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    let addr = free_addr();
    home.run(&["run", "add.s(1, 2)", "--server", &format!("mqtt://{addr}")]).await.fails(
        3,
        &format!(
            "error: no MQTT server at mqtt://{addr} (connection refused): start one with `broccoli up`, \
             or name another with --server\n"
        ),
    );
}

#[tokio::test]
async fn a_server_without_nodes_is_said() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    let (_server, url) = start_open_mosquitto(&home);
    let cluster = home.cluster_file();
    let mut node = Process::start(&mut home.command(&["node", "--server", &url, "--slots", "1"]));
    node.line("ready  ").await;
    node.signal("TERM").await;
    assert_eq!(node.end().await.code, Some(0));
    home.run(&["nodes", "--server", &url]).await.fails(
        3,
        &format!(
            "error: no node of cluster {} answers on {url}: start one with `broccoli up` or `broccoli node`\n",
            cluster["cluster"].as_str().unwrap()
        ),
    );
}

#[tokio::test]
async fn a_wrong_password_is_said() {
    let cluster = Cluster::mosquitto().await;
    let url = cluster.url.replace("tester:", "tester:not-");
    let shown = format!("mqtt://{}", url.rsplit('@').next().unwrap());
    let stderr = format!(
        "error: {shown} refused the user or the password: use the cluster file of that server, \
         or give both with --server mqtt://user:password@host\n"
    );
    cluster.run(&["run", "add.s(1, 2)", "--server", &url]).await.fails(3, &stderr);
    cluster.run(&["node", "--name", "pi-2", "--server", &url]).await.fails(3, &stderr);
}

#[tokio::test]
async fn the_file_of_another_cluster_does_not_open_the_embedded_server() {
    let cluster = Cluster::embedded().await;
    cluster.run(&["init", "--out", "other.json"]).await.ok();
    let stderr = format!(
        "error: {} refused the user or the password: use the cluster file of that server, \
         or give both with --server mqtt://user:password@host\n",
        cluster.url
    );
    cluster.run(&["nodes", "--cluster", "other.json"]).await.fails(3, &stderr);
}

#[tokio::test]
async fn a_wrong_key_on_an_open_server_is_said_by_clients_and_nodes() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    home.run(&["init", "--out", "other.json"]).await.ok();
    // The same cluster id with another key, as an earlier cluster may leave it.
    let mut other: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(home.0.join("other.json")).unwrap()).unwrap();
    other["cluster"] = home.cluster_file()["cluster"].clone();
    home.write("other.json", other.to_string());
    let (_server, url) = start_open_mosquitto(&home);
    let mut node = Process::start(&mut home.command(&["node", "--name", "pi-1", "--server", &url]));
    node.line("ready  pi-1  ").await;

    let mut stranger =
        Process::start(&mut home.command(&["node", "--name", "pi-2", "--cluster", "other.json", "--server", &url]));
    stranger.note("cannot read this cluster's traffic: it is sealed with another key").await;
    // A client with its key would find this node.
    stranger.signal("TERM").await;
    stranger.end().await;
    home.run(&["nodes", "--cluster", "other.json", "--server", &url]).await.fails(
        3,
        "error: cannot read this cluster's traffic: it is sealed with another key; \
         use the cluster file or the token of that cluster\n",
    );
    // The cluster itself still works.
    let nodes = home.run(&["nodes", "--json", "--server", &url]).await.ok();
    assert!(nodes.contains("\"name\":\"pi-1\"") && !nodes.contains("pi-2"), "{nodes}");
}

#[tokio::test]
async fn a_taken_port_is_said_with_both_ways_out() {
    let home = Home::new();
    let listener = TcpListener::bind(free_addr()).unwrap();
    let addr = listener.local_addr().unwrap();
    let ended = home.run(&["up", "--listen", &addr.to_string()]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    let stderr = format!(
        "error: {addr} is taken: choose another address with --listen, or use the MQTT server that is there \
         with --server mqtt://USER:PASSWORD@{addr}\n"
    );
    assert!(ended.stderr.ends_with(&stderr), "{}", ended.stderr);
}

#[tokio::test]
async fn a_foreign_or_damaged_cluster_file_is_said() {
    let home = Home::new();
    for (text, why) in [
        ("{\"name\": 1}", "no \"cluster\""),
        ("{\"cluster\": \"c1\", \"key\": \"00\"}", "bad \"key\""),
        ("not json", "expected ident at line 1 column 2"),
    ] {
        let file = home.write("foreign.json", text);
        home.run(&["nodes", "--cluster", "foreign.json"]).await.fails(
            2,
            &format!("error: foreign.json is not a cluster file ({why}); `broccoli init --out FILE` makes one\n"),
        );
        std::fs::remove_file(file).unwrap();
    }
}

on_both_servers! {
    async fn a_taken_name_is_said_and_the_older_node_stays(cluster: Cluster) {
        cluster
            .run(&["node", "--name", "pi-1"])
            .await
            .fails(2, "error: another node of this cluster is called pi-1: choose another name with --name\n");
        let cluster = cluster.with_examples().await;
        assert_eq!(cluster.run(&["call", "add", "1", "2"]).await.ok(), "3\n");
    }
}
