use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use broccoli_proto::SplitMix64;

use super::*;

/// A directory that is deleted at the end of its test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("broccoli-log-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("made");
        Dir(dir)
    }

    fn open(&self) -> (Log, Vec<String>) {
        Log::open(&self.0).expect("opens")
    }

    /// Opens the log, and checks that nothing is damaged.
    fn sound(&self) -> Log {
        let (log, damaged) = self.open();
        assert_eq!(damaged, Vec::<String>::new());
        log
    }

    fn bytes(&self) -> u64 {
        let size = |number| path_of(&self.0, number).metadata().expect("there").len();
        segments(&self.0).expect("listed").into_iter().map(size).sum()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(job: u64, number: u32, value: &[u8]) -> Write {
    Write { key: RecordKey { job, number }, value: Some(value.to_vec().into()) }
}

fn delete(job: u64, number: u32) -> Write {
    Write { key: RecordKey { job, number }, value: None }
}

fn records(log: &Log) -> Vec<(u64, u32, Vec<u8>)> {
    log.records().map(|(key, value)| (key.job, key.number, value)).collect()
}

#[test]
fn what_was_committed_is_there_after_a_restart_in_order_of_keys() {
    let dir = Dir::new();
    let mut log = dir.sound();
    log.commit(&[write(2, 0, b"two"), write(1, 0, b"one")]).expect("written");
    log.commit(&[write(1, 1, b"more"), write(2, 0, b"TWO")]).expect("written");
    log.commit(&[delete(1, 0)]).expect("written");
    let expected = vec![(1, 1, b"more".to_vec()), (2, 0, b"TWO".to_vec())];
    assert_eq!(records(&log), expected);
    drop(log);
    assert_eq!(records(&dir.sound()), expected);
}

#[test]
fn a_torn_last_batch_is_as_if_it_had_never_been() {
    let dir = Dir::new();
    let mut log = dir.sound();
    log.commit(&[write(1, 0, b"safe")]).expect("written");
    let end = log.at;
    log.commit(&[write(2, 0, b"torn"), write(3, 0, b"torn too")]).expect("written");
    let torn = log.at;
    drop(log);
    for cut in [end, end + 1, end + 5, end + BATCH_HEAD_LEN, torn - 9, torn - 1] {
        let bytes = fs::read(path_of(&dir.0, 1)).expect("read");
        let mut cut_off = bytes.clone();
        cut_off[cut..].fill(0);
        fs::write(path_of(&dir.0, 1), &cut_off).expect("written");
        let (log, damaged) = dir.open();
        assert_eq!(records(&log), [(1, 0, b"safe".to_vec())], "cut at {cut}");
        let is_there = cut_off[end..].iter().any(|byte| *byte != 0);
        assert_eq!(!damaged.is_empty(), is_there, "cut at {cut}: {damaged:?}");
        drop(log);
        assert_eq!(records(&dir.sound()), [(1, 0, b"safe".to_vec())], "what was torn is said once");
        segments(&dir.0)
            .expect("listed")
            .into_iter()
            .for_each(|n| fs::remove_file(path_of(&dir.0, n)).expect("removed"));
        fs::write(path_of(&dir.0, 1), &bytes).expect("restored");
    }
}

/// A directory with three batches, and the bytes of its segment.
fn three_batches() -> (Dir, Vec<u8>, usize) {
    let dir = Dir::new();
    let mut log = dir.sound();
    for job in 1..=3 {
        log.commit(&[write(job, 0, b"a record of some length")]).expect("written");
    }
    let end = log.at;
    let bytes = fs::read(path_of(&dir.0, 1)).expect("read");
    (dir, bytes, end)
}

#[test]
fn every_flipped_bit_is_noticed_and_takes_no_other_batch_with_it() {
    let (_dir, bytes, end) = three_batches();
    for bit in 0..end * 8 {
        let mut flipped = bytes[..end + 64].to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut found = Vec::new();
        let walked = walk(&flipped, 1, |change| found.push(change.value.map(<[u8]>::to_vec))).expect("this version");
        assert!(walked.damage.is_some(), "bit {bit} is noticed");
        let expected = if bit / 8 < SEGMENT_HEAD_LEN { 3 } else { 2 };
        assert_eq!(found, vec![Some(b"a record of some length".to_vec()); expected], "bit {bit} damages one batch");
    }
}

#[test]
fn damage_is_said_once_and_what_can_be_read_stays() {
    let (dir, mut bytes, end) = three_batches();
    bytes[end / 2] ^= 1;
    fs::write(path_of(&dir.0, 1), &bytes).expect("written");
    let (mut log, damaged) = dir.open();
    assert_eq!((damaged.len(), log.records().count()), (1, 2), "{damaged:?}");
    log.commit(&[write(9, 0, b"later")]).expect("written");
    drop(log);
    assert_eq!(dir.sound().records().count(), 3);
}

#[test]
fn a_damaged_segment_is_kept_aside_as_it_was() {
    let dir = Dir::new();
    let mut log = dir.sound();
    log.commit(&[write(1, 0, b"one")]).expect("written");
    drop(log);
    let mut bytes = fs::read(path_of(&dir.0, 1)).expect("read");
    bytes[SEGMENT_HEAD_LEN + BATCH_HEAD_LEN] ^= 1;
    fs::write(path_of(&dir.0, 1), &bytes).expect("written");
    let (_, damaged) = dir.open();
    assert!(damaged[0].contains("damaged/00000001-0.log"), "{damaged:?}");
    assert_eq!(fs::read(dir.0.join("damaged/00000001-0.log")).expect("kept"), bytes);
}

#[test]
fn another_version_is_refused_with_both() {
    let dir = Dir::new();
    drop(dir.sound());
    let mut bytes = fs::read(path_of(&dir.0, 1)).expect("read");
    bytes[4..8].copy_from_slice(&7_u32.to_be_bytes());
    let crc = crc32fast::hash(&bytes[..8]);
    bytes[8..12].copy_from_slice(&crc.to_be_bytes());
    fs::write(path_of(&dir.0, 1), &bytes).expect("written");
    let error = Log::open(&dir.0).err().expect("refused");
    assert!(matches!(error, JournalError::Version(_, 7, 2)), "{error}");
}

#[test]
fn dead_records_make_room_and_living_ones_stay() {
    let dir = Dir::new();
    let mut log = dir.sound();
    log.commit(&[write(1, 0, b"old but alive")]).expect("written");
    let value = vec![7; 1 << 20];
    for job in 2..100 {
        log.commit(&[write(job, 0, &value), delete(job - 1, 1)]).expect("written");
        log.commit(&[delete(job, 0)]).expect("written");
        log.make_room().expect("made");
    }
    assert!(dir.bytes() <= (SEGMENTS_MIN as u64 + 1) * SEGMENT_LEN as u64, "{} bytes", dir.bytes());
    assert_eq!(records(&log), [(1, 0, b"old but alive".to_vec())]);
    drop(log);
    assert_eq!(records(&dir.sound()), [(1, 0, b"old but alive".to_vec())]);
}

#[test]
fn a_batch_longer_than_a_segment_is_kept() {
    let dir = Dir::new();
    let mut log = dir.sound();
    let value = vec![9; SEGMENT_LEN + 5];
    log.commit(&[write(1, 0, b"before")]).expect("written");
    log.commit(&[write(2, 0, &value)]).expect("written");
    log.make_room().expect("made");
    log.commit(&[write(3, 0, b"after")]).expect("written");
    assert_eq!(segments(&dir.0).expect("listed"), [1, 2], "it goes on in another segment");
    drop(log);
    let expected = [(1, 0, b"before".to_vec()), (2, 0, value), (3, 0, b"after".to_vec())];
    assert_eq!(records(&dir.sound()), expected);
}

/// A log whose last segment is a file that contained other batches before. Job 1 is alive.
fn used_again() -> (Dir, Log) {
    use std::os::unix::fs::MetadataExt;

    let dir = Dir::new();
    let mut log = dir.sound();
    let file = |log: &Log| path_of(&dir.0, log.segment).metadata().expect("there").ino();
    let mut files = vec![file(&log)];
    for job in 2.. {
        // A length that puts the heads of batches at all positions.
        for number in 0..8 {
            log.commit(&[write(job, number, &vec![7; (1 << 19) + 12 * job as usize])]).expect("written");
        }
        log.commit(&(0..8).map(|number| delete(job, number)).collect::<Vec<_>>()).expect("written");
        log.make_room().expect("made");
        if files.contains(&file(&log)) {
            break;
        }
        assert!(job < 20, "a file is used again");
        files.push(file(&log));
    }
    log.commit(&[write(1, 0, b"alive")]).expect("written");
    (dir, log)
}

#[test]
fn the_file_of_a_dead_segment_is_used_again_and_what_was_in_it_is_not_read() {
    let (dir, mut log) = used_again();
    assert!(path_of(&dir.0, log.segment).metadata().expect("there").len() >= SEGMENT_LEN as u64);
    assert_eq!(records(&log), [(1, 0, b"alive".to_vec())]);
    drop(log);
    log = dir.sound();
    assert_eq!(records(&log), [(1, 0, b"alive".to_vec())]);
    log.commit(&[write(1, 1, b"too")]).expect("written");
    drop(log);
    assert_eq!(records(&dir.sound()), [(1, 0, b"alive".to_vec()), (1, 1, b"too".to_vec())]);
    let is_spare =
        |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|e| e.path().extension().is_some_and(|e| e == SPARE));
    assert!(!fs::read_dir(&dir.0).expect("listed").any(is_spare), "spares are for one run");
}

