//! What the kernel reports about this process, a folder and its disk. Linux only. It changes nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::store::Result;

const SECTOR_LEN: u64 = 512;
const TICKS_PER_SECOND: f64 = 100.0;

/// Largest resident memory of this process so far, in KiB.
pub fn resident_max_kib() -> Result<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// CPU time of all threads of this process so far, in seconds.
pub fn cpu_seconds() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let user_and_system = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(user_and_system.sum::<std::result::Result<u64, _>>()? as f64 / TICKS_PER_SECOND)
}

/// Bytes written since the start.
#[derive(Clone, Copy)]
pub struct Written {
    /// By this process, counted in dirty pages.
    pub process: u64,
    /// To the device of a folder, by all processes, including the journal of the file system.
    pub device: u64,
}

impl Written {
    /// The counters now, after the file system of `dir` has written everything.
    pub fn now(dir: &Path) -> Result<Self> {
        if !Command::new("sync").arg("-f").arg(dir).status()?.success() {
            return Err("sync failed".into());
        }
        Ok(Self { process: field("/proc/self/io", "write_bytes:")?, device: sectors_written(dir)? * SECTOR_LEN })
    }
}

/// Disk space of the files in `dir`, in bytes.
pub fn disk_len(dir: &Path) -> Result<u64> {
    files(dir)?.iter().try_fold(0, |sum, file| Ok(sum + fs::metadata(file)?.blocks() * SECTOR_LEN))
}

/// All files in `dir` and its subfolders, sorted.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.is_dir() {
            true => found.extend(files(&path)?),
            false => found.push(path),
        }
    }
    found.sort();
    Ok(found)
}

/// Drops the files from the page cache, so that the next read comes from the disk.
pub fn evict(dir: &Path) -> Result<()> {
    for file in files(dir)? {
        let mut of = std::ffi::OsString::from("of=");
        of.push(file);
        let how = ["oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"];
        if !Command::new("dd").arg(of).args(how).status()?.success() {
            return Err("dd failed".into());
        }
    }
    Ok(())
}

fn sectors_written(dir: &Path) -> Result<u64> {
    let device = fs::metadata(dir)?.dev();
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    Ok(stat.split_whitespace().nth(6).ok_or("no counter of written sectors")?.parse()?)
}

fn field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("field not found")?;
    Ok(line.split_whitespace().next().ok_or("empty field")?.parse()?)
}
