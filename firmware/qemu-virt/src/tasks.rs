//! The tasks of the executor: the network stack, and the node until it ends.

use broccoli_embassy::{Device, End, Settings};
use embassy_executor::Spawner;
use embassy_net::{Runner, Stack};
use log::info;

use crate::net::Net;
use crate::{flash, machine, memory};

/// Starts both. Call it once.
///
/// # Errors
/// There is no room for a task.
pub(crate) fn spawn(
    spawner: Spawner,
    runner: Runner<'static, Net>,
    settings: Settings,
    device: Device,
    stack: Stack<'static>,
) -> Result<(), &'static str> {
    spawner.spawn(network_task(runner).map_err(|_| "no room for the network")?);
    spawner.spawn(node_task(settings, device, stack).map_err(|_| "no room for the node")?);
    Ok(())
}

#[embassy_executor::task]
async fn network_task(mut runner: Runner<'static, Net>) -> ! {
    runner.run().await
}

#[embassy_executor::task]
async fn node_task(settings: Settings, device: Device, stack: Stack<'static>) {
    let end = broccoli_embassy::run(settings, device, flash::Bank::new(), stack).await;
    let heap = memory::heap();
    info!(
        "peak of the heap: {} bytes of {}; of the stack: {} bytes",
        heap.peak,
        heap.used + heap.free,
        memory::stack_peak()
    );
    match end {
        End::Drained => machine::exit(0),
        End::Reboot => machine::reset(),
        End::NameTaken => machine::exit(2),
    }
}
