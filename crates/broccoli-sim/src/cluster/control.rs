//! What a test can do to the nodes of the cluster.

use broccoli_core::{Event, Input, Limits, Node, RecordKey, Recovery, Submission, SubmitError, SubmitId};
use broccoli_proto::message::Message;
use broccoli_proto::module::{CHUNK_BYTES, SignedManifest};
use broccoli_proto::packet::Address;
use broccoli_proto::{Canvas, Cbor, Epoch, JobId, NodeId};

use super::disk::Disk;
use super::faults::Fault;
use super::{Cluster, Id, Sealed, Spec, WALL_START_MS, epoch, open};

impl Cluster {
    /// Its name.
    pub fn name(&self, id: Id) -> NodeId {
        self.slots[id].spec.name.parse().expect("a name")
    }

    /// A node that runs.
    pub fn node(&mut self, id: Id) -> &mut Node {
        self.slots[id].node.as_mut().expect("the node runs")
    }

    /// A node that runs, to look at.
    pub fn peek(&self, id: Id) -> &Node {
        self.slots[id].node.as_ref().expect("the node runs")
    }

    /// Accepts a canvas at a node.
    pub fn submit(&mut self, id: Id, canvas: &Canvas) -> SubmitId {
        self.try_submit(id, canvas).expect("accepted")
    }

    /// Accepts a canvas at a node, if it can.
    pub fn try_submit(&mut self, id: Id, canvas: &Canvas) -> Result<SubmitId, SubmitError> {
        let now = self.at(id);
        let submitted = self.node(id).submit(now, canvas);
        self.drain(id);
        submitted
    }

