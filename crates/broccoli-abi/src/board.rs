//! What a task may ask of the board of its node: calls as plain data, the same for every kind of node.
//!
//! ```text
//! guest                                              host
//!   board(code, a, b, room, room_len)        ──►       HostCall, or why it is none
//!                                            ◄──       0 … 0 | err | value, or length of the error text
//! ```
//!
//! This module defines the codes, the ranges of the arguments and the meaning of the answers. It never touches a pin.

use core::fmt;

/// Longest error text that a node writes, in bytes. So a guest knows how much room is enough.
pub const HOST_TEXT_LEN_MAX: usize = 160;

/// A request of a task to the board of its node.
///
/// | code | call | a | b | answer |
/// |---|---|---|---|---|
/// | 1 | [`LedSet`](Self::LedSet) | 0 off, 1 on | 0 | 0 |
/// | 2 | [`GpioRead`](Self::GpioRead) | pin | 0 | 0 low, 1 high |
/// | 3 | [`GpioWrite`](Self::GpioWrite) | pin | 0 low, 1 high | 0 |
/// | 4 | [`AdcRead`](Self::AdcRead) | channel | 0 | millivolts |
/// | 5 | [`TemperatureRead`](Self::TemperatureRead) | 0 | 0 | thousandths of a degree Celsius |
///
/// Pins and channels have the numbers of the board.
/// A code is never reused for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCall {
    /// Switches the LED of the board.
    LedSet {
        /// Whether to switch it on.
        on: bool,
    },
    /// Reads the level of a pin. The pin keeps its direction, input or output.
    GpioRead {
        /// The pin.
        pin: u16,
    },
    /// Makes a pin an output, and sets it.
    GpioWrite {
        /// The pin.
        pin: u16,
        /// Whether to set it high.
        high: bool,
    },
    /// Measures a voltage.
    AdcRead {
        /// The channel.
        channel: u8,
    },
    /// Measures the temperature of the processor, or of what the board has instead.
    TemperatureRead,
}

/// Why three numbers are not a [`HostCall`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHostCall {
    /// The code is unknown to this version.
    Code(u32),
    /// An argument is out of its range.
    Range {
        /// The meaning of the argument.
        what: &'static str,
        /// Its value.
        is: u32,
        /// Its largest valid value.
        max: u32,
    },
}

impl fmt::Display for BadHostCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "this node does not know the board call {code}"),
            Self::Range { what, is, max } => write!(f, "{what} must be 0 to {max}, not {is}"),
        }
    }
}

impl core::error::Error for BadHostCall {}

impl HostCall {
    /// Reads the code and the arguments that a guest has given.
    ///
    /// # Errors
    /// If the code is unknown, or an argument is out of its range. Arguments that a call does not use must be 0.
    ///
    /// ```
    /// use broccoli_abi::{BadHostCall, HostCall};
    /// let call = HostCall::GpioWrite { pin: 17, high: true };
    /// let [code, a, b] = call.to_raw();
    /// assert_eq!(HostCall::from_raw(code, a, b), Ok(call));
    /// assert_eq!(HostCall::from_raw(99, 0, 0), Err(BadHostCall::Code(99)));
    /// ```
    pub fn from_raw(code: u32, a: u32, b: u32) -> Result<Self, BadHostCall> {
        let pin = || Ok(within("a pin", a, u16::MAX.into())? as u16);
        let (call, used) = match code {
            1 => (Self::LedSet { on: within("the LED", a, 1)? == 1 }, 1),
            2 => (Self::GpioRead { pin: pin()? }, 1),
            3 => (Self::GpioWrite { pin: pin()?, high: within("a level", b, 1)? == 1 }, 2),
            4 => (Self::AdcRead { channel: within("a channel", a, u8::MAX.into())? as u8 }, 1),
            5 => (Self::TemperatureRead, 0),
            code => return Err(BadHostCall::Code(code)),
        };
        for unused in [a, b].into_iter().skip(used) {
            within("an argument that is not used", unused, 0)?;
        }
        Ok(call)
    }

