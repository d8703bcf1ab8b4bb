//! Values that this node pulls from the nodes that have announced them.
//!
//! Owns the bytes that have arrived, and limits them: a pull starts when there is room for the whole value. A value is
//! pulled only from its sender, and given up if that is silent. Every [`super::TICK`] the roles are asked whether a
//! value is still needed.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, BlobRef, ContentPiece, StepNews, Submit};
use broccoli_proto::module::hash;
use broccoli_proto::{Cbor, ContentId, Epoch, JobId, NodeId};
use litemap::LiteMap;

use crate::content::pull::{Extent, PIECE_BYTES_MAX, PIECE_BYTES_MIN, PIECE_OVERHEAD_BYTES, Pull};
use crate::outbox::Outbox;
use crate::time::Instant;
use crate::timing::{LinkTime, Timing, link_ms};

/// About how many bytes of one value are in flight at a time.
const WINDOW_BYTES: u32 = 2 << 20;
/// A pull fails if no piece arrives for this long.
const SILENCE_MAX: LinkTime = link_ms(10_000);
/// A pull fails if the hash of the whole value does not match this many times.
const MISMATCHES_MAX: u8 = 2;
/// Most pulls that run at the same time; the others wait.
const ACTIVE_MAX: usize = 8;
/// Most pulls, including waiting ones.
const PULLS_MAX: usize = 1_024;

/// The kind of a large value that is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Large {
    /// The arguments of a task, pulled by its worker.
    Args,
    /// The result of a task, pulled by its origin.
    Result,
    /// A canvas, pulled by its origin.
    Canvas,
    /// The result of a job or step, pulled by a client.
    News,
}

/// What a value is pulled for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Purpose {
    /// Worker: the arguments of a task.
    Args(Attempt),
    /// Origin: a result in the message with this number.
    Result { epoch: Epoch, number: u32, attempt: Attempt },
    /// Origin: the canvas of a submit.
    Canvas { epoch: Epoch, submit: Submit },
    /// Client: the outcome of a job.
    Ended(JobId),
    /// Client: the result of a step.
    Step(Box<StepNews>),
}

impl Purpose {
    /// Whether it belongs to a job of this origin.
    fn is_for_job(&self) -> bool {
        matches!(self, Purpose::Result { .. } | Purpose::Canvas { .. })
    }

    fn large(&self) -> Large {
        match self {
            Purpose::Args(_) => Large::Args,
            Purpose::Result { .. } => Large::Result,
            Purpose::Canvas { .. } => Large::Canvas,
            Purpose::Ended(_) | Purpose::Step(_) => Large::News,
        }
    }
}

/// Why a value has not arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Its sender does not hold it.
    Gone,
    /// Its sender is silent, or sends something else than it has announced.
    Silent,
}

/// A value that was pulled, or a failed pull.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) from: NodeId,
    pub(crate) purpose: Purpose,
    pub(crate) value: Result<Cbor, Missing>,
}

/// How much memory an origin may use for jobs: see its `memory`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobRoom {
    /// Bytes in use, without pulled values.
    pub(crate) held: usize,
    /// The part of them by which jobs have grown, except the favoured one.
    pub(crate) grown: usize,
    /// Most bytes in use.
    pub(crate) max: usize,
    /// Most bytes in use for anything but results of the favoured job.
    pub(crate) shared_max: usize,
    /// Most bytes by which jobs may grow.
    pub(crate) grown_max: usize,
    /// The favoured job.
    pub(crate) favoured: Option<u64>,
}

/// The values being pulled.
#[derive(Debug)]
pub(crate) struct ValuePulls {
    timing: Timing,
    pulls: LiteMap<(NodeId, ContentId), ValuePull>,
    /// Pulls that have not started.
    waiting: VecDeque<(NodeId, ContentId)>,
    /// Bytes of the pulls that have started.
    bytes: usize,
    bytes_max: usize,
    /// The part of them for jobs: canvases and results of tasks.
    for_jobs_bytes: usize,
    /// The limits for jobs; none until the origin has set them.
    job_room: Option<JobRoom>,
    arrived: VecDeque<Arrival>,
}

#[derive(Debug)]
struct ValuePull {
    blob: BlobRef,
    purposes: Vec<Purpose>,
    /// It belongs to a job.
    for_job: bool,
    /// None until it starts.
    progress: Option<Progress>,
}

#[derive(Debug)]
struct Progress {
    bytes: Vec<u8>,
    pull: Pull,
    mismatches: u8,
}

impl ValuePulls {
    /// At most `bytes_max` bytes are pulled at a time, except that one value of any size is accepted.
    pub(super) fn new(bytes_max: usize, timing: Timing) -> ValuePulls {
        ValuePulls {
            timing,
            pulls: LiteMap::new_vec(),
            waiting: VecDeque::new(),
            bytes: 0,
            bytes_max,
            for_jobs_bytes: 0,
            job_room: None,
            arrived: VecDeque::new(),
        }
    }

    /// Sets how much may be pulled for jobs.
    pub(crate) fn set_job_room(&mut self, room: JobRoom) {
        self.job_room = Some(room);
    }