#[test]
fn a_torn_batch_over_older_ones_takes_nothing_with_it() {
    let (dir, mut log) = used_again();
    let path = path_of(&dir.0, log.segment);
    let (segment, at) = (log.segment, log.at);
    let before = fs::read(&path).expect("read");
    log.commit(&[write(2, 0, &[5; 3000])]).expect("written");
    let whole = fs::read(&path).expect("read");
    let walked = |bytes: &[u8]| {
        let mut jobs = Vec::new();
        let walked = walk(bytes, segment, |change| jobs.push(change.key.job)).expect("this version");
        (jobs, walked.damage.is_some())
    };
    assert_eq!(walked(&whole), (vec![1, 2], false));
    // Some part of it was not written to the disk.
    for lost in (at..log.at + BATCH_HEAD_LEN).step_by(BATCH_HEAD_LEN) {
        let mut torn = whole.clone();
        torn[lost..lost + BATCH_HEAD_LEN].copy_from_slice(&before[lost..lost + BATCH_HEAD_LEN]);
        let (jobs, is_damaged) = walked(&torn);
        let last = lost >= log.at;
        assert_eq!(jobs, if last { vec![1, 2] } else { vec![1] }, "byte {lost}");
        assert!(is_damaged || lost == at || last, "byte {lost} is noticed unless nothing says that there was a batch");
    }
}

