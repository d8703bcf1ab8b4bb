//! Numbers: what the compiler or its library computes in software on a small core.

use core::hint::black_box;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, Ordering};

use alloc::format;

use crate::{Digest, Numbers};

const ROUNDS: usize = 200;

/// The same for each width.
macro_rules! integers {
    ($digest:ident, $unsigned:ty, $signed:ty, $next:ident) => {
        let mut numbers = Numbers::new();
        for _ in 0..ROUNDS {
            let (a, b) = (numbers.$next() as $unsigned, numbers.$next() as $unsigned);
            let (s, t) = (a as $signed, (b as $signed).wrapping_neg());
            let bits = numbers.u32() % <$unsigned>::BITS;
            $digest.value((a.wrapping_add(b), a.wrapping_sub(b), a.wrapping_mul(b), a.overflowing_mul(b)));
            $digest.value((a.checked_div(b), a.checked_rem(b), s.checked_div(t), s.checked_rem(t), s.wrapping_mul(t)));
            $digest.value((s.overflowing_add(t), s.overflowing_sub(t), s.overflowing_mul(t), s.checked_rem_euclid(t)));
            $digest.value((a << bits, a >> bits, s >> bits, a.rotate_left(bits), a.swap_bytes(), a.reverse_bits()));
            $digest.value((a.leading_zeros(), a.trailing_zeros(), a.count_ones(), a.abs_diff(b), s.unsigned_abs()));
            $digest.value((a < b, s < t, a.cmp(&b), s.cmp(&t), a.isqrt(), a.saturating_sub(b), s.saturating_mul(t)));
            let text = format!("{a} {s} {t:x} {b:o}");
            $digest.value((text.split(' ').next().map(str::parse::<$unsigned>), text.as_bytes().len()));
            $digest.bytes(text.as_bytes());
        }
    };
}

pub(crate) fn integers_32(digest: &mut Digest) {
    integers!(digest, u32, i32, u32);
}

pub(crate) fn integers_64(digest: &mut Digest) {
    integers!(digest, u64, i64, u64);
}

pub(crate) fn integers_128(digest: &mut Digest) {
    integers!(digest, u128, i128, u128);
}

/// The bits of a float. What is not a number may have any bits of these.
macro_rules! bits {
    ($float:expr) => {{
        let float = $float;
        if float.is_nan() { None } else { Some(float.to_bits()) }
    }};
}

macro_rules! floats {
    ($digest:ident, $next:ident) => {
        let mut numbers = Numbers::new();
        for _ in 0..2 * ROUNDS {
            let (a, b) = (numbers.$next(), numbers.$next());
            $digest.value((bits!(a + b), bits!(a - b), bits!(a * b), bits!(a / b), bits!(-a)));
            $digest.value((a < b, a <= b, a == b, a.partial_cmp(&b), a.total_cmp(&a), a.is_normal(), a.classify()));
            $digest.value((bits!(a.abs()), bits!(a.copysign(b)), bits!(a.recip())));
            // Of two zeros with different signs, either may be the larger one.
            if a != b {
                $digest.value((bits!(a.max(b)), bits!(a.min(b))));
            }
        }
        let mut sum = black_box(0.0);
        for round in 1..2_000 {
            sum += 1.0 / numbers.$next().clamp(round as _, 1e9);
            $digest.value(bits!(sum));
        }
    };
}

pub(crate) fn floats_32(digest: &mut Digest) {
    floats!(digest, f32);
}

pub(crate) fn floats_64(digest: &mut Digest) {
    floats!(digest, f64);
}

pub(crate) fn conversions(digest: &mut Digest) {
    let mut numbers = Numbers::new();
    for _ in 0..2 * ROUNDS {
        let (wide, narrow) = (numbers.f64(), numbers.f32());
        digest.value((wide as i8, wide as u16, wide as i32, wide as u32, wide as i64, wide as u64));
        digest.value((narrow as u8, narrow as i16, narrow as i32, narrow as u32, narrow as i64, narrow as u64));
        digest.value((wide as i128, wide as u128, narrow as i128, narrow as u128));
        digest.value((bits!(wide as f32), bits!(f64::from(narrow))));
        let (a, b, c) = (numbers.u32(), numbers.u64(), numbers.u128());
        digest.value((bits!(a as f32), bits!(a as i32 as f32), bits!(f64::from(a)), bits!(f64::from(a as i32))));
        digest.value((bits!(b as f32), bits!(b as i64 as f32), bits!(b as f64), bits!(b as i64 as f64)));
        digest.value((bits!(c as f32), bits!(c as i128 as f32), bits!(c as f64), bits!(c as i128 as f64)));
    }
}

pub(crate) fn floats_as_text(digest: &mut Digest) {
    let mut numbers = Numbers::new();
    for _ in 0..2 * ROUNDS {
        let (wide, narrow) = (numbers.f64(), numbers.f32());
        for text in [format!("{wide:?}"), format!("{wide:e}"), format!("{narrow}"), format!("{narrow:.3}")] {
            digest.bytes(text.as_bytes());
            digest.value((text.parse::<f64>().map(|read| bits!(read)), text.parse::<f32>().map(|read| bits!(read))));
        }
    }
}

/// Of all widths: those of a byte are parts of a word for many cores.
pub(crate) fn atomics(digest: &mut Digest) {
    let mut numbers = Numbers::new();
    let (flag, byte, half, word) = (AtomicBool::new(false), AtomicU8::new(1), AtomicU16::new(2), AtomicU32::new(3));
    let order = Ordering::SeqCst;
    for _ in 0..ROUNDS {
        let (a, b) = (numbers.u32(), numbers.u32());
        digest.value((flag.swap(a & 1 == 0, order), flag.fetch_xor(b & 1 == 0, order)));
        digest.value((byte.fetch_add(a as u8, order), byte.fetch_max(b as u8, order), byte.swap(a as u8 ^ 1, order)));
        digest.value((
            half.fetch_sub(a as u16, order),
            half.fetch_and(b as u16, order),
            half.fetch_or(a as u16, order),
        ));
        digest.value((word.fetch_add(a, order), word.fetch_min(b, order), word.fetch_nand(a, order)));
        let (old, other) = (word.load(order), numbers.u32());
        digest.value((
            word.compare_exchange(old, other, order, order),
            word.compare_exchange(old, a, order, order),
            byte.compare_exchange(a as u8 ^ 1, 7, order, order),
            half.compare_exchange(b as u16, 9, order, order),
        ));
    }
}
