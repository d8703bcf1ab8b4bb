//! The bank of flash for modules: the second of the machine's two, `-drive if=pflash,unit=1` of QEMU. Two 16-bit chips
//! make a word.

/// What the bank reads and writes at once.
pub(crate) type Word = u32;

pub(crate) const ADDRESS: usize = 0x2200_0000;
pub(crate) const BYTES: usize = 32 << 20;
pub(crate) const SECTOR_BYTES: usize = 256 << 10;

/// A command or status of a chip, for both chips of a word.
pub(crate) const fn word(chip: u16) -> Word {
    (chip as Word) << 16 | chip as Word
}
