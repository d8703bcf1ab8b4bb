//! Deployed functions: which nodes get a module, from which nodes, and what is refused.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broccoli_node::module::Limits;
use broccoli_node::view::ClusterView;
use broccoli_node::{Cluster, Event, NodeEvent, NodeHandle};
use broccoli_proto::ModuleHash;
use broccoli_proto::message::{ContentPiece, Manifests, Message};
use broccoli_proto::module::{CHUNK_BYTES, Manifest, ModuleEntry, SignedManifest, digest};
use broccoli_proto::packet::Address;
use support::cluster::*;
use support::peer::Peer;
use support::{PATIENCE, TempDir};

on_both_servers! {
    async fn a_module_reaches_everybody_and_who_comes_later(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let deployer = cluster.node("deployer").start().unwrap();
        let origin = cluster.node("origin").start().unwrap();
        let (w1, _w2) = (cluster.node("w1").slots(1).start().unwrap(), cluster.node("w2").slots(1).start().unwrap());
        until_workers(&deployer, 2).await;
        let deployment = cluster.deploy(&deployer, "tasks", EXAMPLES).await;
        assert_eq!(deployment.holders, [node_id("w1"), node_id("w2")]);
        assert!(deployment.refused.is_empty() && deployment.missing.is_empty(), "{deployment:?}");
        until_function(&origin, "add").await;
        assert_eq!(result::<i64>(origin.submit(canvas("chain(add.s(4, 4), mul.s(8), mul.s(10))"))).await, 640);

        // The deployer may leave, and so may the first node that had the module.
        deployer.leave().await;
        let w3 = cluster.node("w3").slots(1).start().unwrap();
        until(&w3, holds("tasks")).await;
        w1.leave().await;
        assert_eq!(result::<i64>(origin.submit(canvas("add.s(2, 3).set(on='w3')"))).await, 5);
    }

    async fn a_node_deploys_to_itself(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let node = cluster.node("n1").slots(1).start().unwrap();
        cluster.deploy_examples(&node).await;
        until(&node, holds("tasks")).await;
        assert_eq!(result::<i64>(node.submit(canvas("add.s(2, 3)"))).await, 5);
    }

    async fn a_module_survives_a_restart_on_disk(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let dir = TempDir::new();
        let node = || cluster.node("n1").slots(1).data(&dir.0).start().unwrap();
        let (deployer, before) = (cluster.node("deployer").start().unwrap(), node());
        until_workers(&deployer, 1).await;
        cluster.deploy_examples(&deployer).await;
        deployer.leave().await;
        before.leave().await;

        // No other node is online, and not even a server.
        server.stop().await;
        let after = node();
        assert_eq!(result::<i64>(after.submit(canvas("add.s(2, 3)"))).await, 5);
    }

    async fn a_damaged_file_is_put_aside_and_replaced(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let dir = TempDir::new();
        let node = || cluster.node("n1").slots(1).data(&dir.0).start().unwrap();
        let (before, other) = (node(), cluster.node("other").slots(1).start().unwrap());
        until_workers(&other, 2).await;
        cluster.deploy_examples(&other).await;
        before.leave().await;
        let wasm = file_with(&dir.0, "wasm");
        let mut bytes = fs::read(&wasm).unwrap();
        bytes[5_000] ^= 1;
        fs::write(&wasm, bytes).unwrap();

        let mut after = node();
        let said = |event| match event {
            NodeEvent::Storage(text) => Some(text),
            _ => None,
        };
        let said = event(&mut after.events(), said).await;
        assert!(said.contains("its code does not match its hash") && said.contains(".manifest.bad"), "{said}");
        until(&after, holds("tasks")).await;
        assert_eq!(fs::read(file_with(&dir.0, "wasm")).unwrap(), EXAMPLES);
        assert_eq!(result::<i64>(after.submit(canvas("add.s(2, 3).set(on='n1')"))).await, 5);
        file_with(&dir.0, "manifest");
        file_with(&dir.0, "bad");
    }

    async fn files_of_another_cluster_are_put_aside(server: TestServer) {
        let (first, second) = (TestCluster::new(&server), TestCluster::new(&server));
        let dir = TempDir::new();
        let before = first.node("n1").slots(1).data(&dir.0).start().unwrap();
        first.deploy_examples(&before).await;
        until(&before, holds("tasks")).await;
        before.leave().await;
        // The journal of another cluster is refused, so it is removed here.
        fs::remove_dir_all(dir.0.join("journal")).unwrap();
        let mut after = second.node("n1").slots(1).data(&dir.0).start().unwrap();
        let said = |event| match event {
            NodeEvent::Storage(text) => Some(text),
            _ => None,
        };
        let said = event(&mut after.events(), said).await;
        assert!(said.contains("not signed with this cluster's deploy key"), "{said}");
        assert!(file_with(&dir.0, "wasm").exists(), "nothing is thrown away");
    }

    async fn a_new_version_replaces_the_old_one_and_accepted_jobs_stay_on_theirs(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let gate = Gate::default();
        let node = |name: &str| cluster.node(name).function("wait", gate.task());
        let origin = node("origin").start().unwrap();
        let _worker = node("w1").slots(2).start().unwrap();
        let deployer = cluster.node("deployer").start().unwrap();
        until_workers(&deployer, 1).await;
        cluster.deploy(&deployer, "demo", &version_module(1)).await;
        until_function(&origin, "demo.version").await;
        let old = origin.submit(canvas("group(chain(wait.s(), version.si()), version.s())"));
        gate.until_waiting(1).await;

        let deployment = cluster.deploy(&deployer, "demo", &version_module(2)).await;
        assert_eq!(deployment.holders, [node_id("w1")]);
        let version = newest(&deployer, "demo").await;
        until(&origin, move |node| node.module("demo").map(|demo| demo.version) == version).await;
        assert_eq!(result::<u32>(origin.submit(canvas("version.s()"))).await, 2);
        gate.open();
        assert_eq!(result::<Vec<u32>>(old).await, [1, 1]);
        assert_eq!(result::<u32>(origin.submit(canvas("version.s()"))).await, 2);
        // Deploying the previous version again goes back to it.
        cluster.deploy(&deployer, "demo", &version_module(1)).await;
        let version = newest(&deployer, "demo").await;
        until(&origin, move |node| node.module("demo").map(|demo| demo.version) == version).await;
        assert_eq!(result::<u32>(origin.submit(canvas("version.s()"))).await, 1);
    }

    async fn a_bad_signature_is_refused(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let worker = with_first_version(&cluster, "w1", Limits::host()).await;
        let (_, foreign) = Cluster::generate().unwrap();
        // The deployer itself notices that its key is wrong.
        let deployer = cluster.node("deployer").start().unwrap();
        until_workers(&deployer, 1).await;
        let signed = manifest(&version_module(2), u64::MAX).sign(&foreign.0);
        let deployment = deployer.offer(signed.clone(), version_module(2), PATIENCE).await;
        let reason = "not signed with this cluster's deploy key".to_owned();
        assert_eq!(deployment.refused, [(node_id("deployer"), reason.clone())]);

        // A stolen node trusts the wrong key, so it does not notice. The other nodes refuse the module.
        let mut stolen = cluster.cluster.clone();
        stolen.deploy_public.0 = foreign.0.verifying_key().to_bytes();
        let thief = cluster.node("thief").cluster(stolen).start().unwrap();
        until_workers(&thief, 1).await;
        let deployment = thief.offer(signed, version_module(2), PATIENCE).await;
        assert_eq!(deployment.refused, [(node_id("w1"), reason)]);
        assert_eq!(result::<u32>(worker.submit(canvas("version.s()"))).await, 1);
    }

    async fn a_corrupt_chunk_is_refused(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let mut worker = with_first_version(&cluster, "w1", Limits::host()).await;
        let mut events = worker.events();
        let wasm = version_module(2);
        let signed = manifest(&wasm, u64::MAX).sign(&cluster.deploy_key.0);
        let mut liar = Peer::new(&server, &cluster.cluster, "liar").await;
        let refusal = serve_corrupt_chunk(&mut liar, &signed).await;
        assert_eq!(refusal, "chunk 0 from liar does not match its hash");
        event(&mut events, |event| matches!(event, NodeEvent::Cluster(Event::ModuleRefused { .. })).then_some(())).await;
        assert_eq!(result::<u32>(worker.submit(canvas("version.s()"))).await, 1);

        // The same module from an honest node is accepted.
        let honest = cluster.node("honest").start().unwrap();
        until_workers(&honest, 1).await;
        honest.offer(signed, wasm, Duration::from_millis(1)).await;
        until(&worker, |node| node.module("demo").map(|demo| demo.version) == Some(u64::MAX)).await;
        assert_eq!(result::<u32>(worker.submit(canvas("version.s()"))).await, 2);
    }

    async fn a_module_over_the_limits_is_refused_where_they_are(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let small = with_first_version(&cluster, "small", Limits { module_bytes_max: 4_096, ..Limits::host() }).await;
        let large = with_first_version(&cluster, "large", Limits::host()).await;
        let deployer = cluster.node("deployer").start().unwrap();
        until_workers(&deployer, 2).await;
        let deployment = cluster.deploy(&deployer, "demo", EXAMPLES).await;
        assert_eq!(deployment.holders, [node_id("large")]);
        let [(who, reason)] = &deployment.refused[..] else { panic!("{deployment:?}") };
        assert_eq!(*who, node_id("small"));
        assert!(reason.contains(&EXAMPLES.len().to_string()) && reason.contains("4096"), "{reason}");
        assert_eq!(result::<u32>(small.submit(canvas("version.s()"))).await, 1);
        assert_eq!(result::<i64>(large.submit(canvas("demo.add.s(2, 3)"))).await, 5);
    }

    async fn a_forbidden_import_is_refused(server: TestServer) {
        let cluster = TestCluster::new(&server);
        let worker = with_first_version(&cluster, "w1", Limits::host()).await;
        let deployer = cluster.node("deployer").start().unwrap();
        until_workers(&deployer, 1).await;
        let wasm = hand_written("(import \"env\" \"system\" (func))", 1, &[("version", "u32", "(i64.const 1)")]);
        let deployment = cluster.deploy(&deployer, "demo", &wasm).await;
        assert_eq!(deployment.refused, [(node_id("w1"), "forbidden import env.system".to_owned())]);
        assert_eq!(result::<u32>(worker.submit(canvas("version.s()"))).await, 1);
    }
}

