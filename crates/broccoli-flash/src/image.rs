//! One image: the content of the flash from its beginning to the end of the program.
//!
//! ```text
//! bootloader               at 0, or at 0x1000 on an ESP32
//! partition table          at 0x8000
//! program                  where the table says
//!
//! program and bootloader   header of 24 bytes: 0xe9, segments, …, chip at 12, hash appended at 23
//!                          segments: address, length, bytes
//!                          zeros and a checksum, up to a multiple of 16
//!                          SHA-256 of all that
//! ```

use std::path::Path;
use std::{fmt, fs};

use esp_idf_part::{Partition, PartitionTable};
use espflash::flasher::{FlashData, FlashSettings, FlashSize};
use espflash::image_format::idf::IdfBootloaderFormat;
use sha2::{Digest, Sha256};

use crate::chip::Chip;

/// Names in the partition table.
const PROGRAM: &str = "ota_0";
const SETTINGS: &str = "settings";
#[cfg(feature = "serial")]
const MODULES: &str = "modules";

/// The place and the length of the partition table.
const TABLE: std::ops::Range<usize> = 0x8000..0x8c00;
/// Where chips look for their bootloaders.
const BOOTLOADERS: [usize; 2] = [0, 0x1000];
/// Larger than the flash of any chip that has firmware.
const IMAGE_BYTES_MAX: usize = 16 << 20;

const HEADER_BYTES: usize = 24;
const MAGIC: u8 = 0xe9;
const SEGMENT_HEADER_BYTES: usize = 8;
const HASH_BYTES: usize = 32;
/// The content of erased flash.
const ERASED: u8 = 0xff;

/// An image that was checked.
#[derive(Clone, Debug)]
pub struct Image {
    chip: Chip,
    bytes: Vec<u8>,
    table: PartitionTable,
    program_bytes: usize,
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// The program cannot be packed, with the reason.
    Pack(String),
    /// The program does not fit into its slot.
    TooLarge {
        /// Size of the packed program, in bytes.
        program: u32,
        /// Size of its slot, in bytes.
        slot: u32,
    },
    /// It does not begin like an image.
    NotAnImage,
    /// It is for another chip.
    WrongChip {
        /// The chip that was asked for.
        asked: Chip,
        /// The chip that the image is for.
        is: String,
    },
    /// This part of it is cut off or changed.
    Damaged(&'static str),
    /// The partition table cannot be used, with the reason.
    Table(String),
    /// The settings do not fit into their partition.
    SettingsTooLong {
        /// Size of the settings, in bytes.
        settings: usize,
        /// Size of their partition, in bytes.
        room: usize,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::Pack(why) => write!(f, "the program cannot be packed: {why}"),
            ImageError::TooLarge { program, slot } => {
                write!(f, "the program has {program} bytes, its slot {slot}: {} too many", program - slot)
            }
            ImageError::NotAnImage => write!(f, "this is no firmware image; `cargo xtask firmware` makes one"),
            ImageError::WrongChip { asked, is } => {
                write!(f, "the image is for {is}, not for {asked}; `cargo xtask firmware --chip {asked}` makes one")
            }
            ImageError::Damaged(part) => write!(f, "the image is damaged: {part}"),
            ImageError::Table(why) => write!(f, "the partition table of the image cannot be used: {why}"),
            ImageError::SettingsTooLong { settings, room } => {
                write!(f, "the settings have {settings} bytes, there is room for {room}: use fewer or shorter labels")
            }
        }
    }
}

impl std::error::Error for ImageError {}

/// Packs a program (ELF), the bootloader and the partition table in a file into one image.
///
/// # Errors
/// If it is not a program for this chip, or does not fit.
pub fn pack(chip: Chip, program: &[u8], partitions: &Path) -> Result<Image, ImageError> {
    let target = chip.espflash();
    let flash = FlashSettings::new(None, Some(flash_size(partitions)?), None);
    let data = FlashData::new(flash, 0, None, target, target.default_xtal_frequency());
    let packed =
        IdfBootloaderFormat::new(program, &data, Some(partitions), None, Some(TABLE.start as u32), Some(PROGRAM));
    let packed = packed.map_err(|error| match error {
        espflash::Error::ElfTooBig(program, slot) => ImageError::TooLarge { program, slot },
        error => ImageError::Pack(whole(&error)),
    })?;
    let mut bytes = Vec::new();
    for segment in packed.flash_segments() {
        bytes.resize(segment.addr as usize, ERASED);
        bytes.extend_from_slice(segment.data());
    }
    Image::parse(chip, bytes)
}

/// The smallest flash that the partitions in a file fit into.
fn flash_size(partitions: &Path) -> Result<FlashSize, ImageError> {
    let refused = |error: &dyn std::error::Error| ImageError::Table(whole(error));
    let text = fs::read_to_string(partitions).map_err(|error| refused(&error))?;
    let table = PartitionTable::try_from_str(text).map_err(|error| refused(&error))?;
    let sizes = [FlashSize::_4Mb, FlashSize::_8Mb, FlashSize::_16Mb];
    let found = sizes.into_iter().find(|size| size.size() as usize >= end(&table));
    found.ok_or_else(|| ImageError::Table("it is for more than 16 MB of flash".into()))
}

