//! The kinds of faults, and how often each one has happened.

use std::fmt;
use std::ops::AddAssign;

/// Kinds of faults and events. A long run of the simulator fails if one of them never happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A delivery was lost.
    Loss,
    /// A delivery was duplicated.
    Duplication,
    /// A later delivery overtook it.
    Reordering,
    /// A delivery was delayed.
    Delay,
    /// Packets went one way only, or not from one node to one other.
    Partition,
    /// A link was cut, and one or both sides did not notice.
    Cut,
    /// The server ended a session.
    SessionLost,
    /// The MQTT server restarted with an empty memory.
    ServerRestart,
    /// A node crashed between two outputs.
    CrashBetweenOutputs,
    /// A node crashed at rest.
    Crash,
    /// A node was paused, as by SIGSTOP.
    Pause,
    /// A node started again with its disk.
    RebootWithDisk,
    /// A node started again without its disk.
    RebootWithoutDisk,
    /// Writes in progress were lost in a crash.
    TornWrite,
    /// A record on a disk was damaged.
    DamagedRecord,
    /// A clock ran at a speed of its own.
    ClockDrift,
    /// The time of day was set.
    ClockSet,
    /// A node refused a canvas because it held its maximum.
    QueueFull,
    /// A run continued for longer than its lease while its node could not renew the lease.
    LeaseOverrun,
    /// A chunk of a module was damaged.
    CorruptChunk,
    /// A chunk of a module was missing.
    MissingChunk,
    /// A task trapped.
    Trap,
    /// Two nodes had one name.
    Twin,
    /// A node left on purpose.
    Leave,
    /// A client revoked its job.
    Revoke,
    /// Arguments of a task were pulled in pieces.
    LargeArgs,
    /// The result of a task was pulled in pieces.
    LargeResult,
    /// A canvas was pulled in pieces.
    LargeCanvas,
    /// The result of a job was pulled in pieces.
    LargeNews,
    /// A node was told to shut down gracefully.
    Drain,
    /// A leaving node handed back its work before it had finished.
    HandBack,
    /// A disk could not be written for a while.
    Stall,
    /// A canvas was refused because the disk could not be written.
    StallRefusal,
    /// A failed job was retried.
    Retry,
    /// A canvas was submitted again with its key.
    KeyAgain,
    /// A key was refused because a node that may hold it did not answer.
    KeyUnsure,
    /// A task submitted a canvas to its node.
    TaskSubmit,
    /// A task asked for a later retry.
    RetryAfter,
    /// The attacker published a recorded packet again.
    Replay,
    /// A node sent messages that only a later version knows.
    Later,
    /// All nodes are on a slow bus.
    SlowLink,
    /// Some nodes were too small for a task.
    TooSmall,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Fault; 42] = [
        Fault::Loss,
        Fault::Duplication,
        Fault::Reordering,
        Fault::Delay,
        Fault::Partition,
        Fault::Cut,
        Fault::SessionLost,
        Fault::ServerRestart,
        Fault::CrashBetweenOutputs,
        Fault::Crash,
        Fault::Pause,
        Fault::RebootWithDisk,
        Fault::RebootWithoutDisk,
        Fault::TornWrite,
        Fault::DamagedRecord,
        Fault::ClockDrift,
        Fault::ClockSet,
        Fault::QueueFull,
        Fault::LeaseOverrun,
        Fault::CorruptChunk,
        Fault::MissingChunk,
        Fault::Trap,
        Fault::Twin,
        Fault::Leave,
        Fault::Revoke,
        Fault::LargeArgs,
        Fault::LargeResult,
        Fault::LargeCanvas,
        Fault::LargeNews,
        Fault::Drain,
        Fault::HandBack,
        Fault::Stall,
        Fault::StallRefusal,
        Fault::Retry,
        Fault::KeyAgain,
        Fault::KeyUnsure,
        Fault::TaskSubmit,
        Fault::RetryAfter,
        Fault::Replay,
        Fault::Later,
        Fault::SlowLink,
        Fault::TooSmall,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Loss => "packets lost",
            Fault::Duplication => "packets doubled",
            Fault::Reordering => "packets overtaken",
            Fault::Delay => "packets delayed",
            Fault::Partition => "asymmetric partitions",
            Fault::Cut => "links cut unnoticed",
            Fault::SessionLost => "sessions lost",
            Fault::ServerRestart => "MQTT server restarts",
            Fault::CrashBetweenOutputs => "crashes between two outputs",
            Fault::Crash => "crashes at rest",
            Fault::Pause => "pauses",
            Fault::RebootWithDisk => "reboots with their disk",
            Fault::RebootWithoutDisk => "reboots without a disk",
            Fault::TornWrite => "journal writes torn off",
            Fault::DamagedRecord => "journal records damaged",
            Fault::ClockDrift => "drifting clocks",
            Fault::ClockSet => "times of day set",
            Fault::QueueFull => "full queues",
            Fault::LeaseOverrun => "runs longer than their lease",
            Fault::CorruptChunk => "module chunks corrupted",
            Fault::MissingChunk => "module chunks missing",
            Fault::Trap => "traps",
            Fault::Twin => "twins with one name",
            Fault::Leave => "nodes that left",
            Fault::Revoke => "jobs revoked",
            Fault::LargeArgs => "large arguments pulled",
            Fault::LargeResult => "large results pulled",
            Fault::LargeCanvas => "large canvases pulled",
            Fault::LargeNews => "large results of jobs pulled",
            Fault::Drain => "nodes drained",
            Fault::HandBack => "nodes that handed back",
            Fault::Stall => "disks stalled",
            Fault::StallRefusal => "canvases refused by a stalled disk",
            Fault::Retry => "failed jobs tried again",
            Fault::KeyAgain => "keys handed in again",
            Fault::KeyUnsure => "keys that nobody could be sure of",
            Fault::TaskSubmit => "canvases submitted by tasks",
            Fault::RetryAfter => "tasks that asked for another try",
            Fault::Replay => "packets replayed by a stranger",
            Fault::Later => "packets with messages of a later version",
            Fault::SlowLink => "clusters on a bus of 9,600 bauds",
            Fault::TooSmall => "tasks that nodes were too small for",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each kind has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u64; Fault::ALL.len()]);

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; Fault::ALL.len()])
    }
}

impl Counts {
    /// Counts one.
    pub fn add(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often a kind has happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}
