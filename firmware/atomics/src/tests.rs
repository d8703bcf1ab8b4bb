//! The functions do what the atomics of this machine do. `cargo xtask guests` tests them on a core, with interrupts.

use super::*;
use crate::interrupts::{state, with};
use std::sync::atomic::{AtomicI8, AtomicI16, AtomicI32, AtomicU8, AtomicU16, AtomicU32, Ordering::SeqCst};

/// Bits that an argument may have above those of a small integer.
const UPPER: [u32; 2] = [0, u32::MAX];

/// Compares operations with those of an atomic of this machine: results, and what is in memory afterwards.
macro_rules! same {
    ($int:ty, $signed:ty, $atomic:ident: $($name:ident $method:ident;)*) => {$(
        for old in values() {
            for value in values() {
                for upper in UPPER {
                    let (expected, mut place) = ($atomic::new(old as $int), old as $int);
                    let seen = expected.$method(value as $int, SeqCst);
                    let argument = value as $int as u32 & mask::<$int>() | upper & !mask::<$int>();
                    let counted = state().1;
                    // SAFETY: a local variable.
                    let returned = unsafe { $name(&raw mut place, argument) };
                    let case = (stringify!($name), old, value, upper);
                    assert_eq!((returned, place), (seen as $signed as i32, expected.into_inner()), "{case:?}");
                    assert_eq!(state(), (true, counted + 1), "{case:?}");
                }
            }
        }
    )*};
}

/// Compares compare-and-swap with that of an atomic of this machine.
macro_rules! same_swap {
    ($($int:ty, $signed:ty, $atomic:ident: $name:ident;)*) => {$(
        for old in values() {
            for expected in values() {
                for upper in UPPER {
                    let new = !old ^ expected;
                    let (atomic, mut place) = ($atomic::new(old as $int), old as $int);
                    let (Ok(seen) | Err(seen)) =
                        atomic.compare_exchange(expected as $int, new as $int, SeqCst, SeqCst);
                    let with_upper = |value: i64| value as $int as u32 | upper & !mask::<$int>();
                    // SAFETY: a local variable.
                    let returned = unsafe { $name(&raw mut place, with_upper(expected), with_upper(new)) };
                    let case = (stringify!($name), old, expected, upper);
                    assert_eq!((returned, place), (seen as $signed as i32, atomic.into_inner()), "{case:?}");
                }
            }
        }
    )*};
}

/// The bits of a 32-bit argument that belong to the integer.
fn mask<T>() -> u32 {
    u32::MAX >> (32 - 8 * size_of::<T>())
}

/// Small values, and those at which an integer of some size is at its limits or changes its sign.
fn values() -> Vec<i64> {
    let limits = [0, 7, 8, 15, 16, 31, 32].map(|bits| 1_i64 << bits);
    let around = limits.iter().flat_map(|limit| [limit - 1, *limit, -limit, limit + 1, -limit - 1]);
    around.chain([0x5a, 0xa5a5, 0x1234_5678, 0xdead_beef]).collect()
}

#[test]
fn operations_on_bytes_are_those_of_this_machine() {
    same! { u8, i8, AtomicU8:
        __sync_lock_test_and_set_1 swap; __sync_fetch_and_add_1 fetch_add; __sync_fetch_and_sub_1 fetch_sub;
        __sync_fetch_and_and_1 fetch_and; __sync_fetch_and_or_1 fetch_or; __sync_fetch_and_xor_1 fetch_xor;
        __sync_fetch_and_nand_1 fetch_nand; __sync_fetch_and_umax_1 fetch_max; __sync_fetch_and_umin_1 fetch_min;
    }
    same! { i8, i8, AtomicI8: __sync_fetch_and_max_1 fetch_max; __sync_fetch_and_min_1 fetch_min; }
}

#[test]
fn operations_on_half_words_are_those_of_this_machine() {
    same! { u16, i16, AtomicU16:
        __sync_lock_test_and_set_2 swap; __sync_fetch_and_add_2 fetch_add; __sync_fetch_and_sub_2 fetch_sub;
        __sync_fetch_and_and_2 fetch_and; __sync_fetch_and_or_2 fetch_or; __sync_fetch_and_xor_2 fetch_xor;
        __sync_fetch_and_nand_2 fetch_nand; __sync_fetch_and_umax_2 fetch_max; __sync_fetch_and_umin_2 fetch_min;
    }
    same! { i16, i16, AtomicI16: __sync_fetch_and_max_2 fetch_max; __sync_fetch_and_min_2 fetch_min; }
}

#[test]
fn operations_on_words_are_those_of_this_machine() {
    same! { u32, i32, AtomicU32:
        __sync_lock_test_and_set_4 swap; __sync_fetch_and_add_4 fetch_add; __sync_fetch_and_sub_4 fetch_sub;
        __sync_fetch_and_and_4 fetch_and; __sync_fetch_and_or_4 fetch_or; __sync_fetch_and_xor_4 fetch_xor;
        __sync_fetch_and_nand_4 fetch_nand; __sync_fetch_and_umax_4 fetch_max; __sync_fetch_and_umin_4 fetch_min;
    }
    same! { i32, i32, AtomicI32: __sync_fetch_and_max_4 fetch_max; __sync_fetch_and_min_4 fetch_min; }
}

#[test]
fn compare_and_swap_is_that_of_this_machine() {
    same_swap! {
        u8, i8, AtomicU8: __sync_val_compare_and_swap_1;
        u16, i16, AtomicU16: __sync_val_compare_and_swap_2;
        u32, i32, AtomicU32: __sync_val_compare_and_swap_4;
    }
}

#[test]
fn interrupts_that_were_disabled_stay_disabled() {
    with(false, || {
        let (mut place, counted) = (1_u32, state().1);
        // SAFETY: a local variable.
        assert_eq!(unsafe { __sync_fetch_and_add_4(&raw mut place, 1) }, 1);
        assert_eq!((place, state()), (2, (false, counted + 1)));
    });
}
