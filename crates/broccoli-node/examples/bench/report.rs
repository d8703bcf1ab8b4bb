//! The figures, for people and for programs.

use std::time::Duration;

use crate::backlog::Backlog;
use crate::durable::Rate;
use crate::process::Cpu;

/// One line of the benchmark.
pub(crate) struct Item {
    tasks: u32,
    /// Of the whole canvas, or of one round trip of a sequence; sorted.
    walls: Vec<Duration>,
    cpu: Cpu,
    cpu_tasks: f64,
    is_sequence: bool,
}

/// Wall times of one thing that was done several times, and the CPU time of all of them.
#[derive(Default)]
pub(crate) struct Rounds {
    walls: Vec<Duration>,
    cpu: Cpu,
}

impl Rounds {
    pub(crate) fn add(&mut self, walls: impl IntoIterator<Item = Duration>, cpu: Cpu) {
        self.walls.extend(walls);
        self.cpu += cpu;
    }
}

/// What a node takes when there is nothing to do.
#[derive(Default)]
pub(crate) struct Idle {
    pub(crate) rss_mb: f64,
    pub(crate) cpu_percent: f64,
}

#[derive(Default)]
pub(crate) struct Report {
    /// Load of the machine when the benchmark began.
    load: String,
    /// Without a journal, and with one.
    items: Vec<(&'static str, [Item; 2])>,
    /// Of the disk, one after the other.
    pub(crate) syncs: Vec<Duration>,
    /// The same with a pause before each.
    pub(crate) rare_syncs: Vec<Duration>,
    /// Groups of tasks: without a journal, and with one.
    pub(crate) groups: [Vec<Rate>; 2],
    /// Clients, what they wait for, and how many they get.
    pub(crate) submits: Vec<(&'static str, &'static str, Rate)>,
    pub(crate) backlogs: Vec<Backlog>,
    pub(crate) pingpong_us: f64,
    pub(crate) pingpong_after_us: f64,
    pub(crate) first_result_s: f64,
    pub(crate) idle: Idle,
    pub(crate) peak_mb: f64,
}

impl Item {
    /// A canvas of `tasks` tasks that was run once for each wall time.
    pub(crate) fn new(tasks: u32, rounds: Rounds) -> Item {
        let cpu_tasks = f64::from(tasks) * rounds.walls.len() as f64;
        Item { tasks, walls: sorted(rounds.walls), cpu: rounds.cpu, cpu_tasks, is_sequence: false }
    }

    /// `tasks` jobs of one task, one after the other.
    pub(crate) fn sequence(tasks: u32, rounds: Rounds) -> Item {
        Item { tasks, walls: sorted(rounds.walls), cpu: rounds.cpu, cpu_tasks: f64::from(tasks), is_sequence: true }
    }

    fn quantile(&self, q: f64) -> f64 {
        let at = ((self.walls.len() - 1) as f64 * q).round() as usize;
        self.walls[at].as_secs_f64()
    }

    fn cpu_ms(&self, of: Duration) -> f64 {
        of.as_secs_f64() * 1e3 / self.cpu_tasks
    }

    fn cpu_ms_all(&self) -> f64 {
        self.cpu_ms(self.cpu.client + self.cpu.server + self.cpu.workers)
    }
}

impl Report {
    pub(crate) fn new() -> Report {
        Report { load: load(), ..Report::default() }
    }

    pub(crate) fn add(&mut self, name: &'static str, items: [Item; 2]) {
        self.items.push((name, items));
    }

    pub(crate) fn print(&self) {
        println!("item   tasks   wall (median)   tasks/s   CPU ms per task: all = client + server + workers");
        for (name, [item, _]) in &self.items {
            let wall = item.quantile(0.5);
            let rate = if item.is_sequence { 1.0 / wall } else { f64::from(item.tasks) / wall };
            let [client, server, workers] =
                [item.cpu.client, item.cpu.server, item.cpu.workers].map(|part| item.cpu_ms(part));
            let all = item.cpu_ms_all();
            println!(
                "{name:4} {:7}   {:10.2} ms {rate:10.0}   {all:.4} = {client:.4} + {server:.4} + {workers:.4}",
                item.tasks,
                wall * 1e3,
            );
            if item.is_sequence {
                let (p99, ratio) = (item.quantile(0.99) * 1e6, wall * 1e6 / self.pingpong());
                println!("       p99 {p99:.0} µs; median is {ratio:.2} times the ping-pong");
            }
        }
        println!("ping-pong {:.1} µs before, {:.1} µs after", self.pingpong_us, self.pingpong_after_us);
        println!(
            "idle node {:.1} MB, {:.2} % of a core; worker at peak {:.1} MB",
            self.idle.rss_mb, self.idle.cpu_percent, self.peak_mb
        );
        println!("first result {:.0} ms after `broccoli up` was started", self.first_result_s * 1e3);
        self.print_journal();
        println!("load of the machine: {} at first, {} at last", self.load, load());
    }

