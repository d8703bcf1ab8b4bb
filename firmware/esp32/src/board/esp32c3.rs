//! Pins of the ESP32-C3. GPIO0 to GPIO4 measure voltages, as channels 0 to 4. Not for tasks: GPIO11 to 17 (flash and its
//! supply), 18 and 19 (USB), and 20 and 21 (UART). GPIO2, 8 and 9 select how the chip starts; after that they are pins
//! like others. What is connected to them must not pull them low at a reset. GPIO9 is the button BOOT of most boards.

use esp_hal::Blocking;
use esp_hal::analog::adc::{Adc, AdcCalCurve, AdcConfig, AdcPin};
use esp_hal::gpio::AnyPin;
use esp_hal::peripherals::{ADC1, GPIO0, GPIO1, GPIO2, GPIO3, GPIO4};

use super::RANGE;

/// The kind of board that the node announces.
pub(crate) const KIND: &str = "esp32c3";

/// The digital pins.
pub(crate) const NUMBERS: [u8; PINS] = [5, 6, 7, 8, 9, 10];
const PINS: usize = 6;

pub(super) const NO_PIN: &str = "no such pin: this board has 5 to 7, 9 and 10, and 8 if it is not the LED's";
const NO_CHANNEL: &str = "no such channel: this board has 0 to 4";

channels! {
    0 gpio0 GPIO0,
    1 gpio1 GPIO1,
    2 gpio2 GPIO2,
    3 gpio3 GPIO3,
    4 gpio4 GPIO4,
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
            },
            digital: [
                $chip.GPIO5.degrade(),
                $chip.GPIO6.degrade(),
                $chip.GPIO7.degrade(),
                $chip.GPIO8.degrade(),
                $chip.GPIO9.degrade(),
                $chip.GPIO10.degrade(),
            ],
        }
    };
}
pub(crate) use take_pins;
