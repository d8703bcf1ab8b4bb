//! The client role: finds an origin, submits canvases to it, and follows jobs until their end.
//!
//! ```text
//!   attach ──► Hello … ──► Birth: an origin, and its functions
//!   submit, retry ──► waiting ──► Submit … ──► Accepted ──► JobEvent … ──► Ended
//!                        ▲           │                          ▲
//!                        └── queue full, pause     JobQuery … ──┘ ◄── follow, revoke
//! ```
//!
//! A request ends only with an answer. If an origin is full, the client asks again after a pause. If it leaves or
//! cannot write its journal, the client takes another one. If it is silent, the user is told and the client keeps
//! asking.

mod origins;
mod pace;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use broccoli_proto::message::{
    Accepted, Drain, JobEvent, JobNews, Message, Refusal, Refused, Retry, Revoke, Submit, Vitals,
};
use broccoli_proto::{Cbor, JobId, NodeId};

use self::origins::{choose, choose_by_key, choose_leaving, is_durable, rank};
use self::pace::Pace;
use crate::config::Limits;
use crate::content::modules::Modules;
use crate::content::values::held::Holder;
use crate::content::values::pulls::Purpose;
use crate::io::{Event, SubmitId};
use crate::members::{Member, Members};
use crate::shared::Shared;
use crate::text;
use crate::time::Instant;
use crate::timers::Timer;
use crate::timing::{LinkTime, link_ms};

/// Hello, Revoke and Drain are repeated after this time.
const AGAIN: LinkTime = link_ms(200);
/// A canvas is sent again after this time.
const SUBMIT_AGAIN: LinkTime = link_ms(400);
/// After this many unanswered submits, another origin is tried.
const SUBMITS_MAX: u32 = 15;
/// A job is queried if there was no news for this long.
const QUERY: LinkTime = link_ms(2_000);
/// With many jobs, queries are at least this far apart.
const QUERY_EACH: LinkTime = link_ms(2);
/// The first query, if another client gets the news of the job, comes after this time; the time doubles.
const QUERY_FIRST: LinkTime = link_ms(50);
/// The user is told if there is no answer for this long.
const NO_ANSWER: LinkTime = link_ms(5_000);
/// The user is told if no origin is found for this long.
const NO_ORIGIN: LinkTime = link_ms(2_000);
/// Most ended jobs that are remembered.
const ENDED_MAX: usize = 256;
/// When a node appears, the choice of an origin waits this long for others.
const BIRTHS: LinkTime = link_ms(2);
/// The choice waits this long for a node with a journal.
const DURABLE_BIRTHS: LinkTime = link_ms(100);
/// After being sent from one origin to another this often, a submit waits before it is sent again.
const HOPS_MAX: u32 = 3;
/// Most origins that are remembered as unable to write.
const STALLED_MAX: usize = 16;

/// A canvas to submit.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The canvas in its wire encoding.
    pub canvas: Cbor,
    /// All submits with the same key give the same job.
    pub key: Option<String>,
    /// The key may be used for a new job if the earlier one has failed or was revoked.
    pub again: bool,
    /// The job does not depend on its client; its result is kept for queries.
    pub detached: bool,
}

/// The client role.
#[derive(Debug, Default)]
pub(crate) struct Client {
    wanted_since: Option<Instant>,
    told: bool,
    ready: bool,
    /// The origin for canvases without a key.
    home: Option<NodeId>,
    requests: BTreeMap<u32, Request>,
    /// Requests whose job id is known.
    by_job: BTreeSet<(JobId, u32)>,
    /// Requests whose canvas waits to be sent.
    waiting: VecDeque<u32>,
    pace: Pace,
    /// Requests by the number in their message.
    numbers: BTreeMap<u32, u32>,
    last_number: u32,
    /// Jobs whose end is known here; their origins may not have the acknowledgement yet.
    ended: VecDeque<JobId>,
}

