//! The heap, the stack, their peaks, and the region with the settings.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::slice;
use core::sync::atomic::{AtomicUsize, Ordering};

use broccoli_embassy::Memory;
use embedded_alloc::LlffHeap;

use crate::machine;

/// A value that programs do not write by chance over a large area.
const UNUSED: u32 = 0xb50c_c011;
/// The part of the stack that [`init`] itself may use is not marked.
const STACK_MARGIN: usize = 512;

unsafe extern "C" {
    static _heap_size: u8;
    static _settings_start: u8;
    static _settings_size: u8;
    static _stack_start: u8;
}

#[global_allocator]
static HEAP: Heap = Heap { heap: LlffHeap::empty(), peak: AtomicUsize::new(0) };

/// A heap that records its peak.
struct Heap {
    heap: LlffHeap,
    peak: AtomicUsize,
}

// SAFETY: passes all calls to an allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        let allocated = unsafe { GlobalAlloc::alloc(&self.heap, layout) };
        self.peak.fetch_max(self.heap.used(), Ordering::Relaxed);
        allocated
    }

    unsafe fn dealloc(&self, allocated: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { GlobalAlloc::dealloc(&self.heap, allocated, layout) }
    }
}

/// Starts the heap, and marks the stack so that [`stack_peak`] can measure its use. Call it once, before anything else.
pub(crate) fn init() {
    let (start, size) = (machine::heap_start(), ptr::addr_of!(_heap_size) as usize);
    // SAFETY: the linker reserves this region for the heap, and this is the only call.
    unsafe { HEAP.heap.init(start, size) };
    let here = ptr::addr_of!(start) as usize;
    for at in (stack_end()..here - STACK_MARGIN).step_by(4) {
        // SAFETY: between the heap and the stack frames in use there is only unused stack.
        unsafe { ptr::write_volatile(at as *mut u32, UNUSED) };
    }
}

/// The state of the heap.
pub(crate) fn heap() -> Memory {
    let peak = HEAP.peak.load(Ordering::Relaxed);
    Memory { used: HEAP.heap.used(), peak, free: HEAP.heap.free() }
}

/// The largest part of the stack that was in use since the start, in bytes.
pub(crate) fn stack_peak() -> usize {
    let start = ptr::addr_of!(_stack_start) as usize;
    // SAFETY: aligned, and between the heap and the start of the stack.
    let is_unused = |at: &usize| unsafe { ptr::read_volatile(*at as *const u32) } == UNUSED;
    start - (stack_end()..start).step_by(4).find(|at| !is_unused(at)).unwrap_or(start)
}

/// The region with the settings.
pub(crate) fn settings() -> &'static [u8] {
    // SAFETY: the linker reserves this region. QEMU fills it before the start, and nothing writes to it.
    unsafe { slice::from_raw_parts(ptr::addr_of!(_settings_start), ptr::addr_of!(_settings_size) as usize) }
}

/// The lowest address of the stack, aligned.
fn stack_end() -> usize {
    (machine::heap_start() + ptr::addr_of!(_heap_size) as usize).next_multiple_of(4)
}
