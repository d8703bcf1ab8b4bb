//! Files and directories that only their owner may read: they hold keys, and the arguments and results of jobs.
//!
//! Only Unix has the permissions for this (`private/unix.rs`). On other systems, a file has the rights that its directory
//! hands down (`private/elsewhere.rs`).

#[cfg_attr(unix, path = "private/unix.rs")]
#[cfg_attr(not(unix), path = "private/elsewhere.rs")]
mod system;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

pub(crate) use self::system::{close_to_others, create_dir, options, others_may};

/// Makes a file, or empties it.
pub(crate) fn create_file(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// Writes a file, and waits until it is safe.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
