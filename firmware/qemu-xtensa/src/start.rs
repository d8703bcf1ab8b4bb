//! The first instructions, the vectors of the core, and the entry of interrupts.
//!
//! The crate `xtensa-lx-rt` has all that, but Debian's linker is for the LX106, which has no register windows: it cannot
//! link the windowed calls to symbols (`call4`) of that crate. Compiled code calls by way of registers, and so does this
//! module.

use core::arch::global_asm;

use crate::console;

// The handlers of register windows, as the manual of the instruction set has them. They store registers of a caller on the
// stack when others need them, and load them when it goes on.
global_asm!(
    "
    .section .vectors, \"ax\", @progbits
    .p2align 10
    .org 0x000 // overflow after call4
    s32e a0, a5, -16
    s32e a1, a5, -12
    s32e a2, a5, -8
    s32e a3, a5, -4
    rfwo
    .org 0x040 // underflow after call4
    l32e a0, a5, -16
    l32e a1, a5, -12
    l32e a2, a5, -8
    l32e a3, a5, -4
    rfwu
    .org 0x080 // overflow after call8
    s32e a0, a9, -16
    l32e a0, a1, -12
    s32e a1, a9, -12
    s32e a2, a9, -8
    s32e a3, a9, -4
    s32e a4, a0, -32
    s32e a5, a0, -28
    s32e a6, a0, -24
    s32e a7, a0, -20
    rfwo
    .org 0x0c0 // underflow after call8
    l32e a0, a9, -16
    l32e a1, a9, -12
    l32e a2, a9, -8
    l32e a7, a1, -12
    l32e a3, a9, -4
    l32e a4, a7, -32
    l32e a5, a7, -28
    l32e a6, a7, -24
    l32e a7, a7, -20
    rfwu
    .org 0x100 // overflow after call12
    s32e a0, a13, -16
    l32e a0, a1, -12
    s32e a1, a13, -12
    s32e a2, a13, -8
    s32e a3, a13, -4
    s32e a4, a0, -48
    s32e a5, a0, -44
    s32e a6, a0, -40
    s32e a7, a0, -36
    s32e a8, a0, -32
    s32e a9, a0, -28
    s32e a10, a0, -24
    s32e a11, a0, -20
    rfwo
    .org 0x140 // underflow after call12
    l32e a0, a13, -16
    l32e a1, a13, -12
    l32e a2, a13, -8
    l32e a11, a1, -12
    l32e a3, a13, -4
    l32e a4, a11, -48
    l32e a5, a11, -44
    l32e a6, a11, -40
    l32e a7, a11, -36
    l32e a8, a11, -32
    l32e a9, a11, -28
    l32e a10, a11, -24
    l32e a11, a11, -20
    rfwu
    .org 0x300 // interrupt of level 1, or exception
    wsr a0, excsave1
    l32r a0, .Lexception
    jx a0
    .org 0x3c0 // exception in the handler of another one
    wsr a0, excsave1
    rsr a0, depc
    wsr a0, epc1
    l32r a0, .Lexception
    jx a0
"
);

// After a reset, the window registers are undefined, windows and atomic instructions are off, and interrupts are masked,
// which they stay. ATOMCTL allows atomic instructions on all kinds of memory.
global_asm!(
    "
    .section .text.start, \"ax\", @progbits
    .p2align 2
.Lexception: .4byte exception
.Lvectors: .4byte _vectors
.Lstack: .4byte _stack_start
.Ldata: .4byte _data_start
.Ldata_end: .4byte _data_end
.Ldata_source: .4byte _sidata
.Lbss: .4byte _bss_start
.Lbss_end: .4byte _bss_end
.Lmain: .4byte main
.Lstatus: .4byte 0x4000f // windows on, all interrupts masked

    .global _start
    .type _start, @function
_start:
    movi a2, 0
    wsr a2, windowbase
    rsync
    movi a2, 1
    wsr a2, windowstart
    rsync
    movi a2, 0
    wsr a2, intenable
    l32r a2, .Lvectors
    wsr a2, vecbase
    movi a2, 0x2a
    wsr a2, atomctl
    l32r a2, .Lstatus
    wsr a2, ps
    rsync

    l32r a2, .Ldata_source
    l32r a3, .Ldata
    l32r a4, .Ldata_end
1:  bgeu a3, a4, 2f
    l32i a5, a2, 0
    s32i a5, a3, 0
    addi a2, a2, 4
    addi a3, a3, 4
    j 1b
2:  l32r a3, .Lbss
    l32r a4, .Lbss_end
    movi a5, 0
3:  bgeu a3, a4, 4f
    s32i a5, a3, 0
    addi a3, a3, 4
    j 3b

4:  movi a0, 0 // nothing called this
    l32r a1, .Lstack
    l32r a2, .Lmain
    callx4 a2
"
);

