//! The board of a node: what its tasks can switch, read and measure.
//!
//! ```text
//!   a Wasm task      ──► HostCall ──┐
//!   board.blink, …   ──► HostCall ──┴──► Board::perform ──► none | Linux | simulated
//! ```
//!
//! Owns what each kind of board can do, and the errors. Calls come from the threads of slots, several at a time, and
//! may block them. The main loop of the node never calls.

#[cfg_attr(not(target_os = "linux"), path = "board/elsewhere.rs")]
mod linux;
mod simulated;

use std::fmt;
use std::path::Path;

use broccoli_abi::HostCall;

pub use linux::LinuxBoard;
pub use simulated::{BoardChange, SimulatedBoard};

pub use broccoli_run::capability::{ADC, GPIO, LED, TEMP};

/// The board of a node: hardware besides processor and network.
#[derive(Debug, Default)]
pub enum Board {
    /// No board.
    #[default]
    None,
    /// The hardware that Linux gives access to.
    Linux(LinuxBoard),
    /// Simulated pins in memory, for tests and demonstrations.
    Simulated(SimulatedBoard),
}

/// The error of a node without a board.
const NO_BOARD: &str = "this node has no board";

/// The errors of tasks that use something that the program of their node does not have or allow. A program can add how its
/// operator changes that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// For tasks that use the board, if the node has none.
    pub board: &'static str,
    /// For tasks that call `sys.reboot`, if the node does not allow it.
    pub reboot: &'static str,
}

impl Default for Refusals {
    fn default() -> Refusals {
        Refusals { board: NO_BOARD, reboot: "this node may not be rebooted by tasks" }
    }
}

/// The board of a node, as its tasks use it.
pub(crate) struct TaskBoard {
    pub(crate) board: Board,
    pub(crate) refusals: Refusals,
}

impl TaskBoard {
    /// Executes a call of a task. The error is for the task.
    pub(crate) fn perform(&self, call: HostCall) -> Result<i32, String> {
        self.board.perform(call).map_err(|error| match error {
            BoardError::NoBoard => self.refusals.board.to_owned(),
            error => error.to_string(),
        })
    }
}

/// Why a board cannot execute a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BoardError {
    /// The node has no board.
    NoBoard,
    /// The board does not have this. The text says what, and why if that is known.
    Missing(String),
    /// The board does not have this pin. Pins are counted from 0.
    NoPin {
        /// The requested pin.
        pin: u16,
        /// The number of pins.
        count: u32,
    },
    /// The board has no such channel.
    NoChannel(u8),
    /// The operating system refuses. The text says what was tried, and why it failed.
    Refused(String),
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoardError::NoBoard => f.write_str(NO_BOARD),
            BoardError::Missing(what) => write!(f, "this board has no {what}"),
            BoardError::NoPin { pin, count: 0 } => write!(f, "no pin {pin}: this board has none"),
            BoardError::NoPin { pin, count } => write!(f, "no pin {pin}: this board has 0 to {}", count - 1),
            BoardError::NoChannel(channel) => write!(f, "this board measures no channel {channel}"),
            BoardError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for BoardError {}

impl Board {
    /// The board of a machine that runs Linux. `chip` is its GPIO character device, such as `/dev/gpiochip0`. Without
    /// it, the most likely device is used, if there is any.
    ///
    /// # Errors
    /// If the device is not a GPIO device, or cannot be opened. On other systems always: they have no such board.
    pub fn linux(chip: Option<&Path>) -> Result<Board, BoardError> {
        LinuxBoard::open(chip).map(Board::Linux)
    }

    /// The board of this machine if it has GPIO pins, otherwise none. So a PC does not offer the LED of its keyboard.
    pub fn detect() -> Board {
        if !linux::has_chip() {
            return Board::None;
        }
        LinuxBoard::open(None).map_or(Board::None, Board::Linux)
    }

    /// The kind of board: `none`, `linux`, `simulated`.
    pub fn kind(&self) -> &'static str {
        match self {
            Board::None => "none",
            Board::Linux(_) => "linux",
            Board::Simulated(_) => "simulated",
        }
    }

    /// The capabilities that jobs can ask for with `.set(on=…)`.
    pub fn capabilities(&self) -> Vec<&'static str> {
        match self {
            Board::None => Vec::new(),
            Board::Linux(board) => board.capabilities(),
            Board::Simulated(_) => vec![LED, GPIO, ADC, TEMP],
        }
    }

    /// Executes a call of a task. Returns the value that [`HostCall`] defines for it.
    ///
    /// # Errors
    /// If the board does not have it, or it fails.
    pub fn perform(&self, call: HostCall) -> Result<i32, BoardError> {
        match self {
            Board::None => Err(BoardError::NoBoard),
            Board::Linux(board) => board.perform(call),
            Board::Simulated(board) => board.perform(call),
        }
    }
}

/// What other systems have in place of the board of Linux, to test it here.
#[cfg(test)]
#[allow(dead_code, unreachable_pub)]
#[path = "board/elsewhere.rs"]
mod elsewhere;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_without_this_board_says_so() {
        let error = elsewhere::LinuxBoard::open(None).expect_err("there is no board");
        let text = format!("only a machine with Linux has this board, and this one has {}", std::env::consts::OS);
        assert_eq!(error.to_string(), text);
        assert!(!elsewhere::has_chip());
    }
}
