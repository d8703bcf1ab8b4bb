//! Files of released versions can be read by every later version: journal, modules, cluster file, deploy key, token.
//!
//! `tests/data/formats-VERSION` contains the files of a node of that version that was killed. Such a folder is never
//! changed. A version with another format gets its own folder: `FIXTURES=write cargo test -p broccoli-node --test
//! formats the_formats_of_this_version_are_kept`.

// Test helpers may panic, too; the lint exempts only test functions.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broccoli_node::Limits;
use broccoli_node::{
    Builder, Cluster, DeployKey, Job, JobError, JobStatus, JournalError, NodeEvent, NodeHandle, StartError,
    SubmitOptions,
};
use broccoli_proto::{Cause, Cbor, JobId};
use support::cluster::*;
use support::{PACKET_BYTES_MAX, PATIENCE, TempDir, TestServer};
use tokio::time::timeout;

/// The name of the node.
const NAME: &str = "pi";
/// The age of results in a fixture is the age of the fixture.
const CENTURIES_MS: u64 = 300 * 365 * 86_400_000;
/// The server in the token.
const TOKEN_SERVER: &str = "mqtt://user:p%40ss@pi.local:1884";
const FLOW: &[u8] = include_bytes!("../../../functions/flow.wasm");

/// Names of the jobs in a fixture, and their canvases.
const JOBS: [(&str, &str); 10] = [
    ("ended", "add.s(20, 22)"),
    ("ended-large", "concat.s('LARGE', 'end')"),
    ("failed", "fail.s('no flour')"),
    ("revoked", "add.s(1, 2).set(on='later')"),
    ("chain", "chain(add.s(1, 2), add.s(3).set(on='later'))"),
    ("delayed", "add.s(1, 1).set(countdown=20)"),
    ("retried", "flaky.s().set(retries=3, backoff=20, jitter=False)"),
    ("running", "group(hold.s(), hold.s().set(each=True))"),
    ("replaced", "chain(flow.quicksort.s([NUMBERS]), echo.s().set(on='later'))"),
    ("argument", "concat.s('LARGE', 'later').set(on='later')"),
];

/// A canvas of [`JOBS`].
fn source(text: &str) -> String {
    let numbers = (0..100).rev().map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
    text.replace("LARGE", &large()).replace("NUMBERS", &numbers)
}

/// More than fits into a packet, or is copied into a record.
fn large() -> String {
    "broccoli ".repeat(40_000)
}

fn fixtures() -> Vec<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let all = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> =
        all.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("formats-")).collect();
    found.sort();
    found
}

/// Copies a directory with everything in it.
fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            fs::write(to, fs::read(entry.path()).unwrap()).unwrap();
        }
    }
}

/// All files below a directory, with their bytes.
fn all_files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

/// A copy of a fixture, for one test.
struct Fixture {
    cluster: TestCluster,
    jobs: BTreeMap<String, JobId>,
    data: PathBuf,
    _copy: TempDir,
}

impl Fixture {
    fn new(server: &TestServer, from: &Path) -> Fixture {
        let copy = TempDir::new();
        copy_all(from, &copy.0);
        let file = copy.0.join("cluster.json");
        let cluster = Cluster::load(&file).unwrap();
        let deploy_key = DeployKey::load(&file, &cluster).unwrap();
        let jobs = fs::read_to_string(copy.0.join("jobs.txt")).unwrap();
        let job = |line: &str| line.split_once(' ').map(|(name, id)| (name.to_owned(), id.parse().unwrap())).unwrap();
        Fixture {
            cluster: TestCluster::of(server, cluster, deploy_key),
            jobs: jobs.lines().map(job).collect(),
            data: copy.0.join("data"),
            _copy: copy,
        }
    }

    /// The node of this directory, now with the label and functions that its jobs have waited for.
    fn node(&self) -> Builder {
        let node = self.cluster.node(NAME).resident(true).slots(2).label("later").data(&self.data);
        let packet_bytes_max = PACKET_BYTES_MAX as u32;
        let node = node.limits(Limits { archive_ms: CENTURIES_MS, packet_bytes_max, ..Limits::host() });
        node.function("flaky", || Ok::<u32, String>(7)).function("hold", || 1_u32)
    }

