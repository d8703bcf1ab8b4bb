//! A log of batches of changes. Each batch is synced before the next one. Segments with deleted records are compacted.
//! Reading changes nothing: a log of a later version stays as it is.
//!
//! ```text
//! segment = head | batches | 12 zeros | old content, if the file was used before
//! head    = "BRJL" | version (u32) | CRC of both (u32)
//! batch   = length of the body (u32) | CRC of the segment's number and the length (u32) |
//!           CRC of the body (u32) | body
//! body    = changes: job (u64) | number (u32) | length of the value (u32), all ones to delete | value
//! ```
//!
//! Numbers are big-endian. The CRC is CRC-32 of IEEE 802.3. Only the last batch can be torn, because each is synced
//! before the next one. Anything else that cannot be read is damage: the segment is copied into `damaged/`, its
//! readable part is used, and the damage is reported.
//!
//! The oldest segment is removed first, so no deletion is removed before the record that it deletes. Live records in it
//! are appended again, as long as more than half of the log is dead. Its file is used again for a later segment, as in
//! PostgreSQL's log: so the file system does not have to find room, and only the data is synced. docs/stores.md
//! explains why this is not a database.
//!
//! A batch is written in pieces through a buffer, and its head last, so it needs no memory of its size. A large write
//! is split into several batches, so that segments stay small enough to be read into memory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use broccoli_core::{RecordBytes, RecordKey, Write};
use crc32fast::Hasher;

use super::JournalError;
use crate::private;

const MAGIC: [u8; 4] = *b"BRJL";
/// Version of this format, and the first released version. Versions from the first to this one can be read.
const VERSION: u32 = 2;
const VERSION_MIN: u32 = 2;
const SEGMENT_LEN: usize = 4 << 20;
/// With fewer segments than this, nothing is copied to make room.
const SEGMENTS_MIN: usize = 4;
/// Most files of dead segments that are kept for later segments.
const SPARES_MAX: usize = 2;
/// Longest file that is kept, in bytes. A longer one contained a large batch.
const SPARE_LEN_MAX: u64 = 4 * SEGMENT_LEN as u64;
const SEGMENT_HEAD_LEN: usize = 12;
const BATCH_HEAD_LEN: usize = 12;
const CHANGE_HEAD_LEN: usize = 16;
const DELETE: u32 = u32::MAX;
/// Extension of the files of dead segments.
const SPARE: &str = "spare";
/// Values of at least this length are written to the file directly. Shorter ones are collected …
const LARGE_LEN: usize = 64 << 10;
/// … and written in pieces of this many bytes.
const PIECE_LEN: usize = 1 << 20;
/// A longer write is split into several batches.
const BATCH_LEN_MAX: usize = 16 << 20;
/// Most segments that are kept in memory while the records are read.
const READ_AHEAD: usize = 4;
/// Longer segments are not kept in memory: they contain a large batch.
const READ_AHEAD_LEN_MAX: u64 = 2 * SEGMENT_LEN as u64;

/// The log. Only one process at a time may use it.
pub struct Log {
    dir: PathBuf,
    file: File,
    segment: u32,
    /// The position of the next batch in the last segment.
    at: usize,
    index: Index,
    /// Files of dead segments, to be used again.
    spares: Vec<PathBuf>,
    /// Changes that are collected before they are written.
    buffer: Vec<u8>,
}

/// A log that was read and not changed.
pub struct Found {
    dir: PathBuf,
    index: Index,
    /// The last segment, and the end of its batches.
    segment: u32,
    at: usize,
    /// The segments that cannot be read completely, with the reasons.
    damaged: Vec<(u32, String)>,
}

/// The live records, and where they are.
#[derive(Default)]
struct Index {
    homes: BTreeMap<RecordKey, Home>,
    /// Bytes of live records in each segment.
    live: BTreeMap<u32, usize>,
}

#[derive(Clone, Copy)]
struct Home {
    segment: u32,
    at: u32,
    len: u32,
}

