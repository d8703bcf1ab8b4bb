//! The disk of a durable node: an ordered map of records, and the writes in progress.
//!
//! ```text
//!   Persist ──► under way ──► safe (told by Persisted)
//!                   ├── stalled: tried again until it works, which the node is told of
//!                   └── crash: the first few may be safe, the others are gone; none in part
//! ```

use std::collections::{BTreeMap, VecDeque};

use broccoli_core::{RecordKey, Write};

/// The records that a node has asked to keep.
#[derive(Debug, Default)]
pub struct Disk {
    records: BTreeMap<RecordKey, Vec<u8>>,
    under_way: VecDeque<(u64, Vec<Write>)>,
    /// When the last write in progress will be safe.
    pub(super) busy_until_us: u64,
    /// Whether it cannot be written.
    pub(super) stalled: bool,
    /// Whether its node knows this, from a write that failed.
    pub(super) told: bool,
}

impl Disk {
    /// Takes writes that are not safe yet.
    pub(super) fn write(&mut self, number: u64, writes: Vec<Write>) {
        self.under_way.push_back((number, writes));
    }

    /// Everything up to this number is safe now.
    pub(super) fn sync(&mut self, number: u64) {
        while self.under_way.front().is_some_and(|(first, _)| *first <= number) {
            self.keep_first();
        }
    }

    /// A crash: the first `kept` of the writes in progress were already safe. Returns how many were lost.
    pub(super) fn tear(&mut self, kept: usize) -> usize {
        let kept = if self.stalled { 0 } else { kept };
        for _ in 0..kept {
            self.keep_first();
        }
        let torn = self.under_way.len();
        self.under_way.clear();
        self.busy_until_us = 0;
        self.told = false;
        torn
    }

    /// Whether it cannot be written.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether its node has been told that it cannot be written.
    pub fn is_known_to_stall(&self) -> bool {
        self.told
    }

    /// The writes in progress.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// All records that are safe.
    pub fn records(&self) -> &BTreeMap<RecordKey, Vec<u8>> {
        &self.records
    }

    /// Loses everything.
    pub(super) fn wipe(&mut self) {
        *self = Disk::default();
    }

    /// Changes a record, as a failing disk does.
    pub(super) fn damage(&mut self, key: RecordKey, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(value) = self.records.get_mut(&key) {
            change(value);
        }
    }

    fn keep_first(&mut self) {
        let Some((_, writes)) = self.under_way.pop_front() else {
            return;
        };
        for Write { key, value } in writes {
            match value {
                Some(value) => drop(self.records.insert(key, value.to_vec())),
                None => drop(self.records.remove(&key)),
            }
        }
    }
}
