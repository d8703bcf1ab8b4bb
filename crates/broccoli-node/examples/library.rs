//! The Rust example of docs/guide.md: a cluster in one process.

use broccoli_node::mqtt::{EmbeddedServer, ServerConfig, ServerUrl};
use broccoli_node::{Cluster, NodeHandle, native, text};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // An MQTT server in this process. With one of your own: let url = "mqtt://pi.local".parse()?;
    let (cluster, _deploy_key) = Cluster::generate()?; // or Cluster::load("cluster.json".as_ref())?
    let (user, password) = cluster.mqtt_credentials();
    let listen = "127.0.0.1:0".parse()?;
    let config = ServerConfig { listen, user, password, packet_bytes_max: 1 << 20, clients_max: 100 };
    let server = EmbeddedServer::start(config).await?;
    let url = ServerUrl::new("127.0.0.1", server.local_addr().port());

    // Two nodes with the same functions; they would be on two machines.
    let node = |slots| {
        NodeHandle::builder()
            .cluster(cluster.clone())
            .server(url.clone())
            .slots(slots)
            .function("add", |x: i64, y: i64| x + y)
            // With what `broccoli functions` shows: add names and a text.
            .function("tsum", native::function(|xs: Vec<i64>| xs.iter().sum::<i64>()).args(["xs"]).doc("The sum."))
    };
    let worker = node(2).start()?;
    let origin = node(1).start()?;

    let canvas = text::parse("chord(add.s(i, i) for i in range(10))(tsum.s())")?.canvas;
    let sum: i64 = origin.submit(canvas).get().await?;
    assert_eq!(sum, 90);

    worker.leave().await;
    origin.leave().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_example_ends_well() {
        super::main().expect("no error");
    }

    #[test]
    fn the_guide_shows_this_example() {
        let (_, code) = include_str!("library.rs").split_once("\n\n").expect("a comment, then the code");
        let (code, _) = code.split_once("\n#[cfg(test)]").expect("the code, then the tests");
        let guide = include_str!("../../../docs/guide.md");
        assert!(guide.contains(&format!("```rust\n{code}```\n")), "docs/guide.md shows another example");
    }
}
