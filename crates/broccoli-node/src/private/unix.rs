//! Unix: permissions of files by their mode.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Mode of a file, and of a directory.
const FILE: u32 = 0o600;
const DIR: u32 = 0o700;
/// The permission bits of other users.
const OTHERS: u32 = 0o077;

/// Options for a new file that only its owner can read and write.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE);
    options
}

/// Creates a directory and its missing parents.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIR).create(dir)
}

/// Removes the permissions of other users from a directory and everything in it, which earlier versions have left open.
/// Returns a message if this fails.
pub(crate) fn close_to_others(dir: &Path) -> Option<String> {
    let closed = close(dir);
    let open = others_may(dir);
    (closed.is_err() && open).then(|| {
        let dir = dir.display();
        format!("other users of this machine may look into {dir}: close it with `chmod -R go= {dir}`")
    })
}

fn close(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    if mode & OTHERS != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            close(&entry?.path())?;
        }
    }
    Ok(())
}

/// Whether other users have any permission for a file or directory. False if it cannot be read.
pub(crate) fn others_may(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & OTHERS != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_version_has_left_open_is_closed() {
        let dir = std::env::temp_dir().join(format!("broccoli-private-{}", std::process::id()));
        fs::create_dir_all(dir.join("journal/damaged")).expect("made");
        let file = dir.join("journal/damaged/00000001-0.log");
        fs::write(&file, "secret").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        for (path, open) in [(&dir, 0o755), (&dir.join("journal"), 0o755), (&file, 0o644)] {
            fs::set_permissions(path, Permissions::from_mode(open)).expect("opened");
        }
        assert_eq!(close_to_others(&dir.join("journal")), None);
        assert_eq!((mode(&dir), mode(&dir.join("journal")), mode(&file)), (0o755, 0o700, 0o600));
        fs::remove_dir_all(&dir).expect("removed");
    }
}
