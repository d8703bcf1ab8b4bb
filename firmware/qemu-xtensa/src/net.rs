//! OpenCores Ethernet as a driver of embassy-net: one buffer to send, a few to receive, woken by its interrupt.
//!
//! A descriptor says whether its buffer belongs to the device or to this driver.

use core::cell::UnsafeCell;
use core::slice;
use core::sync::atomic::{Ordering, compiler_fence};
use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};

use crate::interrupts::NETWORK;

/// Registers, of one word each.
const REGISTERS: *mut u32 = 0xfd03_0000 as *mut u32;
const MODE: usize = 0;
const INTERRUPT_SOURCE: usize = 1;
const INTERRUPT_MASK: usize = 2;
const SEND_DESCRIPTORS: usize = 8;
const ADDRESS_LOW: usize = 16;
const ADDRESS_HIGH: usize = 17;
/// Bits of [`MODE`]: reset; pad short frames, receive, send.
const MODE_RESET: u32 = 1 << 11;
const MODE_ON: u32 = 1 << 15 | 1 << 1 | 1;
/// Interrupts: a frame was sent, or received; or one was lost, because no buffer was free.
const INTERRUPTS: u32 = 1 | 1 << 2 | 1 << 4;

/// Descriptors, of two words each: flags with the length, and the address of the buffer. The first one sends.
const DESCRIPTORS: *mut u32 = 0xfd03_0400 as *mut u32;
const SEND: usize = 0;
/// The device has the buffer, to send it or to fill it.
const IS_DEVICES: u32 = 1 << 15;
const INTERRUPTS_AFTER: u32 = 1 << 14;
/// The next descriptor is the first one.
const IS_LAST: u32 = 1 << 13;
/// Pad a short frame, and append its checksum.
const PAD_AND_SUM: u32 = 1 << 12 | 1 << 11;
const LENGTH_SHIFT: u32 = 16;
/// The length of a received frame includes its checksum.
const SUM_BYTES: usize = 4;

/// Buffers to receive: enough for a full TCP window and a little more. What finds none is lost.
const RECEIVE_BUFFERS: usize = 7;
/// Bytes of a buffer: a whole frame with its checksum, in words.
const BUFFER_BYTES: usize = 1_536;
const FRAME_BYTES: usize = 1_514;
/// An address that is not assigned to a vendor. Each guest has a network of its own.
const ADDRESS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

#[repr(align(4))]
struct Buffers(UnsafeCell<[[u8; BUFFER_BYTES]; 1 + RECEIVE_BUFFERS]>);

// SAFETY: each buffer is used only by the device or by the one token for it.
unsafe impl Sync for Buffers {}

/// One for each descriptor.
static BUFFERS: Buffers = Buffers(UnsafeCell::new([[0; BUFFER_BYTES]; 1 + RECEIVE_BUFFERS]));

/// The network device.
pub(crate) struct Net {
    /// The descriptor that the device fills next.
    next: usize,
}

impl Net {
    /// Starts the network. Call it once.
    pub(crate) fn new() -> Net {
        set(MODE, MODE_RESET);
        set(MODE, 0);
        set(SEND_DESCRIPTORS, 1);
        let [first, second, low @ ..] = ADDRESS;
        set(ADDRESS_LOW, u32::from_be_bytes(low));
        set(ADDRESS_HIGH, u32::from_be_bytes([0, 0, first, second]));
        (SEND + 1..=RECEIVE_BUFFERS).for_each(receive_into);
        set(INTERRUPT_MASK, INTERRUPTS);
        set(MODE, MODE_ON);
        Net { next: SEND + 1 }
    }
}

fn set(register: usize, value: u32) {
    // SAFETY: registers that always exist, aligned.
    unsafe { REGISTERS.add(register).write_volatile(value) };
}

/// Acknowledges the interrupt of the device.
pub(crate) fn acknowledge() {
    // SAFETY: as above. Writing a bit clears it.
    unsafe {
        let source = REGISTERS.add(INTERRUPT_SOURCE);
        source.write_volatile(source.read_volatile());
    }
}

/// The flags of a descriptor.
fn flags(descriptor: usize) -> u32 {
    // SAFETY: the device has 128 descriptors.
    let flags = unsafe { DESCRIPTORS.add(2 * descriptor).read_volatile() };
    // What the device has written is read only afterwards.
    compiler_fence(Ordering::Acquire);
    flags
}

/// Gives a buffer to the device.
fn give(descriptor: usize, flags: u32) {
    // What it reads is written before.
    compiler_fence(Ordering::Release);
    // SAFETY: as above. The device gets the buffer with the flags, which are written last.
    unsafe {
        DESCRIPTORS.add(2 * descriptor + 1).write_volatile(buffer(descriptor) as u32);
        DESCRIPTORS.add(2 * descriptor).write_volatile(flags | IS_DEVICES | INTERRUPTS_AFTER);
    }
}

fn receive_into(descriptor: usize) {
    give(descriptor, if descriptor == RECEIVE_BUFFERS { IS_LAST } else { 0 });
}

fn buffer(descriptor: usize) -> *mut u8 {
    assert!(descriptor <= RECEIVE_BUFFERS);
    BUFFERS.0.get().cast::<u8>().wrapping_add(descriptor * BUFFER_BYTES)
}

fn is_mine(descriptor: usize) -> bool {
    flags(descriptor) & IS_DEVICES == 0
}

impl Driver for Net {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Rx<'_>, Tx)> {
        NETWORK.register(cx.waker());
        (is_mine(self.next) && is_mine(SEND)).then_some((Rx(&mut self.next), Tx(())))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Tx> {
        NETWORK.register(cx.waker());
        is_mine(SEND).then_some(Tx(()))
    }

    fn link_state(&mut self, cx: &mut Context<'_>) -> LinkState {
        NETWORK.register(cx.waker());
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities.max_burst_size = Some(RECEIVE_BUFFERS);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(ADDRESS)
    }
}

/// A received frame, in the buffer of this descriptor.
pub(crate) struct Rx<'a>(&'a mut usize);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        let descriptor = *self.0;
        let len = (flags(descriptor) >> LENGTH_SHIFT) as usize;
        let len = len.saturating_sub(SUM_BYTES).min(BUFFER_BYTES);
        // SAFETY: the descriptor is not the device's, and the token is the only one for it.
        let result = read(unsafe { slice::from_raw_parts_mut(buffer(descriptor), len) });
        receive_into(descriptor);
        *self.0 = if descriptor == RECEIVE_BUFFERS { SEND + 1 } else { descriptor + 1 };
        result
    }
}

/// The buffer to send.
pub(crate) struct Tx(());

impl TxToken for Tx {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        assert!(len <= BUFFER_BYTES);
        // SAFETY: the descriptor is not the device's. A second token for it may exist, but only one of them runs, because
        // running it borrows the device or its token mutably.
        let result = write(unsafe { slice::from_raw_parts_mut(buffer(SEND), len) });
        give(SEND, (len as u32) << LENGTH_SHIFT | IS_LAST | PAD_AND_SUM);
        result
    }
}
