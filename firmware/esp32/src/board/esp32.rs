//! Pins of the ESP32. GPIO36 to 39 and 32 to 35 measure voltages, as channels 0 to 7; most boards have no contacts for 37
//! and 38. Not for tasks: GPIO1 and 3 (UART), 6 to 11 (flash), 16 and 17 (memory of the WROVER modules), and 12, which
//! selects the voltage of the flash. GPIO0, 2, 5 and 15 select how the chip starts; after that they are pins like others.
//! GPIO0 is the button BOOT of most boards.

use broccoli_embassy::{Led, LedKind};
use esp_hal::analog::adc::AdcCalLine;
use esp_hal::peripherals::ADC1;

/// The kind of board that the node announces.
pub(crate) const KIND: &str = "esp32";
/// The LED of the usual boards with this chip.
pub(super) const USUAL_LED: Led = Led { pin: 2, kind: LedKind::High };
/// Corrects measured voltages with what is burnt into the chip.
pub(super) type Calibration = AdcCalLine<ADC1<'static>>;

pub(super) const NO_PIN: &str =
    "no such pin: this board has 0, 4, 5, 13 to 15, 18, 19, 21 to 23, 25 to 27, and 2 if it is not the LED's";
pub(super) const NO_CHANNEL: &str = "no such channel: this board has 0 to 7";

pins! { ($)
    channels {
        0 gpio36 GPIO36,
        1 gpio37 GPIO37,
        2 gpio38 GPIO38,
        3 gpio39 GPIO39,
        4 gpio32 GPIO32,
        5 gpio33 GPIO33,
        6 gpio34 GPIO34,
        7 gpio35 GPIO35,
    }
    digital {
        0 GPIO0,
        2 GPIO2,
        4 GPIO4,
        5 GPIO5,
        13 GPIO13,
        14 GPIO14,
        15 GPIO15,
        18 GPIO18,
        19 GPIO19,
        21 GPIO21,
        22 GPIO22,
        23 GPIO23,
        25 GPIO25,
        26 GPIO26,
        27 GPIO27,
    }
}
