//! The parts of a cluster that `cargo xtask chaos` and `cargo xtask soak` kill: a worker whose functions leave marks, and
//! the embedded MQTT server in a process of its own.
//!
//! `chaos_worker worker CLUSTER_FILE URL NAME SLOTS MARKS_DIR` writes a line at the start (`S task µs`) and at the end
//! (`E task µs`) of each run of `chaos.mark` into a file of its own in the directory; a line that is written outlives a
//! kill. `chaos_worker server CLUSTER_FILE ADDR:PORT` serves the cluster's account. Both print `ready`.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broccoli_node::mqtt::{EmbeddedServer, ServerConfig};
use broccoli_node::{Cluster, Event, NodeEvent, NodeHandle};

/// How long one run takes.
const RUN: Duration = Duration::from_millis(5);
/// Most failures of one `chaos.flaky`.
const FAILURES_MAX: u32 = 16;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["worker", cluster, url, name, slots, marks] => worker(cluster, url, name, slots.parse()?, marks.into()).await,
        ["server", cluster, listen] => server(cluster, listen).await,
        _ => Err("usage: chaos_worker worker CLUSTER_FILE URL NAME SLOTS MARKS_DIR | server CLUSTER_FILE ADDR".into()),
    }
}

async fn worker(cluster: &str, url: &str, name: &str, slots: u16, marks: PathBuf) -> Result {
    let file = marks.join(format!("{name}-{}", std::process::id()));
    let file = OpenOptions::new().create(true).append(true).open(file)?;
    let builder = NodeHandle::builder().cluster(Cluster::load(Path::new(cluster))?).server(url.parse()?);
    let builder = builder.name(name.parse()?).slots(slots).function("chaos.mark", move |task: i64| mark(&file, task));
    let builder = builder.function("chaos.flaky", move |id: i64, failures: u32| flaky(&marks, id, failures));
    let mut node = builder.start()?;
    let mut events = node.events();
    while let Some(event) = events.recv().await {
        match event {
            NodeEvent::Connected => println!("ready {name}"),
            NodeEvent::Cluster(Event::NameTaken) => return Err(format!("another node is called {name}").into()),
            _ => {}
        }
    }
    Err("the node has stopped".into())
}

/// Runs for [`RUN`] and gives a number that nobody gets by chance.
fn mark(mut marks: &File, task: i64) -> std::result::Result<i64, String> {
    let mut line = |kind| marks.write_all(format!("{kind} {task} {}\n", unix_us()).as_bytes());
    line('S').map_err(|error| format!("cannot write a mark: {error}"))?;
    sleep(RUN);
    line('E').map_err(|error| format!("cannot write a mark: {error}"))?;
    task.checked_mul(3).and_then(|result| result.checked_add(1)).ok_or_else(|| "too large".to_owned())
}

/// Fails at its first `failures` calls, wherever they run, then gives `id`.
fn flaky(marks: &Path, id: i64, failures: u32) -> std::result::Result<i64, String> {
    for failure in 0..failures.min(FAILURES_MAX) {
        match OpenOptions::new().write(true).create_new(true).open(marks.join(format!("flaky-{id}-{failure}"))) {
            Ok(_) => return Err(format!("failure {failure} of {id}")),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot write a mark: {error}")),
        }
    }
    Ok(id)
}

fn unix_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

async fn server(cluster: &str, listen: &str) -> Result {
    let (user, password) = Cluster::load(Path::new(cluster))?.mqtt_credentials();
    let config =
        ServerConfig { listen: listen.parse()?, user, password, packet_bytes_max: 1 << 20, clients_max: 1_000 };
    let _server = EmbeddedServer::start(config).await?;
    println!("ready {listen}");
    std::future::pending().await
}