/// A request of the user of this node.
#[derive(Debug)]
struct Request {
    wish: Wish,
    /// The job id, once known.
    job: Option<JobId>,
    revoked: bool,
    /// Nobody wants to know more about it.
    unfollowed: bool,
    /// The origin that it was sent to.
    to: Option<NodeId>,
    /// An origin that has not answered, or has refused it.
    not: Option<NodeId>,
    /// The origin may have received it: it had answered before.
    may_be_there: bool,
    /// The number that the answer will repeat; 0 before it is sent.
    number: u32,
    /// Unanswered messages so far.
    tries: u32,
    /// The time of the first unanswered message, and whether the user was told.
    asked_at: Option<Instant>,
    told_silent: bool,
    told_full: bool,
    told_leaving: bool,
    told_stalled: bool,
    /// Origins that could not write their journals since the last pause.
    stalled: Vec<NodeId>,
    /// How often an origin has referred it to another one for its key.
    hops: u32,
}

#[derive(Debug)]
enum Wish {
    Submit(Submission),
    Retry(JobId),
    Follow,
    Drain(NodeId, Option<Duration>),
}

impl Request {
    fn new(wish: Wish) -> Request {
        Request {
            wish,
            job: None,
            revoked: false,
            unfollowed: false,
            to: None,
            not: None,
            may_be_there: false,
            number: 0,
            tries: 0,
            asked_at: None,
            told_silent: false,
            told_full: false,
            told_leaving: false,
            told_stalled: false,
            stalled: Vec::new(),
            hops: 0,
        }
    }

    /// Whether other clients may wait for the same job, so that it must not end with this request.
    fn is_shared(&self) -> bool {
        matches!(&self.wish, Wish::Submit(Submission { key: Some(_), .. }))
    }

    /// Whether nobody wants to know how it ends, and nothing is left to do for it.
    fn is_needless(&self) -> bool {
        let goes_on_alone = match &self.wish {
            Wish::Submit(submission) => submission.detached && self.job.is_some() && !self.revoked,
            Wish::Retry(_) => self.job.is_some() && !self.revoked,
            Wish::Follow | Wish::Drain(..) => true,
        };
        self.unfollowed && goes_on_alone
    }

    /// Whether it waits to be accepted.
    fn is_handed_in(&self) -> bool {
        self.job.is_none() && matches!(self.wish, Wish::Submit(_) | Wish::Retry(_))
    }
}

/// Requests of the user of this node.
impl Client {
    /// A client whose numbers start after this one.
    pub(crate) fn new(last_number: u32) -> Client {
        Client { last_number, ..Client::default() }
    }

    /// Starts looking for an origin.
    pub(crate) fn attach(&mut self, shared: &mut Shared) {
        if self.wanted_since.is_none() {
            self.wanted_since = Some(shared.now);
            shared.timers.set(Timer::Attach, shared.now);
        }
    }

    /// Submits a canvas as soon as there is an origin.
    pub(crate) fn submit(&mut self, shared: &mut Shared, id: SubmitId, submission: Submission) {
        self.attach(shared);
        self.hand_in(shared, id, Wish::Submit(submission));
    }

    /// Runs a failed job again.
    pub(crate) fn retry(&mut self, shared: &mut Shared, id: SubmitId, job: JobId) {
        self.hand_in(shared, id, Wish::Retry(job));
    }

    /// Whether there is room for another request of the user.
    pub(crate) fn has_room(&self, shared: &Shared) -> bool {
        self.requests.len() < shared.config.limits.requests_max
    }

    fn hand_in(&mut self, shared: &mut Shared, id: SubmitId, wish: Wish) {
        self.requests.insert(id.0, Request::new(wish));
        self.waiting.push_back(id.0);
        self.admit(shared);
    }

    /// Follows a job to its end.
    pub(crate) fn follow(&mut self, shared: &mut Shared, id: SubmitId, job: JobId, revoked: bool) {
        let request = Request { job: Some(job), revoked, ..Request::new(Wish::Follow) };
        self.by_job.insert((job, id.0));
        self.add(shared, id, request);
    }

    /// Asks a node to leave once its work is done, or after this time.
    pub(crate) fn drain(&mut self, shared: &mut Shared, id: SubmitId, node: NodeId, limit: Option<Duration>) {
        self.add(shared, id, Request::new(Wish::Drain(node, limit)));
    }