/// One change in a segment.
struct Change<'a> {
    key: RecordKey,
    /// None deletes the record.
    value: Option<&'a [u8]>,
    /// Start of the value, in bytes.
    at: usize,
}

impl Found {
    /// Reads the log in a directory.
    ///
    /// # Errors
    /// If a file cannot be read, or has a later version.
    pub fn read(dir: &Path) -> Result<Found, JournalError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| JournalError::Io(path, error)
        };
        let numbers = segments(dir).map_err(failed(dir))?;
        let segment = numbers.last().copied().unwrap_or(1);
        let mut found =
            Found { dir: dir.into(), index: Index::default(), segment, at: SEGMENT_HEAD_LEN, damaged: Vec::new() };
        for number in numbers {
            let path = path_of(dir, number);
            let bytes = fs::read(&path).map_err(failed(&path))?;
            let index = &mut found.index;
            index.live.insert(number, 0);
            let walked =
                walk(&bytes, number, |change| index.note(number, change.key, change.at, change.value.map(<[u8]>::len)))
                    .map_err(|version| JournalError::Version(path, version, VERSION))?;
            found.at = walked.end;
            found.damaged.extend(walked.damage.map(|what| (number, what)));
        }
        found.index.live.entry(segment).or_default();
        Ok(found)
    }

    /// All records, in the order of their keys. Records that can no longer be read are left out.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + '_ {
        self.index.records(&self.dir)
    }

    /// Prepares the log for writing. Also returns descriptions of damage.
    ///
    /// # Errors
    /// If a file cannot be created, read or written.
    pub fn begin(self) -> Result<(Log, Vec<String>), JournalError> {
        let Found { dir, index, segment, at, damaged } = self;
        let failed = |path: PathBuf| move |error| JournalError::Io(path, error);
        remove_spares(&dir).map_err(failed(dir.clone()))?;
        let mut said = Vec::new();
        for (number, what) in &damaged {
            let aside = put_aside(&dir, *number).map_err(failed(dir.join("damaged")))?;
            said.push(format!("segment {number} of the journal: {what}; a copy is kept as {}", aside.display()));
        }
        let file = start(&dir, segment, at).map_err(failed(path_of(&dir, segment)))?;
        let mut log = Log { dir, file, segment, at, index, spares: Vec::new(), buffer: Vec::new() };
        if let Some((last, _)) = damaged.last() {
            log.leave_behind(*last).map_err(failed(log.dir.clone()))?;
        }
        Ok((log, said))
    }
}

impl Log {
    /// Opens the log in a directory, or creates one. Also returns descriptions of damage.
    ///
    /// # Errors
    /// If a file cannot be created, read or written, or has a later version.
    pub fn open(dir: &Path) -> Result<(Log, Vec<String>), JournalError> {
        Found::read(dir)?.begin()
    }

    /// Moves the live records out of all segments up to this one.
    fn leave_behind(&mut self, last: u32) -> io::Result<()> {
        self.next_segment()?;
        while let Some((&oldest, _)) = self.index.live.first_key_value()
            && oldest <= last
        {
            self.remove(oldest)?;
        }
        Ok(())
    }

