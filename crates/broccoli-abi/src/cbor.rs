//! Checks that bytes are one CBOR item (RFC 8949) of the subset that tasks may exchange.
//!
//! The check goes through the heads of the items without recursion and without allocation. The depth is limited to
//! [`VALUE_DEPTH_MAX`]. It never builds a value.
//!
//! The subset: definite lengths only; integers, byte and text strings (valid UTF-8), arrays, maps, tags, `false`,
//! `true`, `null` and floats of 16, 32 and 64 bits. `undefined` and other simple values are refused, because clients
//! could not show them.

use core::fmt;

use crate::VALUE_DEPTH_MAX;

/// Why bytes are not one valid CBOR item of the subset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CborError {
    /// The bytes end inside the item.
    Truncated,
    /// Bytes follow the item, from this offset on.
    TrailingBytes(usize),
    /// There is an indefinite length at this offset.
    Indefinite(usize),
    /// There is a reserved head or an unsupported simple value at this offset.
    Unsupported(usize),
    /// The text at this offset is not UTF-8.
    Utf8(usize),
    /// It is nested deeper than [`VALUE_DEPTH_MAX`].
    TooDeep,
}

impl fmt::Display for CborError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the CBOR ends inside an item"),
            Self::TrailingBytes(at) => write!(f, "more than one CBOR item (second at byte {at})"),
            Self::Indefinite(at) => write!(f, "indefinite length at byte {at}; use definite ones"),
            Self::Unsupported(at) => write!(f, "unsupported CBOR head at byte {at}"),
            Self::Utf8(at) => write!(f, "the text at byte {at} is not UTF-8"),
            Self::TooDeep => write!(f, "nested deeper than {VALUE_DEPTH_MAX} levels"),
        }
    }
}

impl core::error::Error for CborError {}

/// The head of an item. Strings contain their bytes, containers their count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head<'a> {
    /// An integer. CBOR's range is -2^64 to 2^64 - 1.
    Int(i128),
    /// A byte string.
    Bytes(&'a [u8]),
    /// A text string.
    Text(&'a str),
    /// An array of this many items.
    Array(u64),
    /// A map of this many pairs.
    Map(u64),
    /// A tag. One item follows.
    Tag(u64),
    /// `false` or `true`.
    Bool(bool),
    /// `null`.
    Null,
    /// A float of any width, widened to 64 bits.
    Float(f64),
}

/// Reads heads one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next head.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Whether all bytes have been read.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn take(&mut self, len: u64) -> Result<&'a [u8], CborError> {
        let rest = &self.bytes[self.at..];
        let len = usize::try_from(len).map_err(|_| CborError::Truncated)?;
        let taken = rest.get(..len).ok_or(CborError::Truncated)?;
        self.at += len;
        Ok(taken)
    }

    fn uint(&mut self, len: u64) -> Result<u64, CborError> {
        Ok(self.take(len)?.iter().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    /// Reads one head, for strings with their content, and moves past it.
    ///
    /// # Errors
    /// The reason why the bytes here are not a valid head.
    pub fn head(&mut self) -> Result<Head<'a>, CborError> {
        let start = self.at;
        let first = *self.bytes.get(start).ok_or(CborError::Truncated)?;
        self.at += 1;
        let info = first & 0x1f;
        let arg = match info {
            0..=23 => u64::from(info),
            24..=27 => self.uint(1 << (info - 24))?,
            31 => return Err(CborError::Indefinite(start)),
            _ => return Err(CborError::Unsupported(start)),
        };
        match first >> 5 {
            0 => Ok(Head::Int(i128::from(arg))),
            1 => Ok(Head::Int(-1 - i128::from(arg))),
            2 => self.take(arg).map(Head::Bytes),
            3 => {
                let text = core::str::from_utf8(self.take(arg)?);
                text.map(Head::Text).map_err(|_| CborError::Utf8(start))
            }
            4 => Ok(Head::Array(arg)),
            5 => Ok(Head::Map(arg)),
            6 => Ok(Head::Tag(arg)),
            _ => match info {
                20 => Ok(Head::Bool(false)),
                21 => Ok(Head::Bool(true)),
                22 => Ok(Head::Null),
                25 => Ok(Head::Float(f16_to_f64(arg as u16))),
                26 => Ok(Head::Float(f64::from(f32::from_bits(arg as u32)))),
                27 => Ok(Head::Float(f64::from_bits(arg))),
                _ => Err(CborError::Unsupported(start)),
            },
        }
    }

    /// Moves past one whole item, and returns its bytes.
    ///
    /// # Errors
    /// The reason why the bytes here are not a valid item.
    pub fn item(&mut self) -> Result<&'a [u8], CborError> {
        let start = self.at;
        // Items still missing at each level of nesting.
        let mut missing = [0u64; VALUE_DEPTH_MAX];
        let mut depth = 0;
        loop {
            let children = match self.head()? {
                Head::Array(n) => n,
                Head::Map(pairs) => pairs.checked_mul(2).ok_or(CborError::Truncated)?,
                Head::Tag(_) => 1,
                _ => 0,
            };
            if children > 0 {
                *missing.get_mut(depth).ok_or(CborError::TooDeep)? = children;
                depth += 1;
                continue;
            }
            while depth > 0 {
                missing[depth - 1] -= 1;
                if missing[depth - 1] > 0 {
                    break;
                }
                depth -= 1;
            }
            if depth == 0 {
                return Ok(&self.bytes[start..self.at]);
            }
        }
    }
}

