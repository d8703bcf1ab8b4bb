//! A program's view of its cluster: nodes, modules, functions, jobs and steps.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use broccoli_node::view::NodeState;
use broccoli_node::{JobState, StepState, Waits, native};
use support::cluster::*;

on_both_servers! {
    async fn nodes_modules_and_functions_are_shown(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let add = || native::function(|x: i64, y: i64| x + y).args(["x", "y"]).doc("The sum.");
        let origin = cluster.node("origin").resident(true).label("room=attic").start().unwrap();
        let worker = cluster.node("w1").slots(2).function("math.add", add()).start().unwrap();
        let client = cluster.node("client").start().unwrap();
        until_workers(&client, 1).await;
        until(&client, |view| view.is_online(node_id("origin")) && view.module("math").is_some()).await;
        assert_eq!(result::<i64>(client.submit(canvas("add.s(2, 3)"))).await, 5);

        let view = client.view().await.unwrap();
        assert_eq!((view.name, view.load.jobs), (node_id("client"), 0));
        assert!(view.node(node_id("client")).unwrap().is_client);
        let about = view.node(node_id("origin")).unwrap().about.clone().unwrap();
        assert!(about.is_resident && !about.is_durable && about.slots == 0);
        assert_eq!(about.labels, ["room=attic"]);
        let math = view.module("math").unwrap();
        assert_eq!((math.version, math.is_builtin()), (0, false));
        assert_eq!(math.function("add").unwrap().to_string(), "add(x: i64, y: i64) -> i64");
        assert!(view.functions().any(|(module, function)| module.name == "sys" && function.name == "ping"));

        let nodes = client.nodes(support::PATIENCE).await.unwrap();
        let names: Vec<&str> = nodes.iter().filter(|node| !node.is_client).map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["origin", "w1"]);
        let shown = nodes.iter().find(|node| node.name == node_id("w1")).unwrap();
        assert_eq!((shown.state, shown.last_seen), (NodeState::Live, Some(Duration::ZERO)));
        let load = shown.load.as_ref().unwrap();
        assert_eq!((load.slots, load.running, load.tasks_run), (2, 0, 1));

        worker.leave().await;
        until(&client, |view| !view.is_online(node_id("w1"))).await;
        let view = client.view().await.unwrap();
        assert_eq!(view.node(node_id("w1")).unwrap().state, NodeState::Left);
        drop(origin);
    }

    async fn jobs_and_their_steps_are_shown(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let gate = Gate::default();
        let origin = cluster.node("origin").resident(true).function("wait", gate.task()).start().unwrap();
        let _worker = cluster.node("w1").slots(1).function("wait", gate.task()).start().unwrap();
        let client = cluster.node("client").start().unwrap();
        until_workers(&origin, 1).await;
        until(&client, |view| view.is_online(node_id("origin"))).await;
        let mut job = client.submit_to_cluster(canvas("group(wait.s(), wait.s().set(on='nowhere'))"));
        let id = job.accepted().await.unwrap();
        gate.until_waiting(1).await;

        let listing = client.jobs(support::PATIENCE).await;
        assert!(listing.silent.is_empty());
        let shown = &listing.jobs[&node_id("origin")][0];
        assert_eq!((shown.id, shown.state, shown.name.as_str()), (id, JobState::Running, "native.wait"));
        assert_eq!((shown.done, shown.total, &shown.key), (0, 2, &None));
        assert_eq!(client.summary(id, support::PATIENCE).await.unwrap().id, id);

        let root = client.job(id).step().await.unwrap();
        assert_eq!((root.job, root.path.len(), root.name.as_str()), (id, 0, "group"));
        assert_eq!((root.state, root.members), (StepState::Running, 2));
        let [first, _] = client.job(id).children().await.unwrap().try_into().unwrap();
        let step = first.step().await.unwrap();
        assert_eq!((step.path, step.name.as_str(), step.outcome), (vec![0], "native.wait", None));

        gate.open();
        until(&origin, |view| view.load.jobs == 1 && view.load.waiting == 1).await;
        let waits = loop {
            if let Some(waits) = client.summary(id, support::PATIENCE).await.unwrap().waits {
                break waits;
            }
        };
        assert!(matches!(&waits, Waits::NoNode { function, .. } if function == "native.wait"), "{waits:?}");
    }
}