    /// Whether a value is being pulled from a node, or waits to be.
    pub(crate) fn has(&self, from: NodeId, id: ContentId) -> bool {
        self.pulls.contains_key(&(from, id))
    }

    /// Bytes of the pulls that have started.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The part of them for jobs.
    pub(crate) fn for_jobs_bytes(&self) -> usize {
        self.for_jobs_bytes
    }

    /// The next value that has arrived, or pull that has failed.
    pub(crate) fn pop_arrived(&mut self) -> Option<Arrival> {
        self.arrived.pop_front()
    }

    /// Pulls a value as soon as there is room; it is delivered as an [`Arrival`]. A repeated purpose counts once.
    /// Returns false if there are too many pulls.
    pub(super) fn add(&mut self, from: NodeId, blob: BlobRef, purpose: Purpose) -> bool {
        let key = (from, blob.id);
        if self.pulls.len() >= PULLS_MAX && !self.pulls.contains_key(&key) {
            return false;
        }
        let pull = self.pulls.entry(key).or_insert_with(|| {
            self.waiting.push_back(key);
            ValuePull { blob, purposes: Vec::new(), for_job: purpose.is_for_job(), progress: None }
        });
        if !pull.purposes.contains(&purpose) {
            pull.purposes.push(purpose);
        }
        true
    }

    /// Starts waiting pulls while there is room. Called last, when the memory in use is known.
    pub(crate) fn start(&mut self, now: Instant, packet_bytes_max: u32, outbox: &mut Outbox) {
        let piece_bytes_max = packet_bytes_max.saturating_sub(PIECE_OVERHEAD_BYTES as u32 * 4);
        while let Some(at) = self.next_to_start() {
            let Some(key) = self.waiting.remove(at) else {
                return;
            };
            let Some(value) = self.pulls.get_mut(&key) else {
                return;
            };
            let BlobRef { id, bytes, piece_bytes } = value.blob;
            self.bytes += bytes as usize;
            self.for_jobs_bytes += if value.for_job { bytes as usize } else { 0 };
            let piece_bytes = piece_bytes.min(piece_bytes_max).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
            let extent = Extent { content: id, bytes, piece_bytes };
            let pull = Pull::new(key.0, extent, WINDOW_BYTES, now, self.timing);
            let bytes = alloc::vec![0; bytes as usize];
            value.progress.insert(Progress { bytes, pull, mismatches: 0 }).pull.ask(now, outbox);
        }
    }

    /// The index of the next pull that may start. Those that wait for memory of jobs are passed by others.
    fn next_to_start(&self) -> Option<usize> {
        if self.pulls.len() - self.waiting.len() >= ACTIVE_MAX {
            return None;
        }
        let has_room = |key: &(NodeId, ContentId)| self.pulls.get(key).is_some_and(|pull| self.has_job_room(pull));
        let at = self.waiting.iter().position(has_room)?;
        let bytes = self.pulls.get(&self.waiting[at])?.blob.bytes as usize;
        (self.bytes == 0 || self.bytes + bytes <= self.bytes_max).then_some(at)
    }

    /// Whether there is memory for the job that a pull belongs to.
    fn has_job_room(&self, pull: &ValuePull) -> bool {
        let Some(room) = self.job_room.filter(|_| pull.for_job) else {
            return true;
        };
        let is_favoured = |purpose: &Purpose| match purpose {
            Purpose::Result { attempt, .. } => room.favoured == Some(attempt.job),
            _ => false,
        };
        let more = self.for_jobs_bytes.saturating_add(pull.blob.bytes as usize);
        let (held, grown) = (room.held.saturating_add(more), room.grown.saturating_add(more));
        let is_shared = held <= room.shared_max && grown <= room.grown_max;
        let is_canvas = pull.purposes.iter().any(|purpose| matches!(purpose, Purpose::Canvas { .. }));
        if is_canvas {
            return held <= room.shared_max || (room.held == 0 && held <= room.max);
        }
        is_shared || (held <= room.max && pull.purposes.iter().any(is_favoured))
    }

    /// A piece has arrived.
    pub(in crate::content) fn on_piece(
        &mut self,
        now: Instant,
        outbox: &mut Outbox,
        from: NodeId,
        piece: &ContentPiece,
    ) {
        let key = (from, piece.content);
        let Some(progress) = self.pulls.get_mut(&key).and_then(|value| value.progress.as_mut()) else {
            return;
        };
        if !progress.take(piece, now) {
            return;
        }
        if progress.pull.is_whole() {
            if ContentId::from(hash(&progress.bytes)) == piece.content {
                let bytes = core::mem::take(&mut progress.bytes);
                self.end(key, Ok(Cbor::from_encoded(bytes)));
                return;
            }
            progress.mismatches += 1;
            if progress.mismatches >= MISMATCHES_MAX {
                self.end(key, Err(Missing::Silent));
                return;
            }
            progress.pull.begin_again();
        }
        progress.pull.ask(now, outbox);
    }

    /// A node does not hold the value that was requested.
    pub(in crate::content) fn on_gone(&mut self, from: NodeId, id: ContentId) {
        self.end((from, id), Err(Missing::Gone));
    }

