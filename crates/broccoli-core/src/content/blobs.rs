//! Large values: what fits into no packet of its receiver is pulled by its hash, in pieces.
//!
//! ```text
//!   sender                                      receiver
//!     │ ── Lease, TaskResults, Submit, JobEvent ──► │ wants the value instead of its null
//!     │ ◄──────────────────────────── BlobRequest ──│ a window of pieces, again when none comes
//!     │ ── BlobPiece … ───────────────────────────► │ all there, hash right: the message is taken as
//!     │                                             │ if the value had come with it
//!     │ ── BlobGone ──────────────────────────────► │ or it never will
//! ```
//!
//! Owns the bytes of both sides, and bounds them. It never decides what a value is needed for: its
//! holders and those who want it are asked every [`TICK`], and what has none is dropped. So no
//! path through a role has to give anything back.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Attempt, BlobPiece, BlobRef, BlobRequest, JobNews, Message, StepNews, StepView, Submit};
use broccoli_proto::module::hash;
use broccoli_proto::packet::Address;
use broccoli_proto::{BlobId, Cbor, Epoch, JobId, NodeId};
use litemap::LiteMap;

use super::flow::{Flow, Span, WINDOW};
use crate::audit::Large;
use crate::config::Limits;
use crate::shared::{Room, Shared};
use crate::text;
use crate::time::{Instant, ms};
use crate::timers::Timer;
use crate::timing::{LinkTime, Timing, link_ms};

/// Values held and pulls are looked after this often.
const TICK: Duration = ms(100);
/// Longest piece: short enough that heartbeats between pieces are not late on a slow link.
const PIECE_BYTES_MAX: u32 = 64 << 10;
/// Shortest piece that is served.
const PIECE_BYTES_MIN: u32 = 64;
/// What a packet takes beside the piece in it.
const PIECE_OVERHEAD_BYTES: usize = 64;
/// What a message takes beside the one value in it.
pub(crate) const VALUE_OVERHEAD_BYTES: usize = 512;
/// Most pieces under way …
const WINDOW_MAX: u32 = 64;
/// … and about how many bytes.
const WINDOW_BYTES: u32 = 2 << 20;
/// A pull fails when no piece has come for this long.
const SILENCE_MAX: LinkTime = link_ms(10_000);
/// Times that a whole value is pulled whose hash does not match.
const MISMATCHES_MAX: u8 = 2;
/// Pulls at once; the others wait.
const ACTIVE_MAX: usize = 8;
/// Pulls, those that wait too.
const PULLS_MAX: usize = 1_024;
/// Pieces that wait to be sent to one node.
const SERVED_MAX: usize = 512;
/// What a job or a step came to is held for a client that does not pull it, or has stopped to, for this long.
const IDLE_MAX: LinkTime = link_ms(30_000);
/// Somebody pulls a value if they have asked within this time.
const PULLED: LinkTime = link_ms(2_000);

/// What a value is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// Origin: the arguments of a lease.
    Args { worker: NodeId, attempt: Attempt },
    /// Worker: a result that is not acknowledged.
    Result { origin: NodeId, attempt: Attempt },
    /// Client: a submit that is not answered.
    Canvas(u32),
    /// Origin: the result of a job that this client has not seen.
    Ended { client: NodeId, job: u64 },
    /// Origin: the result of a step that this client has asked after.
    Step { client: NodeId, result: BlobId },
}

/// What a value is pulled for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Want {
    /// Worker: the arguments of a task.
    Args(Attempt),
    /// Origin: a result in a message of this number.
    Result { epoch: Epoch, number: u32, attempt: Attempt },
    /// Origin: the canvas of a submit.
    Canvas { epoch: Epoch, submit: Submit },
    /// Client: how a job ended.
    Ended(JobId),
    /// Client: what a step came to.
    Step(Box<StepNews>),
}

impl Want {
    /// Whether it is a part of a job of this node.
    fn is_for_job(&self) -> bool {
        matches!(self, Want::Result { .. } | Want::Canvas { .. })
    }