/// Checks that `bytes` are exactly one valid CBOR item of the subset.
///
/// ```
/// use broccoli_abi::{CborError, validate_item};
/// assert_eq!(validate_item(&[0x82, 1, 2]), Ok(()));
/// assert_eq!(validate_item(&[0x82, 1]), Err(CborError::Truncated));
/// assert_eq!(validate_item(&[1, 2]), Err(CborError::TrailingBytes(1)));
/// ```
///
/// # Errors
/// The first reason why they are not.
pub fn validate_item(bytes: &[u8]) -> Result<(), CborError> {
    let mut reader = Reader::new(bytes);
    reader.item()?;
    if reader.is_at_end() { Ok(()) } else { Err(CborError::TrailingBytes(reader.position())) }
}

/// Whether an item is a canvas that replaces the task that returns it. The item itself must have the tag
/// [`CANVAS_TAG`](crate::CANVAS_TAG); a tagged item inside it does not count.
///
/// ```
/// assert!(broccoli_abi::cbor::is_canvas(b"\xda\x42\x52\x4f\x43\x80"));
/// assert!(!broccoli_abi::cbor::is_canvas(b"\x81\xda\x42\x52\x4f\x43\x80"));
/// ```
#[must_use]
pub fn is_canvas(item: &[u8]) -> bool {
    matches!(Reader::new(item).head(), Ok(Head::Tag(crate::CANVAS_TAG)))
}

/// Widens an IEEE 754 half: sign, 5 bits of exponent, 10 bits of fraction.
#[must_use]
pub fn f16_to_f64(bits: u16) -> f64 {
    let sign = u64::from(bits >> 15) << 63;
    let exponent = u64::from(bits >> 10 & 0x1f);
    let fraction = u64::from(bits & 0x3ff);
    match exponent {
        // Zero and subnormals: a fraction of 2^-24.
        0 => {
            let size = fraction as f64 / 16_777_216.0;
            f64::from_bits(size.to_bits() | sign)
        }
        31 => f64::from_bits(sign | 0x7ff << 52 | fraction << 42),
        _ => f64::from_bits(sign | (exponent + 1008) << 52 | fraction << 42),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_subset() {
        let good: &[&[u8]] = &[
            &[0x00],
            &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x43, 1, 2, 3],
            &[0x62, 0xc3, 0xa4],
            &[0x80],
            &[0x82, 0x80, 0xa1, 0x61, b'a', 0xf6],
            &[0xc1, 0x01],
            &[0xf4],
            &[0xf9, 0x3c, 0x00],
            &[0xfa, 0, 0, 0, 0],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
        ];
        for bytes in good {
            assert_eq!(validate_item(bytes), Ok(()), "{bytes:x?}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        let bad: &[(&[u8], CborError)] = &[
            (&[], CborError::Truncated),
            (&[0x19, 0], CborError::Truncated),
            (&[0x82, 0], CborError::Truncated),
            (&[0xc1], CborError::Truncated),
            (&[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], CborError::Truncated),
            (&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], CborError::Truncated),
            (&[0, 0], CborError::TrailingBytes(1)),
            (&[0x81, 0x9f, 0xff], CborError::Indefinite(1)),
            (&[0x5f, 0xff], CborError::Indefinite(0)),
            (&[0xff], CborError::Indefinite(0)),
            (&[0x1c], CborError::Unsupported(0)),
            (&[0xf7], CborError::Unsupported(0)),
            (&[0xf8, 0x20], CborError::Unsupported(0)),
            (&[0x61, 0xff], CborError::Utf8(0)),
            (&[0x81; VALUE_DEPTH_MAX + 2], CborError::TooDeep),
            (&[0xc1; VALUE_DEPTH_MAX + 2], CborError::TooDeep),
        ];
        for (bytes, error) in bad {
            assert_eq!(validate_item(bytes), Err(*error), "{bytes:x?}");
        }
    }

    #[test]
    fn deepest_allowed_value() {
        let mut bytes = [0x81; VALUE_DEPTH_MAX + 1];
        bytes[VALUE_DEPTH_MAX] = 0;
        assert_eq!(validate_item(&bytes), Ok(()));
    }

    #[test]
    fn every_prefix_of_an_item_is_refused() {
        let bytes = [0x83, 0x18, 100, 0xa1, 0x62, b'h', b'i', 0xf9, 0x3c, 0, 0x41, 9];
        assert_eq!(validate_item(&bytes), Ok(()));
        for len in 0..bytes.len() {
            assert_eq!(validate_item(&bytes[..len]), Err(CborError::Truncated));
        }
    }

    #[test]
    fn halves_widen() {
        assert_eq!(f16_to_f64(0x3c00), 1.0);
        assert_eq!(f16_to_f64(0xc000), -2.0);
        assert_eq!(f16_to_f64(0x0001), 2f64.powi(-24));
        assert_eq!(f16_to_f64(0x7bff), 65504.0);
        assert_eq!(f16_to_f64(0xfc00), f64::NEG_INFINITY);
        assert!(f16_to_f64(0x7e00).is_nan());
        assert!(f16_to_f64(0x8000).is_sign_negative());
    }
}
