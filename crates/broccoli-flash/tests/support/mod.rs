//! A program for a chip that does nothing. It is small enough to be written by hand.

use broccoli_flash::Chip;

const HEADER_BYTES: u32 = 52;
/// Names of the sections, and where each begins.
const NAMES: &[u8] = b"\0.text\0.shstrtab\0";

/// Where code in flash is mapped, behind the headers of an image, and the number of the kind of core in ELF files.
fn target(chip: Chip) -> (u32, u16) {
    match chip {
        Chip::Esp32 => (0x400d_0020, 94),
        Chip::Esp32s3 => (0x4200_0020, 94),
        Chip::Esp32c3 | Chip::Esp32c6 => (0x4200_0020, 243),
    }
}

/// An ELF file for a chip with one section of code of this length.
pub(crate) fn program(chip: Chip, code_bytes: u32) -> Vec<u8> {
    let (address, machine) = target(chip);
    let names_at = HEADER_BYTES + code_bytes;
    let sections_at = (names_at + NAMES.len() as u32).next_multiple_of(4);
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable, version 1, its entry, no segments, three sections.
    [2, machine].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    [1, address, 0, sections_at, 0].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    [HEADER_BYTES as u16, 32, 0, 40, 3, 2].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    elf.extend((0..code_bytes).map(|at| at as u8));
    elf.extend(NAMES);
    elf.resize(sections_at as usize, 0);
    // Name, type, flags, address, offset, size, link, info, alignment, size of an entry.
    let text = [1, 1, 6, address, HEADER_BYTES, code_bytes, 0, 0, 4, 0];
    let names = [7, 3, 0, 0, names_at, NAMES.len() as u32, 0, 0, 1, 0];
    [[0; 10], text, names].iter().flatten().for_each(|word| elf.extend(word.to_le_bytes()));
    elf
}

/// The usual partitions of the firmware for a chip.
pub(crate) fn partitions(chip: Chip) -> std::path::PathBuf {
    let name = match chip {
        Chip::Esp32 => "4mb-one-slot.csv",
        Chip::Esp32s3 => "8mb-two-slots.csv",
        Chip::Esp32c3 | Chip::Esp32c6 => "4mb-two-slots.csv",
    };
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware/esp32/partitions").join(name)
}
