//! The logs of nodes and commands: one line for each job and failed task, -v, -vv, BROCCOLI_LOG; and `broccoli why`.

mod support;

use support::{Cluster, Home, Process, becomes, finish, untimed};

/// The lines of a text that contain each of these parts.
fn lines<'t>(text: &'t str, parts: &[&str]) -> Vec<&'t str> {
    text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).collect()
}

/// A cluster with one node. `log` is its `BROCCOLI_LOG`, if set.
async fn cluster(log: Option<&str>, args: &[&str]) -> Cluster {
    let home = Home::new();
    let args = [&["up", "--name", "pi-1", "--slots", "2", "--listen", "127.0.0.1:0"], args].concat();
    let mut command = home.command(&args);
    match log {
        Some(log) => command.env("BROCCOLI_LOG", log),
        None => command.env_remove("BROCCOLI_LOG"),
    };
    let mut up = Process::start(&mut command);
    let ready = up.line("ready  pi-1  2 slots  ").await;
    let url = ready.rsplit("  ").next().expect("a server").to_owned();
    Cluster::of(home, url, up).await.with_examples().await
}

#[tokio::test]
async fn a_node_logs_each_job_and_each_failed_task_in_one_line() {
    let cluster = cluster(None, &[]).await;
    let id = cluster.run(&["run", "--detach", "chain(add.s(1, 2), mul.s(3))"]).await.ok().trim().to_owned();
    assert_eq!(cluster.run(&["result", "--wait", &id]).await.ok(), "9\n");
    let failed = cluster.run(&["run", "--detach", "add.s(9223372036854775807, 1)"]).await.ok().trim().to_owned();
    assert_eq!(cluster.run(&["result", "--wait", &failed]).await.code, Some(1));
    let ended = cluster.stop().await;
    let told = |parts: &[&str]| {
        let lines = lines(&ended.stderr, parts);
        let [line] = lines[..] else { panic!("{parts:?}: {}", ended.stderr) };
        line.to_owned()
    };
    let succeeded = told(&[&id]);
    assert!(succeeded.starts_with("INFO  job succeeded node=pi-1 job="), "{succeeded}");
    assert!(succeeded.contains(" function=tasks.add took_ms="), "{succeeded}");
    let task = told(&["task failed", &failed]);
    assert!(task.starts_with("WARN  task failed node=pi-1 peer=pi-1 job="), "{task}");
    assert!(task.contains(" step=0 attempt=1 function=tasks.add cause="), "{task}");
    told(&["WARN  job failed", &failed, "error="]);
    assert!(lines(&ended.stderr, &["DEBUG"]).is_empty(), "{}", ended.stderr);
    assert!(lines(&ended.stderr, &["connected"]).is_empty(), "{}", ended.stderr);
}

#[tokio::test]
async fn a_node_with_thousands_of_failed_tasks_logs_some_and_counts_the_others() {
    let cluster = cluster(None, &[]).await;
    // Each fails once, and is not tried again soon.
    let failing =
        "group(add.s(9223372036854775807, i).set(retries=1, backoff=600, jitter=False) for i in range(1, 2001))";
    let id = cluster.run(&["run", "--detach", failing]).await.ok().trim().to_owned();
    let why = async || cluster.run(&["why", &id]).await.ok().chars().take(40).collect::<String>();
    becomes("tasks.add, 2000 tasks at [0]: failed and".to_owned(), why).await;
    let ended = cluster.stop().await;
    let left_out: u64 = lines(&ended.stderr, &["INFO  too many", "lines left out", "node=pi-1"])
        .iter()
        .filter_map(|line| line.rsplit_once(" lines=")?.1.parse::<u64>().ok())
        .sum();
    let told = lines(&ended.stderr, &["WARN  task failed"]).len() as u64;
    assert!(told + left_out == 2_000 && told <= 200, "{told} and {left_out}: {}", ended.stderr);
}

#[tokio::test]
async fn v_adds_tasks_and_credit_and_vv_packets() {
    for (args, packets) in [(&["-v"][..], false), (&["-vv"], true)] {
        let cluster = cluster(Some("off"), args).await;
        let id = cluster.run(&["run", "--detach", "add.s(1, 2)"]).await.ok().trim().to_owned();
        assert_eq!(cluster.run(&["result", "--wait", &id]).await.ok(), "3\n");
        let ended = cluster.stop().await;
        for parts in [
            &["DEBUG job accepted", &id, "function=tasks.add tasks=1 peer="][..],
            &["DEBUG task leased", "peer=pi-1", &id, "step=0", "attempt=1"],
            &["DEBUG run begins", &id, "function=tasks.add"],
            &["DEBUG run has ended", &id, "failed=false"],
        ] {
            assert_eq!(lines(&ended.stderr, parts).len(), 1, "{parts:?}: {}", ended.stderr);
        }
        assert!(!lines(&ended.stderr, &["DEBUG credit given", "peer=pi-1"]).is_empty(), "{}", ended.stderr);
        assert_eq!(!lines(&ended.stderr, &["TRACE packet in"]).is_empty(), packets, "{}", ended.stderr);
    }
}

