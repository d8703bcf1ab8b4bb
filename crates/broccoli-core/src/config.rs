//! What a node is told at its start.

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
    /// The cluster's keys: the first seals, all of them open. One, or two while it is changed.
    pub keys: Vec<ClusterKey>,
    /// Whose signature a module needs.
    pub deploy_public: DeployPublic,
    /// Tasks it runs side by side; 0 for a client or a mere origin.
    pub slots: u16,
    /// Labels (`room=kitchen`) and capabilities (`led`), at most 16.
    pub features: Vec<String>,
    /// Functions built into the program.
    pub natives: Vec<NativeModule>,
    /// Whether it accepts jobs of others.
    pub resident: bool,
    /// Whether its shell keeps a journal: see [`crate::Action::Persist`]. Without one, jobs are held in
    /// memory and are lost with it.
    pub durable: bool,
    /// Whether it pulls the code of modules, or only their manifests.
    pub holds_code: bool,
    /// Whether it follows who is there; a microcontroller has no room for all nodes of a large cluster.
    pub watches: bool,
    /// Version of the program, for people.
    pub version: String,
    /// Times of the protocol, as its link needs them.
    pub timing: Timing,
    /// Capacities.
    pub limits: Limits,
}

/// Capacities of a node. Whatever is over one is refused or dropped with a counted event.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest packet, in bytes; the MQTT server may allow less.
    pub packet_bytes_max: u32,
    /// Running jobs held as origin.
    pub jobs_max: usize,
    /// Results of jobs that are over, in bytes: older ones make room, first those that somebody has
    /// seen.
    pub archive_bytes_max: usize,
    /// Such results are kept for this long, in milliseconds.
    pub archive_ms: u64,
    /// Tasks of all these jobs together.
    pub tasks_max: u32,
    /// Memory that all these jobs may take, in bytes, as far as that can be told, in all their states: their
    /// canvases, arguments and tasks, what their tasks have come to, what is pulled for them and what the
    /// journal does not have yet. With three quarters of that no others are accepted; results wait for room
    /// at their workers, and a job that alone needs more fails. See docs/limits.md.
    pub queue_bytes_max: usize,
    /// One canvas.
    pub canvas: canvas::Limits,
    /// Leased tasks held as worker.
    pub held_max: usize,
    /// Results kept as worker until their origins have them; with more it takes no tasks. An origin with
    /// a journal answers up to 100 ms later, or at once if the worker has no room for more.
    pub results_max: usize,
    /// Bytes of arguments that an origin may send ahead.
    pub credit_bytes: u32,
    /// Bytes of the arguments of one task that is taken as worker. Other nodes hear of it, and of the limit on
    /// results: what is larger goes to others.
    pub args_bytes_max: u32,
    /// Bytes of a result. One that fits into no packet is pulled in pieces, as arguments, canvases and
    /// the results of jobs are.
    pub result_bytes_max: u32,
    /// Bytes of such values that are held for others until they have them, of those that are pulled at a
    /// time, and of results that a worker keeps until they are acknowledged, each. One of any size is always
    /// taken.
    pub blob_bytes_max: usize,
    /// Nodes remembered: members, origins, workers and clients, each.
    pub nodes_max: usize,
    /// Modules held, and manifests known of others times four.
    pub modules_max: usize,
    /// Versions of a module that are kept beside those in use here: accepted jobs stay on theirs.
    pub versions_kept: usize,
    /// Messages waiting for one address.
    pub outbox_max: usize,
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
            // Those of a canvas, after the result of a parent.
            args_bytes_max: 128 * MIB,
            result_bytes_max: 64 * MIB,
            blob_bytes_max: 256 << 20,
            nodes_max: 10_000,
            modules_max: 64,
            versions_kept: 4,
            outbox_max: 1_024,
        }
    }

    /// How large a task may be that is taken as worker.
    pub(crate) fn takes(&self) -> Takes {
        Takes { args_bytes: self.args_bytes_max, result_bytes: self.result_bytes_max }
    }

    /// For a microcontroller with some 300 KB of RAM, most of which is for the network and for
    /// modules.
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
        }
    }
}