impl Image {
    /// Checks an image.
    ///
    /// # Errors
    /// If it is not an image, is for another chip, or is damaged.
    pub fn parse(chip: Chip, bytes: Vec<u8>) -> Result<Image, ImageError> {
        if bytes.len() > IMAGE_BYTES_MAX {
            return Err(ImageError::NotAnImage);
        }
        let start = BOOTLOADERS.into_iter().find(|start| bytes.get(*start) == Some(&MAGIC));
        let bootloader = start.and_then(|start| bytes.get(start..)).ok_or(ImageError::NotAnImage)?;
        check(chip, bootloader, "the bootloader")?;
        if start != Some(chip.bootloader_at()) {
            return Err(ImageError::Damaged("the bootloader"));
        }
        let table = bytes.get(TABLE).ok_or(ImageError::Damaged("the partition table"))?;
        let table = PartitionTable::try_from_bytes(table).map_err(|error| ImageError::Table(whole(&error)))?;
        let program = range(find(&table, PROGRAM)?);
        let program = bytes.get(program.start..).ok_or(ImageError::Damaged("the program"))?;
        let program_bytes = check(chip, program, "the program")?;
        find(&table, SETTINGS)?;
        Ok(Image { chip, bytes, table, program_bytes })
    }

    /// The chip that it is for.
    pub fn chip(&self) -> Chip {
        self.chip
    }

    /// The whole image, from the beginning of flash.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Size of the program and of its slot, in bytes.
    pub fn program_and_slot(&self) -> (usize, usize) {
        (self.program_bytes, self.partition(PROGRAM).len())
    }

    /// Writes the settings of a node into the image.
    ///
    /// # Errors
    /// If they do not fit.
    pub fn set_settings(&mut self, text: &str) -> Result<(), ImageError> {
        let partition = self.partition(SETTINGS);
        let region = &mut self.bytes[partition];
        // One byte that ends them must remain.
        if text.len() >= region.len() {
            return Err(ImageError::SettingsTooLong { settings: text.len(), room: region.len() - 1 });
        }
        region.fill(ERASED);
        region[..text.len()].copy_from_slice(text.as_bytes());
        Ok(())
    }

    /// The settings in the image; empty if there are none.
    pub fn settings(&self) -> &[u8] {
        let region = &self.bytes[self.partition(SETTINGS)];
        region.split(|byte| *byte == ERASED).next().unwrap_or_default()
    }

    /// Where a chip keeps modules.
    #[cfg(feature = "serial")]
    pub(crate) fn modules(&self) -> Option<std::ops::Range<usize>> {
        self.table.find(MODULES).map(range)
    }

    /// Size of the flash that the partitions need.
    #[cfg(feature = "serial")]
    pub(crate) fn flash_bytes(&self) -> usize {
        end(&self.table)
    }

    /// The place of a partition. It was found when the image was checked.
    fn partition(&self, name: &str) -> std::ops::Range<usize> {
        self.table.find(name).map(range).unwrap_or_default()
    }
}

fn find<'t>(table: &'t PartitionTable, name: &str) -> Result<&'t Partition, ImageError> {
    table.find(name).ok_or_else(|| ImageError::Table(format!("no partition {name:?}")))
}

/// Where the last partition ends.
fn end(table: &PartitionTable) -> usize {
    table.partitions().iter().map(|partition| range(partition).end).max().unwrap_or_default()
}

fn range(partition: &Partition) -> std::ops::Range<usize> {
    let start = partition.offset() as usize;
    start..start + partition.size() as usize
}

/// Checks a program or a bootloader, and returns its length.
fn check(chip: Chip, bytes: &[u8], part: &'static str) -> Result<usize, ImageError> {
    let header = bytes.get(..HEADER_BYTES).filter(|header| header[0] == MAGIC).ok_or(ImageError::NotAnImage)?;
    let number = u16::from_le_bytes([header[12], header[13]]);
    if number != chip.espflash().id() {
        return Err(ImageError::WrongChip { asked: chip, is: chip_name(number) });
    }
    let damaged = || ImageError::Damaged(part);
    let mut end = HEADER_BYTES;
    for _ in 0..header[1] {
        let length = bytes.get(end + 4..end + SEGMENT_HEADER_BYTES).ok_or_else(damaged)?;
        let length = u32::from_le_bytes(length.try_into().map_err(|_| damaged())?);
        end = end.saturating_add(SEGMENT_HEADER_BYTES + length as usize);
    }
    // The checksum stands in the last byte of sixteen.
    let end = (end + 1).next_multiple_of(16);
    let hash = bytes.get(end..end + HASH_BYTES).ok_or_else(damaged)?;
    let has_hash = header[23] == 1;
    if has_hash && Sha256::digest(&bytes[..end]).as_slice() == hash { Ok(end + HASH_BYTES) } else { Err(damaged()) }
}

/// The chip with this number in images.
fn chip_name(number: u16) -> String {
    use espflash::target::Chip as Known;
    let known =
        [Known::Esp32, Known::Esp32s2, Known::Esp32s3, Known::Esp32c2, Known::Esp32c3, Known::Esp32c6, Known::Esp32h2];
    let found = known.iter().find(|chip| chip.id() == number);
    found.map_or_else(|| format!("another chip (number {number})"), |chip| chip.to_string())
}

/// An error with its causes.
pub(crate) fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    // A chain of causes is short.
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
