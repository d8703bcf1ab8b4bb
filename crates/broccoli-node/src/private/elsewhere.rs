//! Systems without Unix permissions. On Windows, other users cannot read files in the directory of a user.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

/// Options for a new file.
pub(crate) fn options() -> OpenOptions {
    OpenOptions::new()
}

/// Creates a directory and its missing parents.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// Does nothing, because the permissions of other users are not known here.
pub(crate) fn close_to_others(_: &Path) -> Option<String> {
    None
}

/// False, because it is not known here.
pub(crate) fn others_may(_: &Path) -> bool {
    false
}
