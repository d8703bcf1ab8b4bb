//! `cargo xtask qemu`: nodes on microcontrollers that QEMU emulates, as members of a real cluster.
//!
//! This module writes the settings of each guest, and starts it. All guests with the same kind of core use one image;
//! their settings are in memory next to it.

pub(crate) mod core;
mod place;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use self::core::{Core, Firmware, TARGET, XTENSA_FIRMWARE, xtensa_cargo};
pub(crate) use self::place::{LABEL, Place};
use crate::Result;
use crate::process::{Background, command, target_dir};

/// The usage text.
const USAGE: &str = "usage: cargo xtask qemu [--core NAME] [--nodes N] [--flash DIR]";

/// How many guests may run at a time. Each takes about 50 MB, with an Xtensa core 180 MB.
const NODES_MAX: usize = 64;
const SETTINGS_BYTES_MAX: usize = 4_096;
/// Longest time between two lines of a guest.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    core: Core,
    nodes: usize,
    /// The directory of the guests' flash.
    folder: Option<PathBuf>,
}

/// Builds the firmware, starts guests, shows what they print and waits until all have ended.
///
/// # Errors
/// A setting is missing, the firmware does not build, or a guest fails.
pub(crate) fn run(args: &[String]) -> Result {
    let Options { core, nodes, folder } = options(args)?;
    let place = Place::of_environment()?;
    let firmware = core.build()?;
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

/// Reads the command line.
fn options(args: &[String]) -> Result<Options> {
    let mut options = Options { core: Core::Imac, nodes: 1, folder: None };
    for option in args.chunks(2) {
        match option {
            [flag, name] if flag == "--core" => options.core = Core::parse(name)?,
            [flag, number] if flag == "--nodes" => options.nodes = number.parse().unwrap_or(0),
            // QEMU runs in another folder.
            [flag, path] if flag == "--flash" => options.folder = std::path::absolute(path).ok(),
            _ => return Err(USAGE.into()),
        }
    }
    if (1..=NODES_MAX).contains(&options.nodes) {
        Ok(options)
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
    pub(crate) fn start(
        firmware: &Firmware,
        place: &Place,
        name: &str,
        more: &str,
        flash: Option<&Path>,
    ) -> Result<Guest> {
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
        make_flash(&flash, firmware.core.flash_bytes()).map_err(|error| cannot(&flash, error))?;
        // However this program ends, its guests end, too.
        let mut qemu = command("setpriv");
        qemu.args(["--pdeathsig", "KILL"]);
        firmware.add_machine(&mut qemu, &settings, &flash);
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

/// Makes a file with the length of a flash. It uses disk space only where it is written.
fn make_flash(path: &Path, bytes: u64) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?.set_len(bytes)
}

/// Writes a file that only its owner can read, because it contains the key of the cluster.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    // A file of an earlier process with this id.
    let _ = fs::remove_file(path);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_command_are_read() {
        let read = |line: &str| options(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(read(""), Ok(Options { core: Core::Imac, nodes: 1, folder: None }));
        let all = Options { core: Core::Imac, nodes: 3, folder: Some("/tmp/x".into()) };
        assert_eq!(read("--flash /tmp/x --nodes 3 --core imac"), Ok(all));
        let xtensa = Options { core: Core::Xtensa, nodes: 1, folder: None };
        assert_eq!(read("--core xtensa"), Ok(xtensa));
        for wrong in ["--nodes", "--nodes 0", "--nodes 65", "--nodes x", "--flash", "3", "--core", "--core z80"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
