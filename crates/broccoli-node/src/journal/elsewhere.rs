//! In place of `log.rs` on systems other than Unix: there is no log, and `prepare` says so.
//!
//! A log needs what only Unix has: directories that can be synced, and writes at a place of a file.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use broccoli_core::{RecordKey, Write};

use super::JournalError;

/// A log. This type has no values on this system.
pub struct Log(Infallible);

/// The content of a log. This type has no values on this system.
pub struct Found(Infallible);

/// Refuses.
///
/// # Errors
/// Always.
pub(super) fn prepare(_: &Path) -> Result<(), JournalError> {
    Err(unsupported())
}

fn unsupported() -> JournalError {
    JournalError::Unsupported(std::env::consts::OS)
}

impl Found {
    /// Refuses.
    ///
    /// # Errors
    /// Always.
    pub fn read(_: &Path) -> Result<Found, JournalError> {
        Err(unsupported())
    }

    pub(super) fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + '_ {
        let Found(never) = self;
        std::iter::from_fn(move || match *never {})
    }

    pub(super) fn begin(self) -> Result<(Log, Vec<String>), JournalError> {
        match self.0 {}
    }
}

impl Log {
    pub(super) fn commit(&mut self, _: &[Write]) -> io::Result<()> {
        match self.0 {}
    }

    pub(super) fn check_place(&self) -> io::Result<()> {
        match self.0 {}
    }

    pub(super) fn make_room(&mut self) -> io::Result<()> {
        match self.0 {}
    }
}
