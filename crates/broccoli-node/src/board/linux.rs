//! The board of a Linux machine: pins of a GPIO character device, an LED, a thermometer, voltages.
//!
//! | call | done through |
//! |---|---|
//! | GPIO | `/dev/gpiochipN`, the kernel's interface since 5.10 |
//! | LED | `/sys/class/leds/NAME/brightness` |
//! | temperature | `/sys/class/thermal/thermal_zoneN/temp` |
//! | voltages | `/sys/bus/iio/devices/iio:deviceN/in_voltageC_raw` |
//!
//! A pin that was written remains an output of this node, at its level, until the node ends. Otherwise the kernel would
//! release it. Everything else is files, opened for each call.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use broccoli_abi::HostCall;
use gpiocdev::line::Value;
use gpiocdev::{Chip, Request};

use super::{ADC, BoardError, GPIO, LED, TEMP};

/// The name of this program, which the kernel shows as the user of a pin.
const CONSUMER: &str = "broccoli";
/// Names of the GPIO chips with the pins of a Raspberry Pi. Other chips there belong to its regulators and displays.
const HEADER_CHIP: &str = "pinctrl-";
/// Names of the LED on a Raspberry Pi, in newer and older kernels.
const PI_LEDS: [&str; 2] = ["ACT", "led0"];

/// The hardware that Linux gives this node access to.
#[derive(Debug)]
pub struct LinuxBoard {
    /// An error if there is none.
    gpio: Result<Gpio, String>,
    led: Option<Led>,
    /// The file with the temperature, in thousandths of a degree.
    thermometer: Option<PathBuf>,
    /// The directory of the device that measures voltages.
    voltmeter: Option<PathBuf>,
}

#[derive(Debug)]
struct Gpio {
    chip: PathBuf,
    /// Number of pins.
    count: u32,
    /// Pins that tasks have written.
    outputs: Mutex<BTreeMap<u16, Request>>,
}

#[derive(Debug)]
struct Led {
    dir: PathBuf,
    /// Whether the kernel's own trigger of the LED was switched off.
    is_ours: AtomicBool,
}

/// Whether there is a GPIO character device.
pub(super) fn has_chip() -> bool {
    gpiocdev::chip::chips().is_ok_and(|chips| !chips.is_empty())
}

impl LinuxBoard {
    /// See [`super::Board::linux`].
    pub(super) fn open(chip: Option<&Path>) -> Result<LinuxBoard, BoardError> {
        let gpio = match chip {
            Some(chip) => Ok(Gpio::open(chip).map_err(BoardError::Refused)?),
            None => Gpio::find(),
        };
        Ok(LinuxBoard::with_sysfs(gpio, Path::new("/sys")))
    }

    fn with_sysfs(gpio: Result<Gpio, String>, sysfs: &Path) -> LinuxBoard {
        let led = find_led(&sysfs.join("class/leds"));
        LinuxBoard {
            gpio,
            led: led.map(|dir| Led { dir, is_ours: AtomicBool::new(false) }),
            thermometer: find_thermometer(&sysfs.join("class/thermal")),
            voltmeter: find_voltmeter(&sysfs.join("bus/iio/devices")),
        }
    }

    pub(super) fn capabilities(&self) -> Vec<&'static str> {
        let led = self.led.as_ref().is_some_and(Led::is_writable);
        let here = [
            (LED, led),
            (GPIO, self.gpio.is_ok()),
            (ADC, self.voltmeter.is_some()),
            (TEMP, self.thermometer.is_some()),
        ];
        here.into_iter().filter(|(_, is_here)| *is_here).map(|(name, _)| name).collect()
    }

    pub(super) fn perform(&self, call: HostCall) -> Result<i32, BoardError> {
        match call {
            HostCall::LedSet { on } => {
                let led = self.led.as_ref().ok_or_else(|| missing("LED"))?;
                led.set(on).map(|()| 0)
            }
            HostCall::GpioRead { pin } => self.gpio()?.read(pin).map(i32::from),
            HostCall::GpioWrite { pin, high } => self.gpio()?.write(pin, high).map(|()| 0),
            HostCall::AdcRead { channel } => {
                let voltmeter = self.voltmeter.as_ref().ok_or_else(|| missing("ADC"))?;
                measure(voltmeter, channel)
            }
            HostCall::TemperatureRead => {
                let thermometer = self.thermometer.as_ref().ok_or_else(|| missing("thermometer"))?;
                number(thermometer).map(|thousandths| thousandths as i32)
            }
        }
    }

    fn gpio(&self) -> Result<&Gpio, BoardError> {
        self.gpio.as_ref().map_err(|why| BoardError::Missing(format!("GPIO: {why}")))
    }
}

