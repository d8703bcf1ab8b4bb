//! Golden vectors: the wire protocol as bytes. There is one file for each kind of message and canvas, and one for a
//! packet.
//!
//! `docs/wire.md` and `docs/wire.cddl` describe the files. Each file must decode to the value in this test, and the
//! value must encode to the file. A new kind does not compile until it is listed in `kinds!`, and it fails until
//! [`messages`] or [`canvases`] has a vector of it.
//!
//! After a change of the wire protocol, write the files again and read the difference:
//! `GOLDEN=write cargo test -p broccoli-proto --test golden`.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use broccoli_abi::{Arg, Function, Type};
use broccoli_proto::message::*;
use broccoli_proto::module::{CHUNK_BYTES, DeployPublic, Manifest, ModuleEntry, NativeModule};
use broccoli_proto::options::Rate;
use broccoli_proto::packet::{Address, Envelope, PacketError, messages as read_messages, open, put, seal};
use broccoli_proto::seal::ClusterKey;
use broccoli_proto::topic::Topics;
use broccoli_proto::{
    Canvas, Cause, Cbor, ContentId, Epoch, Form, JobId, ModuleHash, NodeId, Options, Outcome, Split, Task, TaskError,
};
use ed25519_dalek::SigningKey;
use minicbor::{Decode, Encode};

/// The variants of an enum with their numbers on the wire, kept complete by the compiler.
macro_rules! kinds {
    ($kinds:ident, $kind_of:ident, $enum:ident: $($index:literal $name:literal $variant:ident,)* $(never sent: $never:ident)?) => {
        const $kinds: &[(u32, &str)] = &[$(($index, $name)),*];

        fn $kind_of(value: &$enum) -> (u32, &'static str) {
            match value {
                $($enum::$variant { .. } => ($index, $name),)*
                $($enum::$never { .. } => panic!("{value:?} is never sent"),)?
            }
        }
    };
}

kinds! { MESSAGES, message_kind, Message:
    0 "birth" Birth, 1 "death" Death, 2 "available" Available, 3 "fetch" Fetch, 4 "lease" Lease, 5 "return" Return,
    6 "renew" Renew, 7 "task-results" TaskResults, 8 "result-ack" ResultAck, 9 "abort" Abort, 10 "hello" Hello,
    12 "submit" Submit, 13 "accepted" Accepted, 14 "refused" Refused, 15 "job-event" JobEvent,
    16 "job-event-ack" JobEventAck, 17 "revoke" Revoke, 18 "manifest-request" ManifestRequest,
    19 "manifests" Manifests, 22 "module-refused" ModuleRefused,
    23 "claim" Claim, 24 "claimed" Claimed, 25 "vitals-request" VitalsRequest, 26 "vitals" Vitals, 27 "log" Log,
    28 "job-query" JobQuery, 29 "progress" Progress, 30 "jobs-request" JobsRequest, 31 "jobs" Jobs, 32 "retry" Retry,
    33 "drain" Drain, 34 "permit-request" PermitRequest, 35 "permit" Permit, 36 "step-query" StepQuery,
    37 "step-news" StepNews, 38 "content-request" ContentRequest, 39 "content-piece" ContentPiece,
    40 "content-gone" ContentGone,
    41 "members-request" MembersRequest, 42 "member-list" MemberList, 43 "key-claim" KeyClaim,
    44 "key-answer" KeyAnswer, 45 "forget" Forget, 46 "forgotten" Forgotten,
}

kinds! { REFUSALS, refusal_kind, Refusal:
    1 "queue-full" QueueFull, 2 "bad-canvas" BadCanvas, 3 "not-resident" NotResident,
    4 "draining" Draining, 5 "storage" Storage, 6 "not-retriable" NotRetriable,
    7 "elsewhere" Elsewhere, 8 "unsure" Unsure, 9 "unwritten" Unwritten,
    never sent: Other
}

kinds! { NEWS, news_kind, JobNews:
    0 "progress" Progress, 1 "logged" Logged, 2 "no-node" NoNode, 3 "callback-failed" CallbackFailed, 4 "ended" Ended,
    5 "unknown" Unknown, 6 "task-progress" TaskProgress, 7 "retried" Retried, 8 "goes-on" GoesOn,
}

kinds! { CAUSES, cause_kind, Cause:
    0 "returned" Returned, 1 "crashed" Crashed, 2 "timed-out" TimedOut, 3 "lost" Lost, 4 "revoked" Revoked,
    5 "unfit" Unfit, 6 "expired" Expired,
    never sent: Other
}

kinds! { FORMS, form_kind, Form:
    0 "task" Task, 1 "chain" Chain, 2 "group" Group, 3 "chord" Chord, 4 "map" Map, 5 "starmap" Starmap,
    6 "chunks" Chunks,
}

