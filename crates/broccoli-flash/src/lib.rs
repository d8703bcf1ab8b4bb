//! Firmware images for microcontrollers: packed from a program, given the settings of a node, and written to a chip.
//!
//! ```text
//!   program (ELF), partitions.csv ──pack──► Image ──set_settings──► Image ──► a file, or `port::write`
//!
//!   0x0000   bootloader          Espressif's, part of espflash
//!   0x8000   partition table     says where the others are
//!   0xb000   settings            who the node is; empty as packed
//!   0x10000  ota_0               the program; ota_1 and modules lie behind it and are not in the image
//! ```
//!
//! This crate makes, checks and writes images. It knows nothing about clusters except the text of the settings, and
//! never builds a program.
#![forbid(unsafe_code)]

mod board;
mod chip;
mod image;
#[cfg(feature = "serial")]
pub mod port;
mod settings;

pub use board::{BOARDS, Board, UnknownBoard};
pub use broccoli_proto::led::{Led, LedKind};
pub use chip::{Chip, UnknownChip};
pub use image::{Image, ImageError, pack};
pub use settings::{Settings, SettingsError};
