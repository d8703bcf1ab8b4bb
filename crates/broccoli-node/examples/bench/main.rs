//! The benchmark: one machine, the embedded server, two worker processes, and this program as
//! origin. Every result is checked. `cargo xtask bench` builds what it needs and runs it.
//!
//! Machines are noisy: compare figures of one run with each other, and CPU time before wall time.

mod pingpong;
mod process;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use broccoli_node::abi::Function;
use broccoli_node::mqtt::ServerUrl;
use broccoli_node::proto::{Canvas, Cbor, Form};
use broccoli_node::{Cluster, DeployKey, NodeEvent, NodeHandle};

use minicbor::Encode;
use process::{Cpu, Process};
use report::{Item, Report};

/// Rounds of each item; the median counts.
const ROUNDS: usize = 7;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["echo", url, cluster] => runtime.block_on(pingpong::echo(url, cluster)),
        [broccoli, text] => runtime.block_on(bench(broccoli, text, None)),
        [broccoli, text, "--json", json] => runtime.block_on(bench(broccoli, text, Some(json.into()))),
        _ => Err("usage: bench BROCCOLI TEXT [--json FILE]".into()),
    }
}

/// What the items run on.
struct Bench {
    origin: NodeHandle,
    server: Process,
    workers: Vec<Process>,
}

async fn bench(broccoli: &str, text: &str, json: Option<PathBuf>) -> Result<(), Error> {
    let text = std::fs::read_to_string(text)?;
    let dir = process::TempDir::new()?;
    let (cluster, deploy) = Cluster::generate()?;
    let file = dir.path().join("cluster.json");
    cluster.create(&deploy, &file)?;

    let first_result = process::first_result(broccoli, &dir)?;
    let (server, url) = process::up(broccoli, &file)?;
    let worker = |name: &str| process::node(broccoli, &file, &url, name);
    let workers = vec![worker("w1")?, worker("w2")?];
    let origin = start_origin(&cluster, &url, &deploy).await?;
    let bench = Bench { origin, server, workers };
    let idle = process::idle(&bench.workers[0])?;

    let mut report = Report::default();
    report.pingpong_us = pingpong::median_us(&url, &cluster, &file)?;
    let adds = |n: i64| Canvas::group((0..n).map(|i| call("add", &(i, i))).collect());
    let doubled = |n: i64| Cbor::encode(&(0..n).map(|i| 2 * i).collect::<Vec<_>>());
    report.add("a", bench.item(10_000, || adds(10_000), &doubled(10_000)).await?);
    report.add("b", bench.round_trips(300).await?);
    report.add("c", bench.item(100, chain, &Cbor::encode(&100i64)).await?);
    let chord = || Canvas::chord((0..1000i64).map(|i| call("add", &(i, i))).collect(), call("tsum", &[(); 0]));
    report.add("d", bench.item(1001, chord, &Cbor::encode(&999_000i64)).await?);
    report.add("e", bench.word_count(&text).await?);
    let blob = "x".repeat(10_000);
    let echoes = || Canvas::group((0..1000).map(|_| call("echo", &[&blob])).collect());
    report.add("f", bench.item(1000, echoes, &Cbor::encode(&vec![&blob; 1000])).await?);
    report.pingpong_after_us = pingpong::median_us(&url, &cluster, &file)?;
    report.first_result_s = first_result.as_secs_f64();
    report.idle = idle;
    report.peak_mb = bench.workers.iter().map(Process::peak_mb).fold(0.0, f64::max);

    report.print();
    if let Some(path) = json {
        std::fs::write(path, report.to_json())?;
    }
    bench.origin.leave().await;
    Ok(())
}

