//! In place of `linux.rs` on other systems: there is no board of Linux.

use std::convert::Infallible;
use std::path::Path;

use broccoli_abi::HostCall;

use super::BoardError;

/// The board of a machine with Linux. This type has no values on other systems.
#[derive(Debug)]
pub struct LinuxBoard(Infallible);

/// Whether there is a GPIO character device.
pub(super) fn has_chip() -> bool {
    false
}

impl LinuxBoard {
    pub(super) fn open(_: Option<&Path>) -> Result<LinuxBoard, BoardError> {
        let system = std::env::consts::OS;
        Err(BoardError::Refused(format!("only a machine with Linux has this board, and this one has {system}")))
    }

    pub(super) fn capabilities(&self) -> Vec<&'static str> {
        match self.0 {}
    }

    pub(super) fn perform(&self, _: HostCall) -> Result<i32, BoardError> {
        match self.0 {}
    }
}
