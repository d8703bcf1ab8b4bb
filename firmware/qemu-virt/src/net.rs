//! The virtio network device as a driver of embassy-net: a few buffers in each direction, woken by its interrupt.

use core::cell::RefCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use static_cell::ConstStaticCell;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::MmioTransport;

use crate::interrupts::NETWORK;
use crate::virtio::{Network, Pages};

/// Buffers in each direction: enough for a full TCP window and a little more.
const BUFFERS: usize = 4;
/// Bytes of a buffer: an Ethernet frame and virtio's header. The driver accepts no less.
const BUFFER_BYTES: usize = 1_528;
/// Whole frames, because there is no checksum offload.
const FRAME_BYTES: usize = 1_514;

/// Offsets of the interrupt registers of a device.
const INTERRUPT_STATUS: usize = 0x60;
const INTERRUPT_ACK: usize = 0x64;

type Buffer = [u8; BUFFER_BYTES];
type Device = VirtIONetRaw<Pages, MmioTransport<'static>, BUFFERS>;

/// Address of the device for [`acknowledge`].
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// The network device.
pub(crate) struct Net {
    /// In a cell, because tokens for both directions exist at the same time.
    inner: RefCell<Inner>,
}

struct Inner {
    device: Device,
    /// Buffers that the device fills, by token.
    receiving: [Option<&'static mut Buffer>; BUFFERS],
    /// Buffers that the device sends, by token.
    sending: [Option<&'static mut Buffer>; BUFFERS],
    free: [Option<&'static mut Buffer>; BUFFERS],
}

impl Net {
    /// Starts the network.
    ///
    /// # Errors
    /// The device cannot be used.
    pub(crate) fn new(network: Network) -> Result<Net, &'static str> {
        let Network { transport, address, .. } = network;
        // Allocated as zeros, so they are never on the stack.
        static MEMORY: ConstStaticCell<[Buffer; 2 * BUFFERS]> = ConstStaticCell::new([[0; BUFFER_BYTES]; 2 * BUFFERS]);
        let mut buffers = MEMORY.take().iter_mut();
        let device = Device::new(transport).map_err(|_| "the network cannot be used")?;
        let none = || [const { None }; BUFFERS];
        let mut inner = Inner { device, receiving: none(), sending: none(), free: none() };
        buffers.by_ref().take(BUFFERS).for_each(|buffer| inner.receive_into(buffer));
        inner.free.iter_mut().zip(buffers).for_each(|(free, buffer)| *free = Some(buffer));
        ADDRESS.store(address, Ordering::Release);
        Ok(Net { inner: RefCell::new(inner) })
    }
}

/// Acknowledges the interrupt of the device.
pub(crate) fn acknowledge() {
    let address = ADDRESS.load(Ordering::Acquire);
    if address != 0 {
        // SAFETY: registers of this device, which nothing else uses.
        unsafe {
            let status = ((address + INTERRUPT_STATUS) as *const u32).read_volatile();
            ((address + INTERRUPT_ACK) as *mut u32).write_volatile(status);
        }
    }
}

impl Inner {
    /// Gives the device a buffer to fill.
    fn receive_into(&mut self, buffer: &'static mut Buffer) {
        // SAFETY: nothing touches the buffer before `received` takes it back.
        let token = unsafe { self.device.receive_begin(buffer) }.expect("there are as many descriptors as buffers");
        self.receiving[usize::from(token)] = Some(buffer);
    }

    /// A received frame: the buffer, and the range in it.
    fn received(&mut self) -> Option<(&'static mut Buffer, usize, usize)> {
        let token = self.device.poll_receive()?;
        let buffer = self.receiving[usize::from(token)].take()?;
        // SAFETY: the same buffer that the device got with this token.
        let (start, len) = unsafe { self.device.receive_complete(token, buffer) }.ok()?;
        Some((buffer, start, start + len))
    }

    /// Takes back the buffers of sent frames.
    fn reclaim(&mut self) {
        while let Some(token) = self.device.poll_transmit() {
            let Some(buffer) = self.sending[usize::from(token)].take() else { return };
            // SAFETY: the same buffer that the device got with this token, with the same length.
            let _ = unsafe { self.device.transmit_complete(token, &buffer[..]) };
            if let Some(free) = self.free.iter_mut().find(|free| free.is_none()) {
                *free = Some(buffer);
            }
        }
    }

    fn can_send(&self) -> bool {
        self.free.iter().any(Option::is_some)
    }
}

impl Driver for Net {
    type RxToken<'a> = Rx<'a>;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, cx: &mut Context<'_>) -> Option<(Rx<'_>, Tx<'_>)> {
        NETWORK.register(cx.waker());
        let inner = self.inner.get_mut();
        inner.reclaim();
        let has_frame = inner.device.poll_receive().is_some();
        (has_frame && inner.can_send()).then_some((Rx(&self.inner), Tx(&self.inner)))
    }

    fn transmit(&mut self, cx: &mut Context<'_>) -> Option<Tx<'_>> {
        NETWORK.register(cx.waker());
        let inner = self.inner.get_mut();
        inner.reclaim();
        inner.can_send().then_some(Tx(&self.inner))
    }

    fn link_state(&mut self, cx: &mut Context<'_>) -> LinkState {
        NETWORK.register(cx.waker());
        LinkState::Up
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.max_transmission_unit = FRAME_BYTES;
        capabilities.max_burst_size = Some(BUFFERS);
        capabilities
    }

    fn hardware_address(&self) -> HardwareAddress {
        HardwareAddress::Ethernet(self.inner.borrow().device.mac_address())
    }
}

/// A received frame.
pub(crate) struct Rx<'a>(&'a RefCell<Inner>);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        let received = self.0.borrow_mut().received();
        // An invalid frame of the device counts as an empty one.
        let Some((buffer, start, end)) = received else { return read(&mut []) };
        let result = read(&mut buffer[start..end]);
        self.0.borrow_mut().receive_into(buffer);
        result
    }
}

/// A buffer for a frame to send.
pub(crate) struct Tx<'a>(&'a RefCell<Inner>);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let taken = self.0.borrow_mut().free.iter_mut().find_map(Option::take);
        let buffer = taken.expect("a token is given out only if there is a buffer");
        let inner = &mut *self.0.borrow_mut();
        let start = inner.device.fill_buffer_header(buffer).expect("a buffer has room for the header");
        let result = write(&mut buffer[start..start + len]);
        // SAFETY: nothing touches the buffer before `reclaim` takes it back.
        match unsafe { inner.device.transmit_begin(&buffer[..start + len]) } {
            Ok(token) => inner.sending[usize::from(token)] = Some(buffer),
            Err(_) => unreachable!("there are as many descriptors as buffers"),
        }
        result
    }
}
