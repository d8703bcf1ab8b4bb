//! Writes an image to a chip over a serial port.

use std::fmt;
use std::io;
use std::path::Path;

use espflash::connection::{Connection, ResetAfterOperation, ResetBeforeOperation};
use espflash::flasher::Flasher;
use espflash::target::ProgressCallbacks;
use serialport::{FlowControl, SerialPortType, UsbPortInfo};

use crate::chip::Chip;
use crate::image::{Image, whole};

/// The speed at which chips answer first.
const BAUD: u32 = 115_200;
/// A speed that every common USB converter supports.
const FAST_BAUD: u32 = 460_800;

/// Why an image was not written to a chip.
#[derive(Debug)]
pub enum PortError {
    /// There is no such port.
    Missing(String),
    /// This user may not use the port, or another program uses it.
    Refused(String, String),
    /// No chip answers, or it is another chip, with the reason.
    NoChip(Chip, String),
    /// The chip has less flash than the image needs. Sizes are in bytes.
    SmallFlash {
        /// The flash of the chip.
        has: usize,
        /// The flash that the partitions need.
        needs: usize,
    },
    /// Writing failed, with the reason.
    Write(String),
}

impl fmt::Display for PortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortError::Missing(port) => write!(f, "there is no serial port {port}: is the board plugged in?"),
            PortError::Refused(port, why) => write!(
                f,
                "cannot open {port} ({why}): does another program use it, or are you not in its group? \
                 (sudo usermod -a -G dialout $USER, then log in again)"
            ),
            PortError::NoChip(chip, why) => {
                write!(f, "no {chip} answers ({why}); hold its button BOOT, press RESET, let go of BOOT, and try again")
            }
            PortError::SmallFlash { has, needs } => {
                write!(f, "the chip has {has} bytes of flash, the image needs {needs}")
            }
            PortError::Write(why) => write!(f, "writing failed: {why}; try again"),
        }
    }
}

impl std::error::Error for PortError {}

/// Writes the whole image, erases the modules on the chip, and starts the chip. `progress` gets the number of pieces
/// that are written, and of all pieces.
///
/// # Errors
/// If the port cannot be used, if it is another chip or has too little flash, or if the written data reads back
/// differently.
pub fn write(image: &Image, port: &str, progress: &mut dyn FnMut(usize, usize)) -> Result<(), PortError> {
    let mut chip = connect(image.chip(), port)?;
    let needs = image.flash_bytes();
    let flash = chip.device_info().map_err(|error| PortError::NoChip(image.chip(), whole(&error)))?.flash_size;
    let has = flash.size() as usize;
    if has < needs {
        return Err(PortError::SmallFlash { has, needs });
    }
    let failed = |error: espflash::Error| PortError::Write(whole(&error));
    if let Some(modules) = image.modules() {
        // Whatever was there before is not of this cluster.
        chip.erase_region(modules.start as u32, modules.len() as u32).map_err(failed)?;
    }
    chip.write_bin_to_flash(0, image.bytes(), &mut Told { progress, total: 0 }).map_err(failed)
}

fn connect(chip: Chip, port: &str) -> Result<Flasher, PortError> {
    let serial = serialport::new(port, BAUD).flow_control(FlowControl::None).open_native();
    let serial = serial.map_err(|error| match error.kind() {
        serialport::ErrorKind::NoDevice | serialport::ErrorKind::Io(io::ErrorKind::NotFound) => {
            PortError::Missing(port.into())
        }
        _ => PortError::Refused(port.into(), error.to_string()),
    })?;
    let (before, after) = (ResetBeforeOperation::default(), ResetAfterOperation::default());
    let connection = Connection::new(serial, usb(port), after, before, BAUD);
    let (stub, verify, skip) = (true, true, false);
    let flasher = Flasher::connect(connection, stub, verify, skip, Some(chip.espflash()), Some(FAST_BAUD));
    flasher.map_err(|error| PortError::NoChip(chip, whole(&error)))
}

/// The USB device of the port. A chip's own USB is reset in another way than a converter.
fn usb(port: &str) -> UsbPortInfo {
    let real = Path::new(port).canonicalize().unwrap_or_else(|_| port.into());
    let ports = serialport::available_ports().unwrap_or_default();
    let found = ports.into_iter().find(|info| Path::new(&info.port_name) == real);
    match found.map(|info| info.port_type) {
        Some(SerialPortType::UsbPort(usb)) => usb,
        _ => UsbPortInfo { vid: 0, pid: 0, serial_number: None, manufacturer: None, product: None },
    }
}

/// Passes on the progress that espflash reports.
struct Told<'p> {
    progress: &'p mut dyn FnMut(usize, usize),
    total: usize,
}

impl ProgressCallbacks for Told<'_> {
    fn init(&mut self, _: u32, total: usize) {
        self.total = total;
        (self.progress)(0, total);
    }

    fn update(&mut self, current: usize) {
        (self.progress)(current, self.total);
    }

    fn verifying(&mut self) {}

    fn finish(&mut self, _: bool) {}
}
