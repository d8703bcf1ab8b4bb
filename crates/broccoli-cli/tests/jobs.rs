//! Jobs that outlive their client: they are detached, listed, followed, revoked and retried.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use serde_json::{Value, json};
use support::{Cluster, Home, PATIENCE, Process, finish, start_open_mosquitto};
use tokio::time::timeout;

/// Submits a detached job, and returns its id.
async fn detach(cluster: &Cluster, expression: &str) -> String {
    let out = cluster.run(&["run", "--detach", expression]).await.ok();
    out.strip_suffix('\n').unwrap().to_owned()
}

/// Waits until a job runs.
async fn until_running(cluster: &Cluster, id: &str) {
    let mut waits = Process::start(&mut cluster.command(&["-v", "result", id, "--wait"]));
    waits.note("DEBUG attached").await;
    waits.kill().await;
}

on_both_servers! {
    async fn a_detached_job_is_there_for_any_client(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let id = detach(&cluster, "chain(add.s(4, 4), mul.s(8), mul.s(10))").await;
        assert!(id.starts_with("pi-1/"), "{id}");
        assert_eq!(cluster.run(&["result", &id, "--wait"]).await.ok(), "640\n");
        // The result is kept for further requests.
        assert_eq!(cluster.run(&["result", &id]).await.ok(), "640\n");
        let shown: Value = serde_json::from_str(&cluster.run(&["result", &id, "--json"]).await.ok()).unwrap();
        let expected =
            json!({"id": id, "state": "succeeded", "result": 640, "error": null, "done": 3, "total": 3, "waits": null});
        assert_eq!(shown, expected);

        let out = cluster.run(&["run", "--detach", "--json", "add.s(1, 2)"]).await.ok();
        let other: Value = serde_json::from_str(&out).unwrap();
        let other = other["id"].as_str().unwrap();
        assert_eq!(cluster.run(&["result", other, "--timeout", "10s"]).await.ok(), "3\n");
    }

    async fn a_failed_job_is_tried_again_and_a_good_one_is_not(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let id = detach(&cluster, "fail.s('no bread')").await;
        let error = "error: tasks.fail: no bread (step 0, attempt 1 on pi-1)\n";
        cluster.run(&["result", &id, "--wait"]).await.fails(1, error);
        let again = cluster.run(&["retry", &id]).await.ok();
        assert_ne!(again.trim(), id);
        cluster.run(&["result", again.trim(), "--wait"]).await.fails(1, error);
        let shown = cluster.run(&["result", &id, "--json"]).await;
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(1), ""));
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!((&shown["state"], &shown["error"]), (&"failed".into(), &error[7..error.len() - 1].into()));
        assert_eq!((&shown["done"], &shown["total"]), (&1.into(), &1.into()));

        let good = detach(&cluster, "add.s(1, 2)").await;
        cluster.run(&["result", &good, "--wait"]).await.ok();
        cluster
            .run(&["retry", &good])
            .await
            .fails(2, &format!("error: nothing to try again: job {good} has succeeded\n"));
        cluster
            .run(&["revoke", &good])
            .await
            .fails(1, &format!("error: job {good} has already succeeded: nothing to revoke\n"));
    }

    async fn a_job_that_runs_is_pending_until_it_is_revoked(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let id = detach(&cluster, "sleep_ms.s(60000, 1)").await;
        cluster
            .run(&["result", &id])
            .await
            .fails(5, &format!("error: job {id} has not ended (0 of 1 tasks done): wait for it with --wait\n"));
        let shown = cluster.run(&["result", &id, "--json"]).await;
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(5), ""));
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        let expected =
            json!({"id": id, "state": "pending", "result": null, "error": null, "done": 0, "total": 1, "waits": null});
        assert_eq!(shown, expected);
        let late = format!("job {id} continues; get its result with `broccoli result ID`\n");
        cluster
            .run(&["result", &id, "--timeout", "200ms"])
            .await
            .fails(4, &format!("error: no result within 200ms: {late}"));
        cluster
            .run(&["retry", &id])
            .await
            .fails(2, &format!("error: nothing to try again: job {id} has not ended\n"));

        let mut waits = Process::start(&mut cluster.command(&["-v", "result", &id, "--wait"]));
        waits.note("DEBUG attached").await;
        assert_eq!(cluster.run(&["revoke", &id]).await.ok(), format!("job {id} is revoked\n"));
        let ended = waits.end().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        cluster.run(&["result", &id]).await.fails(1, &format!("error: job {id} was revoked\n"));
        let again = cluster.run(&["retry", &id]).await.ok();
        until_running(&cluster, again.trim()).await;
        cluster.run(&["revoke", again.trim()]).await.ok();
    }

    async fn waiting_for_a_job_leaves_it_alone(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let id = detach(&cluster, "sleep_ms.s(1500, 7)").await;
        let mut waits = Process::start(&mut cluster.command(&["-v", "result", &id, "--wait"]));
        waits.note("DEBUG attached").await;
        waits.signal("INT").await;
        let ended = waits.end().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""));
        assert!(ended.stderr.ends_with("error: interrupted: the job continues\n"), "{}", ended.stderr);
        assert_eq!(cluster.run(&["result", &id, "--wait"]).await.ok(), "7\n");
    }

    async fn unknown_is_not_pending(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let unknown = "error: pi-1 knows no job pi-1/0123456789abcdef: the id is wrong, or its result was forgotten\n";
        cluster.run(&["result", "pi-1/0123456789abcdef"]).await.fails(6, unknown);
        cluster.run(&["result", "pi-1/0123456789abcdef", "--wait"]).await.fails(6, unknown);
        cluster.run(&["revoke", "pi-1/0123456789abcdef"]).await.fails(6, unknown);
        let shown = cluster.run(&["result", "pi-1/0123456789abcdef", "--json"]).await;
        assert_eq!((shown.code, shown.stderr.as_str()), (Some(6), ""));
        assert!(shown.stdout.contains("\"state\":\"unknown\""), "{}", shown.stdout);
        let gone = "error: pi-9, which should hold job pi-9/0123456789abcdef, is offline: start it again, \
                    or check the id with `broccoli jobs`\n";
        for command in ["result", "revoke", "retry"] {
            cluster.run(&[command, "pi-9/0123456789abcdef"]).await.fails(3, gone);
        }
        let misused = cluster.run(&["result", "nonsense"]).await;
        assert_eq!(misused.code, Some(2));
        assert!(misused.stderr.contains("a job id looks like node/0123456789abcdef"), "{}", misused.stderr);
    }

    async fn jobs_are_listed_with_what_they_have_come_to(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let empty = cluster.run(&["jobs"]).await.ok();
        assert_eq!(empty, "no jobs: submit one with `broccoli run --detach`\n");
        assert_eq!(cluster.run(&["jobs", "--json"]).await.ok(), "[]\n");
        let good = detach(&cluster, "group(add.s(1, 2), add.s(3, 4))").await;
        cluster.run(&["result", &good, "--wait"]).await.ok();
        let bad = detach(&cluster, "fail.s('no bread')").await;
        assert_eq!(cluster.run(&["result", &bad, "--wait"]).await.code, Some(1));
        let out = cluster.run(&["run", "--detach", "--key", "nightly", "sleep_ms.s(60000, 1)"]).await.ok();
        let going = out.trim();
        until_running(&cluster, going).await;

        let mut jobs: Value = serde_json::from_str(&cluster.run(&["jobs", "--json"]).await.ok()).unwrap();
        for job in jobs.as_array_mut().unwrap() {
            let job = job.as_object_mut().unwrap();
            let (submitted, ended) = (job.remove("submitted_unix_ms").unwrap(), job.remove("ended_unix_ms").unwrap());
            assert!(submitted.as_u64().unwrap() > 1_700_000_000_000);
            assert!(ended.as_u64().is_none_or(|ended| ended >= submitted.as_u64().unwrap()));
        }
        let job = |id: &str, state: &str, name: &str, done: u32, total: u32, key: Value| {
            json!({"id": id, "state": state, "name": name, "done": done, "total": total, "key": key, "waits": null})
        };
        assert_eq!(
            jobs,
            json!([
                job(&good, "succeeded", "tasks.add", 2, 2, Value::Null),
                job(&bad, "failed", "tasks.fail", 1, 1, Value::Null),
                job(going, "running", "tasks.sleep_ms", 0, 1, "nightly".into()),
            ])
        );
        let table = cluster.run(&["jobs"]).await.ok();
        assert!(table.starts_with("ID  ") && table.lines().count() == 4, "{table}");
        cluster.run(&["revoke", going]).await.ok();
    }

    async fn a_job_that_waits_says_why_to_whoever_asks(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let why = "tasks.add waits: no live node has the label room=kitchn (1 node)";
        let id = detach(&cluster, "group(add.s(i, i) for i in range(100)).set(on='room=kitchn')").await;
        // The node knows the reason once it has heard of all live nodes.
        let told = async {
            loop {
                let jobs = cluster.run(&["jobs"]).await;
                if !jobs.stderr.is_empty() {
                    break jobs.stderr;
                }
            }
        };
        assert_eq!(timeout(PATIENCE, told).await.expect("it says so in time"), format!("{id}: {why}\n"));
        let pending = format!("error: job {id} has not ended (0 of 100 tasks done; {why}): wait for it with --wait\n");
        cluster.run(&["result", &id]).await.fails(5, &pending);
        let shown: Value = serde_json::from_str(&cluster.run(&["result", &id, "--json"]).await.stdout).unwrap();
        assert_eq!((&shown["waits"], &shown["state"]), (&why.into(), &"pending".into()));
        let mut run = Process::start(&mut cluster.command(&["run", "add.s(1, 2).set(countdown=60)"]));
        let note = run.note("tasks.add waits another").await;
        assert!(note == "tasks.add waits another 59s" || note == "tasks.add waits another 58s", "{note}");
        run.kill().await;
        // Tasks that never ran do not count as done.
        cluster.run(&["revoke", &id]).await.ok();
        let shown: Value = serde_json::from_str(&cluster.run(&["result", &id, "--json"]).await.stdout).unwrap();
        assert_eq!((&shown["state"], &shown["done"], &shown["total"]), (&"revoked".into(), &0.into(), &100.into()));
    }

    async fn retries_are_told_to_whoever_waits(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let ended = cluster.run(&["run", "fail.s('no bread').set(retries=1, backoff=0.2, jitter=False)"]).await;
        let note = "tasks.fail: no bread (step 0, attempt 1 on pi-1); retrying in 200ms\n";
        ended.fails(1, &format!("{note}error: tasks.fail: no bread (step 0, attempt 2 on pi-1)\n"));
    }

    async fn a_key_makes_one_job_of_many_submits(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let submit = ["run", "--detach", "--key", "report of today", "add.s(20, 22)"];
        let first = cluster.run(&submit).await.ok();
        assert_eq!(cluster.run(&submit).await.ok(), first);
        assert_eq!(cluster.run(&["run", "--key", "report of today", "add.s(20, 22)"]).await.ok(), "42\n");
        cluster
            .run(&["run", "--detach", "--key", "report of today", "add.s(20, 23)"])
            .await
            .fails(2, "error: the key was used for another canvas: take another key\n");
        let jobs: Value = serde_json::from_str(&cluster.run(&["jobs", "--json"]).await.ok()).unwrap();
        assert_eq!(jobs.as_array().unwrap().len(), 1, "{jobs}");
        let empty = cluster.run(&["run", "--key", "", "add.s(1, 2)"]).await;
        assert_eq!(empty.code, Some(2));
        assert!(empty.stderr.contains("a key has 1 to 128 bytes"), "{}", empty.stderr);
    }

    async fn a_key_stays_with_its_job_while_nodes_join_stall_and_die(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let second = cluster.node("pi-2", &["--slots", "1", "--data", "data-2"]).await;
        let submit = |key: String, again: bool| {
            let mut args = vec!["run", "--detach", "--key", key.as_str()];
            args.extend(again.then_some("--again"));
            args.push("fail.s('no bread')");
            finish(cluster.command(&args))
        };
        let keys: Vec<String> = (0..6).map(|number| format!("key {number}")).collect();
        let mut ids = Vec::new();
        for key in &keys {
            ids.push(submit(key.clone(), false).await.ok());
        }
        // A third node joins.
        let third = cluster.node("pi-3", &["--slots", "1", "--data", "data-3"]).await;
        for (key, id) in keys.iter().zip(&ids) {
            assert_eq!(submit(key.clone(), false).await.ok(), *id);
        }
        // Its job has failed, and `--again` runs it again.
        let again = submit(keys[0].clone(), true).await.ok();
        assert_ne!(again, ids[0]);
        assert_eq!(submit(keys[0].clone(), false).await.ok(), again);
        ids[0] = again;

        // The holder is stopped for three seconds: the result is the same job, or an error that the holder does not
        // answer.
        let unsure = "error: cannot be sure: pi-2, which may hold a job with this key, is not there; start it, or if it \
                      will not come back, `broccoli forget pi-2`, and submit again\n";
        second.signal("STOP").await;
        let resumes = async {
            tokio::time::sleep(std::time::Duration::from_secs(3)).await;
            second.signal("CONT").await;
        };
        let asks = async {
            let mut ended = Vec::new();
            for key in &keys[..3] {
                ended.push(submit(key.clone(), false).await);
            }
            ended
        };
        let ((), ended) = tokio::join!(resumes, asks);
        for (ended, id) in ended.into_iter().zip(&ids) {
            let is_same = (ended.code, &ended.stdout) == (Some(0), id);
            assert!(is_same || (ended.code, ended.stderr.as_str()) == (Some(7), unsure), "{ended:?}, not {id}");
        }

        // The holder is killed.
        second.kill().await;
        for (key, id) in keys.iter().zip(&ids) {
            if id.starts_with("pi-2/") {
                submit(key.clone(), false).await.fails(7, unsure);
            } else {
                assert_eq!(submit(key.clone(), false).await.ok(), *id);
            }
        }
        submit("new".into(), false).await.fails(7, unsure);
        assert_eq!(cluster.run(&["forget", "pi-2"]).await.ok(), "pi-2 is forgotten\n");
        submit("new".into(), false).await.ok();
        let there = "error: pi-3 is online: if it will not come back, stop it first with `broccoli drain pi-3`\n";
        cluster.run(&["forget", "pi-3"]).await.fails(2, there);
        drop(third);
    }

    async fn an_interrupt_ends_no_job_that_somebody_else_waits_for(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let run = ["-v", "run", "--key", "shared", "sleep_ms.s(3000, 7)"];
        let mut first = Process::start(&mut cluster.command(&run));
        first.note("DEBUG job submitted").await;
        let mut second = Process::start(&mut cluster.command(&run));
        second.note("DEBUG job submitted").await;
        first.signal("INT").await;
        let ended = first.end().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(130), ""));
        let told = "error: interrupted: the job continues, because others wait for it\n";
        assert!(ended.stderr.ends_with(told), "{}", ended.stderr);
        assert_eq!(second.end().await.stdout, "7\n");
    }
}

