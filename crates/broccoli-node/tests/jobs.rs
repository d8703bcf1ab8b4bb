//! Jobs by their id in the Rust API; nodes that leave; workers that reconnect.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use broccoli_node::Limits;
use broccoli_node::view::NodeView;
use broccoli_node::{Event, Job, JobError, JobHandle, JobStatus, JobUpdate, NodeEvent, NodeHandle, SubmitOptions};
use broccoli_proto::message::{JobState, Refusal};
use broccoli_proto::{Cause, Cbor, JobId};
use support::TempDir;
use support::cluster::*;
use support::proxy::Proxy;
use tokio::time::timeout;

/// Longest time that a client or task may wait because a node leaves.
const WAIT_MAX: Duration = Duration::from_millis(300);

/// A resident node with functions. One of them waits at a gate.
fn resident(cluster: &TestCluster, name: &str, gate: &Gate) -> NodeHandle {
    let node = cluster.node(name).resident(true).slots(2).function("wait", gate.task());
    let node = node.function("add", |x: i64, y: i64| x + y).function("inc", |x: i64| x + 1);
    node.function("fail", |why: String| Err::<i64, String>(why)).start().unwrap()
}

fn is_resident(node: &NodeView) -> bool {
    node.about.as_ref().is_some_and(|about| about.is_resident)
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(support::PATIENCE, work).await.expect("it comes in time")
}

/// Detaches a job, and returns its handle at another client.
async fn detached(cluster: &TestCluster, source: &str) -> (NodeHandle, Job) {
    let submitter = cluster.node("submitter").start().unwrap();
    let id =
        in_time(submitter.submit_with(canvas(source), SubmitOptions::default().detached()).accepted()).await.unwrap();
    in_time(submitter.leave()).await;
    let client = cluster.node("client").start().unwrap();
    let job = client.job(id);
    (client, job)
}