    fn add(&mut self, shared: &mut Shared, id: SubmitId, request: Request) {
        self.requests.insert(id.0, request);
        shared.timers.set(Timer::Submit(id.0), shared.now);
    }

    /// Revokes a job that was submitted or is followed here. Returns whether there is one.
    pub(crate) fn revoke(&mut self, shared: &mut Shared, id: SubmitId) -> bool {
        let Some(request) = self.requests.get_mut(&id.0) else {
            return false;
        };
        request.revoked = true;
        if let Some(at) = self.waiting.iter().position(|waiting| *waiting == id.0) {
            self.waiting.remove(at);
            self.remove(shared, id.0);
            shared.event(Event::Refused(id, Refusal::QueueFull));
        } else {
            shared.timers.set(Timer::Submit(id.0), shared.now);
        }
        true
    }

    /// Stops reporting a job or node; the job continues. A job that was submitted here is still followed internally, so
    /// that its end can be acknowledged, unless it is detached.
    pub(crate) fn unfollow(&mut self, shared: &mut Shared, id: SubmitId) {
        let Some(request) = self.requests.get_mut(&id.0) else {
            return;
        };
        request.unfollowed = true;
        if request.is_needless() {
            self.remove(shared, id.0);
        }
    }

    fn remove(&mut self, shared: &mut Shared, id: u32) {
        if let Some(request) = self.requests.remove(&id) {
            self.numbers.remove(&request.number);
            if let Some(job) = request.job {
                self.by_job.remove(&(job, id));
            }
        }
        shared.timers.cancel(Timer::Submit(id));
    }
}

/// Choosing the origin for canvases without a key.
impl Client {
    /// Tells the user once that an origin was found and its functions are known.
    pub(crate) fn check_ready(&mut self, shared: &mut Shared, modules: &Modules, members: &Members) {
        let Some(home) = self.home.filter(|_| self.wanted_since.is_some()) else {
            return;
        };
        let known = |member: &&Member| member.alive && modules.knows(member.birth.modules);
        let has_answered = shared.sessions.epoch_of(home).is_some();
        let origin_known = has_answered && members.get(home).filter(known).is_some();
        if !self.ready && origin_known && modules.is_settled(shared) {
            self.ready = true;
            shared.event(Event::Attached(home));
        }
    }

    /// Sends a hello, again or to another node.
    pub(crate) fn on_attach_timer(&mut self, shared: &mut Shared, members: &Members, modules: &Modules) {
        let Some(since) = self.wanted_since else {
            return;
        };
        shared.timers.set(Timer::Attach, shared.now + shared.timing(AGAIN));
        if !shared.connected {
            return;
        }
        if self.home.is_none() {
            self.home = choose(shared, members, None);
            if shared.now - since >= shared.timing(AGAIN) {
                // A leaving node accepts nothing new, but still answers queries.
                self.home = self.home.or_else(|| choose_leaving(shared.me(), members));
            }
        }
        self.check_ready(shared, modules, members);
        match self.home {
            Some(_) if self.is_home_known() => shared.timers.cancel(Timer::Attach),
            // Its answer repeats which modules it has.
            Some(home) => shared.outbox.send(home, Message::Hello),
            None => shared.ask_all(),
        }
        match self.home {
            None if !self.told && shared.now - since > shared.timing(NO_ORIGIN) => {
                self.told = true;
                shared.event(Event::NoOrigin);
            }
            _ => {}
        }
    }

    /// Changes to another origin.
    fn move_home(&mut self, shared: &mut Shared, members: &Members, not: NodeId) {
        if self.home == Some(not) {
            self.home = choose(shared, members, Some(not)).filter(|node| *node != not);
            shared.timers.set(Timer::Attach, shared.now);
        }
    }