async fn start_origin(cluster: &Cluster, url: &ServerUrl, deploy: &DeployKey) -> Result<NodeHandle, Error> {
    let builder = NodeHandle::builder().cluster(cluster.clone()).server(url.clone()).name("bench".parse()?);
    let (mut origin, driver) = builder.holds_code(true).build()?;
    let mut events = origin.events();
    tokio::spawn(driver.run());
    while !matches!(tokio::time::timeout(PATIENCE, events.recv()).await?, Some(NodeEvent::Connected) | None) {}
    let wasm = include_bytes!("../../../../functions/tasks.wasm").to_vec();
    let functions: Vec<Function> = broccoli_node::wasm::functions(&wasm)?;
    let workers =
        |node: &broccoli_node::core::Node| node.members().filter(|(_, m)| m.alive && m.birth.slots > 0).count();
    let end = Instant::now() + PATIENCE;
    while origin.query(workers).await != Some(2) {
        if Instant::now() > end {
            return Err("the workers did not come up".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let deployment = origin.deploy("tasks", functions, wasm, deploy, PATIENCE).await?;
    if !deployment.missing.is_empty() || !deployment.refused.is_empty() {
        return Err(format!("the example functions are not everywhere: {deployment:?}").into());
    }
    Ok(origin)
}

impl Bench {
    /// Runs a canvas of `tasks` tasks several times.
    async fn item(&self, tasks: u32, canvas: impl Fn() -> Canvas, expected: &Cbor) -> Result<Item, Error> {
        let mut walls = Vec::new();
        self.once(canvas(), expected).await?;
        let before = self.cpu();
        for _ in 0..ROUNDS {
            let canvas = canvas();
            let start = Instant::now();
            self.once(canvas, expected).await?;
            walls.push(start.elapsed());
        }
        Ok(Item::new(tasks, walls, self.cpu() - before))
    }

    async fn once(&self, canvas: Canvas, expected: &Cbor) -> Result<(), Error> {
        let result = tokio::time::timeout(PATIENCE, self.origin.submit(canvas).result()).await??;
        if result != *expected {
            return Err("a result is wrong".into());
        }
        Ok(())
    }

    /// One job after the other, each of one task.
    async fn round_trips(&self, count: u32) -> Result<Item, Error> {
        let mut walls = Vec::new();
        for i in 0..20i64 {
            self.once(call("add", &(i, 1)), &Cbor::encode(&(i + 1))).await?;
        }
        let before = self.cpu();
        for i in 0..i64::from(count) {
            let (canvas, expected) = (call("add", &(i, 1)), Cbor::encode(&(i + 1)));
            let start = Instant::now();
            self.once(canvas, &expected).await?;
            walls.push(start.elapsed());
        }
        Ok(Item::sequence(count, walls, self.cpu() - before))
    }

    /// One task a word, counted here.
    async fn word_count(&self, text: &str) -> Result<Item, Error> {
        let words: Vec<String> = text.split_whitespace().map(|word| word.replace([',', '.'], "")).collect();
        let expected = words.iter().filter(|word| word.chars().count() > 3).count();
        let items = Cbor::encode(&words);
        let mut walls = Vec::new();
        let mut before = self.cpu();
        for round in 0..=ROUNDS {
            let canvas: Canvas = Form::Map { function: "mapper".into(), items: items.clone() }.into();
            let start = Instant::now();
            let result = tokio::time::timeout(PATIENCE, self.origin.submit(canvas).result()).await??;
            let pairs: Vec<Option<(&str, u32)>> = result.decode().ok_or("the result is not a list of pairs")?;
            let mut counts = std::collections::BTreeMap::new();
            pairs.iter().flatten().for_each(|(word, n)| *counts.entry(*word).or_insert(0) += n);
            if counts.values().sum::<u32>() as usize != expected {
                return Err("words were lost".into());
            }
            match round {
                0 => before = self.cpu(),
                _ => walls.push(start.elapsed()),
            }
        }
        Ok(Item::new(words.len() as u32, walls, self.cpu() - before))
    }

    fn cpu(&self) -> Cpu {
        Cpu {
            client: process::cpu_of_self(),
            server: self.server.cpu(),
            workers: self.workers.iter().map(Process::cpu).sum(),
        }
    }
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
