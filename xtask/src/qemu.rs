//! `cargo xtask qemu`: nodes on QEMU's RISC-V machine, as members of a real cluster.
//!
//! This module builds the firmware, writes the settings of each guest, and starts QEMU. All guests use one image; their
//! settings are in memory next to it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Background, command, output, run as run_command, target_dir};
use crate::{Result, in_root, tools};

/// The usage text.
const USAGE: &str = "usage: cargo xtask qemu [--nodes N] [--flash DIR]";

/// The target of the firmware.
pub(crate) const TARGET: &str = "riscv32imac-unknown-none-elf";
/// The program that runs it.
pub(crate) const PROGRAM: &str = "qemu-system-riscv32";
/// A label of all guests.
pub(crate) const LABEL: &str = "qemu";

/// How many guests may run at a time. Each takes about 50 MB.
const NODES_MAX: usize = 64;
/// The address with which a guest reaches 127.0.0.1 of this machine.
const LOOPBACK: &str = "10.0.2.2";
/// Where the firmware looks for its settings: see its `memory.x`.
const SETTINGS_ADDRESS: &str = "0x803ff000";
const SETTINGS_BYTES_MAX: usize = 4_096;
/// The size that QEMU's bank of flash must have.
const FLASH_BYTES: u64 = 32 << 20;
/// Longest time between two lines of a guest.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Builds the firmware, starts guests, shows what they print and waits until all have ended.
///
/// # Errors
/// A setting is missing, the firmware does not build, or a guest fails.
pub(crate) fn run(args: &[String]) -> Result {
    let (nodes, folder) = options(args)?;
    let place = Place::of_environment()?;
    let firmware = build()?;
    if let Some(folder) = &folder {
        fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    }
    let start = |number| {
        let name = format!("guest-{number}");
        let flash = folder.as_ref().map(|folder| folder.join(format!("{name}.flash")));
        Guest::start(&firmware, &place, &name, "", flash.as_deref()).map(|guest| (name, guest))
    };
    let guests = (1..=nodes).map(start).collect::<Result<Vec<_>>>()?;
    // Started from this thread: guests end with it.
    let watch = |(name, guest): (String, Guest)| thread::spawn(move || watch(&name, guest));
    let watches: Vec<_> = guests.into_iter().map(watch).collect();
    let ends = watches.into_iter().map(|watch| watch.join().unwrap_or(Err("a guest was lost".into())));
    ends.fold(Ok(()), Result::and)
}

/// The number of guests, and the directory of their flash.
fn options(args: &[String]) -> Result<(usize, Option<PathBuf>)> {
    let (mut nodes, mut folder) = (1, None);
    for option in args.chunks(2) {
        match option {
            [flag, number] if flag == "--nodes" => nodes = number.parse().unwrap_or(0),
            // QEMU runs in another folder.
            [flag, path] if flag == "--flash" => folder = std::path::absolute(path).ok(),
            _ => return Err(USAGE.into()),
        }
    }
    if (1..=NODES_MAX).contains(&nodes) {
        Ok((nodes, folder))
    } else {
        Err(format!("{USAGE}, N from 1 to {NODES_MAX}"))
    }
}

/// Shows what a guest prints until it ends.
fn watch(name: &str, mut guest: Guest) -> Result {
    while let Some(line) = guest.process.line(Instant::now() + PATIENCE) {
        // The guest has read its settings, and this program may be killed later.
        guest.remove_files();
        println!("[{name}] {line}");
    }
    match guest.process.succeeds(Instant::now() + PATIENCE) {
        Some(true) => Ok(()),
        _ => Err(format!("{name} has failed")),
    }
}

/// Builds the firmware, and returns its path.
///
/// # Errors
/// Something is missing, or it does not compile.
pub(crate) fn build() -> Result<PathBuf> {
    tools::rust_targets(&[TARGET])?;
    let target = target_dir()?;
    // Show Cargo's output.
    eprintln!("building the node for QEMU's RISC-V machine: some minutes at the first time");
    let mut cargo = command("cargo");
    cargo.current_dir(in_root("firmware/qemu-virt"));
    run_command(cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(&target))?;
    Ok(target.join(TARGET).join("release/qemu-virt"))
}