    /// The reverse of [`HostCall::from_raw`]: code, a, b.
    #[must_use]
    pub const fn to_raw(self) -> [u32; 3] {
        match self {
            Self::LedSet { on } => [1, on as u32, 0],
            Self::GpioRead { pin } => [2, pin as u32, 0],
            Self::GpioWrite { pin, high } => [3, pin as u32, high as u32],
            Self::AdcRead { channel } => [4, channel as u32, 0],
            Self::TemperatureRead => [5, 0, 0],
        }
    }
}

const fn within(what: &'static str, is: u32, max: u32) -> Result<u32, BadHostCall> {
    if is <= max { Ok(is) } else { Err(BadHostCall::Range { what, is, max }) }
}

const ERR_BIT: u64 = 1 << 32;

/// The answer of the import `board`.
///
/// ```text
///  63                33  32  31             0
/// ┌────────────────────┬───┬────────────────┐
/// │          0         │err│ value or length│
/// └────────────────────┴───┴────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAnswer {
    /// The request succeeded. The value is the answer in the table of [`HostCall`].
    Value(i32),
    /// The request failed. The reason is a text in UTF-8, in the room that the guest has given.
    Refused {
        /// Length of the text, in bytes.
        text_len: u32,
    },
}

impl HostAnswer {
    /// The `i64` that the guest gets.
    ///
    /// ```
    /// use broccoli_abi::HostAnswer;
    /// for answer in [HostAnswer::Value(-7), HostAnswer::Refused { text_len: 12 }] {
    ///     assert_eq!(HostAnswer::unpack(answer.pack()), answer);
    /// }
    /// ```
    #[must_use]
    pub const fn pack(self) -> i64 {
        match self {
            Self::Value(value) => value as u32 as i64,
            Self::Refused { text_len } => (ERR_BIT | text_len as u64) as i64,
        }
    }

    /// The reverse of [`HostAnswer::pack`]. Every `i64` is a valid answer.
    #[must_use]
    pub const fn unpack(packed: i64) -> Self {
        let low = packed as u32;
        if packed as u64 & ERR_BIT == 0 { Self::Value(low as i32) } else { Self::Refused { text_len: low } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_survives_its_numbers() {
        for call in [
            HostCall::LedSet { on: false },
            HostCall::LedSet { on: true },
            HostCall::GpioRead { pin: u16::MAX },
            HostCall::GpioWrite { pin: 0, high: true },
            HostCall::GpioWrite { pin: 40, high: false },
            HostCall::AdcRead { channel: u8::MAX },
            HostCall::TemperatureRead,
        ] {
            let [code, a, b] = call.to_raw();
            assert_eq!(HostCall::from_raw(code, a, b), Ok(call));
        }
    }

    #[test]
    fn what_is_out_of_range_is_refused_with_its_range() {
        let range = |what, is, max| Err(BadHostCall::Range { what, is, max });
        assert_eq!(HostCall::from_raw(0, 0, 0), Err(BadHostCall::Code(0)));
        assert_eq!(HostCall::from_raw(1, 2, 0), range("the LED", 2, 1));
        assert_eq!(HostCall::from_raw(2, 65_536, 0), range("a pin", 65_536, 65_535));
        assert_eq!(HostCall::from_raw(3, 4, u32::MAX), range("a level", u32::MAX, 1));
        assert_eq!(HostCall::from_raw(4, 256, 0), range("a channel", 256, 255));
        assert_eq!(HostCall::from_raw(5, 0, 1), range("an argument that is not used", 1, 0));
        assert_eq!(HostCall::from_raw(2, 4, 1), range("an argument that is not used", 1, 0));
    }

    #[test]
    fn answers_keep_the_extremes() {
        for answer in [
            HostAnswer::Value(i32::MIN),
            HostAnswer::Value(i32::MAX),
            HostAnswer::Refused { text_len: 0 },
            HostAnswer::Refused { text_len: u32::MAX },
        ] {
            assert_eq!(HostAnswer::unpack(answer.pack()), answer);
        }
    }
}
