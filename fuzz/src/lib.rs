//! Code that the fuzz targets share: mutations that keep the structure of their input.
//!
//! Each target is a file in `fuzz_targets`. Nothing here checks anything.
#![forbid(unsafe_code)]

mod cbor;
mod random;

pub use cbor::mutate_cbor;
pub use random::Random;

/// Copies `new` into the buffer of a custom mutator. `None` if it is too long or empty.
pub fn replace(data: &mut [u8], size_max: usize, new: &[u8]) -> Option<usize> {
    if new.is_empty() || new.len() > size_max {
        return None;
    }
    data[..new.len()].copy_from_slice(new);
    Some(new.len())
}