const EPOCH: Epoch = Epoch(*b"epoch of origin.");
const WORKER_EPOCH: Epoch = Epoch(*b"epoch of worker.");
const ATTEMPT: Attempt = Attempt { job: 0x6570_6f63_0000_0001, step: 3, number: 1 };
const NEXT: Attempt = Attempt { step: 4, number: 2, ..ATTEMPT };
const MODULE: ModuleHash = ModuleHash([0xab; 32]);
const BLOB: BlobRef = BlobRef { id: ContentId([0xcd; 32]), bytes: 5_000_000, piece_bytes: 65_536 };
const DIGEST: u64 = 0x0123_4567_89ab_cdef;
const NONCE: u64 = 0xfedc_ba98_7654_3210;

fn node(name: &str) -> NodeId {
    name.parse().expect("a name")
}

fn job() -> JobId {
    JobId::new(node("pi-1"), EPOCH, 1)
}

fn error(cause: Cause) -> TaskError {
    let (function, text, node) = ("tasks.add".into(), "integer overflow".into(), Some(node("pi-2")));
    TaskError { function, task: 3, node, attempt: 1, cause, text, members: vec![0, 2] }
}

fn add() -> Function {
    let arg = |name: &str| Arg { name: name.into(), ty: Type::Num };
    Function {
        name: "add".into(),
        args: vec![arg("x"), arg("y")],
        ret: Type::Fallible(Box::new(Type::Num)),
        doc: "Adds two numbers.".into(),
    }
}

fn deploy_key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A vector of each kind of message, by the name of its file.
fn messages() -> Vec<(&'static str, Message)> {
    [presence(), work(), jobs(), handles(), modules(), blobs(), content()].concat()
}

fn presence() -> Vec<(&'static str, Message)> {
    let birth = Birth {
        connection: 1,
        slots: 4,
        features: vec!["room=kitchen".into(), "led".into()],
        modules: DIGEST,
        packet_bytes_max: 1 << 20,
        resident: true,
        version: "0.1.0".into(),
        durable: Some(true),
        again_s: 35,
        draining: None,
        takes: None,
    };
    let takes = Some(Takes { args_bytes: 16 << 10, result_bytes: 16 << 10 });
    let small = Birth { slots: 1, durable: None, takes, ..birth.clone() };
    let vitals = Vitals {
        slots: 4,
        running: 2,
        queued: 1,
        jobs: 1,
        ready: 100,
        uptime_ms: 60_000,
        tasks_run: 2_190,
        modules: vec![ModuleVersion { name: "tasks".into(), version: 1_790_000_000_000 }],
        draining: None,
        leaving: None,
    };
    let member = |name, alive, heard_ms, left| MemberSummary { name: node(name), alive, heard_ms, left, client: false };
    let members = vec![member("pi-2", true, 1_200, false), member("pi-3", false, 86_000_000, true)];
    let draining = Vitals { slots: 4, ready: 0, draining: Some(true), ..vitals.clone() };
    let waits = Some(Waits::NoNode { function: "tasks.add".into(), missing: vec!["room=kitchn".into()], nodes: 3 });
    let held = vec![JobSummary { state: JobState::Queued, done: 0, waits, ..running_job() }];
    let leaving = Leaving { tasks: vec!["tasks.add".into()], jobs: held, gives_up: Some(true) };
    let gives_up = Vitals { leaving: Some(Box::new(leaving)), ..draining.clone() };
    vec![
        ("birth", Message::Birth(birth.clone())),
        ("birth.draining", Message::Birth(Birth { slots: 0, resident: false, draining: Some(true), ..birth })),
        ("birth.small", Message::Birth(small)),
        ("death.will", Message::Death(Death { connection: 1, leaving: false, holds_no_key: None })),
        ("death.goodbye", Message::Death(Death { connection: 1, leaving: true, holds_no_key: None })),
        (
            "death.goodbye-without-keys",
            Message::Death(Death { connection: 1, leaving: true, holds_no_key: Some(true) }),
        ),
        ("claim", Message::Claim(Claim { nonce: NONCE, age_ms: 60_000 })),
        ("claimed", Message::Claimed(Claimed { nonce: NONCE })),
        ("members-request", Message::MembersRequest(MembersRequest { after: Some(node("pi-1")), max: 64 })),
        ("members-request.first", Message::MembersRequest(MembersRequest { after: None, max: 64 })),
        ("member-list", Message::MemberList(MemberList { members, more: true })),
        ("vitals-request", Message::VitalsRequest),
        ("vitals", Message::Vitals(vitals)),
        ("vitals.leaving", Message::Vitals(gives_up)),
        ("vitals.draining", Message::Vitals(draining)),
    ]
}

