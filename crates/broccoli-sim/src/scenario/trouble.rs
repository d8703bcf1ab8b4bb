//! The faults of a seed, and their repair.

use broccoli_core::RecordKey;

use super::{LEASE_US, LONG_PAUSE_US, Scenario};
use crate::cluster::faults::Fault;
use crate::cluster::{Faults, Id, Spec};

/// The kinds of faults that a scenario causes, besides the faults of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Crash,
    CrashSoon,
    Wipe,
    Pause,
    Cut,
    Session,
    OneWay,
    Server,
    Twin,
    Leave,
    Clock,
    Damage,
    Module,
    Drain,
    Stall,
}

pub(super) const TROUBLES: [Trouble; 15] = [
    Trouble::Crash,
    Trouble::CrashSoon,
    Trouble::Wipe,
    Trouble::Pause,
    Trouble::Cut,
    Trouble::Session,
    Trouble::OneWay,
    Trouble::Server,
    Trouble::Twin,
    Trouble::Leave,
    Trouble::Clock,
    Trouble::Damage,
    Trouble::Module,
    Trouble::Drain,
    Trouble::Stall,
];

impl Scenario {
    pub(super) fn make(&mut self, trouble: Trouble) {
        let id = self.rng.below(self.cluster.len());
        let (up, paused) = (self.cluster.is_up(id), self.cluster.is_paused(id));
        let reset = self.rng.one_in(2);
        match trouble {
            Trouble::Crash if up => {
                self.cluster.counts.add(Fault::Crash);
                self.cluster.kill(id, reset);
            }
            Trouble::CrashSoon if up => {
                let outputs = 1 + self.rng.below(12) as u32;
                self.cluster.kill_after(id, outputs);
            }
            Trouble::Wipe if !up && self.cluster.spec(id).durable => {
                self.cluster.wipe(id);
                let name = self.cluster.name(id);
                self.keys.retain(|_, (job, _)| job.origin != name);
                self.wiped.insert(id, self.cluster.starts(id));
            }
            Trouble::Pause if up && !paused => {
                self.cluster.counts.add(Fault::Pause);
                self.paused_at.insert(id, self.cluster.now_us);
                if reset {
                    self.cluster.cut(id, false);
                }
                self.cluster.pause(id);
            }
            Trouble::Cut if up => {
                self.cluster.counts.add(Fault::Cut);
                self.cluster.cut(id, false);
            }
            Trouble::Session if up => {
                self.cluster.counts.add(Fault::SessionLost);
                self.cluster.cut(id, true);
            }
            Trouble::OneWay => self.partition(id),
            Trouble::Server if self.rng.one_in(4) => {
                self.cluster.counts.add(Fault::ServerRestart);
                self.cluster.restart_server();
            }
            Trouble::Twin if self.twins.is_empty() && !self.clients.contains(&id) => {
                self.cluster.counts.add(Fault::Twin);
                let spec = Spec { durable: false, ..self.cluster.spec(id).clone() };
                let twin = self.add(spec);
                self.twins.push(twin);
            }
            Trouble::Leave if up && !paused => {
                self.cluster.counts.add(Fault::Leave);
                self.cluster.leave(id);
                self.go_on(1_000);
                if self.cluster.is_up(id) {
                    self.cluster.depart(id);
                }
            }
            Trouble::Clock => {
                self.cluster.counts.add(Fault::ClockSet);
                let ahead_ms = self.rng.below(400_000) as i64 - 200_000;
                self.cluster.set_wall_clock(id, ahead_ms);
            }
            Trouble::Damage if !up => self.damage(id),
            Trouble::Module if up && !paused => {
                let (corrupts, lacks) = (self.rng.below(300) as u64, self.rng.below(300) as u64);
                self.cluster.spoil_chunks(id, corrupts, lacks);
                self.deploy(id);
            }
            Trouble::Drain if up && !paused && !self.clients.contains(&id) => self.drain_one(id),
            Trouble::Stall if up && self.cluster.spec(id).durable && !self.cluster.disk(id).is_stalled() => {
                self.cluster.counts.add(Fault::Stall);
                self.cluster.stall(id, true);
            }
            _ => {}
        }
        self.look();
    }

