//! Numbers that stay integers as long as they can.

use crate::{Decoder, Encoder, FromCbor, ToCbor, TypeName};

const OVERFLOW: &str = "integer overflow";

/// An integer of 64 bits or a float. The result of arithmetic is a float if either operand is one. An integer
/// overflow is an error, and never wraps.
///
/// ```
/// use broccoli_sdk::Num;
/// assert_eq!(Num::Int(2).add(Num::Float(0.5)), Ok(Num::Float(2.5)));
/// assert_eq!(Num::Int(i64::MAX).add(Num::Int(1)), Err("integer overflow"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Num {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
}

impl Num {
    /// The value as a float.
    ///
    /// ```
    /// assert_eq!(broccoli_sdk::Num::Int(2).to_f64(), 2.0);
    /// ```
    #[must_use]
    pub const fn to_f64(self) -> f64 {
        match self {
            Self::Int(n) => n as f64,
            Self::Float(x) => x,
        }
    }

    /// `self + other`
    ///
    /// # Errors
    /// An integer overflow.
    #[allow(clippy::should_implement_trait)] // It may fail.
    pub fn add(self, other: Self) -> Result<Self, &'static str> {
        self.apply(other, i64::checked_add, |x, y| x + y)
    }

    /// `self - other`
    ///
    /// # Errors
    /// An integer overflow.
    #[allow(clippy::should_implement_trait)] // It may fail.
    pub fn sub(self, other: Self) -> Result<Self, &'static str> {
        self.apply(other, i64::checked_sub, |x, y| x - y)
    }

    /// `self * other`
    ///
    /// # Errors
    /// An integer overflow.
    #[allow(clippy::should_implement_trait)] // It may fail.
    pub fn mul(self, other: Self) -> Result<Self, &'static str> {
        self.apply(other, i64::checked_mul, |x, y| x * y)
    }

    #[inline]
    fn apply(
        self,
        other: Self,
        ints: impl FnOnce(i64, i64) -> Option<i64>,
        floats: impl FnOnce(f64, f64) -> f64,
    ) -> Result<Self, &'static str> {
        match (self, other) {
            (Self::Int(x), Self::Int(y)) => ints(x, y).map(Self::Int).ok_or(OVERFLOW),
            (x, y) => Ok(Self::Float(floats(x.to_f64(), y.to_f64()))),
        }
    }
}

impl FromCbor<'_> for Num {
    const TYPE: TypeName = TypeName::new("num");

    fn decode(d: &mut Decoder<'_>) -> Self {
        if d.is_int() { Self::Int(d.int()) } else { Self::Float(d.float()) }
    }
}

impl ToCbor for Num {
    const TYPE: TypeName = TypeName::new("num");

    fn encode(&self, e: &mut Encoder) {
        match *self {
            Self::Int(n) => e.int(n),
            Self::Float(x) => e.float(x),
        }
    }
}