    /// A node has appeared: it may be the origin that is looked for, or a better one.
    pub(crate) fn on_member(&mut self, shared: &mut Shared, modules: &Modules, members: &Members, node: NodeId) {
        self.check_ready(shared, modules, members);
        if self.wanted_since.is_none() {
            return;
        }
        let takes_jobs = members.get(node).is_some_and(|member| member.birth.resident);
        if !takes_jobs && !members.is_leaving(node) {
            // It took jobs, or was chosen while it was leaving. It has restarted, and neither is true any more.
            self.move_home(shared, members, node);
        }
        if takes_jobs && shared.sessions.epoch_of(node).is_none() {
            // Its broadcast may be a recording. All candidates are asked now, not one after another.
            shared.outbox.ask_who(node);
        }
        let is_better = |home| takes_jobs && rank(shared, members, node) > rank(shared, members, home);
        let may_move = !self.ready || self.home.is_some_and(|home| members.is_leaving(home));
        if may_move && self.home.is_some_and(is_better) {
            self.home = None;
        }
        if self.home.is_none() && takes_jobs {
            let is_durable = members.get(node).is_some_and(|member| is_durable(&member.birth));
            let pause = if is_durable { shared.timing(BIRTHS) } else { shared.timing(DURABLE_BIRTHS) };
            shared.timers.set_earlier(Timer::Attach, shared.now + pause);
        }
    }

    /// A node is gone. If it has left for good, the client does not wait for it.
    pub(crate) fn on_death(&mut self, shared: &mut Shared, members: &Members, node: NodeId, leaving: bool) {
        let undecided = |request: &&mut Request| request.is_handed_in() && request.to == Some(node);
        let sent = self.requests.values_mut().filter(undecided);
        if leaving {
            for request in sent {
                request.to = None;
                request.tries = 0;
            }
        } else if sent.count() > 0 {
            // It may have accepted the canvas, and may come back.
            return;
        }
        self.move_home(shared, members, node);
    }

    /// A node has a new incarnation: requests to the earlier one may be lost.
    pub(crate) fn on_session(&mut self, shared: &mut Shared, node: NodeId) {
        if !shared.sessions.has_restarted(node) {
            return;
        }
        for (id, request) in &self.requests {
            let concerned = request.to == Some(node) || request.job.is_some_and(|job| job.origin == node);
            if concerned && shared.timers.is_set(Timer::Submit(*id)) {
                shared.timers.set(Timer::Submit(*id), shared.now);
            }
        }
    }

    /// A node does not answer. Requests that it cannot have received go to another origin; those that it may have
    /// accepted wait for it.
    pub(crate) fn on_silent(&mut self, shared: &mut Shared, members: &Members, node: NodeId) {
        for (id, request) in &mut self.requests {
            let is_sent = request.is_handed_in() && request.to == Some(node) && !request.may_be_there;
            if is_sent && matches!(request.wish, Wish::Submit(_)) {
                request.to = None;
                request.not = Some(node);
                request.tries = 0;
                shared.timers.set(Timer::Submit(*id), shared.now);
            }
        }
        self.move_home(shared, members, node);
    }

    /// The link is up again. Messages may be lost, so requests are sent again.
    pub(crate) fn on_connected(&mut self, shared: &mut Shared) {
        for (id, request) in &mut self.requests {
            request.asked_at = request.asked_at.map(|_| shared.now);
            if shared.timers.is_set(Timer::Submit(*id)) {
                shared.timers.set(Timer::Submit(*id), shared.now);
            }
        }
        if self.wanted_since.is_some() && !self.is_home_known() {
            shared.timers.set(Timer::Attach, shared.now);
        }
    }

    /// The origin for canvases without a key.
    pub(crate) fn home(&self) -> Option<NodeId> {
        self.home
    }

    fn is_home_known(&self) -> bool {
        self.ready && self.home.is_some()
    }
}

/// Sending requests.
impl Client {
    /// Sends waiting canvases, as many as the window allows.
    fn admit(&mut self, shared: &mut Shared) {
        while self.pace.is_open(shared.now) {
            let Some(id) = self.waiting.pop_front() else {
                return;
            };
            if let Some(request) = self.requests.get_mut(&id) {
                request.tries = 0;
                self.renumber(id);
                self.pace.in_flight += 1;
                shared.timers.set(Timer::Submit(id), shared.now);
            }
        }
        if !self.waiting.is_empty() && self.pace.until() > shared.now {
            shared.timers.set(Timer::Admit, self.pace.until());
        }
    }

