//! `broccoli functions`: lists the functions that can be called.

use broccoli_node::Function;
use broccoli_node::view::{ClusterView, ModuleView};
use serde_json::{Value, json};

use crate::connect::Common;
use crate::date::version;
use crate::exit::Failure;
use crate::function::stopped;
use crate::output;

/// How to show the functions.
#[derive(Debug, clap::Args)]
pub(crate) struct FunctionsArgs {
    /// Print JSON: [{"name", "module", "version", "args": [{"name", "type"}], "returns", "doc"}]
    #[arg(long)]
    json: bool,
}

/// Shows the functions of the newest version of each module, by name.
///
/// # Errors
/// If the cluster cannot be reached.
pub(crate) async fn run(common: &Common, args: FunctionsArgs) -> Result<(), Failure> {
    let session = common.open().await?;
    session.meet_all().await;
    let view = session.node.view().await.ok_or_else(stopped)?;
    session.close().await;
    let modules = modules(view);
    if args.json {
        return output::print(as_json(&modules));
    }
    if !modules.is_empty() {
        print_table(&modules)?;
    }
    if modules.iter().all(|module| module.is_builtin()) {
        output::note("nothing is deployed: try `broccoli deploy --examples` or `broccoli deploy DIR`");
    }
    Ok(())
}

/// The modules that there are, each with its functions by name. A module without functions was removed.
fn modules(view: ClusterView) -> Vec<ModuleView> {
    let there = view.modules.into_iter().filter(|module| !module.functions.is_empty());
    let sorted = |mut module: ModuleView| {
        let mut functions = module.functions.to_vec();
        functions.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        module.functions = functions.into();
        module
    };
    there.map(sorted).collect()
}

fn as_json(modules: &[ModuleView]) -> Value {
    let function = |module: &ModuleView, function: &Function| {
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

fn print_table(modules: &[ModuleView]) -> Result<(), Failure> {
    let row = |module: &ModuleView, function: &Function| {
        let first_line = function.doc.lines().next().unwrap_or_default().to_owned();
        [format!("{}.{function}", module.name), version(module.version), first_line]
    };
    let rows = modules.iter().flat_map(|module| module.functions.iter().map(move |f| row(module, f)));
    output::print_table(["FUNCTION", "VERSION", "WHAT IT DOES"], &["VERSION"], rows.collect())
}
