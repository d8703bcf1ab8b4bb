//! The journal of a durable node: a [`Log`] in a directory that belongs to one node, and the thread
//! that writes it.
//!
//! ```text
//! DIR/journal/lock              held while the node runs
//! DIR/journal/owner             whose journal this is: "cluster-id node-name"
//! DIR/journal/00000001.log …    see `log.rs`
//! DIR/journal/damaged/…         what could not be read, as it was found
//! ```
//!
//! It knows keys and bytes; what they mean is the core's matter.

mod log;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use broccoli_core::{RecordKey, Write};
use broccoli_proto::NodeId;
use tokio::sync::mpsc::UnboundedSender;

pub use self::log::Log;
use crate::executor::Report;

/// Pause before a write that has failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Why a journal cannot be used.
#[derive(Debug)]
pub enum JournalError {
    /// A file or directory cannot be made, read or written.
    Io(PathBuf, io::Error),
    /// Another running node uses it.
    InUse(PathBuf),
    /// It was written by another node; the texts say by which, and which one this is.
    Foreign(PathBuf, String, String),
    /// Written by a program that knows another version; the numbers are that version and the one known here.
    Version(PathBuf, u32, u32),
    /// What is in it was written by a program that knows other records.
    Records(broccoli_core::OtherVersion),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ELSE: &str = "give another directory with --data, or run the program that wrote it";
        match self {
            JournalError::Io(path, error) if error.kind() == io::ErrorKind::StorageFull => {
                write!(f, "no space left for the journal in {}: free some, or give another directory", path.display())
            }
            JournalError::Io(path, error) => write!(f, "cannot use {} for the journal: {error}", path.display()),
            JournalError::InUse(path) => write!(
                f,
                "another running node uses {}: stop it, or give this node a directory of its own with --data",
                path.display()
            ),
            JournalError::Foreign(path, theirs, mine) => write!(
                f,
                "{} is the journal of {theirs}, this is {mine}: give this node a directory of its own with --data",
                path.display()
            ),
            JournalError::Version(path, found, known) => {
                write!(f, "{} has version {found}, this program knows version {known}: {ELSE}", path.display())
            }
            JournalError::Records(error) => write!(f, "{error}: {ELSE}"),
        }
    }
}

impl std::error::Error for JournalError {}

/// An opened journal.
pub(crate) struct Journal {
    log: Log,
    lock: Lock,
}

/// The directory is this node's as long as this lives.
struct Lock(File);

/// Closing the file would not do: a process that was forked a moment ago may still hold a copy of it.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// The thread that writes.
pub(crate) struct Writer {
    writes: Option<mpsc::Sender<(u64, Vec<Write>)>>,
    thread: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal in `data`, or makes a new one. Also says what is damaged in it.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub(crate) fn open(data: &Path, cluster: &str, node: NodeId) -> Result<(Journal, Vec<String>), JournalError> {
        let dir = data.join("journal");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| JournalError::Io(path, error)
        };
        fs::create_dir_all(&dir).map_err(io(&dir))?;
        let path = dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::InUse(dir.clone()),
            TryLockError::Error(error) => JournalError::Io(path.clone(), error),
        })?;
        own(&dir, &format!("{cluster} {node}"))?;
        let (log, damaged) = Log::open(&dir)?;
        Ok((Journal { log, lock: Lock(lock) }, damaged))
    }

    /// All records, in order of their keys.
    pub(crate) fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + '_ {
        self.log.records()
    }

    /// Starts the thread that writes. It reports each write that is safe, and when it cannot write.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(self, reports: UnboundedSender<Report>) -> io::Result<Writer> {
        let (sender, writes) = mpsc::channel::<(u64, Vec<Write>)>();
        let Journal { mut log, lock } = self;
        let run = move || {
            // Held until the last write is done.
            let _lock = lock;
            while let Ok((number, batch)) = writes.recv() {
                let safe = insist(&reports, || log.commit(&batch)) && reports.send(Report::Persisted(number)).is_ok();
                if !(safe && insist(&reports, || log.make_room())) {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("journal".into()).spawn(run)?;
        Ok(Writer { writes: Some(sender), thread: Some(thread) })
    }
}

impl Writer {
    /// Writes these changes after those that were handed over before.
    pub(crate) fn write(&self, number: u64, writes: Vec<Write>) {
        if let Some(sender) = &self.writes {
            // The thread ends only with the node.
            let _ = sender.send((number, writes));
        }
    }
}

/// What was handed over is written before the node is gone.
impl Drop for Writer {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Tries until it works, or nobody listens any more. Returns whether it worked.
fn insist(reports: &UnboundedSender<Report>, mut work: impl FnMut() -> io::Result<()>) -> bool {
    let mut failed = false;
    loop {
        match work() {
            Ok(()) if failed => return reports.send(Report::Stalled(None)).is_ok(),
            Ok(()) => return true,
            Err(error) if !failed && reports.send(Report::Stalled(Some(error.to_string()))).is_err() => return false,
            Err(_) => failed = true,
        }
        if reports.is_closed() {
            return false;
        }
        thread::sleep(AGAIN);
    }
}

/// Makes a new journal this node's own; refuses that of another one.
fn own(dir: &Path, me: &str) -> Result<(), JournalError> {
    let path = dir.join("owner");
    let io = |error| JournalError::Io(path.clone(), error);
    match fs::read_to_string(&path) {
        Ok(owner) if owner.trim() == me => Ok(()),
        Ok(owner) => Err(JournalError::Foreign(dir.to_owned(), owner.trim().to_owned(), me.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = dir.join("owner.new");
            fs::write(&temporary, me).map_err(io)?;
            File::open(&temporary).and_then(|file| file.sync_all()).map_err(io)?;
            fs::rename(&temporary, &path).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}