fn work() -> Vec<(&'static str, Message)> {
    let want = Want { module: MODULE, on: vec!["room=kitchen".into()] };
    let available = Available { wants: vec![want], chance: 65_535, modules: DIGEST };
    let news = Available { wants: vec![], chance: 0, modules: DIGEST };
    let fetch = Fetch {
        origin_epoch: Some(EPOCH),
        seen: 1,
        tasks: 256,
        bytes: 1 << 20,
        modules: DIGEST,
        features: vec!["room=kitchen".into(), "led".into()],
        packet_bytes_max: 1 << 20,
        full: None,
        takes: None,
    };
    let takes = Some(Takes { args_bytes: 16 << 10, result_bytes: 16 << 10 });
    let small = Fetch { takes, ..fetch.clone() };
    let full = Fetch { tasks: 0, full: Some(true), ..fetch.clone() };
    let first = Fetch { origin_epoch: None, seen: 0, ..fetch.clone() };
    let failures = CAUSES.iter().zip([
        Cause::Returned,
        Cause::Crashed,
        Cause::TimedOut,
        Cause::Lost,
        Cause::Revoked,
        Cause::Unfit,
        Cause::Expired,
    ]);
    let failed = failures.map(|((_, text), cause)| TaskResult {
        attempt: NEXT,
        outcome: Err(Box::new(Failure::new(cause, *text))),
        blob: None,
    });
    let results = vec![TaskResult { attempt: ATTEMPT, outcome: Ok(Cbor::encode(&5)), blob: None }];
    let results = TaskResults { origin_epoch: EPOCH, number: 1, results };
    let ask = PermitRequest { nonce: NONCE, function: "tasks.add".into(), interval_us: 100_000, tasks: 7 };
    let failed = TaskResults { number: 2, results: failed.collect(), ..results.clone() };
    let too_small = [
        Failure::too_small("the arguments have 59724 bytes, this node takes 16384", Some(16_384)),
        Failure::result_too_large(20_000, 16_384),
        Failure::too_small("this node does not have the function any more", None),
    ];
    let too_small = too_small.map(|failure| TaskResult { attempt: NEXT, outcome: Err(Box::new(failure)), blob: None });
    let too_small = TaskResults { number: 3, results: too_small.into(), ..results.clone() };
    vec![
        ("available", Message::Available(available)),
        ("available.modules", Message::Available(news)),
        ("fetch", Message::Fetch(fetch)),
        ("fetch.full", Message::Fetch(full)),
        ("fetch.small", Message::Fetch(small)),
        ("fetch.first", Message::Fetch(first)),
        ("lease", Message::Lease(lease())),
        ("return", Message::Return(Return { origin_epoch: EPOCH, attempts: vec![ATTEMPT, NEXT] })),
        ("renew", Message::Renew(Renew { origin_epoch: EPOCH, started: vec![ATTEMPT], queued: vec![NEXT] })),
        ("task-results", Message::TaskResults(results)),
        ("task-results.failures", Message::TaskResults(failed)),
        ("task-results.too-small", Message::TaskResults(too_small)),
        ("result-ack", Message::ResultAck(ResultAck { worker_epoch: WORKER_EPOCH, numbers: vec![1, 2] })),
        ("abort", Message::Abort(Abort { attempts: vec![ATTEMPT] })),
        ("progress", Message::Progress(Progress { attempt: ATTEMPT, done: 7, total: 9 })),
        ("permit-request", Message::PermitRequest(ask)),
        ("permit", Message::Permit(Permit { nonce: NONCE, tasks: 3, wait_us: 40_000 })),
        ("permit.later", Message::Permit(Permit { nonce: NONCE, tasks: 0, wait_us: 9_000_000 })),
        ("log", Message::Log(Log { attempt: ATTEMPT, text: "half done".into() })),
    ]
}

/// A call of `add(2, 3)` and a bin of two calls with a time limit.
fn lease() -> Lease {
    let args = Cbor::encode(&(2, 3));
    let call = LeasedTask { attempt: ATTEMPT, function: 0, args, bin: false, timeout_ms: None, blob: None };
    let args = Cbor::encode(&[(1, 2), (3, 4)]);
    let bin = LeasedTask { attempt: NEXT, args, bin: true, timeout_ms: Some(1_500), ..call.clone() };
    Lease {
        batch: 1,
        functions: vec![LeasedFunction { module: MODULE, name: "add".into() }],
        tasks: vec![call, bin],
        result_bytes_max: (1 << 20) - 4_096,
    }
}

