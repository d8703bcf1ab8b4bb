//! Division of 128-bit integers, in place of that of the compiler's library.
//!
//! The compiler (1.99.1) passes the upper half of the divisor elsewhere than the library, which it has compiled itself,
//! looks for it: a call has it behind the first half, a function of two `u128` expects it aligned to 16 bytes. So these
//! take halves. The row "128-bit integers" of `cargo xtask compute` shows it.

/// Quotient and remainder, bit by bit.
fn divide(dividend: u128, divisor: u128) -> (u128, u128) {
    let (mut quotient, mut rest) = (0_u128, 0_u128);
    for bit in (0..u128::BITS).rev() {
        // The bit that leaves `rest` counts, too.
        let carry = rest >> 127 != 0;
        rest = rest << 1 | (dividend >> bit & 1);
        if carry || rest >= divisor {
            rest = rest.wrapping_sub(divisor);
            quotient |= 1 << bit;
        }
    }
    (quotient, rest)
}

const fn wide(low: u64, high: u64) -> u128 {
    (high as u128) << 64 | low as u128
}

/// With the signs of the language: the quotient is rounded to zero, the remainder has the sign of the dividend.
fn divide_signed(dividend: i128, divisor: i128) -> (i128, i128) {
    let (quotient, rest) = divide(dividend.unsigned_abs(), divisor.unsigned_abs());
    let (quotient, rest) = (quotient as i128, rest as i128);
    let is_negative = (dividend < 0) != (divisor < 0);
    (
        if is_negative { quotient.wrapping_neg() } else { quotient },
        if dividend < 0 { rest.wrapping_neg() } else { rest },
    )
}

#[unsafe(no_mangle)]
extern "C" fn __udivti3(low: u64, high: u64, divisor_low: u64, divisor_high: u64) -> u128 {
    divide(wide(low, high), wide(divisor_low, divisor_high)).0
}

#[unsafe(no_mangle)]
extern "C" fn __umodti3(low: u64, high: u64, divisor_low: u64, divisor_high: u64) -> u128 {
    divide(wide(low, high), wide(divisor_low, divisor_high)).1
}

#[unsafe(no_mangle)]
extern "C" fn __divti3(low: u64, high: u64, divisor_low: u64, divisor_high: u64) -> i128 {
    divide_signed(wide(low, high) as i128, wide(divisor_low, divisor_high) as i128).0
}

#[unsafe(no_mangle)]
extern "C" fn __modti3(low: u64, high: u64, divisor_low: u64, divisor_high: u64) -> i128 {
    divide_signed(wide(low, high) as i128, wide(divisor_low, divisor_high) as i128).1
}
