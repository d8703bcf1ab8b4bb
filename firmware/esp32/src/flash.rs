//! What lies in flash beside the firmware: see `partitions.csv`.

use alloc::vec;
use alloc::vec::Vec;

use esp_bootloader_esp_idf::partitions::{PARTITION_TABLE_MAX_LEN, read_partition_table};
use esp_hal::peripherals::FLASH;
use esp_storage::FlashStorage;

/// The partition with the text that `broccoli flash` writes.
const SETTINGS: &str = "settings";
/// The longest text that is read.
const SETTINGS_BYTES_MAX: usize = 4_096;

/// The text of the settings, and what is after it.
///
/// # Errors
/// There is no such partition, or the flash cannot be read.
pub(crate) fn settings(storage: FLASH<'static>) -> Result<Vec<u8>, &'static str> {
    let mut storage = FlashStorage::new(storage);
    let mut table = vec![0; PARTITION_TABLE_MAX_LEN];
    let table = read_partition_table(&mut storage, &mut table).map_err(|_| "the flash has no partition table")?;
    let mut partitions = table.iter();
    let partition = partitions.find(|partition| partition.label_as_str() == SETTINGS);
    let partition = partition.ok_or("the flash has no partition for settings")?;
    let mut text = vec![0; SETTINGS_BYTES_MAX.min(partition.len() as usize)];
    let read = partition.as_flash_region(&mut storage).read(0, &mut text);
    read.map_err(|_| "the settings in flash cannot be read")?;
    Ok(text)
}
