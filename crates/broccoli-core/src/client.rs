//! The client: finds an origin, hands it canvases and follows their jobs.
//!
//! ```text
//!   attach ──► Hello … ──► Welcome ──► Submit … ──► Accepted ──► JobEvent … ──► Ended
//!                 ▲                       │                          ▲
//!                 └──── stale token ──────┘          JobQuery … ─────┘
//! ```

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{Accepted, JobEvent, JobNews, Message, Refusal, Refused, Revoke, Submit, Welcome};
use broccoli_proto::{Cbor, JobId, NodeId};

use crate::blobs::{self, Holder, Want};
use crate::io::{Event, SubmitId};
use crate::members::Members;
use crate::modules::Modules;
use crate::origin::too_large;
use crate::shared::Shared;
use crate::time::{Instant, ms};
use crate::timers::Timer;

/// Hello and Submit are repeated after this time, …
const AGAIN: Duration = ms(200);
/// … and another origin is tried after so many hellos.
const HELLOS_MAX: u32 = 5;
/// Another origin is tried after a submit was sent so often without an answer.
const SUBMITS_MAX: u32 = 15;
/// An accepted job is asked after when nothing was heard of it for this long.
const QUERY: Duration = ms(2_000);
/// After this time without an origin the user is told.
const NO_ORIGIN: Duration = ms(2_000);

/// The client role.
#[derive(Debug, Default)]
pub(crate) struct Client {
    wanted_since: Option<Instant>,
    told: bool,
    origin: Option<Attached>,
    ready: bool,
    submits: BTreeMap<u32, Submitted>,
}

#[derive(Debug)]
struct Attached {
    node: NodeId,
    token: Option<u64>,
    hellos: u32,
}

#[derive(Debug)]
struct Submitted {
    canvas: Cbor,
    /// Submits sent and not answered.
    tries: u32,
    job: Option<JobId>,
    revoked: bool,
}

impl Client {
    /// Begins to look for an origin.
    pub(crate) fn attach(&mut self, shared: &mut Shared) {
        if self.wanted_since.is_none() {
            self.wanted_since = Some(shared.now);
            shared.timers.set(Timer::Attach, shared.now);
        }
    }

    /// Submits a canvas to the origin, as soon as there is one.
    pub(crate) fn submit(&mut self, shared: &mut Shared, id: SubmitId, canvas: Cbor) {
        self.attach(shared);
        self.submits.insert(id.0, Submitted { canvas, tries: 0, job: None, revoked: false });
        shared.timers.set(Timer::Submit(id.0), shared.now);
    }

    /// Ends a submitted job. Returns whether there is one.
    pub(crate) fn revoke(&mut self, shared: &mut Shared, id: SubmitId) -> bool {
        let Some(submitted) = self.submits.get_mut(&id.0) else {
            return false;
        };
        submitted.revoked = true;
        shared.timers.set(Timer::Submit(id.0), shared.now);
        true
    }

    /// Whether `Attached` was told.
    pub(crate) fn check_ready(&mut self, shared: &mut Shared, modules: &Modules, members: &Members) {
        let Some(Attached { node, token: Some(_), .. }) = self.origin else {
            return;
        };
        let known = |(_, member): (NodeId, &crate::members::Member)| modules.knows(member.birth.modules);
        let origin_known = members.alive().any(|(name, member)| name == node && known((name, member)));
        if !self.ready && origin_known && modules.is_settled() {
            self.ready = true;
            shared.event(Event::Attached(node));
        }
    }

