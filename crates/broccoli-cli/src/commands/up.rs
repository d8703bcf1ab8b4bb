//! `broccoli up`: runs an MQTT server and one node in the foreground.

use std::future::pending;
use std::io::IsTerminal as _;
#[cfg(feature = "embedded-server")]
use std::net::SocketAddr;

use broccoli_node::Cluster;
use broccoli_node::mqtt::ServerUrl;

#[cfg(feature = "embedded-server")]
use crate::connect::DEFAULT_PORT;
use crate::connect::{Common, UpFile, directory};
use crate::exit::Failure;
use crate::output;
use crate::resident::{NodeOptions, Resident, machine_name};

/// The settings of the MQTT server and the node.
#[derive(Debug, clap::Args)]
pub(crate) struct UpArgs {
    /// Address of the MQTT server, such as 0.0.0.0:1883 or localhost:1884; port 0 selects a free port; default:
    /// 0.0.0.0:1883
    #[cfg(feature = "embedded-server")]
    #[arg(long, value_name = "ADDR:PORT", conflicts_with = "server", value_parser = crate::server::parse_listen)]
    listen: Option<SocketAddr>,
    /// Number of nodes and commands that can use the MQTT server at the same time; each needs a file descriptor
    #[cfg(feature = "embedded-server")]
    #[arg(long, value_name = "N", default_value_t = crate::server::CLIENTS_MAX, value_parser = crate::number::within(1..=1_000_000_usize))]
    clients: usize,
    #[command(flatten)]
    node: NodeOptions,
}

/// Runs until it is told to shut down.
///
/// # Errors
/// If the server or the node cannot start.
pub(crate) async fn run(common: &Common, mut args: UpArgs) -> Result<(), Failure> {
    let cluster = common.cluster_or_new()?;
    let name = *args.node.name.get_or_insert_with(machine_name);
    if args.node.data.is_none() && broccoli_node::journal::SUPPORTED {
        let kept = |dir: std::path::PathBuf| dir.join(cluster.id.as_str()).join(name.as_str());
        args.node.data = directory("XDG_DATA_HOME", ".local/share").map(kept);
    }
    if let Some(UpFile { near, .. }) = common.running_up(&cluster) {
        output::note(format_args!(
            "warning: `broccoli up` already runs here, on {near}: other commands still use that one, and this one is \
             separate; to add a node to that one, run `broccoli node --name NAME`"
        ));
    }
    match common.named_server() {
        #[cfg(feature = "embedded-server")]
        Some(_) if common.has_usual_server() && args.listen.is_some() => {
            output::note("--listen is given, so `up` ignores BROCCOLI_SERVER, but other commands use it: unset it");
            with_server(common, args, cluster).await
        }
        #[cfg(feature = "embedded-server")]
        Some(server) if args.listen.is_some() => Err(Failure::usage(format_args!(
            "--listen cannot be used with --server: --listen starts an MQTT server, --server uses the one at {server}"
        ))),
        Some(server) => node(common, args.node, cluster, UpFile { near: server.clone(), far: server }).await,
        None => with_server(common, args, cluster).await,
    }
}

async fn node(common: &Common, options: NodeOptions, cluster: Cluster, up: UpFile) -> Result<(), Failure> {
    let path = common.cluster_path()?;
    let mut left = None;
    let resident = Resident::start(options, cluster.clone(), up.near.clone(), &up.far)?;
    let when_ready = || {
        match up.leave(&path, &cluster) {
            Ok(guard) => left = Some(guard),
            Err(error) => {
                let path = path.display();
                output::note(format_args!("cannot write next to {path} ({error}): other commands need --server"));
            }
        }
        Some(join(&cluster, &up.far))
    };
    let lived = resident.run(when_ready, pending()).await;
    drop(left);
    lived
}

/// How other machines join. The token is shown in a terminal only, because other output can end up in a log.
fn join(cluster: &Cluster, far: &ServerUrl) -> String {
    if far.is_loopback() {
        return format!(
            "other machines cannot reach {far}: to let them join, give an address of this machine with --listen"
        );
    }
    if !std::io::stdout().is_terminal() {
        return "join another machine:  run `broccoli node --join -` there and paste the output of `broccoli token`"
            .into();
    }
    let token = cluster.token(far);
    format!("join another machine:  run `broccoli node --join -` there and paste this secret: {token}")
}

#[cfg(feature = "embedded-server")]
async fn with_server(common: &Common, mut args: UpArgs, cluster: Cluster) -> Result<(), Failure> {
    args.node.serve();
    let listen = args.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT)));
    let server = crate::server::start(&cluster, listen, args.clients).await?;
    let addr = server.local_addr();
    let (near, far) = (ServerUrl::new(near_host(addr), addr.port()), ServerUrl::new(far_host(addr), addr.port()));
    let lived = node(common, args.node, cluster, UpFile { near, far }).await;
    server.stop().await;
    lived
}

#[cfg(not(feature = "embedded-server"))]
async fn with_server(_: &Common, _: UpArgs, _: Cluster) -> Result<(), Failure> {
    Err(Failure::usage(
        "this program was built without an MQTT server: install one (apt install mosquitto), then give its address: \
         broccoli up --server mqtt://user:password@host",
    ))
}

/// The host name or address by which this machine reaches the server.
#[cfg(feature = "embedded-server")]
fn near_host(listen: SocketAddr) -> String {
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => "127.0.0.1".into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => "::1".into(),
        addr => addr.ip().to_string(),
    }
}

/// The host name or address by which other machines reach the server.
#[cfg(feature = "embedded-server")]
fn far_host(listen: SocketAddr) -> String {
    if !listen.ip().is_unspecified() {
        return listen.ip().to_string();
    }
    lan_address(listen).unwrap_or_else(|_| crate::resident::host_name())
}

/// The address of the interface that leads to other networks. Nothing is sent: a UDP socket only chooses its route.
#[cfg(feature = "embedded-server")]
fn lan_address(listen: SocketAddr) -> std::io::Result<String> {
    // These networks are reserved for documentation, so the route to them leads out.
    let outside = if listen.is_ipv4() { "192.0.2.1:9" } else { "[2001:db8::1]:9" };
    let socket = std::net::UdpSocket::bind((listen.ip(), 0))?;
    socket.connect(outside)?;
    Ok(socket.local_addr()?.ip().to_string())
}
