//! Boards by their names: which chip they carry, and where their LED is.

use std::fmt;
use std::str::FromStr;

use broccoli_proto::led::{Led, LedKind};

use crate::Chip;

/// A board that can be bought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its chip.
    pub chip: Chip,
    /// Its LED.
    pub led: Led,
}

/// The name is that of no board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBoard(String);

const fn board(name: &'static str, chip: Chip, pin: u8, kind: LedKind) -> Board {
    Board { name, chip, led: Led { pin, kind } }
}

/// All boards that are known by name. Other boards are described by their chip and LED.
pub const BOARDS: &[Board] = &[
    board("esp32c6-devkit", Chip::Esp32c6, 8, LedKind::Colour),
    board("esp32c3-devkit", Chip::Esp32c3, 8, LedKind::Colour),
    board("esp32c3-supermini", Chip::Esp32c3, 8, LedKind::Low),
    board("esp32s3-devkit", Chip::Esp32s3, 48, LedKind::Colour),
    board("esp32-devkit", Chip::Esp32, 2, LedKind::High),
    board("nodemcu-32s", Chip::Esp32, 2, LedKind::High),
    board("lolin32-lite", Chip::Esp32, 22, LedKind::Low),
];

impl FromStr for Board {
    type Err = UnknownBoard;

    fn from_str(name: &str) -> Result<Board, UnknownBoard> {
        let found = BOARDS.iter().find(|board| board.name.eq_ignore_ascii_case(name));
        found.copied().ok_or_else(|| UnknownBoard(name.into()))
    }
}

impl fmt::Display for UnknownBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = BOARDS.iter().map(|board| board.name).collect();
        write!(f, "there is no board {:?}: use one of {}, or the type of its chip", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownBoard {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boards_are_found_by_their_names_and_their_leds_exist() {
        for board in BOARDS {
            assert_eq!(board.name.parse(), Ok(*board));
            assert!(board.chip.pins().contains(&board.led.pin), "{}", board.name);
        }
        assert_eq!("ESP32C6-DevKit".parse::<Board>().map(|board| board.chip), Ok(Chip::Esp32c6));
        let error = "pico-w".parse::<Board>().expect_err("no board").to_string();
        assert!(error.starts_with("there is no board \"pico-w\": use one of "), "{error}");
        assert!(error.contains("esp32c6-devkit"), "{error}");
    }
}
