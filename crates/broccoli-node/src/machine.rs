//! This machine: clock, time of day, vitals.

use std::fs;
use std::sync::LazyLock;
use std::time::{Instant, UNIX_EPOCH};

use broccoli_run::{Machine, MachineVitals};

/// The machine of this process.
pub(crate) const MACHINE: Machine = Machine { now_us, unix_ms };

/// Microseconds since the first call in this process.
pub(crate) fn now_us() -> u64 {
    static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);
    STARTED.elapsed().as_micros() as u64
}

fn unix_ms() -> Option<u64> {
    UNIX_EPOCH.elapsed().ok().map(|since| since.as_millis() as u64)
}

/// The vitals of the machine, as Linux reports them. Without Linux there are none.
pub(crate) fn vitals() -> MachineVitals {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    MachineVitals {
        load: load.split(' ').next().and_then(|minute| minute.parse().ok()),
        memory_bytes: bytes(&memory, "MemTotal:"),
        memory_free_bytes: bytes(&memory, "MemAvailable:"),
    }
}

fn bytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_machine_is_read() {
        let meminfo = "MemTotal:         948304 kB\nMemFree:   1 kB\nMemAvailable:     512 kB\n";
        assert_eq!(bytes(meminfo, "MemTotal:"), Some(948_304 * 1_024));
        assert_eq!(bytes(meminfo, "MemAvailable:"), Some(512 * 1_024));
        assert_eq!(bytes("", "MemTotal:"), None);
    }
}
