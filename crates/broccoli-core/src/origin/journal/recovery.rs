//! Recovery: a new incarnation takes over the jobs in the journal.
//!
//! ```text
//!   records ──► plans replayed, tasks queued ──► workers say what they still hold ──► leases
//! ```
//!
//! Before it leases anything, it asks all workers and waits a little, so that running tasks are adopted and not run
//! again. A job with unusable records stays on the disk, and queries for it return the reason.
//!
//! The memory limits apply. Records are read one by one. A job that alone needs more memory than there is fails, and
//! its other records are not read. A job that finds no room beside earlier ones stays on the disk, for an incarnation
//! with more memory.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Available, Message};
use broccoli_proto::{Canvas, Cause, TaskError};
use litemap::LiteMap;

use crate::canvas::{Effects, Limits, lower};
use crate::io::{Damage, OtherVersion, RecordKey, Recovery};
use crate::origin::accept::set_deadline;
use crate::origin::job::functions::{Bound, Functions};
use crate::origin::job::memory::{outgrown, size};
use crate::origin::job::ticket::{Client, Ticket};
use crate::origin::job::{Job, attempts_before};
use crate::origin::journal::archive::{AWAITED, Ended};
use crate::origin::journal::records::{
    About, AcceptedRecord, Binding, Bindings, ChangesRecord, NodeRecord, OverRecord, Record, VERSION,
};
use crate::origin::{Around, Origin};
use crate::shared::Shared;
use crate::time::{Stamp, ms};
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// After a restart, workers have this long from the first connection to say what they hold.
const ADOPT: LinkTime = link_ms(800);
/// The node waits this long for the first connection.
const ADOPT_UNCONNECTED: LinkTime = link_ms(2_000);
/// Most sets of bindings whose decoded form is cached.
const KNOWN_MAX: usize = 256;

/// The result of reading the records of a job.
enum Found {
    /// It continues.
    Running(u64, Box<Job>),
    Over(Box<OverRecord<'static>>),
    /// It needs more memory than there is; read up to that point.
    Outgrown(Box<Job>, String),
    /// It needs more memory than is left; the value is its total.
    NoRoom(usize),
}

/// The error for queries about a job that stayed on the disk.
pub(crate) fn left_on_disk(why: &str) -> TaskError {
    TaskError {
        function: "journal".into(),
        task: 0,
        node: None,
        attempt: 0,
        cause: Cause::Lost,
        text: why.into(),
        members: Vec::new(),
    }
}

/// The record of the node itself. Earlier versions are read, later ones are refused.
fn node_of(records: &mut impl Iterator<Item = (RecordKey, Vec<u8>)>) -> Result<NodeRecord, OtherVersion> {
    let first = records.next();
    records.for_each(drop);
    match first.as_ref().and_then(|(_, value)| Record::decode(value)) {
        Some(Record::Node(node)) if node.version <= VERSION => Ok(node),
        Some(Record::Node(node)) => Err(OtherVersion { found: Some(node.version), known: VERSION }),
        _ => Err(OtherVersion { found: None, known: VERSION }),
    }
}

/// Reads the records of one job after another.
struct Reader {
    node: NodeRecord,
    /// The latest time in any record.
    last: Option<Stamp>,
    limits: Limits,
    /// Decoded bindings of recent jobs, by their record: the next job often has the same.
    known: LiteMap<Vec<u8>, Vec<Arc<Bound>>>,
    /// Ignored: after reading, the plan lists the open tasks again.
    effects: Effects,
}

impl Reader {
    fn new(limits: Limits) -> Reader {
        let node = NodeRecord { version: VERSION, boots: 0, ..NodeRecord::default() };
        Reader { node, last: None, limits, known: LiteMap::new_vec(), effects: Effects::default() }
    }

    /// Reads the records of one job.
    fn read(
        &mut self,
        functions: &mut Functions,
        records: &mut impl Iterator<Item = (RecordKey, Vec<u8>)>,
        max: usize,
        free: usize,
    ) -> Result<Found, String> {
        let first = value(records, 0)?.ok_or("it has no records")?;
        let accepted = match decode(&first, 0)? {
            Record::Over(over) => {
                self.last = self.last.max(over.ended);
                return Ok(Found::Over(Box::new(over.into_owned())));
            }
            Record::Accepted(accepted) => accepted,
            _ => return Err("record 0 says nothing of a job".into()),
        };
        let order = accepted.order;
        self.last = self.last.max(accepted.about.submitted);
        let mut job = self.accepted_again(functions, accepted)?;
        job.plan.start(&mut self.effects);
        let mut count = 1;
        while job.bytes() <= max.min(free)
            && let Some(bytes) = value(records, count)?
        {
            let Record::Changes(ChangesRecord { at, changes }) = decode(&bytes, count)? else {
                return Err(format!("record {count} is no change"));
            };
            self.last = self.last.max(at);
            for change in changes {
                let replayed = job.replay(change, &self.limits, functions, &mut self.effects);
                replayed.map_err(|why| format!("record {count}: {why}"))?;
            }
            count += 1;
        }
        self.effects.clear();
        let bytes = job.bytes();
        if bytes > free && bytes <= max {
            return Ok(Found::NoRoom(bytes));
        }
        let job = Box::new(job.recovered(attempts_before(self.node.boots), count));
        match bytes > max {
            true => Ok(Found::Outgrown(job, outgrown(bytes, None, max))),
            false => Ok(Found::Running(order, job)),
        }
    }