#[tokio::test]
async fn broccoli_log_chooses_targets_and_levels() {
    let cluster = cluster(Some("warn,broccoli::credit=debug"), &[]).await;
    let id = cluster.run(&["run", "--detach", "add.s(9223372036854775807, 1)"]).await.ok().trim().to_owned();
    assert_eq!(cluster.run(&["result", "--wait", &id]).await.code, Some(1));
    let ended = cluster.stop().await;
    assert_eq!(lines(&ended.stderr, &["task failed", &id]).len(), 1, "{}", ended.stderr);
    assert!(!lines(&ended.stderr, &["credit"]).is_empty(), "{}", ended.stderr);
    assert!(lines(&ended.stderr, &["job succeeded"]).is_empty(), "{}", ended.stderr);
    assert!(lines(&ended.stderr, &["run begins"]).is_empty(), "{}", ended.stderr);
    // An invalid value is reported before anything runs.
    let home = Home::new();
    let mut command = home.command(&["nodes"]);
    finish({
        command.env("BROCCOLI_LOG", "broccoli=loud");
        command
    })
    .await
    .fails(
        2,
        "error: BROCCOLI_LOG: cannot use \"broccoli=loud\": write a level (off, error, warn, info, debug or trace), or \
         targets with levels, such as broccoli=info,broccoli::task=debug\n",
    );
}

#[tokio::test]
async fn commands_log_only_if_they_are_asked() {
    let cluster = cluster(Some("off"), &[]).await;
    let mut quiet = cluster.command(&["run", "add.s(1, 2)"]);
    quiet.env_remove("BROCCOLI_LOG");
    let quiet = finish(quiet).await;
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("3\n", ""));
    let told = cluster.run(&["run", "-v", "add.s(1, 2)"]).await;
    assert_eq!(told.stdout, "3\n");
    assert_eq!(lines(&told.stderr, &["DEBUG job submitted", "job=pi-1/"]).len(), 1, "{}", told.stderr);
    assert_eq!(lines(&told.stderr, &["DEBUG attached", "peer=pi-1"]).len(), 1, "{}", told.stderr);
    assert!(told.stderr.lines().all(|line| untimed(line) != line), "each line has its time: {}", told.stderr);
}

#[tokio::test]
async fn why_says_for_each_waiting_task_what_it_waits_for() {
    let cluster = cluster(Some("off"), &[]).await;
    let canvas = "group(add.s(1, 2).set(on=\"led\"), add.s(1, 3).set(on=\"led\"), add.s(1, 4).set(countdown=600), \
                  chain(add.s(1, 5).set(on=\"room=attic\"), mul.s(2)))";
    let id = cluster.run(&["run", "--detach", canvas]).await.ok().trim().to_owned();
    let expected = "tasks.add, 2 tasks at [0]: waits: no live node has led (1 node)\n\
                    tasks.add at [2]: waits another 9m\n\
                    tasks.add at [3][0]: waits: no live node has the label room=attic (1 node)\n\
                    tasks.mul at [3][1]: waits for the steps before it\n";
    // The node must first be sure that it knows all nodes.
    becomes(expected.to_owned(), async || cluster.run(&["why", &id]).await.ok()).await;
    let json: serde_json::Value = serde_json::from_str(&cluster.run(&["why", "--json", &id]).await.ok()).expect("JSON");
    assert_eq!((json["id"].as_str(), json["groups"][0]["tasks"].as_u64()), (Some(id.as_str()), Some(2)));
    assert_eq!(json["groups"][2]["path"], serde_json::json!([3, 0]));
    cluster.run(&["revoke", &id]).await.ok();
    assert_eq!(
        cluster.run(&["why", &id]).await.ok(),
        format!("job {id} waits for nothing: see `broccoli result {id}`\n")
    );
    let unknown = format!("{}0", &id[..id.len() - 1]);
    let unknown = if unknown == id { format!("{}1", &id[..id.len() - 1]) } else { unknown };
    assert_eq!(cluster.run(&["why", &unknown]).await.code, Some(6));
}