    /// Applies changes in their order. They are safe when this returns. A change and the deletions after it are applied
    /// together or not at all. If a large write is interrupted, the first changes may be applied without the last ones.
    /// Call [`Log::make_room`] afterwards.
    ///
    /// # Errors
    /// If the changes could not be written, or are not where the next start looks for them. The call can be repeated.
    pub fn commit(&mut self, writes: &[Write]) -> io::Result<()> {
        let mut rest = writes;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_of(rest));
            self.append(batch.iter().map(|write| (write.key, write.value.as_ref().map(RecordBytes::pieces))))?;
            if !after.is_empty() {
                self.leave_full()?;
            }
            rest = after;
        }
        self.check_place()
    }

    /// Checks that the file still has its name. Otherwise its content would be lost when this process ends.
    pub(super) fn check_place(&self) -> io::Result<()> {
        let path = path_of(&self.dir, self.segment);
        let (mine, there) = (self.file.metadata()?, fs::metadata(path));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino())) {
            return Ok(());
        }
        let text = format!("{} is gone, or another one is in its place: start the node again", self.dir.display());
        Err(io::Error::new(io::ErrorKind::NotFound, text))
    }

    /// Starts the next segment if the last one is full. Deletes the oldest segments if they are dead, or if more than
    /// half of the log is.
    ///
    /// # Errors
    /// If a file could not be read, written or deleted. Nothing is lost, and the call can be repeated.
    pub fn make_room(&mut self) -> io::Result<()> {
        self.leave_full()?;
        while let Some((&oldest, &live)) = self.index.live.first_key_value()
            && oldest != self.segment
        {
            let (segments, all) = (self.index.live.len(), self.index.live.values().sum::<usize>());
            if live > 0 && (segments <= SEGMENTS_MIN || all * 2 > segments * SEGMENT_LEN) {
                break;
            }
            self.remove(oldest)?;
        }
        Ok(())
    }

    /// All records, in the order of their keys. Records that can no longer be read are left out.
    pub fn records(&self) -> impl Iterator<Item = (RecordKey, Vec<u8>)> + '_ {
        self.index.records(&self.dir)
    }

    /// Appends a batch of changes, all or none of them: the new value of each record, in pieces.
    fn append<'a, P: Iterator<Item = &'a [u8]> + Clone>(
        &mut self,
        changes: impl Iterator<Item = (RecordKey, Option<P>)> + Clone,
    ) -> io::Result<()> {
        let body = self.at + BATCH_HEAD_LEN;
        self.buffer.clear();
        let mut writer = BodyWriter { file: &self.file, at: body, small: &mut self.buffer, crc: Hasher::new() };
        changes.clone().try_for_each(|(key, value)| writer.change(key, value))?;
        let (end, crc) = writer.finish()?;
        self.file.write_all_at(&batch_head(self.segment, end - body, crc), self.at as u64)?;
        self.file.sync_data()?;
        let mut at = body;
        for (key, value) in changes {
            at += CHANGE_HEAD_LEN;
            let len = value.map(len_of);
            self.index.note(self.segment, key, at, len);
            at += len.unwrap_or(0);
        }
        self.at = end;
        Ok(())
    }

    fn leave_full(&mut self) -> io::Result<()> {
        if self.at >= SEGMENT_LEN { self.next_segment() } else { Ok(()) }
    }

    fn next_segment(&mut self) -> io::Result<()> {
        let next = self.segment + 1;
        self.file = match self.spares.pop() {
            Some(spare) => reuse(&self.dir, &spare, next)?,
            None => start(&self.dir, next, SEGMENT_HEAD_LEN)?,
        };
        self.segment = next;
        self.at = SEGMENT_HEAD_LEN;
        self.index.live.insert(self.segment, 0);
        Ok(())
    }

    /// Removes the oldest segment, after its live records were moved.
    fn remove(&mut self, oldest: u32) -> io::Result<()> {
        self.leave_full()?;
        if self.index.live.get(&oldest).is_some_and(|live| *live > 0) {
            self.copy(oldest)?;
        }
        let path = path_of(&self.dir, oldest);
        if self.spares.len() < SPARES_MAX && path.metadata()?.len() <= SPARE_LEN_MAX {
            let spare = path.with_extension(SPARE);
            fs::rename(&path, &spare)?;
            self.spares.push(spare);
        } else {
            fs::remove_file(path)?;
        }
        self.index.live.remove(&oldest);
        Ok(())
    }

    /// Appends the live records of a segment again.
    fn copy(&mut self, segment: u32) -> io::Result<()> {
        let bytes = fs::read(path_of(&self.dir, segment))?;
        let mut alive = Vec::new();
        // The version was checked when the log was opened.
        let _ = walk(&bytes, segment, |change| {
            let home = self.index.homes.get(&change.key);
            if home.is_some_and(|home| home.segment == segment && home.at as usize == change.at) {
                alive.push((change.key, change.at, change.value.map_or(0, <[u8]>::len)));
            }
        });
        self.append(alive.iter().map(|(key, at, len)| (*key, Some([&bytes[*at..at + len]].into_iter()))))
    }
}

