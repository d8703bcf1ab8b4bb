//! The board for tasks: its LED, digital pins, voltages, and the temperature of the chip.
//!
//! Pins and channels have the numbers of the chip. The first pins measure voltages, others are read and set. Pins of
//! flash, USB and UART are not used.

use core::cell::RefCell;

use broccoli_embassy::{HostCall, Led as LedSetting, LedKind};
use critical_section::Mutex;
use esp_hal::Blocking;
use esp_hal::analog::adc::Attenuation;
use esp_hal::gpio::{AnyPin, Flex, Level};
use esp_hal::peripherals::{ADC1, RMT};
use esp_hal::rmt::{Channel, PulseCode, Rmt, Tx, TxChannelConfig, TxChannelCreator};
use esp_hal::time::Rate;

use crate::led;

pub(crate) use self::chip::{Channels, KIND, Pins, take_pins};
use self::chip::{NO_PIN, NUMBERS, USUAL_LED, Voltages};
pub(crate) use self::temperature::{CAPABILITIES, take_thermometer};
use self::temperature::{Sensor, Thermometer};

/// Range of the voltages: up to about 3.1 V.
const RANGE: Attenuation = Attenuation::_11dB;
/// Brightness, 0 to 255. Visible, but not too bright.
const BRIGHTNESS: u8 = 32;
/// Pulses of a colour: three bytes. Their lengths are in ticks of this clock.
const PULSES: usize = 24;
const LIGHTS_MHZ: u32 = 80;
const ZERO: PulseCode = PulseCode::new(Level::High, 32, Level::Low, 68);
const ONE: PulseCode = PulseCode::new(Level::High, 64, Level::Low, 36);

/// The pins of a chip, from a table: the channels that measure voltages, and the digital pins. Each pin has its own type.
/// `$d` is a dollar, for the macro that is made.
macro_rules! pins {
    (
        ($d:tt)
        channels { $($number:literal $field:ident $pin:ident,)* }
        digital { $($digital:literal $name:ident,)* }
    ) => {
        /// The digital pins.
        pub(crate) const NUMBERS: [u8; [$($digital),*].len()] = [$($digital),*];

        /// The pins that measure voltages.
        pub(crate) struct Channels {
            $(pub(crate) $field: esp_hal::peripherals::$pin<'static>,)*
        }

        /// All pins for tasks.
        pub(crate) struct Pins {
            pub(crate) channels: Channels,
            /// In the order of [`NUMBERS`].
            pub(crate) digital: [esp_hal::gpio::AnyPin<'static>; NUMBERS.len()],
        }

        /// Measures voltages between pins and ground.
        pub(super) struct Voltages {
            converter: esp_hal::analog::adc::Adc<'static, ADC1<'static>, esp_hal::Blocking>,
            $($field: esp_hal::analog::adc::AdcPin<
                esp_hal::peripherals::$pin<'static>,
                ADC1<'static>,
                Calibration,
            >,)*
        }

        impl Voltages {
            pub(super) fn new(converter: ADC1<'static>, channels: Channels) -> Voltages {
                let mut config = esp_hal::analog::adc::AdcConfig::new();
                $(let $field = config.enable_pin_with_cal(channels.$field, super::RANGE);)*
                Voltages { converter: esp_hal::analog::adc::Adc::new(converter, config), $($field,)* }
            }

            pub(super) fn millivolts(&mut self, channel: u8) -> Result<i32, &'static str> {
                // The measurement takes some microseconds.
                let measured = match channel {
                    $($number => nb::block!(self.converter.read_oneshot(&mut self.$field)),)*
                    _ => return Err(NO_CHANNEL),
                };
                measured.map(i32::from).map_err(|()| "cannot measure the voltage")
            }
        }

        /// Takes the pins from the peripherals of the chip.
        macro_rules! take_pins {
            ($d chip:ident) => {
                $crate::board::Pins {
                    channels: $crate::board::Channels { $($field: $d chip.$pin,)* },
                    digital: [$($d chip.$name.degrade(),)*],
                }
            };
        }
        pub(crate) use take_pins;
    };
}

// What differs between chips. After the macro, which it uses.
#[cfg_attr(feature = "esp32", path = "board/esp32.rs")]
#[cfg_attr(feature = "esp32s3", path = "board/esp32s3.rs")]
#[cfg_attr(feature = "esp32c3", path = "board/esp32c3.rs")]
#[cfg_attr(feature = "esp32c6", path = "board/esp32c6.rs")]
mod chip;
// Where there is no sensor, a type without content stands for it.
#[cfg_attr(any(feature = "esp32c6", feature = "esp32c3"), path = "board/temperature.rs")]
#[cfg_attr(not(any(feature = "esp32c6", feature = "esp32c3")), path = "board/no_temperature.rs")]
mod temperature;

static BOARD: Mutex<RefCell<Option<Board>>> = Mutex::new(RefCell::new(None));

/// The peripherals of the board.
pub(crate) struct Hardware {
    pub(crate) adc: ADC1<'static>,
    pub(crate) thermometer: Sensor,
    pub(crate) lights: RMT<'static>,
    pub(crate) pins: Pins,
}

struct Board {
    led: Led,
    /// Without the pin of the LED.
    pins: [Option<Flex<'static>>; NUMBERS.len()],
    voltages: Voltages,
    thermometer: Thermometer,
}

/// Takes the hardware. Without `led`, the board has the LED of Espressif's boards.
///
/// # Errors
/// The chip has no such pin, or a peripheral does not start.
pub(crate) fn init(hardware: Hardware, led: Option<LedSetting>) -> Result<(), &'static str> {
    let mut pins = hardware.pins.digital.map(|pin| Some(open(pin)));
    let led = led.unwrap_or(USUAL_LED);
    let place = NUMBERS.iter().position(|pin| *pin == led.pin);
    let pin = place.and_then(|place| pins[place].take()).ok_or("settings: led is not a digital pin")?;
    let led = match led.kind {
        LedKind::High => Led::plain(pin, Level::High),
        LedKind::Low => Led::plain(pin, Level::Low),
        LedKind::Colour => Led::coloured(hardware.lights, pin)?,
    };
    let thermometer = Thermometer::new(hardware.thermometer)?;
    let board = Board { led, pins, voltages: Voltages::new(hardware.adc, hardware.pins.channels), thermometer };
    critical_section::with(|cs| BOARD.replace(cs, Some(board)));
    Ok(())
}

/// Executes the call of a task.
pub(crate) fn perform(call: HostCall) -> Result<i32, &'static str> {
    match call {
        HostCall::LedSet { on } => led::set(on).map(|()| 0),
        HostCall::GpioRead { pin } => with(|board| Ok(board.pin(pin)?.is_high().into())),
        HostCall::GpioWrite { pin, high } => with(|board| {
            let pin = board.pin(pin)?;
            pin.set_level(high.into());
            pin.set_output_enable(true);
            Ok(0)
        }),
        HostCall::AdcRead { channel } => with(|board| board.voltages.millivolts(channel)),
        HostCall::TemperatureRead => with(|board| board.thermometer.millicelsius()),
    }
}

