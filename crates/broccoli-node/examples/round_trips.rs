//! How long one task takes to a node and back, one call after the other: measured on nodes on microcontrollers.
//!
//! `round_trips CLUSTER_FILE URL NODE COUNT`: this process is the origin; prints median and 99th percentile.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use broccoli_node::{Cluster, NodeHandle, text};

/// Not counted.
const WARM_UP: usize = 20;
/// How long the node and its module may take to be known.
const KNOWN_MAX: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file, url, node, count] = &args[..] else {
        return Err("usage: round_trips CLUSTER_FILE URL NODE COUNT".into());
    };
    let cluster = Cluster::load(Path::new(file))?;
    let origin = NodeHandle::builder().cluster(cluster).server(url.parse()?).holds_code(true).start()?;
    let add = text::parse(&format!("add.s(2, 2).set(on=\"{node}\")"))?.canvas;
    let known = async {
        while origin.function("add").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(KNOWN_MAX, known).await.map_err(|_| "no node has the function add")?;
    let mut took = Vec::new();
    for round in 0..WARM_UP + count.parse::<usize>()? {
        let start = Instant::now();
        let sum: i64 = origin.submit(add.clone()).get().await?;
        if round >= WARM_UP {
            took.push(start.elapsed().as_secs_f64() * 1e3);
        }
        assert_eq!(sum, 4);
    }
    origin.leave().await;
    took.sort_by(f64::total_cmp);
    let at = |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!("{node}: {count} calls of add, median {:.2} ms, 99 of 100 within {:.2} ms", at(0.5), at(0.99));
    Ok(())
}