/// The output of a program that runs alone on the machine until it stops the machine. Each instruction takes one
/// nanosecond there.
///
/// # Errors
/// It fails.
pub(crate) fn counted(program: &Path) -> Result<String> {
    let mut qemu = command("timeout");
    qemu.args(["60", PROGRAM, "-M", "virt", "-m", "8M", "-bios", "none", "-icount", "shift=0"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-kernel"]).arg(program);
    output(&mut qemu).ok_or_else(|| format!("{} fails, or takes more than a minute", program.display()))
}

/// The cluster that guests join, and where.
pub(crate) struct Place {
    cluster: String,
    key: String,
    deploy_public: String,
    /// Its host and port, as a guest reaches them.
    server: String,
    credentials: Option<(String, String)>,
}

impl Place {
    /// From a cluster file and the URL of a server. Without a URL it takes the one in the file, or this machine.
    ///
    /// # Errors
    /// The file cannot be read or is another, or the URL is none.
    pub(crate) fn new(file: &Path, url: Option<&str>) -> Result<Place> {
        let text = fs::read_to_string(file).map_err(|error| {
            format!(
                "{}: {error}; make a cluster with `broccoli up`, or name its file in BROCCOLI_CLUSTER",
                file.display()
            )
        })?;
        let field = |name| field(&text, name).map(str::to_owned);
        let needed = |name| field(name).ok_or_else(|| format!("{} is not a cluster file: no {name:?}", file.display()));
        let in_file = field("server");
        let url = url.or(in_file.as_deref()).unwrap_or("mqtt://127.0.0.1");
        let (server, credentials) =
            server(url).ok_or_else(|| format!("{url:?} is not mqtt://user:password@host:port"))?;
        Ok(Place {
            cluster: needed("cluster")?,
            key: needed("key")?,
            deploy_public: needed("deploy_public")?,
            server,
            credentials,
        })
    }

    fn of_environment() -> Result<Place> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let folder = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let folder = folder.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
        let default = || folder.map(|folder| folder.join("broccoli/cluster.json"));
        let file = variable("BROCCOLI_CLUSTER").map(PathBuf::from).or_else(default);
        let file = file.ok_or("there is no home directory: name the cluster file in BROCCOLI_CLUSTER")?;
        let of_up = || left_by_up(&fs::read_to_string(&file).ok()?, &fs::read_to_string(beside(&file)).ok()?);
        Place::new(&file, variable("BROCCOLI_SERVER").or_else(of_up).as_deref())
    }

    /// The settings that a guest reads at its start: see `settings.rs` of broccoli-embassy.
    fn settings(&self, name: &str, more: &str) -> String {
        let Place { cluster, key, deploy_public, server, credentials } = self;
        let credentials = credentials.as_ref();
        let credentials = credentials.map(|(user, password)| format!("user={user}\npassword={password}\n"));
        format!(
            "broccoli settings 1\nname={name}\nserver={server}\ncluster={cluster}\nkey={key}\n\
             deploy_public={deploy_public}\nlabel={LABEL}\n{}{more}",
            credentials.unwrap_or_default()
        )
    }
}

/// Where `broccoli up` leaves its address: see `connect.rs` of broccoli-cli.
fn beside(cluster_file: &Path) -> PathBuf {
    let mut name = cluster_file.as_os_str().to_owned();
    name.push(".up");
    name.into()
}

/// The server of this cluster's `broccoli up`, if it runs here.
fn left_by_up(cluster: &str, left: &str) -> Option<String> {
    let runs = Path::new("/proc").join(field(left, "pid")?).exists();
    let is_ours = field(left, "cluster")? == field(cluster, "cluster")?;
    field(left, "server").filter(|_| runs && is_ours).map(str::to_owned)
}

/// A machine that runs a node. It ends with the value, and with this program.
pub(crate) struct Guest {
    pub(crate) process: Background,
    /// Files that are no longer needed once QEMU has opened them.
    files: Vec<PathBuf>,
}

impl Guest {
    /// Starts the firmware as the node `name`. `more` has additional lines of its settings. Its flash is in the file
    /// `flash`, which is made if it does not exist. Without a file, the guest has an empty flash that ends with it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(firmware: &Path, place: &Place, name: &str, more: &str, flash: Option<&Path>) -> Result<Guest> {
        let text = place.settings(name, more);
        if text.len() > SETTINGS_BYTES_MAX {
            return Err(format!("settings of more than {SETTINGS_BYTES_MAX} bytes"));
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = |kind: &str| -> Result<PathBuf> {
            Ok(target_dir()?.join(format!("guest-{}-{number}.{kind}", std::process::id())))
        };
        let settings = file("settings")?;
        let mut files = vec![settings.clone()];
        let flash = match flash {
            Some(flash) => flash.to_owned(),
            None => {
                files.push(file("flash")?);
                file("flash")?
            }
        };
        let cannot = |path: &Path, error| format!("cannot write {}: {error}", path.display());
        write_private(&settings, &text).map_err(|error| cannot(&settings, error))?;
        make_flash(&flash).map_err(|error| cannot(&flash, error))?;
        // However this program ends, its guests end, too.
        let mut qemu = command("setpriv");
        qemu.args(["--pdeathsig", "KILL", PROGRAM, "-M", "virt", "-m", "8M", "-bios", "none"]);
        qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
        qemu.args(["-global", "virtio-mmio.force-legacy=false", "-device", "virtio-rng-device"]);
        qemu.args(["-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net", "-drive"]);
        qemu.arg(format!("if=pflash,unit=1,format=raw,file={}", flash.display())).arg("-device");
        qemu.arg(format!("loader,file={},addr={SETTINGS_ADDRESS},force-raw=on", settings.display()));
        // Not as a kernel: with a flash, QEMU would start the content of the flash.
        qemu.arg("-device").arg(format!("loader,file={},cpu-num=0", firmware.display()));
        let process = Background::start(&mut qemu)?;
        Ok(Guest { process, files })
    }
}

impl Guest {
    /// Removes the files. QEMU has read or opened them once it prints something, also for restarts of the machine.
    fn remove_files(&mut self) {
        for file in self.files.drain(..) {
            // It may already be removed.
            let _ = fs::remove_file(file);
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.remove_files();
    }
}

/// Makes a file that is as long as a bank of flash. It uses disk space only where it is written.
fn make_flash(path: &Path) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?.set_len(FLASH_BYTES)
}

/// Writes a file that only its owner can read, because it contains the key of the cluster.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    // A file of an earlier process with this id.
    let _ = fs::remove_file(path);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// A text field of the flat JSON object that a cluster file is.
fn field<'t>(json: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = json.split_once(&format!("\"{name}\""))?;
    rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()
}