    /// Gives a request a new number, which no origin has answered; none if there is no such request.
    fn renumber(&mut self, id: u32) -> Option<u32> {
        let request = self.requests.get_mut(&id)?;
        self.numbers.remove(&request.number);
        self.last_number = self.last_number.wrapping_add(1).max(1);
        request.number = self.last_number;
        self.numbers.insert(request.number, id);
        Some(request.number)
    }

    /// The pause after a refusal is over.
    pub(crate) fn on_admit_timer(&mut self, shared: &mut Shared) {
        self.admit(shared);
    }

    /// Handles the timer of a request: sends it, queries its job, or revokes that.
    pub(crate) fn on_submit_timer(&mut self, shared: &mut Shared, members: &Members, id: u32) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        shared.timers.set(Timer::Submit(id), shared.now + shared.timing(AGAIN));
        if !shared.connected && request.job.is_none_or(|job| job.origin != shared.me()) {
            return;
        }
        request.check_silence(shared, id);
        let again = match (request.job, &request.wish) {
            (Some(job), _) => self.ask_after(shared, id, job),
            (None, Wish::Drain(node, limit)) => {
                let (node, limit) = (*node, *limit);
                self.ask_to_leave(shared, id, node, limit)
            }
            (None, _) => self.send(shared, members, id),
        };
        if let Some(again) = again {
            shared.timers.set(Timer::Submit(id), shared.now + again);
        }
    }

    /// Sends a request, and returns the time until the next try.
    fn send(&mut self, shared: &mut Shared, members: &Members, id: u32) -> Option<Duration> {
        let request = self.requests.get_mut(&id)?;
        if shared.values.held.is_pulled(Holder::Canvas(request.number), shared.now) {
            // The origin is pulling it.
            request.tries = 1;
            return Some(shared.timing(SUBMIT_AGAIN));
        }
        if request.tries >= SUBMITS_MAX
            && let Some(mute) = request.to.take()
        {
            // The origin is gone without an answer. If it had accepted the canvas, its tasks run twice; not if it has a
            // key.
            request.not = Some(mute);
            request.tries = 0;
            request.may_be_there = false;
            self.move_home(shared, members, mute);
        }
        let request = self.requests.get_mut(&id)?;
        let to = request.to.or_else(|| match &request.wish {
            Wish::Submit(Submission { key: Some(key), .. }) => choose_by_key(shared.me(), members, key, request.not),
            Wish::Submit(_) => self.home.filter(|home| members.get(*home).is_none_or(|member| member.birth.resident)),
            Wish::Retry(job) => Some(job.origin),
            Wish::Follow | Wish::Drain(..) => None,
        });
        let Some(to) = to else {
            let leaving = self.home.filter(|home| members.is_leaving(*home) && !request.told_leaving);
            if let Some(home) = leaving {
                request.told_leaving = true;
                shared.event(Event::OnlyLeaving(SubmitId(id), home));
            }
            return None;
        };
        request.may_be_there |= shared.sessions.epoch_of(to).is_some();
        shared.counters.repeated.submits += u64::from(request.tries > 0);
        request.to = Some(to);
        request.tries += 1;
        let number = request.number;
        let message = match &request.wish {
            Wish::Submit(Submission { canvas, key, again, detached }) => {
                let (canvas, key) = (canvas.clone(), key.clone());
                let (detached, again) = (detached.then_some(true), again.then_some(true));
                Message::Submit(Submit { number, canvas, key, detached, blob: None, again })
            }
            Wish::Retry(job) => Message::Retry(Retry { number, job: *job }),
            Wish::Follow | Wish::Drain(..) => return None,
        };
        shared.outbox.send(to, message);
        Some(shared.timing(SUBMIT_AGAIN))
    }

    /// Queries a job, or revokes it if that was requested.
    fn ask_after(&mut self, shared: &mut Shared, id: u32, job: JobId) -> Option<Duration> {
        let query = self.query(shared);
        let wanted = |other: u32| other != id && self.requests.get(&other).is_some_and(|other| !other.revoked);
        let others = self.by_job.range((job, 0)..=(job, u32::MAX)).any(|(_, other)| wanted(*other));
        let mine = self.requests.get(&id)?.is_shared();
        if mine && others && self.requests.get(&id)?.revoked {
            self.remove(shared, id);
            shared.event(Event::Job(SubmitId(id), JobNews::GoesOn));
            return None;
        }
        let request = self.requests.get_mut(&id)?;
        let mut again = match request.wish {
            Wish::Submit(Submission { detached: false, .. }) => query,
            _ => (shared.timing(QUERY_FIRST) * (1 << request.tries.min(6))).min(query),
        };
        request.tries += 1;
        if request.revoked {
            again = shared.timing(AGAIN);
            shared.outbox.send(job.origin, Message::Revoke(Revoke { job, mine: mine.then_some(true) }));
            if mine {
                // The answer to the revoke contains the outcome; other requests for this job wait for it.
                return Some(again);
            }
        }
        // Sent after the revoke, so that the answer contains the outcome.
        shared.outbox.send(job.origin, Message::JobQuery(job));
        Some(again)
    }

    /// The interval between two queries of a job; it grows with the number of jobs.
    fn query(&self, shared: &Shared) -> Duration {
        shared.timing(QUERY).max(shared.timing(QUERY_EACH) * self.by_job.len() as u32)
    }

    fn ask_to_leave(
        &mut self,
        shared: &mut Shared,
        id: u32,
        node: NodeId,
        limit: Option<Duration>,
    ) -> Option<Duration> {
        let number = match self.requests.get(&id)?.number {
            0 => self.renumber(id)?,
            number => number,
        };
        let for_ms = limit.map(|limit| limit.as_millis() as u64);
        shared.outbox.send(node, Message::Drain(Drain { number, for_ms }));
        None
    }
}

