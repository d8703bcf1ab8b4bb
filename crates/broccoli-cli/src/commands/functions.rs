//! `broccoli functions`: lists the functions that can be called.

use broccoli_node::JobError;
use broccoli_node::abi::builtin::is_builtin;
use broccoli_node::abi::{Function, Functions};
use serde_json::{Value, json};

use crate::connect::Common;
use crate::date::version;
use crate::exit::Failure;
use crate::output;

/// How to show the functions.
#[derive(Debug, clap::Args)]
pub(crate) struct FunctionsArgs {
    /// Print JSON: [{"name", "module", "version", "args": [{"name", "type"}], "returns", "doc"}]
    #[arg(long)]
    json: bool,
}

struct Module {
    name: String,
    version: u64,
    functions: Vec<Function>,
}

/// Shows the functions of the newest version of each module, by name.
///
/// # Errors
/// If the cluster cannot be reached.
pub(crate) async fn run(common: &Common, args: FunctionsArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    session.meet_all().await;
    let modules = session.node.query(|node| {
        let module = |(name, (version, functions)): (&str, (u64, &Functions))| {
            let mut functions = functions.to_vec();
            functions.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            Module { name: name.into(), version, functions }
        };
        // A module without functions was removed.
        let there = node.functions().into_iter().filter(|(_, (_, functions))| !functions.is_empty());
        there.map(module).collect::<Vec<_>>()
    });
    let modules = modules.await.ok_or_else(|| Failure::failed(JobError::Stopped))?;
    session.close().await;
    if args.json {
        return output::print(as_json(&modules));
    }
    if !modules.is_empty() {
        print_table(&modules)?;
    }
    if modules.iter().all(|module| is_builtin(&module.name)) {
        output::note("nothing is deployed: try `broccoli deploy --examples` or `broccoli deploy DIR`");
    }
    Ok(())
}

fn as_json(modules: &[Module]) -> Value {
    let function = |module: &Module, function: &Function| {
        let args = function.args.iter().map(|arg| json!({"name": arg.name, "type": arg.ty.to_string()}));
        json!({
            "name": format!("{}.{}", module.name, function.name),
            "module": module.name,
            "version": module.version,
            "args": args.collect::<Vec<_>>(),
            "returns": function.ret.to_string(),
            "doc": function.doc,
        })
    };
    modules.iter().flat_map(|module| module.functions.iter().map(move |f| function(module, f))).collect()
}

fn print_table(modules: &[Module]) -> Result<(), Failure> {
    let row = |module: &Module, function: &Function| {
        let first_line = function.doc.lines().next().unwrap_or_default().to_owned();
        [format!("{}.{function}", module.name), version(module.version), first_line]
    };
    let rows = modules.iter().flat_map(|module| module.functions.iter().map(move |f| row(module, f)));
    output::print_table(["FUNCTION", "VERSION", "WHAT IT DOES"], &["VERSION"], rows.collect())
}