impl Index {
    /// The live records, in the order of their keys. Records that can no longer be read are left out.
    fn records(&self, dir: &Path) -> impl Iterator<Item = (RecordKey, Vec<u8>)> {
        let mut reader = Reader { dir, read: Vec::new() };
        self.homes.iter().filter_map(move |(key, home)| Some((*key, reader.value(*home)?)))
    }

    /// Notes a change that is on the disk: the record has this length, or is deleted.
    fn note(&mut self, segment: u32, key: RecordKey, at: usize, len: Option<usize>) {
        let home = len.map(|len| Home { segment, at: at as u32, len: len as u32 });
        let before = match home {
            Some(home) => self.homes.insert(key, home),
            None => self.homes.remove(&key),
        };
        if let Some(before) = before
            && let Some(live) = self.live.get_mut(&before.segment)
        {
            *live -= cost(before);
        }
        if let Some(home) = home {
            *self.live.entry(segment).or_default() += cost(home);
        }
    }
}

/// Reads values, mostly in the order of their keys.
struct Reader<'a> {
    dir: &'a Path,
    /// The segments that were read last.
    read: Vec<(u32, Vec<u8>)>,
}

impl Reader<'_> {
    fn value(&mut self, Home { segment, at, len }: Home) -> Option<Vec<u8>> {
        let range = at as usize..at as usize + len as usize;
        if let Some((_, bytes)) = self.read.iter().find(|(number, _)| *number == segment) {
            return Some(bytes.get(range)?.to_vec());
        }
        let file = File::open(path_of(self.dir, segment)).ok()?;
        if file.metadata().ok()?.len() > READ_AHEAD_LEN_MAX {
            let mut value = vec![0; range.len()];
            file.read_exact_at(&mut value, at.into()).ok()?;
            return Some(value);
        }
        let bytes = fs::read(path_of(self.dir, segment)).ok()?;
        let value = bytes.get(range).map(<[u8]>::to_vec);
        self.read.truncate(READ_AHEAD - 1);
        self.read.insert(0, (segment, bytes));
        value
    }
}

/// Data of a segment besides its changes.
struct Walked {
    /// End of the batches, in bytes.
    end: usize,
    /// The part that cannot be read, if any.
    damage: Option<String>,
}

