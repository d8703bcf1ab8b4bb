//! A new incarnation takes over from the journal of the one before.
//!
//! ```text
//!   records ──► plans replayed, tasks queued ──► workers say what they still hold ──► leases
//! ```
//!
//! Between the two it calls all workers and waits a little, so that what still runs is adopted and
//! not run again. A job whose records cannot be used is left as it is on the disk, and whoever asks
//! after it is told so.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use broccoli_proto::message::{Available, LeasedFunction, Message};
use broccoli_proto::{Canvas, Cause, TaskError};

use super::archive::Ended;
use super::jobs::{Client, Job, attempts_before};
use super::journal::{About, AcceptedRecord, ChangesRecord, OverRecord, Record, VERSION};
use super::{ADOPT, ADOPT_UNCONNECTED, Around, Origin, set_deadline};
use crate::canvas::{Effects, Limits, Resolved, lower};
use crate::io::RecordKey;
use crate::node::{Damage, OtherVersion, Recovery};
use crate::shared::Shared;
use crate::time::ms;
use crate::timers::Timer;

/// A job as its records tell it.
enum Found {
    /// It goes on with these steps.
    Running {
        order: u64,
        job: Box<Job>,
        effects: Effects,
    },
    Over(Box<OverRecord>),
}

/// How an asker is told that the records of a job are damaged.
pub(super) fn damaged(reason: &str) -> TaskError {
    TaskError {
        function: "journal".into(),
        task: 0,
        node: None,
        attempt: 0,
        cause: Cause::Lost,
        text: format!("the records of the job are damaged: {reason}"),
        members: Vec::new(),
    }
}

impl Origin {
    /// Takes over the records of earlier incarnations, in order of their keys.
    pub(crate) fn recover(
        &mut self,
        shared: &mut Shared,
        records: impl Iterator<Item = (RecordKey, Vec<u8>)>,
    ) -> Result<Recovery, OtherVersion> {
        let mut recovery = Recovery::default();
        let mut records = records.peekable();
        let mut boots = 0;
        let (mut queued, mut over) = (Vec::new(), Vec::new());
        while let Some((RecordKey { job: number, .. }, _)) = records.peek() {
            let number = *number;
            let mut of_job = core::iter::from_fn(|| records.next_if(|(key, _)| key.job == number));
            if number == 0 {
                boots = boots_of(&mut of_job)?;
                continue;
            }
            let found = read(&mut of_job, boots, &shared.config.limits.canvas);
            of_job.for_each(drop);
            match found {
                Ok(Found::Over(record)) => over.push((record.ended_unix_ms, number, *record)),
                Ok(Found::Running { order, job, effects }) => {
                    self.accepted = self.accepted.max(order);
                    self.take_recovered(shared, number, *job);
                    queued.push((order, number, effects));
                }
                Err(reason) => {
                    self.damaged.insert(number, reason.clone());
                    recovery.damaged.push(Damage { job: number, reason });
                }
            }
        }
        over.sort_unstable_by_key(|(ended, number, _)| (*ended, *number));
        queued.sort_unstable_by_key(|(order, ..)| *order);
        (recovery.jobs, recovery.results) = (queued.len(), over.len());
        for (_, number, record) in over {
            self.archive_recovered(shared, number, record);
        }
        self.adopting = recovery.jobs > 0;
        for (_, number, effects) in queued {
            self.follow(shared, number, effects);
        }
        recovery.tasks = self.jobs.values().map(|job| job.plan.progress()).map(|p| p.total - p.done).sum();
        self.journal.begin(boots + 1);
        if self.adopting {
            shared.timers.set(Timer::Adopt, shared.now + ADOPT_UNCONNECTED);
        }
        self.on_forget_timer(shared);
        Ok(recovery)
    }

    /// The link is up: asks all workers what they hold for an earlier incarnation.
    pub(super) fn call_held(&mut self, shared: &mut Shared, around: &Around<'_>) {
        if self.adopting {
            shared.timers.set(Timer::Adopt, shared.now + ADOPT);
            let call = Available { wants: Vec::new(), chance: 0, modules: around.modules.digest() };
            shared.outbox.broadcast(Message::Available(call));
        }
    }

    fn take_recovered(&mut self, shared: &mut Shared, number: u64, mut job: Job) {
        let age_ms = shared.unix_ms().zip(job.about.submitted_unix_ms).map(|(now, then)| now.saturating_sub(then));
        (job.accepted, job.age) = (shared.now, ms(age_ms.unwrap_or(0)));
        set_deadline(shared, number, &job);
        self.tasks += job.plan.progress().total;
        self.remember(number, &job.about);
        self.jobs.insert(number, job);
    }

