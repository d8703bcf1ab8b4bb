//! A board as tasks see it, without any hardware: what it is set to is written to the UART.

use core::sync::atomic::{AtomicU32, Ordering};

use broccoli_embassy::HostCall;
use log::info;

/// Levels of the pins, pin 0 in the lowest bit.
static PINS: AtomicU32 = AtomicU32::new(0);

/// Does what a task asks.
pub(crate) fn perform(call: HostCall) -> Result<i32, &'static str> {
    match call {
        HostCall::LedSet { on } => {
            info!("board: led {}", if on { "on" } else { "off" });
            Ok(0)
        }
        HostCall::GpioRead { pin } => Ok(i32::from(PINS.load(Ordering::Relaxed) & bit(pin)? != 0)),
        HostCall::GpioWrite { pin, high } => {
            let (bit, before) = (bit(pin)?, PINS.load(Ordering::Relaxed));
            PINS.store(if high { before | bit } else { before & !bit }, Ordering::Relaxed);
            info!("board: pin {pin} {}", if high { "high" } else { "low" });
            Ok(0)
        }
        HostCall::AdcRead { .. } => Err("this board measures no voltages"),
        HostCall::TemperatureRead => Err("this board measures no temperature"),
    }
}

fn bit(pin: u16) -> Result<u32, &'static str> {
    1_u32.checked_shl(pin.into()).ok_or("this board has the pins 0 to 31")
}