fn jobs() -> Vec<(&'static str, Message)> {
    let refused = |reason| Message::Refused(Refused { number: 1, reason });
    let event = |news| Message::JobEvent(Box::new(JobEvent { job: job(), news, blob: None }));
    let ended = |outcome: Outcome| event(JobNews::Ended(outcome));
    let logged =
        JobNews::Logged { node: node("pi-2"), function: "tasks.add".into(), task: 3, text: "half done".into() };
    let progress =
        JobNews::TaskProgress { node: node("pi-2"), function: "tasks.add".into(), task: 3, done: 7, total: 9 };
    let no_node = JobNews::NoNode { function: "tasks.add".into(), on: vec!["led".into()], nodes: 3 };
    let canvas = Cbor::encode(&call());
    let key = Some("tonight".into());
    let detached = Submit { number: 2, canvas: canvas.clone(), key, detached: Some(true), blob: None, again: None };
    let again = Submit { again: Some(true), ..detached.clone() };
    let revoke = Revoke { job: job(), mine: None };
    let claim = KeyClaim { nonce: NONCE, key: "tonight".into(), durable: true, keepers: DIGEST };
    let free = KeyAnswer { nonce: NONCE, taken: false, keepers: vec![node("pi-1"), node("pi-2")] };
    let taken = KeyAnswer { taken: true, keepers: vec![], ..free.clone() };
    vec![
        ("hello", Message::Hello),
        (
            "submit",
            Message::Submit(Submit {
                number: 1,
                canvas: canvas.clone(),
                key: None,
                detached: None,
                blob: None,
                again: None,
            }),
        ),
        ("submit.detached", Message::Submit(detached)),
        ("submit.again", Message::Submit(again)),
        ("accepted", Message::Accepted(Accepted { number: 1, job: job() })),
        ("refused.queue-full", refused(Refusal::QueueFull)),
        ("refused.storage", refused(Refusal::Storage("no space left on device".into()))),
        ("refused.bad-canvas", refused(Refusal::BadCanvas("no function ad".into()))),
        ("refused.not-resident", refused(Refusal::NotResident)),
        ("refused.draining", refused(Refusal::Draining)),
        ("refused.not-retriable", refused(Refusal::NotRetriable("the job has succeeded".into()))),
        ("refused.elsewhere", refused(Refusal::Elsewhere(node("pi-2")))),
        ("refused.unsure", refused(Refusal::Unsure(node("pi-2")))),
        ("refused.unwritten", refused(Refusal::Unwritten("no space left on device".into()))),
        ("key-claim", Message::KeyClaim(claim)),
        ("key-answer", Message::KeyAnswer(free)),
        ("key-answer.taken", Message::KeyAnswer(taken)),
        ("forget", Message::Forget(Forget { node: node("pi-2") })),
        ("forgotten", Message::Forgotten(Forgotten { node: node("pi-2") })),
        ("job-event.progress", event(JobNews::Progress { done: 7, total: 11 })),
        ("job-event.logged", event(logged)),
        ("job-event.task-progress", event(progress)),
        ("job-event.no-node", event(no_node)),
        ("job-event.callback-failed", event(JobNews::CallbackFailed(error(Cause::Returned)))),
        ("job-event.ended", ended(Ok(Cbor::encode(&90)))),
        ("job-event.ended-failed", ended(Err(error(Cause::Crashed)))),
        ("job-event.ended-never-ran", ended(Err(TaskError { node: None, attempt: 0, ..error(Cause::Revoked) }))),
        ("job-event.retried", event(JobNews::Retried { error: error(Cause::Returned), again_ms: 1_500 })),
        ("job-event.unknown", event(JobNews::Unknown)),
        ("job-event-ack", Message::JobEventAck(job())),
        ("job-query", Message::JobQuery(job())),
        ("job-event.goes-on", event(JobNews::GoesOn)),
        ("revoke", Message::Revoke(revoke)),
        ("revoke.mine", Message::Revoke(Revoke { mine: Some(true), ..revoke })),
    ]
}

fn running_job() -> JobSummary {
    JobSummary {
        number: job().number,
        state: JobState::Running,
        name: "tasks.add".into(),
        done: 7,
        total: 11,
        submitted_unix_ms: Some(1_790_000_000_000),
        ended_unix_ms: None,
        key: None,
        waits: None,
    }
}

/// A job that runs, one of each state that has ended, and why jobs wait.
fn handles() -> Vec<(&'static str, Message)> {
    let running = running_job();
    let ended = [JobState::Succeeded, JobState::Failed, JobState::Revoked].into_iter().zip(2..);
    let ended = ended.map(|(state, count)| JobSummary {
        number: JobId::new(node("pi-1"), EPOCH, count).number,
        state,
        ended_unix_ms: Some(1_790_000_060_000),
        key: Some("nightly".into()),
        ..running.clone()
    });
    let function = || "tasks.add".to_owned();
    let waits = [
        Waits::NoNode { function: function(), missing: vec!["room=kitchn".into()], nodes: 3 },
        Waits::Rate { function: function() },
        Waits::Until { function: function(), ms: Some(60_000), again: true },
        Waits::Slots { function: function(), waiting: 4 },
        Waits::Larger { function: function() },
        Waits::Nodes,
    ];
    let waiting = waits.into_iter().map(|waits| JobSummary {
        state: JobState::Queued,
        done: 0,
        waits: Some(waits),
        ..running.clone()
    });
    let waiting = Jobs { jobs: waiting.collect(), more: false };
    let jobs = Jobs { jobs: [running.clone()].into_iter().chain(ended).collect(), more: true };
    let news =
        |view| Message::StepNews(Box::new(StepNews { job: job(), path: vec![1, 0], view, blob: None, waiting: None }));
    let view = |name: &str, state, members, outcome| Some(StepView { name: name.into(), state, members, outcome });
    let failed = Some(Err(error(Cause::Returned)));
    vec![
        ("jobs-request", Message::JobsRequest(JobsRequest { after: Some(job().number), max: 256 })),
        ("jobs-request.first", Message::JobsRequest(JobsRequest { after: None, max: 256 })),
        ("jobs", Message::Jobs(jobs)),
        ("jobs.waiting", Message::Jobs(waiting)),
        ("retry", Message::Retry(Retry { number: 1, job: job() })),
        ("drain", Message::Drain(Drain { number: 1, for_ms: None })),
        ("drain.for", Message::Drain(Drain { number: 1, for_ms: Some(30_000) })),
        ("step-query", Message::StepQuery(StepQuery { job: job(), path: vec![1, 0], why: None })),
        ("step-query.why", Message::StepQuery(StepQuery { job: job(), path: Vec::new(), why: Some(true) })),
        ("step-news", news(view("tasks.add", StepState::Succeeded, 0, Some(Ok(Cbor::encode(&5)))))),
        ("step-news.running", news(view("group", StepState::Running, 3, None))),
        ("step-news.failed", news(view("tasks.add", StepState::Failed, 0, failed))),
        ("step-news.none", news(None)),
        ("step-news.why", step_news_why()),
    ]
}

