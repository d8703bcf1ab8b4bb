//! Resident memory of processes over time: samples, a check whether it grows, and a curve.
//!
//! It never keeps a process alive. A process that is not running when a sample is taken is left out of it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::time::Duration;

/// Growth that does not count: pages of an allocator, or a process that was younger in one quarter.
const SLACK_KIB: f64 = 2_048.0;
const SLACK_SHARE: f64 = 0.10;
/// Size of the curve, in pixels, and the margin for labels.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 360.0;
const EDGE: f64 = 60.0;
const COLOURS: [&str; 8] = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#16a085", "#7f8c8d", "#34495e"];

/// The memory of each process, by its name.
#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<String, Vec<(Duration, u64)>>);

/// The trend of one process.
#[derive(Debug, PartialEq)]
pub(super) struct Trend {
    pub(super) name: String,
    /// Mean of the second quarter of the run and of the last, in KiB.
    pub(super) second_kib: f64,
    pub(super) last_kib: f64,
    pub(super) most_kib: u64,
}

impl Trend {
    /// Whether the last quarter takes more memory than the second.
    pub(super) fn grows(&self) -> bool {
        self.last_kib > self.second_kib * (1.0 + SLACK_SHARE) + SLACK_KIB
    }
}

impl Memory {
    /// Records the present memory of a process.
    pub(super) fn sample(&mut self, at: Duration, name: &str, process: u32) {
        if let Some(kib) = resident_kib(process) {
            self.0.entry(name.to_owned()).or_default().push((at, kib));
        }
    }

    /// The trend of each process, after a run of this length.
    pub(super) fn trends(&self, length: Duration) -> Vec<Trend> {
        let mean = |samples: &[(Duration, u64)], from: u32, to: u32| {
            let within = samples.iter().filter(|(at, _)| *at >= length * from / 4 && *at <= length * to / 4);
            let kib: Vec<f64> = within.map(|(_, kib)| *kib as f64).collect();
            kib.iter().sum::<f64>() / kib.len().max(1) as f64
        };
        let trend = |(name, samples): (&String, &Vec<(Duration, u64)>)| Trend {
            name: name.clone(),
            second_kib: mean(samples, 1, 2),
            last_kib: mean(samples, 3, 4),
            most_kib: samples.iter().map(|(_, kib)| *kib).max().unwrap_or_default(),
        };
        self.0.iter().map(trend).collect()
    }

    /// One line for each process, as SVG.
    pub(super) fn curve(&self, length: Duration) -> String {
        let most = self.0.values().flatten().map(|(_, kib)| *kib).max().unwrap_or(1).max(1) as f64;
        let x = |at: &Duration| EDGE + at.as_secs_f64() / length.as_secs_f64().max(1.0) * (WIDTH - 2.0 * EDGE);
        let y = |kib: f64| HEIGHT - EDGE - kib / most * (HEIGHT - 2.0 * EDGE);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        for quarter in 0..=4_u32 {
            let (kib, at) = (most * f64::from(quarter) / 4.0, length * quarter / 4);
            // Writing to a String cannot fail.
            let _ = writeln!(
                svg,
                "<line x1=\"{EDGE}\" x2=\"{:.0}\" y1=\"{y:.0}\" y2=\"{y:.0}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.0}\" y=\"{y:.0}\" text-anchor=\"end\">{:.0} MiB</text>\
                 <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{:.0} min</text>",
                WIDTH - EDGE,
                EDGE - 6.0,
                kib / 1024.0,
                x(&at),
                HEIGHT - EDGE + 18.0,
                at.as_secs_f64() / 60.0,
                y = y(kib),
            );
        }
        for (at, ((name, samples), colour)) in self.0.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let points: Vec<_> =
                samples.iter().map(|(at, kib)| format!("{:.1},{:.1}", x(at), y(*kib as f64))).collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/>\
                 <text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{name}</text>",
                points.join(" "),
                EDGE + 110.0 * at as f64,
                EDGE / 2.0,
            );
        }
        svg + "</svg>\n"
    }
}

/// The value that the kernel reports.
fn resident_kib(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(kib: impl Fn(u64) -> u64) -> Memory {
        let samples = (0..100).map(|second| (Duration::from_secs(second), kib(second))).collect();
        Memory([("node".to_owned(), samples)].into())
    }

    #[test]
    fn growth_is_found_and_noise_is_not() {
        let grows = |memory: Memory| memory.trends(Duration::from_secs(100))[0].grows();
        assert!(grows(memory(|second| 20_000 + 200 * second)));
        assert!(!grows(memory(|second| 20_000 + 1_000 * (second % 2))));
        assert!(!grows(memory(|second| 10_000 + 400 * second.min(20))), "the first quarter warms up");
    }

    #[test]
    fn the_curve_names_each_process() {
        let curve = memory(|_| 1_024).curve(Duration::from_secs(100));
        assert!(curve.contains(">node</text>") && curve.contains("1 MiB"), "{curve}");
    }

    #[test]
    fn this_process_takes_memory() {
        assert!(resident_kib(std::process::id()).is_some_and(|kib| kib > 0));
    }
}