    /// Rebuilds a job as it was accepted.
    fn accepted_again(&mut self, functions: &mut Functions, accepted: AcceptedRecord<'_>) -> Result<Job, String> {
        let AcceptedRecord { about, canvas, bindings, .. } = accepted;
        let (mut about, canvas) = (about.into_owned(), canvas.into_owned());
        let bound = self.bound(functions, bindings)?;
        let resolve = |name: &str| {
            let key = bound.iter().position(|bound| bound.asked == name);
            let key = key.ok_or_else(|| format!("it is not said what {name} is"))?;
            Ok(bound[key].target(key))
        };
        let tree = Canvas::from_wire(canvas.as_bytes()).map_err(|error| error.to_string())?;
        let plan = lower(&tree, resolve, &self.limits).map_err(|error| error.to_string())?;
        let client = match about.submitter.filter(|_| about.waits) {
            Some(submitter) => Client::Remote(submitter.node),
            None => Client::Detached,
        };
        about.name = String::new();
        Ok(Job::new(plan, Ticket::new(client, about), canvas, bound))
    }

    fn bound(&mut self, functions: &mut Functions, bindings: Bindings<'_>) -> Result<Vec<Arc<Bound>>, String> {
        if let Some(known) = self.known.get(bindings.0) {
            return Ok(known.clone());
        }
        let decoded = minicbor::decode::<Vec<Binding>>(bindings.0);
        let decoded = decoded.map_err(|_| "what its functions are cannot be read")?;
        let bound: Vec<_> = decoded.into_iter().map(|binding| functions.bind_again(binding)).collect();
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(bindings.0.into(), bound.clone());
        Ok(bound)
    }
}

/// The next record of a job, which must have this number; none at the end.
fn value(records: &mut impl Iterator<Item = (RecordKey, Vec<u8>)>, number: u32) -> Result<Option<Vec<u8>>, String> {
    match records.next() {
        Some((key, value)) if key.number == number => Ok(Some(value)),
        Some(_) => Err(format!("record {number} is missing")),
        None => Ok(None),
    }
}

fn decode(value: &[u8], number: u32) -> Result<Record<'_>, String> {
    Record::decode(value).ok_or_else(|| format!("record {number} cannot be read"))
}

