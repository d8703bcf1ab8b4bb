//! The LED of a board with a microcontroller, as its settings name it: `15`, `8,low` or `48,colour`.

use core::fmt;
use core::str::FromStr;

/// The LED of a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Led {
    /// Its pin, by the number of the chip.
    pub pin: u8,
    /// How it is switched.
    pub kind: LedKind,
}

/// How a LED is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedKind {
    /// It is on while the pin is high.
    High,
    /// It is on while the pin is low.
    Low,
    /// An addressable RGB LED, such as a WS2812: a train of pulses sets its colour.
    Colour,
}

impl fmt::Display for Led {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            LedKind::High => "",
            LedKind::Low => ",low",
            LedKind::Colour => ",colour",
        };
        write!(f, "{}{kind}", self.pin)
    }
}

/// The text names no LED.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoLed;

impl fmt::Display for NoLed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write the number of its pin, with ,low if it is on when the pin is low, or ,colour for an RGB LED")
    }
}

impl core::error::Error for NoLed {}

impl FromStr for Led {
    type Err = NoLed;

    fn from_str(text: &str) -> Result<Led, NoLed> {
        let (pin, kind) = match text.split_once(',') {
            None => (text, LedKind::High),
            Some((pin, "low")) => (pin, LedKind::Low),
            Some((pin, "colour")) => (pin, LedKind::Colour),
            Some(_) => return Err(NoLed),
        };
        Ok(Led { pin: pin.parse().map_err(|_| NoLed)?, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn leds_are_written_as_they_are_read() {
        for (text, pin, kind) in
            [("15", 15, LedKind::High), ("8,low", 8, LedKind::Low), ("48,colour", 48, LedKind::Colour)]
        {
            assert_eq!(text.parse(), Ok(Led { pin, kind }));
            assert_eq!(Led { pin, kind }.to_string(), text);
        }
        for text in ["", "red", "256", "-1", "8,", "8,blue", ",low"] {
            assert_eq!(text.parse::<Led>(), Err(NoLed), "{text}");
        }
    }
}
