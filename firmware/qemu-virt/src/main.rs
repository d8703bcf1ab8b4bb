//! A Broccoli node on QEMU's RISC-V machine `virt`, with the memory of a small ESP32: 320 KB of RAM.
//!
//! It only connects the parts: memory, UART, clock, virtio network and random numbers. The node itself is
//! `broccoli-embassy`. Start it with `cargo xtask qemu`.
#![no_std]
#![no_main]

extern crate alloc;
// The compiler calls its functions.
#[cfg(feature = "imc")]
use broccoli_atomics as _;

mod bank;
mod board;
mod clock;
mod console;
mod flash;
mod interrupts;
mod machine;
mod memory;
mod net;
mod tasks;
mod virtio;

use broccoli_embassy::{Device, Settings, capability};
use embassy_executor::{Executor, Spawner};
use embassy_net::{Config, StackResources};
use log::error;
use static_cell::StaticCell;

use net::Net;

/// Sockets of the network stack: DHCP, DNS, and the link.
const SOCKETS: usize = 3;

#[riscv_rt::entry]
fn main() -> ! {
    memory::init();
    console::init_log();
    clock::init();
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    EXECUTOR.init(Executor::new()).run(|spawner| {
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
    let devices = virtio::find();
    let mut random = devices.random.ok_or("there is no random source: start QEMU with -device virtio-rng-device")?;
    let network = devices.network.ok_or("there is no network: start QEMU with -device virtio-net-device")?;
    let device = Device {
        epoch: virtio::random(&mut random)?,
        seed: u64::from_le_bytes(virtio::random(&mut random)?),
        unix_ms: || Some(machine::unix_ms()),
        memory: memory::heap,
        board: board::perform,
        board_kind: "qemu-virt",
        capabilities: &[capability::LED, capability::GPIO],
        connected: |_| {},
    };
    static RESOURCES: StaticCell<StackResources<SOCKETS>> = StaticCell::new();
    let seed = u64::from_le_bytes(virtio::random(&mut random)?);
    let interrupt = network.interrupt;
    let net = Net::new(network)?;
    let (stack, runner) =
        embassy_net::new(net, Config::dhcpv4(Default::default()), RESOURCES.init(StackResources::new()), seed);
    interrupts::enable(interrupt);
    tasks::spawn(spawner, runner, settings, device, stack)?;
    Ok(())
}
