//! The configuration of a node.

use alloc::string::String;
use alloc::vec::Vec;

use broccoli_proto::NodeId;
use broccoli_proto::message::Takes;
use broccoli_proto::module::{DeployPublic, NativeModule};
use broccoli_proto::seal::ClusterKey;

use crate::canvas;
use crate::timing::Timing;

/// Identity, role and capacities of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its name, unique in the cluster.
    pub name: NodeId,
    /// The keys of the cluster: the first one seals, all of them open. Two while the key is being changed, otherwise
    /// one.
    pub keys: Vec<ClusterKey>,
    /// The key that verifies the signatures of modules.
    pub deploy_public: DeployPublic,
    /// Number of tasks that it runs at the same time; 0 for a client, or a node that is only an origin.
    pub slots: u16,
    /// Labels (`room=kitchen`) and capabilities (`led`), at most 16.
    pub features: Vec<String>,
    /// Native functions of the program.
    pub natives: Vec<NativeModule>,
    /// Whether it accepts jobs of other nodes.
    pub resident: bool,
    /// Whether its shell keeps a journal: see [`crate::Action::Persist`]. Without one, jobs are only in memory, and are
    /// lost when the node ends.
    pub durable: bool,
    /// Whether it pulls the code of modules. If not, it pulls only their manifests.
    pub holds_code: bool,
    /// Whether it keeps a list of all members. A microcontroller has no memory for all nodes of a large cluster.
    pub watches: bool,
    /// Version of the program, for people.
    pub version: String,
    /// Times of the protocol on its link.
    pub timing: Timing,
    /// Its limits.
    pub limits: Limits,
}

/// Limits of a node. What exceeds one is refused, or dropped with a counted event.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest packet, in bytes. The limit of the MQTT server may be lower.
    pub packet_bytes_max: u32,
    /// Most running jobs as an origin.
    pub jobs_max: usize,
    /// Bytes of the results of ended jobs. The oldest are deleted to make room, first those that a client has received.
    pub archive_bytes_max: usize,
    /// How long such results are kept, in milliseconds.
    pub archive_ms: u64,
    /// Most tasks of all running jobs together.
    pub tasks_max: u32,
    /// Memory for all these jobs, in bytes, in all their states, as far as it can be estimated: canvases, arguments,
    /// tasks, results, values that are pulled for them, and what the journal has not written yet. Above three quarters
    /// of it no more jobs are accepted, results wait for room at their workers, and a job that alone needs more fails.
    /// See docs/limits.md.
    pub queue_bytes_max: usize,
    /// Limits of one canvas.
    pub canvas: canvas::Limits,
    /// Most leased tasks as a worker.
    pub held_max: usize,
    /// Most results that a worker keeps until their origins have acknowledged them. At this limit it accepts no tasks.
    /// An origin with a journal acknowledges up to 100 ms later, or at once if the worker has no room for more results.
    pub results_max: usize,
    /// Bytes of arguments that an origin may send ahead.
    pub credit_bytes: u32,
    /// Bytes of the arguments of a task that it accepts as a worker. Other nodes know this limit and the one on
    /// results, and send larger tasks to other nodes.
    pub args_bytes_max: u32,
    /// Bytes of a result. A result that is too large for a packet is pulled in pieces, like arguments, canvases and
    /// results of jobs.
    pub result_bytes_max: u32,
    /// Bytes of such values: of those held for other nodes until they are pulled, of those being pulled at a time, and
    /// of results that a worker keeps until they are acknowledged. The limit applies to each of the three. A single
    /// value of any size is always accepted.
    pub blob_bytes_max: usize,
    /// Most nodes that it remembers: members, origins, workers and clients, each.
    pub nodes_max: usize,
    /// Most modules that it holds. It knows four times as many manifests of others.
    pub modules_max: usize,
    /// Most old versions of a module that it keeps besides the current one: an accepted job keeps its version.
    pub versions_kept: usize,
    /// Most messages that wait for one address; of this node to itself, four times as many.
    pub outbox_max: usize,
    /// Jobs and nodes that the user of this node has asked for and that have not ended: submits to the cluster, followed
    /// jobs, retries, drains. One more is [`crate::Event::TooManyRequests`].
    pub requests_max: usize,
}

impl Limits {
    /// For a Raspberry Pi or a PC.
    pub fn host() -> Limits {
        const MIB: u32 = 1 << 20;
        Limits {
            packet_bytes_max: MIB,
            jobs_max: 1_000_000,
            archive_bytes_max: 32 << 20,
            archive_ms: 24 * 3_600_000,
            tasks_max: 1_000_000,
            queue_bytes_max: 512 << 20,
            canvas: canvas::Limits {
                steps_max: 1_000_000,
                depth_max: 32,
                args_bytes_max: 64 << 20,
                result_bytes_max: 64 << 20,
            },
            held_max: 4_096,
            results_max: 65_536,
            credit_bytes: MIB,
            // The arguments of a canvas, after the result of a parent.
            args_bytes_max: 128 * MIB,
            result_bytes_max: 64 * MIB,
            blob_bytes_max: 256 << 20,
            nodes_max: 10_000,
            modules_max: 64,
            versions_kept: 4,
            outbox_max: 1_024,
            requests_max: 65_536,
        }
    }

    /// The largest task that it accepts as a worker.
    pub(crate) fn takes(&self) -> Takes {
        Takes { args_bytes: self.args_bytes_max, result_bytes: self.result_bytes_max }
    }

    /// For a microcontroller with about 300 KB of RAM. The network and the modules need most of it.
    pub fn chip() -> Limits {
        const KIB: u32 = 1 << 10;
        Limits {
            packet_bytes_max: 4 * KIB,
            jobs_max: 16,
            archive_bytes_max: 4 << 10,
            archive_ms: 10 * 60_000,
            tasks_max: 128,
            queue_bytes_max: 32 << 10,
            canvas: canvas::Limits { steps_max: 128, depth_max: 8, args_bytes_max: 8 << 10, result_bytes_max: 8 << 10 },
            held_max: 16,
            results_max: 24,
            credit_bytes: 4 * KIB,
            args_bytes_max: 16 * KIB,
            result_bytes_max: 16 * KIB,
            blob_bytes_max: 16 << 10,
            nodes_max: 32,
            modules_max: 4,
            versions_kept: 2,
            outbox_max: 16,
            requests_max: 64,
        }
    }
}
