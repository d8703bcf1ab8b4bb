//! The virtio devices of the machine: finding them, memory for their queues, random numbers.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Addresses and interrupts of the device slots, which are contiguous.
const SLOTS: usize = 8;
const FIRST_SLOT: usize = 0x1000_1000;
const SLOT_BYTES: usize = 0x1000;
const FIRST_INTERRUPT: usize = 1;
/// Two pages for each of three queues: receive, transmit, and random numbers.
const PAGES: usize = 6;

/// The devices that a node needs. `None` if a device is missing.
pub(crate) struct Devices {
    pub(crate) random: Option<Random>,
    pub(crate) network: Option<Network>,
}

/// The network device, before it is started.
pub(crate) struct Network {
    pub(crate) transport: MmioTransport<'static>,
    /// Address of its registers.
    pub(crate) address: usize,
    /// Number of its interrupt.
    pub(crate) interrupt: usize,
}

pub(crate) type Random = VirtIORng<Pages, MmioTransport<'static>>;

/// Searches for the devices.
pub(crate) fn find() -> Devices {
    let mut devices = Devices { random: None, network: None };
    for slot in 0..SLOTS {
        let address = FIRST_SLOT + slot * SLOT_BYTES;
        let Some(header) = NonNull::new(address as *mut VirtIOHeader) else { continue };
        // SAFETY: the machine has a slot there, and nothing else uses it. An empty slot is an error.
        let Ok(transport) = (unsafe { MmioTransport::new(header, SLOT_BYTES) }) else { continue };
        match transport.device_type() {
            DeviceType::EntropySource => devices.random = Random::new(transport).ok(),
            DeviceType::Network => {
                devices.network = Some(Network { transport, address, interrupt: FIRST_INTERRUPT + slot });
            }
            _ => {}
        }
    }
    devices
}

/// Random bytes from the host.
///
/// # Errors
/// The device returns nothing.
pub(crate) fn random<const N: usize>(source: &mut Random) -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    let mut got = 0;
    while got < N {
        match source.request_entropy(&mut bytes[got..]) {
            Ok(more @ 1..) => got += more,
            _ => return Err("the random source gives nothing"),
        }
    }
    Ok(bytes)
}

/// Memory for the queues. Allocated at the start, and never freed.
pub(crate) struct Pages;

#[repr(align(4096))]
struct Memory(UnsafeCell<[u8; PAGES * PAGE_SIZE]>);

// SAFETY: each page is used only by the one that it was given to.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; PAGES * PAGE_SIZE]));
static TAKEN: AtomicUsize = AtomicUsize::new(0);

// SAFETY: pages are aligned, zeroed, and handed out once; there is no other address space.
unsafe impl Hal for Pages {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = TAKEN.fetch_add(pages, Ordering::Relaxed);
        assert!(first + pages <= PAGES, "more queues than there is memory for");
        let start = MEMORY.0.get().cast::<u8>().wrapping_add(first * PAGE_SIZE);
        (start as PhysAddr, NonNull::new(start).expect("memory is not at address 0"))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        // The pages of an unused device are not freed.
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as *mut u8).expect("no device is at address 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
