//! The benchmark: one machine, the embedded server, two worker processes, and this program as
//! origin. Every result is checked. `cargo xtask bench` builds what it needs and runs it.
//!
//! Machines are noisy: compare figures of one run with each other, and CPU time before wall time.

mod backlog;
mod durable;
mod pingpong;
mod process;
mod report;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use broccoli_node::mqtt::ServerUrl;
use broccoli_node::view::{ClusterView, NodeView};
use broccoli_node::{Cluster, DeployKey, NodeEvent, NodeHandle};
use broccoli_proto::{Canvas, Cbor, Form};

use minicbor::Encode;
use process::{Cpu, Process};
use report::{Item, Report, Rounds};

/// Rounds of each item; the median counts.
const ROUNDS: usize = 30;
/// Rounds before them: processes that are new to a load, and to its size, take longer.
const WARM_UP: usize = 5;
/// Commits of one record, one after the other.
const SYNCS: u64 = 200;
/// Commits with a pause before each, about as long as a chain takes.
const RARE_SYNCS: u64 = 50;
const RARE: Duration = Duration::from_millis(10);
/// Round trips at one origin before those at the other.
const TURN: u32 = 20;
/// Rounds of groups at each origin.
const GROUP_ROUNDS: usize = 3;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["backlog"] => {
            let mut report = Report::new();
            report.backlogs = backlog::measure()?;
            report.print_backlogs();
            Ok(())
        }
        ["backlog", ref args @ ..] => backlog::child(args),
        ["echo", url, cluster] => runtime.block_on(pingpong::echo(url, cluster)),
        [broccoli, text] => runtime.block_on(bench(broccoli, text, None)),
        [broccoli, text, "--json", json] => runtime.block_on(bench(broccoli, text, Some(json.into()))),
        _ => Err("usage: bench BROCCOLI TEXT [--json FILE] | bench backlog".into()),
    }
}

/// What the items run on.
struct Bench {
    /// Without a journal, and with one.
    origins: [NodeHandle; 2],
    server: Process,
    workers: Vec<Process>,
}

async fn bench(broccoli: &str, text: &str, json: Option<PathBuf>) -> Result<(), Error> {
    let text = std::fs::read_to_string(text)?;
    let dir = process::TempDir::new()?;
    let (cluster, deploy) = Cluster::generate()?;
    let file = dir.path().join("cluster.json");
    cluster.create(&deploy, &file)?;

    let mut report = Report::new();
    report.first_result_s = process::first_result(broccoli, &dir)?.as_secs_f64();
    let (server, url) = process::up(broccoli, &file, &dir.path().join("server"))?;
    let worker = |name: &str| process::node(broccoli, &file, &url, name);
    let workers = vec![worker("w1")?, worker("w2")?];
    let durable = start_origin(&cluster, &url, "durable", Some(&dir.path().join("durable"))).await?;
    let volatile = start_origin(&cluster, &url, "bench", None).await?;
    deploy_examples(&volatile, &deploy).await?;
    wait_for_functions(&durable).await?;
    let bench = Bench { origins: [volatile, durable], server, workers };
    report.idle = process::idle(&bench.workers[0])?;

    report.syncs = durable::syncs(dir.path(), SYNCS, Duration::ZERO)?;
    report.rare_syncs = durable::syncs(dir.path(), RARE_SYNCS, RARE)?;
    report.pingpong_us = pingpong::median_us(&url, &cluster, &file)?;
    bench.items(&mut report, &text).await?;
    report.pingpong_after_us = pingpong::median_us(&url, &cluster, &file)?;
    report.peak_mb = bench.workers.iter().map(Process::peak_mb).fold(0.0, f64::max);
    for _ in 0..GROUP_ROUNDS {
        for (rates, origin) in report.groups.iter_mut().zip(&bench.origins) {
            rates.push(durable::groups(&bench, origin).await?);
        }
    }
    report.syncs.extend(durable::syncs(dir.path(), SYNCS, Duration::ZERO)?);
    tokio::task::LocalSet::new().run_until(bench.durable_submits(&mut report, &cluster, &url)).await?;
    report.print();
    report.backlogs = backlog::measure()?;
    report.print_backlogs();
    if let Some(path) = json {
        std::fs::write(path, report.to_json())?;
    }
    for origin in bench.origins {
        origin.leave().await;
    }
    Ok(())
}

async fn start_origin(
    cluster: &Cluster,
    url: &ServerUrl,
    name: &str,
    data: Option<&Path>,
) -> Result<NodeHandle, Error> {
    let builder = NodeHandle::builder().cluster(cluster.clone()).server(url.clone()).name(name.parse()?);
    let builder = data.into_iter().fold(builder.holds_code(true), |builder, data| builder.data(data));
    let (mut origin, driver) = builder.build()?;
    let mut events = origin.events();
    tokio::spawn(driver.run());
    while !matches!(tokio::time::timeout(PATIENCE, events.recv()).await?, Some(NodeEvent::Connected) | None) {}
    Ok(origin)
}