    fn large(&self) -> Large {
        match self {
            Want::Args(_) => Large::Args,
            Want::Result { .. } => Large::Result,
            Want::Canvas { .. } => Large::Canvas,
            Want::Ended(_) | Want::Step(_) => Large::News,
        }
    }
}

/// Why a value has not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Its sender does not hold it.
    Gone,
    /// Its sender says nothing, or something else than it has promised.
    Silent,
}

/// A value that was wanted.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) from: NodeId,
    pub(crate) want: Want,
    pub(crate) value: Result<Cbor, Missing>,
}

/// The large values of this node.
#[derive(Debug, Default)]
pub(crate) struct Blobs {
    holders: LiteMap<Holder, BlobId>,
    outgoing: LiteMap<BlobId, Outgoing>,
    outgoing_bytes: usize,
    /// Nodes for which there was no room to hold a value.
    starved: LiteMap<NodeId, ()>,
    serving: LiteMap<NodeId, Serving>,
    pulls: LiteMap<(NodeId, BlobId), Pull>,
    /// Pulls that wait for their turn.
    waiting: VecDeque<(NodeId, BlobId)>,
    incoming_bytes: usize,
    /// What of it is pulled for jobs: their canvases, and the results of their tasks.
    for_jobs_bytes: usize,
    /// What may be; anything before the origin has said so.
    job_room: Option<JobRoom>,
    arrived: VecDeque<Arrival>,
}

/// What an origin may hold for jobs: see its `memory`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobRoom {
    /// Bytes that it holds, without what is being pulled …
    pub(crate) held: usize,
    /// … and by how many of them jobs have grown, without the favoured one.
    pub(crate) grown: usize,
    /// Most bytes that it may hold.
    pub(crate) max: usize,
    /// Most bytes for all but results of the favoured job …
    pub(crate) shared_max: usize,
    /// … and by how many jobs may grow.
    pub(crate) grown_max: usize,
    /// That job.
    pub(crate) favoured: Option<u64>,
}

#[derive(Debug)]
struct Outgoing {
    /// Shared with who else has it: the result of a job with the archive.
    value: Cbor,
    holders: usize,
    /// When it was last held or asked for.
    used: Instant,
    /// When it was last asked for.
    asked: Option<Instant>,
}

