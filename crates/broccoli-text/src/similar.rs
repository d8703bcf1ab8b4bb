//! What somebody probably meant: names that are nearly right, and Python that is none here.
//!
//! Owns the distance of names and the table of hints. Knows no cluster: whoever calls brings the names that there are.

use crate::methods::{CANVAS_METHODS, FUNCTION_METHODS};

/// Forms and builtins of the text, as they are called.
const FORMS: [&str; 7] = ["chain", "group", "chord", "range", "zip", "list", "float"];

/// What Python has and a text has not, and what to do instead.
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

/// What a call by this name was probably meant to be, if it is no function: a form with a typing error, or Python's own.
pub(crate) fn misread(name: &str) -> Option<String> {
    if let Some(form) = closest(name, FORMS) {
        return Some(format!("no form `{name}`: did you mean `{form}`?"));
    }
    python(name)
}

/// Says that a name is Python's, and what to write instead; for a name that is no function.
pub fn python(name: &str) -> Option<String> {
    let (_, instead) = PYTHON.iter().find(|(names, _)| names.contains(&name))?;
    Some(format!("`{name}` {instead}"))
}

/// The method that a name after a function's dot was probably meant to be: `map` for `mpa`.
pub fn method(name: &str) -> Option<&'static str> {
    closest(name, FUNCTION_METHODS.into_iter().chain(CANVAS_METHODS))
}

/// The candidate that is nearest to a name, if one is near enough for a typing error.
pub fn closest<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    // A third of the letters may be wrong, and one of a short name.
    let distance_max = (name.chars().count() / 3).max(1);
    let ranked = candidates.into_iter().map(|candidate| (strsim::osa_distance(name, candidate), candidate));
    let near = ranked.filter(|(distance, candidate)| {
        // Of a single letter nothing is left to compare.
        *distance <= distance_max && *distance < candidate.chars().count()
    });
    near.min().map(|(_, candidate)| candidate)
}