    /// Packets go one way only.
    fn partition(&mut self, id: Id) {
        self.cluster.counts.add(Fault::Partition);
        match self.rng.below(3) {
            0 => self.cluster.silence(id, true, false),
            1 => self.cluster.silence(id, false, true),
            _ => {
                let other = self.rng.below(self.cluster.len());
                self.cluster.blocked.insert((id, other));
            }
        }
    }

    fn damage(&mut self, id: Id) {
        let keys: Vec<RecordKey> = self.cluster.disk(id).records().keys().filter(|key| key.job != 0).copied().collect();
        if keys.is_empty() {
            return;
        }
        let key = *self.rng.pick(&keys);
        self.damaged.insert((id, key.job));
        let name = self.cluster.name(id);
        self.keys.retain(|_, (job, _)| (job.origin, job.number) != (name, key.job));
        // A shell notices by its checksums what is not as it was written; then it is no record.
        self.cluster.damage(id, key, |value| value.truncate(value.len() / 2));
    }

    /// Repairs one fault of a node, if it has one.
    pub(super) fn mend(&mut self, id: Id) {
        if self.twins.contains(&id) && !self.cluster.is_up(id) {
            return;
        }
        if !self.cluster.is_up(id) {
            self.restart(id);
        } else if self.cluster.is_paused(id) {
            let since = self.paused_at.get(&id).copied().unwrap_or_default();
            // Some stand still for longer than a lease lasts.
            if self.cluster.now_us - since > LONG_PAUSE_US * self.stretch || self.rng.one_in(2) {
                self.resume(id);
            }
        } else if self.cluster.disk(id).is_stalled() && self.rng.one_in(2) {
            self.cluster.stall(id, false);
        } else if !self.cluster.blocked.is_empty() && self.rng.one_in(2) {
            self.cluster.blocked.clear();
        } else {
            self.cluster.silence(id, false, false);
            self.cluster.heal_if_cut(id);
        }
        self.look();
    }

    pub(super) fn restart(&mut self, id: Id) {
        self.look();
        let kept = self.cluster.spec(id).durable && !self.cluster.disk(id).records().is_empty();
        self.cluster.counts.add(if kept { Fault::RebootWithDisk } else { Fault::RebootWithoutDisk });
        self.cluster.restart(id);
        self.started(id);
        for damage in &self.cluster.recovery(id).damaged {
            assert!(self.damaged.contains(&(id, damage.job)), "a sound job was given up: {damage:?}");
        }
        if self.clients.contains(&id) {
            self.cluster.attach(id);
        }
    }

    fn resume(&mut self, id: Id) {
        let since = self.paused_at.remove(&id).unwrap_or(self.cluster.now_us);
        let stood_still = self.cluster.now_us - since;
        if stood_still > LEASE_US * self.stretch && self.cluster.running_on(id) > 0 {
            self.cluster.counts.add(Fault::LeaseOverrun);
        }
        self.cluster.resume(id);
        self.go_on(1);
        self.cluster.heal_if_cut(id);
    }

    pub(super) fn heal(&mut self) {
        self.cluster.note(|| "everything heals".into());
        self.cluster.faults = Faults::default();
        self.cluster.jitter_us = 0;
        self.cluster.ticks = false;
        self.cluster.blocked.clear();
        for id in self.twins.clone() {
            if self.cluster.is_up(id) {
                self.cluster.kill(id, true);
            }
        }
        self.look();
        for id in 0..self.cluster.len() {
            self.cluster.silence(id, false, false);
            self.cluster.spoil_chunks(id, 0, 0);
            self.cluster.set_wall_clock(id, 0);
            self.cluster.stall(id, false);
            if self.cluster.is_up(id) && !self.cluster.is_paused(id) {
                self.cluster.tell_time(id, self.cluster.unix_ms());
            }
            if self.twins.contains(&id) {
                continue;
            }
            self.cluster.kill_never(id);
            self.forget_drains(id);
            if self.cluster.is_paused(id) {
                self.resume(id);
            }
            if self.cluster.is_up(id) {
                self.cluster.heal_if_cut(id);
            } else {
                self.restart(id);
            }
        }
    }
}
