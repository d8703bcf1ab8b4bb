//! What a node counts of its work, for metrics, `top` and people.
//!
//! Counting is one addition where something happens: nothing is allocated and nothing is formatted. What is held now
//! is not counted but read when somebody asks: see [`crate::Node::counters`].

use broccoli_proto::packet::PacketError;

/// The counters of a node. Those of [`Held`] and `sessions_open` say how much there is now; all others only grow, from
/// 0 at the start of the node.
///
/// What a node sends to itself goes into no packet, but counts as a lease, a return and a result as any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets that came in while the link was up, also those that were rejected.
    pub packets_in: u64,
    /// Bytes of these packets.
    pub bytes_in: u64,
    /// Packets handed to the link.
    pub packets_out: u64,
    /// Bytes of these packets.
    pub bytes_out: u64,
    /// What was dropped of the packets that came in.
    pub rejected: Rejected,
    /// Jobs that this node accepted as their origin.
    pub jobs_accepted: u64,
    /// Submits of clients that this node refused as their origin, each once; repeated submits and answers do not count.
    pub jobs_refused: u64,
    /// Jobs that ended with a result.
    pub jobs_succeeded: u64,
    /// Jobs that ended without one: failed, revoked or too late.
    pub jobs_failed: u64,
    /// Tasks leased to workers, as their origin. Each attempt at a task counts once, however often it is sent.
    pub leases_given: u64,
    /// Tasks that came in leases, as their worker; one that is sent again counts again.
    pub leases_received: u64,
    /// Tasks handed back to their origins.
    pub returns_given: u64,
    /// Leased tasks that workers handed back.
    pub returns_received: u64,
    /// Runs that have ended.
    pub tasks_run: u64,
    /// Runs that failed; one that was stopped because nobody waits for it any more does not count.
    pub tasks_failed: u64,
    /// What was sent again because no answer came in time.
    pub repeated: Repeated,
    /// Other nodes with which this node has a session now: they have proven that they are there.
    pub sessions_open: u64,
    /// Sessions that began.
    pub sessions_opened: u64,
    /// Packets of another incarnation of a node that was there a moment ago, or of a twin: it must wait.
    pub sessions_refused: u64,
    /// How much is held now.
    pub held: Held,
}

/// What was dropped of the packets that came in, by its reason: see [`PacketError`]. Of a packet with an unknown message,
/// only that message counts as dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// [`PacketError::Malformed`]
    pub malformed: u64,
    /// [`PacketError::Unknown`]
    pub unknown: u64,
    /// [`PacketError::Version`]
    pub version: u64,
    /// [`PacketError::CannotOpen`]
    pub cannot_open: u64,
    /// [`PacketError::Misdirected`]
    pub misdirected: u64,
    /// [`PacketError::Repeated`]
    pub repeated: u64,
    /// [`PacketError::Unproven`]
    pub unproven: u64,
    /// Another reason.
    pub other: u64,
}

/// What was sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repeated {
    /// Attempts that their worker had not confirmed.
    pub leases: u64,
    /// Messages of results that their origin had not acknowledged.
    pub results: u64,
    /// Submits and retries that were not answered.
    pub submits: u64,
    /// Ends of jobs that their client had not acknowledged.
    pub ends: u64,
}

/// Bytes that are held now, about. See docs/limits.md for their limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Jobs that wait or run, with the results of their tasks.
    pub jobs_bytes: u64,
    /// Results of jobs that are over.
    pub results_bytes: u64,
    /// What the journal does not have yet.
    pub journal_bytes: u64,
    /// Results that this node has as a worker until their origins have them.
    pub unacknowledged_bytes: u64,
    /// Large values that are held for others to pull.
    pub blobs_bytes: u64,
    /// Large values that are being pulled from others.
    pub pulled_bytes: u64,
    /// Long answers that wait to be sent.
    pub outbox_bytes: u64,
    /// Messages that wait to be sent, these answers included.
    pub outbox_messages: u64,
}

impl Rejected {
    pub(crate) fn add(&mut self, error: PacketError) {
        let count = match error {
            PacketError::Malformed => &mut self.malformed,
            PacketError::Unknown => &mut self.unknown,
            PacketError::Version(_) => &mut self.version,
            PacketError::CannotOpen => &mut self.cannot_open,
            PacketError::Misdirected => &mut self.misdirected,
            PacketError::Repeated => &mut self.repeated,
            PacketError::Unproven => &mut self.unproven,
            _ => &mut self.other,
        };
        *count += 1;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        let Rejected { malformed, unknown, version, cannot_open, misdirected, repeated, unproven, other } = *self;
        malformed + unknown + version + cannot_open + misdirected + repeated + unproven + other
    }
}
