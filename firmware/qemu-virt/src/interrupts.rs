//! The interrupt of the network device, through the interrupt controller.

use embassy_sync::waitqueue::AtomicWaker;
use riscv::interrupt::Interrupt;
use riscv::register::{mie, mstatus};

/// The interrupt controller (PLIC) and the registers of its context 0: machine mode of the one core.
const PLIC_PRIORITY: *mut u32 = 0x0c00_0000 as *mut u32;
const PLIC_ENABLE: *mut u32 = 0x0c00_2000 as *mut u32;
const PLIC_THRESHOLD: *mut u32 = 0x0c20_0000 as *mut u32;
const PLIC_CLAIM: *mut u32 = 0x0c20_0004 as *mut u32;

/// Woken by the interrupt of the network device.
pub(crate) static NETWORK: AtomicWaker = AtomicWaker::new();

/// Enables the interrupt of the network device, and all others that are configured.
pub(crate) fn enable(number: usize) {
    // SAFETY: registers that always exist, for a number below 32. The handler is set.
    unsafe {
        PLIC_PRIORITY.add(number).write_volatile(1);
        PLIC_ENABLE.write_volatile(1 << number);
        PLIC_THRESHOLD.write_volatile(0);
        mie::set_mext();
        mstatus::set_mie();
    }
}

#[riscv_rt::core_interrupt(Interrupt::MachineExternal)]
fn on_interrupt() {
    // SAFETY: a register that always exists.
    let number = unsafe { PLIC_CLAIM.read_volatile() };
    if number == 0 {
        return;
    }
    crate::net::acknowledge();
    NETWORK.wake();
    // SAFETY: as above.
    unsafe { PLIC_CLAIM.write_volatile(number) };
}
