//! A Broccoli node on the Xtensa core LX7 of QEMU's machine `kc705`, with the memory of a small ESP32: 320 KB of RAM.
//!
//! It only connects the parts: memory, UART, clock, Ethernet and random numbers. The node itself is `broccoli-embassy`.
//! Start it with `cargo xtask qemu --core xtensa`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

extern crate alloc;

mod bank;
#[path = "../../qemu-virt/src/board.rs"]
mod board;
mod clock;
#[path = "../../qemu-virt/src/console.rs"]
mod console;
mod executor;
#[path = "../../qemu-virt/src/flash.rs"]
mod flash;
mod interrupts;
mod machine;
#[path = "../../qemu-virt/src/memory.rs"]
mod memory;
mod net;
mod start;
#[path = "../../qemu-virt/src/tasks.rs"]
mod tasks;
mod wide;

use broccoli_embassy::{Device, Settings, capability};
use embassy_executor::Spawner;
use embassy_net::{Config, StackResources};
use log::error;
use static_cell::StaticCell;

use net::Net;

/// Sockets of the network stack: DHCP, DNS, and the link.
const SOCKETS: usize = 3;

/// Called by the first instructions in `start`.
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    memory::init();
    console::init_log();
    clock::init();
    executor::run(|spawner| {
        if let Err(reason) = start(spawner) {
            error!("{reason}");
            machine::exit(1);
        }
    })
}

/// Starts the network and the node. Not inlined, so that its stack frame is free afterwards.
#[inline(never)]
fn start(spawner: Spawner) -> Result<(), alloc::string::String> {
    use alloc::string::ToString;
    let settings = Settings::parse(memory::settings()).map_err(|error| error.to_string())?;
    let device = Device {
        epoch: machine::random()?,
        seed: u64::from_le_bytes(machine::random()?),
        unix_ms: || None,
        memory: memory::heap,
        board: board::perform,
        board_kind: "qemu-xtensa",
        capabilities: &[capability::LED, capability::GPIO],
        connected: |_| {},
    };
    static RESOURCES: StaticCell<StackResources<SOCKETS>> = StaticCell::new();
    let seed = u64::from_le_bytes(machine::random()?);
    let (stack, runner) =
        embassy_net::new(Net::new(), Config::dhcpv4(Default::default()), RESOURCES.init(StackResources::new()), seed);
    interrupts::enable();
    tasks::spawn(spawner, runner, settings, device, stack)?;
    Ok(())
}