/// Passes each readable change of a segment to `each`. The error is the version, if it is another one.
fn walk(bytes: &[u8], segment: u32, mut each: impl FnMut(Change<'_>)) -> Result<Walked, u32> {
    let mut damage = None;
    match head_version(bytes) {
        Some(VERSION_MIN..=VERSION) => {}
        Some(other) => return Err(other),
        None if bytes.iter().all(|byte| *byte == 0) => return Ok(Walked { end: SEGMENT_HEAD_LEN, damage }),
        None => damage = Some("its head cannot be read".to_owned()),
    }
    let mut at = SEGMENT_HEAD_LEN.min(bytes.len());
    let mut end = at;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    loop {
        if let Some(body) = batch(bytes, segment, at) {
            if !each_change(body, at + BATCH_HEAD_LEN, &mut each) {
                damage = Some(format!("the batch at byte {at} is malformed"));
            }
            at += BATCH_HEAD_LEN + body.len();
            end = at;
            continue;
        }
        if let Some(next) = (at + 1..used).find(|later| batch(bytes, segment, *later).is_some()) {
            damage = Some(format!("{} bytes at byte {at} cannot be read", next - at));
            at = next;
            continue;
        }
        if bytes[at..].iter().take(BATCH_HEAD_LEN).any(|byte| *byte != 0) {
            damage = Some(format!("its last batch, at byte {at}, was not written completely"));
        }
        return Ok(Walked { end, damage });
    }
}

/// The version in the head of a segment, if the head can be read.
fn head_version(bytes: &[u8]) -> Option<u32> {
    let (head, _) = bytes.split_at_checked(SEGMENT_HEAD_LEN)?;
    let right = head[..4] == MAGIC && crc32fast::hash(&head[..8]) == number(head, 8);
    right.then(|| number(head, 4))
}

/// The body of the batch at `at`, if it is complete and correct.
fn batch(bytes: &[u8], segment: u32, at: usize) -> Option<&[u8]> {
    let (head, rest) = bytes[at..].split_at_checked(BATCH_HEAD_LEN)?;
    let len = number(head, 0);
    let body = rest.get(..len as usize).filter(|body| !body.is_empty())?;
    let right = len_crc(segment, len) == number(head, 4) && crc32fast::hash(body) == number(head, 8);
    right.then_some(body)
}

/// Passes each change of a batch to `each`. Its body starts at `at` in its segment. Returns whether the body is
/// well-formed.
fn each_change(body: &[u8], mut at: usize, each: &mut impl FnMut(Change<'_>)) -> bool {
    let mut rest = body;
    while !rest.is_empty() {
        let Some((head, after)) = rest.split_at_checked(CHANGE_HEAD_LEN) else {
            return false;
        };
        let job = u64::from(number(head, 0)) << 32 | u64::from(number(head, 4));
        let key = RecordKey { job, number: number(head, 8) };
        let len = number(head, 12);
        at += CHANGE_HEAD_LEN;
        if len == DELETE {
            each(Change { key, value: None, at });
            rest = after;
            continue;
        }
        let Some((value, after)) = after.split_at_checked(len as usize) else {
            return false;
        };
        each(Change { key, value: Some(value), at });
        at += value.len();
        rest = after;
    }
    true
}

/// Writes the body of a batch.
struct BodyWriter<'a> {
    file: &'a File,
    /// Position of the next bytes.
    at: usize,
    /// Changes that are collected before they are written.
    small: &'a mut Vec<u8>,
    crc: Hasher,
}

impl BodyWriter<'_> {
    fn change<'a>(&mut self, key: RecordKey, value: Option<impl Iterator<Item = &'a [u8]> + Clone>) -> io::Result<()> {
        let len = value.clone().map_or(Ok(DELETE), |pieces| length(len_of(pieces)))?;
        self.small.extend_from_slice(&key.job.to_be_bytes());
        self.small.extend_from_slice(&key.number.to_be_bytes());
        self.small.extend_from_slice(&len.to_be_bytes());
        for piece in value.into_iter().flatten() {
            if piece.len() < LARGE_LEN {
                self.small.extend_from_slice(piece);
            } else {
                self.flush()?;
                self.write(piece)?;
            }
        }
        if self.small.len() < PIECE_LEN { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut small = std::mem::take(self.small);
        let written = self.write(&small);
        small.clear();
        *self.small = small;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        length(self.at + bytes.len())?;
        self.crc.update(bytes);
        self.file.write_all_at(bytes, self.at as u64)?;
        self.at += bytes.len();
        Ok(())
    }

    /// End of the body, and its CRC. Zeros are written after it, to show that no batch follows.
    fn finish(mut self) -> io::Result<(usize, u32)> {
        self.crc.update(self.small);
        let end = self.at + self.small.len();
        self.small.extend_from_slice(&[0; BATCH_HEAD_LEN]);
        self.file.write_all_at(self.small, self.at as u64)?;
        Ok((end, self.crc.finalize()))
    }
}

fn batch_head(segment: u32, len: usize, crc: u32) -> [u8; BATCH_HEAD_LEN] {
    let len = len as u32;
    let mut head = [0; BATCH_HEAD_LEN];
    head[..4].copy_from_slice(&len.to_be_bytes());
    head[4..8].copy_from_slice(&len_crc(segment, len).to_be_bytes());
    head[8..].copy_from_slice(&crc.to_be_bytes());
    head
}