// Called with a0 in EXCSAVE1, and PS.EXCM set: no window is checked and interrupts are off until PS is written.
//
// The 16 bytes below a stack pointer are where the registers of the caller go on an overflow. While the interrupted
// function has another stack pointer, they go below that one, so these bytes are copied there and back. Of the registers
// a4 to a15, some may be those of earlier callers. It does no harm to write them back, even if they were stored meanwhile.
global_asm!(
    "
    .set FRAME, 128
    .section .text.exception, \"ax\", @progbits
    .p2align 2
.Lon_interrupt: .4byte on_interrupt
.Lon_fault: .4byte on_fault
.Lstatus_inside: .4byte 0x40003 // windows on, interrupts of levels 1 to 3 masked

    .global exception
    .type exception, @function
exception:
    addi a1, a1, -FRAME
    s32i a2, a1, 4
    s32i a3, a1, 8
    s32i a4, a1, 12
    s32i a5, a1, 16
    s32i a6, a1, 20
    s32i a7, a1, 24
    s32i a8, a1, 28
    s32i a9, a1, 32
    s32i a10, a1, 36
    s32i a11, a1, 40
    s32i a12, a1, 44
    s32i a13, a1, 48
    s32i a14, a1, 52
    s32i a15, a1, 56
    rsr a2, excsave1
    s32i a2, a1, 0
    rsr a2, sar
    s32i a2, a1, 60
    rsr a2, ps
    s32i a2, a1, 64
    rsr a2, epc1
    s32i a2, a1, 68
    rsr a2, lbeg
    s32i a2, a1, 72
    rsr a2, lend
    s32i a2, a1, 76
    rsr a2, lcount
    s32i a2, a1, 80
    rsr a2, scompare1
    s32i a2, a1, 84
    rsr a2, br
    s32i a2, a1, 88

    addi a3, a1, FRAME - 16
    addi a0, a1, -16
    l32i a2, a3, 0
    s32i a2, a0, 0
    l32i a2, a3, 4
    s32i a2, a0, 4
    l32i a2, a3, 8
    s32i a2, a0, 8
    l32i a2, a3, 12
    s32i a2, a0, 12

    rsr a3, exccause
    l32r a2, .Lstatus_inside
    wsr a2, ps
    rsync
    movi a2, 4 // an interrupt of level 1
    beq a3, a2, 1f
    j .Lfault
1:
    l32r a2, .Lon_interrupt
    callx4 a2

    addi a3, a1, FRAME - 16
    addi a0, a1, -16
    l32i a2, a0, 0
    s32i a2, a3, 0
    l32i a2, a0, 4
    s32i a2, a3, 4
    l32i a2, a0, 8
    s32i a2, a3, 8
    l32i a2, a0, 12
    s32i a2, a3, 12

    l32i a2, a1, 64 // PS.EXCM is set in it
    wsr a2, ps
    rsync
    l32i a2, a1, 68
    wsr a2, epc1
    l32i a2, a1, 60
    wsr a2, sar
    l32i a2, a1, 72
    wsr a2, lbeg
    l32i a2, a1, 76
    wsr a2, lend
    l32i a2, a1, 80
    wsr a2, lcount
    l32i a2, a1, 84
    wsr a2, scompare1
    l32i a2, a1, 88
    wsr a2, br
    l32i a0, a1, 0
    l32i a2, a1, 4
    l32i a3, a1, 8
    l32i a4, a1, 12
    l32i a5, a1, 16
    l32i a6, a1, 20
    l32i a7, a1, 24
    l32i a8, a1, 28
    l32i a9, a1, 32
    l32i a10, a1, 36
    l32i a11, a1, 40
    l32i a12, a1, 44
    l32i a13, a1, 48
    l32i a14, a1, 52
    l32i a15, a1, 56
    addi a1, a1, FRAME / 2
    addi a1, a1, FRAME / 2
    rsync
    rfe

.Lfault:
    mov a6, a3
    l32i a7, a1, 68
    l32r a2, .Lon_fault
    callx4 a2
"
);

/// An exception, which only a defect can cause.
#[unsafe(no_mangle)]
extern "C" fn on_fault(cause: u32, pc: u32) -> ! {
    console::end(format_args!("panicked at {pc:#010x}: exception {cause}"))
}
