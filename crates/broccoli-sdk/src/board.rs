//! The board of the node that runs the task: its LED, its pins, its measurements.
//!
//! ```
//! use broccoli_sdk::board::{self, BoardError};
//! use broccoli_sdk::prelude::*;
//!
//! /// Shines while the button at pin 4 is pressed.
//! #[task]
//! fn light() -> Result<bool, BoardError> {
//!     let pressed = board::gpio_read(4)?;
//!     board::led(pressed)?;
//!     Ok(pressed)
//! }
//! ```
//!
//! Pins and channels have the numbers of the board. Route such tasks to nodes with the hardware:
//! `light.s().set(on="gpio")`. On targets other than Wasm there is no board, and every call returns an error.

use alloc::borrow::Cow;
use core::fmt;

use broccoli_abi::HostCall;

use crate::{Failure, host};

/// Why a request to the board failed: the board lacks the part, or fails. With `?`, the text becomes the error text
/// of the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardError(pub(crate) Cow<'static, str>);

impl AsRef<str> for BoardError {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for BoardError {}

impl From<BoardError> for Failure {
    fn from(error: BoardError) -> Self {
        Self::Text(error.0)
    }
}

/// Switches the LED of the board.
///
/// # Errors
/// If there is no LED, or it cannot be switched.
pub fn led(on: bool) -> Result<(), BoardError> {
    host::board(HostCall::LedSet { on }).map(drop)
}

/// Whether a pin is high. The pin keeps its direction, input or output.
///
/// # Errors
/// If there is no such pin, or it cannot be read.
pub fn gpio_read(pin: u16) -> Result<bool, BoardError> {
    host::board(HostCall::GpioRead { pin }).map(|level| level != 0)
}

/// Makes a pin an output, and sets it high or low.
///
/// # Errors
/// If there is no such pin, or something else uses it.
pub fn gpio_write(pin: u16, high: bool) -> Result<(), BoardError> {
    host::board(HostCall::GpioWrite { pin, high }).map(drop)
}

/// The voltage of a channel in millivolts.
///
/// # Errors
/// If there is no such channel, or it cannot be measured.
pub fn adc_read(channel: u8) -> Result<i32, BoardError> {
    host::board(HostCall::AdcRead { channel })
}

/// The temperature of the processor, or of what the board has instead, in thousandths of a degree Celsius.
///
/// # Errors
/// If it cannot be measured.
pub fn temperature() -> Result<i32, BoardError> {
    host::board(HostCall::TemperatureRead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_there_is_no_node_there_is_no_board() {
        let error = gpio_read(4).unwrap_err();
        assert_eq!(error.as_ref(), "there is no board outside of a node");
        assert_eq!(Failure::from(error.clone()), Failure::Text(error.0));
    }
}
