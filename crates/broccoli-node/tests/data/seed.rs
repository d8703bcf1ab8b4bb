//! Reads `seed-examples.txt`.

/// One example of Broccoli's first document.
pub(crate) struct Example {
    /// What the example shows.
    pub(crate) name: &'static str,
    /// The text as users paste it.
    pub(crate) source: &'static str,
    /// The canonical print of its canvas.
    pub(crate) canvas: &'static str,
    /// The JSON result, as `broccoli run` prints it.
    pub(crate) result: &'static str,
}

/// All examples.
pub(crate) fn examples() -> Vec<Example> {
    let (_head, rest) = include_str!("seed-examples.txt").split_once("\n=== ").expect("an example");
    let example = |text: &'static str| {
        let (name, rest) = text.split_once('\n')?;
        let (source, rest) = rest.split_once("\n--- canvas\n")?;
        let (canvas, result) = rest.split_once("\n--- result\n")?;
        Some(Example { name, source, canvas, result: result.trim_end() })
    };
    rest.split("\n=== ").map(|text| example(text).unwrap_or_else(|| panic!("incomplete example: {text}"))).collect()
}
