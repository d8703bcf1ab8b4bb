//! Pins of the ESP32-C6. GPIO0 to GPIO6 measure voltages, as channels 0 to 6. Not for tasks: GPIO12 and 13 (USB), 16 and
//! 17 (UART), and 24 to 30 (flash). GPIO4, 5, 8, 9 and 15 select how the chip starts; after that they are pins like
//! others.

use esp_hal::Blocking;
use esp_hal::analog::adc::{Adc, AdcCalCurve, AdcConfig, AdcPin};
use esp_hal::gpio::AnyPin;
use esp_hal::peripherals::{ADC1, GPIO0, GPIO1, GPIO2, GPIO3, GPIO4, GPIO5, GPIO6};

use super::RANGE;

/// The kind of board that the node announces.
pub(crate) const KIND: &str = "esp32c6";

/// The digital pins.
pub(crate) const NUMBERS: [u8; PINS] = [7, 8, 9, 10, 11, 15, 18, 19, 20, 21, 22, 23];
const PINS: usize = 12;

pub(super) const NO_PIN: &str = "no such pin: this board has 7, 9 to 11, 15 and 18 to 23, and 8 if it is not the LED's";
const NO_CHANNEL: &str = "no such channel: this board has 0 to 6";

channels! {
    0 gpio0 GPIO0,
    1 gpio1 GPIO1,
    2 gpio2 GPIO2,
    3 gpio3 GPIO3,
    4 gpio4 GPIO4,
    5 gpio5 GPIO5,
    6 gpio6 GPIO6,
}

/// Takes the pins from the peripherals of the chip.
macro_rules! take_pins {
    ($chip:ident) => {
        $crate::board::Pins {
            channels: $crate::board::Channels {
                gpio0: $chip.GPIO0,
                gpio1: $chip.GPIO1,
                gpio2: $chip.GPIO2,
                gpio3: $chip.GPIO3,
                gpio4: $chip.GPIO4,
                gpio5: $chip.GPIO5,
                gpio6: $chip.GPIO6,
            },
            digital: [
                $chip.GPIO7.degrade(),
                $chip.GPIO8.degrade(),
                $chip.GPIO9.degrade(),
                $chip.GPIO10.degrade(),
                $chip.GPIO11.degrade(),
                $chip.GPIO15.degrade(),
                $chip.GPIO18.degrade(),
                $chip.GPIO19.degrade(),
                $chip.GPIO20.degrade(),
                $chip.GPIO21.degrade(),
                $chip.GPIO22.degrade(),
                $chip.GPIO23.degrade(),
            ],
        }
    };
}
pub(crate) use take_pins;
