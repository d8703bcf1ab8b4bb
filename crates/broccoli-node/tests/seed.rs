//! Each example of Broccoli's first document parses as written there.

#[path = "data/seed.rs"]
mod seed;

use broccoli_node::{json, text};

#[test]
fn each_example_of_the_seed_parses() {
    let examples = seed::examples();
    assert_eq!(examples.len(), 11);
    for example in examples {
        let program = text::parse(example.source).unwrap_or_else(|error| panic!("{}: {error}", example.name));
        assert_eq!(text::print(&program.canvas), example.canvas, "{}", example.name);
        let printed = text::parse(example.canvas).unwrap_or_else(|error| panic!("{}: {error}", example.name));
        assert_eq!(printed, program, "{}", example.name);
    }
}

#[test]
fn each_expected_result_is_json_as_it_is_printed() {
    for example in seed::examples() {
        let value = json::from_json(example.result).unwrap_or_else(|error| panic!("{}: {error}", example.name));
        assert_eq!(json::to_json(&value).as_deref(), Ok(example.result), "{}", example.name);
    }
}
