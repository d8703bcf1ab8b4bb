//! The journal of a durable node: a [`Log`] in a directory that belongs to one node, and the thread that writes it.
//!
//! ```text
//! DIR/journal/lock              held while the node runs
//! DIR/journal/owner             the owner of the journal: "cluster-id node-name"
//! DIR/journal/00000001.log …    see `log.rs`
//! DIR/journal/damaged/…         copies of damaged segments
//! ```
//!
//! Only the owner of the files can read them. A journal that cannot be used is not changed.
//!
//! Only Unix systems have a journal. On others, `elsewhere.rs` takes the place of `log.rs`, and refuses.
//!
//! It stores keys and bytes. Their meaning is defined by the core.

#[cfg_attr(not(unix), path = "journal/elsewhere.rs")]
mod log;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, io};

pub use broccoli_core::{RecordBytes, RecordKey, Write};
use broccoli_proto::NodeId;
use tokio::sync::mpsc::UnboundedSender;

pub use self::log::{Found, Log};
use crate::executor::Report;
use crate::private;

/// Pause before a failed write is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often to check whether the thread has ended, while waiting for it.
const LOOK: Duration = Duration::from_millis(2);
/// How long a node that ends without a goodbye waits for the thread.
const DROP_MAX: Duration = Duration::from_secs(2);
/// The error if the limit of file sizes is too low.
const FILE_LIMIT: &str = "the limit of file sizes is too low: raise it (ulimit -f) and start the node again";

/// Whether a node can keep a journal on this system.
pub const SUPPORTED: bool = cfg!(unix);

/// Why a journal cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum JournalError {
    /// A file or directory cannot be created, read or written.
    Io(PathBuf, io::Error),
    /// Another running node uses it.
    InUse(PathBuf),
    /// Another node wrote it. The texts are the name of that node, and of this one.
    Foreign(PathBuf, String, String),
    /// A program with another version of the format wrote it. The numbers are that version, and the newest one that is
    /// known here.
    Version(PathBuf, u32, u32),
    /// Nodes keep no journal on this system, which the text names.
    Unsupported(&'static str),
    /// A program that knows other records wrote it.
    Records(broccoli_core::OtherVersion),
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Io(path, error) if error.kind() == io::ErrorKind::StorageFull => {
                write!(f, "no space left for the journal in {}: free some, or give another directory", path.display())
            }
            JournalError::Io(path, error) if error.kind() == io::ErrorKind::FileTooLarge => {
                write!(f, "cannot use {} for the journal: {FILE_LIMIT}", path.display())
            }
            JournalError::Io(path, error) => write!(f, "cannot use {} for the journal: {error}", path.display()),
            JournalError::InUse(path) => write!(f, "another running node uses {}", path.display()),
            JournalError::Foreign(path, theirs, mine) => {
                write!(f, "{} is the journal of {theirs}, this is {mine}", path.display())
            }
            JournalError::Unsupported(system) => {
                write!(f, "a node keeps a journal on Linux and other Unix systems only, not on {system}")
            }
            JournalError::Version(path, found, known) => {
                write!(f, "{} has version {found}, this program reads up to version {known}", path.display())
            }
            JournalError::Records(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            JournalError::Io(_, error) => Some(error),
            JournalError::Records(error) => Some(error),
            JournalError::InUse(_)
            | JournalError::Foreign(..)
            | JournalError::Version(..)
            | JournalError::Unsupported(_) => None,
        }
    }
}

/// The journal of the last incarnation. Nothing in it was changed.
pub(crate) struct Journal {
    dir: PathBuf,
    found: Found,
    lock: Lock,
}

/// A journal that is ready to write.
pub(crate) struct Opened {
    log: Log,
    lock: Lock,
}

/// The lock on the directory. It is released when this is dropped.
struct Lock(File);

/// Closing the file is not enough: a process that was forked a moment ago may still have a copy of it.
impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// The thread that writes the journal.
pub(crate) struct Writer {
    writes: Option<mpsc::Sender<(u64, Vec<Write>)>>,
    thread: Option<JoinHandle<Option<Unwritten>>>,
    leaving: Arc<Leaving>,
}

/// What a node has not written when it ends.
pub(crate) struct Unwritten {
    /// The reason.
    pub(crate) why: String,
    /// The jobs of these records.
    pub(crate) jobs: BTreeSet<u64>,
}

/// Whether the node is about to end. Then failed writes are not repeated without end.
#[derive(Default)]
struct Leaving {
    told: Mutex<bool>,
    changed: Condvar,
}

impl Leaving {
    fn tell(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for a time, or until the node is about to end. Returns whether it is.
    fn wait(&self, pause: Duration) -> bool {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(told, pause, |told| !*told);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Journal {
    /// Reads the journal in `data`, or creates a directory for a new one.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub(crate) fn open(data: &Path, cluster: &str, node: NodeId) -> Result<Journal, JournalError> {
        let dir = data.join("journal");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |error| JournalError::Io(path, error)
        };
        log::prepare(&dir)?;
        private::create_dir(&dir).map_err(io(&dir))?;
        let path = dir.join("lock");
        let mut options = private::options();
        let lock = options.create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::InUse(dir.clone()),
            TryLockError::Error(error) => JournalError::Io(path.clone(), error),
        })?;
        own(&dir, &format!("{cluster} {node}"))?;
        let found = Found::read(&dir)?;
        Ok(Journal { dir, found, lock: Lock(lock) })
    }

    /// All records, in order of their keys.
    pub(crate) fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + '_ {
        self.found.records()
    }

    /// Prepares the journal for writing. Also returns what is wrong with it.
    ///
    /// # Errors
    /// If a file cannot be created, read or written.
    pub(crate) fn begin(self) -> Result<(Opened, Vec<String>), JournalError> {
        let open = private::close_to_others(&self.dir);
        let (log, mut said) = self.found.begin()?;
        said.extend(open);
        Ok((Opened { log, lock: self.lock }, said))
    }
}