/// The records in a copy of the directory, after some sectors of the last batch were lost.
fn after_losing(
    log: &Log,
    (segment, at): (u32, usize),
    before: &[u8],
    lost: impl Fn(usize) -> bool,
) -> Vec<(u64, u32, Vec<u8>)> {
    const SECTOR: usize = 512;
    let copy = Dir::new();
    for number in segments(&log.dir).expect("listed") {
        let mut bytes = fs::read(path_of(&log.dir, number)).expect("read");
        if number == segment {
            for sector in (at / SECTOR..=log.at / SECTOR).filter(|sector| lost(*sector)) {
                let end = ((sector + 1) * SECTOR).min(bytes.len());
                let from = (sector * SECTOR).max(at);
                let older = before.iter().skip(from).copied().chain(std::iter::repeat(0));
                for (byte, older) in bytes[from..end].iter_mut().zip(older) {
                    *byte = older;
                }
            }
        }
        fs::write(path_of(&copy.0, number), bytes).expect("written");
    }
    records(&copy.open().0)
}

#[test]
fn a_crash_in_any_batch_leaves_what_was_committed_before_it() {
    let dir = Dir::new();
    let mut log = dir.sound();
    let (mut state, mut reused, mut torn) = (SplitMix64(1), 0, 0);
    let mut model: BTreeMap<(u64, u32), Vec<u8>> = BTreeMap::new();
    let flat = |model: &BTreeMap<(u64, u32), Vec<u8>>| -> Vec<_> {
        model.iter().map(|((job, number), value)| (*job, *number, value.clone())).collect()
    };
    for round in 0..150_u64 {
        let expected = flat(&model);
        let mut writes = Vec::new();
        for _ in 0..1 + state.bits() % 4 {
            let (job, number) = (state.bits() % 12, state.bits() as u32 % 2);
            if state.bits().is_multiple_of(3) {
                model.remove(&(job, number));
                writes.push(delete(job, number));
            } else {
                let value = vec![round as u8; 1 + state.bits() as usize % 400_000];
                writes.push(write(job, number, &value));
                model.insert((job, number), value);
            }
        }
        let (segment, at) = (log.segment, log.at);
        let before = fs::read(path_of(&dir.0, segment)).expect("read");
        log.commit(&writes).expect("written");
        if round.is_multiple_of(5) {
            let all = |_| true;
            let seed = state.bits();
            let some = |sector: usize| SplitMix64(seed ^ sector as u64).bits().is_multiple_of(2);
            assert_eq!(
                after_losing(&log, (segment, at), &before, |_| false),
                flat(&model),
                "round {round}: nothing is lost"
            );
            assert_eq!(
                after_losing(&log, (segment, at), &before, all),
                expected,
                "round {round}: all of the batch is lost"
            );
            let left = after_losing(&log, (segment, at), &before, some);
            torn += u32::from(left != flat(&model));
            assert!(left == expected || left == flat(&model), "round {round}: some of the batch is lost");
        }
        let spares = log.spares.len();
        log.make_room().expect("made");
        reused += u32::from(log.segment > segment && spares > 0);
    }
    assert!(reused > 5 && torn > 10, "{reused} files used again, {torn} torn batches");
}