async fn until_ready(job: &Job) {
    in_time(async {
        while !job.ready().await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

on_both_servers! {
    async fn a_detached_job_is_asked_after_by_its_id(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let _origin = resident(&cluster, "origin", &gate);
        let (_client, job) = detached(&cluster, "group(add.s(20, 22), wait.s())").await;
        gate.until_waiting(1).await;
        assert!(!in_time(job.ready()).await.unwrap());
        in_time(async {
            while job.progress().await.unwrap() != Some((1, 2)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(in_time(job.state()).await.unwrap(), JobStatus::Pending { done: 1, total: 2 });
        gate.open();
        assert_eq!(in_time(job.get::<Vec<i64>>()).await.unwrap(), [42, 1]);
        // The result is kept, and can be read many times.
        assert_eq!(in_time(job.get::<Vec<i64>>()).await.unwrap(), [42, 1]);
        assert_eq!(in_time(job.progress()).await.unwrap(), None);
        assert!(in_time(job.ready()).await.unwrap());
        assert!(matches!(in_time(job.get::<String>()).await, Err(JobError::Type(_))));
    }

    async fn steps_have_parents_and_children(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let _origin = resident(&cluster, "origin", &gate);
        let source = "chain(add.s(1, 2), group(inc.s(), inc.s() | inc.s()), wait.si())";
        let (_client, job) = detached(&cluster, source).await;
        gate.until_waiting(1).await;
        let steps = in_time(job.children()).await.unwrap();
        assert_eq!(steps.len(), 3);
        assert_eq!(in_time(steps[0].get::<i64>()).await.unwrap(), 3);
        assert_eq!(in_time(steps[1].get::<Vec<i64>>()).await.unwrap(), [4, 5]);
        assert!(!in_time(steps[2].ready()).await.unwrap());
        assert!(in_time(steps[0].children()).await.unwrap().is_empty());
        let members = in_time(steps[1].children()).await.unwrap();
        assert_eq!(in_time(members[0].get::<i64>()).await.unwrap(), 4);
        assert_eq!((members[1].path(), members[1].id()), (&[1, 1][..], job.id()));

        let path = async |job: &Job| in_time(job.parent()).await.unwrap().map(|parent| parent.path().to_vec());
        assert_eq!(path(&job).await, Some(vec![1]), "what came before the last step");
        assert_eq!(path(&steps[2]).await, Some(vec![1]));
        assert_eq!(path(&steps[1]).await, Some(vec![0]));
        assert_eq!(path(&members[0]).await, Some(vec![0]), "what came before its group");
        assert_eq!(path(&members[1]).await, Some(vec![1, 1, 0]), "what came before the last step of a chain in it");
        assert_eq!(path(&steps[0]).await, None);
        assert!(matches!(in_time(members[0].children()).await, Ok(none) if none.is_empty()));
        gate.open();
        assert_eq!(in_time(job.get::<i64>()).await.unwrap(), 1);
        assert!(matches!(in_time(steps[0].state()).await, Err(JobError::NoStep(..))), "only the result is kept");
    }

    async fn a_job_is_revoked_and_tried_again_by_its_id(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let _origin = resident(&cluster, "origin", &gate);
        let (client, job) = detached(&cluster, "wait.s() | inc.s()").await;
        gate.until_waiting(1).await;
        assert!(matches!(in_time(job.retry()).await, Err(JobError::Refused(Refusal::NotRetriable(_)))));
        assert_eq!(in_time(job.revoke()).await.unwrap(), JobStatus::Revoked);
        assert_eq!(in_time(job.state()).await.unwrap(), JobStatus::Revoked);
        match in_time(job.get::<i64>()).await {
            Err(JobError::Revoked(error)) => assert_eq!(error.cause, Cause::Revoked),
            other => panic!("expected a revoked job, got {other:?}"),
        }
        gate.open();
        let again = in_time(job.retry()).await.unwrap();
        assert_ne!(again.id(), job.id());
        assert_eq!(in_time(again.get::<i64>()).await.unwrap(), 2);
        assert_eq!(in_time(again.revoke()).await.unwrap(), JobStatus::Succeeded(Cbor::encode(&2)));
        let refused = in_time(again.retry()).await.unwrap_err().to_string();
        assert_eq!(refused, format!("nothing to try again: job {} has succeeded", again.id()));

        let listing = in_time(client.jobs(Duration::from_secs(5))).await;
        assert!(listing.silent.is_empty(), "{:?}", listing.silent);
        let states: Vec<_> = listing.jobs[&node_id("origin")].iter().map(|job| (job.id.number, job.state)).collect();
        assert_eq!(states, [(job.id().number, JobState::Revoked), (again.id().number, JobState::Succeeded)]);
    }

    async fn pending_never_means_unknown(server: TestServer) {
        let (cluster, gate, proxy) = (TestCluster::new(&server), Gate::default(), Proxy::new(&server).await);
        let origin = cluster.node("origin").server(proxy.url()).resident(true).slots(1).function("wait", gate.task());
        let _origin = origin.start().unwrap();
        let (client, job) = detached(&cluster, "wait.s()").await;
        gate.until_waiting(1).await;
        assert!(matches!(in_time(job.state()).await, Ok(JobStatus::Pending { .. })));
        let stranger = client.job(JobId { number: job.id().number + 1, ..job.id() });
        assert!(matches!(in_time(stranger.state()).await, Err(JobError::Unknown(_))));
        assert!(matches!(in_time(stranger.get::<u32>()).await, Err(JobError::Unknown(_))));
        // If the origin does not answer, the state is not known.
        proxy.cut();
        assert!(matches!(in_time(job.state()).await, Err(JobError::NoAnswer(node)) if node == node_id("origin")));
        let waiting = tokio::spawn({
            let job = job.clone();
            async move { job.get::<u32>().await }
        });
        gate.open();
        proxy.heal();
        assert_eq!(in_time(waiting).await.unwrap().unwrap(), 1);
    }

    async fn a_revoke_survives_a_restart(server: TestServer) {
        let (cluster, data) = (TestCluster::new(&server), TempDir::new());
        let gate = Gate::default();
        let origin = || {
            let node = cluster.node("origin").resident(true).slots(1).data(data.0.clone());
            let (node, driver) = node.function("wait", gate.task()).build().unwrap();
            (node, tokio::spawn(driver.run()))
        };
        let (_before, life) = origin();
        let (_client, job) = detached(&cluster, "wait.s()").await;
        gate.until_waiting(1).await;
        assert_eq!(in_time(job.revoke()).await.unwrap(), JobStatus::Revoked);
        // Like a power cut: what the client was told must be on the disk.
        life.abort();
        assert!(life.await.unwrap_err().is_cancelled());
        gate.open();
        let (_after, _life) = origin();
        assert_eq!(in_time(async {
            loop {
                match job.state().await {
                    Err(JobError::NoAnswer(_)) => {}
                    state => break state.unwrap(),
                }
            }
        }).await, JobStatus::Revoked);
    }

    async fn a_full_queue_lets_its_clients_wait(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let limits = Limits { jobs_max: 3, ..Limits::host() };
        let origin = cluster.node("origin").resident(true).slots(2).function("inc", |x: u32| x + 1);
        let _origin = origin.limits(limits).start().unwrap();
        let client = cluster.node("client").start().unwrap();
        let jobs: Vec<JobHandle> = (0..100).map(|x| client.submit_to_cluster(canvas(&format!("inc.s({x})")))).collect();
        for (x, job) in jobs.into_iter().enumerate() {
            assert_eq!(result::<u32>(job).await, x as u32 + 1);
        }
    }

    async fn clients_are_told_once_that_they_wait(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let limits = Limits { jobs_max: 1, ..Limits::host() };
        let origin = cluster.node("origin").resident(true).slots(1).function("wait", gate.task());
        let _origin = origin.limits(limits).start().unwrap();
        let client = cluster.node("client").start().unwrap();
        let first = client.submit_to_cluster(canvas("wait.s()"));
        gate.until_waiting(1).await;
        let mut second = client.submit_to_cluster(canvas("wait.s()"));
        assert!(matches!(in_time(second.next()).await, Some(JobUpdate::QueueFull(node)) if node == node_id("origin")));
        gate.open();
        result::<u32>(first).await;
        assert!(matches!(in_time(second.next()).await, Some(JobUpdate::Accepted(_))), "the next news is good");
        result::<u32>(second).await;
    }

    async fn a_key_is_one_job_whoever_submits_it(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let _origins = ["o1", "o2", "o3"].map(|name| resident(&cluster, name, &gate));
        let mut ids = Vec::new();
        for name in ["a", "b", "c"] {
            let client = cluster.node(name).start().unwrap();
            // All clients know the same nodes.
            until(&client, |view| view.nodes.iter().filter(|node| node.is_online() && is_resident(node)).count() == 3).await;
            let mut job = client.submit_with(canvas("add.s(2, 3)"), SubmitOptions::default().key("sum"));
            ids.push(in_time(job.accepted()).await.unwrap());
            assert_eq!(in_time(job.get::<i64>()).await.unwrap(), 5);
        }
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    async fn a_draining_node_ends_with_its_tasks(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let origin = cluster.node("origin").function("wait", gate.task()).start().unwrap();
        let worker = cluster.node("w1").slots(1).function("wait", gate.task()).start().unwrap();
        until_workers(&origin, 1).await;
        let job = origin.submit(canvas("wait.s()"));
        gate.until_waiting(1).await;
        let drained = tokio::spawn(worker.drain());
        // It gets no more tasks: it has announced that it has no slots.
        until_workers(&origin, 0).await;
        let _other = cluster.node("w2").slots(1).function("wait", || 7_u32).start().unwrap();
        assert_eq!(result::<u32>(origin.submit(canvas("wait.s()"))).await, 7);
        assert!(!drained.is_finished(), "it waits for its task");
        gate.open();
        assert_eq!(result::<u32>(job).await, 1);
        in_time(drained).await.unwrap();
    }

    async fn what_a_draining_node_cannot_finish_is_handed_back(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let origin = cluster.node("origin").function("wait", gate.task()).start().unwrap();
        let worker = cluster.node("w1").slots(1).function("wait", gate.task());
        let worker = worker.drain_limit(Duration::from_millis(200)).start().unwrap();
        until_workers(&origin, 1).await;
        let job = origin.submit(canvas("wait.s()"));
        gate.until_waiting(1).await;
        let _other = cluster.node("w2").slots(1).function("wait", || 7_u32).start().unwrap();
        until_workers(&origin, 2).await;
        let told_at = Instant::now();
        in_time(worker.drain()).await;
        assert_eq!(result::<u32>(job).await, 7, "the other node has run it");
        let took = told_at.elapsed();
        assert!(took < Duration::from_millis(200) + WAIT_MAX, "{took:?}");
    }

    async fn a_node_is_asked_to_leave_and_says_by_whom(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let mut origin = resident(&cluster, "origin", &gate);
        let mut events = origin.events();
        let client = cluster.node("client").start().unwrap();
        until(&client, |view| view.nodes.iter().any(is_resident)).await;
        let load = in_time(client.drain_node(node_id("origin"), None)).await.unwrap();
        assert!(load.is_draining);
        let by = |event| if let NodeEvent::Cluster(Event::Draining(by, _)) = event { Some(by) } else { None };
        assert_eq!(event(&mut events, by).await, Some(node_id("client")));
        until(&client, |view| !view.is_online(node_id("origin"))).await;
    }

    // Celery's workers sometimes stay idle after they have reconnected to the broker.
    async fn workers_take_tasks_again_after_a_reconnect(server: TestServer) {
        let (cluster, proxy) = (TestCluster::new(&server), Proxy::new(&server).await);
        let origin = cluster.node("origin").function("inc", |x: u32| x + 1).start().unwrap();
        let worker = cluster.node("w1").server(proxy.url()).slots(1).function("inc", |x: u32| x + 1);
        let mut worker = worker.start().unwrap();
        let mut events = worker.events();
        let connected = |event| matches!(event, NodeEvent::Connected).then_some(());
        event(&mut events, connected).await;
        for round in 0..5 {
            assert_eq!(result::<u32>(origin.submit(canvas(&format!("inc.s({round})")))).await, round + 1);
            if round % 2 == 0 {
                proxy.cut();
            } else {
                server.stop().await;
                server.restart().await;
            }
            let lost = |event| matches!(event, NodeEvent::Disconnected(_)).then_some(());
            event(&mut events, lost).await;
            // Submitted while the worker is offline.
            let waiting = origin.submit(canvas(&format!("inc.s({round})")));
            proxy.heal();
            event(&mut events, connected).await;
            assert_eq!(result::<u32>(waiting).await, round + 1);
        }
    }

    async fn a_failed_job_says_why_to_anybody(server: TestServer) {
        let (cluster, gate) = (TestCluster::new(&server), Gate::default());
        let _origin = resident(&cluster, "origin", &gate);
        let (_client, job) = detached(&cluster, "fail.s('no bread')").await;
        until_ready(&job).await;
        match in_time(job.state()).await.unwrap() {
            JobStatus::Failed(error) => assert_eq!(error.text, "no bread"),
            other => panic!("expected a failure, got {other:?}"),
        }
    }
}