async fn deploy_examples(origin: &NodeHandle, deploy: &DeployKey) -> Result<(), Error> {
    let wasm = include_bytes!("../../../../functions/tasks.wasm").to_vec();
    let functions = broccoli_node::module::functions(&wasm)?;
    let has_slots = |node: &&NodeView| node.is_online() && node.about.as_ref().is_some_and(|about| about.slots > 0);
    let workers = |view: ClusterView| view.nodes.iter().filter(has_slots).count();
    let end = Instant::now() + PATIENCE;
    while origin.view().await.map(workers) != Some(2) {
        if Instant::now() > end {
            return Err("the workers did not come up".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let deployment = origin.deploy("tasks", functions, wasm, deploy, PATIENCE).await?;
    if !deployment.missing.is_empty() || !deployment.refused.is_empty() {
        return Err(format!("the example functions are not everywhere: {deployment:?}").into());
    }
    Ok(())
}

async fn wait_for_functions(origin: &NodeHandle) -> Result<(), Error> {
    let end = Instant::now() + PATIENCE;
    while origin.check(call("add", &(1, 1))).await.is_err() {
        if Instant::now() > end {
            return Err("the example functions do not come to the origin".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

impl Bench {
    async fn items(&self, report: &mut Report, text: &str) -> Result<(), Error> {
        let adds = |n: i64| Canvas::group((0..n).map(|i| call("add", &(i, i))).collect());
        let doubled = |n: i64| Cbor::encode(&(0..n).map(|i| 2 * i).collect::<Vec<_>>());
        report.add("a", self.item(10_000, || adds(10_000), is(doubled(10_000))).await?);
        report.add("b", self.round_trips(300).await?);
        report.add("c", self.item(100, chain, is(Cbor::encode(&100i64))).await?);
        let chord = || Canvas::chord((0..1000i64).map(|i| call("add", &(i, i))).collect(), call("tsum", &[(); 0]));
        report.add("d", self.item(1001, chord, is(Cbor::encode(&999_000i64))).await?);
        let words: Vec<String> = text.split_whitespace().map(|word| word.replace([',', '.'], "")).collect();
        let long = words.iter().filter(|word| word.chars().count() > 3).count();
        let items = Cbor::encode(&words);
        let count = || Form::Map { function: "mapper".into(), items: items.clone() }.into();
        report.add("e", self.item(words.len() as u32, count, |result| counted(result) == Some(long)).await?);
        let blob = "x".repeat(10_000);
        let echoes = || Canvas::group((0..1000).map(|_| call("echo", &[&blob])).collect());
        report.add("f", self.item(1000, echoes, is(Cbor::encode(&vec![&blob; 1000]))).await?);
        Ok(())
    }

    /// Runs a canvas of `tasks` tasks several times at each origin in turn, after some to warm up.
    async fn item(
        &self,
        tasks: u32,
        canvas: impl Fn() -> Canvas,
        is_right: impl Fn(&Cbor) -> bool,
    ) -> Result<[Item; 2], Error> {
        let mut rounds = [Rounds::default(), Rounds::default()];
        for round in 0..WARM_UP + ROUNDS {
            for (rounds, origin) in rounds.iter_mut().zip(&self.origins) {
                let before = self.cpu();
                let wall = self.once(origin, canvas(), &is_right).await?;
                if round >= WARM_UP {
                    rounds.add([wall], self.cpu() - before);
                }
            }
        }
        Ok(rounds.map(|rounds| Item::new(tasks, rounds)))
    }

    /// One job after the other, each of one task; some at each origin in turn, because reading the CPU
    /// time takes longer than a job.
    async fn round_trips(&self, count: u32) -> Result<[Item; 2], Error> {
        let mut rounds = [Rounds::default(), Rounds::default()];
        for turn in 0..=count / TURN {
            for (rounds, origin) in rounds.iter_mut().zip(&self.origins) {
                let before = self.cpu();
                let mut walls = Vec::new();
                for i in 0..i64::from(TURN) {
                    let (canvas, right) = (call("add", &(i, 1)), is(Cbor::encode(&(i + 1))));
                    walls.push(self.once(origin, canvas, &right).await?);
                }
                if turn > 0 {
                    rounds.add(walls, self.cpu() - before);
                }
            }
        }
        Ok(rounds.map(|rounds| Item::sequence(count, rounds)))
    }

    async fn once(
        &self,
        origin: &NodeHandle,
        canvas: Canvas,
        is_right: &impl Fn(&Cbor) -> bool,
    ) -> Result<Duration, Error> {
        let start = Instant::now();
        let result = tokio::time::timeout(PATIENCE, origin.submit(canvas).result()).await??;
        let wall = start.elapsed();
        if !is_right(&result) {
            return Err("a result is wrong".into());
        }
        Ok(wall)
    }

    async fn durable_submits(&self, report: &mut Report, cluster: &Cluster, url: &ServerUrl) -> Result<(), Error> {
        for (name, nodes) in [("64 nodes", 64), ("one node", 1)] {
            let clients = durable::Clients::start(cluster, url, nodes).await?;
            for (until, what) in [(durable::Until::Accepted, "accepted"), (durable::Until::Result, "results")] {
                report.submits.push((name, what, clients.submit(self, until).await?));
            }
            clients.leave().await;
        }
        Ok(())
    }

    fn cpu(&self) -> Cpu {
        Cpu {
            client: process::cpu_of_self(),
            server: self.server.cpu(),
            workers: self.workers.iter().map(Process::cpu).sum(),
        }
    }
}

fn is(expected: Cbor) -> impl Fn(&Cbor) -> bool {
    move |result| *result == expected
}

/// How many words a word count has counted, if it is one: pairs, added up here.
fn counted(result: &Cbor) -> Option<usize> {
    let pairs: Vec<Option<(&str, u32)>> = result.decode()?;
    let mut counts = std::collections::BTreeMap::new();
    pairs.iter().flatten().for_each(|(word, n)| *counts.entry(*word).or_insert(0) += n);
    Some(counts.values().sum::<u32>() as usize)
}

/// A signature; `args` must encode as an array.
fn call(function: &str, args: &impl Encode<()>) -> Canvas {
    Canvas::task(function, Cbor::encode(args))
}

fn chain() -> Canvas {
    let first = call("add", &(0, 1));
    let rest = (1..100).map(|_| Canvas::task("add", Cbor::encode(&[1i64])));
    Canvas::chain(std::iter::once(first).chain(rest).collect())
}
