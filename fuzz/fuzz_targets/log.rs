//! The journal on disk: commits, damage to its segments, and what is read afterwards.
//!
//! ```text
//! input = step step …
//! step  = 0–3 writes…      a commit of that many writes plus one: key, length of the value (255 deletes)
//!       | 4                close and open again
//!       | 5 at(2) mask     flip bits of the last segment
//!       | 6 at(2)          cut the last segment here
//! ```
#![no_main]
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use broccoli_core::{RecordKey, Write};
use broccoli_node::journal::Log;
use libfuzzer_sys::fuzz_target;

/// Most steps of an input.
const STEPS_MAX: usize = 12;
/// Damage is in this part: the header and the first batches.
const DAMAGED_BYTES: u64 = 600;

fuzz_target!(|data: &[u8]| {
    let dir = directory();
    fs::create_dir_all(&dir).expect("can be made");
    Case::new(&dir, data).run();
    fs::remove_dir_all(&dir).expect("can be removed");
});

/// A directory in memory, if there is one: a sync costs nothing there.
fn directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    base.join(format!("broccoli-fuzz-{}", std::process::id()))
}

struct Case<'a> {
    dir: &'a Path,
    input: std::slice::Iter<'a, u8>,
    /// The expected records, if nothing is damaged.
    model: BTreeMap<RecordKey, Vec<u8>>,
    /// All records that were ever written: damage never produces another one.
    written: BTreeSet<(RecordKey, Vec<u8>)>,
    is_damaged: bool,
}

impl<'a> Case<'a> {
    fn new(dir: &'a Path, data: &'a [u8]) -> Self {
        let (model, written) = (BTreeMap::new(), BTreeSet::new());
        Self { dir, input: data.iter(), model, written, is_damaged: false }
    }

    fn run(&mut self) {
        let mut log = self.opened();
        for _ in 0..STEPS_MAX {
            let Some(step) = self.input.next() else { break };
            match step {
                5 => {
                    let at = self.offset();
                    let mask = self.byte();
                    drop(log);
                    self.damage(|file| {
                        let mut byte = [0];
                        file.read_exact_at(&mut byte, at)?;
                        file.write_all_at(&[byte[0] ^ mask], at)
                    });
                    log = self.opened();
                }
                6 => {
                    let at = self.offset();
                    drop(log);
                    self.damage(|file| file.set_len(at));
                    log = self.opened();
                }
                4 => {
                    drop(log);
                    log = self.opened();
                }
                more => self.commit(&mut log, 1 + usize::from(more % 4)),
            }
        }
        drop(log);
        self.opened();
    }

    fn commit(&mut self, log: &mut Log, count: usize) {
        let writes: Vec<Write> = (0..count).map(|_| self.write()).collect();
        log.commit(&writes).expect("there is room");
        log.make_room().expect("there is room");
        for Write { key, value } in writes {
            match value {
                Some(value) => {
                    let value = value.to_vec();
                    self.written.insert((key, value.clone()));
                    self.model.insert(key, value);
                }
                None => drop(self.model.remove(&key)),
            }
        }
    }

    fn write(&mut self) -> Write {
        let (key, len) = (self.byte(), self.byte());
        let key = RecordKey { job: u64::from(key % 4), number: u32::from(key / 4 % 4) };
        let fill = self.written.len() as u8;
        Write { key, value: (len < 255).then(|| vec![fill; usize::from(len)].into()) }
    }

    /// Opens the log, and compares its records with the expected ones.
    fn opened(&mut self) -> Log {
        let (log, damaged) = Log::open(self.dir).expect("damage is no error");
        let records: BTreeMap<_, _> = log.records().collect();
        if self.is_damaged {
            assert!(records.iter().all(|(key, value)| self.written.contains(&(*key, value.clone()))), "made up");
            self.model = records;
            self.is_damaged = false;
        } else {
            assert_eq!(damaged, [""; 0], "an undamaged log is not damaged");
            assert_eq!(records, self.model);
        }
        log
    }

    fn damage(&mut self, change: impl FnOnce(&File) -> io::Result<()>) {
        let segments = fs::read_dir(self.dir).expect("is there").map(|entry| entry.expect("is there").path());
        let last = segments.filter(|path| path.is_file()).max().expect("a log has a segment");
        let file = OpenOptions::new().read(true).write(true).open(&last);
        file.and_then(|file| change(&file)).expect("can be written");
        self.is_damaged = true;
    }

    fn byte(&mut self) -> u8 {
        self.input.next().copied().unwrap_or_default()
    }

    fn offset(&mut self) -> u64 {
        u64::from(u16::from_be_bytes([self.byte(), self.byte()])) % DAMAGED_BYTES
    }
}
