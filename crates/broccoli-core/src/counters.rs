//! Counters of a node's work, for metrics, `top` and people.
//!
//! Counting is one addition: nothing is allocated or formatted. Amounts currently held are not counted but computed
//! when they are queried: see [`crate::Node::counters`].

use broccoli_proto::packet::PacketError;

/// The counters of a node. [`Held`] and `sessions_open` are current amounts; all others only grow, from 0 at the start
/// of the node.
///
/// What a node sends to itself is in no packet, but counts as a lease, a return and a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Packets received while the link was up, including rejected ones.
    pub packets_in: u64,
    /// Bytes of these packets.
    pub bytes_in: u64,
    /// Packets passed to the link.
    pub packets_out: u64,
    /// Bytes of these packets.
    pub bytes_out: u64,
    /// Received packets that were dropped.
    pub rejected: Rejected,
    /// Jobs accepted by this node as origin.
    pub jobs_accepted: u64,
    /// Submits of clients refused by this node as origin. Repeated submits and answers do not count.
    pub jobs_refused: u64,
    /// Jobs that ended with a result.
    pub jobs_succeeded: u64,
    /// Jobs that ended without a result: failed, revoked or past their time limit.
    pub jobs_failed: u64,
    /// Tasks leased to workers by this node as origin. Each attempt counts once, even if it is sent again.
    pub leases_given: u64,
    /// Tasks received in leases by this node as worker; one that is sent again counts again.
    pub leases_received: u64,
    /// Tasks returned to their origins.
    pub returns_given: u64,
    /// Leased tasks that workers have returned.
    pub returns_received: u64,
    /// Runs that have ended.
    pub tasks_run: u64,
    /// Runs that failed. One that was stopped because its result was not needed does not count.
    pub tasks_failed: u64,
    /// Messages sent again because no answer arrived in time.
    pub repeated: Repeated,
    /// Nodes with which this node has a session: they have proven that they are live.
    pub sessions_open: u64,
    /// Sessions opened.
    pub sessions_opened: u64,
    /// Packets of another incarnation of a node that was live just now, or of a twin; they had to wait.
    pub sessions_refused: u64,
    /// Amounts currently held.
    pub held: Held,
}

/// Received packets that were dropped, by reason: see [`PacketError`]. If only a message of a packet is unknown, only
/// that message counts as dropped.
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

/// Messages sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repeated {
    /// Attempts that their worker had not confirmed.
    pub leases: u64,
    /// Result messages that their origin had not acknowledged.
    pub results: u64,
    /// Submits and retries that were not answered.
    pub submits: u64,
    /// Ends of jobs that their client had not acknowledged.
    pub ends: u64,
}

/// Bytes currently held, about. For their limits see docs/limits.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// Running jobs, with the results of their tasks.
    pub jobs_bytes: u64,
    /// Results of ended jobs.
    pub results_bytes: u64,
    /// Data that the journal has not written yet.
    pub journal_bytes: u64,
    /// Results that this node keeps as worker until they are acknowledged.
    pub unacknowledged_bytes: u64,
    /// Large values held for other nodes.
    pub blobs_bytes: u64,
    /// Large values being pulled from other nodes.
    pub pulled_bytes: u64,
    /// Long answers that wait to be sent.
    pub outbox_bytes: u64,
    /// Messages that wait to be sent, including these answers.
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

    /// The sum of all.
    pub fn total(&self) -> u64 {
        let Rejected { malformed, unknown, version, cannot_open, misdirected, repeated, unproven, other } = *self;
        malformed + unknown + version + cannot_open + misdirected + repeated + unproven + other
    }
}
