//! How a store handles a killed process, a torn write, and flipped bits: does it report the damage?

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::probe::files;
use crate::store::{Random, Result};
use crate::{fresh, program};

const JOBS_SAFE: usize = 20_000;
const FLIPS: u64 = 60;
const TORN_LEN: usize = 20;

/// Kills a writer, then damages copies of its store. Does the same with a store that was closed.
pub fn run(store: &str, dir: &Path) -> Result<()> {
    let home = dir.join(store).join("damage");
    for (state, jobs) in [("killed", usize::MAX), ("closed", JOBS_SAFE)] {
        let data = fresh(&home.join(state))?;
        let safe = home.join("safe");
        write_jobs(store, &data, &safe, jobs)?;
        let case = Case { store, data: &data, copy: &home.join("copy"), safe: &safe };
        println!("{store} {state}, as it is: {}", case.verify(|_| Ok(()))?);
        println!("{store} {state}, end cut off: {}", case.verify(|copy| tear(copy, false))?);
        println!("{store} {state}, end overwritten: {}", case.verify(|copy| tear(copy, true))?);
        println!("{store} {state}, {FLIPS} single bits: {}", case.flips()?);
    }
    Ok(fs::remove_dir_all(home)?)
}

/// A child process writes until `jobs` are safe. It is killed before if `jobs` is larger. Lists the safe jobs in
/// `safe`.
fn write_jobs(store: &str, data: &Path, safe: &Path, jobs: usize) -> Result<()> {
    let jobs = jobs.to_string();
    let mut writer = program(store, data, &["crash", &jobs])?.stdout(Stdio::piped()).spawn()?;
    let mut list = fs::File::create(safe)?;
    for (count, line) in BufReader::new(writer.stdout.take().ok_or("no output")?).lines().enumerate() {
        writeln!(list, "{}", line?)?;
        if count == JOBS_SAFE {
            writer.kill()?;
        }
    }
    writer.wait()?;
    Ok(())
}

struct Case<'a> {
    store: &'a str,
    data: &'a Path,
    copy: &'a Path,
    safe: &'a Path,
}

impl Case<'_> {
    /// The output of a process that opens a damaged copy.
    fn verify(&self, damage: impl FnOnce(&Path) -> Result<()>) -> Result<String> {
        fresh(self.copy)?;
        for file in files(self.data)? {
            let to = self.copy.join(file.strip_prefix(self.data)?);
            fs::create_dir_all(to.parent().ok_or("no parent")?)?;
            fs::copy(file, to)?;
        }
        damage(self.copy)?;
        let safe = self.safe.to_str().ok_or("path is not text")?;
        let output = program(self.store, self.copy, &["verify", safe])?.output()?;
        let text = if output.status.success() { output.stdout } else { output.stderr };
        let text = String::from_utf8_lossy(&text);
        let said = text.lines().find(|line| !line.is_empty()).unwrap_or("nothing");
        Ok(said.replace(self.copy.to_str().unwrap_or_default(), ""))
    }

    /// Flips one bit in each of many copies, and counts the results.
    fn flips(&self) -> Result<String> {
        let mut seen = BTreeMap::<String, u32>::new();
        for seed in 0..FLIPS {
            let said = self.verify(|copy| flip(copy, seed))?;
            if std::env::var_os("STORES_VERBOSE").is_some() {
                eprintln!("{} flip {seed}: {said}", self.store);
            }
            *seen.entry(outcome(&said).to_string()).or_default() += 1;
        }
        Ok(seen.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect::<Vec<_>>().join(", "))
    }
}

/// A short text for the output of `verify`.
fn outcome(said: &str) -> &'static str {
    let words: Vec<_> = said.split(' ').collect();
    match words.as_slice() {
        ["missing", "0", "wrong", "0", "more", _] => "without effect",
        ["missing", _, "wrong", "0", "more", _] => "LOST, not reported",
        ["missing", _, "wrong", _, "more", _] => "WRONG, not reported",
        ["open:", ..] => "reported by open",
        ["scan:", ..] => "reported by scan",
        _ => "panicked",
    }
}

/// Cuts or overwrites the last bytes of the file that was written last. Zeros at its end do not count.
fn tear(copy: &Path, overwrite: bool) -> Result<()> {
    let newest = newest(copy)?;
    let mut bytes = fs::read(&newest)?;
    let end = bytes.iter().rposition(|byte| *byte != 0).ok_or("empty file")? + 1;
    match overwrite {
        true => bytes[end.saturating_sub(TORN_LEN)..end].fill(0xa5),
        false => bytes.truncate(end.saturating_sub(TORN_LEN)),
    }
    Ok(fs::write(newest, bytes)?)
}

/// The log of a store that has one, otherwise its only file.
fn newest(copy: &Path) -> Result<PathBuf> {
    let files = files(copy)?;
    let log = files.iter().rfind(|file| {
        let name = file.to_string_lossy();
        name.ends_with("-wal") || name.ends_with(".jnl") || name.ends_with(".log")
    });
    Ok(log.or(files.first()).ok_or("no files")?.clone())
}

/// Flips one bit of the data. Each byte is equally likely. Zeros at the end of a file are not data.
fn flip(copy: &Path, seed: u64) -> Result<()> {
    let mut data = Vec::new();
    for file in files(copy)?.into_iter().filter(|file| !file.to_string_lossy().ends_with("-shm")) {
        let bytes = fs::read(&file)?;
        let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        data.push((file, bytes, len));
    }
    let mut random = Random(seed);
    let mut at = random.below(data.iter().map(|(_, _, len)| *len as u64).sum()) as usize;
    for (file, mut bytes, len) in data {
        if at < len {
            bytes[at] ^= 1 << random.below(8);
            return Ok(fs::write(file, bytes)?);
        }
        at -= len;
    }
    Err("no data".into())
}