impl Request {
    /// Tells the user once that the node with the job does not answer.
    fn check_silence(&mut self, shared: &mut Shared, id: u32) {
        let node = match (&self.wish, self.job) {
            (_, Some(job)) => job.origin,
            (Wish::Retry(job), None) => job.origin,
            (Wish::Drain(node, _), None) => *node,
            (Wish::Submit(_) | Wish::Follow, None) => return,
        };
        let since = *self.asked_at.get_or_insert(shared.now);
        if !self.told_silent && shared.now - since >= shared.timing(NO_ANSWER) {
            self.told_silent = true;
            shared.event(Event::NoAnswer(SubmitId(id), node));
        }
    }
}

/// Answers.
impl Client {
    /// An origin has accepted a canvas.
    pub(crate) fn on_accepted(&mut self, shared: &mut Shared, from: NodeId, accepted: Accepted) {
        if accepted.job.origin != from {
            return;
        }
        let is_new = |request: &&mut Request| request.is_handed_in();
        let Some(id) = self.numbers.get(&accepted.number).copied() else {
            return;
        };
        let Some(request) = self.requests.get_mut(&id).filter(is_new) else {
            return;
        };
        request.job = Some(accepted.job);
        request.tries = 0;
        request.asked_at = None;
        self.by_job.insert((accepted.job, id));
        let mut next = shared.timing(QUERY_FIRST);
        if let Wish::Submit(submission) = &mut request.wish {
            submission.canvas = Cbor::null();
            next = if submission.detached { shared.timing(QUERY_FIRST) } else { shared.timing(QUERY) };
        }
        if request.revoked {
            next = Duration::ZERO;
        }
        let is_needless = request.is_needless();
        self.numbers.remove(&accepted.number);
        shared.timers.set(Timer::Submit(id), shared.now + next);
        if is_needless {
            self.remove(shared, id);
        }
        shared.event(Event::Accepted(SubmitId(id), accepted.job));
        self.pace.on_answer();
        self.admit(shared);
    }