    /// Says hello, again or to another node.
    pub(crate) fn on_attach_timer(&mut self, shared: &mut Shared, members: &Members, modules: &Modules) {
        let Some(since) = self.wanted_since else {
            return;
        };
        shared.timers.set(Timer::Attach, shared.now + AGAIN);
        if !shared.connected {
            return;
        }
        if let Some(Attached { node, token: Some(_), .. }) = self.origin {
            self.check_ready(shared, modules, members);
            if self.ready {
                shared.timers.cancel(Timer::Attach);
            } else {
                // Its answer says again which modules it has.
                shared.outbox.send(node, Message::Hello);
            }
            return;
        }
        let worn_out = self.origin.as_ref().filter(|origin| origin.hellos >= HELLOS_MAX).map(|origin| origin.node);
        if self.origin.is_none() || worn_out.is_some() {
            let node = choose(shared, members, worn_out);
            self.origin = node.map(|node| Attached { node, token: None, hellos: 0 });
        }
        match &mut self.origin {
            Some(origin) => {
                origin.hellos += 1;
                shared.outbox.send(origin.node, Message::Hello);
            }
            None if !self.told && shared.now - since > NO_ORIGIN => {
                self.told = true;
                shared.event(Event::NoOrigin);
            }
            None => {}
        }
    }

    /// A node has come: it may be the origin that is looked for.
    pub(crate) fn on_member(&self, shared: &mut Shared) {
        if self.wanted_since.is_some() && self.origin.is_none() {
            shared.timers.set_earlier(Timer::Attach, shared.now + ms(2));
        }
    }

