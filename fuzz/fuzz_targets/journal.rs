//! The journal that a new incarnation reads: nothing in it causes a panic, damage is reported by job, and the remaining
//! jobs work.
//!
//! ```text
//! input = [job, number, record: bytes] …     CBOR sequence; later records of a key replace earlier ones
//! ```
#![no_main]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use broccoli_abi::{Arg, Function, Type};
use broccoli_core::{Action, Config, Input, Instant, Limits, Node, RecordKey, Timing};
use broccoli_fuzz::{Random, mutate_cbor, replace};
use broccoli_proto::message::Failure;
use broccoli_proto::module::{DeployPublic, NativeModule};
use broccoli_proto::seal::ClusterKey;
use broccoli_proto::{Cause, Epoch};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use minicbor::bytes::ByteSlice;
use minicbor::{Decoder, Encoder};

type Journal = BTreeMap<RecordKey, Vec<u8>>;

/// Most actions of one incarnation.
const ACTIONS_MAX: usize = 100;
/// Canvases of the journals from which mutations start.
const CANVASES: [&str; 6] = [
    "chain(add.s(4, 4), fail.s(), add.s(10))",
    "chord(add.s(i, i) for i in range(5))(echo.s())",
    "group(add.s(1, 2).set(retries=2), fail.s(1), group([]), echo.map([1, 2, 3]))",
    "add.chunks(zip(range(6), range(6)), 4).link(echo.s()).on_error(echo.s())",
    "group(chain(add.s(1, 1), echo.s(), echo.s()), chord([], echo.s())) | echo.s()",
    "fail.s(1).set(retries=3)",
];

// Sometimes a journal that a node has written: only this one has the current format.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let fresh = size < 8 || Random::new(seed).one_in(50);
    let journal = fresh.then(|| encode(&written(seed)));
    journal.and_then(|bytes| replace(data, max_size, &bytes)).unwrap_or_else(|| mutate_cbor(data, size, max_size, seed))
});

fuzz_target!(|data: &[u8]| {
    let Some(mut journal) = decode(data) else { return };
    // Each incarnation reads what the previous one left.
    for epoch in 2..4 {
        let mut node = node(epoch);
        let records = journal.clone();
        let Ok(recovery) = node.recover(Instant::default(), records.into_iter()) else { return };
        assert!(recovery.damaged.iter().all(|damage| !damage.reason.is_empty()));
        node.handle_input(Instant::default(), Input::Connected);
        live(&mut node, &mut journal, &mut Random::new(1), ACTIONS_MAX);
    }
});

/// Keeps the journal of a node and runs its tasks, for at most `actions_max` actions.
fn live(node: &mut Node, journal: &mut Journal, random: &mut Random, actions_max: usize) {
    let mut now = Instant::default();
    let mut left = actions_max;
    while left > 0 {
        while let Some(action) = node.poll_action() {
            left = left.saturating_sub(1);
            let answer = match action {
                Action::Execute(execute) => {
                    let fails = execute.function.name == "fail" && !random.one_in(3);
                    let failure = Failure::new(Cause::Returned, "no");
                    Input::Executed { run: execute.run, outcome: if fails { Err(failure) } else { Ok(execute.args) } }
                }
                Action::Persist { number, writes } => {
                    for write in writes {
                        match write.value {
                            Some(value) => journal.insert(write.key, value.to_vec()),
                            None => journal.remove(&write.key),
                        };
                    }
                    Input::Persisted(number)
                }
                _ => continue,
            };
            node.handle_input(now, answer);
            if left == 0 {
                return;
            }
        }
        let mut packet = Vec::new();
        while node.poll_transmit(now, &mut packet).is_some() {}
        node.validate();
        match node.poll_timeout() {
            Some(next) => now = now.max(next),
            None => return,
        }
        node.handle_input(now, Input::Timeout);
        left = left.saturating_sub(1);
    }
}

/// The journal of a node that was killed while its jobs ran.
fn written(seed: u32) -> Journal {
    let mut random = Random::new(seed);
    let mut node = node(1);
    let mut journal = Journal::new();
    let recovered = node.recover(Instant::default(), std::iter::empty());
    assert!(recovered.is_ok(), "an empty journal is one");
    for _ in 0..=random.below(3) {
        let program = broccoli_text::parse(CANVASES[random.below(CANVASES.len())]).expect("is a canvas");
        let submitted = node.submit_detached(Instant::default(), &program.canvas);
        assert!(submitted.is_ok(), "{submitted:?}");
    }
    let actions_max = 1 + random.below(40);
    live(&mut node, &mut journal, &mut random, actions_max);
    journal
}

fn node(epoch: u8) -> Node {
    let key = |byte| ClusterKey::new([byte; 32]);
    let config = Config {
        name: "pi-1".parse().expect("a name"),
        keys: vec![key(1)],
        deploy_public: DeployPublic([0; 32]),
        slots: 2,
        features: Vec::new(),
        natives: vec![natives()],
        resident: true,
        durable: true,
        holds_code: true,
        watches: true,
        version: String::new(),
        timing: Timing::FAST,
        limits: Limits::host(),
    };
    Node::new(config, Epoch([epoch; 16]), u64::from(epoch), Instant::default())
}

fn natives() -> NativeModule {
    let arg = |name: &str| Arg { name: name.into(), ty: Type::Any };
    let function = |name: &str, args: &[&str]| Function {
        name: name.into(),
        args: args.iter().map(|name| arg(name)).collect(),
        ret: Type::Any,
        doc: String::new(),
    };
    let functions = vec![function("add", &["x", "y"]), function("echo", &["x"]), function("fail", &["x"])];
    NativeModule { name: "tasks".into(), functions: functions.into() }
}

fn encode(journal: &Journal) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in journal {
        let mut encoder = Encoder::new(&mut bytes);
        let item = (key.job, key.number, <&ByteSlice>::from(value.as_slice()));
        encoder.encode(item).expect("writing to a Vec cannot fail");
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Journal> {
    let mut decoder = Decoder::new(bytes);
    let mut journal = Journal::new();
    while decoder.position() < bytes.len() {
        let (job, number, value): (u64, u32, &ByteSlice) = decoder.decode().ok()?;
        journal.insert(RecordKey { job, number }, value.to_vec());
    }
    Some(journal)
}
