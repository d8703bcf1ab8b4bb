//! Tasks: plain functions with `#[task]`, which the nodes of your cluster run.
//!
//! Arguments and results are values: numbers, texts, lists, tuples and maps. A struct travels as a tuple of its fields.
//! Tasks run without an operating system, so there is no `std`: the prelude has `String`, `Vec` and the like.
//! `println!` writes to the log of the task, which `broccoli run` prints.
#![no_std]

use broccoli_sdk::prelude::*;

/// Greets somebody.
#[task]
fn hello(name: &str) -> String {
    String::from("hello ") + name
}

/// The mean of a list of numbers. `Err` fails the task, with this text for its caller.
#[task]
fn mean(numbers: Vec<f64>) -> Result<f64, &'static str> {
    if numbers.is_empty() {
        return Err("the mean of nothing");
    }
    Ok(numbers.iter().sum::<f64>() / numbers.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_of_nothing_fails() {
        assert_eq!(hello("you"), "hello you");
        assert_eq!(mean(vec![1.0, 4.0]), Ok(2.5));
        assert_eq!(mean(vec![]), Err("the mean of nothing"));
    }
}
