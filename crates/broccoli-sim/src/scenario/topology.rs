//! The nodes of a seed, and the faults of its packets.

use broccoli_core::Limits;

use super::{NODES_MAX, Scenario};
use crate::canvases::Rng;
use crate::cluster::faults::Fault;
use crate::cluster::{Faults, Id, Spec};

impl Scenario {
    pub(super) fn add_nodes(&mut self) {
        let nodes = 1 + self.rng.below(NODES_MAX);
        let labels = ["room=kitchen", "room=attic", "led"];
        for at in 0..nodes {
            let slots = if at == 0 { 1 + self.rng.below(4) } else { self.rng.below(9) };
            let mut spec = Spec::new(&format!("n{at}"), slots as u16);
            spec.resident = at == 0 || self.rng.below(10) < 7;
            spec.durable = self.rng.one_in(2);
            spec.later = self.rng.one_in(4);
            for label in labels {
                if self.rng.one_in(3) {
                    spec.features.push(label.into());
                }
            }
            if self.rng.one_in(4) {
                let rng = &mut self.rng;
                spec = spec.limits(|limits| small(limits, rng));
                self.is_small = true;
            }
            if self.generator.calls.large && self.rng.one_in(2) {
                let rng = &mut self.rng;
                spec = spec.limits(|limits| small_packets(limits, rng));
            }
            if self.rng.one_in(4) {
                spec = self.too_small_for_some(spec);
            }
            if slots > 0 {
                self.generator.calls.places.extend(spec.features.iter().cloned());
                self.generator.calls.places.push(spec.name.clone());
            }
            self.add(spec);
        }
        for at in 0..self.rng.below(3) {
            let mut spec = Spec::client(&format!("c{at}"));
            if self.generator.calls.large && self.rng.one_in(2) {
                let rng = &mut self.rng;
                spec = spec.limits(|limits| small_packets(limits, rng));
            }
            let id = self.add(spec);
            self.clients.push(id);
            self.cluster.attach(id);
        }
    }

    /// A node that does not take every task.
    fn too_small_for_some(&mut self, spec: Spec) -> Spec {
        self.is_mixed = true;
        let rng = &mut self.rng;
        let bytes = 8 + rng.below(250);
        if rng.one_in(2) {
            return spec.memory(bytes);
        }
        let large = self.generator.calls.large && rng.one_in(2);
        spec.limits(|limits| {
            if large {
                // As origin, too.
                limits.result_bytes_max = 1_000 + rng.below(20_000) as u32;
            } else {
                limits.args_bytes_max = bytes as u32;
            }
        })
    }

    pub(super) fn add(&mut self, spec: Spec) -> Id {
        let id = self.cluster.add(spec);
        self.started(id);
        if self.rng.one_in(3) {
            let ppm = self.rng.below(100_001) as i64 - 50_000;
            self.cluster.drift(id, ppm);
            self.cluster.counts.add(Fault::ClockDrift);
        }
        id
    }

    pub(super) fn started(&mut self, id: Id) {
        let [a, b, c, d, ..] = self.cluster.epoch(id).0;
        self.makers.insert(u32::from_be_bytes([a, b, c, d]), (id, self.cluster.starts(id)));
    }

    pub(super) fn choose_packet_faults(&mut self) {
        let rng = &mut self.rng;
        let mut chance = |max: usize| if rng.one_in(2) { rng.below(max) as u64 } else { 0 };
        let (loss, duplication, delay) = (chance(200), chance(150), chance(200));
        self.packet_faults = Faults { loss, duplication, delay, delay_ms_max: (1 + chance(3_000)) * self.stretch };
        self.cluster.faults = self.packet_faults;
        // Presence is told again every 30 to 35 s. On a slow bus it may wait behind the pieces of modules and values, too.
        let births_come_us = match loss {
            0 if self.stretch == 1 => 3_000_000 + 2_000 * self.packet_faults.delay_ms_max,
            _ => 80_000_000 * self.stretch,
        };
        self.checker.births_come_us = births_come_us;
        self.cluster.jitter_us = chance(20_000) * self.stretch;
        self.cluster.sync_us_max = 1 + chance(200_000) + chance(5_000);
    }
}

/// Small capacities.
fn small(limits: &mut Limits, rng: &mut Rng) {
    limits.jobs_max = 1 + rng.below(6);
    limits.tasks_max = 20 + rng.below(200) as u32;
    limits.held_max = 1 + rng.below(8);
    limits.outbox_max = 8 + rng.below(32);
    limits.packet_bytes_max = 40_000 + rng.below(60_000) as u32;
    limits.result_bytes_max = limits.packet_bytes_max - 4_096;
    limits.credit_bytes = 1_000 + rng.below(100_000) as u32;
}

/// Packet sizes of a chip, and little room for values that do not fit into a packet.
fn small_packets(limits: &mut Limits, rng: &mut Rng) {
    limits.packet_bytes_max = 4_096 + rng.below(8_192) as u32;
    if rng.one_in(3) {
        limits.blob_bytes_max = rng.below(60_000);
    }
}