/// What the tasks of a job wait for: each reason that is told for steps only.
fn step_news_why() -> Message {
    let (function, node) = (|| "tasks.add".to_owned(), node("pi-2"));
    let waits = [
        Waits::Before { function: function() },
        Waits::Offline { function: function(), node },
        Waits::Memory { function: function() },
        Waits::Module { function: function() },
        Waits::Arrival { function: function(), node, pulled: true },
        Waits::Result { function: function(), node },
        Waits::Origin { function: function() },
        Waits::Runs { function: function(), node },
    ];
    let group = |(waits, tasks)| WaitingTasks { tasks, path: vec![1, tasks], waits: Some(waits) };
    let waiting = Some(waits.into_iter().zip(1..).map(group).collect());
    let view = Some(StepView { name: "chain".into(), state: StepState::Running, members: 2, outcome: None });
    Message::StepNews(Box::new(StepNews { job: job(), path: Vec::new(), view, blob: None, waiting }))
}

fn modules() -> Vec<(&'static str, Message)> {
    let manifest = Manifest::new("tasks", 1_790_000_000_000, b"\0asm", vec![add()].into()).expect("within limits");
    let wasm = ModuleEntry::Wasm(manifest.sign(&deploy_key()));
    let native = ModuleEntry::Native(NativeModule { name: "native".into(), functions: vec![add()].into() });
    let reason = "not signed with this cluster's deploy key".into();
    let refused = ModuleRefused { module: MODULE, reason, asked: None };
    let reason = "the module needs about 248192 bytes of memory, there are 150000".into();
    let answer = ModuleRefused { module: MODULE, reason, asked: Some(true) };
    let manifests = |entry| Message::Manifests(Manifests { digest: DIGEST, total: 2, entries: vec![entry] });
    vec![
        ("manifest-request", Message::ManifestRequest(ManifestRequest { digest: DIGEST })),
        ("manifests.wasm", manifests(wasm)),
        ("manifests.native", manifests(native)),
        ("module-refused", Message::ModuleRefused(refused)),
        ("module-refused.asked", Message::ModuleRefused(answer)),
    ]
}

/// Each message with a value that is pulled.
fn blobs() -> Vec<(&'static str, Message)> {
    let mut leased = lease();
    leased.tasks.truncate(1);
    (leased.tasks[0].args, leased.tasks[0].blob) = (Cbor::null(), Some(Box::new(BLOB)));
    let result = TaskResult { attempt: ATTEMPT, outcome: Ok(Cbor::null()), blob: Some(Box::new(BLOB)) };
    let results = TaskResults { origin_epoch: EPOCH, number: 3, results: vec![result] };
    let canvas = Cbor::null();
    let submit = Submit { number: 3, canvas, key: None, detached: None, blob: Some(BLOB), again: None };
    let ended = JobEvent { job: job(), news: JobNews::Ended(Ok(Cbor::null())), blob: Some(BLOB) };
    vec![
        ("lease.blob", Message::Lease(leased)),
        ("task-results.blob", Message::TaskResults(results)),
        ("submit.blob", Message::Submit(submit)),
        ("job-event.blob", Message::JobEvent(Box::new(ended))),
    ]
}

/// How a value and the code of a module are pulled.
fn content() -> Vec<(&'static str, Message)> {
    let (id, module) = (BLOB.id, MODULE.into());
    let request = ContentRequest { content: id, first: 8, count: 16, piece_bytes: BLOB.piece_bytes };
    let of_module = ContentRequest { content: module, first: 0, count: 16, piece_bytes: CHUNK_BYTES };
    let piece = ContentPiece { content: id, offset: 8 * BLOB.piece_bytes, bytes: b"piece".to_vec() };
    let chunk = ContentPiece { content: module, offset: CHUNK_BYTES, bytes: b"last chunk".to_vec() };
    vec![
        ("content-request", Message::ContentRequest(request)),
        ("content-request.module", Message::ContentRequest(of_module)),
        ("content-piece", Message::ContentPiece(piece)),
        ("content-piece.module", Message::ContentPiece(chunk)),
        ("content-gone", Message::ContentGone(id)),
    ]
}

