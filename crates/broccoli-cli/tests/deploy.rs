//! `deploy`: modules from files, and refused modules. Also the output about running tasks.
#![cfg(feature = "embedded-server")]
// The lint does not know that a macro makes these functions tests.
#![allow(clippy::unwrap_used)]

mod support;

use support::Process;

const TYPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../functions/types.wasm");

on_both_servers! {
    async fn a_file_is_deployed_to_all_nodes(cluster: Cluster) {
        let _second = cluster.node("pi-2", &["--slots", "1"]).await;
        let said = cluster.run(&["deploy", TYPES]).await.ok();
        assert!(said.starts_with("deployed types (") && said.ends_with(" to 2 nodes\n"), "{said}");
        for node in ["pi-1", "pi-2"] {
            let expression = format!("types.increment.s(41).set(on='{node}')");
            assert_eq!(cluster.run(&["run", &expression]).await.ok(), "42\n");
        }
    }

    async fn a_module_is_taken_away_from_all_nodes_and_comes_back(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let node = cluster.node("pi-2", &["--data", "pi-2"]).await;
        assert_eq!(cluster.run(&["undeploy", "tasks"]).await.ok(), "undeployed tasks from 2 nodes\n");
        assert!(!cluster.run(&["functions"]).await.ok().contains("tasks."));
        assert!(!cluster.run(&["nodes"]).await.ok().contains("tasks@"));
        let gone = cluster.run(&["run", "add.s(1, 2)"]).await;
        assert_eq!(gone.code, Some(2));
        assert!(gone.stderr.starts_with("error: no function add"), "{}", gone.stderr);
        let again = cluster.run(&["undeploy", "tasks"]).await;
        again.fails(2, "error: there is no module tasks: `broccoli functions` lists the modules\n");
        let builtin = cluster.run(&["undeploy", "sys"]).await;
        builtin.fails(2, "error: sys is built into its nodes and cannot be removed\n");
        // The removal is stored: the module does not come back after a restart.
        node.signal("TERM").await;
        assert_eq!(node.end().await.code, Some(0));
        let _node = cluster.node("pi-2", &["--data", "pi-2"]).await;
        assert_eq!(cluster.run(&["run", "add.s(1, 2)"]).await.code, Some(2));
        cluster.run(&["deploy", "--examples"]).await.ok();
        assert_eq!(cluster.run(&["run", "add.s(1, 2).set(on='pi-2')"]).await.ok(), "3\n");
    }

    async fn log_lines_go_to_stderr_with_node_and_task(cluster: Cluster) {
        cluster.run(&["deploy", TYPES]).await.ok();
        let ended = cluster.run(&["run", "types.node.s()"]).await;
        assert_eq!(ended.stderr, "[pi-1 types.node #0] hello\n");
        ended.ok();
    }

    async fn a_wait_without_a_fitting_node_is_said_and_ends_with_it(cluster: Cluster) {
        let cluster = cluster.with_examples().await;
        let mut run = Process::start(&mut cluster.command(&["run", "add.s(1, 2).set(on='room=attic')"]));
        let why = "tasks.add waits: no live node has the label room=attic (1 node)";
        assert_eq!(run.note("tasks.add waits").await, why);
        let _node = cluster.node("pi-2", &["--label", "room=attic"]).await;
        assert_eq!(run.end().await.ok(), "3\n");
    }
}

#[tokio::test]
async fn what_is_no_module_is_refused_here() {
    let cluster = support::Cluster::embedded().await;
    cluster.home.write("text.wasm", "no module");
    cluster
        .run(&["deploy", "text.wasm"])
        .await
        .fails(2, "error: text.wasm is not a Wasm module: deploy a FILE.wasm, or the directory of a task crate\n");
    cluster
        .run(&["deploy", "missing.wasm"])
        .await
        .fails(2, "error: cannot read missing.wasm: No such file or directory (os error 2)\n");
    cluster.home.write("my module.wasm", "");
    let rename = "rename the file to letters, digits and _, such as tasks.wasm";
    cluster
        .run(&["deploy", "my module.wasm"])
        .await
        .fails(2, &format!("error: my module.wasm is not a valid name for a module: {rename}\n"));
    std::fs::create_dir(cluster.home.0.join("empty")).unwrap();
    cluster
        .run(&["deploy", "empty"])
        .await
        .fails(2, "error: empty contains no Cargo.toml: `broccoli new DIR` creates a task crate\n");
}

#[tokio::test]
async fn source_is_told_from_modules() {
    let cluster = support::Cluster::embedded().await;
    cluster.run(&["new", "garden"]).await.ok();
    let rust = "is Rust source: deploy the directory of its crate: broccoli deploy";
    let fails = async |file: &str, what: &str| {
        cluster.run(&["deploy", file]).await.fails(2, &format!("error: {file} {what}\n"));
    };
    fails("garden/src/lib.rs", &format!("{rust} garden")).await;
    fails("garden/Cargo.toml", "is not a module: deploy the directory of its crate: broccoli deploy garden").await;
    fails("alone.rs", "is Rust source: `broccoli new DIR` creates a crate to put it into").await;
    let python = "is Python, which cannot be deployed: write functions in Rust (`broccoli new DIR`) or in any language \
                  that compiles to Wasm";
    fails("hello.py", python).await;
    fails("hello.c", "is source code: compile it to Wasm, then deploy FILE.wasm; see docs/task-abi.md").await;
    let mut inside = cluster.command(&["deploy", "src/lib.rs"]);
    inside.current_dir(cluster.home.0.join("garden"));
    support::finish(inside).await.fails(2, &format!("error: src/lib.rs {rust} .\n"));
}

#[tokio::test]
async fn the_deploy_key_of_another_cluster_is_refused() {
    let cluster = support::Cluster::embedded().await;
    cluster.run(&["init", "--out", "other.json"]).await.ok();
    let dir = cluster.home.0.join(".config/broccoli");
    let key = dir.join("cluster.json.deploy-key");
    std::fs::copy(cluster.home.0.join("other.json.deploy-key"), &key).unwrap();
    cluster.run(&["deploy", "--examples"]).await.fails(
        2,
        &format!("error: {} belongs to another cluster: its modules would be refused by every node\n", key.display()),
    );
}