impl Gpio {
    /// The first chip with the pins of a header, otherwise the first chip.
    fn find() -> Result<Gpio, String> {
        let chips = gpiocdev::chip::chips().map_err(|error| error.to_string())?;
        let is_header = |path: &&PathBuf| label(path).is_some_and(|label| label.starts_with(HEADER_CHIP));
        let chip = chips.iter().find(is_header).or_else(|| chips.first());
        Gpio::open(chip.ok_or("there is no /dev/gpiochip0")?)
    }

    fn open(chip: &Path) -> Result<Gpio, String> {
        let refused = |error: gpiocdev::Error| format!("cannot use {}: {error}", chip.display());
        let info = Chip::from_path(chip).and_then(|chip| chip.info()).map_err(refused)?;
        Ok(Gpio { chip: chip.to_owned(), count: info.num_lines, outputs: Mutex::default() })
    }

    /// An output of this node is read through its own handle. Any other pin is requested for a moment, without changing
    /// it.
    fn read(&self, pin: u16) -> Result<bool, BoardError> {
        self.check(pin)?;
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let offset = u32::from(pin);
        let value = match outputs.get(&pin) {
            Some(held) => held.value(offset),
            None => self.builder(pin).as_is().request().and_then(|held| held.value(offset)),
        };
        value.map(|value| value == Value::Active).map_err(|error| self.refused("read", pin, &error))
    }

    fn write(&self, pin: u16, high: bool) -> Result<(), BoardError> {
        self.check(pin)?;
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let value = if high { Value::Active } else { Value::Inactive };
        let written = match outputs.get(&pin) {
            Some(held) => held.set_value(pin.into(), value),
            None => self.builder(pin).as_output(value).request().map(|held| drop(outputs.insert(pin, held))),
        };
        written.map_err(|error| self.refused("write", pin, &error))
    }

    /// The usual reason is that another program uses the pin.
    fn refused(&self, what: &str, pin: u16, error: &gpiocdev::Error) -> BoardError {
        let line = Chip::from_path(&self.chip).and_then(|chip| chip.line_info(pin.into()));
        BoardError::Refused(match line {
            Ok(line) if line.used => format!("cannot {what} pin {pin}: it is used by {:?}", line.consumer),
            _ => format!("cannot {what} pin {pin}: {error}"),
        })
    }

    fn builder(&self, pin: u16) -> gpiocdev::request::Builder {
        let mut builder = Request::builder();
        builder.on_chip(&self.chip).with_consumer(CONSUMER).with_line(pin.into());
        builder
    }

    fn check(&self, pin: u16) -> Result<(), BoardError> {
        if u32::from(pin) < self.count { Ok(()) } else { Err(BoardError::NoPin { pin, count: self.count }) }
    }
}

impl Led {
    fn set(&self, on: bool) -> Result<(), BoardError> {
        if !self.is_ours.load(Ordering::Relaxed) {
            // Otherwise the kernel continues to blink with it, for the SD card or as a heartbeat. Some LEDs have no
            // trigger.
            let trigger = self.dir.join("trigger");
            if trigger.exists() {
                write(&trigger, "none")?;
            }
            self.is_ours.store(true, Ordering::Relaxed);
        }
        let brightest = fs::read_to_string(self.dir.join("max_brightness")).unwrap_or_else(|_| "1".into());
        write(&self.dir.join("brightness"), if on { brightest.trim() } else { "0" })
    }

