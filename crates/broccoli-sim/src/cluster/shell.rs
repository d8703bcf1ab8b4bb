//! What a shell does for its node: it sends packets, writes the journal and runs functions.

use std::time::Duration;

use broccoli_core::{Action, Execute, Input};
use broccoli_proto::Cause;
use broccoli_proto::message::Failure;
use broccoli_proto::module::{SignedManifest, hash};

use super::faults::Fault;
use super::wire::{LATER_BYTES, brief, cropped, with_later_message};
use super::{Cluster, HOP_US, Id, Published, Pushed, Run, Work, fnv, functions};

/// A write that could not be made is tried again after this time.
const WRITE_AGAIN_US: u64 = 200_000;

impl Cluster {
    pub(super) fn drain(&mut self, id: Id) {
        if self.slots[id].paused {
            return;
        }
        self.touched.insert(id);
        let now = self.at(id);
        let mut packet = Vec::new();
        loop {
            if self.slots[id].crash_after == Some(0) && self.slots[id].node.is_some() {
                self.counts.add(Fault::CrashBetweenOutputs);
                self.kill(id, true);
            }
            // A link that is full is asked again when it has room.
            let has_room = self.has_room(id);
            let Some(node) = self.slots[id].node.as_mut() else {
                return;
            };
            if let Some(action) = node.poll_action() {
                self.act(id, action);
                continue;
            }
            if !has_room {
                node.poll_local(now);
            }
            let Some(transmit) = has_room.then(|| node.poll_transmit(now, &mut packet)).flatten() else {
                // The last poll may have delivered something to the node itself.
                match node.poll_action() {
                    Some(action) => self.act(id, action),
                    None => break,
                }
                continue;
            };
            let max = self.slots[id].spec.limits.packet_bytes_max as usize;
            assert!(packet.len() <= max, "a packet of {} bytes, {max} at most: {}", packet.len(), brief(&packet));
            self.output(id);
            if self.slots[id].spec.later {
                self.add_later_messages(id, &mut packet);
            }
            if let Some(digest) = &mut self.digest {
                *digest = fnv(fnv(*digest, format!("{id} {:?}", transmit.to).as_bytes()), &packet);
            }
            if self.trace.is_some() {
                self.note(|| format!("node {id} sends to {:?}: {}", transmit.to, brief(&packet)));
            }
            if self.records {
                self.published.push(Published { from: id, to: transmit.to, bytes: packet.clone() });
            }
            if let Some(session) = self.slots[id].session.filter(|_| !self.slots[id].cut) {
                let (to, bytes) = (transmit.to, packet.clone());
                let mut at = self.now_us + HOP_US;
                if let Some(bus) = &mut self.bus {
                    at = bus.send(self.now_us, bytes.len());
                    self.slots[id].sending_until_us = at;
                    self.push(at, Work::Sent { node: id });
                }
                self.push(at, Work::Publish { from: id, session, to, bytes });
            }
        }
        // What waits for the link is not drained yet.
        let is_drained = self.has_room(id);
        if let Some(node) = self.slots[id].node.as_ref().filter(|_| self.validate && is_drained) {
            node.validate();
        }
    }

    /// Whether the link of a node takes a packet.
    fn has_room(&self, id: Id) -> bool {
        self.bus.is_none() || self.slots[id].sending_until_us <= self.now_us
    }

    /// Adds what a later version might say to a packet, if there is room.
    fn add_later_messages(&mut self, id: Id, packet: &mut Vec<u8>) {
        let room = (self.slots[id].spec.limits.packet_bytes_max as usize).saturating_sub(packet.len());
        let front = self.chance(500);
        if room >= LATER_BYTES && self.chance(300) {
            self.counts.add(Fault::Later);
            with_later_message(packet, front);
        }
    }

    fn output(&mut self, id: Id) {
        if let Some(left) = &mut self.slots[id].crash_after {
            *left = left.saturating_sub(1);
        }
    }

    fn act(&mut self, id: Id, action: Action) {
        let now = self.now_us;
        self.output(id);
        if let Some(digest) = &mut self.digest {
            *digest = fnv(*digest, format!("{id} {action:?}").as_bytes());
        }
        if self.trace.is_some() {
            self.note(|| format!("node {id} asks for {}", cropped(format!("{action:?}"))));
        }
        match action {
            Action::Execute(execute) => self.execute(id, &execute),
            Action::Abort(run) => {
                if let Some(index) = self.slots[id].runs.get(&run) {
                    self.runs[*index].aborted = true;
                    let failure = Failure::new(Cause::Revoked, "aborted");
                    let epoch = self.slots[id].epoch_count;
                    self.push(now, Work::RunEnds { node: id, epoch, run, outcome: Err(failure) });
                }
            }
            Action::Reserve(manifest) => {
                if let Some(error) = self.slots[id].full_error.clone() {
                    self.feed(id, Input::Installed { manifest, outcome: Err(error) });
                }
            }
            Action::StoreChunk { module, index, bytes } => {
                self.slots[id].chunks.insert((module, index), bytes);
            }
            Action::LoadChunk { module, index, to } => {
                let mut bytes = self.slots[id].chunks.get(&(module, index)).cloned();
                if self.chance(self.slots[id].corrupts) {
                    self.counts.add(Fault::CorruptChunk);
                    if let Some(bytes) = &mut bytes {
                        bytes[0] ^= 1;
                    }
                }
                if self.chance(self.slots[id].lacks) {
                    self.counts.add(Fault::MissingChunk);
                    bytes = None;
                }
                self.feed(id, Input::ChunkLoaded { module, index, to, bytes });
            }
            Action::Install(manifest) => {
                let outcome = self.install(id, &manifest);
                self.feed(id, Input::Installed { manifest, outcome });
            }
            Action::Remove(module) => {
                self.slots[id].installed.remove(&module);
                self.slots[id].chunks.retain(|(of, _), _| *of != module);
            }
            Action::Persist { number, writes } => {
                assert!(self.slots[id].spec.durable, "only a node with a disk writes to it");
                let took = 1 + self.below(self.sync_us_max);
                let slot = &mut self.slots[id];
                slot.disk.write(number, writes);
                // A disk does one thing after the other.
                let at = slot.disk.busy_until_us.max(now + took);
                slot.disk.busy_until_us = at;
                let epoch = slot.epoch_count;
                self.push(at, Work::Synced { node: id, epoch, number });
            }
            Action::Event(event) => self.slots[id].events.push((now / 1_000, event)),
        }
    }