/// `add.s(2, 3)`.
fn call() -> Canvas {
    Canvas::task("add", Cbor::encode(&(2, 3)))
}

/// A vector of each form of canvas, by the name of its file.
fn canvases() -> Vec<(&'static str, Canvas)> {
    let function = || "tasks.add".to_owned();
    let items = || Cbor::encode(&[(1, 2), (3, 4)]);
    let task = Task {
        function: function(),
        args: Cbor::encode(&(2,)),
        kwargs: vec![("y".into(), Cbor::encode(&3))],
        immutable: true,
    };
    let full = Canvas { form: Form::Task(task), options: options(), link: vec![call()], on_error: vec![call()] };
    let size = Form::Chunks { function: function(), items: items(), split: Split::Size(2) };
    vec![
        ("canvas-task", call()),
        ("canvas-task.full", full),
        ("canvas-chain", Canvas::chain(vec![call(), call()])),
        ("canvas-group", Canvas::group(vec![call(), call()])),
        ("canvas-chord", Canvas::chord(vec![call()], Canvas::task("tsum", Cbor::empty_array()))),
        ("canvas-map", Form::Map { function: function(), items: Cbor::encode(&[1, 2]) }.into()),
        ("canvas-starmap", Form::Starmap { function: function(), items: items() }.into()),
        ("canvas-chunks", Form::Chunks { function: function(), items: items(), split: Split::Bins(2) }.into()),
        ("canvas-chunks.size", size.into()),
    ]
}

/// Every option set, each to another value.
fn options() -> Options {
    Options {
        retries: Some(1),
        timeout_ms: Some(2),
        priority: Some(3),
        countdown_ms: Some(4),
        on: vec!["led".into()],
        each: Some(true),
        partial: Some(false),
        backoff_ms: Some(5),
        backoff_max_ms: Some(6),
        jitter: Some(true),
        expires_ms: Some(7),
        eta_unix_ms: Some(8),
        deadline_ms: Some(9),
        rate: Some(Rate { tasks: 10, per_ms: 11 }),
    }
}

#[test]
fn messages_are_encoded_as_in_their_files() {
    for (name, message) in messages() {
        assert_golden(name, &message, message_kind(&message));
    }
}

#[test]
fn canvases_are_encoded_as_in_their_files() {
    for (name, canvas) in canvases() {
        let (index, form) = form_kind(&canvas.form);
        check_file(name, &minicbor::to_vec(&canvas).expect("encodes"));
        assert_eq!(Canvas::from_wire(&read(name)), Ok(canvas.clone()), "{name}");
        assert_golden_form(name, &canvas.form, (index, form));
    }
}

#[test]
fn a_replacement_is_encoded_as_in_its_file() {
    let result = Canvas::chain(vec![call(), call()]).to_replacement();
    check_file("result-replacement", result.as_bytes());
    let canvas = Canvas::replacement(&Cbor::from_encoded(read("result-replacement")));
    assert_eq!(canvas, Some(Ok(Canvas::chain(vec![call(), call()]))));
}

#[test]
fn every_kind_has_a_vector_and_every_file_is_one() {
    let (messages, canvases) = (messages(), canvases());
    let all = messages.iter().map(|(_, message)| message);
    assert_all(MESSAGES, all.clone().map(message_kind));
    let refusals = all.clone().filter_map(|message| match message {
        Message::Refused(refused) => Some(refusal_kind(&refused.reason)),
        _ => None,
    });
    assert_all(REFUSALS, refusals);
    let news = all.clone().filter_map(|message| match message {
        Message::JobEvent(event) => Some(news_kind(&event.news)),
        _ => None,
    });
    assert_all(NEWS, news);
    let causes = all.filter_map(|message| match message {
        Message::TaskResults(results) => Some(results.results.iter().filter_map(|r| r.outcome.as_ref().err())),
        _ => None,
    });
    assert_all(CAUSES, causes.flatten().map(|failure| cause_kind(&failure.cause)));
    assert_all(FORMS, canvases.iter().map(|(_, canvas)| form_kind(&canvas.form)));

    let names = messages.iter().map(|(name, _)| *name).chain(canvases.iter().map(|(name, _)| *name));
    let expected: BTreeSet<String> =
        names.chain(["packet", "result-replacement"]).map(|name| format!("{name}.hex")).collect();
    assert_eq!(files(), expected);
}

