//! One module for each command.

pub(crate) mod build;
pub(crate) mod call;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod deploy;
pub(crate) mod drain;
#[cfg(feature = "flash")]
pub(crate) mod flash;
pub(crate) mod forget;
pub(crate) mod functions;
pub(crate) mod init;
pub(crate) mod jobs;
pub(crate) mod new;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod result;
pub(crate) mod retry;
pub(crate) mod revoke;
pub(crate) mod run;
pub(crate) mod token;
pub(crate) mod undeploy;
pub(crate) mod up;
pub(crate) mod why;
pub(crate) mod wordcount;