    fn print_journal(&self) {
        let (sync, rare) = (median(&self.syncs), median(&self.rare_syncs));
        println!(
            "\nwith the journal: a sync takes {:.3} ms (median of {}), after a pause {:.3} ms (median of {})",
            sync * 1e3,
            self.syncs.len(),
            rare * 1e3,
            self.rare_syncs.len()
        );
        println!("item   wall without   wall with   ratio   CPU ratio   more, in syncs   in syncs after a pause");
        for (name, [off, on]) in &self.items {
            let (before, after) = (off.quantile(0.5), on.quantile(0.5));
            println!(
                "{name:4} {:11.2} ms {:8.2} ms {:7.2} {:11.2} {:16.1} {:24.1}",
                before * 1e3,
                after * 1e3,
                after / before,
                on.cpu_ms_all() / off.cpu_ms_all(),
                (after - before) / sync,
                (after - before) / rare,
            );
        }
        for (name, what, rate) in &self.submits {
            println!(
                "g    64 clients, {name}, durable {what}: {:.0}/s, {:.0} µs of CPU each",
                rate.per_s(),
                rate.cpu_us()
            );
        }
        for (journal, rates) in ["without", "with"].into_iter().zip(&self.groups) {
            let mut all: Vec<f64> = rates.iter().map(Rate::per_s).collect();
            all.sort_by(f64::total_cmp);
            let cpu = rates.iter().map(Rate::cpu_us).sum::<f64>() / rates.len().max(1) as f64;
            let median = all.get(all.len() / 2).copied().unwrap_or_default();
            println!("h    groups of 1,000 {journal} the journal: {median:.0} tasks/s, {cpu:.2} µs of CPU each");
        }
    }

    pub(crate) fn print_backlogs(&self) {
        println!("\n1,000,000 queued tasks   first lease after   of it opening   CPU      peak      resident   a task");
        for backlog in &self.backlogs {
            println!(
                "i {:20} {:14.2} s {:13.2} s {:7.2} s {:5.0} MB {:8.0} MB {:6.0} B",
                backlog.shape,
                backlog.wall_s,
                backlog.open_s,
                backlog.cpu_s,
                backlog.peak_mb,
                backlog.rss_mb,
                backlog.task_bytes()
            );
            let (mb, bytes) = (backlog.accepted_mb, backlog.accepted_task_bytes());
            println!("k {:20} accepted, without a journal: {mb:.0} MB, {bytes:.0} B a task", backlog.shape);
        }
    }

    fn journal_json(&self) -> serde_json::Value {
        let items = self.items.iter().map(|(name, [off, on])| {
            let ratio = on.quantile(0.5) / off.quantile(0.5);
            ((*name).to_owned(), serde_json::json!({ "ratio": ratio, "with": on.to_json() }))
        });
        let submits = self.submits.iter().map(|(name, what, rate)| {
            serde_json::json!({ "clients": name, "until": what, "per_s": rate.per_s(), "cpu_us": rate.cpu_us() })
        });
        let rates = |rates: &[Rate]| rates.iter().map(Rate::per_s).collect::<Vec<_>>();
        serde_json::json!({
            "sync_s": median(&self.syncs),
            "sync_after_pause_s": median(&self.rare_syncs),
            "items": items.collect::<serde_json::Map<_, _>>(),
            "submits": submits.collect::<Vec<_>>(),
            "groups_tasks_per_s": { "without": rates(&self.groups[0]), "with": rates(&self.groups[1]) },
        })
    }

    pub(crate) fn to_json(&self) -> String {
        let items: serde_json::Map<String, serde_json::Value> =
            self.items.iter().map(|(name, [item, _])| ((*name).to_owned(), item.to_json())).collect();
        let json = serde_json::json!({
            "items": items,
            "pingpong": { "median_us": self.pingpong() },
            "idle": { "rss_mb": self.idle.rss_mb, "cpu_percent": self.idle.cpu_percent },
            "peak": { "rss_mb": self.peak_mb },
            "first_result_s": self.first_result_s,
            "load": self.load,
            "journal": self.journal_json(),
            "backlog": self.backlogs.iter().map(Backlog::to_json).collect::<Vec<_>>(),
        });
        format!("{json:#}\n")
    }

    fn pingpong(&self) -> f64 {
        (self.pingpong_us + self.pingpong_after_us) / 2.0
    }
}

impl Item {
    fn to_json(&self) -> serde_json::Value {
        if self.is_sequence {
            return serde_json::json!({
                "median_us": self.quantile(0.5) * 1e6,
                "p99_us": self.quantile(0.99) * 1e6,
                "cpu_ms_per_task": self.cpu_ms_all(),
            });
        }
        let wall = self.quantile(0.5);
        serde_json::json!({
            "wall_s": wall,
            "tasks_per_s": f64::from(self.tasks) / wall,
            "cpu_ms_per_task": self.cpu_ms_all(),
        })
    }
}

impl Backlog {
    fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "shape": self.shape,
            "first_lease_s": self.wall_s,
            "open_s": self.open_s,
            "cpu_s": self.cpu_s,
            "peak_mb": self.peak_mb,
            "rss_mb": self.rss_mb,
            "bytes_per_task": self.task_bytes(),
            "accepted_bytes_per_task": self.accepted_task_bytes(),
        })
    }
}

fn median(times: &[Duration]) -> f64 {
    let times = sorted(times.to_vec());
    times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

/// Of the last minute.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().next().unwrap_or_default().to_owned()
}

fn sorted(mut walls: Vec<Duration>) -> Vec<Duration> {
    walls.sort_unstable();
    walls
}
