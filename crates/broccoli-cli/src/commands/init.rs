//! `broccoli init`: creates the keys of a new cluster.

use std::path::PathBuf;

use broccoli_node::Cluster;
use broccoli_node::cluster::deploy_key_path;

use crate::connect::{Common, cluster_failure};
use crate::exit::Failure;
use crate::output;

/// The file for the keys.
#[derive(Debug, clap::Args)]
pub(crate) struct InitArgs {
    /// Cluster file to write; default: the file that all commands use
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Writes a cluster file, and its deploy key next to it.
///
/// # Errors
/// If one of them exists or cannot be written.
pub(crate) fn run(common: &Common, args: InitArgs) -> Result<(), Failure> {
    let path = args.out.map_or_else(|| common.cluster_path(), Ok)?;
    let (cluster, deploy_key) = Cluster::generate().map_err(Failure::failed)?;
    cluster.create(&deploy_key, &path).map_err(cluster_failure)?;
    let lines = [
        format!("cluster {}", cluster.id),
        format!("  {}  the cluster's key, for its nodes and clients", path.display()),
        format!("  {}  the private key that signs functions; keep it here", deploy_key_path(&path).display()),
    ];
    output::print(lines.join("\n"))
}