#[tokio::test]
async fn a_job_at_a_node_without_a_journal_is_announced_as_such() {
    let cluster = Cluster::mosquitto().await.with_examples().await;
    let _other = cluster.node("pi-2", &["--slots", "1"]).await;
    // It has the functions.
    assert_eq!(cluster.run(&["call", "--on", "pi-2", "add", "1", "2"]).await.ok(), "3\n");
    // The node with a journal is preferred if it answers in time. When it has left, the other node takes the job and
    // warns that it has no journal.
    cluster.up.signal("TERM").await;
    let ended = loop {
        let ended = cluster.run(&["run", "--detach", "add.s(1, 2)"]).await;
        if !ended.stdout.starts_with("pi-1/") {
            break ended;
        }
    };
    assert!(ended.stdout.starts_with("pi-2/"), "{ended:?}");
    assert_eq!(
        ended.stderr,
        "pi-2 has no journal: the job is lost if this node restarts; to prevent this, start a node with \
         `broccoli node --data DIR`\n"
    );
}

#[tokio::test]
async fn a_node_keeps_jobs_and_results_within_its_settings() {
    let home = Home::new();
    home.run(&["init"]).await.ok();
    let (_server, url) = start_open_mosquitto(&home);
    let settings = ["--name", "pi-1", "--slots", "1", "--queue-memory", "2K", "--keep-results", "3s", "--data", "data"];
    let mut node = Process::start(home.command(&["node"]).args(settings).env("BROCCOLI_SERVER", &url));
    node.line("ready  ").await;
    let command = |args: &[&str]| {
        let mut command = home.command(args);
        command.env("BROCCOLI_SERVER", &url);
        command
    };
    finish(command(&["deploy", "--examples"])).await.ok();

    let first = finish(command(&["run", "--detach", "sleep_ms.s(60000, 1)"])).await.ok();
    let mut second = Process::start(&mut command(&["run", "add.s(20, 22)"]));
    second.note("queue full at pi-1: waiting for room").await;
    finish(command(&["revoke", first.trim()])).await.ok();
    assert_eq!(second.end().await.ok(), "42\n");

    // The result is deleted soon after its time is over.
    let id = finish(command(&["run", "--detach", "add.s(1, 2)"])).await.ok();
    while finish(command(&["result", id.trim(), "--timeout", "10s"])).await.code == Some(0) {}
    let unknown = finish(command(&["result", id.trim(), "--json"])).await;
    assert_eq!(unknown.code, Some(6), "{unknown:?}");
}
