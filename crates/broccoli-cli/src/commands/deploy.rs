//! `broccoli deploy`: signs a module and sends it to all nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broccoli_node::module::{Engine, Limits};
use broccoli_node::name::is_name;
use broccoli_node::{DeployKey, Deployment};

use super::build;
use crate::connect::{Common, Session};
use crate::exit::Failure;
use crate::{duration, output};

/// The example functions; see `functions/tasks`.
const EXAMPLES: &[u8] = include_bytes!("../../data/tasks.wasm");
/// Name of their module.
pub(super) const EXAMPLES_NAME: &str = "tasks";

/// Maximum number of node names in a line. The others are counted.
const NAMED_MAX: usize = 8;

/// What to deploy.
#[derive(Debug, clap::Args)]
pub(crate) struct DeployArgs {
    /// Directory of a task crate, or a module FILE.wasm
    #[arg(value_name = "DIR|FILE.wasm", required_unless_present = "examples", conflicts_with = "examples")]
    what: Option<PathBuf>,
    /// Deploy the example functions: add, mul, tsum, mapper and others
    #[arg(long)]
    examples: bool,
    /// How long to wait for the nodes
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "10s")]
    timeout: Duration,
}

/// A checked module.
pub(super) struct Module {
    name: String,
    wasm: Vec<u8>,
}

/// Deploys a module, and prints how many nodes have it.
///
/// # Errors
/// If it cannot be built, signed or sent, or a node refuses it.
pub(crate) async fn run(common: &Common, args: DeployArgs) -> Result<(), Failure> {
    let cluster = common.cluster()?;
    let key = common.deploy_key(&cluster)?;
    let module = match &args.what {
        Some(path) if path.is_dir() => built(path)?,
        Some(path) => match source_of(path) {
            Some(what) => return Err(Failure::usage(what)),
            None => read(path)?,
        },
        None => examples(),
    };
    let session = common.open().await?;
    let deployed = deploy(&session, &module, &key, args.timeout).await;
    session.close().await;
    output::print(format_args!("deployed {}", deployed?))
}

/// The module that is part of this program.
pub(super) fn examples() -> Module {
    Module { name: EXAMPLES_NAME.into(), wasm: EXAMPLES.to_vec() }
}

/// Offers a module to all nodes until they have it. Returns a text about the module and the nodes.
///
/// # Errors
/// If a node refuses the module, or no node has it in time.
pub(super) async fn deploy(
    session: &Session,
    module: &Module,
    key: &DeployKey,
    wait: Duration,
) -> Result<String, Failure> {
    let name = &module.name;
    let refused_here =
        |error: &dyn std::fmt::Display| Failure::usage(format_args!("nodes would refuse {name}: {error}"));
    let loaded = Engine::new(Limits::host()).load(&module.wasm).map_err(|error| refused_here(&error))?;
    let functions = loaded.functions().clone();
    let what = format!("{name} ({}, {})", output::count(functions.len(), "function"), output::size(module.wasm.len()));
    session.meet_all().await;
    let deployed = session.node.deploy(name, functions, module.wasm.clone(), key, wait).await;
    report(name, &what, &deployed.map_err(|error| refused_here(&error))?, wait)
}

fn report(name: &str, what: &str, deployment: &Deployment, wait: Duration) -> Result<String, Failure> {
    let nodes = holders(deployment, &format!("refused {name}"), "", || {
        format!("no node has loaded {name} within {}", duration::print(wait))
    })?;
    Ok(format!("{what} to {nodes}"))
}

/// How many nodes have confirmed, as text. A note names the nodes that have not answered.
///
/// # Errors
/// If a node has refused: the message has `refusal`, the reason, and `hint`. If no node has confirmed: the message is
/// `nobody`.
pub(super) fn holders(
    deployment: &Deployment,
    refusal: &str,
    hint: &str,
    nobody: impl FnOnce() -> String,
) -> Result<String, Failure> {
    let Deployment { holders, refused, missing } = deployment;
    if let Some((node, reason)) = refused.first() {
        let others = if refused.len() > 1 { format!(" (and {} more)", refused.len() - 1) } else { String::new() };
        return Err(Failure::failed(format_args!("{node}{others} {refusal}: {reason}{hint}")));
    }
    if holders.is_empty() && missing.is_empty() {
        return Err(Failure::unreachable(
            "no node takes modules, because all nodes are shutting down: start one with `broccoli node`",
        ));
    }
    if holders.is_empty() {
        return Err(Failure::timed_out(format_args!("{}; see `broccoli nodes`", nobody())));
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.iter().take(NAMED_MAX).map(|name| name.as_str()).collect();
        let more = match missing.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        output::note(format_args!("no answer yet from {}{more}; the other nodes will pass it on", names.join(", ")));
    }
    Ok(output::count(holders.len(), "node"))
}

fn built(dir: &Path) -> Result<Module, Failure> {
    let built = build::build_dir(dir)?;
    Ok(Module { name: built.name, wasm: built.wasm })
}

/// The error about a file that is source code, with what to deploy instead.
fn source_of(path: &Path) -> Option<String> {
    let shown = path.display();
    // The directory of the crate. The file can be some directories deeper.
    let is_crate = |folder: &&Path| folder.join("Cargo.toml").is_file();
    let folder = path.ancestors().skip(1).find(is_crate).map(|folder| match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    });
    let deploy = |folder: &Path| format!("deploy the directory of its crate: broccoli deploy {}", folder.display());
    let new = || "`broccoli new DIR` creates a crate to put it into".to_owned();
    match path.extension()?.to_str()? {
        "rs" => Some(format!("{shown} is Rust source: {}", folder.map_or_else(new, deploy))),
        "toml" => Some(format!("{shown} is not a module: {}", folder.map_or_else(new, deploy))),
        "py" | "ipynb" => Some(format!(
            "{shown} is Python, which cannot be deployed: write functions in Rust (`broccoli new DIR`) or in any \
             language that compiles to Wasm"
        )),
        "c" | "h" | "cc" | "cpp" | "zig" | "go" | "ts" | "wat" => {
            Some(format!("{shown} is source code: compile it to Wasm, then deploy FILE.wasm; see docs/task-abi.md"))
        }
        _ => None,
    }
}

fn read(path: &Path) -> Result<Module, Failure> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
    if !is_name(&stem) {
        return Err(Failure::usage(format_args!(
            "{} is not a valid name for a module: rename the file to letters, digits and _, such as tasks.wasm",
            path.display()
        )));
    }
    let wasm =
        fs::read(path).map_err(|error| Failure::usage(format_args!("cannot read {}: {error}", path.display())))?;
    if !wasm.starts_with(b"\0asm") {
        return Err(Failure::usage(format_args!(
            "{} is not a Wasm module: deploy a FILE.wasm, or the directory of a task crate",
            path.display()
        )));
    }
    Ok(Module { name: stem, wasm })
}
