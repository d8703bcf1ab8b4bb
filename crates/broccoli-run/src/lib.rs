//! What every node does with a task, whatever it runs on: the execution as a state machine.
//!
//! ```text
//!   shell:  threads or one loop, clock, board, sockets
//!     │ step(pace), answer_*, abort                  │ Step, News
//!  ┌──▼──────────────────────────────────────────────▼──┐
//!  │ Execution: items of a bin, one call after the other │
//!  │   Wasm module │ sys, board │ a function of the shell │
//!  └─────────────────────────────────────────────────────┘
//! ```
//!
//! Owns the order of a run, its limits, the built-in functions, what a task may say and how often, how a failure is
//! worded, and how much fuel a slice gets. Never waits, starts a thread or touches a device: an [`Execution`] asks its shell
//! ([`Ask`]), and the shell says when to go on. The clock is a function of the [`Machine`], because a slice needs the time
//! before and after.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod builtin;
mod execution;
mod failure;
mod host;
mod items;
mod library;
mod pace;
mod progress;

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

pub use builtin::{About, Builtins, modules as builtin_modules};
pub use execution::{Ask, Execution, News, RunLimits, Step};
pub use host::{Machine, MachineVitals};
pub use items::Items;
pub use library::{Code, Library};
pub use pace::Pace;
pub use progress::Progress;

/// What jobs can ask a board for with `.set(on=…)`.
pub mod capability {
    /// It has an LED.
    pub const LED: &str = "led";
    /// It has pins.
    pub const GPIO: &str = "gpio";
    /// It measures voltages.
    pub const ADC: &str = "adc";
    /// It measures its temperature.
    pub const TEMP: &str = "temp";
}

/// What jobs can route by: the labels of the operator, then what the board has, each once.
#[must_use]
pub fn features(labels: &[String], capabilities: &[&str]) -> Vec<String> {
    let of_board = capabilities.iter().filter(|capability| !labels.iter().any(|label| label == **capability));
    labels.iter().cloned().chain(of_board.map(|capability| (*capability).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_the_board_has_too_is_named_once() {
        let labels = ["room=kitchen".to_owned(), "led".to_owned()];
        assert_eq!(features(&labels, &["led", "gpio"]), ["room=kitchen", "led", "gpio"]);
    }
}
