//! The heap and the stack, how much of each was needed, and the region with the settings.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicUsize, Ordering};

use broccoli_embassy::Memory;
use embedded_alloc::LlffHeap;

/// What no program writes by chance over much memory.
const UNUSED: u32 = 0xb50c_c011;
/// The stack of [`init`] itself is not touched by it.
const STACK_MARGIN: usize = 512;

unsafe extern "C" {
    static _heap_size: u8;
    static _settings_start: u8;
    static _settings_size: u8;
    static _stack_start: u8;
}

#[global_allocator]
static HEAP: Heap = Heap { heap: LlffHeap::empty(), peak: AtomicUsize::new(0) };

/// A heap that remembers how full it was.
struct Heap {
    heap: LlffHeap,
    peak: AtomicUsize,
}

// SAFETY: hands everything on to an allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        let allocated = unsafe { GlobalAlloc::alloc(&self.heap, layout) };
        self.peak.fetch_max(self.heap.used(), Ordering::Relaxed);
        allocated
    }

    unsafe fn dealloc(&self, allocated: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { GlobalAlloc::dealloc(&self.heap, allocated, layout) }
    }
}

/// Makes the heap usable, and marks the stack so that [`stack_peak`] can tell what was used of it. Call it
/// once, before anything else.
pub(crate) fn init() {
    let (start, size) = (riscv_rt::heap_start() as usize, ptr::addr_of!(_heap_size) as usize);
    // SAFETY: the linker keeps this region for the heap, and this is the only call.
    unsafe { HEAP.heap.init(start, size) };
    let here = ptr::addr_of!(start) as usize;
    for at in (stack_end()..here - STACK_MARGIN).step_by(4) {
        // SAFETY: between the heap and the frames in use there is only unused stack.
        unsafe { ptr::write_volatile(at as *mut u32, UNUSED) };
    }
}

/// How the heap is.
pub(crate) fn heap() -> Memory {
    let peak = HEAP.peak.load(Ordering::Relaxed);
    Memory { used: HEAP.heap.used(), peak, free: HEAP.heap.free() }
}

/// Most bytes of the stack that were in use since the start.
pub(crate) fn stack_peak() -> usize {
    let start = ptr::addr_of!(_stack_start) as usize;
    // SAFETY: aligned, and between the heap and the start of the stack.
    let is_unused = |at: &usize| unsafe { ptr::read_volatile(*at as *const u32) } == UNUSED;
    start - (stack_end()..start).step_by(4).find(|at| !is_unused(at)).unwrap_or(start)
}

/// The region with the settings.
pub(crate) fn settings() -> &'static [u8] {
    // SAFETY: the linker keeps this region free; QEMU has filled it before the start, and nobody writes it.
    unsafe { slice::from_raw_parts(ptr::addr_of!(_settings_start), ptr::addr_of!(_settings_size) as usize) }
}

/// The lowest address of the stack, aligned.
fn stack_end() -> usize {
    (riscv_rt::heap_start() as usize + ptr::addr_of!(_heap_size) as usize).next_multiple_of(4)
}