/// Host and port of an MQTT URL as a guest reaches them, and user and password.
fn server(url: &str) -> Option<(String, Option<(String, String)>)> {
    let rest = url.strip_prefix("mqtt://")?.trim_end_matches('/');
    let (credentials, address) = match rest.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials.split_once(':')?), address),
        None => (None, rest),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()?),
        _ => (address, 1883),
    };
    let host = if ["localhost", "127.0.0.1", "[::1]"].contains(&host) { LOOPBACK } else { host };
    let decoded = match credentials {
        Some((user, password)) => Some((percent_decoded(user)?, percent_decoded(password)?)),
        None => None,
    };
    Some((format!("{host}:{port}"), decoded))
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(part[2..].bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_as_guests_reach_them() {
        let plain = |url| server(url).map(|(server, _)| server);
        assert_eq!(plain("mqtt://127.0.0.1:1884").as_deref(), Some("10.0.2.2:1884"));
        assert_eq!(plain("mqtt://localhost/").as_deref(), Some("10.0.2.2:1883"));
        assert_eq!(plain("mqtt://[::1]:7").as_deref(), Some("10.0.2.2:7"));
        assert_eq!(plain("mqtt://pi.local:7").as_deref(), Some("pi.local:7"));
        assert_eq!(plain("http://pi.local"), None);
        assert_eq!(plain("mqtt://pi.local:x"), None);
        let credentials = Some(("a b".to_owned(), "p@:".to_owned()));
        assert_eq!(server("mqtt://a%20b:p%40%3a@h:1"), Some(("h:1".to_owned(), credentials)));
    }

    #[test]
    fn what_a_running_up_has_left_is_found() {
        let left = |cluster: &str, pid: u32| {
            format!("{{\"cluster\": \"{cluster}\", \"pid\": \"{pid}\", \"server\": \"mqtt://127.0.0.1:7\"}}")
        };
        let found = |cluster, pid| left_by_up("{\"cluster\": \"c1\"}", &left(cluster, pid));
        assert_eq!(found("c1", std::process::id()).as_deref(), Some("mqtt://127.0.0.1:7"));
        assert_eq!(found("c2", std::process::id()), None);
        // No process has this id.
        assert_eq!(found("c1", u32::MAX), None);
    }

    #[test]
    fn options_of_the_command_are_read() {
        let read = |line: &str| options(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(read(""), Ok((1, None)));
        assert_eq!(read("--flash /tmp/x --nodes 3"), Ok((3, Some("/tmp/x".into()))));
        for wrong in ["--nodes", "--nodes 0", "--nodes 65", "--nodes x", "--flash", "3"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fields_of_a_cluster_file_are_found() {
        let json = "{\n  \"cluster\": \"c1\",\n  \"deploy_public\" : \"0f\"\n}\n";
        assert_eq!((field(json, "cluster"), field(json, "deploy_public")), (Some("c1"), Some("0f")));
        assert_eq!(field(json, "server"), None);
    }
}
