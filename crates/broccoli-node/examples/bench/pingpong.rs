//! The yardstick: one packet to another process and back over the same server with the same
//! client library, QoS 0, no protocol of ours.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use broccoli_node::mqtt::{Link, LinkConfig, LinkEvent, ServerUrl};
use broccoli_node::{Cluster, cluster};

use crate::{Error, PATIENCE};

const PING: &str = "pingpong/ping";
const PONG: &str = "pingpong/pong";
const WARM_UP: usize = 50;
const ROUNDS: usize = 1_000;
/// About the length of a lease of one small task.
const PAYLOAD_BYTES: usize = 160;

struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The median round trip in microseconds.
pub(crate) fn median_us(url: &ServerUrl, cluster: &Cluster, file: &Path) -> Result<f64, Error> {
    let echo = Command::new(std::env::current_exe()?).args(["echo", &url.to_string()]).arg(file).spawn()?;
    let _echo = Echo(echo);
    let (url, cluster) = (url.clone(), cluster.clone());
    // Beside the runtime of the benchmark, whose loop is not to be disturbed.
    let measure = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        runtime.block_on(ping(&url, &cluster)).map_err(|error| error.to_string())
    };
    let thread = std::thread::spawn(measure);
    Ok(thread.join().map_err(|_| "the ping-pong panicked")??)
}

/// Answers pings until it is killed.
pub(crate) async fn echo(url: &str, file: &str) -> Result<(), Error> {
    let mut link = connect(&url.parse()?, &Cluster::load(file.as_ref())?, PING).await?;
    loop {
        match link.next().await {
            LinkEvent::Packet { payload, .. } => link.publish(PONG, &payload, false)?,
            LinkEvent::Connected => {}
            LinkEvent::Disconnected { .. } => return Ok(()),
        }
    }
}

async fn ping(url: &ServerUrl, cluster: &Cluster) -> Result<f64, Error> {
    let mut link = connect(url, cluster, PONG).await?;
    let payload = vec![0x55; PAYLOAD_BYTES];
    let mut times = Vec::new();
    let end = Instant::now() + PATIENCE;
    while times.len() < WARM_UP + ROUNDS && Instant::now() < end {
        let start = Instant::now();
        link.publish(PING, &payload, false)?;
        // The other process may not be there at first.
        if let Ok(LinkEvent::Packet { .. }) = tokio::time::timeout(Duration::from_millis(100), link.next()).await {
            times.push(start.elapsed());
        }
    }
    let mut times = times.split_off(WARM_UP.min(times.len()));
    times.sort_unstable();
    let median = times.get(times.len() / 2).ok_or("no answer to a ping")?;
    Ok(median.as_secs_f64() * 1e6)
}

async fn connect(url: &ServerUrl, cluster: &Cluster, subscription: &str) -> Result<Link, Error> {
    let credentials = Some(cluster.mqtt_credentials());
    let mut link = Link::new(LinkConfig { credentials, ..LinkConfig::new(url.clone(), vec![subscription.into()]) });
    let id: [u8; 4] = cluster::random()?;
    link.connect(&format!("pingpong-{}", u32::from_le_bytes(id)), None);
    match link.next().await {
        LinkEvent::Connected => Ok(link),
        event => Err(format!("cannot connect: {event:?}").into()),
    }
}
