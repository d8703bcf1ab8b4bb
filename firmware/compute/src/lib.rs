//! A table of computations: does a compiler make code that computes the same as on another machine?
//!
//! Each row computes many values and prints one line: its name, and a digest of the values. Programs beside the firmware
//! run it on emulated cores, this crate's own program on the machine of the developer. `cargo xtask compute` compares the
//! lines. All inputs come from a generator with a fixed seed, and pass through `black_box`, so that no value is computed
//! by the compiler.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod arithmetic;
mod formats;
mod modules;

use core::fmt::{Arguments, Debug, Write};
use core::hint::black_box;

/// Adds the values of a row to its digest.
type Row = fn(&mut Digest);

/// The rows, by their names.
const ROWS: [(&str, Row); 16] = [
    ("32-bit integers", arithmetic::integers_32),
    ("64-bit integers", arithmetic::integers_64),
    ("128-bit integers", arithmetic::integers_128),
    ("floats of 32 bits", arithmetic::floats_32),
    ("floats of 64 bits", arithmetic::floats_64),
    ("conversions of floats", arithmetic::conversions),
    ("floats as text", arithmetic::floats_as_text),
    ("atomics", arithmetic::atomics),
    ("collections", formats::collections),
    ("CBOR", formats::cbor),
    ("SHA-256", formats::sha_256),
    ("ChaCha20-Poly1305", formats::chacha20_poly1305),
    ("ed25519", formats::ed25519),
    ("module tasks", modules::tasks),
    ("module types", modules::types),
    ("modules lights and flow", modules::lights_and_flow),
];

/// Computes all rows, and gives `print` a line for each as soon as it is there.
pub fn run(mut print: impl FnMut(Arguments<'_>)) {
    for (name, row) in ROWS {
        let mut digest = Digest::new();
        row(&mut digest);
        print(format_args!("{name}: {} values, {:08x}{:08x}", digest.values, digest.high, digest.low));
    }
}

/// A digest of values: two sums of 32 bits (FNV-1a, and one that depends on the order in another way). It uses simple
/// instructions only, so that an error in another row does not show here.
struct Digest {
    low: u32,
    high: u32,
    values: u32,
}

impl Digest {
    fn new() -> Digest {
        Digest { low: 0x811c_9dc5, high: 0, values: 0 }
    }

    /// Adds the bytes of a value.
    fn bytes(&mut self, bytes: &[u8]) {
        self.values += 1;
        for byte in bytes.iter().chain(&[0xff]) {
            self.low = (self.low ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
            self.high = self.high.rotate_left(5).wrapping_add(u32::from(*byte)) ^ self.low;
        }
    }

    /// Adds the text of a value, as `Debug` writes it.
    fn value(&mut self, value: impl Debug) {
        struct Bytes<'a>(&'a mut Digest);
        impl Write for Bytes<'_> {
            fn write_str(&mut self, text: &str) -> core::fmt::Result {
                self.0.bytes(text.as_bytes());
                self.0.values -= 1;
                Ok(())
            }
        }
        // Writing to a digest never fails.
        let _ = write!(Bytes(self), "{value:?}");
        self.bytes(b"");
    }
}

/// Numbers that look random (xorshift), the same each time. Some are special.
struct Numbers(u32);

impl Numbers {
    fn new() -> Numbers {
        Numbers(0x2545_f491)
    }

    fn u32(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        black_box(self.0)
    }

    /// With 1 to 64 bits, so that small numbers are among them.
    fn u64(&mut self) -> u64 {
        let (high, low, bits) = (self.u32(), self.u32(), self.u32() % 64);
        (u64::from(high) << 32 | u64::from(low)) >> bits
    }

    fn u128(&mut self) -> u128 {
        let (high, low, bits) = (self.u64(), self.u64(), self.u32() % 128);
        (u128::from(high) << 64 | u128::from(low)) >> bits
    }

    /// Any bits: also infinities, subnormal numbers, and what is not a number.
    fn f64(&mut self) -> f64 {
        const SPECIAL: [f64; 8] = [0.0, -0.0, 1.0, f64::INFINITY, f64::NAN, f64::MIN_POSITIVE, f64::MAX, 0.1];
        match self.u32() % 16 {
            special @ 0..8 => black_box(SPECIAL[special as usize]),
            8..12 => f64::from(self.u32() as i32) / 1024.0,
            _ => f64::from_bits(u64::from(self.u32()) << 32 | u64::from(self.u32())),
        }
    }

    fn f32(&mut self) -> f32 {
        const SPECIAL: [f32; 8] = [0.0, -0.0, 1.0, f32::INFINITY, f32::NAN, f32::MIN_POSITIVE, f32::MAX, 0.1];
        match self.u32() % 16 {
            special @ 0..8 => black_box(SPECIAL[special as usize]),
            8..12 => self.u32() as i32 as f32 / 1024.0,
            _ => f32::from_bits(self.u32()),
        }
    }

    fn fill<const N: usize>(&mut self) -> [u8; N] {
        core::array::from_fn(|_| self.u32() as u8)
    }
}
