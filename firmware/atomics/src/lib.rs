//! Atomic operations for a single RISC-V core without the A extension, such as that of the ESP32-C3.
//!
//! For such a core the compiler turns each atomic operation, except loads and stores, into a call of a function
//! `__sync_*`. These are the functions. An operation is atomic because interrupts are disabled during it, so they are
//! wrong on a chip with a second core.
//!
//! With the feature `rwtext` they are in RAM: other code of a chip in RAM calls them while the flash cannot be read.
#![cfg_attr(not(test), no_std)]
#![cfg(any(target_arch = "riscv32", test))]

#[cfg(target_arch = "riscv32")]
mod interrupts;
#[cfg(not(target_arch = "riscv32"))]
#[path = "tests/interrupts.rs"]
mod interrupts;
#[cfg(test)]
mod tests;

/// Defines functions `old = *place; *place = new; old`. What they call must be inlined, so that all is in RAM.
///
/// LLVM's conventions: the upper bits of arguments are unspecified, and the result is sign-extended, also for unsigned
/// integers. LLVM compares the whole result with the sign-extended expected value.
macro_rules! operations {
    ($int:ty, $signed:ty: $($name:ident($old:ident $(, $arg:ident)+) $new:expr;)*) => {$(
        /// # Safety
        /// `place` is aligned, valid for reads and writes, and only accessed by atomic operations of this core.
        #[cfg_attr(target_arch = "riscv32", unsafe(no_mangle))]
        #[cfg_attr(feature = "rwtext", unsafe(link_section = ".rwtext"))]
        unsafe extern "C" fn $name(place: *mut $int $(, $arg: u32)+) -> i32 {
            $(let $arg = $arg as $int;)+
            let enabled = interrupts::disable();
            // SAFETY: the caller promises that the place is valid. Nothing else runs while interrupts are disabled.
            let $old = unsafe { place.read_volatile() };
            // SAFETY: as above.
            unsafe { place.write_volatile($new) };
            interrupts::restore(enabled);
            $old as $signed as i32
        }
    )*};
}

/// All operations on integers of one size.
macro_rules! size {
    (
        $unsigned:ty, $signed:ty: $compare_and_swap:ident $swap:ident $add:ident $sub:ident $and:ident $or:ident
        $xor:ident $nand:ident $umax:ident $umin:ident $max:ident $min:ident
    ) => {
        operations! { $unsigned, $signed:
            // Writes the old value if it is not the expected one.
            $compare_and_swap(old, expected, new) if old == expected { new } else { old };
            $swap(old, new) new;
            $add(old, value) old.wrapping_add(value);
            $sub(old, value) old.wrapping_sub(value);
            $and(old, value) old & value;
            $or(old, value) old | value;
            $xor(old, value) old ^ value;
            $nand(old, value) !(old & value);
            $umax(old, value) if old > value { old } else { value };
            $umin(old, value) if old < value { old } else { value };
        }
        operations! { $signed, $signed:
            $max(old, value) if old > value { old } else { value };
            $min(old, value) if old < value { old } else { value };
        }
    };
}

size! { u8, i8:
    __sync_val_compare_and_swap_1 __sync_lock_test_and_set_1 __sync_fetch_and_add_1 __sync_fetch_and_sub_1
    __sync_fetch_and_and_1 __sync_fetch_and_or_1 __sync_fetch_and_xor_1 __sync_fetch_and_nand_1
    __sync_fetch_and_umax_1 __sync_fetch_and_umin_1 __sync_fetch_and_max_1 __sync_fetch_and_min_1
}

size! { u16, i16:
    __sync_val_compare_and_swap_2 __sync_lock_test_and_set_2 __sync_fetch_and_add_2 __sync_fetch_and_sub_2
    __sync_fetch_and_and_2 __sync_fetch_and_or_2 __sync_fetch_and_xor_2 __sync_fetch_and_nand_2
    __sync_fetch_and_umax_2 __sync_fetch_and_umin_2 __sync_fetch_and_max_2 __sync_fetch_and_min_2
}

size! { u32, i32:
    __sync_val_compare_and_swap_4 __sync_lock_test_and_set_4 __sync_fetch_and_add_4 __sync_fetch_and_sub_4
    __sync_fetch_and_and_4 __sync_fetch_and_or_4 __sync_fetch_and_xor_4 __sync_fetch_and_nand_4
    __sync_fetch_and_umax_4 __sync_fetch_and_umin_4 __sync_fetch_and_max_4 __sync_fetch_and_min_4
}
