//! `broccoli forget`: says that a node will not come back.

use std::time::Duration;

use broccoli_node::core::Node;
use broccoli_node::proto::NodeId;

use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::output;

/// How long nodes may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Which node.
#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArgs {
    /// The node, as `broccoli nodes` and the message of `run --key` print it. Keys of jobs that it holds are free
    /// then; if it comes back all the same, they count again
    #[arg(value_name = "NODE")]
    node: NodeId,
}

/// Tells all nodes that take jobs not to wait for a node that may hold jobs with keys.
///
/// # Errors
/// If the node is there, or if one of the others does not answer.
pub(crate) async fn run(common: &Common, args: ForgetArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    let done = forget(&session, args.node).await;
    session.close().await;
    done
}

async fn forget(session: &Session, name: NodeId) -> Result<(), Failure> {
    session.meet_all().await;
    let is_there = move |node: &Node| node.members().any(|(other, member)| other == name && member.alive);
    if session.node.query(is_there).await == Some(true) {
        return Err(Failure::usage(format_args!(
            "{name} is there: forget it when it is gone for good, as after `broccoli drain {name}`"
        )));
    }
    if !session.is_known(name).await {
        output::note(format_args!(
            "no node {name} has been there for a day, or ever: if it is a typing error, nothing has changed"
        ));
    }
    let silent: Vec<String> =
        session.node.forget_node(name, ANSWER_MAX).await.iter().map(ToString::to_string).collect();
    if !silent.is_empty() {
        return Err(Failure::unreachable(format_args!(
            "no answer from {}, which may still wait for {name}: try again",
            silent.join(", ")
        )));
    }
    output::print(format_args!("{name} is forgotten"))
}
