//! The board of a node: what its tasks may switch, read and measure.
//!
//! ```text
//!   a Wasm task      ──► HostCall ──┐
//!   board.blink, …   ──► HostCall ──┴──► Board::perform ──► none | Linux | simulated
//! ```
//!
//! Owns what each kind of board can do and what it answers if it cannot. Calls come from the threads of
//! slots, several at a time, and may block them; the node's loop never calls.

mod linux;
mod simulated;

use std::fmt;
use std::path::Path;

use broccoli_abi::HostCall;

pub use linux::LinuxBoard;
pub use simulated::{BoardChange, SimulatedBoard};

pub use broccoli_run::capability::{ADC, GPIO, LED, TEMP};

/// What a node has beside processor and network.
#[derive(Debug, Default)]
pub enum Board {
    /// Nothing.
    #[default]
    None,
    /// What Linux gives access to.
    Linux(LinuxBoard),
    /// Pins in memory, which tests and people can watch.
    Simulated(SimulatedBoard),
}

/// Why a board does not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoardError {
    /// The node has no board.
    NoBoard,
    /// The board lacks this; the text says what, and why if that is known.
    Missing(String),
    /// It has only so many pins, counted from 0.
    NoPin {
        /// The one that was asked for.
        pin: u16,
        /// How many there are.
        count: u32,
    },
    /// It has no such channel.
    NoChannel(u8),
    /// The operating system refuses; the text says what was tried and why.
    Refused(String),
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BoardError::NoBoard => f.write_str("this node has no board: see `broccoli node --board`"),
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
    /// The board of a machine that runs Linux. `chip` is its GPIO character device, such as
    /// `/dev/gpiochip0`; without one the most likely is taken, if there is any.
    ///
    /// # Errors
    /// If the named device is none, or may not be opened.
    pub fn linux(chip: Option<&Path>) -> Result<Board, BoardError> {
        LinuxBoard::open(chip).map(Board::Linux)
    }

    /// The board of this machine if it has GPIO pins, else none: so a PC does not offer the LED of its keyboard.
    pub fn detect() -> Board {
        if !linux::has_chip() {
            return Board::None;
        }
        LinuxBoard::open(None).map_or(Board::None, Board::Linux)
    }

    /// What kind it is: `none`, `linux`, `simulated`.
    pub fn kind(&self) -> &'static str {
        match self {
            Board::None => "none",
            Board::Linux(_) => "linux",
            Board::Simulated(_) => "simulated",
        }
    }

    /// What jobs can ask for with `.set(on=…)`.
    pub fn capabilities(&self) -> Vec<&'static str> {
        match self {
            Board::None => Vec::new(),
            Board::Linux(board) => board.capabilities(),
            Board::Simulated(_) => vec![LED, GPIO, ADC, TEMP],
        }
    }

    /// Does what a task asks for, and gives what [`HostCall`] says that it answers.
    ///
    /// # Errors
    /// What the board lacks, or why it fails.
    pub fn perform(&self, call: HostCall) -> Result<i32, BoardError> {
        match self {
            Board::None => Err(BoardError::NoBoard),
            Board::Linux(board) => board.perform(call),
            Board::Simulated(board) => board.perform(call),
        }
    }
}