impl Opened {
    /// Starts the thread that writes. It reports each write that is safe, and when it cannot write.
    ///
    /// # Errors
    /// If the system provides no thread.
    pub(crate) fn start(self, reports: UnboundedSender<Report>) -> io::Result<Writer> {
        let (sender, writes) = mpsc::channel();
        let leaving = Arc::new(Leaving::default());
        let Opened { log, lock } = self;
        let told = leaving.clone();
        let run = move || {
            // Locked until the last write is done.
            let _lock = lock;
            write_all(log, &writes, &reports, &told)
        };
        let thread = thread::Builder::new().name("journal".into()).spawn(run)?;
        Ok(Writer { writes: Some(sender), thread: Some(thread), leaving })
    }
}

/// Writes until the channel is closed, or until the node leaves and a write fails.
fn write_all(
    mut log: Log,
    writes: &mpsc::Receiver<(u64, Vec<Write>)>,
    reports: &UnboundedSender<Report>,
    leaving: &Leaving,
) -> Option<Unwritten> {
    while let Ok((number, batch)) = writes.recv() {
        if let Err(why) = insist(reports, leaving, &mut log, |log| log.commit(&batch)) {
            let jobs_of = |batch: &[Write]| batch.iter().map(|write| write.key.job).collect::<Vec<_>>();
            let rest = writes.try_iter().flat_map(|(_, batch)| jobs_of(&batch));
            let jobs = jobs_of(&batch).into_iter().chain(rest).filter(|job| *job != 0).collect();
            return Some(Unwritten { why, jobs });
        }
        // An error means that the node has ended.
        let _ = reports.send(Report::Persisted(number));
        // An error only leaves deleted records on the disk.
        let _ = insist(reports, leaving, &mut log, Log::make_room);
    }
    None
}

impl Writer {
    /// Writes these changes after all earlier ones.
    pub(crate) fn write(&self, number: u64, writes: Vec<Write>) {
        if let Some(sender) = &self.writes {
            // The thread ends only with the node.
            let _ = sender.send((number, writes));
        }
    }

    /// Writes what is waiting, for at most this time. Returns what was not written.
    pub(crate) async fn finish(mut self, within: Duration) -> Option<Unwritten> {
        self.begin_end();
        let end = Instant::now() + within;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            if Instant::now() >= end {
                let why = format!("the disk has not answered for {} s", within.as_secs());
                self.thread = None;
                return Some(Unwritten { why, jobs: BTreeSet::new() });
            }
            tokio::time::sleep(LOOK).await;
        }
        self.thread.take().and_then(|thread| thread.join().ok()).flatten()
    }

    fn begin_end(&mut self) {
        self.writes = None;
        self.leaving.tell();
    }
}

/// Writes what is waiting before the node ends, unless that takes too long.
impl Drop for Writer {
    fn drop(&mut self) {
        self.begin_end();
        let end = Instant::now() + DROP_MAX;
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < end {
            thread::sleep(LOOK);
        }
    }
}

/// Repeats `work` until it succeeds, or until the node leaves and it fails once more. Then returns the error.
fn insist(
    reports: &UnboundedSender<Report>,
    leaving: &Leaving,
    log: &mut Log,
    mut work: impl FnMut(&mut Log) -> io::Result<()>,
) -> Result<(), String> {
    let (mut failed, mut last) = (false, false);
    loop {
        // If the directory is gone, this explains every other error.
        let error = match work(log) {
            Ok(()) => break,
            Err(error) => reason(&log.check_place().err().unwrap_or(error)),
        };
        if last {
            return Err(error);
        }
        if !failed {
            let _ = reports.send(Report::Stalled(Some(error)));
            failed = true;
        }
        last = leaving.wait(AGAIN);
    }
    if failed {
        let _ = reports.send(Report::Stalled(None));
    }
    Ok(())
}

/// Why a file cannot be written, as a text.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "no space left on the disk".into(),
        io::ErrorKind::FileTooLarge => FILE_LIMIT.into(),
        _ => error.to_string(),
    }
}

/// Makes a new journal belong to this node. Refuses the journal of another node.
fn own(dir: &Path, me: &str) -> Result<(), JournalError> {
    let path = dir.join("owner");
    let io = |error| JournalError::Io(path.clone(), error);
    match fs::read_to_string(&path) {
        Ok(owner) if owner.trim() == me => Ok(()),
        Ok(owner) => Err(JournalError::Foreign(dir.to_owned(), owner.trim().to_owned(), me.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = dir.join("owner.new");
            private::write(&temporary, me.as_bytes()).map_err(io)?;
            fs::rename(&temporary, &path).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

/// What other systems have in place of the log, to test it here.
#[cfg(test)]
#[allow(dead_code, unreachable_pub)]
#[path = "journal/elsewhere.rs"]
mod elsewhere;

#[cfg(test)]
mod tests {
    use std::env::consts::OS;

    use super::*;

    #[test]
    fn a_system_without_journals_says_so() {
        let error = elsewhere::prepare(Path::new("data")).expect_err("there is no journal");
        let text = format!("a node keeps a journal on Linux and other Unix systems only, not on {OS}");
        assert_eq!(error.to_string(), text);
    }
}
