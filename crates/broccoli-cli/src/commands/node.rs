//! `broccoli node`: one node in the foreground, at a server that is there.

use std::future::pending;
use std::io::{self, BufRead as _, Read as _};

use broccoli_node::Cluster;
use tokio::sync::oneshot;

use crate::connect::Common;
use crate::exit::Failure;
use crate::resident::{NodeOptions, Resident};

/// Longest join token that is read from standard input, in bytes.
const TOKEN_BYTES_MAX: u64 = 4_096;

/// Which node, and of which cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    node: NodeOptions,
    /// Join with the token that `broccoli up` prints; - reads it from standard input. Nothing is stored
    #[arg(long, value_name = "TOKEN")]
    join: Option<String>,
    /// Leave when standard input ends: for a parent process that may die
    #[arg(long, hide = true)]
    attended: bool,
}

/// Runs until it is told to leave.
///
/// # Errors
/// If the node cannot start.
pub(crate) async fn run(common: &Common, args: NodeArgs) -> Result<(), Failure> {
    let cluster = match args.join.as_deref() {
        Some("-") => Cluster::from_token(&read_token()?).map_err(Failure::usage)?,
        Some(token) => Cluster::from_token(token).map_err(Failure::usage)?,
        None => common.cluster()?,
    };
    let server = common.server(&cluster);
    let shown = server.clone();
    let resident = Resident::start(args.node, cluster, server, &shown, common.is_verbose())?;
    resident.run(None, abandoned(args.attended)).await
}

fn read_token() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().take(TOKEN_BYTES_MAX).read_line(&mut line);
    read.map_err(|error| Failure::usage(format_args!("cannot read the token: {error}")))?;
    Ok(line)
}

/// Until standard input ends; for ever if nobody attends to this process.
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