    fn job(&self, client: &NodeHandle, name: &str) -> Job {
        client.job(self.jobs[name])
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("it comes in time")
}

/// Makes the fixture of this version: a node with jobs in each state, which is then killed.
async fn write_fixture(to: &Path) {
    assert!(!to.exists(), "{} is there: what was released does not change", to.display());
    let (server, work) = (TestServer::embedded().await, TempDir::new());
    let cluster = TestCluster::new(&server);
    let (gate, data) = (Gate::default(), work.0.join("data"));
    let node = cluster.node(NAME).resident(true).slots(4).data(&data);
    let node = node.function("flaky", || Err::<u32, String>("not yet".into())).function("hold", gate.task());
    let (node, driver) = node.build().unwrap();
    let life = tokio::spawn(driver.run());
    cluster.deploy_examples(&node).await;
    cluster.deploy(&node, "flow", FLOW).await;
    until(&node, |node| ["tasks", "flow"].iter().all(|module| node.module(module).is_some())).await;
    let client = cluster.node("client").start().unwrap();
    let mut jobs = BTreeMap::new();
    for (name, text) in JOBS {
        let options = SubmitOptions::default().detached().key(format!("key of {name}"));
        let id = in_time(client.submit_with(canvas(&source(text)), options).accepted()).await.unwrap();
        jobs.insert(name, id);
    }
    let job = |name| client.job(jobs[name]);
    in_time(job("ended").get::<i64>()).await.unwrap();
    in_time(job("ended-large").get::<String>()).await.unwrap();
    assert!(in_time(job("failed").get::<Cbor>()).await.is_err());
    in_time(job("revoked").revoke()).await.unwrap();
    gate.until_waiting(2).await;
    // Everything is written within a tenth of this time.
    tokio::time::sleep(Duration::from_secs(1)).await;
    life.abort();
    assert!(life.await.unwrap_err().is_cancelled(), "it was alive");
    gate.open();

    cluster.cluster.create(&cluster.deploy_key, &to.join("cluster.json")).unwrap();
    fs::write(to.join("token"), cluster.cluster.token(&TOKEN_SERVER.parse().unwrap())).unwrap();
    let ids: String = jobs.iter().map(|(name, id)| format!("{name} {id}\n")).collect();
    fs::write(to.join("jobs.txt"), ids).unwrap();
    let (version, first) = (to.file_name().unwrap().to_str().unwrap(), to.with_file_name("formats-0.1"));
    let about = fs::read_to_string(first.join("README.md")).unwrap();
    fs::write(to.join("README.md"), about.replace("0.1", version.trim_start_matches("formats-"))).unwrap();
    copy_all(&data, &to.join("data"));
    for (path, mut bytes) in
        all_files(&to.join("data")).into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log"))
    {
        // The file of a segment consists of zeros. At least twelve of them follow the last batch.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(used + 12);
        fs::write(path, bytes).unwrap();
    }
}

#[tokio::test]
async fn the_formats_of_this_version_are_kept() {
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/formats-{major}.{minor}"));
    if std::env::var("FIXTURES").is_ok_and(|what| what == "write") {
        write_fixture(&dir).await;
    }
    assert!(dir.is_dir(), "this version has no fixture: write it, see the head of this file");
    let mut missing = ["cluster.json", "cluster.json.deploy-key", "token", "jobs.txt", "README.md"].to_vec();
    missing.extend(["data/journal/owner", "data/journal/00000001.log"]);
    missing.retain(|name| !dir.join(name).is_file());
    assert_eq!(missing, Vec::<&str>::new());
    assert_eq!(fs::read_dir(dir.join("data/modules")).unwrap().count(), 4, "two modules with their manifests");
}

#[test]
fn cluster_files_and_tokens_of_every_version_say_the_same() {
    assert!(!fixtures().is_empty());
    for dir in fixtures() {
        let file = dir.join("cluster.json");
        let cluster = Cluster::load(&file).unwrap();
        DeployKey::load(&file, &cluster).unwrap();
        let token = Cluster::from_token(&fs::read_to_string(dir.join("token")).unwrap()).unwrap();
        assert_eq!((token.id, token.key.to_bytes()), (cluster.id, cluster.key.to_bytes()));
        assert_eq!(token.deploy_public, cluster.deploy_public);
        assert_eq!(token.server.unwrap().to_url_with_password(), TOKEN_SERVER);
    }
}

/// Position of the version in a segment, and of its checksum.
const VERSION_AT: std::ops::Range<usize> = 4..8;
const HEAD_CRC_AT: std::ops::Range<usize> = 8..12;

/// Changes the first segment, and corrects its checksum.
fn change_segment(data: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = data.join("journal/00000001.log");
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    let crc = crc32fast::hash(&bytes[..HEAD_CRC_AT.start]);
    bytes[HEAD_CRC_AT].copy_from_slice(&crc.to_be_bytes());
    fs::write(path, bytes).unwrap();
}

/// Makes a journal of a later version: with later segments, or with later records in segments of this version.
fn make_newer(data: &Path, records: bool) {
    change_segment(data, |bytes| {
        if !records {
            bytes[VERSION_AT].copy_from_slice(&7_u32.to_be_bytes());
            return;
        }
        // The first batch starts with the record of the node: job 0, number 0, [0, [[version, boots …]]].
        let body_at = 12 + 12;
        let len = u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize;
        assert!(bytes[body_at..body_at + 12].iter().all(|byte| *byte == 0));
        let value_at = body_at + 16;
        // It has two to five fields.
        let record = &bytes[value_at..value_at + 5];
        assert!(
            matches!(record, [0x82, 0x00, 0x81, 0x82..=0x85, 0x01]),
            "the record of the node, version 1: {record:x?}"
        );
        bytes[value_at + 4] = 7;
        let crc = crc32fast::hash(&bytes[body_at..body_at + len]);
        bytes[20..24].copy_from_slice(&crc.to_be_bytes());
    });
}

#[tokio::test]
async fn a_journal_of_a_later_version_is_refused_and_not_touched() {
    let server = TestServer::embedded().await;
    for dir in fixtures() {
        for (records, known) in [(false, 2), (true, 1)] {
            let fixture = Fixture::new(&server, &dir);
            make_newer(&fixture.data, records);
            // Files that a start would change if it did not check the version first.
            fs::write(fixture.data.join("journal/00000009.spare"), "left over").unwrap();
            fs::write(fixture.data.join("modules/later.manifest"), "of a later version").unwrap();
            let before = all_files(&fixture.data);
            let refused = fixture.node().build().map(|_| ()).unwrap_err();
            assert!(
                matches!(refused, StartError::Journal(JournalError::Version(..) | JournalError::Records(_))),
                "{refused:?}"
            );
            let text = refused.to_string();
            assert!(text.contains("version 7") && text.contains(&format!("version {known}")), "both are named: {text}");
            assert!(all_files(&fixture.data) == before, "nothing in it has changed");
        }
    }
}

on_both_servers! {
    async fn jobs_and_modules_of_every_version_go_on(server: TestServer) {
        for dir in fixtures() {
            let fixture = Fixture::new(&server, &dir);
            let (mut node, driver) = fixture.node().build().unwrap();
            let mut events = node.events();
            let life = tokio::spawn(driver.run());
            let said = event(&mut events, |event| if let NodeEvent::Storage(text) = event { Some(text) } else { None }).await;
            assert!(said.starts_with("took over 6 unfinished jobs with ") && said.ends_with(", and 4 results"), "{said}");
            let client = fixture.cluster.node("client").start().unwrap();
            let job = |name| fixture.job(&client, name);
            assert_eq!(in_time(job("ended").get::<i64>()).await.unwrap(), 42);
            assert_eq!(in_time(job("ended-large").get::<String>()).await.unwrap(), large() + "end");
            match in_time(job("failed").get::<Cbor>()).await {
                Err(JobError::Failed(error)) => assert_eq!((error.cause, error.text.as_str()), (Cause::Returned, "no flour")),
                other => panic!("expected a failed task, got {other:?}"),
            }
            assert_eq!(in_time(job("revoked").state()).await.unwrap(), JobStatus::Revoked);
            assert_eq!(in_time(job("chain").get::<i64>()).await.unwrap(), 6);
            assert_eq!(in_time(job("delayed").get::<i64>()).await.unwrap(), 2);
            assert_eq!(in_time(job("retried").get::<i64>()).await.unwrap(), 7);
            let (one, each) = in_time(job("running").get::<(u32, BTreeMap<String, u32>)>()).await.unwrap();
            assert_eq!((one, each), (1, BTreeMap::from([(NAME.to_owned(), 1)])));
            assert_eq!(in_time(job("replaced").get::<Vec<i64>>()).await.unwrap(), (0..100).collect::<Vec<_>>());
            assert_eq!(in_time(job("argument").get::<String>()).await.unwrap(), large() + "later");
            for (name, text) in JOBS {
                let options = SubmitOptions::default().detached().key(format!("key of {name}"));
                let id = in_time(client.submit_with(canvas(&source(text)), options).accepted()).await.unwrap();
                assert_eq!(id, fixture.jobs[name], "the key of {name} is known");
            }
            in_time(client.leave()).await;
            life.abort();
        }
    }
}