/// Two messages from `pi-1` to `pi-2`, sealed with the key 00 01 … 1f as packet 7 of its epoch.
#[test]
fn a_packet_is_sealed_as_in_its_file() {
    let key = ClusterKey::new(core::array::from_fn(|at| at as u8));
    assert_eq!((key.key_id(), key.mqtt_password().as_str()), (KEY_ID, MQTT_PASSWORD));
    let mut packet = Vec::new();
    let to = Address::Node(node("pi-2"));
    let (sender, challenge, proof) = (node("pi-1"), NONCE, Some(DIGEST));
    let envelope = Envelope { sender, to, epoch: EPOCH, sequence: 7, challenge, proof };
    seal(&key, &envelope, &mut packet, |buf| {
        put(buf, &Message::Hello);
        put(buf, &Message::JobQuery(job()));
    });
    check_file("packet", &packet);

    let mut packet = read("packet");
    let (header, plaintext) = open(core::slice::from_ref(&key), node("pi-2"), &mut packet).expect("opens");
    assert_eq!((header.sender, header.destination), (node("pi-1"), Some(node("pi-2"))));
    assert_eq!((header.epoch, header.sequence, header.key_id), (EPOCH, 7, KEY_ID));
    assert_eq!((header.challenge, header.proof), (NONCE, Some(DIGEST)));
    let opened: Vec<_> = read_messages(plaintext).collect();
    assert_eq!(opened, [Ok(Message::Hello), Ok(Message::JobQuery(job()))]);
}

const KEY_ID: u8 = 195;
const MQTT_PASSWORD: &str = "334e725df4214265970c8497d29223c9";

#[test]
fn the_manifest_in_its_file_is_signed() {
    let Message::Manifests(manifests) = minicbor::decode(&read("manifests.wasm")).expect("decodes") else {
        panic!("manifests.wasm holds another message");
    };
    let [ModuleEntry::Wasm(signed)] = manifests.entries.as_slice() else {
        panic!("manifests.wasm holds another entry");
    };
    assert_eq!(signed.verify(&DeployPublic(deploy_key().verifying_key().to_bytes())), Ok(()));
}

/// New fields are optional and come last: an older reader skips them, a newer one misses none.
#[test]
fn unknown_fields_are_skipped_and_missing_optional_ones_are_unset() {
    let death = Message::Death(Death { connection: 1, leaving: false, holds_no_key: None });
    let of_the_future = [0x82, 0x01, 0x81, 0x84, 0x01, 0xf4, 0xf6, 0x63, b'n', b'e', b'w'];
    assert_eq!(minicbor::decode::<Message>(&of_the_future).expect("decodes"), death);

    let task = lease().tasks.swap_remove(0);
    let bytes = minicbor::to_vec(&task).expect("encodes");
    assert_eq!(bytes[0], 0x84, "an unset last field is left out");
    assert_eq!(minicbor::decode::<LeasedTask>(&bytes).expect("decodes"), task);
}

/// What a later version might send: the packet's messages before and behind it count, and so does what is known of it.
#[test]
fn what_a_later_version_sends_is_taken_as_far_as_it_is_known() {
    let item = |text: &str| decode_hex(&text.replace(' ', ""));
    let unknown_message = item("82 18c8 81 83 01 61 78 a1 01 02"); // [200, [[1, "x", {1: 2}]]]
    let unknown_news = item("82 0f 81 82 82 64 70692d31 01 82 18c8 80"); // [15, [[["pi-1", 1], [200, []]]]]
    let unknown_form = item("82 181e 81 63 6f6464"); // [30, ["odd"]], a JobsRequest that is a text
    let mut packet = minicbor::to_vec(Message::Hello).expect("encodes");
    for skipped in [&unknown_message, &unknown_news, &unknown_form] {
        packet.extend_from_slice(skipped);
        put(&mut packet, &Message::VitalsRequest);
    }
    let read: Vec<_> = read_messages(&packet).collect();
    let (skipped, known) = (Err(PacketError::Unknown), Ok(Message::VitalsRequest));
    let then = [skipped.clone(), known.clone()];
    assert_eq!(read, [&[Ok(Message::Hello)][..], &then, &then, &then].concat());

    // A refusal, a cause and a state that it does not know.
    let refused = item("82 0e 81 82 07 82 18c8 81 61 78"); // [14, [[7, [200, ["x"]]]]]
    let expected = Message::Refused(Refused { number: 7, reason: Refusal::Other(200) });
    assert_eq!(read_messages(&refused).collect::<Vec<_>>(), [Ok(expected)]);
    let error = TaskError { cause: Cause::Other, ..error(Cause::Expired) };
    let mut bytes = minicbor::to_vec(error_with_cause(200)).expect("encodes");
    assert_eq!(minicbor::decode::<TaskError>(&bytes).expect("decodes"), error);
    bytes = minicbor::to_vec((1_u8, 200_u8, "add", 0_u8, 1_u8)).expect("encodes");
    assert_eq!(minicbor::decode::<JobSummary>(&bytes).expect("decodes").state, JobState::Other);
}

/// [`error`] as a tuple, with a cause of this number.
fn error_with_cause(cause: u32) -> impl Encode<()> {
    ("tasks.add", 3_u8, "pi-2", 1_u8, cause, "integer overflow", [0_u8, 2])
}

