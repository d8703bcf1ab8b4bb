//! `broccoli forget`: tells the cluster that a node will not come back.

use std::time::Duration;

use broccoli_node::NodeId;

use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::output;

/// Maximum time for the answers of the nodes.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The node.
#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArgs {
    /// Name of the node, as `broccoli nodes` and the error of `run --key` print it; the keys of its jobs become free;
    /// if the node comes back after all, they count again
    #[arg(value_name = "NODE")]
    node: NodeId,
}

/// Tells all nodes that take jobs not to wait for a node that may hold jobs with keys.
///
/// # Errors
/// If the node is online, or if one of the others does not answer.
pub(crate) async fn run(common: &Common, args: ForgetArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    let done = forget(&session, args.node).await;
    session.close().await;
    done
}

async fn forget(session: &Session, name: NodeId) -> Result<(), Failure> {
    session.meet_all().await;
    if session.is_online(name).await {
        return Err(Failure::usage(format_args!(
            "{name} is online: if it will not come back, stop it first with `broccoli drain {name}`"
        )));
    }
    if !session.is_known(name).await {
        output::note(format_args!(
            "no node {name} was online during the last day: check the name; a wrong name changes nothing"
        ));
    }
    let silent: Vec<String> =
        session.node.forget_node(name, ANSWER_MAX).await.iter().map(ToString::to_string).collect();
    if !silent.is_empty() {
        return Err(Failure::unreachable(format_args!(
            "no answer from {}: keys there may still wait for {name}; try again",
            silent.join(", ")
        )));
    }
    output::print(format_args!("{name} is forgotten"))
}
