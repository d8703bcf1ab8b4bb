//! The flash beside the firmware: the settings and the modules. See `partitions`.

use alloc::vec;
use alloc::vec::Vec;

use broccoli_embassy::Flash;
use broccoli_embassy::nor_flash::{
    ErrorType, NorFlash, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use esp_bootloader_esp_idf::partitions::{PARTITION_TABLE_MAX_LEN, PartitionTable, read_partition_table};
use esp_hal::peripherals::FLASH;
use esp_storage::{FlashStorage, FlashStorageError};

/// The partition with the settings that `broccoli flash` writes.
const SETTINGS: &str = "settings";
/// The partition for modules.
const MODULES: &str = "modules";
/// Bytes of the settings that are read.
const SETTINGS_BYTES_MAX: usize = 4_096;

/// The content of the flash.
pub(crate) struct Contents {
    /// The text of the settings, and the bytes after it.
    pub(crate) settings: Vec<u8>,
    /// Where modules are stored.
    pub(crate) modules: Modules,
}

/// Reads the flash.
///
/// # Errors
/// A partition is missing, or the flash cannot be read.
pub(crate) fn open(storage: FLASH<'static>) -> Result<Contents, &'static str> {
    let mut storage = FlashStorage::new(storage);
    let mut table = vec![0; PARTITION_TABLE_MAX_LEN];
    let table = read_partition_table(&mut storage, &mut table).map_err(|_| "the flash has no partition table")?;
    let (start, bytes) = find(&table, SETTINGS).ok_or("the flash has no partition for settings")?;
    let mut settings = vec![0; SETTINGS_BYTES_MAX.min(bytes as usize)];
    storage.read(start, &mut settings).map_err(|_| "cannot read the settings in flash")?;
    let (start, bytes) = find(&table, MODULES).ok_or("the flash has no partition for modules")?;
    Ok(Contents { settings, modules: Modules { storage, start, bytes } })
}

/// Start and length of a partition, in bytes.
fn find(table: &PartitionTable<'_>, name: &str) -> Option<(u32, u32)> {
    let partition = table.iter().find(|partition| partition.label_as_str() == name)?;
    Some((partition.offset(), partition.len()))
}

/// The partition for modules.
pub(crate) struct Modules {
    storage: FlashStorage<'static>,
    start: u32,
    bytes: u32,
}

/// Not mapped: the cache maps only the partition of the program.
impl Flash for Modules {}

impl ErrorType for Modules {
    type Error = NorFlashErrorKind;
}

impl ReadNorFlash for Modules {
    const READ_SIZE: usize = FlashStorage::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), NorFlashErrorKind> {
        check_read(self, offset, bytes.len())?;
        self.storage.read_nor(self.start + offset, bytes).map_err(failed)
    }

    fn capacity(&self) -> usize {
        self.bytes as usize
    }
}

impl NorFlash for Modules {
    const WRITE_SIZE: usize = FlashStorage::WRITE_SIZE;
    const ERASE_SIZE: usize = FlashStorage::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), NorFlashErrorKind> {
        check_erase(self, from, to)?;
        self.storage.erase(self.start + from, self.start + to).map_err(failed)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), NorFlashErrorKind> {
        check_write(self, offset, bytes.len())?;
        self.storage.write_nor(self.start + offset, bytes).map_err(failed)
    }
}

/// An access that is aligned and in the partition fails only if the flash fails.
fn failed(_: FlashStorageError) -> NorFlashErrorKind {
    NorFlashErrorKind::Other
}
