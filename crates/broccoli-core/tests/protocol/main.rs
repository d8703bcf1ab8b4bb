//! The protocol of the sans-IO node. Each behaviour has a module.

mod batches;
mod blobs;
mod clients;
mod complaints;
mod counters;
mod faults;
mod forms;
mod growth;
mod hostile;
mod keys;
mod leaving;
mod losses;
mod memory;
mod modules;
mod presence;
mod queue;
mod rates;
mod restart;
mod slow;
mod spread;
mod stranger;
mod time;
mod unfit;
mod waits;

use std::collections::BTreeMap;

use broccoli_core::{Config, Event, Instant, Limits, Node, RecordKey, Timing, Write};
use broccoli_proto::module::DeployPublic;
use broccoli_proto::{Canvas, Cbor, Epoch};
use broccoli_sim::cluster::{self, Cluster, Id};

fn add(x: i64, y: i64) -> Canvas {
    Canvas::task("add", Cbor::encode(&(x, y)))
}

fn one(function: &str, arg: i64) -> Canvas {
    Canvas::task(function, Cbor::encode(&[arg]))
}

fn none(function: &str) -> Canvas {
    Canvas::task(function, Cbor::empty_array())
}

fn sleep(ms: i64) -> Canvas {
    one("sleep", ms)
}

/// `[0 + 0, 1 + 1, …]` and its result.
fn adds(n: i64) -> (Canvas, Cbor) {
    let sums: Vec<i64> = (0..n).map(|i| 2 * i).collect();
    (Canvas::group((0..n).map(|i| add(i, i)).collect()), Cbor::encode(&sums))
}

/// `n` tasks that take `ms` each, with different arguments, and their result.
fn sleeps(n: i64, ms: i64) -> (Canvas, Cbor) {
    let each: Vec<i64> = (0..n).map(|i| ms + i).collect();
    (Canvas::group(each.iter().map(|ms| sleep(*ms)).collect()), Cbor::encode(&each))
}

/// Connects a client to an origin.
fn attach(c: &mut Cluster, client: Id) {
    c.attach(client);
    let attached = c.run_until(300_000, |c| c.events(client).any(|event| matches!(event, Event::Attached(_))));
    assert!(attached, "no origin was found");
}

/// One incarnation of a single node with a journal.
fn durable_node(boots: u8, now: Instant) -> Node {
    durable_node_with(boots, now, Limits::host())
}

/// The same with other limits.
fn durable_node_with(boots: u8, now: Instant, limits: Limits) -> Node {
    let config = Config {
        name: "pi-1".parse().expect("a name"),
        keys: vec![cluster::cluster_key()],
        deploy_public: DeployPublic([0; 32]),
        slots: 2,
        features: vec![],
        natives: vec![cluster::functions::natives()],
        resident: true,
        durable: true,
        holds_code: true,
        watches: true,
        version: "test".into(),
        timing: Timing::FAST,
        limits,
    };
    Node::new(config, Epoch([boots; 16]), 1, now)
}

/// Writes to a simulated disk.
fn write_to(disk: &mut BTreeMap<RecordKey, Vec<u8>>, writes: Vec<Write>) {
    for Write { key, value } in writes {
        match value {
            Some(value) => disk.insert(key, value.to_vec()),
            None => disk.remove(&key),
        };
    }
}