    /// An origin has refused a request.
    pub(crate) fn on_refused(&mut self, shared: &mut Shared, members: &Members, from: NodeId, refused: Refused) {
        let Some(id) = self.numbers.get(&refused.number).copied() else {
            return;
        };
        let Some(request) = self.requests.get_mut(&id).filter(|request| request.job.is_none()) else {
            return;
        };
        let is_submit = matches!(request.wish, Wish::Submit(_));
        if is_submit && request.to != Some(from) {
            return;
        }
        match refused.reason {
            Refusal::QueueFull => {
                if !core::mem::replace(&mut request.told_full, true) {
                    shared.event(Event::QueueFull(SubmitId(id), from));
                }
                self.pause(shared, id);
            }
            Refusal::Storage(reason) if is_submit => self.on_stalled(shared, members, id, from, reason),
            Refusal::Unwritten(reason) => {
                if !core::mem::replace(&mut request.told_stalled, true) {
                    shared.event(Event::CannotStore(SubmitId(id), from, reason));
                }
            }
            Refusal::Elsewhere(node) if is_submit => {
                request.hops += 1;
                let pause = if request.hops > HOPS_MAX { shared.timing(AGAIN) } else { Duration::ZERO };
                request.to = Some(node);
                request.not = None;
                request.tries = 0;
                request.may_be_there = false;
                shared.timers.set(Timer::Submit(id), shared.now + pause);
            }
            Refusal::Draining if is_submit => {
                request.to = None;
                request.not = Some(from);
                request.tries = 0;
                shared.timers.set(Timer::Submit(id), shared.now + shared.timing(BIRTHS));
                self.move_home(shared, members, from);
            }
            reason => {
                let was_handed_in = request.is_handed_in();
                self.remove(shared, id);
                shared.event(Event::Refused(SubmitId(id), reason));
                if was_handed_in {
                    self.pace.on_answer();
                    self.admit(shared);
                }
            }
        }
    }

