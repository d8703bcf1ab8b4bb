//! A Broccoli node on a chip of the ESP32 family.
//!
//! It only connects the parts: heap, radio, log, watchdog, settings in flash, and the board. The node itself is
//! `broccoli-embassy`. `cargo xtask firmware` builds it, and `broccoli flash` writes it to a chip.
#![no_std]
#![no_main]

extern crate alloc;
// The compiler calls its functions.
#[cfg(feature = "esp32c3")]
use broccoli_atomics as _;

#[cfg(not(any(feature = "esp32c6", feature = "esp32c3", feature = "esp32", feature = "esp32s3")))]
compile_error!("no chip selected: use cargo xtask firmware --chip esp32c6 (or esp32c3)");

mod board;
mod flash;
mod led;
mod machine;
mod wifi;

use alloc::format;
use alloc::string::String;

use broccoli_embassy::{Device, End, Settings};
use embassy_executor::{SpawnError, SpawnToken, Spawner};
use embassy_net::{Config, Runner, Stack, StackResources};
use embassy_time::{Duration, Timer};
use esp_hal::clock::CpuClock;
use esp_hal::gpio::Pin as _;
use esp_hal::peripherals::{FLASH, WIFI};
use esp_hal::rng::Trng;
use esp_hal::rtc_cntl::Rtc;
use esp_hal::timer::timg::TimerGroup;
use esp_radio::wifi::{Interface, WifiController};
use esp_rtos::embassy::Executor;
use log::{error, info};
use static_cell::StaticCell;

esp_bootloader_esp_idf::esp_app_desc!();

/// Sockets of the network stack: DHCP, DNS, and the link.
const SOCKETS: usize = 3;
/// How often the reason is logged if the node does not start, before the chip is reset.
const COMPLAINTS: usize = 6;
const COMPLAINT_PAUSE: Duration = Duration::from_secs(10);

#[esp_hal::main]
fn main() -> ! {
    machine::init_log();
    let chip = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::max()));
    machine::init_heap();
    esp_rtos::start(TimerGroup::new(chip.TIMG0).timer0, chip.FROM_CPU_INTR0);
    let hardware = board::Hardware {
        adc: chip.ADC1,
        thermometer: board::take_thermometer!(chip),
        lights: chip.RMT,
        pins: board::take_pins!(chip),
    };
    let (watchdog, storage, radio) = (machine::watchdog(chip.RTC_TIMER), chip.FLASH, chip.WIFI);
    static EXECUTOR: StaticCell<Executor> = StaticCell::new();
    EXECUTOR.init(Executor::new()).run(|spawner| {
        spawn(spawner, watchdog_task(watchdog));
        spawn(spawner, led_task());
        if let Err(reason) = start(spawner, hardware, storage, radio) {
            led::tell_failure();
            spawn(spawner, complaint_task(reason));
        }
    })
}

/// Starts the board, the radio, the network and the node.
fn start(
    spawner: Spawner,
    hardware: board::Hardware,
    storage: FLASH<'static>,
    radio: WIFI<'static>,
) -> Result<(), String> {
    let found = read(storage);
    // The board first: its LED shows that something is wrong with the settings.
    board::init(hardware, found.as_ref().ok().and_then(|(settings, _)| settings.led))?;
    let (settings, modules) = found?;
    let access = settings.wifi.as_ref().ok_or("settings: ssid is missing")?;
    let controller = WifiController::new(radio, wifi::config(access)?).map_err(|error| format!("Wi-Fi: {error}"))?;
    // Random only while the radio is on. It is on from here.
    let random = Trng::try_new().map_err(|_| "there is no source of random numbers")?;
    let device = Device {
        epoch: machine::random(&random),
        seed: u64::from_le_bytes(machine::random(&random)),
        // The chip does not know the time of day.
        unix_ms: || None,
        memory: machine::heap,
        board: board::perform,
        board_kind: board::KIND,
        capabilities: board::CAPABILITIES,
        connected: led::tell_server,
    };
    static RESOURCES: StaticCell<StackResources<SOCKETS>> = StaticCell::new();
    let seed = u64::from_le_bytes(machine::random(&random));
    let resources = RESOURCES.init(StackResources::new());
    let (stack, runner) = embassy_net::new(Interface::station(), Config::dhcpv4(Default::default()), resources, seed);
    spawn(spawner, radio_task(controller));
    spawn(spawner, network_task(runner));
    spawn(spawner, node_task(settings, device, modules, stack));
    Ok(())
}

/// The settings of this node, and the flash for its modules.
fn read(storage: FLASH<'static>) -> Result<(Settings, flash::Modules), String> {
    let flash::Contents { settings, modules } = flash::open(storage)?;
    let settings = Settings::parse(&settings);
    let settings = settings.map_err(|error| format!("{error}; write them with `broccoli flash`"))?;
    Ok((settings, modules))
}

/// Starts a task.
fn spawn<S>(spawner: Spawner, task: Result<SpawnToken<S>, SpawnError>) {
    spawner.spawn(task.expect("each task is started once"));
}

#[embassy_executor::task]
async fn watchdog_task(watchdog: Rtc<'static>) {
    machine::feed(watchdog).await;
}

#[embassy_executor::task]
async fn led_task() {
    led::blink().await;
}

#[embassy_executor::task]
async fn radio_task(controller: WifiController<'static>) {
    wifi::keep_connected(controller).await;
}

#[embassy_executor::task]
async fn network_task(mut runner: Runner<'static, Interface>) {
    runner.run().await;
}

/// Logs why the node does not start. Repeats it, because the UART or USB port may be opened later.
#[embassy_executor::task]
async fn complaint_task(reason: String) {
    for _ in 0..COMPLAINTS {
        error!("{reason}");
        Timer::after(COMPLAINT_PAUSE).await;
    }
    machine::reset();
}

#[embassy_executor::task]
async fn node_task(settings: Settings, device: Device, modules: flash::Modules, stack: Stack<'static>) {
    let end = broccoli_embassy::run(settings, device, modules, stack).await;
    let heap = machine::heap();
    info!("peak of the heap: {} bytes of {}", heap.peak, heap.used + heap.free);
    match end {
        End::Drained => info!("left the cluster; a reset starts the node again"),
        End::Reboot => machine::reset(),
        End::NameTaken => {
            led::tell_failure();
            Timer::after(COMPLAINT_PAUSE * COMPLAINTS as u32).await;
            machine::reset();
        }
    }
}
