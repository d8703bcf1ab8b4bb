//! Python's arithmetic and comparison, on 64-bit integers and floats. Integer overflow is an error.

use std::cmp::Ordering;

use crate::ast::{Arithmetic, Compare, Unary};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Int(i64),
    Float(f64),
}

/// Why there is no result, as the end of an error message.
pub(crate) type NumberError = &'static str;

const OVERFLOW: NumberError = "the result does not fit in 64 bits";
const BY_ZERO: NumberError = "division by zero";

impl Number {
    fn to_f64(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Float(x) => x,
        }
    }

    pub(crate) fn compare(self, other: Number) -> Option<Ordering> {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
            _ => self.to_f64().partial_cmp(&other.to_f64()),
        }
    }
}

impl Compare {
    /// Whether the comparison is true. Without an order (NaN) only `!=` is true.
    pub(crate) fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Compare::Equal => order == Some(Ordering::Equal),
            Compare::NotEqual => order != Some(Ordering::Equal),
            Compare::Less => order == Some(Ordering::Less),
            Compare::LessEqual => order.is_some_and(Ordering::is_le),
            Compare::Greater => order == Some(Ordering::Greater),
            Compare::GreaterEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

pub(crate) fn unary(operator: Unary, operand: Number) -> Result<Number, NumberError> {
    match (operator, operand) {
        (Unary::Minus, Number::Int(n)) => n.checked_neg().map(Number::Int).ok_or(OVERFLOW),
        (Unary::Minus, Number::Float(x)) => Ok(Number::Float(-x)),
        (Unary::Plus, number) => Ok(number),
        (Unary::Run, _) => Err("`~` runs a canvas"),
    }
}

pub(crate) fn arithmetic(operator: Arithmetic, a: Number, b: Number) -> Result<Number, NumberError> {
    if let (Number::Int(a), Number::Int(b)) = (a, b) {
        return integer(operator, a, b).map(Number::Int);
    }
    let (a, b) = (a.to_f64(), b.to_f64());
    Ok(Number::Float(match operator {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
        Arithmetic::FloorDiv | Arithmetic::Modulo if b == 0.0 => return Err(BY_ZERO),
        Arithmetic::FloorDiv => floor_divide(a, b).0,
        Arithmetic::Modulo => floor_divide(a, b).1,
    }))
}

fn integer(operator: Arithmetic, a: i64, b: i64) -> Result<i64, NumberError> {
    let signs_differ = (a < 0) != (b < 0);
    match operator {
        Arithmetic::Add => a.checked_add(b).ok_or(OVERFLOW),
        Arithmetic::Sub => a.checked_sub(b).ok_or(OVERFLOW),
        Arithmetic::Mul => a.checked_mul(b).ok_or(OVERFLOW),
        Arithmetic::FloorDiv | Arithmetic::Modulo if b == 0 => Err(BY_ZERO),
        Arithmetic::FloorDiv => {
            let quotient = a.checked_div(b).ok_or(OVERFLOW)?;
            Ok(quotient - i64::from(signs_differ && a % b != 0))
        }
        Arithmetic::Modulo => {
            let rest = a.wrapping_rem(b);
            Ok(if signs_differ && rest != 0 { rest + b } else { rest })
        }
    }
}

/// Python's `divmod` of floats: the remainder has the sign of the divisor.
fn floor_divide(a: f64, b: f64) -> (f64, f64) {
    let mut rest = a % b;
    let mut quotient = (a - rest) / b;
    if rest == 0.0 {
        rest = 0f64.copysign(b);
    } else if (b < 0.0) != (rest < 0.0) {
        rest += b;
        quotient -= 1.0;
    }
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }, rest)
}

pub(crate) fn power(base: Number, exponent: Number) -> Result<Number, NumberError> {
    match (base, exponent) {
        (Number::Int(base), Number::Int(exponent @ 0..)) => {
            let result = match (base, u32::try_from(exponent)) {
                (_, Ok(exponent)) => base.checked_pow(exponent),
                (0 | 1, _) => Some(base),
                (-1, _) => Some(if exponent % 2 == 0 { 1 } else { -1 }),
                _ => None,
            };
            result.map(Number::Int).ok_or(OVERFLOW)
        }
        _ => {
            let (base, exponent) = (base.to_f64(), exponent.to_f64());
            let result = base.powf(exponent);
            if base == 0.0 && exponent < 0.0 {
                Err(BY_ZERO)
            } else if base < 0.0 && result.is_nan() && !exponent.is_nan() {
                Err("the result is not a real number")
            } else if result.is_infinite() && base.is_finite() && exponent.is_finite() {
                Err("the result does not fit in a float")
            } else {
                Ok(Number::Float(result))
            }
        }
    }
}