impl Origin {
    /// Takes over the records of earlier incarnations, in the order of their keys.
    pub(crate) fn recover(
        &mut self,
        shared: &mut Shared,
        records: impl Iterator<Item = (RecordKey, Vec<u8>)>,
    ) -> Result<Recovery, OtherVersion> {
        let mut recovery = Recovery::default();
        let mut records = records.peekable();
        let (mut queued, mut over, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let mut reader = Reader::new(shared.config.limits.canvas);
        while let Some((RecordKey { job: number, .. }, _)) = records.peek() {
            let number = *number;
            let mut of_job = core::iter::from_fn(|| records.next_if(|(key, _)| key.job == number));
            if number == 0 {
                reader.node = node_of(&mut of_job)?;
                continue;
            }
            let limits = &shared.config.limits;
            let (max, free) = (limits.queue_bytes_max, self.free_bytes(shared));
            let found = reader.read(&mut self.functions, &mut of_job, max, free);
            let unread = of_job.count() as u32;
            match found {
                Ok(Found::Over(record)) => over.push((record.ended, number, *record)),
                Ok(Found::Running(order, mut job)) => {
                    self.memory.recount(number, &mut job);
                    queued.push((order, number, job));
                }
                Ok(Found::Outgrown(mut job, text)) => {
                    job.ticket.records += unread;
                    // Frees its memory for the next jobs.
                    job.plan.outgrow(text);
                    failed.push((number, job));
                }
                Ok(Found::NoRoom(bytes)) => {
                    let (needed, max) = (size(bytes), size(max));
                    let reason = format!(
                        "it needs {needed} of memory beside the jobs before it, and the queue memory is {max}: start the node with more"
                    );
                    self.journal.left.insert(number, format!("the job is left on the disk: {reason}"));
                    recovery.damaged.push(Damage { job: number, reason });
                }
                Err(reason) => {
                    self.journal.left.insert(number, format!("the records of the job are damaged: {reason}"));
                    recovery.damaged.push(Damage { job: number, reason });
                }
            }
        }
        over.sort_unstable_by_key(|(ended, number, _)| (*ended, *number));
        queued.sort_unstable_by_key(|(order, number, _)| (*order, *number));
        recovery.jobs = queued.len();
        recovery.results = over.len();
        let Reader { node, last, .. } = reader;
        let (boots, clock_ahead_ms) = (node.boots, node.clock_ahead_ms);
        shared.wall.take_over(shared.now, clock_ahead_ms.unwrap_or(0), last);
        let keepers = node.keepers();
        self.journal.begin(boots + 1, shared.wall.ahead_ms(), &keepers);
        self.recover_keepers(keepers);
        for (_, number, record) in over {
            self.archive_recovered(shared, number, record);
        }
        for (number, job) in failed {
            self.take_recovered(shared, number, job);
            self.end_tasks(shared, number);
        }
        self.leases.adopting = recovery.jobs > 0;
        self.leases.took_over = self.leases.adopting;
        self.accept.count = queued.last().map_or(0, |(order, ..)| *order);
        let numbers: Vec<u64> = queued.iter().map(|(_, number, _)| *number).collect();
        for (_, number, job) in queued {
            self.take_recovered(shared, number, job);
        }
        let mut effects = Effects::default();
        for number in numbers {
            if let Some(job) = self.jobs.get(&number) {
                job.plan.announce_again(&mut effects);
            }
            let had_ended = self.jobs.get(&number).is_some_and(|job| job.plan.result().is_some());
            effects = self.apply_effects(shared, number, effects);
            if let Some(ticket) = self.ticket_mut(number).filter(|_| had_ended) {
                // The journal has the outcome already: no write of this incarnation is needed.
                ticket.ended_in = 0;
            }
        }
        recovery.tasks = self.jobs.values().map(|job| job.plan.progress()).map(|p| p.total - p.done).sum();
        if self.leases.adopting {
            shared.timers.set(Timer::Adopt, shared.now + shared.timing(ADOPT_UNCONNECTED));
        }
        self.clean_archive(shared);
        Ok(recovery)
    }

    /// The link is up: asks all workers for the tasks of earlier incarnations that they hold.
    pub(crate) fn call_held(&mut self, shared: &mut Shared, around: &Around<'_>) {
        if self.leases.adopting {
            shared.timers.set(Timer::Adopt, shared.now + shared.timing(ADOPT));
            let call = Available { wants: Vec::new(), chance: 0, modules: around.modules.digest() };
            shared.outbox.broadcast(Message::Available(call));
        }
    }

    /// The time to adopt tasks is over: leasing starts.
    pub(crate) fn on_adopt_timer(&mut self, shared: &mut Shared) {
        if !self.journal.has_begun() {
            // Until this incarnation is in the journal, its attempt numbers could be reused by the next one.
            shared.timers.set(Timer::Adopt, shared.now + shared.timing(ADOPT));
            return;
        }
        self.leases.adopting = false;
        self.dispatch.due = true;
        for (number, job) in &self.jobs {
            if let Some(at) = job.next_expiry() {
                shared.timers.set(Timer::Expires(*number), at);
            }
        }
    }

    fn take_recovered(&mut self, shared: &mut Shared, number: u64, mut job: Box<Job>) {
        job.accepted = shared.now;
        job.age = shared.wall.age(shared.now, job.ticket.about.submitted);
        set_deadline(shared, number, &job);
        self.tasks += job.plan.progress().total;
        self.remember(number, &job.ticket.about);
        self.jobs.insert(number, job);
    }

    /// Stores the submit, so that a repetition of it finds the same job.
    fn remember(&mut self, number: u64, about: &About) {
        if let Some(key) = &about.key {
            self.accept.by_key.insert(key.text.clone(), number);
        }
        if let Some(submitter) = about.submitter {
            let of_client = self.accept.recovered.entry((submitter.node, submitter.epoch)).or_default();
            of_client.insert(submitter.number, number);
        }
    }

    fn archive_recovered(&mut self, shared: &Shared, number: u64, over: OverRecord<'_>) {
        self.remember(number, &over.about);
        let age = shared.wall.age(shared.now, over.ended);
        let awaited_until = shared.now + if over.about.waits { AWAITED } else { Duration::ZERO };
        let mut ticket = Ticket::new(Client::Detached, over.about.into_owned());
        ticket.records = 1;
        let ended = Ended {
            ticket,
            outcome: over.outcome.into_owned(),
            tasks: over.tasks,
            ran: over.ran.unwrap_or(over.tasks),
            canvas: over.canvas.map(Cow::into_owned),
            ended: over.ended,
            until: shared.now + ms(shared.config.limits.archive_ms).saturating_sub(age),
            awaited_until,
            tries: 0,
        };
        self.archive.insert(number, ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_version_but_a_later_one_are_read() {
        let read = |version| {
            let record = Record::Node(NodeRecord { version, boots: 3, ..NodeRecord::default() }).encode();
            node_of(&mut core::iter::once((RecordKey { job: 0, number: 0 }, record.to_vec())))
        };
        for version in 0..=VERSION {
            assert_eq!(read(version).map(|node| node.boots), Ok(3), "version {version}");
        }
        let later = OtherVersion { found: Some(VERSION + 1), known: VERSION };
        assert_eq!(read(VERSION + 1).map(drop), Err(later));
    }
}