/// Pieces that wait to be sent to one node.
#[derive(Debug, Default)]
struct Serving {
    pieces: VecDeque<Served>,
    /// The last packet had no room for a piece: the next one is for it.
    overdue: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Served {
    id: BlobId,
    index: u32,
    piece_bytes: u32,
}

#[derive(Debug)]
struct Pull {
    blob: BlobRef,
    wants: Vec<Want>,
    /// It counts as a part of a job.
    for_job: bool,
    /// None until it is its turn.
    progress: Option<Progress>,
}

#[derive(Debug)]
struct Progress {
    bytes: Vec<u8>,
    flow: Flow,
    mismatches: u8,
}

/// Sending.
impl Blobs {
    /// Whether a value waits for room: no more should be made.
    pub(crate) fn is_full(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Whether a value is being pulled.
    pub(crate) fn is_pulled(&self, holder: Holder, now: Instant, timing: Timing) -> bool {
        let outgoing = self.holders.get(&holder).and_then(|id| self.outgoing.get(id));
        outgoing.and_then(|outgoing| outgoing.asked).is_some_and(|asked| now - asked < timing.time(PULLED))
    }

    /// A value is held for this no more.
    pub(crate) fn release(&mut self, holder: Holder) {
        let Some(id) = self.holders.remove(&holder) else {
            return;
        };
        let Some(outgoing) = self.outgoing.get_mut(&id) else {
            return;
        };
        outgoing.holders -= 1;
        if outgoing.holders == 0 {
            self.outgoing_bytes -= outgoing.value.as_bytes().len();
            self.outgoing.remove(&id);
        }
    }

    /// Whether the next packet to a node is for a piece alone.
    pub(crate) fn is_overdue(&self, to: NodeId) -> bool {
        self.serving.get(&to).is_some_and(|serving| serving.overdue)
    }

    /// Whether pieces wait to be sent to a node.
    pub(crate) fn has_for(&self, to: NodeId) -> bool {
        self.serving.get(&to).is_some_and(|serving| !serving.pieces.is_empty())
    }

    /// A node does not answer: what it has asked for is not sent.
    pub(crate) fn forget(&mut self, to: NodeId) {
        self.serving.remove(&to);
    }

    /// What the link would have carried; whoever pulls asks again.
    pub(crate) fn clear_wire(&mut self) {
        self.serving.clear();
    }

    /// Says what may be pulled for jobs.
    pub(crate) fn set_job_room(&mut self, room: JobRoom) {
        self.job_room = Some(room);
    }

    /// Whether a value is pulled from a node, or waits to be.
    pub(crate) fn is_wanted(&self, from: NodeId, id: BlobId) -> bool {
        self.pulls.contains_key(&(from, id))
    }

    /// Bytes that are being pulled for jobs.
    pub(crate) fn pulled_for_jobs(&self) -> usize {
        self.for_jobs_bytes
    }

    /// Whether there is room for what a pull is a part of.
    fn has_job_room(&self, pull: &Pull) -> bool {
        let Some(room) = self.job_room.filter(|_| pull.for_job) else {
            return true;
        };
        let is_favoured = |want: &Want| match want {
            Want::Result { attempt, .. } => room.favoured == Some(attempt.job),
            _ => false,
        };
        let more = self.for_jobs_bytes.saturating_add(pull.blob.bytes as usize);
        let (held, grown) = (room.held.saturating_add(more), room.grown.saturating_add(more));
        let is_shared = held <= room.shared_max && grown <= room.grown_max;
        let is_canvas = pull.wants.iter().any(|want| matches!(want, Want::Canvas { .. }));
        if is_canvas {
            return held <= room.shared_max || (room.held == 0 && held <= room.max);
        }
        is_shared || (held <= room.max && pull.wants.iter().any(is_favoured))
    }

    /// The place of the next pull that may begin. One that waits for room of jobs lets others pass.
    fn next_pull(&self, bytes_max: usize) -> Option<usize> {
        if self.pulls.len() - self.waiting.len() >= ACTIVE_MAX {
            return None;
        }
        let has_room = |key: &(NodeId, BlobId)| self.pulls.get(key).is_some_and(|pull| self.has_job_room(pull));
        let at = self.waiting.iter().position(has_room)?;
        let bytes = self.pulls.get(&self.waiting[at])?.blob.bytes as usize;
        (self.incoming_bytes == 0 || self.incoming_bytes + bytes <= bytes_max).then_some(at)
    }

    /// A value that was wanted.
    pub(crate) fn pop_arrived(&mut self) -> Option<Arrival> {
        self.arrived.pop_front()
    }
}

/// Holds a value for a node that is sent `packet` bytes at most, which pulls it. Gives it back if
/// there is no room for it; the node's address is marked when there is.
pub(crate) fn hold(
    shared: &mut Shared,
    to: NodeId,
    holder: Holder,
    value: Cbor,
    packet: usize,
) -> Result<BlobRef, Cbor> {
    let now = shared.now;
    let max = shared.config.limits.blob_bytes_max;
    let blobs = &mut shared.blobs;
    let len = value.as_bytes().len();
    let id = match blobs.holders.get(&holder) {
        Some(id) if blobs.outgoing.get(id).is_some_and(|outgoing| outgoing.value.as_bytes().len() == len) => *id,
        _ => {
            blobs.release(holder);
            if blobs.outgoing_bytes > 0 && blobs.outgoing_bytes + len > max {
                blobs.starved.insert(to, ());
                return Err(value);
            }
            let id = BlobId(hash(value.as_bytes()).0);
            blobs.holders.insert(holder, id);
            let outgoing = blobs.outgoing.entry(id).or_insert_with(|| {
                blobs.outgoing_bytes += len;
                Outgoing { value, holders: 0, used: now, asked: None }
            });
            outgoing.holders += 1;
            id
        }
    };
    blobs.outgoing.get_mut(&id).into_iter().for_each(|outgoing| outgoing.used = now);
    shared.timers.set_earlier(Timer::Blobs, now + TICK);
    let piece_bytes = packet.saturating_sub(PIECE_OVERHEAD_BYTES).min(PIECE_BYTES_MAX as usize);
    Ok(BlobRef { id, bytes: len as u32, piece_bytes: piece_bytes as u32 })
}

/// Replaces the value in a message that would not fit into a packet of `packet` bytes, and shortens its text. None if there
/// is no room to hold the value: the message is as good as lost, and its sender repeats it.
pub(crate) fn fit(shared: &mut Shared, to: NodeId, mut message: Message, packet: usize) -> Option<Message> {
    let is_large = |value: &Cbor| value.as_bytes().len() + VALUE_OVERHEAD_BYTES > packet;
    if let Some(text) = text_of(&mut message) {
        text::cut(text, packet.saturating_sub(VALUE_OVERHEAD_BYTES));
    }
    match message {
        Message::Submit(submit) if is_large(&submit.canvas) => {
            let blob = hold(shared, to, Holder::Canvas(submit.number), submit.canvas, packet).ok()?;
            Some(Message::Submit(Submit { canvas: Cbor::null(), blob: Some(blob), ..submit }))
        }
        Message::JobEvent(mut event) => {
            if let JobNews::Ended(Ok(value)) = &mut event.news
                && is_large(value)
            {
                let value = core::mem::replace(value, Cbor::null());
                let holder = Holder::Ended { client: to, job: event.job.number };
                event.blob = Some(hold(shared, to, holder, value, packet).ok()?);
            }
            Some(Message::JobEvent(event))
        }
        Message::StepNews(mut news) => {
            if let Some(StepView { outcome: Some(Ok(value)), .. }) = &mut news.view
                && is_large(value)
            {
                let value = core::mem::replace(value, Cbor::null());
                let holder = Holder::Step { client: to, result: BlobId(hash(value.as_bytes()).0) };
                news.blob = Some(hold(shared, to, holder, value, packet).ok()?);
            }
            Some(Message::StepNews(news))
        }
        message => Some(message),
    }
}

/// The text for people in a message that may be longer than the smallest packet.
fn text_of(message: &mut Message) -> Option<&mut String> {
    match message {
        Message::Log(log) => Some(&mut log.text),
        Message::JobEvent(event) => match &mut event.news {
            JobNews::Logged { text, .. } => Some(text),
            JobNews::CallbackFailed(error) | JobNews::Ended(Err(error)) | JobNews::Retried { error, .. } => {
                Some(&mut error.text)
            }
            _ => None,
        },
        Message::StepNews(news) => match news.view.as_mut()?.outcome.as_mut()? {
            Err(error) => Some(&mut error.text),
            Ok(_) => None,
        },
        _ => None,
    }
}

/// A node asks for pieces.
pub(crate) fn on_request(shared: &mut Shared, from: NodeId, request: &BlobRequest) {
    let BlobRequest { id, first, count, piece_bytes } = *request;
    let Some(outgoing) = shared.blobs.outgoing.get_mut(&id) else {
        shared.outbox.send(from, Message::BlobGone(id));
        return;
    };
    if !(PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&piece_bytes) {
        return;
    }
    (outgoing.used, outgoing.asked) = (shared.now, Some(shared.now));
    let pieces = outgoing.value.as_bytes().len().div_ceil(piece_bytes as usize) as u32;
    let serving = shared.blobs.serving.entry(from).or_default();
    for index in (first..pieces).take(usize::from(count).min(WINDOW_MAX as usize)) {
        let served = Served { id, index, piece_bytes };
        if serving.pieces.len() < SERVED_MAX && !serving.pieces.contains(&served) {
            serving.pieces.push_back(served);
        }
    }
    shared.outbox.mark(Address::Node(from));
}

/// Writes the next piece for a node if there is room for it. The node is marked when there are more.
pub(crate) fn compose(shared: &mut Shared, to: NodeId, room: Room, put: &mut impl FnMut(&Message)) {
    let blobs = &mut shared.blobs;
    let Some(serving) = blobs.serving.get_mut(&to) else {
        return;
    };
    while let Some(served) = serving.pieces.front() {
        let size = served.piece_bytes as usize + PIECE_OVERHEAD_BYTES;
        let Some(outgoing) = blobs.outgoing.get(&served.id).filter(|_| size <= room.packet) else {
            serving.pieces.pop_front();
            continue;
        };
        serving.overdue = size > room.left;
        if !serving.overdue {
            let offset = served.index as usize * served.piece_bytes as usize;
            let end = outgoing.value.as_bytes().len().min(offset + served.piece_bytes as usize);
            let bytes = outgoing.value.as_bytes()[offset..end].to_vec();
            put(&Message::BlobPiece(BlobPiece { id: served.id, offset: offset as u32, bytes }));
            serving.pieces.pop_front();
        }
        break;
    }
    if serving.pieces.is_empty() {
        blobs.serving.remove(&to);
    } else {
        shared.outbox.mark(Address::Node(to));
    }
}

/// Pulls a value; it comes as an [`Arrival`]. Wanting it twice for the same is wanting it once.
/// Returns whether it is pulled: otherwise there are too many pulls already.
pub(crate) fn want(shared: &mut Shared, from: NodeId, blob: BlobRef, want: Want) -> bool {
    let blobs = &mut shared.blobs;
    if blobs.pulls.len() >= PULLS_MAX && !blobs.pulls.contains_key(&(from, blob.id)) {
        return false;
    }
    let key = (from, blob.id);
    let pull = blobs.pulls.entry(key).or_insert_with(|| {
        blobs.waiting.push_back(key);
        Pull { blob, wants: Vec::new(), for_job: want.is_for_job(), progress: None }
    });
    if !pull.wants.contains(&want) {
        pull.wants.push(want);
    }
    shared.timers.set_earlier(Timer::Blobs, shared.now + TICK);
    true
}

/// A piece has come.
pub(crate) fn on_piece(shared: &mut Shared, from: NodeId, piece: &BlobPiece) {
    let key = (from, piece.id);
    let Some(Pull { blob, progress: Some(progress), .. }) = shared.blobs.pulls.get_mut(&key) else {
        return;
    };
    if !progress.take(piece, blob.piece_bytes, shared.now) {
        return;
    }
    if progress.flow.is_whole() {
        if hash(&progress.bytes).0 == piece.id.0 {
            let bytes = core::mem::take(&mut progress.bytes);
            end_pull(shared, key, Ok(Cbor::from_encoded(bytes)));
            return;
        }
        progress.mismatches += 1;
        if progress.mismatches >= MISMATCHES_MAX {
            end_pull(shared, key, Err(Missing::Silent));
            return;
        }
        progress.flow.begin_again();
    }
    ask(shared, key);
}

/// A node does not hold what it is asked for.
pub(crate) fn on_gone(shared: &mut Shared, from: NodeId, id: BlobId) {
    end_pull(shared, (from, id), Err(Missing::Gone));
}

/// Drops what is held for nothing and pulled for nobody, and looks after the pulls.
pub(crate) fn on_timer(
    shared: &mut Shared,
    is_held: impl Fn(&Holder) -> bool,
    is_wanted: impl Fn(NodeId, &Want) -> bool,
) {
    let (now, idle_max) = (shared.now, shared.timing(IDLE_MAX));
    let blobs = &mut shared.blobs;
    let before = blobs.outgoing_bytes;
    let is_idle = |holder: &Holder, id: &BlobId| {
        let used = blobs.outgoing.get(id).map(|outgoing| outgoing.used);
        matches!(holder, Holder::Ended { .. } | Holder::Step { .. }) && used.is_none_or(|used| now - used > idle_max)
    };
    let idle = blobs.holders.iter().filter(|(holder, id)| !is_held(holder) || is_idle(holder, id));
    let idle: Vec<Holder> = idle.map(|(holder, _)| *holder).collect();
    idle.into_iter().for_each(|holder| blobs.release(holder));
    if blobs.outgoing_bytes < before || blobs.outgoing.is_empty() {
        let starved = core::mem::take(&mut blobs.starved);
        starved.keys().for_each(|node| shared.outbox.mark(Address::Node(*node)));
    }
    for ((from, _), pull) in &mut blobs.pulls {
        pull.wants.retain(|want| is_wanted(*from, want));
    }
    let unwanted = blobs.pulls.iter().filter(|(_, pull)| pull.wants.is_empty()).map(|(key, _)| *key);
    unwanted.collect::<Vec<_>>().into_iter().for_each(|key| end_pull(shared, key, Err(Missing::Gone)));
    look_after_pulls(shared);
    let blobs = &shared.blobs;
    if !blobs.holders.is_empty() || !blobs.pulls.is_empty() {
        shared.timers.set(Timer::Blobs, now + TICK);
    }
}

/// Asks again where nothing comes, and gives up where nothing has come for long.
fn look_after_pulls(shared: &mut Shared) {
    let (now, connected, silence_max) = (shared.now, shared.connected, shared.timing(SILENCE_MAX));
    let (mut stalled, mut silent) = (Vec::new(), Vec::new());
    for (key, pull) in &mut shared.blobs.pulls {
        let Some(progress) = &mut pull.progress else { continue };
        if !connected {
            // Nothing could come: its time begins when the link is back.
            progress.flow.wait_from(now);
        } else if progress.flow.silence(now) > silence_max {
            silent.push(*key);
        } else if now > progress.flow.stalls_at() {
            progress.flow.stall(now);
            stalled.push(*key);
        }
    }
    silent.into_iter().for_each(|key| end_pull(shared, key, Err(Missing::Silent)));
    stalled.into_iter().for_each(|key| ask(shared, key));
}

/// The link is up again: what was under way is lost.
pub(crate) fn on_connected(shared: &mut Shared) {
    let now = shared.now;
    let mut keys = Vec::new();
    for (key, pull) in &mut shared.blobs.pulls {
        if let Some(progress) = &mut pull.progress {
            progress.flow.stall(now);
            progress.flow.wait_from(now);
            keys.push(*key);
        }
    }
    keys.into_iter().for_each(|key| ask(shared, key));
}

/// Begins pulls that have waited, as far as there is room. Done last, when it is known what is held.
pub(crate) fn start_pulls(shared: &mut Shared) {
    let max = shared.config.limits.blob_bytes_max;
    let piece_bytes_max = shared.packet_bytes_max().saturating_sub(PIECE_OVERHEAD_BYTES as u32 * 4);
    while let Some(at) = shared.blobs.next_pull(max) {
        let blobs = &mut shared.blobs;
        let Some(key) = blobs.waiting.remove(at) else {
            return;
        };
        let Some(pull) = blobs.pulls.get_mut(&key) else {
            return;
        };
        let bytes = pull.blob.bytes as usize;
        blobs.incoming_bytes += bytes;
        blobs.for_jobs_bytes += if pull.for_job { bytes } else { 0 };
        pull.blob.piece_bytes = pull.blob.piece_bytes.min(piece_bytes_max).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        pull.progress = Some(Progress::new(&pull.blob, shared.now, shared.config.timing));
        ask(shared, key);
    }
}

/// A pull is over: tells whoever waits for it.
fn end_pull(shared: &mut Shared, key: (NodeId, BlobId), value: Result<Cbor, Missing>) {
    let blobs = &mut shared.blobs;
    let Some(pull) = blobs.pulls.remove(&key) else {
        return;
    };
    if pull.progress.is_some() {
        blobs.incoming_bytes -= pull.blob.bytes as usize;
        blobs.for_jobs_bytes -= if pull.for_job { pull.blob.bytes as usize } else { 0 };
    } else {
        blobs.waiting.retain(|waiting| *waiting != key);
    }
    let mut wants = pull.wants.into_iter();
    let last = wants.next_back();
    for want in wants {
        blobs.arrived.push_back(Arrival { from: key.0, want, value: value.clone() });
    }
    blobs.arrived.extend(last.map(|want| Arrival { from: key.0, want, value }));
}

/// Asks for pieces until the window is full, if half of it is free.
fn ask(shared: &mut Shared, (from, id): (NodeId, BlobId)) {
    let Some(Pull { blob, progress: Some(progress), .. }) = shared.blobs.pulls.get_mut(&(from, id)) else {
        return;
    };
    let window_max = (WINDOW_BYTES / blob.piece_bytes).clamp(WINDOW, WINDOW_MAX);
    for Span { first, count } in progress.flow.ask(shared.now, window_max) {
        let request = BlobRequest { id, first, count, piece_bytes: blob.piece_bytes };
        shared.outbox.send(from, Message::BlobRequest(request));
    }
}

impl Progress {
    fn new(blob: &BlobRef, now: Instant, timing: Timing) -> Progress {
        let pieces = (blob.bytes as usize).div_ceil(blob.piece_bytes as usize);
        let bytes = alloc::vec![0; blob.bytes as usize];
        Progress { bytes, flow: Flow::new(pieces, now, timing), mismatches: 0 }
    }