    /// A write has come to its end: it is safe, or it is tried again.
    pub(super) fn synced(&mut self, id: Id, epoch: u8, number: u64) {
        let now = self.at(id);
        let slot = &mut self.slots[id];
        let (Some(node), disk) = (&mut slot.node, &mut slot.disk) else {
            return;
        };
        if disk.stalled != disk.told {
            disk.told = disk.stalled;
            node.handle_input(now, Input::Stalled(disk.stalled.then(|| "no space left".into())));
        }
        if disk.stalled {
            self.push(self.now_us + WRITE_AGAIN_US, Work::Synced { node: id, epoch, number });
        } else {
            disk.sync(number);
            node.handle_input(now, Input::Persisted(number));
        }
    }

    pub(super) fn feed(&mut self, id: Id, input: Input<'_>) {
        let now = self.at(id);
        self.node(id).handle_input(now, input);
    }

    fn install(&mut self, id: Id, signed: &SignedManifest) -> Result<(), String> {
        let slot = &mut self.slots[id];
        if let Some(error) = &slot.install_error {
            return Err(error.clone());
        }
        let chunks = 0..signed.manifest.chunks.len() as u32;
        let code: Vec<u8> = chunks.flat_map(|index| slot.chunks[&(signed.id, index)].clone()).collect();
        assert_eq!(hash(&code), signed.manifest.hash, "every chunk was checked");
        slot.installed.insert(signed.id, signed.clone());
        Ok(())
    }

    fn execute(&mut self, id: Id, execute: &Execute) {
        let same = |run: &&Run| run.function == execute.function.name && run.args == execute.args;
        let before = if self.workload.is_none() { self.runs.iter().filter(same).count() } else { 0 };
        let slot = &mut self.slots[id];
        assert!(slot.runs.len() < usize::from(slot.spec.slots), "at most `slots` runs at a time");
        let version = slot.installed.get(&execute.function.module).map_or(0, |signed| signed.manifest.version);
        let too_small = too_small(execute, slot.spec.memory_bytes_max);
        let (took, outcome) = match &mut self.workload {
            Some(workload) => {
                let attempt = slot.node.as_ref().and_then(|node| node.attempt_of(execute.run));
                let traps = workload.trapped;
                let started = workload.start((id, slot.epoch_count), self.now_us, attempt, execute, version, too_small);
                if workload.trapped > traps {
                    self.counts.add(Fault::Trap);
                }
                if started.1.as_ref().is_err_and(|failure| failure.retry_after_ms.is_some()) {
                    self.counts.add(Fault::RetryAfter);
                }
                started
            }
            None => match too_small {
                Some(failure) => (Duration::ZERO, Err(failure)),
                None => functions::call(execute, version, before),
            },
        };
        if let Some(canvas) = self.workload.as_mut().and_then(|workload| workload.pushed(execute)) {
            let now = self.at(id);
            let job = self.node(id).submit_detached(now, &canvas);
            self.pushed.push(Pushed { node: id, canvas, job });
        }
        let function = execute.function.name.clone();
        let at_ms = self.now_us / 1_000;
        let ended = took == Duration::ZERO;
        if let Some(workload) = self.workload.as_mut().filter(|_| ended) {
            workload.ended(id, self.slots[id].epoch_count, execute.run);
        }
        self.runs.push(Run { at_ms, node: id, function, args: execute.args.clone(), aborted: false, ended });
        if ended {
            self.feed(id, Input::Executed { run: execute.run, outcome });
        } else {
            let epoch = self.slots[id].epoch_count;
            self.slots[id].runs.insert(execute.run, self.runs.len() - 1);
            let at = self.now_us + took.as_micros() as u64;
            self.push(at, Work::RunEnds { node: id, epoch, run: execute.run, outcome });
        }
    }
}

/// As the executor of a chip says it.
fn too_small(execute: &Execute, memory_bytes_max: usize) -> Option<Failure> {
    let need = execute.args.as_bytes().len();
    let text = || format!("out of memory: it needs {need} bytes, this node gives {memory_bytes_max}");
    (need > memory_bytes_max).then(|| Failure::too_small(text(), Some(memory_bytes_max as u64)))
}
