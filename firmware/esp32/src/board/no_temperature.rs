//! The temperature of a chip that has no sensor for it, or none that esp-hal reads.

use broccoli_embassy::capability;

/// What this board can do for tasks.
pub(crate) const CAPABILITIES: &[&str] = &[capability::LED, capability::GPIO, capability::ADC];

/// There is no peripheral.
pub(crate) type Sensor = ();

/// Takes nothing from the peripherals of the chip.
macro_rules! take_thermometer {
    ($chip:ident) => {
        ()
    };
}
pub(crate) use take_thermometer;

pub(super) struct Thermometer;

impl Thermometer {
    pub(super) fn new((): Sensor) -> Result<Thermometer, &'static str> {
        Ok(Thermometer)
    }

    pub(super) fn millicelsius(&self) -> Result<i32, &'static str> {
        Err("this board does not measure its temperature")
    }
}
