//! A full disk: the origin keeps its jobs on a small file system of its own. A ballast file fills it, and is then
//! removed.
//!
//! The file system is a tmpfs in a mount namespace that only the origin is in. So it needs neither root nor a
//! clean-up: it ends with the origin.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cluster::{Cluster, Programs, START_MAX, Server, until};
use super::marks::now_us;
use super::scenarios::{ORIGIN, Row, Scenario, observe, submit, wait_for_functions};
use crate::Result;
use crate::process::{command, output};

/// Size of the disk: enough for a job and its results.
const DISK: &str = "size=4m";
/// After this many submits, one must have been refused.
const SUBMITS_MAX: usize = 64;
/// How many tasks each of these jobs has.
const SMALL: usize = 100;
/// How soon the origin must notice that there is room again.
const NOTICED_MAX: Duration = Duration::from_secs(10);

/// One job runs while the disk fills up. Others are refused. One is accepted when there is room again.
///
/// # Errors
/// Something could not be started, or a client failed.
pub(super) fn play(scenario: &Scenario, programs: &Programs, server: Server) -> Result<Row> {
    let cluster = Cluster::new(programs, server, scenario.name)?;
    let _server = cluster.start_server()?;
    let data = cluster.dir().join("data");
    fs::create_dir(&data).map_err(|error| error.to_string())?;
    let origin = cluster.start_node(ORIGIN, on_small_disk(&cluster, &data))?;
    let workers = ["worker-1", "worker-2"].map(|name| cluster.start_worker(name, 1, cluster.addr));
    let _workers = workers.into_iter().collect::<Result<Vec<_>>>()?;
    wait_for_functions(&cluster)?;

    let first = 0..scenario.tasks;
    let mut jobs = vec![(first.clone(), submit(&cluster, &first)?)];
    until("a part of the job", START_MAX, || {
        Ok((cluster.marks()?.done(first.clone()) * 4 >= first.len()).then_some(()))
    })?;
    let ballast = Ballast::fill(origin.id(), &data)?;
    let mut small = (first.end..).step_by(SMALL).map(|start| start..start + SMALL);
    let on_full_disk =
        small.by_ref().take(SUBMITS_MAX).map_while(|tasks| Some((tasks.clone(), submit(&cluster, &tasks).ok()?)));
    jobs.extend(on_full_disk);
    let accepted = jobs.len() - 1;
    if accepted == SUBMITS_MAX {
        return Err(format!("{accepted} jobs were accepted on a full disk"));
    }
    drop(ballast);
    let free_us = now_us();
    jobs.push(until("a job is accepted again", NOTICED_MAX, || {
        Ok(small.next().and_then(|tasks| Some((tasks.clone(), submit(&cluster, &tasks).ok()?))))
    })?);
    let recovered_s = Some((now_us() - free_us) as f64 / 1e6);

    let mut rows = Vec::new();
    for (tasks, id) in jobs {
        let client = cluster.start_as("client", cluster.client(&["result", &id, "--wait"]))?;
        rows.push(observe(&cluster, tasks, client)?);
    }
    Ok(Row {
        tasks: rows.iter().map(|row| row.tasks).sum(),
        lost: rows.iter().map(|row| row.lost).sum(),
        wrong: rows.iter().map(|row| row.wrong).sum(),
        repeated: cluster.marks()?.repeated(),
        recovered_s,
        pause_s: None,
        note: format!("{accepted} small jobs accepted before a refusal"),
    })
}

/// A durable origin whose data is on a disk of size [`DISK`].
fn on_small_disk(cluster: &Cluster, data: &Path) -> Command {
    let is_root = output(command("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    let (url, data) = (cluster.url(cluster.addr), data.to_string_lossy());
    let mount = format!("mount -t tmpfs -o {DISK} broccoli \"$0\" && exec \"$@\"");
    // An ordinary user is root in a namespace of his own.
    let namespace = if is_root { &["--mount"][..] } else { &["--map-root-user", "--mount"] };
    let wrapper = [&["unshare"], namespace, &["sh", "-c", &mount, &data]].concat();
    let node = ["node", "--slots", "0", "--name", ORIGIN, "--server", &url, "--data", &data];
    cluster.broccoli_under(&wrapper, &node)
}

/// A file that takes all the room. When the value ends, the room is free again.
struct Ballast(PathBuf);

impl Ballast {
    /// Fills the disk of a process.
    fn fill(process: u32, data: &Path) -> Result<Ballast> {
        let root = format!("/proc/{process}/root{}", data.display());
        let path = Path::new(&root).join("ballast");
        let mut file = File::create(&path).map_err(|error| format!("cannot fill the disk: {error}"))?;
        let ballast = Ballast(path);
        // First in large pieces, then the rest. Each loop ends when there is no room.
        for piece in [64 * 1024, 512, 1] {
            while file.write(&vec![0; piece]).is_ok_and(|written| written > 0) {}
        }
        Ok(ballast)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // The disk may have ended with its process.
        let _ = fs::remove_file(&self.0);
    }
}