    /// Takes a piece; `false` if it is none that is missing.
    fn take(&mut self, piece: &BlobPiece, piece_bytes: u32, now: Instant) -> bool {
        let index = piece.offset / piece_bytes;
        let start = piece.offset as usize;
        let end = self.bytes.len().min(start.saturating_add(piece_bytes as usize));
        let fits = piece.offset.is_multiple_of(piece_bytes) && start.saturating_add(piece.bytes.len()) == end;
        if !self.flow.lacks(index as usize) || !fits {
            return false;
        }
        self.bytes[start..end].copy_from_slice(&piece.bytes);
        self.flow.take(index, now);
        true
    }
}

/// Invariants, for tests and the simulator.
impl Blobs {
    /// Checks what must hold between two inputs.
    pub(crate) fn validate(&self, shared: &Shared) {
        let outgoing: usize = self.outgoing.values().map(|outgoing| outgoing.value.as_bytes().len()).sum();
        assert_eq!(self.outgoing_bytes, outgoing, "bytes that are held are counted");
        let holders: usize = self.outgoing.values().map(|outgoing| outgoing.holders).sum();
        assert_eq!(self.holders.len(), holders, "what is held has holders");
        let active = self.pulls.values().filter(|pull| pull.progress.is_some());
        let incoming: usize = active.clone().map(|pull| pull.blob.bytes as usize).sum();
        assert_eq!(self.incoming_bytes, incoming, "bytes that are pulled are counted");
        let for_jobs = active.clone().filter(|pull| pull.for_job).map(|pull| pull.blob.bytes as usize).sum();
        assert_eq!(self.for_jobs_bytes, for_jobs, "bytes that are pulled for jobs are counted");
        assert_eq!(active.count() + self.waiting.len(), self.pulls.len(), "a pull is active or waits");
        let is_idle = self.holders.is_empty() && self.pulls.is_empty();
        assert!(is_idle || shared.timers.is_set(Timer::Blobs), "large values are looked after");
        assert!(self.arrived.is_empty(), "what has come was delivered");
    }