    fn is_writable(&self) -> bool {
        fs::OpenOptions::new().write(true).open(self.dir.join("brightness")).is_ok()
    }
}

fn missing(what: &str) -> BoardError {
    BoardError::Missing(what.into())
}

fn label(chip: &Path) -> Option<String> {
    Some(Chip::from_path(chip).ok()?.info().ok()?.label)
}

/// The LED of a Raspberry Pi, or the first one that does not belong to a keyboard.
fn find_led(leds: &Path) -> Option<PathBuf> {
    let names = names(leds);
    let pi = PI_LEDS.iter().find(|led| names.iter().any(|name| name == *led)).map(|led| (*led).to_owned());
    let name = pi.or_else(|| names.into_iter().find(|name| !name.starts_with("input")));
    name.map(|name| leds.join(name))
}

/// The temperature of the processor, or the first one.
fn find_thermometer(thermal: &Path) -> Option<PathBuf> {
    let zones: Vec<PathBuf> = names(thermal).iter().map(|name| thermal.join(name)).collect();
    let measures = |zone: &&PathBuf| number(&zone.join("temp")).is_ok();
    let is_cpu = |zone: &&PathBuf| {
        let kind = fs::read_to_string(zone.join("type")).unwrap_or_default().to_lowercase();
        kind.contains("cpu") || kind.contains("soc")
    };
    let mut measuring = zones.iter().filter(measures);
    let first = measuring.clone().next();
    measuring.find(is_cpu).or(first).map(|zone| zone.join("temp"))
}

fn find_voltmeter(devices: &Path) -> Option<PathBuf> {
    let has_voltage = |dir: &PathBuf| {
        let files = names(dir);
        files.iter().any(|file| file.starts_with("in_voltage") && file.ends_with("_raw"))
    };
    names(devices).iter().map(|name| devices.join(name)).find(has_voltage)
}

/// Millivolts, by the formula of the kernel's Industrial I/O: (raw + offset) × scale.
fn measure(device: &Path, channel: u8) -> Result<i32, BoardError> {
    let raw = device.join(format!("in_voltage{channel}_raw"));
    if !raw.exists() {
        return Err(BoardError::NoChannel(channel));
    }
    let of_channel = |what: &str| number(&device.join(format!("in_voltage{channel}_{what}")));
    let of_all = |what: &str| number(&device.join(format!("in_voltage_{what}")));
    let setting = |what: &str, default: f64| of_channel(what).or_else(|_| of_all(what)).unwrap_or(default);
    Ok(((number(&raw)? + setting("offset", 0.0)) * setting("scale", 1.0)).round() as i32)
}

