//! The workloads. Each runs on one store in its own process, so memory and bytes written are those of the store alone.
//! Each prints one line.

use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::probe::{Written, cpu_seconds, disk_len, resident_max_kib};
use crate::store::{Op, Random, Result, Store, blob, value};

const CLIENTS: u64 = 64;
const LONE_SUBMITS: u64 = 2_000;
const GROUP_SUBMITS: u64 = 64_000;
const LIFE_JOBS: u64 = 200_000;
const OUTCOME_BATCHES: u64 = 300;
const OUTCOMES_PER_BATCH: u64 = 1_000;
const JOBS_AT_ONCE: u64 = 16;
/// Records of one job of the lifecycle: accepted, one outcome, ended.
const RECORDS: u32 = 3;
const QUEUED: u64 = 1_000_000;
const JOB_TASKS: u64 = 1_000;
const JOB_CANVAS_LEN: usize = 40_000;
const TASK_CANVAS_LEN: usize = 80;
const LOAD_BATCH_LEN: usize = 4 << 20;

/// One client, one record in each sync.
pub fn lone<S: Store>(dir: &Path) -> Result<()> {
    let mut store = S::open(dir)?;
    let before = Written::now(dir)?;
    let (mut payload, mut times) = (0, Vec::new());
    for job in 0..LONE_SUBMITS {
        let ops = [accepted(job)];
        payload += ops[0].payload_len();
        let started = Instant::now();
        store.commit(&ops)?;
        times.push(started.elapsed());
    }
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    println!("median {:.2} ms, p99 {:.2} ms; {}", at(50), at(99), written(dir, before, payload)?);
    Ok(())
}

/// 64 clients. Each submits a job and waits until it is safe before it submits the next one.
pub fn submits<S: Store>(dir: &Path) -> Result<()> {
    let each = GROUP_SUBMITS / CLIENTS;
    let run = clients::<S>(dir, |client, queue| {
        (0..each).try_for_each(|n| queue.submit(vec![accepted(n * CLIENTS + client)]))
    })?;
    let rate = GROUP_SUBMITS as f64 / run.seconds;
    println!("{rate:.0} submits/s, {:.1} to a sync; {}; {}", run.per_sync, run.written, memory()?);
    Ok(())
}

/// 64 clients. Each takes one job after another through its life in two syncs: accepted; outcome and ended. The first
/// sync also deletes the job before. One client deletes nothing before the end, so that old jobs are stored among new
/// ones.
pub fn life<S: Store>(dir: &Path) -> Result<()> {
    let each = LIFE_JOBS / CLIENTS;
    let run = clients::<S>(dir, |client, queue| {
        let mut done = Vec::new();
        for job in (0..each).map(|n| n * CLIENTS + client) {
            let forget = if client == 0 { None } else { done.pop() };
            queue.submit(std::iter::once(accepted(job)).chain(forget).collect())?;
            queue.submit(vec![put(job, 1), put(job, 2)])?;
            done.push(Op::Forget { job, records: RECORDS });
        }
        queue.submit(done)
    })?;
    let rate = (each * CLIENTS) as f64 / run.seconds;
    println!("{rate:.0} jobs/s, {:.1} to a sync; {}; {}", run.per_sync, run.written, memory()?);
    print!("{:.1} MB left on disk", mb(disk_len(dir)?));
    drop(S::open(dir)?);
    println!(", {:.1} MB after closing and opening again", mb(disk_len(dir)?));
    Ok(())
}

/// Outcomes of the tasks of 16 large jobs, 1,000 in each sync.
pub fn outcomes<S: Store>(dir: &Path) -> Result<()> {
    let mut store = S::open(dir)?;
    store.commit(&(0..JOBS_AT_ONCE).map(accepted).collect::<Vec<_>>())?;
    let before = Written::now(dir)?;
    let (mut payload, mut busy) = (0, Duration::ZERO);
    for batch in 0..OUTCOME_BATCHES {
        let numbers = batch * OUTCOMES_PER_BATCH..(batch + 1) * OUTCOMES_PER_BATCH;
        let ops: Vec<_> = numbers.map(|n| put(n % JOBS_AT_ONCE, 1 + (n / JOBS_AT_ONCE) as u32)).collect();
        payload += ops.iter().map(Op::payload_len).sum::<u64>();
        let started = Instant::now();
        store.commit(&ops)?;
        busy += started.elapsed();
    }
    let rate = (OUTCOME_BATCHES * OUTCOMES_PER_BATCH) as f64 / busy.as_secs_f64();
    println!("{rate:.0} outcomes/s; {}; {}", written(dir, before, payload)?, memory()?);
    Ok(())
}

/// Writes 1,000,000 queued tasks, in 1,000 jobs or as single ones, and ends without closing the store.
pub fn load<S: Store>(dir: &Path, single: bool) -> Result<()> {
    let (jobs, len) = if single { (QUEUED, TASK_CANVAS_LEN) } else { (QUEUED / JOB_TASKS, JOB_CANVAS_LEN) };
    let mut store = S::open(dir)?;
    let mut ops = Vec::new();
    for job in 0..jobs {
        ops.push(Op::Put { job, no: 0, value: blob(&mut Random(job), len) });
        if ops.len() * len >= LOAD_BATCH_LEN || job + 1 == jobs {
            store.commit(&ops)?;
            ops.clear();
        }
    }
    println!("loaded {jobs} jobs, {:.1} MB on disk", mb(disk_len(dir)?));
    std::process::exit(0);
}

