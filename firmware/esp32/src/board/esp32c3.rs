//! Pins of the ESP32-C3. GPIO0 to GPIO4 measure voltages, as channels 0 to 4. Not for tasks: GPIO11 to 17 (flash and its
//! supply), 18 and 19 (USB), and 20 and 21 (UART). GPIO2, 8 and 9 select how the chip starts; after that they are pins
//! like others. What is connected to them must not pull them low at a reset. GPIO9 is the button BOOT of most boards.

use broccoli_embassy::{Led, LedKind};
use esp_hal::analog::adc::AdcCalCurve;
use esp_hal::peripherals::ADC1;

/// The kind of board that the node announces.
pub(crate) const KIND: &str = "esp32c3";
/// The LED of the usual boards with this chip.
pub(super) const USUAL_LED: Led = Led { pin: 8, kind: LedKind::Colour };
/// Corrects measured voltages with what is burnt into the chip.
pub(super) type Calibration = AdcCalCurve<ADC1<'static>>;

pub(super) const NO_PIN: &str = "no such pin: this board has 5 to 7, 9 and 10, and 8 if it is not the LED's";
pub(super) const NO_CHANNEL: &str = "no such channel: this board has 0 to 4";

pins! { ($)
    channels {
        0 gpio0 GPIO0,
        1 gpio1 GPIO1,
        2 gpio2 GPIO2,
        3 gpio3 GPIO3,
        4 gpio4 GPIO4,
    }
    digital {
        5 GPIO5,
        6 GPIO6,
        7 GPIO7,
        8 GPIO8,
        9 GPIO9,
        10 GPIO10,
    }
}
