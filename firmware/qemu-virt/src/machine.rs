//! Other parts of the machine: UART, test device, clock of the host.

const UART: *mut u8 = 0x1000_0000 as *mut u8;
const UART_STATUS: *const u8 = 0x1000_0005 as *const u8;
const UART_IDLE: u8 = 0x20;
/// Ends or resets the machine.
const TEST: *mut u32 = 0x0010_0000 as *mut u32;
const TEST_PASS: u32 = 0x5555;
const TEST_FAIL: u32 = 0x3333;
const TEST_RESET: u32 = 0x7777;
/// Nanoseconds since 1970. Reading the low half latches the high half.
const RTC: *const u32 = 0x0010_1000 as *const u32;

/// Writes a byte to the UART.
pub(crate) fn put(byte: u8) {
    // SAFETY: registers that always exist.
    unsafe {
        while UART_STATUS.read_volatile() & UART_IDLE == 0 {}
        UART.write_volatile(byte);
    }
}

/// Unix time of the host, in milliseconds.
pub(crate) fn unix_ms() -> u64 {
    // SAFETY: registers that always exist, aligned.
    let (low, high) = unsafe { (RTC.read_volatile(), RTC.add(1).read_volatile()) };
    (u64::from(high) << 32 | u64::from(low)) / 1_000_000
}

/// Waits, also when interrupts are off.
pub(crate) fn pause_ms(time: u64) {
    let end = unix_ms() + time;
    while unix_ms() < end {}
}

/// The lowest address behind the statics, where the heap starts.
pub(crate) fn heap_start() -> usize {
    riscv_rt::heap_start() as usize
}

/// Ends QEMU with this exit status.
pub(crate) fn exit(status: u16) -> ! {
    let word = if status == 0 { TEST_PASS } else { u32::from(status) << 16 | TEST_FAIL };
    // SAFETY: a register that always exists.
    unsafe { TEST.write_volatile(word) };
    loop {
        riscv::asm::wfi();
    }
}

/// Resets the machine.
pub(crate) fn reset() -> ! {
    // SAFETY: a register that always exists.
    unsafe { TEST.write_volatile(TEST_RESET) };
    loop {
        riscv::asm::wfi();
    }
}
