//! The flash for modules: a bank of NOR flash, with CFI command set 1 (Intel's). `bank.rs` says where and how large it is.
//!
//! The bank is mapped into memory, except while a command runs. QEMU keeps it in a file.

use core::slice;

use broccoli_embassy::Flash;
use broccoli_embassy::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};

use crate::bank::{ADDRESS, BYTES, SECTOR_BYTES, Word, word};

const WORD_BYTES: usize = size_of::<Word>();

/// Commands.
const ERASE: Word = word(0x20);
const ERASE_CONFIRM: Word = word(0xd0);
const PROGRAM: Word = word(0x40);
const READ: Word = word(0xff);
/// The bit in the status.
const IS_READY: Word = word(0x80);

/// The bank. At most one value exists.
pub(crate) struct Bank(());

impl Bank {
    /// Call it at most once.
    pub(crate) fn new() -> Bank {
        let mut bank = Bank(());
        // QEMU starts in this mode, but after a reset a command may be unfinished.
        bank.word(0, READ);
        bank
    }

    /// Writes a word: a command or its data.
    fn word(&mut self, offset: usize, word: Word) {
        assert!(offset.is_multiple_of(WORD_BYTES) && offset < BYTES);
        // SAFETY: aligned and in the bank. Nothing reads the bank now, because it is borrowed mutably.
        unsafe { ((ADDRESS + offset) as *mut Word).write_volatile(word) };
    }

    /// Waits for the end of a command, and switches the bank back to reading.
    fn finish(&mut self, offset: usize) {
        // SAFETY: the offset was checked by `word` when it wrote the command.
        while unsafe { ((ADDRESS + offset) as *const Word).read_volatile() } & IS_READY != IS_READY {}
        self.word(offset, READ);
    }
}

impl Flash for Bank {
    fn mapped(&self) -> Option<&[u8]> {
        // SAFETY: the machine has the bank there. It can be read between two commands, and these need a mutable borrow.
        Some(unsafe { slice::from_raw_parts(ADDRESS as *const u8, BYTES) })
    }
}

impl ErrorType for Bank {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Bank {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        let bank = self.mapped().unwrap_or_default();
        bytes.copy_from_slice(&bank[offset as usize..][..bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        BYTES
    }
}

impl NorFlash for Bank {
    const WRITE_SIZE: usize = WORD_BYTES;
    const ERASE_SIZE: usize = SECTOR_BYTES;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        for offset in (from as usize..to as usize).step_by(SECTOR_BYTES) {
            self.word(offset, ERASE);
            self.word(offset, ERASE_CONFIRM);
            self.finish(offset);
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        let words = bytes.as_chunks().0.iter().map(|word| Word::from_le_bytes(*word));
        for (offset, word) in (offset as usize..).step_by(WORD_BYTES).zip(words) {
            self.word(offset, PROGRAM);
            self.word(offset, word);
            self.finish(offset);
        }
        Ok(())
    }
}