fn number(file: &Path) -> Result<f64, BoardError> {
    let failed = |why: &dyn std::fmt::Display| BoardError::Refused(format!("cannot read {}: {why}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| failed(&error))?;
    text.trim().parse().map_err(|error| failed(&error))
}

fn write(file: &Path, text: &str) -> Result<(), BoardError> {
    fs::write(file, text).map_err(|error| BoardError::Refused(format!("cannot write {}: {error}", file.display())))
}

/// The paths in a directory, in the order of names. Empty if there is no such directory.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory like `/sys`. It is deleted when the value is dropped.
    struct Sysfs(PathBuf);

    impl Sysfs {
        fn new(name: &str, files: &[(&str, &str)]) -> Sysfs {
            let root = std::env::temp_dir().join(format!("broccoli-sysfs-{name}-{}", std::process::id()));
            // An earlier process with the same id may have left it.
            let _ = fs::remove_dir_all(&root);
            for (file, text) in files {
                let path = root.join(file);
                fs::create_dir_all(path.parent().expect("below the root")).expect("can be made");
                fs::write(path, text).expect("can be written");
            }
            Sysfs(root)
        }

        fn board(&self) -> LinuxBoard {
            LinuxBoard::with_sysfs(Err("not in this test".into()), &self.0)
        }

        fn read(&self, file: &str) -> String {
            fs::read_to_string(self.0.join(file)).expect("is there")
        }
    }

    impl Drop for Sysfs {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_led_of_a_pi_is_taken_from_the_kernel_and_set() {
        let sysfs = Sysfs::new(
            "led",
            &[
                ("class/leds/ACT/brightness", "0"),
                ("class/leds/ACT/max_brightness", "255\n"),
                ("class/leds/ACT/trigger", "[mmc0] none"),
                ("class/leds/AAA/brightness", "0"),
            ],
        );
        let board = sysfs.board();
        assert_eq!(board.capabilities(), [LED]);
        assert_eq!(board.perform(HostCall::LedSet { on: true }), Ok(0));
        assert_eq!(
            (sysfs.read("class/leds/ACT/brightness").as_str(), sysfs.read("class/leds/ACT/trigger").as_str()),
            ("255", "none")
        );
        assert_eq!(board.perform(HostCall::LedSet { on: false }), Ok(0));
        assert_eq!(
            (sysfs.read("class/leds/ACT/brightness"), sysfs.read("class/leds/AAA/brightness")),
            ("0".into(), "0".into())
        );
    }

    #[test]
    fn the_led_of_a_keyboard_is_none() {
        let sysfs = Sysfs::new("keyboard", &[("class/leds/input3::capslock/brightness", "0")]);
        let error = sysfs.board().perform(HostCall::LedSet { on: true }).expect_err("has none");
        assert_eq!(error.to_string(), "this board has no LED");
    }

    #[test]
    fn the_temperature_is_that_of_the_processor() {
        let sysfs = Sysfs::new(
            "thermal",
            &[
                ("class/thermal/thermal_zone0/type", "wifi"),
                ("class/thermal/thermal_zone0/temp", "30000"),
                ("class/thermal/thermal_zone1/type", "cpu-thermal\n"),
                ("class/thermal/thermal_zone1/temp", "48312\n"),
                ("class/thermal/cooling_device0/type", "cpu-fan"),
            ],
        );
        assert_eq!(sysfs.board().capabilities(), [TEMP]);
        assert_eq!(sysfs.board().perform(HostCall::TemperatureRead), Ok(48_312));
    }

    #[test]
    fn voltages_are_scaled_to_millivolts() {
        let sysfs = Sysfs::new(
            "iio",
            &[
                ("bus/iio/devices/iio:device0/in_temp_raw", "7"),
                ("bus/iio/devices/iio:device1/in_voltage0_raw", "1000"),
                ("bus/iio/devices/iio:device1/in_voltage1_raw", "10"),
                ("bus/iio/devices/iio:device1/in_voltage1_offset", "-2"),
                ("bus/iio/devices/iio:device1/in_voltage1_scale", "3"),
                ("bus/iio/devices/iio:device1/in_voltage_scale", "0.1875"),
            ],
        );
        let board = sysfs.board();
        assert_eq!(board.capabilities(), [ADC]);
        assert_eq!(board.perform(HostCall::AdcRead { channel: 0 }), Ok(188));
        assert_eq!(board.perform(HostCall::AdcRead { channel: 1 }), Ok(24));
        assert_eq!(board.perform(HostCall::AdcRead { channel: 2 }), Err(BoardError::NoChannel(2)));
    }

    #[test]
    fn what_is_not_there_says_so() {
        let board = Sysfs::new("nothing", &[]).board();
        assert_eq!(board.capabilities(), [""; 0]);
        let said = |call| board.perform(call).expect_err("is not there").to_string();
        assert_eq!(said(HostCall::GpioRead { pin: 4 }), "this board has no GPIO: not in this test");
        assert_eq!(said(HostCall::AdcRead { channel: 0 }), "this board has no ADC");
        assert_eq!(said(HostCall::TemperatureRead), "this board has no thermometer");
        let other = Gpio::open(Path::new("/dev/null")).expect_err("is another device");
        assert!(other.starts_with("cannot use /dev/null: "), "{other}");
    }
}
