//! Nodes that leave on purpose, as seen by operators and clients.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Cluster, Home, PATIENCE, Process, finish};
use tokio::time::timeout;

/// Longest time that anything waits because a node leaves.
const WAIT_MAX: Duration = Duration::from_millis(300);

/// Waits until a node runs this many tasks.
async fn until_running(cluster: &Cluster, name: &str, tasks: u64) {
    let running = async {
        loop {
            let nodes: Value = serde_json::from_str(&cluster.run(&["nodes", "--json"]).await.ok()).unwrap();
            let node = nodes.as_array().unwrap().iter().find(|node| node["name"] == name);
            if node.and_then(|node| node["running"].as_u64()) == Some(tasks) {
                return;
            }
        }
    };
    timeout(PATIENCE, running).await.expect("it runs tasks in time");
}

/// The fastest of five runs of a command.
async fn fastest(cluster: &Cluster, args: &[&str]) -> Duration {
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        cluster.run(args).await.ok();
        fastest = fastest.min(start.elapsed());
    }
    fastest
}

/// The states of all nodes except that of `up`, from `nodes`.
async fn states(cluster: &Cluster) -> Vec<(String, String)> {
    let nodes: Value = serde_json::from_str(&cluster.run(&["nodes", "--json"]).await.ok()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let states = nodes.as_array().unwrap().iter().map(|node| (text(&node["name"]), text(&node["state"])));
    states.filter(|(name, _)| name != "pi-1").collect()
}

on_both_servers! {
    async fn nodes_that_are_gone_are_shown_and_make_no_command_slow(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let commands: [&[&str]; 4] = [&["run", "add.s(1, 2)"], &["call", "add", "1", "2"], &["nodes"], &["jobs"]];
        let mut before = Vec::new();
        for command in commands {
            before.push(fastest(&cluster, command).await);
        }
        for name in ["left-1", "left-2", "left-3"] {
            let node = cluster.node(name, &[]).await;
            node.signal("TERM").await;
            assert_eq!(node.end().await.code, Some(0));
        }
        cluster.node("killed", &[]).await.kill().await;
        for (command, before) in commands.into_iter().zip(before) {
            let now = fastest(&cluster, command).await;
            assert!(now < 3 * before + Duration::from_millis(50), "{command:?} took {before:?}, now {now:?}");
        }
        let gone = [("killed", "gone"), ("left-1", "left"), ("left-2", "left"), ("left-3", "left")];
        assert_eq!(states(&cluster).await, gone.map(|(name, state)| (name.to_owned(), state.to_owned())));
        let table = cluster.run(&["nodes"]).await.ok();
        let line = table.lines().find(|line| line.starts_with("killed")).unwrap();
        assert!(line.starts_with("killed  gone   -      -        -       -     -   "), "{line}");
        let gone = "error: killed is already offline: if it will not come back, run `broccoli forget killed`\n";
        cluster.run(&["drain", "killed"]).await.fails(2, gone);
        let typed = cluster.run(&["forget", "kiled"]).await;
        assert!(typed.stderr.starts_with("no node kiled was online during the last day"), "{}", typed.stderr);
        let forgotten = cluster.run(&["forget", "killed"]).await;
        assert_eq!((forgotten.stdout.as_str(), forgotten.stderr.as_str()), ("killed is forgotten\n", ""));
        assert!(!cluster.run(&["nodes"]).await.ok().contains("killed"));
    }

    async fn a_node_that_is_told_to_end_finishes_its_tasks_and_gives_back_the_rest(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let mut worker = cluster.node("pi-2", &["--slots", "2"]).await;
        let mut run = Process::start(&mut cluster.command(&["-v", "run", "group(sleep_ms.s(400, i) for i in range(16))"]));
        run.note("DEBUG job submitted").await;
        until_running(&cluster, "pi-2", 2).await;
        worker.signal("TERM").await;
        let note = worker.note("draining").await;
        assert!(note.starts_with("draining: ") && note.ends_with("; a second signal stops the node at once"), "{note}");
        let told_at = Instant::now();
        assert_eq!(worker.end().await.code, Some(0));
        let took = told_at.elapsed();
        assert!(took < Duration::from_millis(400) + WAIT_MAX, "{took:?}");
        assert_eq!(run.end().await.ok(), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]\n");
    }

    async fn an_idle_node_leaves_at_once(cluster: Cluster) {
        for signal in ["INT", "HUP"] {
            let worker = cluster.node("pi-2", &["--slots", "2"]).await;
            worker.signal(signal).await;
            let told_at = Instant::now();
            let ended = worker.end().await;
            assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{signal}");
            assert!(told_at.elapsed() < WAIT_MAX, "{signal}: {:?}", told_at.elapsed());
        }
        assert!(!cluster.run(&["nodes"]).await.ok().contains("pi-2  live"));
    }

    async fn a_second_signal_ends_a_node_at_once_and_its_task_runs_elsewhere(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let mut worker = cluster.node("pi-2", &["--slots", "1", "--label", "led"]).await;
        let expression = "sleep_ms.s(3000, 5).set(on='led')";
        let mut run = Process::start(&mut cluster.command(&["-v", "run", expression]));
        run.note("DEBUG job submitted").await;
        until_running(&cluster, "pi-2", 1).await;
        let _other = cluster.node("pi-3", &["--slots", "1", "--label", "led"]).await;
        worker.signal("INT").await;
        worker.note("draining: 1 task is running").await;
        worker.signal("INT").await;
        let told_at = Instant::now();
        assert_eq!(worker.end().await.code, Some(0));
        assert!(told_at.elapsed() < WAIT_MAX, "{:?}", told_at.elapsed());
        assert_eq!(run.end().await.ok(), "5\n");
        let took = told_at.elapsed();
        assert!(took < Duration::from_secs(3) + 2 * WAIT_MAX, "{took:?}");
    }

    async fn a_node_that_drains_answers_and_takes_nothing_new(cluster: Cluster) {
        let mut cluster = cluster.with_examples().await;
        let id = cluster.run(&["run", "--detach", "sleep_ms.s(60000, 1)"]).await.ok();
        let id = id.trim();
        until_running(&cluster, "pi-1", 1).await;
        cluster.up.signal("TERM").await;
        let note = "draining: 1 task is running (tasks.sleep_ms); a second signal stops the node at once";
        assert_eq!(cluster.up.note("draining").await, note);
        let nodes = cluster.run(&["nodes"]).await;
        assert_eq!(nodes.stderr, "pi-1 is draining: 1 task is running (tasks.sleep_ms)\n");
        assert!(nodes.ok().lines().any(|line| line.starts_with("pi-1  draining  ")));
        let nodes: Value = serde_json::from_str(&cluster.run(&["nodes", "--json"]).await.ok()).unwrap();
        assert_eq!(nodes[0]["waits_for"], serde_json::json!({"tasks": ["tasks.sleep_ms"], "jobs": []}));
        assert!(cluster.run(&["jobs"]).await.ok().contains(id));
        assert_eq!(cluster.run(&["result", id]).await.code, Some(5));
        assert!(cluster.run(&["functions"]).await.ok().contains("tasks.add"));
        let nothing_new = "error: the only node, pi-1, is shutting down and takes no new jobs: start another node with \
                           `broccoli node`, or try again when pi-1 is back\n";
        cluster.run(&["run", "add.s(1, 2)"]).await.fails(3, nothing_new);
        cluster.run(&["call", "add", "1", "2"]).await.fails(3, nothing_new);
        let nobody = "error: no node takes modules, because all nodes are shutting down: start one with \
                      `broccoli node`\n";
        cluster.run(&["deploy", "--examples"]).await.fails(3, nobody);
        assert_eq!(cluster.run(&["revoke", id]).await.ok(), format!("job {id} is revoked\n"));
        assert_eq!(cluster.up.end().await.code, Some(0));
    }

    async fn a_node_is_drained_from_afar_and_says_who_asked(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let mut worker = cluster.node("pi-2", &["--slots", "1", "--label", "led"]).await;
        let mut run = Process::start(&mut cluster.command(&["-v", "run", "sleep_ms.s(1500, 5).set(on='led')"]));
        run.note("DEBUG job submitted").await;
        until_running(&cluster, "pi-2", 1).await;
        let late = cluster.run(&["drain", "pi-2", "--timeout", "10ms"]).await;
        assert_eq!(late.code, Some(4));
        let told = "error: pi-2 has not left within 10ms: it continues to drain\n";
        assert!(late.stderr.ends_with(told), "{}", late.stderr);
        let nodes = cluster.run(&["nodes"]).await.ok();
        assert!(nodes.lines().any(|line| line.starts_with("pi-2  draining  ")), "{nodes}");
        let drained = cluster.run(&["drain", "pi-2"]).await;
        assert_eq!((drained.code, drained.stdout.as_str()), (Some(0), "pi-2 has left\n"));
        assert!(drained.stderr.starts_with("pi-2 is draining: 1 task is running"), "{}", drained.stderr);
        let note = worker.note("draining, requested by ").await;
        assert!(note.contains(": 1 task is running"), "{note}");
        assert_eq!(worker.end().await.code, Some(0));
        assert_eq!(run.end().await.ok(), "5\n");
        cluster
            .run(&["drain", "pi-2"])
            .await
            .fails(2, "error: pi-2 is already offline: if it will not come back, run `broccoli forget pi-2`\n");
    }
}

#[tokio::test]
async fn a_node_is_drained_for_a_time_and_what_is_lost_is_named() {
    let cluster = Cluster::mosquitto().await.with_examples().await;
    let Cluster { home, url, up, mosquitto: _mosquitto, .. } = cluster;
    let run = async |args: &[&str]| finish(home.command(&[args, &["--server", &url]].concat())).await;
    let mut node = Process::start(&mut home.command(&["node", "--name", "pi-2", "--slots", "1", "--server", &url]));
    node.line("ready  ").await;
    let has_code = async {
        while !serde_json::from_str::<Value>(&run(&["nodes", "--json"]).await.ok()).unwrap()[1]["modules"]
            .as_array()
            .is_some_and(|modules| modules.iter().any(|module| module["name"] == "tasks"))
        {}
    };
    timeout(PATIENCE, has_code).await.expect("it gets the module in time");
    up.signal("TERM").await;
    assert_eq!(up.end().await.code, Some(0));
    let running = run(&["run", "--detach", "sleep_ms.s(60000, 1)"]).await.ok();
    let waiting = run(&["run", "--detach", "add.s(1, 2).set(on='room=kitchn')"]).await.ok();
    let (running, waiting) = (running.trim(), waiting.trim());
    assert!(running.starts_with("pi-2/"), "{running}");
    let is_told = async {
        loop {
            let jobs = run(&["jobs"]).await;
            if jobs.stdout.contains("running") && jobs.stderr.starts_with(waiting) {
                break;
            }
        }
    };
    timeout(PATIENCE, is_told).await.expect("one runs, and the other says why it does not");
    let started_at = Instant::now();
    let drained = run(&["drain", "pi-2", "--for", "1s"]).await;
    let took = started_at.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");
    let why = "tasks.add waits: no live node has the label room=kitchn (0 nodes)";
    let expected = format!(
        "pi-2 is draining: 1 task is running (tasks.sleep_ms), 2 jobs are held in memory ({running}: tasks.sleep_ms, \
         {waiting}: {why})\n\
         lost: job {running}: tasks.sleep_ms; pi-2 held it only in memory\n\
         lost: job {waiting}: {why}; pi-2 held it only in memory\n"
    );
    assert_eq!((drained.code, drained.stdout.as_str(), drained.stderr), (Some(0), "pi-2 has left\n", expected));
    let ended = node.end().await;
    assert_eq!(ended.code, Some(0));
    assert!(
        ended.stderr.contains(&format!("lost: job {running}: tasks.sleep_ms; with --data DIR")),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn draining_the_node_of_up_says_that_the_server_goes_with_it() {
    let cluster = Cluster::embedded().await;
    let drained = cluster.run(&["drain", "pi-1"]).await;
    assert_eq!((drained.code, drained.stdout.as_str()), (Some(0), "pi-1 has left\n"), "{}", drained.stderr);
    let note = "the MQTT server of this cluster runs in pi-1 and stops with it: the nodes reconnect when it is back\n";
    assert!(drained.stderr.starts_with(note), "{}", drained.stderr);
    assert_eq!(cluster.up.end().await.code, Some(0));
}

#[tokio::test]
async fn help_names_the_time_after_which_a_task_is_stopped() {
    let help = finish(Home::new().command(&["node", "--help"])).await.ok();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let limit = help.split("--time-limit").nth(1).unwrap_or_default();
    assert!(limit.contains("loops for ever") && limit.contains("[default: 1h]"), "{limit}");
}

#[tokio::test]
async fn a_drained_node_takes_no_jobs_and_clients_go_elsewhere() {
    let cluster = Cluster::mosquitto().await.with_examples().await;
    let _other = cluster.node("pi-2", &["--slots", "1", "--data", "pi-2"]).await;
    let id = cluster.run(&["run", "--detach", "sleep_ms.s(1500, 5)"]).await.ok();
    let leaves = if id.starts_with("pi-1/") { "pi-2" } else { "pi-1" };
    cluster.run(&["drain", leaves]).await.ok();
    assert_eq!(cluster.run(&["run", "add.s(1, 2)"]).await.ok(), "3\n");
    assert_eq!(cluster.run(&["result", id.trim(), "--wait"]).await.ok(), "5\n");
}

#[tokio::test]
async fn a_job_of_a_node_with_a_journal_goes_on_when_the_node_is_back() {
    let cluster = Cluster::mosquitto().await.with_examples().await;
    let id = cluster.run(&["run", "--detach", "chain(sleep_ms.s(1500, 4), add.s(1))"]).await.ok();
    assert!(id.starts_with("pi-1/"), "{id}");
    until_running(&cluster, "pi-1", 1).await;
    // The running task is finished; the next one stays in the journal.
    cluster.up.signal("TERM").await;
    let Cluster { home, url, up, mosquitto: _mosquitto, .. } = cluster;
    let ended = up.end().await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let mut again = Process::start(&mut home.command(&["up", "--name", "pi-1", "--slots", "1", "--server", &url]));
    again.line("ready  pi-1").await;
    let result = home.run(&["result", id.trim(), "--wait", "--server", &url]).await;
    assert_eq!(result.ok(), "5\n");
}