/// The CRC that distinguishes a batch of this segment from one that the file contained before.
fn len_crc(segment: u32, len: u32) -> u32 {
    crc32fast::hash(&(u64::from(segment) << 32 | u64::from(len)).to_be_bytes())
}

fn len_of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> usize {
    pieces.map(<[u8]>::len).sum()
}

/// A length or position as stored in a segment.
fn length(bytes: usize) -> io::Result<u32> {
    let fits = u32::try_from(bytes).ok().filter(|len| *len != DELETE);
    fits.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{bytes} bytes are too many for one record"))
    })
}

/// How many of these changes go into the next batch, at least one. A change and the deletions after it stay together.
fn batch_of(writes: &[Write]) -> usize {
    let (mut bytes, mut count) = (0, 0);
    for write in writes {
        bytes += CHANGE_HEAD_LEN + write.value.as_ref().map_or(0, RecordBytes::bytes);
        if bytes > BATCH_LEN_MAX && count > 0 && write.value.is_some() {
            break;
        }
        count += 1;
    }
    count
}

/// Bytes that a record uses in its segment.
fn cost(home: Home) -> usize {
    CHANGE_HEAD_LEN + home.len as usize
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn path_of(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:08}.log"))
}

/// The segments in a directory, oldest first.
fn segments(dir: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            found.extend(path.file_stem().and_then(|stem| stem.to_str()?.parse::<u32>().ok()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Opens a segment for writing, with a head, and zeros from `at` on. Writing into existing zeros does not change the
/// length of the file.
fn start(dir: &Path, segment: u32, at: usize) -> io::Result<File> {
    let mut options = private::options();
    let file = options.write(true).create(true).truncate(false).open(path_of(dir, segment))?;
    if at <= SEGMENT_HEAD_LEN {
        let mut head = [0; SEGMENT_HEAD_LEN];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&VERSION.to_be_bytes());
        let crc = crc32fast::hash(&head[..8]);
        head[8..].copy_from_slice(&crc.to_be_bytes());
        file.write_all_at(&head, 0)?;
    }
    file.set_len(at.max(SEGMENT_HEAD_LEN) as u64)?;
    file.set_len(SEGMENT_LEN.max(at) as u64)?;
    file.sync_all()?;
    sync_dir(dir)?;
    Ok(file)
}

/// Turns the file of a dead segment into the next segment.
fn reuse(dir: &Path, spare: &Path, segment: u32) -> io::Result<File> {
    // The old segment must be removed on the disk before its batches are overwritten.
    sync_dir(dir)?;
    let file = OpenOptions::new().write(true).open(spare)?;
    file.write_all_at(&[0; BATCH_HEAD_LEN], SEGMENT_HEAD_LEN as u64)?;
    file.sync_data()?;
    fs::rename(spare, path_of(dir, segment))?;
    sync_dir(dir)?;
    Ok(file)
}

/// Syncs created, renamed and deleted files of a directory.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn remove_spares(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == SPARE) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Prepares this process for a log in a directory: makes a write beyond the limit of file sizes an error, instead of a
/// signal that ends this process.
///
/// # Errors
/// If the system does not let this process handle the signal.
pub(super) fn prepare(dir: &Path) -> Result<(), JournalError> {
    static ONCE: Mutex<bool> = Mutex::new(false);
    let mut done = ONCE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*done {
        let registered = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::new(AtomicBool::new(false)));
        registered.map_err(|error| JournalError::Io(dir.to_owned(), error))?;
        *done = true;
    }
    Ok(())
}

/// Keeps a copy of a damaged segment.
fn put_aside(dir: &Path, segment: u32) -> io::Result<PathBuf> {
    let damaged = dir.join("damaged");
    private::create_dir(&damaged)?;
    let aside = (0..).map(|count: u32| damaged.join(format!("{segment:08}-{count}.log"))).find(|path| !path.exists());
    let aside = aside.unwrap_or_else(|| damaged.join(format!("{segment:08}.log")));
    fs::copy(path_of(dir, segment), &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests;