#[test]
fn a_large_write_takes_no_memory_of_its_size_and_is_read_back() {
    let dir = Dir::new();
    let mut log = dir.sound();
    let value = |job: u64| vec![job as u8; if job.is_multiple_of(100) { 3 << 20 } else { 10_000 + job as usize }];
    // Each job is 20 KB in pieces that are collected, or 3 MB that are written directly.
    let writes: Vec<Write> =
        (1..4_000).flat_map(|job| [write(job, 0, &value(job)), write(job, 1, &[1; 10_000])]).collect();
    let bytes: usize = writes.iter().map(|write| write.value.as_ref().map_or(0, RecordBytes::bytes)).sum();
    assert!(bytes > 180 << 20, "{bytes}");
    log.commit(&writes).expect("written");
    assert!(log.buffer.capacity() <= 2 * PIECE_LEN + LARGE_LEN, "{} bytes", log.buffer.capacity());
    let longest =
        segments(&dir.0).expect("listed").into_iter().map(|n| path_of(&dir.0, n).metadata().expect("there").len());
    assert!(
        longest.max() <= Some((SEGMENT_LEN + BATCH_LEN_MAX + (4 << 20)) as u64),
        "segments are small enough to be read"
    );
    drop(log);
    let (mut count, log) = (0, dir.sound());
    for (key, bytes) in log.records() {
        let expected = if key.number == 0 { value(key.job) } else { vec![1; 10_000] };
        assert!(bytes == expected, "{key:?}");
        count += 1;
    }
    assert_eq!(count, writes.len());
}

#[test]
fn no_change_is_parted_from_the_deletions_that_follow_it() {
    let large = |job| write(job, 0, &vec![9; BATCH_LEN_MAX / 2 + 1]);
    assert_eq!(batch_of(&[large(1), delete(1, 1), delete(1, 2), large(2), delete(2, 1)]), 3);
    assert_eq!(batch_of(&[write(1, 0, &vec![9; BATCH_LEN_MAX + 1]), delete(1, 1), write(2, 0, b"two")]), 2);
    assert_eq!(batch_of(&[delete(1, 1), delete(1, 2)]), 2);
}

#[test]
fn of_a_large_write_that_fails_what_was_written_is_whole() {
    let dir = Dir::new();
    let mut log = dir.sound();
    let large = |job| write(job, 0, &vec![job as u8; BATCH_LEN_MAX - 100]);
    log.commit(&[large(1), delete(1, 1), large(2), large(3)]).expect("written");
    drop(log);
    // As after a power cut in the middle of the second batch.
    let path = path_of(&dir.0, 2);
    let bytes = fs::read(&path).expect("read");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("written");
    fs::remove_file(path_of(&dir.0, 3)).expect("removed");
    let (log, damaged) = dir.open();
    assert_eq!(damaged.len(), 1, "{damaged:?}");
    assert_eq!(
        records(&log).into_iter().map(|(job, _, value)| (job, value.len())).collect::<Vec<_>>(),
        [(1, BATCH_LEN_MAX - 100)]
    );
}

#[test]
fn a_log_whose_folder_is_gone_or_another_one_takes_nothing() {
    let gone = |log: &mut Log| log.commit(&[write(2, 0, b"two")]).expect_err("nothing is safe").to_string();
    let dir = Dir::new();
    let mut log = dir.sound();
    log.commit(&[write(1, 0, b"one")]).expect("written");
    fs::remove_dir_all(&dir.0).expect("removed");
    let text = format!("{} is gone, or another one is in its place: start the node again", dir.0.display());
    assert_eq!(gone(&mut log), text);
    fs::create_dir_all(&dir.0).expect("made");
    fs::write(path_of(&dir.0, 1), "of somebody else").expect("written");
    assert_eq!(gone(&mut log), text);
}

#[test]
fn only_the_owner_may_read_what_is_written() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = Dir::new();
    let mut log = dir.sound();
    log.commit(&[write(1, 0, b"safe"), write(2, 0, b"torn")]).expect("written");
    let end = log.at;
    drop(log);
    let mut bytes = fs::read(path_of(&dir.0, 1)).expect("read");
    bytes[end - 1] ^= 1;
    fs::write(path_of(&dir.0, 1), &bytes).expect("written");
    let (_log, damaged) = dir.open();
    assert_eq!(damaged.len(), 1);
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    let files = |dir: &Path| {
        fs::read_dir(dir).expect("listed").map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    assert_eq!(mode(&dir.0.join("damaged")), 0o700);
    for path in files(&dir.0).into_iter().chain(files(&dir.0.join("damaged"))).filter(|path| path.is_file()) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
