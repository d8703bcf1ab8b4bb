//! `broccoli flash`: writes the firmware to a microcontroller, so that it joins the cluster as a node.

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use broccoli_flash::port::{self, PortError};
use broccoli_flash::{Board, Chip, Image, Led, Settings};
use broccoli_node::Cluster;
use broccoli_node::NodeId;
use broccoli_node::cluster::random;

use crate::connect::{Common, variable};
use crate::exit::Failure;
use crate::output::{self, Progress};
use crate::resident::label;

/// The chip, its port, and the settings of its node.
#[derive(clap::Args)]
pub(crate) struct FlashArgs {
    /// Type of the chip: esp32, esp32s3, esp32c3 or esp32c6
    #[arg(long, required_unless_present = "board")]
    chip: Option<Chip>,
    /// Name of the board, which says its chip and its LED, such as esp32c6-devkit; docs/microcontrollers.md lists them
    #[arg(long, value_name = "NAME", conflicts_with = "chip")]
    board: Option<Board>,
    /// Serial port of the board, such as /dev/ttyUSB0 or /dev/ttyACM0
    #[arg(long, required_unless_present = "image_only")]
    port: Option<String>,
    /// Name of the Wi-Fi network
    #[arg(long)]
    ssid: String,
    /// Password of the Wi-Fi network, "" for an open network; if it is not set, the command asks for it
    /// [env: BROCCOLI_WIFI_PASSWORD]
    #[arg(long)]
    password: Option<String>,
    /// Name of the node, unique in the cluster; default: the chip and a random number
    #[arg(long)]
    name: Option<NodeId>,
    /// Label (room=kitchen) or capability that jobs can require with .set(on=…); repeatable
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<String>,
    /// Allow tasks to call sys.reboot
    #[arg(long)]
    allow_reboot: bool,
    /// Pin of the LED, such as 15; 8,low if it is on while the pin is low; 48,colour for an addressable RGB LED; default:
    /// that of the board, or the LED of Espressif's board with this chip
    #[arg(long, value_name = "PIN")]
    led: Option<Led>,
    /// Firmware to write; default: dist/broccoli-CHIP.bin, which `cargo xtask firmware --chip CHIP` builds
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Write the image with the settings to a file instead, for other tools; it belongs at address 0, and contains the
    /// key of the cluster
    #[arg(long, value_name = "FILE", conflicts_with = "port")]
    image_only: Option<PathBuf>,
}

/// Writes the firmware and the settings of a node to a chip or a file.
///
/// # Errors
/// Exit code 2 for errors that are found before anything is written.
pub(crate) fn run(common: &Common, args: FlashArgs) -> Result<(), Failure> {
    let chip = args.board.map(|board| board.chip).or(args.chip);
    let chip = chip.ok_or_else(|| Failure::usage("name the board with --board, or its chip with --chip"))?;
    let led = args.led.or(args.board.map(|board| board.led));
    if let Some(led) = led.filter(|led| !chip.pins().contains(&led.pin)) {
        return Err(Failure::usage(format_args!(
            "{chip} has no pin {} for a LED: use one of {}",
            led.pin,
            chip.pins().iter().map(u8::to_string).collect::<Vec<_>>().join(", ")
        )));
    }
    let cluster = common.cluster()?;
    let mut image = read(chip, args.image.as_deref())?;
    let settings = Settings { led, ..settings(common, &cluster, chip, &args)? };
    let text = settings.text().map_err(Failure::usage)?;
    image.set_settings(&text).map_err(Failure::usage)?;
    let (host, port) = &settings.server;
    let what = format!("{}  {chip}  cluster {}  mqtt://{host}:{port}", settings.name, settings.cluster);
    match (args.image_only, args.port) {
        (Some(file), _) => {
            write_private(&file, image.bytes())
                .map_err(|error| Failure::usage(format_args!("cannot write {}: {error}", file.display())))?;
            output::print(format_args!("{what}  in {}, for address 0", file.display()))
        }
        (None, port) => {
            let port = port.unwrap_or_default();
            write_chip(&image, &port)?;
            output::print(format_args!("{what}  on {port}; `broccoli nodes` shows it in a few seconds"))
        }
    }
}

/// Reads the firmware.
fn read(chip: Chip, file: Option<&Path>) -> Result<Image, Failure> {
    let default = || PathBuf::from(format!("dist/broccoli-{chip}.bin"));
    let path = file.map_or_else(default, PathBuf::from);
    let bytes = fs::read(&path).map_err(|error| {
        Failure::usage(format_args!(
            "cannot read the firmware {}: {error}; build it with `cargo xtask firmware --chip {chip}`, or name another \
             file with --image",
            path.display()
        ))
    })?;
    Image::parse(chip, bytes).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
}

fn settings(common: &Common, cluster: &Cluster, chip: Chip, args: &FlashArgs) -> Result<Settings, Failure> {
    let server = common.server_for_others(cluster);
    let owned = |(user, password): (&str, &str)| (user.to_owned(), password.to_owned());
    Ok(Settings {
        name: args.name.map_or_else(|| new_name(chip), Ok)?,
        ssid: args.ssid.clone(),
        wifi_password: wifi_password(args)?,
        server: (server.host().to_owned(), server.port()),
        credentials: server.credentials().map(owned),
        cluster: cluster.id,
        key: cluster.key.clone(),
        deploy_public: cluster.deploy_public,
        labels: args.labels.clone(),
        reboots: args.allow_reboot,
        led: None,
    })
}

/// A name that is very probably unique in the cluster.
fn new_name(chip: Chip) -> Result<NodeId, Failure> {
    let [a, b, c] = random().map_err(Failure::failed)?;
    let name = format!("{chip}-{a:02x}{b:02x}{c:02x}");
    name.parse().map_err(|_| Failure::failed(format_args!("{name} is not a valid node name: choose one with --name")))
}

/// The password from the command line or the environment, else from a prompt. An empty variable counts as not set.
fn wifi_password(args: &FlashArgs) -> Result<String, Failure> {
    let of_environment = || variable("BROCCOLI_WIFI_PASSWORD")?.into_string().ok();
    args.password.clone().or_else(of_environment).map_or_else(|| ask_password(&args.ssid), Ok)
}

fn ask_password(ssid: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "the password of the Wi-Fi network is missing: set --password or BROCCOLI_WIFI_PASSWORD; for an open \
             network, use --password \"\"",
        ));
    }
    let asked = rpassword::prompt_password(format!("password of {ssid} (empty for an open network): "));
    asked.map_err(|error| Failure::usage(format_args!("cannot read the password: {error}")))
}

fn write_chip(image: &Image, port: &str) -> Result<(), Failure> {
    let (start, mut progress) = (Instant::now(), Progress::new());
    let written = port::write(image, port, &mut |done, total| {
        let count = |pieces| u32::try_from(pieces).unwrap_or(u32::MAX);
        progress.set(count(done), count(total));
        progress.draw(start.elapsed());
    });
    progress.clear();
    written.map_err(|error| match error {
        PortError::Missing(_) | PortError::Refused(..) => Failure::usage(error),
        PortError::NoChip(..) | PortError::SmallFlash { .. } | PortError::Write(_) => Failure::failed(error),
    })
}

/// Writes a file that only its owner can read. Replaces an existing file.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}