/// Opens the store that [`load`] wrote, and reads all of it.
pub fn recover<S: Store>(dir: &Path) -> Result<()> {
    let started = Instant::now();
    let store = S::open(dir)?;
    let opened = started.elapsed();
    let (mut records, mut bytes) = (0u64, 0);
    store.scan(&mut |_, _, value| {
        records += 1;
        bytes += value.len() as u64;
    })?;
    let all = started.elapsed().as_secs_f64();
    println!(
        "open {:.2} s, with scan {all:.2} s: {records} records, {:.1} MB; {}",
        opened.as_secs_f64(),
        mb(bytes),
        memory()?
    );
    Ok(())
}

/// 64 clients submit jobs, and print the number of each one that is safe, until the process is killed or `jobs` are
/// safe.
pub fn crash<S: Store>(dir: &Path, jobs: u64) -> Result<()> {
    let out = Mutex::new(std::io::stdout());
    clients::<S>(dir, |client, queue| {
        for job in (client..jobs).step_by(CLIENTS as usize) {
            queue.submit(vec![accepted(job), put(job, 1)])?;
            writeln!(out.lock().map_err(|_| "lock")?, "{job}")?;
        }
        Ok(())
    })?;
    Ok(())
}

/// Opens the store and compares it with the jobs that were reported safe.
pub fn verify<S: Store>(dir: &Path, safe: &Path) -> Result<()> {
    let mut safe: std::collections::BTreeSet<(u64, u32)> =
        std::fs::read_to_string(safe)?.lines().flat_map(str::parse).flat_map(|job| [(job, 0), (job, 1)]).collect();
    let store = S::open(dir).map_err(|error| format!("open: {error}"))?;
    let (mut wrong, mut more) = (0, 0);
    let scanned = store.scan(&mut |job, no, found| {
        wrong += u64::from(found != value(job, no));
        more += u64::from(!safe.remove(&(job, no)));
    });
    scanned.map_err(|error| format!("scan: {error}"))?;
    println!("missing {} wrong {wrong} more {more}", safe.len());
    Ok(())
}

fn accepted(job: u64) -> Op {
    put(job, 0)
}

fn put(job: u64, no: u32) -> Op {
    Op::Put { job, no, value: value(job, no) }
}

struct Submit {
    ops: Vec<Op>,
    safe: SyncSender<()>,
}

/// The channel of a client to the thread that commits.
struct Queue {
    to: SyncSender<Submit>,
}

impl Queue {
    /// Returns when `ops` are safe.
    fn submit(&self, ops: Vec<Op>) -> Result<()> {
        let (safe, wait) = sync_channel(1);
        self.to.send(Submit { ops, safe }).map_err(|_| "the store has failed")?;
        Ok(wait.recv()?)
    }
}

struct Run {
    seconds: f64,
    per_sync: f64,
    written: String,
}

/// Group commit: 64 threads submit; one thread commits everything that waits, whenever the previous sync has ended.
fn clients<S: Store>(dir: &Path, client: impl Fn(u64, &Queue) -> Result<()> + Sync) -> Result<Run> {
    let mut store = S::open(dir)?;
    let before = Written::now(dir)?;
    let (to, from) = sync_channel(CLIENTS as usize);
    let started = Instant::now();
    let (submits, syncs, payload) = thread::scope(|scope| -> Result<_> {
        let client = &client;
        let threads: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let queue = Queue { to: to.clone() };
                scope.spawn(move || client(n, &queue))
            })
            .collect();
        drop(to);
        let counts = commit_all(&mut store, &from);
        drop(from);
        for thread in threads {
            thread.join().map_err(|_| "a client panicked")??;
        }
        counts
    })?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Run { seconds, per_sync: submits as f64 / syncs as f64, written: written(dir, before, payload)? })
}

/// Commits batches until no client is left. Returns the number of submits and syncs, and the bytes of payload.
fn commit_all<S: Store>(store: &mut S, from: &Receiver<Submit>) -> Result<(u64, u64, u64)> {
    let (mut submits, mut syncs, mut payload) = (0, 0, 0);
    while let Ok(first) = from.recv() {
        let (mut ops, mut waiting) = (first.ops, vec![first.safe]);
        for next in from.try_iter().take(CLIENTS as usize) {
            ops.extend(next.ops);
            waiting.push(next.safe);
        }
        store.commit(&ops)?;
        submits += waiting.len() as u64;
        syncs += 1;
        payload += ops.iter().map(Op::payload_len).sum::<u64>();
        waiting.iter().try_for_each(|safe| safe.send(()))?;
    }
    Ok((submits, syncs, payload))
}

fn written(dir: &Path, before: Written, payload: u64) -> Result<String> {
    let now = Written::now(dir)?;
    let per_byte = |now: u64, before: u64| (now - before) as f64 / payload as f64;
    Ok(format!(
        "{:.1} MB payload, written x{:.2} by the process, x{:.2} to the device",
        mb(payload),
        per_byte(now.process, before.process),
        per_byte(now.device, before.device),
    ))
}

fn memory() -> Result<String> {
    Ok(format!("{:.2} s CPU, {:.1} MiB memory at most", cpu_seconds()?, resident_max_kib()? as f64 / 1024.0))
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
