//! The figures, for people and for programs.

use std::time::Duration;

use crate::process::Cpu;

/// One line of the benchmark.
pub(crate) struct Item {
    tasks: u32,
    /// Of the whole canvas, or of one round trip of a sequence.
    walls: Vec<Duration>,
    cpu: Cpu,
    cpu_tasks: f64,
    is_sequence: bool,
}

/// What a node takes when there is nothing to do.
#[derive(Default)]
pub(crate) struct Idle {
    pub(crate) rss_mb: f64,
    pub(crate) cpu_percent: f64,
}

#[derive(Default)]
pub(crate) struct Report {
    items: Vec<(&'static str, Item)>,
    pub(crate) pingpong_us: f64,
    pub(crate) pingpong_after_us: f64,
    pub(crate) first_result_s: f64,
    pub(crate) idle: Idle,
    pub(crate) peak_mb: f64,
}

impl Item {
    /// A canvas of `tasks` tasks that was run once for each wall time.
    pub(crate) fn new(tasks: u32, walls: Vec<Duration>, cpu: Cpu) -> Item {
        let cpu_tasks = f64::from(tasks) * walls.len() as f64;
        Item { tasks, walls: sorted(walls), cpu, cpu_tasks, is_sequence: false }
    }

    /// `tasks` jobs of one task, one after the other.
    pub(crate) fn sequence(tasks: u32, walls: Vec<Duration>, cpu: Cpu) -> Item {
        Item { tasks, walls: sorted(walls), cpu, cpu_tasks: f64::from(tasks), is_sequence: true }
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
    pub(crate) fn add(&mut self, name: &'static str, item: Item) {
        self.items.push((name, item));
    }

    pub(crate) fn print(&self) {
        println!("item   tasks   wall (median)   tasks/s   CPU ms per task: all = client + server + workers");
        for (name, item) in &self.items {
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
    }

    pub(crate) fn to_json(&self) -> String {
        let items: serde_json::Map<String, serde_json::Value> =
            self.items.iter().map(|(name, item)| ((*name).to_owned(), item.to_json())).collect();
        let json = serde_json::json!({
            "items": items,
            "pingpong": { "median_us": self.pingpong() },
            "idle": { "rss_mb": self.idle.rss_mb, "cpu_percent": self.idle.cpu_percent },
            "peak": { "rss_mb": self.peak_mb },
            "first_result_s": self.first_result_s,
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

fn sorted(mut walls: Vec<Duration>) -> Vec<Duration> {
    walls.sort_unstable();
    walls
}