/// Switches the LED.
pub(crate) fn light(on: bool) -> Result<(), &'static str> {
    with(|board| board.led.set(on))
}

fn with<T>(act: impl FnOnce(&mut Board) -> Result<T, &'static str>) -> Result<T, &'static str> {
    critical_section::with(|cs| BOARD.borrow_ref_mut(cs).as_mut().map_or(Err("this board has not started"), act))
}

/// A pin, before it is configured as an output.
fn open(pin: AnyPin<'static>) -> Flex<'static> {
    let mut pin = Flex::new(pin);
    pin.set_input_enable(true);
    pin
}

impl Board {
    fn pin(&mut self, number: u16) -> Result<&mut Flex<'static>, &'static str> {
        let place = NUMBERS.iter().position(|pin| u16::from(*pin) == number);
        let pin = place.and_then(|place| self.pins[place].as_mut());
        pin.ok_or(NO_PIN)
    }
}

/// The LED.
enum Led {
    /// It is on while the pin has this level.
    Plain(Flex<'static>, Level),
    /// An RGB LED. A train of pulses sets its colour.
    Coloured(Channel<'static, Blocking, Tx>),
}

impl Led {
    fn plain(mut pin: Flex<'static>, on: Level) -> Led {
        pin.set_level(!on);
        pin.set_output_enable(true);
        Led::Plain(pin, on)
    }

    fn coloured(lights: RMT<'static>, pin: Flex<'static>) -> Result<Led, &'static str> {
        let start = || {
            let lights = Rmt::new(lights, Rate::from_mhz(LIGHTS_MHZ))?;
            lights.channel0.configure_tx(&TxChannelConfig::default().with_clk_divider(1).with_idle_output(true))
        };
        let channel = start().map_err(|_| "the LED does not work")?;
        Ok(Led::Coloured(channel.with_pin(pin.into_peripheral_output())))
    }

    fn set(&mut self, on: bool) -> Result<(), &'static str> {
        match self {
            Led::Plain(pin, level) => {
                pin.set_level(if on { *level } else { !*level });
                Ok(())
            }
            Led::Coloured(channel) => {
                let train = white(if on { BRIGHTNESS } else { 0 });
                let sent = channel.reborrow().transmit(&train).and_then(|train| train.wait());
                sent.map(drop).map_err(|_| "the LED does not take its colour")
            }
        }
    }
}

/// The pulses that set all three colours to this brightness: one byte for each, the highest bit first.
fn white(brightness: u8) -> [PulseCode; PULSES + 1] {
    let mut train = [PulseCode::end_marker(); PULSES + 1];
    for (bit, pulse) in (0..PULSES).zip(&mut train) {
        *pulse = if brightness << (bit % 8) & 0x80 == 0 { ZERO } else { ONE };
    }
    train
}