    /// Drops pulls that are not needed any more, requests lost pieces again, and gives up pulls that have stopped.
    pub(super) fn on_timer(
        &mut self,
        now: Instant,
        is_connected: bool,
        outbox: &mut Outbox,
        is_needed: impl Fn(NodeId, &Purpose) -> bool,
    ) {
        for ((from, _), pull) in &mut self.pulls {
            pull.purposes.retain(|purpose| is_needed(*from, purpose));
        }
        let needless = self.pulls.iter().filter(|(_, pull)| pull.purposes.is_empty()).map(|(key, _)| *key);
        for key in needless.collect::<Vec<_>>() {
            self.end(key, Err(Missing::Gone));
        }
        let silence_max = self.timing.time(SILENCE_MAX);
        let mut silent = Vec::new();
        for (key, pull) in pulls_under_way(&mut self.pulls) {
            if !is_connected {
                // No piece could arrive: its time starts when the link is back.
                pull.wait_from(now);
            } else if pull.silence(now) > silence_max {
                silent.push(key);
            } else if now > pull.stalls_at(0) {
                pull.stall(now);
                pull.ask(now, outbox);
            }
        }
        for key in silent {
            self.end(key, Err(Missing::Silent));
        }
    }

    /// The link is up again: pieces in flight are lost.
    pub(super) fn on_connected(&mut self, now: Instant, outbox: &mut Outbox) {
        for (_, pull) in pulls_under_way(&mut self.pulls) {
            pull.stall(now);
            pull.wait_from(now);
            pull.ask(now, outbox);
        }
    }

    /// A pull has ended: delivers the value, or the reason of the failure, for each purpose.
    fn end(&mut self, key: (NodeId, ContentId), value: Result<Cbor, Missing>) {
        let Some(pull) = self.pulls.remove(&key) else {
            return;
        };
        if pull.progress.is_some() {
            self.bytes -= pull.blob.bytes as usize;
            self.for_jobs_bytes -= if pull.for_job { pull.blob.bytes as usize } else { 0 };
        } else {
            self.waiting.retain(|waiting| *waiting != key);
        }
        let mut purposes = pull.purposes.into_iter();
        let last = purposes.next_back();
        for purpose in purposes {
            self.arrived.push_back(Arrival { from: key.0, purpose, value: value.clone() });
        }
        self.arrived.extend(last.map(|purpose| Arrival { from: key.0, purpose, value }));
    }

    /// Whether nothing is pulled.
    pub(super) fn is_empty(&self) -> bool {
        self.pulls.is_empty()
    }

    /// Checks what must hold between two inputs.
    pub(super) fn validate(&self) {
        let active = self.pulls.values().filter(|pull| pull.progress.is_some());
        let bytes: usize = active.clone().map(|pull| pull.blob.bytes as usize).sum();
        assert_eq!(self.bytes, bytes, "bytes that are pulled are counted");
        let for_jobs = active.clone().filter(|pull| pull.for_job).map(|pull| pull.blob.bytes as usize).sum();
        assert_eq!(self.for_jobs_bytes, for_jobs, "bytes that are pulled for jobs are counted");
        assert_eq!(active.count() + self.waiting.len(), self.pulls.len(), "a pull is active or waits");
        assert!(self.arrived.is_empty(), "what has come was delivered");
    }

    /// Checks that nothing is pulled.
    pub(super) fn validate_idle(&self) {
        assert!(self.pulls.is_empty(), "no large value is pulled");
        assert_eq!(self.bytes, 0);
    }

    /// Shows the values being pulled.
    pub(crate) fn audit(&self, see: &mut dyn FnMut(NodeId, ContentId, Large)) {
        for ((from, id), pull) in &self.pulls {
            for purpose in &pull.purposes {
                see(*from, *id, purpose.large());
            }
        }
    }

    /// Reports the size and limit of each collection.
    pub(super) fn sizes(&self, see: &mut dyn FnMut(&'static str, usize, usize)) {
        // One value of any size is always accepted.
        let one = self.pulls.values().map(|pull| pull.blob.bytes as usize).max().unwrap_or(0);
        see("value bytes pulled", self.bytes, self.bytes_max.max(one));
        see("value pulls", self.pulls.len(), PULLS_MAX);
    }
}

/// The pulls that have started.
fn pulls_under_way(
    pulls: &mut LiteMap<(NodeId, ContentId), ValuePull>,
) -> impl Iterator<Item = ((NodeId, ContentId), &mut Pull)> {
    pulls.iter_mut().filter_map(|(key, value)| Some((*key, &mut value.progress.as_mut()?.pull)))
}

impl Progress {
    /// Takes a piece; `false` if it is not a missing one.
    fn take(&mut self, piece: &ContentPiece, now: Instant) -> bool {
        let Some(index) = self.pull.missing_index(piece.offset) else {
            return false;
        };
        if piece.bytes.len() != self.pull.len_at(piece.offset) {
            return false;
        }
        let start = piece.offset as usize;
        self.bytes[start..start + piece.bytes.len()].copy_from_slice(&piece.bytes);
        self.pull.take(index, now);
        true
    }
}