/// What `docs/wire.md` says about topics.
#[test]
fn topics_are_as_documented() {
    let topics = Topics::new(node("c1"));
    let written = [Address::Node(node("pi-1")), Address::Birth(node("pi-1")), Address::All].map(|to| topics.topic(to));
    assert_eq!(written, ["broccoli/c1/pi-1/in", "broccoli/c1/pi-1/birth", "broccoli/c1/_all"]);
    assert_eq!(
        topics.subscriptions(node("pi-1"), true),
        ["broccoli/c1/pi-1/in", "broccoli/c1/_all", "broccoli/c1/+/birth"]
    );
}

/// The CDDL names every kind with its number: `[4, [lease]]`.
#[test]
fn the_schema_names_every_kind() {
    let schema = fs::read_to_string(docs().join("wire.cddl")).expect("docs/wire.cddl");
    for (index, name) in MESSAGES {
        let line = schema.lines().find(|line| line.ends_with(&format!("; message {index}")));
        let line = line.unwrap_or_else(|| panic!("docs/wire.cddl has no message {index}, {name}"));
        assert!(line.contains(&format!("[{index}, ")), "{line} is not message {index}, {name}");
    }
}

/// Files and headings that the documents link to are there.
#[test]
fn the_documents_have_no_dead_links() {
    let root = docs().join("..");
    let mut pages = pages_of(&root);
    pages.extend(pages_of(&docs()));
    for entry in fs::read_dir(root.join("crates")).expect("crates").flatten() {
        pages.extend(pages_of(&entry.path()));
    }
    for page in pages {
        let text = text_of(&page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            assert!(target.exists(), "{}: there is no {file}", page.display());
            let found = anchor.is_empty() || text_of(&target).lines().any(|line| anchor_of(line) == anchor);
            assert!(found, "{}: {} has no heading #{anchor}", page.display(), target.display());
        }
    }
}

/// The documents in a folder.
fn pages_of(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let files = files.flatten().map(|entry| entry.path());
    files.filter(|file| file.extension().is_some_and(|end| end == "md")).collect()
}

/// How a heading is linked to: lower case, hyphens for spaces, no punctuation.
fn anchor_of(line: &str) -> String {
    let heading = line.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| line.starts_with('#') && (c.is_alphanumeric() || " -_".contains(*c)));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn text_of(page: &Path) -> String {
    fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

fn assert_golden<T>(name: &str, value: &T, (index, kind): (u32, &str))
where
    T: Encode<()> + for<'b> Decode<'b, ()> + PartialEq + Debug,
{
    assert!(name == kind || name.starts_with(&format!("{kind}.")), "{name} is a {kind}");
    let bytes = minicbor::to_vec(value).expect("encodes");
    check_file(name, &bytes);
    assert_eq!(minicbor::decode::<T>(&read(name)).expect("decodes"), *value, "{name}");
    assert_index(name, &bytes, index);
}

fn assert_golden_form(name: &str, form: &Form, (index, kind): (u32, &str)) {
    let kind = format!("canvas-{kind}");
    assert!(name == kind || name.starts_with(&format!("{kind}.")), "{name} is a {kind}");
    assert_index(name, &minicbor::to_vec(form).expect("encodes"), index);
}

/// A variant is `[index, fields]`.
fn assert_index(name: &str, bytes: &[u8], index: u32) {
    let mut decoder = minicbor::Decoder::new(bytes);
    assert_eq!((decoder.array().ok(), decoder.u32().ok()), (Some(Some(2)), Some(index)), "{name}");
}

fn assert_all(kinds: &[(u32, &'static str)], found: impl Iterator<Item = (u32, &'static str)>) {
    let expected: BTreeSet<_> = kinds.iter().copied().collect();
    assert_eq!(found.collect::<BTreeSet<_>>(), expected, "each kind has a vector");
}

/// Compares a file with what it should be, or writes it.
fn check_file(name: &str, bytes: &[u8]) {
    let notation =
        if name == "packet" { "header, ciphertext, tag".into() } else { minicbor::display(bytes).to_string() };
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<&str> = digits.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    let text = format!("# {name}: {notation}\n{}\n", lines.join("\n"));
    let path = path(name);
    if std::env::var_os("GOLDEN").is_some_and(|mode| mode == "write") {
        fs::write(&path, &text).expect("writes");
    }
    let file = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(file, text, "{name} has changed on the wire");
}

/// The bytes in a file: hexadecimal digits; lines with `#` are for people.
fn read(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(path(name)).expect("the file was checked");
    decode_hex(&text.lines().filter(|line| !line.starts_with('#')).collect::<String>())
}

fn decode_hex(digits: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn files() -> BTreeSet<String> {
    let entries = fs::read_dir(dir()).expect("tests/golden").flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn path(name: &str) -> PathBuf {
    dir().join(format!("{name}.hex"))
}

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}
