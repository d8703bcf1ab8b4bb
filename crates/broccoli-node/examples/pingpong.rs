//! Raw MQTT ping-pong: the floor under every latency of a cluster.
//!
//! `pingpong [URL] [PAYLOAD_BYTES]`: a second process answers each packet at once; prints the median of the round trips.
//! Without a URL the server runs in this process, as in `broccoli up`.

use std::error::Error;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use broccoli_node::mqtt::{EmbeddedServer, Link, LinkConfig, LinkEvent, ServerConfig, ServerUrl};

const ROUNDS: usize = 20_000;
const WARM_UP: usize = 2_000;
const ACCOUNT: (&str, &str) = ("pingpong", "only for this process");

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["echo", url] => echo(url.parse()?).await,
        [] => embedded(64).await,
        [bytes] if bytes.parse::<usize>().is_ok() => embedded(bytes.parse()?).await,
        [url] => measure(url.parse()?, 64).await,
        [url, bytes] => measure(url.parse()?, bytes.parse()?).await,
        _ => Err("usage: pingpong [URL] [PAYLOAD_BYTES]".into()),
    }
}

async fn embedded(payload_bytes: usize) -> Result<()> {
    let server = EmbeddedServer::start(ServerConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        user: ACCOUNT.0.to_owned(),
        password: ACCOUNT.1.to_owned(),
        packet_bytes_max: 64 * 1024,
        clients_max: 8,
    })
    .await?;
    let url = ServerUrl::new("127.0.0.1", server.local_addr().port());
    let measured = measure(url.with_credentials(ACCOUNT.0, ACCOUNT.1), payload_bytes).await;
    server.stop().await;
    measured
}

async fn measure(url: ServerUrl, payload_bytes: usize) -> Result<()> {
    let mut link = connect(url.clone(), "ping").await?;
    let mut echo = Echo(Command::new(std::env::current_exe()?).arg("echo").arg(url.to_url_with_password()).spawn()?);
    let payload = vec![0x5a; payload_bytes];
    // The first packet comes from the other side, once it is there.
    receive(&mut link).await?;
    let mut round_trips = Vec::with_capacity(ROUNDS);
    for round in 0..WARM_UP + ROUNDS {
        let start = Instant::now();
        link.publish("pingpong/pong", &payload, false)?;
        receive(&mut link).await?;
        if round >= WARM_UP {
            round_trips.push(start.elapsed());
        }
    }
    link.publish("pingpong/pong", b"", false)?;
    link.disconnect().await;
    echo.0.wait()?;
    report(round_trips, payload_bytes);
    Ok(())
}

/// Answers until it gets an empty packet.
async fn echo(url: ServerUrl) -> Result<()> {
    let mut link = connect(url, "pong").await?;
    link.publish("pingpong/ping", b"ready", false)?;
    loop {
        let payload = receive(&mut link).await?;
        if payload.is_empty() {
            link.disconnect().await;
            return Ok(());
        }
        link.publish("pingpong/ping", &payload, false)?;
    }
}

async fn connect(url: ServerUrl, name: &str) -> Result<Link> {
    let mut link = Link::new(LinkConfig::new(url, vec![format!("pingpong/{name}")]));
    link.connect(name, None);
    match link.next().await {
        LinkEvent::Connected => Ok(link),
        LinkEvent::Disconnected { reason } => Err(reason.to_string().into()),
        LinkEvent::Packet { .. } => Err("packet before the connection".into()),
    }
}

async fn receive(link: &mut Link) -> Result<bytes::Bytes> {
    match link.next().await {
        LinkEvent::Packet { payload, .. } => Ok(payload),
        LinkEvent::Disconnected { reason } => Err(reason.to_string().into()),
        LinkEvent::Connected => Err("connected twice".into()),
    }
}

fn report(mut round_trips: Vec<Duration>, payload_bytes: usize) {
    round_trips.sort_unstable();
    let micros = |share: f64| {
        let index = (round_trips.len() as f64 * share) as usize;
        round_trips[index].as_secs_f64() * 1e6
    };
    println!("{payload_bytes} B: median {:.1} us, p99 {:.1} us", micros(0.5), micros(0.99));
}

/// Does not outlive us if we fail.
struct Echo(Child);

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
