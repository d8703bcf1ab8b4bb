//! Suggestions for wrong names: similar names, and Python names that do not exist here.
//!
//! This module has the distance of names and the table of hints. The caller supplies the names of the cluster.

use crate::methods::{CANVAS_METHODS, FUNCTION_METHODS};

/// Forms and builtins of the text.
const FORMS: [&str; 7] = ["chain", "group", "chord", "range", "zip", "list", "float"];

/// Python names that a text does not have, and what to write instead.
const PYTHON: [(&[&str], &str); 3] = [
    (&["print", "repr", "pprint"], "is not needed: the result of the last line is printed"),
    (
        &[
            "len",
            "sum",
            "min",
            "max",
            "abs",
            "round",
            "sorted",
            "reversed",
            "int",
            "str",
            "bool",
            "dict",
            "set",
            "tuple",
            "enumerate",
        ],
        "of Python is not there: compute in a function of the cluster, which takes results too (`chain`, `chord`)",
    ),
    (&["map", "filter", "starmap"], "is called on a function: `f.map([1, 2])`"),
];

/// A suggestion for a call of an unknown function: a form with a typing error, or a Python name.
pub(crate) fn misread(name: &str) -> Option<String> {
    if let Some(form) = closest(name, FORMS) {
        return Some(format!("no form `{name}`: did you mean `{form}`?"));
    }
    python(name)
}

/// A hint for an unknown function with a name of Python.
pub fn python(name: &str) -> Option<String> {
    let (_, instead) = PYTHON.iter().find(|(names, _)| names.contains(&name))?;
    Some(format!("`{name}` {instead}"))
}

/// The method that was probably meant after the dot of a function: `map` for `mpa`.
pub fn method(name: &str) -> Option<&'static str> {
    closest(name, FUNCTION_METHODS.into_iter().chain(CANVAS_METHODS))
}

/// The candidate nearest to a name, if it is near enough for a typing error.
pub fn closest<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // A third of the letters may be wrong, at least one.
    let distance_max = (name.chars().count() / 3).max(1);
    let ranked = candidates.into_iter().map(|candidate| (strsim::osa_distance(name, candidate), candidate));
    let near = ranked.filter(|(distance, candidate)| {
        // A single letter has nothing else to compare.
        *distance <= distance_max && *distance < candidate.chars().count()
    });
    near.min().map(|(_, candidate)| candidate)
}
