//! The virtio network as embassy-net wants it: a few buffers each way, woken by its interrupt.

use core::cell::RefCell;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Context;

use embassy_net_driver::{Capabilities, Driver, HardwareAddress, LinkState, RxToken, TxToken};
use static_cell::ConstStaticCell;
use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::transport::mmio::MmioTransport;

use crate::interrupts::NETWORK;
use crate::virtio::{Network, Pages};

/// Buffers each way: a full TCP window and a little more.
const BUFFERS: usize = 4;
/// An Ethernet frame and virtio's header, which is the least that the driver takes.
const BUFFER_BYTES: usize = 1_528;
/// Without checksum offload, so whole frames.
const FRAME_BYTES: usize = 1_514;

/// Registers of a device for its interrupts.
const INTERRUPT_STATUS: usize = 0x60;
const INTERRUPT_ACK: usize = 0x64;

type Buffer = [u8; BUFFER_BYTES];
type Device = VirtIONetRaw<Pages, MmioTransport<'static>, BUFFERS>;

/// Where the device is that [`acknowledge`] is for.
static ADDRESS: AtomicUsize = AtomicUsize::new(0);

/// The network.
pub(crate) struct Net {
    /// Tokens for both ways are out at the same time.
    inner: RefCell<Inner>,
}

struct Inner {
    device: Device,
    /// What the device fills, by its token.
    receiving: [Option<&'static mut Buffer>; BUFFERS],
    /// What the device sends, by its token.
    sending: [Option<&'static mut Buffer>; BUFFERS],
    free: [Option<&'static mut Buffer>; BUFFERS],
}

impl Net {
    /// Starts the network.
    ///
    /// # Errors
    /// If the device cannot be used.
    pub(crate) fn new(network: Network) -> Result<Net, &'static str> {
        let Network { transport, address, .. } = network;
        // Zeros from the start: they never lie on the stack.
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

/// Takes back the device's interrupt.
pub(crate) fn acknowledge() {
    let address = ADDRESS.load(Ordering::Acquire);
    if address != 0 {
        // SAFETY: registers of the device there, which nobody else uses.
        unsafe {
            let status = ((address + INTERRUPT_STATUS) as *const u32).read_volatile();
            ((address + INTERRUPT_ACK) as *mut u32).write_volatile(status);
        }
    }
}

impl Inner {
    /// Has the device fill a buffer.
    fn receive_into(&mut self, buffer: &'static mut Buffer) {
        // SAFETY: nobody touches the buffer before `received` takes it out.
        let token = unsafe { self.device.receive_begin(buffer) }.expect("there are as many descriptors as buffers");
        self.receiving[usize::from(token)] = Some(buffer);
    }

    /// A frame that has come: the buffer, and where in it.
    fn received(&mut self) -> Option<(&'static mut Buffer, usize, usize)> {
        let token = self.device.poll_receive()?;
        let buffer = self.receiving[usize::from(token)].take()?;
        // SAFETY: the buffer that was given to the device for this token.
        let (start, len) = unsafe { self.device.receive_complete(token, buffer) }.ok()?;
        Some((buffer, start, start + len))
    }

    /// Takes back what was sent.
    fn reclaim(&mut self) {
        while let Some(token) = self.device.poll_transmit() {
            let Some(buffer) = self.sending[usize::from(token)].take() else { return };
            // SAFETY: the buffer that was given to the device for this token, in its whole length.
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

/// A frame that has come.
pub(crate) struct Rx<'a>(&'a RefCell<Inner>);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, read: F) -> R {
        let received = self.0.borrow_mut().received();
        // A frame of the device that is no frame is an empty one.
        let Some((buffer, start, end)) = received else { return read(&mut []) };
        let result = read(&mut buffer[start..end]);
        self.0.borrow_mut().receive_into(buffer);
        result
    }
}

/// Room for a frame to be sent.
pub(crate) struct Tx<'a>(&'a RefCell<Inner>);

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let taken = self.0.borrow_mut().free.iter_mut().find_map(Option::take);
        let buffer = taken.expect("a token is given out only if there is a buffer");
        let inner = &mut *self.0.borrow_mut();
        let start = inner.device.fill_buffer_header(buffer).expect("a buffer has room for the header");
        let result = write(&mut buffer[start..start + len]);
        // SAFETY: nobody touches the buffer before `reclaim` takes it out.
        match unsafe { inner.device.transmit_begin(&buffer[..start + len]) } {
            Ok(token) => inner.sending[usize::from(token)] = Some(buffer),
            Err(_) => unreachable!("there are as many descriptors as buffers"),
        }
        result
    }
}
