//! `broccoli node`: runs one node in the foreground, with an MQTT server that already runs.

use std::ffi::OsString;
use std::future::pending;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;

use broccoli_node::Cluster;
use broccoli_node::cluster::ClusterError;
use tokio::sync::oneshot;

use crate::connect::{self, Common, SECRET_BYTES_MAX, read_line, variable};
use crate::exit::Failure;
use crate::output;
use crate::resident::{NodeOptions, Resident};

/// The settings of the node, and its cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    node: NodeOptions,
    /// Join a cluster with the token that `broccoli token` prints; use @FILE or - (standard input), because every user
    /// of this machine can read command lines; if there is no cluster file, the node writes one, so that other commands
    /// work here, too [env: BROCCOLI_JOIN]
    #[arg(long, value_name = "@FILE|-|TOKEN")]
    join: Option<String>,
    /// Shut down when standard input ends, for a parent process that may die
    #[arg(long, hide = true)]
    attended: bool,
}

/// Runs until it is told to shut down.
///
/// # Errors
/// If the node cannot start.
pub(crate) async fn run(common: &Common, args: NodeArgs) -> Result<(), Failure> {
    let token = token(args.join)?;
    let cluster = match &token {
        Some(token) => Cluster::from_token(token).map_err(connect::cluster_failure)?,
        None => common.cluster()?,
    };
    let server = match (&token, &cluster.server) {
        // The server in the token has priority over a server that runs here.
        (Some(_), Some(server)) => common.named_server().unwrap_or_else(|| server.clone()),
        _ => common.server(&cluster),
    };
    let shown = server.clone();
    // With the address by which this machine reaches the server.
    let kept = Cluster { server: Some(server.clone()), ..cluster.clone() };
    let resident = Resident::start(args.node, cluster, server, &shown)?;
    let keep = || {
        // A node that ends with its parent, such as a node of the demo, is not how this machine joined a cluster.
        if token.is_some() && !args.attended {
            keep(common, &kept);
        }
        None
    };
    resident.run(keep, abandoned(args.attended)).await
}

/// Reads the token from the command line, a file, standard input or the environment.
fn token(told: Option<String>) -> Result<Option<String>, Failure> {
    let unreadable =
        |from: &str, error: io::Error| Failure::usage(format_args!("cannot read the token from {from}: {error}"));
    let told = told.map(Ok).or_else(|| variable("BROCCOLI_JOIN").map(OsString::into_string)).transpose();
    let told = told.map_err(|_| Failure::usage("BROCCOLI_JOIN does not contain a token"))?;
    Ok(match told.as_deref() {
        Some("-") => Some(read_token().map_err(|error| unreadable("standard input", error))?),
        Some(told) => Some(match told.strip_prefix('@') {
            Some(path) => read_line(Path::new(path)).map_err(|error| unreadable(path, error))?,
            None => told.to_owned(),
        }),
        None => None,
    })
}

fn read_token() -> io::Result<String> {
    if io::stdin().is_terminal() {
        output::note("paste the token that `broccoli token` printed:");
    }
    let mut line = String::new();
    io::stdin().lock().take(SECRET_BYTES_MAX).read_line(&mut line)?;
    Ok(line)
}

/// Writes the cluster of a token to the cluster file, if there is none, for the other commands on this machine.
fn keep(common: &Common, cluster: &Cluster) {
    let Ok(path) = common.cluster_path() else { return };
    match cluster.write(&path) {
        Ok(()) => output::note(format_args!("stored the cluster in {}: other commands here use it", path.display())),
        // The existing cluster file stays.
        Err(ClusterError::Exists(_)) => {}
        Err(error) => output::note(format_args!("cannot store the cluster for other commands here: {error}")),
    }
}

/// Waits until standard input ends, or for ever without `--attended`.
async fn abandoned(attended: bool) {
    if !attended {
        return pending().await;
    }
    let (closed, ended) = oneshot::channel::<()>();
    // A read of standard input cannot be cancelled, so the runtime must not wait for it.
    std::thread::spawn(move || {
        // An error is an end too.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(closed);
    });
    // Nothing is ever sent: it resolves when the sender is dropped.
    let _ = ended.await;
}
