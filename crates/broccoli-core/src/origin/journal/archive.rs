//! The archive: keeps the outcomes of ended jobs for clients that ask.
//!
//! ```text
//!   ended ──► awaited ──── acknowledged ──► seen ──► forgotten
//!               └────── too old, or no room ─────────▲
//! ```
//!
//! Outcomes are kept for a limited time and up to a limited size. Those that a client has received are deleted first. A
//! client that waits for a job always gets its outcome: it does not become too old before the client has acknowledged
//! it, or has stayed away for long.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::{Cbor, Outcome};

use crate::origin::job::ticket::Ticket;
use crate::origin::journal::records::OverRecord;
use crate::time::{Instant, Stamp, ms};

/// A client that waits for a job may stay away this long before the outcome can become too old.
pub(crate) const AWAITED: Duration = ms(10 * 60_000);
/// About the size of an entry without its result and canvas, in bytes.
const ENTRY_BYTES: usize = 384;
/// Most numbers of forgotten jobs in the queues beyond the number of jobs.
const STALE_MAX: usize = 64;

/// An ended job.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) ticket: Ticket,
    pub(crate) outcome: Outcome,
    /// Number of all its tasks.
    pub(crate) tasks: u32,
    /// Number of tasks that ended by themselves.
    pub(crate) ran: u32,
    /// The canvas of a failed job, so that it can be retried.
    pub(crate) canvas: Option<Cbor>,
    pub(crate) ended: Option<Stamp>,
    /// It is deleted at this time, if no client waits for it.
    pub(crate) until: Instant,
    /// A client waits for it until this time, unless it acknowledges it before.
    pub(crate) awaited_until: Instant,
    /// How often its end was sent to the client.
    pub(crate) tries: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Archive {
    jobs: BTreeMap<u64, Box<Ended>>,
    /// In the order of their ends; may contain forgotten jobs.
    by_age: VecDeque<u64>,
    /// In the order in which they were acknowledged; may contain forgotten jobs.
    seen: VecDeque<u64>,
    bytes: usize,
}

impl Ended {
    /// Its record in the journal.
    pub(crate) fn record(&self) -> OverRecord<'_> {
        OverRecord {
            about: Cow::Borrowed(&self.ticket.about),
            outcome: Cow::Borrowed(&self.outcome),
            tasks: self.tasks,
            ended: self.ended,
            canvas: self.canvas.as_ref().map(Cow::Borrowed),
            ran: Some(self.ran),
        }
    }

    fn is_too_old(&self, now: Instant) -> bool {
        self.until <= now && (self.ticket.seen || self.awaited_until <= now)
    }

    fn bytes(&self) -> usize {
        let outcome = match &self.outcome {
            Ok(value) => value.as_bytes().len(),
            Err(error) => error.text.len(),
        };
        let key = self.ticket.about.key.as_ref().map_or(0, |key| key.text.len());
        ENTRY_BYTES + outcome + key + self.canvas.as_ref().map_or(0, |canvas| canvas.as_bytes().len())
    }
}

impl Archive {
    /// Approximate bytes of all entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Ended> {
        self.jobs.get(&number).map(Box::as_ref)
    }

    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Ended> {
        self.jobs.get_mut(&number).map(Box::as_mut)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Ended)> {
        self.jobs.iter().map(|(number, ended)| (*number, &**ended))
    }

    /// The first job with this number or a higher one.
    pub(crate) fn first_from(&self, number: u64) -> Option<(u64, &Ended)> {
        self.jobs.range(number..).next().map(|(number, ended)| (*number, &**ended))
    }

    /// Adds an ended job.
    pub(crate) fn insert(&mut self, number: u64, ended: Ended) {
        self.bytes += ended.bytes();
        self.by_age.push_back(number);
        if ended.ticket.seen {
            self.seen.push_back(number);
        }
        self.jobs.insert(number, Box::new(ended));
        let jobs = &self.jobs;
        for queue in [&mut self.by_age, &mut self.seen] {
            if queue.len() > 2 * jobs.len() + STALE_MAX {
                queue.retain(|number| jobs.contains_key(number));
            }
        }
    }

    /// A client has received the outcome of a job.
    pub(crate) fn see(&mut self, number: u64) {
        if let Some(ended) = self.jobs.get_mut(&number).filter(|ended| !ended.ticket.seen) {
            ended.ticket.seen = true;
            self.seen.push_back(number);
        }
    }

    /// Removes and returns outcomes that are too old or exceed the size. The newest is always kept.
    pub(crate) fn remove_old(&mut self, now: Instant, bytes_max: usize) -> Vec<(u64, Box<Ended>)> {
        let mut forgotten = Vec::new();
        while let Some(number) = self.next_to_forget(now, bytes_max) {
            if let Some(ended) = self.jobs.remove(&number) {
                self.bytes -= ended.bytes();
                forgotten.push((number, ended));
            }
        }
        forgotten
    }

    /// When the oldest entry becomes too old.
    pub(crate) fn next_until(&self) -> Option<Instant> {
        self.by_age.iter().find_map(|number| self.jobs.get(number)).map(|ended| ended.until)
    }

    fn next_to_forget(&mut self, now: Instant, bytes_max: usize) -> Option<u64> {
        for queue in [&mut self.by_age, &mut self.seen] {
            while queue.front().is_some_and(|number| !self.jobs.contains_key(number)) {
                queue.pop_front();
            }
        }
        let oldest = *self.by_age.front()?;
        let seen = self.seen.front().copied();
        let is_too_old = |number: &u64| self.jobs.get(number).is_some_and(|ended| ended.is_too_old(now));
        if let Some(number) = [Some(oldest), seen].into_iter().flatten().find(is_too_old) {
            return Some(number);
        }
        let newest = self.by_age.back().copied();
        let crowded = self.bytes > bytes_max && self.jobs.len() > 1;
        let first = seen.filter(|number| Some(*number) != newest).unwrap_or(oldest);
        crowded.then_some(first)
    }

    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self) {
        let bytes: usize = self.jobs.values().map(|ended| ended.bytes()).sum();
        assert_eq!(self.bytes, bytes, "the size of what is kept is counted");
        assert!(self.jobs.len() <= self.by_age.len(), "everything that is kept gets old");
    }
}
