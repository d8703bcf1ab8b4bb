//! A program for an ESP32-C6 or an ESP32-C3 that does nothing. It is small enough to be written by hand.

/// Where flash is mapped in both chips, behind the headers of an image.
const ADDRESS: u32 = 0x4200_0020;
const HEADER_BYTES: u32 = 52;
/// Names of the sections, and where each begins.
const NAMES: &[u8] = b"\0.text\0.shstrtab\0";

/// An ELF file with one section of code of this length.
pub(crate) fn program(code_bytes: u32) -> Vec<u8> {
    let names_at = HEADER_BYTES + code_bytes;
    let sections_at = (names_at + NAMES.len() as u32).next_multiple_of(4);
    let mut elf = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // An executable for RISC-V, version 1, its entry, no segments, three sections.
    elf.extend([2, 0, 243, 0]);
    [1, ADDRESS, 0, sections_at, 0].iter().for_each(|word| elf.extend(word.to_le_bytes()));
    [HEADER_BYTES as u16, 32, 0, 40, 3, 2].iter().for_each(|half| elf.extend(half.to_le_bytes()));
    elf.extend((0..code_bytes).map(|at| at as u8));
    elf.extend(NAMES);
    elf.resize(sections_at as usize, 0);
    // Name, type, flags, address, offset, size, link, info, alignment, size of an entry.
    let text = [1, 1, 6, ADDRESS, HEADER_BYTES, code_bytes, 0, 0, 4, 0];
    let names = [7, 3, 0, 0, names_at, NAMES.len() as u32, 0, 0, 1, 0];
    [[0; 10], text, names].iter().flatten().for_each(|word| elf.extend(word.to_le_bytes()));
    elf
}

/// The partitions of the firmware.
pub(crate) fn partitions() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../firmware/esp32/partitions.csv")
}
