//! Other parts of the machine: UART, random numbers of the host, exit and reset.

use core::arch::asm;
use core::ptr;

use embassy_time::{Duration, Instant};

const UART: *mut u32 = 0xfd05_0020 as *mut u32;
const UART_STATUS: *const u32 = 0xfd05_0034 as *const u32;
const UART_IDLE: u32 = 0x20;
/// Resets the machine when the value is written.
const RESET: *mut u32 = 0xfd02_0010 as *mut u32;
const RESET_VALUE: u32 = 0xdead;

/// Calls of the host: the numbers of newlib's simulator, which QEMU serves with `-semihosting`.
const HOST_EXIT: u32 = 1;
const HOST_READ: u32 = 3;
const HOST_OPEN: u32 = 5;
const HOST_CLOSE: u32 = 6;

/// Calls the host. Without `-semihosting` it does nothing, and returns `number`.
///
/// # Safety
/// Pointers among the arguments are valid for what the call does with them.
unsafe fn host(number: u32, first: u32, second: u32, third: u32) -> u32 {
    let result;
    // SAFETY: as the caller promises. The instruction is `simcall`, which this assembler does not know by name.
    unsafe {
        asm!(
            ".byte 0x00, 0x51, 0x00",
            inlateout("a2") number => result,
            inlateout("a3") first => _,
            in("a4") second,
            in("a5") third,
        );
    }
    result
}

/// Random bytes from the host.
///
/// # Errors
/// The host gives none.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], &'static str> {
    let mut bytes = [0; N];
    // SAFETY: the name ends with a zero, and the buffer has N bytes.
    let got = unsafe {
        let file = host(HOST_OPEN, c"/dev/urandom".as_ptr() as u32, 0, 0);
        let got = host(HOST_READ, file, ptr::addr_of_mut!(bytes) as u32, N as u32);
        host(HOST_CLOSE, file, 0, 0);
        got
    };
    if got == N as u32 {
        Ok(bytes)
    } else {
        Err("there is no random source: start QEMU with -semihosting on a host with /dev/urandom")
    }
}

/// Writes a byte to the UART.
pub(crate) fn put(byte: u8) {
    // SAFETY: registers that always exist, aligned.
    unsafe {
        while UART_STATUS.read_volatile() & UART_IDLE == 0 {}
        UART.write_volatile(byte.into());
    }
}

/// Waits, also when interrupts are off.
pub(crate) fn pause_ms(time: u64) {
    let end = Instant::now() + Duration::from_millis(time);
    while Instant::now() < end {}
}

/// The lowest address behind the statics, where the heap starts.
pub(crate) fn heap_start() -> usize {
    unsafe extern "C" {
        static _heap_start: u8;
    }
    ptr::addr_of!(_heap_start) as usize
}

/// Ends QEMU with this exit status.
pub(crate) fn exit(status: u16) -> ! {
    // SAFETY: no pointers.
    unsafe { host(HOST_EXIT, status.into(), 0, 0) };
    loop {
        core::hint::spin_loop();
    }
}

/// Resets the machine.
pub(crate) fn reset() -> ! {
    // SAFETY: a register that always exists, aligned.
    unsafe { RESET.write_volatile(RESET_VALUE) };
    loop {
        core::hint::spin_loop();
    }
}