    /// A repetition of the submit is the same job.
    fn remember(&mut self, number: u64, about: &About) {
        if let Some(key) = &about.key {
            self.keys.insert(key.text.clone(), number);
        }
        if let Some(submitter) = about.submitter {
            let of_client = self.recovered.entry((submitter.node, submitter.epoch)).or_default();
            of_client.insert(submitter.number, number);
        }
    }

    fn archive_recovered(&mut self, shared: &Shared, number: u64, over: OverRecord) {
        self.remember(number, &over.about);
        let age_ms = shared.unix_ms().zip(over.ended_unix_ms).map_or(0, |(now, ended)| now.saturating_sub(ended));
        let ended = Ended {
            client: Client::Detached,
            listeners: Vec::new(),
            about: over.about,
            outcome: over.outcome,
            tasks: over.tasks,
            canvas: over.canvas,
            ended_unix_ms: over.ended_unix_ms,
            until: shared.now + ms(shared.config.limits.archive_ms.saturating_sub(age_ms)),
            tries: 0,
            seen: false,
            accepted_in: 0,
            ended_in: 0,
            records: 1,
        };
        self.archive.insert(number, ended);
    }
}

/// How often the node had started when the record was written.
fn boots_of(records: &mut impl Iterator<Item = (RecordKey, Vec<u8>)>) -> Result<u32, OtherVersion> {
    let record = records.next().and_then(|(_, value)| Record::decode(&value));
    records.for_each(drop);
    match record {
        Some(Record::Node(node)) if node.version == VERSION => Ok(node.boots),
        Some(Record::Node(node)) => Err(OtherVersion { found: Some(node.version), known: VERSION }),
        _ => Err(OtherVersion { found: None, known: VERSION }),
    }
}

/// What the records of a job come to.
fn read(
    records: &mut impl Iterator<Item = (RecordKey, Vec<u8>)>,
    boots: u32,
    limits: &Limits,
) -> Result<Found, String> {
    let mut expected = 0..;
    let mut next = || -> Result<Option<Record>, String> {
        let Some((key, value)) = records.next() else {
            return Ok(None);
        };
        let number = expected.next().unwrap_or(u32::MAX);
        if key.number != number {
            return Err(format!("record {number} is missing"));
        }
        Record::decode(&value).map(Some).ok_or_else(|| format!("record {number} cannot be read"))
    };
    let accepted = match next()? {
        Some(Record::Over(over)) => return Ok(Found::Over(Box::new(over))),
        Some(Record::Accepted(accepted)) => accepted,
        _ => return Err("record 0 says nothing of a job".into()),
    };
    let mut effects = Effects::default();
    let order = accepted.order;
    let mut job = accepted_again(accepted, limits)?;
    job.plan.start(&mut effects);
    let mut records = 1;
    while let Some(record) = next()? {
        let Record::Changes(ChangesRecord { changes, .. }) = record else {
            return Err(format!("record {records} is no change"));
        };
        for change in changes {
            job.replay(change, limits, &mut effects).map_err(|why| format!("record {records}: {why}"))?;
        }
        records += 1;
    }
    effects.ready.retain(|step| job.plan.is_running_task(*step));
    effects.each.retain(|step| job.plan.is_running_task(*step));
    effects.failed_callbacks.clear();
    let job = Box::new(job.recovered(attempts_before(boots), records));
    Ok(Found::Running { order, job, effects })
}

/// The job as it was when it was accepted.
fn accepted_again(accepted: AcceptedRecord, limits: &Limits) -> Result<Job, String> {
    let AcceptedRecord { about, canvas, bindings, .. } = accepted;
    let resolve = |name: &str| {
        let found = bindings.iter().enumerate().find(|(_, binding)| binding.asked == name);
        let (key, binding) = found.ok_or_else(|| format!("it is not said what {name} is"))?;
        Ok(Resolved { name: binding.full.clone(), function: &binding.function, key: key as u32 })
    };
    let tree = Canvas::from_wire(canvas.as_bytes()).map_err(|error| error.to_string())?;
    let plan = lower(&tree, resolve, limits).map_err(|error| error.to_string())?;
    let functions = bindings
        .iter()
        .map(|binding| Arc::new(LeasedFunction { module: binding.module, name: binding.function.name.clone() }));
    let client = match about.submitter.filter(|_| about.waits) {
        Some(submitter) => Client::Remote(submitter.node),
        None => Client::Detached,
    };
    Ok(Job::new(plan, client, about, canvas, functions.collect()))
}
