//! Systems without Unix permissions. On Windows, what is in the directory of a user is closed to other users.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

/// Options for a new file.
pub(crate) fn options() -> OpenOptions {
    OpenOptions::new()
}

/// Makes a directory, and those above it that are missing.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// Nothing is known of other users, so there is nothing to close and nothing to report.
pub(crate) fn close_to_others(_: &Path) -> Option<String> {
    None
}

/// No, since it cannot be told.
pub(crate) fn others_may(_: &Path) -> bool {
    false
}