    /// An origin cannot write its journal. The next one with a journal is asked at once. If there is none, the canvas
    /// waits.
    fn on_stalled(&mut self, shared: &mut Shared, members: &Members, id: u32, from: NodeId, reason: String) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        if request.stalled.len() < STALLED_MAX {
            request.stalled.push(from);
        }
        let mut others = members.alive().filter(|(name, member)| {
            member.birth.resident && is_durable(&member.birth) && !request.stalled.contains(name)
        });
        if let Some((other, _)) = others.find(|(name, _)| *name != shared.me() && *name != from) {
            request.to = Some(other);
            request.tries = 0;
            request.may_be_there = false;
            // That origin keeps the refusal under the old number, and may be asked again later.
            self.renumber(id);
            shared.timers.set(Timer::Submit(id), shared.now);
            if self.home == Some(from) {
                self.home = Some(other);
                shared.timers.set(Timer::Attach, shared.now);
            }
            return;
        }
        request.stalled.clear();
        if !core::mem::replace(&mut request.told_stalled, true) {
            shared.event(Event::CannotStore(SubmitId(id), from, reason));
        }
        self.pause(shared, id);
    }

    /// Puts a request back to wait for its turn, after a pause.
    fn pause(&mut self, shared: &mut Shared, id: u32) {
        let Some(request) = self.requests.get_mut(&id) else {
            return;
        };
        self.numbers.remove(&request.number);
        request.to = None;
        request.number = 0;
        shared.timers.cancel(Timer::Submit(id));
        self.waiting.push_back(id);
        self.pace.on_full(shared.now, shared.config.timing, &mut shared.rng);
        self.admit(shared);
    }

    /// News of a job.
    pub(crate) fn on_job_event(&mut self, shared: &mut Shared, from: NodeId, mut event: JobEvent) {
        if event.job.origin != from {
            return;
        }
        if let Some(blob) = event.blob
            && self.follows(event.job)
        {
            let max = shared.config.limits.result_bytes_max;
            if blob.bytes <= max {
                // The event is handled when its value was pulled.
                shared.values.pull(shared.now, &mut shared.timers, from, blob, Purpose::Ended(event.job));
                return;
            }
            event.news = JobNews::Ended(Err(text::result_too_large(blob.bytes as usize, max)));
        }
        let JobEvent { job, news, .. } = event;
        let of_job = self.by_job.range((job, 0)..=(job, u32::MAX));
        let ids: Vec<u32> = of_job.map(|(_, id)| *id).collect();
        if matches!(news, JobNews::Ended(_)) {
            // The news may have arrived before `Accepted`; then the origin must repeat it.
            let is_early = ids.is_empty() && self.pace.in_flight > 0 && !self.ended.contains(&job);
            if !is_early {
                shared.outbox.send(from, Message::JobEventAck(job));
            }
            if !ids.is_empty() {
                self.ended.push_back(job);
                self.ended.drain(..self.ended.len().saturating_sub(ENDED_MAX));
            }
        }
        let over = matches!(news, JobNews::Ended(_) | JobNews::Unknown);
        let goes_on = news == JobNews::GoesOn;
        let query = self.query(shared);
        for id in ids {
            let is_left = self.requests.get(&id).is_some_and(|request| request.revoked && request.is_shared());
            if goes_on && !is_left {
                continue;
            }
            if over || goes_on {
                self.remove(shared, id);
            } else if let Some(request) = self.requests.get_mut(&id) {
                request.asked_at = None;
                request.told_silent = false;
                let pushed = matches!(request.wish, Wish::Submit(Submission { detached: false, .. }));
                if pushed && !request.revoked {
                    shared.timers.set(Timer::Submit(id), shared.now + query);
                }
            }
            shared.event(Event::Job(SubmitId(id), news.clone()));
        }
    }

    /// A node has sent its vitals. They confirm a request to leave.
    pub(crate) fn on_vitals(&mut self, shared: &mut Shared, from: NodeId, vitals: &Vitals) {
        let heard = |request: &Request| matches!(request.wish, Wish::Drain(node, _) if node == from);
        if vitals.draining != Some(true) {
            return;
        }
        let ids = self.requests.iter().filter(|(_, request)| heard(request)).map(|(id, _)| *id);
        for id in ids.collect::<Vec<_>>() {
            self.remove(shared, id);
        }
    }

    /// Whether a canvas is unanswered, so that it may have to be sent again.
    pub(crate) fn is_unanswered(&self, number: u32) -> bool {
        let request = self.numbers.get(&number).and_then(|id| self.requests.get(id));
        request.is_some_and(|request| request.number == number && request.is_handed_in())
    }

    /// Whether a request waits for the end of a job.
    pub(crate) fn follows(&self, job: JobId) -> bool {
        self.by_job.range((job, 0)..=(job, u32::MAX)).next().is_some()
    }

    /// Reports the sizes of this role.
    pub(crate) fn sizes(&self, limits: &Limits, see: &mut dyn FnMut(&'static str, usize, usize)) {
        see("requests", self.requests.len(), limits.requests_max);
    }

    /// Checks the invariants of this role.
    pub(crate) fn validate(&self, shared: &Shared) {
        for (id, request) in &self.requests {
            let waits = self.waiting.contains(id);
            assert_ne!(waits, shared.timers.is_set(Timer::Submit(*id)), "a request waits or is looked after");
            assert!(!waits || request.is_handed_in(), "only canvases wait");
            assert!(request.job.is_none_or(|job| self.by_job.contains(&(job, *id))), "a request is found by its job");
        }
        let known = self.requests.values().filter(|request| request.job.is_some()).count();
        assert_eq!(self.by_job.len(), known, "a job that nobody asks for is forgotten");
        let in_flight = self.numbers.values().filter_map(|id| self.requests.get(id)).filter(|r| r.is_handed_in());
        assert_eq!(self.pace.in_flight as usize, in_flight.count(), "what is on its way is counted");
        let turn_comes = self.pace.in_flight > 0 || shared.timers.is_set(Timer::Admit);
        assert!(self.waiting.is_empty() || turn_comes, "what waits has its turn");
        let searching = self.wanted_since.is_some() && !self.is_home_known();
        assert!(!searching || shared.timers.is_set(Timer::Attach), "an origin is looked for");
    }
}