    /// Submits a canvas to the origin that a node is attached to.
    pub fn submit_remote(&mut self, id: Id, canvas: &Canvas) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).submit_to_cluster(now, Cbor::encode(canvas));
        self.drain(id);
        submitted
    }

    /// Submits a canvas to an origin, with a key or detached.
    pub fn submit_with(&mut self, id: Id, submission: Submission) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).submit_with(now, submission);
        self.drain(id);
        submitted
    }

    /// Follows a job, whoever has submitted it.
    pub fn follow(&mut self, id: Id, job: JobId) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).follow(now, job);
        self.drain(id);
        submitted
    }

    /// Revokes a job, whoever has submitted it, and follows it.
    pub fn revoke_job(&mut self, id: Id, job: JobId) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).revoke_job(now, job);
        self.drain(id);
        submitted
    }

    /// A node looks for an origin.
    pub fn attach(&mut self, id: Id) {
        let now = self.at(id);
        self.node(id).attach(now);
        self.drain(id);
    }

    /// Revokes a job that was submitted through a node.
    pub fn revoke(&mut self, id: Id, job: SubmitId) {
        let now = self.at(id);
        self.node(id).revoke(now, job);
        self.drain(id);
    }

    /// Tells a node the time of day.
    pub fn tell_time(&mut self, id: Id, unix_ms: u64) {
        self.input(id, Input::WallClock { unix_ms });
    }

    /// Deploys a module from a node.
    pub fn deploy(&mut self, id: Id, signed: &SignedManifest, code: &[u8]) {
        for (index, chunk) in code.chunks(CHUNK_BYTES as usize).enumerate() {
            self.slots[id].chunks.insert((signed.id, index as u32), chunk.to_vec());
        }
        self.slots[id].installed.insert(signed.id, signed.clone());
        let now = self.at(id);
        self.node(id).handle_input(now, Input::Installed { manifest: signed.clone(), outcome: Ok(()) });
        self.drain(id);
    }

    /// All chunks that a node sends are damaged.
    pub fn corrupt_chunks(&mut self, id: Id, corrupts: bool) {
        self.spoil_chunks(id, if corrupts { 1_000 } else { 0 }, 0);
    }

    /// How many of the chunks that a node sends are damaged or missing, in thousandths.
    pub fn spoil_chunks(&mut self, id: Id, corrupts: u64, lacks: u64) {
        (self.slots[id].corrupts, self.slots[id].lacks) = (corrupts, lacks);
    }

    /// A node cannot use any module.
    pub fn fail_installs(&mut self, id: Id, error: &str) {
        self.slots[id].install_error = Some(error.into());
    }

    /// A node has no room for any module.
    pub fn fill_store(&mut self, id: Id, error: &str) {
        self.slots[id].full_error = Some(error.into());
    }

    /// Sends what a node has to say.
    pub fn flush(&mut self, id: Id) {
        self.drain(id);
    }

    /// The Will of a node's present connection.
    pub fn will(&self, id: Id) -> Vec<u8> {
        self.slots[id].will.clone()
    }

    /// The server publishes a Will.
    pub fn publish_as_server(&mut self, to: Address, bytes: &[u8]) {
        self.route(None, to, bytes);
    }

    /// The server retains a packet for later subscribers, as an attacker may make it do.
    pub fn retain(&mut self, to: Address, bytes: &[u8]) {
        self.stranger.retained.push((to, bytes.to_vec()));
        self.route(None, to, bytes);
    }

    /// A packet comes to a node.
    pub fn inject(&mut self, id: Id, to: Address, bytes: &[u8]) {
        let now = self.at(id);
        self.node(id).handle_input(now, Input::Packet { to, packet: bytes });
        self.drain(id);
    }

    /// Somebody who has the key sends messages to a node, in the name of a node that is online (as one of its next
    /// packets) or of an unknown node.
    pub fn inject_as(&mut self, sender: &str, id: Id, sequence: u64, messages: &[Message]) {
        let known = (0..self.len()).find(|id| self.name(*id).as_str() == sender);
        let epoch = known.map_or(Epoch([9; 16]), |id| self.epoch(id));
        let sent = self.published.iter().map(|packet| open(&packet.bytes).0).filter(|header| header.epoch == epoch);
        let sequence = sent.map(|header| header.sequence).max().unwrap_or(0) + sequence;
        let (to, proof) = (Address::Node(self.name(id)), self.peek(id).audit_challenge());
        let packet = Sealed { sender, to, epoch, sequence, proof }.packet(messages);
        self.inject(id, to, &packet);
    }

    /// Ends a node at once. With `reset` the server notices now, else by its keep-alive.
    pub fn kill(&mut self, id: Id, reset: bool) {
        for index in std::mem::take(&mut self.slots[id].runs).into_values() {
            self.runs[index].aborted = true;
        }
        self.slots[id].node = None;
        self.slots[id].pending.clear();
        self.slots[id].paused = false;
        let under_way = self.slots[id].disk.under_way();
        if under_way > 0 {
            let kept = self.below(under_way as u64 + 1) as usize;
            if self.slots[id].disk.tear(kept) > 0 {
                self.counts.add(Fault::TornWrite);
            }
        }
        self.note(|| format!("node {id} is dead"));
        self.lose_link(id, reset);
    }

    /// Makes a node crash after this many more outputs.
    pub fn kill_after(&mut self, id: Id, outputs: u32) {
        self.slots[id].crash_after = Some(outputs);
    }

    /// Cancels the crash of a node.
    pub fn kill_never(&mut self, id: Id) {
        self.slots[id].crash_after = None;
    }

    /// Makes the disk of a node accept no writes for a while.
    pub fn stall(&mut self, id: Id, stalled: bool) {
        self.slots[id].disk.stalled = stalled;
        self.note(|| format!("the disk of node {id} is {}", if stalled { "full" } else { "well" }));
    }

    /// A node finishes its work and says goodbye: [`Event::Drained`].
    pub fn begin_drain(&mut self, id: Id) {
        let now = self.at(id);
        self.node(id).drain(now);
        self.drain(id);
    }

    /// A node asks another one to finish and leave.
    pub fn ask_to_drain(&mut self, id: Id, name: NodeId) -> SubmitId {
        let now = self.at(id);
        let asked = self.node(id).drain_node(now, name, None);
        self.drain(id);
        asked
    }

    /// A leaving node waits no longer, and hands back its work.
    pub fn hand_back(&mut self, id: Id) {
        let now = self.at(id);
        self.node(id).hand_back(now);
        self.drain(id);
    }

    /// Retries a failed job.
    pub fn retry_job(&mut self, id: Id, job: JobId) -> SubmitId {
        let now = self.at(id);
        let submitted = self.node(id).retry_job(now, job);
        self.drain(id);
        submitted
    }

    /// A node no longer wants to hear about its request.
    pub fn forget(&mut self, id: Id, asked: SubmitId) {
        let now = self.at(id);
        self.node(id).unfollow(now, asked);
        self.drain(id);
    }

    /// Makes a node lose its journal. The node must be down.
    pub fn wipe(&mut self, id: Id) {
        let slot = &mut self.slots[id];
        assert!(slot.node.is_none(), "a disk is not taken out of a running node");
        slot.disk.wipe();
        self.note(|| format!("node {id} has lost its disk"));
    }

    /// Damages a record on the disk of a node.
    pub fn damage(&mut self, id: Id, key: RecordKey, change: impl FnOnce(&mut Vec<u8>)) {
        self.slots[id].disk.damage(key, change);
        self.counts.add(Fault::DamagedRecord);
        self.note(|| format!("record {key:?} of node {id} is damaged"));
    }

    /// The disk of a node.
    pub fn disk(&self, id: Id) -> &Disk {
        &self.slots[id].disk
    }

    /// What a node found in its journal at its last start.
    pub fn recovery(&self, id: Id) -> &Recovery {
        &self.slots[id].recovery
    }

    /// The specification of a node.
    pub fn spec(&self, id: Id) -> &Spec {
        &self.slots[id].spec
    }

    /// Gives a node other limits, from its next start on.
    pub fn change_limits(&mut self, id: Id, change: impl FnOnce(&mut Limits)) {
        change(&mut self.slots[id].spec.limits);
    }

    /// A running task on a node logs a line.
    pub fn log(&mut self, id: Id, text: &str) {
        let (now, run) = (self.at(id), *self.slots[id].runs.keys().next().expect("something runs"));
        self.node(id).handle_input(now, Input::Logged { run, text: text.into() });
        self.drain(id);
    }

    /// How often a node was started.
    pub fn starts(&self, id: Id) -> u8 {
        self.slots[id].epoch_count
    }

    /// Nodes, dead ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether a node has a connection, as far as the server knows.
    pub fn has_session(&self, id: Id) -> bool {
        self.slots[id].session.is_some()
    }

    /// Which packets of a node get through: its packets to the server, and those of the server to it.
    pub fn silence(&mut self, id: Id, mute: bool, deaf: bool) {
        (self.slots[id].mute, self.slots[id].deaf) = (mute, deaf);
    }

    /// Lets a node's clock run faster by so many millionths.
    pub fn drift(&mut self, id: Id, ppm: i64) {
        self.slots[id].clock.drift(self.now_us, ppm);
    }

    /// Sets a node's time of day.
    pub fn set_wall_clock(&mut self, id: Id, ahead_ms: i64) {
        self.slots[id].clock.wall_ahead_ms = ahead_ms;
    }

    /// What the server's time of day is.
    pub fn unix_ms(&self) -> u64 {
        (WALL_START_MS as u64) + self.now_us / 1_000
    }

    /// A node says goodbye. What is left to be sent is sent; then it ends.
    pub fn leave(&mut self, id: Id) {
        let now = self.at(id);
        self.node(id).leave(now);
        self.drain(id);
    }

    /// Takes what a node has told its user since the last time.
    pub fn take_events(&mut self, id: Id) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.slots[id].events)
    }

    /// Ends a node that has said goodbye: its Will is not published.
    pub fn depart(&mut self, id: Id) {
        self.slots[id].will.clear();
        self.kill(id, true);
    }

    /// The incarnation of a node that was started last.
    pub fn epoch(&self, id: Id) -> Epoch {
        epoch(self.seed, id, self.slots[id].epoch_count)
    }

    /// Starts a killed node again, with what it has stored.
    pub fn restart(&mut self, id: Id) {
        self.boot(id);
        self.connect(id);
    }

    /// Cuts a link. With `reset` both sides notice now, else by their keep-alive.
    pub fn cut(&mut self, id: Id, reset: bool) {
        self.lose_link(id, reset);
        if reset && self.slots[id].node.is_some() {
            self.disconnected(id);
        }
    }

    /// The link works again. A node that has noticed the cut connects again; a node that has not continues.
    pub fn heal(&mut self, id: Id) {
        if self.slots[id].session.is_some() {
            self.slots[id].cut = false;
        } else {
            self.connect(id);
        }
    }

    /// Connects a node whose link was cut or whose session was lost.
    pub fn heal_if_cut(&mut self, id: Id) {
        if self.slots[id].cut || self.slots[id].session.is_none() {
            self.heal(id);
        }
    }

    /// Pauses a node: nothing goes in, nothing comes out, no time passes for it.
    pub fn pause(&mut self, id: Id) {
        self.slots[id].paused = true;
    }

    /// A paused node continues, with everything that has come meanwhile.
    pub fn resume(&mut self, id: Id) {
        self.slots[id].paused = false;
        for work in std::mem::take(&mut self.slots[id].pending) {
            self.push(self.now_us, work);
        }
    }

    /// The server loses its memory and every connection; nodes connect again soon after.
    pub fn restart_server(&mut self) {
        self.stranger.retained.clear();
        for id in 0..self.slots.len() {
            if self.slots[id].session.take().is_some() && self.slots[id].node.is_some() {
                self.slots[id].will.clear();
                self.disconnected(id);
                self.connect(id);
            }
        }
    }

    /// Whether it runs.
    pub fn is_up(&self, id: Id) -> bool {
        self.slots[id].node.is_some()
    }

    /// Whether it is paused.
    pub fn is_paused(&self, id: Id) -> bool {
        self.slots[id].paused
    }

    /// A number below `n` of the cluster's own randomness.
    pub fn random(&mut self, n: u64) -> u64 {
        self.below(n)
    }
}