/// A worker that has the first version of the module `demo`.
async fn with_first_version(cluster: &TestCluster, name: &str, limits: Limits) -> NodeHandle {
    let node = cluster.node(name).slots(1).wasm_limits(limits).start().unwrap();
    cluster.deploy(&node, "demo", &version_module(1)).await;
    until(&node, holds("demo")).await;
    node
}

/// Offers a module with a wrong first chunk. Returns why it is refused.
async fn serve_corrupt_chunk(liar: &mut Peer, signed: &SignedManifest) -> String {
    let set = digest([signed.id].iter());
    liar.announce(set);
    loop {
        let (header, messages) = liar.receive().await;
        for message in messages {
            let answer = match message {
                Message::ManifestRequest(_) => {
                    let entries = vec![ModuleEntry::Wasm(signed.clone())];
                    Message::Manifests(Manifests { digest: set, total: 1, entries })
                }
                Message::ContentRequest(request) => {
                    let bytes = vec![0; (signed.manifest.size).min(CHUNK_BYTES) as usize];
                    Message::ContentPiece(ContentPiece { content: request.content, offset: 0, bytes })
                }
                Message::Hello => {
                    // A new node asks for the births of the others.
                    liar.announce(set);
                    continue;
                }
                Message::ModuleRefused(refused) if refused.module == signed.id => return refused.reason,
                _ => continue,
            };
            liar.send(Address::Node(header.sender), &[answer]);
        }
    }
}

fn manifest(wasm: &[u8], version: u64) -> Manifest {
    Manifest::new("demo", version, wasm, functions(wasm)).unwrap()
}

fn holds(module: &'static str) -> impl Fn(&ClusterView) -> bool {
    move |node| node.load.modules.iter().any(|(held, _)| held == module)
}

async fn newest(node: &NodeHandle, module: &'static str) -> Option<u64> {
    node.view().await.unwrap().module(module).map(|module| module.version)
}

/// The only file in the data directory with this extension.
fn file_with(dir: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(dir.join("modules")).unwrap().map(|entry| entry.unwrap().path());
    let found: Vec<_> = files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    assert_eq!(found.len(), 1, ".{extension}: {found:?}");
    assert!(found[0].file_stem().unwrap().len() >= size_of::<ModuleHash>());
    found[0].clone()
}