    /// The origin has answered.
    pub(crate) fn on_welcome(&mut self, shared: &mut Shared, from: NodeId, welcome: Welcome) {
        let Some(origin) = self.origin.as_mut().filter(|origin| origin.node == from) else {
            return;
        };
        origin.token = Some(welcome.token);
        let waiting: Vec<u32> = self.submits.iter().filter(|(_, s)| s.job.is_none()).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| shared.timers.set(Timer::Submit(id), shared.now));
        shared.timers.set_earlier(Timer::Attach, shared.now);
    }

    /// Looks after a submitted canvas: sends it, asks after its job, or ends it.
    pub(crate) fn on_submit_timer(&mut self, shared: &mut Shared, number: u32) {
        let Some(submitted) = self.submits.get_mut(&number) else {
            return;
        };
        let Some(Attached { node, token: Some(token), .. }) = self.origin else {
            shared.timers.set(Timer::Submit(number), shared.now + AGAIN);
            return;
        };
        if submitted.job.is_none() && submitted.tries >= SUBMITS_MAX {
            // Gone without a word. If it had accepted the canvas after all, tasks run twice.
            submitted.tries = 0;
            self.origin = Some(Attached { node, token: None, hellos: HELLOS_MAX });
            shared.timers.set(Timer::Attach, shared.now);
            shared.timers.set(Timer::Submit(number), shared.now + AGAIN);
            return;
        }
        if submitted.job.is_none() && shared.blobs.is_pulled(Holder::Canvas(number), shared.now) {
            // It is on its way, in pieces.
            submitted.tries = 0;
            shared.timers.set(Timer::Submit(number), shared.now + AGAIN);
            return;
        }
        submitted.tries += 1;
        let (again, message) = match submitted.job {
            None => (
                AGAIN * 2,
                Message::Submit(Submit {
                    token,
                    number,
                    canvas: submitted.canvas.clone(),
                    key: None,
                    detached: None,
                    blob: None,
                }),
            ),
            Some(job) if submitted.revoked => (AGAIN, Message::Revoke(Revoke { token, job })),
            Some(job) => (QUERY, Message::JobQuery(job)),
        };
        let to = submitted.job.map_or(node, |job| job.origin);
        shared.outbox.send(to, message);
        shared.timers.set(Timer::Submit(number), shared.now + again);
    }

    /// The canvas is a job now.
    pub(crate) fn on_accepted(&mut self, shared: &mut Shared, from: NodeId, accepted: Accepted) {
        let is_new = |submitted: &&mut Submitted| submitted.job.is_none();
        if accepted.job.origin != from {
            return;
        }
        let Some(submitted) = self.submits.get_mut(&accepted.number).filter(is_new) else {
            return;
        };
        submitted.job = Some(accepted.job);
        submitted.canvas = Cbor::null();
        let next = if submitted.revoked { Duration::ZERO } else { QUERY };
        shared.timers.set(Timer::Submit(accepted.number), shared.now + next);
        shared.event(Event::Accepted(SubmitId(accepted.number), accepted.job));
    }

    /// The canvas was not accepted.
    pub(crate) fn on_refused(&mut self, shared: &mut Shared, from: NodeId, refused: Refused) {
        let Some(origin) = self.origin.as_mut().filter(|origin| origin.node == from) else {
            return;
        };
        if self.submits.get(&refused.number).is_none_or(|submitted| submitted.job.is_some()) {
            return;
        }
        match refused.reason {
            Refusal::StaleToken => {
                (origin.token, origin.hellos) = (None, 0);
                shared.timers.set(Timer::Attach, shared.now);
            }
            reason => {
                self.submits.remove(&refused.number);
                shared.timers.cancel(Timer::Submit(refused.number));
                shared.event(Event::Refused(SubmitId(refused.number), reason));
            }
        }
    }

    /// News of a job.
    pub(crate) fn on_job_event(&mut self, shared: &mut Shared, from: NodeId, mut event: JobEvent) {
        if event.job.origin != from {
            return;
        }
        let over = matches!(event.news, JobNews::Ended(_) | JobNews::Unknown);
        let found = self.submits.iter().find(|(_, s)| s.job == Some(event.job)).map(|(number, _)| *number);
        // The news may have overtaken `Accepted`: then the origin has to say it again.
        let is_early = found.is_none() && self.submits.values().any(|s| s.job.is_none());
        if let (Some(blob), Some(_)) = (event.blob, found) {
            let max = shared.config.limits.result_bytes_max;
            if blob.bytes <= max {
                // Taken when its value is here.
                blobs::want(shared, from, blob, Want::Ended(event.job));
                return;
            }
            event.news = JobNews::Ended(Err(too_large(blob.bytes as usize, max)));
        }
        if matches!(event.news, JobNews::Ended(_)) && !is_early {
            shared.outbox.send(from, Message::JobEventAck(event.job));
        }
        let Some(number) = found else {
            return;
        };
        if over {
            self.submits.remove(&number);
            shared.timers.cancel(Timer::Submit(number));
        } else if !self.submits.get(&number).is_some_and(|submitted| submitted.revoked) {
            shared.timers.set(Timer::Submit(number), shared.now + QUERY);
        }
        shared.event(Event::Job(SubmitId(number), event.news));
    }

    /// Whether a submitted canvas may have to be sent again.
    pub(crate) fn is_unanswered(&self, number: u32) -> bool {
        self.submits.get(&number).is_some_and(|submitted| submitted.job.is_none())
    }

    /// Whether the end of a job is waited for.
    pub(crate) fn follows(&self, job: JobId) -> bool {
        self.submits.values().any(|submitted| submitted.job == Some(job))
    }

    /// Checks the invariants of this role.
    pub(crate) fn validate(&self, shared: &Shared) {
        for number in self.submits.keys() {
            assert!(shared.timers.is_set(Timer::Submit(*number)), "every submit is looked after");
        }
        let searching = self.wanted_since.is_some() && !self.ready;
        assert!(!searching || shared.timers.is_set(Timer::Attach), "an origin is looked for");
    }

    /// The link is up again: something may have been lost meanwhile.
    pub(crate) fn on_connected(&self, shared: &mut Shared) {
        self.submits.keys().for_each(|number| shared.timers.set(Timer::Submit(*number), shared.now));
        if self.wanted_since.is_some() && !self.ready {
            shared.timers.set(Timer::Attach, shared.now);
        }
    }
}

/// An origin for this client: any live node that takes jobs of others, preferably not `not`.
fn choose(shared: &mut Shared, members: &Members, not: Option<NodeId>) -> Option<NodeId> {
    let me = shared.me();
    let resident = members.alive().filter(|(name, member)| member.birth.resident && *name != me);
    let mut candidates: Vec<NodeId> = resident.map(|(name, _)| name).collect();
    if candidates.len() > 1 {
        candidates.retain(|name| Some(*name) != not);
    }
    if candidates.is_empty() {
        return None;
    }
    let at = shared.rng.below(candidates.len() as u64) as usize;
    Some(candidates[at])
}
