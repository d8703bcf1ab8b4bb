//! `broccoli undeploy`: removes a module from all nodes.

use std::time::Duration;

use broccoli_node::DeployKey;
use broccoli_node::name::is_builtin;

use super::deploy::holders;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::function::stopped;
use crate::{duration, output};

/// The module, and the time limit.
#[derive(Debug, clap::Args)]
pub(crate) struct UndeployArgs {
    /// Name of the module: the part before the dot in the output of `broccoli functions`
    #[arg(value_name = "MODULE")]
    name: String,
    /// How long to wait for the nodes
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "10s")]
    timeout: Duration,
}

/// Removes a module, and prints from how many nodes.
///
/// # Errors
/// If there is no such module, or a node refuses to remove it.
pub(crate) async fn run(common: &Common, args: UndeployArgs) -> Result<(), Failure> {
    let cluster = common.cluster()?;
    let key = common.deploy_key(&cluster)?;
    let session = common.open().await?;
    let done = undeploy(&session, &args, &key).await;
    session.close().await;
    output::print(done?)
}

async fn undeploy(session: &Session, args: &UndeployArgs, key: &DeployKey) -> Result<String, Failure> {
    let name = &args.name;
    session.meet_all().await;
    let view = session.node.view().await.ok_or_else(stopped)?;
    let known = view.module(name).map(|module| module.version);
    if is_builtin(name) || known == Some(0) {
        return Err(Failure::usage(format_args!("{name} is built into its nodes and cannot be removed")));
    }
    if known.is_none() {
        return Err(Failure::usage(format_args!("there is no module {name}: `broccoli functions` lists the modules")));
    }
    let deployment = session.node.undeploy(name, key, args.timeout).await.map_err(Failure::usage)?;
    let nodes = holders(&deployment, &format!("keeps {name}"), "; this node may run an older version", || {
        format!("no node has confirmed it within {}", duration::print(args.timeout))
    })?;
    Ok(format!("undeployed {name} from {nodes}"))
}
