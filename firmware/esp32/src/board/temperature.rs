//! The temperature of a chip that has a sensor for it.

use broccoli_embassy::capability;
use esp_hal::peripherals::TSENS;
use esp_hal::tsens::{Config, TemperatureSensor};

/// What this board can do for tasks.
pub(crate) const CAPABILITIES: &[&str] = &[capability::LED, capability::GPIO, capability::ADC, capability::TEMP];

/// The peripheral.
pub(crate) type Sensor = TSENS<'static>;

/// Takes it from the peripherals of the chip.
macro_rules! take_thermometer {
    ($chip:ident) => {
        $chip.TSENS
    };
}
pub(crate) use take_thermometer;

pub(super) struct Thermometer(TemperatureSensor<'static>);

impl Thermometer {
    pub(super) fn new(sensor: Sensor) -> Result<Thermometer, &'static str> {
        let started = TemperatureSensor::new(sensor, Config::default());
        started.map(Thermometer).map_err(|_| "the temperature sensor does not start")
    }

    pub(super) fn millicelsius(&self) -> Result<i32, &'static str> {
        Ok((self.0.get_temperature().to_celsius() * 1_000.0) as i32)
    }
}
