//! Names of functions, and suggestions for unknown names.
//!
//! This module has the texts. The node decides which function a name means.

use broccoli_node::abi::builtin::is_builtin;
use broccoli_node::core::Node;
use broccoli_node::core::canvas::CanvasError;
use broccoli_node::proto::{Canvas, Form};
use broccoli_text::{closest, method, python};

/// Checks a canvas as an origin does.
///
/// # Errors
/// The reason why an origin would refuse it. For an unknown name, with a suggestion.
pub(crate) fn check(node: &Node, canvas: &Canvas) -> Result<(), String> {
    node.check(canvas).map(|_| ()).map_err(|error| match error {
        CanvasError::Function(refusal) => explain(node, canvas, refusal),
        error => error.to_string(),
    })
}

/// Why a name is not a function, with a suggestion. `refusal` is the text of the node.
pub(crate) fn unknown(node: &Node, name: &str, refusal: String) -> String {
    let known = Known::of(node);
    let (module, function) = name.rsplit_once('.').unwrap_or(("", name));
    if known.names().any(|(full, bare)| full == name || bare == name) || known.deployed().next().is_none() {
        // There are several, or nothing is deployed at all.
        return refusal;
    }
    if let (Ok(_), Some(method)) = (node.function(module), method(function)) {
        return format!("no function {name}: did you mean the method {module}.{method}(…)?");
    }
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
                format!(
                    "no function {name}: `broccoli functions` lists the {} that are deployed",
                    known.deployed().count()
                )
            }
        },
    }
}

fn explain(node: &Node, canvas: &Canvas, refusal: String) -> String {
    let mut unresolved = None;
    each_name(canvas, &mut |name| {
        if unresolved.is_none() && node.function(name).is_err() {
            unresolved = Some(name.to_owned());
        }
    });
    match unresolved {
        Some(name) => unknown(node, &name, refusal),
        None => refusal,
    }
}

/// Calls `see` with the names of the functions in a canvas, in the order of writing. The parser limits the depth of a
/// canvas.
fn each_name(canvas: &Canvas, see: &mut dyn FnMut(&str)) {
    match &canvas.form {
        Form::Task(task) => see(&task.function),
        Form::Map { function, .. } | Form::Starmap { function, .. } | Form::Chunks { function, .. } => see(function),
        Form::Chain(parts) | Form::Group(parts) => parts.iter().for_each(|part| each_name(part, see)),
        Form::Chord { header, body } => {
            header.iter().for_each(|part| each_name(part, see));
            each_name(body, see);
        }
    }
    canvas.link.iter().chain(&canvas.on_error).for_each(|callback| each_name(callback, see));
}

/// Names of functions, as `module.function`, each with the place where the bare name starts.
struct Known(Vec<(String, usize)>);

impl Known {
    fn of(node: &Node) -> Known {
        let names = node.functions().into_iter().flat_map(|(module, (_, functions))| {
            functions.iter().map(move |function| (format!("{module}.{}", function.name), module.len() + 1))
        });
        Known(names.collect())
    }

    /// The names, each in full and bare.
    fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(full, bare)| (full.as_str(), &full[*bare..]))
    }

    fn deployed(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(full, bare)| !is_builtin(&full[..bare - 1])).map(|(full, _)| full.as_str())
    }
}
