//! The memory that a node uses for data of others stays within its settings. Measured with real processes, as the
//! kernel counts their memory.
#![cfg(all(feature = "embedded-server", target_os = "linux"))]
// The lint does not know that a macro makes these functions tests, nor their helpers.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;

use broccoli_node::mqtt::{EmbeddedServer, ServerConfig, ServerUrl};
use broccoli_node::{Canvas, Cause, Cbor, Cluster, Form, JobError, JobHandle, NodeHandle, Refusal, Task};
use support::{Home, Plain, Process, finish, start_open_mosquitto, start_open_plain};
use tokio::process::Child;
use tokio::time::timeout;

/// The memory setting of the node, for jobs.
const QUEUE: &str = "64M";
const QUEUE_BYTES: usize = 64 << 20;
/// Size of one result.
const RESULT_BYTES: usize = 5 << 20;

/// A cluster whose server is not in a measured process.
struct Setting {
    home: Home,
    cluster: Cluster,
    url: String,
    /// Ends with this value.
    _server: Server,
}

enum Server {
    Embedded(#[expect(dead_code)] EmbeddedServer),
    Mosquitto(#[expect(dead_code)] Child),
    Plain(#[expect(dead_code)] Child, #[expect(dead_code)] Plain),
}

impl Setting {
    async fn embedded() -> Setting {
        let (home, cluster) = Setting::init().await;
        let (user, password) = cluster.mqtt_credentials();
        let listen = "127.0.0.1:0".parse().unwrap();
        let config = ServerConfig { listen, user, password, packet_bytes_max: 1 << 20, clients_max: 100 };
        let server = EmbeddedServer::start(config).await.unwrap();
        let url = format!("mqtt://{}", server.local_addr());
        Setting { home, cluster, url, _server: Server::Embedded(server) }
    }

    async fn mosquitto() -> Setting {
        let (home, cluster) = Setting::init().await;
        let (server, url) = start_open_mosquitto(&home);
        Setting { home, cluster, url, _server: Server::Mosquitto(server) }
    }

    /// On a server that retains nothing.
    async fn plain() -> Setting {
        let (home, cluster) = Setting::init().await;
        let (server, relay, url) = start_open_plain(&home).await;
        Setting { home, cluster, url, _server: Server::Plain(server, relay) }
    }

    async fn init() -> (Home, Cluster) {
        let home = Home::new();
        home.run(&["init"]).await.ok();
        let cluster = Cluster::load(&home.0.join(".config/broccoli/cluster.json")).unwrap();
        (home, cluster)
    }

    /// The node that is measured.
    async fn origin(&self, slots: &str) -> Process {
        let args = ["node", "--name", "origin", "--slots", slots, "--queue-memory", QUEUE, "--data", "data"];
        let mut origin = Process::start(self.home.command(&args).env("BROCCOLI_SERVER", &self.url));
        origin.line("ready  ").await;
        origin
    }

    /// A node in this process, with its own function.
    fn node(&self, name: &str, slots: u16) -> NodeHandle {
        let url: ServerUrl = self.url.parse().unwrap();
        let node = NodeHandle::builder().cluster(self.cluster.clone()).server(url);
        let node = node.name(name.parse().unwrap()).slots(slots);
        node.function("large", |bytes: u32| "x".repeat(bytes as usize)).start().unwrap()
    }
}

/// The peak memory of a process in bytes, as the kernel counts it.
fn peak(process: &Process) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Growth of the peak since it was `base`.
fn growth(process: &Process, base: usize) -> usize {
    let growth = peak(process) - base;
    println!("grew by {} MB from {} MB", growth >> 20, base >> 20);
    growth
}

/// Memory for jobs may grow by at most 1.5 times the setting.
const GROWTH_MAX: usize = QUEUE_BYTES / 2 * 3;

fn task(function: &str, args: Cbor) -> Canvas {
    Form::Task(Task { function: function.into(), args, kwargs: vec![], immutable: false }).into()
}

/// A list of `n` results of [`RESULT_BYTES`].
fn results(n: usize) -> Canvas {
    Canvas::group((0..n).map(|_| task("large", Cbor::encode(&[RESULT_BYTES]))).collect())
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    timeout(support::PATIENCE * 2, work).await.expect("it comes in time")
}

/// A job that needs more memory than there is fails, with an error about memory.
async fn fails_for_memory(job: &mut JobHandle) {
    let JobError::Failed(error) = in_time(job.result()).await.unwrap_err() else { panic!("it has failed") };
    assert_eq!(error.cause, Cause::Unfit);
    assert!(error.text.contains("queue memory is 64M"), "{error}");
}

/// Makes three tests of each function, one for each MQTT server.
macro_rules! on_both_servers {
    ($(async fn $name:ident($setting:ident: Setting) $body:block)*) => {
        $(mod $name {
            use super::*;

            async fn run($setting: Setting) $body

            #[tokio::test]
            async fn embedded() {
                run(Setting::embedded().await).await;
            }

            #[tokio::test]
            async fn mosquitto() {
                run(Setting::mosquitto().await).await;
            }

            #[tokio::test]
            async fn plain() {
                run(Setting::plain().await).await;
            }
        })*
    };
}

on_both_servers! {
    async fn results_of_others_that_there_is_no_memory_for(setting: Setting) {
        let origin = setting.origin("0").await;
        let base = peak(&origin);
        let (_worker, client) = (setting.node("worker", 2), setting.node("client", 0));
        let mut doomed = client.submit_to_cluster(results(500));
        let mut behind = client.submit_to_cluster(results(4));
        fails_for_memory(&mut doomed).await;
        assert_eq!(in_time(behind.result()).await.unwrap().array_len(), Some(4), "what waits behind it is not lost");
        assert!(growth(&origin, base) < GROWTH_MAX);
        // The records in the journal must not make the next incarnation larger.
        let mut interrupted = client.submit_to_cluster(results(8));
        in_time(interrupted.accepted()).await.unwrap();
        origin.kill().await;
        let origin = setting.origin("0").await;
        assert_eq!(in_time(interrupted.result()).await.unwrap().array_len(), Some(8));
        // The list of four is in the archive, which has its own limit.
        assert!(growth(&origin, base) < GROWTH_MAX + 4 * RESULT_BYTES);
        origin.kill().await;
    }

    async fn results_of_its_own_that_there_is_no_memory_for(setting: Setting) {
        let origin = setting.origin("2").await;
        let mut deploy = setting.home.command(&["deploy", "--examples"]);
        deploy.env("BROCCOLI_SERVER", &setting.url);
        finish(deploy).await.ok();
        let client = setting.node("client", 0);
        let copy = || task("identity", Cbor::empty_array());
        let copies = |n| Canvas::chain(vec![
            task("identity", Cbor::encode(&["x".repeat(RESULT_BYTES)])),
            Canvas::group((0..n).map(|_| copy()).collect()),
        ]);
        // Memory of the sandbox for values of this size does not count as memory for jobs.
        in_time(client.submit_to_cluster(copies(2)).result()).await.unwrap();
        let base = peak(&origin);
        fails_for_memory(&mut client.submit_to_cluster(copies(500))).await;
        assert!(growth(&origin, base) < GROWTH_MAX);
        origin.kill().await;
    }

    async fn refused_canvases_with_names_of_any_length(setting: Setting) {
        let origin = setting.origin("1").await;
        let client = setting.node("client", 0);
        let name = "x".repeat(900_000);
        let mut base = 0;
        for number in 0..300 {
            let refused = in_time(client.submit_to_cluster(task(&name, Cbor::empty_array())).result()).await;
            let Err(JobError::Refused(Refusal::BadCanvas(why))) = refused else { panic!("{refused:?}") };
            assert!(why.len() < 200, "{} bytes", why.len());
            // The first rounds show the memory that packets of this size need.
            base = if number < 10 { peak(&origin) } else { base };
        }
        assert!(growth(&origin, base) < 16 << 20);
        origin.kill().await;
    }
}
