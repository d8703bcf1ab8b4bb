//! The chips that the firmware is built for.

use std::fmt;
use std::str::FromStr;

/// A chip that firmware is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chip {
    /// ESP32-C6: RISC-V, Wi-Fi 6 on 2.4 GHz.
    Esp32c6,
    /// ESP32-C3: RISC-V without atomics, Wi-Fi 4 on 2.4 GHz.
    Esp32c3,
}

/// Why there is no firmware for this chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownChip {
    /// Its cores need another compiler than the official Rust compiler.
    Xtensa(&'static str),
    /// The name is unknown.
    Other(String),
}

impl Chip {
    /// The name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Chip::Esp32c6 => "esp32c6",
            Chip::Esp32c3 => "esp32c3",
        }
    }

    /// The digital pins that tasks can use, or a LED. Those of flash, USB and UART are not among them.
    pub fn pins(self) -> &'static [u8] {
        match self {
            Chip::Esp32c6 => &[7, 8, 9, 10, 11, 15, 18, 19, 20, 21, 22, 23],
            Chip::Esp32c3 => &[5, 6, 7, 8, 9, 10],
        }
    }

    pub(crate) fn espflash(self) -> espflash::target::Chip {
        match self {
            Chip::Esp32c6 => espflash::target::Chip::Esp32c6,
            Chip::Esp32c3 => espflash::target::Chip::Esp32c3,
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
        match name.to_ascii_lowercase().replace('-', "").as_str() {
            "esp32c6" => Ok(Chip::Esp32c6),
            "esp32c3" => Ok(Chip::Esp32c3),
            "esp32" => Err(UnknownChip::Xtensa("esp32")),
            "esp32s3" => Err(UnknownChip::Xtensa("esp32s3")),
            _ => Err(UnknownChip::Other(name.into())),
        }
    }
}

impl fmt::Display for UnknownChip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnknownChip::Xtensa(name) => {
                write!(f, "there is no firmware for {name} yet: it needs Espressif's own Rust compiler")?;
            }
            UnknownChip::Other(name) => write!(f, "there is no firmware for {name:?}")?,
        }
        write!(f, "; there is for esp32c6 and esp32c3")
    }
}

impl std::error::Error for UnknownChip {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_are_known_as_people_write_them() {
        assert_eq!("esp32c6".parse(), Ok(Chip::Esp32c6));
        assert_eq!("ESP32-C6".parse(), Ok(Chip::Esp32c6));
        assert_eq!("esp32c3".parse(), Ok(Chip::Esp32c3));
        assert_eq!("ESP32-C3".parse(), Ok(Chip::Esp32c3));
        for chip in [Chip::Esp32c6, Chip::Esp32c3] {
            assert_eq!(chip.to_string().parse(), Ok(chip));
        }
        let error = |name: &str| name.parse::<Chip>().expect_err("no chip").to_string();
        assert!(error("esp32").contains("Espressif's own Rust compiler"), "{}", error("esp32"));
        assert_eq!(error("pico"), "there is no firmware for \"pico\"; there is for esp32c6 and esp32c3");
    }
}
