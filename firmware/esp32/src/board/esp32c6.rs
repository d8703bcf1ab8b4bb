//! Pins of the ESP32-C6. GPIO0 to GPIO6 measure voltages, as channels 0 to 6. Not for tasks: GPIO12 and 13 (USB), 16 and
//! 17 (UART), and 24 to 30 (flash). GPIO4, 5, 8, 9 and 15 select how the chip starts; after that they are pins like
//! others.

use broccoli_embassy::{Led, LedKind};
use esp_hal::analog::adc::AdcCalCurve;
use esp_hal::peripherals::ADC1;

/// The kind of board that the node announces.
pub(crate) const KIND: &str = "esp32c6";
/// The LED of the usual boards with this chip.
pub(super) const USUAL_LED: Led = Led { pin: 8, kind: LedKind::Colour };
/// Corrects measured voltages with what is burnt into the chip.
pub(super) type Calibration = AdcCalCurve<ADC1<'static>>;

pub(super) const NO_PIN: &str = "no such pin: this board has 7, 9 to 11, 15 and 18 to 23, and 8 if it is not the LED's";
pub(super) const NO_CHANNEL: &str = "no such channel: this board has 0 to 6";

pins! { ($)
    channels {
        0 gpio0 GPIO0,
        1 gpio1 GPIO1,
        2 gpio2 GPIO2,
        3 gpio3 GPIO3,
        4 gpio4 GPIO4,
        5 gpio5 GPIO5,
        6 gpio6 GPIO6,
    }
    digital {
        7 GPIO7,
        8 GPIO8,
        9 GPIO9,
        10 GPIO10,
        11 GPIO11,
        15 GPIO15,
        18 GPIO18,
        19 GPIO19,
        20 GPIO20,
        21 GPIO21,
        22 GPIO22,
        23 GPIO23,
    }
}
