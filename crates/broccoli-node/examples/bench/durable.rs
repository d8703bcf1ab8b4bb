//! What the journal costs: durable submits of many clients, tasks inside canvases, a sync of the disk.

use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use broccoli_node::journal::Log;
use broccoli_node::journal::{RecordKey, Write};
use broccoli_node::mqtt::ServerUrl;
use broccoli_node::view::NodeView;
use broccoli_node::{Cluster, Event, NodeEvent, NodeHandle, SubmitOptions};
use broccoli_proto::{Canvas, Cbor};

use crate::process::Cpu;
use crate::{Bench, Error, PATIENCE, call};

/// Clients at once.
const CLIENTS: usize = 64;
/// How long they submit.
const SUBMITTING: Duration = Duration::from_secs(4);
/// Groups of a thousand tasks, and how many of them are under way at once.
const GROUPS: u32 = 100;
const GROUP: i64 = 1_000;
const GROUPS_AT_ONCE: usize = 8;
/// Bytes of a commit that is measured: about those of a small job.
const SYNC_BYTES: usize = 200;

/// A number of jobs or tasks in some time.
#[derive(Default)]
pub(crate) struct Rate {
    pub(crate) count: u32,
    pub(crate) wall: Duration,
    pub(crate) cpu: Cpu,
}

impl Rate {
    pub(crate) fn per_s(&self) -> f64 {
        f64::from(self.count) / self.wall.as_secs_f64()
    }

    /// CPU time for each, of all processes.
    pub(crate) fn cpu_us(&self) -> f64 {
        (self.cpu.client + self.cpu.server + self.cpu.workers).as_secs_f64() * 1e6 / f64::from(self.count)
    }
}

/// What a client waits for before it submits again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Accepted,
    Result,
}

/// The times of commits to a journal in this directory, one after the other with pauses in between.
pub(crate) fn syncs(dir: &Path, count: u64, pause: Duration) -> Result<Vec<Duration>, Error> {
    let dir = dir.join("syncs");
    std::fs::create_dir_all(&dir)?;
    let (mut log, _) = Log::open(&dir)?;
    let mut times = Vec::new();
    for job in 1..=count {
        let write = Write { key: RecordKey { job, number: 0 }, value: Some(vec![0x55; SYNC_BYTES].into()) };
        let start = Instant::now();
        log.commit(&[write])?;
        times.push(start.elapsed());
        std::thread::sleep(pause);
    }
    Ok(times)
}

/// Programs that submit: as many nodes as there are clients, or one node for all of them.
pub(crate) struct Clients(Vec<Rc<NodeHandle>>);

impl Clients {
    /// Nodes with a connection of their own each, attached to an origin.
    pub(crate) async fn start(cluster: &Cluster, url: &ServerUrl, nodes: usize) -> Result<Clients, Error> {
        let mut clients = Vec::new();
        for _ in 0..nodes {
            let (mut client, driver) = NodeHandle::builder().cluster(cluster.clone()).server(url.clone()).build()?;
            let mut events = client.events();
            tokio::spawn(driver.run());
            client.attach();
            let attached =
                async { while !matches!(events.recv().await, Some(NodeEvent::Cluster(Event::Attached(_))) | None) {} };
            tokio::time::timeout(PATIENCE, attached).await?;
            clients.push(Rc::new(client));
        }
        Ok(Clients(clients))
    }

    /// Jobs of one task each from all clients at once.
    pub(crate) async fn submit(&self, bench: &Bench, until: Until) -> Result<Rate, Error> {
        let (start, before) = (Instant::now(), bench.cpu());
        let end = start + SUBMITTING;
        let submitters = (0..CLIENTS).map(|number| {
            let client = Rc::clone(&self.0[number % self.0.len()]);
            tokio::task::spawn_local(async move { submit_until(&client, end, until).await.map_err(|e| e.to_string()) })
        });
        let mut count = 0;
        for submitter in submitters.collect::<Vec<_>>() {
            count += submitter.await??;
        }
        let rate = Rate { count, wall: start.elapsed(), cpu: bench.cpu() - before };
        self.wait_until_done().await?;
        Ok(rate)
    }

    /// Waits until no origin has a job any more.
    async fn wait_until_done(&self) -> Result<(), Error> {
        let has_jobs = |node: &NodeView| node.load.as_ref().is_some_and(|load| load.jobs > 0);
        let end = Instant::now() + PATIENCE;
        while self.0[0].nodes(PATIENCE).await.unwrap_or_default().iter().any(has_jobs) {
            if Instant::now() > end {
                return Err("the jobs of the clients do not end".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    pub(crate) async fn leave(self) {
        for client in self.0 {
            if let Ok(client) = Rc::try_unwrap(client) {
                client.leave().await;
            }
        }
    }
}

async fn submit_until(client: &NodeHandle, end: Instant, until: Until) -> Result<u32, Error> {
    let mut count = 0;
    while Instant::now() < end {
        let canvas = call("add", &(count, 1));
        let options = SubmitOptions::default();
        let mut job = match until {
            Until::Accepted => client.submit_with(canvas, options.detached()),
            Until::Result => client.submit_with(canvas, options),
        };
        tokio::time::timeout(PATIENCE, job.accepted()).await??;
        if until == Until::Result && tokio::time::timeout(PATIENCE, job.result()).await?? != Cbor::encode(&(count + 1))
        {
            return Err("a result is wrong".into());
        }
        count += 1;
    }
    Ok(count)
}

/// Groups of tasks that do nothing, some of them at once.
pub(crate) async fn groups(bench: &Bench, origin: &NodeHandle) -> Result<Rate, Error> {
    let group = || Canvas::group((0..GROUP).map(|n| call("identity", &[n])).collect());
    let expected = Cbor::encode(&(0..GROUP).collect::<Vec<_>>());
    let (start, before) = (Instant::now(), bench.cpu());
    let mut under_way = VecDeque::new();
    for number in 0..GROUPS as usize + GROUPS_AT_ONCE {
        if number < GROUPS as usize {
            under_way.push_back(origin.submit(group()));
        }
        if number + 1 >= GROUPS_AT_ONCE
            && let Some(mut job) = under_way.pop_front()
            && tokio::time::timeout(PATIENCE, job.result()).await?? != expected
        {
            return Err("a result is wrong".into());
        }
    }
    Ok(Rate { count: GROUPS * GROUP as u32, wall: start.elapsed(), cpu: bench.cpu() - before })
}
