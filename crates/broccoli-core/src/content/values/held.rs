//! Values that this node holds for other nodes until they have pulled them.
//!
//! Owns the bytes, and limits them. Every [`super::TICK`] the roles are asked whether a value is still needed; if not,
//! it is dropped. So no role has to release values itself.

use alloc::vec::Vec;

use broccoli_proto::message::{Attempt, BlobRef};
use broccoli_proto::module::hash;
use broccoli_proto::{Cbor, ContentId, NodeId};
use litemap::LiteMap;

use crate::content::pull::{PIECE_BYTES_MAX, PIECE_OVERHEAD_BYTES};
use crate::time::Instant;
use crate::timing::{LinkTime, Timing, link_ms};

/// The result of a job or step is held this long for a client that does not pull it, or has stopped pulling.
const IDLE_MAX: LinkTime = link_ms(30_000);
/// A value counts as being pulled for this long after the last request.
const PULLED: LinkTime = link_ms(2_000);

/// What a value is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// Origin: the arguments of a lease.
    Args { worker: NodeId, attempt: Attempt },
    /// Worker: an unacknowledged result.
    Result { origin: NodeId, attempt: Attempt },
    /// Client: an unanswered submit.
    Canvas(u32),
    /// Origin: the result of a job that this client has not acknowledged.
    Ended { client: NodeId, job: u64 },
    /// Origin: the result of a step that this client has queried.
    Step { client: NodeId, result: ContentId },
}

/// The held values, and what each is held for.
#[derive(Debug)]
pub(crate) struct HeldValues {
    timing: Timing,
    holders: LiteMap<Holder, ContentId>,
    values: LiteMap<ContentId, HeldValue>,
    bytes: usize,
    bytes_max: usize,
    /// Nodes with a value that found no room.
    starved: LiteMap<NodeId, ()>,
}

#[derive(Debug)]
struct HeldValue {
    /// The bytes may be shared: the result of a job with the archive.
    value: Cbor,
    holders: usize,
    /// When it was last held or requested.
    used: Instant,
    /// When it was last requested.
    asked: Option<Instant>,
}

impl HeldValues {
    /// At most `bytes_max` bytes are held, except that one value of any size is accepted.
    pub(super) fn new(bytes_max: usize, timing: Timing) -> HeldValues {
        HeldValues {
            timing,
            holders: LiteMap::new_vec(),
            values: LiteMap::new_vec(),
            bytes: 0,
            bytes_max,
            starved: LiteMap::new_vec(),
        }
    }

    /// Whether a value waits for room; if so, no more should be made.
    pub(crate) fn is_full(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Whether a value is being pulled.
    pub(crate) fn is_pulled(&self, holder: Holder, now: Instant) -> bool {
        let held = self.holders.get(&holder).and_then(|id| self.values.get(id));
        held.and_then(|held| held.asked).is_some_and(|asked| now - asked < self.timing.time(PULLED))
    }

    /// Bytes of all held values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes of a value.
    pub(crate) fn bytes_of(&self, id: ContentId) -> Option<&[u8]> {
        self.values.get(&id).map(|held| held.value.as_bytes())
    }

    /// A node requests pieces of a value. Returns its length in bytes, if it is held.
    pub(in crate::content) fn on_request(&mut self, id: ContentId, now: Instant) -> Option<u32> {
        let held = self.values.get_mut(&id)?;
        held.used = now;
        held.asked = Some(now);
        Some(held.value.as_bytes().len() as u32)
    }

    /// Holds a value for a node that receives packets of at most `packet` bytes and will pull it. Returns the value if
    /// there is no room; the node's address is marked when there is.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        to: NodeId,
        holder: Holder,
        value: Cbor,
        packet: usize,
    ) -> Result<BlobRef, Cbor> {
        let len = value.as_bytes().len();
        let id = match self.holders.get(&holder) {
            Some(id) if self.bytes_of(*id).is_some_and(|bytes| bytes.len() == len) => *id,
            _ => {
                self.release(holder);
                if self.bytes > 0 && self.bytes + len > self.bytes_max {
                    self.starved.insert(to, ());
                    return Err(value);
                }
                self.insert(holder, value, now)
            }
        };
        if let Some(held) = self.values.get_mut(&id) {
            held.used = now;
        }
        let piece_bytes = packet.saturating_sub(PIECE_OVERHEAD_BYTES).min(PIECE_BYTES_MAX as usize);
        Ok(BlobRef { id, bytes: len as u32, piece_bytes: piece_bytes as u32 })
    }

    fn insert(&mut self, holder: Holder, value: Cbor, now: Instant) -> ContentId {
        let id = ContentId::from(hash(value.as_bytes()));
        self.holders.insert(holder, id);
        let held = self.values.entry(id).or_insert_with(|| {
            self.bytes += value.as_bytes().len();
            HeldValue { value, holders: 0, used: now, asked: None }
        });
        held.holders += 1;
        id
    }

    /// A value is no longer needed for this purpose.
    pub(crate) fn release(&mut self, holder: Holder) {
        let Some(id) = self.holders.remove(&holder) else {
            return;
        };
        let Some(held) = self.values.get_mut(&id) else {
            return;
        };
        held.holders -= 1;
        if held.holders == 0 {
            self.bytes -= held.value.as_bytes().len();
            self.values.remove(&id);
        }
    }

    /// Drops values that are not needed any more. Returns the nodes for which there may be room now.
    pub(super) fn release_idle(&mut self, now: Instant, is_held: impl Fn(&Holder) -> bool) -> LiteMap<NodeId, ()> {
        let before = self.bytes;
        let idle_max = self.timing.time(IDLE_MAX);
        let is_idle = |holder: &Holder, id: &ContentId| {
            let used = self.values.get(id).map(|held| held.used);
            matches!(holder, Holder::Ended { .. } | Holder::Step { .. })
                && used.is_none_or(|used| now - used > idle_max)
        };
        let idle = self.holders.iter().filter(|(holder, id)| !is_held(holder) || is_idle(holder, id));
        let idle: Vec<Holder> = idle.map(|(holder, _)| *holder).collect();
        for holder in idle {
            self.release(holder);
        }
        if self.bytes < before || self.values.is_empty() {
            return core::mem::take(&mut self.starved);
        }
        LiteMap::new_vec()
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// Checks what must hold between two inputs.
    pub(super) fn validate(&self) {
        let bytes: usize = self.values.values().map(|held| held.value.as_bytes().len()).sum();
        assert_eq!(self.bytes, bytes, "bytes that are held are counted");
        let holders: usize = self.values.values().map(|held| held.holders).sum();
        assert_eq!(self.holders.len(), holders, "what is held has holders");
    }

    /// Checks that nothing is held.
    pub(super) fn validate_idle(&self) {
        assert!(self.holders.is_empty(), "no large value is held: {:?}", self.holders.keys());
        assert_eq!(self.bytes, 0);
    }

    /// Reports the size and limit of each collection.
    pub(super) fn sizes(&self, see: &mut dyn FnMut(&'static str, usize, usize)) {
        // One value of any size is always accepted.
        let one = self.values.values().map(|held| held.value.as_bytes().len()).max().unwrap_or(0);
        see("value bytes held", self.bytes, self.bytes_max.max(one));
    }
}
