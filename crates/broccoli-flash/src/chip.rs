//! The chips that the firmware is built for.

use std::fmt;
use std::str::FromStr;

/// A chip that there is firmware for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// ESP32: two Xtensa LX6 cores, of which one is used, Wi-Fi 4 on 2.4 GHz.
    Esp32,
    /// ESP32-S3: two Xtensa LX7 cores, of which one is used, Wi-Fi 4 on 2.4 GHz.
    Esp32s3,
    /// ESP32-C3: RISC-V without atomics, Wi-Fi 4 on 2.4 GHz.
    Esp32c3,
    /// ESP32-C6: RISC-V, Wi-Fi 6 on 2.4 GHz.
    Esp32c6,
}

/// There is no firmware for a chip of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownChip(String);

impl Chip {
    /// All chips.
    pub const ALL: [Chip; 4] = [Chip::Esp32, Chip::Esp32s3, Chip::Esp32c3, Chip::Esp32c6];

    /// The name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Chip::Esp32 => "esp32",
            Chip::Esp32s3 => "esp32s3",
            Chip::Esp32c3 => "esp32c3",
            Chip::Esp32c6 => "esp32c6",
        }
    }

    /// The digital pins that tasks can use, or a LED. Those of flash, USB and UART are not among them.
    pub fn pins(self) -> &'static [u8] {
        match self {
            Chip::Esp32 => &[0, 2, 4, 5, 13, 14, 15, 18, 19, 21, 22, 23, 25, 26, 27],
            Chip::Esp32s3 => &[0, 11, 12, 13, 14, 15, 16, 17, 18, 21, 38, 39, 40, 41, 42, 47, 48],
            Chip::Esp32c3 => &[5, 6, 7, 8, 9, 10],
            Chip::Esp32c6 => &[7, 8, 9, 10, 11, 15, 18, 19, 20, 21, 22, 23],
        }
    }

    /// Where the chip looks for its bootloader in flash, in bytes from the beginning.
    pub fn bootloader_at(self) -> usize {
        self.espflash().boot_address() as usize
    }

    pub(crate) fn espflash(self) -> espflash::target::Chip {
        match self {
            Chip::Esp32 => espflash::target::Chip::Esp32,
            Chip::Esp32s3 => espflash::target::Chip::Esp32s3,
            Chip::Esp32c3 => espflash::target::Chip::Esp32c3,
            Chip::Esp32c6 => espflash::target::Chip::Esp32c6,
        }
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Chip {
    type Err = UnknownChip;

    fn from_str(name: &str) -> Result<Chip, UnknownChip> {
        let plain = name.to_ascii_lowercase().replace('-', "");
        Chip::ALL.into_iter().find(|chip| chip.name() == plain).ok_or_else(|| UnknownChip(name.into()))
    }
}

impl fmt::Display for UnknownChip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Chip::ALL.map(Chip::name).join(", ");
        write!(f, "there is no firmware for {:?}; there is for {names}", self.0)
    }
}

impl std::error::Error for UnknownChip {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_are_known_as_people_write_them() {
        assert_eq!("ESP32-C6".parse(), Ok(Chip::Esp32c6));
        assert_eq!("ESP32-S3".parse(), Ok(Chip::Esp32s3));
        assert_eq!("esp32".parse(), Ok(Chip::Esp32));
        for chip in Chip::ALL {
            assert_eq!(chip.to_string().parse(), Ok(chip));
        }
        let error = "pico".parse::<Chip>().expect_err("no chip").to_string();
        assert_eq!(error, "there is no firmware for \"pico\"; there is for esp32, esp32s3, esp32c3, esp32c6");
    }
}
