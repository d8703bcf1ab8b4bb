//! Child processes: started in the clone, without standard input, and never left behind.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Result, root};

/// `program`, to be run in the clone.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// Cargo with arguments that contain no spaces, to be run in the clone.
pub(crate) fn cargo(args: &str) -> Command {
    let mut cargo = command("cargo");
    cargo.args(args.split_whitespace());
    cargo
}

/// The directory into which Cargo has built this program, and into which it builds the others.
///
/// # Errors
/// This program was moved elsewhere.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let here = std::env::current_exe().ok();
    let dir = here.as_deref().and_then(|exe| exe.parent()?.parent());
    dir.map(PathBuf::from).ok_or_else(|| "cannot tell the target folder: start this with `cargo xtask`".into())
}

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or ends with a failure.
pub(crate) fn run(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed", line(command))) }
}

/// Runs a command in place of this program, so that it gets the signals.
///
/// # Errors
/// It cannot be started.
pub(crate) fn replace(command: &mut Command) -> Result {
    let error = command.stdin(Stdio::inherit()).exec();
    Err(cannot_start(command, &error))
}

/// What a command prints, or nothing if it fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).output().ok()?;
    if output.status.success() { String::from_utf8(output.stdout).ok() } else { None }
}

/// A command that runs in the background. The command and its children end with the value.
pub(crate) struct Background {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Background {
    /// Starts it in its own process group.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.process_group(0).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| cannot_start(command, &error))?;
        let (send, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || read_lines(stdout).try_for_each(|line| send.send(line)));
        }
        Ok(Self { name: line(command), child, lines })
    }

    /// The next line that it prints. `None` if there are no more, or at `deadline`.
    pub(crate) fn line(&self, deadline: Instant) -> Option<String> {
        self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    }

    /// The first line with `part` that it prints within `patience`.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn line_with(&self, part: &str, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        while let Some(line) = self.line(deadline) {
            if line.contains(part) {
                return Ok(line);
            }
        }
        Err(format!("`{}` printed nothing with {part:?} in {} s", self.name, patience.as_secs()))
    }

    /// The first line that it prints within `patience`, after it has succeeded.
    ///
    /// # Errors
    /// It prints nothing, fails, or takes longer.
    pub(crate) fn answer(mut self, patience: Duration) -> Result<String> {
        let deadline = Instant::now() + patience;
        let answer = self.line(deadline);
        match (self.succeeds(deadline), answer) {
            (Some(true), Some(answer)) => Ok(answer),
            (Some(_), _) => Err(format!("`{}` failed", self.name)),
            (None, _) => Err(format!("`{}` did not end in {} s", self.name, patience.as_secs())),
        }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by its name, such as `STOP`.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn signal(&mut self, name: &str) -> Result {
        // Only before it was waited for is its process id certain to be its own.
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(format!("`{}` has ended with {status}", self.name));
        }
        run(command("kill").args(["-s", name, &self.child.id().to_string()]))
    }

    /// Kills it, as a power cut would, and waits until it is gone.
    ///
    /// # Errors
    /// It had ended before.
    pub(crate) fn kill(&mut self) -> Result {
        self.signal("KILL")?;
        self.child.wait().map(drop).map_err(|error| error.to_string())
    }

    /// Whether it succeeds. `None` if it still runs at `deadline`.
    pub(crate) fn succeeds(&mut self, deadline: Instant) -> Option<bool> {
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status.success());
            }
            thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Only before it was waited for is the group id certain to be its own.
        if let Ok(None) = self.child.try_wait() {
            let group = format!("-{}", self.child.id());
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = self.child.wait();
        }
    }
}

/// The lines of a stream, whatever bytes they contain.
pub(crate) fn read_lines(stream: impl Read) -> impl Iterator<Item = String> {
    let mut stream = BufReader::new(stream);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        match stream.read_until(b'\n', &mut line) {
            Ok(1..) => Some(String::from_utf8_lossy(&line).trim_end().to_owned()),
            _ => None,
        }
    })
}

/// A command as a user would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command, error: &std::io::Error) -> String {
    format!("cannot run `{}`: {error}", line(command))
}
