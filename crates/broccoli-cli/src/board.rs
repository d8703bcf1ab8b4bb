//! The option `--board`, and the output of a simulated board.

use std::path::PathBuf;
use std::str::FromStr;

use broccoli_node::Board;
use broccoli_node::board::{BoardChange, BoardError, SimulatedBoard};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::exit::Failure;
use crate::output;

/// The value of `--board`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BoardChoice {
    None,
    Simulated,
    /// With the GPIO character device, if the operator named one.
    Linux(Option<PathBuf>),
}

impl FromStr for BoardChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<BoardChoice, &'static str> {
        match text.split_once(':').map_or((text, None), |(kind, chip)| (kind, Some(chip))) {
            ("none", None) => Ok(BoardChoice::None),
            ("simulated", None) => Ok(BoardChoice::Simulated),
            ("linux", None) => Ok(BoardChoice::Linux(None)),
            // A bare name is a device in /dev. If `chip` is an absolute path, `join` drops /dev.
            ("linux", Some(chip)) if !chip.is_empty() => Ok(BoardChoice::Linux(Some(PathBuf::from("/dev").join(chip)))),
            _ => Err("expected simulated, linux, linux:gpiochip0 or none"),
        }
    }
}

/// Opens the board. Without a choice, opens the board of this machine if it has pins. A simulated board prints on
/// stderr what tasks do with it.
///
/// # Errors
/// If the named device cannot be used.
pub(crate) fn open(choice: Option<BoardChoice>) -> Result<Board, Failure> {
    match choice {
        None => Ok(Board::detect()),
        Some(BoardChoice::None) => Ok(Board::None),
        Some(BoardChoice::Linux(chip)) => {
            let refused = |error: BoardError| Failure::usage(format_args!("--board: {error}"));
            Board::linux(chip.as_deref()).map_err(refused)
        }
        Some(BoardChoice::Simulated) => {
            let board = SimulatedBoard::new();
            tokio::spawn(show(board.watch()));
            Ok(Board::Simulated(board))
        }
    }
}

async fn show(mut changes: Receiver<BoardChange>) {
    loop {
        match changes.recv().await {
            Ok(BoardChange::Led(true)) => output::note("board: LED on"),
            Ok(BoardChange::Led(false)) => output::note("board: LED off"),
            Ok(BoardChange::Pin(pin, true)) => output::note(format_args!("board: pin {pin} high")),
            Ok(BoardChange::Pin(pin, false)) => output::note(format_args!("board: pin {pin} low")),
            Err(RecvError::Lagged(count)) => output::note(format_args!("board: {count} changes came too fast to show")),
            Err(RecvError::Closed) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_named() {
        let linux = |chip: &str| Ok(BoardChoice::Linux(Some(chip.into())));
        assert_eq!("none".parse(), Ok(BoardChoice::None));
        assert_eq!("simulated".parse(), Ok(BoardChoice::Simulated));
        assert_eq!("linux".parse(), Ok(BoardChoice::Linux(None)));
        assert_eq!("linux:gpiochip4".parse(), linux("/dev/gpiochip4"));
        assert_eq!("linux:/dev/gpio-header".parse(), linux("/dev/gpio-header"));
        for wrong in ["", "linux:", "none:1", "esp32"] {
            assert!(wrong.parse::<BoardChoice>().is_err(), "{wrong}");
        }
    }
}
