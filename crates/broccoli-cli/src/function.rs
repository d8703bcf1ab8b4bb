//! Names of functions, and suggestions for unknown names.
//!
//! This module has the texts. The node decides which function a name means.

use broccoli_node::view::ClusterView;
use broccoli_node::{Canvas, CanvasError, CheckError, Form, FunctionError, JobError, NodeHandle};
use broccoli_text::{closest, method, python};

use crate::exit::Failure;

/// Checks a canvas as an origin does.
///
/// # Errors
/// If the node has stopped. The reason why an origin would refuse the canvas is the inner error; for an unknown name, with
/// a suggestion.
pub(crate) async fn check(node: &NodeHandle, canvas: &Canvas) -> Result<Result<(), String>, Failure> {
    match node.check(canvas.clone()).await {
        Ok(_) => Ok(Ok(())),
        Err(CheckError::Canvas(CanvasError::Function(refusal))) => explain(node, canvas, refusal).await.map(Err),
        Err(CheckError::Canvas(error)) => Ok(Err(error.to_string())),
        Err(_) => Err(stopped()),
    }
}

/// Why a name is not a function, with a suggestion. `refusal` is the text of the node.
///
/// # Errors
/// If the node has stopped.
pub(crate) async fn unknown(node: &NodeHandle, name: &str, refusal: String) -> Result<String, Failure> {
    let known = Known::of(&node.view().await.ok_or_else(stopped)?);
    let (module, function) = name.rsplit_once('.').unwrap_or(("", name));
    if known.names().any(|(full, bare)| full == name || bare == name) {
        // There are several.
        return Ok(refusal);
    }
    if known.deployed == 0 {
        return Ok(format!("{refusal} (broccoli deploy --examples)"));
    }
    if let (Ok(_), Some(method)) = (node.function(module).await, method(function)) {
        return Ok(format!("no function {name}: did you mean the method {module}.{method}(…)?"));
    }
    Ok(suggest(&known, name, function))
}

/// An unknown name, with the one that is most likely meant.
fn suggest(known: &Known, name: &str, function: &str) -> String {
    if let Some((full, _)) = known.names().find(|(_, bare)| *bare == function) {
        return format!("no function {name}: did you mean {full}?");
    }
    let bare = || closest(name, known.names().map(|(_, bare)| bare));
    let full = || closest(name, known.names().map(|(full, _)| full));
    match bare().or_else(full) {
        Some(near) => format!("no function {name}: did you mean {near}?"),
        None => match python(name) {
            Some(hint) => format!("no function {name}: {hint}"),
            None => {
                format!("no function {name}: `broccoli functions` lists the {} that are deployed", known.deployed)
            }
        },
    }
}

async fn explain(node: &NodeHandle, canvas: &Canvas, refusal: String) -> Result<String, Failure> {
    let mut names = Vec::new();
    each_name(canvas, &mut |name| names.push(name.to_owned()));
    for name in names {
        match node.function(&name).await {
            Ok(_) => {}
            Err(FunctionError::Unresolved(_)) => return unknown(node, &name, refusal).await,
            Err(_) => return Err(stopped()),
        }
    }
    Ok(refusal)
}

pub(crate) fn stopped() -> Failure {
    Failure::failed(JobError::Stopped)
}

/// Calls `see` with the names of the functions in a canvas, in the order of writing. The parser limits the depth of a
/// canvas.
fn each_name(canvas: &Canvas, see: &mut dyn FnMut(&str)) {
    match &canvas.form {
        Form::Task(task) => see(&task.function),
        Form::Map { function, .. } | Form::Starmap { function, .. } | Form::Chunks { function, .. } => see(function),
        Form::Chain(parts) | Form::Group(parts) => parts.iter().for_each(|part| each_name(part, see)),
        Form::Chord { header, body } => {
            for part in header {
                each_name(part, see);
            }
            each_name(body, see);
        }
    }
    for callback in canvas.link.iter().chain(&canvas.on_error) {
        each_name(callback, see);
    }
}

/// Names of functions, as `module.function`, each with the place where the bare name starts.
struct Known {
    names: Vec<(String, usize)>,
    /// Those that are not part of every node.
    deployed: usize,
}

impl Known {
    fn of(view: &ClusterView) -> Known {
        let names = view.functions().map(|(module, function)| {
            let module = &module.name;
            (format!("{module}.{}", function.name), module.len() + 1)
        });
        let deployed = view.functions().filter(|(module, _)| !module.is_builtin()).count();
        Known { names: names.collect(), deployed }
    }

    /// The names, each in full and bare.
    fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names.iter().map(|(full, bare)| (full.as_str(), &full[*bare..]))
    }
}
