//! Pins of the ESP32-S3. GPIO1 to GPIO10 measure voltages, as channels 0 to 9. Not for tasks: GPIO19 and 20 (USB), 26 to 37
//! (flash, and the memory of some modules), and 43 and 44 (UART). GPIO0, 3, 45 and 46 select how the chip starts, and of
//! these only GPIO0 is a pin for tasks; it is the button BOOT of most boards.

use broccoli_embassy::{Led, LedKind};
use esp_hal::analog::adc::AdcCalCurve;
use esp_hal::peripherals::ADC1;

/// The kind of board that the node announces.
pub(crate) const KIND: &str = "esp32s3";
/// The LED of the usual boards with this chip.
pub(super) const USUAL_LED: Led = Led { pin: 48, kind: LedKind::Colour };
/// Corrects measured voltages with what is burnt into the chip.
pub(super) type Calibration = AdcCalCurve<ADC1<'static>>;

pub(super) const NO_PIN: &str =
    "no such pin: this board has 0, 11 to 18, 21, 38 to 42, 47, and 48 if it is not the LED's";
pub(super) const NO_CHANNEL: &str = "no such channel: this board has 0 to 9";

pins! { ($)
    channels {
        0 gpio1 GPIO1,
        1 gpio2 GPIO2,
        2 gpio3 GPIO3,
        3 gpio4 GPIO4,
        4 gpio5 GPIO5,
        5 gpio6 GPIO6,
        6 gpio7 GPIO7,
        7 gpio8 GPIO8,
        8 gpio9 GPIO9,
        9 gpio10 GPIO10,
    }
    digital {
        0 GPIO0,
        11 GPIO11,
        12 GPIO12,
        13 GPIO13,
        14 GPIO14,
        15 GPIO15,
        16 GPIO16,
        17 GPIO17,
        18 GPIO18,
        21 GPIO21,
        38 GPIO38,
        39 GPIO39,
        40 GPIO40,
        41 GPIO41,
        42 GPIO42,
        47 GPIO47,
        48 GPIO48,
    }
}
