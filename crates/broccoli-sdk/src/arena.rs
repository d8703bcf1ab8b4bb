//! The memory of the guest: an arena that only grows during a call and is emptied between calls.
//!
//! It owns everything above `__heap_base`. The newest block can grow, shrink and be freed. Older blocks stay until
//! the reset. Wasm has one thread, so plain cells are enough.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::{arch::wasm32, ptr};

use crate::host::die;

const MEMORY: u32 = 0;
/// Memory grows by at least this, so that not every small block grows it.
const GROW_BYTES_MIN: usize = 4096;

unsafe extern "C" {
    /// The end of the linker's data and stack.
    static __heap_base: u8;
    /// The end of the initial memory.
    static __heap_end: u8;
}

struct Arena {
    /// End of the newest block; 0 before the first block.
    top: Cell<usize>,
    /// End of memory; 0 before the first block.
    end: Cell<usize>,
    /// log2 of the page size in bytes: 0 or 16, depending on how the module was linked.
    page_bits: Cell<u32>,
}

// SAFETY: a module has one thread.
unsafe impl Sync for Arena {}

#[global_allocator]
static ARENA: Arena = Arena { top: Cell::new(0), end: Cell::new(0), page_bits: Cell::new(0) };

impl Arena {
    fn reset(&self) {
        self.top.set((&raw const __heap_base).addr());
    }

    /// The place for a block, which becomes the newest block.
    fn place(&self, from: usize, size: usize, align: usize) -> usize {
        // Alignments are powers of two, and blocks of 2 GiB never get so far.
        let mask = align.wrapping_sub(1);
        let start = from.wrapping_add(mask) & !mask;
        let top = start.wrapping_add(size);
        if top > self.end.get() {
            self.grow(top);
        }
        self.top.set(top);
        start
    }

    #[cold]
    fn grow(&self, top: usize) {
        if self.end.get() == 0 {
            let end = (&raw const __heap_end).addr();
            self.end.set(end);
            self.page_bits.set(if wasm32::memory_size(MEMORY) == end { 0 } else { 16 });
            if top <= end {
                return;
            }
        }
        let bits = self.page_bits.get();
        let bytes = top.wrapping_sub(self.end.get()).max(GROW_BYTES_MIN);
        let page = 1usize.wrapping_shl(bits);
        let pages = bytes.wrapping_add(page.wrapping_sub(1)).wrapping_shr(bits);
        if wasm32::memory_grow(MEMORY, pages) == usize::MAX {
            die("out of memory", 0);
        }
        self.end.set(self.end.get().wrapping_add(pages.wrapping_shl(bits)));
    }

    fn is_newest(&self, block: *mut u8, layout: Layout) -> bool {
        block.addr().wrapping_add(layout.size()) == self.top.get()
    }
}

// SAFETY: blocks lie apart, aligned, above everything the linker placed, and inside memory,
// which `place` grows or else ends the task: it never returns null, which would drag in
// formatting.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.top.get() == 0 {
            self.reset();
        }
        ptr::with_exposed_provenance_mut(self.place(self.top.get(), layout.size(), layout.align()))
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.is_newest(block, layout) {
            self.top.set(block.addr());
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.is_newest(block, layout) {
            self.place(block.addr(), size, 1);
            return block;
        }
        if size <= layout.size() {
            return block;
        }
        let new = self.place(self.top.get(), size, layout.align());
        let new: *mut u8 = ptr::with_exposed_provenance_mut(new);
        // SAFETY: the old block has `layout.size()` bytes, the new one more, and they lie apart.
        unsafe { ptr::copy_nonoverlapping(block, new, layout.size()) };
        new
    }
}

/// Allocates memory for the arguments. Ends the task if there is none.
#[unsafe(no_mangle)]
extern "C" fn broccoli_alloc(len: usize) -> *mut u8 {
    match Layout::from_size_align(len, 8) {
        // SAFETY: the arena takes blocks of size zero, too.
        Ok(layout) => unsafe { ARENA.alloc(layout) },
        Err(_) => die("out of memory", 0),
    }
}

/// Frees every block of the last call.
#[unsafe(no_mangle)]
extern "C" fn broccoli_reset() {
    ARENA.reset();
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    // A text with arguments would need formatting, which is larger than most modules.
    let text = info.message().as_str().unwrap_or("text not available");
    die(text, info.location().map_or(0, core::panic::Location::line))
}
