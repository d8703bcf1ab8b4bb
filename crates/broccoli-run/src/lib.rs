//! How every node runs a task: the execution as a state machine.
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
//! Owns the order of a run, its limits, the built-in functions, the output of a task and how often it is passed on, the
//! texts of failures, and the fuel of a slice. Never waits, starts a thread or touches a device: an [`Execution`] asks
//! its shell ([`Ask`]), and the shell decides when to continue. The clock is a function of the [`Machine`], because a
//! slice needs the time before and after it.
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
pub use host::{Machine, MachineVitals, Spare};
pub use items::Items;
pub use library::{Code, Library};
pub use pace::Pace;
pub use progress::Progress;

/// Capabilities of a board that jobs can ask for with `.set(on=…)`.
pub mod capability {
    /// The board has an LED.
    pub const LED: &str = "led";
    /// The board has GPIO pins.
    pub const GPIO: &str = "gpio";
    /// The board measures voltages.
    pub const ADC: &str = "adc";
    /// The board measures its temperature.
    pub const TEMP: &str = "temp";
}

/// What jobs can route by: the labels of the operator, then the capabilities of the board, without duplicates.
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
