//! The bank of flash for modules: the machine's only one, `-drive if=pflash` of QEMU. One 16-bit chip.

/// What the bank reads and writes at once.
pub(crate) type Word = u16;

pub(crate) const ADDRESS: usize = 0xf000_0000;
pub(crate) const BYTES: usize = 128 << 20;
pub(crate) const SECTOR_BYTES: usize = 128 << 10;

/// A command or status of the chip.
pub(crate) const fn word(chip: u16) -> Word {
    chip
}