    /// Checks that nothing is held or pulled.
    pub(crate) fn validate_idle(&self) {
        assert!(self.holders.is_empty(), "no large value is held: {:?}", self.holders.keys());
        assert!(self.pulls.is_empty(), "no large value is pulled");
        assert_eq!((self.outgoing_bytes, self.incoming_bytes), (0, 0));
    }

    /// Shows what is pulled.
    pub(crate) fn audit_pulls(&self, see: &mut dyn FnMut(NodeId, BlobId, Large)) {
        for ((from, id), pull) in &self.pulls {
            pull.wants.iter().for_each(|want| see(*from, *id, want.large()));
        }
    }

    /// How full each collection is.
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        // One value of any size is always taken.
        let one = self.outgoing.values().map(|outgoing| outgoing.value.as_bytes().len()).max().unwrap_or(0);
        see("blob bytes held", self.outgoing_bytes, limits.blob_bytes_max.max(one));
        let one = self.pulls.values().map(|pull| pull.blob.bytes as usize).max().unwrap_or(0);
        see("blob bytes pulled", self.incoming_bytes, limits.blob_bytes_max.max(one));
        see("blob pulls", self.pulls.len(), PULLS_MAX);
        let served = self.serving.values().map(|serving| serving.pieces.len()).max();
        see("blob pieces", served.unwrap_or(0), SERVED_MAX);
    }
}
