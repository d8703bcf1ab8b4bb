//! What a test can see of the cluster.

use broccoli_core::{Event, SubmitId};
use broccoli_proto::message::{JobNews, Message};
use broccoli_proto::{ModuleHash, Outcome};

use super::wire::open;
use super::{Cluster, Id};

impl Cluster {
    /// The events that a node has reported to its user.
    pub fn events(&self, id: Id) -> impl Iterator<Item = &Event> {
        self.slots[id].events.iter().map(|(_, event)| event)
    }

    /// The same, with the time in milliseconds.
    pub fn timed_events(&self, id: Id) -> &[(u64, Event)] {
        &self.slots[id].events
    }

    /// News of a job.
    pub fn news(&self, id: Id, job: SubmitId) -> impl Iterator<Item = &JobNews> {
        self.events(id).filter_map(move |event| match event {
            Event::Job(submit, news) if *submit == job => Some(news),
            _ => None,
        })
    }

    /// How a job ended; a job that has ended twice is a bug.
    pub fn ended(&self, id: Id, job: SubmitId) -> Option<Outcome> {
        let mut ends = self.news(id, job).filter_map(|news| match news {
            JobNews::Ended(outcome) => Some(outcome.clone()),
            _ => None,
        });
        let first = ends.next();
        assert_eq!(ends.next(), None, "the job ended twice");
        first
    }

    /// Waits for the end of a job, at most this long.
    pub fn wait(&mut self, id: Id, job: SubmitId, ms: u64) -> Outcome {
        let came = self.run_until(ms, |cluster| cluster.ended(id, job).is_some());
        assert!(came, "no end after {ms} ms: {:?}", self.news(id, job).collect::<Vec<_>>());
        self.ended(id, job).expect("just seen")
    }

    /// How many runs were started on a node.
    pub fn runs_on(&self, id: Id) -> usize {
        self.runs.iter().filter(|run| run.node == id).count()
    }

    /// How many runs are in progress on a node.
    pub fn running_on(&self, id: Id) -> usize {
        self.slots[id].runs.len()
    }

    /// Whether a run is in progress on a node that was not told to abort it.
    pub fn is_working(&self, id: Id) -> bool {
        self.slots[id].runs.values().any(|index| !self.runs[*index].aborted)
    }

    /// Whether a module is installed on a node.
    pub fn holds(&self, id: Id, module: ModuleHash) -> bool {
        self.slots[id].installed.contains_key(&module)
    }

    /// How many chunks of a module are stored on a node.
    pub fn chunks_of(&self, id: Id, module: ModuleHash) -> usize {
        self.slots[id].chunks.keys().filter(|(of, _)| *of == module).count()
    }

    /// Notes which nodes can be reached.
    pub fn note_reachable(&mut self) {
        for id in 0..self.slots.len() {
            let slot = &self.slots[id];
            let is_cut = slot.cut || slot.mute || slot.deaf || slot.paused || slot.node.is_none();
            let is_blocked = self.blocked.iter().any(|(from, to)| *from == id || *to == id);
            let session = slot.session.filter(|_| !is_cut && !is_blocked);
            let before = slot.reachable;
            let now_us = self.now_us;
            self.slots[id].reachable = session.map(|session| match before {
                Some((start, known, since)) if (start, known) == (self.slots[id].epoch_count, session) => {
                    (start, session, since)
                }
                _ => (self.slots[id].epoch_count, session, now_us),
            });
        }
    }

    /// For how long a node could be reached, so far as it is the only one of its name and stays, in microseconds.
    pub fn reachable_us(&self, id: Id) -> u64 {
        let slot = &self.slots[id];
        let twin = self.slots.iter().filter(|other| other.spec.name == slot.spec.name).count() > 1;
        let leaves = slot.node.as_ref().is_some_and(|node| node.vitals().draining == Some(true));
        slot.reachable.filter(|_| !twin && !leaves).map_or(0, |(.., since)| self.now_us - since)
    }

    /// Virtual time in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Checks that nothing is in progress on any node.
    pub fn assert_idle(&mut self) {
        for id in 0..self.slots.len() {
            self.note(|| format!("node {id} must be idle"));
            if let Some(node) = &self.slots[id].node {
                node.validate_idle();
            }
        }
        assert!(self.slots.iter().all(|slot| slot.runs.is_empty()), "nothing runs");
    }

    /// Forgets what was published so far.
    pub fn count_from_here(&mut self) {
        self.published.clear();
    }

    /// Published packets with a message of this kind.
    pub fn packets_with(&self, kind: impl Fn(&Message) -> bool) -> usize {
        self.published.iter().filter(|p| open(&p.bytes).1.iter().any(&kind)).count()
    }
}
